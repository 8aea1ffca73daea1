"""How a survey's table is read, and what it becomes: rows by Gaia source_id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntFlag
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.duplicates import best_rows
from xplabels.core.labels import Labels, Rows
from xplabels.core.lookup import Lookup
from xplabels.core.stars import Photometry
from xplabels.io.columns import first_present, meant
from xplabels.surveys.matching import MATCH_FLAGS, MatchFlag

Array = NDArray[np.float64]

NO_SOURCE = 0
"""The source_id of a row without a Gaia source."""
UNKNOWN_BITS = -1
"""A bit mask that is null."""
SENTINEL = -999.0
"""Surveys write -9999, -9999.99 or -999 for a missing number; nothing used here is as low."""


@dataclass(frozen=True)
class RawTable:
    """N rows of a survey as published."""

    columns: Mapping[str, NDArray[Any]]  # lower-case name -> array [N]
    source_id: NDArray[np.int64]  # [N], Gaia DR3; NO_SOURCE where there is none; may repeat
    where: str  # the file, for messages
    notes: list[str] = field(default_factory=list)  # what a user of the rows should know

    def __len__(self) -> int:
        return len(self.source_id)

    def numbers(self, *names: str) -> Array:
        """A column as float64 [N], with gaps filled from the next columns; NaN where none has any.

        Sentinels and infinities count as gaps.
        """
        filled = np.full(len(self), np.nan)
        for name in names:
            if name in self.columns:
                values = np.asarray(self.columns[name], np.float64)
                gap = np.isnan(filled) & np.isfinite(values) & (values > SENTINEL)
                filled = np.where(gap, values, filled)
        return filled

    def letters(self, *names: str) -> NDArray[np.str_]:
        """The first of these columns that is present, as text [N]; empty texts if none is."""
        name = first_present(names, self.columns)
        return np.full(len(self), "") if name is None else self.columns[name].astype(str)

    def possible(self, values: Array, name: str) -> Array:
        """Values [N] of a measurement; NaN where no star can have such a value, which is noted."""
        possible, _ = meant(values, name)
        impossible = np.isnan(possible) & ~np.isnan(values)
        self.note(impossible, f"values of {name} that no star can have: missing")
        return possible

    def note(self, rows: NDArray[np.bool_], what: str) -> None:
        """Add a note of how many ``rows`` [N] there are, if any, and ``what`` they are."""
        if rows.any():
            self.notes.append(f"{self.where}: {np.count_nonzero(rows)} {what}")

    def with_columns(self, columns: Mapping[str, NDArray[Any]]) -> RawTable:
        """The same rows with further columns, or others in place of those of that name."""
        return replace(self, columns={**self.columns, **columns})


@dataclass(frozen=True)
class SurveyTable:
    """N rows of one survey."""

    survey: str  # its name, as rules write it
    where: str  # the file, for messages
    source_id: NDArray[np.int64]  # [N], Gaia DR3; NO_SOURCE where there is none; may repeat
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Columns that rules use, and the survey's context: float64 [N] with NaN where null, or int64
    with :data:`UNKNOWN_BITS` if they are bit masks."""
    labels: Labels | None = None
    photometry: Photometry | None = None
    quality: Array | None = None
    """S/N of the spectrum or the like [N], by which one of a star's rows is chosen; NaN where
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

    def best(self, use: NDArray[np.bool_]) -> SurveyTable:
        """The best row of each star by quality (the first of equals), of those in ``use`` [N]."""
        quality = np.zeros(len(self)) if self.quality is None else self.quality
        return self.take(best_rows(self.source_id, quality, use))

    def label(self, name: str) -> tuple[Array, Array]:
        """Values and errors [N] of a label; NaN where the table has none."""
        if self.labels is None or name not in self.labels.names:
            return np.full(len(self), np.nan), np.full(len(self), np.nan)
        label = self.labels.select([name])
        return label.values[:, 0], label.errors[:, 0]

    def column(self, name: str, source_id: NDArray[np.int64]) -> NDArray[Any]:
        """A column [M] for these stars; null where a star is not in the table."""
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
    columns: tuple[str, ...]  # those that ``read`` uses if they are present
    read: Callable[[RawTable], Labels | Photometry]  # notes what it leaves out
    source_id: tuple[str, ...] = ("source_id",)
    """Columns that may hold Gaia DR3 source_ids, in order of precedence."""
    key: str | None = None  # the survey's own identifier, which a table of neighbours translates
    key_is_gaia: bool = False  # whether that is a source_id of another release; else it is text
    bits: Mapping[str, type[IntFlag]] = field(default_factory=dict)
    """Column of bit masks -> its bits by name."""
    quality: tuple[str, ...] = ()
    """Columns that may say how good a row is, in order of precedence."""
    context: tuple[str, ...] = ()
    """Columns of further numbers that say what kind of star it is, kept if they are present."""

    @property
    def masks(self) -> dict[str, type[IntFlag]]:
        """:attr:`bits`, with those of a match if the survey has identifiers of its own."""
        return {**self.bits, **({} if self.key is None else {MATCH_FLAGS: MatchFlag})}
