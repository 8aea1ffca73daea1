"""Fixtures that several test files share."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fetch_services import Services
    from stand_ins import FakeModel
    from xplabels.core.labels import Labels
    from xplabels.core.prediction import Prediction
    from xplabels.core.stars import Stars
    from xplabels.instrument.sed import Sed
    from xplabels.model import Model
    from xplabels.recipes import Recipe


# no test is timed: a busy machine must not turn it red
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real Gaia files next to the checkout; tests that need it skip without it."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real Gaia files (../shared/data) are not here")
    return path


@pytest.fixture
def in_browser(tmp_path: Path) -> Callable[..., str]:
    """Opens a file in headless Chromium; gives the title that its script left, or skips.

    Further words are Chromium's own. Any message on the console fails the test.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium here")

    def opened(page: Path, *options: str) -> str:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=5000", *options,
            "--dump-dom", page.as_uri(),
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        title = re.search(r"<title>(.*?)</title>", result.stdout)
        assert title is not None, result.stderr[-500:]
        assert "CONSOLE" not in result.stderr
        return title[1]

    return opened


def line_sed(depth: float) -> Sed:
    """A flat spectrum with one line at 520 nm."""
    from xplabels.instrument.sed import Sed

    wavelength = np.arange(300.0, 1101.0)
    flux = 1e-16 * (1 - depth * np.exp(-0.5 * ((wavelength - 520) / 8) ** 2))
    return Sed.of(wavelength, flux, name=f"depth {depth:g}")


def quick(**keys: Any) -> Recipe:
    """A small recipe, without log fluxes and dust: they exist for 55 + 55 coefficients only."""
    from xplabels.recipes import Recipe

    small: dict[str, Any] = {
        "forward": False,
        "hidden": (16,), "epochs": 4, "batch_size": 128, "missing_fraction": 0.0,
        "flux_samples": 0, "reddening": 0.0, "calibration_folds": 0,
    }  # fmt: skip
    return Recipe(**(small | keys))


def two_label_stars() -> Stars:
    """Seven hundred simulated stars, to be trained on and spoilt."""
    from xplabels.synthetic import simulate_stars

    return simulate_stars(700, labels=("teff", "logg"), widths=(6, 5), noise=5.0, seed=2)[0]


@pytest.fixture(scope="session")
def stars() -> Stars:
    """The same, not to be changed."""
    return two_label_stars()


def fitted(stars: Stars, recipe: Recipe | None = None, **keys: Any) -> Model:
    """A model of teff and logg."""
    from xplabels.training import train

    return train(stars, ("teff", "logg"), recipe or quick(), progress=False, **keys)


def weights(model: Model) -> np.ndarray:
    """All weights of all networks, one after the other."""
    return np.concatenate([a.ravel() for net in model.networks for a in net.arrays.values()])


