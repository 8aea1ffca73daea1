"""All labels of a star together: ellipsoids that hold what they say, by covariance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from xplabels.calibration.joint import fit_joint_factors, joint_coverage
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction, stack
from xplabels.core.stars import Stars
from xplabels.model import Model
from xplabels.validation import score_prediction
from xplabels.validation.accuracy import findings_of
from xplabels.validation.finding import metrics_of, text_of
from xplabels.validation.verdict import RIGHT, TOGETHER, WRONG, judged, verdict_of

NAMES = ("teff", "logg", "fe_h")


def joint_of(prediction, labels, **keys):
    """Joint coverage of all three labels of all stars."""
    return joint_coverage(prediction, labels, NAMES, np.ones(len(prediction), bool), **keys)


def word_of(joint):
    """The verdict on the ellipsoids alone."""
    return judged({TOGETHER: joint}, {}, ()).word


def with_errors_divided(prediction, by):
    return replace(prediction, errors=prediction.errors / by, errors_95=prediction.errors_95 / by)


def gaussian_prediction(n: int = 6000, rho: float = 0.7, stated: float = 0.7, dof: float = np.inf):
    """Residuals in three labels of one correlation, known to ``stated``, in units of the errors."""
    random = np.random.default_rng(2)
    matrix = np.full((3, 3), rho) + (1 - rho) * np.eye(3)
    scale = np.ones(n) if np.isinf(dof) else np.sqrt(dof / random.chisquare(dof, n))
    drawn = scale[:, None] * (random.standard_normal((n, 3)) @ np.linalg.cholesky(matrix).T)
    law = stats.norm if np.isinf(dof) else stats.t(dof)
    units = np.array([60.0, 0.2, 0.1]) * random.uniform(0.5, 2, (n, 3))
    inner, outer = (law.ppf((1 + level) / 2) for level in (LEVEL_68, LEVEL_95))
    label_errors = 0.5 * units
    truth = np.zeros((n, 3))
    known = truth + label_errors * random.standard_normal((n, 3)) if np.isinf(dof) else truth
    prediction = Prediction(
        source_id=np.arange(1, n + 1), names=NAMES, values=units * drawn, errors=units * inner,
        errors_model=units * inner, errors_input=0 * units, errors_excess=0 * units,
        errors_95=units * outer, domain_distance=np.ones(n), flags=np.zeros(n, np.uint32),
        correlations=np.full((n, 3), stated),
    )  # fmt: skip
    errors = label_errors if np.isinf(dof) else np.full((n, 3), 1e-9)
    return prediction, Labels(NAMES, known, errors)


@pytest.mark.parametrize("dof", [np.inf, 5.0])
def test_right_covariances_cover_what_they_say(dof: float) -> None:
    prediction, labels = gaussian_prediction(dof=dof)
    joint = joint_of(prediction, labels)
    assert joint.n == 6000
    assert joint.value["coverage_68"] == pytest.approx(LEVEL_68, abs=0.02)
    assert joint.value["coverage_95"] == pytest.approx(LEVEL_95, abs=0.01)
    assert joint.value["pit_distance"] < 0.025
    assert word_of(joint) == RIGHT
    assert joint.error["coverage_68"] == pytest.approx(np.sqrt(0.683 * 0.317 / 6000), rel=0.25)


@pytest.mark.parametrize("stated", [0.0, 0.95])
def test_wrong_covariances_do_not(stated: float) -> None:
    assert word_of(joint_of(*gaussian_prediction(stated=stated))) != RIGHT


def test_the_distance_is_chi_squared_of_the_explicit_matrix() -> None:
    prediction, labels = gaussian_prediction(50)
    joint = joint_of(prediction, labels, resamples=2)
    for star in range(50):
        covariance = prediction.covariance()[star] + np.diag(labels.errors[star] ** 2)
        off = prediction.values[star] - labels.values[star]
        distance = off @ np.linalg.inv(covariance) @ off
        # the half-widths hold 68.269 and 95.450 %: a Gaussian to the matching's accuracy
        assert joint.content[0, star] == pytest.approx(stats.chi2(3).cdf(distance), abs=2e-3)


def test_the_joint_factor_mends_errors_that_are_too_small() -> None:
    prediction, labels = gaussian_prediction()
    assert fit_joint_factors(prediction, labels) == pytest.approx(1, abs=0.03)
    small = with_errors_divided(prediction, 1.3)
    factors = fit_joint_factors(small, labels)
    assert factors == pytest.approx(1.3, rel=0.03)
    assert word_of(joint_of(small, labels)) == WRONG
    assert word_of(joint_of(replace(small, joint_factors=tuple(factors)), labels)) == RIGHT


def test_where_few_stars_have_all_labels_those_that_lack_some_count_for_the_factor() -> None:
    """Errors stated too small by 1.3, and 400 of 1,600 stars with all three labels."""
    prediction, labels = gaussian_prediction(1600)
    small = with_errors_divided(prediction, 1.3)
    labels.values[::2, 0] = np.nan
    labels.values[1::4, 1] = np.nan
    complete = np.isfinite(labels.values).all(axis=1)
    assert complete.sum() == 400
    assert fit_joint_factors(small, labels) == pytest.approx(1.3, rel=0.05)
    labels.values[~complete] += 1e3
    assert fit_joint_factors(small, labels) == pytest.approx(4, rel=0.01)  # no factor is enough


def test_stars_that_lack_a_label_are_left_out_and_few_are_not_enough() -> None:
    prediction, labels = gaussian_prediction(300)
    labels.values[:220, 1] = np.nan
    assert joint_of(prediction, labels, resamples=2).n == 80
    labels.values[:205] = np.nan
    assert fit_joint_factors(prediction, labels) is None
    assert joint_coverage(prediction, labels, NAMES[:1], np.ones(300, bool)) is None
    assert joint_of(replace(prediction, correlations=None), labels) is None
    labels.values[:] = np.nan
    assert joint_of(prediction, labels) is None


def test_a_validation_reports_it() -> None:
    prediction, labels = gaussian_prediction(600)
    validation = score_prediction(prediction, labels, resamples=3)
    metrics = metrics_of(findings_of(validation))
    assert metrics["joint"]["n"] == 600
    assert metrics["joint"]["labels"] == list(NAMES)
    assert "all 3 labels together (N = 600)" in text_of(findings_of(validation))
    wrong, known = gaussian_prediction(stated=0.95)
    found = verdict_of(score_prediction(wrong, known, resamples=0))
    assert any(line.startswith("all labels together") for line in found.off)
    without = score_prediction(replace(prediction, correlations=None), labels, resamples=0)
    assert "joint" not in metrics_of(findings_of(without))


def test_training_fits_the_factor_which_the_catalogue_keeps(
    small_model: Model, small_stars: Stars
) -> None:
    factors = small_model.calibration.joint
    assert 0.8 < min(factors) < max(factors) < 1.4
    assert 1.0 not in factors
    correlated = small_model.predict(small_stars[:9], correlations=True)
    assert correlated.to_table().meta["JOINTF95"] == f"{factors[1]:.4f}"
    assert stack([correlated[:5], correlated[5:9]]).joint_factors == factors


def test_each_ellipsoid_has_a_factor_of_its_own() -> None:
    """A twentieth of the stars is off by 4 sigma in all labels: only the outer ellipsoid grows."""
    prediction, labels = gaussian_prediction()
    labels.values[::20] += 4 * prediction.errors[::20]
    inner, outer = fit_joint_factors(prediction, labels)
    assert inner < 1.1
    assert outer > 1.25 * inner
    joint = joint_of(replace(prediction, joint_factors=(inner, outer)), labels)
    assert joint.value["coverage_68"] == pytest.approx(LEVEL_68, abs=0.002)
    assert joint.value["coverage_95"] == pytest.approx(LEVEL_95, abs=0.002)
    assert word_of(joint) == RIGHT
    assert word_of(joint_of(replace(prediction, joint_factors=(inner, inner)), labels)) == WRONG
