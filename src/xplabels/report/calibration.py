"""Whether the stated errors are right, in words, tables and figures."""

from __future__ import annotations

import numpy as np

from xplabels import figures
from xplabels.calibration.joint import JOINT_MARGIN
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.labels import LABELS
from xplabels.core.scores import BIN_SIGMAS, BIN_STARS, Array, Bin
from xplabels.figures import populations
from xplabels.report.sections import Cell, Picture, Section, Table, sample_columns, score_text
from xplabels.validation import Validation
from xplabels.validation.gate import (
    CHOSEN_AXES,
    COVERAGE_MARGIN,
    GATED_AXES,
    PREDICTED,
    calibration_gate,
    failing_bins,
)
from xplabels.validation.wording import with_unit

FEW_BINS = 0.05
"""Share of the judged bins that may fail in errors that are right otherwise."""
TELLING_STARS = 2000
"""With fewer the margins are two standard errors or less: even right errors miss some."""


def verdict(validation: Validation) -> Cell:
    """The verdict in a few words: calibrated, but for single bins, not, or too few stars."""
    bins = failing_bins(validation)
    others = len(calibration_gate(validation)) - len(bins)
    judged = sum(
        one.judged
        for axis in GATED_AXES
        for row in validation.bins.get(axis, {}).values()
        for one in row
    )
    if not others and not bins:
        return Cell("calibrated", "pass")
    if len(bins) > FEW_BINS * judged:
        return Cell("not calibrated", "fail")
    if not others:
        return Cell(f"calibrated, but for {len(bins)} of {judged} bins", "partly")
    fewest = min(scores.n for scores in validation.labels.values() if scores.n)
    if fewest < TELLING_STARS and not _beyond_luck(validation):
        return Cell(f"too few stars to tell: {fewest:,}", "partly")
    return Cell("not calibrated", "fail")


def _beyond_luck(validation: Validation) -> bool:
    """Whether the coverage of a label is off by more than few stars explain."""
    return any(
        abs(scores[key] - level) > BIN_SIGMAS * (level * (1 - level) / scores.n) ** 0.5
        for scores in validation.labels.values()
        if scores.n
        for key, level in (("coverage_68", LEVEL_68), ("coverage_95", LEVEL_95))
    )


def calibration_section(validation: Validation) -> Section:
    """Whether the stated errors are right: the gate, curves, z, bins."""
    text = (
        "Stated 68.3 and 95.4 % intervals must cover within 2.5 points, the robust standard "
        "deviation of z must lie within 0.95-1.05, and in every bin of at least "
        f"{BIN_STARS} stars along {', '.join(_plain(a) for a in GATED_AXES)} the 68.3 % interval "
        "must cover within the larger of 6 points and 3.5 binomial sigma. The labels' own errors "
        "are included."
    )
    text += (
        f" Errors right but for at most {100 * FEW_BINS:g} % of these bins are called calibrated "
        f"but for them. Of fewer than {TELLING_STARS:,} stars even right errors miss a margin: "
        f"they are called wrong only where a coverage is off by {BIN_SIGMAS} binomial sigma."
    )
    if validation.margin != 1:
        text += f" Here every tolerance counts {validation.margin:g} times."
    shape = (
        "The predictive distribution is a Student-t fixed by the two stated half-widths (a "
        "Gaussian where the outer is twice the inner). Heavier tails than a Gaussian's give a "
        "standard deviation of z above 1 with right intervals. Along a known label, predictions "
        "that tend to the mean cover too little at the ends; along a predicted label they cover "
        "alike everywhere if each prediction is a proper posterior distribution."
    )
    judged = _judged_bins(validation)
    pictures = [
        Picture(
            "calibration",
            figures.calibration_curve(
                validation.names,
                sample_columns(validation, "pit"),
                validation.margin * COVERAGE_MARGIN,
            ),
            "Calibration at every level",
            "Left: observed minus stated coverage of central intervals. Right: probability "
            "integral transform, flat if the errors are right. Grey: 95 % of right "
            "predictions; bars: the margins at the stated levels.",
        ),
        Picture(
            "z",
            figures.z_histograms(
                validation.names, sample_columns(validation, "z"), sample_columns(validation, "dof")
            ),
            "Residuals over errors",
            "z with the label's error included, the unit Gaussian, and the distribution that the "
            "two half-widths state. As figure 7 of Fallows & Sanders (2024), with the tails on a "
            "logarithmic scale below.",
        ),
    ]
    if judged:
        pictures.append(
            Picture(
                "coverage_bins",
                figures.coverage_by_bins(validation.names, judged),
                "Coverage in bins",
                f"Bins of at least {BIN_STARS} stars; grey: tolerance.",
            )
        )
    return Section(
        "calibration",
        "Calibration",
        [text, shape],
        [bin_table(validation, axis) for axis in validation.bins],
        pictures,
        badge=verdict(validation),
        findings=calibration_gate(validation),
    )


