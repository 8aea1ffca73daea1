"""How a survey's table is read, and what it becomes: rows by Gaia source_id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntFlag
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.labels import LABELS, Labels, check_names
from xplabels.core.lookup import Lookup
from xplabels.core.stars import Photometry, Rows
from xplabels.surveys.matching import MATCH_FLAGS, MatchFlag

Columns = Mapping[str, NDArray[Any]]
"""Lower-case column name -> array [N]."""
Array = NDArray[np.float64]
Read = tuple[Labels | Photometry, tuple[str, ...]]
"""What a survey measured of N stars, and notes on what was left out."""

NO_SOURCE = 0
"""The source_id of a row without a Gaia source."""
UNKNOWN_BITS = -1
"""A bit mask that is null."""
SENTINEL = -999.0
"""Surveys write -9999, -9999.99 or -999 for a missing number; nothing used here is as low."""


@dataclass(frozen=True)
class SurveyTable:
    """N rows of one survey."""

    survey: str  # its name, as rules write it
    where: str  # the file, for messages
    source_id: NDArray[np.int64]  # [N], Gaia DR3; NO_SOURCE where there is none; may repeat
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    """What rules ask for, and the survey's context: float64 [N] with NaN where null; bit masks
    int64 with :data:`UNKNOWN_BITS`."""
    labels: Labels | None = None
    photometry: Photometry | None = None
    quality: Array | None = None
    """[N], the higher the better (S/N of the spectrum), chooses among rows of one star; NaN where
    unknown."""
    notes: tuple[str, ...] = ()  # what a user of the rows should know

    def __len__(self) -> int:
        return len(self.source_id)

    @cached_property
    def lookup(self) -> Lookup:
        """The rows by source_id; raises :class:`InputError` if one has several rows."""
        return Lookup(self.source_id, self.where)

    def take(self, rows: Rows) -> SurveyTable:
        """Some rows, in that order."""
        return replace(
            self,
            source_id=self.source_id[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
            labels=None if self.labels is None else self.labels[rows],
            photometry=None if self.photometry is None else self.photometry[rows],
            quality=None if self.quality is None else self.quality[rows],
        )

    def column(self, name: str, source_id: NDArray[np.int64]) -> NDArray[Any]:
        """A column [M] for these stars; missing where a star is not in the table."""
        values = self.columns[name]
        missing = UNKNOWN_BITS if values.dtype.kind == "i" else np.nan
        aligned = np.full(len(source_id), missing, values.dtype)
        stars, rows = self.lookup.find(source_id)
        aligned[stars] = values[rows]
        return aligned


@dataclass(frozen=True)
class Survey:
    """How one survey's table is read."""

    name: str  # what the command line calls it
    title: str
    columns: tuple[str, ...]  # those that ``read`` uses, as far as they are there
    read: Callable[[Columns, NDArray[np.int64], object], Read]
    """Columns, source_ids and file -> labels or photometry, and notes."""
    source_id: tuple[str, ...] = ("source_id",)
    """Columns that may hold Gaia DR3 source_ids; the first that is there counts."""
    key: str | None = None  # the survey's own identifier, which a table of neighbours translates
    key_is_gaia: bool = False  # whether that is a source_id of another release; else it is text
    bits: Mapping[str, type[IntFlag]] = field(default_factory=dict)
    """Column of bit masks -> its bits by name."""
    quality: tuple[str, ...] = ()
    """Columns that may say how good a row is; the first that is there counts."""
    context: tuple[str, ...] = ()
    """Further numbers that say what kind of star it is, kept where they are there."""

    @property
    def masks(self) -> dict[str, type[IntFlag]]:
        """:attr:`bits`, and those of a match where the survey has identifiers of its own."""
        return {**self.bits, **({} if self.key is None else {MATCH_FLAGS: MatchFlag})}


def label_survey(
    name: str, title: str, labels: Mapping[str, tuple[str, ...]], **options: Any
) -> Survey:
    """A survey of labels, each with a column of values and one of errors (:func:`read_labels`)."""
    columns = tuple(column for names in labels.values() for column in names)
    return Survey(name, title, columns, partial(read_labels, labels), **options)


def read_labels(
    wanted: Mapping[str, tuple[str, ...]],
    columns: Columns,
    source_id: NDArray[np.int64],
    where: object,
) -> tuple[Labels, tuple[str, ...]]:
    """Labels [N, K], as far as the table has them.

    A survey's table is not the user's to mend: a value outside the label's believable range, or
    without a positive error, becomes unknown and is counted, where a table of the user's own
    would be refused.

    ``wanted``: label -> column of its values, and columns that may hold its errors, of which the
    first counts. Raises :class:`InputError` if the table has none of them.
    """
    names = [name for name in LABELS if name in wanted and wanted[name][0] in columns]
    if not names:
        raise InputError(
            f"has no labels: none of the columns {', '.join(w[0] for w in wanted.values())}",
            where=where,
            remedy="give the survey's table in its published columns, or name another survey",
        )
    values = np.full((len(source_id), len(names)), np.nan)
    errors = values.copy()
    notes: list[str] = []
    for k, name in enumerate(names):
        value, *error_columns = wanted[name]
        error = next((column for column in error_columns if column in columns), "")
        one, sigma = (number(columns, column, len(source_id)) for column in (value, error))
        label, known = LABELS[name], np.isfinite(one)
        alone = known & ~(sigma > 0)
        outside = known & ((one < label.lower) | (one > label.upper))
        for rows, why in (
            (alone, "without a positive error"),
            (outside, f"outside {label.lower:g} to {label.upper:g} {label.unit}"),
        ):
            if rows.any():
                notes.append(f"{where}: {int(rows.sum())} values of {name} {why}: taken as unknown")
        known &= ~(alone | outside)
        values[known, k], errors[known, k] = one[known], sigma[known]
    return Labels(check_names(names), values, errors), tuple(notes)


def number(columns: Columns, name: str, rows: int) -> Array:
    """A column as float64 [N], sentinels and infinities as NaN; all NaN where it is absent."""
    if name not in columns:
        return np.full(rows, np.nan)
    values = np.asarray(columns[name], np.float64)
    return np.where(np.isfinite(values) & (values > SENTINEL), values, np.nan)


def first_number(columns: Columns, names: Sequence[str], rows: int) -> Array:
    """The first of ``names`` that is there, each gap filled from the next."""
    values = np.full(rows, np.nan)
    for name in names:
        values = np.where(np.isfinite(values), values, number(columns, name, rows))
    return values


def has_letter(
    columns: Columns, name: str, band: int, letters: str, rows: int
) -> NDArray[np.bool_]:
    """Whether a quality column of one letter per band has one of ``letters`` there [N]."""
    if name not in columns:
        return np.zeros(rows, bool)
    return np.array([word[band : band + 1] in [*letters] for word in columns[name].astype(str)])
