"""XP coefficients of spectral energy distributions: the inverse of GaiaXPy's calibration.

GaiaXPy calibrates with b -> f = sum_i b_i (T C h(u))_i h c / (A R lambda): Hermite functions h of
pseudo-wavelength u(lambda), the inverse bases C (which undo the line spread), the rotation T of
the archive's bases, response R, aperture A. Hence the photon spectrum A R lambda f / (h c) of a
source has the Hermite coefficients (T C)^T b, and since Hermite functions are orthonormal in u,

    b = T C^-T  integral h(u) A R lambda f / (h c) |du/dlambda| dlambda:

one fixed matrix per band. The other direction is GaiaXPy's ``calibrate`` itself. Structure finer
than 55 Hermite functions can represent is lost in the inverse bases. ``docs/instrument.md`` shows
how accurate the result is for real sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.features.projection import gaiaxpy_design, need_gaiaxpy, quiet, unit_vectors
from xplabels.instrument.sed import Sed

Array = NDArray[np.float64]

MODELS = {"bp": "v375wi", "rp": "v142r"}
"""GaiaXPy's instrument models for DR3."""
WIDTHS = (55, 55)
"""Number of their coefficients in BP and RP."""
RESPONSE_RANGE = (310.0, 1100.0)
"""Range (nm) of GaiaXPy's response; the instrument is blind beyond it."""
NEEDED_RANGE = (330.0, 1050.0)
"""Range (nm) that a spectral energy distribution must cover: GaiaXPy's widest sampling."""
STEP = 0.25
"""Width (nm) of the matrix's bins, an eighth of the finest pixel (BP at 330 nm)."""
NODES = 4
"""Gauss-Legendre nodes per bin."""
RESOLVING_POWER = {"bp": ((330.0, 680.0), (100.0, 30.0)), "rp": ((640.0, 1050.0), (100.0, 70.0))}
"""Wavelengths (nm) and wavelength / FWHM of XP there, linear in between (Montegriffo+ 2023)."""
PHASE = 0.5
"""Step of :func:`archive_bases`, in pixels."""
MAGNITUDES = ("phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag")
"""The columns that :func:`magnitudes` computes, in its order."""
R_V = 3.1
CENTRAL_WAVELENGTH = {"j_m": 1.235, "h_m": 1.662, "ks_m": 2.159, "w1mpro": 3.353, "w2mpro": 4.603}
"""Isophotal wavelengths (micron) of 2MASS (Cohen et al. 2003) and WISE (Jarrett et al. 2011)."""


@dataclass(frozen=True)
class Instrument:
    """The linear map of spectral energy distributions to coefficients.

    ``edges`` [B + 1] are those of the wavelength bins, nm; ``matrix`` [n, B] has the coefficients
    (archive units) of unit flux (W m^-2 nm^-1) in a bin, BP before RP.
    """

    edges: Array
    matrix: Array

    def coefficients(self, seds: Sed | Sequence[Sed], *, extrapolate: bool = False) -> Array:
        """Noiseless archive coefficients [N, n], BP before RP, of one or N SEDs.

        Beyond a SED's ends the flux is zero or, with ``extrapolate``, that at the ends. Raises
        :class:`InputError` if one does not cover :data:`NEEDED_RANGE`, without ``extrapolate``.
        """
        listed = [seds] if isinstance(seds, Sed) else list(seds)
        flux = [bin_flux(sed, self.edges, extrapolate=extrapolate) for sed in listed]
        return np.reshape(flux, (len(flux), len(self.edges) - 1)) @ self.matrix.T


def bin_flux(sed: Sed, edges: Array, *, extrapolate: bool = False) -> Array:
    """Mean flux [B] in bins: the exact integral of the piecewise linear spectrum.

    Raises :class:`InputError` as :meth:`Instrument.coefficients`.
    """
    wavelength, flux = sed.wavelength, sed.flux
    low, high = wavelength[0], wavelength[-1]
    if not extrapolate and (low > NEEDED_RANGE[0] or high < NEEDED_RANGE[1]):
        raise InputError(
            f"covers {low:g}-{high:g} nm, needed is {NEEDED_RANGE[0]:g}-{NEEDED_RANGE[1]:g} nm",
            where=sed.name or "spectral energy distribution",
            remedy="check its unit; else extend it, or hold its ends constant: --extrapolate, "
            "or extrapolate=True",
        )
    if extrapolate:
        wavelength = np.r_[min(low, edges[0]) - 1.0, wavelength, max(high, edges[-1]) + 1.0]
        flux = np.r_[flux[0], flux, flux[-1]]
    inside = edges[(edges > wavelength[0]) & (edges < wavelength[-1])]
    nodes = np.union1d(wavelength, inside)
    values = np.interp(nodes, wavelength, flux)
    steps = 0.5 * (values[1:] + values[:-1]) * np.diff(nodes)
    bins = np.searchsorted(edges, 0.5 * (nodes[1:] + nodes[:-1])) - 1
    in_range = (bins >= 0) & (bins < len(edges) - 1)
    integral = np.bincount(bins[in_range], steps[in_range], len(edges) - 1)
    return np.asarray(integral / np.diff(edges), np.float64)


