"""DataLink FITS: one binary table, arrays of variable or fixed length."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from xplabels.core.stars import Stars
from xplabels.io.files import whole
from xplabels.io.rows import (
    BLOCK_ROWS,
    REQUIRED,
    BadRows,
    RawBlock,
    assembled,
    column_blocks,
    no_sources,
)

DAMAGE = (OSError, EOFError, zlib.error, Warning, ValueError, TypeError, LookupError)
"""What astropy raises of a damaged file."""
FitsTable = Any
"""An astropy binary table (its ``columns`` and ``data``)."""


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
