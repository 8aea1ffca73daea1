"""Observed and simulated differences against planted slopes and direct twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("gaiaxpy")

from conftest import line_sed
from xplabels.core.errors import InputError
from xplabels.core.stars import Photometry
from xplabels.explain import differences
from xplabels.features.projection import gaiaxpy_design
from xplabels.giants.emulator import load_emulator
from xplabels.instrument import gaiaxpy_instrument
from xplabels.instrument.sed import Sed
from xplabels.surveys import library
from xplabels.synthetic import example_stars


def planted(seed: int, stars: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra linear in two labels that are correlated, their labels, and the true slopes."""
    random = np.random.default_rng(seed)
    slopes = random.standard_normal((2, 30))
    labels = random.standard_normal((stars, 2)) @ np.array([[1.0, 0.7], [0.0, 0.7]]) * 0.3
    flux = 5 + labels @ slopes + 0.01 * random.standard_normal((stars, 30))
    return flux, labels, slopes


def test_slopes_with_the_other_labels_held_are_the_planted_ones() -> None:
    flux, labels, slopes = planted(1)
    inside = 0
    for which in (0, 1):
        found = differences.observed_slopes(flux, labels, which)
        np.testing.assert_allclose(found.values, slopes[which], atol=0.02)
        inside += ((found.low < slopes[which]) & (slopes[which] < found.high)).sum()
        assert (found.high - found.low).max() < 0.02
    assert 0.5 < inside / 60 < 0.85  # a band of 68 %


def test_the_median_split_is_as_written() -> None:
    flux, labels, _ = planted(3, 51)
    label = labels[:, 0].copy()
    label[:5] = np.nan
    flux[7] = np.nan
    rows = [i for i in range(51) if i >= 5 and i != 7]
    middle = np.median([label[i] for i in rows])
    high = [i for i in rows if label[i] > middle]
    low = [i for i in rows if label[i] <= middle]
    distance = np.median(label[high]) - np.median(label[low])
    slow = [(np.median(flux[high, j]) - np.median(flux[low, j])) / distance for j in range(30)]
    found = differences.observed_difference(flux, label)
    np.testing.assert_allclose(found.values, slow, rtol=1e-12)
    again = differences.observed_difference(flux, label)
    np.testing.assert_array_equal(found.low, again.low)


@given(st.floats(0.01, 100), st.floats(-50, 50), st.integers(0, 1000))
@settings(deadline=None, max_examples=8)
def test_curves_are_per_unit_of_the_label(scale: float, shift: float, seed: int) -> None:
    flux, labels, _ = planted(seed, 60)
    one = differences.observed_difference(flux, labels[:, 0]).values
    other = differences.observed_difference(flux, labels[:, 0] * scale + shift).values * scale
    np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-8)
    slope = differences.observed_slopes(flux, labels, 0).values
    moved = differences.observed_slopes(flux, labels * scale + shift, 0).values * scale
    np.testing.assert_allclose(moved, slope, rtol=1e-6, atol=1e-8)


def test_too_few_stars_or_no_contrast_are_errors() -> None:
    flux, labels, _ = planted(4, 19)
    with pytest.raises(InputError, match="19 stars"):
        differences.observed_difference(flux, labels[:, 0])
    flux, labels, _ = planted(4, 40)
    with pytest.raises(InputError, match="too few, or all alike"):
        differences.observed_slopes(flux, np.ones_like(labels), 0)


def test_simulated_differences_are_of_normalised_spectra() -> None:
    low, high = line_sed(0.1), line_sed(0.4)
    found = differences.simulated_difference(low, high, 0.5, title="depth")
    wavelength, design = gaiaxpy_design()
    spectra = [
        design @ (c / c[55]) for c in (gaiaxpy_instrument().coefficients(s)[0] for s in (low, high))
    ]
    twin, near = (spectra[1] - spectra[0]) / 0.5, 1e-9 * np.abs(found.values).max()
    np.testing.assert_allclose(found.values, twin, atol=near)
    assert wavelength[np.argmin(found.values)] == pytest.approx(520, abs=4)
    # brightness does not matter
    brighter = Sed(high.wavelength, 50 * high.flux)
    np.testing.assert_allclose(
        differences.simulated_difference(low, brighter, 0.5, title="").values,
        found.values,
        rtol=1e-6,
        atol=near,
    )


def test_correlations_are_of_each_side() -> None:
    wavelength = np.linspace(336.0, 1020.0, 343)
    blue = (wavelength < differences.SIDES["BP"][1]).astype(float)
    wave = np.sin(wavelength / 11)
    found = differences.correlations(
        wavelength, [differences.Curve("a", wave), differences.Curve("b", wave * (2 * blue - 1))]
    )
    assert list(found) == ["a / b"]
    assert (found["a / b"]["BP"], found["a / b"]["RP"]) == (1.0, -1.0)


def test_emulated_giants_lose_flux_in_their_bands() -> None:
    emulator = load_emulator()
    wavelength, _ = gaiaxpy_design()

    def mean(values: np.ndarray, low: float, high: float) -> float:
        return float(values[(wavelength > low) & (wavelength < high)].mean())

    carbon = differences.emulated_difference(emulator, "c_fe").values
    assert mean(carbon, 425, 435) < mean(carbon, 480, 500) - 1e-23  # CH
    nitrogen = differences.emulated_difference(emulator, "n_fe").values
    assert mean(nitrogen, 412, 420) < mean(nitrogen, 440, 460)  # CN


def test_extinction_follows_the_colour_excess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "library_extinction", lambda ids: np.full(len(ids), np.nan))
    stars = example_stars(3)
    h, w2 = (stars.photometry.column(name)[0] for name in ("h_m", "w2mpro"))
    for found in (differences.known_extinction(stars), differences.read_extinction("rjce", stars)):
        np.testing.assert_allclose(found, 0.918 * (h - w2 - 0.08) * 0.789 / 0.078)
    nothing = stars.with_photometry(Photometry.missing(3))
    assert differences.known_extinction(nothing) is None
    assert np.isnan(differences.read_extinction("rjce", nothing)).all()
    assert differences.read_extinction("none", stars) is None
