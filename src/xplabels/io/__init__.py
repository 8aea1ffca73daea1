"""Read files of XP spectra in any format into :class:`~xplabels.core.stars.Stars`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import CoefficientSpectra, Stars, concatenate, with_widths
from xplabels.io.delimited import read_csv, read_ecsv
from xplabels.io.files import KINDS, Digest, format_of, unchanged, whole
from xplabels.io.fits import read_fits
from xplabels.io.hats import is_catalogue, read_hats
from xplabels.io.memory import is_path, is_table, listed, read_memory, table_of
from xplabels.io.parquet import read_parquet, read_stars, write_star_blocks, write_stars
from xplabels.io.rows import BLOCK_ROWS, AbsentColumns, BadRows
from xplabels.io.unpacked import read_unpacked
from xplabels.io.votable import read_votable
from xplabels.io.zipped import read_zip

__all__ = [
    "BLOCK_ROWS",
    "BadRows",
    "Digest",
    "read",
    "read_blocks",
    "read_stars",
    "write_star_blocks",
    "write_stars",
]

Reader = Callable[[Path, BadRows, int], Iterator[Stars]]

READERS: dict[str, Reader] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".ecsv": read_ecsv,
    ".fits": read_fits,
    ".xml": read_votable,
    ".vot": read_votable,
    ".votable": read_votable,
    ".parquet": read_parquet,
    ".zip": lambda *options: read_zip(*options, read_blocks=read_blocks),
}
"""Ending -> reader; every text or FITS ending may be followed by ``.gz``."""


def read_blocks(
    path: str | Path,
    bad_rows: BadRows = "error",
    block: int = BLOCK_ROWS,
    digest: Digest | None = None,
    coefficients: str | None = None,
) -> Iterator[Stars]:
    """The stars of a file or HATS catalogue, at most ``block`` at a time, in its order.

    Parameters
    ----------
    path
        A DataLink or bulk file of continuous XP spectra (``.csv``, ``.csv.gz``, ``.ecsv``,
        ``.fits``, ``.vot``, ``.votable``, ``.xml``), a star table (``.parquet``), or the folder of
        a HATS catalogue of star tables; or a table of :mod:`xplabels.io.unpacked`.
    bad_rows
        What to do with a damaged row among good ones: ``"error"`` stops; ``"flag"`` makes its
        spectrum NaN, sets :attr:`~xplabels.core.flags.Flag.BAD_ROW` and counts it in ``notes``.
        Damage to the whole file (truncation, an absent column, a source_id that is unreadable or
        occurs twice) is always an error.
    block
        Most stars in a block.
    digest
        Takes the file's bytes as they are read; call ``digest.take_rest(path)`` after the last
        block for those that a format leaves unread.
    coefficients
        For a table with one column per coefficient: the pattern of the names of coefficients and of
        their errors. Some are recognised without it, such as
        ``"{band}_coeff_{i},e_{band}_coeff_{i}"``.

    Raises InputError here for a missing file or an unknown ending, while iterating for what is
    wrong inside, and if the file changes in the meantime.

    Examples
    --------
    >>> import xplabels as xp
    >>> xp.write_stars(xp.example_stars(5), "stars.parquet")
    >>> [len(stars) for stars in xp.read_blocks("stars.parquet", block=2)]
    [2, 2, 1]
    """
    if bad_rows not in get_args(BadRows):
        raise InputError(f"bad_rows is {bad_rows!r}", remedy="choose 'error' or 'flag'")
    path = Path(path)
    with whole(path):
        catalogue = path.is_dir() and is_catalogue(path)
    reader: Reader = read_hats
    kind = "HATS catalogue"
    if not catalogue:
        ending = format_of(path, READERS)
        reader, kind = READERS[ending], KINDS[ending]
    if reader is read_csv:
        reader = partial(read_csv, digest=digest)
    if coefficients is not None:
        blocks = read_unpacked(path, bad_rows, block, coefficients) or iter(())
    else:
        blocks = _or_unpacked(reader(path, bad_rows, block), path, bad_rows, block)
    return _guarded(blocks, path, kind)


def _guarded(blocks: Iterator[Stars], path: Path, kind: str) -> Iterator[Stars]:
    """The blocks; every error names the file, which must not change while it is read."""
    with unchanged(path), whole(path, kind):
        yield from blocks


def _or_unpacked(
    blocks: Iterator[Stars], path: Any, bad_rows: BadRows, block: int
) -> Iterator[Stars]:
    """The blocks or, if the archive's columns are absent, those of other columns of spectra."""
    try:
        yield from blocks
    except AbsentColumns:
        unpacked = read_unpacked(path, bad_rows, block)
        if unpacked is None:
            raise
        yield from unpacked


