"""Several surveys on one scale: an offset per survey and label, fitted on their common stars.

Each label has its own reference, the first survey that has it. For every pair of surveys the
median difference over common stars is one measurement of the difference of two offsets; the
offsets are the weighted least-squares solution of all pairs, so that a survey without stars in
common with the reference is tied to it through a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.labels import LABELS, Labels

MIN_COMMON = 20
"""A pair of surveys with fewer stars in common says nothing of their offset."""
MAD_TO_SIGMA = 1.4826
MEDIAN_ERROR = np.sqrt(np.pi / 2)
"""Standard error of a median over that of a mean, for Gaussian scatter."""


@dataclass(frozen=True)
class Labelled:
    """Known labels of N stars, each once, from one survey."""

    survey: str
    source_id: NDArray[np.int64]
    labels: Labels


@dataclass(frozen=True)
class Offset:
    """What is subtracted from a survey's label, in the label's unit.

    Attributes
    ----------
    survey, label, reference
        Whose values, which label, and the survey whose scale it is put on.
    value, error
        The offset (survey minus reference) and its standard error.
    common
        Stars in common with the reference itself; 0 where the tie goes through other surveys.
    scatter
        Robust standard deviation of the differences from the reference; NaN without common stars.
    pull
        The same in units of the two stated errors: 1 where these are right.
    """

    survey: str
    label: str
    reference: str
    value: float
    error: float
    common: int
    scatter: float
    pull: float

    def to_text(self) -> str:
        """In a sentence, for the terminal and a model's provenance."""
        return (
            f"{self.survey} minus {self.reference}, {self.label}: {self.value:.4g} +- "
            f"{self.error:.2g} ({self.common} common stars), subtracted"
        )


def fit_offsets(tables: Sequence[Labelled]) -> list[Offset]:
    """The offset of every survey and label that is not its label's reference.

    Raises
    ------
    InputError
        If a survey has fewer than :data:`MIN_COMMON` stars in common with those that tie it to
        the reference.
    """
    offsets: list[Offset] = []
    for label in LABELS:
        have = [table for table in tables if label in table.labels.names]
        if len(have) > 1:
            offsets.extend(_fit(label, have))
    return offsets


def subtract(table: Labelled, offsets: Sequence[Offset]) -> Labelled:
    """A survey's labels on the reference's scale; the errors stay as they are."""
    values = table.labels.values.copy()
    for offset in offsets:
        if offset.survey == table.survey:
            values[:, table.labels.names.index(offset.label)] -= offset.value
    return Labelled(
        table.survey, table.source_id, Labels(table.labels.names, values, table.labels.errors)
    )


@dataclass(frozen=True)
class _Pair:
    """Differences of a label over the stars that two surveys (i < j) both know: j minus i."""

    i: int
    j: int
    difference: NDArray[np.float64]
    expected: NDArray[np.float64]

    @property
    def center(self) -> float:
        return float(np.median(self.difference))

    @property
    def scatter(self) -> float:
        return float(MAD_TO_SIGMA * np.median(np.abs(self.difference - self.center)))

    @property
    def error(self) -> float:
        # the stated errors keep a handful of accidentally equal differences from ruling
        least = float(np.median(self.expected)) * 0.1
        return float(MEDIAN_ERROR * max(self.scatter, least) / np.sqrt(len(self.difference)))


def _fit(label: str, have: Sequence[Labelled]) -> list[Offset]:
    columns = [_column(table, label) for table in have]
    pairs = []
    for i, j in combinations(range(len(have)), 2):
        pair = _compare(i, j, columns)
        if len(pair.difference) >= MIN_COMMON:
            pairs.append(pair)
    _check_tied(label, have, pairs)
    design = np.zeros((len(pairs), len(have)))
    for row, pair in enumerate(pairs):
        design[row, [pair.i, pair.j]] = -1 / pair.error, 1 / pair.error
    measured = np.array([pair.center / pair.error for pair in pairs])
    # the reference's own offset, the first column, is 0
    normal = design[:, 1:].T @ design[:, 1:]
    solution = np.linalg.solve(normal, design[:, 1:].T @ measured)
    errors = np.sqrt(np.diag(np.linalg.inv(normal)))
    direct = {pair.j: pair for pair in pairs if pair.i == 0}
    offsets = []
    for k, table in enumerate(have[1:], start=1):
        pair_or_none = direct.get(k)
        scatter = pull = np.nan
        if pair_or_none is not None:
            pair = pair_or_none
            scatter = pair.scatter
            z = (pair.difference - pair.center) / pair.expected
            pull = float(MAD_TO_SIGMA * np.median(np.abs(z - np.median(z))))
        offsets.append(
            Offset(
                table.survey, label, have[0].survey,
                float(solution[k - 1]), float(errors[k - 1]),
                0 if pair_or_none is None else len(pair_or_none.difference), scatter, pull,
            )
        )  # fmt: skip
    return offsets


def _column(
    table: Labelled, label: str
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    one = table.labels.select([label])
    known = np.isfinite(one.values[:, 0])
    return table.source_id[known], one.values[known, 0], one.errors[known, 0]


def _compare(
    i: int,
    j: int,
    columns: Sequence[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]],
) -> _Pair:
    _, a, b = np.intersect1d(columns[i][0], columns[j][0], return_indices=True)
    difference = columns[j][1][b] - columns[i][1][a]
    return _Pair(i, j, difference, np.hypot(columns[i][2][a], columns[j][2][b]))


def _check_tied(label: str, have: Sequence[Labelled], pairs: Sequence[_Pair]) -> None:
    tied = {0}
    for _ in have:
        tied |= {k for pair in pairs if {pair.i, pair.j} & tied for k in (pair.i, pair.j)}
    loose = [table.survey for k, table in enumerate(have) if k not in tied]
    if loose:
        raise InputError(
            f"survey {loose[0]!r} has fewer than {MIN_COMMON} stars with {label} in common with "
            f"{have[0].survey!r} or any survey tied to it, so its offset cannot be fitted",
            remedy="leave the survey out, or give --offsets none to take its scale as it is",
        )
