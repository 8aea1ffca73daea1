"""Z-scores, and the completion of missing inputs against a brute-force conditional Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twins import conditional
from xplabels.core.errors import InputError
from xplabels.features.scaling import RIDGE, Completion, Scaling


def correlated(n: int = 3000, width: int = 6, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_normal((n, width)) @ random.standard_normal((width, width)) + 5


def test_z_scores_have_unit_scatter_and_missing_entries_do_not_count() -> None:
    x, y = correlated(), correlated(width=2, seed=1)
    x[::7, 5] = np.nan
    y[::3, 1] = np.nan
    scaling = Scaling.fit(x, y)
    scaled = scaling.scale_x(x)
    np.testing.assert_allclose(np.nanmean(scaled, 0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(scaled, 0), 1)
    values, errors = scaling.scale_y(y, np.full_like(y, 0.5))
    np.testing.assert_allclose(np.nanstd(values, 0), 1)
    np.testing.assert_allclose(errors, 0.5 / np.nanstd(y, 0) * np.ones_like(y))
    assert np.isnan(values[::3, 1]).all()


def test_an_input_that_never_varies_keeps_the_scale_one() -> None:
    x = correlated()
    x[:, 2] = 1.0
    scaling = Scaling.fit(x, x[:, :1])
    assert scaling.x_scale[2] == 1.0
    assert (scaling.scale_x(x)[:, 2] == 0).all()
    assert np.isfinite(scaling.x_correlation).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(-1e5, 1e5), st.floats(1e-3, 1e3))
def test_scaling_can_be_undone(seed, shift, stretch) -> None:
    y = correlated(50, 3, seed) * stretch + shift
    scaling = Scaling.fit(y, y)
    values, errors = scaling.scale_y(y, np.ones_like(y))
    np.testing.assert_allclose(
        values * scaling.y_scale + scaling.y_mean, y, rtol=1e-9, atol=1e-9 * abs(shift)
    )
    np.testing.assert_allclose(errors * scaling.y_scale, 1)


def test_a_logarithmic_label_has_errors_in_per_cent_that_come_back_in_its_unit() -> None:
    random = np.random.default_rng(0)
    teff, logg = random.uniform(3000, 30000, 500), random.uniform(0, 5, 500)
    y, errors = np.stack([teff, logg], axis=1), np.stack([0.01 * teff, np.full(500, 0.1)], axis=1)
    scaling = Scaling.fit(y, y, labels=("teff", "logg"), logarithmic=("teff",))
    scaled, relative = scaling.scale_y(y, errors)
    np.testing.assert_allclose(
        scaled[:, 0] * np.log(teff).std() + np.log(teff).mean(), np.log(teff)
    )
    assert np.ptp(relative[:, 0]) < 1e-12
    np.testing.assert_allclose(scaling.unscale_y(scaled), y)
    np.testing.assert_allclose(relative * scaling.y_unit(y), errors)
    step = 1e-6
    moved = scaling.unscale_y(scaled + step)
    np.testing.assert_allclose((moved - y) / step, scaling.y_unit(y), rtol=1e-5)


def test_correlations_are_numpy_s() -> None:
    x = correlated()
    np.testing.assert_allclose(
        Scaling.fit(x, x).x_correlation, np.corrcoef(x.T), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("what", ["input", "label"])
def test_what_no_star_has_cannot_be_learnt(what) -> None:
    x, y = correlated(100), correlated(100, 2)
    (x if what == "input" else y)[:, 1] = np.nan
    with pytest.raises(InputError, match=f"{what} number 1 is missing for every training star"):
        Scaling.fit(x, y)


def test_every_pattern_is_the_conditional_gaussian() -> None:
    spectral, auxiliary = 4, 3
    c = np.corrcoef(correlated(500, spectral + auxiliary).T)
    weights, covariances = Completion(c, spectral).rules()
    assert weights.shape == (8, auxiliary, spectral + auxiliary)
    for number in range(8):
        gone = np.array([bool(number & 2**a) for a in range(auxiliary)])
        missing = np.concatenate([np.zeros(spectral, bool), gone])
        b, covariance = np.zeros((auxiliary, 7)), np.zeros((auxiliary, auxiliary))
        if gone.any():
            mean_rule, block = conditional(c + RIDGE * np.eye(7), missing)
            b[np.ix_(gone, ~missing)] = mean_rule
            covariance[np.ix_(gone, gone)] = block
        np.testing.assert_allclose(weights[number], b, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(covariances[number], covariance, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("relative", [0.3, 1.0, 2.0, 4.0])
def test_the_charge_for_a_missing_input_is_right_at_any_noise(relative: float) -> None:
    """Linear stars of known truth: with an excess for the pattern exact, without one not too small.

    The "network" is the regression on noisy inputs, and so are the statistics it is completed
    with; the stars judged are less or more noisy.
    """
    spectral, sigma, n = 6, 0.8, 100_000
    random = np.random.default_rng(8)
    to_spectrum, to_colour = random.standard_normal((3, 6)), random.standard_normal((3, 2))

    def draw(noise: float) -> tuple[np.ndarray, np.ndarray]:
        hidden = random.standard_normal((n, 3))
        colour = hidden @ to_colour + 0.3 * random.standard_normal((n, 2))
        label = hidden[:, 0] + 0.5 * colour[:, 0] + 0.2 * random.standard_normal(n)
        spectrum = hidden @ to_spectrum + noise * random.standard_normal((n, 6))
        return np.hstack([spectrum, colour + 0.5 * random.standard_normal((n, 2))]), label

    x, y = draw(sigma)
    scaling = Scaling.fit(x, y[:, None])
    slope = np.linalg.lstsq(scaling.scale_x(x), y - y.mean(), rcond=None)[0]
    b, scatter = Completion(scaling.x_correlation, spectral).rule(0b11)
    effective = slope[:spectral] + slope[spectral:] @ b[:, :spectral]
    charge = slope[spectral:] @ scatter @ slope[spectral:]

    def noise_of(by_input: np.ndarray, level: float) -> float:
        errors = np.array([level] * 6 + [0.5] * 2)[: len(by_input)]
        return float(((by_input * errors / scaling.x_scale[: len(by_input)]) ** 2).sum())

    def residual(stars: np.ndarray, labels: np.ndarray, by_input: np.ndarray) -> float:
        z = scaling.scale_x(stars)[:, : len(by_input)]
        return float(np.var(labels - z @ by_input))

    complete = residual(x, y, slope) - noise_of(slope, sigma)
    excess = residual(x, y, effective) - noise_of(effective, sigma) - charge
    true = residual(*draw(relative * sigma), effective)
    own = noise_of(effective, relative * sigma)
    assert excess > 0
    assert excess + charge + own == pytest.approx(true, rel=0.02)
    assert complete > excess  # a network that is not told errs on the side of larger errors
    # what it is without the noise of the training set falls short
    training_noise = np.diag((0.5 / scaling.x_scale[spectral:]) ** 2)
    training_noise += (b[:, :spectral] * (sigma / scaling.x_scale[:spectral]) ** 2) @ (
        b[:, :spectral].T
    )
    intrinsic = slope[spectral:] @ (scatter - training_noise) @ slope[spectral:]
    assert 0 < intrinsic < charge
    assert complete + intrinsic < 0.97 * (excess + charge)


def test_an_input_without_scatter_does_not_break_the_completion() -> None:
    x = correlated()
    x[:, 1] = 1.0
    b, covariance = Completion(Scaling.fit(x, x).x_correlation, 4).rule(0b11)
    assert np.isfinite(b).all()
    assert (b[:, 1] == 0).all()
    assert (np.linalg.eigvalsh(covariance) > 0).all()


def test_a_spoilt_spectrum_s_logarithmic_label_stays_positive_and_finite() -> None:
    y = np.random.default_rng(0).uniform(3000, 30000, (500, 2))
    scaling = Scaling.fit(y, y, labels=("teff", "logg"), logarithmic=("teff",))
    with np.errstate(all="raise"):
        values = scaling.unscale_y(np.array([[1e6, 0.0], [-1e6, 0.0], [np.nan, 0.0]]))
        units = scaling.y_unit(values)
    assert (values[:2, 0] > 0).all()
    assert np.isfinite(values[:2]).all()
    assert (units[:2] > 0).all()
    assert np.isnan(values[2, 0])
