"""Attainable errors against a slow twin, what makes them larger or smaller, and their medians."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gaiaxpy")
pytest.importorskip("dust_extinction")

from conftest import quick
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.explain import differences, information
from xplabels.giants.emulator import (
    HC_OVER_K,
    LABELS,
    Emulator,
    EmulatorNetwork,
    emulator_labels,
    load_emulator,
)
from xplabels.instrument import gaiaxpy_instrument, magnitudes
from xplabels.instrument.noise import illustrative_correlations, noise_model
from xplabels.instrument.sed import Sed
from xplabels.io import write_stars
from xplabels.synthetic import simulate_stars
from xplabels.training import train
from xplabels.training.augmentation import extinction

CLUMP = np.array([[4750.0, 2.5, 0.0, 0.0, 0.2, 0.0], [5300.0, 3.2, 0.49, -0.55, 0.1, 0.2]])
G = np.array([14.0, 16.5])
POPULATED = np.diag([400.0, 0.8, 0.4, 0.1, 0.15, 0.1]) ** 2


def bumpy(seed: int) -> EmulatorNetwork:
    """An emulator whose flux over continuum has broad bands that follow the labels."""
    random = np.random.default_rng(seed)
    wavelength = np.arange(350.1, 1050.0, 0.5)
    centres = random.uniform(380, 1000, 12)
    bands = np.exp(-0.5 * ((wavelength[:, None] - centres) / 12.0) ** 2)
    first = random.standard_normal((9, len(LABELS))) * 0.7
    weights = (first, random.standard_normal((12, 9)) * 0.5, -0.1 * bands)
    biases = (np.full(9, 0.3), np.full(12, 0.8), np.ones(1400))
    return EmulatorNetwork(
        np.array([3500.0, 0.0, -2.5] + [-0.6] * 19),
        np.array([6000.0, 3.5, 0.5] + [0.6] * 19),
        tuple(w.astype(np.float32) for w in weights),
        tuple(b.astype(np.float32) for b in biases),
    )


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(np.arange(350.1, 1050.0, 0.5), tuple(bumpy(seed) for seed in range(3)))


def slow(
    emulator: Emulator, star: np.ndarray, g: float, dust: bool, prior: np.ndarray | None
) -> np.ndarray:
    """One star, one label at a time: spectra through the public instrument, F by its definition."""
    instrument = gaiaxpy_instrument()
    fine = np.arange(311.0, 1100.0, 0.5)
    law = extinction(fine)[0]

    def sed(labels: np.ndarray, a_v: float = 0.0) -> Sed:
        theirs, like = (emulator_labels(information.NAMES, row[None]) for row in (labels, star))
        ratio = np.interp(fine, emulator.wavelength, emulator.normalised_flux(theirs, like)[0])
        planck = fine**-5.0 / np.expm1(HC_OVER_K / (fine * labels[0]))
        return Sed.of(fine, ratio * planck * 10 ** (-0.4 * a_v * law))

    def seen(spectrum: Sed) -> np.ndarray:
        return instrument.coefficients(spectrum)[0]

    clean = seen(sed(star))
    g0, bp, rp = magnitudes(clean[None])[0]
    scale = 10 ** (-0.4 * (g - g0))
    slopes = []
    for k, name in enumerate(information.NAMES):
        low, high = star.copy(), star.copy()
        low[k] -= information.STEPS[name] / 2
        high[k] += information.STEPS[name] / 2
        bounds = {"fe_h": (-2.5, 0.5), "logg": (0.0, 3.5)}.get(name, (-0.6, 0.6))
        if name != "teff":
            low[k], high[k] = max(low[k], bounds[0]), min(high[k], bounds[1])
        slopes.append((seen(sed(high)) - seen(sed(low))) / (high[k] - low[k]))
    slopes.append(clean)
    if dust:
        slopes.append((seen(sed(star, 0.01)) - seen(sed(star, -0.01))) / 0.02)
    d = scale * np.stack(slopes)
    sigma = noise_model().errors(np.array([g]), np.array([bp - rp]))[0]
    covariance = np.zeros((110, 110))
    for first, matrix in zip((0, 55), illustrative_correlations(scale * clean[None]), strict=True):
        at = slice(first, first + 55)
        covariance[at, at] = matrix[0] * np.outer(sigma[at], sigma[at])
    fisher = d @ np.linalg.inv(covariance) @ d.T
    if prior is not None:
        fisher[:6, :6] += np.linalg.inv(prior)
    units = np.array([100.0, *np.ones(len(d) - 1)])
    inverse = np.linalg.inv(fisher * np.outer(units, units)) * np.outer(units, units)
    return np.sqrt(np.diag(inverse)[:6])


@pytest.mark.parametrize(("dust", "prior"), [(False, None), (True, None), (True, POPULATED)])
def test_bounds_are_those_of_a_slow_twin(
    emulator: Emulator, dust: bool, prior: np.ndarray | None
) -> None:
    whitened = information.whitened_derivatives(emulator, CLUMP, G)
    found = information.attainable_errors(whitened if dust else whitened[:, :-1], prior)
    twin = [slow(emulator, star, g, dust, prior) for star, g in zip(CLUMP, G, strict=True)]
    np.testing.assert_allclose(found, twin, rtol=0.02)


def test_carbon_nitrogen_and_alpha_fade_in_hot_and_metal_poor_giants() -> None:
    """As FS24's section 5.5 and Witten et al. (2022) expect."""
    errors = information.giant_branch(load_emulator())
    cool, hot = (information.GRID["teff"].index(teff) for teff in (4500.0, 5500.0))
    rich, poor = (information.GRID["fe_h"].index(fe_h) for fe_h in (0.0, -2.0))
    for name, factor in (("c_fe", 2.0), ("n_fe", 20.0), ("alpha_m", 2.0)):
        assert errors[name][hot, poor] > factor * errors[name][cool, rich]


