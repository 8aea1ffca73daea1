"""Sources that are no ordinary stars, and ordinary ones at any brightness.

Three kinds, and every class says which it is:

- ``altered``: real library spectra to which something of known amount was done (emission, dust, a
  companion's light), moved away to a given G with noise (:func:`xplabels.giants.copies.farther`);
- ``simulated``: spectral energy distributions made here from a few physical terms, seen through
  GaiaXPy's instrument model (:func:`xplabels.instrument.simulation.simulate_spectra`);
- ``real``: files of real sources.

Known temperatures stand in the stars' labels. What is drawn depends on the class's name, the
brightness and the seed alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from strange_spectra import SIMULATED, WAVELENGTH
from xplabels.core.labels import Labels
from xplabels.core.stars import (
    MEASUREMENTS,
    Band,
    CoefficientSpectra,
    Photometry,
    SampledSpectra,
    Stars,
)
from xplabels.features.projection import Projection, default_projection
from xplabels.giants.copies import farther
from xplabels.giants.relations import magnitude_error
from xplabels.instrument import (
    CENTRAL_WAVELENGTH,
    MAGNITUDES,
    WIDTHS,
    extinction,
    gaiaxpy_instrument,
    magnitudes,
)
from xplabels.instrument.noise import illustrative_correlations, noise_model
from xplabels.instrument.sed import Sed
from xplabels.instrument.simulation import PHOTOMETRY_FLOOR, observed_spectra, simulate_spectra
from xplabels.io import read

Array = NDArray[np.float64]
Random = np.random.Generator

TWO_MASS = ("j_m", "h_m", "ks_m")
TWO_MASS_ZERO = {"j_m": 3.129e-12, "h_m": 1.133e-12, "ks_m": 4.283e-13}
"""Flux of magnitude 0, W m^-2 nm^-1 (Cohen et al. 2003)."""
TWO_MASS_FLOOR, DETECTED = 0.025, 0.2
"""mag: smallest 2MASS error, and the error beyond which a star is not in 2MASS (S/N of 5)."""
CLEAN = 12.0
"""G of library stars whose noise is small beside that of stars of G = 13 and fainter."""
BAND_LIMIT = 645.0
"""nm: BP below, RP above."""
H_ALPHA = 656.46
"""nm, in vacuum."""


def generator(name: str, g: float = 0.0, seed: int = 0) -> Random:
    """Random numbers of a class at one brightness."""
    return np.random.default_rng([seed, zlib.crc32(f"{name} {g:g}".encode())])


# --- real library spectra to which something is done; each keeps the star's known labels ---

Alteration = Callable[[Stars, Random], Stars]


def coefficients_of(stars: Stars) -> CoefficientSpectra:
    """The stars' archive spectra."""
    assert isinstance(stars.spectra, CoefficientSpectra)
    return stars.spectra


def sampled(stars: Stars) -> SampledSpectra:
    """The stars' sampled spectra."""
    assert isinstance(stars.spectra, SampledSpectra)
    return stars.spectra


def with_flux(stars: Stars, flux: Array, flux_error: Array | None = None) -> Stars:
    """The same stars with other spectra; G, BP and RP change as the spectra do."""
    spectra, projection = sampled(stars), default_projection()
    changed = replace(
        spectra, flux=flux, flux_error=spectra.flux_error if flux_error is None else flux_error
    )
    before, after = (magnitudes(projection.coefficients(s)) for s in (spectra, changed))
    values = stars.photometry.values.copy()
    for name, shift in zip(MAGNITUDES, (after - before).T, strict=True):
        values[:, MEASUREMENTS.index(name)] += shift
    return replace(stars, spectra=changed, photometry=Photometry(values, stars.photometry.errors))


