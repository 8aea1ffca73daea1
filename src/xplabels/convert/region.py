"""One piece of sky: the rows of the bulk files that touch it -> its partitions on disk."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.convert.files import FILE_LEVEL, BulkFile
from xplabels.convert.rows import INDEX, GaiaSource, Layout, rows_of
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import Stars
from xplabels.fetch.bulk import PIXEL_SHIFT
from xplabels.io import BadRows, read_blocks
from xplabels.io.atomic import whole_folder
from xplabels.io.parquet import ROW_GROUP
from xplabels.io.partitioning import LEVEL, LEVEL_SHIFT, Pixel, PixelRows, partitions

RECORD = "record.json"
INDEX_LEVEL = 29
ZSTD = {"compression": "zstd", "compression_level": 3}


@dataclass(frozen=True)
class Region:
    """What is to be done for one piece of sky.

    Attributes
    ----------
    pixel
        The piece.
    files
        Those that hold rows of it, in order.
    layout
        The columns.
    most_rows
        Of a partition.
    bad_rows
        What happens to damaged rows.
    """

    pixel: Pixel
    files: tuple[BulkFile, ...]
    layout: Layout
    most_rows: int
    bad_rows: BadRows

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.pixel.order}-{self.pixel.number}"

    def stamps(self) -> list[list[str]]:
        """What its rows come from; a region made from other files has to be made anew."""
        return [list(file.stamps()) for file in self.files]


@dataclass(frozen=True)
class Record:
    """What was made of a region, as it stands in :data:`RECORD`.

    Attributes
    ----------
    stamps
        Of the files at the time.
    partitions
        (order, number, rows) of each.
    counts
        Level-8 pixel and rows in it, where there are any.
    damaged
        Rows flagged ``BAD_ROW``.
    outside
        Stars whose position is outside the partition that their source_id names.
    """

    stamps: list[list[str]]
    partitions: list[list[int]]
    counts: list[list[int]]
    damaged: int
    outside: int

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """Of a finished region; None where there is none."""
        try:
            return cls(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def partition_name(order: int, number: int) -> str:
    """Of a partition's file in the folder of its region."""
    return f"{order}-{number}.parquet"


def convert_region(region: Region, parent: Path) -> Record:
    """Make the partitions of ``region`` in a folder of ``parent``, which appears whole.

    Raises
    ------
    InputError
        If a file is damaged, its rows do not ascend in source_id, or are not those its name says;
        as :func:`~xplabels.convert.rows.rows_of`.
    """
    made: list[list[int]] = []
    counts: dict[int, int] = {}
    damaged = outside = 0
    stamps = region.stamps()
    with whole_folder(parent / region.name, overwrite=True) as folder:
        with contextlib.closing(_blocks(region)) as blocks:
            for pixel, pieces in partitions(blocks, region.pixel, region.most_rows):
                table, strays = _indexed(pieces, pixel)
                write_partition(table, folder / partition_name(*pixel))
                made.append([*pixel, len(table)])
                source_id = table["source_id"].to_numpy()
                here = np.unique(source_id >> PIXEL_SHIFT, return_counts=True)
                for level_8, rows in zip(*here, strict=True):
                    counts[int(level_8)] = counts.get(int(level_8), 0) + int(rows)
                damaged += int(np.count_nonzero(table["flags"].to_numpy() & int(Flag.BAD_ROW)))
                outside += strays
        record = Record(stamps, made, [list(pair) for pair in counts.items()], damaged, outside)
        (folder / RECORD).write_text(json.dumps(vars(record)), encoding="utf-8")
    return record


def write_partition(table: Any, path: Path) -> None:
    """One partition as Parquet, encoded as the HATS library does, but for the arrays.

    DuckDB reads no byte-split float16, so that correlations stay plain; the smallest and largest
    of all coefficients of all stars, which take longest to write, are of no use.
    """
    import pyarrow.parquet as pq
    from hats.io.file_io.file_io import get_parquet_write_table_kwargs

    halves = {
        f"{field.name}.list.element": "PLAIN"
        for field in table.schema
        if field.name.endswith("correlations")
    }
    keys = get_parquet_write_table_kwargs(
        table.schema, write_table_kwargs=ZSTD | {"column_encoding": halves}
    )
    numbers = [field.name for field in table.schema if field.type.num_fields == 0]
    pq.write_table(
        table, path, **(keys | {"row_group_size": ROW_GROUP, "write_statistics": numbers})
    )


def _indexed(pieces: Sequence[Any], pixel: Pixel) -> tuple[Any, int]:
    """The rows of a partition, and how many stand outside it: their index is moved to its edge.

    A source_id names the pixel where the star was first seen; it has moved since, or was
    measured better. A reader that looks for rows by their index would lose it if that lay outside.
    """
    import pyarrow as pa

    table = pa.concat_tables(pieces)
    first, end = pixel.span(INDEX_LEVEL)
    index = table[INDEX].to_numpy()
    inside = np.clip(index, first, end - 1)
    strays = int(np.count_nonzero(inside != index))
    if strays:
        table = table.set_column(table.column_names.index(INDEX), INDEX, pa.array(inside))
    return table, strays


def _blocks(region: Region) -> Generator[PixelRows]:
    """The rows of the region, ascending."""
    last = np.int64(-1)
    first, end = (bound << LEVEL_SHIFT for bound in region.pixel.span(LEVEL))
    for file in region.files:
        gaia = None
        blocks = read_blocks(file.path, region.bad_rows)
        with contextlib.closing(blocks):  # type: ignore[type-var]
            for stars in blocks:
                _check_order(stars, last, file)
                last = stars.source_id[-1]
                some = slice(*np.searchsorted(stars.source_id, [first, end]).tolist())
                here = stars if some == slice(0, len(stars)) else stars[some]
                if len(here):
                    if gaia is None and file.gaia_source is not None:
                        gaia = GaiaSource(file.gaia_source)
                    rows = rows_of(here, region.layout, gaia)
                    yield PixelRows(rows, here.source_id >> LEVEL_SHIFT)
                if last >= end:
                    return


def _check_order(stars: Stars, last: np.int64, file: BulkFile) -> None:
    """Rows in the order of the sky, within the pixels that the file's name says."""
    run: NDArray[np.int64] = np.concatenate([[last], stars.source_id])
    fallen = np.flatnonzero(run[1:] <= run[:-1])
    if len(fallen):
        raise InputError(
            f"source_id {run[fallen[0] + 1]} comes after {run[fallen[0]]}",
            where=file.path,
            remedy="sort its rows by source_id",
        )
    pixels = stars.source_id[[0, -1]] >> PIXEL_SHIFT
    for pixel, star in zip(pixels, stars.source_id[[0, -1]], strict=True):
        if not file.first <= pixel <= file.last:
            raise InputError(
                f"source_id {star} is of pixel {pixel:06d} (level {FILE_LEVEL}), not of "
                f"{file.first:06d} to {file.last:06d}",
                where=file.path,
                remedy="give the file the name it has in the archive",
            )
