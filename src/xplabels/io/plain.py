"""Any table, in any format, -> plain columns; most are keyed by ``source_id``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.io.delimited import column_names, take_header
from xplabels.io.files import (
    Digest,
    byte_lines,
    open_bytes,
    text_lines,
    unchanged,
    whole,
)
from xplabels.io.fits import first_table, open_fits, readable_fits
from xplabels.io.parquet import open_parquet
from xplabels.io.rows import as_source_id
from xplabels.io.votable import first_votable

Columns = dict[str, NDArray[Any]]
"""Lower-case column name -> array [N]."""

ENDINGS = (".csv", ".ecsv", ".fits", ".vot", ".votable", ".xml", ".parquet")
KINDS = {
    ".csv": "CSV file", ".ecsv": "ECSV file", ".fits": "FITS file", ".parquet": "Parquet file",
}  # fmt: skip
LONGEST_HEADER = 400_000
"""Of an ECSV file: YAML is read at 20 microseconds a letter."""
NULLS = ("", "null", "NULL", "nan", "NaN", "N/A", "--")
"""What stands for a missing value in CSV."""


def read_table(
    path: str | Path, columns: Collection[str] | None = None, digest: Digest | None = None
) -> Columns:
    """The columns of a table, by lower-case name.

    Parameters
    ----------
    path
        ``.csv``, ``.ecsv``, ``.fits``, ``.vot``, ``.votable``, ``.xml`` (each also with ``.gz``)
        or ``.parquet``.
    columns
        The names wanted beside ``source_id``, as far as they are there; all without it.
    digest
        Counts the bytes of a CSV file as they are read.

    Returns
    -------
    dict
        Name -> array [N]: ``source_id`` int64, never by way of a floating-point number; other
        integers and true or false as they are, or float64 where some are null; NaN for a missing
        number; text as str objects.

    Raises InputError if the file is missing, unreadable, truncated or has no rows; if two columns
    differ in case only; if ``source_id`` is absent, has nulls or does not hold integers.
    """
    chosen = None if columns is None else {"source_id", *columns}
    table = _read(Path(path), _Wanted(chosen, digest=digest))
    table["source_id"] = as_source_id(table["source_id"], Path(path))
    return table


def is_table(path: Path) -> bool:
    """Whether :func:`read_table` knows the format."""
    return Path(path.name.lower().removesuffix(".gz")).suffix in ENDINGS and path.is_file()


def read_columns(
    path: str | Path, columns: Collection[str], integers: Mapping[str, int] | None = None
) -> Columns:
    """Some columns of a table that need not be keyed by ``source_id``.

    Parameters
    ----------
    path
        As for :func:`read_table`; CSV may also be delimited by ``|``.
    columns
        Lower-case names of what is wanted, as far as it is there. A column may hold one short
        array a row (all of one length): it comes as [N, n].
    integers
        Those of ``columns`` that hold identifiers or bit masks, and what stands for null in each:
        they come as int64, never by way of a floating-point number, whether the file holds them
        as integers or as text.

    Raises InputError as :func:`read_table`, but for ``source_id``; if none of ``columns`` is there.
    """
    return _read(Path(path), _Wanted(set(columns), None, dict(integers or {})))


@dataclass(frozen=True)
class _Wanted:
    """Which columns to read: names (None: all), the one that must be there, null integers."""

    columns: set[str] | None
    key: str | None = "source_id"
    integers: dict[str, int] = field(default_factory=dict)
    digest: Digest | None = None


def _read(path: Path, wanted: _Wanted) -> Columns:
    name = path.name.lower()
    ending = Path(name.removesuffix(".gz")).suffix
    if ending not in ENDINGS:
        raise InputError(
            "has an unknown ending", where=path, remedy=f"give one of {', '.join(ENDINGS)}"
        )
    if not path.is_file():
        raise InputError("does not exist or is no file", where=path, remedy="check the path")
    if path.stat().st_size == 0:
        raise InputError("is empty", where=path, remedy="give a table with a header and rows")
    with unchanged(path), whole(path, KINDS.get(ending, "VOTable")):
        if ending == ".csv":
            table = _read_csv(path, wanted)
        elif ending == ".parquet":
            table = _read_parquet(path, wanted)
        else:
            table = _read_astropy(path, ending, wanted)
    if len(next(iter(table.values()))) == 0:
        raise InputError("has no rows", where=path, remedy="give a table with stars")
    return table


def _chosen(names: Sequence[str], wanted: _Wanted, path: Path) -> dict[str, str]:
    """Lower-case name -> name in the file, of the columns wanted."""
    chosen: dict[str, str] = {}
    for name in names:
        lower = name.strip().lower()
        if wanted.columns is not None and lower not in wanted.columns:
            continue
        if lower in chosen:
            raise InputError(
                f"columns {chosen[lower]!r} and {name!r} have the same name but for case",
                where=path,
                remedy="leave one out",
            )
        chosen[lower] = name
    if wanted.key is not None and wanted.key not in chosen:
        raise InputError(
            "column 'source_id' is absent",
            where=path,
            remedy="name the column of Gaia source identifiers source_id",
        )
    if not chosen:
        raise InputError(
            f"has none of the columns {', '.join(sorted(wanted.columns or ()))}",
            where=path,
            remedy="check that it is the table you mean",
        )
    return chosen


def _integers(
    values: NDArray[Any], null: NDArray[np.bool_], fill: int, column: str, path: Path
) -> NDArray[np.int64]:
    """Identifiers or bit masks [N] as int64, ``fill`` where ``null`` or blank text."""
    if values.dtype.kind in "OSU":
        text = np.char.strip(values.astype(str))
        null = null | np.isin(text, NULLS)
        values = np.where(null, "0", text)
    elif values.dtype.kind == "f":
        # a whole number below 2^53 survives a float; an identifier beyond it does not
        null = null | ~np.isfinite(values)
        values = np.where(null, 0, values)
        if (np.abs(values) >= 2**53).any() or (values % 1 != 0).any():
            values = values.astype(object)  # refused below
    try:
        if values.dtype.kind == "O":
            raise ValueError("floating-point numbers")
        whole = values.astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"does not hold 64-bit integers throughout ({str(error)[:100]})",
            where=f"{path}, column {column}",
            remedy="write integers in full, and nothing where there is none",
        ) from error
    return np.where(null, np.int64(fill), whole)


def _read_csv(path: Path, wanted: _Wanted) -> Columns:
    """All columns as text first: guessing types from the first rows fails on what follows."""
    import pyarrow as pa
    from pyarrow import csv

    before, header = take_header(byte_lines(path))
    # LAMOST's catalogues are delimited by bars
    delimiter = "|" if wanted.key is None and "|" in header and "," not in header else ","
    names = column_names(header, delimiter)
    chosen = _chosen(names, wanted, path)
    try:
        with open_bytes(path, wanted.digest) as file:
            table = csv.read_csv(
                file,
                read_options=csv.ReadOptions(
                    skip_rows=before, column_names=names, use_threads=False
                ),
                parse_options=csv.ParseOptions(delimiter=delimiter),
                convert_options=csv.ConvertOptions(
                    include_columns=list(chosen), column_types=dict.fromkeys(names, pa.string())
                ),
            )
    except pa.ArrowException as error:
        if "Empty CSV" in str(error):
            raise InputError("has no rows", where=path, remedy="give a table with stars") from error
        if "straddling" in str(error):  # two of the blocks of 1 MB in which it is read
            raise InputError(
                "has a line of more than 1 MB", where=path, remedy="write one line per row"
            ) from error
        raise
    return {
        name: _integers_of(table.column(name), wanted.integers[name], name, path)
        if name in wanted.integers
        else _numbers_or_text(table.column(name), name, path)
        for name in chosen
    }


def _integers_of(column: Any, fill: int, name: str, path: Path) -> NDArray[np.int64]:
    """A pyarrow column of integers or text."""
    from pyarrow import types

    null = np.asarray(column.is_null().to_numpy(zero_copy_only=False), bool)
    zero = "" if types.is_string(column.type) or types.is_large_string(column.type) else 0
    values = column.fill_null(zero).to_numpy(zero_copy_only=False)
    return _integers(values, null, fill, name, path)


def _numbers_or_text(column: Any, name: str, path: Path) -> NDArray[Any]:
    """A pyarrow column of text as int64 if it can be, else float64, bool or text."""
    import pyarrow as pa
    from pyarrow import compute

    column = compute.utf8_trim_whitespace(column)
    null = compute.is_in(column, value_set=pa.array(NULLS))
    column = compute.if_else(null, pa.scalar(None, pa.string()), column)
    for kind in (pa.int64(), pa.float64(), pa.bool_()):
        try:
            return _from_arrow(column.cast(kind))
        except pa.ArrowInvalid:
            if name == "source_id":
                raise InputError(
                    "does not hold 64-bit integers throughout",
                    where=f"{path}, column source_id",
                    remedy="write source_id in full, as in 5853498713190525696",
                ) from None
    return _from_arrow(column)


def _read_parquet(path: Path, wanted: _Wanted) -> Columns:
    from pyarrow import types

    with open_parquet(path) as file:
        # without a list of columns, arrays (of coefficients, say) are not asked for
        names = [
            field.name
            for field in file.schema_arrow
            if wanted.key is None or not types.is_nested(field.type)
        ]
        chosen = _chosen(names, wanted, path)
        table = file.read(columns=list(chosen.values()))
    columns: Columns = {}
    for lower, name in chosen.items():
        column = table.column(name)
        if lower in wanted.integers:
            columns[lower] = _integers_of(column, wanted.integers[lower], lower, path)
        elif types.is_nested(column.type):
            columns[lower] = _short_arrays(column, lower, path)
        else:
            columns[lower] = _from_arrow(column)
    return columns


def _short_arrays(column: Any, name: str, path: Path) -> NDArray[Any]:
    """A pyarrow column of arrays of one length as [N, n]."""
    cells = column.to_pylist()
    lengths = {0 if cell is None else len(cell) for cell in cells if isinstance(cell, list)}
    if len(lengths) != 1:
        raise InputError(
            "does not hold arrays of one length",
            where=f"{path}, column {name}",
            remedy="give one number per row, or arrays of one length",
        )
    nothing = [None] * lengths.pop()
    return np.array([nothing if cell is None else cell for cell in cells], np.float64)


def _from_arrow(column: Any) -> NDArray[Any]:
    """A pyarrow column as numpy; integers with a null become float64, for NaN."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_boolean(column.type) and column.null_count == 0:
        return np.asarray(column.to_numpy(), bool)
    if types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if types.is_integer(column.type) and column.null_count == 0:
        return np.asarray(column.to_numpy())
    if types.is_integer(column.type) or types.is_floating(column.type):
        # unsafe: a large integer may be rounded, as it must to share a column with NaN
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())
    return np.asarray(column.to_numpy(), object)


