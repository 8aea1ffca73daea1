"""A cone of simulated stars in the schema of the public HATS collection, read over HTTP.

    python benchmarks/public_hats.py [--stars 10000]

Makes a collection (partitions of HEALPix order 6, as many stars in each as the public one has in
the mean) about the cone, serves it on loopback and labels the cone from there. Prints the time, the
bytes sent against those of the rows in the cone, and how the labels compare with those of the same
stars with their correlations.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import xplabels as xp
from public_hats import NAME, Hub, public_table, write_collection
from xplabels.core.stars import MEASUREMENTS, Stars
from xplabels.fetch.targets import Cone

CENTRE = (132.85, 11.81)
PER_SQUARE_DEGREE = 4400.0
"""3,700 stars a partition of order 6 (0.84 square degrees)."""
ORDER = 6
DISTINCT = 4000
GAIA = ("phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag", "parallax")
"""The photometry of the public collection."""


def field(stars: int) -> tuple[Stars, np.ndarray, np.ndarray, float]:
    """Stars over a square twice as wide as the cone that has ``stars`` of them."""
    radius = float(np.sqrt(stars / PER_SQUARE_DEGREE / np.pi))
    half = 2.5 * radius
    number = round(PER_SQUARE_DEGREE * (2 * half) ** 2)
    distinct, rows = xp.example_stars(DISTINCT, seed=1), np.arange(number) % DISTINCT
    spectra, photometry = distinct.spectra[rows], distinct.photometry[rows]
    random = np.random.default_rng(2)
    for band in (spectra.bp, spectra.rp):  # all different: equal values would compress
        for values in (band.coefficients, band.errors):
            values *= 1 + 1e-4 * random.standard_normal(values.shape)
    for column in (MEASUREMENTS.index(name) for name in MEASUREMENTS if name not in GAIA):
        photometry.values[:, column] = photometry.errors[:, column] = np.nan
    ids = (np.arange(1, number + 1, dtype=np.int64)) << 35
    ra = CENTRE[0] + random.uniform(-half, half, number) / np.cos(np.deg2rad(CENTRE[1]))
    dec = CENTRE[1] + random.uniform(-half, half, number)
    return Stars.of(ids, spectra, photometry), ra, dec, radius


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--stars", type=int, default=10_000, metavar="N")
    args = parser.parse_args()
    stars, ra, dec, radius = field(args.stars)
    cone = Cone(*CENTRE, radius)
    rows = cone.contains(ra, dec)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        table = public_table(stars, ra, dec)
        write_collection(here / "c", table, ORDER, row_group=10**6)
        partitions = len(list((here / "c" / NAME).rglob("Npix=*.parquet")))
        whole = sum(path.stat().st_size for path in (here / "c" / NAME).rglob("Npix=*.parquet"))
        needed = whole * rows.mean()
        model = xp.load_model()
        model.predict(stars[:2000])  # compiled
        with Hub(here / "c") as served:
            begun = time.perf_counter()
            summary = xp.predict_files([served.url], here / "l.parquet", model, area=cone)
            taken = time.perf_counter() - begun
        print(
            f"{summary.stars} stars within {radius:.2f} deg; made: {len(stars)} stars, "
            f"{partitions} partitions, {whole / 1e6:.0f} MB"
        )
        print(f"{taken:.1f} s, {len(served.log)} requests, {served.sent / 1e6:.1f} MB sent")
        print(
            f"the cone's rows in the collection: {needed / 1e6:.1f} MB, "
            f"factor {served.sent / needed:.2f}"
        )
        found = pq.read_table(here / "l.parquet").sort_by("source_id").to_pandas()
        exact = model.predict(stars[np.flatnonzero(rows)]).to_pandas().sort_values("source_id")
        for name in ("teff", "logg", "fe_h", "alpha_m"):
            error = exact[f"{name}_error"].to_numpy()
            moved = np.abs(found[name].to_numpy() - exact[name].to_numpy()) / error
            ratio = np.abs(np.log(found[f"{name}_error"].to_numpy() / error))
            print(
                f"{name}: labels differ by at most {np.nanmax(moved):.1e} of their errors, errors "
                f"by {100 * np.nanmedian(ratio):.1f} % (median)"
            )


if __name__ == "__main__":
    main()
