"""Scores of predictions against truth, each with its bootstrap error and its N (METHOD 8).

Every statistic works along the last axis, so that one function serves the stars themselves and
all their bootstrap resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core import distribution as predictive

Array = NDArray[np.float64]

SCORES: dict[str, tuple[str, bool]] = {
    "bias": ("median of prediction - truth", True),
    "rmse": ("root mean square of prediction - truth", True),
    "robust": ("1.4826 MAD of prediction - truth", True),
    "slope": ("least-squares slope of prediction on truth", False),
    "std_z": ("standard deviation of z = (truth - prediction) / error", False),
    "robust_std_z": ("1.4826 MAD of z", False),
    "std_z_without_label_error": ("std of z, label error left out (FS24, eq. 12)", False),
    "robust_std_z_without_label_error": ("1.4826 MAD of z, label error left out", False),
    "coverage_68": ("fraction inside the 68.3 % interval", False),
    "coverage_95": ("fraction inside the 95.4 % interval", False),
    "crps": ("mean continuous ranked probability score", True),
    "pit_distance": ("largest distance of the PIT's distribution from uniform", False),
    "sharpness": ("median error (half-width of the 68.3 % interval)", True),
}
"""Name of each score -> what it is, and whether it carries the label's unit."""

BIN_MARGIN, BIN_SIGMAS, BIN_STARS = 0.06, 3.5, 200
"""A bin's coverage may be off by this much, or by so many binomial sigma; judged from so many."""

_ELEMENTS = 4_000_000  # resampled values held at once: 32 MB an array


@dataclass(frozen=True)
class Sample:
    """One label of n stars with finite truth and prediction: what every score is made of.

    Attributes
    ----------
    rows
        Indices [n] of these stars among all that were given.
    truth, predicted, error, error_95, label_error
        Float64 [n], in the label's unit.
    residual
        predicted - truth.
    z, z_without_label_error
        (truth - predicted) / half-width, with the label's error in quadrature and without it.
    inside_68, inside_95
        1.0 where the truth lies inside the interval (label error in quadrature), else 0.0.
    pit
        Predictive probability below the truth: uniform on [0, 1] if the errors are right.
    crps
        Continuous ranked probability score, in the label's unit.
    dof
        Degrees of freedom of the predictive Student-t.
    """

    rows: NDArray[np.intp]
    truth: Array
    predicted: Array
    error: Array
    error_95: Array
    label_error: Array
    residual: Array = field(init=False)
    z: Array = field(init=False)
    z_without_label_error: Array = field(init=False)
    inside_68: Array = field(init=False)
    inside_95: Array = field(init=False)
    pit: Array = field(init=False)
    crps: Array = field(init=False)
    dof: Array = field(init=False)

    def __post_init__(self) -> None:
        # The label's error widens both half-widths in quadrature: a Gaussian of its own.
        half_68 = np.hypot(self.error, self.label_error)
        half_95 = np.hypot(self.error_95, 2 * self.label_error)
        residual = self.predicted - self.truth
        dof, scale = predictive.matched_t(half_68, half_95)
        derived: dict[str, Array] = {
            "residual": residual,
            "z": -residual / half_68,
            "z_without_label_error": -residual / self.error,
            "inside_68": (np.abs(residual) <= half_68).astype(np.float64),
            "inside_95": (np.abs(residual) <= half_95).astype(np.float64),
            "pit": predictive.cdf(-residual, dof, scale),
            "crps": predictive.crps(-residual, dof, scale),
            "dof": dof,
        }
        for name, array in derived.items():
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Sample:
        given = (f.name for f in fields(self) if f.init)
        return Sample(**{name: getattr(self, name)[chosen] for name in given})


@dataclass(frozen=True)
class Scores:
    """Scores of one label over n stars: ``value`` and bootstrap ``error`` by name."""

    n: int
    value: Mapping[str, float]
    error: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.value[name]

    def to_metrics(self) -> dict[str, Any]:
        """``{"n": ..., score: value, ..., "error_of": {score: error, ...}}``."""
        return {"n": self.n, **self.value, "error_of": dict(self.error)}


@dataclass(frozen=True)
class Bin:
    """Scores of one label over the stars with ``low <= axis < high``, ``different`` of them.

    A star that is there several times counts once: its residuals go together.
    """

    low: float
    high: float
    scores: Scores
    different: int

    @property
    def counted(self) -> str:
        """How many stars, and how many rows show them if these are more.

        Examples
        --------
        >>> Bin(0.0, 1.0, Scores(740, {}, {}), 370).counted
        '740 rows of 370'
        """
        rows = f"{self.scores.n:,}"
        return rows if self.scores.n == self.different else f"{rows} rows of {self.different:,}"

    @property
    def judged(self) -> bool:
        """Whether it has the 200 stars without which its coverage is not judged."""
        return self.different >= BIN_STARS

    def tolerance(self, margin: float = 1.0) -> float:
        """Allowed distance of coverage_68 from 0.683: 0.06 or 3.5 binomial sigma, times margin."""
        sigma = np.sqrt(predictive.LEVEL_68 * (1 - predictive.LEVEL_68) / max(self.different, 1))
        return margin * max(BIN_MARGIN, BIN_SIGMAS * float(sigma))

    def within(self, margin: float = 1.0) -> bool | None:
        """Whether coverage_68 keeps to the tolerance; None if the bin is not judged."""
        if not self.judged:
            return None
        return abs(self.scores["coverage_68"] - predictive.LEVEL_68) <= self.tolerance(margin)

    def to_metrics(self, margin: float = 1.0) -> dict[str, Any]:
        """The bin as plain numbers."""
        return {
            "low": self.low,
            "high": self.high,
            **self.scores.to_metrics(),
            "different": self.different,
            "within": self.within(margin),
        }


