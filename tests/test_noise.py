"""The noise model against planted truth, its own slow twin and 2,000 real stars."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("gaiaxpy")

from noise_model import fit_noise
from xplabels.core.errors import InputError
from xplabels.instrument import archive_bases, gaiaxpy_instrument, magnitudes, noise
from xplabels.instrument.sed import Sed
from xplabels.io import read


def test_a_planted_model_is_found_in_spite_of_outliers() -> None:
    random = np.random.default_rng(1)
    g, colour = random.uniform(8, 18, 1500), random.uniform(0.4, 2.8, 1500)
    weights = 0.3 * random.standard_normal((noise.terms(g[:1], colour[:1]).shape[1], 4))
    errors = np.exp(noise.terms(g, colour) @ weights + 0.05 * random.standard_normal((1500, 4)))
    errors[::20] *= 8.0
    model = fit_noise(errors, g, colour)
    truth = np.exp(noise.terms(g, colour) @ weights)
    ratio = model.errors(g, colour) / truth
    assert np.abs(np.log(ratio)).max() < 0.06
    # plain least squares would not have
    plain = np.linalg.lstsq(noise.terms(g, colour), np.log(errors), rcond=None)[0]
    assert np.abs(noise.terms(g, colour) @ plain - np.log(truth)).max() > 0.1


@given(st.floats(3, 21), st.floats(-1, 6))
def test_errors_are_positive_and_finite(g: float, colour: float) -> None:
    errors = noise.noise_model().errors(np.array([g]), np.array([colour]))
    assert errors.shape == (1, 110)
    assert (errors > 0).all()
    assert np.isfinite(errors).all()


def test_errors_relative_to_the_flux_grow_with_magnitude() -> None:
    g = np.arange(7.5, 20.0, 0.5)
    errors = noise.noise_model().errors(g, np.full_like(g, 1.0))
    relative = errors / 10 ** (-0.4 * g)[:, None]
    # from the stars that are free of gates on; brighter ones are limited by systematics
    assert (np.diff(relative[g >= 13], axis=0) > 0).all()
    assert (np.diff(errors[:, [0, 55]], axis=0) < 0).all()
    # colours beyond the fit count as its ends
    ends = noise.noise_model().errors(
        np.full(2, 15.0), noise.COLOUR_RANGE[1] + np.array([0.0, 2.0])
    )
    np.testing.assert_array_equal(ends[0], ends[1])


@pytest.mark.parametrize(("g", "colour"), [(2.0, 1.0), (22.0, 1.0), (np.nan, 1.0), (15.0, np.nan)])
def test_stars_of_unknown_errors_are_named(g: float, colour: float) -> None:
    with pytest.raises(InputError, match="star 2: no errors are known"):
        noise.noise_model().errors(np.array([15.0, g]), np.array([1.0, colour]))


def test_correlations_are_those_of_a_least_squares_fit() -> None:
    """Fit noisy samples many times and look at how the coefficients scatter together."""
    flat = gaiaxpy_instrument().coefficients(Sed.of([300.0, 1100.0], [1e-16, 1e-16]))
    matrices = noise.illustrative_correlations(flat)
    random = np.random.default_rng(2)
    for band, bases, matrix in zip(
        (flat[0, :55], flat[0, 55:]), archive_bases(), matrices, strict=True
    ):
        spectrum = np.clip(band @ bases, 0, None)
        sigma = np.sqrt(spectrum + noise.BACKGROUND * spectrum.max())
        samples = sigma * random.standard_normal((20_000, len(sigma)))
        fits = np.linalg.lstsq((bases / sigma).T, (samples / sigma).T, rcond=None)[0]
        np.testing.assert_allclose(np.corrcoef(fits), matrix[0], atol=0.035)
        assert np.linalg.eigvalsh(matrix[0]).min() > 0
        np.testing.assert_allclose(np.diag(matrix[0]), 1.0)


def test_real_errors_lie_within_the_stated_factor(shared_data: Path) -> None:
    path = shared_data / "xp_field_2000.fits"
    provenance = noise.noise_provenance()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == provenance["source_sha256"]
    field = read(path).spectra
    g, bp, rp = magnitudes(field.coefficients).T
    ratio = field.errors / noise.noise_model().errors(g, bp - rp)
    for share, factor in provenance["factor"].items():
        inside = np.abs(np.log(ratio)) < np.log(factor)
        assert inside.mean() > float(share.removesuffix(" %")) / 100
        assert inside.mean() < float(share.removesuffix(" %")) / 100 + 0.01
    # no coefficient and no brightness is left behind
    for low, high in ((10, 12), (12, 14), (14, 16), (16, 18)):
        median = np.median(ratio[(g > low) & (g <= high)], axis=0)
        assert np.abs(np.log(median)).max() < 0.1
