"""Errors of stars without auxiliary inputs hold, and those of all others stay as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conftest import altered, fitted, quick
from test_cross_fitting import common_part, simulated
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.stars import Photometry
from xplabels.model import Model
from xplabels.training.cross_fitting import fit_calibration


def covers(calibration, stars) -> list[float]:
    """Share of the stars inside both intervals."""
    squares = calibration.shape.squares(stars.labels, stars.noise)
    own = calibration.for_stars(stars.labels, stars.noise, stars.missing)
    widths = own.half_widths(squares * stars.variance, squares * stars.gaussian)
    return [float((np.abs(stars.residuals) <= width).mean()) for width in widths]


@pytest.mark.parametrize("wrong", [0.7, 1.0, 1.6])
@pytest.mark.parametrize("lacking", [0.0, 0.3])
def test_planted_wrong_errors_become_right(wrong, lacking) -> None:
    """Residuals are ``wrong`` times as large without auxiliary inputs, which some lack anyway."""
    random = np.random.default_rng(7)

    def pair(count, common=None, larger=1.0):
        common = common_part(random, count) if common is None else common
        bare = simulated(random, count, common, larger * wrong)._replace(missing=np.ones(count))
        seen, gone = simulated(random, count, common, larger), random.random(count) < lacking
        residuals = np.where(gone[:, None], bare.residuals, seen.residuals)
        return seen._replace(residuals=residuals, missing=gone.astype(float)), bare

    common = common_part(random, 4000)
    own, bare = pair(4000, common)
    folds = [(pair(4000, larger=1.1), pair(4000, common, 1.1)) for _ in range(2)]
    pairs = [[(out[i], val[i]) for out, val in folds] for i in (0, 1)]
    plain = fit_calibration(own, pairs[0])
    found = fit_calibration(own, pairs[0], (bare, pairs[1]))
    fresh = pair(20_000)
    for stars in fresh:
        np.testing.assert_allclose(covers(found, stars), [LEVEL_68, LEVEL_95], atol=0.025)
    if wrong != 1.0:
        assert abs(covers(plain, fresh[1])[0] - LEVEL_68) > 0.04
    if not lacking:
        np.testing.assert_array_equal(found.factor, plain.factor)
        np.testing.assert_array_equal(found.factor_95, plain.factor_95)


def test_no_factor_where_no_star_has_auxiliary_inputs(stars) -> None:
    """Nor where every star lacks them: both predictions are the same then."""
    model = fitted(stars, quick(auxiliary=(), calibration_folds=2))
    np.testing.assert_array_equal(model.calibration.local.bare, 1.0)
    random = np.random.default_rng(8)
    bare = simulated(random, 1000, common_part(random, 1000))._replace(missing=np.ones(1000))
    found = fit_calibration(bare, (), (bare, ()))
    np.testing.assert_allclose(found.local.bare, 1.0)
    np.testing.assert_array_equal(found.factor, fit_calibration(bare).factor)


def test_a_model_applies_saves_and_loads_the_factor(small_model, small_stars, tmp_path) -> None:
    def with_bare(bare):
        local = replace(small_model.calibration.local, bare=bare)
        return replace(small_model, calibration=replace(small_model.calibration, local=local))

    assert (small_model.calibration.local.bare != 1).any()
    k, bare = len(small_model.names), np.array([[0.8], [0.9]])
    bare = bare * np.ones((2, k))
    one, model = with_bare(np.ones((2, 1))), with_bare(bare)
    for part in ("errors", "errors_95", "errors_model", "errors_input", "errors_excess"):
        ones, found = (getattr(m.predict(small_stars), part) for m in (one, model))
        np.testing.assert_array_equal(found, ones)
    hidden = small_stars.with_photometry(Photometry.missing(len(small_stars)))
    ones, found = one.predict(hidden), model.predict(hidden)
    np.testing.assert_allclose(found.errors, 0.8 * ones.errors)
    np.testing.assert_array_equal(found.values, ones.values)
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(Model.load(tmp_path / "m").predict(hidden).errors, found.errors)
    older = altered(tmp_path / "m", tensors=lambda arrays: arrays.pop("calibration.bare"))
    np.testing.assert_array_equal(Model.load(older).predict(hidden).errors, ones.errors)
