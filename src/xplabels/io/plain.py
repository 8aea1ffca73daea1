"""Any table, in any format, -> plain columns; most are keyed by ``source_id``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.io import forms, memory
from xplabels.io.arrays import cells_of
from xplabels.io.delimited import csv_table
from xplabels.io.files import KINDS, Digest, format_of, text_lines, unchanged, whole
from xplabels.io.fits import fits_tables, open_fits, readable_fits
from xplabels.io.forms import SOURCE_ID, FileTable
from xplabels.io.parquet import open_parquet
from xplabels.io.votable import votables
from xplabels.io.words import Words, schema_words
from xplabels.io.zipped import named, unzipped

Columns = dict[str, NDArray[Any]]
"""Lower-case column name -> array [N]."""

LONGEST_HEADER = 100_000
"""Of an ECSV file: YAML is read at 20 microseconds a letter."""


def read_table(
    path: Any, columns: Collection[str] | None = None, digest: Digest | None = None
) -> Columns:
    """The columns of a table, by lower-case name.

    Parameters
    ----------
    path
        ``.csv``, ``.tsv``, ``.ecsv``, ``.fits``, ``.vot``, ``.votable``, ``.xml`` (each also with
        ``.gz``) or ``.parquet``, or a table in memory (:mod:`xplabels.io.memory`). CSV may be
        delimited by a comma, semicolon, tab or bar. Several tables in one file are read as one, if
        they have the same columns.
    columns
        The names wanted beside ``source_id``, as far as they are there; all without it.
    digest
        Counts the bytes of a CSV file as they are read.

    Returns
    -------
    dict
        Name -> array [N]: ``source_id`` int64, never by way of a floating-point number, negative
        where null; other integers and true or false as they are, or float64 where some are null;
        NaN for a missing number; text as str objects. Units are those of
        :data:`~xplabels.io.forms.UNITS`.

    Raises InputError if the file is missing, unreadable, truncated or has no rows; if two columns
    differ in case only; if ``source_id`` (see :func:`~xplabels.io.forms.names_of`) is absent or
    does not hold identifiers; if a unit is not one of the column's kind.
    """
    chosen = None if columns is None else {SOURCE_ID, *columns}
    return _read(path, _Wanted(chosen, digest=digest))


def is_table(path: Path) -> bool:
    """Whether :func:`read_table` knows the format."""
    return Path(path.name.lower().removesuffix(".gz")).suffix in KINDS and path.is_file()


def read_columns(
    path: Any,
    columns: Collection[str],
    integers: Mapping[str, int] | None = None,
    ids: Collection[str] = (SOURCE_ID,),
) -> Columns:
    """Some columns of a table that need not be keyed by ``source_id``.

    Parameters
    ----------
    path
        As for :func:`read_table`.
    columns
        Lower-case names of what is wanted, as far as it is there. A column may hold one short
        array a row (all of one length): it comes as [N, n].
    integers
        Those of ``columns`` that hold other identifiers or bit masks, and what stands for null in
        each: they come as int64, never by way of a floating-point number, whether the file holds
        them as integers or as text.
    ids
        Those of ``columns`` that hold Gaia's source_ids: int64, negative where null.

    Raises InputError as :func:`read_table`, but for ``source_id``; if none of ``columns`` is there.
    """
    return _read(path, _Wanted(set(columns), False, dict(integers or {}), frozenset(ids)))


@dataclass(frozen=True)
class _Wanted:
    """Which columns to read: names (None: all), whether ids must be there, null integers, ids."""

    columns: set[str] | None
    keyed: bool = True
    integers: dict[str, int] = field(default_factory=dict)
    ids: frozenset[str] = frozenset((SOURCE_ID,))
    digest: Digest | None = None

    def plain(self, column: forms.Column, name: str, where: object) -> NDArray[Any]:
        """One column as it comes out."""
        if name in self.ids:
            return forms.source_ids(column, where, name)
        if name in self.integers:
            return forms.integers(column, where, name, self.integers[name], forms.int_of_text)
        values = forms.plain_column(column)
        cells = values[:1000] if values.dtype.kind == "O" and values.ndim == 1 else ()
        if any(isinstance(cell, np.ndarray | list | tuple) for cell in cells):
            return _short_arrays(values, name, where)
        return values


def _read(source: Any, wanted: _Wanted) -> Columns:
    if not memory.is_path(source):
        table = memory.table_of(source)
        return _together([_file_table(table.columns, table.words)], wanted, table.where)
    path = Path(source)
    ending = format_of(path, KINDS)
    if path.stat().st_size == 0:
        raise InputError("is empty", where=path, remedy="give a table with a header and rows")
    with unchanged(path), whole(path, KINDS[ending]):
        if ending in (".csv", ".tsv"):
            return _together([csv_table(path, wanted.columns, wanted.digest)], wanted, path)
        if ending == ".parquet":
            return _read_parquet(path, wanted)
        if ending == ".zip":
            return _read_zip(path, wanted)
        if ending == ".fits":
            # only the columns wanted: APOGEE's allStar has some 200, many of them arrays
            with open_fits(path) as hdus, readable_fits(path):
                return _together(fits_tables(hdus), wanted, path)
        if ending == ".ecsv":
            from astropy.table import Table

            lines = text_lines(path)
            if sum(len(line) for line in lines if line.startswith("#")) > LONGEST_HEADER:
                raise InputError(
                    f"has a header of more than {LONGEST_HEADER:,} letters",
                    where=path,
                    remedy="leave out columns, or save it as FITS",
                )
            table = memory.table_of(Table.read(lines, format="ascii.ecsv"))
            return _together([_file_table(table.columns, table.words)], wanted, path)
        return _together(votables(path), wanted, path)


def _read_zip(path: Path, wanted: _Wanted) -> Columns:
    """The one table in a ZIP file."""
    with unzipped(path) as members:
        if len(members) != 1:
            raise InputError(
                f"holds {len(members)} files ({', '.join(members)[:200]}), not one table",
                where=path,
                remedy="unpack it and give the table you mean",
            )
        (name, unpack), *_ = members.items()
        file = unpack()
        with named(file, path, name):
            return _read(file, replace(wanted, digest=None))


def _together(tables: list[FileTable], wanted: _Wanted, where: object) -> Columns:
    """The columns wanted of a file's tables, one after the other."""
    parts = forms.alike(tables, wanted.columns, where)
    names = [name for table in tables for name in table.names]
    used = [(table, chosen) for table, chosen in zip(tables, parts, strict=True) if chosen]
    if wanted.keyed and not any(SOURCE_ID in chosen for chosen in parts):
        raise forms.no_ids(names, where)
    if not used:
        raise InputError(
            f"has none of the columns {', '.join(sorted(wanted.columns or ()))[:200]}",
            where=where,
            remedy="check that it is the table you mean",
        )
    columns: Columns = {}
    for key in used[0][1]:
        pieces = []
        for table, chosen in used:
            column = wanted.plain(table.column(chosen[key]), key, where)
            # errors without a unit are in that of their values
            beside = chosen.get(key.removesuffix("_error"), "")
            unit = table.units.get(chosen[key]) or table.units.get(beside)
            pieces.append(forms.converted(column, key, unit, where))
        columns[key] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    if len(next(iter(columns.values()))) == 0:
        raise InputError("has no rows", where=where, remedy="give a table with stars")
    return columns


