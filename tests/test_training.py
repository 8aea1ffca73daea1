"""Training: reproducible, blind to the test part, in every kind; interrupted runs go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import fitted, quick, relabelled, weights
from twins import with_bands
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.split import part_mask
from xplabels.core.stars import Photometry
from xplabels.features import AUXILIARY
from xplabels.model import Model
from xplabels.recipes import load_recipe
from xplabels.synthetic import simulate_stars
from xplabels.training import optimisation, train
from xplabels.training.optimisation import Checkpoint

NAMES = ("teff", "logg")


def same(one: Model, other: Model) -> None:
    """Trained and calibrated alike."""
    np.testing.assert_array_equal(weights(one), weights(other))
    np.testing.assert_array_equal(one.calibration.factor, other.calibration.factor)
    np.testing.assert_array_equal(one.calibration.factor_95, other.calibration.factor_95)
    assert one.calibration.joint == other.calibration.joint
    np.testing.assert_array_equal(one.label_range, other.label_range)
    assert one.domain.threshold == other.domain.threshold
    assert one.metadata["validation"] == other.metadata["validation"]


def test_the_seed_decides_everything(stars) -> None:
    one = fitted(stars, seed=4)
    torch.rand(17)  # what ran before does not matter
    same(one, fitted(stars, seed=4))
    other = fitted(stars, seed=5)
    assert not np.array_equal(weights(one), weights(other))
    # the statistics are the stars', not the seed's
    np.testing.assert_array_equal(one.scaling.x_mean, other.scaling.x_mean)


@pytest.mark.parametrize("folds", [0, 2])
def test_the_test_part_is_never_looked_at(stars, folds) -> None:
    test = part_mask(stars.source_id, "test", 0.2)[:, None]
    bp = stars.spectra.bp
    bp = replace(bp, coefficients=np.where(test, -1e9, bp.coefficients))
    spoilt = relabelled(
        replace(stars, spectra=replace(stars.spectra, bp=bp)),
        np.where(test, 40000.0, stars.labels.values),
    )
    recipe = quick(calibration_folds=folds)
    same(*(fitted(s, recipe, test_fraction=0.2) for s in (stars, spoilt)))


def test_validation_stars_do_not_train(stars) -> None:
    validation = part_mask(stars.source_id, "validation", 0.1)
    changed = relabelled(stars, stars.labels.values + 7.0 * validation[:, None])
    one, other = fitted(stars), fitted(changed)
    np.testing.assert_array_equal(weights(one), weights(other))
    assert one.calibration.factor.tolist() != other.calibration.factor.tolist()


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


def test_damaged_and_flagged_spectra_do_not_train(stars) -> None:
    bp, rp = stars.spectra.bp, stars.spectra.rp
    blue, red, errors, flags = (
        array.copy() for array in (bp.coefficients, rp.coefficients, rp.errors, stars.flags)
    )
    blue[0:7] = np.nan
    errors[7:14, 2] = np.nan
    red[14:21, 0] = 0.0
    flags[21:28] |= np.uint32(Flag.BAD_ROW)
    spectra = replace(
        stars.spectra, bp=replace(bp, coefficients=blue),
        rp=replace(rp, errors=errors, coefficients=red),
    )  # fmt: skip
    one, other = fitted(replace(stars, spectra=spectra, flags=flags)), fitted(stars[28:])
    same(one, other)
    assert one.metadata["training"]["n_train"] == other.metadata["training"]["n_train"]


def test_the_inputs_are_those_at_least_half_of_the_stars_have(stars) -> None:
    values, errors = stars.photometry.values.copy(), stars.photometry.errors.copy()
    values[:400, 8] = errors[:400, 8] = np.nan  # the parallax
    assert fitted(stars).feature_set.auxiliary == tuple(AUXILIARY)
    some = fitted(stars.with_photometry(Photometry(values, errors)))
    assert some.feature_set.auxiliary == tuple(n for n in AUXILIARY if n != "m_pseudo")
    none = fitted(stars.with_photometry(Photometry.missing(len(stars))))
    assert none.feature_set.auxiliary == ()


KINDS: dict[str, dict[str, Any]] = {
    "none": {"scatter": "none"},
    "dropout": {"scatter": "dropout", "dropout": 0.2},
    "sampling": {"scatter": "sampling", "dropout": 0.2, "passes": 10},
    "ensemble": {"scatter": "ensemble", "members": 3},
    "distilled": {"scatter": "distilled", "members": 3, "folds": 2, "teacher_hidden": (16,),
                  "teacher_epochs": 4},
    "taught by all": {"scatter": "distilled", "members": 2, "teacher_hidden": (16,),
                      "teacher_epochs": 4, "label_weights": {"logg": 2.0}},
}  # fmt: skip


def test_unknown_labels_do_not_count(stars) -> None:
    """A star without any, and a value without an error."""
    values, errors = stars.labels.values.copy(), stars.labels.errors.copy()
    values[::10] = errors[::10] = np.nan
    known = stars[np.arange(len(stars)) % 10 != 0]
    same(fitted(relabelled(stars, values, errors)), fitted(known))
    values, errors = known.labels.values.copy(), known.labels.errors.copy()
    errors[::4, 0] = np.nan
    one = fitted(relabelled(known, values, errors))
    values[::4, 0] = np.nan
    same(one, fitted(relabelled(known, values, errors)))


def test_an_error_that_is_not_positive_names_its_star(stars) -> None:
    errors = np.where(np.arange(len(stars)) == 123, 0.0, 1.0)[:, None] * stars.labels.errors
    message = rf"simulated stars, source_id {stars.source_id[123]}: teff_err is 0, an error must be"
    with pytest.raises(InputError, match=message):
        fitted(relabelled(stars, stars.labels.values, errors))


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
    assert model.predict(stars).meta["SCATTER"] == KINDS[kind]["scatter"]


def test_the_paper_s_recipe_trains_scaled_down(stars) -> None:
    recipe = replace(load_recipe("paper"), scale=0.005, batch_size=250)
    model = fitted(stars, recipe)
    steps = model.metadata["history"]["network"]
    # 100 iterations a batch, reported once each
    assert len(steps) == -(-model.metadata["training"]["n_train"] // 250)
    assert np.isfinite(model.predict(stars).errors).all()
    np.testing.assert_allclose(model.calibration.factor, 1.0, rtol=1e-3)
    np.testing.assert_allclose(model.calibration.factor_95, 2.0, rtol=1e-3)


def test_an_ensemble_is_the_mean_and_scatter_of_its_members(stars) -> None:
    model = fitted(stars, quick(scatter="ensemble", members=3, recalibrate=False))
    single = [
        replace(model, networks=(net,), recipe=quick(scatter="none")).predict(stars)
        for net in model.networks
    ]
    together, scaling = model.predict(stars), model.scaling
    values = np.stack([scaling.scale_y(p.values, p.errors)[0] for p in single])
    mean = scaling.unscale_y(values.mean(axis=0))
    np.testing.assert_allclose(together.values, mean, rtol=1e-9)
    by_members = values.std(axis=0, ddof=1) * model.calibration.factor * scaling.y_unit(mean)
    np.testing.assert_allclose(together.errors_model, by_members, rtol=1e-6)
    relative = [p.errors_excess / scaling.y_unit(p.values) for p in single]
    excess = np.sqrt(np.mean(np.square(relative), axis=0)) * scaling.y_unit(mean)
    np.testing.assert_allclose(together.errors_excess, excess, rtol=1e-9)


def test_emphasis_changes_what_is_learnt_and_nothing_else(stars) -> None:
    plain, emphasised = (fitted(stars, quick(epochs=1, emphasis=e)).networks[0] for e in (0.0, 0.5))
    assert plain.arrays.keys() == emphasised.arrays.keys()
    assert not np.array_equal(plain.arrays["hidden.0.weight"], emphasised.arrays["hidden.0.weight"])


@pytest.mark.parametrize("kind", ["dropout", "distilled"])
def test_any_seed_below_2_to_63_will_do(stars, kind) -> None:
    assert np.isfinite(weights(fitted(stars, quick(**KINDS[kind]), seed=2**63 - 1))).all()
    for seed in (-1, 2**63):
        with pytest.raises(InputError, match=f"{seed} is not a seed; give 0 or more"):
            fitted(stars, seed=seed)


def test_errors_of_zero_are_refused_before_anything_is_trained(stars) -> None:
    silent = with_bands(stars, lambda band: replace(band, errors=0 * band.errors))
    with pytest.raises(InputError, match=r"errors of zero in a band; .* noise_levels = false"):
        fitted(silent)
    assert fitted(silent, quick(noise_levels=False)).names == NAMES


def test_names_of_labels_may_stand_in_one_text(stars) -> None:
    model = train(stars, "teff, logg", quick(epochs=1), progress=False)
    assert model.names == NAMES


# interrupted runs


class Killed(Exception):
    """Stands for the end of the process."""


class Epochs(logging.Handler):
    """Notes every epoch that is trained, and kills the run at one of them."""

    def __init__(self, kill: str | None = None) -> None:
        super().__init__()
        self.kill, self.seen = kill, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage().split("/")[0])
        if self.seen[-1] == self.kill:
            raise Killed


@contextmanager
def watching(kill: str | None = None) -> Iterator[list[str]]:
    """The epochs trained in the block, such as ``network: epoch 3``."""
    logger, handler = logging.getLogger(optimisation.__name__), Epochs(kill)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield handler.seen
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


SCHEDULES: dict[str, tuple[dict[str, Any], str]] = {
    "dropout": ({"epochs": 6, "dropout": 0.2, "missing_fraction": 0.2}, "network: epoch 4"),
    "fixed batches": (
        {"schedule": "fixed_batches", "iterations": 130, "warmup_iterations": 60,
         "batch_size": 300, "scatter": "sampling", "dropout": 0.2, "optimizer": "adam"},
        "network: epoch 3",
    ),
    "ensemble": ({"scatter": "ensemble", "members": 2}, "member-2: epoch 2"),
    "folds": ({"calibration_folds": 2}, "fold-2-network: epoch 2"),
    "distilled": (
        {"scatter": "distilled", "members": 2, "folds": 2, "teacher_hidden": (12,),
         "teacher_epochs": 3, "missing_fraction": 0.2, "auxiliary": ("bp_rp", "j_h")},
        "student: epoch 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_run_resumed_after_a_kill_equals_one_undisturbed(
    stars, tmp_path, monkeypatch, kind
) -> None:
    keys, killed = SCHEDULES[kind]
    recipe, folder = quick(**keys), tmp_path / "states"
    monkeypatch.setattr(optimisation, "SECONDS_BETWEEN_STATES", 0.0)
    whole = fitted(stars, recipe, seed=1)
    with pytest.raises(Killed), watching(killed):
        fitted(stars, recipe, seed=1, checkpoint=folder)
    with watching() as epochs:
        resumed = fitted(stars, recipe, seed=1, checkpoint=folder)
    np.testing.assert_array_equal(weights(whole), weights(resumed))
    assert resumed.calibration.factor.tolist() == whole.calibration.factor.tolist()
    # it did go on where it was killed (that epoch's state was not written yet)
    assert epochs[0] == killed
    first, second = (
        {at: [(e["epoch"], e["train"], e["validation"]) for e in entries] for at, entries in h}
        for h in (m.metadata["history"].items() for m in (whole, resumed))
    )
    assert first == second
    for entries in resumed.metadata["history"].values():  # seconds of all runs count
        assert (np.diff([entry["seconds"] for entry in entries]) > 0).all()


def test_the_checkpoint_of_another_run_is_an_error(stars, tmp_path) -> None:
    folder = tmp_path / "states"
    fitted(stars, checkpoint=folder)
    values = stars.labels.values.copy()
    train_rows = np.flatnonzero(part_mask(stars.source_id, "train", 0.1))
    values[train_rows[0], 0] += 1.0
    for other, recipe, seed in (
        (stars, quick(), 1), (stars, quick(epochs=5), 0), (relabelled(stars, values), quick(), 0),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"states.*other options"):
            fitted(other, recipe, checkpoint=folder, seed=seed)
    with pytest.raises(InputError, match="other options"):
        train(stars, ["teff"], quick(), checkpoint=folder, progress=False)
    fitted(stars, checkpoint=folder)


def test_a_damaged_state_says_so(stars, tmp_path) -> None:
    fitted(stars, checkpoint=tmp_path)
    state = tmp_path / "network.safetensors"
    state.write_bytes(state.read_bytes()[:-5])
    with pytest.raises(
        InputError, match=r"network\.safetensors: is not a whole checkpoint.*remove it"
    ):
        fitted(stars, checkpoint=tmp_path)


def test_a_folder_of_the_user_s_holds_no_checkpoints(tmp_path) -> None:
    path = tmp_path / "states"
    path.mkdir()
    (path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="not made here"):
        Checkpoint(path, {})
    (path / "manifest.json").write_text("{}")  # matches, but the folder would be removed in the end
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"thesis\.tex.*not made here"):
            Checkpoint(path, {}, overwrite)
    (tmp_path / "file").write_text("a file")
    with pytest.raises(InputError, match="file"):
        Checkpoint(tmp_path / "file", {})


@pytest.mark.parametrize("teff", [0.0, -5.0])
def test_a_label_without_a_logarithm_is_refused(stars, teff) -> None:
    values = stars.labels.values.copy()
    values[3, 0] = teff
    with pytest.raises(InputError, match=rf"{stars.source_id[3]}.*teff is {teff:g}.*no logarithm"):
        fitted(relabelled(stars, values))
    fitted(relabelled(stars, values), quick(logarithmic=(), epochs=1))
