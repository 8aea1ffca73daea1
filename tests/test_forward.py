"""The forward model against slow twins, made stars of known truth, and faults that are planted."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import quick
from twins import coefficient_covariance, random_correlations, ratio_covariance, with_bands
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.split import part_mask
from xplabels.core.stars import CoefficientSpectra, Stars
from xplabels.features import Features, FeatureSet
from xplabels.features.projection import default_projection
from xplabels.forward import Layers, Tail
from xplabels.forward.directions import Directions, _correlated_part
from xplabels.model import Model
from xplabels.synthetic import simulate_stars
from xplabels.training import lines as planting
from xplabels.training import train
from xplabels.training.forward import SHARES, fainter, fit_forward, summed
from xplabels.training.lines import Lines
from xplabels.training.table import training_table

NAMES = ("teff", "logg", "fe_h")
WIDTHS = (8, 9)
BAD = int(Flag.POOR_FIT | Flag.OUT_OF_DOMAIN)


@pytest.fixture(scope="module")
def everyone() -> Stars:
    return simulate_stars(9000, labels=NAMES, widths=WIDTHS, noise=2.0, curvature=0.3, seed=5)[0]


@pytest.fixture(scope="module")
def model(everyone: Stars) -> Model:
    recipe = quick(auxiliary=("bp_rp", "j_h"), hidden=(48, 48), epochs=25, forward=True)
    return train(everyone, NAMES, recipe, seed=2, progress=False, name="fit")


@pytest.fixture(scope="module")
def unseen(model: Model) -> Stars:
    return simulate_stars(6000, labels=NAMES, widths=WIDTHS, noise=2.0, curvature=0.3, seed=6)[0]


def rate(model: Model, stars: Stars, flag: int = BAD) -> float:
    return float(np.mean((model.predict(stars).flags & flag) != 0))


def some_features(
    seed: int, stars: int = 5, noise: float = 20.0
) -> tuple[FeatureSet, Features, CoefficientSpectra]:
    random = np.random.default_rng(seed)
    made = simulate_stars(stars, labels=NAMES, widths=WIDTHS, noise=noise, seed=seed)[0]
    made = with_bands(
        made, lambda b: replace(b, correlations=random_correlations(random, stars, b.width))
    )
    feature_set = FeatureSet(WIDTHS, ("bp_rp",), noise=True)
    return feature_set, feature_set.compute(made), made.spectra


@given(st.integers(0, 2**31), st.booleans())
@settings(deadline=None, max_examples=20)
def test_the_noise_along_directions_is_that_of_the_covariance(seed: int, known: bool) -> None:
    """J C J^T in float64, element by element, with a projection of the coefficients or without."""
    _, features, spectra = some_features(seed)
    random = np.random.default_rng(seed + 1)
    n, r0 = sum(WIDTHS), WIDTHS[0]
    projection = np.eye(n) + 0.1 * random.standard_normal((n, n)) if known else None
    axes, centre = random.standard_normal((n, 4)), random.standard_normal(n)
    if projection is not None:
        c = np.concatenate([spectra.bp.coefficients, spectra.rp.coefficients], axis=1)
        c = c @ projection.T
        features = replace(
            features, divisor=c[:, r0],
            x=np.concatenate([c / c[:, [r0]], features.x[:, n:]], axis=1),
        )  # fmt: skip
    directions = Directions.of(centre, axes, r0, projection)
    found = directions.noise(features, directions.project(features))
    for star in range(len(features)):
        covariance = coefficient_covariance(spectra, star)
        if projection is not None:
            covariance = projection @ covariance @ projection.T
        c = features.x[star, :n] * features.divisor[star]
        whole = axes.T @ ratio_covariance(c, covariance, r0, 1.0) @ axes
        np.testing.assert_allclose(found[star], np.diag(whole), rtol=1e-6)
        place = axes.T @ (features.x[star, :n] - centre)
        np.testing.assert_allclose(directions.project(features)[star], place, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("width", [2, 7, 55])
def test_compiled_correlations_are_the_plain_ones(width: int) -> None:
    pytest.importorskip("numba")
    from xplabels.forward.compiled import correlated_part

    random = np.random.default_rng(width)
    measured, reference = random.standard_normal((width, 5)), random.standard_normal(width)
    place, relative = random.standard_normal((6, 5)), random.uniform(0.5, 2, (6, width))
    packed = random.uniform(-0.3, 0.3, (6, width * (width - 1) // 2)).astype(np.float32)
    plain = _correlated_part(measured, reference, place, relative, packed)
    quickly = correlated_part(measured, reference, place, relative, packed)
    np.testing.assert_allclose(quickly, plain, rtol=2e-5, atol=2e-5 * np.abs(plain).max())


def test_derivatives_are_differences(model: Model) -> None:
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape) for shape in ((4, 6), (6,), (6, 5), (5,), (5, 3), (3,))]
    layers = Layers(tuple(arrays))
    x = random.standard_normal((7, 4))
    value, derivative = layers.derivative(x)
    np.testing.assert_allclose(value, layers(x), rtol=1e-9)
    for i in range(4):
        step = np.zeros(4)
        step[i] = 1e-5
        difference = (layers(x + step) - layers(x - step)) / 2e-5
        np.testing.assert_allclose(derivative[:, :, i], difference, rtol=1e-6, atol=1e-7)


def test_chi_squared_is_the_obvious_sum(model: Model, unseen: Stars) -> None:
    """One star at a time, in float64, from the model's arrays."""
    forward = model.forward
    features = model.feature_set.compute(unseen[:20])
    labels = model.inference.run(features).labels.mean
    fit = forward.score(features, labels)
    spectra = unseen[:20].spectra
    axes, n = forward.directions.axes, sum(WIDTHS)
    for star in range(20):
        c = np.concatenate([spectra.bp.coefficients[star], spectra.rp.coefficients[star]])
        covariance = ratio_covariance(c, coefficient_covariance(spectra, star), WIDTHS[0], 1.0)
        noise = np.diag(axes.T @ covariance @ axes)
        apart = ratio_covariance(c, np.diag(np.diag(coefficient_covariance(spectra, star))),
                                 WIDTHS[0], 1.0)  # fmt: skip
        plain = np.diag(axes.T @ apart @ axes)
        place = axes.T @ (features.x[star, :n] - forward.directions.centre)
        k = len(forward.cap)
        inputs = np.append(labels[star], 0.5 * np.log10(noise[:k].mean()))
        h = clipped = np.minimum(np.maximum(inputs, forward.low), forward.high)
        arrays = [array.astype(np.float64) for array in forward.network.arrays]
        for weight, bias in zip(arrays[:-2:2], arrays[1:-2:2], strict=True):
            h = h @ weight + bias
            h = h / (1 + np.exp(-h))
        out = h @ arrays[-2] + arrays[-1]
        out[:k] += np.append(1.0, clipped) @ forward.linear
        scatter = np.exp(np.minimum(out[k:], forward.cap))
        chisq = sum((place[j] - out[j]) ** 2 / (scatter[j] + noise[j]) for j in range(k))
        assert fit.chisq[star] == pytest.approx(chisq, rel=1e-3)
        distance = np.mean(place[k:] ** 2 / (forward.spread + plain[k:]))
        assert fit.distance[star] == pytest.approx(np.sqrt(distance), rel=1e-6)


