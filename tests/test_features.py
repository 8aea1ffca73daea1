"""Inputs and their covariance against the full matrices of FS24's eq. 1-2, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twins import (
    auxiliary_inputs,
    auxiliary_slopes,
    explicit,
    explicit_covariance,
    random_stars,
    with_bands,
)
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import MEASUREMENTS, Band, CoefficientSpectra, SampledSpectra, Stars
from xplabels.features import AUXILIARY, FeatureSet
from xplabels.features.projection import Projection
from xplabels.inference import input_variance

ALL = tuple(AUXILIARY)
LABELS = 3


def variance(features: FeatureSet, stars: Stars, jacobian: np.ndarray) -> np.ndarray:
    """The code under test, as the prediction uses it."""
    projection = features.projection and features.projection.from_coefficients
    return input_variance(jacobian, features.compute(stars), features, projection, full=False)[0]


def random_jacobian(stars: Stars, features: FeatureSet, seed: int = 1) -> np.ndarray:
    shape = (len(stars), LABELS, len(features.names))
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("rule", ["exact", "fs24"])
@pytest.mark.parametrize("widths", [(55, 55), (51, 55), (3, 2), (1, 1)])
@pytest.mark.parametrize("extinction", [True, False])
def test_variance_is_that_of_the_full_matrix(rule, widths, extinction) -> None:
    stars = random_stars(4, widths, seed=sum(widths))
    features = FeatureSet(widths, ALL, rule, extinction)
    jacobian = random_jacobian(stars, features)
    wanted = explicit_covariance(features, stars, jacobian)
    found, _ = input_variance(jacobian, features.compute(stars), features)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    diagonal = np.einsum("nkk->nk", wanted)
    np.testing.assert_allclose(variance(features, stars, jacobian), diagonal, rtol=1e-7)


def some_projection(n: int, widths: tuple[int, int], samples: int = 40) -> Projection:
    random = np.random.default_rng(8)
    design = random.standard_normal((samples, n)) * 1e-17
    # a few samples see one band alone, as at the ends of the real wavelength range
    design[:10, widths[0] :] = 0
    design[-10:, : widths[0]] = 0
    mean = random.standard_normal(n) + 1
    mean /= (design.mean(axis=0) / 1e-17) @ mean
    root = random.standard_normal((n, n)) * 0.3
    return Projection.from_prior(
        np.linspace(336, 1020, samples), design, widths, mean, root @ root.T,
        random.uniform(0.5, 2, n), noise=0.3,
    )  # fmt: skip


@pytest.mark.parametrize("correlated", [True, False])
def test_variance_through_a_projection(correlated) -> None:
    widths = (6, 5)
    stars = random_stars(5, widths, seed=4, correlated=correlated)
    features = FeatureSet(widths, ("j_h",), projection=some_projection(11, widths))
    jacobian = random_jacobian(stars, features)
    np.testing.assert_allclose(
        variance(features, stars, jacobian), explicit(features, stars, jacobian), rtol=1e-7
    )


def test_sampled_spectra_take_the_variance_of_their_template_errors() -> None:
    widths = (6, 5)
    projection = some_projection(11, widths)
    archive = random_stars(4, widths, seed=5)
    raw = np.concatenate([archive.spectra.bp.coefficients, archive.spectra.rp.coefficients], axis=1)
    flux = raw @ projection.design.T
    flux_error = np.random.default_rng(1).uniform(1, 2, flux.shape) * 1e-17
    spectra = SampledSpectra(projection.wavelength, flux, flux_error)
    sampled = Stars.of(archive.source_id, spectra, archive.photometry)
    features = FeatureSet(widths, (), projection=projection)
    errors = projection.coefficient_errors(spectra)
    # independent coefficients with the template's errors, seen as archive stars
    same = Stars.of(
        archive.source_id,
        CoefficientSpectra(Band(raw[:, :6], errors[:, :6]), Band(raw[:, 6:], errors[:, 6:])),
        archive.photometry,
    )
    jacobian = random_jacobian(sampled, features)
    np.testing.assert_allclose(features.compute(sampled).x, features.compute(same).x, rtol=1e-9)
    np.testing.assert_allclose(
        variance(features, sampled, jacobian), explicit(features, same, jacobian), rtol=1e-8
    )


@pytest.mark.parametrize("rule", ["exact", "fs24"])
def test_where_rp0_is_zero_its_error_divides_and_a_flag_says_so(rule) -> None:
    stars = random_stars(4, (5, 4), seed=6)
    stars.spectra.rp.coefficients[1:3, 0] = 0.0
    features = FeatureSet((5, 4), (), rule)
    jacobian = random_jacobian(stars, features)
    np.testing.assert_allclose(
        variance(features, stars, jacobian), explicit(features, stars, jacobian), rtol=1e-12
    )
    computed = features.compute(stars)
    np.testing.assert_allclose(
        computed.x[1, :5], stars.spectra.bp.coefficients[1] / stars.spectra.rp.errors[1, 0]
    )
    zero = (computed.flags & Flag.ZERO_NORMALISATION) != 0
    assert zero.tolist() == [False, True, True, False]
    assert ((computed.flags & Flag.LOW_SNR) != 0).tolist() == [False, True, True, False]


def test_inputs_are_the_ratios_and_the_paper_s_colours() -> None:
    stars = random_stars(6, (5, 4), seed=7)
    x = FeatureSet((5, 4), ALL).compute(stars).x
    for star in range(6):
        r0 = stars.spectra.rp.coefficients[star, 0]
        measured = dict(zip(MEASUREMENTS, stars.photometry.values[star], strict=True))
        wanted = [
            *(stars.spectra.bp.coefficients[star] / r0),
            *(stars.spectra.rp.coefficients[star] / r0),
            *(auxiliary_inputs(measured)[name] for name in ALL),
        ]
        np.testing.assert_allclose(x[star], wanted, rtol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_auxiliary_errors_are_finite_differences_times_errors(name) -> None:
    stars = random_stars(5, (2, 2), seed=11)
    stars.photometry.values[0, MEASUREMENTS.index("parallax")] = 0.0
    stars.photometry.values[1, MEASUREMENTS.index("parallax")] = -1.3
    got = FeatureSet((2, 2), (name,)).compute(stars).auxiliary_errors[:, 0]
    for star in range(5):
        measured = dict(zip(MEASUREMENTS, stars.photometry.values[star], strict=True))
        wanted = auxiliary_slopes(measured, name) * stars.photometry.errors[star]
        np.testing.assert_allclose(got[star], wanted, rtol=1e-6, atol=1e-6 * abs(wanted).max())


def test_errors_shared_between_colours_cancel_or_add() -> None:
    """H stands in J - H and in H - W2: of their sum, J - W2, it is not a part."""
    stars = random_stars(1, (2, 2), seed=13)
    features = FeatureSet((2, 2), ("j_h", "h_w2"))
    errors = dict(zip(MEASUREMENTS, stars.photometry.errors[0], strict=True))
    jacobian = np.array([[[0, 0, 0, 0, 1.0, 1.0], [0, 0, 0, 0, 1.0, -1.0]]])
    got = variance(features, stars, jacobian)[0]
    assert got[0] == pytest.approx(errors["j_m"] ** 2 + errors["w2mpro"] ** 2)
    assert got[1] == pytest.approx(
        errors["j_m"] ** 2 + errors["w2mpro"] ** 2 + 4 * errors["h_m"] ** 2
    )


@pytest.mark.parametrize(
    ("lost", "bits"),
    [
        ("parallax", Flag.MISSING_PARALLAX),
        ("w2mpro", Flag.MISSING_PHOTOMETRY),
        ("j_m", Flag.MISSING_PHOTOMETRY),
        ("phot_rp_mean_mag", Flag.MISSING_PHOTOMETRY),
        ("ks_m", Flag.MISSING_PHOTOMETRY),
    ],
)
@pytest.mark.parametrize("what", ["values", "errors"])
def test_missing_measurements_leave_their_inputs_out_and_say_which(lost, bits, what) -> None:
    stars = random_stars(2, (2, 2), seed=14)
    getattr(stars.photometry, what)[1, MEASUREMENTS.index(lost)] = np.nan
    computed = FeatureSet((2, 2), ALL).compute(stars)
    for a, name in enumerate(ALL):
        gone = lost in AUXILIARY[name]
        assert np.isnan(computed.x[1, 4 + a]) == gone
        if gone:
            assert (computed.auxiliary_errors[1, a] == 0).all()
    assert np.isfinite(computed.x[0]).all()
    both = int(Flag.MISSING_PARALLAX | Flag.MISSING_PHOTOMETRY)
    assert computed.flags[0] & both == 0
    assert computed.flags[1] & both == int(bits)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-6, 1e6), st.integers(0, 2**31))
def test_a_star_s_brightness_changes_nothing(scale, seed) -> None:
    stars = random_stars(2, (5, 4), seed=seed)
    other = with_bands(
        stars, lambda b: replace(b, coefficients=b.coefficients * scale, errors=b.errors * scale)
    )
    features = FeatureSet((5, 4), ())
    jacobian = random_jacobian(stars, features, seed)
    np.testing.assert_allclose(features.compute(other).x, features.compute(stars).x, rtol=1e-12)
    np.testing.assert_allclose(
        variance(features, other, jacobian), variance(features, stars, jacobian), rtol=1e-9
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 6), st.sampled_from(["exact", "fs24"])
)
def test_variances_are_not_negative_and_rows_do_not_meet(seed, bp, rp, rule) -> None:
    stars = random_stars(7, (bp, rp), seed=seed)
    features = FeatureSet((bp, rp), ("bp_rp", "m_pseudo"), rule)
    jacobian = random_jacobian(stars, features, seed)
    whole = variance(features, stars, jacobian)
    assert (whole >= 0).all()
    order = np.random.default_rng(seed).permutation(7)
    np.testing.assert_allclose(
        variance(features, stars[order], jacobian[order]), whole[order], rtol=1e-12
    )
    np.testing.assert_allclose(
        variance(features, stars[2:4], jacobian[2:4]), whole[2:4], rtol=1e-12
    )


def test_other_widths_than_the_model_s_are_an_error_that_says_both() -> None:
    stars = replace(random_stars(2, (51, 55)), origin="new.csv")
    with pytest.raises(InputError, match=r"new\.csv.*51 BP \+ 55 RP.*55 \+ 55"):
        FeatureSet((55, 55), ()).compute(stars)


def test_a_band_no_star_has_takes_the_model_s_width() -> None:
    stars = random_stars(2, (0, 4), seed=1)
    computed = FeatureSet((5, 4), ()).compute(stars)
    assert computed.x.shape == (2, 9)
    assert np.isnan(computed.x[:, :5]).all()
    assert (computed.flags & Flag.MISSING_BP != 0).all()


@pytest.mark.parametrize(("ratio", "low"), [(9.9, True), (10.1, False), (-9.9, True), (-11, False)])
def test_low_signal_to_noise_of_rp0_is_flagged(ratio, low) -> None:
    stars = random_stars(1, (2, 2))
    stars.spectra.rp.coefficients[0, 0] = ratio * stars.spectra.rp.errors[0, 0]
    flags = FeatureSet((2, 2), ()).compute(stars).flags
    assert bool(flags[0] & Flag.LOW_SNR) == low


def test_unknown_auxiliary_inputs_are_refused() -> None:
    with pytest.raises(InputError, match=r"u_g.*bp_rp"):
        FeatureSet((2, 2), ("u_g",))


def test_names_follow_the_order_of_the_inputs() -> None:
    assert FeatureSet((2, 1), ("j_h",)).names == ("bp_0", "bp_1", "rp_0", "j_h")
