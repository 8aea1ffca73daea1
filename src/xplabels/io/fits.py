"""DataLink FITS: binary tables, arrays of variable or fixed length."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from xplabels.core.stars import Stars
from xplabels.io.files import check_size, open_seekable, whole
from xplabels.io.forms import SOURCE_ID, Column, FileTable, names_of, no_ids
from xplabels.io.rows import BLOCK_ROWS, BadRows, RawBlock, assembled, table_blocks

MOST = 999
"""Axes of an array, and columns of a table, by the FITS standard (4.0: 4.4.1 and 7.3.1)."""
BLOCK = 2880
"""Bytes, of which header and data fill a whole number."""
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
    with warnings.catch_warnings(), whole(path, "FITS file"):
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
            file = stack.enter_context(open_seekable(path))
            _check_headers(file, path)
            hdus = stack.enter_context(fits.open(file, disable_image_compression=True))
        yield hdus


def _check_headers(file: IO[bytes], path: Path) -> None:
    """Raise an error where a header says that there is more than the file can hold.

    Astropy makes a list as long as NAXIS or TFIELDS says before it looks at what else there is, and
    multiplies whatever GCOUNT is.
    """
    from astropy.io.fits import Header

    def number(key: str, default: int = 0, most: int = 1 << 62) -> int:
        if key in header and header.count(key) > 1:
            raise ValueError(f"its header says {key} twice")
        value = header.get(key, default)
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError(f"its header says {key} = {str(value)[:50]}")
        return value

    end = file.seek(0, io.SEEK_END)
    at = file.seek(0)
    while at < end:
        header = Header.fromfile(file)
        number("TFIELDS", most=MOST)
        axes = [number(f"NAXIS{n + 1}") for n in range(number("NAXIS", most=MOST))]
        values = number("GCOUNT", 1) * (number("PCOUNT") + math.prod(axes)) if axes else 0
        size = abs(header["BITPIX"]) // 8 * values
        check_size(path, size, end)
        at = file.seek(-(-size // BLOCK) * BLOCK, io.SEEK_CUR)
    file.seek(0)


def _raw_blocks(path: Path, block: int) -> Iterator[RawBlock]:
    with open_fits(path) as hdus:
        with readable_fits(path):
            tables = fits_tables(hdus)
        yield from table_blocks(tables, path, block, readable_fits)


def first_table(hdus: FitsTable, path: Path) -> FitsTable:
    """The first binary table of an open file that has source_ids; InputError if there is none."""
    tables = [hdu for hdu in hdus if hasattr(hdu, "columns")]
    for hdu in tables:
        if SOURCE_ID in names_of(hdu.columns.names, path, (SOURCE_ID,)):
            return hdu
    raise no_ids([name for hdu in tables for name in hdu.columns.names], path)


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
