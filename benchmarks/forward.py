"""How often the flags of fit and domain fire: on ordinary stars at all magnitudes, and on others.

python benchmarks/forward.py MODEL [--part validation] [--data ../shared/data]

Ordinary stars are the library's of one part of the split; beyond G = 15 they are simulated: real
spectra with more noise of their own (assumed) covariance. Sums of two stars, emission, ripples and
dust are made from the same stars. Real strange sources and field stars are read where they exist.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strange import H_ALPHA, line_flux
from xplabels import load_model
from xplabels.core.flags import Flag
from xplabels.core.split import part_mask
from xplabels.core.stars import Band, CoefficientSpectra, Photometry, SampledSpectra, Stars
from xplabels.features.projection import default_projection
from xplabels.instrument import magnitudes
from xplabels.instrument.noise import noise_model
from xplabels.surveys.library import read_library
from xplabels.training.forward import summed

Array = NDArray[np.float64]
BAD = Flag.POOR_FIT | Flag.OUT_OF_DOMAIN
FAINT = (15.25, 15.75, 16.25, 16.75, 17.25, 18.5)
SUMS = 3000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--part", default="validation")
    parser.add_argument("--data", default="../shared/data", type=Path)
    words = parser.parse_args()
    model = load_model(words.model)
    library = read_library()
    fraction = float(model.metadata["split"]["test_fraction"])
    stars = library[part_mask(library.source_id, words.part, fraction)]
    random = np.random.default_rng(1)
    g, bp, rp = (stars.photometry.column(f"phot_{b}_mean_mag")[0] for b in ("g", "bp", "rp"))
    whole = np.isfinite(g) & np.isfinite(bp - rp) & np.isfinite(stars.photometry.column("j_m")[0])
    stars, g, colour = stars[whole], g[whole], (bp - rp)[whole]
    known = stars.labels
    assert known is not None
    teff = known.values[:, 0]

    def flags(some: Stars) -> Any:
        return model.predict(some)

    def rates(flag: NDArray[np.uint32], rows: Any = slice(None)) -> str:
        f = flag[rows]
        n = max(len(f), 1)
        each = [100 * np.mean((f & int(b)) != 0) for b in (BAD, Flag.POOR_FIT, Flag.OUT_OF_DOMAIN)]
        error = np.sqrt(each[0] * (100 - each[0]) / n)
        return (
            f"N {len(f):5d}  either {each[0]:5.1f} +- {error:.1f}  fit {each[1]:5.1f}  "
            f"domain {each[2]:5.1f} %"
        )

    print(f"== {words.model}, {words.part} part")
    real = flags(stars)
    for low in np.arange(8.5, 15, 0.5):
        print(
            f"real G {low:.1f}-{low + 0.5:.1f}  {rates(real.flags, (g >= low) & (g < low + 0.5))}"
        )
    print(f"real, all         {rates(real.flags)}")
    for low, high in ((0, 3500), (3500, 4000), (4000, 7000), (7000, 10000), (10000, 99999)):
        print(f"real {low}-{high} K  {rates(real.flags, (teff >= low) & (teff < high))}")
    copies = {at: fainter(stars, g, colour, at, random) for at in FAINT}
    for at, some in copies.items():
        print(f"simulated G {at}  {rates(flags(some).flags)}")

    r0 = model.feature_set.compute(stars).divisor
    cool = np.flatnonzero((teff > 3200) & (teff < 7000))
    everyone = np.arange(len(stars))
    for title, pool in (("all", everyone), ("3200-7000 K", cool)):
        first, second = random.choice(pool, SUMS), random.choice(pool, SUMS)
        light = 0.1 ** random.random(SUMS)
        both = summed(stars, r0, first, second, light)
        for at in (None, 15.25, 17.25):
            some = both if at is None else fainter(both, g[first], colour[first], at, random)
            p = flags(some)
            z = (p.values[:, 0] - teff[first]) / np.hypot(p.errors[:, 0], known.errors[first, 0])
            off, bad = np.abs(z) > 5, (p.flags & int(BAD)) != 0
            print(f"sums {title} G {at}: {shares(bad, off)}")
            if at is None:
                step = np.abs(np.log(teff[first] / teff[second]))
                for low, high in ((0, 0.05), (0.05, 0.15), (0.15, 0.3), (0.3, 9)):
                    m = (step >= low) & (step < high)
                    print(f"   difference in ln Teff {low}-{high}: {shares(bad[m], off[m])}")
    some = random.choice(cool, 1000)
    for at in (None, 17.25):
        for title, made in changed(stars, some, random).items():
            dimmed = made if at is None else fainter(made, g[some], colour[some], at, random)
            p = flags(dimmed)
            z = (p.values[:, 0] - teff[some]) / np.hypot(p.errors[:, 0], known.errors[some, 0])
            bad = (p.flags & int(BAD)) != 0
            print(f"{title} G {at}: {shares(bad, np.abs(z) > 5)}")
    odd(model, words.data)
    speed(model, copies[17.25])


def shares(bad: NDArray[np.bool_], off: NDArray[np.bool_]) -> str:
    """Of N sources: flagged, wrong by 5 sigma, and both wrong and not flagged."""
    three = (100 * np.mean(one) for one in (bad, off, off & ~bad))
    flagged, wrong, missed = three
    return (
        f"N {len(bad)}, flagged {flagged:.1f}, abs(z) > 5 {wrong:.1f}, "
        f"of these unflagged {missed:.2f} %"
    )


def fainter(stars: Stars, g: Array, colour: Array, at: float, random: Any) -> Stars:
    """Library stars with errors as typical at G = ``at``, and noise to match."""
    projection = default_projection()

    def relative(magnitude: Array) -> Array:
        return np.median(noise_model().errors(magnitude, colour), axis=1) * 10 ** (0.4 * magnitude)

    factor = np.maximum(relative(np.full(len(g), at)) / relative(g), 1.0)
    spectra = stars.spectra
    assert isinstance(spectra, SampledSpectra)
    errors = projection.coefficient_errors(spectra)
    noise = random.standard_normal(errors.shape) * errors * np.sqrt(factor**2 - 1)[:, None]
    return replace(
        stars,
        spectra=replace(
            spectra,
            flux=spectra.flux + noise @ projection.design.T,
            flux_error=spectra.flux_error * factor[:, None],
        ),
    )


def changed(stars: Stars, rows: Any, random: Any) -> dict[str, Stars]:
    """H alpha emission of 20-100 A and 5-20 A, and a ripple of 3 %; magnitudes stay.

    The line goes through the instrument. (A bell in the sampled flux is no spectrum that XP could
    give: a tenth of it is outside what the bases can make, and so every star is flagged.)
    """
    spectra = stars.spectra
    assert isinstance(spectra, SampledSpectra)
    flux, wavelength = spectra.flux[rows], spectra.wavelength
    line = line_flux(H_ALPHA)
    about = np.abs(wavelength - H_ALPHA)
    continuum = flux[:, (about > 12) & (about < 24)].mean(axis=1)

    def emission(low: float, high: float) -> Array:
        width = 0.1 * low * (high / low) ** random.random((len(rows), 1))
        return flux + width * continuum[:, None] * line

    wave = 2 * np.pi * (wavelength / random.uniform(20, 200, (len(rows), 1)))
    made = {
        "H alpha 20-100 A": emission(20, 100),
        "H alpha 5-20 A": emission(5, 20),
        "ripple 3 %": flux * (1 + 0.03 * np.sin(wave + random.uniform(0, 6.28, (len(rows), 1)))),
    }
    ids = np.arange(1, len(rows) + 1, dtype=np.int64)
    photometry = stars.photometry
    return {
        name: Stars.of(
            ids,
            replace(spectra, flux=new, flux_error=spectra.flux_error[rows]),
            Photometry(photometry.values[rows], photometry.errors[rows]),
        )
        for name, new in made.items()
    }


def odd(model: Any, data: Path) -> None:
    """Real sources: planetary nebulae, symbiotic stars, hot subdwarfs, ordinary field stars."""
    for name in ("planetary_nebulae", "symbiotic_stars"):
        path = data / "odd" / f"{name}.csv.gz"
        if path.is_file():
            stars = datalink(path)
            for title, some in (("", stars), (", correlations left out", without(stars))):
                p = model.predict(some)
                parts = {
                    "fit or domain": (p.flags & int(BAD)) != 0,
                    "fit": (p.flags & int(Flag.POOR_FIT)) != 0,
                    "domain": (p.flags & int(Flag.OUT_OF_DOMAIN)) != 0,
                    "not good": ~p.good,
                }
                rates = ", ".join(f"{k} {100 * v.mean():.1f} %" for k, v in parts.items())
                print(f"{name}{title}: N {len(p)}, {rates}")
    path = data / "odd" / "hot_subdwarf_candidates_c110.npz"
    if path.is_file():
        c = np.load(path)["coefficients"].astype(float)
        mags = magnitudes(c)
        ok = np.isfinite(mags).all(axis=1) & (mags[:, 0] > 4) & (mags[:, 0] < 20.5)
        errors = noise_model().errors(mags[ok, 0], mags[ok, 1] - mags[ok, 2])
        p = model.predict(coefficient_stars(c[ok], errors))
        bad = (p.flags & int(BAD)) != 0
        print(f"hot subdwarfs: N {len(p)}, flagged {100 * bad.mean():.1f} %, or > 20,000 K "
              f"{100 * np.mean(bad | (p.values[:, 0] > 2e4)):.1f} %")  # fmt: skip
    path = data / "xp_field_2000.fits"
    if path.is_file():
        from astropy.io import fits

        table = fits.open(path)[1].data
        c, e = (
            np.stack([table[f"{s}{b}_coeff_{i}"] for b in ("bp", "rp") for i in range(55)], axis=1)
            .astype(float) for s in ("", "e_")
        )  # fmt: skip
        p = model.predict(coefficient_stars(c, e))
        snr = c[:, 55] / e[:, 55]
        for low, high in ((0, 300), (300, 500), (500, 900), (900, 2000), (2000, 1e9)):
            rows = (snr >= low) & (snr < high)
            bad = (p.flags[rows] & int(BAD)) != 0
            print(f"field stars, S/N of RP 0 {low}-{high:g}: N {rows.sum()}, flagged "
                  f"{100 * bad.mean():.1f} %")  # fmt: skip


def coefficient_stars(c: Array, errors: Array, correlations: Any = (None, None)) -> Stars:
    """Stars with G, BP and RP by synthetic photometry, as a catalogue would have them."""
    mags = magnitudes(c)
    measured = {
        f"phot_{b}_mean_mag": (mags[:, i], np.full(len(c), 0.005))
        for i, b in enumerate(("g", "bp", "rp"))
    }
    bands = [
        Band(c[:, s], errors[:, s], r)
        for s, r in zip((slice(0, 55), slice(55, 110)), correlations, strict=True)
    ]
    return Stars.of(
        np.arange(1, len(c) + 1), CoefficientSpectra(*bands), Photometry.of(len(c), measured)
    )


def datalink(path: Path) -> Stars:
    """Rows with arrays as text."""
    csv.field_size_limit(10**9)
    rows: list[list[Array]] = []
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            parts = [
                np.array([float(v) if v.strip() not in ("nan", "null", "") else np.nan
                          for v in row[f"{b}_coefficient{k}"].strip('()[]"').split(",")])
                for k in ("s", "_errors", "_correlations") for b in ("bp", "rp")
            ]  # fmt: skip
            if [len(part) for part in parts] == [55, 55, 55, 55, 1485, 1485]:
                rows.append(parts)
    bp, rp, ebp, erp, cbp, crp = (np.stack(part) for part in zip(*rows, strict=True))
    return coefficient_stars(
        np.concatenate([bp, rp], axis=1), np.concatenate([ebp, erp], axis=1),
        (cbp.astype(np.float32), crp.astype(np.float32)),
    )  # fmt: skip


def without(stars: Stars) -> Stars:
    """The same without correlations."""
    spectra = stars.spectra
    assert isinstance(spectra, CoefficientSpectra)
    bands = (replace(band, correlations=None) for band in (spectra.bp, spectra.rp))
    return replace(stars, spectra=CoefficientSpectra(*bands))


def speed(model: Any, stars: Stars) -> None:
    """Time per star of a prediction with and without the fit, in blocks."""
    features = model.feature_set.compute(stars)
    rng = np.random.default_rng(0)
    packed = tuple((0.1 * rng.standard_normal((len(stars), 1485))).astype(np.float32) for _ in "br")
    for title, some in (
        ("no correlations", features),
        ("correlations", replace(features, correlations=packed)),
    ):
        blocks = [some[s : s + 2048] for s in range(0, len(some), 2048)]
        labels = [model.inference.run(block).labels.mean for block in blocks]
        fit, rest = [], []
        for _ in range(5):
            began = time.perf_counter()
            for block, one in zip(blocks, labels, strict=True):
                model.forward.score(block, one)
            fit.append(time.perf_counter() - began)
            began = time.perf_counter()
            for block in blocks:
                model.inference.run(block)
            rest.append(time.perf_counter() - began)
        each, other = (1e6 * min(one) / len(some) for one in (fit, rest))
        print(f"{title}: fit {each:.1f} us a star, networks {other:.1f}")


if __name__ == "__main__":
    main()
