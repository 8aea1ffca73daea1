"""Photometry, parallaxes and labels, joined to stars by ``source_id`` from tables in any format."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted
from xplabels.core.labels import LABELS, check_names
from xplabels.core.lookup import Lookup
from xplabels.core.quality import QUALITY_COLUMNS, has_quality, quality_flags
from xplabels.core.stars import Photometry, Stars
from xplabels.io.columns import (
    MEASURED,
    PHOTOMETRY_COLUMNS,
    label_columns,
    labels_among,
    labels_of,
    numbers,
    photometry_of,
)
from xplabels.io.files import Digest
from xplabels.io.hats import PartitionedTable
from xplabels.io.memory import (
    MemoryTable,
    is_path,
    listed,
    name_of,
    read_memory,
    table_of,
    words_of,
)
from xplabels.io.plain import Columns, read_table
from xplabels.releases import computed, with_inputs

TAKEN_COLUMNS = (*PHOTOMETRY_COLUMNS, *QUALITY_COLUMNS)
"""What is taken from tables of photometry."""

__all__ = ["join_labels", "join_photometry", "read_table"]

logger = logging.getLogger(__name__)


def stars_from_arrays(**columns: Any) -> Stars:
    """Stars from arrays by the archive's names; see :meth:`~xplabels.core.stars.Stars.from_arrays`.

    None stands for what is not known; a source_id that is one number, for one star.
    """
    one = np.ndim(columns["source_id"]) == 0
    given = {name: np.ma.asarray(values) for name, values in columns.items() if values is not None}
    rows = {name: values[None] if one else values for name, values in given.items()}
    return next(read_memory(MemoryTable("the arrays", rows)))


def join_photometry(stars: Stars, paths: Any) -> Stars:
    """``stars`` with photometry, parallaxes and flags of quality from tables by ``source_id``.

    Parameters
    ----------
    stars
        What they have of a measurement that no table has stays as it was.
    paths
        A table or several, files or in memory (:mod:`xplabels.io.memory`), with the archives'
        column names (see :data:`~xplabels.io.columns.MEASURED` and
        :data:`~xplabels.core.quality.RULES`). A later one overrides an earlier one where it has
        values; flags add up. A value without an error is missing; ``notes`` says how many.

    Raises InputError if a table cannot be read, has no column of photometry, has magnitudes without
    a column of errors, has a source_id twice or shares none with the stars, or if an error of one
    of these stars is zero or negative.

    Examples
    --------
    >>> import xplabels as xp
    >>> stars = xp.example_stars(2)
    >>> lines = [f"{star},12.5,0.02" for star in stars.source_id]
    >>> with open("tmass.csv", "w") as file:
    ...     _ = file.write("\\n".join(["source_id,j_m,j_msigcom", *lines]))
    >>> join_photometry(stars, ["tmass.csv"]).photometry.column("j_m")[0]
    array([12.5, 12.5])
    """
    tables = [KeyedTable.read(path, TAKEN_COLUMNS) for path in listed(paths)]
    filled, notes = Filled.of(stars), [*stars.notes]
    for table in tables:
        check_photometry(table)
        rows, found = table.find(stars.source_id)
        if len(rows) == 0:
            raise _nothing_shared(table.path)
        notes += filled.take(rows, found, table.path)
        notes.append(matched(table.path, len(rows), len(stars)))
    return replace(filled.stars(), notes=tuple(notes))


def join_labels(
    stars: Stars, path: Any, names: Sequence[str] | None = None, needed: bool = True
) -> Stars:
    """``stars`` with labels from a table keyed by ``source_id``, in place of any they had.

    Parameters
    ----------
    stars
        Stars without a row in the table get NaN.
    path
        A table, a file or in memory, with a column of numbers and one of errors for each label:
        ``teff, teff_err`` (or ``teff_error``, ``e_teff``, ...; see
        :data:`~xplabels.io.columns.LABEL_ERRORS`). A value without an error is unknown, and
        ``notes`` says how many are. Units and descriptions come with it
        (:mod:`xplabels.io.words`).
    names
        The labels wanted, by the names of their columns in lower case, or as
        :class:`~xplabels.core.labels.Label` with units and words of your own. Without it, every
        column that has one of errors, but positions, motions and magnitudes; the log lists them.
    needed
        Whether one of ``names`` that is absent is an error. If not, those of ``LABELS`` are taken,
        too; where the file of the stars itself has none they stay as they are.

    Raises InputError if the table cannot be read, has a source_id twice or shares none with the
    stars; if a label or its column of errors is absent; if an error is zero or negative or a value
    is outside the label's plausible range.

    Examples
    --------
    >>> import xplabels as xp
    >>> stars = xp.example_stars(2)
    >>> lines = [f"{star},4800,50" for star in stars.source_id]
    >>> with open("survey.csv", "w") as file:
    ...     _ = file.write("\\n".join(["source_id,teff,teff_err", *lines]))
    >>> join_labels(stars, "survey.csv", ["teff"]).labels.values
    array([[4800.],
           [4800.]])
    """
    source = path if is_path(path) else table_of(path)
    wanted: Sequence[str] = labels_in(source) if names is None else check_names(names)
    if not wanted:
        raise InputError(
            "has no column of labels: none of numbers has one of errors beside it",
            where=name_of(source),
            remedy="name columns as in teff and teff_err, or mass and mass_err",
        )
    table = KeyedTable.read(source, label_columns((*wanted, *LABELS)))
    absent = [name for name in wanted if name not in table.columns]
    if absent and needed:
        others = ",".join(labels_in(source))
        raise InputError(
            f"column {str(absent[0])!r} is absent",
            where=table.path,
            remedy=f"add {absent[0]} and {absent[0]}_err"
            + (f", or take the labels that are there (--labels {others})" if others else ""),
        )
    if names is None:
        logger.info("%s: labels %s", table.path, ", ".join(wanted))
    if not needed:
        either = dict.fromkeys((*wanted, *LABELS))
        wanted = tuple(name for name in either if name in table.columns)
        if not wanted and name_of(source) == stars.file:
            return stars
        if not wanted:
            raise InputError(
                f"has none of the labels {', '.join(either)}",
                where=table.path,
                remedy="check that it is the table you mean, and how its columns are named",
            )
    rows, found = table.find(stars.source_id)
    if len(rows) == 0:
        raise _nothing_shared(table.path)
    words = words_of(source)
    counts = matched(table.path, len(rows), len(stars))
    here, notes = labels_of(found, wanted, stars.source_id[rows], table.path, words)
    values = np.full((len(stars), len(wanted)), np.nan)
    errors = values.copy()
    values[rows], errors[rows] = here.values, here.errors
    return replace(
        stars,
        labels=replace(here, values=values, errors=errors),
        notes=(*stars.notes, *notes, counts),
    )


def matched(table: object, found: int, stars: int) -> str:
    """How many of the stars a table has a row for, in words."""
    return f"{table}: {found} of {counted(stars, 'star')} joined, {stars - found} not in this table"


def labels_in(source: Any) -> tuple[str, ...]:
    """The labels of a table, of which none was named."""
    known, columns = label_columns([*LABELS]), read_table(source)
    columns = computed(columns, {*columns, *known})
    return labels_among(
        [name for name, column in columns.items()
         if name in known or (column.dtype.kind in "iuf" and column.ndim == 1)]
    )  # fmt: skip


@dataclass(frozen=True)
class KeyedTable:
    """Columns of numbers of a table, in memory, looked up by ``source_id``."""

    path: Path
    columns: Columns
    lookup: Lookup

    @classmethod
    def read(
        cls, source: Any, columns: Collection[str], digest: Digest | None = None
    ) -> KeyedTable:
        """The wanted columns of a file or of a table in memory, as far as they are there.

        ``digest`` counts all bytes of the file. Raises InputError if it cannot be read, has a
        source_id twice, or a column does not hold numbers.
        """
        table = computed(read_table(source, with_inputs(columns), digest), {"source_id", *columns})
        if digest is not None:
            digest.take_rest(Path(source))
        return cls.of(table, name_of(source))

    @classmethod
    def of(cls, table: Columns, where: str) -> KeyedTable:
        """The columns of a table, all of which must hold numbers."""
        lookup = Lookup(table["source_id"], where)
        found = {name: numbers(table, name, where) for name in table if name != "source_id"}
        return cls(Path(where), found, lookup)

    def find(self, source_id: NDArray[np.int64]) -> tuple[NDArray[np.intp], Columns]:
        """Which of ``source_id`` [N] are here, and their columns."""
        stars, rows = self.lookup.find(source_id)
        return stars, {name: values[rows] for name, values in self.columns.items()}


Table = KeyedTable | PartitionedTable
"""A table to look stars up in: ``path``, ``columns`` (lower-case names) and ``find``."""


def has_photometry(names: Collection[str]) -> bool:
    """Whether one of these columns is a magnitude or a parallax, or some tell Gaia's quality."""
    return has_quality(names) or any(
        name in names for measured in MEASURED.values() for name in measured.values
    )