def giants(stars: int = 450) -> Stars:
    """Simulated stars with the labels of giants, which their spectra know nothing of but Teff."""
    drawn = simulate_stars(stars, labels=("teff", "fe_h"), noise=5.0, seed=3)[0]
    random = np.random.default_rng(5)
    values = np.stack(
        [random.uniform(low, high, stars) for low, high in (
            (4000, 5500), (1.0, 3.2), (-1.0, 0.3), (-0.2, 0.2), (0.0, 0.4), (0.0, 0.3)
        )], axis=1,
    )  # fmt: skip
    photometry = replace(drawn.photometry, values=drawn.photometry.values.copy())
    photometry.values[:, 0] = random.uniform(13, 15, stars)
    labelled = drawn.with_labels(Labels(information.NAMES, values, np.full_like(values, 0.01)))
    return labelled.with_photometry(photometry)


def test_content_compares_with_what_a_model_reaches(emulator: Emulator) -> None:
    """Labels that are unknown are free, and have no residual."""
    stars = giants()
    names = ("teff", "alpha_m")
    model = train(stars, names, quick(auxiliary=()), seed=1, progress=False)
    content = information.information_content(model, stars, emulator)
    assert content.names == names
    assert content.stated.shape == (450, 2)
    values = stars.labels.values
    np.testing.assert_array_equal(
        content.residuals[:, 0], model.predict(stars).values[:, 0] - values[:, 0]
    )
    g_mag = stars.photometry.values[:7, 0]
    few = information.attainable_errors(
        information.whitened_derivatives(emulator, values[:7], g_mag)
    )
    # the emulators' float32 depends on how many stars they take at once
    np.testing.assert_allclose(content.attainable[information.FREE][:7, 1], few[:, 5], rtol=1e-3)
    assert len(content.attainable) == 3
    metrics = content.to_metrics()
    assert metrics["teff"]["stars"] == [
        int(((values[:, 0] >= a) & (values[:, 0] < b)).sum()) for a, b in metrics["teff"]["edges"]
    ]
    fewer = stars.with_labels(stars.labels.select(("teff", "logg", "fe_h")))
    content = information.information_content(model, fewer, emulator)
    assert np.isnan(content.residuals[:, 1]).all()
    # [alpha/M] is free, not known to be 0, where the population is known
    free, population = (
        content.attainable[kind][:, 1] for kind in (information.FREE, information.POPULATION)
    )
    assert (population > 0.2 * free).all()
    assert np.isfinite(content.residuals[:, 0]).all()
    assert content.to_metrics()["teff"]["alpha_m"]["robust scatter"][0] is None
    unlabelled = stars.with_labels(stars.labels.select(("c_fe",)))
    with pytest.raises(InputError, match="0 stars are giants"):
        information.information_content(model, unlabelled, emulator)


def test_the_command_shows_them(
    tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stars = giants(600)
    train(stars, ("teff", "c_fe"), quick(auxiliary=()), seed=1, progress=False).save(
        tmp_path / "model"
    )
    write_stars(stars, tmp_path / "stars.parquet")
    monkeypatch.setattr("xplabels.giants.emulator.load_emulator", lambda: emulator)
    monkeypatch.setattr(differences, "DRAWS", 5)
    words = ["explain", str(tmp_path / "model"), str(tmp_path / "stars.parquet"), "--output"]
    words += [str(tmp_path / "out"), "--range", "teff=4200:5400", "--information"]
    assert main(words) == 0
    numbers = json.loads((tmp_path / "out" / "explain.json").read_text())
    test = int(part_mask(stars.source_id, "test", 0.1).sum())
    assert numbers["information"]["stars"].startswith(f"{test} of {test} giants")
    branch = numbers["attainable along the giant branch"]
    assert np.shape(branch["errors"]["c_fe"]) == (len(branch["teff"]), len(branch["fe_h"]))
    page = (tmp_path / "out" / "index.html").read_text()
    assert "What the spectra hold" in page
    assert page.count("data:image/png") == 5
    for name in ("information", "fading"):
        assert (tmp_path / "out" / "figures" / f"{name}.png").stat().st_size > 10_000


def test_medians_and_scatter_in_bins() -> None:
    random = np.random.default_rng(0)
    teff = np.repeat([4100.0, 5100.0, 5900.0], (400, 400, 5))
    width = np.where(teff < 5000, 1.0, 3.0)
    residual = (width * random.standard_normal(805) + 7.0)[:, None]
    error = np.tile(np.arange(1.0, 6.0), 161)[:, None]
    bins = information.Content(
        ("logg",), {"teff": teff, "fe_h": 0 * teff}, {information.FREE: error}, error, residual, ""
    ).binned("teff")
    assert bins["stars"] == [400, 400]
    assert bins["middle"] == [4100.0, 5100.0]
    np.testing.assert_allclose(bins["scatter"][:, 0], [1.0, 3.0], rtol=0.15)
    np.testing.assert_array_equal(bins["attainable"][information.FREE], [[3.0], [3.0]])
