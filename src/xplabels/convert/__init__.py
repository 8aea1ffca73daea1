"""Bulk files of XP spectra -> one HATS catalogue, in one pass and in half the space.

While a run lasts there is ``CATALOGUE.partial/`` with a manifest and a folder of partitions for
each finished piece of sky, which no reader takes for a catalogue; the same command goes on from
there. When all pieces are there they become the catalogue, and the folder gets its name.

The library hats-import was weighed and left: it reads the text twice (a pass is 174 of the 220
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
    PRECISION,
    REGION_ORDER,
    SOURCES,
    Layout,
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
"""Of a partition: some 340 MB in memory; the archive's own files have 65,000 on average."""
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
    """What a run made.

    ``damaged`` rows have no usable spectrum (BAD_ROW); ``outside``: stars outside the partition
    that their source_id names; ``resumed`` pieces of sky of an earlier run; ``gaps``: ranges of
    the files' pixels, of ``level``, between the first and the last, that no file holds.
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
    """The stars of bulk files, or folders of them, as a HATS catalogue, the folder ``output``.

    From ``gaia_source``, a folder of the same-named files, positions, motions and photometry are
    taken over; without it a position is the centre of a pixel, in columns that say so. ``workers``
    processes hold a partition each (at most ``most_rows``) and some thousand rows. ``bad_rows``:
    see :func:`xplabels.io.read_blocks`. ``level``: of the pixels in the files' names, 3 to 12.
    ``overwrite`` replaces an existing catalogue, or what an
    interrupted run with other options left.

    Raises InputError if an input cannot be read or is not sorted, the output is in the way, or the
    extra ``lsdb`` is not installed. Finished pieces stay, so that the run can go on.
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
    records, resumed = _make(regions, workers)
    rows = _finish(partial, output.name, regions, records, layout)
    replace_folder(partial, output)
    discard(output / REGIONS, output)
    gaps = tuple((a.last + 1, b.first - 1) for a, b in pairwise(files) if b.first > a.last + 1)
    return Conversion(
        rows,
        sum(len(record.partitions) for record in records),
        sum(record.damaged for record in records),
        sum(record.outside for record in records),
        resumed,
        gaps,
        level,
    )


def _make(regions: Sequence[Region], workers: int) -> tuple[list[RegionRecord], int]:
    """The records of all regions, in order, and how many were there already."""
    from tqdm import tqdm

    found = {region.output: region.check_existing(RegionRecord) for region in regions}
    records = {path: r for path, r in found.items() if isinstance(r, RegionRecord)}
    resumed = len(records)
    missing = [region for region in regions if region.output not in records]
    # disable=None: no bar where the output is not a terminal
    with tqdm(unit=" stars", unit_scale=True, disable=None) as bar:

        def report(job: Job, outcome: Outcome) -> None:
            if not isinstance(outcome, RegionRecord):
                raise InputError(outcome.why)  # type: ignore[union-attr]
            records[job.output] = outcome
            bar.set_description(f"piece of sky {len(records) - resumed}/{len(missing)}")
            bar.update(sum(rows for *_, rows in outcome.partitions))

        run_jobs(convert_region, missing, workers, report)
    return [records[region.output] for region in regions], resumed


def _finish(
    partial: Path,
    name: str,
    regions: Sequence[Region],
    records: Sequence[RegionRecord],
    layout: Layout,
) -> int:
    """Make the folder of regions a catalogue; may be cut off and repeated. The number of rows."""
    from hats.catalog import CatalogType, PartitionInfo, TableProperties
    from hats.io import paths
    from hats.io.parquet_metadata import write_parquet_metadata
    from hats.io.skymap import write_skymap
    from hats.pixel_math import HealpixPixel

    pixels, sizes = [], []
    wanted: set[Path] = set()
    counts = np.zeros(12 * 4**FILE_LEVEL, np.int64)
    for region, record in zip(regions, records, strict=True):
        for order, number, stars in record.partitions:
            pixels.append(HealpixPixel(order, number))
            sizes.append(stars)
            place = Path(str(paths.new_pixel_catalog_file(partial, pixels[-1], create_dirs=True)))
            wanted.add(place)
            made = region.output / partition_name(order, number)
            if made.exists():
                os.replace(made, place)
        for pixel, stars in record.counts:
            counts[pixel] += stars
    for stray in set((partial / "dataset").rglob("*.parquet")) - wanted:
        stray.unlink()  # of a finish that was cut off, before an input file changed
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
    TableProperties(  # what makes the folder a catalogue, so the last that is written
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
        xplabels_position=SOURCES[layout.from_gaia_source],
        xplabels_precision=PRECISION,
        xplabels_outside=sum(record.outside for record in records),
        **TableProperties.new_provenance_dict(partial, builder=f"xplabels v{__version__}"),
    ).to_properties_file(partial)
    return rows
