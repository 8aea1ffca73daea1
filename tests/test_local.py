"""Factors that go with the star: right coverage for every kind of star, not in the mean alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from xplabels.calibration.factors import Calibration
from xplabels.calibration.local import LARGEST, LocalFactors, hats, quantile_regression
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.stars import Stars
from xplabels.model import Model


def made(count: int, seed: int, label_error: float = 0.2):
    """Stars of which a narrow kind has larger errors, another lighter tails, with known laws.

    As :meth:`LocalFactors.fit` takes them; the second label is unknown for a tenth, all of a kind.
    """
    random = np.random.default_rng(seed)
    labels, noise = random.normal(size=(count, 2)), random.normal(size=(count, 2))
    variance, gaussian = np.exp(random.normal(0, 0.3, (2, count, 2)))
    drawn = np.where(labels[:, :1] < -1, random.normal(size=(count, 2)),
                     random.standard_t(3, (count, 2)))  # fmt: skip
    residuals = too_small(labels, noise) * np.sqrt(variance) * drawn
    residuals += too_small(labels, noise) * np.sqrt(gaussian) * random.normal(size=(count, 2))
    errors = np.full((count, 2), label_error)
    residuals += errors * random.normal(size=(count, 2))
    residuals[labels[:, 0] > 1.3, 1] = np.nan
    return labels, noise, residuals, variance, errors, gaussian


def too_small(labels, noise):
    """By how much errors are stated too small [N, 1]: in a bump that no cubic follows."""
    bump = 0.6 * np.exp(-(((labels[:, 0] - 0.8) / 0.3) ** 2))
    return np.exp(bump - 0.3 * np.tanh(noise[:, 1]))[:, None]


def calibrated(stars, local: LocalFactors | None = None) -> Calibration:
    labels, noise, residuals, variance, errors, gaussian = stars
    local = local or LocalFactors.fit(*stars)
    factors = local.factors(labels, noise)
    return replace(
        Calibration.fit(residuals, variance, errors, gaussian, *factors), local=local
    )  # fmt: skip


def coverage(calibration: Calibration, stars, rows) -> np.ndarray:
    """Share [2, K] of some stars inside the 68.3 and 95.4 % intervals."""
    labels, noise, residuals, variance, errors, gaussian = (one[rows] for one in stars)
    half = calibration.for_stars(labels, noise).half_widths(variance, gaussian)
    known = np.isfinite(residuals)
    return np.array(
        [
            [(np.abs(residuals) <= np.hypot(h, n * errors))[known[:, k], k].mean()
             for k in range(2)] for n, h in enumerate(half, start=1)
        ]
    )  # fmt: skip


def test_coverage_is_right_in_every_bin_of_new_stars_where_one_factor_is_wrong() -> None:
    local = calibrated(made(20_000, 1))
    plain = calibrated(made(20_000, 1), LocalFactors.flat(2))
    fresh = made(60_000, 2)
    labels, noise, residuals, *_ = fresh
    worst: dict[str, list[float]] = {"local": [], "plain": []}
    for axis in (labels[:, 0], labels[:, 1], noise[:, 1]):
        edges = np.quantile(axis, np.linspace(0, 1, 13))
        for low, high in pairwise(edges):
            rows = (axis >= low) & (axis < high)
            if np.isfinite(residuals[rows]).sum(axis=0).min() < 500:
                continue
            for name, calibration in (("local", local), ("plain", plain)):
                off = coverage(calibration, fresh, rows) - [[LEVEL_68], [LEVEL_95]]
                worst[name].append(np.abs(off).max())
    assert max(worst["local"]) < 0.06
    assert max(worst["plain"]) > 0.12
    whole = coverage(local, fresh, slice(None))
    np.testing.assert_allclose(whole, [[LEVEL_68] * 2, [LEVEL_95] * 2], atol=0.01)


def test_the_known_factor_comes_back() -> None:
    """Of Gaussian errors alone both factors are the one by which they are too small."""
    random = np.random.default_rng(4)
    labels, noise = random.normal(size=(30_000, 2)), random.normal(size=(30_000, 2))
    one, none = np.ones_like(labels), np.full_like(labels, 1e-9)
    residuals = too_small(labels, noise) * random.normal(size=labels.shape)
    local = LocalFactors.fit(labels, noise, residuals, one, 0 * one, none)
    wanted = np.log(too_small(labels, noise))
    for found in local.factors(labels, noise):
        off = np.log(found) - wanted
        assert (off - np.median(off, axis=0)).std(axis=0).max() < 0.05
    assert wanted.std() > 0.25


def test_right_errors_stay_and_few_stars_change_nothing() -> None:
    random = np.random.default_rng(5)
    labels, noise, residuals = (random.normal(size=(6000, 2)) for _ in range(3))
    stars = (labels, noise, residuals, np.ones((6000, 2)), np.zeros((6000, 2)), 0 * labels)
    inner, outer = LocalFactors.fit(*stars).factors(labels, noise)
    assert np.log(inner).std(axis=0).max() < 0.08
    assert np.log(outer).std(axis=0).max() < 0.08
    few = LocalFactors.fit(*(one[:300] for one in stars))
    assert all((found == 1).all() for found in few.factors(labels, noise))


def test_it_is_the_quantile_regression_of_another_package() -> None:
    """The pinball loss that scikit-learn's linear programme reaches is reached, but for 1 in 1000.

    One label error and no Gaussian part, so that scores are simple.
    """
    linear = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(6)
    x = random.normal(size=1500)
    values = 0.4 * np.abs(x) + 0.5 * random.normal(size=1500)
    knots = np.quantile(x, [0.05, 0.3, 0.5, 0.7, 0.95])
    design = hats(x, knots)
    for level in (LEVEL_68, LEVEL_95):
        weights, constant = quantile_regression(design, values, level, 1e-6 * np.eye(5))
        oracle = linear.QuantileRegressor(quantile=level, alpha=0, fit_intercept=False)
        best = oracle.fit(design, values).predict(design)

        def pinball(found, level=level):
            off = values - found
            return np.maximum(level * off, (level - 1) * off).mean()

        found = design @ weights + constant
        assert pinball(found) < 1.002 * pinball(best)
        # the derivative by each height is zero: each soft bin holds its share
        below = stats.norm.cdf((found - values) / 0.1)
        np.testing.assert_allclose(design.T @ (below - level), 0, atol=0.3)


def test_factors_by_loop() -> None:
    random = np.random.default_rng(7)
    knots = np.sort(random.normal(size=(4, 5)), axis=1)
    local = LocalFactors(knots, *random.normal(0, 0.2, (2, 2, 4, 5)))
    labels, noise = 2 * random.normal(size=(9, 2)), 2 * random.normal(size=(9, 2))
    inner, _ = local.factors(labels, noise)
    for star in range(9):
        for k in range(2):
            total = 0.0
            for c, x in enumerate([*labels[star], *noise[star]]):
                total += hats(np.array([x]), knots[c])[0] @ local.inner[k, c]
            total = min(max(total, -np.log(LARGEST)), np.log(LARGEST))
            assert inner[star, k] == pytest.approx(np.exp(total))


@given(st.integers(0, 1000), st.floats(-1e6, 1e6))
def test_hats_share_a_star_and_no_factor_leaves_its_bounds(seed: int, size: float) -> None:
    random = np.random.default_rng(seed)
    x = size * random.normal(size=20)
    knots = np.sort(random.normal(size=6))
    one = hats(x, knots)
    np.testing.assert_allclose(one.sum(axis=1), 1)
    assert (one >= 0).all()
    local = LocalFactors(np.tile(knots, (3, 1)), *(size * random.normal(size=(2, 1, 3, 6))))
    for found in local.factors(x[:, None], np.stack([x, x], axis=1)):
        assert (found <= LARGEST * (1 + 1e-12)).all()
        assert (found * LARGEST >= 1 - 1e-12).all()


def test_a_coordinate_of_few_values_does_no_harm() -> None:
    labels, noise, *rest = made(5000, 8)
    noise[:, 0], noise[:, 1] = 0.0, np.round(noise[:, 1])
    local = LocalFactors.fit(labels, noise, *rest)
    assert all(np.isfinite(found).all() for found in local.factors(labels, noise))


def test_a_model_applies_them(small_model: Model, small_stars: Stars) -> None:
    labels = len(small_model.names)
    knots = np.tile(np.linspace(-1, 1, 4), (labels + len(small_model.scaling.noise_mean), 1))
    heights = np.random.default_rng(9).normal(0, 0.1, (2, labels, *knots.shape))
    plain = replace(
        small_model, calibration=replace(small_model.calibration, local=LocalFactors.flat(labels))
    )
    local = replace(plain, calibration=replace(plain.calibration,
                                               local=LocalFactors(knots, *heights)))  # fmt: skip
    before, after = plain.predict(small_stars), local.predict(small_stars)
    scaled = plain.scaling.scale_y(before.values, before.errors)[0]
    noise = plain.scaling.scale_noise(
        plain.feature_set.noise_levels(plain.feature_set.compute(small_stars))
    )
    inner, _ = local.calibration.local.factors(scaled, noise)
    assert inner.std() > 0.01
    for part in ("errors", "errors_model", "errors_input", "errors_excess"):
        np.testing.assert_allclose(getattr(after, part), inner * getattr(before, part), rtol=1e-5)
    np.testing.assert_array_equal(after.values, before.values)
