"""Comma-separated files of spectra: by compiled code where a file is large and numba is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xplabels.core.jit import available
from xplabels.core.stars import Stars
from xplabels.io.delimited import read_delimited
from xplabels.io.gunzip import Digest
from xplabels.io.rows import BLOCK_ROWS, BadRows

COMPILED_FROM = 1_000_000
"""Size in bytes below which a file is read before compiled code is even loaded."""


def read_csv(
    path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS, digest: Digest | None = None
) -> Iterator[Stars]:
    """Blocks of at most ``block`` stars: see :func:`~xplabels.io.delimited.read_delimited`.

    A file of :data:`COMPILED_FROM` bytes or more goes through compiled code where numba is
    installed (:mod:`xplabels.io.bulk`); what comes out is the same.

    Raises
    ------
    InputError
        As :func:`~xplabels.io.delimited.read_delimited`.
    """
    if available() and path.stat().st_size >= COMPILED_FROM:
        from xplabels.io.bulk import read_bulk

        return read_bulk(path, bad_rows, block, digest)
    return read_delimited(path, bad_rows, block, ",", digest)