@cache
def line_flux(wavelength: float, fwhm: float = 1.0) -> Array:
    """Sampled flux [L] of an emission line of unit flux (W m^-2), through the instrument."""
    grid = np.arange(310.0, 1100.0, 0.1)
    sigma = fwhm / np.sqrt(8 * np.log(2))
    line = np.exp(-0.5 * ((grid - wavelength) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    coefficients = gaiaxpy_instrument().coefficients(Sed.of(grid, line))
    flux: Array = (coefficients @ default_projection().design.T)[0]
    return flux


def h_alpha(stars: Stars, random: Random, *, width: float) -> Stars:
    """Emission of an equivalent width, Angstrom, over the continuum about H alpha."""
    spectra = sampled(stars)
    offset = np.abs(spectra.wavelength - H_ALPHA)
    continuum = spectra.flux[:, (offset > 12) & (offset < 24)].mean(axis=1)
    return with_flux(stars, spectra.flux + 0.1 * width * np.outer(continuum, line_flux(H_ALPHA)))


def dust(stars: Stars, random: Random, *, a_v: float) -> Stars:
    """Behind more dust: A_V in mag, Gordon et al. 2023 at R_V = 3.1."""
    spectra = sampled(stars)
    curve, by_band = extinction(spectra.wavelength)
    through = 10 ** (-0.4 * a_v * curve)
    stars = with_flux(stars, spectra.flux * through, spectra.flux_error * through)
    values = stars.photometry.values.copy()
    for name, ratio in by_band.items():
        values[:, MEASUREMENTS.index(name)] += a_v * ratio
    return stars.with_photometry(Photometry(values, stars.photometry.errors))


def ripple(stars: Stars, random: Random, *, amplitude: float) -> Stars:
    """A sine in wavelength, relative to the flux, of a period of 20-100 nm and any phase."""
    spectra, n = sampled(stars), len(stars)
    period = random.uniform(20.0, 100.0, (n, 1))
    phase = random.uniform(0.0, 2 * np.pi, (n, 1))
    wave = np.sin(2 * np.pi * spectra.wavelength / period + phase)
    return with_flux(stars, spectra.flux * (1 + amplitude * wave))


def blue_third(stars: Stars, random: Random, *, factor: float) -> Stars:
    """The shortest third of the wavelengths multiplied."""
    spectra = sampled(stars)
    factors = np.ones(len(spectra.wavelength))
    factors[: len(factors) // 3] = factor
    return with_flux(stars, spectra.flux * factors)


def summed(
    stars: Stars, random: Random, *, ratio: tuple[float, float],
    difference: tuple[float, float] = (-np.inf, np.inf), photometry: bool = True,
) -> Stars:  # fmt: skip
    """Each star with a second one of ``ratio`` times its light in G (drawn evenly within).

    ``difference``: bounds on |Teff of the second - Teff of the first|, K. Stars for which there is
    no such second star are left out. The labels stay those of the first. Without ``photometry``
    the magnitudes, too, stay those of the first: only the XP spectrum is blended.
    """
    assert stars.labels is not None
    teff = stars.labels.select(["teff"]).values[:, 0]
    second = np.full(len(stars), -1)
    for star, one in enumerate(teff):
        apart = np.abs(teff - one)
        fits = np.flatnonzero((apart >= difference[0]) & (apart < difference[1]))
        fits = fits[fits != star]
        if len(fits):
            second[star] = random.choice(fits)
    share = random.uniform(*ratio, len(stars))
    found = second >= 0
    first, other, share = stars[found], second[found], share[found]
    one, two = sampled(first), sampled(stars)
    magnitude = stars.photometry.values
    g = magnitude[:, MEASUREMENTS.index("phot_g_mean_mag")]
    fainter = g[found] - 2.5 * np.log10(share) - g[other]
    scale = 10 ** (-0.4 * fainter[:, None])
    spectra = replace(
        one,
        flux=one.flux + scale * two.flux[other],
        flux_error=np.hypot(one.flux_error, scale * two.flux_error[other]),
    )
    mixed = replace(first, spectra=spectra)
    if not photometry:
        return mixed
    light = 10 ** (-0.4 * magnitude[found]) + 10 ** (-0.4 * (magnitude[other] + fainter[:, None]))
    added = -2.5 * np.log10(light)
    parallax = MEASUREMENTS.index("parallax")
    added[:, parallax] = magnitude[found, parallax]
    errors = np.where(np.isfinite(added), first.photometry.errors, np.nan)
    return mixed.with_photometry(Photometry(added, errors))


def unchanged(stars: Stars, random: Random) -> Stars:
    """Nothing is done to them."""
    return stars


def coefficient_off(stars: Stars, random: Random, *, sigmas: float) -> Stars:
    """One coefficient of each star, other than RP 0, off by so many of its errors."""
    projection = default_projection()
    errors = projection.coefficient_errors(sampled(stars))
    n, width = errors.shape
    column = random.integers(0, width - 1, n)
    column += column >= projection.widths[0]  # RP 0 divides all others: it is no single one
    sign = random.choice((-1.0, 1.0), n)
    change = np.zeros_like(errors)
    change[np.arange(n), column] = sign * sigmas * errors[np.arange(n), column]
    spectra = sampled(stars)
    flux = spectra.flux + change @ projection.design.T
    return replace(stars, spectra=replace(spectra, flux=flux))


def of_teff(low: float, high: float) -> Callable[[Stars], NDArray[np.bool_]]:
    """Which stars have a known Teff within [low, high)."""

    def inside(stars: Stars) -> NDArray[np.bool_]:
        assert stars.labels is not None
        teff = stars.labels.select(["teff"]).values[:, 0]
        return (teff >= low) & (teff < high)

    return inside


BOX, ANY, HOT = of_teff(3200, 7000), of_teff(0, np.inf), of_teff(10000, np.inf)


@dataclass(frozen=True)
class Altered:
    """A class made from library stars: which, what is done to them before noise and after it."""

    change: Alteration
    among: Callable[[Stars], NDArray[np.bool_]] = BOX
    afterwards: Alteration = unchanged


RATIOS = {"0.1": (0.1, 0.1), "0.3": (0.3, 0.3), "0.7": (0.7, 0.7), "1": (1.0, 1.0)}
DIFFERENCES = {
    "< 500": (0, 500), "500-1500": (500, 1500), "1500-3000": (1500, 3000), "> 3000": (3000, np.inf),
}  # fmt: skip
ALTERED: Mapping[str, Altered] = {
    "sums of two stars, second 0.1-1 of the light": Altered(partial(summed, ratio=(0.1, 1.0))),
    **{
        f"binary, light ratio {ratio}, Teff {apart} K apart": Altered(
            partial(summed, ratio=light, difference=bounds), ANY
        )
        for ratio, light in RATIOS.items()
        for apart, bounds in DIFFERENCES.items()
    },
    "XP blended with a neighbour of 0.1-1 of the light, photometry not": Altered(
        partial(summed, ratio=(0.1, 1.0), photometry=False)
    ),
    **{
        f"H alpha emission of {width} A": Altered(partial(h_alpha, width=width))
        for width in (5, 10, 20, 50, 100)
    },
    "H alpha emission of 20 A, stars above 10000 K (as Be stars)": Altered(
        partial(h_alpha, width=20), HOT
    ),
    "A_V + 2 mag": Altered(partial(dust, a_v=2.0)),
    "ripple of 3 %": Altered(partial(ripple, amplitude=0.03)),
    "blue third x 1.3": Altered(partial(blue_third, factor=1.3)),
    "one coefficient off by 10 sigma": Altered(
        unchanged, afterwards=partial(coefficient_off, sigmas=10.0)
    ),
}


def moved(
    stars: Stars, before: Stars, g: float | Array | None, random: Random, projection: Projection
) -> Stars:
    """Stars, altered from ``before``, at magnitude ``g``, which is not above their own.

    With the errors typical of field stars there, or larger ones if theirs are; None: as bright as
    they are, with errors like their own. 2MASS magnitudes whose error exceeds :data:`DETECTED` are
    missing.
    """
    own = stars.photometry.column("phot_g_mean_mag")[0]
    dimming = np.zeros_like(own) if g is None else np.maximum(g - own, 0.0)
    like = before if g is None else typical(before, projection)
    faint = farther(stars, dimming, stars.source_id, projection, random, like)
    return faint.with_photometry(detected(faint.photometry))


def typical(stars: Stars, projection: Projection) -> Stars:
    """The same stars with errors as field stars of their G and colour have them.

    The library's are a quarter smaller: its stars were seen more often.
    """
    spectra = sampled(stars)
    g, bp, rp = (stars.photometry.column(name)[0] for name in MAGNITUDES)
    ratio = noise_model().errors(g, bp - rp) / projection.coefficient_errors(spectra)
    factors = [np.median(band, axis=1) for band in np.split(ratio, [WIDTHS[0]], axis=1)]
    blue = spectra.wavelength < BAND_LIMIT
    wider = spectra.flux_error * np.where(blue, *(factor[:, None] for factor in factors))
    return replace(stars, spectra=replace(spectra, flux_error=wider))


def detected(photometry: Photometry) -> Photometry:
    """Without 2MASS magnitudes of stars too faint for it."""
    values, errors = photometry.values.copy(), photometry.errors.copy()
    for column in map(MEASUREMENTS.index, TWO_MASS):
        values[errors[:, column] > DETECTED, column] = np.nan
        errors[np.isnan(values[:, column]), column] = np.nan
    return Photometry(values, errors)


def altered_stars(
    name: str,
    library: Stars,
    g: float | None,
    count: int,
    seed: int = 0,
    kind: Altered | None = None,
) -> Stars:
    """At most ``count`` stars of a class of :data:`ALTERED`, made from ``library``.

    At magnitude ``g``, of stars that are as bright or brighter; None: as bright as they are.
    ``kind`` stands for the class of that name, where it is none of the table.
    """
    kind = ALTERED[name] if kind is None else kind
    random, projection = generator(name, g or 0.0, seed), default_projection()
    faintest = np.inf if g is None else g
    bright = library.photometry.column("phot_g_mean_mag")[0] <= faintest
    pool = np.flatnonzero(kind.among(library) & bright)
    stars = library[random.permutation(pool)[: 8 * count]]
    changed = kind.change(stars, random)
    still = changed.photometry.column("phot_g_mean_mag")[0] <= faintest
    changed = changed[np.flatnonzero(still)[:count]]
    row = {source: i for i, source in enumerate(stars.source_id.tolist())}
    before = stars[np.array([row[source] for source in changed.source_id.tolist()], np.intp)]
    return kind.afterwards(moved(changed, before, g, random, projection), random)


# --- simulated sources ---


def simulated_stars(name: str, g: float, count: int, seed: int = 0) -> Stars:
    """``count`` sources of a class of :data:`SIMULATED` at ``g``; labels: Teff where it has one.

    The sources differ in their parameters; those at another G are the same ones.
    """
    random = generator(name, seed=seed)
    maker, _ = SIMULATED[name]
    made = [maker(random) for _ in range(count)]
    number = zlib.crc32(f"{name} {g:g}".encode())
    seds = [Sed.of(WAVELENGTH, 1e-16 * flux, name=name) for flux, _ in made]
    stars = simulate_spectra(seds, g_mag=g, seed=number + seed)
    given = magnitudes(gaiaxpy_instrument().coefficients(seds))[:, 0]
    infrared = _two_mass(np.stack([sed.flux for sed in seds]))
    infrared = {name: magnitude + g - given for name, magnitude in infrared.items()}
    teff = np.array([[teff] for _, teff in made])
    return replace(
        stars,
        photometry=_joined(stars.photometry, _measured(infrared, g, random)),
        labels=Labels(("teff",), teff, 0.01 * teff),
    )


def _two_mass(flux: Array) -> dict[str, Array]:
    """Noiseless J, H and Ks [N] of spectra [N, W]."""
    at = {
        name: np.array([np.interp(1e3 * CENTRAL_WAVELENGTH[name], WAVELENGTH, f) for f in flux])
        for name in TWO_MASS
    }
    return {name: -2.5 * np.log10(at[name] / TWO_MASS_ZERO[name]) for name in TWO_MASS}


def _measured(
    clean: Mapping[str, Array], g: float, random: Random
) -> dict[str, tuple[Array, Array]]:
    """Noiseless 2MASS magnitudes with noise, and their errors."""
    found = {}
    for name, magnitude in clean.items():
        error = magnitude_error(name, magnitude, np.full(len(magnitude), g), TWO_MASS_FLOOR)
        found[name] = magnitude + error * random.standard_normal(len(magnitude)), error
    return found


def _joined(photometry: Photometry, measured: Mapping[str, tuple[Array, Array]]) -> Photometry:
    values, errors = photometry.values.copy(), photometry.errors.copy()
    for name, (value, error) in measured.items():
        column = MEASUREMENTS.index(name)
        values[:, column], errors[:, column] = value, error
    return detected(Photometry(values, errors))


def as_archive(
    clean: Array,
    g: float,
    random: Random,
    labels: Labels | None = None,
    infrared: Mapping[str, Array] | None = None,
) -> Stars:
    """Noiseless coefficients [N, 110] as the archive would bring them at ``g``.

    Errors are typical ones, correlations illustrative (:mod:`xplabels.instrument.noise`); G, BP and
    RP are synthesised. ``infrared``: noiseless 2MASS magnitudes [N] at ``g``, by name.
    """
    seen = magnitudes(clean)
    clean = clean * 10 ** (-0.4 * (g - seen[:, :1]))
    errors = noise_model().errors(np.full(len(clean), g), seen[:, 1] - seen[:, 2])
    rows = np.arange(len(clean))
    spectra = observed_spectra(clean, errors, illustrative_correlations(clean), rows, random)
    photometry = _joined(synthesised(spectra), _measured(infrared or {}, g, random))
    return Stars.of(rows + 1, spectra, photometry, labels, origin="simulated")


def ordinary_as_archive(library: Stars, g: float, count: int, seed: int = 0) -> Stars:
    """Ordinary stars, at most ``count``, as archive coefficients with correlated noise at ``g``.

    What is known of the coefficients of library stars brighter than :data:`CLEAN` stands for
    noiseless ones.
    """
    random = generator("archive", g, seed)
    own = library.photometry.column("phot_g_mean_mag")[0]
    rows = random.permutation(np.flatnonzero(own < CLEAN))[:count]
    stars, fainter = library[rows], g - own[rows]
    clean = default_projection().coefficients(sampled(stars))
    infrared = {name: stars.photometry.column(name)[0] + fainter for name in TWO_MASS}
    return as_archive(clean, g, random, stars.labels, infrared)


# --- real sources ---

DWARF_TEFF: Mapping[str, tuple[float, ...]] = {
    "B": (31400, 26000, 20600, 17000, 16400, 15700, 14500, 14000, 12300, 10700),
    "A": (9700, 9300, 8800, 8600, 8250, 8100, 7910, 7760, 7590, 7400),
    "F": (7220, 7020, 6820, 6750, 6670, 6550, 6350, 6280, 6180, 6050),
    "G": (5930, 5860, 5770, 5720, 5680, 5660, 5600, 5550, 5480, 5380),
    "K": (5270, 5170, 5100, 4830, 4600, 4440, 4300, 4100, 3990, 3930),
    "M": (3850, 3660, 3560, 3430, 3210, 3060, 2810, 2680, 2570, 2380),
    "L": (2270, 2160),
}
"""K, of dwarfs of types 0-9 (Pecaut & Mamajek 2013, as updated)."""
TYPE_ERROR = 0.05
"""Of Teff by spectral type, relative: about a subclass."""


def spectra_of(coefficients: Array, errors: Array) -> CoefficientSpectra:
    """Spectra of coefficients and errors [N, 110], BP before RP."""
    halves = (np.split(array, [WIDTHS[0]], axis=1) for array in (coefficients, errors))
    return CoefficientSpectra(*(Band(*parts) for parts in zip(*halves, strict=True)))


def synthesised(spectra: CoefficientSpectra) -> Photometry:
    """G, BP and RP by GaiaXPy from the spectra themselves; nothing else."""
    seen = magnitudes(spectra.coefficients)
    g = np.nan_to_num(seen[:, 0], nan=17.0)
    measured = {
        name: (column, np.asarray(magnitude_error(name, column, g, PHOTOMETRY_FLOOR)))
        for name, column in zip(MAGNITUDES, seen.T, strict=True)
    }
    return Photometry.of(len(seen), measured)


def real_coefficients(path: Path) -> Stars:
    """Real sources of a DataLink file, or of an .npz of coefficients without errors.

    G, BP and RP are synthesised; nothing else is known. Errors that are absent are those typical of
    the brightness and colour.
    """
    if path.suffix == ".npz":
        with np.load(path) as file:
            ids, coefficients = file["source_id"], np.asarray(file["coefficients"], np.float64)
        g, bp, rp = magnitudes(coefficients).T
        seen = np.isfinite(g + bp - rp)
        ids, coefficients, g, colour = (a[seen] for a in (ids, coefficients, g, bp - rp))
        errors = noise_model().errors(g, colour)
        stars = Stars.of(ids, spectra_of(coefficients, errors), origin=path.name)
    else:
        stars = read(path)
    return stars.with_photometry(synthesised(coefficients_of(stars)))


def field_stars(path: Path) -> Stars:
    """Real field stars; G, BP and RP are synthesised."""
    stars = read(path)
    return stars.with_photometry(synthesised(coefficients_of(stars)))


def templates(folder: Path) -> tuple[tuple[str, ...], Array, Labels]:
    """Mean spectra by spectral type: types, coefficients [N, 110], Teff by type."""
    projection = default_projection()
    names, flux, teff = [], [], []
    for path in sorted(folder.glob("Gaia_template_*V.dat")):
        rows = np.genfromtxt(path, skip_header=4)
        letter, digit = path.stem.removeprefix("Gaia_template_")[:2]
        names.append(f"{letter}{digit}V")
        flux.append(rows[:, 1])
        teff.append(DWARF_TEFF[letter][int(digit)])
    sampled_ = SampledSpectra(projection.wavelength, np.stack(flux), np.stack(flux))
    values = np.array(teff)[:, None]
    return (
        tuple(names),
        projection.coefficients(sampled_),
        Labels(("teff",), values, TYPE_ERROR * values),
    )
