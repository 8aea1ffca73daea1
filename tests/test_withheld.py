"""Error bars where colours are missing: larger, and correct at any noise of the spectra."""

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


KEYS = {"labels": NAMES, "hidden_scatter": 0.1, "widths": (15, 15), "noise": 3.0}


@pytest.fixture(scope="module")
def trained() -> tuple[Model, Stars]:
    """A model whose colours were hidden at random while it trained, and fresh stars.

    The noise level is not an input: its errors at other noise than it trained on are propagated.
    """
    recipe = quick(
        hidden=(64, 64), dropout=0.0, scatter="none", likelihood="gaussian", epochs=40,
        batch_size=256, missing_fraction=0.3, input_fraction=1.0, learning_rate=4e-3,
        weight_decay=0.1, recalibrate=False, auxiliary=("bp_rp", "j_h"),
        noise_levels=False,
    )  # fmt: skip
    model = train(simulate_stars(6000, seed=3, **KEYS)[0], NAMES, recipe, progress=False)
    return model, simulate_stars(3000, seed=77, **KEYS)[0]


@pytest.mark.parametrize(
    ("withheld", "noise"), [(False, 3.0), (True, 3.0), (True, 1.0), (True, 6.0), (True, 12.0)]
)
def test_coverage_with_and_without_photometry(trained, withheld: bool, noise: float) -> None:
    """Also from a third to four times the training noise: what replaces colours counts once."""
    model, *_ = trained
    stars, truth = simulate_stars(3000, seed=77, **KEYS | {"noise": noise})
    if withheld:
        stars = stars.with_photometry(Photometry.missing(len(stars)))
    prediction = model.predict(stars)
    assert np.isfinite(prediction.errors).all()
    assert (((prediction.flags & Flag.MISSING_PHOTOMETRY) > 0) == withheld).all()
    off = np.abs(prediction.values - truth.values)
    for errors, share in ((prediction.errors, 0.6827), (prediction.errors_95, 0.9545)):
        if share < 0.9 or noise == 3.0:
            bound = 4 * np.sqrt(share * (1 - share) / len(stars))
            np.testing.assert_allclose((off < errors).mean(axis=0), share, rtol=0, atol=bound)
    spectral = np.median(prediction.errors_input / prediction.errors, axis=0)
    if noise != 3.0:
        assert ((spectral < 0.4) if noise == 1.0 else (spectral > 0.6)).all()


def test_withheld_photometry_makes_the_errors_larger(trained) -> None:
    """The simulated colours hold the first label; the second is in the spectra alone."""
    model, stars = trained
    whole = model.predict(stars)
    lacking = model.predict(stars.with_photometry(Photometry.missing(len(stars))))
    ratio = np.median(lacking.errors_input / whole.errors_input, axis=0)
    assert ratio[0] > 1.15
    assert ratio[1] > 0.95
    assert np.median(lacking.errors[:, 0] / whole.errors[:, 0]) > 1.01
