"""The rows of many answers -> one table sorted by ``source_id``, whatever the answers were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xplabels.core.stars import Stars, with_widths
from xplabels.fetch.datalink import stacked
from xplabels.io import read_stars, write_star_blocks
from xplabels.io.parquet import COMPRESSION_LEVEL, ROW_GROUP
from xplabels.io.rows import BANDS


def write_table(files: Sequence[Path], path: Path) -> None:
    """Write the rows of ``files``, which have one schema, as one table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pq.read_table(file) for file in files]
    whole = pa.concat_tables(tables).sort_by("source_id").combine_chunks()
    pq.write_table(whole, path, compression="zstd", compression_level=COMPRESSION_LEVEL)


def write_spectra(files: Sequence[Path], path: Path) -> None:
    """Write the stars of ``files`` as one star table, in memory for a few answers at a time."""
    write_star_blocks(_blocks(files), path)


def _blocks(files: Sequence[Path]) -> Iterator[Stars]:
    """The stars in order, a row group at a time.

    The files' ranges of source_id may overlap, where ids were asked for again: each file is kept
    from the first block that needs it to the last.
    """
    ids = [_source_ids(file) for file in files]
    every = np.concatenate(ids)
    file_of = np.repeat(np.arange(len(files)), [len(part) for part in ids])
    order = np.argsort(every)
    last = [part.max() for part in ids]
    read: dict[int, Stars] = {}
    widths = tuple(max(part) for part in zip(*(_widths(file) for file in files), strict=True))
    for start in range(0, len(order), ROW_GROUP):
        rows = order[start : start + ROW_GROUP]
        parts = []
        for number in np.unique(file_of[rows]).tolist():
            if number not in read:
                read[number] = read_stars(files[number])
            stars = read[number]
            parts.append(stars[np.flatnonzero(np.isin(stars.source_id, every[rows]))])
        # every block has both bands, even if none of its stars has
        yield with_widths(stacked(parts), (widths[0], widths[1]))
        read = {n: stars for n, stars in read.items() if last[n] > every[rows[-1]]}


def _widths(file: Path) -> tuple[int, int]:
    """Numbers of BP and RP coefficients in a star table; 0 where it has no star with that band."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(file)
    kinds = [schema.field(f"{band}_coefficients").type for band in BANDS]
    bp, rp = (getattr(kind, "list_size", 0) for kind in kinds)
    return bp, rp


def _source_ids(file: Path) -> NDArray[np.int64]:
    import pyarrow.parquet as pq

    column: NDArray[np.int64] = pq.read_table(file, columns=["source_id"])["source_id"].to_numpy()
    return column
