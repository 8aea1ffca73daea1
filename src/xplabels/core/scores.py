"""Scores of predictions against truth, each with its bootstrap error and its N (METHOD 8).

Every statistic works along the last axis, so that one function serves the stars themselves and
all their bootstrap resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xplabels.core import distribution as predictive

Array = NDArray[np.float64]

SEED = 0
"""Seed of every bootstrap."""

_ELEMENTS = 4_000_000  # resampled values held at once: 32 MB per array


@dataclass(frozen=True)
class LabelSample:
    """One label of n stars with finite truth and prediction, from which every score is computed.

    ``rows`` [n] index these stars among all those given; the rest is [n] in the label's unit.
    """

    rows: NDArray[np.intp]
    truth: Array
    predicted: Array
    error: Array
    error_95: Array
    label_error: Array

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> LabelSample:
        return LabelSample(*(getattr(self, f.name)[chosen] for f in fields(self)))

    # the label's error is Gaussian, and added in quadrature to both half-widths
    @cached_property
    def _half_68(self) -> Array:
        return np.hypot(self.error, self.label_error)

    @cached_property
    def _half_95(self) -> Array:
        return np.hypot(self.error_95, 2 * self.label_error)

    @cached_property
    def residual(self) -> Array:
        """predicted - truth."""
        return self.predicted - self.truth

    @cached_property
    def z(self) -> Array:
        """(truth - predicted) / half-width, with the label's error in quadrature."""
        return -self.residual / self._half_68

    @property
    def z_without_label_error(self) -> Array:
        """(truth - predicted) / half-width."""
        return -self.residual / self.error

    @property
    def inside_68(self) -> Array:
        """1.0 where the truth lies inside the interval (label error in quadrature), else 0.0."""
        return (np.abs(self.residual) <= self._half_68).astype(np.float64)

    @property
    def inside_95(self) -> Array:
        """The same for the 95.4 % interval."""
        return (np.abs(self.residual) <= self._half_95).astype(np.float64)

    @cached_property
    def needed(self) -> tuple[Array, Array]:
        """The factors on ``error`` and on ``error_95`` with which the interval ends at the truth.

        The label's own error is in quadrature, and not multiplied; the factor is 0 if it suffices.
        """
        # the squared residual that remains for the predicted half-widths
        remaining = [self.residual**2 - (times * self.label_error) ** 2 for times in (1, 2)]
        inner, outer = (np.sqrt(np.maximum(squared, 0)) for squared in remaining)
        return inner / self.error, outer / self.error_95

    @cached_property
    def _matched_t(self) -> tuple[Array, Array]:
        return predictive.matched_t(self._half_68, self._half_95)

    @property
    def dof(self) -> Array:
        """Degrees of freedom of the predictive Student-t."""
        return self._matched_t[0]

    @cached_property
    def pit(self) -> Array:
        """Predictive probability below the truth: uniform on [0, 1] if the errors are correct."""
        return predictive.cdf(-self.residual, *self._matched_t)

    @cached_property
    def crps(self) -> Array:
        """Continuous ranked probability score, in the label's unit."""
        return predictive.crps(-self.residual, *self._matched_t)


def rms(values: Array) -> Array:
    """Root mean square along the last axis."""
    return np.asarray(np.sqrt((values**2).mean(axis=-1)))


def robust_scatter(values: Array) -> Array:
    """1.4826 times the median absolute deviation about the median, along the last axis.

    Examples
    --------
    >>> float(robust_scatter(np.array([1.0, 2.0, 3.0, 4.0, 500.0])))
    1.4826
    """
    centre = np.median(values, axis=-1, keepdims=True)
    return np.asarray(1.4826 * np.median(np.abs(values - centre), axis=-1))


def slope(truth: Array, predicted: Array) -> Array:
    """Least-squares slope of ``predicted`` on ``truth``, last axis; NaN if ``truth`` is constant.

    Below 1: shrinkage (regression to the mean).
    """
    offset = truth - truth.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray((offset * predicted).sum(axis=-1) / (offset**2).sum(axis=-1))


def distance_from_uniform(pit: Array) -> Array:
    """Largest distance between the distribution of ``pit`` and the uniform one (Kolmogorov)."""
    steps, ranked = np.arange(pit.shape[-1] + 1) / pit.shape[-1], np.sort(pit, axis=-1)
    return np.asarray(np.maximum(steps[1:] - ranked, ranked - steps[:-1]).max(axis=-1))


class Statistic(NamedTuple):
    """A function of attributes of a :class:`LabelSample`, and what it is in words."""

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    text: str = ""
    has_unit: bool = False


mean, median, std = (partial(function, axis=-1) for function in (np.mean, np.median, np.std))
RESIDUAL, Z, Z_WITHOUT = ("residual",), ("z",), ("z_without_label_error",)

