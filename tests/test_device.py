"""Where tensors live: a device that is not there, and a GPU that trains as the CPU does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conftest import quick, two_label_stars
from xplabels.core.errors import InputError
from xplabels.features import FeatureSet
from xplabels.features.projection import default_projection
from xplabels.features.scaling import Scaling
from xplabels.inference.network import Architecture
from xplabels.network import UncertainNetwork, check_device
from xplabels.network.propagation import Block, Propagation
from xplabels.recipes import Recipe
from xplabels.synthetic import example_stars, simulate_stars
from xplabels.training import train
from xplabels.training.augmentation import Dust, NoiseAugmentation
from xplabels.training.objective import LabelledStars, Objective, Teachers

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
KINDS = {
    "dropout": {},
    "ensemble": {"scatter": "ensemble", "members": 2},
    "sampling": {"scatter": "sampling", "passes": 20, "auxiliary": ("bp_rp", "j_h")},
    "distilled": {"scatter": "distilled", "members": 2, "folds": 2, "teacher_hidden": (16,),
                  "teacher_epochs": 3},
}  # fmt: skip


def recipe(kind: str) -> Recipe:
    return replace(quick(), missing_fraction=0.2, **KINDS[kind])


@pytest.mark.parametrize("name", ["no-such-device", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}.*cannot be used"):
        check_device(name)
    stars = two_label_stars()
    with pytest.raises(InputError, match="choose cpu"):
        train(stars, ["teff", "logg"], quick(), progress=False, device=name)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # GaiaXPy's
@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("correlated", [False, True])
def test_no_step_of_training_mixes_devices(monkeypatch, taught: bool, correlated: bool) -> None:
    """On torch's device of tensors without values, which none from the CPU may meet.

    What depends on values, such as whether a star lacks photometry, is answered with no.
    """
    stars = simulate_stars(40)[0] if correlated else example_stars(40)
    projection = default_projection()
    feature_set = FeatureSet.for_stars(stars, ("bp_rp", "j_h"), noise=True)
    features = feature_set.compute(stars)
    scaling = Scaling.fit(features.x, stars.labels.values, noise=feature_set.noise_levels(features))
    y = stars.labels.values
    k, f = y.shape[1], features.x.shape[1]
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda _: False)
    recipe = Recipe(fainter_share=0.5, fainter_decades=0.5)
    propagation = Propagation(feature_set, scaling, True, torch.float32, "meta")
    shape = Architecture(f, 2, (9, 8), k, dropout=0.1, samples=20, spectral=110, noise=2)
    network, teacher = (UncertainNetwork(shape).to("meta") for _ in range(2))
    dust = Dust(stars, features, feature_set, scaling, projection, "meta")
    noise = NoiseAugmentation(feature_set, scaling, propagation.projection, "meta")
    numbers = torch.arange(len(y), device="meta")
    teachers = Teachers((teacher, teacher), numbers % 2, 2) if taught else None
    objective = Objective(recipe, propagation, dust, noise, teachers)
    stars = LabelledStars(
        Block.of(features, feature_set, scaling, torch.float32, "meta"),
        torch.empty(y.shape, device="meta"), torch.empty(y.shape, device="meta"), numbers,
        torch.empty(len(y), 1, device="meta"),
    )  # fmt: skip
    batch = objective.vary(stars.take(numbers[:20]))
    for last in (False, True):
        loss = objective.loss(network, batch, last)
        loss.backward()
        assert loss.device.type == network.out.weight.grad.device.type == "meta"
    assert propagation.run(network, batch.block).input.shape == (20, k)


@needs_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_training_on_a_gpu_gives_as_good_a_model(kind: str) -> None:
    stars = two_label_stars()
    slow = train(stars, ["teff", "logg"], recipe(kind), progress=False)
    fast = train(stars, ["teff", "logg"], recipe(kind), progress=False, device="cuda")
    again = train(stars, ["teff", "logg"], recipe(kind), progress=False, device="cuda")
    for name in slow.names:
        ours, theirs = (m.metadata["validation"]["labels"][name]["rmse"] for m in (slow, fast))
        assert theirs == pytest.approx(ours, rel=0.3)
        same = again.metadata["validation"]["labels"][name]["rmse"]
        assert same == pytest.approx(theirs, rel=0.02)
