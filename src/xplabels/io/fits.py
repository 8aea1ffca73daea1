"""DataLink FITS: one binary table, arrays of variable or fixed length."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from xplabels.core.stars import Stars
from xplabels.io.files import check_size, open_seekable, reads, whole
from xplabels.io.rows import (
    BLOCK_ROWS,
    REQUIRED,
    BadRows,
    RawBlock,
    assembled,
    column_blocks,
    no_sources,
)

MOST = 999
"""Axes of an array, and columns of a table, by the FITS standard (4.0: 4.4.1 and 7.3.1)."""
BLOCK = 2880
"""Bytes, of which header and data fill a whole number."""
FitsTable = Any
"""An astropy binary table (its ``columns`` and ``data``)."""


@reads("FITS file")
def read_fits(path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of stars from the first binary table that has a column ``source_id``.

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
            table = first_table(hdus, path)
            names = {name.lower(): name for name in table.columns.names}
            columns = {name: table.data[names[name]] for name in REQUIRED if name in names}
        yield from column_blocks(columns, path, block, readable_fits)


def first_table(hdus: FitsTable, path: Path) -> FitsTable:
    """The first binary table of an open file that has a column ``source_id``, in any case.

    Raises InputError if there is none.
    """
    for hdu in hdus:
        names = hdu.columns.names if hasattr(hdu, "columns") else []
        if any(name.lower() == "source_id" for name in names):
            return hdu
    raise no_sources(path)
