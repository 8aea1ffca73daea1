"""The strange sources of benchmarks/domain.py are what they are called, and always the same."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gaiaxpy")

import domain
import shipped
import strange
import strange_spectra
from xplabels.core.flags import Flag
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.stars import Photometry, SampledSpectra, Stars
from xplabels.features.projection import default_projection
from xplabels.instrument import gaiaxpy_instrument, magnitudes
from xplabels.instrument.sed import Sed


@pytest.fixture(scope="module")
def stars() -> Stars:
    """Planck functions as a library of sampled spectra at G = 11-12, with their Teff."""
    projection = default_projection()
    n = 60
    teff = np.geomspace(3400, 14000, n)
    seds = [Sed.of(strange.WAVELENGTH, 1e-15 * strange_spectra.planck(t)) for t in teff]
    clean = gaiaxpy_instrument().coefficients(seds)
    wanted = np.linspace(11.0, 12.0, n)
    clean *= 10 ** (-0.4 * (wanted - magnitudes(clean)[:, 0]))[:, None]
    flux = clean @ projection.design.T
    g, bp, rp = magnitudes(clean).T
    errors = 0.75 * strange.noise_model().errors(g, bp - rp)  # smaller, as the library's are
    spectra = SampledSpectra(
        projection.wavelength, flux, np.sqrt(errors**2 @ projection.design.T**2)
    )
    measured = {
        name: (m, np.full(n, 0.005))
        for name, m in zip(strange.MAGNITUDES, (g, bp, rp), strict=True)
    } | {name: (g - 1.0, np.full(n, 0.025)) for name in strange.TWO_MASS}
    labels = Labels(("teff", "logg"), np.stack([teff, np.full(n, 4.0)], 1), np.full((n, 2), 10.0))
    return Stars.of(np.arange(1, n + 1), spectra, Photometry.of(n, measured), labels)


def test_emission_is_that_of_the_same_line_in_the_spectral_energy_distribution() -> None:
    fine = np.arange(310.0, 1100.0, 0.1)
    width, sigma = 3.0, 1.0 / np.sqrt(8 * np.log(2))
    line = np.exp(-0.5 * ((fine - strange.H_ALPHA) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    continuum = np.full(len(fine), 2e-16)
    plain, lined = gaiaxpy_instrument().coefficients(
        [Sed.of(fine, continuum), Sed.of(fine, continuum * (1 + width * line))]
    )
    projection = default_projection()
    flux = (plain @ projection.design.T)[None]
    star = Stars.of(np.array([1]), SampledSpectra(projection.wavelength, flux, 0.01 * flux))
    found = strange.h_alpha(star, np.random.default_rng(0), width=10 * width)
    wanted = (lined - plain) @ projection.design.T
    near = np.abs(projection.wavelength - strange.H_ALPHA) < 12
    change = (found.spectra.flux - flux)[0]
    # the continuum is measured from the sampled spectrum, which ripples
    np.testing.assert_allclose(change, wanted, atol=0.02 * np.abs(wanted).max())
    assert change[near].sum() * 2.0 / 2e-16 == pytest.approx(width, rel=0.08)


def test_the_second_star_has_its_share_of_the_light_and_its_distance_in_teff(stars: Stars) -> None:
    random = np.random.default_rng(1)
    mixed = strange.summed(stars, random, ratio=(0.3, 0.3), difference=(1500, 3000))
    first = stars[np.isin(stars.source_id, mixed.source_id)]
    g, before = (s.photometry.column("phot_g_mean_mag")[0] for s in (mixed, first))
    np.testing.assert_allclose(before - g, 2.5 * np.log10(1.3), atol=1e-9)
    added = mixed.spectra.flux - first.spectra.flux
    shapes = stars.spectra.flux / np.linalg.norm(stars.spectra.flux, axis=1, keepdims=True)
    second = np.argmax((added / np.linalg.norm(added, axis=1, keepdims=True)) @ shapes.T, axis=1)
    teff = stars.labels.values[:, 0]
    apart = np.abs(teff[second] - mixed.labels.values[:, 0])
    assert np.all((apart >= 1500) & (apart < 3000))
    np.testing.assert_array_equal(mixed.labels.values, first.labels.values)
    light = magnitudes(default_projection().coefficients(mixed.spectra))[:, 0]
    np.testing.assert_allclose(light, g, atol=0.003)


def test_a_blend_of_the_spectrum_alone_leaves_the_magnitudes(stars: Stars) -> None:
    mixed = strange.summed(stars, np.random.default_rng(1), ratio=(0.5, 0.5), photometry=False)
    np.testing.assert_array_equal(mixed.photometry.values, stars.photometry.values)
    assert np.all(mixed.spectra.flux.sum(axis=1) > 1.3 * stars.spectra.flux.sum(axis=1))


def test_dust_dims_each_wavelength_and_band(stars: Stars) -> None:
    behind = strange.dust(stars, np.random.default_rng(0), a_v=2.0)
    at_v = np.argmin(np.abs(stars.spectra.wavelength - 550))
    dimmed = -2.5 * np.log10(behind.spectra.flux[:, at_v] / stars.spectra.flux[:, at_v])
    np.testing.assert_allclose(dimmed, 2.0, atol=0.03)
    change = behind.photometry.values - stars.photometry.values
    g, bp, rp, j, h, ks = change.T[:6]
    assert np.all((bp > g) & (g > rp) & (rp > j) & (j > h) & (h > ks))


def test_ripples_and_steps_have_their_amplitude(stars: Stars) -> None:
    random = np.random.default_rng(0)
    wave = strange.ripple(stars, random, amplitude=0.03).spectra.flux / stars.spectra.flux - 1
    # the samples of a sine of 20 nm miss its peak by at most 5 %
    np.testing.assert_allclose(np.abs(wave).max(axis=1), 0.03, rtol=0.05)
    step = strange.blue_third(stars, random, factor=1.3).spectra.flux / stars.spectra.flux
    assert np.allclose(step[:, :114], 1.3)
    assert np.allclose(step[:, 114:], 1.0)


def test_one_coefficient_is_off_by_ten_of_its_errors(stars: Stars) -> None:
    projection = default_projection()
    off = strange.coefficient_off(stars, np.random.default_rng(3), sigmas=10.0)
    change = off.spectra.flux - stars.spectra.flux
    coefficients = np.linalg.lstsq(projection.design, change.T, rcond=1e-13)[0]
    again = projection.design @ coefficients
    np.testing.assert_allclose(again, change.T, atol=1e-6 * np.abs(change).max())
    errors = projection.coefficient_errors(stars.spectra)
    for star, one in enumerate(change):
        shares = (projection.design.T @ one) / (projection.design**2).sum(axis=0)
        rest = ((one[:, None] - projection.design * shares) ** 2).sum(axis=0)
        column = int(np.argmin(rest))
        assert column != projection.widths[0]
        assert abs(shares[column]) == pytest.approx(10 * errors[star, column])


def test_noise_of_copies_is_that_of_field_stars_of_their_magnitude(stars: Stars) -> None:
    projection = default_projection()
    seen = strange.moved(stars, stars, 17.0, np.random.default_rng(0), projection)
    colour = np.subtract(*(stars.photometry.column(f"phot_{b}_mean_mag")[0] for b in ("bp", "rp")))
    expected = strange.noise_model().errors(np.full(len(stars), 17.0), colour)
    stated = projection.coefficient_errors(seen.spectra)
    for band in (slice(0, 55), slice(55, 110)):
        ratio = np.median(stated[:, band], axis=1) / np.median(expected[:, band], axis=1)
        assert np.all(np.abs(np.log(ratio)) < 0.25)
    dim = 10 ** (-0.4 * (17.0 - stars.photometry.column("phot_g_mean_mag")[0]))[:, None]
    z = (seen.spectra.flux - dim * stars.spectra.flux) / seen.spectra.flux_error
    assert 0.85 < np.sqrt(np.mean(z**2)) < 1.15


@pytest.mark.parametrize("g", [13.0, 17.0, None])
def test_altered_stars_have_the_magnitude_asked_for_and_known_labels(
    stars: Stars, g: float | None
) -> None:
    name = "H alpha emission of 20 A"
    made = strange.altered_stars(name, stars, g, 20)
    assert len(made) == 20
    assert np.all((made.labels.values[:, 0] > 3200) & (made.labels.values[:, 0] < 7000))
    if g is not None:
        np.testing.assert_allclose(
            made.photometry.column("phot_g_mean_mag")[0], g, atol=0.05 if g > 15 else 0.02
        )


def test_every_class_can_be_made_and_is_the_same_again(stars: Stars) -> None:
    for name in strange.ALTERED:
        one, two = (strange.altered_stars(name, stars, 15.0, 3) for _ in range(2))
        assert len(one) > 0, name
        np.testing.assert_array_equal(one.spectra.flux, two.spectra.flux)
        np.testing.assert_array_equal(one.photometry.values, two.photometry.values)
    for name in strange.SIMULATED:
        one, two = (strange.simulated_stars(name, 15.0, 3) for _ in range(2))
        np.testing.assert_array_equal(one.spectra.bp.coefficients, two.spectra.bp.coefficients)
        assert any("simulated" in note for note in one.notes)
        other = strange.simulated_stars(name, 15.0, 3, seed=1)
        assert np.any(one.spectra.bp.coefficients != other.spectra.bp.coefficients)


def test_simulated_sources_at_two_magnitudes_are_the_same_ones() -> None:
    near, far = (strange.simulated_stars("black bodies of 8-40 kK", g, 4) for g in (13.0, 17.0))
    np.testing.assert_array_equal(near.labels.values, far.labels.values)
    ks = [stars.photometry.column("ks_m")[0] for stars in (near, far)]
    assert np.isfinite(ks[0]).all()
    assert np.isnan(ks[1]).all()  # too faint for 2MASS


def test_rows_count_what_they_say() -> None:
    ones = np.ones((4, 1))
    teff = np.array([[5000.0], [5600.0], [9000.0], [5600.0]])
    flags = np.array([0, 0, 0, Flag.OUT_OF_DOMAIN], np.uint32)
    prediction = Prediction(
        np.arange(4), ("teff",), teff, 100 * ones, 100 * ones, 0 * ones, 0 * ones, 200 * ones,
        np.ones(4), flags,
    )  # fmt: skip
    found = domain.row(prediction, Labels(("teff",), 5000 * ones, 0 * ones))
    assert found["flagged"]["count"] == found["fit_or_domain"]["count"] == 1
    assert found["off_5_sigma"]["count"] == 3
    assert found["flagged_or_right"]["count"] == 2
    assert found["not_flagged_5_sigma"]["count"] == 2
    assert found["not_flagged_25_per_cent"]["count"] == 1
    assert found["flags"] == {"OUT_OF_DOMAIN": 0.25}
    hot = domain.row(prediction, None, right_from=8000.0)
    assert hot["flagged_or_right"]["count"] == 2


def test_every_limit_of_hot_stars_can_be_missed() -> None:
    def a_bin(low=7500, high=8500, labels=None, **changed):
        scores = {"relative": 0.069, "inside_68": domain.rate(68, 100)}
        scores["inside_95"] = domain.rate(95, 100)
        return {
            "teff_range": [low, high], "n": 100, "finite": {"fe_h": 0, "alpha_m": 0},
            "not_flagged_5_sigma": domain.rate(2, 100),
            "not_flagged_25_per_cent": domain.rate(8, 100),
            "labels": {name: scores | (labels or {}).get(name, {}) for name in ("teff", "logg")},
        } | changed  # fmt: skip

    assert (
        shipped.missed_by_hot_stars([a_bin(), a_bin(6000, 7000, {"teff": {"relative": 0.5}})]) == []
    )
    for wrong in (
        {"not_flagged_5_sigma": domain.rate(3, 100)},
        {"not_flagged_25_per_cent": domain.rate(9, 100)},
        {"labels": {"teff": {"relative": 0.08}}},
        {"labels": {"logg": {"inside_68": domain.rate(55, 100)}}},
        {"labels": {"teff": {"inside_95": domain.rate(88, 100)}}},
        {"finite": {"fe_h": 1, "alpha_m": 0}},
    ):
        assert len(shipped.missed_by_hot_stars([a_bin(**wrong)])) == 1
    assert shipped.missed_by_hot_stars([a_bin(10000, 12000, {"teff": {"relative": 0.1}})]) == []
