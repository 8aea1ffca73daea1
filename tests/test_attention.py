"""Attention and derivative spectra against black-box differences and planted templates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Judged
from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.stars import MEASUREMENTS, CoefficientSpectra, Photometry, Stars
from xplabels.explain.attention import (
    Moments,
    attention,
    derivative_blocks,
    forward_derivatives,
    inverse_jacobian,
    mean_jacobian,
    red_clump,
    star_attention,
)
from xplabels.model import Model
from xplabels.synthetic import POPULATION, simulate_stars, spectrum

SOLE = ("phot_bp_mean_mag", "j_m", "parallax")
"""A measurement of which one auxiliary input alone is made: of bp_rp, j_h and m_pseudo."""


@pytest.fixture(scope="module")
def model(small_model: Model) -> Model:
    """The small model with weights of float64, so that differences are not all rounding."""
    return replace(
        small_model, networks=tuple(network.astype(float) for network in small_model.networks)
    )


def moved(stars: Stars, index: int, by: float) -> Stars:
    """The stars (of widths 6 + 5) with input ``index`` moved."""
    if index < 11:
        bands = [stars.spectra.bp, stars.spectra.rp]
        which, column = (0, index) if index < 6 else (1, index - 6)
        coefficients = bands[which].coefficients.copy()
        coefficients[:, column] += by * bands[1].coefficients[:, 0]
        bands[which] = replace(bands[which], coefficients=coefficients)
        return replace(stars, spectra=CoefficientSpectra(*bands))
    values = stars.photometry.values.copy()
    values[:, MEASUREMENTS.index(SOLE[index - 11])] += by
    return stars.with_photometry(Photometry(values, stars.photometry.errors))


def slow_attention(model: Model, stars: Stars) -> np.ndarray:
    """Eq. 13 by central differences of whole predictions; NaN for RP 0, which is always 1."""
    features = model.feature_set
    x = features.compute(stars).x
    centre = np.where(np.arange(14) < 11, 0.0, model.scaling.x_mean)
    g = np.full((len(stars), len(model.names), 14), np.nan)
    for i in np.delete(np.arange(14), 6):
        # the pseudo-absolute magnitude moves with the parallax by a star's own slope
        step = 1e-4 if i == 13 else 1e-4 * model.scaling.x_scale[i]
        up, down = moved(stars, i, step), moved(stars, i, -step)
        rise = model.predict(up).values - model.predict(down).values
        run = features.compute(up).x[:, i] - features.compute(down).x[:, i]
        g[:, :, i] = rise / run[:, None] * (x[:, i] - centre[i])[:, None]
    return g


def with_gaps(stars: Stars) -> Stars:
    """Every third star without J, every fifth without parallax."""
    values, errors = stars.photometry.values.copy(), stars.photometry.errors.copy()
    for column, every in (("j_m", 3), ("parallax", 5)):
        for array in (values, errors):
            array[::every, MEASUREMENTS.index(column)] = np.nan
    return stars.with_photometry(Photometry(values, errors))


def fast_attention(model: Model, stars: Stars) -> np.ndarray:
    ((features, jacobian),) = derivative_blocks(model, stars, len(stars))
    return star_attention(model, features.x, jacobian)


def test_attention_agrees_with_differences_of_predictions(model: Model, small_stars: Stars) -> None:
    stars = with_gaps(small_stars[:40])
    fast, slow = fast_attention(model, stars), slow_attention(model, stars)
    assert np.isnan(fast[np.isnan(slow) & (np.arange(14) != 6)]).all()
    difference = np.abs(fast - slow) / np.nanmax(np.abs(slow), axis=(0, 2), keepdims=True)
    assert np.nanmax(difference) < 1e-7
    assert np.isfinite(difference).sum() > 0.85 * difference.size


def test_blocks_of_any_size_give_the_same(model: Model, small_stars: Stars) -> None:
    stars = with_gaps(small_stars[:300])
    g = fast_attention(model, stars)
    for found in (attention(model, stars), attention(model, stars, block=13)):
        np.testing.assert_allclose(found.mean, np.nanmean(g, axis=0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.deviation, np.nanstd(g, axis=0), rtol=1e-9, atol=1e-9)
        assert found.count.tolist() == [300.0] * 12 + [200.0, 240.0]
        assert found.inputs[-3:] == ("bp_rp", "j_h", "m_pseudo")


@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(-1e6, 1e6))
@settings(deadline=None)
def test_moments_are_those_of_all_rows_at_once(seed: int, cut: int, offset: float) -> None:
    random = np.random.default_rng(seed)
    values = offset + random.standard_normal((60, 2, 3))
    values[random.random(values.shape) < 0.2] = np.nan
    values[:, 0, 1] = np.nan
    sums = Moments()
    for part in (slice(0, cut), slice(cut, cut), slice(cut, None)):
        sums.add(values[part])
    known = np.ones((2, 3), bool)
    known[0, 1] = False
    np.testing.assert_allclose(
        sums.mean[known], np.nanmean(values[:, known], axis=0), rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(
        sums.deviation[known], np.nanstd(values[:, known], axis=0), rtol=1e-6, atol=1e-9
    )
    assert np.isnan(sums.deviation[0, 1])


def test_the_papers_weights_give_its_equation_14(model: Model, small_stars: Stars) -> None:
    stars = small_stars[:200]
    ((features, jacobian),) = derivative_blocks(model, stars, 200)
    j, w2 = jacobian[:, :, :11].mean(axis=0), features.x[:, :11].std(axis=0)
    mean, spread = mean_jacobian(model, stars)
    paper = inverse_jacobian(mean, np.diag(np.diag(spread)))
    np.testing.assert_allclose(paper, np.linalg.pinv(j * w2).T * w2, rtol=1e-8, atol=1e-12)


@given(st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_inverse_jacobians_invert_and_are_the_regression_of_a_linear_network(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal((500, 7)) @ random.standard_normal((7, 7))
    j = random.standard_normal((2, 7))
    found = inverse_jacobian(j, np.cov(x.T))
    np.testing.assert_allclose(j @ found.T, np.eye(2), atol=1e-7)
    y = x @ j.T
    regression = np.linalg.lstsq(y - y.mean(axis=0), x - x.mean(axis=0), rcond=None)[0]
    np.testing.assert_allclose(found, regression, rtol=1e-6, atol=1e-8)


def templates(judged: Judged) -> np.ndarray:
    """dx/dy [K, n] that were planted: spectra are linear in the labels, and RP 0 is constant."""
    names = judged.model.names
    planted = [
        spectrum(np.eye(len(names)), width, number, 0.0)
        - spectrum(np.zeros((1, len(names))), width, number, 0.0)
        for number, width in enumerate(judged.model.feature_set.widths)
    ]
    spread = np.array([POPULATION[name][1] for name in names])
    return np.concatenate(planted, axis=1) / spread[:, None]


@pytest.mark.parametrize("noise", [1.0, 6.0, 20.0])
def test_planted_templates_come_back_and_the_covariance_beats_equation_14(
    straight: Judged, noise: float
) -> None:
    """docs/benchmarks/explain.md has the errors; the bounds leave room for another training."""
    truth = templates(straight)
    mean, spread = mean_jacobian(straight.model, straight.stars[straight.levels == noise])
    covariance, fs24 = (
        np.linalg.norm(inverse_jacobian(mean, weights) - truth, axis=1)
        / np.linalg.norm(truth, axis=1)
        for weights in (spread, np.diag(np.diag(spread)))
    )
    assert (covariance < 0.1).all()
    assert (fs24 > 0.3).all()
    assert (covariance * 5 < fs24).all()


def test_the_forward_model_gives_planted_templates_without_an_inverse(straight: Judged) -> None:
    """As well as the full covariance, along the directions that are not noise alone."""
    model = straight.model
    assert forward_derivatives(replace(model, forward=None), straight.stars[:5]) is None
    truth = templates(straight)
    found = forward_derivatives(model, straight.stars[straight.levels == 1.0])
    assert found is not None
    error = np.linalg.norm(found - truth, axis=1) / np.linalg.norm(truth, axis=1)
    assert (error < 0.1).all()


def test_the_red_clump_leaves_out_what_a_table_lacks() -> None:
    names = ("teff", "logg", "fe_h", "c_fe", "n_fe")
    stars, _ = simulate_stars(5, labels=names)
    rows = np.tile([4750, 2.5, 0.0, 0.0, 0.2], (5, 1))
    for row, (column, value) in enumerate(((4, 0.6), (3, 0.3), (0, 4801), (1, 3.1)), start=1):
        rows[row, column] = value
    full = stars.with_labels(Labels(names, rows, np.full_like(rows, 0.1)))
    selected, flow = red_clump(full)
    assert selected.source_id.tolist() == [full.source_id[0]]
    assert not any("lacks" in line for line in flow)
    selected, flow = red_clump(full.with_labels(full.labels.select(names[:3])))
    assert len(selected) == 3
    assert flow[-1] == (
        "not cut on, because the table lacks it: Carbon abundance [C/Fe], Nitrogen abundance [N/Fe]"
    )
    everyone, flow = red_clump(stars.with_labels(None))
    assert len(everyone) == 5
    assert "none of the labels of a red clump star" in flow[0]


def test_what_cannot_be_said_is_an_error(model: Model, small_stars: Stars) -> None:
    with pytest.raises(InputError, match="too few stars"):
        mean_jacobian(model, small_stars[:1])
    with pytest.raises(InputError, match="too few stars"):
        attention(model, small_stars[:0])
    with pytest.raises(InputError, match="independently of each other"):
        inverse_jacobian(np.ones((2, 5)), np.eye(5))
