"""DataLink FITS: binary tables, arrays of variable or fixed length."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xplabels.core.stars import Stars
from xplabels.io.files import whole
from xplabels.io.forms import SOURCE_ID, Column, FileTable, alike, no_ids
from xplabels.io.rows import ARRAYS, BLOCK_ROWS, BadRows, RawBlock, assembled, column_blocks

DAMAGE = (OSError, EOFError, zlib.error, Warning, ValueError, TypeError, LookupError)
"""What astropy raises of a damaged file."""
FitsTable = Any
"""An astropy binary table (its ``columns`` and ``data``)."""


def read_fits(path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of stars from all tables that have source_ids; they must have the same columns.

    Raises InputError for a file that is unreadable, truncated, lacks columns or rows, or
    (``bad_rows="error"``) holds a damaged row.
    """
    return assembled(_raw_blocks(path, block), path, bad_rows)


@contextmanager
def readable_fits(path: Path) -> Iterator[None]:
    """Turn what astropy says of a damaged FITS file into an :class:`InputError`.

    Astropy only warns of truncation and of unreadable headers; here these are errors, and other
    warnings (odd units, say) are silenced. Not to be held open while a generator yields.
    """
    with warnings.catch_warnings(), whole(path, "FITS file", DAMAGE):
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*truncated.*")
        warnings.filterwarnings("error", message=".*Error validating header.*")
        yield


@contextmanager
def open_fits(path: Path) -> Iterator[FitsTable]:
    """The HDUs of a file, closed in the end also where astropy gives up on opening it.

    Raises InputError if it is not a readable FITS file.
    """
    from astropy.io import fits

    with ExitStack() as stack:
        with readable_fits(path):
            hdus = stack.enter_context(fits.open(stack.enter_context(path.open("rb"))))
        yield hdus


def _raw_blocks(path: Path, block: int) -> Iterator[RawBlock]:
    with open_fits(path) as hdus:
        with readable_fits(path):
            tables = fits_tables(hdus)
            parts = alike(tables, (SOURCE_ID, *ARRAYS), path)
        for table, chosen in zip(tables, parts, strict=True):
            if chosen:
                with readable_fits(path):
                    columns = {name: table.column(chosen[name]) for name in chosen}
                yield from column_blocks(columns, path, block, readable_fits)
        if not any(parts):
            raise no_ids([name for table in tables for name in table.names], path)


def fits_tables(hdus: FitsTable) -> list[FileTable]:
    """The tables of an open file, TOPCAT's colfits (one row, columns in its cells) unrolled."""
    tables = []
    for number, hdu in enumerate(hdus):
        if not hasattr(hdu, "columns"):
            continue
        title = f"HDU {number} ({hdu.name})" if hdu.name else f"HDU {number}"
        units = {column.name: column.unit for column in hdu.columns if column.unit}
        tables.append(FileTable(title, hdu.columns.names, partial(_column, hdu), units))
    return tables


def _column(hdu: FitsTable, name: str) -> Column:
    values, null = hdu.data[name], hdu.columns[name].null
    if null is not None and values.dtype.kind in "iu":
        values = np.ma.masked_equal(values, null)
    shapes = {hdu.data.dtype[n].shape[:1] for n in range(len(hdu.data.dtype))}
    if len(hdu.data) != 1 or len(shapes) != 1 or shapes <= {(), (1,)}:
        return values
    values = values[0]
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
