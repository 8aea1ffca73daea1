"""Simulated stars are what they claim, and error bars trained on them meet the known posterior."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from conftest import Judged
from twins import coefficient_covariance
from xplabels.core.flags import Flag
from xplabels.synthetic import LABEL_ERROR, POPULATION, simulate_stars, spectrum

NAMES = ("teff", "logg")
SPREAD = np.array([POPULATION[name][1] for name in NAMES])
LEVELS = (1.0, 6.0, 20.0)
HIDDEN = 0.1


def bound(share: float, n: int) -> float:
    """Four binomial standard deviations."""
    return 4 * float(np.sqrt(share * (1 - share) / n))


def test_everything_follows_from_the_seed() -> None:
    one, other, third = (simulate_stars(20, seed=s)[0] for s in (5, 5, 6))
    np.testing.assert_array_equal(one.spectra.bp.coefficients, other.spectra.bp.coefficients)
    np.testing.assert_array_equal(one.labels.values, other.labels.values)
    assert not np.array_equal(one.labels.values, third.labels.values)
    assert not set(one.source_id) & set(third.source_id)


def test_noise_is_drawn_from_the_stated_covariance() -> None:
    """One seed at two noise levels differs by the noise alone, which whitens to unit scatter."""
    n = 1500
    loud, quiet = (
        simulate_stars(n, widths=(8, 7), noise=noise, seed=2)[0] for noise in (2.0, 1e-9)
    )
    bands = (
        (getattr(s.spectra, band).coefficients for s in (loud, quiet)) for band in ("bp", "rp")
    )
    noise = np.concatenate([one - other for one, other in bands], axis=1)
    roots = np.linalg.cholesky([coefficient_covariance(loud.spectra, star) for star in range(n)])
    white = np.linalg.solve(roots, noise[:, :, None])[:, :, 0]
    np.testing.assert_allclose(np.cov(white.T), np.eye(15), atol=5 / np.sqrt(n))
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3


def test_labels_and_magnitudes_scatter_by_their_errors() -> None:
    stars, truth = simulate_stars(4000, labels=NAMES, seed=3)
    z = (stars.labels.values - truth.values) / stars.labels.errors
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(stars.labels.errors, LABEL_ERROR * SPREAD * np.ones((4000, 1)))
    np.testing.assert_allclose(truth.values.std(axis=0), SPREAD, rtol=0.05)

    colour = stars.photometry.column("h_m")[0] - stars.photometry.column("ks_m")[0]
    # H - Ks = 0.1 - 0.02 of the first label, of unit scatter
    assert colour.std() == pytest.approx(np.hypot(0.02, np.hypot(0.02, 0.02)), rel=0.05)


@pytest.mark.parametrize("level", LEVELS)
def test_intervals_cover_the_truth_at_every_noise_level(curved: Judged, level: float) -> None:
    """No recalibration: the likelihood alone made these errors; label errors are not in them."""
    rows = curved.levels == level
    off = np.abs(curved.truth.values - curved.prediction.values)[rows]
    for errors, share in (
        (curved.prediction.errors, 0.6827), (curved.prediction.errors_95, 0.9545),
    ):  # fmt: skip
        covered = (off < errors[rows]).mean(axis=0)
        np.testing.assert_allclose(covered, share, rtol=0, atol=bound(share, int(rows.sum())))
    residual = (curved.truth.values - curved.prediction.values)[rows]
    stated = np.sqrt((curved.prediction.errors[rows] ** 2).mean(axis=0))
    np.testing.assert_allclose(residual.std(axis=0) / stated, 1, atol=0.08)
    # systematic shifts are small beside the errors
    assert (np.abs(residual.mean(axis=0)) < 0.15 * stated).all()


@pytest.mark.parametrize("which", ["curved", "straight"])
def test_the_input_error_grows_as_the_noise(which: str, request: pytest.FixtureRequest) -> None:
    case: Judged = request.getfixturevalue(which)
    low, middle, high = (
        np.median(case.prediction.errors_input[case.levels == level], axis=0) for level in LEVELS
    )
    np.testing.assert_allclose(middle / low, 6, rtol=0.05)
    np.testing.assert_allclose(high / middle, 20 / 6, rtol=0.05)


def test_the_excess_is_the_scatter_that_spectra_do_not_show(curved: Judged) -> None:
    excess = np.median(curved.prediction.errors_excess, axis=0)
    np.testing.assert_allclose(excess / SPREAD, HIDDEN, rtol=0.1)


def posterior_sigma(case: Judged, star: int) -> np.ndarray:
    """Of the labels' visible part, brightness unknown: a linear Gaussian model, prior N(0, 1).

    c = b (mean + A y): the derivatives by b and y at the truth, weighted by the noise.
    """
    bp, rp = case.stars.spectra.widths

    def clean(y: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [spectrum(y[None], width, number, 0.0)[0] for number, width in enumerate((bp, rp))]
        )

    centre = np.array([POPULATION[name][0] for name in NAMES])
    y = (case.truth.values[star] - centre) / SPREAD
    brightness = case.stars.spectra.rp.coefficients[star, 0] / clean(y)[bp]
    slopes = np.stack(
        [clean(y)] + [brightness * (clean(y + step) - clean(y)) for step in np.eye(2)], axis=1
    )
    information = slopes.T @ np.linalg.solve(
        coefficient_covariance(case.stars.spectra, star), slopes
    )
    information += np.diag([0.0, 1.0, 1.0])
    return np.sqrt(np.diag(np.linalg.inv(information))[1:]) * SPREAD


@pytest.mark.parametrize("level", LEVELS)
def test_errors_are_the_analytic_posterior_s(straight: Judged, level: float) -> None:
    rows = np.flatnonzero(straight.levels == level)[:60]
    visible = np.stack([posterior_sigma(straight, star) for star in rows])
    wanted = np.hypot(visible, HIDDEN * SPREAD)
    ratio = np.median(straight.prediction.errors[rows] / wanted, axis=0)
    np.testing.assert_allclose(ratio, 1, atol=0.12)
    if level == LEVELS[-1]:  # where noise is what matters, its part alone is right too
        parts = np.median(straight.prediction.errors_input[rows] / visible, axis=0)
        np.testing.assert_allclose(parts, 1, atol=0.2)


def test_errors_follow_the_stars_one_by_one(straight: Judged) -> None:
    """Among stars of one level the stated input error varies as the posterior's does."""
    rows = np.flatnonzero(straight.levels == 20.0)[:80]
    wanted = np.log(np.stack([posterior_sigma(straight, star) for star in rows]))
    got = np.log(straight.prediction.errors_input[rows])
    for k in range(2):
        assert np.corrcoef(wanted[:, k], got[:, k])[0, 1] > 0.8


def test_hardly_any_fresh_star_is_flagged(curved: Judged) -> None:
    flags = curved.prediction.flags
    assert ((flags & Flag.OUT_OF_DOMAIN) != 0).mean() < 0.03
    assert ((flags & Flag.VARIANCE_CLAMPED) == 0).all()
    assert ((flags & Flag.NO_PREDICTION) == 0).all()
