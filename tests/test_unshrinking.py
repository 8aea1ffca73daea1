"""Shrinkage (regression to the mean), and predictions without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xplabels.calibration.shrinkage import LARGEST_STRETCH, ShrinkageCorrection, stretch
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction, packed_correlations
from xplabels.core.stars import Stars
from xplabels.features.scaling import Scaling
from xplabels.model import Model
from xplabels.model.card import write_card
from xplabels.model.refitting import fit_unshrinking
from xplabels.validation import score_prediction

MEAN, SPREAD = np.array([4800.0, -0.4]), np.array([600.0, 0.5])
SCALING = Scaling(np.zeros(0), np.ones(0), np.eye(0), MEAN, SPREAD, logarithmic=np.zeros(2, bool))


def gaussian_stars(n: int, seed: int = 0) -> tuple[Prediction, Labels]:
    """Posterior means and errors of stars of a Gaussian prior, seen with Gaussian noise."""
    random = np.random.default_rng(seed)
    truth = MEAN + SPREAD * random.standard_normal((n, 2))
    noise = SPREAD * random.uniform(0.1, 0.65, (n, 1))
    seen = truth + noise * random.standard_normal((n, 2))
    weight = SPREAD**2 / (SPREAD**2 + noise**2)
    errors = np.sqrt(weight) * noise
    third = errors / np.sqrt(3)
    prediction = Prediction(
        np.arange(n), ("teff", "fe_h"), MEAN + weight * (seen - MEAN), errors, third, third, third,
        2 * errors, np.zeros(n), np.zeros(n, np.uint32),
        correlations=packed_correlations(np.tile(np.eye(2), (n, 1, 1))),
    )  # fmt: skip
    return prediction, Labels(("teff", "fe_h"), truth, np.full((n, 2), 1e-3) * SPREAD)


@pytest.fixture(scope="module")
def fitted() -> ShrinkageCorrection:
    return ShrinkageCorrection.fit(*gaussian_stars(20_000), SCALING)


def plain() -> ShrinkageCorrection:
    """Nothing fitted: strengths and factors of 1."""
    ones = np.ones(2)
    return ShrinkageCorrection(SCALING, ones, ones, ones, 1.0)


def test_gaussian_stars_need_no_more_than_their_prior_divided_out(
    fitted: ShrinkageCorrection,
) -> None:
    assert fitted.strength == pytest.approx(np.ones(2), abs=0.05)
    for factor in (fitted.factor, fitted.factor_95, *fitted.joint):
        assert factor == pytest.approx(1.0, abs=0.02)
    assert fitted.caveats(("teff", "fe_h")) == []


def test_a_fit_that_found_no_strength_says_so(small_model: Model) -> None:
    prediction, labels = gaussian_stars(300)
    # fe_h: a model that cannot predict it but states small errors; teff: of hardly any star
    values = np.where([True, False], prediction.values, MEAN + 1e-3 * prediction.values)
    known = labels.values.copy()
    known[50:, 0] = np.nan
    poor = ShrinkageCorrection.fit(
        replace(prediction, values=values), replace(labels, values=known), SCALING
    )
    assert poor.strength == pytest.approx([0, 8], abs=1e-3)
    at_bound, none = poor.caveats(("teff", "fe_h"))
    assert at_bound.startswith("fe_h: --unshrunk cannot correct the shrinkage")
    assert none.startswith("teff: --unshrunk changes nothing")
    after = poor.apply(prediction)
    assert (poor.factor[0], poor.factor_95[0]) == (1, 1)
    assert (after.values[:, 0] == prediction.values[:, 0]).all()
    assert (after.errors[:, 0] == prediction.errors[:, 0]).all()
    card = write_card(replace(small_model, unshrinking=poor))
    assert f"**Mind:** {poor.caveats(small_model.names)[0]}." in card


def test_dividing_the_prior_out_gives_back_what_was_seen() -> None:
    # posterior mean times posterior precision, less the prior's: the slow, obvious twin
    prediction, _ = gaussian_stars(500)
    precision = 1 / prediction.errors**2 - 1 / SPREAD**2
    seen = (prediction.values / prediction.errors**2 - MEAN / SPREAD**2) / precision
    found = plain().apply(prediction)
    free = 1 / (1 - (prediction.errors / SPREAD) ** 2) < LARGEST_STRETCH
    assert free.any(axis=0).all()
    assert found.values[free] == pytest.approx(seen[free])
    assert found.errors[free] == pytest.approx(1 / np.sqrt(precision)[free])


def test_a_logarithmic_label_is_stretched_by_a_per_cent_not_by_a_kelvin() -> None:
    prediction, _ = gaussian_stars(500)
    twin = plain().apply(prediction)
    # the same stars, with teff such that its logarithm is what it was
    learned = (prediction.values[:, 0] - MEAN[0]) / SPREAD[0]
    teff = np.exp(8.5 + 0.2 * learned)
    errors = prediction.errors.copy()
    errors[:, 0] *= 0.2 * teff / SPREAD[0]
    values = np.stack([teff, prediction.values[:, 1]], axis=1)
    scaling = replace(
        SCALING, y_mean=np.array([8.5, MEAN[1]]), y_scale=np.array([0.2, SPREAD[1]]),
        logarithmic=np.array([True, False]),
    )  # fmt: skip
    found = replace(plain(), scaling=scaling).apply(
        replace(prediction, values=values, errors=errors)
    )
    expected = np.exp(8.5 + 0.2 * (twin.values[:, 0] - MEAN[0]) / SPREAD[0])
    assert found.values[:, 0] == pytest.approx(expected)
    relative = 0.2 * twin.errors[:, 0] / SPREAD[0]
    assert found.errors[:, 0] / found.values[:, 0] == pytest.approx(relative)


def test_other_stars_have_slope_one_and_cover_what_they_say(fitted: ShrinkageCorrection) -> None:
    prediction, labels = gaussian_stars(20_000, seed=1)
    found = score_prediction(fitted.apply(prediction), labels, resamples=0)
    before = score_prediction(prediction, labels, resamples=0)
    for name in labels.names:
        assert before.labels[name]["slope"] < 0.92
        assert found.labels[name]["slope"] == pytest.approx(1.0, abs=0.01)
        assert found.labels[name]["coverage_68"] == pytest.approx(0.683, abs=0.012)
        assert found.labels[name]["coverage_95"] == pytest.approx(0.954, abs=0.008)
        assert found.labels[name]["rmse"] > before.labels[name]["rmse"]
    assert found.joint is not None
    assert found.joint.value["coverage_68"] == pytest.approx(0.683, abs=0.015)


@settings(deadline=None, max_examples=40)
@given(strength=st.floats(0, 8), error=st.floats(0, 1e300))
def test_stretch_is_bounded_whatever_the_error(strength: float, error: float) -> None:
    correction = replace(plain(), strength=np.full(2, strength))
    by = stretch(correction.strength, np.full((1, 2), error) / SPREAD)[0, 0]
    assert 1.0 <= by <= LARGEST_STRETCH * (1 + 1e-12)


def test_parts_still_add_and_what_is_nan_stays_nan(fitted: ShrinkageCorrection) -> None:
    prediction, _ = gaussian_stars(50)
    values, errors = prediction.values.copy(), prediction.errors.copy()
    values[3], errors[3] = np.nan, np.nan
    found = fitted.apply(replace(prediction, values=values, errors=errors))
    assert np.isnan(found.values[3]).all()
    assert np.isnan(found.errors[3]).all()
    rest = np.delete(np.arange(50), 3)
    parts = np.sqrt(sum(found.part(p) ** 2 for p in ("model", "input", "excess")))
    assert parts[rest] == pytest.approx(found.errors[rest])
    assert (found.errors_95[rest] >= found.errors[rest]).all()


def test_a_label_that_is_stretched_out_of_the_training_range_is_flagged() -> None:
    prediction, _ = gaussian_stars(2000)
    limits = np.stack([prediction.values.min(axis=0), prediction.values.max(axis=0)], axis=1)
    found = plain().apply(prediction, limits)
    outside = ((found.values < limits[:, 0]) | (found.values > limits[:, 1])).any(axis=1)
    assert 0 < outside.sum() < 100
    assert ((found.flags & Flag.LABEL_OUT_OF_RANGE) > 0).tolist() == outside.tolist()


@pytest.mark.parametrize("flag", [Flag.OUT_OF_DOMAIN, Flag.POOR_FIT, Flag.LABEL_OUT_OF_RANGE])
def test_stars_that_are_not_of_the_training_set_stay_as_they_are(
    fitted: ShrinkageCorrection, flag: Flag
) -> None:
    prediction, _ = gaussian_stars(200)
    strange = np.arange(200) % 3 == 0
    remarks = np.uint32(Flag.MISSING_J_H | Flag.LABEL_UNDEFINED | Flag.HIGH_RUWE)
    flags = np.where(strange, np.uint32(flag), remarks)
    found = fitted.apply(replace(prediction, flags=flags))
    plain_star = fitted.apply(prediction)
    for name in ("values", "errors", "errors_95", "errors_model", "errors_input"):
        before, after, others = (getattr(one, name) for one in (prediction, found, plain_star))
        assert np.array_equal(after[strange], before[strange]), name
        assert np.array_equal(after[~strange], others[~strange]), name
        assert (after[~strange] != before[~strange]).all(), name


def test_stars_that_stay_have_no_say_in_the_fit(fitted: ShrinkageCorrection) -> None:
    prediction, labels = gaussian_stars(20_000)
    strange = np.arange(20_000) % 2 == 0
    values = np.where(strange[:, None], 0.1 * MEAN, prediction.values)
    flags = np.where(strange, np.uint32(Flag.OUT_OF_DOMAIN), np.uint32(0))
    refitted = ShrinkageCorrection.fit(
        replace(prediction, values=values, flags=flags), labels, SCALING
    )
    assert refitted.strength == pytest.approx(fitted.strength, abs=0.05)
    assert refitted.factor == pytest.approx(fitted.factor, abs=0.03)


def test_labels_without_shrinkage_stay() -> None:
    prediction, labels = gaussian_stars(1000)
    steep = replace(prediction, values=MEAN + 1.1 * (labels.values - MEAN))
    assert ShrinkageCorrection.fit(steep, labels, SCALING).strength.tolist() == [0.0, 0.0]


def test_a_trained_model_has_it_saves_it_and_says_it(
    small_model: Model, small_stars: Stars, tmp_path: Path
) -> None:
    small_model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model").unshrunk()
    stars = small_stars[:40]
    found, mean = again.predict(stars), small_model.predict(stars)
    expected = small_model.unshrinking.apply(mean, small_model.label_range)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.errors_95, expected.errors_95)
    assert "ESTIMATE" not in mean.meta
    assert found.to_table().meta["ESTIMATE"].startswith("unshrunk")
    assert again.predict(stars[:0]).meta["ESTIMATE"].startswith("unshrunk")


def test_an_old_model_says_what_to_do_and_can_be_fitted(
    small_model: Model, small_stars: Stars, tmp_path: Path
) -> None:
    replace(small_model, unshrinking=None).save(tmp_path / "old")
    old = Model.load(tmp_path / "old")
    with pytest.raises(InputError, match="fit_unshrinking"):
        old.unshrunk()
    with pytest.raises(InputError, match="validation part"):
        fit_unshrinking(old, small_stars[:200])
    given = fit_unshrinking(old, small_stars)
    np.testing.assert_allclose(given.unshrinking.strength, small_model.unshrinking.strength)
    np.testing.assert_allclose(given.unshrinking.factor_95, small_model.unshrinking.factor_95)
