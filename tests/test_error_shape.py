"""Errors too small for some stars and too large for others are found with validation stars."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from xplabels.calibration.error_shape import BOUND, LARGEST, ErrorShape, terms
from xplabels.model import Model


def simulated(count, seed, wrong):
    """Stars with errors too small by the factor ``wrong(labels, noise)``."""
    random = np.random.default_rng(seed)
    labels, noise = random.normal(size=(count, 2)), random.normal(size=(count, 2))
    stated = np.exp(random.normal(0, 0.3, (count, 2)))
    label_errors = np.full((count, 2), 0.2)
    scatter = stated * wrong(labels, noise)[:, None]
    residuals = scatter * stats.t(4).rvs((count, 2), random_state=random)
    residuals += random.normal(0, label_errors)
    return labels, noise, residuals, stated**2, label_errors


def slanted(labels, noise):
    return np.exp(0.25 * np.clip(noise[:, 1], -2, 2) - 0.2 * np.clip(labels[:, 0], -2, 2))


def test_a_known_shape_comes_back():
    stars = simulated(6000, 1, slanted)
    shape = ErrorShape.fit(*stars)
    labels, noise, *_ = simulated(2000, 2, slanted)
    found = np.log(shape.squares(labels, noise)) / 2
    wanted = np.log(slanted(labels, noise))[:, None]
    difference = (found - found.mean(axis=0)) - (wanted - wanted.mean())
    assert np.abs(np.median(difference, axis=0)).max() < 0.05
    assert difference.std(axis=0).max() < 0.1  # wanted has a scatter of 0.3
    assert found.std(axis=0).min() > 0.25


def test_errors_that_are_right_keep_their_shape_and_so_do_those_of_few_stars():
    labels, noise, *rest = simulated(2000, 6, slanted)
    shape = ErrorShape.fit(*simulated(6000, 5, lambda labels, noise: np.ones(len(labels))))
    assert np.log(shape.squares(labels, noise)).std(axis=0).max() / 2 < 0.06
    few = ErrorShape.fit(*(array[:100] for array in (labels, noise, *rest)))
    assert (few.squares(labels, noise) == 1).all()


def test_unknown_labels_are_left_out():
    stars = simulated(4000, 8, slanted)
    whole = ErrorShape.fit(*(array[:3000] for array in stars))
    for unknown in (stars[2], stars[4]):
        unknown[3000:] = np.nan
    again = ErrorShape.fit(*stars)
    np.testing.assert_allclose(again.weights, whole.weights, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("noise_levels", [0, 2])
def test_terms_are_every_product_by_loop(noise_levels):
    random = np.random.default_rng(9)
    labels, noise = random.normal(size=(5, 3)) * 2, random.normal(size=(5, noise_levels))
    for row, found in enumerate(terms(labels, noise)):
        u = [max(-BOUND, min(BOUND, v)) for v in labels[row]]
        variables = u + ([noise[row, 1]] if noise_levels else [])
        wanted = list(variables)
        for i, a in enumerate(variables):
            for j, b in enumerate(variables[: i + 1]):
                wanted.append(a * b - 1 if i == j else a * b)
        wanted += [v**3 / 3 for v in u]
        np.testing.assert_allclose(found, wanted)


@given(st.integers(0, 1000), st.floats(-1e6, 1e6))
def test_no_star_s_error_is_changed_beyond_the_bounds(seed, size):
    random = np.random.default_rng(seed)
    labels, noise = random.normal(size=(4, 2)) * size, random.normal(size=(4, 2))
    shape = ErrorShape(random.normal(size=(2, terms(labels, noise).shape[1])))
    squares = shape.squares(labels, noise)
    assert (squares <= LARGEST**2 * (1 + 1e-12)).all()
    assert (squares >= LARGEST**-2 * (1 - 1e-12)).all()


def test_a_shape_multiplies_every_part_of_an_error_alike(small_model, small_stars) -> None:
    def with_shape(shape: ErrorShape) -> Model:
        return replace(small_model, calibration=replace(small_model.calibration, shape=shape))

    plain = with_shape(ErrorShape.flat(0))
    before = plain.predict(small_stars)
    scaled, _ = plain.scaling.scale_y(before.values, before.errors)
    noise = plain.scaling.scale_noise(
        plain.feature_set.noise_levels(plain.feature_set.compute(small_stars))
    )
    size = (len(plain.names), terms(scaled, noise).shape[1])
    shape = ErrorShape(np.random.default_rng(3).normal(0, 0.1, size))
    after, ratio = with_shape(shape).predict(small_stars), np.sqrt(shape.squares(scaled, noise))
    assert ratio.std() > 0.01
    for part in ("errors", "errors_model", "errors_input", "errors_excess", "errors_95"):
        np.testing.assert_allclose(getattr(after, part), ratio * getattr(before, part), rtol=1e-4)
