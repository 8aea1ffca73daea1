"""Bulk files -> one HATS catalogue: resumable, in parallel, whole or unmistakably not.

While a run lasts there is ``CATALOGUE.partial/`` with a manifest and a folder of partitions for
each finished piece of sky, which no reader takes for a catalogue; the same command goes on from
there. When all pieces are there they become the catalogue, and the folder gets its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xplabels import __version__
from xplabels.convert.files import FILE_LEVEL, BulkFile, bulk_files, gaps, regions
from xplabels.convert.region import (
    INDEX_LEVEL,
    Record,
    Region,
    convert_region,
    partition_name,
)
from xplabels.convert.rows import INDEX, PRECISION, SOURCES, Layout, gaia_columns
from xplabels.core.errors import InputError, counted
from xplabels.core.stars import CoefficientSpectra
from xplabels.io import BadRows, read_blocks
from xplabels.io.atomic import check_new_folder, check_ours, whole_file
from xplabels.pipeline.workers import end_with_parent

MOST_ROWS = 50_000
"""Of a partition: some 340 MB in memory; the archive's own files have 65,000 on average."""
MANIFEST = "conversion.json"
DONE = "regions"
OUR_FILES = (
    MANIFEST, f"{DONE}/*", f".*.partial.{MANIFEST}", "hats.properties", "properties",
    "partition_info.csv", "skymap.fits", "dataset/_metadata", "dataset/_common_metadata",
    "dataset/Norder=*/Dir=*/Npix=*.parquet",
)  # fmt: skip
"""All that a catalogue's folder may hold; anything else is the user's."""


@dataclass(frozen=True)
class Conversion:
    """What a run made.

    Attributes
    ----------
    rows, partitions
        Of the catalogue.
    damaged
        Rows without a usable spectrum, flagged BAD_ROW.
    outside
        Stars that stand outside the partition that their source_id names.
    resumed
        Pieces of sky that an earlier run had finished.
    gaps
        Ranges of level-8 pixels, between the first and the last, that no file holds.
    """

    rows: int
    partitions: int
    damaged: int
    outside: int
    resumed: int
    gaps: tuple[tuple[int, int], ...]

    def told(self) -> str:
        """Counts, for the terminal."""
        lines = [f"{counted(self.rows, 'star')} in {counted(self.partitions, 'partition')}"]
        if self.resumed:
            pieces = counted(self.resumed, "piece")
            lines[0] += f" ({pieces} of sky finished by an interrupted run)"
        if self.damaged:
            lines.append(f"{self.damaged:9d}  damaged rows, flagged BAD_ROW")
        if self.outside:
            lines.append(f"{self.outside:9d}  stars stand beside the partition of their source_id")
        if self.gaps:
            first, last = self.gaps[0]
            lines.append(
                f"No file holds the level-8 pixels {first:06d} to {last:06d}"
                + (f" and {counted(len(self.gaps) - 1, 'more range')}" if self.gaps[1:] else "")
            )
        return "\n".join(lines)


