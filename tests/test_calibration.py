"""Recalibrated intervals cover what they say; stars unlike the training set are recognised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xplabels.calibration.domain import COMPONENTS, FLAGGED_SHARE, Domain
from xplabels.calibration.factors import Calibration, conformal_quantile
from xplabels.calibration.local import SMALLEST_FACTOR
from xplabels.core.distribution import LEVEL_68, LEVEL_95


def covered(calibration: Calibration, residuals, variance, errors) -> list[np.ndarray]:
    sigma = np.sqrt(variance)
    return [
        np.nanmean(np.abs(residuals) <= np.hypot(factor * sigma, times * errors), axis=0)
        for factor, times in ((calibration.factor, 1), (calibration.factor_95, 2))
    ]


@pytest.mark.parametrize(
    "law", [stats.norm(), stats.t(4), stats.t(2.5)], ids=["norm", "t4", "t2.5"]
)
@pytest.mark.parametrize("wrong", [0.5, 1.0, 3.0])
def test_fresh_stars_are_covered_as_stated(law, wrong) -> None:
    """Residuals of a known law, stated errors wrong by a factor, and label errors on top."""
    random = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sigma = random.uniform(0.5, 2.0, (n, 2))
        errors = random.uniform(0.05, 0.3, (n, 2))
        residuals = law.rvs(size=(n, 2), random_state=random) * sigma
        return residuals + errors * random.standard_normal((n, 2)), (wrong * sigma) ** 2, errors

    calibration = Calibration.fit(*draw(20000))
    one, two = covered(calibration, *draw(20000))
    np.testing.assert_allclose(one, LEVEL_68, atol=0.02)
    np.testing.assert_allclose(two, LEVEL_95, atol=0.01)
    np.testing.assert_allclose(calibration.factor, law.ppf(0.5 + LEVEL_68 / 2) / wrong, rtol=0.05)


@pytest.mark.parametrize("n", [20, 99])
def test_the_guarantee_of_few_stars(n: int) -> None:
    """In the mean of many draws a new star is inside with the level or up to 1 / (n + 1) more."""
    random = np.random.default_rng(n)
    draws = 4000
    sigma, errors = random.uniform(0.5, 2, (2, n + 1, draws))
    residuals = sigma * random.standard_t(4, (n + 1, draws)) + errors * random.normal(size=draws)
    variance = (0.7 * sigma) ** 2
    calibration = Calibration.fit(residuals[:n], variance[:n], errors[:n])
    inside = covered(calibration, residuals[n:], variance[n:], errors[n:])
    for share, level in zip(inside, (LEVEL_68, LEVEL_95), strict=True):
        wanted = min(np.ceil((n + 1) * level), n) / (n + 1)
        scatter = np.sqrt(wanted * (1 - wanted) / draws)
        assert share.mean() == pytest.approx(wanted, abs=3.5 * scatter)
    # with fewer than 22 stars no interval of theirs holds 95.4 % of all
    assert (np.ceil((n + 1) * LEVEL_95) <= n) == (n == 99)


def test_conformal_half_widths_are_those_of_crepes() -> None:
    """Another implementation, label by label, also where labels are unknown."""
    crepes = pytest.importorskip("crepes")
    random = np.random.default_rng(3)
    residuals, sigma = random.standard_t(4, (257, 2)), random.uniform(0.5, 2, (257, 2))
    residuals[:60, 1] = np.nan
    calibration = Calibration.fit(residuals, sigma**2, 0 * sigma)
    new = random.uniform(0.5, 2, (40, 2))
    for level, factor in ((LEVEL_68, calibration.factor), (LEVEL_95, calibration.factor_95)):
        for k in range(2):
            known = np.isfinite(residuals[:, k])
            oracle = crepes.ConformalRegressor()
            oracle.fit(residuals=residuals[known, k], sigmas=sigma[known, k])
            intervals = oracle.predict_int(y_hat=np.zeros(40), sigmas=new[:, k], confidence=level)
            np.testing.assert_allclose(intervals[:, 1], factor[k] * new[:, k], rtol=1e-12)


def test_a_rank_beyond_the_stars_is_the_last_and_unknown_scores_do_not_count() -> None:
    scores = np.array([[3.0, np.nan], [1.0, 5.0], [2.0, np.nan]])
    np.testing.assert_array_equal(conformal_quantile(scores, 0.5), [2.0, 5.0])
    np.testing.assert_array_equal(conformal_quantile(scores, 0.99), [3.0, 5.0])
    assert np.isnan(conformal_quantile(scores * [1, np.nan], 0.5)[1])


def test_factors_follow_the_stated_variance_and_unknown_labels_do_not_count() -> None:
    random = np.random.default_rng(2)
    residuals, variance = random.standard_normal((3000, 2)), np.ones((3000, 2))
    errors = np.zeros((3000, 2))
    one = Calibration.fit(residuals, variance, errors)
    other = Calibration.fit(residuals, variance * [4.0, 0.25], errors)
    np.testing.assert_allclose(other.factor, one.factor * [0.5, 2.0])
    holes = residuals.copy()
    holes[1000:, 0] = np.nan
    partial = Calibration.fit(holes, variance, errors)
    short = Calibration.fit(residuals[:1000], variance[:1000], errors[:1000])
    assert partial.factor[0] == short.factor[0]
    assert partial.factor[1] == one.factor[1]


def test_label_errors_too_large_leave_an_error_bar() -> None:
    """A table that overstates its errors must not end its training in errors of zero."""
    residuals = np.random.default_rng(4).uniform(-1, 1, (500, 1))
    calibration = Calibration.fit(residuals, np.ones((500, 1)), np.full((500, 1), 5.0))
    assert calibration.factor_95 == calibration.factor == SMALLEST_FACTOR


def test_nominal_factors_are_the_law_s_quantiles() -> None:
    gaussian = Calibration.nominal(3, "gaussian", 4.0)
    np.testing.assert_allclose(gaussian.factor, np.ones(3), rtol=1e-4)
    np.testing.assert_allclose(gaussian.factor_95, 2 * np.ones(3), rtol=1e-4)
    student = Calibration.nominal(1, "student_t", 4.0)
    assert 2 * stats.t(4).cdf(student.factor[0]) - 1 == pytest.approx(LEVEL_68)
    assert 2 * stats.t(4).cdf(student.factor_95[0]) - 1 == pytest.approx(LEVEL_95)


def test_a_faint_star_is_not_given_tails_it_does_not_have() -> None:
    """Gaussian input noise of any size on heavy-tailed excess: both intervals keep their word."""
    random = np.random.default_rng(8)
    n = 40_000
    excess = np.ones((n, 1))
    noise = np.repeat([0.01, 9.0], n // 2)[:, None]
    residuals = random.standard_t(4, (n, 1)) + np.sqrt(noise) * random.standard_normal((n, 1))
    nothing = np.zeros((n, 1))
    bright = slice(0, n // 2)
    calibration = Calibration.fit(residuals[bright], excess[bright], nothing[bright], noise[bright])
    _, outer = calibration.half_widths(excess, noise)
    faint = np.abs(residuals[n // 2 :]) <= outer[n // 2 :]
    # an interval that took all noise for heavy-tailed would cover 98.8 %
    assert 0.945 < faint.mean() < 0.980


# how unlike the training set


def domain_inputs(n: int, seed: int, width: int = 60) -> np.ndarray:
    """Correlated inputs of five strong directions and weak noise in the rest."""
    directions = np.random.default_rng(0).standard_normal((5, width))
    random = np.random.default_rng(seed)
    return random.standard_normal((n, 5)) @ directions + 0.1 * random.standard_normal((n, width))


def test_one_star_in_a_hundred_like_those_trained_on_is_flagged() -> None:
    domain = Domain.fit(domain_inputs(20000, 1))
    share = (domain.distance(domain_inputs(20000, 2)) > domain.threshold).mean()
    assert share == pytest.approx(FLAGGED_SHARE, abs=4 * np.sqrt(0.01 * 0.99 / 20000) + 0.002)


def test_the_distance_of_a_training_star_is_about_one() -> None:
    domain = Domain.fit(domain_inputs(5000, 1))
    assert np.mean(domain.distance(domain_inputs(5000, 2)) ** 2) == pytest.approx(1, abs=0.05)
    assert domain.whitening.shape == (60, COMPONENTS)


@pytest.mark.parametrize("shift", ["along", "across"])
def test_stars_far_away_are_told_apart(shift) -> None:
    domain = Domain.fit(domain_inputs(5000, 1))
    strange = domain_inputs(500, 3)
    if shift == "along":
        strange *= 6
    else:
        strange += 0.8 * np.random.default_rng(4).standard_normal(60)
    far, near = domain.distance(strange), domain.distance(domain_inputs(500, 5))
    auroc = (far[:, None] > near[None, :]).mean()
    assert auroc > 0.95
    assert (far > domain.threshold).mean() > 0.8


def test_a_distance_is_that_of_the_covariance() -> None:
    """With all components: the root mean square Mahalanobis distance about zero."""
    x = domain_inputs(800, 6, width=8)
    domain = Domain.fit(x)
    second = x.T @ x / len(x)
    wanted = np.sqrt(np.einsum("ij,jk,ik->i", x, np.linalg.inv(second), x) / 8)
    np.testing.assert_allclose(domain.distance(x), wanted, rtol=1e-6)
