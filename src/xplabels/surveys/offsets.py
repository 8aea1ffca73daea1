"""Put several surveys on one scale by an offset per survey and label, fitted to their common stars.

One of the surveys may be a network's predictions for stars that it was not trained on, which
connects surveys that have no star in common.

Each label has its own reference, the first survey that has it. For every pair of surveys, the
median difference of their common stars measures the difference of two offsets. The offsets are the
weighted least-squares solution of all pairs, so that a survey without stars in common with the
reference is tied to it through a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.scores import robust_scatter
from xplabels.surveys.table import SurveyTable

MIN_COMMON = 20
"""Fewest stars in common for which a pair of surveys is compared."""
PIVOT = 4600.0
"""Teff at which the trend of an offset is zero, K."""
MEDIAN_ERROR = np.sqrt(np.pi / 2)
"""Ratio of the standard errors of a median and of a mean, for Gaussian scatter."""


@dataclass(frozen=True)
class Offset:
    """What is subtracted from a survey's label, in the label's unit."""

    survey: str
    label: str
    reference: str  # the survey whose scale it is put on
    value: float  # survey minus reference
    error: float  # its standard error
    common: int  # stars in common with the reference; 0 if tied to it through other surveys
    scatter: float  # robust standard deviation of their differences; NaN without common stars
    pull: float  # the same in units of the two stated errors: 1 if these are right
    slope: float = 0.0  # further offset of a star 1000 K hotter than PIVOT
    slope_error: float = 0.0

    def to_text(self) -> str:
        """The offset in words, for the terminal and a model's provenance."""
        slope = f", {round(self.slope, 9):+.2g} +- {self.slope_error:.1g} per 1000 K"
        trend = slope if self.slope_error else ""
        return (
            f"{self.survey} minus {self.reference}, {self.label}: {self.value:.4g} +- "
            f"{self.error:.2g}{trend} ({self.common} common stars), subtracted"
        )


def fit_offsets(
    tables: Sequence[SurveyTable], measured: Sequence[Offset] = (), trends: bool = False
) -> list[Offset]:
    """The offset of every survey and label that is not its label's reference.

    ``tables`` hold each star once. ``measured`` are offsets of pairs of them that are known from
    other stars. With ``trends`` a slope with Teff is fitted, too, for pairs of which one has Teff
    as label or column. Raises :class:`InputError` if a survey has fewer than :data:`MIN_COMMON`
    stars in common with those that tie it to the reference.
    """
    offsets: list[Offset] = []
    for label in dict.fromkeys(n for t in tables if t.labels is not None for n in t.labels.names):
        with_label = [t for t in tables if t.labels is not None and label in t.labels.names]
        if len(with_label) > 1:
            of_label = [offset for offset in measured if offset.label == label]
            offsets.extend(_fit(label, with_label, of_label, trends and label != "teff"))
    return offsets


def subtract(table: SurveyTable, offsets: Sequence[Offset]) -> SurveyTable:
    """A survey with its labels on the reference's scale; the errors stay as they are."""
    labels = table.labels
    if labels is None:
        return table
    values = labels.values.copy()
    for offset in offsets:
        if offset.survey == table.survey and offset.label in labels.names:
            values[:, labels.names.index(offset.label)] -= offset.value
            if offset.slope:
                values[:, labels.names.index(offset.label)] -= offset.slope * _warmth(table)
    return replace(table, labels=replace(labels, values=values))


def _fit(
    label: str, tables: Sequence[SurveyTable], measured: Sequence[Offset], trends: bool
) -> list[Offset]:
    """The offsets of one label for all ``tables`` but the first, which is the reference."""
    number = {table.survey: k for k, table in enumerate(tables)}
    # pairs of surveys, by number; one may be compared here and be among `measured`
    pairs = [
        (i, j, pair)
        for i, j in combinations(range(len(tables)), 2)
        if (pair := _pair(label, tables[i], tables[j], trends)) is not None
    ] + [
        (number[offset.reference], number[offset.survey], offset)
        for offset in measured
        if {offset.reference, offset.survey} <= number.keys()
    ]
    # surveys that are tied to the reference, number 0, directly or through others
    tied = {0}
    for _ in tables:
        tied |= {k for i, j, _ in pairs if tied & {i, j} for k in (i, j)}
    for k, table in enumerate(tables):
        if k not in tied:
            raise InputError(
                f"survey {table.survey!r} has fewer than {MIN_COMMON} stars with {label} in common "
                f"with {tables[0].survey!r} or any survey tied to it, so its offset cannot be "
                "fitted",
                remedy="leave the survey out, or give --offsets none to take its scale as it is",
            )
    values, errors = _solved([(i, j, pair.value, pair.error) for i, j, pair in pairs], len(tables))
    slopes, slope_errors = _solved(
        [(i, j, pair.slope, pair.slope_error) for i, j, pair in pairs if pair.slope_error],
        len(tables),
    )
    direct = {j: pair for i, j, pair in reversed(pairs) if i == 0}
    offsets = []
    for k, table in enumerate(tables[1:], start=1):
        tied_by_others = Offset(table.survey, label, tables[0].survey, 0.0, 0.0, 0, np.nan, np.nan)
        offsets.append(
            replace(
                direct.get(k, tied_by_others), value=values[k], error=errors[k],
                slope=slopes[k], slope_error=slope_errors[k],
            )
        )  # fmt: skip
    return offsets


