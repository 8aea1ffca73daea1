"""Inputs that come in larger while training: derivatives stay right, the saved network is plain."""

import numpy as np
import pytest
import torch

from xplabels.core.errors import InputError
from xplabels.network import Architecture, UncertainNetwork
from xplabels.recipes import Recipe
from xplabels.synthetic import example_stars
from xplabels.training import train


def network(samples):
    torch.manual_seed(3)
    shape = Architecture(7, 1, (9, 8), 2, dropout=0.1, samples=samples, spectral=5)
    scale = torch.rand(shape.sizes[0]) * 3 + 0.2
    made = UncertainNetwork(shape, scale).double()
    if made.log_flux is not None:
        design = torch.rand(samples, 5, dtype=torch.float64) + 0.5
        x = torch.randn(50, 8, dtype=torch.float64)
        made.log_flux.fit(design, torch.rand(5).double() + 1, torch.full((5,), 0.1).double(), x)
    return made


@pytest.mark.parametrize("samples", [0, 4])
def test_jacobian_with_emphasis_is_that_of_automatic_differentiation(samples):
    made = network(samples)
    x = torch.randn(6, 8, dtype=torch.float64)
    closed = made(x, jacobian=True).jacobian
    for i in range(6):
        by_autograd = torch.autograd.functional.jacobian(lambda row: made(row[None]).mean[0], x[i])
        assert torch.allclose(closed[i], by_autograd, atol=1e-12)


@pytest.mark.parametrize("samples", [0, 4])
def test_the_saved_network_says_the_same_without_the_scale(samples):
    made = network(samples)
    x = torch.randn(6, 8, dtype=torch.float64)
    plain = made.to_perceptron()
    assert plain.arrays.keys() == made.state_dict().keys()
    after = plain.forward(x.numpy(), full=True)
    with torch.no_grad():
        before = made(x, jacobian=True, full=True)
    for part in ("mean", "excess", "model", "jacobian"):
        np.testing.assert_allclose(getattr(after, part), getattr(before, part), atol=1e-12)


def test_emphasis_changes_what_is_learnt_and_nothing_else():
    recipes = [
        Recipe(
            hidden=(8,), epochs=1, flux_samples=0, reddening=0.0, calibration_folds=0, emphasis=e
        )
        for e in (0.0, 0.5)
    ]
    models = [train(example_stars(600), ["teff"], r, progress=False) for r in recipes]
    plain, emphasised = (m.networks[0].arrays for m in models)
    assert plain.keys() == emphasised.keys()
    assert not np.array_equal(plain["hidden.0.weight"], emphasised["hidden.0.weight"])


def test_an_emphasis_beyond_one_is_refused():
    with pytest.raises(InputError, match=r"emphasis = 1\.5 should lie between 0 and 1"):
        Recipe(emphasis=1.5)