@cache
def gaiaxpy_instrument() -> Instrument:
    """The instrument of DR3 (55 + 55 coefficients) from the files that GaiaXPy carries.

    Raises :class:`InputError` if GaiaXPy is not installed.

    Examples
    --------
    >>> flat = Sed.of([300.0, 1100.0], [1e-17, 1e-17])
    >>> gaiaxpy_instrument().coefficients(flat).shape
    (1, 110)
    """
    low, high = RESPONSE_RANGE
    edges = np.linspace(low, high, round((high - low) / STEP) + 1)
    matrices = [band_matrix(band_model(band), edges) for band in MODELS]
    return Instrument(edges, np.concatenate(matrices))


def band_model(band: str) -> Any:
    """GaiaXPy's ``ExternalInstrumentModel`` of ``bp`` or ``rp`` in DR3."""
    need_gaiaxpy()
    with quiet():
        from gaiaxpy.config.paths import config_path
    return load_model(Path(config_path, f"{band}C03_{MODELS[band]}"))


def load_model(stem: Path) -> Any:
    """GaiaXPy's ``ExternalInstrumentModel`` from its :func:`model_files`."""
    with quiet():
        from gaiaxpy.calibrator.external_instrument_model import ExternalInstrumentModel

        return ExternalInstrumentModel.from_config_csv(*map(str, model_files(stem)))


def model_files(stem: Path) -> list[Path]:
    """The files of an instrument model, whose names begin like ``bpC03_v375wi``."""
    return [Path(f"{stem}_{part}.csv") for part in ("dispersion", "response", "bases")]


def band_matrix(model: Any, edges: Array) -> Array:
    """One band's [n, B]: the kernel integrated over each bin between ``edges`` [B + 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    half = 0.5 * np.diff(edges)[:, None]
    wavelength = (edges[:-1, None] + half * (nodes + 1)).ravel()
    values = _kernel(model, wavelength) * (half * weights).ravel()
    return np.asarray(values.reshape(len(values), -1, NODES).sum(axis=2))


def _kernel(model: Any, wavelength: Array) -> Array:
    """Coefficients [n, L] of unit flux per nm at each wavelength: db/(f dlambda)."""
    from gaiaxpy.core import nature, satellite
    from scipy import interpolate

    bases, table = model.bases, model.dispersion
    spline = interpolate.splrep(table["wavelength"], table["pseudo-wavelength"], s=0)
    u, scale = _argument(bases, interpolate.splev(wavelength, spline))
    stretch = np.abs(scale * interpolate.splev(wavelength, spline, der=1))
    # the response's spline oscillates below zero where it should be zero, beyond the dispersion
    response = np.clip(model.get_response(wavelength), 0.0, None)
    response[wavelength < table["wavelength"][0]] = 0.0
    photons = satellite.TELESCOPE_PUPIL_AREA * response * wavelength
    photons /= 1e9 * nature.C * nature.PLANCK
    inverse_bases = np.asarray(bases["inverseBasesCoefficients"])
    moments = hermite_functions(len(inverse_bases), u) * (photons * stretch)
    rotation = np.asarray(bases["transformationMatrix"])
    return np.asarray(rotation @ np.linalg.solve(inverse_bases.T, moments))


def _argument(bases: Any, pseudo_wavelength: Array) -> tuple[Array, float]:
    """Arguments u of the Hermite functions at pseudo-wavelengths, and the derivative of u."""
    scale = (bases["normRangeMax"] - bases["normRangeMin"]) / (
        bases["pwlRangeMax"] - bases["pwlRangeMin"]
    )
    return bases["normRangeMin"] + scale * (pseudo_wavelength - bases["pwlRangeMin"]), scale


def hermite_functions(count: int, u: Array) -> Array:
    """Orthonormal Hermite functions 0 ... count - 1 at ``u`` [L] -> [count, L]."""
    values = np.zeros((count, len(u)))
    values[0] = np.pi**-0.25 * np.exp(-0.5 * u**2)
    for k in range(1, count):  # for k = 1 the second term is zero
        values[k] = np.sqrt(2.0 / k) * u * values[k - 1] - np.sqrt((k - 1) / k) * values[k - 2]
    return values


@cache
def archive_bases() -> tuple[Array, Array]:
    """The archive's BP and RP bases every half pixel of pseudo-wavelength: T h(u), [n, P] each.

    The step is half a pixel because transits sample a spectrum at many phases.
    """
    sampled = []
    for band in MODELS:
        bases = band_model(band).bases
        pixels = np.arange(bases["pwlRangeMin"], bases["pwlRangeMax"] + PHASE / 2, PHASE)
        rotation = np.asarray(bases["transformationMatrix"])
        u, _ = _argument(bases, pixels)
        sampled.append(rotation @ hermite_functions(rotation.shape[1], u))
    return sampled[0], sampled[1]


def resolution(wavelength: Array) -> Array:
    """Full width at half maximum [L] of XP's line spread, nm: that of BP, from 640 nm on of RP."""
    bp, rp = (np.interp(wavelength, *RESOLVING_POWER[band]) for band in ("bp", "rp"))
    return np.asarray(wavelength / np.where(wavelength < RESOLVING_POWER["rp"][0][0], bp, rp))


