"""A model's predictions: flags instead of exceptions, parts that add up, missing photometry."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twins import coefficient_covariance, explicit, with_bands
from xplabels.calibration.factors import Calibration
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import (
    MEASUREMENTS,
    Band,
    CoefficientSpectra,
    Photometry,
    SampledSpectra,
    Stars,
)
from xplabels.inference.network import LOG_VARIANCE_RANGE
from xplabels.model import BLOCK

PARTS = ("input", "model", "excess")
NAMES = ("teff", "logg")


def test_the_parts_add_in_quadrature_and_all_are_there(small_model, small_stars) -> None:
    prediction = small_model.predict(small_stars)
    squares = sum(prediction.part(part) ** 2 for part in PARTS)
    np.testing.assert_allclose(prediction.errors**2, squares, rtol=1e-12)
    for part in PARTS:
        assert (prediction.part(part) > 0).all()
    assert (prediction.errors_95 > prediction.errors).all()
    assert prediction.names == NAMES
    np.testing.assert_array_equal(prediction.source_id, small_stars.source_id)


def test_a_recalibration_multiplies_every_part_alike(small_model, small_stars) -> None:
    old = small_model.calibration
    other = replace(
        small_model, calibration=Calibration(old.factor * [2.0, 3.0], old.factor_95 * [2.0, 3.0])
    )
    before, after = small_model.predict(small_stars), other.predict(small_stars)
    np.testing.assert_array_equal(before.values, after.values)
    for part in PARTS:
        np.testing.assert_allclose(after.part(part), before.part(part) * [2.0, 3.0])
    np.testing.assert_allclose(after.errors, before.errors * [2.0, 3.0])
    np.testing.assert_allclose(after.errors_95, before.errors_95 * [2.0, 3.0])


def test_row_order_and_block_do_not_matter(small_model, small_stars) -> None:
    whole = small_model.predict(small_stars)
    order = np.random.default_rng(0).permutation(len(small_stars))
    shuffled = small_model.predict(small_stars[order])
    alone = small_model.predict(small_stars[17:18])
    for name in ("values", "errors", "errors_95", "errors_input", "domain_distance"):
        every = getattr(whole, name)
        np.testing.assert_allclose(getattr(shuffled, name), every[order], rtol=1e-4)
        np.testing.assert_allclose(getattr(alone, name), every[17:18], rtol=1e-4)
    np.testing.assert_array_equal(shuffled.flags, whole.flags[order])


def test_more_stars_than_a_block_are_the_blocks_together(small_model, small_stars) -> None:
    times = BLOCK // len(small_stars) + 2
    bands = [
        Band(*(np.tile(a, (times, 1)) for a in (b.coefficients, b.errors, b.correlations)))
        for b in (small_stars.spectra.bp, small_stars.spectra.rp)
    ]
    photometry = small_stars.photometry
    many = Stars.of(
        np.arange(times * len(small_stars)),
        CoefficientSpectra(*bands),
        Photometry(*(np.tile(a, (times, 1)) for a in (photometry.values, photometry.errors))),
    )
    one, all_of_them = small_model.predict(small_stars), small_model.predict(many)
    assert len(all_of_them) == len(many) > BLOCK
    np.testing.assert_allclose(all_of_them.values, np.tile(one.values, (times, 1)), rtol=1e-4)
    np.testing.assert_allclose(all_of_them.errors, np.tile(one.errors, (times, 1)), rtol=1e-4)


def test_no_stars_give_an_empty_prediction(small_model, small_stars) -> None:
    empty = small_model.predict(small_stars[:0])
    assert empty.values.shape == (0, 2)
    assert small_model.predict(small_stars[:0], correlations=True).correlations.shape == (0, 1)


def has(flags: np.ndarray, flag: Flag) -> list[bool]:
    return ((flags & flag) != 0).tolist()


def test_stars_without_a_band_get_nan_and_a_flag_and_harm_nobody(small_model, small_stars) -> None:
    stars = deepcopy(small_stars[:4])
    for rows, band in ((1, stars.spectra.bp), (2, stars.spectra.rp)):
        band.coefficients[rows] = np.nan
        band.errors[rows] = np.nan
        band.correlations[rows] = np.nan
    stars = Stars.of(stars.source_id, stars.spectra, stars.photometry)
    prediction = small_model.predict(stars, correlations=True)
    assert np.isnan(prediction.correlations[:, 0]).tolist() == [False, True, True, False]
    assert has(prediction.flags, Flag.MISSING_BP) == [False, True, False, False]
    assert has(prediction.flags, Flag.MISSING_RP) == [False, False, True, False]
    assert has(prediction.flags, Flag.NO_PREDICTION) == [False, True, True, False]
    for name in ("values", "errors", "errors_95", "errors_input", "errors_model", "errors_excess"):
        assert np.isnan(getattr(prediction, name)[1:3]).all()
        assert np.isfinite(getattr(prediction, name)[[0, 3]]).all()
    untouched = small_model.predict(small_stars[:4])
    np.testing.assert_allclose(prediction.values[0], untouched.values[0], rtol=1e-5)
    # outputs that do not exist are no cause for other flags
    assert not prediction.flags[1] & int(Flag.OUT_OF_DOMAIN | Flag.LABEL_OUT_OF_RANGE)


@pytest.mark.parametrize(
    "damage", ["coefficients", "errors", "correlations", "infinite", "all zero", "bad row"]
)
def test_a_damaged_star_costs_itself_alone(small_model, small_stars, damage) -> None:
    stars = deepcopy(small_stars[:3])
    if damage == "bad row":
        stars.flags[1] = Flag.BAD_ROW
    elif damage == "all zero":
        for band in (stars.spectra.bp, stars.spectra.rp):
            band.coefficients[1] = band.errors[1] = 0.0
    elif damage == "infinite":
        stars.spectra.bp.coefficients[1, 2] = np.inf
    else:
        getattr(stars.spectra.bp, damage)[1, 2] = np.nan
    prediction = small_model.predict(stars)
    assert np.isfinite(prediction.values).all(axis=1).tolist() == [True, False, True]
    assert np.isfinite(prediction.errors).all(axis=1).tolist() == [True, False, True]
    assert has(prediction.flags, Flag.NO_PREDICTION) == [False, True, False]
    assert bool(prediction.flags[1] & Flag.BAD_ROW) == (damage == "bad row")


def test_a_zero_rp0_is_flagged_and_predicted_without_warning(small_model, small_stars) -> None:
    stars = deepcopy(small_stars[:2])
    stars.spectra.rp.coefficients[1, 0] = 0.0
    prediction = small_model.predict(stars)
    assert has(prediction.flags, Flag.ZERO_NORMALISATION) == [False, True]
    assert has(prediction.flags, Flag.LOW_SNR) == [False, True]
    assert has(prediction.flags, Flag.OUT_OF_DOMAIN) == [False, True]


def test_low_signal_to_noise_is_flagged_and_has_large_errors(small_model, small_stars) -> None:
    stars = deepcopy(small_stars[:50])
    for band in (stars.spectra.bp, stars.spectra.rp):
        band.errors[...] *= 100
    loud, quiet = small_model.predict(stars), small_model.predict(small_stars[:50])
    assert all(has(loud.flags, Flag.LOW_SNR))
    assert not any(has(quiet.flags, Flag.LOW_SNR))
    assert (loud.errors_input > 10 * quiet.errors_input).mean() > 0.9


def test_a_star_unlike_any_other_is_out_of_domain(small_model, small_stars) -> None:
    stars = deepcopy(small_stars[:200])
    stars.spectra.bp.coefficients[100:] *= 1.5
    prediction = small_model.predict(stars)
    out = np.array(has(prediction.flags, Flag.OUT_OF_DOMAIN))
    assert out[:100].mean() < 0.05
    assert out[100:].mean() > 0.9
    assert prediction.domain_distance[100:].min() > np.median(prediction.domain_distance[:100])


def test_labels_beyond_those_trained_on_are_flagged(small_model, small_stars) -> None:
    prediction = small_model.predict(small_stars)
    middle = np.median(prediction.values, axis=0)
    narrow = np.stack([np.full(len(middle), -np.inf), middle], axis=1)
    flagged = replace(small_model, label_range=narrow).predict(small_stars).flags
    reach = prediction.errors * [1, 0]  # of Teff
    wanted = (prediction.values + reach > middle).any(axis=1)
    assert has(flagged, Flag.LABEL_OUT_OF_RANGE) == wanted.tolist()


def test_a_clamped_variance_is_flagged(small_model, small_stars) -> None:
    network = deepcopy(small_model.networks[0])
    network.arrays["out.bias"][2] = 100.0
    prediction = replace(small_model, networks=(network,)).predict(small_stars[:5])
    assert all(has(prediction.flags, Flag.VARIANCE_CLAMPED))
    unit = small_model.scaling.y_unit(prediction.values)[:, 0]
    highest = np.exp(LOG_VARIANCE_RANGE[1] / 2) * unit
    np.testing.assert_allclose(
        prediction.errors_excess[:, 0], small_model.calibration.factor[0] * highest
    )


def test_a_negative_input_variance_counts_as_nothing_and_is_flagged(
    small_model, small_stars
) -> None:
    """Correlations that no covariance can have: what rounding does to some, made large."""
    stars = deepcopy(small_stars)
    random = np.random.default_rng(0)
    for band in (stars.spectra.bp, stars.spectra.rp):
        band.errors[...] *= 100
        lower = np.tril_indices(band.width, -1)
        for packed in band.correlations[500:]:
            sign = random.choice([-1.0, 1.0], band.width)
            packed[:] = -0.99 * np.outer(sign, sign)[lower]
    prediction = small_model.predict(stars)
    assert np.isfinite(prediction.errors).all()
    zero = (prediction.errors_input == 0).any(axis=1)
    assert zero.sum() > 10
    assert not zero[:500].any()
    assert has(prediction.flags, Flag.VARIANCE_CLAMPED) == zero.tolist()


@pytest.mark.parametrize(
    ("lost", "flag"),
    [("j_m", Flag.MISSING_PHOTOMETRY), ("phot_bp_mean_mag", Flag.MISSING_PHOTOMETRY),
     ("parallax", Flag.MISSING_PARALLAX)],
)  # fmt: skip
def test_a_missing_measurement_is_flagged_and_costs(small_model, small_stars, lost, flag) -> None:
    stars = deepcopy(small_stars)
    for array in (stars.photometry.values, stars.photometry.errors):
        array[::2, MEASUREMENTS.index(lost)] = np.nan
    without, whole = small_model.predict(stars), small_model.predict(small_stars)
    assert np.isfinite(without.values).all()
    assert np.isfinite(without.errors).all()
    both = int(Flag.MISSING_PARALLAX | Flag.MISSING_PHOTOMETRY)
    assert (without.flags[::2] & both == int(flag)).all()
    assert (without.flags[1::2] & both == 0).all()
    np.testing.assert_allclose(without.values[1::2], whole.values[1::2], rtol=1e-4)


def test_measurements_no_input_uses_may_be_missing(small_model, small_stars) -> None:
    stars = deepcopy(small_stars)
    stars.photometry.values[:, MEASUREMENTS.index("w1mpro")] = np.nan
    prediction = small_model.predict(stars)
    np.testing.assert_array_equal(prediction.values, small_model.predict(small_stars).values)


def test_without_correlations_a_flag_says_so(small_model, small_stars) -> None:
    bare = with_bands(small_stars, lambda band: replace(band, correlations=None))
    stars = Stars.of(bare.source_id, bare.spectra, bare.photometry)
    prediction = small_model.predict(stars)
    assert all(has(prediction.flags, Flag.NO_CORRELATIONS))
    np.testing.assert_array_equal(prediction.values, small_model.predict(small_stars).values)
    assert not np.allclose(
        prediction.errors_input, small_model.predict(small_stars).errors_input, rtol=0.01
    )


def test_sampled_spectra_are_no_food_for_a_model_of_coefficients(small_model) -> None:
    flux = np.ones((1, 343))
    stars = Stars.of(np.array([5]), SampledSpectra(np.arange(336.0, 1021.0, 2.0), flux, flux))
    with pytest.raises(InputError, match=r"sampled flux.*archive coefficients"):
        small_model.predict(stars)


def test_noise_added_to_a_star_scatters_its_labels_as_the_input_error_says(
    small_model, small_stars
) -> None:
    """Monte Carlo through the whole prediction: 3,000 noisy copies of each of three stars."""
    copies, random = 3000, np.random.default_rng(4)
    # far below the curvature's scale, so that first order is what is tested
    shrink = 0.1
    for star in range(3):
        one = small_stars[star : star + 1]
        noise = random.multivariate_normal(
            np.zeros(11), shrink**2 * coefficient_covariance(one.spectra, 0), copies
        )
        bands = [
            Band(b.coefficients + n, np.repeat(b.errors * shrink, copies, axis=0),
                 np.repeat(b.correlations, copies, axis=0))
            for b, n in ((one.spectra.bp, noise[:, :6]), (one.spectra.rp, noise[:, 6:]))
        ]  # fmt: skip
        photometry = Photometry(
            one.photometry.values
            + shrink * one.photometry.errors * random.standard_normal((copies, 9)),
            np.repeat(shrink * one.photometry.errors, copies, axis=0),
        )
        many = Stars.of(np.arange(copies), CoefficientSpectra(*bands), photometry)
        prediction = small_model.predict(many)
        stated = np.median(prediction.errors_input, axis=0) / small_model.calibration.factor
        # a scatter from 3,000 draws is good to 1.3 %
        np.testing.assert_allclose(prediction.values.std(axis=0), stated, rtol=0.06)


def test_one_dominant_flux_mode_does_not_spoil_the_prediction(small_model, small_stars) -> None:
    """METHOD 2's trap: RP's noise is a common factor, a thousand times all other noise, which the
    ratio takes out again. In float32 that leaves a few per cent at best."""
    network = deepcopy(small_model.networks[0])
    network.arrays["hidden.0.weight"][:, :6] = 0.0  # blind to BP, which the factor would move
    model = replace(small_model, networks=(network,), calibration=Calibration(*np.ones((2, 2))))
    stars = deepcopy(small_stars[:20])
    band, random = stars.spectra.rp, np.random.default_rng(5)
    for c, errors, packed in zip(band.coefficients, band.errors, band.correlations, strict=True):
        rest = 1e-5 * np.abs(c[0]) * random.uniform(0.5, 1.5, 5)
        covariance = 1e-4 * np.outer(c, c) + np.diag(rest**2)
        errors[:] = np.sqrt(np.diag(covariance))
        packed[:] = (covariance / np.outer(errors, errors))[np.tril_indices(5, -1)]
    stars.photometry.errors[...] = 0.0
    prediction = model.predict(stars)
    stated, unit = prediction.errors_input, model.scaling.y_unit(prediction.values)
    features = model.feature_set.compute(stars)
    noise = model.scaling.scale_noise(model.feature_set.noise_levels(features))
    x = np.column_stack([model.scaling.scale_x(features.x), np.zeros((20, 3)), noise])
    jacobian = network.astype(np.float64).forward(x).jacobian
    wanted = explicit(model.feature_set, stars, jacobian[..., :14] / model.scaling.x_scale)
    np.testing.assert_allclose(stated, np.sqrt(wanted) * unit, rtol=1e-4)


def test_a_table_or_file_of_spectra_can_be_predicted(tmp_path: Path) -> None:
    import xplabels as xp

    stars, model = xp.example_stars(3), xp.load_model()
    xp.write_stars(stars, tmp_path / "s.parquet")
    labels = model.predict(tmp_path / "s.parquet", covariance=True)
    np.testing.assert_array_equal(labels.values, model.predict(stars).values)
    np.testing.assert_array_equal(labels.covariance("teff"), labels.covariance(["teff"]))
    table = labels.to_table()
    assert len(table["flags"].description) < 60
    assert "NO_PREDICTION" in table.meta["FLAGS"]
    with pytest.raises(InputError, match=r"known labels are a dict; give stars.join"):
        xp.score_prediction(labels, {"source_id": [1]})
    assert len(repr(xp.score_prediction(labels, stars.labels, resamples=2))) < 200


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_package_that_is_absent_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import xplabels as xp

    labels = xp.load_model().predict(xp.example_stars(1))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"needs {package}.*pip install {package}"):
        getattr(labels, f"to_{package}")()
