"""Bulk files of XP spectra -> one HATS catalogue, in one pass and in half the space.

While a run lasts there is a folder ``CATALOGUE.partial/`` with a manifest and a folder of
partitions for each finished piece of sky, which no reader takes for a catalogue; the same command
resumes from there. When all pieces are done, they are joined into the catalogue and the folder is
renamed.

The library hats-import is not used, because it reads the text twice (reading takes 174 of the 220
microseconds per star of a conversion), keeps the whole catalogue once more as shards (6 kB per
star), does not notice that an input changed, and sorts partitions by position, not ``source_id``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from xplabels import __version__
from xplabels.convert.region import (
    FILE_LEVEL,
    INDEX,
    INDEX_LEVEL,
    POSITION_NOTES,
    PRECISION,
    REGION_ORDER,
    Layout,
    PixelFile,
    Region,
    RegionRecord,
    convert_region,
    find_files,
    layout_of,
    partition_name,
    regions_of,
)
from xplabels.core.errors import InputError, counted
from xplabels.io import BadRows
from xplabels.io.atomic import (
    alone,
    check_distinct,
    check_new_folder,
    discard,
    remove_leftovers,
    replace_folder,
)
from xplabels.io.hats import is_catalogue
from xplabels.io.job import Job, open_partial
from xplabels.io.partitioning import LEVEL
from xplabels.pipeline.workers import Outcome, run_jobs

__all__ = ["MOST_ROWS", "Conversion", "convert_files"]

MOST_ROWS = 50_000
"""Most rows of a partition: some 340 MB in memory (the archive's files have 65,000 on average)."""
MANIFEST = "conversion.json"
REGIONS = "regions"
OUR_FILES = (
    MANIFEST, f"{REGIONS}/*", f".*.partial.{MANIFEST}", "hats.properties", "properties",
    "partition_info.csv", "skymap.fits", "dataset/_metadata", "dataset/_common_metadata",
    "dataset/Norder=*/Dir=*/Npix=*.parquet",
)  # fmt: skip
"""All that a catalogue's folder may hold; anything else is the user's."""


@dataclass(frozen=True)
class Conversion:
    """Counts of what a run made.

    ``damaged`` rows have no usable spectrum (BAD_ROW). ``outside`` counts stars that lie outside
    the partition that their source_id names, ``resumed`` the pieces of sky that an earlier run had
    finished. ``gaps`` are the ranges (first, last) of pixels of ``level`` between the first and the
    last file that no file holds.
    """

    rows: int
    partitions: int
    damaged: int
    outside: int
    resumed: int
    gaps: tuple[tuple[int, int], ...]
    level: int = FILE_LEVEL

    def to_text(self) -> str:
        """Counts, for the terminal."""
        lines = [f"{counted(self.rows, 'star')} in {counted(self.partitions, 'partition')}"]
        if self.resumed:
            pieces = counted(self.resumed, "piece")
            lines[0] += f" ({pieces} of sky finished by an interrupted run)"
        if self.damaged:
            lines.append(f"{self.damaged:9d}  damaged rows, flagged BAD_ROW")
        if self.outside:
            lines.append(f"{self.outside:9d}  stars lie outside the partition of their source_id")
        if self.gaps:
            first, last = self.gaps[0]
            lines.append(
                f"No file holds the level-{self.level} pixels {first:06d} to {last:06d}"
                + (f" and {counted(len(self.gaps) - 1, 'more range')}" if self.gaps[1:] else "")
            )
        return "\n".join(lines)


@alone
def convert_files(
    inputs: Sequence[Path],
    output: Path,
    *,
    gaia_source: Path | None = None,
    workers: int = 1,
    most_rows: int = MOST_ROWS,
    bad_rows: BadRows = "error",
    level: int = FILE_LEVEL,
    overwrite: bool = False,
) -> Conversion:
    """Convert bulk files, or folders of them, to a HATS catalogue in the folder ``output``.

    ``gaia_source`` is a folder of the GaiaSource files of the same names, from which positions,
    proper motions and photometry are taken; without it, a star's position is the centre of a pixel,
    in columns that say so. Each of the ``workers`` processes holds one partition (at most
    ``most_rows``) and some thousand rows in memory. ``bad_rows`` is that of
    :func:`xplabels.io.read_blocks`; ``level``, 3 to 12, is that of the pixels in the files' names.
    ``overwrite`` replaces an existing catalogue, or what an interrupted run with other options
    left.

    Raises InputError if an input cannot be read or is not sorted, ``output`` exists, or the extra
    ``lsdb`` is not installed. Finished pieces of sky are kept, so that the run can be resumed.
    """
    try:
        import hats  # noqa: F401
    except ImportError:
        raise InputError(
            "writing a HATS catalogue needs the library hats", remedy="pip install 'xplabels[lsdb]'"
        ) from None
    if workers < 1 or most_rows < 1:
        raise InputError(
            f"{workers} workers, {most_rows} rows per partition", remedy="give 1 or more"
        )
    check_distinct([output], [*inputs, *([] if gaia_source is None else [gaia_source])])
    if is_catalogue(output):  # finished, but killed at the very end
        discard(output / REGIONS, output)
    check_new_folder(output, OUR_FILES, overwrite)
    if not REGION_ORDER <= level <= LEVEL:
        raise InputError(
            f"files of level {level} are not read", remedy=f"give {REGION_ORDER} to {LEVEL}"
        )
    files = find_files(inputs, gaia_source, level)
    layout = layout_of(files, bad_rows)
    settings: dict[str, Any] = {
        "most_rows": most_rows,
        "bad_rows": bad_rows,
        "xplabels": __version__,
    }
    settings |= {key: list(value) for key, value in asdict(layout).items()}
    partial = output.with_name(output.name + ".partial")
    open_partial(partial, MANIFEST, settings, OUR_FILES, overwrite)
    folder = partial / REGIONS
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder, every=True)
    regions = regions_of(files, folder, settings, layout)
    records, resumed = _convert_regions(regions, workers)
    rows = _finish(partial, output.name, regions, records, layout)
    replace_folder(partial, output)
    discard(output / REGIONS, output)
    return Conversion(
        rows,
        sum(len(record.partitions) for record in records),
        sum(record.damaged for record in records),
        sum(record.outside for record in records),
        resumed,
        _gaps(files),
        level,
    )


