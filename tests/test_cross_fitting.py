"""Calibration on folds of the training stars, each left out by a network."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from conftest import altered, fitted, quick, relabelled, weights
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.split import fold_of
from xplabels.giants.copies import FIRST_COPY, copy_ids
from xplabels.model import Model
from xplabels.synthetic import simulate_stars
from xplabels.training.cross_fitting import (
    LARGEST_CORRECTION,
    HoldoutPrediction,
    calibrated,
    fit_calibration,
)
from xplabels.training.optimisation import Checkpoint
from xplabels.training.run import Run
from xplabels.training.table import training_table

NAMES = ("teff", "logg")


def test_folds_are_even_and_a_stars_copies_share_its_fold() -> None:
    ids = np.random.default_rng(0).integers(0, FIRST_COPY, 20_000)
    fold = fold_of(ids, 4)
    np.testing.assert_allclose(np.bincount(fold) / len(ids), 0.25, atol=0.015)
    for copies in copy_ids(ids[:300], 2):
        np.testing.assert_array_equal(fold_of(copies, 4), fold[:300])


def runs_of(stars, recipe):
    table = training_table(stars, NAMES, recipe, 0.1)
    return table, list(Run(table, recipe, 1, Checkpoint(None, {})).calibration_folds())


def test_every_training_star_is_left_out_once_and_unseen_by_those_networks(stars) -> None:
    """Labels exchanged within what a fold leaves out: no mean or scatter tells of it."""
    recipe = quick(calibration_folds=3)
    table, folds = runs_of(stars, recipe)
    np.testing.assert_array_equal(np.sum([fold.left_out for fold in folds], axis=0), table.train)
    assert not any((fold.left_out & table.validation).any() for fold in folds)

    exchanged = np.flatnonzero(np.isin(stars.source_id, table.stars.source_id[folds[1].left_out]))
    values, errors = stars.labels.values.copy(), stars.labels.errors.copy()
    values[exchanged], errors[exchanged] = values[exchanged[::-1]], errors[exchanged[::-1]]
    _, others = runs_of(relabelled(stars, values, errors), recipe)
    same = [
        np.array_equal(*(fold.networks[0].arrays["out.weight"] for fold in pair))
        for pair in zip(folds, others, strict=True)
    ]
    assert same == [False, True, False]


def test_folds_change_errors_only(stars) -> None:
    plain, crossed = (fitted(stars, quick(calibration_folds=n)) for n in (0, 2))
    np.testing.assert_array_equal(weights(plain), weights(crossed))
    assert plain.calibration.factor.tolist() != crossed.calibration.factor.tolist()
    assert list(plain.metadata["history"]) == list(crossed.metadata["history"])


OWN = 0.2
"""Of a network's residuals, relative to the part that all share: networks that train on three
quarters of the semi-synthetic giants agree with that of all so well (correlation 0.96)."""


def simulated(random, count, common, larger=1.0):
    """Stars of which a network states errors of 1 whose true size goes with the first label.

    ``common`` [count, 2] is the part of a residual that every network shares: the noise of a
    star's own spectrum and labels. ``larger``: how much worse than the best network this one is.
    """
    labels, noise = common[:, 2:], np.empty((count, 0))
    own = random.normal(0, OWN, (count, 2))
    size = larger * true_size(labels)
    residuals = size * (common[:, :2] + own) / np.hypot(1, OWN)
    none = np.zeros((count, 2))
    return HoldoutPrediction(
        labels, noise, residuals, none, np.ones((count, 2)), none, np.zeros(count)
    )


def true_size(labels):
    return np.exp(0.2 * np.clip(labels[:, :1], -2, 2))


def common_part(random, count):
    return np.concatenate(
        [stats.norm.rvs(size=(count, 2), random_state=random), random.normal(size=(count, 2))], 1
    )


def coverage_error(calibration, random) -> list[float]:
    """Of new stars, all and the quarter with the largest first labels, 68.3 and 95.4 %: exact."""
    labels = random.normal(size=(4000, 2))
    squares = calibration.shape.squares(labels, np.empty((4000, 0)))
    widths, found = calibration.half_widths(squares, np.zeros_like(squares)), []
    for width, level in zip(widths, (LEVEL_68, LEVEL_95), strict=True):
        inside = 2 * stats.norm.cdf(width / true_size(labels)) - 1
        edge = labels[:, 0] > 0.67
        found += [inside[:, 0].mean() - level, inside[edge, 0].mean() - level]
    return found


def test_folds_make_coverage_right_where_few_validation_stars_leave_it_to_luck() -> None:
    """In the mean of many tables; the networks of folds err 10 % more, which must not count."""
    random = np.random.default_rng(5)
    alone, crossed = [], []
    for _ in range(60):
        common = common_part(random, 1000)
        validation = simulated(random, 1000, common)
        folds = [
            (simulated(random, 2000, common_part(random, 2000), 1.1),
             simulated(random, 1000, common, 1.1))
            for _ in range(4)
        ]  # fmt: skip
        alone.append(coverage_error(fit_calibration(validation), random))
        crossed.append(coverage_error(fit_calibration(validation, folds), random))
    rms = [np.sqrt(np.mean(np.square(one), axis=0)) for one in (alone, crossed)]
    assert (rms[1] < 0.75 * rms[0]).all(), rms
    assert np.abs(np.mean(crossed, axis=0)).max() < 0.01


@pytest.mark.parametrize("size", [50.0, 0.02])
def test_a_level_is_never_corrected_by_much(size) -> None:
    random = np.random.default_rng(6)
    common = common_part(random, 1000)
    validation = simulated(random, 1000, common)
    odd = (simulated(random, 1000, common, size), simulated(random, 1000, common))
    shape, corrected = odd[0].shape(), fit_calibration(validation, [odd])
    own = validation.level(shape, odd[0].local(shape))
    bound = LARGEST_CORRECTION if size > 1 else 1 / LARGEST_CORRECTION
    np.testing.assert_allclose(corrected.factor, bound * own.factor)
    np.testing.assert_allclose(corrected.factor_95, bound * own.factor_95)


def test_no_network_is_asked_about_stars_it_saw(monkeypatch) -> None:
    """Every network that the calibration asks, by the stars it is asked about."""
    stars, _ = simulate_stars(1500, labels=NAMES, widths=(6, 5), noise=5.0, seed=3)
    recipe = quick(calibration_folds=2)
    table, folds = runs_of(stars, recipe)
    model = fitted(stars, recipe)
    saw = {id(fold.networks): table.train & ~fold.left_out for fold in folds}
    saw[id(model.networks)] = table.train
    asked = []
    predicted = Model.predict

    def predict(model, given, **keys):
        rows = np.isin(table.stars.source_id, given.source_id)
        assert not saw[id(model.networks)][rows].any()
        asked.append(id(model.networks))
        return predicted(model, given, **keys)

    monkeypatch.setattr(Model, "predict", predict)
    calibrated(model, table, folds)
    assert set(asked) == set(saw)


def test_what_is_said_of_unseen_stars_is_what_the_networks_say(stars) -> None:
    """Labels and variances in scaled units, before any calibration."""
    recipe = quick(recalibrate=False, calibration_folds=0)
    table, model = training_table(stars, NAMES, recipe, 0.1), fitted(stars, recipe)
    found = HoldoutPrediction.of(model, table, table.validation)
    sample = table.sample(table.validation)
    said = model.inference.run(table.features[table.validation]).labels
    for got, wanted in (
        (found.labels, said.mean), (found.residuals, sample.y.numpy() - said.mean),
        (found.noise, sample.block.noise), (found.label_errors, sample.y_error),
        (found.variance, said.model + said.excess), (found.gaussian, said.input),
    ):  # fmt: skip
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_model_from_before_folds_has_none(tmp_path, stars) -> None:
    folder = tmp_path / "model"
    fitted(stars, quick(calibration_folds=2)).save(folder)
    assert Model.load(folder).recipe.calibration_folds == 2
    altered(folder, lambda text: text["recipe"].pop("calibration_folds"))
    assert Model.load(folder).recipe.calibration_folds == 0