@pytest.mark.parametrize("noise", [2.0, 6.0, 20.0])
def test_one_ordinary_star_in_a_hundred_is_flagged_whatever_its_noise(
    model: Model, noise: float
) -> None:
    stars = simulate_stars(
        6000, labels=NAMES, widths=WIDTHS, noise=noise, curvature=0.3, seed=int(noise)
    )[0]
    assert rate(model, stars) == pytest.approx(0.01, abs=0.006)
    prediction = model.predict(stars)
    # judged by models of three quarters of the stars, which fit a little worse than the one of all
    for share in (0.1, 0.5):
        assert np.mean(prediction.fit_p_value < share) == pytest.approx(share, abs=0.3 * share)


def test_a_broken_covariance_shows(model: Model, unseen: Stars) -> None:
    """Noise stated three times too small, or correlations of the wrong sign."""
    noisy = simulate_stars(3000, labels=NAMES, widths=WIDTHS, noise=6.0, curvature=0.3, seed=9)[0]
    right = model.predict(noisy)
    small = model.predict(with_bands(noisy, lambda band: replace(band, errors=band.errors / 3)))
    assert np.mean((small.flags & BAD) != 0) > 0.3
    ordinary = np.mean(right.fit_chisq)
    assert np.mean(small.fit_chisq) > 3 * ordinary
    reversed_signs = model.predict(
        with_bands(noisy, lambda band: replace(band, correlations=-band.correlations))
    )
    assert abs(np.mean(reversed_signs.fit_chisq) / ordinary - 1) > 0.1