@dataclass(frozen=True)
class Group:
    """Scores of every label over one group of stars; ``n`` have at least one label compared."""

    title: str
    n: int
    labels: Mapping[str, Scores]

    def to_metrics(self) -> dict[str, Any]:
        """``{"n": N, "labels": {name: {...}}}``."""
        return {"n": self.n, "labels": {k: s.to_metrics() for k, s in self.labels.items()}}


Statistics = Callable[[Callable[[str], Array]], dict[str, Array]]


def robust_scatter(values: Array) -> Array:
    """1.4826 times the median absolute deviation about the median, along the last axis.

    Examples
    --------
    >>> float(robust_scatter(np.array([1.0, 2.0, 3.0, 4.0, 500.0])))
    1.4826
    """
    centre = np.median(values, axis=-1, keepdims=True)
    scatter: Array = 1.4826 * np.median(np.abs(values - centre), axis=-1)
    return scatter


def slope(truth: Array, predicted: Array) -> Array:
    """Least-squares slope of ``predicted`` on ``truth`` along the last axis; NaN if truth is one.

    Below 1 means a trend to the mean.
    """
    offset = truth - truth.mean(axis=-1, keepdims=True)
    variance = np.asarray((offset**2).sum(axis=-1))
    along = np.asarray((offset * predicted).sum(axis=-1))
    unknown = np.full(variance.shape, np.nan)
    result: Array = np.divide(along, variance, out=unknown, where=variance > 0)
    return result


def distance_from_uniform(pit: Array) -> Array:
    """Largest distance between the distribution of ``pit`` and the uniform one (Kolmogorov)."""
    n = pit.shape[-1]
    ranked = np.sort(pit, axis=-1)
    steps = np.arange(n + 1) / n
    distance: Array = np.maximum(
        (steps[1:] - ranked).max(axis=-1), (ranked - steps[:-1]).max(axis=-1)
    )
    return distance


def all_statistics(of: Callable[[str], Array]) -> dict[str, Array]:
    """Every one of :data:`SCORES`; ``of(name)`` gives an attribute of a sample, [..., n]."""
    residual, z, z_without = of("residual"), of("z"), of("z_without_label_error")
    return {
        "bias": np.median(residual, axis=-1),
        "rmse": np.sqrt((residual**2).mean(axis=-1)),
        "robust": robust_scatter(residual),
        "slope": slope(of("truth"), of("predicted")),
        "std_z": z.std(axis=-1),
        "robust_std_z": robust_scatter(z),
        "std_z_without_label_error": z_without.std(axis=-1),
        "robust_std_z_without_label_error": robust_scatter(z_without),
        "coverage_68": of("inside_68").mean(axis=-1),
        "coverage_95": of("inside_95").mean(axis=-1),
        "crps": of("crps").mean(axis=-1),
        "pit_distance": distance_from_uniform(of("pit")),
        "sharpness": np.median(of("error"), axis=-1),
    }


def bin_statistics(of: Callable[[str], Array]) -> dict[str, Array]:
    """The few scores that are kept for every bin."""
    residual = of("residual")
    return {
        "coverage_68": of("inside_68").mean(axis=-1),
        "bias": np.median(residual, axis=-1),
        "robust": robust_scatter(residual),
    }


def score(
    sample: Sample,
    statistics: Statistics = all_statistics,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> Scores:
    """Statistics of a sample with bootstrap errors over its stars.

    Parameters
    ----------
    sample
        One label of n stars.
    statistics
        :func:`all_statistics` or :func:`bin_statistics`.
    resamples
        Bootstrap resamples; with fewer than 2 of them, or of stars, the errors are NaN.
    seed
        Of the resampling; the same seed gives the same errors.

    Returns
    -------
    Scores
        NaN throughout if the sample is empty.
    """
    n = len(sample)
    if n == 0:
        names = statistics(lambda name: np.zeros(1))
        nothing = dict.fromkeys(names, float("nan"))
        return Scores(0, nothing, nothing)
    value = {k: float(v) for k, v in statistics(lambda name: getattr(sample, name)).items()}
    if n < 2 or resamples < 2:
        return Scores(n, value, dict.fromkeys(value, float("nan")))
    rng = np.random.default_rng(seed)
    blocks: list[dict[str, Array]] = []
    at_once = max(1, _ELEMENTS // n)
    for start in range(0, resamples, at_once):
        chosen = rng.integers(0, n, (min(at_once, resamples - start), n))
        blocks.append(statistics(lambda name, rows=chosen: getattr(sample, name)[rows]))  # type: ignore[misc]
    error = {k: float(np.concatenate([block[k] for block in blocks]).std(ddof=1)) for k in value}
    return Scores(n, value, error)
