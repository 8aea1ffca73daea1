"""The emulators of giants' spectra: how they are read, what they refuse, what they know."""

from __future__ import annotations

import importlib.metadata
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from xplabels.core.errors import InputError
from xplabels.giants import bossbrain
from xplabels.giants.bossbrain import load_emulator
from xplabels.giants.emulator import LABELS, WAVELENGTH, Emulator, Network, emulator_labels

GIANT = {"teff": 4750.0, "logg": 2.5, "fe_h": 0.0, "c_fe": 0.0, "n_fe": 0.0, "alpha_m": 0.0}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        importlib.metadata.distribution(bossbrain.DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the emulators are not installed")
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def real(cache: Path) -> Emulator:
    return load_emulator(cache)


def labels(**changed: float) -> np.ndarray:
    star = GIANT | changed
    return emulator_labels(tuple(star), np.array([list(star.values())]))


def small_network(seed: int, pixels: int = 30) -> Network:
    random = np.random.default_rng(seed)
    shapes = [(7, len(LABELS)), (5, 7), (pixels, 5)]
    lower = np.array([3500.0, 0.0, -2.5] + [-0.6] * 19)
    return Network(
        lower,
        np.array([6000.0, 3.5, 0.5] + [0.6] * 19),
        tuple(random.standard_normal(shape).astype(np.float32) for shape in shapes),
        tuple(random.standard_normal(out).astype(np.float32) for out, _ in shapes),
    )


def small_emulator() -> Emulator:
    return Emulator(np.linspace(400, 430, 30), tuple(small_network(seed) for seed in range(3)))


def test_flux_is_that_of_the_layers_one_number_at_a_time() -> None:
    network, star = small_network(1), labels(c_fe=0.2)[0]
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
    row = emulator_labels(
        ("teff", "n_fe", "alpha_m", "logg", "fe_h", "c_fe"),
        np.array([[4800.0, 0.3, 0.1, 2.0, -0.5, -0.2]]),
    )[0]
    wanted = dict.fromkeys(LABELS, 0.0) | {
        "teff": 4800.0, "logg": 2.0, "mh": -0.5, "cm": -0.2, "nm": 0.3,
        "om": 0.1, "mgm": 0.1, "sim": 0.1, "cam": 0.1, "tim": 0.1,
    }  # fmt: skip
    assert dict(zip(LABELS, row, strict=True)) == wanted


def test_bins_hold_the_mean_of_their_samples() -> None:
    whole, star = small_emulator(), labels()
    edges = np.array([400.0, 410.0, 415.0, 430.5])
    flux, binned = whole.normalised_flux(star)[0], whole.binned(edges).normalised_flux(star)[0]
    for number in range(3):
        inside = (whole.wavelength >= edges[number]) & (whole.wavelength < edges[number + 1])
        assert binned[number] == pytest.approx(flux[inside].mean(), rel=1e-4)
    with pytest.raises(InputError, match="no emulated wavelength"):
        whole.binned(np.array([100.0, 110.0]))


@pytest.mark.parametrize(("teff", "which"), [(3500, 0), (4099, 0), (4101, 1), (4951, 2), (6000, 2)])
def test_each_temperature_has_its_network(teff: float, which: int) -> None:
    whole, star = small_emulator(), labels(teff=teff)
    np.testing.assert_array_equal(
        whole.normalised_flux(star)[0], whole.networks[which].flux(star)[0]
    )


def test_a_ratio_can_come_from_one_network() -> None:
    whole, warm, cool = small_emulator(), labels(teff=4101), labels(teff=4099)
    np.testing.assert_array_equal(
        whole.normalised_flux(warm, like=cool)[0], whole.networks[0].flux(warm)[0]
    )


@pytest.mark.parametrize(
    "beyond",
    [{"teff": 3400}, {"teff": 6100}, {"logg": 3.6}, {"fe_h": -2.6}, {"c_fe": 0.7}, {"n_fe": -0.7}],
)
def test_stars_beyond_the_range_are_refused(beyond: dict[str, float]) -> None:
    whole = small_emulator()
    stars = np.concatenate([labels(), labels(**beyond)])
    assert whole.covers(stars).tolist() == [True, False]
    with pytest.raises(InputError, match="do not cover 1 of these stars"):
        whole.normalised_flux(stars)


def test_the_real_networks_show_cn_ch_and_co(real: Emulator) -> None:
    """C and N deepen CN; C deepens CH, N leaves it; O takes C away into CO and so fills both."""

    def change(low: float, high: float, **changed: float) -> float:
        inside = (low < WAVELENGTH) & (high > WAVELENGTH)
        after, before = (
            real.normalised_flux(s)[0][inside].mean() for s in (labels(**changed), labels())
        )
        return float(after / before - 1)

    for band in ((385.0, 388.5), (414.0, 421.5), (916.0, 930.0)):  # CN
        assert change(*band, n_fe=0.2) < -0.01
        assert change(*band, c_fe=0.2) < -0.01
        assert change(*band, alpha_m=0.2) > 0
    assert change(425.0, 431.5, c_fe=0.2) < -0.05  # CH
    assert abs(change(425.0, 431.5, n_fe=0.2)) < 0.005


def test_the_real_networks_agree_where_they_meet(real: Emulator) -> None:
    for teff in (4100.0, 4950.0):
        star = labels(teff=teff, c_fe=-0.2, n_fe=0.3, logg=2.0, fe_h=-0.3)
        cool, warm = (
            real.normalised_flux(star, like=labels(teff=teff + step))[0].reshape(-1)[:14000]
            for step in (-1.0, 1.0)
        )
        means = [flux.reshape(140, 100).mean(axis=1) for flux in (cool, warm)]
        np.testing.assert_allclose(means[0], means[1], atol=0.02)


def test_the_cache_gives_the_same_and_a_damaged_one_is_made_anew(
    real: Emulator, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(bossbrain, "_package_files", lambda: pytest.fail("the cache was not used"))
        again = load_emulator(cache)
    np.testing.assert_array_equal(again.normalised_flux(labels()), real.normalised_flux(labels()))
    file.write_bytes(whole[: len(whole) // 2])
    load_emulator(cache)
    assert file.read_bytes() == whole
    assert [path.name for path in cache.iterdir()] == [file.name]


def test_a_cache_that_cannot_be_written_does_not_matter(real: Emulator, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert len(load_emulator(blocked / "cache").networks) == 3


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({"a": 1}),
                                     pickle.dumps(Evil()), pickle.dumps(io.StringIO)])  # fmt: skip
def test_what_is_no_network_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ann.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"ann\.pkl.*is no network"):
        bossbrain.read_network(path)


def test_nothing_off_the_list_is_ever_looked_up(tmp_path: Path, monkeypatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(os, "system", called.append)
    path = tmp_path / "ann.pkl"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="is not admitted"):
        bossbrain.read_network(path)
    assert called == []


def test_nested_torch_files_hold_tensors_only() -> None:
    import torch

    held = io.BytesIO()
    torch.save(Evil(), held)
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights"):
        bossbrain._weights_only(held.getvalue())


def test_without_the_package_the_remedy_is_named(tmp_path: Path, monkeypatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(bossbrain, "distribution", absent)
    with pytest.raises(InputError, match=r"xplabels\[synthetic\]"):
        load_emulator(tmp_path)
    assert list(tmp_path.iterdir()) == []