def bin_table(validation: Validation, axis: str) -> Table:
    """Coverage along one axis: a row a bin, a column a label, with pass or fail."""
    by_label = validation.bins[axis]
    edges = sorted({(one.low, one.high) for row in by_label.values() for one in row})
    lookup = {(name, one.low): one for name, row in by_label.items() for one in row}
    rows: list[list[str | Cell]] = []
    for low, high in edges:
        row: list[str | Cell] = [f"{low:g} to {high:g}"]
        most: Bin | None = None
        for name in validation.names:
            one = lookup.get((name, low))
            if one is None:
                row.append("-")
                continue
            most = one if most is None or one.scores.n > most.scores.n else most
            verdict = {True: "pass", False: "fail", None: ""}[one.within(validation.margin)]
            row.append(Cell(score_text(one.scores, "coverage_68"), verdict))
        rows.append([row[0], "0" if most is None else most.counted, *row[1:]])
    return Table(
        f"Coverage of the 68.3 % interval along {_plain(axis)}; bins under {BIN_STARS} stars are "
        "not judged",
        [_plain(axis), "N", *validation.names],
        rows,
        folded=axis not in GATED_AXES,
    )


def joint_section(validation: Validation) -> Section | None:
    """Joint coverage of all labels, or None where no correlations were predicted."""
    joint = validation.joint
    if joint is None:
        return None
    findings = joint.violations(validation.margin)
    rows = [
        [title, f"{100 * joint.value[key]:.2f} ± {100 * joint.error[key]:.2f}"]
        for key, title in (("coverage_68", "inside 68.3 % [%]"), ("coverage_95", "95.4 % [%]"))
    ]
    rows.append(
        ["distance of the PIT", f"{joint.value['pit_distance']:.4f} ± "
         f"{joint.error['pit_distance']:.4f}"]
    )  # fmt: skip
    symbols = ", ".join(with_unit(name) for name in joint.names)
    return Section(
        "joint",
        "All labels together",
        [
            f"The ellipsoid in {len(joint.names)} dimensions ({symbols}) that the stated errors "
            "and correlations make should hold as many stars as it says, within "
            f"{100 * validation.margin * JOINT_MARGIN:g} points."
        ],
        [Table(f"Joint coverage, N = {joint.n:,}; ± is the bootstrap error", ["", "share"], rows)],
        [
            Picture(
                "joint",
                populations.joint_curve(joint.content, validation.margin * JOINT_MARGIN),
                "Joint coverage at every level",
                "Observed minus stated share of stars inside the ellipsoid. Grey: 95 % of right "
                "predictions; bars: the margins.",
            )
        ],
        badge=Cell("not calibrated", "fail") if findings else Cell("calibrated", "pass"),
        findings=findings,
    )


def _judged_bins(
    validation: Validation,
) -> dict[str, list[tuple[Array, Array, Array, Array]]]:
    chosen = dict.fromkeys((*GATED_AXES, *CHOSEN_AXES))
    found = {}
    for axis in (axis for axis in chosen if axis in validation.bins):
        rows = [
            [one for one in validation.bins[axis][name] if one.judged] for name in validation.names
        ]
        if any(rows):
            found[axis] = [
                (
                    np.array([(one.low, one.high) for one in row]).reshape(-1, 2),
                    np.array([one.scores["coverage_68"] for one in row]),
                    np.array([one.tolerance(validation.margin) for one in row]),
                    np.array([one.scores.n for one in row]),
                )
                for row in rows
            ]
    return found


def _plain(axis: str) -> str:
    """An axis in words: ``fe_h_predicted`` -> ``predicted fe_h [dex]``."""
    base = axis.removesuffix(PREDICTED)
    title = with_unit(base) if base in LABELS else {"g_mag": "G", "bp_rp": "BP-RP"}[base] + " [mag]"
    return f"predicted {title}" if base != axis else title
