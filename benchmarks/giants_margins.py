"""The fixed margins by which docs/giants.md compares trainings on the same stars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.scores import Bin
from xplabels.validation import PREDICTED, Validation

COVERAGE_MARGIN, JOINT_MARGIN = 0.025, 0.03
ROBUST_STD_Z_RANGE = (0.95, 1.05)
BIN_MARGIN, BIN_SIGMAS, BIN_STARS = 0.06, 3.5, 200
"""A bin of so many stars may be off in coverage by this much, or so many binomial sigma."""
TESTED_AXES = ("g_mag", "logg", "fe_h")
CHOSEN_AXES = ("g_mag", "logg" + PREDICTED, "fe_h" + PREDICTED)
"""The same for stars selected by their predicted labels."""
LEVELS = {"coverage_68": LEVEL_68, "coverage_95": LEVEL_95}


def missed_margins(validation: Validation, axes: Sequence[str] = TESTED_AXES) -> list[str]:
    """Where the stated errors miss a margin, one line each."""
    found = []
    for name, scores in validation.labels.items():
        found += [
            f"{name}: {key} {scores[key]:.4f}, allowed {level:.4f} +- {COVERAGE_MARGIN:.4f}"
            for key, level in LEVELS.items()
            if abs(scores[key] - level) > COVERAGE_MARGIN
        ]
        low, high = ROBUST_STD_Z_RANGE
        if not low <= scores["robust_std_z"] <= high:
            found.append(
                f"{name}: robust_std_z {scores['robust_std_z']:.3f}, allowed {low:.3f}-{high:.3f}"
            )
    if (joint := validation.joint) is not None:
        found += [
            f"all labels together: {key} {joint.value[key]:.4f}, allowed {level:.4f} "
            f"+- {JOINT_MARGIN:.4f}"
            for key, level in LEVELS.items()
            if abs(joint.value[key] - level) > JOINT_MARGIN
        ]
    return found + [
        f"{name}: coverage_68 {one.scores['coverage_68']:.3f} of {one.counted} stars at "
        f"{axis} {one.low:g} to {one.high:g}, allowed {LEVEL_68:.3f} +- {tolerance(one):.3f}"
        for axis, name, one in large_bins(validation, axes)
        if abs(one.scores["coverage_68"] - LEVEL_68) > tolerance(one)
    ]


def large_bins(validation: Validation, axes: Sequence[str]) -> Iterator[tuple[str, str, Bin]]:
    """Axis, label and bin of every bin of enough stars."""
    for axis in axes:
        for name, row in validation.bins.get(axis, {}).items():
            yield from ((axis, name, one) for one in row if one.different >= BIN_STARS)


def tolerance(one: Bin) -> float:
    """Allowed distance of a bin's coverage from 68.3 %."""
    sigma = (LEVEL_68 * (1 - LEVEL_68) / max(one.different, 1)) ** 0.5
    return max(BIN_MARGIN, BIN_SIGMAS * float(sigma))