def convert_files(
    inputs: Sequence[Path],
    output: Path,
    *,
    gaia_source: Path | None = None,
    workers: int = 1,
    most_rows: int = MOST_ROWS,
    bad_rows: BadRows = "error",
    overwrite: bool = False,
    progress: bool = True,
) -> Conversion:
    """The stars of bulk files as a HATS catalogue.

    Parameters
    ----------
    inputs
        Bulk files, or folders of them.
    output
        Folder of the catalogue.
    gaia_source
        Folder of the same-named files of GaiaSource: positions, motions and photometry are taken
        over. Without it a position is the centre of a pixel, in columns that say so.
    workers
        Processes. Each holds a partition and some thousand rows in memory.
    most_rows
        Of a partition.
    bad_rows
        What to do with a damaged row: see :func:`xplabels.io.read_blocks`.
    overwrite
        Replace an existing catalogue, or what an interrupted run with other options left.
    progress
        Show a progress bar where the terminal has one.

    Raises
    ------
    InputError
        If an input cannot be read or is not sorted, the output is in the way, or the extra
        ``lsdb`` is not installed. Finished pieces stay, so that the run can go on.
    """
    _check_hats()
    if workers < 1 or most_rows < 1:
        raise InputError(
            f"{workers} workers, {most_rows} rows a partition", remedy="give 1 or more"
        )
    check_new_folder(output, OUR_FILES, overwrite)
    files = bulk_files(inputs, gaia_source)
    layout = _layout(files, bad_rows)
    partial = output.with_name(output.name + ".partial")
    _open(partial, _manifest(layout, most_rows, bad_rows), overwrite)
    asked = [
        Region(pixel, tuple(some), layout, most_rows, bad_rows)
        for pixel, some in regions(files).items()
    ]
    records, resumed = _convert(asked, partial / DONE, workers, progress)
    rows = _finish(partial, output.name, asked, records, layout)
    _replace(partial, output)
    return Conversion(
        rows,
        sum(len(record.partitions) for record in records),
        sum(record.damaged for record in records),
        sum(record.outside for record in records),
        resumed,
        tuple(gaps(files)),
    )


def _check_hats() -> None:
    try:
        import hats  # noqa: F401
    except ImportError:
        raise InputError(
            "writing a HATS catalogue needs the library hats", remedy="pip install xplabels[lsdb]"
        ) from None


def _layout(files: Sequence[BulkFile], bad_rows: BadRows) -> Layout:
    """The columns, from the first rows of the first file that tells both numbers of them."""
    widths = (0, 0)
    for file in files:
        for stars in read_blocks(file.path, bad_rows, 100):
            if isinstance(stars.spectra, CoefficientSpectra):
                widths = stars.spectra.widths
            break
        if all(widths):
            break
    if files[0].gaia_source is None:
        return Layout(widths)
    return Layout(widths, *gaia_columns(files[0].gaia_source))


def _manifest(layout: Layout, most_rows: int, bad_rows: BadRows) -> str:
    told = {"layout": layout.to_json(), "most_rows": most_rows, "bad_rows": bad_rows}
    return json.dumps({"xplabels": __version__} | told, indent=1)


def _open(partial: Path, wanted: str, overwrite: bool) -> None:
    """Go on in the folder of an interrupted run if its manifest is ``wanted``, else make it."""
    if partial.exists():
        check_ours(partial, OUR_FILES)
        with contextlib.suppress(FileNotFoundError):
            if (partial / MANIFEST).read_text(encoding="utf-8") == wanted:
                for unfinished in (partial / DONE).glob(".*.partial.*"):
                    shutil.rmtree(unfinished)
                return
            if not overwrite:
                raise InputError(
                    "was left by a run with other options, columns or version",
                    where=partial,
                    remedy="repeat that run's command, or start anew with --overwrite",
                )
        shutil.rmtree(partial)
    partial.mkdir()
    (partial / DONE).mkdir()
    with whole_file(partial / MANIFEST) as temporary:
        temporary.write_text(wanted, encoding="utf-8")


def _convert(
    asked: Sequence[Region], folder: Path, workers: int, progress: bool
) -> tuple[list[Record], int]:
    """The records of all regions, in order, and how many were there already."""
    from tqdm import tqdm

    records = {region.name: _finished(region, folder) for region in asked}
    missing = [region for region in asked if records[region.name] is None]
    # disable=None: no bar where the output is not a terminal
    with tqdm(unit=" stars", unit_scale=True, disable=None if progress else True) as bar:
        for number, (name, record) in enumerate(_made(missing, folder, workers), start=1):
            records[name] = record
            bar.set_description(f"piece of sky {number}/{len(missing)}")
            bar.update(sum(rows for *_, rows in record.partitions))
    made = [record for record in records.values() if record is not None]
    return made, len(asked) - len(missing)


