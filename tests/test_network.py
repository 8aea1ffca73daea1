"""The network's closed-form Jacobian and dropout variance against autograd and sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from twins import check_gradients
from xplabels.core.errors import InputError
from xplabels.network import ACTIVATIONS, LOG_VARIANCE_RANGE, Architecture, UncertainNetwork


def network(
    dtype: torch.dtype = torch.float64, seed: int = 0, emphasis: bool = False, **shape: object
) -> UncertainNetwork:
    """``emphasis``: inputs come in larger than they are."""
    torch.manual_seed(seed)
    whole: dict = {"inputs": 6, "masks": 0, "hidden": (9, 8), "labels": 3} | shape
    architecture = Architecture(**whole)
    scale = torch.rand(architecture.sizes[0]) * 3 + 0.2 if emphasis else None
    return UncertainNetwork(architecture, scale).to(dtype)


def inputs(stars: int = 5, width: int = 6, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((stars, width), generator=generator, dtype=torch.float64)


def jacobian_by_autograd(net: UncertainNetwork, x: Tensor) -> Tensor:
    return torch.stack([torch.func.jacrev(lambda v: net(v[None]).mean[0])(star) for star in x])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize(("masks", "skip"), [(0, False), (2, False), (2, True)])
def test_the_chain_is_autograd_s_jacobian(activation, depth, masks, skip) -> None:
    shape = {"hidden": (9, 8, 7, 10)[:depth], "skip": skip and depth > 1, "masks": masks}
    net = network(activation=activation, dropout=0.3, emphasis=skip, **shape)
    x = inputs(width=6 + masks)
    out = net(x, jacobian=True)
    assert out.jacobian.shape == (5, 3, 6 + masks)
    wanted = jacobian_by_autograd(net, x)
    torch.testing.assert_close(out.jacobian, wanted, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("masks", "emphasis"), [(0, False), (2, True)])
def test_the_chain_passes_through_the_log_fluxes(masks, emphasis) -> None:
    net = network(samples=7, spectral=4, masks=masks, dropout=0.3, emphasis=emphasis)
    training = 0.3 * inputs(50, 6, seed=9)
    generator = torch.Generator().manual_seed(2)
    design = torch.rand((7, 4), generator=generator, dtype=torch.float64)
    mean, scale = torch.ones(4, dtype=torch.float64), torch.full((4,), 0.4, dtype=torch.float64)
    net.log_flux.fit(design, mean, scale, training)
    x = inputs(width=6 + masks)
    out = net(x, jacobian=True)
    torch.testing.assert_close(out.jacobian, jacobian_by_autograd(net, x), rtol=1e-9, atol=1e-12)
    saved = net.to_perceptron().forward(x.numpy())  # the emphasis is in its weights
    for part in ("mean", "excess", "model", "jacobian"):
        wanted = getattr(out, part).detach().numpy()
        np.testing.assert_allclose(getattr(saved, part), wanted, rtol=1e-9, atol=1e-12)
    # what enters the first layer, by hand: fluxes of 1 + 0.4 x, their asinh, standardised
    log_flux = torch.asinh((1 + 0.4 * training[:, :4]) @ design.T / net.log_flux.softening)
    entered = net.log_flux(training)[0]
    torch.testing.assert_close(entered[:, :6], training)
    wanted = (log_flux - log_flux.mean(dim=0)) / log_flux.std(dim=0)
    torch.testing.assert_close(entered[:, 6:], wanted)
    # inputs beyond the spectral ones, and masks, do not touch the fluxes
    moved = x.clone()
    moved[:, 4:] += 1
    torch.testing.assert_close(
        net.log_flux(moved)[0][:, 6 + masks :], net.log_flux(x)[0][:, 6 + masks :]
    )


def test_the_thinned_network_s_jacobian_is_its_own() -> None:
    net, x = network(dropout=0.4), inputs(1)
    torch.manual_seed(5)
    got = net(x, jacobian=True, drop=True).jacobian[0]
    torch.manual_seed(5)
    variable = x.clone().requires_grad_(True)
    labels = net(variable, drop=True).mean[0]
    rows = [torch.autograd.grad(y, variable, retain_graph=True)[0][0] for y in labels]
    torch.testing.assert_close(got, torch.stack(rows))


def test_gradients_pass_through_the_jacobian() -> None:
    """The loss holds J C J^T: its gradient by every weight, against finite differences."""
    net = network(dropout=0.2, hidden=(5, 4), inputs=4, labels=2, activation="silu", skip=True)
    x = inputs(3, 4)

    def loss() -> Tensor:
        out = net(x, jacobian=True)
        total = (out.jacobian**2).sum(-1) + out.model + out.excess
        return (0.5 * out.mean**2 / total + 0.5 * total.log()).mean()

    check_gradients(loss, net.parameters(), every=3, floor=1e-8)


def learnt(p: float) -> tuple[UncertainNetwork, Tensor]:
    """A network trained for a moment with dropout on a smooth function, and new inputs."""
    net = network(torch.float32, hidden=(128, 128), inputs=6, labels=2, dropout=p)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn((2000, 6), generator=generator)
    y = torch.stack([x[:, :3].sum(1) + 0.3 * x[:, 0] ** 2, (x[:, 3] * x[:, 4]).tanh()], dim=1)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(200):
        rows = slice(200 * (step % 10), 200 * (step % 10 + 1))
        loss = ((net(x[rows], drop=True).mean - y[rows]) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.double(), torch.randn((40, 6), generator=generator).double()


@pytest.mark.parametrize("p", [0.1, 0.2])
def test_dropout_variance_by_the_delta_method_is_that_of_4000_passes(p) -> None:
    net, x = learnt(p)
    with torch.no_grad():
        out = net(x, jacobian=True)
        torch.manual_seed(0)
        # every star gets its own masks here: nothing of the code's own sampling is used
        passes = torch.stack([net(x, drop=True).mean for _ in range(4000)])
    ratio = (out.model.sqrt() / passes.std(dim=0)).numpy()
    shift = ((out.mean - passes.mean(dim=0)) / out.model.sqrt()).numpy()
    assert abs(np.median(ratio) - 1) < 0.05
    assert np.sqrt(np.mean((ratio - 1) ** 2)) < 0.12
    assert np.median(np.abs(shift)) < 0.1


def test_one_layer_s_dropout_variance_is_exact() -> None:
    """Labels are linear in the last hidden layer's units, so the delta method is exact: the
    variance over all 2^4 masks, each by its probability."""
    p = 0.3
    net, x = network(hidden=(4,), dropout=p), inputs(2)
    h = torch.nn.functional.silu(net.hidden[0](x))
    weight, bias = net.out.weight[:3], net.out.bias[:3]
    mean, square = 0.0, 0.0
    for mask in range(16):
        keep = torch.tensor([mask >> i & 1 for i in range(4)], dtype=torch.float64)
        chance = float(torch.prod(torch.where(keep > 0, 1 - p, p)))
        y = (h * keep / (1 - p)) @ weight.T + bias
        mean, square = mean + chance * y, square + chance * y**2
    out = net(x, jacobian=True)
    torch.testing.assert_close(out.model, square - mean**2)
    torch.testing.assert_close(out.mean, mean)


def test_variances_are_bounded_and_the_upper_bound_is_reported() -> None:
    net, x = network(scatter="distilled"), inputs(3)
    assert net.out.out_features == 9
    with torch.no_grad():
        net.out.weight.zero_()
        net.out.bias.copy_(torch.tensor([0.0, 0, 0, 50, -50, 1, 2, -50, 0]).double())
        out = net(x)
    low, high = np.exp(LOG_VARIANCE_RANGE)
    np.testing.assert_allclose(out.excess[0].numpy(), [high, low, np.e])
    np.testing.assert_allclose(out.model[0].numpy(), [np.e**2, low, 1])
    assert out.clamped[:, 0].all()
    assert not out.clamped[:, 1:].any()
    with torch.no_grad():
        net.out.bias[3] = 0.0
        assert not net(x).clamped.any()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"activation": "sine"}, r"'sine'.*silu"),
        ({"dropout": 1.0}, r"dropout 1\.0"),
        ({"hidden": ()}, "hidden"),
        ({"hidden": (4, 0)}, "hidden"),
    ],
)
def test_impossible_shapes_are_refused(shape, message) -> None:
    with pytest.raises(InputError, match=message):
        network(**shape)


def test_the_cost_is_counted() -> None:
    """METHOD: a 3x512 network with its Jacobian costs about 6 MFLOP a star."""
    cost = Architecture(112, 2, (512, 512, 512), 4).flop_with_jacobian
    assert 5.5e6 < cost < 6.5e6
    # one hidden layer, by hand: W1 (6x9) once and for 3 labels, out (9x6)
    assert Architecture(6, 0, (9,), 3).flop_with_jacobian == 2 * (54 * 4 + 54)