def _gaps(files: Sequence[PixelFile]) -> tuple[tuple[int, int], ...]:
    """The ranges of pixels (first, last) between two files, sorted by pixel, that none holds."""
    return tuple(
        (before.last + 1, after.first - 1)
        for before, after in pairwise(files)
        if after.first > before.last + 1
    )


def _convert_regions(regions: Sequence[Region], workers: int) -> tuple[list[RegionRecord], int]:
    """The records of all regions, in order, and how many of these an earlier run had finished."""
    from tqdm import tqdm

    existing = {region.output: region.check_existing(RegionRecord) for region in regions}
    records = {path: r for path, r in existing.items() if isinstance(r, RegionRecord)}
    resumed = len(records)
    to_convert = [region for region in regions if region.output not in records]
    # disable=None: no bar where the output is not a terminal
    with tqdm(unit=" stars", unit_scale=True, disable=None) as bar:

        def report(job: Job, outcome: Outcome) -> None:
            if not isinstance(outcome, RegionRecord):
                raise InputError(outcome.why)  # type: ignore[union-attr]
            records[job.output] = outcome
            bar.set_description(f"piece of sky {len(records) - resumed}/{len(to_convert)}")
            bar.update(sum(rows for *_, rows in outcome.partitions))

        run_jobs(convert_region, to_convert, workers, report)
    return [records[region.output] for region in regions], resumed


def _finish(
    partial: Path,
    name: str,
    regions: Sequence[Region],
    records: Sequence[RegionRecord],
    layout: Layout,
) -> int:
    """Turn the folder of regions into a catalogue, and return its number of rows.

    If the run is killed meanwhile, this can be repeated.
    """
    from hats.catalog import CatalogType, PartitionInfo, TableProperties
    from hats.io import paths
    from hats.io.parquet_metadata import write_parquet_metadata
    from hats.io.skymap import write_skymap
    from hats.pixel_math import HealpixPixel

    pixels, sizes = [], []
    partition_paths: set[Path] = set()
    counts = np.zeros(12 * 4**FILE_LEVEL, np.int64)
    for region, record in zip(regions, records, strict=True):
        for order, number, stars in record.partitions:
            pixels.append(HealpixPixel(order, number))
            sizes.append(stars)
            path = Path(str(paths.new_pixel_catalog_file(partial, pixels[-1], create_dirs=True)))
            partition_paths.add(path)
            converted = region.output / partition_name(order, number)
            if converted.exists():
                os.replace(converted, path)
        for pixel, stars in record.counts:
            counts[pixel] += stars
    for stray in set((partial / "dataset").rglob("*.parquet")) - partition_paths:
        stray.unlink()  # left by a run that was killed in here; then an input file changed
    rows = int(write_parquet_metadata(partial))
    if rows != sum(sizes):
        raise InputError(
            f"has {rows} rows, not the {sum(sizes)} read",
            where=partial,
            remedy="start anew with --overwrite",
        )
    partitions: Any = PartitionInfo(pixels)
    partitions.write_to_file(catalog_path=partial)
    write_skymap(counts, partial)
    TableProperties(  # written last, as this makes the folder a catalogue
        catalog_name=name,
        catalog_type=CatalogType.OBJECT,
        total_rows=rows,
        ra_column=layout.position[0],
        dec_column=layout.position[1],
        healpix_column=INDEX,
        healpix_order=INDEX_LEVEL,
        skymap_order=FILE_LEVEL,
        hats_order=partitions.get_highest_order(),
        hats_max_rows=max(sizes),
        moc_sky_fraction=round(partitions.calculate_fractional_coverage(), 8),
        hats_cols_sort="source_id",
        hats_cols_survey_id="source_id",
        xplabels_position=POSITION_NOTES[layout.from_gaia_source],
        xplabels_precision=PRECISION,
        xplabels_outside=sum(record.outside for record in records),
        **TableProperties.new_provenance_dict(partial, builder=f"xplabels v{__version__}"),
    ).to_properties_file(partial)
    return rows
