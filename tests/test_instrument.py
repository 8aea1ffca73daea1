"""The instrument against direct quadrature, GaiaXPy's own calibration and real sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, interpolate, special

pytest.importorskip("gaiaxpy")

from xplabels.core.errors import InputError
from xplabels.features.projection import quiet, unit_vectors
from xplabels.instrument import (
    Instrument,
    archive_bases,
    band_fluxes,
    bin_flux,
    gaiaxpy_instrument,
    magnitude_errors,
    magnitudes,
    sampled_flux,
)
from xplabels.instrument.sed import Sed
from xplabels.io import read

QUADRATURE_TOLERANCE = 1e-6
"""Of a band's largest coefficient."""


@pytest.fixture(scope="module")
def instrument() -> Instrument:
    return gaiaxpy_instrument()


def direct_quadrature(band: str, model: str, flux: float) -> NDArray[np.float64]:
    """The coefficients of a flat spectrum, by Simpson's rule in steps of 0.005 nm for each moment.

    Hermite polynomials and files are evaluated here by other code than the package's.
    """
    from gaiaxpy.config.paths import config_path
    from gaiaxpy.file_parser.parse_inverse import InverseBasesParser

    def table(key: str) -> NDArray[np.float64]:
        return np.genfromtxt(Path(config_path) / f"{band}C03_{model}_{key}.csv", delimiter=",")

    with quiet():
        parsed, _ = InverseBasesParser().parse_file(
            str(Path(config_path) / f"{band}C03_{model}_bases.csv")
        )
    bases = parsed.iloc[0]
    dispersion = interpolate.CubicSpline(*table("dispersion"), bc_type="not-a-knot")
    response = interpolate.CubicSpline(*table("response"), bc_type="not-a-knot")
    scale = (bases["normRangeMax"] - bases["normRangeMin"]) / bases["pwlRangeMax"]

    start = max(310.0, float(table("dispersion")[0, 0]))
    wavelength = np.linspace(start, 1100.0, 160_001)
    u = bases["normRangeMin"] + scale * dispersion(wavelength)
    photons = 0.7278 * np.maximum(response(wavelength), 0.0) * wavelength * flux
    photons /= 1e9 * 2.99792458e8 * 6.62607004e-34
    photons *= np.abs(scale * dispersion(wavelength, 1)) * np.exp(-(u**2) / 2)
    seen = photons > 0
    moments = np.zeros(55)
    for k in range(55):
        norm = 1 / np.sqrt(2.0**k * special.gamma(k + 1) * np.sqrt(np.pi))
        integrand = np.zeros_like(wavelength)
        integrand[seen] = norm * special.eval_hermite(k, u[seen]) * photons[seen]
        moments[k] = integrate.simpson(integrand, x=wavelength)
    inverse = np.reshape(bases["inverseBasesCoefficients"], (55, 55))
    rotation = np.reshape(bases["transformationMatrix"], (55, 55))
    return rotation @ np.linalg.inv(inverse).T @ moments


@pytest.mark.parametrize(
    ("band", "model", "columns"), [("bp", "v375wi", slice(55)), ("rp", "v142r", slice(55, 110))]
)
def test_a_flat_spectrum_agrees_with_direct_quadrature(
    instrument: Instrument, band: str, model: str, columns: slice
) -> None:
    found = instrument.coefficients(Sed.of([300.0, 1100.0], [1e-17, 1e-17]))[0, columns]
    expected = direct_quadrature(band, model, 1e-17)
    assert np.abs(found - expected).max() < QUADRATURE_TOLERANCE * np.abs(expected).max()


def test_bins_hold_the_exact_integral_of_the_straight_lines() -> None:
    random = np.random.default_rng(3)
    wavelength = np.concatenate([[300.0], np.sort(random.uniform(310, 1090, 90)), [1095.0]])
    sed = Sed.of(wavelength, random.uniform(-1, 1, len(wavelength)))
    edges = np.linspace(310.0, 1100.0, 40)
    fine = np.linspace(310.0, 1100.0, 39 * 20001)
    twin = np.interp(fine, wavelength, sed.flux, left=0.0, right=0.0).reshape(39, -1).mean(axis=1)
    # what lies beyond the SED's end counts as no light
    np.testing.assert_allclose(bin_flux(sed, edges), twin, atol=1e-4)


