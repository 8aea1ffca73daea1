"""Missing inputs through the network, and the Jacobian's way to the measurements."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twins import conditional, explicit, random_stars
from xplabels.core.stars import MEASUREMENTS, Photometry, Stars
from xplabels.features import FeatureSet
from xplabels.features.scaling import RIDGE, Scaling
from xplabels.network import Architecture, UncertainNetwork
from xplabels.network.propagation import Block, Propagation

WIDTHS = (4, 3)
AUXILIARY = ("bp_rp", "j_h", "m_pseudo")
LABELS = 2


def setting(
    masks: bool, lost: dict[str, list[int]] | None = None, n: int = 6
) -> tuple[Stars, FeatureSet, Scaling, Propagation, Block, UncertainNetwork]:
    stars = random_stars(n, WIDTHS, seed=1)
    for name, rows in (lost or {}).items():
        stars.photometry.values[rows, MEASUREMENTS.index(name)] = np.nan
        stars.photometry.errors[rows, MEASUREMENTS.index(name)] = np.nan
    features = FeatureSet(WIDTHS, AUXILIARY)
    many = features.compute(random_stars(400, WIDTHS, seed=2)).x
    scaling = Scaling.fit(many, np.random.default_rng(0).standard_normal((400, LABELS)))
    propagation = Propagation(features, scaling, masks, torch.float64)
    block = Block.of(features.compute(stars), features, scaling, torch.float64)
    torch.manual_seed(3)
    shape = Architecture(10, 3 if masks else 0, (8, 8), LABELS, dropout=0.1)
    return stars, features, scaling, propagation, block, UncertainNetwork(shape).double()


def completed(x: np.ndarray, scaling: Scaling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One star: scaled completed inputs, their slopes by the present ones, extra covariance."""
    width = len(x)
    missing = np.isnan(x)
    z = (x - scaling.x_mean) / scaling.x_scale
    move, extra = np.eye(width), np.zeros((width, width))
    if missing.any():
        b, block = conditional(scaling.x_correlation + RIDGE * np.eye(width), missing)
        z[missing] = b @ z[~missing]
        move[missing] = 0
        move[np.ix_(missing, ~missing)] = b
        extra[np.ix_(missing, missing)] = block
    return z, move, extra


LOST = {"j_m": [1, 4], "parallax": [2, 4, 5], "phot_bp_mean_mag": [3, 5], "h_m": [5]}


@pytest.mark.parametrize("masks", [False, True])
def test_missing_inputs_take_their_conditional_mean(masks) -> None:
    stars, features, scaling, propagation, block, _ = setting(masks, LOST)
    x = features.compute(stars).x
    got = propagation.network_input(block).numpy()
    wanted = np.stack([completed(star, scaling)[0] for star in x])
    np.testing.assert_allclose(got[:, :10], wanted, rtol=1e-8, atol=1e-10)
    if masks:
        np.testing.assert_array_equal(got[:, 10:], np.isnan(x[:, 7:]))


@pytest.mark.parametrize("masks", [False, True])
def test_the_variance_of_missing_inputs_by_full_matrices(masks) -> None:
    """y moves with the completed inputs, which move with the present ones; plus their scatter."""
    stars, features, scaling, propagation, block, network = setting(masks, LOST)
    x = features.compute(stars).x
    out = propagation.run(network, block)
    jacobian = network(propagation.network_input(block), jacobian=True).jacobian.detach().numpy()
    jacobian = jacobian[..., :10]
    effective, scatter = np.zeros_like(jacobian), np.zeros((len(x), LABELS))
    for star in range(len(x)):
        _, move, extra = completed(x[star], scaling)
        effective[star] = jacobian[star] @ move / scaling.x_scale
        scatter[star] = np.diag(jacobian[star] @ extra @ jacobian[star].T)
    # the twin's photometry must be finite; the derivatives by what is missing are zero
    whole = stars.with_photometry(
        Photometry(
            np.nan_to_num(stars.photometry.values, nan=12.0), np.nan_to_num(stars.photometry.errors)
        )
    )
    wanted = explicit(features, whole, effective) + scatter
    np.testing.assert_allclose(out.input.detach().numpy(), wanted, rtol=1e-5)


def test_a_missing_input_costs_and_hiding_is_the_same_as_missing() -> None:
    _, features, scaling, propagation, whole, network = setting(True)
    stars, *_ = setting(True, {"j_m": list(range(6)), "parallax": [0, 2]})
    lacking = Block.of(features.compute(stars), features, scaling, torch.float64)
    hidden = torch.zeros((6, 3), dtype=torch.bool)
    hidden[:, 1] = True
    hidden[[0, 2], 2] = True
    one, other = propagation.run(network, lacking), propagation.run(network, whole.hide(hidden))
    for a, b in zip(one[:5], other[:5], strict=True):
        torch.testing.assert_close(a, b)
    assert not whole.missing.any()


def test_without_the_input_term_no_variance_is_propagated() -> None:
    *_, propagation, block, network = setting(False)
    out = propagation.run(network, block, input_term=False)
    assert (out.input == 0).all()
    torch.testing.assert_close(out.mean, propagation.run(network, block).mean)


def test_the_total_is_the_sum_of_its_parts_and_negative_rounding_is_nothing() -> None:
    *_, propagation, block, network = setting(False, LOST)
    out = propagation.run(network, block)
    torch.testing.assert_close(out.variance, out.input + out.model + out.excess)
    poor = out._replace(input=-out.input)
    torch.testing.assert_close(poor.variance, out.model + out.excess)
