"""Made files in the layout and number format of Gaia's bulk download, as large as asked.

    python benchmarks/bulk_files.py --output made --files 2 --stars 65000 [--widths 51 55]

Each `XpContinuousMeanSpectrum_aaaaaa-bbbbbb.csv.gz` gets a `GaiaSource_aaaaaa-bbbbbb.csv.gz` of the
same stars, at positions in the HEALPix pixels that their source_ids name (extra lsdb). Spectra and
correlations are simulated. Rows repeat after --distinct stars under new
source_ids: a row is longer than the 32 kB that gzip looks back, so that the file is no more
compressible than if no row came twice.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from xplabels.core.stars import Band, CoefficientSpectra, Stars
from xplabels.synthetic import simulate_stars

SOLUTION_ID = 4545469030156206080
PIXEL_SHIFT = 43
"""source_id >> 43 is the HEALPix level-8 pixel, which names the archive's files."""
POSITION_SHIFT, POSITION_LEVEL = 35, 12
"""source_id >> 35 is the nested HEALPix level-12 pixel of the position."""
DEEPER = 10
"""Levels below it, at which a position is the centre of a pixel."""
PIXELS_PER_FILE = 232
"""786,432 pixels in 3,386 files."""
SCALARS = (
    "basis_function_id", "degrees_of_freedom", "n_parameters", "n_measurements",
    "n_rejected_measurements", "standard_deviation", "chi_squared", "coefficients",
    "coefficient_errors", "coefficient_correlations", "n_relevant_bases", "relative_shrinking",
)  # fmt: skip
XP_COLUMNS = ("source_id", "solution_id", *(f"{b}_{c}" for b in ("bp", "rp") for c in SCALARS))
GAIA_COLUMNS = (
    "source_id", "ra", "dec", "parallax", "parallax_error", "phot_g_mean_flux_over_error",
    "phot_g_mean_mag", "phot_bp_mean_flux_over_error", "phot_bp_mean_mag",
    "phot_rp_mean_flux_over_error", "phot_rp_mean_mag",
)  # fmt: skip
MAG_PER_RELATIVE_FLUX = 2.5 / np.log(10.0)


def java(number: np.floating) -> str:
    """Shortest text of a float as Java writes it: 1.0, 0.00123, 4.196663E-4, 1.2E7."""
    size = abs(number)
    if size == 0 or 1e-3 <= size < 1e7:
        return np.format_float_positional(number, unique=True, trim="0")
    mantissa, exponent = np.format_float_scientific(number, unique=True, trim="0").split("e")
    return f"{mantissa}E{int(exponent)}"


def array(numbers: NDArray[np.floating]) -> str:
    """An array as the bulk files write it."""
    return '"[' + ",".join(java(number) for number in numbers) + ']"'


