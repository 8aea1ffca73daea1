"""Published relations for what the library lacks of its giants: C, N, distance, WISE magnitudes.

They only make stars that are similar to giants: none is fitted to data here. Numbers from the
literature are rounded.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from xplabels.features import KS_OVER_V, RJCE_SLOPE, RJCE_ZERO

Array = NDArray[np.float64]

# --- mass, carbon and nitrogen ---
ALPHA_RICH = 0.12
"""[alpha/M] above which a star counts as old (the thick disc and halo)."""
MASS = {"alpha-rich": (0.0, 0.05), "others": (0.12, 0.13)}
"""Mean and scatter of log10 mass, in solar masses."""
CARBON_TO_NITROGEN = 10 ** (8.43 - 7.83)
"""Ratio by number in the Sun (Asplund et al. 2009)."""
COMPOSITION_SCATTER = (0.06, 0.08)
"""Scatter of [C/Fe] and [N/Fe] about the relation at given mass, dex."""
COMPOSITION_LIMIT = 0.59
"""Largest absolute [C/Fe] and [N/Fe] that are drawn: the emulators' range."""


def log_mass(alpha_m: Array) -> tuple[Array, Array]:
    """Mean and scatter [N] of log10 mass in solar masses; alpha-rich stars are old, so near 0."""
    rich = alpha_m > ALPHA_RICH
    mean, scatter = (np.where(rich, old, young) for old, young in zip(*MASS.values(), strict=True))
    return mean, scatter


def mean_composition(mass: Array, logg: Array, fe_h: Array, alpha_m: Array) -> Array:
    """[C/Fe] and [N/Fe] [N, 2] that a giant of this mass has on average.

    Initially [C/Fe] = 0.5 [alpha/M] and [N/Fe] = 0 (alpha-rich stars are carbon-rich: Nissen et al.
    2014). The first dredge-up, complete below log g 3.3, lowers carbon, and more so in more massive
    stars (Iben 1965; Masseron & Gilmore 2015). Metal-poor giants mix once more above the bump of
    the giant branch (Gratton et al. 2000; Shetrone et al. 2019). In both cases the CN cycle has
    converted the lost carbon into nitrogen, atom by atom.
    """
    born = 0.5 * alpha_m
    dredged = _switch((3.3 - logg) / 0.06) * (0.06 + 0.5 * np.clip(np.log10(mass), 0, None))
    mixed = _switch((2.0 - logg) / 0.15) * 0.2 * np.clip(-0.4 - fe_h, 0, 1)
    c_fe = born - dredged - mixed
    n_fe = np.log10(1 + CARBON_TO_NITROGEN * (10**born - 10**c_fe))
    return np.stack([c_fe, n_fe], axis=1)


def draw_composition(mean: Array, random: np.random.Generator) -> Array:
    """[C/Fe] and [N/Fe] [N, 2] that scatter about ``mean``, within the emulators' range."""
    from scipy.stats import truncnorm

    scatter = np.array(COMPOSITION_SCATTER)
    centre = np.clip(mean, -COMPOSITION_LIMIT, COMPOSITION_LIMIT)
    bounds = ((sign * COMPOSITION_LIMIT - centre) / scatter for sign in (-1, 1))
    return np.asarray(truncnorm.rvs(*bounds, loc=centre, scale=scatter, random_state=random))