def test_strange_spectra_are_flagged(model: Model, unseen: Stars) -> None:
    strange = deepcopy(unseen)
    strange.spectra.bp.coefficients[:, 5] += 15 * strange.spectra.bp.errors[:, 5]
    assert rate(model, strange) > 0.9


def test_sums_of_two_stars_add_light(unseen: Stars) -> None:
    few = unseen[:50]
    feature_set = FeatureSet(WIDTHS, ("bp_rp",))
    r0 = feature_set.compute(few).divisor
    first, second, light = np.arange(50), np.arange(50)[::-1].copy(), np.full(50, 0.5)
    both = summed(few, r0, first, second, light)
    x, alone = (feature_set.compute(stars).x for stars in (both, few))
    n = sum(WIDTHS)
    np.testing.assert_allclose(x[:, :n], (alone[:, :n] + 0.5 * alone[::-1, :n]) / 1.5, rtol=1e-9)
    flux, of_one = (10 ** (-0.4 * s.photometry.column("phot_rp_mean_mag")[0]) for s in (both, few))
    np.testing.assert_allclose(flux, of_one + 0.5 * (r0 / r0[::-1]) * of_one[::-1], rtol=1e-9)


def test_noisier_copies_have_the_noise_they_state() -> None:
    feature_set, features, _ = some_features(3, 1, noise=1.0)
    many = features[np.zeros(20000, np.intp)]
    copies = fainter(many, feature_set, np.full(20000, 3.0), np.random.default_rng(0))
    n = sum(WIDTHS)
    directions = Directions.of(
        np.zeros(n), np.random.default_rng(1).standard_normal((n, 5)), WIDTHS[0], None
    )
    stated = directions.noise(features, directions.project(features))[0]
    drawn = directions.project(copies).var(axis=0)
    np.testing.assert_allclose(drawn, 8 * stated, rtol=0.1)
    np.testing.assert_allclose(copies.errors, 3 * many.errors)


@given(st.integers(0, 2**31), st.integers(1, 6))
@settings(deadline=None, max_examples=30)
def test_a_p_value_is_the_share_beyond(seed: int, bins: int) -> None:
    random = np.random.default_rng(seed)
    level = random.uniform(-1, 1, 4000)
    statistic = 0.3 * level + random.standard_normal(4000)
    tail = Tail.fit(statistic, level, SHARES, bins)
    p = tail.p_value(statistic, level)
    assert ((p > 0) & (p <= 1)).all()
    for share in (0.5, 0.1, 0.01):
        assert np.mean(p < share) == pytest.approx(share, rel=0.3, abs=0.01)
    order = np.argsort(statistic)
    fixed = tail.p_value(statistic[order], np.zeros(4000))
    assert (np.diff(fixed) <= 1e-12).all()


def test_it_is_saved_with_the_model_and_older_ones_have_none(
    model: Model, unseen: Stars, tmp_path: Path
) -> None:
    model.save(tmp_path / "m")
    again, direct = Model.load(tmp_path / "m").predict(unseen[:50]), model.predict(unseen[:50])
    np.testing.assert_array_equal(again.fit_chisq, direct.fit_chisq)
    np.testing.assert_array_equal(again.flags, direct.flags)
    replace(model, forward=None).save(tmp_path / "older")
    older = Model.load(tmp_path / "older")
    assert older.forward is None
    assert np.isnan(older.predict(unseen[:5]).fit_p_value).all()
    assert {"fit_chisq", "fit_p_value"} <= set(older.predict(unseen[:5]).to_arrow().column_names)
    forward = model.forward
    replace(model, forward=replace(forward, spread=forward.spread[1:])).save(tmp_path / "broken")
    with pytest.raises(InputError, match="do not fit together"):
        Model.load(tmp_path / "broken")


def test_a_star_without_a_prediction_has_no_fit(model: Model, unseen: Stars) -> None:
    stars = deepcopy(unseen[:3])
    stars.spectra.bp.coefficients[1] = np.nan
    prediction = model.predict(stars)
    assert np.isnan(prediction.fit_chisq).tolist() == [False, True, False]
    assert not prediction.flags[1] & BAD


