"""The covariance of a star's labels: slow twins of its parts, the catalogue, the joint coverage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Judged, quick
from twins import explicit_covariance, random_stars
from xplabels.core.errors import InputError
from xplabels.core.prediction import packed_correlations, pairs, stack, unpacked
from xplabels.core.stars import MEASUREMENTS, Photometry, Stars
from xplabels.features import FeatureSet
from xplabels.features.scaling import Scaling
from xplabels.inference import input_variance
from xplabels.inference.network import sample_covariance
from xplabels.io.catalogue import FORMATS, write_catalogue
from xplabels.model import Model
from xplabels.network import Architecture, UncertainNetwork
from xplabels.network.propagation import Block, Propagation
from xplabels.synthetic import simulate_stars
from xplabels.training import train

WIDTHS = (5, 4)
AUXILIARY = ("bp_rp", "j_h", "h_w2", "m_pseudo")
LABELS = 3


@pytest.fixture(scope="module")
def correlated(small_model: Model, small_stars: Stars) -> object:
    return small_model.predict(small_stars, correlations=True)


# --- the input part ---
@pytest.mark.parametrize("covariance", ["exact", "fs24"])
@pytest.mark.parametrize("extinction_error", [True, False])
@pytest.mark.parametrize("correlations", [True, False])
def test_the_whole_j_c_jt_by_full_matrices(covariance, extinction_error, correlations) -> None:
    stars = random_stars(5, WIDTHS, seed=3, correlated=correlations)
    features = FeatureSet(WIDTHS, AUXILIARY, covariance, extinction_error)
    jacobian = np.random.default_rng(1).standard_normal((5, LABELS, 13))
    got, _ = input_variance(jacobian, features.compute(stars), features)
    np.testing.assert_allclose(got, explicit_covariance(features, stars, jacobian), rtol=1e-7)


def test_missing_inputs_move_the_labels_together() -> None:
    """Their completed values scatter: drawn a thousand times, the labels follow."""
    stars = random_stars(6, WIDTHS, seed=1)
    lost = [MEASUREMENTS.index("h_m"), MEASUREMENTS.index("parallax")]
    values, errors = stars.photometry.values.copy(), stars.photometry.errors.copy()
    values[3:, lost] = errors[3:, lost] = np.nan
    stars = stars.with_photometry(Photometry(values, errors))
    features = FeatureSet(WIDTHS, AUXILIARY)
    many = features.compute(random_stars(400, WIDTHS, seed=2)).x
    scaling = Scaling.fit(many, np.random.default_rng(0).standard_normal((400, LABELS)))
    propagation = Propagation(features, scaling, False, torch.float64)
    block = Block.of(features.compute(stars), features, scaling, torch.float64)
    jacobian = torch.as_tensor(np.random.default_rng(5).standard_normal((6, LABELS, 13)))
    whole = propagation.input_variance(jacobian, block, full=True)
    # the cross term of two labels by variances alone: Cov = (Var(a + b) - Var(a - b)) / 4
    for k, j in ((0, 1), (1, 2), (0, 2)):
        both = torch.stack([jacobian[:, k] + jacobian[:, j], jacobian[:, k] - jacobian[:, j]], 1)
        plus, minus = propagation.input_variance(both, block).T
        np.testing.assert_allclose(whole[:, k, j], (plus - minus) / 4, rtol=1e-8, atol=1e-12)


# --- the model part ---
def network(hidden: tuple[int, ...] = (12, 10), dropout: float = 0.1, **keys) -> UncertainNetwork:
    torch.manual_seed(7)
    return UncertainNetwork(Architecture(6, 0, hidden, LABELS, dropout=dropout, **keys)).double()


def test_the_dropout_covariance_is_the_sum_over_units() -> None:
    """One hidden layer, where the delta method is exact: unit by unit."""
    net = network((9,))
    x = torch.randn((4, 6), dtype=torch.float64)
    got = net(x, jacobian=True, full=True).model.detach().numpy()
    layer = net.hidden[0]
    z = x.numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    h = z / (1 + np.exp(-z))
    weight = net.out.weight.detach().numpy()[:LABELS]
    wanted = np.zeros((4, LABELS, LABELS))
    for star in range(4):
        for unit in range(9):
            moved = weight[:, unit] * h[star, unit]
            wanted[star] += 0.1 / 0.9 * np.outer(moved, moved)
    np.testing.assert_allclose(got, wanted, rtol=1e-10)


def test_the_dropout_covariance_is_that_of_sampled_passes() -> None:
    net = network(dropout=0.02)
    x = torch.randn((5, 6), dtype=torch.float64)
    delta = net(x, jacobian=True, full=True).model.detach().numpy()
    _, sampled = net.to_perceptron().dropout_passes(x.numpy(), 20_000)
    scale = np.sqrt(np.diagonal(delta, axis1=1, axis2=2))
    off = (delta - sampled) / (scale[:, :, None] * scale[:, None, :])
    assert np.abs(off).max() < 0.06
    np.testing.assert_allclose(
        np.diagonal(delta, axis1=1, axis2=2), net(x, jacobian=True).model.detach().numpy()
    )


def test_the_covariance_of_samples_is_numpys() -> None:
    drawn = np.random.default_rng(3).normal(size=(11, 4, LABELS))
    got = sample_covariance(drawn)
    for star in range(4):
        np.testing.assert_allclose(got[star], np.cov(drawn[:, star].T))


def test_a_network_that_knows_variances_alone_has_a_diagonal() -> None:
    net = network(scatter="distilled")
    x = torch.randn((4, 6), dtype=torch.float64)
    whole = net(x, jacobian=True, full=True).model
    torch.testing.assert_close(whole, torch.diag_embed(net(x, jacobian=True).model))


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
    factor = small_model.calibration.factor * small_model.scaling.y_scale
    for star in range(20):
        whole = parts.input[star] + parts.model[star] + np.diag(parts.excess[star])
        whole = np.diag(factor) @ whole @ np.diag(factor)
        np.testing.assert_allclose(prediction.covariance()[star], whole, rtol=1e-9)
    np.testing.assert_array_equal(
        prediction.covariance(["logg", "teff"]), prediction.covariance()[:, ::-1, ::-1]
    )
    with pytest.raises(InputError, match=r"no label 'fe_h' was predicted; there are teff, logg"):
        prediction.covariance(["fe_h"])


def test_lost_stars_have_none(small_model: Model, small_stars: Stars) -> None:
    few = small_stars[:5]
    few.spectra.bp.coefficients[2] = np.nan
    try:
        got = small_model.predict(few, correlations=True).correlations
    finally:
        few.spectra.bp.coefficients[2] = 0.0
    assert np.isnan(got[:, 0]).tolist() == [False, False, True, False, False]


def test_rows_and_blocks_keep_their_correlations(correlated) -> None:
    halves = [correlated[:400], correlated[400:]]
    np.testing.assert_array_equal(stack(halves).correlations, correlated.correlations)
    without = replace(halves[1], correlations=None)
    assert stack([halves[0], without]).correlations is None


def test_no_stars_have_no_correlations(small_model: Model, small_stars: Stars) -> None:
    assert small_model.predict(small_stars[:0], correlations=True).correlations.shape == (0, 1)


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


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_holds_them(ending: str, correlated, tmp_path: Path) -> None:
    from astropy.table import Table

    path = tmp_path / f"labels{ending}"
    write_catalogue(correlated[:5], path)
    read = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv"}.get(ending)
    table = Table.read(path, format=read) if read else Table.read(path)
    np.testing.assert_allclose(table["teff_logg_corr"], correlated.correlations[:5, 0], rtol=1e-12)


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


def test_a_star_far_from_the_simulations_still_has_sane_correlations() -> None:
    stars, _ = simulate_stars(40, labels=("teff", "logg"), widths=(6, 5), noise=1e6, seed=2)
    model = train(
        simulate_stars(900, labels=("teff", "logg"), widths=(6, 5), seed=1)[0],
        ["teff", "logg"], quick(epochs=1), progress=False,
    )  # fmt: skip
    got = model.predict(stars, correlations=True).correlations
    assert (np.abs(got[np.isfinite(got)]) <= 1).all()