def _switch(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


# --- luminosity, dust and distance ---
SOLAR_TEFF, SOLAR_LOGG, SOLAR_BOLOMETRIC = 5772.0, 4.438, 4.74
BOLOMETRIC_G = {
    "cool": (1.749, 1.977e-3, 3.737e-7, -8.966e-11, -4.183e-14),
    "warm": (6.000e-2, 6.731e-5, -6.647e-8, 2.859e-11, -7.197e-15),
}
"""Bolometric correction of G: coefficients of powers of (Teff - 5772 K), below and above 4000 K
(Andrae et al. 2018)."""
COLOUR_OF_TEFF = (0.6517, 0.6312, 0.0168, -0.0381, 0.0256, 0.0013)
"""5040 K / Teff = b0 + b1 c + b2 c^2 + b3 c m + b4 m + b5 m^2 of giants, with c = J - Ks and
m = [Fe/H] (Gonzalez Hernandez & Bonifacio 2009)."""
REDDENING_RANGE = (-0.3, 1.4)
"""Plausible range of E(J - Ks), mag; stars outside have a wrong magnitude in the library."""
J_OVER_V, G_OVER_V = 0.243, 0.789
"""A_J / A_V and A_G / A_V (Wang & Chen 2019, as A_Ks / A_V)."""


def absolute_g(teff: Array, logg: Array, mass: Array) -> Array:
    """Absolute G magnitude [N] from surface gravity and mass."""
    log_luminosity = np.log10(mass) + 4 * np.log10(teff / SOLAR_TEFF) + SOLAR_LOGG - logg
    cool, warm = (
        np.polynomial.polynomial.polyval(teff - SOLAR_TEFF, np.array(BOLOMETRIC_G[key]))
        for key in ("cool", "warm")
    )
    correction = np.where(teff < 4000.0, cool, warm)
    return np.asarray(SOLAR_BOLOMETRIC - 2.5 * log_luminosity - correction)


def intrinsic_j_ks(teff: Array, fe_h: Array) -> Array:
    """J - Ks [N] of a giant without dust, mag."""
    b0, b1, b2, b3, b4, b5 = COLOUR_OF_TEFF
    constant = b0 + b4 * fe_h + b5 * fe_h**2 - 5040.0 / teff
    slope = b1 + b3 * fe_h
    return np.asarray((-slope + np.sqrt(slope**2 - 4 * b2 * constant)) / (2 * b2))


def extinction_ks(j_ks: Array, teff: Array, fe_h: Array) -> Array:
    """A_Ks [N], mag, by the excess of J - Ks; at least zero."""
    reddening = j_ks - intrinsic_j_ks(teff, fe_h)
    return np.asarray(np.clip(reddening * KS_OVER_V / (J_OVER_V - KS_OVER_V), 0, None))


def true_parallax(g: Array, absolute: Array, a_ks: Array) -> Array:
    """Parallax [N], mas, by apparent and absolute G and the extinction."""
    modulus = g - absolute - a_ks * G_OVER_V / KS_OVER_V
    return np.asarray(10 ** (2 - 0.2 * modulus))


# --- WISE, and errors ---
W1_W2 = (-0.05, -0.05, 4e-5)
"""W1 - W2 of a giant of 4750 K and [Fe/H] = 0, its change per dex of [Fe/H] and per K: cooler and
more metal-rich giants have the deeper CO band, in W2."""
COLOUR_SCATTER = 0.015
"""Scatter of H - W2 and of W1 - W2 about the relations, mag."""
WISE_FLOOR, WISE_LIMIT = 0.02, {"w1mpro": 16.9, "w2mpro": 16.0}
"""Smallest error, and the magnitude of S/N 5 (AllWISE Explanatory Supplement)."""
TWO_MASS_LIMIT = {"j_m": 15.8, "h_m": 15.1, "ks_m": 14.3}
"""Magnitude of S/N 10 (Skrutskie et al. 2006)."""
GAIA_AT_17 = {"phot_g_mean_mag": 0.001, "phot_bp_mean_mag": 0.012, "phot_rp_mean_mag": 0.006}
"""Error (mag) at G = 17 (Riello et al. 2021); it grows like photon noise."""


def wise_magnitudes(
    h: Array, a_ks: Array, teff: Array, fe_h: Array, random: np.random.Generator
) -> dict[str, Array]:
    """Noiseless W1 and W2 [N] of stars of this H: H - W2 = 0.08 mag + A_Ks / 0.918.

    This inverts the relation of the Rayleigh-Jeans colour excess.
    """
    zero, per_dex, per_kelvin = W1_W2
    scatter = COLOUR_SCATTER * random.standard_normal((2, len(h)))
    w2 = h - RJCE_ZERO - a_ks / RJCE_SLOPE + scatter[0]
    w1 = w2 + zero + per_dex * fe_h + per_kelvin * (teff - 4750.0) + scatter[1]
    return {"w1mpro": w1, "w2mpro": w2}


def magnitude_error(name: str, magnitude: Array, g: Array, floor: float) -> Array:
    """Typical error [N] of a magnitude, at least ``floor``; ``g`` is the star's G."""
    if name in GAIA_AT_17:
        return np.hypot(floor, GAIA_AT_17[name] * 10 ** (0.2 * (g - 17.0)))
    limits: Mapping[str, float] = TWO_MASS_LIMIT | WISE_LIMIT
    at_limit = 0.1 if name in TWO_MASS_LIMIT else 0.2
    return np.hypot(floor, at_limit * 10 ** (0.4 * (magnitude - limits[name])))


def parallax_error(g: Array) -> Array:
    """Typical parallax error [N], mas, of DR3 (Gaia science performance page)."""
    z = 10 ** (0.4 * (np.maximum(g, 13.0) - 15.0))
    return np.asarray(1e-3 * np.sqrt(40.0 + 800.0 * z + 30.0 * z**2))