def test_the_fit_does_not_depend_on_the_block(model: Model, unseen: Stars) -> None:
    together, alone = model.predict(unseen[:1500]), model.predict(unseen[:7])
    np.testing.assert_allclose(together.fit_chisq[:7], alone.fit_chisq, rtol=1e-3)


def test_the_part_that_judges_was_not_seen(everyone: Stars, model: Model) -> None:
    """On the validation part, which nothing of the forward model was fitted to."""
    rows = part_mask(everyone.source_id, "validation", 0.1)
    assert rate(model, everyone[rows]) < 0.03


# --- emission lines ---


@pytest.fixture(scope="module")
def lines() -> Lines:
    """Three lines of no instrument: each a vector of its own among the coefficients."""
    random = np.random.default_rng(8)
    n, count = sum(WIDTHS), 3
    templates = 2e-3 * random.standard_normal((count, n))
    templates[:, WIDTHS[0]] = np.abs(templates[:, WIDTHS[0]])
    continuum = np.zeros((count, n))
    continuum[:, WIDTHS[0]] = 1.0
    return Lines(templates, continuum, count, np.linalg.pinv(templates))


@pytest.fixture(scope="module")
def with_lines(model: Model, everyone: Stars, lines: Lines) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lines, "of", lambda *_: lines)
        table = training_table(everyone, NAMES, model.recipe, 0.1)
        return replace(model, forward=fit_forward(model, table, (), 0))


def poor(model: Model, features: Features) -> float:
    forward = model.forward
    fit = forward.score(features, model.inference.run(features).labels.mean)
    return float(np.mean(fit.p_value < forward.threshold))


def test_planted_lines_are_found_and_ordinary_stars_are_not(
    model: Model, with_lines: Model, unseen: Stars, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = with_lines.forward
    assert len(forward.kind_tails) == 2
    assert rate(with_lines, unseen) == pytest.approx(0.01, abs=0.006)
    features = model.feature_set.compute(unseen)
    found = []
    for strength in (0.3, 1.5, 50.0):
        monkeypatch.setattr(planting, "STRENGTH", (strength, 1.01 * strength))
        bright = lines.planted(features, model.feature_set, np.random.default_rng(3))
        found.append((poor(model, bright), poor(with_lines, bright)))
    without, known = np.array(found).T
    assert (np.diff(known) >= 0).all()
    assert known[2] > 0.95
    assert known[1] > without[1] + 0.1, found


def test_a_model_with_lines_is_saved(with_lines: Model, unseen: Stars, tmp_path: Path) -> None:
    with_lines.save(tmp_path / "m")
    again, direct = Model.load(tmp_path / "m").predict(unseen[:50]), with_lines.predict(unseen[:50])
    np.testing.assert_array_equal(again.fit_p_value, direct.fit_p_value)


def test_lines_go_through_the_instrument(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flat spectrum with a line, simulated whole, against the line that is planted in it."""
    pytest.importorskip("gaiaxpy")
    from xplabels.instrument import gaiaxpy_instrument
    from xplabels.instrument.sed import Sed

    monkeypatch.setattr(planting, "OTHERS", 1)
    feature_set = FeatureSet((55, 55), (), projection=default_projection())
    lines = Lines.of(feature_set, np.random.default_rng(0))
    wavelength = np.arange(310.0, 1100.0, 0.1)
    sigma = planting.NARROW / np.sqrt(8 * np.log(2))
    bell = np.exp(-0.5 * ((wavelength - 656.46) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    flat = np.ones_like(wavelength)
    width = 5.0  # nm
    seds = [Sed.of(wavelength, 1e-16 * f) for f in (flat, flat + width * bell)]
    spectra = gaiaxpy_instrument().coefficients(seds) @ default_projection().from_coefficients.T
    before, after = spectra
    added = width * (before @ lines.continuum[0]) * lines.templates[0]
    np.testing.assert_allclose(added, after - before, rtol=0.1, atol=0.02 * np.abs(added).max())
    # light of H alpha, but next to nothing of the continuum, nor of lines far from it
    light = (lines.templates @ lines.local)[:, 0]
    assert abs(before @ lines.local[:, 0]) * width < 0.1 * light[0] * width * 1e-16
    assert (np.abs(light[[1, 2, 3, 6, 7]]) < 0.05 * light[0]).all()
