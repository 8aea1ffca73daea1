"""Noise levels: their value, their bounds, their way into and out of a model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from xplabels.core.errors import InputError
from xplabels.features import FeatureSet
from xplabels.features.scaling import NOISE_LIMIT, Scaling
from xplabels.model import Model
from xplabels.network.propagation import Block, Propagation
from xplabels.recipes import Recipe, load_recipe
from xplabels.synthetic import example_stars
from xplabels.training import train

QUICK = Recipe(hidden=(8,), epochs=2, flux_samples=0, reddening=0.0, calibration_folds=0)


@pytest.fixture(scope="module")
def model():
    return train(example_stars(600), ["teff", "logg"], QUICK, progress=False)


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
        bp, rp = (
            replace(band, coefficients=band.coefficients * by, errors=band.errors * 10)
            for band in (stars.spectra.bp, stars.spectra.rp)
        )
        return replace(stars, spectra=replace(stars.spectra, bp=bp, rp=rp))

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


def test_levels_come_last_into_the_network(model):
    stars = example_stars(10)
    features = model.feature_set.compute(stars)
    block = Block.of(features, model.feature_set, model.scaling, torch.float64)
    propagation = Propagation(model.feature_set, model.scaling, True, torch.float64)
    entering = propagation.network_input(block).numpy()
    inputs = len(model.feature_set.names) + len(model.feature_set.auxiliary)
    assert entering.shape == (10, inputs + 2)
    expected = model.scaling.scale_noise(model.feature_set.noise_levels(features))
    assert np.allclose(entering[:, inputs:], expected)
    assert block.take(torch.arange(3)).noise.shape == (3, 2)


def test_a_model_whose_parts_disagree_about_noise_is_refused(model, tmp_path):
    folder, stars = tmp_path / "model", example_stars(25)
    model.save(folder)
    assert np.array_equal(Model.load(folder).predict(stars).values, model.predict(stars).values)
    description = json.loads((folder / "model.json").read_text())
    description["features"]["noise"] = False
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"do not fit together.*2 noise levels, there are 0"):
        Model.load(folder)
