"""What a HATS catalogue of the spectra costs: time, space and rounding.

    python benchmarks/hats_catalogue.py [--stars 20000] [--files FILE ...]

Makes a bulk file (simulated stars, see bulk_files.py), converts it in one process, reads it back;
then predicts made stars, and those of the files named, with and without the rounding. Times are
processor time, the best of three.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np

import bulk_files
from common import processor_seconds
from xplabels import io as archive
from xplabels.convert import convert_files
from xplabels.core.stars import Stars, with_widths
from xplabels.io.parquet import read_stars, to_arrow
from xplabels.model import Model, shipped

ROUNDING_STARS = 3000


def measure_cost(folder: Path, stars: int) -> None:
    """Print what reading, converting and reading back cost, and the size."""
    bulk_files.make(folder / "bulk", stars)
    files = sorted((folder / "bulk").glob("Xp*"))
    output = folder / "xp"

    def read(path: Path) -> int:
        return sum(len(block) for block in archive.read_blocks(path))

    def convert() -> None:
        shutil.rmtree(output, ignore_errors=True)
        convert_files(files, output)

    for name, work in (
        ("read the bulk file", lambda: read(files[0])),
        ("convert it", convert),
        ("read the catalogue", lambda: read(output)),
    ):
        print(f"{name:20s} {1e6 * processor_seconds(work) / stars:7.0f} us a star")
    size = sum(path.stat().st_size for path in output.rglob("*.parquet"))
    print(f"{'size':20s} {size / stars:7.0f} bytes a star ({stars} made stars)")


def rounded(stars: Stars, folder: Path) -> Stars:
    """What a catalogue keeps of the stars."""
    import pyarrow.parquet as pq

    pq.write_table(to_arrow(stars, compact=True), folder / "rounded.parquet")
    return read_stars(folder / "rounded.parquet").with_photometry(stars.photometry)


def measure_rounding(model: Model, stars: Stars, folder: Path, name: str) -> None:
    """Print how far labels and their errors move."""
    stars = with_widths(stars, model.feature_set.widths)
    exact, other = model.predict(stars), model.predict(rounded(stars, folder))
    known = np.isfinite(exact.values).all(axis=1)
    moved = {
        "label / sigma": np.abs(other.values - exact.values) / exact.errors,
        "error": np.abs(other.errors / exact.errors - 1),
        "input error": np.abs(other.errors_input / exact.errors_input - 1),
    }
    for what, change in moved.items():
        change = change[known]
        print(
            f"{name}, N = {known.sum()}: {what:14s} largest {change.max():.1e}, "
            f"99 % below {np.quantile(change, 0.99):.1e}"
        )
    print(
        f"{name}: flags are {'equal' if np.array_equal(exact.flags, other.flags) else 'NOT equal'}"
    )


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--stars", type=int, default=20000)
    parser.add_argument("--files", type=Path, nargs="*", default=[], help="of real spectra")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        measure_cost(folder, args.stars)
        for name in shipped():
            model = Model.load(name)
            made = bulk_files.distinct_stars(ROUNDING_STARS, (55, 55), seed=5)
            measure_rounding(model, made, folder, f"{name}, made stars")
            for path in args.files:
                measure_rounding(model, archive.read(path), folder, f"{name}, {path.name}")


if __name__ == "__main__":
    main()
