"""The sampling matrix against GaiaXPy on real sources, and the map from flux to coefficients."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

from xplabels.core.errors import InputError
from xplabels.core.stars import SampledSpectra, Stars
from xplabels.features import FeatureSet
from xplabels.features.projection import FLUX_UNIT, Projection, default_projection, field_prior
from xplabels.synthetic import example_stars


@pytest.fixture(scope="module")
def projection() -> Projection:
    pytest.importorskip("gaiaxpy")
    return default_projection()


def coefficients(stars: Stars) -> np.ndarray:
    return np.concatenate([stars.spectra.bp.coefficients, stars.spectra.rp.coefficients], axis=1)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Stars:
    from xplabels.io import read

    stars = read(shared_data / "xp_archive" / "XP_CONTINUOUS_RAW.csv")
    return stars[np.isfinite(coefficients(stars)).all(axis=1)]


def sampled(projection: Projection, c: np.ndarray) -> SampledSpectra:
    flux = c @ projection.design.T
    return SampledSpectra(projection.wavelength, flux, np.full_like(flux, FLUX_UNIT))


def test_the_design_is_gaiaxpy_s_calibration_of_real_sources(projection, real, shared_data) -> None:
    from gaiaxpy import calibrate

    path = str(shared_data / "xp_archive" / "XP_CONTINUOUS_RAW.csv")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        wanted, wavelength = calibrate(path, truncation=False, save_file=False)
    by_id = dict(zip(wanted["source_id"], wanted["flux"], strict=True))
    np.testing.assert_allclose(projection.wavelength, wavelength)
    flux = coefficients(real) @ projection.design.T
    assert len(real) > 0
    for source_id, row in zip(real.source_id, flux, strict=True):
        np.testing.assert_allclose(row, by_id[source_id], rtol=1e-9, atol=1e-12 * np.abs(row).max())


def test_flux_and_coefficients_of_one_star_meet_in_the_same_inputs(projection, real) -> None:
    features = FeatureSet((55, 55), (), projection=projection)
    archive = features.compute(real).x
    from_flux = features.compute(
        Stars.of(real.source_id, sampled(projection, coefficients(real)))
    ).x
    np.testing.assert_allclose(from_flux, archive, rtol=1e-7, atol=1e-7 * np.abs(archive).max())


def test_the_map_is_linear_in_the_flux_without_an_offset(projection, real) -> None:
    c = coefficients(real)
    one = projection.coefficients(sampled(projection, c))
    np.testing.assert_allclose(projection.coefficients(sampled(projection, 7.0 * c)), 7.0 * one)
    np.testing.assert_allclose(
        one, c @ projection.from_coefficients.T, rtol=1e-9, atol=1e-9 * np.abs(one).max()
    )
    assert (projection.coefficients(sampled(projection, 0.0 * c)) == 0).all()


def test_the_mapped_spectrum_is_the_spectrum(projection, real) -> None:
    """c^ differs from c only where the samples cannot tell."""
    c = coefficients(real)
    flux = c @ projection.design.T
    again = (c @ projection.from_coefficients.T) @ projection.design.T
    peak = np.abs(flux).max(axis=1, keepdims=True)
    assert (np.abs(again - flux) / peak).max() < 0.01


def test_the_map_is_the_posterior_mean_of_a_gaussian_prior() -> None:
    """c^ = mu + K (f - D mu) for a spectrum of unit mean flux, by another formula for K."""
    random = np.random.default_rng(0)
    n, samples = 5, 9
    design = random.uniform(0.1, 1, (samples, n)) * FLUX_UNIT
    d = design / FLUX_UNIT
    mean = random.uniform(0.5, 1, n)
    mean /= d.mean(axis=0) @ mean
    root = random.standard_normal((n, n))
    covariance = root @ root.T
    projection = Projection.from_prior(
        np.arange(9.0), design, (3, 2), mean, covariance, np.ones(n), noise=0.1
    )
    c = mean + 0.2 * random.standard_normal(n)
    f = d @ c
    f /= f.mean()
    noise = 0.1 * (d @ mean).max()
    information = np.linalg.inv(covariance) + d.T @ d / noise**2
    wanted = mean + np.linalg.solve(information, d.T @ (f - d @ mean) / noise**2)
    spectra = SampledSpectra(np.arange(9.0), f[None] * FLUX_UNIT, f[None] * FLUX_UNIT)
    np.testing.assert_allclose(projection.coefficients(spectra)[0], wanted, rtol=1e-9)


def test_template_errors_reproduce_the_stated_flux_errors(projection) -> None:
    """Where a star's errors are the template's, in each band by its own scale, they come back."""
    template = projection.error_template
    truth = np.array([[3.0], [40.0]]) * template
    truth[:, 55:] *= 2.0
    flux_error = np.sqrt(truth**2 @ (projection.design**2).T)
    spectra = SampledSpectra(projection.wavelength, np.ones_like(flux_error), flux_error)
    np.testing.assert_allclose(projection.coefficient_errors(spectra), truth, rtol=1e-9)


def test_the_design_has_samples_of_one_band_alone(projection) -> None:
    assert ((projection.design[:, 55:] == 0).all(axis=1)).sum() > 50
    assert ((projection.design[:, :55] == 0).all(axis=1)).sum() > 50


def test_the_sampling_s_rank_is_what_was_measured(projection) -> None:
    """METHOD 6: singular values fall from 1 to 3e-4 at the 85th and 1e-7 at the 100th."""
    values = np.linalg.svd(projection.design, compute_uv=False)
    assert 1e-4 < values[84] / values[0] < 1e-3
    assert values[99] / values[0] < 1e-6


def test_the_field_prior_is_mean_and_covariance_at_unit_mean_flux() -> None:
    random = np.random.default_rng(2)
    design = random.uniform(0.5, 1, (6, 4)) * FLUX_UNIT
    clean = random.uniform(1, 2, (50, 4))
    clean /= (clean @ (design / FLUX_UNIT).mean(axis=0))[:, None]
    errors = np.tile([1.0, 2.0, 3.0, 5.0], (50, 1)) * random.uniform(1, 9, (50, 1))
    brightness = random.uniform(1, 1e4, (50, 1))
    prior = field_prior(clean * brightness, errors * brightness, design, (3, 1))
    np.testing.assert_allclose(prior["mean"], clean.mean(axis=0))
    np.testing.assert_allclose(prior["covariance"], np.cov(clean.T), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(prior["error_template"], [0.5, 1.0, 1.5, 1.0])


def test_another_sampling_is_an_error_that_says_both(projection) -> None:
    wavelength = np.arange(400.0, 900.0, 10.0)
    flux = np.ones((1, len(wavelength)))
    with pytest.raises(InputError, match=r"50 wavelengths \(400-890 nm\).*343 \(336-1020 nm\)"):
        projection.coefficients(SampledSpectra(wavelength, flux, flux))


def test_archive_stars_may_go_through_a_model_of_samples(projection) -> None:
    stars = example_stars(3)
    x = FeatureSet((55, 55), (), projection=projection).compute(stars).x
    assert np.isfinite(x).all()
    np.testing.assert_allclose(x[:, 55], 1.0)
