"""Spectral energy distributions of sources that are no ordinary stars, of a few physical terms.

Each maker takes random numbers and returns the flux on :data:`WAVELENGTH`, in any unit, and the
temperature, K, NaN where the source has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from xplabels.instrument import extinction

Array = NDArray[np.float64]
Random = np.random.Generator

BALMER = (656.46, 486.27, 434.17, 410.29, 397.12, 389.02)
"""nm, in vacuum."""
BALMER_JUMP = 364.6
LIGHT_SPEED = 299792.458
"""km/s."""
WAVELENGTH = np.concatenate([np.arange(300.0, 1100.0, 0.5), np.arange(1100.0, 2505.0, 5.0)])
"""nm, to Ks."""


def planck(teff: float, wavelength: Array = WAVELENGTH) -> Array:
    """Black body, relative to its flux at 550 nm."""
    x = 1.43877688e7 / teff
    at = 550.0
    ratio: Array = (at / wavelength) ** 5 * np.expm1(x / at) / np.expm1(x / wavelength)
    return ratio


def gaussian(centre: float, fwhm: float) -> Array:
    """A Gaussian of unit height on :data:`WAVELENGTH`."""
    bell: Array = np.exp(-4 * np.log(2) * ((WAVELENGTH - centre) / fwhm) ** 2)
    return bell


def emission(centre: float, width: float, fwhm: float) -> Array:
    """A line relative to the continuum, of equivalent width ``width``; all in nm."""
    return width / (fwhm * np.sqrt(np.pi / (4 * np.log(2)))) * gaussian(centre, fwhm)


def hydrogen(teff: float, depth: float, fwhm: float, jump: float) -> Array:
    """Balmer lines and jump, strongest near 12,000 K, relative to the continuum."""
    strength = np.exp(-(np.log(teff / 12000.0) ** 2) / (2 * 0.5**2))
    lines = np.ones_like(WAVELENGTH)
    for line in BALMER:
        lines *= 1 - depth * strength * gaussian(line, fwhm)
    return lines * np.where(WAVELENGTH < BALMER_JUMP, 1 - jump * strength, 1.0)


def reddened(flux: Array, a_v: float) -> Array:
    """Behind dust."""
    faded: Array = flux * 10 ** (-0.4 * a_v * _curve())
    return faded


@cache
def _curve() -> Array:
    return extinction(WAVELENGTH)[0]


def blackbody(random: Random) -> tuple[Array, float]:
    """8-40 kK, evenly in the logarithm, without dust."""
    teff = float(np.exp(random.uniform(np.log(8e3), np.log(4e4))))
    return planck(teff), teff


def white_dwarf(random: Random) -> tuple[Array, float]:
    """A Planck function of 6-40 kK with broad Balmer lines (half depth .6, 10 nm) and jump."""
    teff = float(np.exp(random.uniform(np.log(6e3), np.log(4e4))))
    return planck(teff) * hydrogen(teff, 0.6, 10.0, 0.4), teff


def hot_subdwarf(random: Random) -> tuple[Array, float]:
    """20-40 kK, Balmer lines of depth .5 at 2.5 nm, a small jump, A_V to 0.5."""
    teff = float(random.uniform(2e4, 4e4))
    flux = planck(teff) * hydrogen(teff, 0.5, 2.5, 0.3)
    return reddened(flux, random.uniform(0, 0.5)), teff


def carbon_star(random: Random) -> tuple[Array, float]:
    """2500-4000 K with Swan bands of C2 (shaded to the blue) and CN (to the red), A_V to 1."""
    teff = float(random.uniform(2500, 4000))
    flux, depth = planck(teff), random.uniform(0.4, 0.9, 2)
    for head, scale in ((473.7, 1.0), (516.5, 1.0), (563.6, 0.9), (605.9, 0.5)):
        blue = np.clip(head - WAVELENGTH, 0, None)
        flux = flux * (1 - depth[0] * scale * np.exp(-blue / 12) * (head > WAVELENGTH))
    for head, scale in ((692.0, 0.6), (708.0, 0.6), (788.0, 0.8), (914.0, 0.9)):
        red = np.clip(WAVELENGTH - head, 0, None)
        flux = flux * (1 - depth[1] * scale * np.exp(-red / 20) * (head < WAVELENGTH))
    return reddened(flux, random.uniform(0, 1)), teff


QUASAR_LINES = (
    (121.6, 9.3), (154.9, 2.4), (190.9, 2.1), (279.9, 3.2), (434.1, 1.3), (486.3, 4.6),
    (500.8, 1.3), (656.5, 19.5),
)  # fmt: skip
"""nm, and rest equivalent width, nm (Vanden Berk et al. 2001)."""


def quasar(random: Random) -> tuple[Array, float]:
    """A power law with eight lines of 5,000 km/s at z = 0.1-3.5 behind the Lyman alpha forest."""
    z, slope = random.uniform(0.1, 3.5), random.uniform(-2.0, -1.0)
    rest = WAVELENGTH / (1 + z)
    flux = (rest / 300.0) ** slope
    lines = np.zeros_like(flux)
    for centre, width in QUASAR_LINES:
        at = centre * (1 + z)
        lines += emission(at, width * (1 + z) * random.lognormal(0, 0.3), at * 5000 / LIGHT_SPEED)
    forest = np.where(rest < 121.6, np.exp(-0.0036 * (WAVELENGTH / 121.6) ** 3.46), 1.0)
    return flux * (1 + lines) * np.where(rest < 91.2, 0.0, forest), np.nan


def old_galaxy(random: Random) -> tuple[Array, float]:
    """Planck functions of 4200 and 5500 K, the break at 400 nm, five absorptions, z to 0.3."""
    z, cool = random.uniform(0, 0.3), random.uniform(0.4, 0.8)
    rest = WAVELENGTH / (1 + z)
    flux = cool * planck(4200, rest) + (1 - cool) * planck(5500, rest)
    flux = flux * (1 - random.uniform(0.35, 0.55) / (1 + np.exp((rest - 400) / 3)))
    for centre, depth, fwhm in (
        (430.5, 0.25, 4), (517.0, 0.25, 5), (589.3, 0.15, 2), (620.0, 0.1, 12), (715.0, 0.15, 14),
    ):  # fmt: skip
        flux = flux * (1 - depth * gaussian(centre * (1 + z), fwhm * (1 + z)))
    return flux, np.nan


def emission_line_galaxy(random: Random) -> tuple[Array, float]:
    """Planck functions of 15,000 and 5000 K with [O II], H beta, [O III], H alpha, z to 0.3."""
    z, hot = random.uniform(0, 0.3), random.uniform(0.4, 0.8)
    rest = WAVELENGTH / (1 + z)
    lines = np.zeros_like(rest)
    strength = random.lognormal(0, 0.5)
    for centre, width in ((372.8, 4), (486.3, 1.5), (500.8, 5), (656.5, 8), (672.5, 1.5)):
        lines += strength * emission(centre * (1 + z), width * (1 + z), 1.5)
    return (hot * planck(15000, rest) + (1 - hot) * planck(5000, rest)) * (1 + lines), np.nan


SIMULATED: Mapping[str, tuple[Callable[[Random], tuple[Array, float]], str]] = {
    "black bodies of 8-40 kK": (blackbody, "a Planck function"),
    "white dwarfs, hydrogen": (white_dwarf, "Planck, broad Balmer lines and jump"),
    "hot subdwarfs": (hot_subdwarf, "Planck, Balmer lines and jump, A_V to 0.5"),
    "carbon stars": (carbon_star, "Planck, bands of C2 and CN, A_V to 1"),
    "quasars": (quasar, "power law, eight broad lines, Lyman alpha forest, z 0.1-3.5"),
    "galaxies, old": (old_galaxy, "two Planck functions, the break at 400 nm, z to 0.3"),
    "galaxies with emission lines": (
        emission_line_galaxy, "two Planck functions, five line groups, z to 0.3",
    ),
}  # fmt: skip
