"""How one network is fitted: the schedule, the loss and its gradient, what teachers say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as laws

from conftest import quick
from twins import check_gradients
from xplabels.core.stars import Stars
from xplabels.features import FeatureSet
from xplabels.features.scaling import Scaling
from xplabels.inference.network import Architecture
from xplabels.network import UncertainNetwork
from xplabels.network.propagation import Block, Propagation
from xplabels.training import train
from xplabels.training.objective import LabelledStars, Objective, Teachers, hidden_inputs
from xplabels.training.optimisation import number_of_epochs, one_cycle, schedule


def test_one_cycle_rises_and_falls_smoothly() -> None:
    rates = [one_cycle(share) for share in np.linspace(0, 1, 1001)]
    peak = int(np.argmax(rates))
    assert [rates[0], rates[peak], rates[-1]] == pytest.approx([0.04, 1.0, 0.0], abs=1e-4)
    assert (np.diff(rates[: peak + 1]) >= 0).all()
    assert (np.diff(rates[peak:]) <= 0).all()


def test_every_epoch_sees_every_star_once_and_in_another_order() -> None:
    epochs = list(schedule(quick(batch_size=30, input_fraction=0.5), 100, 6, 0))
    orders = [torch.cat([step.rows for step in epoch]) for epoch in epochs]
    for order in orders:
        assert sorted(order.tolist()) == list(range(100))
    assert not torch.equal(orders[0], orders[1])
    assert [epoch[0].last for epoch in epochs] == [False] * 3 + [True] * 3
    rates = [step.learning_rate / quick().learning_rate for epoch in epochs for step in epoch]
    assert rates == pytest.approx([one_cycle(i / 24) for i in range(24)])


def test_the_paper_s_batches_come_in_turn_with_their_warm_up() -> None:
    """Section 3.1: all iterations on a batch, the first without the input term, then the next."""
    recipe = quick(
        schedule="fixed_batches", iterations=250, warmup_iterations=60, batch_size=40, scale=0.5
    )
    iterations, warmup = 125, 30
    epochs = list(schedule(recipe, 100, 1, 0))
    assert len(epochs) == number_of_epochs(recipe, 100, 1)
    flat = [step for epoch in epochs for step in epoch]
    assert len(flat) == 3 * iterations
    for batch in range(3):
        part = flat[iterations * batch : iterations * (batch + 1)]
        wanted = list(range(40 * batch, min(100, 40 * (batch + 1))))
        assert all(step.rows.tolist() == wanted for step in part)
        assert [step.last for step in part] == [i >= warmup for i in range(iterations)]


def parts(
    stars: Stars, masks: bool = False, kind: type[Propagation] = Propagation, **keys: Any
) -> tuple[Objective, LabelledStars]:
    """A float64 objective with the recipe of ``keys``, and the stars for it."""
    features = FeatureSet((6, 5), ("bp_rp", "j_h"))
    computed = features.compute(stars)
    scaling = Scaling.fit(computed.x, stars.labels.values)
    block = Block.of(computed, features, scaling, torch.float64)
    y, error = map(torch.as_tensor, scaling.scale_y(stars.labels.values, stars.labels.errors))
    propagation = kind(features, scaling, masks, torch.float64)
    weight = torch.ones(len(y), 1, dtype=torch.float64)
    labelled = LabelledStars(block, y, error, torch.arange(len(y)), weight)
    return Objective(quick(**keys), propagation), labelled


def network(dropout: float = 0.2, scatter: Any = "dropout") -> UncertainNetwork:
    torch.manual_seed(0)
    return UncertainNetwork(
        Architecture(13, 0, (8, 7), 2, dropout=dropout, scatter=scatter)
    ).double()


def test_the_loss_holds_every_variance_that_is_added_at_prediction(stars) -> None:
    """Label error, model, input and intrinsic scatter, with t tails; one label unknown for some."""
    objective, few = parts(stars[:20], likelihood="student_t", dof=4.0)
    objective = replace(objective, weights=torch.tensor([1.0, 3.0]).double())
    few.y[:5, 1] = torch.nan
    net = network()
    got = float(objective.loss(net, few, last=True).detach())
    out = objective.propagation.run(net, few.block)
    variances = [p.detach().numpy() for p in (out.input, out.model, out.excess)]
    assert all((part > 0).all() for part in variances)
    total = np.sqrt(few.y_error.numpy() ** 2 + sum(variances))
    residual = (few.y - out.mean).detach().numpy()
    loss = -laws.t.logpdf(residual, 4, scale=total)
    weights = np.where(np.isfinite(residual), [1.0, 3.0], 0.0)
    wanted = (np.nan_to_num(loss) * weights).sum() / weights.sum()
    assert got == pytest.approx(wanted, rel=1e-10)


def test_the_last_phase_of_a_teacher_has_neither_masks_nor_input_noise(stars) -> None:
    """Its loss is the same twice over, and that of its labels and excess alone."""
    objective, few = parts(stars[:20], likelihood="gaussian")
    objective = replace(objective, input_term=False)
    net = network(scatter="none")

    def loss(last: bool) -> float:
        return float(objective.loss(net, few, last).detach())

    assert loss(False) != loss(False)
    out = net(objective.propagation.network_input(few.block))
    total = few.y_error**2 + out.excess
    wanted = 0.5 * (few.y - out.mean) ** 2 / total + 0.5 * torch.log(2 * torch.pi * total)
    assert loss(True) == pytest.approx(float(wanted.mean().detach()), rel=1e-12)


def test_the_gradient_of_the_whole_loss_is_that_of_finite_differences(stars) -> None:
    objective, few = parts(stars[:6])
    net = network()
    check_gradients(
        lambda: objective.loss(net, few, last=True), net.parameters(), every=7, floor=1e-7
    )


@pytest.mark.parametrize(("masks", "share"), [(True, 0.3 * 7 / 8), (False, 0.0)])
def test_inputs_are_hidden_at_the_recipe_s_rate_where_the_network_has_masks(
    stars, masks, share
) -> None:
    seen: list[torch.Tensor] = []

    class Watching(Propagation):
        def run(self, network, block, **keys):  # type: ignore[no-untyped-def]
            seen.append(block.missing)
            return super().run(network, block, **keys)

    objective, whole = parts(stars, masks, Watching, missing_fraction=0.3)
    net = UncertainNetwork(Architecture(13, 2 * masks, (8,), 2)).double()
    objective.loss(net, whole, last=False)
    assert float(seen[0].any(dim=1).double().mean()) == pytest.approx(share, abs=0.05)


def test_what_teachers_say_of_a_star_comes_from_those_that_left_it_out(stars) -> None:
    """Against the obvious loop, in float64; five teachers of three folds."""
    objective, few = parts(stars[:9])
    x = objective.propagation.network_input(few.block)
    networks = tuple(network() for _ in range(5))
    for number, net in enumerate(networks):
        net.out.bias.data += number
    fold = torch.tensor([0, 1, 2] * 3)
    mean, scatter, left_out = Teachers(networks, fold, 3).targets(x, few.rows)
    for star in range(9):
        labels = [net(x[star : star + 1]).mean[0].detach().numpy() for net in networks]
        unseen = [label for number, label in enumerate(labels) if number % 3 == int(fold[star])]
        np.testing.assert_allclose(mean[star], np.mean(labels, axis=0), rtol=1e-12)
        variance = np.var(labels, axis=0, ddof=1)
        np.testing.assert_allclose(scatter[star], variance, rtol=1e-9)
        np.testing.assert_allclose(left_out[star], np.mean(unseen, axis=0), rtol=1e-12)
    assert Teachers(networks, 0 * fold, 1).targets(x, few.rows)[2] is None
    picked = Teachers(networks, fold, 3).targets(x[[4, 0]], torch.tensor([4, 0]))
    torch.testing.assert_close(picked[2], left_out[[4, 0]])


def test_progress_names_stage_epochs_and_losses(stars, capsys) -> None:
    fitted = train(stars, ["teff"], quick(epochs=3), progress=True)
    line = capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]
    assert line.startswith("network: 100%")
    assert "3/3" in line
    loss = fitted.metadata["history"]["network"][-1]["train"]
    assert f"loss {loss:.3f}  validation" in line


def test_hidden_inputs_are_of_the_asked_share_of_stars_and_mostly_whole_surveys():
    torch.manual_seed(2)
    hidden = hidden_inputs(torch.zeros(40_000, 3), 0.2)
    touched = hidden.any(dim=1)
    # of the chosen, one in sixteen draws an empty subset
    assert abs(float(touched.float().mean()) - 0.2 * 15 / 16) < 0.01
    whole = hidden[touched].all(dim=1)
    assert abs(float(whole.float().mean()) - (0.5 + 0.5 / 8) / (15 / 16)) < 0.02
    assert not hidden_inputs(torch.zeros(100, 3), 0.0).any()