def altered(
    folder: Path,
    description: Callable[[dict[str, Any]], object] | None = None,
    tensors: Callable[[dict[str, np.ndarray]], object] | None = None,
) -> Path:
    """A saved model whose ``model.json`` or tensors are changed in place, digests with them."""
    from safetensors.numpy import load_file, save_file

    text, path = json.loads((folder / "model.json").read_text()), folder / "weights.safetensors"
    if tensors is not None:
        arrays = load_file(path)
        tensors(arrays)
        save_file(arrays, path)
        text["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    if description is not None:
        description(text)
    (folder / "model.json").write_text(json.dumps(text))
    return folder


def relabelled(stars: Stars, values: np.ndarray, errors: np.ndarray | None = None) -> Stars:
    """The same stars with other values (and errors) of their labels."""
    old = stars.labels
    return stars.with_labels(
        replace(old, values=values, errors=old.errors if errors is None else errors)
    )


@pytest.fixture(scope="session")
def small_stars() -> Stars:
    """A thousand simulated stars of few coefficients, with three labels and photometry."""
    from xplabels.synthetic import simulate_stars

    names = ("teff", "logg", "fe_h")
    return simulate_stars(1000, labels=names, widths=(6, 5), noise=5.0, seed=11)[0]


@pytest.fixture(scope="session")
def small_model(small_stars: Stars) -> Model:
    """A model of two labels trained in a second; with dropout, masks and photometry."""
    recipe = quick(
        hidden=(24, 16), epochs=12, missing_fraction=0.2, learning_rate=5e-3,
        auxiliary=("bp_rp", "j_h", "m_pseudo"),
    )  # fmt: skip
    return fitted(small_stars, recipe, seed=3, name="small")


@dataclass(frozen=True)
class Judged:
    """Fresh simulated stars at three noise levels, their true labels and a model's prediction."""

    levels: np.ndarray
    stars: Stars
    truth: Labels
    prediction: Prediction
    model: Model


def judged(curvature: float, noise_levels: bool = True) -> Judged:
    """Train on 8,000 stars of mixed noise, without photometry; predict 2,000 of each level."""
    from xplabels.core.stars import Photometry
    from xplabels.synthetic import simulate_stars

    levels = (1.0, 6.0, 20.0)

    def draw(noise: np.ndarray, seed: int) -> tuple[Stars, Labels]:
        stars, truth = simulate_stars(
            len(noise), labels=("teff", "logg"), widths=(20, 18), noise=noise,
            curvature=curvature, hidden_scatter=0.1, seed=seed,
        )  # fmt: skip
        return stars.with_photometry(Photometry.missing(len(stars))), truth

    recipe = quick(
        hidden=(32, 32), dropout=0.0, scatter="none", likelihood="gaussian", epochs=30,
        batch_size=256, input_fraction=1.0, learning_rate=4e-3, weight_decay=0.1,
        recalibrate=False, noise_levels=noise_levels, forward=curvature == 0.0,
    )  # fmt: skip
    mixed = np.random.default_rng(1).choice(levels, 8000)
    model = fitted(draw(mixed, 3)[0], recipe)
    fresh = np.repeat(levels, 2000)
    stars, truth = draw(fresh, 77)
    return Judged(fresh, stars, truth, model.predict(stars), model)


@pytest.fixture(scope="session")
def curved() -> Judged:
    """Spectra that bend with the labels."""
    return judged(0.1)


@pytest.fixture(scope="session")
def straight() -> Judged:
    """Spectra linear in the labels, whose posterior is known in closed form.

    Without noise levels as inputs the stated input errors follow the posterior's per star with a
    correlation of 0.88 (with them 0.80).
    """
    return judged(0.0, noise_levels=False)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """A stand-in for a trained model, which every name loads."""
    from stand_ins import FakeModel

    fake = FakeModel()
    monkeypatch.setattr("xplabels.model.Model", SimpleNamespace(load=lambda name: fake))
    monkeypatch.setattr("xplabels.model.shipped", lambda: ["fake"])
    return fake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def archive_services() -> Iterator[Services]:
    """A TAP and a DataLink service on loopback."""
    from fetch_services import serving

    with serving() as services:
        yield services


@pytest.fixture
def services(archive_services: Services) -> Services:
    """The same without past requests or failures."""
    archive_services.calm()
    return archive_services


@pytest.fixture(scope="module")
def undisturbed(archive_services: Services, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fetch of everything while nothing failed."""
    archive_services.calm()
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert archive_services.fetch(output).complete
    return output


@pytest.fixture(scope="session")
def whole_sky(small_stars: Stars, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three bulk files, not to be changed."""
    from sky import make_sky

    folder = tmp_path_factory.mktemp("sky") / "in"
    make_sky(folder, small_stars)
    return folder


@pytest.fixture(scope="session")
def labelled_sky(whole_sky: Path, small_model: Model) -> dict[str, bytes]:
    """Their catalogues, from a run in which nothing went wrong."""
    from sky import ROWS, catalogues, run

    output = whole_sky.parent / "undisturbed"
    summary = run(whole_sky, output, small_model)
    assert (summary.stars, summary.files, summary.failed) == (3 * ROWS, 3, {})
    return catalogues(output)


@pytest.fixture
def fragile_sky(small_stars: Stars, tmp_path: Path) -> Path:
    """The same files, to be broken."""
    from sky import make_sky

    make_sky(tmp_path / "in", small_stars)
    return tmp_path / "in"
