"""Whether the stated errors are correct: margins, verdict, curves, bins, joint coverage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xplabels import figures
from xplabels.calibration.joint import JOINT_MARGIN
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.errors import counted
from xplabels.core.labels import LABELS
from xplabels.core.scores import BIN_SIGMAS, BIN_STARS, Bin
from xplabels.validation import PREDICTED, Validation
from xplabels.validation.finding import (
    Cell,
    Finding,
    Section,
    bin_rows,
    format_score,
    with_unit,
)

COVERAGE_MARGIN = 0.025
ROBUST_STD_Z_RANGE = (0.95, 1.05)
TESTED_AXES = ("g_mag", "logg", "fe_h")
CHOSEN_AXES = ("g_mag", "logg" + PREDICTED, "fe_h" + PREDICTED)
"""The same for stars selected by their predicted labels."""
LEVELS = {"coverage_68": LEVEL_68, "coverage_95": LEVEL_95}

FEW_BINS = 0.05
"""Share of the large bins that may fail where the errors are otherwise correct."""
ENOUGH_STARS = 2000
"""With fewer, the margins are two standard errors or less, and even correct errors miss some."""


def missed_margins(validation: Validation, axes: Sequence[str] = TESTED_AXES) -> list[str]:
    """Where the stated errors miss their margins, one line each.

    Coverages must lie within 2.5 points of 68.3 and 95.4 %, the robust std of z within
    0.95-1.05, and the 68.3 % coverage in every bin of at least 200 stars along ``axes`` within
    the larger of 6 points and 3.5 binomial sigma. Joint coverages, where correlations are
    predicted, must lie within 3 points. The validation's ``margin`` multiplies every tolerance.
    """
    found, margin = [], validation.margin
    for name, scores in validation.labels.items():
        if scores.n == 0:
            continue
        allowed = margin * COVERAGE_MARGIN
        found += [
            f"{name}: {key} {scores[key]:.4f}, allowed {level:.4f} +- {allowed:.4f}"
            for key, level in LEVELS.items()
            if abs(scores[key] - level) > allowed
        ]
        low, high = (1 + margin * (edge - 1) for edge in ROBUST_STD_Z_RANGE)
        if not low <= scores["robust_std_z"] <= high:
            found.append(
                f"{name}: robust_std_z {scores['robust_std_z']:.3f}, allowed {low:.3f}-{high:.3f}"
            )
    if validation.joint is not None:
        found += validation.joint.violations(margin)
    return found + failing_bins(validation, axes)


def large_bins(
    validation: Validation, axes: Sequence[str] = TESTED_AXES
) -> Iterator[tuple[str, str, Bin]]:
    """Axis, label and bin of every bin of enough stars."""
    for axis in axes:
        for name, row in validation.bins.get(axis, {}).items():
            yield from ((axis, name, one) for one in row if one.large)


def failing_bins(validation: Validation, axes: Sequence[str] = TESTED_AXES) -> list[str]:
    """The part of :func:`missed_margins` that is about bins."""
    return [
        f"{name}: coverage_68 {one.scores['coverage_68']:.3f} of {one.counted} stars at "
        f"{axis} {one.low:g} to {one.high:g}, allowed {LEVEL_68:.3f} "
        f"+- {one.tolerance(validation.margin):.3f}"
        for axis, name, one in large_bins(validation, axes)
        if not one.within(validation.margin)
    ]


def verdict(validation: Validation) -> Cell:
    """Calibrated, calibrated but for some bins, not calibrated, or too few stars to tell."""
    bins = len(failing_bins(validation))
    others = len(missed_margins(validation)) - bins
    large = sum(1 for _ in large_bins(validation))
    if not others and not bins:
        return Cell("calibrated", "pass")
    if bins > FEW_BINS * large:
        return Cell("not calibrated", "fail")
    if not others:
        return Cell(f"calibrated, but for {bins} of {large} bins", "partly")
    scored = [scores for scores in validation.labels.values() if scores.n]
    fewest = min(scores.n for scores in scored)
    significant = any(
        abs(scores[key] - level) > BIN_SIGMAS * (level * (1 - level) / scores.n) ** 0.5
        for scores in scored
        for key, level in LEVELS.items()
    )
    if fewest < ENOUGH_STARS and not significant:
        return Cell(f"too few stars to tell: {fewest:,}", "partly")
    return Cell("not calibrated", "fail")


def calibration_finding(validation: Validation) -> Finding:
    """Margins, calibration curves, z and coverage in bins."""
    missed, names, margin = missed_margins(validation), validation.names, validation.margin
    section = Section("calibration", "Calibration", badge=verdict(validation), missed=missed)
    text = (
        "Stated 68.3 and 95.4 % intervals must cover within 2.5 points, the robust standard "
        "deviation of z must lie within 0.95-1.05, and in every bin of at least "
        f"{BIN_STARS} stars along {', '.join(_axis_title(a) for a in TESTED_AXES)} the 68.3 % "
        "interval must cover within the larger of 6 points and 3.5 binomial sigma. The labels' "
        f"own errors are included. If at most {100 * FEW_BINS:g} % of these bins miss and nothing "
        f"else, the errors are called calibrated but for them. With fewer than {ENOUGH_STARS:,} "
        "stars even correct errors miss a margin: they are called not calibrated only where a "
        f"coverage is off by {BIN_SIGMAS} binomial sigma."
    )
    if margin != 1:
        text += f" Here every tolerance counts {margin:g} times."
    section.paragraphs += [
        text,
        "The predictive distribution is a Student-t fixed by the two stated half-widths (a "
        "Gaussian where the outer is twice the inner). With heavier tails, the standard "
        "deviation of z exceeds 1 although the intervals are correct. Along a known label, "
        "predictions that shrink to the mean cover too little at the ends; along a predicted label "
        "the coverage is uniform if each prediction is a proper posterior distribution.",
    ]
    for axis in validation.bins:
        add_bin_table(section, validation, axis)
    section.add_picture(
        "calibration",
        "Calibration at every level",
        "Left: observed minus stated coverage of central intervals. Right: probability "
        "integral transform, flat for correct errors. Grey: 95 % of correct "
        "predictions; bars: the margins at the stated levels.",
        lambda: figures.calibration_curve(
            names, validation.column("pit"), margin * COVERAGE_MARGIN
        ),
    )
    section.add_picture(
        "z",
        "Residuals over errors",
        "z with the label's error included, the unit Gaussian, and the distribution stated by "
        "the two half-widths; below with the tails on a logarithmic scale. As figure 7 of Fallows "
        "& Sanders (2024).",
        lambda: figures.z_histograms(names, validation.column("z"), validation.column("dof")),
    )
    shown = {
        axis: {n: [one for one in row if one.large] for n, row in validation.bins[axis].items()}
        for axis in dict.fromkeys((*TESTED_AXES, *CHOSEN_AXES))
        if any(large_bins(validation, [axis]))
    }
    if shown:
        words = f"Bins of at least {BIN_STARS} stars; grey: tolerance."
        section.add_picture(
            "coverage_bins", "Coverage in bins", words,
            lambda: figures.coverage_by_bins(names, shown, margin),
        )  # fmt: skip
    metrics = {
        "bins": {
            axis: {
                name: [
                    b.to_dict() | {"different": b.different, "within": b.within(margin)}
                    for b in row
                ]
                for name, row in labels.items()
            }
            for axis, labels in validation.bins.items()
        },
        "calibration": {"passed": not missed, "violations": missed, "margin": margin},
    }
    note = f" ({counted(len(missed), 'margin')} not met, see the report)" if missed else ""
    return Finding(metrics, f"error bars: {verdict(validation).text}{note}", section)


def add_bin_table(section: Section, validation: Validation, axis: str) -> None:
    """Coverage along one axis: a row per bin, a column per label, with pass or fail."""

    def cells(one: Bin | None) -> list[str | Cell]:
        if one is None:
            return ["-"]
        passed = {True: "pass", False: "fail", None: ""}[one.within(validation.margin)]
        return [Cell(format_score(one.scores, "coverage_68"), passed)]

    title = _axis_title(axis)
    section.add_table(
        f"Coverage of the 68.3 % interval along {title}; bins of fewer than {BIN_STARS} stars are "
        "not tested",
        [title, "N", *validation.names],
        bin_rows(validation.bins[axis], cells),
        folded=axis not in TESTED_AXES,
    )


def joint_finding(validation: Validation) -> Finding | None:
    """Joint coverage of all labels, or None where no correlations were predicted."""
    joint = validation.joint
    if joint is None:
        return None
    missed, margin = joint.violations(validation.margin), validation.margin * JOINT_MARGIN
    badge = Cell("not calibrated", "fail") if missed else Cell("calibrated", "pass")
    section = Section("joint", "All labels together", badge=badge, missed=missed)
    section.paragraphs.append(
        f"The ellipsoid in {len(joint.names)} dimensions "
        f"({', '.join(map(with_unit, joint.names))}) given by the stated errors and correlations "
        f"should contain its stated share of the stars, within {100 * margin:g} points."
    )
    rows = [
        [title, f"{scale * joint.value[key]:.{d}f} ± {scale * joint.error[key]:.{d}f}"]
        for key, title, scale, d in (
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
        "predictions; bars: the margins.",
        lambda: figures.joint_curve(joint.content, margin),
    )
    return Finding({"joint": joint.to_metrics()}, section=section)


def _axis_title(axis: str) -> str:
    """An axis in words: ``fe_h_predicted`` -> ``predicted fe_h [dex]``."""
    base = axis.removesuffix(PREDICTED)
    title = with_unit(base) if base in LABELS else {"g_mag": "G", "bp_rp": "BP-RP"}[base] + " [mag]"
    return f"predicted {title}" if base != axis else title
