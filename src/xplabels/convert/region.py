"""One piece of sky: the rows of the bulk files that touch it -> its partitions on disk."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted
from xplabels.core.flags import Flag
from xplabels.core.stars import MEASUREMENTS, CoefficientSpectra, Stars, with_widths
from xplabels.fetch.bulk import PIXEL_SHIFT, PIXELS
from xplabels.io import BadRows, read_blocks
from xplabels.io.atomic import whole_folder
from xplabels.io.columns import MEASURED
from xplabels.io.job import FileFingerprint, Job, Record, Settings
from xplabels.io.parquet import FORMAT_VERSION, META_KEY, ROW_GROUP, to_arrow
from xplabels.io.partitioning import LEVEL, LEVEL_SHIFT, Pixel, PixelRows, partitions
from xplabels.io.tables import TAKEN_COLUMNS, Filled, KeyedTable
from xplabels.pipeline import AuxiliaryTables, find_inputs
from xplabels.pipeline.inputs import no_spectra

FILE_LEVEL = LEVEL - (PIXEL_SHIFT - LEVEL_SHIFT) // 2
"""HEALPix level of the pixels in DR3's names of files, and of the catalogue's sky map: 8."""
REGION_ORDER = 3
"""HEALPix order of the pieces of sky that are converted one by one. There are 768 of them, with
285,000 DR3 stars each on average."""
INDEX = "_healpix_29"
"""Column of the nested HEALPix pixel of a star's position, of the level in its name."""
INDEX_LEVEL = 29
POSITION = ("ra", "dec", "pmra", "pmdec", "ref_epoch")
"""Columns taken from GaiaSource besides the photometry; the first two are required."""
PIXEL_POSITION = ("pixel_ra", "pixel_dec")
"""Columns of the position if GaiaSource is not given: that of the centre of a star's pixel."""
POSITION_NOTES = {
    True: "GaiaSource",
    False: "pixel_ra, pixel_dec are the centre of the HEALPix pixel (level 12) that source_id "
    "names: the star may stand most of an arcminute away",
}
"""Whether positions are from GaiaSource -> what the catalogue says of them."""
PRECISION = "coefficients and their errors are float32, correlations float16"
ZSTD = {"compression": "zstd", "compression_level": 3}
AS_IN_ARCHIVE = "give files named as the archive names them, XpContinuousMeanSpectrum_A-B.csv.gz"

ArrowTable = Any


# The files ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PixelFile:
    """A bulk file of spectra, and its GaiaSource file if that is joined."""

    path: Path
    first: int  # pixel
    last: int  # pixel
    gaia_source: Path | None = None
    level: int = FILE_LEVEL  # of the pixels


def find_files(
    inputs: Sequence[Path], gaia_source: Path | None = None, level: int = FILE_LEVEL
) -> list[PixelFile]:
    """The bulk files among ``inputs`` (files and folders), in the order of their pixels.

    ``level`` is that of the pixels in the names.

    Raises InputError if there is none, a name does not tell its pixels, two files hold the same
    pixel, or the folder ``gaia_source`` lacks a ``GaiaSource_A-B.csv.gz``.
    """
    files = [_pixel_file(path, gaia_source, level) for path in find_inputs(inputs).files]
    if not files:
        raise no_spectra(inputs[0])
    files.sort(key=lambda file: (file.first, file.last))
    for before, after in pairwise(files):
        if after.first <= before.last:
            raise InputError(
                f"holds pixel {after.first:06d}, as does {before.path}",
                where=after.path,
                remedy="give each file once",
            )
    return files


