"""Any table keyed by ``source_id``, in any format, -> plain columns."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.archive.csv import header_names, lines
from xplabels.archive.fits import first_table, open_fits, readable_fits
from xplabels.archive.rows import DOWNLOAD_AGAIN, as_source_id
from xplabels.archive.votable import first_votable, readable_votable
from xplabels.errors import InputError

Columns = dict[str, NDArray[Any]]
"""Lower-case column name -> array [N]."""

ENDINGS = (".csv", ".ecsv", ".fits", ".vot", ".votable", ".xml", ".parquet")
NULLS = ("", "null", "NULL", "nan", "NaN", "N/A", "--")
"""What stands for a missing value in CSV."""


def read_table(path: str | Path, columns: Collection[str] | None = None) -> Columns:
    """The columns of a table, by lower-case name.

    Parameters
    ----------
    path
        ``.csv``, ``.ecsv``, ``.fits``, ``.vot``, ``.votable``, ``.xml`` (each also with ``.gz``)
        or ``.parquet``.
    columns
        The names wanted beside ``source_id``, as far as they are there; all without it.

    Returns
    -------
    dict
        Name -> array [N]: ``source_id`` int64, never by way of a floating-point number; other
        integers as they are, or float64 where some are null; NaN for a missing number; text as
        str objects.

    Raises
    ------
    InputError
        If the file is missing, unreadable, truncated or has no rows; if two columns differ in case
        only; if ``source_id`` is absent, has nulls or does not hold integers.
    """
    path = Path(path)
    name = path.name.lower()
    ending = Path(name.removesuffix(".gz")).suffix
    if ending not in ENDINGS:
        raise InputError(
            "has an unknown ending", where=path, remedy=f"give one of {', '.join(ENDINGS)}"
        )
    if not path.is_file():
        raise InputError("does not exist or is no file", where=path, remedy="check the path")
    wanted = None if columns is None else {"source_id", *columns}
    if ending == ".csv":
        table = _read_csv(path, wanted)
    elif ending == ".parquet":
        table = _read_parquet(path, wanted)
    else:
        table = _read_astropy(path, ending, wanted)
    table["source_id"] = as_source_id(table["source_id"], path)
    if len(table["source_id"]) == 0:
        raise InputError("has no rows", where=path, remedy="give a table with stars")
    return table


def _chosen(names: Sequence[str], wanted: Collection[str] | None, path: Path) -> dict[str, str]:
    """Lower-case name -> name in the file, of the columns wanted."""
    chosen: dict[str, str] = {}
    for name in names:
        lower = name.strip().lower()
        if wanted is not None and lower not in wanted:
            continue
        if lower in chosen:
            raise InputError(
                f"columns {chosen[lower]!r} and {name!r} have the same name but for case",
                where=path,
                remedy="leave one out",
            )
        chosen[lower] = name
    if "source_id" not in chosen:
        raise InputError(
            "column 'source_id' is absent",
            where=path,
            remedy="name the column of Gaia source identifiers source_id",
        )
    return chosen


def _read_csv(path: Path, wanted: Collection[str] | None) -> Columns:
    """All columns as text first: guessing types from the first rows fails on what follows."""
    import pyarrow as pa
    from pyarrow import csv

    head = lines(path)
    before = 1
    header = next(head, "")
    while header.startswith("#"):
        before += 1
        header = next(head, "")
    head.close()  # type: ignore[attr-defined]
    names = header_names(header.removeprefix("\ufeff"), ",")
    chosen = _chosen(names, wanted, path)
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            table = csv.read_csv(
                file,
                read_options=csv.ReadOptions(
                    skip_rows=before, column_names=names, use_threads=False
                ),
                convert_options=csv.ConvertOptions(
                    include_columns=list(chosen), column_types=dict.fromkeys(names, pa.string())
                ),
            )
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        if isinstance(error, pa.ArrowInvalid) and "Empty CSV" in str(error):
            raise InputError("has no rows", where=path, remedy="give a table with stars") from error
        raise InputError(
            f"is damaged or truncated ({str(error).splitlines()[0][:200]})",
            where=path,
            remedy=DOWNLOAD_AGAIN,
        ) from error
    return {name: _numbers_or_text(table.column(name), name, path) for name in chosen}


def _numbers_or_text(column: Any, name: str, path: Path) -> NDArray[Any]:
    """A pyarrow column of text as int64 if it can be, else float64, else text."""
    import pyarrow as pa
    from pyarrow import compute

    column = compute.utf8_trim_whitespace(column)
    null = compute.is_in(column, value_set=pa.array(NULLS))
    column = compute.if_else(null, pa.scalar(None, pa.string()), column)
    for kind in (pa.int64(), pa.float64()):
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


def _read_parquet(path: Path, wanted: Collection[str] | None) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import types

    try:
        with pq.ParquetFile(path) as file:
            fields = [field for field in file.schema_arrow if not types.is_nested(field.type)]
            chosen = _chosen([field.name for field in fields], wanted, path)
            table = file.read(columns=list(chosen.values()))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"is not a whole Parquet file ({str(error).splitlines()[0]})",
            where=path,
            remedy=DOWNLOAD_AGAIN,
        ) from error
    return {lower: _from_arrow(table.column(name)) for lower, name in chosen.items()}


def _from_arrow(column: Any) -> NDArray[Any]:
    """A pyarrow column as numpy; integers with a null become float64, for NaN."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_integer(column.type) and column.null_count == 0:
        whole: NDArray[Any] = column.to_numpy()
        return whole
    if types.is_integer(column.type) or types.is_floating(column.type):
        # unsafe: a large integer may be rounded, as it must to share a column with NaN
        numbers: NDArray[Any] = column.cast(pa.float64(), safe=False).to_numpy()
        return numbers
    text: NDArray[Any] = np.asarray(column.to_numpy(), object)
    return text


def _read_astropy(path: Path, ending: str, wanted: Collection[str] | None) -> Columns:
    from astropy.table import Table

    if ending == ".fits":
        with open_fits(path) as hdus, readable_fits(path):
            hdu = first_table(hdus, path)
            chosen = _chosen(hdu.columns.names, wanted, path)
            table = Table.read(hdu, format="fits")
            return {lower: _from_astropy(table[name]) for lower, name in chosen.items()}
    if ending == ".ecsv":
        try:
            table = Table.read("".join(lines(path)), format="ascii.ecsv")
        except InputError:
            raise
        except Exception as error:  # astropy and its YAML reader raise a whole zoo
            raise InputError(
                f"is not whole ECSV ({str(error).splitlines()[0] if str(error) else 'empty'})",
                where=path,
                remedy=DOWNLOAD_AGAIN,
            ) from error
    else:
        element = first_votable(path)
        with readable_votable(path):
            table = element.to_table(use_names_over_ids=True)
    chosen = _chosen(table.colnames, wanted, path)
    return {lower: _from_astropy(table[name]) for lower, name in chosen.items()}


def _from_astropy(column: Any) -> NDArray[Any]:
    """An astropy column as a plain array in this machine's byte order; masked: NaN, or ``""``."""
    values = np.ma.asarray(column)
    if values.dtype.kind in "SU":
        return np.asarray(values.filled("").astype(str), object)
    if values.dtype.kind in "iuf" and np.ma.is_masked(values):
        return np.asarray(np.ma.filled(values.astype(np.float64), np.nan))
    plain = np.ma.getdata(values)
    return np.asarray(plain.astype(plain.dtype.newbyteorder("=")))