def _solved(
    pairs: Sequence[tuple[int, int, float, float]], surveys: int
) -> tuple[list[float], ...]:
    """Value and error of each survey from measured differences (first, second, value, error).

    The first survey's value is 0. If no pair includes it, the mean of the others is 0 instead.
    """
    design, measured = np.zeros((len(pairs), surveys)), np.zeros(len(pairs))
    for row, (i, j, value, error) in enumerate(pairs):
        design[row, [i, j]], measured[row] = [-1 / error, 1 / error], value / error
    fixed = int(any(0 in pair[:2] for pair in pairs))
    inverse = np.linalg.pinv(design[:, fixed:].T @ design[:, fixed:])
    solution = inverse @ design[:, fixed:].T @ measured
    measured_at_all = design[:, fixed:].any(axis=0)  # all other surveys get 0
    results = np.where(measured_at_all, [solution, np.sqrt(np.diag(inverse))], 0.0)
    return tuple([0.0] * fixed + result.tolist() for result in results)


def _pair(label: str, first: SurveyTable, second: SurveyTable, trends: bool) -> Offset | None:
    """The offset of the second survey from common stars alone; None if these are too few."""
    first, second = (
        table.take(np.flatnonzero(np.isfinite(table.label(label)[0]))) for table in (first, second)
    )
    _, rows, second_rows = np.intersect1d(first.source_id, second.source_id, return_indices=True)
    if len(rows) < MIN_COMMON:
        return None
    first, second = first.take(rows), second.take(second_rows)
    (values, errors), (second_values, second_errors) = (t.label(label) for t in (first, second))
    difference, expected = second_values - values, np.hypot(errors, second_errors)
    slope = slope_error = 0.0
    if trends:
        warmth = np.where(np.isnan(_warmth(first)), _warmth(second), _warmth(first))
        slope, slope_error = _slope(warmth, difference)
        difference = difference - slope * np.nan_to_num(warmth)
    median, scatter = float(np.median(difference)), float(robust_scatter(difference))
    # a lower limit from the stated errors, as some differences may be equal by accident
    least = float(np.median(expected)) * 0.1
    error = float(MEDIAN_ERROR * max(scatter, least) / np.sqrt(len(difference)))
    pull = float(robust_scatter((difference - median) / expected))
    return Offset(
        second.survey, label, first.survey, median, error, len(difference), scatter, pull,
        slope, slope_error,
    )  # fmt: skip


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope of y on x, and its error, by Huber's M-estimate; zeros if too few x are known."""
    from scipy.optimize import least_squares

    known = np.isfinite(x)
    x, y = x[known], y[known]
    if len(x) < MIN_COMMON or not np.ptp(x):
        return 0.0, 0.0
    unit = max(float(robust_scatter(y)), 1e-12)
    design = np.stack([np.ones(len(x)), x], axis=1)
    fit = least_squares(
        lambda c: (design @ c - y) / unit, [np.median(y), 0.0], loss="huber", f_scale=1.345
    )
    error = unit * np.sqrt(np.linalg.inv(design.T @ design)[1, 1])
    return float(fit.x[1]), float(error)


def _warmth(table: SurveyTable) -> NDArray[np.float64]:
    """(Teff - PIVOT) / 1000 K [N], from the label or else a column; NaN where it is unknown."""
    teff = table.label("teff")[0]
    if np.isnan(teff).all():
        teff = table.columns.get("teff", teff)
    return np.asarray((teff - PIVOT) / 1000)
