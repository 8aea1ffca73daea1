"""Whether the stated errors are correct: sizes and verdict, curves, bins, joint coverage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xplabels import figures
from xplabels.core.labels import Label, label_of
from xplabels.validation import PREDICTED, Validation
from xplabels.validation.finding import Cell, Finding, Section, with_unit
from xplabels.validation.verdict import (
    BIN_STARS,
    FALSE_ALARMS,
    FEW,
    MAGNITUDES,
    MANY,
    RIGHT,
    SLIGHTLY,
    TOGETHER,
    TOLERANCE,
    USEFUL,
    WRONG,
    Size,
    Statement,
    Verdict,
    verdict_of,
)

COLOURS = {RIGHT: "pass", SLIGHTLY: "partly", WRONG: "fail", FEW: "partly"}


def badge_of(verdict: Verdict) -> Cell:
    """The verdict in a few words, coloured."""
    return Cell(f"error bars: {verdict.headline}", COLOURS[verdict.word])


def calibration_findings(validation: Validation) -> list[Finding]:
    """Two sections: where the errors fail; and the rule, curves and z in detail."""
    verdict, names = verdict_of(validation), validation.names
    section = Section("calibration", "Where the error bars fail", badge=badge_of(verdict))
    section.paragraphs.append(
        "How far the stated errors are from those with which the intervals would hold their share "
        "of the stars, by label. "
        + (
            "These are off by more than chance:"
            if verdict.off
            else "No label is off by more than chance, over all stars or in a bin."
        )
    )
    section.missed = verdict.off
    detail = Section("rule", "The error bars in detail", missed=verdict.lines, folded=True)
    detail.paragraphs += [
        "The size of the error in the stated errors is the stated half-width over the one with "
        "which the interval would hold its share of the stars, less one; the known labels' own "
        f"errors are allowed for. {verdict.judged_sizes} sizes are judged: each label's, that of "
        "all together where correlations are predicted, and those in bins, at 68.3 and 95.4 %. "
        "The rule allows for the number of sizes judged: the probability that errors which are "
        f"exactly right are called anything else is at most {100 * FALSE_ALARMS:g} %.",
        f"{WRONG.capitalize()}: off by more than {100 * TOLERANCE:g} %, all over the interval, for "
        f"the stars as a whole or in bins of at least {100 * MANY:g} % of them. "
        f"{SLIGHTLY.capitalize()}: significantly off, but by less, or for fewer stars. "
        f"{RIGHT.capitalize()}: consistent with zero, or significantly less than "
        f"{100 * TOLERANCE:g} %. {FEW.capitalize()}: zero and more than {100 * USEFUL:g} % are "
        "both possible.",
        "Bins are judged along "
        + (", ".join(map(_axis_title, verdict.judged)) or "nothing")
        + f"; neighbours are merged until they hold {BIN_STARS} stars. Along a known label "
        "predictions that shrink to the mean are off by more than stated at its ends, even if each "
        "is a proper posterior distribution; along a predicted one they must not be. For the "
        "estimate without shrinkage it is the other way round. The other axes are shown only.",
        "The predictive distribution is a Student-t fixed by the two stated half-widths (a "
        "Gaussian where the outer is twice the inner). With heavier tails, the standard "
        "deviation of z exceeds 1 although the intervals are correct.",
    ]  # fmt: skip
    _add_overall(detail, verdict)
    for axis in verdict.bins:
        _add_bins(detail, verdict, axis)
    shown = {
        axis: {name: _bin_sizes(bins) for name, bins in verdict.bins[axis].items() if bins}
        for axis in verdict.judged
        if any(len(bins) > 1 for bins in verdict.bins[axis].values())
    }
    section.add_picture(
        "sizes",
        "Size of the error in the stated errors",
        "Stated over needed half-width, less one, for all stars. Thick: standard error; thin: the "
        "interval that counts for the verdict; grey: tolerance.",
        lambda: figures.sizes(
            list(verdict.overall),
            np.array([whole.sizes for whole in verdict.overall.values()]),
            validation.n,
            TOLERANCE,
        ),
    )
    if shown:
        section.add_picture(
            "sizes_bins",
            "Size of the error in bins",
            "The same in the bins that are judged, at 68.3 % (filled) and 95.4 % (open); orange: "
            "slightly off, red: wrong.",
            lambda: figures.sizes_by_bins(shown, TOLERANCE),
        )
    detail.add_picture(
        "calibration",
        "Calibration at every level",
        "Left: observed minus stated coverage of central intervals. Right: probability "
        "integral transform, flat for correct errors. Grey: 95 % of correct predictions.",
        lambda: figures.calibration_curve(names, validation.column("pit")),
    )
    detail.add_picture(
        "z",
        "Residuals over errors",
        "z with the label's error included, the unit Gaussian, and the distribution stated by "
        "the two half-widths; below with the tails on a logarithmic scale. As figure 7 of Fallows "
        "& Sanders (2024).",
        lambda: figures.z_histograms(names, validation.column("z"), validation.column("dof")),
    )
    metrics = {
        "bins": {
            axis: {
                name: [b.to_dict() | {"different": b.different} for b in row]
                for name, row in labels.items()
            }
            for axis, labels in validation.bins.items()
        },
        "calibration": {"passed": verdict.word == RIGHT, "violations": verdict.off},
        "verdict": verdict.to_dict(),
    }
    text = "\n  ".join([f"error bars: {verdict.headline}", *verdict.lines])
    return [Finding(metrics, text, section), Finding(section=detail)]


def _add_overall(section: Section, verdict: Verdict) -> None:
    """Sizes at both levels, with their intervals, over all stars."""
    rows: list[list[str | Cell]] = [
        [
            label,
            whole.counted,
            *(cell for size in whole.sizes for cell in _cells(size, judged=True)),
        ]
        for label, whole in verdict.overall.items()
    ]
    section.add_table(
        "Size of the error in the stated errors [%], negative where they are too small; ± is the "
        "standard error",
        ["", "N", "68.3 %", "interval", "95.4 %", "interval"],
        rows,
    )


def _add_bins(section: Section, verdict: Verdict, axis: str) -> None:
    """Sizes at 68.3 % along one axis: a row per bin, a column per label."""
    by_label, judged = verdict.bins[axis], axis in verdict.judged
    limits = sorted({(b.low, b.high) for bins in by_label.values() for b in bins})
    if len(limits) < 2:
        return
    rows: list[list[str | Cell]] = []
    for low, high in limits:
        at_low = [next((b for b in bins if b.low == low), None) for bins in by_label.values()]
        fullest = max((b for b in at_low if b is not None), key=lambda b: b.n)
        cells = ["-" if b is None else _cell(b, judged) for b in at_low]
        rows.append([f"{low:.5g} to {high:.5g}", fullest.counted, *cells])
    title = _axis_title(axis)
    section.add_table(
        f"Size of the error in the stated errors [%] along {title}"
        + ("" if judged else ", not judged"),
        [title, "N", *by_label],
        rows,
        folded=not judged,
    )


def _cell(part: Statement, judged: bool) -> Cell:
    """The size of a bin: if judged, the one that is off, coloured; else that at 68.3 %."""
    size = part.size if judged else part.sizes[0]
    text = ("95.4 %: " if size is part.sizes[1] else "") + _cells(size, judged=False)[0].text
    return Cell(text, COLOURS[part.word] if judged and part.word != FEW else "")


def _cells(size: Size, judged: bool) -> tuple[Cell, Cell]:
    """A size with its standard error, and its simultaneous interval."""
    value, error, low, high = (100 * number for number in size)
    digits = int(error < 2)
    text = f"{value:+.{digits}f} ± {error:.{digits}f}" if np.isfinite(error) else f"{value:+.0f}"
    return Cell(text, COLOURS[size.word] if judged else ""), Cell(f"{low:+.0f} to {high:+.0f}")


def _bin_sizes(bins: Sequence[Statement]) -> figures.Sizes:
    """Edges [n, 2] of bins, sizes [n, 2, 4], colours at both levels, and number of stars."""
    return (
        np.array([(b.low, b.high) for b in bins]),
        np.array([b.sizes for b in bins]),
        [
            ["" if size.word in (RIGHT, FEW) else COLOURS[size.word] for size in b.sizes]
            for b in bins
        ],
        sum(b.n for b in bins),
    )


def joint_finding(validation: Validation) -> Finding | None:
    """Joint coverage of all labels, or None where no correlations were predicted."""
    joint = validation.joint
    if joint is None:
        return None
    verdict = verdict_of(validation)
    word = verdict.words[TOGETHER]
    line = next(line for line in verdict.lines if line.startswith(TOGETHER))
    badge = Cell(word, COLOURS[word])
    section = Section("joint", "All labels together", badge=badge, missed=[line], folded=True)
    section.paragraphs.append(
        f"The ellipsoid in {len(joint.names)} dimensions "
        f"({', '.join(map(with_unit, joint.names))}) given by the stated errors and correlations "
        "should contain its stated share of the stars. The size of the error is that of one factor "
        "on all stated errors."
    )
    rows = [
        [title, f"{scale * joint.value[key]:.{digits}f} ± {scale * joint.error[key]:.{digits}f}"]
        for key, title, scale, digits in (
            ("coverage_68", "inside 68.3 % [%]", 100, 2),
            ("coverage_95", "95.4 % [%]", 100, 2),
            ("pit_distance", "distance of the PIT", 1, 4),
        )
    ]
    caption = f"Joint coverage, N = {joint.n:,}; ± is the bootstrap error"
    section.add_table(caption, ["", "share"], rows)
    section.add_picture(
        "joint",
        "Joint coverage at every level",
        "Observed minus stated share of stars inside the ellipsoid. Grey: 95 % of correct "
        "predictions.",
        lambda: figures.joint_curve(joint.content[0]),
    )
    return Finding({"joint": joint.to_metrics()}, section=section)


def _axis_title(axis: str) -> str:
    """An axis in words: ``fe_h_predicted`` -> ``predicted fe_h [dex]``."""
    base = axis.removesuffix(PREDICTED)
    unit = label_of(axis if isinstance(axis, Label) else base).unit
    title = Label(MAGNITUDES.get(base, base), "mag" if base in MAGNITUDES else unit).with_unit
    return f"predicted {title}" if base != axis else title
