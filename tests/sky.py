"""A made sky for the tests of whole runs: bulk files of a few simulated stars, and models that
suffer what real runs suffer. Worker processes import this module."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from archive_files import FakeStars, fake_stars, write
from xplabels.core.prediction import Prediction
from xplabels.core.stars import Stars
from xplabels.model import Model
from xplabels.pipeline import PredictOptions, Summary, find_inputs, predict_folder

PIXELS = 10
"""In each file."""
GAIA = "source_id,ra,dec,phot_bp_mean_mag,phot_bp_mean_flux_over_error,"
GAIA += "phot_rp_mean_mag,phot_rp_mean_flux_over_error,parallax,parallax_error,"
GAIA += "phot_variable_flag,pmra,pmdec"


def span(number: int) -> str:
    """The pixels of a file, as its name has them."""
    return f"{PIXELS * number:06d}-{PIXELS * number + PIXELS - 1:06d}"


def spectra_name(number: int) -> str:
    """The name of a bulk file."""
    return f"XpContinuousMeanSpectrum_{span(number)}.csv.gz"


def placed(stars: Stars, number: int) -> Stars:
    """The same stars under ids that ascend through the pixels of a file."""
    row = np.arange(len(stars), dtype=np.int64)
    pixel = PIXELS * number + row * PIXELS // len(stars)
    return replace(stars, source_id=(pixel << 43) + (row + 1) * 128)


def as_rows(stars: Stars) -> FakeStars:
    """Stars as they go into a file."""
    rows = fake_stars(len(stars), stars.spectra.widths)
    rows.source_id = stars.source_id.tolist()
    for name, band in (("bp", stars.spectra.bp), ("rp", stars.spectra.rp)):
        arrays: tuple[Any, ...] = (band.coefficients, band.errors, band.correlations)
        parts = ("coefficients", "coefficient_errors", "coefficient_correlations")
        for part, array in zip(parts, arrays, strict=True):
            rows.cells[f"{name}_{part}"] = list(array)
    return rows


def write_gaia(
    folder: Path, stars: Stars, number: int, position: Sequence[Any] | None = None
) -> None:
    """A GaiaSource file of the stars, anywhere or at a position, with three others after each."""
    lines = ["# made", GAIA]
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform([[0], [-90]], [[360], [90]], (2, len(stars)))
    ra, dec = (ra, dec) if position is None else position
    bp, rp = (stars.photometry.column(f"phot_{band}_mean_mag")[0] for band in ("bp", "rp"))
    for row, star in enumerate(stars.source_id.tolist()):
        for other in range(4):
            cells = [star + other, ra[row], dec[row], bp[row], 100.0, rp[row], 120.0]
            cells += [rng.normal(2, 1), 0.1, "NOT_AVAILABLE", 1.5, "null"]
            lines.append(",".join(map(str, cells)).replace("nan", "null"))
    path = folder / f"GaiaSource_{span(number)}.csv.gz"
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))


def make_sky(
    folder: Path, stars: Stars, files: Sequence[int] = (0, 1, 2), gaia: bool = False
) -> list[Path]:
    """Bulk files, each of an equal share of ``stars``."""
    folder.mkdir(exist_ok=True)
    share = len(stars) // len(files)
    paths = []
    for index, number in enumerate(files):
        some = placed(stars[slice(index * share, (index + 1) * share)], number)
        paths.append(write(as_rows(some), folder / spectra_name(number)))
        if gaia:
            write_gaia(folder, some, number)
    return paths


def edited(path: Path, change: Any) -> None:
    """Rewrite a gzipped file's lines, header first."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    path.write_bytes(gzip.compress("".join(change(lines)).encode()))


def catalogues(folder: Path) -> dict[str, bytes]:
    """Every Parquet file of an output, as bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*.parquet"))}


@dataclass(frozen=True)
class Wrapped:
    """A model to which something happens whenever it predicts."""

    model: Model
    happens: Callable[[Stars], object]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "model":  # asked for while it is unpickled
            raise AttributeError(name)
        return getattr(self.model, name)

    def predict(self, stars: Stars, *, correlations: bool = False) -> Prediction:
        self.happens(stars)
        return self.model.predict(stars, correlations=correlations)


@dataclass(frozen=True)
class Deadly:
    """Kills its process at certain stars, so many times over, and notes it."""

    notes: Path
    times: Mapping[int, int]

    def __call__(self, stars: Stars) -> None:
        for star, times in self.times.items():
            died = len(list(self.notes.glob(f"{star}-*")))
            if star in stars.source_id and died < times:
                (self.notes / f"{star}-{os.getpid()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Slow:
    """Takes its time, and notes which process it is in."""

    notes: Path
    seconds: float

    def __call__(self, stars: Stars) -> None:
        (self.notes / f"pid-{os.getpid()}").touch()
        time.sleep(self.seconds)


ROWS = 333
"""In each of the three files of :func:`make_sky`."""


def run(paths: Path | Sequence[Path], output: Path, model: Any, **keys: Any) -> Summary:
    """Label a folder, or files whether or not they are there, with any option of a run."""
    fields = ("bad_rows", "tables")
    options = PredictOptions(**{key: keys.pop(key) for key in fields if key in keys})
    inputs = find_inputs([paths] if isinstance(paths, Path) else paths)
    return predict_folder(inputs, output, model, options, **keys)


def list_sums(folder: Path) -> None:
    """What the archive publishes of its files."""
    lines = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.csv.gz"))
    ]
    (folder / "_MD5SUM.txt").write_text("".join(lines))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def swap(path: Path) -> None:
    """As many bytes, one of them another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
