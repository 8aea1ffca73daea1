"""What semi-synthetic giants are made from: composition, luminosity, colours, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xplabels.giants import relations


@given(st.floats(0.8, 3), st.floats(0, 3.5), st.floats(-2.5, 0.5), st.floats(-0.1, 0.4))
def test_what_carbon_loses_nitrogen_gains(mass, logg, fe_h, alpha_m) -> None:
    star = [np.array([x]) for x in (mass, logg, fe_h, alpha_m)]
    c_fe, n_fe = relations.mean_composition(*star)[0]
    born = relations.CARBON_TO_NITROGEN * 10 ** (0.5 * alpha_m) + 1
    assert relations.CARBON_TO_NITROGEN * 10**c_fe + 10**n_fe == pytest.approx(born)
    assert n_fe >= -1e-12


def composition(mass: float, logg: float, fe_h: float = 0.0, alpha_m: float = 0.0) -> np.ndarray:
    return relations.mean_composition(*(np.array([x]) for x in (mass, logg, fe_h, alpha_m)))[0]


def test_giants_are_mixed_as_the_literature_says() -> None:
    subgiant, clump = composition(1.3, 3.5), composition(1.3, 2.5)
    assert abs(subgiant[0]) < 0.01
    assert clump[0] < -0.08
    assert clump[1] > 0.2
    assert composition(2.5, 2.5)[1] > clump[1] + 0.1  # heavier stars mix more
    poor = composition(1.0, 1.0, fe_h=-1.5)
    assert poor[0] < composition(1.0, 2.5, fe_h=-1.5)[0] - 0.1  # and metal-poor ones once more
    np.testing.assert_allclose(composition(1.0, 1.0), composition(1.0, 2.5), atol=0.01)


def test_compositions_scatter_within_the_emulators_range() -> None:
    random = np.random.default_rng(0)
    wide = relations.draw_composition(np.tile([0.0, 0.55], (20_000, 1)), random)
    assert np.abs(wide).max() <= relations.COMPOSITION_LIMIT
    assert wide[:, 0].std() == pytest.approx(relations.COMPOSITION_SCATTER[0], rel=0.05)
    narrow = relations.draw_composition(np.tile([0.0, 0.1], (20_000, 1)), random)
    np.testing.assert_allclose(narrow.mean(axis=0), [0, 0.1], atol=0.005)


def test_masses_are_drawn_about_the_typical_one() -> None:
    alpha = np.repeat([0.0, 0.3], 20_000)
    mass = relations.draw_mass(alpha, np.random.default_rng(0)).reshape(2, -1)
    typical = relations.typical_mass(alpha).reshape(2, -1)[:, 0]
    np.testing.assert_allclose(np.median(mass, axis=1), typical, rtol=0.02)
    assert mass[0].std() > 2 * mass[1].std()


def test_luminosities_are_those_of_giants() -> None:
    """The red clump has M_G of about 0.5 (Hawkins et al. 2017), Arcturus about -0.8."""
    clump, arcturus = relations.absolute_g(
        np.array([4800.0, 4286.0]), np.array([2.45, 1.66]), np.array([1.2, 1.08])
    )
    assert clump == pytest.approx(0.5, abs=0.3)
    assert arcturus == pytest.approx(-0.8, abs=0.3)
    edges = relations.absolute_g(np.array([3999.99, 4000.0]), np.ones(2), np.ones(2))
    assert edges[0] == pytest.approx(edges[1], abs=0.01)


@given(st.floats(3500, 6000), st.floats(-2.5, 0.5))
def test_intrinsic_colours_solve_the_published_polynomial(teff, fe_h) -> None:
    c = float(relations.intrinsic_j_ks(np.array([teff]), np.array([fe_h]))[0])
    b0, b1, b2, b3, b4, b5 = relations.COLOUR_OF_TEFF
    theta = b0 + b1 * c + b2 * c**2 + b3 * c * fe_h + b4 * fe_h + b5 * fe_h**2
    assert 5040 / theta == pytest.approx(teff, rel=1e-9)


def test_errors_grow_as_stars_get_faint() -> None:
    g = np.array([13.0, 15.0, 17.0, 20.0])
    # the Gaia science performance page, mas
    np.testing.assert_allclose(relations.parallax_error(g)[1:3], [0.0295, 0.0793], rtol=0.01)
    faint = relations.magnitude_error("ks_m", np.array([8.0, 14.3]), g[:2], 0.025)
    np.testing.assert_allclose(faint, [0.025, np.hypot(0.025, 0.1)], rtol=0.01)
    assert relations.magnitude_error("phot_bp_mean_mag", g, g, 0.0)[2] == pytest.approx(0.012)
