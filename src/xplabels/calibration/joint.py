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
from xplabels.core.arrays import Array
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction, unpacked
from xplabels.core.scores import SEED, distance_from_uniform

Rows = NDArray[np.intp]

FEWEST_STARS, ENOUGH_STARS = 100, 1000
"""Without so many stars no joint factor is fitted; with so many, those that lack labels are not
needed."""
FACTOR_RANGE, BISECTIONS = (0.25, 4.0), 30
"""Where a joint factor is searched for, and how finely."""
NEEDED_RANGE, NEEDED_BISECTIONS = (1 / 16, 16.0), 16
"""The same for the factor of each star, to 1e-4 of it."""
_LEVELS = {"coverage_68": predictive.LEVEL_68, "coverage_95": predictive.LEVEL_95}


@dataclass(frozen=True)
class Joint:
    """Joint coverage of several labels, with bootstrap errors."""

    names: tuple[str, ...]
    rows: Rows = field(repr=False)  # the stars compared, among all
    # of each star compared [2, n]: probability inside the ellipsoid through its true labels, the
    # errors multiplied by the joint factor of the 68.3 and of the 95.4 % ellipsoid
    content: Array = field(repr=False)
    # factors on all stated errors with which the 68.3 and the 95.4 % ellipsoid reach these [n]
    needed: tuple[Array, Array] = field(repr=False)
    value: dict[str, float]  # coverage_68, coverage_95, pit_distance
    error: dict[str, float]

    @property
    def n(self) -> int:
        """Stars of which all labels are known and predicted."""
        return len(self.rows)

    def to_metrics(self) -> dict[str, Any]:
        """As in ``metrics.json``."""
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

    The errors of the known labels, taken as independent, widen the ellipsoids, and so does the
    prediction's ``joint_factors``. Tails: :func:`~xplabels.core.distribution.matched_t`. None
    where the prediction has no correlations, or there are fewer than two labels or stars.
    ``resamples`` are those of the bootstrap.
    """
    rows = _complete(prediction, labels, names, selection)
    if prediction.correlations is None or len(names) < 2 or len(rows) < 2:
        return None
    content = np.stack(
        [_content(prediction, labels, names, rows, one) for one in prediction.joint_factors]
    )
    random = np.random.default_rng(SEED)
    drawn = [_statistics(random.choice(content, len(rows), axis=1)) for _ in range(resamples)]
    value = _statistics(content)
    error = {
        key: float(np.std([one[key] for one in drawn], ddof=1)) if resamples > 1 else float("nan")
        for key in value
    }
    needed = _needed(prediction, labels, names, rows)
    return Joint(tuple(names), rows, content, needed, value, error)


def fit_joint_factors(prediction: Prediction, labels: Labels) -> Array | None:
    """What multiplies all errors [2] so that the joint 68.3 and 95.4 % ellipsoids hold their share.

    Intervals of single labels are calibrated in their core and outer part; ellipsoids in several
    dimensions depend on what lies between, and the more labels, the more stars have one that is
    far off. Stars with all labels count; where they are fewer than 1,000, so do those that lack
    one, each in the labels that it has, then those that lack two, and so on. None where that
    makes fewer than 100 stars. The prediction, with correlations, is of stars that the network did
    not see.
    """
    groups = _groups(prediction, labels)
    if sum(len(rows) for _, rows in groups) < FEWEST_STARS:
        return None
    found = []
    for level in _LEVELS.values():
        low, high = FACTOR_RANGE
        for _ in range(BISECTIONS):
            middle = np.sqrt(low * high)
            content = [_content(prediction, labels, names, rows, middle) for names, rows in groups]
            inside = (np.concatenate(content) <= level).mean()
            low, high = (middle, high) if inside < level else (low, middle)
        found.append(np.sqrt(low * high))
    return np.array(found)


def _groups(prediction: Prediction, labels: Labels) -> list[tuple[list[str], Rows]]:
    """Enough of the stars with the most known labels: which labels, and the rows that have them."""
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
        some = [name for name, present in zip(names, pattern, strict=True) if present]
        rows = _complete(prediction, labels, some, (known == pattern).all(axis=1))
        if len(rows) > 1:
            groups.append((some, rows))
    return groups


def _complete(
    prediction: Prediction, labels: Labels, names: Sequence[str], selection: NDArray[np.bool_]
) -> Rows:
    """The selected stars of which all labels are known and predicted."""
    columns = [prediction.names.index(name) for name in names]
    residual = prediction.values[:, columns] - labels.select(names).values
    return np.flatnonzero(selection & np.isfinite(residual).all(axis=1))


def _content(
    prediction: Prediction, labels: Labels, names: Sequence[str], rows: Rows, factor: float | Array
) -> Array:
    """Probability [n] inside each star's ellipsoid, all predicted errors times ``factor``.

    One factor, or one of each star, [n, 1].
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
    """What multiplies each star's errors so that its 68.3 or 95.4 % ellipsoid ends at the truth.

    0 and infinity beyond the range searched. The ellipsoid grows with the factor, since the labels'
    own errors stay.
    """
    found = []
    for level, stated in zip(_LEVELS.values(), prediction.joint_factors, strict=True):
        low, high = (np.full(len(rows), np.log(edge)) for edge in NEEDED_RANGE)
        for _ in range(NEEDED_BISECTIONS):
            middle = (low + high) / 2
            factor = stated * np.exp(middle)[:, None]
            reached = _content(prediction, labels, names, rows, factor) <= level
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
        beyond = high == np.log(NEEDED_RANGE[1])
        within = low == np.log(NEEDED_RANGE[0])
        needed = np.where(beyond, np.inf, np.where(within, 0.0, np.exp((low + high) / 2)))
        found.append(needed)
    return found[0], found[1]


def _statistics(content: Array) -> dict[str, float]:
    found = {
        key: float((one <= level).mean())
        for one, (key, level) in zip(content, _LEVELS.items(), strict=True)
    }
    return found | {"pit_distance": float(distance_from_uniform(content[0]))}