def _pixel_file(path: Path, gaia_source: Path | None, level: int) -> PixelFile:
    FileFingerprint.of(path)  # raises InputError if it cannot be read
    pixels = PIXELS.search(path.name)
    if pixels is None:
        raise InputError(
            "its name does not say which pixels it holds", where=path, remedy=AS_IN_ARCHIVE
        )
    first, last = int(pixels[1]), int(pixels[2])
    if not 0 <= first <= last < 12 * 4**level:
        raise InputError(
            f"{first} to {last} are not HEALPix pixels of level {level}",
            where=path,
            remedy=f"{AS_IN_ARCHIVE}, and --level if theirs is another one",
        )
    if gaia_source is None:
        return PixelFile(path, first, last, level=level)
    source = AuxiliaryTables(gaia_source=gaia_source).source_of(path)
    if source is None or not source.is_file():
        raise InputError(
            f"holds no GaiaSource{pixels[0]}csv.gz",
            where=gaia_source,
            remedy="download it (xplabels fetch), or convert without --gaia-source",
        )
    return PixelFile(path, first, last, source, level)


# The columns -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """The columns of every partition.

    ``widths`` are the numbers of BP and RP coefficients. ``position`` names columns of
    :data:`POSITION`, or :data:`PIXEL_POSITION`; ``measurements`` those of
    :data:`~xplabels.core.stars.MEASUREMENTS` that GaiaSource has.
    """

    widths: tuple[int, int]
    position: tuple[str, ...] = PIXEL_POSITION
    measurements: tuple[str, ...] = ()

    @property
    def from_gaia_source(self) -> bool:
        """Whether positions are the stars' own."""
        return self.position != PIXEL_POSITION

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """The metadata of every partition's schema, as of a star table."""
        values = {
            "format": FORMAT_VERSION,
            "space": CoefficientSpectra.space,
            "origin": "bulk files of the Gaia archive, converted to HATS",
            "notes": [PRECISION],
            "labels": [],
            "position": POSITION_NOTES[self.from_gaia_source],
        }
        return {META_KEY: json.dumps(values).encode()}


def layout_of(files: Sequence[PixelFile], bad_rows: BadRows) -> Layout:
    """The columns: widths from the first file with both bands, others from the first GaiaSource.

    Raises InputError if GaiaSource has no positions, or a file cannot be read.
    """
    widths = (0, 0)
    for file in files:
        stars = next(iter(read_blocks(file.path, bad_rows, 100)))
        if isinstance(stars.spectra, CoefficientSpectra):
            widths = stars.spectra.widths
        if all(widths):
            break
    source = files[0].gaia_source
    if source is None:
        return Layout(widths)
    columns = KeyedTable.read(source, (*POSITION, *TAKEN_COLUMNS)).columns
    position = tuple(name for name in POSITION if name in columns)
    if position[:2] != POSITION[:2]:
        raise InputError(
            "has no columns ra and dec", where=source, remedy="give the archive's gaia_source"
        )
    measured = [name for name in MEASUREMENTS if columns.keys() & set(MEASURED[name].values)]
    return Layout(widths, position, tuple(measured))


def rows_of(stars: Stars, layout: Layout, gaia: KeyedTable | None) -> ArrowTable:
    """A block of stars in the columns of the catalogue, ``source_id`` first, :data:`INDEX` second.

    Raises InputError if the numbers of coefficients differ from the layout's, or GaiaSource lacks
    a star or its position.
    """
    import pyarrow as pa
    from hats.pixel_math.spatial_index import compute_spatial_index

    stars = with_widths(stars, layout.widths)
    widths = stars.spectra.widths if isinstance(stars.spectra, CoefficientSpectra) else (0, 0)
    if widths != layout.widths:
        raise InputError(
            f"{widths[0]}+{widths[1]} coefficients, where other files have "
            f"{layout.widths[0]}+{layout.widths[1]}",
            where=stars.where,
            remedy="convert the files of each data release by themselves",
        )
    if gaia is None:
        position = dict(zip(PIXEL_POSITION, pixel_centres(stars.source_id), strict=True))
    else:
        stars, position = _joined(stars, gaia)
    ra, dec = (position[name] for name in layout.position[:2])
    table = to_arrow(stars, layout.measurements, compact=True)
    columns = {"source_id": table["source_id"], INDEX: pa.array(compute_spatial_index(ra, dec))}
    columns |= {name: pa.array(position[name]) for name in layout.position}
    columns |= {name: table[name] for name in table.column_names if name != "source_id"}
    return pa.table(columns).replace_schema_metadata(layout.metadata)


