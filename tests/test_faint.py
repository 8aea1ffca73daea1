"""Fainter copies of training stars have the noise their errors state; noise levels as inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import altered, fitted, quick
from twins import coefficient_covariance, ratio_covariance, with_bands
from xplabels.core.errors import InputError
from xplabels.features import FeatureSet
from xplabels.features.scaling import NOISE_LIMIT, Scaling
from xplabels.model import Model
from xplabels.network.propagation import Block
from xplabels.recipes import load_recipe
from xplabels.synthetic import example_stars, simulate_stars
from xplabels.training import train
from xplabels.training.augmentation import LARGEST_ERROR, NoiseAugmentation

DRAWS = 40_000


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
    stars, _ = simulate_stars(1600, labels=("teff",), widths=(12, 12), noise=0.5, seed=11)
    faint, truth = simulate_stars(1500, labels=("teff",), widths=(12, 12), noise=4.0, seed=12)
    keys = {"hidden": (32, 32), "epochs": 20, "dropout": 0.0, "scatter": "none"}
    # one star in fifty has errors ten times as large: the noise levels reach those of faint stars
    many = np.where(np.arange(len(stars)) % 50 == 0, 10.0, 1.0)[:, None]
    stars = with_bands(stars, lambda band: replace(band, errors=band.errors * many))
    off = []
    for share in (0.0, 0.6):
        recipe = quick(**keys, missing_fraction=0.1, fainter_share=share, fainter_decades=1.0)
        model = train(stars, ["teff"], recipe, progress=False)
        off.append(np.sqrt(np.mean((model.predict(faint).values - truth.values) ** 2)))
    assert off[1] < 0.9 * off[0]


# noise levels as inputs


@pytest.fixture(scope="module")
def model():
    return fitted(example_stars(600), quick(hidden=(8,), epochs=2, missing_fraction=0.1))


def test_levels_are_the_median_relative_errors_of_each_band():
    stars = example_stars(20)
    features = FeatureSet.for_stars(stars, ("bp_rp",), noise=True)
    levels = features.noise_levels(features.compute(stars))
    for i in range(20):
        r0 = abs(float(stars.spectra.rp.coefficients[i, 0]))
        for band, level in zip((stars.spectra.bp, stars.spectra.rp), levels[i], strict=True):
            wanted = np.log10(np.median(np.asarray(band.errors[i], float)) / r0)
            assert level == pytest.approx(wanted, rel=1e-6)
    without = FeatureSet.for_stars(stars, ("bp_rp",))
    assert without.noise_levels(without.compute(stars)).shape == (20, 0)
    assert not load_recipe("paper").noise_levels


def test_brightness_alone_does_not_matter_but_noise_does(model):
    """The same spectrum ten times as bright with ten times the errors is the same star."""
    stars = example_stars(30)

    def scaled(by: float):
        return with_bands(
            stars, lambda b: replace(b, coefficients=b.coefficients * by, errors=b.errors * 10)
        )

    as_observed = model.predict(stars).values
    assert np.allclose(model.predict(scaled(10.0)).values, as_observed, rtol=1e-5)
    assert not np.allclose(model.predict(scaled(1.0)).values, as_observed, rtol=1e-5)


def test_levels_stay_within_the_range_trained_on():
    generator = np.random.default_rng(1)
    levels = generator.normal([-3.0, -3.5], [0.3, 0.2], (500, 2))
    scaling = Scaling.fit(generator.normal(size=(500, 3)), levels, noise=levels)
    scaled = scaling.scale_noise(np.concatenate([levels, [[0.0, -9.0], [np.inf, -np.inf]]]))
    assert np.allclose(scaled[:-2].std(axis=0), 1, atol=0.05)
    assert scaled[-2:].tolist() == [[NOISE_LIMIT, -NOISE_LIMIT]] * 2


def test_a_model_whose_parts_disagree_about_noise_is_refused(model, tmp_path):
    folder, stars = tmp_path / "model", example_stars(25)
    model.save(folder)
    assert np.array_equal(Model.load(folder).predict(stars).values, model.predict(stars).values)
    altered(folder, lambda text: text["features"].update(noise=False))
    with pytest.raises(InputError, match=r"do not fit together.*2 noise levels, there are 0"):
        Model.load(folder)
