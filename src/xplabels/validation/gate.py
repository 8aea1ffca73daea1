"""The margins within which stated errors must be right, and where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xplabels.core.distribution import LEVEL_68, LEVEL_95

if TYPE_CHECKING:
    from xplabels.validation import Validation

PREDICTED = "_predicted"
"""Ending of an axis that bins by the predicted label instead of the known one."""

COVERAGE_MARGIN = 0.025
ROBUST_STD_Z_RANGE = (0.95, 1.05)
GATED_AXES = ("g_mag", "logg", "fe_h")
CHOSEN_AXES = ("g_mag", "logg" + PREDICTED, "fe_h" + PREDICTED)
"""The same where stars are chosen by what is predicted of them."""


def calibration_gate(
    validation: Validation, margin: float | None = None, axes: Sequence[str] = GATED_AXES
) -> list[str]:
    """Where the stated errors are not right, one line each; empty if they are.

    Coverages must lie within 2.5 points of 68.3 and 95.4 %, the robust std of z within
    0.95-1.05, and in every bin of at least 200 stars along ``axes`` the 68.3 % coverage within
    the larger of 6 points and 3.5 binomial sigma. ``margin`` multiplies every tolerance (2 for
    predictions without photometry); left out: the validation's own. Where correlations are
    predicted, all labels together must cover their shares within 3 points.
    """
    found, margin = [], validation.margin if margin is None else margin
    for name, scores in validation.labels.items():
        if scores.n == 0:
            continue
        for key, level in (("coverage_68", LEVEL_68), ("coverage_95", LEVEL_95)):
            if abs(scores[key] - level) > margin * COVERAGE_MARGIN:
                found.append(
                    f"{name}: {key} {scores[key]:.4f}, allowed {level:.4f} "
                    f"+- {margin * COVERAGE_MARGIN:.4f}"
                )
        low, high = (1 + margin * (edge - 1) for edge in ROBUST_STD_Z_RANGE)
        if not low <= scores["robust_std_z"] <= high:
            found.append(
                f"{name}: robust_std_z {scores['robust_std_z']:.3f}, allowed {low:.3f}-{high:.3f}"
            )
    if validation.joint is not None:
        found += validation.joint.violations(margin)
    return found + failing_bins(validation, margin, axes)


def failing_bins(
    validation: Validation, margin: float | None = None, axes: Sequence[str] = GATED_AXES
) -> list[str]:
    """The part of :func:`calibration_gate` that is about bins."""
    margin = validation.margin if margin is None else margin
    return [
        f"{name}: coverage_68 {one.scores['coverage_68']:.3f} of {one.counted} stars at "
        f"{axis} {one.low:g} to {one.high:g}, allowed {LEVEL_68:.3f} "
        f"+- {one.tolerance(margin):.3f}"
        for axis in axes
        for name, row in validation.bins.get(axis, {}).items()
        for one in row
        if one.within(margin) is False
    ]
