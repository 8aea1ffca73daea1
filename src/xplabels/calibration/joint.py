"""Joint coverage: the share of stars whose labels all lie inside the predicted ellipsoids.

Error bars of single labels say nothing about labels whose errors are correlated; this tests the
covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core import distribution as predictive
from xplabels.core.arrays import Array
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction, unpacked
from xplabels.core.scores import SEED, distance_from_uniform

Rows = NDArray[np.intp]

FEWEST_STARS, ENOUGH_STARS = 100, 1000
"""Fewest stars to which a joint factor is fitted, and number of stars with all labels from which on
those that lack labels are not used."""
FACTOR_RANGE, BISECTIONS = (0.25, 4.0), 30
"""Range in which a joint factor is searched, and number of bisections."""
NEEDED_RANGE, NEEDED_BISECTIONS = (1 / 16, 16.0), 16
"""The same for the factor of each star, which is found to 1e-4 of it."""
_LEVELS = {"coverage_68": predictive.LEVEL_68, "coverage_95": predictive.LEVEL_95}


@dataclass(frozen=True)
class Joint:
    """Joint coverage of several labels, with bootstrap errors."""

    names: tuple[str, ...]
    rows: Rows = field(repr=False)  # the stars compared, among all
    # [2, n]: probability inside the ellipsoid through each star's true labels, with the errors
    # multiplied by the joint factor of the 68.3 and of the 95.4 % ellipsoid
    content: Array = field(repr=False)
    # [n] each: factors of all stated errors with which the 68.3 and the 95.4 % ellipsoid reach the
    # true labels
    needed: tuple[Array, Array] = field(repr=False)
    value: dict[str, float]  # coverage_68, coverage_95, pit_distance
    error: dict[str, float]

    @property
    def n(self) -> int:
        """Number of stars of which all labels are known and predicted."""
        return len(self.rows)

    def to_metrics(self) -> dict[str, Any]:
        """The entry in ``metrics.json``."""
        return {"labels": list(self.names), "n": self.n, **self.value, "error_of": self.error}

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
) -> Joint | None:
    """Joint coverage of the labels ``names`` over the stars of ``selection`` [N] that have all.

    The ellipsoids are scaled by the prediction's ``joint_factors`` and widened by the errors of the
    known labels, taken as independent; their tails are those of
    :func:`~xplabels.core.distribution.matched_t`. None where the prediction has no correlations, or
    there are fewer than two labels or stars. ``resamples`` is the number of bootstrap resamples.
    """
    rows = _complete(prediction, labels, names, selection)
    if prediction.correlations is None or len(names) < 2 or len(rows) < 2:
        return None
    content = np.stack(
        [_content(prediction, labels, names, rows, factor) for factor in prediction.joint_factors]
    )
    random = np.random.default_rng(SEED)
    drawn = [_statistics(random.choice(content, len(rows), axis=1)) for _ in range(resamples)]
    value = _statistics(content)
    error = {
        key: float(np.std([d[key] for d in drawn], ddof=1)) if resamples > 1 else float("nan")
        for key in value
    }
    needed = _needed(prediction, labels, names, rows)
    return Joint(tuple(names), rows, content, needed, value, error)


def fit_joint_factors(prediction: Prediction, labels: Labels) -> Array | None:
    """Factors [2] of all errors with which the joint 68.3 and 95.4 % ellipsoids hold their share.

    Intervals of single labels are calibrated at these two levels alone; ellipsoids in several
    dimensions depend on the distribution between them, and the more labels there are, the more
    stars have one that is far off. Stars with all labels are used; if they are fewer than 1,000,
    also those that lack one, each in the labels that it has, then those that lack two, and so on.
    None if there are fewer than 100 stars. The prediction, with correlations, is of stars that the
    network did not see.
    """
    groups = _groups(prediction, labels)
    if sum(len(rows) for _, rows in groups) < FEWEST_STARS:
        return None
    factors = []
    for level in _LEVELS.values():
        low, high = FACTOR_RANGE
        for _ in range(BISECTIONS):
            middle = np.sqrt(low * high)
            content = [_content(prediction, labels, names, rows, middle) for names, rows in groups]
            inside = (np.concatenate(content) <= level).mean()
            low, high = (middle, high) if inside < level else (low, middle)
        factors.append(np.sqrt(low * high))
    return np.array(factors)


def _groups(prediction: Prediction, labels: Labels) -> list[tuple[list[str], Rows]]:
    """Groups of stars with the same known labels: the labels, and the rows of the stars.

    The stars with the most labels, as many as are needed for :data:`ENOUGH_STARS`.
    """
    names = [name for name in prediction.names if name in labels.names]
    if prediction.correlations is None or len(names) < 2:
        return []
    columns = [prediction.names.index(name) for name in names]
    known = np.isfinite(prediction.values[:, columns] - labels.select(names).values)
    count = known.sum(axis=1)
    least = len(names)
    while least > 2 and (count >= least).sum() < ENOUGH_STARS:
        least -= 1
    groups = []
    for pattern in np.unique(known[count >= least], axis=0):
        present = [name for name, has in zip(names, pattern, strict=True) if has]
        rows = _complete(prediction, labels, present, (known == pattern).all(axis=1))
        if len(rows) > 1:
            groups.append((present, rows))
    return groups


def _complete(
    prediction: Prediction, labels: Labels, names: Sequence[str], selection: NDArray[np.bool_]
) -> Rows:
    """Rows of the selected stars of which all labels are known and predicted."""
    columns = [prediction.names.index(name) for name in names]
    residual = prediction.values[:, columns] - labels.select(names).values
    return np.flatnonzero(selection & np.isfinite(residual).all(axis=1))


def _content(
    prediction: Prediction, labels: Labels, names: Sequence[str], rows: Rows, factor: float | Array
) -> Array:
    """Probability [n] inside the ellipsoid through each star's known labels.

    ``factor`` multiplies all predicted errors: one number, or one for each star [n, 1].
    """
    columns = [prediction.names.index(name) for name in names]
    known = labels.select(names)
    sigma = factor * prediction.errors[rows][:, columns]
    outer = factor * prediction.errors_95[rows][:, columns]
    total = np.hypot(sigma, known.errors[rows])
    dof, scale = predictive.matched_t(total, np.hypot(outer, 2 * known.errors[rows]))
    share = sigma / total
    matrix = unpacked(np.asarray(prediction.correlations)[rows], len(prediction.names))
    correlation = share[:, :, None] * matrix[:, columns][:, :, columns] * share[:, None, :]
    diagonal = np.arange(len(names))
    correlation[:, diagonal, diagonal] = 1.0
    residual = prediction.values[rows][:, columns] - known.values[rows]
    return predictive.ellipsoid_content(residual / scale, correlation, dof)


def _needed(
    prediction: Prediction, labels: Labels, names: Sequence[str], rows: Rows
) -> tuple[Array, Array]:
    """Factors of each star's errors with which its 68.3 and 95.4 % ellipsoids end at the truth.

    Beyond the range searched they are 0 or infinity. The known labels' own errors are not
    multiplied, so each factor is found by bisection.
    """
    factors = []
    for level, stated in zip(_LEVELS.values(), prediction.joint_factors, strict=True):
        low, high = (np.full(len(rows), np.log(edge)) for edge in NEEDED_RANGE)
        for _ in range(NEEDED_BISECTIONS):
            middle = (low + high) / 2
            factor = stated * np.exp(middle)[:, None]
            reached = _content(prediction, labels, names, rows, factor) <= level
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
        beyond = high == np.log(NEEDED_RANGE[1])
        within = low == np.log(NEEDED_RANGE[0])
        factors.append(np.where(beyond, np.inf, np.where(within, 0.0, np.exp((low + high) / 2))))
    return factors[0], factors[1]


def _statistics(content: Array) -> dict[str, float]:
    coverage = {
        key: float((probability <= level).mean())
        for probability, (key, level) in zip(content, _LEVELS.items(), strict=True)
    }
    return coverage | {"pit_distance": float(distance_from_uniform(content[0]))}