def _joined(stars: Stars, gaia: KeyedTable) -> tuple[Stars, dict[str, NDArray[np.float64]]]:
    """``stars`` with GaiaSource's photometry and flags, and its columns of :data:`POSITION`."""
    rows, columns = gaia.find(stars.source_id)
    remedy = "download it again, or convert without --gaia-source"
    if len(rows) < len(stars):
        absent = np.delete(stars.source_id, rows)
        raise InputError(
            f"lacks {counted(len(absent), 'star')} with spectra, the first: source_id {absent[0]}",
            where=gaia.path,
            remedy=remedy,
        )
    filled = Filled.of(stars)
    filled.take(rows, columns, gaia.path)
    position = {name: columns[name].astype(float) for name in POSITION if name in columns}
    unplaced = ~np.isfinite(position["ra"] + position["dec"])
    if unplaced.any():
        where = f"{gaia.path}, source_id {stars.source_id[unplaced][0]}"
        raise InputError("has no position", where=where, remedy=remedy)
    return filled.stars(), position


def pixel_centres(
    source_id: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right ascension and declination [N], degrees, of the pixels that source_ids [N] name."""
    from cdshealpix.nested import healpix_to_lonlat

    longitude, latitude = healpix_to_lonlat((source_id >> LEVEL_SHIFT).astype(np.uint64), LEVEL)
    return np.asarray(longitude.deg), np.asarray(latitude.deg)


# The pieces of sky -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Region(Job):
    """The job of one piece of sky: from the files that hold rows of it, a folder of partitions."""

    pixel: Pixel
    files: tuple[PixelFile, ...]
    layout: Layout


@dataclass(frozen=True)
class RegionRecord(Record):
    """What was made of a region.

    ``partitions`` are [order, number, rows], ``counts`` [level-8 pixel, rows]. ``outside`` counts
    stars whose position is outside the partition that their source_id names.
    """

    partitions: list[list[int]]
    counts: list[list[int]]
    damaged: int
    outside: int


def regions_of(
    files: Sequence[PixelFile], folder: Path, settings: Settings, layout: Layout
) -> list[Region]:
    """Each piece of sky that the files touch, in order, to be made in ``folder``."""
    touched: dict[int, list[PixelFile]] = {}
    for file in files:
        bits = 2 * (file.level - REGION_ORDER)
        for number in range(file.first >> bits, (file.last >> bits) + 1):
            touched.setdefault(number, []).append(file)
    regions = []
    for number, region_files in touched.items():
        output = folder / f"{REGION_ORDER}-{number}"
        paths = tuple(
            path
            for file in region_files
            for path in (file.path, file.gaia_source)
            if path is not None
        )
        regions.append(
            Region(
                paths, settings, output, output / "record.json",
                pixel=Pixel(REGION_ORDER, number), files=tuple(region_files), layout=layout,
            )
        )  # fmt: skip
    return regions


def partition_name(order: int, number: int) -> str:
    """The name of a partition's file in the folder of its region."""
    return f"{order}-{number}.parquet"


def convert_region(job: Job, count_stars: object = None) -> RegionRecord:
    """Write the partitions of a :class:`Region` into its folder, which appears whole.

    Raises InputError as :func:`rows_of`, and if a file is damaged, or its rows do not ascend in
    source_id or are not of the pixels in its name.
    """
    if not isinstance(job, Region):
        raise TypeError(f"{job} is not a region")
    written: list[list[int]] = []
    counts: Counter[int] = Counter()
    damaged = outside = 0
    first, *others = map(FileFingerprint.of, job.inputs)
    with whole_folder(job.output, overwrite=True) as folder:
        with contextlib.closing(_blocks(job)) as blocks:
            for pixel, pieces in partitions(blocks, job.pixel, job.settings["most_rows"]):
                table, strays = _indexed(pieces, pixel)
                write_partition(table, folder / partition_name(*pixel))
                written.append([*pixel, len(table)])
                source_id = table["source_id"].to_numpy()
                counts.update((source_id >> PIXEL_SHIFT).tolist())
                damaged += int(np.count_nonzero(table["flags"].to_numpy() & int(Flag.BAD_ROW)))
                outside += strays
        record = RegionRecord(
            first, tuple(others), FileFingerprint(job.output.name, 0, 0), job.settings,
            written, [list(pair) for pair in counts.items()], damaged, outside,
        )  # fmt: skip
        record.write(folder / job.record.name)
    return record


def write_partition(table: ArrowTable, path: Path) -> None:
    """Write one partition as Parquet, encoded as the HATS library does except for the arrays.

    Correlations are encoded plainly, because DuckDB cannot read byte-split float16. Statistics of
    arrays (the extremes of all coefficients of all stars) are left out: they take longest to write
    and are of no use.
    """
    import pyarrow.parquet as pq
    from hats.io.file_io.file_io import get_parquet_write_table_kwargs

    float16 = [name for name in table.column_names if name.endswith("correlations")]
    options = ZSTD | {"column_encoding": {f"{name}.list.element": "PLAIN" for name in float16}}
    options = get_parquet_write_table_kwargs(table.schema, write_table_kwargs=options)
    scalars = [field.name for field in table.schema if field.type.num_fields == 0]
    pq.write_table(
        table,
        path,
        **(options | {"row_group_size": ROW_GROUP, "write_statistics": scalars}),
        write_page_checksum=True,
    )


def _indexed(pieces: Sequence[ArrowTable], pixel: Pixel) -> tuple[ArrowTable, int]:
    """The rows of a partition, and how many have an index outside it, which is moved to its edge.

    A source_id names the pixel where the star was first seen; it has moved since, or its position
    was measured better. A reader that finds rows by their index would miss a star whose index lies
    outside its partition.
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
    """The rows of the region, ascending in source_id."""
    last_id = np.int64(-1)
    first, end = (bound << LEVEL_SHIFT for bound in region.pixel.span(LEVEL))
    for file in region.files:
        gaia = None
        with contextlib.closing(
            read_blocks(file.path, region.settings["bad_rows"])  # type: ignore[type-var]
        ) as blocks:
            for stars in blocks:
                _check_order(stars, last_id, file)
                last_id = stars.source_id[-1]
                inside = slice(*np.searchsorted(stars.source_id, [first, end]).tolist())
                if inside != slice(0, len(stars)):
                    stars = stars[inside]
                if len(stars):
                    if gaia is None and file.gaia_source is not None:
                        gaia = KeyedTable.read(file.gaia_source, (*POSITION, *TAKEN_COLUMNS))
                    rows = rows_of(stars, region.layout, gaia)
                    yield PixelRows(rows, stars.source_id >> LEVEL_SHIFT)
                if last_id >= end:
                    return


def _check_order(stars: Stars, last_id: np.int64, file: PixelFile) -> None:
    """Raise InputError unless ids ascend after ``last_id``, in the pixels of the file's name."""
    ids: NDArray[np.int64] = np.concatenate([[last_id], stars.source_id])
    descents = np.flatnonzero(ids[1:] <= ids[:-1])
    if len(descents):
        raise InputError(
            f"source_id {ids[descents[0] + 1]} comes after {ids[descents[0]]}",
            where=file.path,
            remedy="sort its rows by source_id",
        )
    for star in stars.source_id[[0, -1]].tolist():
        pixel = star >> LEVEL_SHIFT + 2 * (LEVEL - file.level)
        if not file.first <= pixel <= file.last:
            raise InputError(
                f"source_id {star} is of pixel {pixel:06d} (level {file.level}), "
                f"not of {file.first:06d} to {file.last:06d}",
                where=file.path,
                remedy="give the file the name it has in the archive, or the --level of its pixels",
            )
