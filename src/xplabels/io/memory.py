"""Read tables in memory by the same rules as files (:mod:`xplabels.io.forms`).

A table is any of: astropy's ``Table`` and ``QTable``, pandas' and polars' ``DataFrame`` (GaiaXPy's
among them), pyarrow's ``Table`` and ``RecordBatch``, a numpy array with named fields, a mapping of
names to arrays, or anything with ``to_arrow()``, such as a prediction. Functions that take several
tables take a list of them or, as astroquery's DataLink answers, a mapping of names to tables or
lists of tables.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io import forms
from xplabels.io.parquet import metadata_of, stars_of_columns
from xplabels.io.rows import ARRAYS, Assembler, BadRows
from xplabels.io.words import Words, column_words, label_words, schema_words

logger = logging.getLogger(__name__)

KINDS = (
    "an astropy Table, a pandas or polars DataFrame, a pyarrow Table, a dict of arrays, or the "
    "path of a file"
)


@dataclass(frozen=True)
class MemoryTable:
    """One table in memory, of columns in any form of :mod:`xplabels.io.forms`."""

    where: str  # its name in messages: ``the DataFrame``
    columns: Mapping[str, forms.Column]
    words: Words = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)  # of a star table of this package

    def __str__(self) -> str:
        return self.where

    def __post_init__(self) -> None:
        scalars = [
            name for name, column in self.columns.items()
            if not hasattr(column, "__len__") or getattr(column, "ndim", 1) == 0
        ]  # fmt: skip
        if scalars:
            raise InputError(
                f"{scalars[0]!r} is one value, not a column", where=self.where,
                remedy="give one value, or array, for each star",
            )  # fmt: skip
        rows = {name: len(column) for name, column in self.columns.items()}
        first = next(iter(rows), "")
        for name, count in rows.items():
            if count != rows[first]:
                raise InputError(
                    f"column {name!r} has {count} rows, column {first!r} {rows[first]}",
                    where=self.where, remedy="give one value, or array, for each star",
                )  # fmt: skip


def is_path(source: object) -> bool:
    """Whether ``source`` names a file."""
    return isinstance(source, str | Path)


def name_of(source: Any) -> str:
    """The name of a table in messages: its path, or ``the DataFrame``."""
    if isinstance(source, MemoryTable):
        return source.where
    return str(source) if is_path(source) else f"the {type(source).__name__}"


def listed(sources: Any) -> list[Any]:
    """One or several tables, files or in memory, as a list."""
    several = isinstance(sources, list | tuple) or (
        isinstance(sources, Iterable)
        and not isinstance(sources, Mapping | bytes)
        and not (is_path(sources) or is_table(sources) or hasattr(sources, "read"))  # open files
    )
    return list(sources) if several else [sources]


def is_table(source: Any) -> bool:
    """Whether ``source`` is one table in memory, not several."""
    if isinstance(source, Mapping):  # of columns, not of tables or lists of tables
        return not any(is_table(value) or (isinstance(value, list) and value and is_table(value[0]))
                       for value in source.values())  # fmt: skip
    if isinstance(source, np.ndarray):
        return source.dtype.names is not None
    # "columns" comes last, as a LazyFrame warns when it is asked for them
    return any(hasattr(source, name) for name in (
        "colnames", "to_arrow", "collect", "column_names", "to_table", "read_all", "columns",
    ))  # fmt: skip


def table_of(source: Any, where: str = "") -> MemoryTable:
    """One table's columns and words.

    Raises InputError if it is not a table, or two columns have one name.
    """
    where = where or name_of(source)
    library = type(source).__module__.partition(".")[0]
    if isinstance(source, MemoryTable):
        return source
    if hasattr(source, "colnames"):
        return _astropy(source, where)
    if hasattr(source, "compute") and hasattr(source, "columns"):  # Dask, LSDB
        return table_of(source.compute(), where)
    if library == "polars":
        return _polars(source, where)
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        return _pandas(source, where)
    if library == "pyarrow" or hasattr(source, "to_arrow"):
        for make in ("to_arrow", "to_table", "read_all"):
            source = getattr(source, make)() if hasattr(source, make) else source
        if hasattr(source, "schema"):
            return _arrow(source, where)
    elif hasattr(source, "__arrow_c_stream__"):  # DuckDB
        import pyarrow as pa

        return _arrow(pa.table(source), where)
    if isinstance(source, np.ndarray) and source.dtype.names is not None:
        return MemoryTable(where, {name: source[name] for name in source.dtype.names})
    if isinstance(source, Mapping):
        if not source:
            raise InputError("is empty", where=where, remedy="check what was asked for")
        units = {str(name): {"unit": getattr(one, "unit", None)} for name, one in source.items()}
        columns = {str(name): _column(one) for name, one in source.items()}
        return MemoryTable(where, columns, column_words(units))
    if hasattr(source, "to_table"):  # a TABLE of a VOTable
        return _astropy(source.to_table(use_names_over_ids=True), where)
    raise InputError("is not a table", where=where, remedy=f"give {KINDS}")


def words_of(source: Any) -> Words:
    """Units and descriptions of the columns of a table, in a file or in memory."""
    return label_words(source) if is_path(source) else table_of(source).words


def tables_of(source: Any) -> Iterator[MemoryTable]:
    """The tables of spectra in one or several tables in memory.

    In a mapping of tables (a DataLink answer), those without columns of coefficients are skipped,
    and named in the log. Raises InputError if none has such columns.
    """
    if is_table(source) or isinstance(source, MemoryTable):
        yield table_of(source)
        return
    if not isinstance(source, Mapping):
        raise InputError(f"{name_of(source)} is not a table", remedy=f"give {KINDS}")
    with_spectra, skipped = list[MemoryTable](), list[MemoryTable]()
    for name, value in source.items():
        tables = value if isinstance(value, list) else [value]
        for number, given in enumerate(tables, start=1):
            where = f"{name}, table {number}" if len(tables) > 1 else str(name)
            table = table_of(given, where)
            has_spectra = any(c.lower() in ARRAYS for c in forms.flattened(table.columns))
            (with_spectra if has_spectra else skipped).append(table)
    names = ", ".join(table.where for table in skipped)
    if skipped and not with_spectra:
        raise InputError(
            f"none of its tables has coefficients of XP spectra ({names[:200]})",
            where=name_of(source),
            remedy="ask for retrieval_type='XP_CONTINUOUS'",
        )
    if skipped:
        logger.info("not read, no XP_CONTINUOUS: %s", names[:300])
    yield from with_spectra


def read_memory(
    source: Any, bad_rows: BadRows = "error", wavelength: NDArray[np.float64] | None = None
) -> Iterator[Stars]:
    """The stars of each table in memory, with the photometry and labels among its columns.

    ``wavelength`` [L], nm, is that of columns ``flux`` and ``flux_error``. Raises InputError as
    :func:`xplabels.read`.
    """
    for table in tables_of(source):
        meta = dict(table.meta)
        if wavelength is not None:
            meta |= {"space": "sampled", "wavelength": np.asarray(wavelength, np.float64)}
        assembler = Assembler(Path(table.where), bad_rows)
        stars = stars_of_columns(table.columns, meta, assembler, table.words)
        assembler.finish()
        yield stars


def _column(values: Any) -> forms.Column:
    """A column of a mapping or of an astropy table, without its unit."""
    library = type(values).__module__.partition(".")[0]
    if library == "pyarrow":
        return values
    if library == "pandas":
        return _of_series(values)
    if hasattr(values, "unmasked"):  # a masked Quantity
        return np.ma.array(values.unmasked.value, mask=values.mask)
    if hasattr(values, "unit"):
        return values.value
    if isinstance(values, np.ndarray) or (isinstance(values, list) and _ragged(values)):
        return values
    return np.asarray(values)


def _ragged(values: list[Any]) -> bool:
    return any(isinstance(one, np.ndarray | list | tuple) or one is None for one in values)


def _named(pairs: Iterable[tuple[Any, Any]], where: str) -> dict[str, Any]:
    """Columns by name; InputError if two have the same name."""
    columns: dict[str, Any] = {}
    for name, column in pairs:
        if str(name) in columns:
            raise InputError(f"has two columns {str(name)!r}", where=where, remedy="rename one")
        columns[str(name)] = column
    return columns


def _pandas(frame: Any, where: str) -> MemoryTable:
    levels = [one for one in frame.index.names if one is not None and one not in frame.columns]
    if levels:  # source_id as the index
        frame = frame.reset_index(level=levels)
    return MemoryTable(where, _named(((n, _of_series(s)) for n, s in frame.items()), where))


def _of_series(series: Any) -> forms.Column:
    if isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    import pyarrow as pa

    return pa.array(series, from_pandas=True)  # nullable, text, Arrow's and nested types


def _polars(frame: Any, where: str) -> MemoryTable:
    import polars

    if hasattr(frame, "collect"):
        frame = frame.collect()
    oldest = polars.CompatLevel.oldest()
    # Arrow has no integers of 128 bits
    frame = frame.cast({polars.Int128: polars.String})
    return MemoryTable(where, {
        column.name: column.to_numpy() if column.dtype == polars.Object
        else column.to_arrow(compat_level=oldest)
        for column in frame.iter_columns()
    })  # fmt: skip


def _arrow(table: Any, where: str) -> MemoryTable:
    columns = _named(zip(table.schema.names, table.columns, strict=True), where)
    return MemoryTable(where, columns, schema_words(table.schema), metadata_of(table.schema, where))


def _astropy(table: Any, where: str) -> MemoryTable:
    columns: dict[str, Any] = {}
    words: dict[str, dict[str, Any]] = {}
    for name in table.colnames:
        column = table[name]
        if not hasattr(column, "unmasked") and not hasattr(column, "value"):
            continue  # coordinates, times
        columns[name] = _column(column)
        ucd = (column.info.meta or {}).get("ucd")
        unit, description = getattr(column, "unit", None), column.info.description
        words[name] = {"unit": unit, "description": description, "ucd": ucd}
    return MemoryTable(where, columns, column_words(words))