def check_photometry(table: Table) -> None:
    """Raise :class:`InputError`, before the work, if a table lacks photometry or its errors."""
    if not has_photometry(table.columns):
        raise InputError(
            "has no column of photometry",
            where=table.path,
            remedy=f"name its columns {', '.join(MEASURED)}",
        )
    # no rows, but the same columns
    photometry_of(table.find(np.empty(0, np.int64))[1], np.empty(0, np.int64), table.path)


@dataclass(frozen=True)
class Filled:
    """Stars whose photometry and flags are being filled from tables."""

    before: Stars
    photometry: Photometry
    flags: NDArray[np.uint32]

    @classmethod
    def of(cls, stars: Stars) -> Filled:
        """What is to be filled: a copy of what the stars have."""
        values, errors = stars.photometry.values.copy(), stars.photometry.errors.copy()
        return cls(stars, Photometry(values, errors), stars.flags.copy())

    def take(self, rows: NDArray[np.intp], found: Columns, where: object) -> tuple[str, ...]:
        """Put what a table has, ``found``, into ``rows``; notes on it.

        Raises InputError if an error is zero or negative.
        """
        here, notes = photometry_of(found, self.before.source_id[rows], where)
        known, mine = np.isfinite(here.values), self.photometry
        mine.values[rows] = np.where(known, here.values, mine.values[rows])
        mine.errors[rows] = np.where(known, here.errors, mine.errors[rows])
        self.flags[rows] |= quality_flags(found, self.photometry[rows])
        return notes

    def stars(self) -> Stars:
        """The stars with what was filled in."""
        return replace(self.before, photometry=self.photometry, flags=self.flags)


def _nothing_shared(path: object) -> InputError:
    return InputError(
        "shares no source_id with the stars",
        where=path,
        remedy="check that both have source_ids of the same Gaia data release",
    )
