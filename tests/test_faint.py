"""Fainter copies of training stars: their noise is what their errors say, covariance included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from twins import coefficient_covariance, ratio_covariance
from xplabels.features import FeatureSet
from xplabels.features.scaling import NOISE_LIMIT, Scaling
from xplabels.network.propagation import Block
from xplabels.recipes import Recipe
from xplabels.synthetic import simulate_stars
from xplabels.training import train
from xplabels.training.noise_augmentation import LARGEST_ERROR, NoiseAugmentation

DRAWS = 40_000


def with_bands(stars, change):
    """The same stars, each band changed."""
    bp, rp = change(stars.spectra.bp), change(stars.spectra.rp)
    return replace(stars, spectra=replace(stars.spectra, bp=bp, rp=rp))


@pytest.fixture(scope="module", params=[True, False], ids=["correlated", "independent"])
def parts(request):
    stars, _ = simulate_stars(400, labels=("teff",), widths=(6, 5), noise=0.3, seed=4)
    if not request.param:
        stars = with_bands(stars, lambda band: replace(band, correlations=None))
    features = FeatureSet.for_stars(stars, ("bp_rp",), noise=True)
    computed = features.compute(stars)
    levels = features.noise_levels(computed)
    scaling = Scaling.fit(computed.x, stars.labels.values, noise=levels)
    # a wide range of noise, which these stars do not have
    scaling = replace(scaling, noise_scale=np.full(2, 0.4))
    block = Block.of(computed, features, scaling, torch.float32)
    return stars, features, computed, scaling, block, NoiseAugmentation(features, scaling, None)


def copies(block, star):
    return block.take(torch.full((DRAWS,), star))


def test_added_noise_has_the_covariance_of_the_ratios(parts) -> None:
    stars, features, computed, _, block, noise = parts
    torch.manual_seed(1)
    dimmed = noise.dim(copies(block, 3), torch.full((DRAWS,), 3.0))
    found = np.cov(dimmed.errors.x.numpy().astype(float)[:, : features.n_spectral].T)
    raw = np.concatenate([stars.spectra.bp.coefficients[3], stars.spectra.rp.coefficients[3]])
    bp = features.widths[0]
    covariance = coefficient_covariance(stars.spectra, 3)
    wanted = ratio_covariance(raw, covariance, bp, float(computed.errors[3, bp])) * (3.0**2 - 1)
    scale = np.sqrt(np.diag(wanted)) + (np.diag(wanted) == 0)
    np.testing.assert_allclose(
        found / np.outer(scale, scale), wanted / np.outer(scale, scale), atol=0.04
    )


def test_a_dimmed_star_says_how_noisy_it_is(parts) -> None:
    _, features, computed, scaling, block, noise = parts
    factor = torch.linspace(1.0, 4.0, len(block))
    dimmed = noise.dim(block, factor)
    levels = features.noise_levels(
        replace(computed, errors=computed.errors * factor.numpy()[:, None])
    )
    wanted = (levels - scaling.noise_mean) / scaling.noise_scale
    # those noise levels that were not clipped to begin with
    inside = np.abs(block.noise.numpy()) < NOISE_LIMIT
    np.testing.assert_allclose(dimmed.noise.numpy()[inside], wanted[inside], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dimmed.errors.errors, block.errors.errors * factor[:, None])
    # photometry is another instrument's
    n = features.n_spectral
    torch.testing.assert_close(dimmed.x[:, n:], block.x[:, n:])
    assert torch.equal(dimmed.errors.auxiliary_errors, block.errors.auxiliary_errors)


def test_no_star_leaves_the_range_of_the_noise_levels(parts) -> None:
    *_, block, noise = parts
    torch.manual_seed(2)
    factor = noise.draw(block, 0.5, 3.0)
    dimmed = noise.dim(block, factor)
    assert float(dimmed.noise.max()) <= NOISE_LIMIT + 1e-4
    r0_error = dimmed.errors.errors[:, noise.r0] / dimmed.errors.divisor.abs()
    assert float(r0_error.max()) <= LARGEST_ERROR * 1.001
    share = float((factor > 1).float().mean())
    assert abs(share - 0.5) < 0.1


def test_a_factor_of_one_and_a_star_without_a_divisor_change_nothing(parts) -> None:
    *_, block, noise = parts
    some = block.take(torch.arange(3))
    some.errors.is_ratio[0] = False
    dimmed = noise.dim(some, torch.tensor([3.0, 1.0, 3.0]))
    torch.testing.assert_close(dimmed.x[:2], some.x[:2])
    assert torch.equal(dimmed.errors.x[:2], some.errors.x[:2])
    assert torch.equal(dimmed.noise[:2], some.noise[:2])
    assert not torch.equal(dimmed.x[2], some.x[2])


def test_training_on_fainter_copies_helps_faint_stars() -> None:
    """Bright stars to train on, faint ones to predict: copies with noise show how to weigh it."""
    keys = {"labels": ("teff",), "widths": (12, 12)}
    stars, _ = simulate_stars(1600, noise=0.5, seed=11, **keys)
    faint, truth = simulate_stars(1500, noise=4.0, seed=12, **keys)
    recipe = Recipe(
        hidden=(32, 32), epochs=20, batch_size=128, flux_samples=0, reddening=0.0, dropout=0.0,
        scatter="none", fainter_share=0.0, calibration_folds=0,
    )  # fmt: skip
    # one star in fifty has errors ten times as large: the noise levels reach those of faint stars
    many = np.where(np.arange(len(stars)) % 50 == 0, 10.0, 1.0)[:, None]
    stars = with_bands(stars, lambda band: replace(band, errors=band.errors * many))
    off = []
    for share in (0.0, 0.6):
        chosen = replace(recipe, fainter_share=share, fainter_decades=1.0)
        model = train(stars, ["teff"], chosen, progress=False)
        off.append(np.sqrt(np.mean((model.predict(faint).values - truth.values) ** 2)))
    assert off[1] < 0.9 * off[0]