def _read_astropy(path: Path, ending: str, wanted: _Wanted) -> Columns:
    if ending == ".fits":
        return _read_fits(path, wanted)
    from astropy.table import Table

    if ending == ".ecsv":
        lines = text_lines(path)
        if sum(len(line) for line in lines if line.startswith("#")) > LONGEST_HEADER:
            raise InputError(
                f"has a header of more than {LONGEST_HEADER:,} letters",
                where=path,
                remedy="leave out columns, or save it as FITS",
            )
        table, ids = Table.read(lines, format="ascii.ecsv"), {}
        names = table.colnames
    else:
        element = first_votable(path)
        names, table = [field.name for field in element.fields], element.array
        # the array's columns go by ID, which need not be the name
        ids = {field.name: field.ID for field in element.fields}
    return {
        lower: _from_astropy(table[ids.get(name, name)], lower, wanted, path)
        for lower, name in _chosen(names, wanted, path).items()
    }


def _read_fits(path: Path, wanted: _Wanted) -> Columns:
    """Only the columns wanted: APOGEE's allStar has some 200, many of them arrays."""
    with open_fits(path) as hdus, readable_fits(path):
        if wanted.key is None:  # the table with most of what is wanted
            tables = [hdu for hdu in hdus if hasattr(hdu, "columns")]
            if not tables:
                raise InputError("has no table in it", where=path, remedy="give a table of stars")
            hdu = max(
                tables,
                key=lambda hdu: len(
                    {name.strip().lower() for name in hdu.columns.names} & (wanted.columns or set())
                ),
            )
        else:
            hdu = first_table(hdus, path)
        chosen = _chosen(hdu.columns.names, wanted, path)
        columns: Columns = {}
        for lower, name in chosen.items():
            values, null = np.asarray(hdu.data[name]), hdu.columns[name].null
            if null is not None and values.dtype.kind in "iu":
                values = np.ma.masked_equal(values, null)
            columns[lower] = _from_astropy(values, lower, wanted, path)
        return columns


def _from_astropy(column: Any, name: str, wanted: _Wanted, path: Path) -> NDArray[Any]:
    """An astropy column as a plain array in this machine's byte order; masked: NaN, or ``""``."""
    values = np.ma.asarray(column)
    if name in wanted.integers:
        plain = np.ma.getdata(values)
        plain = plain.astype(str) if plain.dtype.kind == "S" else plain
        return _integers(plain, np.ma.getmaskarray(values), wanted.integers[name], name, path)
    if values.dtype.kind in "SU":
        return np.asarray(values.filled("").astype(str), object)
    if values.dtype.kind in "iufb" and np.ma.is_masked(values):
        return np.asarray(np.ma.filled(values.astype(np.float64), np.nan))
    plain = np.ma.getdata(values)
    return np.asarray(plain.astype(plain.dtype.newbyteorder("=")))