def _read_parquet(path: Path, wanted: _Wanted) -> Columns:
    from pyarrow import types

    with open_parquet(path) as file:
        schema = file.schema_arrow
        # without a list of columns, arrays (of coefficients, say) are not asked for
        every = wanted.columns is None
        names = [one.name for one in schema if not (every and types.is_nested(one.type))]
        chosen = forms.names_of(names, path, wanted.columns)
        # fields of structs may have the names wanted
        structs = [name for name in names if types.is_struct(schema.field(name).type)]
        asked = dict.fromkeys((*chosen.values(), *structs))
        table = file.read(columns=list(asked))
    columns = {name: table.column(name) for name in asked}
    return _together([_file_table(columns, schema_words(schema))], wanted, path)


def _file_table(columns: Mapping[str, forms.Column], words: Words) -> FileTable:
    flat = forms.flattened(columns)
    units = {name: words.get(name.strip().lower(), {}).get("unit", "") for name in flat}
    return FileTable("it", list(flat), flat.__getitem__, units)


def _short_arrays(values: NDArray[Any], name: str, where: object) -> NDArray[Any]:
    """Arrays of one length, one a row, as [N, n]."""
    cells, wrong = cells_of(values)
    lengths = {len(cell) for cell in cells if len(cell)}
    if wrong or len(lengths) != 1:
        raise InputError(
            "does not hold arrays of one length",
            where=f"{where}, column {name}",
            remedy="give one number per row, or arrays of one length",
        )
    nothing = np.full(lengths.pop(), np.nan)
    return np.array([cell if len(cell) else nothing for cell in cells], np.float64)
