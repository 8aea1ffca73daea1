"""Several surveys on one scale: an offset per survey and label, fitted on their common stars.

Each label has its own reference, the first survey that has it. For every pair of surveys the
median difference over common stars is one measurement of the difference of two offsets; the
offsets are the weighted least-squares solution of all pairs, so that a survey without stars in
common with the reference is tied to it through a third.
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
"""Fewer stars in common do not tie a pair of surveys."""
MEDIAN_ERROR = np.sqrt(np.pi / 2)
"""Standard error of a median over that of a mean, for Gaussian scatter."""


@dataclass(frozen=True)
class Offset:
    """What is subtracted from a survey's label, in the label's unit."""

    survey: str
    label: str
    reference: str  # the survey whose scale it is put on
    value: float  # survey minus reference
    error: float  # its standard error
    common: int  # stars in common with the reference; 0 where the tie goes through other surveys
    scatter: float  # robust standard deviation of their differences; NaN without common stars
    pull: float  # the same in units of the two stated errors: 1 where these are right

    def to_text(self) -> str:
        """In a sentence, for the terminal and a model's provenance."""
        return (
            f"{self.survey} minus {self.reference}, {self.label}: {self.value:.4g} +- "
            f"{self.error:.2g} ({self.common} common stars), subtracted"
        )


def fit_offsets(tables: Sequence[SurveyTable]) -> list[Offset]:
    """The offset of every survey and label that is not its label's reference.

    ``tables`` hold each star once. Raises :class:`InputError` if a survey has fewer than
    :data:`MIN_COMMON` stars in common with those that tie it to the reference.
    """
    offsets: list[Offset] = []
    for label in dict.fromkeys(n for t in tables if t.labels is not None for n in t.labels.names):
        have = [t for t in tables if t.labels is not None and label in t.labels.names]
        if len(have) > 1:
            offsets.extend(_fit(label, have))
    return offsets


def subtract(table: SurveyTable, offsets: Sequence[Offset]) -> SurveyTable:
    """A survey's labels on the reference's scale; the errors stay as they are."""
    mine = {offset.label: offset.value for offset in offsets if offset.survey == table.survey}
    if table.labels is None or not mine:
        return table
    shift = np.array([mine.get(name, 0.0) for name in table.labels.names])
    return replace(table, labels=replace(table.labels, values=table.labels.values - shift))


def _fit(label: str, have: Sequence[SurveyTable]) -> list[Offset]:
    pairs = {
        (i, j): pair
        for i, j in combinations(range(len(have)), 2)
        if (pair := _pair(label, have[i], have[j])) is not None
    }
    tied = {0}
    for _ in have:
        tied |= {k for pair in pairs if tied & {*pair} for k in pair}
    for k, table in enumerate(have):
        if k not in tied:
            raise InputError(
                f"survey {table.survey!r} has fewer than {MIN_COMMON} stars with {label} in common "
                f"with {have[0].survey!r} or any survey tied to it, so its offset cannot be fitted",
                remedy="leave the survey out, or give --offsets none to take its scale as it is",
            )
    design = np.zeros((len(pairs), len(have)))
    for row, ((i, j), pair) in enumerate(pairs.items()):
        design[row, [i, j]] = -1 / pair.error, 1 / pair.error
    measured = np.array([pair.value / pair.error for pair in pairs.values()])
    # the reference's own offset, the first column, is 0
    normal = design[:, 1:].T @ design[:, 1:]
    solution = np.linalg.solve(normal, design[:, 1:].T @ measured)
    errors = np.sqrt(np.diag(np.linalg.inv(normal)))
    offsets = []
    for k, table in enumerate(have[1:], start=1):
        tied_by_others = Offset(table.survey, label, have[0].survey, 0.0, 0.0, 0, np.nan, np.nan)
        value, error = float(solution[k - 1]), float(errors[k - 1])
        offsets.append(replace(pairs.get((0, k), tied_by_others), value=value, error=error))
    return offsets


def _pair(label: str, one: SurveyTable, other: SurveyTable) -> Offset | None:
    """The offset of two surveys from their common stars alone; None where these are too few."""
    (ids_1, values_1, errors_1), (ids_2, values_2, errors_2) = (
        _column(table, label) for table in (one, other)
    )
    _, a, b = np.intersect1d(ids_1, ids_2, return_indices=True)
    if len(a) < MIN_COMMON:
        return None
    difference = values_2[b] - values_1[a]
    expected = np.hypot(errors_1[a], errors_2[b])
    center, scatter = float(np.median(difference)), float(robust_scatter(difference))
    # the stated errors keep a handful of accidentally equal differences from ruling
    least = float(np.median(expected)) * 0.1
    error = float(MEDIAN_ERROR * max(scatter, least) / np.sqrt(len(a)))
    pull = float(robust_scatter((difference - center) / expected))
    return Offset(other.survey, label, one.survey, center, error, len(a), scatter, pull)


def _column(
    table: SurveyTable, label: str
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """source_ids, values and errors where the label is known."""
    if table.labels is None:
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    one = table.labels.select([label])
    known = np.isfinite(one.values[:, 0])
    return table.source_id[known], one.values[known, 0], one.errors[known, 0]
