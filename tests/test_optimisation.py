"""How one network is fitted: the schedule, the loss and its gradient, the lesson of teachers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import quick, two_label_stars
from twins import check_gradients
from xplabels.core.stars import Stars
from xplabels.features import FeatureSet
from xplabels.features.scaling import Scaling
from xplabels.network import Architecture, UncertainNetwork
from xplabels.network.propagation import Block, Propagation
from xplabels.recipes import Recipe
from xplabels.training import optimisation
from xplabels.training.distillation import Teachers
from xplabels.training.optimisation import Sample, _hidden, _loss, one_cycle
from xplabels.training.run import Bar


@pytest.fixture(scope="module")
def stars() -> Stars:
    return two_label_stars()


# the schedule, step by step


def test_one_cycle_rises_and_falls_smoothly() -> None:
    rates = [one_cycle(share) for share in np.linspace(0, 1, 1001)]
    assert max(rates) == pytest.approx(1.0, abs=1e-4)
    assert rates[0] == pytest.approx(0.04)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    peak = int(np.argmax(rates))
    assert (np.diff(rates[: peak + 1]) >= 0).all()
    assert (np.diff(rates[peak:]) <= 0).all()


def steps(recipe: Recipe, stars: int, epochs: int) -> list[list[Any]]:
    number = optimisation._number_of_epochs(recipe, stars, epochs)
    return [list(optimisation._steps(recipe, stars, epoch, epochs, 0)) for epoch in range(number)]


def test_every_epoch_sees_every_star_once_and_in_another_order() -> None:
    epochs = steps(quick(batch_size=30, input_fraction=0.5), 100, 6)
    orders = [torch.cat([step.rows for step in epoch]) for epoch in epochs]
    for order in orders:
        assert sorted(order.tolist()) == list(range(100))
    assert not torch.equal(orders[0], orders[1])
    assert [epoch[0].last for epoch in epochs] == [False] * 3 + [True] * 3


def test_the_paper_s_batches_come_in_turn_with_their_warm_up() -> None:
    """Section 3.1: all iterations on a batch, the first without the input term, then the next."""
    recipe = quick(
        schedule="fixed_batches", iterations=250, warmup_iterations=60, batch_size=40, scale=1.0
    )
    flat = [step for epoch in steps(recipe, 100, 1) for step in epoch]
    assert len(flat) == 3 * 250
    for batch in range(3):
        part = flat[250 * batch : 250 * (batch + 1)]
        wanted = list(range(40 * batch, min(100, 40 * (batch + 1))))
        assert all(step.rows.tolist() == wanted for step in part)
        assert [step.last for step in part] == [False] * 60 + [True] * 190
    half = replace(recipe, scale=0.5)
    flat = [step for epoch in steps(half, 100, 1) for step in epoch]
    assert len(flat) == 3 * 125
    assert sum(not step.last for step in flat) == 3 * 30


# the loss


def sample(stars: Stars, dtype: torch.dtype = torch.float64) -> tuple[Propagation, Sample]:
    features = FeatureSet((6, 5), ("bp_rp", "j_h"))
    computed = features.compute(stars)
    scaling = Scaling.fit(computed.x, stars.labels.values)
    block = Block.of(computed, features, scaling, dtype)
    y, error = scaling.scale_y(stars.labels.values, stars.labels.errors)
    tensors = (torch.as_tensor(a, dtype=dtype) for a in (y, error))
    return Propagation(features, scaling, False, dtype), Sample(block, *tensors)


def network(dropout: float = 0.2, scatter: Any = "dropout") -> UncertainNetwork:
    torch.manual_seed(0)
    return UncertainNetwork(
        Architecture(13, 0, (8, 7), 2, dropout=dropout, scatter=scatter)
    ).double()


def test_the_loss_holds_every_variance_that_is_added_at_prediction(stars) -> None:
    """METHOD 4, the consistency rule: label error, model, input and excess, with t tails."""
    from scipy import stats as laws

    propagation, few = sample(stars[:20])
    net, recipe = network(), quick(likelihood="student_t", dof=4.0)
    got = float(_loss(net, propagation, few, recipe, input_term=True).detach())
    out = propagation.run(net, few.block)
    parts = [p.detach().numpy() for p in (out.input, out.model, out.excess)]
    assert all((part > 0).all() for part in parts)
    total = np.sqrt(few.y_error.numpy() ** 2 + sum(parts))
    residual = (few.y - out.mean).detach().numpy()
    assert got == pytest.approx(-laws.t.logpdf(residual, 4, scale=total).mean(), rel=1e-10)


def test_the_last_phase_of_a_teacher_has_neither_masks_nor_input_noise(stars) -> None:
    """Its loss is the same twice over, and that of its labels and excess alone."""
    propagation, few = sample(stars[:20])
    net, recipe = network(scatter="none"), quick(likelihood="gaussian")

    def loss(**keys: bool) -> float:
        return float(_loss(net, propagation, few, recipe, False, **keys).detach())

    assert loss() != loss()
    out = net(propagation.network_input(few.block))
    total = few.y_error**2 + out.excess
    wanted = 0.5 * (few.y - out.mean) ** 2 / total + 0.5 * torch.log(2 * torch.pi * total)
    assert loss(settled=True) == pytest.approx(float(wanted.mean().detach()), rel=1e-12)


def test_labels_count_as_the_recipe_weighs_them(stars) -> None:
    """Against a loop; one label is unknown for some."""
    propagation, few = sample(stars[:12])
    net, recipe = network(), quick(likelihood="gaussian")
    few.y[:5, 1] = torch.nan
    weighted = replace(few, weights=torch.tensor([1.0, 3.0]).double())
    got = float(_loss(net, propagation, weighted, recipe, True).detach())
    with torch.no_grad():
        out = propagation.run(net, few.block)
    top = bottom = 0.0
    for star in range(12):
        for label, weight in enumerate((1.0, 3.0)):
            if star < 5 and label == 1:
                continue
            total = float(few.y_error[star, label] ** 2 + out.variance[star, label])
            residual = float(few.y[star, label] - out.mean[star, label])
            top += weight * 0.5 * (residual**2 / total + np.log(2 * np.pi * total))
            bottom += weight
    assert got == pytest.approx(top / bottom, rel=1e-10)


def test_the_gradient_of_the_whole_loss_is_that_of_finite_differences(stars) -> None:
    propagation, few = sample(stars[:6])
    net, recipe = network(), quick()

    def loss() -> torch.Tensor:
        return _loss(net, propagation, few, recipe, input_term=True)

    check_gradients(loss, net.parameters(), every=7, floor=1e-7)


def test_hidden_inputs_are_drawn_at_the_recipe_s_rate(stars) -> None:
    seen: list[torch.Tensor] = []

    class Watching(Propagation):
        def run(self, network, block, **keys):  # type: ignore[no-untyped-def]
            seen.append(block.missing)
            return super().run(network, block, **keys)

    _, whole = sample(stars)
    features = FeatureSet((6, 5), ("bp_rp", "j_h"))
    scaling = Scaling.fit(features.compute(stars).x, stars.labels.values)
    net = UncertainNetwork(Architecture(13, 2, (8,), 2)).double()
    told = Watching(features, scaling, True, torch.float64)
    _loss(net, told, whole, quick(missing_fraction=0.3), input_term=False)
    assert float(seen[0].any(dim=1).double().mean()) == pytest.approx(0.3 * 7 / 8, abs=0.05)
    deaf = Watching(features, scaling, False, torch.float64)
    net = UncertainNetwork(Architecture(13, 0, (8,), 2)).double()
    _loss(net, deaf, whole, quick(missing_fraction=0.3), input_term=False)
    assert not seen[1].any()


def test_what_teachers_say_of_a_star_comes_from_those_that_left_it_out(stars) -> None:
    """Against the obvious loop, in float64; five teachers of three folds."""
    propagation, few = sample(stars[:9])
    x = propagation.network_input(few.block)
    networks = tuple(network() for _ in range(5))
    for number, net in enumerate(networks):
        with torch.no_grad():
            net.out.bias += number
    fold = torch.tensor([0, 1, 2] * 3)
    lesson = Teachers(networks, fold, 3).say(x)
    for star in range(9):
        said = [net(x[star : star + 1]).mean[0].detach().numpy() for net in networks]
        unseen = [label for number, label in enumerate(said) if number % 3 == int(fold[star])]
        np.testing.assert_allclose(lesson.mean[star], np.mean(said, axis=0), rtol=1e-12)
        np.testing.assert_allclose(lesson.variance[star], np.var(said, axis=0, ddof=1), rtol=1e-9)
        np.testing.assert_allclose(lesson.unseen[star], np.mean(unseen, axis=0), rtol=1e-12)
    assert Teachers(networks, 0 * fold, 1).say(x).unseen is None
    picked = Teachers(networks, fold, 3).take(torch.tensor([4, 0])).say(x[[4, 0]])
    torch.testing.assert_close(picked.unseen, lesson.unseen[[4, 0]])


def test_progress_is_one_line_an_epoch_on_a_terminal(capsys) -> None:
    bar = Bar()
    bar("network", 3, 3, -1.25, -1.0, 12.4)
    line = capsys.readouterr().err
    assert "network: epoch 3/3  loss -1.250  validation -1.000  12 s left" in line


def test_hidden_inputs_are_of_the_asked_share_of_stars_and_mostly_whole_surveys():
    torch.manual_seed(2)
    hidden = _hidden(torch.zeros(40_000, 3), 0.2)
    touched = hidden.any(dim=1)
    # of the chosen, one in sixteen draws an empty subset
    assert abs(float(touched.float().mean()) - 0.2 * 15 / 16) < 0.01
    whole = hidden[touched].all(dim=1)
    assert abs(float(whole.float().mean()) - (0.5 + 0.5 / 8) / (15 / 16)) < 0.02
    assert not _hidden(torch.zeros(100, 3), 0.0).any()
