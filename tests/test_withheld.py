"""Error bars where colours are missing: larger, and right at any noise of the spectra."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import quick
from xplabels.core.flags import Flag
from xplabels.core.stars import Photometry, Stars
from xplabels.model import Model
from xplabels.synthetic import simulate_stars
from xplabels.training import train

NAMES = ("teff", "logg")


@pytest.fixture(scope="module")
def trained() -> tuple[Model, Stars, np.ndarray]:
    """A model whose colours were hidden at random while it trained, and fresh stars with truth.

    The noise level is no input: its errors at other noise than it trained on are propagated.
    """
    keys = {"labels": NAMES, "hidden_scatter": 0.1, "widths": (15, 15), "noise": 3.0}
    recipe = quick(
        hidden=(64, 64), dropout=0.0, scatter="none", likelihood="gaussian", epochs=40,
        batch_size=256, missing_fraction=0.3, input_fraction=1.0, learning_rate=4e-3,
        weight_decay=0.1, recalibrate=False, auxiliary=("bp_rp", "j_h"),
        noise_levels=False,
    )  # fmt: skip
    model = train(simulate_stars(6000, seed=3, **keys)[0], NAMES, recipe, progress=False)
    stars, truth = simulate_stars(3000, seed=77, **keys)
    return model, stars, truth.values


@pytest.mark.parametrize("withheld", [False, True])
def test_coverage_with_and_without_photometry(trained, withheld) -> None:
    model, stars, truth = trained
    if withheld:
        stars = stars.with_photometry(Photometry.missing(len(stars)))
    prediction = model.predict(stars)
    assert np.isfinite(prediction.errors).all()
    assert (((prediction.flags & Flag.MISSING_PHOTOMETRY) > 0) == withheld).all()
    off = np.abs(prediction.values - truth)
    for errors, share in ((prediction.errors, 0.6827), (prediction.errors_95, 0.9545)):
        bound = 4 * np.sqrt(share * (1 - share) / len(stars))
        np.testing.assert_allclose((off < errors).mean(axis=0), share, rtol=0, atol=bound)


@pytest.mark.parametrize("noise", [1.0, 6.0, 12.0])
def test_coverage_without_photometry_at_noise_never_trained_on(trained, noise) -> None:
    """A third to four times the training noise: what stands in for colours is charged once."""
    model, *_ = trained
    stars, truth = simulate_stars(
        3000, labels=NAMES, hidden_scatter=0.1, widths=(15, 15), noise=noise, seed=78
    )
    prediction = model.predict(stars.with_photometry(Photometry.missing(3000)))
    covered = (np.abs(prediction.values - truth.values) < prediction.errors).mean(axis=0)
    bound = 4 * np.sqrt(0.6827 * 0.3173 / 3000)
    np.testing.assert_allclose(covered, 0.6827, rtol=0, atol=bound)
    spectral = np.median(prediction.errors_input / prediction.errors, axis=0)
    assert ((spectral < 0.4) if noise == 1.0 else (spectral > 0.6)).all()


def test_withheld_photometry_makes_the_errors_larger(trained) -> None:
    """The simulated colours tell of the first label; the second is in the spectra alone."""
    model, stars, _ = trained
    whole = model.predict(stars)
    lacking = model.predict(stars.with_photometry(Photometry.missing(len(stars))))
    ratio = np.median(lacking.errors_input / whole.errors_input, axis=0)
    assert ratio[0] > 1.15
    assert ratio[1] > 0.95
    assert np.median(lacking.errors[:, 0] / whole.errors[:, 0]) > 1.01