def packed_correlations(stars: int, width: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Positive definite, of all signs and sizes, another for each star."""
    factors = random.normal(size=(stars, width, 6)) * random.uniform(0, 0.6, (stars, width, 1))
    covariance = factors @ factors.transpose(0, 2, 1) + np.eye(width)
    scale = np.sqrt(np.einsum("sii->si", covariance))
    rows, columns = np.tril_indices(width, -1)
    packed = covariance[:, rows, columns] / (scale[:, rows] * scale[:, columns])
    return packed.astype(np.float32)


def distinct_stars(stars: int, widths: tuple[int, int], seed: int) -> Stars:
    """Simulated stars with correlations of their own and errors as the archive keeps them."""
    made = simulate_stars(stars, widths=widths, noise=4.0, seed=seed)[0]
    random = np.random.default_rng(seed)
    spectra = cast(CoefficientSpectra, made.spectra)
    bands = [
        Band(
            band.coefficients,
            band.errors.astype(np.float32).astype(np.float64),
            packed_correlations(stars, band.width, random),
        )
        for band in (spectra.bp, spectra.rp)
    ]
    return Stars.of(made.source_id, CoefficientSpectra(*bands), made.photometry)


def band_text(band: Band, row: int, random: np.random.Generator) -> list[str]:
    """The twelve columns of one band of one star."""
    measurements = int(random.integers(200, 5000))
    correlations = cast(NDArray[np.float32], band.correlations)
    return [
        "56", str(measurements - band.width), str(band.width), str(measurements),
        str(random.integers(0, 30)), java(np.float32(random.uniform(0.9, 1.3))),
        java(np.float32(random.uniform(0.9, 1.3) * measurements)), array(band.coefficients[row]),
        array(band.errors[row].astype(np.float32)), array(correlations[row]),
        str(random.integers(2, band.width + 1)), java(np.float32(random.uniform(0, 0.1))),
    ]  # fmt: skip


def xp_rows(stars: Stars, seed: int) -> list[str]:
    """Each star's line after its source_id."""
    random = np.random.default_rng(seed)
    spectra = cast(CoefficientSpectra, stars.spectra)
    return [
        ",".join(
            ["", str(SOLUTION_ID), *band_text(spectra.bp, row, random),
             *band_text(spectra.rp, row, random)]
        )
        for row in range(len(stars))
    ]  # fmt: skip


def positions(ids: NDArray[np.int64], seed: int) -> tuple[NDArray[np.float64], ...]:
    """Right ascension and declination [N] in deg: anywhere in the pixel that a source_id names."""
    from cdshealpix.nested import healpix_to_lonlat

    inside = np.random.default_rng(seed).integers(0, 4**DEEPER, len(ids))
    pixels = ((ids >> POSITION_SHIFT) << 2 * DEEPER) + inside
    longitude, latitude = healpix_to_lonlat(pixels.astype(np.uint64), POSITION_LEVEL + DEEPER)
    return longitude.to_value("deg"), latitude.to_value("deg")


def gaia_rows(stars: Stars) -> list[str]:
    """Each star's line of GaiaSource after its position."""
    parallax, parallax_error = stars.photometry.column("parallax")
    lines = []
    for row in range(len(stars)):
        texts = [java(np.float64(parallax[row]))]
        texts.append(java(np.float32(parallax_error[row])))
        for band in ("g", "bp", "rp"):
            magnitude, error = stars.photometry.column(f"phot_{band}_mean_mag")
            texts.append(java(np.float32(MAG_PER_RELATIVE_FLUX / error[row])))
            texts.append(java(np.float32(magnitude[row])))
        lines.append("," + ",".join(texts))
    return lines


def source_ids(stars: int, first_pixel: int) -> NDArray[np.int64]:
    """Ascending ids [N] of one file's pixels."""
    star = np.arange(stars, dtype=np.int64)
    return ((first_pixel + star * PIXELS_PER_FILE // stars) << PIXEL_SHIFT) + (star + 1) * 128


def placed(ids: NDArray[np.int64], seed: int) -> Iterator[str]:
    """Beginnings of lines of GaiaSource: source_id, ra, dec."""
    for star, ra, dec in zip(ids.tolist(), *positions(ids, seed), strict=True):
        yield f"{star},{java(ra)},{java(dec)}"


def write_gzip(
    path: Path, columns: tuple[str, ...], firsts: Iterable[object], rows: list[str],
    quick: bool = False,
) -> None:  # fmt: skip
    """One file with its header; each line begins with one of ``firsts``."""
    packer, level = (import_module("isal.igzip"), 2) if quick else (gzip, 6)
    with packer.open(path, "wt", encoding="ascii", compresslevel=level) as file:
        file.write("# %ECSV 1.0\n# ---\n# delimiter: ','\n# made by xplabels: simulated stars\n")
        file.write(",".join(columns) + "\n")
        for number, first in enumerate(firsts):
            file.write(f"{first}{rows[number % len(rows)]}\n")


def make(
    folder: Path, stars: int, files: int = 1, widths: tuple[int, int] = (55, 55),
    distinct: int = 400, seed: int = 0, quick: bool = False,
) -> list[Path]:  # fmt: skip
    """``files`` pairs of files of ``stars`` stars each; returns the spectra's.

    ``quick``: packed by ISA-L, in a tenth of the time, to files that are slightly larger.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pool = distinct_stars(min(distinct, stars), widths, seed)
    spectra, photometry = xp_rows(pool, seed), gaia_rows(pool)
    made = []
    for number in range(files):
        first = number * PIXELS_PER_FILE
        span = f"{first:06d}-{first + PIXELS_PER_FILE - 1:06d}"
        path = folder / f"XpContinuousMeanSpectrum_{span}.csv.gz"
        ids = source_ids(stars, first)
        write_gzip(path, XP_COLUMNS, ids.tolist(), spectra, quick)
        write_gzip(
            folder / f"GaiaSource_{span}.csv.gz",
            GAIA_COLUMNS,
            placed(ids, seed),
            photometry,
            quick,
        )
        made.append(path)
    return made


def main() -> None:
    """Make the files that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stars", type=int, default=5000, help="in each file")
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--widths", type=int, nargs=2, default=(55, 55), metavar=("BP", "RP"))
    parser.add_argument("--distinct", type=int, default=400, help="rows repeat after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="pack by ISA-L (extra fast)")
    args = parser.parse_args()
    for path in make(
        args.output, args.stars, args.files, tuple(args.widths), args.distinct, args.seed,
        args.quick,
    ):  # fmt: skip
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
