"""What a folder of 10,000 files costs before the first star, and bulk files as Parquet and HATS.

    python benchmarks/many_files.py [--files 10000] [--stars 10000]

The folder holds hard links of one small star table; counted is the time until the first of them is
read. Then one bulk file of made stars as csv.gz, as Parquet with lists of any length (the archive's
types), and as HATS, read and labelled: processor time a star, the best of three.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import bulk_files
import xplabels as xp
from common import processor_seconds
from xplabels import io as archive
from xplabels.convert import convert_files
from xplabels.pipeline import PredictOptions, find_inputs, predict_file, predict_folder
from xplabels.pipeline import folder as run


class FirstStar(Exception):
    """Raised where the first file would be read."""


def start(folder: Path, files: int) -> None:
    """Print how long a run over many files takes to come to the first star."""
    spectra = folder / "many"
    spectra.mkdir()
    archive.write_stars(xp.example_stars(2), folder / "two.parquet")
    for number in range(files):
        os.link(folder / "two.parquet", spectra / f"XpMeanSpectrum_{number:08d}.parquet")
    model = xp.load_model()

    def first(*_: object) -> None:
        raise FirstStar

    kept, run.run_jobs = run.run_jobs, first
    begun, processor = time.perf_counter(), time.process_time()
    try:
        predict_folder(find_inputs([spectra]), folder / "labels", model, PredictOptions())
    except FirstStar:
        used = time.process_time() - processor
        print(
            f"{files} files: {time.perf_counter() - begun:.1f} s to the first ({used:.1f} s used)"
        )
    finally:
        run.run_jobs = kept


def as_lists(path: Path, output: Path) -> None:
    """A bulk file as Parquet with the archive's types and lists of any length, zstd."""
    kinds = {"coefficients": pa.float64()}
    writer = None
    for stars in archive.read_blocks(path):
        columns = {"source_id": pa.array(stars.source_id)}
        for name, band in (("bp", stars.spectra.bp), ("rp", stars.spectra.rp)):
            parts = (band.coefficients, band.errors, band.correlations)
            ends = ("coefficients", "coefficient_errors", "coefficient_correlations")
            for end, values in zip(ends, parts, strict=True):
                kind = pa.list_(kinds.get(end, pa.float32()))
                columns[f"{name}_{end}"] = pa.array(list(values), kind)
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(output, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def formats(folder: Path, stars: int) -> None:
    """Print what reading and labelling a bulk file costs in each form."""
    bulk_files.make(folder / "bulk", stars)
    (packed,) = (folder / "bulk").glob("Xp*")
    lists, hats = folder / "lists.parquet", folder / "hats"
    as_lists(packed, lists)
    convert_files([packed], hats)
    model = xp.load_model()

    def read(path: Path) -> int:
        return sum(len(block) for block in archive.read_blocks(path))

    def label(path: Path) -> None:
        for number, file in enumerate(find_inputs([path]).files):
            predict_file(model, file, folder / f"l{number}.parquet", overwrite=True)

    for name, path in (("csv.gz", packed), ("Parquet, lists", lists), ("HATS", hats)):
        files = [*path.rglob("*.parquet")] if path.is_dir() else [path]
        size = sum(p.stat().st_size for p in files) / stars
        taken = [1e6 * processor_seconds(partial(work, path)) / stars for work in (read, label)]
        cost = f"read {taken[0]:.0f} us, labelled {taken[1]:.0f} us"
        print(f"{name:15s} {size:6.0f} bytes a star, {cost}")
    shutil.rmtree(folder / "bulk")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--files", type=int, default=10_000, metavar="N")
    parser.add_argument("--stars", type=int, default=10_000, metavar="N")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        start(Path(name), args.files)
        formats(Path(name), args.stars)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