def _finished(region: Region, folder: Path) -> Record | None:
    """The record of a region that was made from the same files."""
    record = Record.read(folder / region.name)
    return record if record is not None and record.stamps == region.stamps() else None


def _made(missing: Sequence[Region], folder: Path, workers: int) -> Iterator[tuple[str, Record]]:
    if workers == 1 or len(missing) < 2:
        for region in missing:
            yield region.name, convert_region(region, folder)
        return
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(min(workers, len(missing)), get_context("spawn"), _begin)
    try:
        futures: dict[Future[Record], str] = {
            pool.submit(convert_region, region, folder): region.name for region in missing
        }
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise InputError(
            "a process ended before its work did (killed, or out of memory)",
            remedy="give the same command again, with fewer --workers if memory was short",
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Prepare a worker: if the run is killed, it ends too."""
    threading.Thread(target=end_with_parent, daemon=True).start()


def _finish(
    partial: Path, name: str, asked: Sequence[Region], records: Sequence[Record], layout: Layout
) -> int:
    """Make the folder of regions a catalogue, and return its rows; may be cut off and repeated."""
    from hats.catalog import PartitionInfo
    from hats.io import paths
    from hats.io.parquet_metadata import write_parquet_metadata
    from hats.io.skymap import write_skymap
    from hats.pixel_math import HealpixPixel

    pixels = []
    wanted: set[Path] = set()
    for region, record in zip(asked, records, strict=True):
        for order, number, _ in record.partitions:
            pixels.append(HealpixPixel(order, number))
            place = Path(str(paths.new_pixel_catalog_file(partial, pixels[-1], create_dirs=True)))
            wanted.add(place)
            made = partial / DONE / region.name / partition_name(order, number)
            if made.exists():
                os.replace(made, place)
    for stray in set((partial / "dataset").rglob("*.parquet")) - wanted:
        stray.unlink()  # of a finish that was cut off, before an input file changed
    expected = sum(rows for record in records for *_, rows in record.partitions)
    rows = int(write_parquet_metadata(partial))
    if rows != expected:
        raise InputError(
            f"has {rows} rows, not the {expected} read",
            where=partial,
            remedy="start anew with --overwrite",
        )
    PartitionInfo(pixels).write_to_file(catalog_path=partial)
    counts = np.zeros(12 * 4**FILE_LEVEL, np.int64)
    for record in records:
        for pixel, stars in record.counts:
            counts[pixel] += stars
    write_skymap(counts, partial)
    _write_properties(partial, name, records, layout, PartitionInfo(pixels))
    return rows


def _write_properties(
    folder: Path, name: str, records: Sequence[Record], layout: Layout, partitions: Any
) -> None:
    """What makes the folder a catalogue, so the last that is written."""
    from hats.catalog import CatalogType, TableProperties

    rows = [rows for record in records for *_, rows in record.partitions]
    TableProperties(
        catalog_name=name,
        catalog_type=CatalogType.OBJECT,
        total_rows=sum(rows),
        ra_column=layout.position[0],
        dec_column=layout.position[1],
        healpix_column=INDEX,
        healpix_order=INDEX_LEVEL,
        skymap_order=FILE_LEVEL,
        hats_order=partitions.get_highest_order(),
        hats_max_rows=max(rows),
        moc_sky_fraction=round(partitions.calculate_fractional_coverage(), 8),
        hats_cols_sort="source_id",
        hats_cols_survey_id="source_id",
        xplabels_position=SOURCES[layout.from_gaia_source],
        xplabels_precision=PRECISION,
        xplabels_outside=sum(record.outside for record in records),
        **TableProperties.new_provenance_dict(folder, builder=f"xplabels v{__version__}"),
    ).to_properties_file(folder)


def _replace(partial: Path, output: Path) -> None:
    """Give the finished folder its name."""
    old = output.with_name(f".{os.getpid()}.old.{output.name}")
    if output.exists():
        os.replace(output, old)
    os.replace(partial, output)
    shutil.rmtree(output / DONE, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
