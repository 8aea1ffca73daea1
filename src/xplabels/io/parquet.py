"""The package's own star table: Parquet, one row per star, arrays as fixed-size lists.

Columns: ``source_id``; spectra, either archive coefficients (``bp_coefficients``,
``bp_coefficient_errors``, ``bp_coefficient_correlations`` packed as in the archive, and ``rp_*``)
or sampled flux (``flux``, ``flux_error``); photometry and labels by the archives' names; ``flags``,
to which those from Gaia's columns of quality are added if the table has such columns.
The metadata entry ``xplabels`` is JSON: ``format`` (version), ``space``, ``wavelength`` (nm, if
sampled), ``labels``, ``notes``, ``origin``. Without it, a table with the archive's columns is read
as archive coefficients.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.flags import UNUSABLE, Flag
from xplabels.core.labels import LABELS, label_of
from xplabels.core.quality import quality_flags
from xplabels.core.stars import MEASUREMENTS, CoefficientSpectra, Stars, concatenate
from xplabels.io import forms
from xplabels.io.arrays import Cells, cells_of
from xplabels.io.atomic import whole_file
from xplabels.io.columns import (
    MAG_PER_RELATIVE_FLUX,
    MEASURED,
    error_columns,
    first_present,
    labels_of,
    photometry_of,
)
from xplabels.io.files import check_size, whole
from xplabels.io.nested import archive_columns
from xplabels.io.rows import (
    ARRAYS,
    BANDS,
    BLOCK_ROWS,
    PARTS,
    AbsentColumns,
    Assembler,
    BadRows,
    RawBlock,
    check_columns,
    kind_of,
    unreadable,
)
from xplabels.io.words import Words, schema_words

FORMAT_VERSION = 1
META_KEY = b"xplabels"
COMPRESSION_LEVEL = 3
ROW_GROUP = 8192
"""Rows per Parquet row group: 100 MB of coefficients, so that readers need little memory."""

COMPACT = (np.float32, np.float32, np.float16)
"""Types of coefficients, errors and correlations in a compact table, half the size."""

ArrowTable = Any
"""A pyarrow ``Table`` or ``RecordBatch``."""


def write_stars(stars: Stars, path: str | Path, overwrite: bool = False) -> None:
    """Write ``stars`` as a star table; :func:`read_stars` gives exactly the same stars back.

    Columns of measurements that no star has are left out. Gaia's magnitude errors are written
    twice: as the archive's ``phot_*_mean_flux_over_error`` and, exactly, as
    ``phot_*_mean_mag_error``. The file appears whole or not at all.

    Raises InputError if ``path`` exists and ``overwrite`` is false, or it cannot be written.

    Examples
    --------
    >>> from xplabels.synthetic import example_stars
    >>> write_stars(example_stars(3), "stars.parquet")
    """
    write_star_blocks([stars], path, overwrite)


def write_star_blocks(
    blocks: Iterable[Stars],
    path: str | Path,
    overwrite: bool = False,
    measurements: Collection[str] = (),
) -> int:
    """Write blocks of stars one after the other as one star table, in memory one at a time.

    Columns, ``origin`` and ``notes`` are those of the first block. A column that only a later block
    has is an error; one that it lacks is null there. Columns of ``measurements`` (some of
    :data:`~xplabels.core.stars.MEASUREMENTS`) are always written.

    Returns the number of stars. Raises InputError as :func:`write_stars`; if there is no block; if
    the blocks differ in space, widths or labels, or a later one has more columns.
    """
    import pyarrow.parquet as pq

    stars, schema = 0, None
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(whole_file(Path(path), overwrite))
        for block in blocks:
            table = to_arrow(block, measurements)
            if schema is None:
                schema = table.schema
                options = {"compression": "zstd", "compression_level": COMPRESSION_LEVEL}
                file = pq.ParquetWriter(temporary, schema, write_page_checksum=True, **options)
                writer = stack.enter_context(file)
            writer.write_table(_as_before(table, schema, block), row_group_size=ROW_GROUP)
            stars += len(block)
        if schema is None:
            raise InputError("no stars to write", where=path)
    return stars


def _as_before(table: ArrowTable, schema: Any, block: Stars) -> ArrowTable:
    """One block in the columns of the first block, which has ``schema``."""
    import pyarrow as pa

    more = [name for name in table.column_names if name not in schema.names]
    if more:
        raise InputError(
            f"a block of stars has columns that the first lacks: {', '.join(more)}",
            where=block.where,
        )
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
        elif table.schema.field(field.name).type != field.type:
            raise InputError(
                f"a block of stars differs from the first in column {field.name!r}",
                where=block.where,
            )
        else:
            columns.append(table.column(field.name))
    return pa.table(columns, schema=schema)


def read_stars(path: str | Path, block: int = BLOCK_ROWS) -> Stars:
    """All stars of a star table.

    Raises InputError as :func:`read_parquet`.
    """
    return concatenate(list(read_parquet(Path(path), "error", block)))


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """A ``pyarrow.parquet.ParquetFile`` whose checksums are verified where it has any.

    Raises InputError if it declares more than it can hold.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        meta = file.metadata
        # the sizes of columns are not looked at, as pyarrow crashes if these are damaged
        groups = map(meta.row_group, range(meta.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        check_size(path, max(size, 8 * meta.num_rows * meta.num_columns))
        try:
            yield file
        except pa.ArrowInvalid as error:
            if "list offsets" not in str(error):
                raise
            raise InputError(
                "its lists are longer than what is in them, as where DuckDB writes a null in a "
                "column of type ARRAY",
                where=path,
                remedy="write lists, as in CAST(bp_coefficients AS DOUBLE[])",
            ) from error


def read_parquet(path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of at most ``block`` stars from a star table.

    Raises InputError for a file that is unreadable, truncated, of a newer format, lacks columns or
    rows, or (``bad_rows="error"``) holds a damaged row.
    """
    assembler = Assembler(path, bad_rows)
    with whole(path, "Parquet file"), open_parquet(path) as file:
        meta = metadata_of(file.schema_arrow, path)
        for batch in file.iter_batches(batch_size=block):
            if len(batch) and len(stars := stars_of(batch, meta, assembler)):
                yield stars
        assembler.finish()


def metadata_of(schema: Any, path: object) -> dict[str, Any]:
    """The entry ``xplabels`` of a schema's metadata; an empty dict where it is absent."""
    raw = schema.metadata or {}
    if META_KEY not in raw:
        return {}
    try:
        meta: dict[str, Any] = json.loads(raw[META_KEY])
        version, space = meta["format"], meta["space"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"its metadata entry 'xplabels' is damaged ({error!r})",
            where=path,
            remedy="write the star table again",
        ) from error
    if version != FORMAT_VERSION or space not in ("coefficients", "sampled"):
        raise InputError(
            f"is a star table of format {version!r}, space {space!r}; "
            f"this version reads format {FORMAT_VERSION}, space 'coefficients' or 'sampled'",
            where=path,
            remedy="update xplabels",
        )
    return meta


def to_arrow(stars: Stars, measurements: Collection[str] = (), compact: bool = False) -> ArrowTable:
    """The table of ``stars``; ``compact``: float32 throughout, and float16 correlations."""
    import pyarrow as pa

    columns: dict[str, Any] = {"source_id": pa.array(stars.source_id)}
    meta: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "space": stars.spectra.space,
        "origin": stars.origin,
        "notes": list(stars.notes),
        "labels": [] if stars.labels is None else list(stars.labels.names),
    }
    spectra = stars.spectra
    if isinstance(spectra, CoefficientSpectra):
        for name, band in zip(BANDS, (spectra.bp, spectra.rp), strict=True):
            parts: list[NDArray[np.floating]] = [band.coefficients, _narrowest(band.errors)]
            if band.correlations is not None:
                parts.append(band.correlations)
            if compact:
                parts = [part.astype(kind) for part, kind in zip(parts, COMPACT, strict=False)]
            for part, values in zip(PARTS, parts, strict=False):
                columns[f"{name}_{part}"] = _fixed_lists(values)
    else:
        meta["wavelength"] = spectra.wavelength.tolist()
        columns["flux"] = _fixed_lists(spectra.flux)
        columns["flux_error"] = _fixed_lists(spectra.flux_error)
    columns |= _photometry_columns(stars, measurements)
    if stars.labels is not None:
        for k, name in enumerate(stars.labels.names):
            columns[name] = pa.array(stars.labels.values[:, k])
            columns[f"{name}_err"] = pa.array(stars.labels.errors[:, k])
    columns["flags"] = pa.array(stars.flags)
    table = pa.table(columns)
    schema = table.schema.with_metadata({META_KEY: json.dumps(meta).encode()})
    for name in map(label_of, () if stars.labels is None else stars.labels.names):
        field = schema.field(name).with_metadata({k: str(v) for k, v in name.about().items()})
        schema = schema.set(schema.get_field_index(name), field)
    return pa.table(table.columns, schema=schema)


def _photometry_columns(stars: Stars, always: Collection[str]) -> dict[str, NDArray[np.float64]]:
    """Columns of the measurements that any star has, and of those named in ``always``."""
    columns: dict[str, NDArray[np.float64]] = {}
    for name in MEASUREMENTS:
        values, errors = stars.photometry.column(name)
        if np.isnan(values).all() and name not in always:
            continue
        measured = MEASURED[name]
        columns[measured.values[0]] = values
        if measured.over_error is not None:
            columns[measured.over_error] = MAG_PER_RELATIVE_FLUX / errors
        columns[measured.errors[0]] = errors
    return columns


def _narrowest(values: NDArray[np.float64]) -> NDArray[np.floating]:
    """The values as float32 if they are all exact in it (the archive's errors are float32)."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow, values, equal_nan=True) else values


def _fixed_lists(values: NDArray[np.floating]) -> ArrowTable:
    import pyarrow as pa

    kind = pa.from_numpy_dtype(values.dtype)
    if values.shape[1] == 0:  # pyarrow cannot tell the number of zero-size lists
        return pa.array([[]] * len(values), pa.list_(kind))
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def stars_of(batch: ArrowTable, meta: Mapping[str, Any], assembler: Assembler) -> Stars:
    """The stars of a record batch of a star table whose metadata are ``meta``, with all columns."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    return stars_of_columns(columns, meta, assembler, schema_words(batch.schema))


def stars_of_columns(
    columns: Mapping[str, forms.Column], meta: Mapping[str, Any], assembler: Assembler, words: Words
) -> Stars:
    """The stars of columns in any form; ``words`` have their units and descriptions."""
    path = assembler.path
    flat = forms.flattened(archive_columns(columns, path))
    names = forms.names_of(flat, path)
    if forms.SOURCE_ID not in names:
        raise forms.no_ids(flat, path)
    columns = {lower: flat[name] for lower, name in names.items()}
    source_id = forms.source_ids(columns[forms.SOURCE_ID], path)
    if meta.get("space") == "sampled":
        check_columns(columns, path, ["source_id", "flux", "flux_error"])
        cells, _ = _cells(columns, ("flux", "flux_error"), path)
        # an earlier reader has flagged some rows as having no usable spectrum
        flags = forms.plain_column(columns.get("flags", np.zeros(len(source_id))))
        unusable = (flags.astype(np.uint32) & np.uint32(UNUSABLE)) > 0
        stars = assembler.sampled(source_id, np.array(meta["wavelength"]), cells, unusable)
    else:
        if not meta and "flux" in columns and "bp_coefficients" not in columns:
            raise AbsentColumns(
                "holds sampled flux without the metadata that give its wavelengths",
                where=path,
                remedy="write the table with xplabels.write_stars, or xplabels.read(table, "
                "wavelength=...)",
            )
        check_columns(columns, path)
        cells, faults = _cells(columns, [name for name in ARRAYS if name in columns], path)
        stars = assembler.stars(RawBlock(source_id, cells, faults))
    has_id, plain = source_id != forms.NOBODY, {}
    for name, column in columns.items():
        if name != forms.SOURCE_ID and _is_flat(column):
            unit = words.get(name, {}).get("unit")
            values = forms.converted(forms.plain_column(column), name, unit, path)
            if values.dtype.kind in "iufb":
                plain[name] = values[has_id]
    return _with_the_rest(stars, plain, meta, path, words)


def _is_flat(column: forms.Column) -> bool:
    """Whether a column holds one value a row."""
    from pyarrow import types

    if hasattr(column, "type"):
        return not types.is_nested(column.type)
    first = column[0] if len(column) else 0.0
    return getattr(column, "ndim", 1) == 1 and not isinstance(first, np.ndarray | list | tuple)


def _with_the_rest(
    stars: Stars,
    plain: Mapping[str, NDArray[Any]],
    meta: Mapping[str, Any],
    path: Path,
    words: Words,
) -> Stars:
    photometry, notes = photometry_of(plain, stars.source_id, path)
    stars = replace(
        stars,
        photometry=photometry,
        origin=meta.get("origin") or stars.origin,
        notes=(*meta.get("notes", ()), *stars.notes, *notes),
    )
    # a star table of this package lists its labels, though a user may have dropped some columns; in
    # any other table, columns such as teff are labels only if there are errors
    names = [name for name in meta.get("labels", () if meta else LABELS) if name in plain]
    if not meta:
        names = [name for name in names if first_present(error_columns(name), plain)]
    if names:
        labels, notes = labels_of(plain, names, stars.source_id, path, words)
        stars = replace(stars, labels=labels, notes=(*stars.notes, *notes))
    noticed = stars.flags | quality_flags(plain, photometry)
    return replace(stars, flags=_flags(noticed, plain) if meta else noticed)


def _flags(noticed: NDArray[np.uint32], plain: Mapping[str, NDArray[Any]]) -> NDArray[np.uint32]:
    """The table's flags combined with those ``noticed`` while reading it."""
    # rows that were damaged when the table was made are NaN, but not flagged as lacking a spectrum
    stored = plain.get("flags", np.zeros(len(noticed))).astype(np.uint32)
    return np.where(stored & np.uint32(Flag.BAD_ROW), stored, stored | noticed).astype(np.uint32)


def _cells(
    columns: Mapping[str, ArrowTable], names: Iterable[str], path: Path
) -> tuple[dict[str, Cells], dict[int, tuple[str, str]]]:
    """Columns of arrays, and row -> (column, what is wrong) for those that cannot be read."""
    from pyarrow import types

    cells: dict[str, Cells] = {}
    faults: dict[int, tuple[str, str]] = {}
    for name in names:
        column = columns[name]
        arrow = hasattr(column, "type")
        kind = column.type if arrow else getattr(column, "dtype", np.dtype(object))
        plain_numpy = not arrow and kind.kind in "iufb" and np.ndim(column) == 1
        if plain_numpy or (arrow and types.is_primitive(kind)):
            raise InputError(
                f"holds {kind}, not lists of numbers",
                where=f"{path}, column {name}",
                remedy="write one list of floating-point numbers a row",
            )
        cells[name], wrong = cells_of(column, kind_of(name))
        faults |= {n: (name, unreadable(what)) for n, what in wrong.items() if n not in faults}
    return cells, faults