SCORES: dict[str, Statistic] = {
    "bias": Statistic(median, RESIDUAL, "median of prediction - truth", True),
    "rmse": Statistic(rms, RESIDUAL, "root mean square of prediction - truth", True),
    "robust": Statistic(robust_scatter, RESIDUAL, "1.4826 MAD of prediction - truth", True),
    "slope": Statistic(slope, ("truth", "predicted"), "least-squares slope of prediction on truth"),
    "std_z": Statistic(std, Z, "standard deviation of z = (truth - prediction) / error"),
    "robust_std_z": Statistic(robust_scatter, Z, "1.4826 MAD of z"),
    "std_z_without_label_error": Statistic(
        std, Z_WITHOUT, "std of z, label error left out (FS24, eq. 12)"
    ),
    "robust_std_z_without_label_error": Statistic(
        robust_scatter, Z_WITHOUT, "1.4826 MAD of z, label error left out"
    ),
    "coverage_68": Statistic(mean, ("inside_68",), "fraction inside the 68.3 % interval"),
    "coverage_95": Statistic(mean, ("inside_95",), "fraction inside the 95.4 % interval"),
    "crps": Statistic(mean, ("crps",), "mean continuous ranked probability score", True),
    "pit_distance": Statistic(
        distance_from_uniform, ("pit",), "largest distance of the PIT's distribution from uniform"
    ),
    "sharpness": Statistic(
        median, ("error",), "median error (half-width of the 68.3 % interval)", True
    ),
}
"""The scores, by name."""


def some_scores(*names: str) -> dict[str, Statistic]:
    """Those of :data:`SCORES`."""
    return {name: SCORES[name] for name in names}


BIN_SCORES = some_scores("coverage_68", "bias", "robust")
"""The few scores that are kept for every bin."""


@dataclass(frozen=True)
class Scores:
    """Scores of one label over n stars: ``value`` and bootstrap ``error`` by name."""

    n: int
    value: Mapping[str, float]
    error: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.value[name]

    def to_dict(self) -> dict[str, Any]:
        """``{"n": ..., score: value, ..., "error_of": {score: error, ...}}``."""
        return {"n": self.n, **self.value, "error_of": dict(self.error)}


@dataclass(frozen=True)
class Bin:
    """Scores of one label over the stars with ``low <= axis < high``, ``different`` of them.

    Rows of the same star count once: their residuals are correlated.
    """

    low: float
    high: float
    scores: Scores
    different: int

    @property
    def middle(self) -> float:
        """Middle of its edges."""
        return (self.low + self.high) / 2

    @property
    def counted(self) -> str:
        """Number of stars, and of rows if there are more.

        Examples
        --------
        >>> Bin(0.0, 1.0, Scores(740, {}, {}), 370).counted
        '740 rows of 370'
        """
        rows = f"{self.scores.n:,}"
        return rows if self.scores.n == self.different else f"{rows} rows of {self.different:,}"

    def to_dict(self) -> dict[str, Any]:
        """Edges and scores."""
        return {"low": self.low, "high": self.high, **self.scores.to_dict()}


def score(
    sample: LabelSample, statistics: Mapping[str, Statistic] = SCORES, resamples: int = 200
) -> Scores:
    """Statistics of a sample by name, with bootstrap errors over its stars.

    NaN throughout if the sample is empty; with fewer than 2 resamples or stars the errors are NaN.
    """
    n, unknown = len(sample), dict.fromkeys(statistics, float("nan"))
    if n == 0:
        return Scores(0, unknown, unknown)
    arguments = {
        name: getattr(sample, name)
        for statistic in statistics.values()
        for name in statistic.arguments
    }

    def computed(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {
            key: statistic.function(*(arrays[name] for name in statistic.arguments))
            for key, statistic in statistics.items()
        }

    value = {key: float(result) for key, result in computed(arguments).items()}
    if n < 2 or resamples < 2:
        return Scores(n, value, unknown)
    rng = np.random.default_rng(SEED)
    at_once = max(1, _ELEMENTS // n)
    blocks = []
    for start in range(0, resamples, at_once):
        chosen = rng.integers(0, n, (min(at_once, resamples - start), n))
        blocks.append(computed({name: array[chosen] for name, array in arguments.items()}))
    error = {k: float(np.concatenate([block[k] for block in blocks]).std(ddof=1)) for k in value}
    return Scores(n, value, error)


def scores_by_label(
    samples: Mapping[str, LabelSample],
    statistics: Mapping[str, Statistic] = SCORES,
    resamples: int = 200,
) -> dict[str, Scores]:
    """:func:`score` of each label's sample."""
    return {name: score(sample, statistics, resamples) for name, sample in samples.items()}


def binned(
    values: Array,
    sample: LabelSample,
    edges: Iterable[tuple[float, float]],
    statistics: Mapping[str, Statistic] = BIN_SCORES,
    *,
    resamples: int = 200,
    star: NDArray[np.int64] | None = None,
) -> tuple[Bin, ...]:
    """Scores in the bins [low, high) along ``values`` [N] that hold any star.

    ``star`` [N] identifies the star of each row, where a star may have several.
    """
    axis = values[sample.rows]
    bins = []
    for low, high in edges:
        inside = (axis >= low) & (axis < high)
        if inside.any():
            scores = score(sample[inside], statistics, resamples)
            different = scores.n if star is None else len(np.unique(star[sample.rows][inside]))
            bins.append(Bin(low, high, scores, different))
    return tuple(bins)
