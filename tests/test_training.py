"""Training: reproducible, resumable, blind to the test part, and clear about bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import quick
from xplabels import optimisation, training
from xplabels.checkpoint import Checkpoint
from xplabels.errors import InputError
from xplabels.features import FeatureSet
from xplabels.flags import Flag
from xplabels.labels import Labels
from xplabels.model import Model
from xplabels.network import Architecture, UncertainNetwork
from xplabels.optimisation import Lesson, Sample, _loss, one_cycle
from xplabels.propagation import Block, Propagation
from xplabels.recipes import Recipe, load_recipe
from xplabels.scaling import Scaling
from xplabels.split import part_mask
from xplabels.stars import Photometry, Stars
from xplabels.synthetic import simulate_stars
from xplabels.training import train
from xplabels.training_run import Bar
from xplabels.training_table import SMALLEST_TRAINING

NAMES = ("teff", "logg")


@pytest.fixture(scope="module")
def stars() -> Stars:
    return simulate_stars(700, labels=NAMES, widths=(6, 5), noise=5.0, seed=2)[0]


def weights(model: Model) -> np.ndarray:
    return np.concatenate(
        [tensor.detach().numpy().ravel() for net in model.networks for tensor in net.parameters()]
    )


def fitted(stars: Stars, recipe: Recipe | None = None, **keys: Any) -> Model:
    return train(stars, NAMES, recipe or quick(), progress=False, **keys)


def relabelled(stars: Stars, values: np.ndarray, errors: np.ndarray | None = None) -> Stars:
    old = stars.labels
    return stars.with_labels(Labels(old.names, values, old.errors if errors is None else errors))


# reproducibility


def test_the_seed_decides_everything(stars) -> None:
    one, same, other = (fitted(stars, seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(weights(one), weights(same))
    assert not np.array_equal(weights(one), weights(other))
    assert one.calibration.factor.tolist() == same.calibration.factor.tolist()
    # the statistics are the stars', not the seed's
    np.testing.assert_array_equal(one.scaling.x_mean, other.scaling.x_mean)


def test_what_ran_before_does_not_matter(stars) -> None:
    one = fitted(stars)
    torch.rand(17)
    np.testing.assert_array_equal(weights(fitted(stars)), weights(one))


def test_the_test_part_is_never_looked_at(stars) -> None:
    test = part_mask(stars.source_id, "test", 0.2)
    spoilt_values = np.where(test[:, None], 40000.0, stars.labels.values)
    spectra = replace(
        stars.spectra,
        bp=replace(
            stars.spectra.bp,
            coefficients=np.where(test[:, None], -1e9, stars.spectra.bp.coefficients),
        ),
    )
    spoilt = relabelled(replace(stars, spectra=spectra), spoilt_values)
    one, other = (fitted(s, test_fraction=0.2) for s in (stars, spoilt))
    np.testing.assert_array_equal(weights(one), weights(other))
    np.testing.assert_array_equal(one.calibration.factor, other.calibration.factor)
    np.testing.assert_array_equal(one.label_range, other.label_range)
    assert one.domain.threshold == other.domain.threshold
    assert one.metadata["validation"] == other.metadata["validation"]


def test_validation_stars_do_not_train(stars) -> None:
    validation = part_mask(stars.source_id, "validation", 0.1)
    changed = relabelled(stars, stars.labels.values + 7.0 * validation[:, None])
    one, other = fitted(stars), fitted(changed)
    np.testing.assert_array_equal(weights(one), weights(other))
    assert one.calibration.factor.tolist() != other.calibration.factor.tolist()


# resuming


class Killed(Exception):
    """Stands for the end of the process."""


def kill_after(monkeypatch: pytest.MonkeyPatch, stage: str, epoch: int) -> None:
    def progress(
        at: str, done: int, epochs: int, train: float, validation: float, left: float
    ) -> None:
        if (at, done) == (stage, epoch):
            raise Killed

    monkeypatch.setattr(training, "silent", progress)


SCHEDULES: dict[str, tuple[dict[str, Any], str, int]] = {
    "dropout": ({"epochs": 6, "dropout": 0.2, "missing_fraction": 0.2}, "network", 4),
    "fixed batches": (
        {"schedule": "fixed_batches", "iterations": 250, "warmup_iterations": 60,
         "batch_size": 300, "scatter": "sampling", "dropout": 0.2, "optimizer": "adam"},
        "network", 5,
    ),
    "ensemble": ({"scatter": "ensemble", "members": 2}, "member-2", 2),
    "distilled": (
        {"scatter": "distilled", "members": 2, "folds": 2, "teacher_hidden": (12,),
         "teacher_epochs": 3, "missing_fraction": 0.2, "auxiliary": ("bp_rp", "j_h")},
        "student", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_run_resumed_after_a_kill_equals_one_undisturbed(
    stars, tmp_path, monkeypatch, kind
) -> None:
    keys, stage, epoch = SCHEDULES[kind]
    recipe = quick(**keys)
    whole = fitted(stars, recipe, seed=1)
    monkeypatch.setattr(optimisation, "SECONDS_BETWEEN_STATES", 0.0)
    folder = tmp_path / "states"
    kill_after(monkeypatch, stage, epoch)
    with pytest.raises(Killed):
        fitted(stars, recipe, seed=1, checkpoint=folder)
    monkeypatch.undo()
    ran: list[tuple[str, int]] = []

    def progress(at: str, done: int, *rest: float) -> None:
        ran.append((at, done))

    monkeypatch.setattr(training, "silent", progress)
    resumed = fitted(stars, recipe, seed=1, checkpoint=folder)
    np.testing.assert_array_equal(weights(whole), weights(resumed))
    assert resumed.calibration.factor.tolist() == whole.calibration.factor.tolist()
    # it did go on where it was killed (that epoch's state was not written yet)
    assert ran[0] == (stage, epoch)
    losses = [
        {at: [(e["epoch"], e["train"], e["validation"]) for e in entries] for at, entries in h}
        for h in (m.metadata["history"].items() for m in (whole, resumed))
    ]
    assert losses[0] == losses[1]


def test_the_checkpoint_of_another_run_is_an_error(stars, tmp_path) -> None:
    folder = tmp_path / "states"
    fitted(stars, checkpoint=folder)
    values = stars.labels.values.copy()
    train_rows = np.flatnonzero(part_mask(stars.source_id, "train", 0.1))
    values[train_rows[0], 0] += 1.0
    others: list[tuple[Stars, Recipe, dict[str, Any]]] = [
        (stars, quick(), {"seed": 1}),
        (stars, quick(epochs=5), {}),
        (stars[:650], quick(), {}),
        (relabelled(stars, values), quick(), {}),
    ]
    for other, recipe, keys in others:
        with pytest.raises(InputError, match=r"states.*another run"):
            fitted(other, recipe, checkpoint=folder, **keys)
    with pytest.raises(InputError, match="another run"):
        train(stars, ["teff"], quick(), checkpoint=folder, progress=False)
    fitted(stars, checkpoint=folder)


def test_checkpoints_can_be_removed_and_cannot_lie_in_a_file(tmp_path) -> None:
    path = tmp_path / "states"
    states = Checkpoint(path, {"a": 1})
    states.save("one", {"x": torch.arange(3)}, {"epoch": 2})
    tensors, facts = states.load("one")
    assert torch.equal(tensors["x"], torch.arange(3))
    assert facts == {"epoch": 2}
    assert states.load("two") is None
    saved = (path / "one.safetensors").read_bytes()
    (path / "one.safetensors").write_bytes(saved[:-5])
    with pytest.raises(InputError, match=r"one\.safetensors.*damaged.*remove it"):
        states.load("one")
    states.remove()
    assert not path.exists()
    path.mkdir()
    (path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        Checkpoint(path, {})
    (path / "thesis.tex").unlink()
    path.rmdir()
    path.write_text("a file")
    with pytest.raises(InputError, match="states"):
        Checkpoint(path, {})
    nowhere = Checkpoint(None, {})
    nowhere.save("one", {}, {})
    assert nowhere.load("one") is None


# labels


def test_a_label_missing_for_a_third_of_the_stars_trains_and_costs_little() -> None:
    stars, _ = simulate_stars(1500, labels=NAMES, widths=(6, 5), noise=5.0, seed=4)
    fresh, truth = simulate_stars(1000, labels=NAMES, widths=(6, 5), noise=5.0, seed=5)
    values, errors = stars.labels.values.copy(), stars.labels.errors.copy()
    values[::3, 1] = errors[::3, 1] = np.nan
    recipe = quick(hidden=(32, 32), epochs=25, dropout=0.0, scatter="none", learning_rate=5e-3)
    rms = []
    for table in (stars, relabelled(stars, values, errors)):
        model = fitted(table, recipe)
        assert np.isfinite(weights(model)).all()
        off = model.predict(fresh).values - truth.values
        rms.append(np.sqrt((off**2).mean(axis=0)))
    assert (rms[1] < 1.3 * rms[0]).all()
    assert (rms[0] < 0.5 * truth.values.std(axis=0)).all()
    known = part_mask(stars.source_id, "train", 0.1) & np.isfinite(values[:, 1])
    assert model.metadata["training"]["n_per_label"][1] == known.sum()


def test_a_star_without_any_label_does_not_count(stars) -> None:
    values, errors = stars.labels.values.copy(), stars.labels.errors.copy()
    values[::10] = errors[::10] = np.nan
    one = fitted(relabelled(stars, values, errors))
    other = fitted(stars[np.arange(len(stars)) % 10 != 0])
    np.testing.assert_array_equal(weights(one), weights(other))


def test_a_value_without_an_error_is_unknown(stars) -> None:
    errors = stars.labels.errors.copy()
    errors[::4, 0] = np.nan
    values = stars.labels.values.copy()
    values[::4, 0] = np.nan
    one = fitted(relabelled(stars, stars.labels.values, errors))
    other = fitted(relabelled(stars, values, errors))
    np.testing.assert_array_equal(weights(one), weights(other))


@pytest.mark.parametrize("error", [0.0, -2.0])
def test_an_error_that_is_not_positive_names_its_star(stars, error) -> None:
    errors = stars.labels.errors.copy()
    errors[123, 1] = error
    with pytest.raises(
        InputError,
        match=rf"simulated stars, source_id {stars.source_id[123]}: logg_err is {error:g}",
    ):
        fitted(relabelled(stars, stars.labels.values, errors))


def test_larger_label_errors_weigh_less() -> None:
    """Half the labels are wrong by a constant, and say that they may be."""
    stars, _ = simulate_stars(1500, labels=("teff",), widths=(6, 5), noise=5.0, seed=6)
    fresh, truth = simulate_stars(500, labels=("teff",), widths=(6, 5), noise=5.0, seed=7)
    wrong = np.arange(1500) % 2 == 0
    values = stars.labels.values + 600.0 * wrong[:, None]
    bias = []
    for stated in (12.0, 2000.0):
        errors = np.where(wrong[:, None], stated, 12.0)
        recipe = quick(hidden=(32,), epochs=15, learning_rate=5e-3, likelihood="gaussian")
        model = train(relabelled(stars, values, errors), ["teff"], recipe, progress=False)
        bias.append(float(np.median(model.predict(fresh).values - truth.values)))
    assert bias[0] > 200
    assert abs(bias[1]) < 60


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["tef"], "unknown label 'tef'"),
        (["teff", "fe_h"], r"'fe_h' is absent.*teff, logg"),
        ([], "no label"),
        (["teff", "teff"], "twice"),
    ],
)
def test_labels_that_cannot_be_learnt(stars, names, message) -> None:
    with pytest.raises(InputError, match=message):
        train(stars, names, quick(), progress=False)


def test_stars_without_labels_cannot_train(stars) -> None:
    with pytest.raises(InputError, match=r"no labels to learn.*teff and teff_err"):
        fitted(stars.with_labels(None))


def test_too_few_stars_is_an_error_with_the_numbers(stars) -> None:
    few = stars[:220]
    found = int(part_mask(few.source_id, "train", 0.1).sum())
    with pytest.raises(
        InputError, match=rf"simulated stars.*only {found} usable.*{SMALLEST_TRAINING} are needed"
    ):
        fitted(few)
    values = stars.labels.values.copy()
    values[50:, 1] = np.nan
    with pytest.raises(InputError, match=r"of the training part have logg"):
        fitted(relabelled(stars, values))


def test_an_input_no_star_has_is_an_error_that_names_it(stars) -> None:
    bare = stars.with_photometry(Photometry.missing(len(stars)))
    with pytest.raises(InputError, match="input bp_rp is missing for every"):
        fitted(bare, quick(auxiliary=("bp_rp", "j_h")))


# spectra


def test_damaged_and_flagged_spectra_do_not_train(stars) -> None:
    spectra = stars.spectra
    coefficients = spectra.bp.coefficients.copy()
    errors = spectra.rp.errors.copy()
    first = spectra.rp.coefficients.copy()
    coefficients[0:7] = np.nan
    errors[7:14, 2] = np.nan
    first[14:21, 0] = 0.0
    flags = stars.flags.copy()
    flags[21:28] |= np.uint32(Flag.BAD_ROW)
    damaged = replace(
        stars,
        flags=flags,
        spectra=replace(
            spectra,
            bp=replace(spectra.bp, coefficients=coefficients),
            rp=replace(spectra.rp, errors=errors, coefficients=first),
        ),
    )
    one, other = fitted(damaged), fitted(stars[28:])
    np.testing.assert_array_equal(weights(one), weights(other))
    assert one.metadata["training"]["n_train"] == other.metadata["training"]["n_train"]


def test_the_inputs_are_those_at_least_half_of_the_stars_have(stars) -> None:
    values, errors = stars.photometry.values.copy(), stars.photometry.errors.copy()
    values[:400, 8] = errors[:400, 8] = np.nan  # the parallax
    assert fitted(stars).feature_set.auxiliary == ("bp_rp", "j_h", "w1_w2", "h_w2", "m_pseudo")
    some = fitted(stars.with_photometry(Photometry(values, errors)))
    assert some.feature_set.auxiliary == ("bp_rp", "j_h", "w1_w2", "h_w2")
    none = fitted(stars.with_photometry(Photometry.missing(len(stars))))
    assert none.feature_set.auxiliary == ()


# every kind


KINDS: dict[str, dict[str, Any]] = {
    "none": {"scatter": "none"},
    "dropout": {"scatter": "dropout", "dropout": 0.2},
    "sampling": {"scatter": "sampling", "dropout": 0.2, "passes": 10},
    "ensemble": {"scatter": "ensemble", "members": 3},
    "distilled": {"scatter": "distilled", "members": 3, "folds": 2, "teacher_hidden": (16,),
                  "teacher_epochs": 4},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_every_kind_of_scatter_trains_saves_and_predicts(stars, tmp_path, kind, missing) -> None:
    recipe = quick(**KINDS[kind], missing_fraction=missing, auxiliary=("bp_rp", "m_pseudo"))
    model = fitted(stars, recipe)
    model.save(tmp_path / "m")
    lacking = stars.with_photometry(Photometry.missing(len(stars)))
    for table in (stars, lacking):
        prediction = Model.load(tmp_path / "m").predict(table)
        assert np.isfinite(prediction.values).all()
        assert (prediction.errors_input > 0).all()
        assert (prediction.errors_excess > 0).all()
        assert ((prediction.errors_model > 0) == (kind != "none")).all()
        np.testing.assert_array_equal(prediction.values, model.predict(table).values)
    assert len(model.networks) == (3 if kind == "ensemble" else 1)
    assert model.predict(stars).meta["SCATTER"] == kind


@pytest.mark.parametrize("likelihood", ["gaussian", "student_t"])
@pytest.mark.parametrize("covariance", ["exact", "fs24"])
def test_every_likelihood_and_covariance_trains(stars, likelihood, covariance) -> None:
    model = fitted(stars, quick(likelihood=likelihood, covariance=covariance))
    assert model.feature_set.covariance == covariance
    assert np.isfinite(model.predict(stars).errors).all()


def test_the_paper_s_recipe_trains_scaled_down(stars) -> None:
    recipe = replace(load_recipe("paper"), scale=0.005, batch_size=250)
    model = fitted(stars, recipe)
    steps = model.metadata["history"]["network"]
    train_stars = model.metadata["training"]["n_train"]
    # 100 iterations a batch, reported once each
    assert len(steps) == -(-train_stars // 250)
    prediction = model.predict(stars)
    assert np.isfinite(prediction.errors).all()
    np.testing.assert_allclose(model.calibration.factor, 1.0, rtol=1e-3)
    np.testing.assert_allclose(model.calibration.factor_95, 2.0, rtol=1e-3)


def test_the_history_is_kept_and_the_loss_falls(stars) -> None:
    history = fitted(stars, quick(epochs=12, learning_rate=5e-3)).metadata["history"]["network"]
    assert [entry["epoch"] for entry in history] == list(range(1, 13))
    assert history[-1]["train"] < history[0]["train"] - 0.3
    assert history[-1]["validation"] < history[0]["validation"] - 0.3


def test_an_ensemble_is_the_mean_and_scatter_of_its_members(stars) -> None:
    model = fitted(stars, quick(scatter="ensemble", members=3, recalibrate=False))
    single = [
        replace(model, networks=(net,), recipe=quick(scatter="none")).predict(stars)
        for net in model.networks
    ]
    values = np.stack([p.values for p in single])
    together = model.predict(stars)
    np.testing.assert_allclose(together.values, values.mean(axis=0), rtol=1e-9)
    factor = model.calibration.factor
    np.testing.assert_allclose(
        together.errors_model, values.std(axis=0, ddof=1) * factor, rtol=1e-6
    )
    excess = np.sqrt(np.mean([p.errors_excess**2 for p in single], axis=0))
    np.testing.assert_allclose(together.errors_excess, excess, rtol=1e-9)


# the schedule, step by step


def test_one_cycle_rises_and_falls_smoothly() -> None:
    rates = [one_cycle(share) for share in np.linspace(0, 1, 1001)]
    assert max(rates) == pytest.approx(1.0, abs=1e-4)
    assert rates[0] == pytest.approx(0.04)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    peak = int(np.argmax(rates))
    assert (np.diff(rates[: peak + 1]) >= 0).all()
    assert (np.diff(rates[peak:]) <= 0).all()


def steps(recipe: Recipe, stars: int, epochs: int, fraction: float) -> list[list[Any]]:
    number = optimisation._number_of_epochs(recipe, stars, epochs)
    return [
        list(optimisation._steps(recipe, stars, epoch, epochs, fraction, 0))
        for epoch in range(number)
    ]


def test_every_epoch_sees_every_star_once_and_in_another_order() -> None:
    epochs = steps(quick(batch_size=30), 100, 6, 0.5)
    orders = [torch.cat([step.rows for step in epoch]) for epoch in epochs]
    for order in orders:
        assert sorted(order.tolist()) == list(range(100))
    assert not torch.equal(orders[0], orders[1])
    assert [epoch[0].input_term for epoch in epochs] == [False] * 3 + [True] * 3


def test_the_paper_s_batches_come_in_turn_with_their_warm_up() -> None:
    """Section 3.1: all iterations on a batch, the first without the input term, then the next."""
    recipe = quick(
        schedule="fixed_batches", iterations=250, warmup_iterations=60, batch_size=40, scale=1.0
    )
    flat = [step for epoch in steps(recipe, 100, 1, 0.2) for step in epoch]
    assert len(flat) == 3 * 250
    for batch in range(3):
        part = flat[250 * batch : 250 * (batch + 1)]
        wanted = list(range(40 * batch, min(100, 40 * (batch + 1))))
        assert all(step.rows.tolist() == wanted for step in part)
        assert [step.input_term for step in part] == [False] * 60 + [True] * 190
    half = replace(recipe, scale=0.5)
    flat = [step for epoch in steps(half, 100, 1, 0.2) for step in epoch]
    assert len(flat) == 3 * 125
    assert sum(not step.input_term for step in flat) == 3 * 30


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
    residual = (few.y - out.labels).detach().numpy()
    assert got == pytest.approx(-laws.t.logpdf(residual, 4, scale=total).mean(), rel=1e-10)


def test_the_gradient_of_the_whole_loss_is_that_of_finite_differences(stars) -> None:
    propagation, few = sample(stars[:6])
    net, recipe = network(), quick()

    def loss() -> torch.Tensor:
        return _loss(net, propagation, few, recipe, input_term=True)

    loss().backward()
    for weight in net.parameters():
        flat, gradient = weight.data.view(-1), weight.grad.view(-1)
        for i in range(0, len(flat), 7):
            kept = float(flat[i])
            sides = []
            for step in (1e-6, -1e-6):
                flat[i] = kept + step
                sides.append(float(loss().detach()))
            flat[i] = kept
            assert float(gradient[i]) == pytest.approx(
                (sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-7
            )


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
    assert float(seen[0].double().mean()) == pytest.approx(0.3, abs=0.05)
    deaf = Watching(features, scaling, False, torch.float64)
    net = UncertainNetwork(Architecture(13, 0, (8,), 2)).double()
    _loss(net, deaf, whole, quick(missing_fraction=0.3), input_term=False)
    assert not seen[1].any()


def test_a_lesson_is_looked_up_by_star_and_pattern() -> None:
    numbers = torch.arange(24.0).reshape(3, 4, 2)
    lesson = Lesson(numbers, numbers + 100, numbers + 200)
    picked = lesson.take(torch.tensor([2, 0])).for_patterns(torch.tensor([1, 3]))
    torch.testing.assert_close(picked.mean, torch.stack([numbers[2, 1], numbers[0, 3]]))
    torch.testing.assert_close(picked.unseen, picked.mean + 200)


def test_progress_is_one_line_an_epoch_on_a_terminal(capsys) -> None:
    bar = Bar()
    bar("network", 3, 3, -1.25, -1.0, 12.4)
    line = capsys.readouterr().err
    assert "network: epoch 3/3  loss -1.250  validation -1.000  12 s left" in line


def test_a_checkpoint_folder_is_made_where_it_is_asked_for(stars, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    fitted(stars, checkpoint=folder)
    assert (folder / "manifest.json").is_file()
