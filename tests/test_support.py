"""Labels that training stars of a kind lack are null for such stars."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xplabels.calibration.domain import LabelSupport
from xplabels.core.flags import Flag
from xplabels.core.labels import Labels
from xplabels.model import Model
from xplabels.recipes import Recipe
from xplabels.synthetic import example_stars
from xplabels.training import train

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # GaiaXPy's

NAMES = ("teff", "logg", "fe_h", "c_fe")


def kinds(n: int, seed: int) -> np.ndarray:
    """Scaled labels of stars, of which only the first two say the kind."""
    return np.random.default_rng(seed).uniform(-2, 2, (n, 4))


@pytest.fixture(scope="module")
def support() -> LabelSupport:
    labels = kinds(20_000, 0)
    known = np.ones(labels.shape, bool)
    known[:, 2] = labels[:, 0] < 1  # no hot star
    # few stars at all, nearly all of them giants
    rare = np.random.default_rng(1).random(len(labels)) < np.where(labels[:, 1] < 0, 0.05, 0.002)
    known[:, 3] = rare
    found = LabelSupport.fit(NAMES, labels, known, 0.5)
    assert found is not None
    return found


def test_a_label_is_defined_where_such_stars_have_it(support: LabelSupport) -> None:
    labels = kinds(5000, 2)
    defined = support.defined(labels, np.full(labels.shape, 1e-3))
    assert defined[:, :2].all()
    far = np.abs(labels[:, 0] - 1) > 0.15
    assert (defined[far, 2] == (labels[far, 0] < 1)).all()
    giants, dwarfs = labels[:, 1] < -0.2, labels[:, 1] > 0.2
    assert defined[giants, 3].mean() > 0.97
    assert defined[dwarfs, 3].mean() < 0.02


def test_a_star_beyond_all_training_stars_counts_as_the_nearest(support: LabelSupport) -> None:
    far = np.array([[50.0, 0, 0, 0], [-50, 0, 0, 0], [50, -50, 0, 0]])
    assert support.defined(far, np.full(far.shape, 0.1))[:, 2].tolist() == [False, True, False]


def test_the_star_s_own_error_counts(support: LabelSupport) -> None:
    # just outside: a star that may be anything is not the kind that surely lacks the label
    near = np.array([[1.3, 0, 0, 0], [0.7, 0, 0, 0]])
    sure, unsure = (support.share_at(near, np.full((2, 4), error))[2] for error in (0.05, 1.0))
    assert sure[0] < 0.05 < 0.15 < unsure[0]
    assert sure[1] > unsure[1]


@pytest.mark.parametrize(
    ("names", "least", "all_known"),
    [(("fe_h",), 0.5, False), (NAMES, 0.0, False), (NAMES, 0.5, True)],
)
def test_no_rule_where_nothing_is_missing_or_no_label_says_the_kind(
    names: tuple[str, ...], least: float, all_known: bool
) -> None:
    labels = kinds(500, 3)[:, : len(names)]
    known = (labels[:, :1] < 1) | np.zeros(labels.shape, bool) | all_known
    assert LabelSupport.fit(names, labels, known, least) is None


@pytest.fixture(scope="module")
def model() -> Model:
    """Trained on stars of which those above 5200 K have no [Fe/H]."""
    stars = example_stars(3000)
    labels = stars.labels.select(("teff", "logg", "fe_h"))
    hot = labels.values[:, 0] > 5200
    values, errors = labels.values.copy(), labels.errors.copy()
    values[hot, 2] = errors[hot, 2] = np.nan
    recipe = Recipe(hidden=(64, 64), epochs=25, calibration_folds=0, reddening=0.0)
    return train(
        stars.with_labels(Labels(labels.names, values, errors)), labels.names, recipe,
        progress=False,
    )  # fmt: skip


def test_null_labels_of_a_trained_model(model: Model) -> None:
    stars = example_stars(1000, seed=5)
    found = model.predict(stars, covariance=True)
    bare = replace(model, support=None).predict(stars, covariance=True)
    null = np.isnan(found.values[:, 2])
    teff = stars.labels.values[:, 0]
    assert null[teff > 5600].mean() > 0.9
    assert null[teff < 4800].mean() < 0.05
    assert ((found.flags & Flag.LABEL_UNDEFINED) > 0).tolist() == null.tolist()
    for part in ("errors", "errors_95", "errors_model", "errors_input", "errors_excess"):
        assert np.isnan(getattr(found, part)[null, 2]).all()
    # what is defined stays as it was
    np.testing.assert_array_equal(found.values[:, :2], bare.values[:, :2])
    np.testing.assert_array_equal(found.values[~null], bare.values[~null])
    covariance = found.covariance()
    assert np.isfinite(covariance[:, :2, :2]).all()
    assert np.isnan(covariance[null, 2]).all()