def sampled_flux(coefficients: Array) -> tuple[Array, Array]:
    """GaiaXPy's default wavelengths [L] in nm, and flux [N, L] there of coefficients [N, 110].

    This is ``calibrate(truncation=False)`` as a matrix product; flux is in W m^-2 nm^-1.

    Raises :class:`InputError` without GaiaXPy, and for other widths than DR3's 55 + 55.
    """
    check_widths(coefficients.shape[1])
    wavelength, design = _design()
    return wavelength, coefficients @ design.T


def check_widths(width: int) -> None:
    """Raise :class:`InputError` unless ``width`` is that of both bands of DR3 together."""
    if width != sum(WIDTHS):
        raise InputError(
            f"spectra of {width} coefficients have no wavelengths: GaiaXPy knows DR3's "
            f"{WIDTHS[0]} + {WIDTHS[1]}",
            remedy="take a model of DR3 spectra",
        )


_design = cache(gaiaxpy_design)


@cache
def band_fluxes() -> tuple[Array, Array]:
    """Flux in G, BP and RP per unit of each coefficient [3, 110], and zero points [3].

    They are from GaiaXPy's synthetic photometry, in which flux is linear in the coefficients. For
    the real library the magnitudes agree with the published ones to 2 mmag.

    Raises :class:`InputError` if GaiaXPy is not installed.
    """
    need_gaiaxpy()
    from gaiaxpy import PhotometricSystem, generate

    with quiet():
        table = generate(
            unit_vectors(), photometric_system=PhotometricSystem.Gaia_DR3_Vega, save_file=False
        ).sort_values("source_id")
    flux, magnitude = (
        np.stack([table[f"GaiaDr3Vega_{key}_{band}"] for band in ("G", "BP", "RP")])
        for key in ("flux", "mag")
    )
    brightest = np.arange(3), np.argmax(flux, axis=1)
    return flux, magnitude[brightest] + 2.5 * np.log10(flux[brightest])


def magnitudes(coefficients: Array) -> Array:
    """G, G_BP and G_RP [N, 3] (Vega, mag) by GaiaXPy's synthetic photometry; NaN if negative."""
    fluxes, zero_points = band_fluxes()
    flux = coefficients @ fluxes.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(zero_points - 2.5 * np.log10(np.where(flux > 0, flux, np.nan)))


def magnitude_errors(
    coefficients: Array, errors: Array, correlations: tuple[Array, Array]
) -> Array:
    """Errors [N, 3] of :func:`magnitudes` by the covariance of the coefficients [N, 110].

    ``correlations`` are full matrices of BP [N, 55, 55] and RP [N, 55, 55].
    """
    fluxes, _ = band_fluxes()
    variance = np.zeros((len(coefficients), len(fluxes)))
    weighted = np.split(fluxes * errors[:, None], [WIDTHS[0]], axis=2)
    for by_flux, matrix in zip(weighted, correlations, strict=True):
        variance += np.einsum("nbi,nij,nbj->nb", by_flux, matrix, by_flux)
    relative = np.sqrt(variance) / np.abs(coefficients @ fluxes.T)
    return np.asarray(2.5 / np.log(10) * relative)


def extinction(wavelength: Array) -> tuple[Array, dict[str, float]]:
    """A(lambda) / A_V at ``wavelength`` [L] in nm, and A / A_V of the 2MASS and WISE bands.

    The law is that of Gordon et al. 2023 at R_V = 3.1. Raises :class:`InputError` without
    ``dust_extinction``.
    """
    try:
        from dust_extinction.parameter_averages import G23
    except ImportError:
        raise InputError(
            "extinction by dust needs dust_extinction, which is not installed",
            remedy="pip install 'xplabels[library]', or, in training, set reddening = 0 in the "
            "recipe",
        ) from None
    import astropy.units as u

    law = G23(Rv=R_V)
    curve = np.asarray(law(wavelength * 1e-3 * u.micron), np.float64)
    micron = CENTRAL_WAVELENGTH.items()
    return curve, {name: float(law(np.array([at]) * u.micron)[0]) for name, at in micron}
