"""DataLink VOTable, in any of its serialisations (TABLEDATA, BINARY, BINARY2, FITS)."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.archive.csv import BLOCK_ROWS
from xplabels.archive.rows import (
    ARRAYS,
    DOWNLOAD_AGAIN,
    BadRows,
    RawBlock,
    as_source_id,
    assembled,
    check_columns,
)
from xplabels.errors import InputError
from xplabels.stars import Stars

VOTable = Any
"""An astropy ``TableElement``."""


def read_votable(path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of stars from the first table that has a column ``source_id``.

    The format has no random access: the whole file is in memory while it is read.

    Raises
    ------
    InputError
        For a file that is unreadable, truncated, lacks columns or rows, or (``bad_rows="error"``)
        holds a damaged row.
    """
    return assembled(_raw_blocks(path, block), path, bad_rows)


@contextmanager
def readable_votable(path: Path) -> Iterator[None]:
    """Turn what astropy says of a damaged VOTable into an :class:`InputError`; silence the rest."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"is not a whole VOTable ({str(error).splitlines()[0] if str(error) else 'empty'})",
            where=path,
            remedy=DOWNLOAD_AGAIN,
        ) from error


def first_votable(path: Path) -> VOTable:
    """The first table of the file that has a column ``source_id``, in any case.

    Raises
    ------
    InputError
        If there is none or the file cannot be parsed.
    """
    from astropy.io.votable import parse

    with readable_votable(path):
        # "mask" makes an unreadable number a masked one: damage to a row, not to the file
        tables = list(parse(path, verify="ignore", invalid="mask").iter_tables())
    for table in tables:
        if any(field.name.lower() == "source_id" for field in table.fields):
            return table
    raise InputError(
        "no table in it has a column source_id", where=path, remedy="give a table of Gaia sources"
    )


def _raw_blocks(path: Path, block: int) -> Iterator[RawBlock]:
    table = first_votable(path)
    # the array's columns go by ID, which need not be the name
    names = {field.name.lower(): field.ID for field in table.fields}
    check_columns(names, path)
    source_id = as_source_id(table.array[names["source_id"]], path)
    for start in range(0, len(source_id), block):
        rows = slice(start, min(start + block, len(source_id)))
        with readable_votable(path):
            cells = {
                name: [_plain(cell, name) for cell in table.array[names[name]][rows]]
                for name in ARRAYS
            }
        yield RawBlock(source_id[rows], cells)


def _plain(cell: object, column: str) -> NDArray[np.floating]:
    """One cell without its mask, in the archive's own type (astropy widens float32)."""
    values = np.ma.filled(np.ma.asarray(cell, np.float64), np.nan)
    kind = np.float64 if column.endswith("coefficients") else np.float32
    with np.errstate(over="ignore"):
        return np.atleast_1d(values.astype(kind))
