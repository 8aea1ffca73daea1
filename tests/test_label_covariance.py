"""The covariance of a star's labels: slow twins of its parts, the catalogue, the joint coverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Judged, quick
from xplabels.core.errors import InputError
from xplabels.core.prediction import packed_correlations, pairs, stack, unpacked
from xplabels.core.stars import Stars
from xplabels.model import Model
from xplabels.network import Architecture, UncertainNetwork
from xplabels.training import train

LABELS = 3


@pytest.fixture(scope="module")
def correlated(small_model: Model, small_stars: Stars) -> object:
    return small_model.predict(small_stars, correlations=True)


# --- the model part ---
def network(hidden: tuple[int, ...] = (12, 10), dropout: float = 0.1, **keys) -> UncertainNetwork:
    torch.manual_seed(7)
    return UncertainNetwork(Architecture(6, 0, hidden, LABELS, dropout=dropout, **keys)).double()


def test_the_dropout_covariance_is_that_of_sampled_passes() -> None:
    net = network(dropout=0.02)
    x = torch.randn((5, 6), dtype=torch.float64)
    delta = net.to_perceptron().forward(x.numpy(), full=True).model
    _, sampled = net.to_perceptron().dropout_passes(x.numpy(), 20_000)
    scale = np.sqrt(np.diagonal(delta, axis1=1, axis2=2))
    off = (delta - sampled) / (scale[:, :, None] * scale[:, None, :])
    assert np.abs(off).max() < 0.06


# --- a prediction ---
@pytest.mark.parametrize("scatter", ["dropout", "sampling", "ensemble", "none"])
def test_asking_for_correlations_changes_nothing_else(scatter: str, small_stars: Stars) -> None:
    recipe = quick(
        scatter=scatter, members=2 if scatter == "ensemble" else 1, epochs=2, passes=20,
        auxiliary=("bp_rp", "j_h"),
    )  # fmt: skip
    model = train(small_stars, ["teff", "logg", "fe_h"], recipe, progress=False)
    few = small_stars[:50]
    plain, whole = model.predict(few), model.predict(few, correlations=True)
    assert plain.correlations is None
    for name in ("values", "errors", "errors_model", "errors_input", "errors_excess", "errors_95"):
        np.testing.assert_allclose(getattr(whole, name), getattr(plain, name), rtol=1e-6)
    assert whole.correlations.shape == (50, 3)
    assert (np.abs(whole.correlations) > 0).all()
    covariance = whole.covariance()
    np.testing.assert_allclose(
        np.diagonal(covariance, axis1=1, axis2=2), whole.errors**2, rtol=1e-12
    )
    assert (np.linalg.eigvalsh(unpacked(whole.correlations, 3)) > -1e-9).all()


def test_correlations_are_those_of_the_parts(small_model: Model, small_stars: Stars) -> None:
    """The parts' covariances put together in the labels' units, star by star."""
    few = small_stars[:20]
    prediction = small_model.predict(few, covariance=True)
    parts = small_model.inference.run(small_model.feature_set.compute(few), full=True).labels
    factor = small_model.calibration.factor * small_model.scaling.y_unit(prediction.values)
    for star in range(20):
        whole = parts.input[star] + parts.model[star] + np.diag(parts.excess[star])
        whole = np.diag(factor[star]) @ whole @ np.diag(factor[star])
        np.testing.assert_allclose(prediction.covariance()[star], whole, rtol=1e-9)
    np.testing.assert_array_equal(
        prediction.covariance(["logg", "teff"]), prediction.covariance()[:, ::-1, ::-1]
    )
    with pytest.raises(InputError, match=r"no label 'fe_h' was predicted; there are teff, logg"):
        prediction.covariance(["fe_h"])


def test_rows_and_blocks_keep_their_correlations(correlated) -> None:
    halves = [correlated[:400], correlated[400:]]
    np.testing.assert_array_equal(stack(halves).correlations, correlated.correlations)
    without = replace(halves[1], correlations=None)
    assert stack([halves[0], without]).correlations is None


def test_a_prediction_without_them_says_how_to_get_them(small_model, small_stars) -> None:
    with pytest.raises(InputError, match=r"covariance=True"):
        small_model.predict(small_stars[:3]).covariance()


# --- packing, and the catalogue ---
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_packing_comes_back(labels: int, seed: int) -> None:
    root = np.random.default_rng(seed).standard_normal((4, labels, labels + 2))
    covariance = root @ root.transpose(0, 2, 1)
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    packed = packed_correlations(covariance)
    assert packed.shape == (4, len(pairs([f"{i}" for i in range(labels)])))
    again = sigma[:, :, None] * unpacked(packed, labels) * sigma[:, None, :]
    np.testing.assert_allclose(again, covariance, rtol=1e-10)


def test_a_label_without_variance_has_no_correlation() -> None:
    covariance = np.array([[[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(packed_correlations(covariance), [[0.5, 0.0, 0.0]])


def test_columns_stand_for_pairs(small_stars: Stars) -> None:
    names = ["teff", "logg", "fe_h"]
    model = train(small_stars, names, quick(epochs=1, auxiliary=()), progress=False)
    prediction = model.predict(small_stars[:7], correlations=True)
    table = prediction.to_table()
    whole = unpacked(prediction.correlations, 3)
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            if i < j:
                column = table[f"{first}_{second}_corr"]
                np.testing.assert_array_equal(column, whole[:, i, j])
                assert first in column.description
                assert column.meta["ucd"].startswith("stat.correlation;")
    assert not any(
        name.endswith("_corr") for name in model.predict(small_stars[:7]).to_table().colnames
    )


# --- are they right ---
def test_residuals_are_correlated_as_stated(curved: Judged) -> None:
    """Simulated stars with known truth: whitened by the stated covariance, residuals are white."""
    prediction = curved.model.predict(curved.stars, correlations=True)
    residual = curved.truth.values - prediction.values
    stated = prediction.correlations[:, 0]
    z = residual / prediction.errors
    for level in np.unique(curved.levels):
        rows = curved.levels == level
        assert np.mean(z[rows, 0] * z[rows, 1]) == pytest.approx(stated[rows].mean(), abs=0.08)
    # where two labels are said to go together they do so more than where they are not
    strong = stated > np.quantile(stated, 0.8)
    weak = stated < np.quantile(stated, 0.2)
    assert np.mean((z[:, 0] * z[:, 1])[strong]) > np.mean((z[:, 0] * z[:, 1])[weak])
