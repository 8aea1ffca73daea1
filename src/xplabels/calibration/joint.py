"""Joint coverage: the share of stars whose labels all lie inside the predicted ellipsoids.

One error bar per label says nothing of two labels that err together; this tests the covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core import distribution as predictive
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction, unpacked
from xplabels.core.scores import distance_from_uniform

Array = NDArray[np.float64]

JOINT_MARGIN = 0.03
"""How far the joint coverages may be from 68.3 and 95.4 %."""
FEWEST_STARS, ENOUGH_STARS = 100, 1000
"""Without so many stars no joint factor is fitted; with so many, those that lack labels are not
needed."""
FACTOR_RANGE, BISECTIONS = (0.25, 4.0), 30
"""Where the joint factor is searched for, and how finely."""
_LEVELS = {"coverage_68": predictive.LEVEL_68, "coverage_95": predictive.LEVEL_95}


@dataclass(frozen=True)
class Joint:
    """Joint coverage of several labels, with bootstrap errors."""

    names: tuple[str, ...]
    # of each star compared [n]: probability inside the ellipsoid through its true labels
    content: Array = field(repr=False)
    value: dict[str, float]  # coverage_68, coverage_95, pit_distance
    error: dict[str, float]

    @property
    def n(self) -> int:
        """Stars of which all labels are known and predicted."""
        return len(self.content)

    def to_metrics(self) -> dict[str, Any]:
        """As in ``metrics.json``."""
        return {"labels": list(self.names), "n": self.n, **self.value, "error_of": self.error}

    def violations(self, margin: float = 1.0) -> list[str]:
        """Where a joint coverage is not right, one line each."""
        return [
            f"all labels together: {key} {self.value[key]:.4f}, allowed {level:.4f} "
            f"+- {margin * JOINT_MARGIN:.4f}"
            for key, level in _LEVELS.items()
            if abs(self.value[key] - level) > margin * JOINT_MARGIN
        ]

    def to_text(self) -> str:
        """One line for the terminal."""
        shares = ", ".join(
            f"{100 * self.value[key]:.1f} +- {100 * self.error[key]:.1f} % inside {level:.1%}"
            for key, level in _LEVELS.items()
        )
        return f"all {len(self.names)} labels together (N = {self.n}): {shares}"


def joint_coverage(
    prediction: Prediction,
    labels: Labels,
    names: Sequence[str],
    selection: NDArray[np.bool_],
    *,
    resamples: int = 200,
    seed: int = 0,
) -> Joint | None:
    """Joint coverage of the labels ``names`` over the stars of ``selection`` [N] that have all.

    The errors of the known labels, taken as independent, widen the ellipsoids, and so does the
    prediction's ``joint_factor``. Tails: :func:`~xplabels.core.distribution.matched_t`. None
    where the prediction has no correlations, or there are fewer than two labels or stars.
    ``resamples`` and ``seed`` are those of the bootstrap.
    """
    residuals = _Residuals.of(prediction, labels, names, selection)
    if residuals is None:
        return None
    content = residuals.content(prediction.joint_factor)
    random = np.random.default_rng(seed)
    drawn = [_statistics(random.choice(content, len(content))) for _ in range(resamples)]
    value = _statistics(content)
    error = {
        key: float(np.std([one[key] for one in drawn], ddof=1)) if resamples > 1 else float("nan")
        for key in value
    }
    return Joint(tuple(names), content, value, error)


def fit_joint_factor(prediction: Prediction, labels: Labels) -> float | None:
    """What multiplies all errors so that the joint 68.3 % ellipsoids hold their share.

    Intervals of single labels are calibrated in their core and outer part; ellipsoids in several
    dimensions depend on what lies between, and the more labels, the more stars have one that is
    far off. Stars with all labels count; where they are fewer than 1,000, so do those that lack
    one, each in the labels that it has, then those that lack two, and so on. None where that
    makes fewer than 100 stars. The prediction, with correlations, is of stars that the network did
    not see.
    """
    groups = _groups(prediction, labels)
    if sum(len(group.values) for group in groups) < FEWEST_STARS:
        return None
    low, high = FACTOR_RANGE
    for _ in range(BISECTIONS):
        middle = np.sqrt(low * high)
        content = np.concatenate([group.content(middle) for group in groups])
        inside = (content <= predictive.LEVEL_68).mean()
        low, high = (middle, high) if inside < predictive.LEVEL_68 else (low, middle)
    return float(np.sqrt(low * high))


def _groups(prediction: Prediction, labels: Labels) -> list[_Residuals]:
    """Enough of the stars with the most known labels, grouped by which labels are known."""
    names = [name for name in prediction.names if name in labels.names]
    columns = [prediction.names.index(name) for name in names]
    known = np.isfinite(prediction.values[:, columns] - labels.select(names).values)
    count = known.sum(axis=1)
    least = len(names)
    while least > 2 and (count >= least).sum() < ENOUGH_STARS:
        least -= 1
    groups = []
    for pattern in np.unique(known[count >= least], axis=0):
        those = [name for name, present in zip(names, pattern, strict=True) if present]
        groups.append(_Residuals.of(prediction, labels, those, (known == pattern).all(axis=1)))
    return [group for group in groups if group is not None]


@dataclass(frozen=True)
class _Residuals:
    """Of n stars in K labels: prediction minus truth, half-widths, label errors, correlations."""

    values: Array
    half_68: Array
    half_95: Array
    label_error: Array
    correlation: Array

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        labels: Labels,
        names: Sequence[str],
        selection: NDArray[np.bool_],
    ) -> _Residuals | None:
        if prediction.correlations is None or len(names) < 2:
            return None
        columns = [prediction.names.index(name) for name in names]
        known = labels.select(names)
        residual = prediction.values[:, columns] - known.values
        rows = np.flatnonzero(selection & np.isfinite(residual).all(axis=1))
        if len(rows) < 2:
            return None
        matrix = unpacked(prediction.correlations[rows], len(prediction.names))
        return cls(
            residual[rows],
            prediction.errors[rows][:, columns],
            prediction.errors_95[rows][:, columns],
            known.errors[rows],
            matrix[:, columns][:, :, columns],
        )

    def content(self, factor: float) -> Array:
        """Probability [n] inside each star's ellipsoid, all predicted errors times ``factor``."""
        sigma = factor * self.half_68
        total = np.hypot(sigma, self.label_error)
        dof, scale = predictive.matched_t(
            total, np.hypot(factor * self.half_95, 2 * self.label_error)
        )
        share = sigma / total
        correlation = share[:, :, None] * self.correlation * share[:, None, :]
        diagonal = np.arange(self.values.shape[1])
        correlation[:, diagonal, diagonal] = 1.0
        return predictive.ellipsoid_content(self.values / scale, correlation, dof)


def _statistics(content: Array) -> dict[str, float]:
    found = {key: float((content <= level).mean()) for key, level in _LEVELS.items()}
    return found | {"pit_distance": float(distance_from_uniform(content))}
