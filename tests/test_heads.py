"""Labels that few stars have are learnt from a network of the others, which stays as it is."""

from __future__ import annotations

from dataclasses import replace
from itertools import compress
from pathlib import Path

import numpy as np
import pytest

from conftest import altered, quick
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.labels import Labels
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.model import Model
from xplabels.synthetic import simulate_stars
from xplabels.training import cross_fitted, train
from xplabels.training.table import training_table

NAMES, COMMON = ("teff", "logg", "c_fe", "alpha_m"), ("teff", "logg", "alpha_m")
RECIPE = quick(
    hidden=(24, 16), epochs=10, learning_rate=1e-2, calibration_folds=2, dropout=0.02,
    sparse_share=0.15, sparse_epochs=40, defined_share=0.3,
)  # fmt: skip


def with_few_carbon(stars: Stars) -> Stars:
    """A tenth have [C/Fe], none of which is a dwarf."""
    labels = stars.labels
    known = np.random.default_rng(3).random(len(stars)) < 0.15
    known &= labels.values[:, NAMES.index("logg")] < 3.3
    column = np.arange(len(NAMES)) == NAMES.index("c_fe")
    gone = column & ~known[:, None]
    blank = (np.where(gone, np.nan, array) for array in (labels.values, labels.errors))
    return stars.with_labels(Labels(NAMES, *blank))


@pytest.fixture(scope="module")
def sample() -> tuple[Stars, Labels]:
    stars, truth = simulate_stars(2500, labels=NAMES, widths=(6, 5), noise=2.0, seed=5)
    return with_few_carbon(stars), truth


@pytest.fixture(scope="module")
def six(sample: tuple[Stars, Labels], tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("heads") / "model"
    train(sample[0], NAMES, RECIPE, seed=2, progress=False).save(folder)
    return Model.load(folder)


def test_the_other_labels_and_their_errors_are_those_of_a_model_without(sample, six) -> None:
    stars, _ = sample
    plain = train(stars, COMMON, RECIPE, seed=2, progress=False).predict(stars)
    found = six.predict(stars)
    columns = [NAMES.index(name) for name in COMMON]
    for name in ("values", "errors", "errors_95", "errors_model", "errors_excess"):
        one, other = getattr(found, name)[:, columns], getattr(plain, name)
        np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=name)
    assert six.common == (0, 1, 3)


def test_what_the_spectra_hold_of_the_label_is_found(sample, six) -> None:
    stars, truth = sample
    test = part_mask(stars.source_id, "test", 0.1) & (truth.values[:, 1] < 3.0)
    found, known = six.predict(stars[test])["c_fe"], truth.values[test, 2]
    assert np.corrcoef(found.value, known)[0, 1] > 0.9
    inside = np.abs(found.value - known) < found.error
    assert abs(inside.mean() - 0.683) < 3 * np.sqrt(0.683 * 0.317 / len(known))


def test_a_kind_without_labelled_stars_has_none(sample, six) -> None:
    stars, truth = sample
    found = six.predict(stars[truth.values[:, 1] > 4.2])
    undefined = np.isnan(found["c_fe"].value)
    assert undefined.mean() > 0.9
    assert ((found.flags[undefined] & np.uint32(Flag.LABEL_UNDEFINED)) != 0).all()
    assert np.isfinite(found["alpha_m"].value).all()


def test_it_is_not_extrapolated_and_the_others_stay_good(sample, six) -> None:
    ranges, plain = six.label_range.copy(), six.predict(sample[0])
    ranges[2] = -0.05, 0.05
    found = replace(six, label_range=ranges).predict(sample[0])
    beyond = np.abs(plain["c_fe"].value) > 0.05
    assert beyond.sum() > 100
    assert np.isnan(found["c_fe"].value[beyond]).all()
    undefined, outside = (
        np.array([one.flags & np.uint32(flag) for one in (plain, found)]) != 0
        for flag in (Flag.LABEL_UNDEFINED, Flag.LABEL_OUT_OF_RANGE)
    )
    assert undefined[1, beyond].all()
    np.testing.assert_array_equal(outside[0], outside[1])
    assert "c_fe: learned from the" in six.card


def test_unseen_predictions_do_not_know_the_label(sample) -> None:
    """Exchanged within a fold, it moves the predictions of the others' stars alone."""
    stars, _ = sample
    recipe = replace(RECIPE, hidden=(8,), epochs=1, sparse_epochs=10)
    found = cross_fitted(stars, NAMES, recipe, progress=False)
    assert set(found.source_id) == set(stars.source_id[~part_mask(stars.source_id, "test", 0.1)])
    one = int(np.flatnonzero(np.isin(stars.source_id, found.source_id)
                             & np.isfinite(stars.labels.values[:, 2]))[0])  # fmt: skip
    values = stars.labels.values.copy()
    values[one, 2] += 1.0
    moved = stars.with_labels(Labels(NAMES, values, stars.labels.errors))
    again = cross_fitted(moved, NAMES, recipe, progress=False)
    change = again["c_fe"].value - found["c_fe"].value
    # the scale moves with the mean of all labels; beyond that, the star's own does not
    row = np.flatnonzero(found.source_id == stars.source_id[one])[0]
    assert abs(change[row] - np.median(change)) < 0.2 * np.abs(change - np.median(change)).max()


def test_a_change_of_the_rare_label_keeps_the_states_of_the_others(sample, tmp_path: Path) -> None:
    stars, _ = sample
    recipe = quick(hidden=(8,), epochs=3, sparse_share=0.15, sparse_epochs=3)
    first = train(stars, NAMES, recipe, checkpoint=tmp_path / "states", progress=False)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "states").iterdir()}
    shifted = stars.labels.values + np.where(np.arange(len(NAMES)) == 2, 0.3, 0.0)
    moved = stars.with_labels(Labels(NAMES, shifted, stars.labels.errors))
    second = train(moved, NAMES, recipe, checkpoint=tmp_path / "states", progress=False)
    states = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "states").iterdir()}
    assert {k: v for k, v in states.items() if k != "manifest.json"} == {
        k: v for k, v in before.items() if k != "manifest.json"
    }
    shift = second.predict(stars).values - first.predict(stars).values
    np.testing.assert_allclose(shift, np.broadcast_to([0, 0, 0.3, 0], shift.shape), atol=1e-5)


def test_nothing_is_rare_where_the_recipe_says_so(sample) -> None:
    for share, sparse in ((0.0, []), (0.15, ["c_fe"])):
        table = training_table(sample[0], NAMES, quick(sparse_share=share), 0.1)
        assert list(compress(NAMES, table.sparse)) == sparse


def test_a_model_whose_common_labels_are_none_of_its_own_is_refused(six, tmp_path: Path) -> None:
    six.save(tmp_path / "model")
    with pytest.raises(InputError, match="common"):
        Model.load(altered(tmp_path / "model", lambda text: text.update(common=[0, 7])))
