"""What absent correlations of the coefficients cost: typical ones, and none, against the real ones.

    python benchmarks/typical_correlations.py FILE ... [--simulated 400]

FILEs are archive files (real sources with correlations). Then spectral energy distributions of
black bodies, at each G, simulated with the illustrative correlations of their own spectrum, from
which the typical ones were averaged. Prints by how much sigma_input and the whole error of the
shipped model's labels change (|ln ratio|, over stars and labels).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import xplabels as xp
from xplabels.core.stars import CoefficientSpectra, Stars, concatenate
from xplabels.instrument import magnitudes

BINS = (0.0, 9.0, 12.0, 14.0, 16.0, 18.0)
SIMULATED_G = (9.0, 12.0, 14.0, 16.0, 17.6)
TEMPERATURES = (3500.0, 8000.0)


def without(stars: Stars, zero: bool) -> Stars:
    """The same stars without correlations: absent, or taken as zero."""
    bands = (
        replace(band, correlations=0 * band.correlations if zero else None)
        for band in (stars.spectra.bp, stars.spectra.rp)
    )
    return replace(stars, spectra=CoefficientSpectra(*bands))


def show(title: str, stars: Stars) -> None:
    """Print the changes by magnitude."""
    model = xp.load_model()
    real = model.predict(stars)
    g = magnitudes(stars.spectra.coefficients)[:, 0]
    known = np.isfinite(real.errors).all(axis=1)
    print(f"{title}: {int(known.sum())} stars with labels")
    print("            G  stars       sigma_input: median 95 % max       error: median 95 % max")
    for name, zero in (("zero", True), ("typical", False)):
        found = model.predict(without(stars, zero))
        assert np.array_equal(found.values[known], real.values[known])
        for low, high in zip((BINS[0], *BINS[:-1]), (BINS[-1], *BINS[1:]), strict=True):
            rows = known & (g >= low) & (g < high)
            if rows.sum() > 2:
                parts = (
                    change(getattr(found, part)[rows], getattr(real, part)[rows])
                    for part in ("errors_input", "errors")
                )
                print(f"{name:8s} {low:4g}-{high:<3g} {int(rows.sum()):5d}  {'   '.join(parts)}")


def change(one: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    """Median, 95th percentile and largest change, in per cent."""
    size = 100 * np.expm1(np.abs(np.log(one / other)))
    return "".join(f"{number:8.1f}" for number in (*np.percentile(size, [50, 95]), size.max()))


def simulated(stars_per_g: int) -> Stars:
    """Black bodies of random temperatures at some magnitudes, with noise."""
    wavelength = np.linspace(300.0, 1100.0, 400)
    random = np.random.default_rng(1)
    seds = []
    for temperature in random.uniform(*TEMPERATURES, stars_per_g):
        flux = wavelength**-5.0 / np.expm1(1.4388e7 / (wavelength * temperature))
        seds.append(xp.Sed.of(wavelength, 1e-16 * flux / flux.max(), name=f"{temperature:.0f} K"))
    return xp.simulate_spectra(seds, g_mag=SIMULATED_G)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE")
    parser.add_argument("--simulated", type=int, default=100, metavar="N", help="at each G")
    args = parser.parse_args()
    tables = [replace(xp.read(path, bad_rows="flag"), notes=()) for path in args.files]
    seen: set[int] = set()
    for number, stars in enumerate(tables):
        new = np.array([one not in seen for one in stars.source_id.tolist()])
        seen |= set(stars.source_id.tolist())
        tables[number] = stars[new]
    if tables:
        show("real sources", concatenate(tables))
    show("simulated black bodies", simulated(args.simulated))


if __name__ == "__main__":
    main()