def read(
    paths: Any,
    bad_rows: BadRows = "error",
    coefficients: str | None = None,
    wavelength: NDArray[np.float64] | None = None,
) -> Stars:
    """All stars of one or several files or tables in memory, stacked in order.

    Parameters
    ----------
    paths
        Files as for :func:`read_blocks`; their formats may differ. Or tables in memory
        (:mod:`xplabels.io.memory`): an astropy Table, a pandas or polars DataFrame, a pyarrow
        Table, arrays by name, astroquery's DataLink answer, what GaiaXPy's ``calibrate`` returns.
    bad_rows, coefficients
        See :func:`read_blocks`.
    wavelength
        [L], nm, of columns ``flux`` and ``flux_error`` of a table in memory.

    Raises InputError as :func:`read_blocks`; if a source_id stands in two files; if the files
    differ in their numbers of coefficients.

    Examples
    --------
    >>> import xplabels as xp
    >>> xp.write_stars(xp.example_stars(3), "stars.parquet")
    >>> len(xp.read("stars.parquet"))
    3
    """
    if isinstance(paths, tuple) and len(paths) == 2 and isinstance(paths[1], np.ndarray):
        paths, wavelength = paths  # what GaiaXPy's calibrate returns
    # every file is opened before the first is read, so that a misspelt name is noticed at once
    opened = [
        read_blocks(source, bad_rows, coefficients=coefficients)
        if is_path(source)
        else _of_memory(source, bad_rows, coefficients, wavelength)
        for source in listed(paths)
    ]
    blocks = [block for blocks in opened for block in blocks]
    _check_across_files(blocks)
    return concatenate(_same_widths(blocks))


def _of_memory(
    source: Any, bad_rows: BadRows, coefficients: str | None, wavelength: Any
) -> Iterator[Stars]:
    """The stars of one or several tables in memory, like :func:`read_blocks` those of a file."""
    if not is_table(source):
        return read_memory(source, bad_rows, wavelength)
    table = table_of(source)
    if coefficients is not None:
        return read_unpacked(table, bad_rows, BLOCK_ROWS, coefficients) or iter(())
    return _or_unpacked(read_memory(table, bad_rows, wavelength), table, bad_rows, BLOCK_ROWS)


def _check_across_files(blocks: Sequence[Stars]) -> None:
    """Raise InputError if two blocks share a source_id (readers check within a file)."""
    if len(blocks) < 2:
        return
    ids = np.concatenate([block.source_id for block in blocks])
    block_of = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(twice):
        first, second = order[twice[0]], order[twice[0] + 1]
        raise InputError(
            f"source_id {ids[first]} is in {blocks[block_of[first]].where} too",
            where=blocks[block_of[second]].where,
            remedy="keep one row per star",
        )


def _same_widths(blocks: Sequence[Stars]) -> list[Stars]:
    """Give blocks in which no star has a band the width that this band has elsewhere."""
    widths = [0, 0]
    for block in blocks:
        if isinstance(block.spectra, CoefficientSpectra):
            for band, width in enumerate(block.spectra.widths):
                widths[band] = widths[band] or width
    return [with_widths(block, (widths[0], widths[1])) for block in blocks]
