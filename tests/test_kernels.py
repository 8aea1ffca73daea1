"""The compiled kernels say what the torch path says, which stays as their slow twin."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xplabels import model as model_module
from xplabels.core.errors import InputError
from xplabels.core.stars import Band, CoefficientSpectra, Photometry, Stars
from xplabels.features import Features, FeatureSet, pull_back
from xplabels.features.projection import Projection
from xplabels.features.scaling import Scaling
from xplabels.model import Model, propagate
from xplabels.network import ACTIVATIONS, Architecture, UncertainNetwork
from xplabels.network.propagation import Block, Propagated, Propagation
from xplabels.recipes import Recipe
from xplabels.synthetic import simulate_stars

pytest.importorskip("numba")

from xplabels.kernels import activations, prediction, triangle
from xplabels.kernels.prediction import Kernels

WIDTHS = (6, 5)
PARTS = ("labels", "input", "model", "excess")


@dataclass
class Made:
    """A network that nobody trained, and stars for it."""

    feature_set: FeatureSet
    scaling: Scaling
    networks: tuple[UncertainNetwork, ...]
    features: Features

    def kernels(self) -> Kernels:
        return Kernels(self.feature_set, self.scaling, self.networks)

    def torch(
        self, full: bool = False, double: bool = False, dtype: torch.dtype = torch.float64
    ) -> Propagated:
        networks = tuple(prediction._doubled(n) for n in self.networks) if double else self.networks
        masks = networks[0].architecture.masks > 0
        propagation = Propagation(self.feature_set, self.scaling, masks, dtype)
        block = Block.of(self.features, self.feature_set, self.scaling, dtype)
        with torch.no_grad():
            return propagate(networks, propagation, block, Recipe(scatter="dropout"), full)


def some_missing(stars: Stars, seed: int = 0) -> Stars:
    """Photometry with holes of every pattern."""
    random = np.random.default_rng(seed)
    photometry = stars.photometry
    gone = random.random(photometry.values.shape) < 0.1
    return stars.with_photometry(
        Photometry(
            np.where(gone, np.nan, photometry.values), np.where(gone, np.nan, photometry.errors)
        )
    )


def made(
    stars: Stars | None = None,
    *,
    labels: int = 4,
    members: int = 1,
    projection: Projection | None = None,
    covariance: str = "exact",
    auxiliary: tuple[str, ...] = ("bp_rp", "j_h", "m_pseudo"),
    dtype: torch.dtype = torch.float32,
    hidden: tuple[int, ...] = (24, 17, 9),
    samples: int = 0,
    noise: bool = False,
    **architecture: Any,
) -> Made:
    if stars is None:
        stars = some_missing(simulate_stars(300, widths=WIDTHS, noise=5.0, seed=4)[0])
    spectra = stars.spectra
    assert isinstance(spectra, CoefficientSpectra)
    feature_set = FeatureSet(
        spectra.widths,
        auxiliary,
        covariance,
        projection=projection,
        noise=noise,  # type: ignore[arg-type]
    )
    features = feature_set.compute(stars)
    n = feature_set.n_spectral
    random = np.random.default_rng(5)
    levels = feature_set.noise_levels(features)
    scaling = Scaling.fit(features.x, random.normal(size=(len(stars), labels)), noise=levels)
    torch.manual_seed(6)
    keys = {"masks": len(auxiliary), "dropout": 0.2, "activation": "silu"} | architecture
    shape = Architecture(
        inputs=n + len(auxiliary), hidden=hidden, labels=labels, samples=samples,
        spectral=n if samples else 0, noise=levels.shape[1], **keys,
    )  # fmt: skip
    networks = tuple(UncertainNetwork(shape).to(dtype) for _ in range(members))
    for network in networks:
        network.requires_grad_(False)
        if network.log_flux is not None:
            fit = (random.normal(size=(samples, n)), scaling.x_mean[:n], scaling.x_scale[:n],
                   np.nan_to_num(scaling.scale_x(features.x)))  # fmt: skip
            network.log_flux.fit(*(torch.as_tensor(array, dtype=dtype) for array in fit))
    return Made(feature_set, scaling, networks, features)


def agree(case: Made, rtol: float, full: bool = False) -> None:
    slow = case.torch(full)
    fast, x = case.kernels().run(case.features, full)
    for part in PARTS:
        one, other = getattr(fast, part).numpy(), getattr(slow, part).numpy()
        assert one.dtype == np.float64
        size = np.abs(other)
        if part == "labels" or (part == "model" and len(case.networks) > 1):
            size = size.max()  # a small difference of labels is as uncertain as they are
        elif other.ndim == 3:
            variance = np.einsum("nkk->nk", other)
            size = np.sqrt(variance[:, :, None] * variance[:, None, :])
        assert (np.abs(one - other) <= rtol * size).all(), part
    assert torch.equal(fast.clamped, slow.clamped)
    assert x.shape == case.features.x.shape
    assert np.isfinite(x).all()


def a_projection() -> Projection:
    random = np.random.default_rng(8)
    n, samples = sum(WIDTHS), 20
    design = random.normal(size=(samples, n))
    back = np.linalg.pinv(design) + 0.05 * random.normal(size=(n, samples))
    return Projection(np.arange(samples, dtype=float), design, back, WIDTHS, np.ones(n))


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "paper": {"covariance": "fs24", "activation": "relu", "labels": 6, "hidden": (128, 128)},
    "one label": {"labels": 1},
    "more labels than lanes": {"labels": 11},
    "one layer": {"hidden": (5,)},
    "no dropout": {"dropout": 0.0},
    "no scatter": {"scatter": "none"},
    "distilled": {"scatter": "distilled"},
    "ensemble": {"members": 3, "scatter": "none"},
    "no masks": {"masks": 0},
    "no photometry": {"auxiliary": (), "masks": 0},
    "every colour": {"auxiliary": ("bp_rp", "j_h", "w1_w2", "h_w2", "m_pseudo")},
    "projection": {"projection": a_projection()},
    "log flux": {"samples": 7},
    "noise": {"noise": True},
    "all": {"samples": 7, "noise": True, "projection": a_projection(), "members": 2, "labels": 9},
}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_torch_path_says_the_same(case: str, full: bool) -> None:
    agree(made(**CASES[case]), 1e-5, full)
    agree(made(**CASES[case], dtype=torch.float64), 1e-9, full)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    agree(made(activation=activation), 1e-5)
    agree(made(activation=activation, dtype=torch.float64), 1e-9)


@pytest.mark.parametrize("widths", [(51, 55), (1, 2), (3, 4)])
def test_any_widths(widths: tuple[int, int]) -> None:
    agree(made(simulate_stars(40, widths=widths, seed=1)[0]), 1e-5, full=True)


def test_without_correlations_and_with_a_zero_divisor() -> None:
    stars = simulate_stars(50, widths=WIDTHS, seed=2)[0]
    spectra = stars.spectra
    assert isinstance(spectra, CoefficientSpectra)
    bp, rp = spectra.bp, spectra.rp
    rp.coefficients[7, 0] = 0.0
    agree(made(stars, dtype=torch.float64), 1e-9, full=True)
    bare = CoefficientSpectra(Band(bp.coefficients, bp.errors), Band(rp.coefficients, rp.errors))
    agree(made(Stars.of(stars.source_id, bare, stars.photometry), dtype=torch.float64), 1e-9)


def with_a_mode_that_cancels(ratio: float) -> Made:
    """Stars whose noise is ``ratio`` times larger in one direction, to which labels are blind.

    A well-trained network is blind to what varies most. (Brightness, which is common to all
    coefficients, cancels by itself: x = c / r0 does not know it.)
    """
    stars = simulate_stars(60, widths=(20, 20), seed=3)[0].with_photometry(Photometry.missing(60))
    case = made(stars, auxiliary=(), masks=0, dtype=torch.float64)
    block = Block.of(case.features, case.feature_set, case.scaling, torch.float64)
    propagation = Propagation(case.feature_set, case.scaling, False, torch.float64)
    chain = propagation.outputs(case.networks[0], propagation.network_input(block), True).jacobian
    assert chain is not None
    by_x, _ = propagation.by_present(chain, block)
    raw = pull_back(by_x, block.errors, case.feature_set, None).numpy()
    spectra = stars.spectra
    assert isinstance(spectra, CoefficientSpectra)
    bands = []
    for first, band in ((0, spectra.bp), (20, spectra.rp)):
        errors, mode = band.errors[0], np.empty((60, 20))
        for star in range(60):
            blind = np.linalg.svd(raw[star, :, first : first + 20] * errors)[2][-1]
            mode[star] = ratio * blind
        covariance = np.einsum("ni,nj->nij", mode, mode) + np.eye(20)
        size = np.sqrt(np.einsum("nii->ni", covariance))
        correlation = covariance / size[:, :, None] / size[:, None, :]
        rows, columns = np.tril_indices(20, -1)
        packed = correlation[:, rows, columns].astype(np.float32)
        bands.append(Band(band.coefficients, size * errors, packed))
    made_so = Stars.of(stars.source_id, CoefficientSpectra(*bands), stars.photometry)
    networks = tuple(network.float() for network in case.networks)
    features = case.feature_set.compute(made_so)
    return Made(case.feature_set, case.scaling, networks, features)


@pytest.mark.parametrize(("ratio", "again"), [(100.0, False), (10_000.0, True)])
def test_common_noise_that_cancels(ratio: float, again: bool) -> None:
    case = with_a_mode_that_cancels(ratio)
    exact = np.sqrt(case.torch(double=True).input.numpy())
    kernels = case.kernels()
    fast = np.sqrt(kernels.run(case.features)[0].input.numpy())
    assert (np.abs(fast / exact - 1) < 1e-5).all()
    assert (kernels._exact is not None) == again
    # the trap is real: float32 throughout
    single = case.torch(dtype=torch.float32).input.numpy()
    worst = np.abs(np.sqrt(np.maximum(single, 0)) / exact - 1).max()
    assert worst > (1e-5 if ratio == 100 else 0.1)


def test_only_stars_that_need_it_are_done_again() -> None:
    case = made()
    kernels = case.kernels()
    kernels.run(case.features)
    assert kernels._exact is None


@pytest.mark.parametrize("threads", [1, 2])
def test_neither_block_nor_thread_matters(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = made(members=2, samples=5)
    whole, _ = case.kernels().run(case.features)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    monkeypatch.setattr(prediction, "STARS", 7)
    try:
        pieces, _ = case.kernels().run(case.features)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for part in PARTS:
        one, other = getattr(whole, part), getattr(pieces, part)
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_buffers_that_are_used_again_leave_nothing_behind() -> None:
    case = made(labels=3, samples=5, members=2)
    kernels = case.kernels()
    whole, x = kernels.run(case.features, True)
    some, few = kernels.run(case.features[200:231], True)
    again, _ = kernels.run(case.features, True)
    assert len(kernels._spare) >= 1
    for part in PARTS:
        assert torch.equal(getattr(whole, part), getattr(again, part))
        assert torch.allclose(getattr(some, part), getattr(whole, part)[200:231], 1e-5, 1e-6)
    assert np.allclose(few, x[200:231], rtol=1e-12)
    (sent,) = pickle.loads(pickle.dumps(kernels._spare[:1]))
    assert kernels._spare[0]._arrays
    assert not sent._arrays


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 58), st.integers(1, 19), st.booleans(), st.integers(0, 2**32 - 1))
def test_quadratic_form_of_any_shape(width: int, labels: int, full: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    stars, first = 3, 2
    raw = random.normal(size=(stars, labels, width + first + 1))
    errors = random.uniform(0.1, 3, (stars, width + first + 1))
    packed = random.uniform(-1, 1, (stars, width * (width - 1) // 2)).astype(np.float32)
    total = np.ones((stars, labels))
    form = np.ones((stars, labels, labels)) if full else np.empty((0, labels, labels))
    triangle.quadratic_form(raw, errors, packed, first, width, total, form)
    for star in range(stars):
        matrix = np.zeros((width, width))
        matrix[np.tril_indices(width, -1)] = packed[star]
        matrix = matrix + matrix.T + np.eye(width)
        w = (raw[star] * errors[star])[:, first : first + width]
        wanted = 1 + w @ matrix @ w.T
        assert np.allclose(total[star], np.diag(wanted), rtol=1e-12, atol=1e-10)
        if full:
            assert np.allclose(form[star], wanted, rtol=1e-12, atol=1e-10)


def test_silu_of_any_size_in_float32() -> None:
    z = np.concatenate([np.linspace(-20, 20, 4001), [-1e4, -200, -89, 89, 200, 1e4, 0]])
    h, d = np.float32(z)[None, :].copy(), np.empty((1, len(z)), np.float32)
    activations.silu32(h, np.zeros(len(z), np.float32), d)
    exact = np.float64(np.float32(z))
    s = 1 / (1 + np.exp(-np.clip(exact, -700, 700)))
    assert (np.abs(h[0] - exact * s) <= 4e-7 * np.abs(exact * s) + 1e-30 + 1e4 * 1e-37).all()
    assert (np.abs(d[0] - (s + exact * s * (1 - s))) <= 1e-6).all()


def same(one: Any, other: Any) -> None:
    assert (one.flags == other.flags).all()
    for name in ("values", "errors", "errors_model", "errors_input", "errors_excess", "errors_95",
                 "domain_distance"):  # fmt: skip
        assert np.allclose(
            getattr(one, name), getattr(other, name), rtol=1e-5, atol=0, equal_nan=True
        ), name


def test_predict_by_either_engine(small_model: Model, small_stars: Stars) -> None:
    stars = some_missing(deepcopy(small_stars))
    spectra = stars.spectra
    assert isinstance(spectra, CoefficientSpectra)
    spectra.bp.coefficients[3] = np.nan
    slow = small_model.predict(stars, engine="torch")
    same(small_model.predict(stars, engine="compiled"), slow)
    same(small_model.predict(stars), slow)
    both = [small_model.predict(stars, correlations=True, engine=e).correlations
            for e in ("torch", "compiled")]  # type: ignore[arg-type]  # fmt: skip
    assert np.allclose(*both, atol=1e-5, equal_nan=True)  # type: ignore[arg-type]


def test_what_the_kernels_cannot_do(
    small_model: Model, small_stars: Stars, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = replace(small_model, recipe=replace(small_model.recipe, scatter="sampling"))
    same(sampling.predict(small_stars), sampling.predict(small_stars, engine="torch"))
    with pytest.raises(InputError, match="sampl"):
        sampling.predict(small_stars, engine="compiled")
    with pytest.raises(InputError, match="choose"):
        small_model.predict(small_stars, engine="fast")  # type: ignore[arg-type]
    slow = small_model.predict(small_stars, engine="torch")
    monkeypatch.setattr("xplabels.model.available", lambda: False)
    assert len(small_stars) >= model_module.COMPILED_FROM
    same(small_model.predict(small_stars), slow)
    with pytest.raises(InputError, match="numba"):
        small_model.predict(small_stars, engine="compiled")


def test_the_brightest_archive_stars(shared_data: Path) -> None:
    """Where S/N is highest, float64 from end to end says the same."""
    from xplabels.io import read

    files = ["18Sco_XP_CONTINUOUS_RAW.csv", "XP_CONTINUOUS_RAW.csv"]
    stars = read([shared_data / "xp_archive" / name for name in files])
    model = Model.load("apogee-dr17-library")
    exact = replace(model, networks=tuple(prediction._doubled(n) for n in model.networks))
    one, other = model.predict(stars, engine="compiled"), exact.predict(stars, engine="torch")
    assert np.allclose(one.errors_input, other.errors_input, rtol=1e-5)
    same(one, other)
