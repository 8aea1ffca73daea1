"""The emulators of giants' spectra: how they are read, what they refuse, what they show."""

from __future__ import annotations

import hashlib
import pickle
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from xplabels.core.errors import InputError
from xplabels.giants import emulator as module
from xplabels.giants.emulator import (
    LABELS,
    Emulator,
    EmulatorNetwork,
    emulator_labels,
    load_emulator,
    read_network,
)

GIANT = {"teff": 4750.0, "logg": 2.5, "fe_h": 0.0, "c_fe": 0.0, "n_fe": 0.0, "alpha_m": 0.0}


def labels(**changed: float) -> np.ndarray:
    star = GIANT | changed
    return emulator_labels(tuple(star), np.array([list(star.values())]))


def small_network(seed: int) -> EmulatorNetwork:
    random = np.random.default_rng(seed)
    shapes = [(7, len(LABELS)), (5, 7), (30, 5)]
    return EmulatorNetwork(
        np.array([3500.0, 0.0, -2.5] + [-0.6] * 19),
        np.array([6000.0, 3.5, 0.5] + [0.6] * 19),
        tuple(random.standard_normal(shape).astype(np.float32) for shape in shapes),
        tuple(random.standard_normal(out).astype(np.float32) for out, _ in shapes),
    )


SMALL = Emulator(np.linspace(400, 430, 30), tuple(small_network(seed) for seed in range(3)))


def test_flux_is_that_of_the_layers_one_number_at_a_time() -> None:
    network, star = SMALL.networks[1], labels(c_fe=0.2)[0]
    h = [
        (v - a) / (b - a) - 0.5 for v, a, b in zip(star, network.lower, network.upper, strict=True)
    ]
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        h = [
            sum(float(w) * x for w, x in zip(row, h, strict=True)) + float(b)
            for row, b in zip(weight, bias, strict=True)
        ]
        if layer < 2:
            h = [x if x > 0 else 0.01 * x for x in h]
    np.testing.assert_allclose(network.flux(star[None])[0], h, rtol=1e-4, atol=1e-5)


def test_labels_go_where_they_belong() -> None:
    star = {"alpha_m": 0.1, "teff": 4800.0, "n_fe": 0.3, "logg": 2.0, "fe_h": -0.5, "c_fe": -0.2}
    row = emulator_labels(tuple(star), np.array([list(star.values())]))[0]
    wanted = dict.fromkeys(LABELS, 0.0) | dict.fromkeys(("om", "mgm", "sim", "cam", "tim"), 0.1)
    wanted |= {"teff": 4800.0, "logg": 2.0, "mh": -0.5, "cm": -0.2, "nm": 0.3}
    assert dict(zip(LABELS, row, strict=True)) == wanted


def test_bins_hold_the_mean_of_their_samples() -> None:
    edges = np.array([400.0, 410.0, 415.0, 430.5])
    flux, binned = (e.normalised_flux(labels())[0] for e in (SMALL, SMALL.binned(edges)))
    for number in range(3):
        inside = (SMALL.wavelength >= edges[number]) & (SMALL.wavelength < edges[number + 1])
        assert binned[number] == pytest.approx(flux[inside].mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("teff", "like", "which"),
    [(3500, 3500, 0), (4099, 4099, 0), (4101, 4101, 1), (4951, 4951, 2), (4101, 4099, 0)],
)
def test_each_temperature_has_its_network(teff: float, like: float, which: int) -> None:
    """Ratios of two spectra can come from one of them."""
    found = SMALL.normalised_flux(labels(teff=teff), labels(teff=like))[0]
    np.testing.assert_array_equal(found, SMALL.networks[which].flux(labels(teff=teff))[0])


@pytest.mark.parametrize(
    "beyond",
    [{"teff": 3400}, {"teff": 6100}, {"logg": 3.6}, {"fe_h": -2.6}, {"c_fe": 0.7}, {"n_fe": -0.7}],
)
def test_stars_beyond_the_range_are_refused(beyond: dict[str, float]) -> None:
    stars = np.concatenate([labels(), labels(**beyond)])
    assert SMALL.covers(stars).tolist() == [True, False]
    with pytest.raises(InputError, match=r"row 2: teff.*do not cover 1 of these stars"):
        SMALL.normalised_flux(stars)


def test_the_real_networks_agree_where_they_meet() -> None:
    real = load_emulator()
    for teff in (4100.0, 4950.0):
        star = labels(teff=teff, c_fe=-0.2, n_fe=0.3, logg=2.0, fe_h=-0.3)
        cool, warm = (
            real.normalised_flux(star, like=labels(teff=teff + step))[0, :14000] for step in (-1, 1)
        )
        means = [flux.reshape(140, 100).mean(axis=1) for flux in (cool, warm)]
        np.testing.assert_allclose(means[0], means[1], atol=0.02)


class Evil:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.touched,)


def test_nothing_but_the_expected_files_is_read_and_nothing_runs(tmp_path: Path) -> None:
    path, touched = tmp_path / "ann.pkl", tmp_path / "touched"
    expected = next(iter(module.FILES.values()))
    with pytest.raises(InputError, match=r"ann\.pkl: is absent, .*pip install"):
        read_network(path, expected)
    for content in (b"not a pickle", pickle.dumps({"a": 1}), pickle.dumps(Evil(touched))):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"ann\.pkl: is not the file of bossbrain 1\.0\.12"):
            read_network(path, expected)
    with pytest.raises(ValueError, match="buffer"):  # the right digest, and still it is not run
        read_network(path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert not touched.exists()


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "distribution", absent)
    with pytest.raises(InputError, match=r"xplabels\[synthetic\]"):
        load_emulator()