def test_short_spectra_are_refused_or_held_constant(instrument: Instrument) -> None:
    short = Sed.of([340.0, 1020.0], [1e-17, 1e-17], name="short.csv")
    told = r"short.csv: covers 340-1020 nm, needed is 330-1050.*--extrapolate"
    with pytest.raises(InputError, match=told):
        instrument.coefficients(short)
    flat = Sed.of([300.0, 1110.0], [1e-17, 1e-17])
    held = instrument.coefficients(short, extrapolate=True)
    np.testing.assert_allclose(held, instrument.coefficients(flat), rtol=1e-12)


def test_the_bases_are_the_archives() -> None:
    """GaiaXPy's converter evaluates the same bases from another file."""
    from gaiaxpy import convert

    with quiet():
        sampled, _ = convert(unit_vectors(), sampling=np.arange(0.0, 59.1, 0.5), save_file=False)
    for band, bases in zip(("BP", "RP"), archive_bases(), strict=True):
        rows = sampled[sampled["xp"] == band].sort_values("source_id")
        flux = np.stack(list(rows["flux"]))
        own = flux[:55] if band == "BP" else flux[55:]
        np.testing.assert_allclose(bases, own, atol=1e-9)


def test_real_faint_sources_come_back_within_their_errors(
    shared_data: Path, instrument: Instrument
) -> None:
    from gaiaxpy import calibrate

    field = read(shared_data / "xp_field_2000.fits").spectra
    coefficients, errors = field.coefficients, field.errors
    faint = magnitudes(coefficients)[:, 0] > 17
    coefficients, errors = coefficients[faint], errors[faint]
    wavelength = np.arange(330.0, 1050.1, 1.0)
    with quiet():
        sampled, _ = calibrate(unit_vectors(), sampling=wavelength, save_file=False)
    design = np.stack(list(sampled.sort_values("source_id")["flux"])).T
    back = instrument.coefficients([Sed.of(wavelength, design @ row) for row in coefficients])
    z = np.median(np.abs(back - coefficients) / errors, axis=0)
    assert len(coefficients) > 400
    assert np.median(z) < 0.5
    assert (z < 1.0).mean() > 0.9
    assert z.max() < 2.5  # the last coefficients hold what no light at 330-1050 nm can make


def test_the_inverse_direction_is_gaiaxpys_calibrate(shared_data: Path) -> None:
    from gaiaxpy import calibrate

    path = shared_data / "xp_archive" / "XP_CONTINUOUS_RAW.csv"
    wavelength, flux = sampled_flux(read(path).spectra.coefficients)
    with quiet():
        expected, sampling = calibrate(str(path), truncation=False, save_file=False)
    np.testing.assert_allclose(wavelength, sampling)
    truth = np.stack(list(expected["flux"]))
    np.testing.assert_allclose(flux, truth, atol=1e-12 * np.abs(truth).max())


def test_magnitudes_are_those_of_the_band_fluxes(instrument: Instrument) -> None:
    flat = instrument.coefficients(Sed.of([300.0, 1100.0], [1e-16, 1e-16]))
    brighter = magnitudes(100 * flat)
    np.testing.assert_allclose(magnitudes(flat) - brighter, 5.0, atol=1e-12)
    _, bp, rp = band_fluxes()[0]
    ratio = (flat @ bp) / (flat @ rp)
    colour = magnitudes(flat)[:, 1] - magnitudes(flat)[:, 2]
    # zero points of GaiaXPy's Gaia DR3 Vega system
    assert colour == pytest.approx(-2.5 * np.log10(ratio) + 1.2509, abs=2e-4)
    assert np.isnan(magnitudes(-flat)).all()
    assert instrument.coefficients([]).shape == (0, 110)


def test_magnitude_errors_follow_a_simulation(instrument: Instrument) -> None:
    random = np.random.default_rng(5)
    flat = instrument.coefficients(Sed.of([300.0, 1100.0], [1e-16, 1e-16]))
    errors = np.full_like(flat, 0.002 * flat[0, 55])
    index = np.arange(55)
    matrix = 0.5 ** np.abs(index[:, None] - index)
    told = magnitude_errors(flat, errors, (matrix[None], matrix[None]))[0]
    root = np.linalg.cholesky(matrix)
    noise = np.concatenate([random.standard_normal((4000, 55)) @ root.T for _ in range(2)], axis=1)
    seen = magnitudes(flat + errors * noise).std(axis=0)
    np.testing.assert_allclose(seen, told, rtol=0.05)
