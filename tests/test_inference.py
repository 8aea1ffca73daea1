"""Inference in numpy says what the training network says, which is its slow twin."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twins import random_correlations, some_missing
from xplabels import inference
from xplabels.core.stars import Band, CoefficientSpectra, Photometry, Stars
from xplabels.features import Features, FeatureSet
from xplabels.features.projection import Projection
from xplabels.features.scaling import Scaling
from xplabels.inference import Inference
from xplabels.inference.network import ACTIVATIONS, Architecture, LabelDistribution, Perceptron
from xplabels.model import Model
from xplabels.network import UncertainNetwork
from xplabels.network.propagation import Block, Propagation
from xplabels.synthetic import simulate_stars

WIDTHS = (6, 5)


@dataclass
class Made:
    """Networks that nobody trained, and stars for them."""

    feature_set: FeatureSet
    scaling: Scaling
    networks: tuple[UncertainNetwork, ...]
    features: Features

    def inference(self, dtype: Any = np.float64) -> Inference:
        networks = [network.to_perceptron().astype(dtype) for network in self.networks]
        return Inference(self.feature_set, self.scaling, networks)

    def torch(self, dtype: torch.dtype = torch.float64) -> LabelDistribution[torch.Tensor]:
        """One network, or by hand an ensemble: means, and the spread of the members."""
        masks = self.networks[0].architecture.masks > 0
        propagation = Propagation(self.feature_set, self.scaling, masks, dtype)
        block = Block.of(self.features, self.feature_set, self.scaling, dtype)
        networks = [network.to(dtype) for network in self.networks]
        with torch.no_grad():
            outputs = [propagation.run(network, block) for network in networks]
            if len(outputs) == 1:
                return outputs[0]
            means = torch.stack([out.mean for out in outputs])
            jacobian = torch.stack([out.jacobian for out in outputs]).mean(dim=0)  # type: ignore[misc]
            return outputs[0]._replace(
                mean=means.mean(dim=0),
                excess=torch.stack([out.excess for out in outputs]).mean(dim=0),
                model=means.var(dim=0),
                input=propagation.input_variance(jacobian, block),
            )


def made(
    stars: Stars | None = None,
    *,
    labels: int = 4,
    members: int = 1,
    projection: Projection | None = None,
    covariance: Any = "exact",
    auxiliary: tuple[str, ...] = ("bp_rp", "j_h", "m_pseudo"),
    hidden: tuple[int, ...] = (24, 17, 9),
    samples: int = 0,
    noise: bool = False,
    **architecture: Any,
) -> Made:
    if stars is None:
        stars = some_missing(simulate_stars(300, widths=WIDTHS, noise=5.0, seed=4)[0])
    widths = stars.spectra.widths
    feature_set = FeatureSet(widths, auxiliary, covariance, projection=projection, noise=noise)
    features = feature_set.compute(stars)
    n = feature_set.n_spectral
    random = np.random.default_rng(5)
    levels = feature_set.noise_levels(features)
    scaling = Scaling.fit(features.x, random.normal(size=(len(stars), labels)), noise=levels)
    torch.manual_seed(6)
    shape = Architecture(
        inputs=n + len(auxiliary), hidden=hidden, labels=labels, samples=samples,
        spectral=n if samples else 0, noise=levels.shape[1],
        **({"masks": len(auxiliary), "dropout": 0.2} | architecture),
    )  # fmt: skip
    networks = tuple(UncertainNetwork(shape).double() for _ in range(members))
    for network in networks:
        if network.log_flux is not None:
            fit = (random.normal(size=(samples, n)), scaling.x_mean[:n], scaling.x_scale[:n],
                   np.nan_to_num(scaling.scale_x(features.x)))  # fmt: skip
            network.log_flux.fit(*(torch.as_tensor(array) for array in fit))
    return Made(feature_set, scaling, networks, features)


TOLERANCES = {np.float64: 1e-9, np.float32: 1e-5}


def agree(case: Made, tolerances: dict[type, float] = TOLERANCES) -> None:
    """In float64 to rounding, in float32 to float32's."""
    slow = case.torch()
    for dtype, tolerance in tolerances.items():
        labels, x = case.inference(dtype).run(case.features, full=True)
        alone, _ = case.inference(dtype).run(case.features)
        for name in ("mean", "model", "input", "excess"):
            one, other = getattr(alone, name), getattr(labels.variances(), name)
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-12, err_msg=name)
        for part in ("mean", "input", "model", "excess", "variance"):
            one, other = getattr(alone, part), getattr(slow, part).numpy()
            assert one.dtype == np.float64
            size = np.abs(other)
            if part == "mean" or (part == "model" and len(case.networks) > 1):
                size = size.max()  # a small difference of labels is as uncertain as they are
            assert (np.abs(one - other) <= tolerance * size).all(), part
        assert np.array_equal(labels.clamped, slow.clamped)
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
    "skip": {"skip": True, "samples": 7},
    "skip, distilled": {"skip": True, "scatter": "distilled"},
    "all": {"samples": 7, "noise": True, "projection": a_projection(), "members": 2, "labels": 9},
    **{name: {"activation": name} for name in ACTIVATIONS},
}


@pytest.mark.parametrize("case", CASES)
def test_the_training_network_says_the_same(case: str) -> None:
    agree(made(**CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_a_covariance_is_that_of_sums_of_labels(case: str) -> None:
    """The variance of y_k + y_l is V_kk + V_ll + 2 C_kl."""
    one = made(**CASES[case])
    first, second = np.triu_indices(one.networks[0].architecture.labels)

    def summed(network: Perceptron) -> Perceptron:
        shape, arrays = network.architecture, dict(network.arrays)
        for name in arrays.keys() & {"out.weight", "out.bias", "skip.weight"}:
            mean, *others = arrays[name].reshape(-1, shape.labels, *arrays[name].shape[1:])
            rows = [mean[first] + mean[second], *(other[first] for other in others)]
            arrays[name] = np.concatenate(rows)
        return Perceptron(replace(shape, labels=len(first)), arrays)

    labels = one.inference().run(one.features, full=True).labels
    networks = [summed(network.to_perceptron()) for network in one.networks]
    sums = Inference(one.feature_set, one.scaling, networks).run(one.features).labels
    for part in ("input", "model") if CASES[case].get("scatter") != "distilled" else ("input",):
        c = getattr(labels, part)
        wanted = c[:, first, first] + c[:, second, second] + 2 * c[:, first, second]
        scale = c[:, first, first] + c[:, second, second]
        assert (np.abs(getattr(sums, part) - wanted) <= 1e-9 * scale).all()


@pytest.mark.parametrize("widths", [(51, 55), (1, 2), (3, 4)])
def test_any_widths(widths: tuple[int, int]) -> None:
    agree(made(simulate_stars(40, widths=widths, seed=1)[0]))


def test_without_correlations_and_with_a_zero_divisor() -> None:
    stars = simulate_stars(50, widths=WIDTHS, seed=2)[0]
    bp, rp = stars.spectra.bp, stars.spectra.rp
    rp.coefficients[7, 0] = 0.0  # its error divides: inputs far from any other
    agree(made(stars), {np.float64: 1e-9})
    plain = CoefficientSpectra(Band(bp.coefficients, bp.errors), Band(rp.coefficients, rp.errors))
    agree(made(Stars.of(stars.source_id, plain, stars.photometry)), {np.float64: 1e-9})


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_and_derivatives_anywhere(activation: str, dtype: Any) -> None:
    z = np.concatenate([np.linspace(-20, 20, 401), [-1e4, -200, -89, 89, 200, 1e4]])
    x = torch.tensor(z.astype(dtype).astype(float), requires_grad=True)
    silu, functional = torch.nn.functional.silu, torch.nn.functional
    names = {"silu": silu, "relu": torch.relu, "tanh": torch.tanh, "gelu": functional.gelu,
             "softplus": functional.softplus}  # fmt: skip
    wanted = names[activation](x)
    (slope,) = torch.autograd.grad(wanted.sum(), x)
    h, d = ACTIVATIONS[activation](z.astype(dtype))
    assert h.dtype == d.dtype == dtype
    close = {"rtol": 1e-6, "atol": 2e-6} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(h, wanted.detach().numpy(), **close)
    np.testing.assert_allclose(d, slope.numpy(), **close)


def with_a_mode_that_cancels(ratio: float) -> Made:
    """Stars whose noise is ``ratio`` times larger in one direction, to which labels are blind.

    A well-trained network is blind to what varies most. (Brightness, which is common to all
    coefficients, cancels by itself: x = c / r0 does not depend on it.)
    """
    stars = simulate_stars(60, widths=(20, 20), seed=3)[0].with_photometry(Photometry.missing(60))
    case = made(stars, auxiliary=(), masks=0)
    by_x = case.inference().derivatives(case.features)
    raw = inference.pull_back(by_x, case.features, case.feature_set)
    bands = []
    for first, band in ((0, stars.spectra.bp), (20, stars.spectra.rp)):
        errors = band.errors[0]
        blind = [np.linalg.svd(raw[star, :, first : first + 20] * errors)[2][-1]
                 for star in range(60)]  # fmt: skip
        mode = ratio * np.array(blind)
        covariance = np.einsum("ni,nj->nij", mode, mode) + np.eye(20)
        size = np.sqrt(np.einsum("nii->ni", covariance))
        correlation = covariance / size[:, :, None] / size[:, None, :]
        rows, columns = np.tril_indices(20, -1)
        packed = correlation[:, rows, columns].astype(np.float32)
        bands.append(Band(band.coefficients, size * errors, packed))
    made_so = Stars.of(stars.source_id, CoefficientSpectra(*bands), stars.photometry)
    return replace(case, features=case.feature_set.compute(made_so))


@pytest.mark.parametrize("ratio", [100.0, 10_000.0])
def test_common_noise_that_cancels(ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    case = with_a_mode_that_cancels(ratio)

    def off(distribution: LabelDistribution[Any]) -> float:
        found = np.sqrt(np.maximum(np.asarray(distribution.input), 0))
        return float(np.abs(found / exact - 1).max())

    exact = np.sqrt(case.torch().input.numpy())
    found = off(case.inference(np.float32).run(case.features).labels)
    assert found < 1e-6
    monkeypatch.setattr(inference, "CANCELLATION", np.inf)  # nothing is done again in float64
    once = off(case.inference(np.float32).run(case.features).labels)
    assert (found < once) == (ratio > 1000)
    # the trap is real: float32 throughout
    assert off(case.torch(torch.float32)) > (1e-5 if ratio == 100 else 0.1)


def test_neither_piece_nor_thread_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    case = made(members=2, samples=5, labels=3)
    whole, x = case.inference().run(case.features, full=True)
    monkeypatch.setattr(inference, "STARS", 7)
    before = threadpool_info()
    for threads in (1, 2):
        with threadpool_limits(threads):
            pieces, other = case.inference().run(case.features, full=True)
        for one, two in zip((*whole[:5], x), (*pieces[:5], other), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)
    assert threadpool_info() == before
    some, _ = case.inference().run(case.features[200:231], full=True)
    np.testing.assert_allclose(some.input, whole.input[200:231], rtol=1e-9, atol=1e-15)
    none, _ = case.inference().run(case.features[:0], full=True)
    assert none.covariance.shape == (0, 3, 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 58), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_form_of_packed_correlations(width: int, labels: int, seed: int) -> None:
    pytest.importorskip("numba")
    from xplabels.inference.compiled import lower_product

    random = np.random.default_rng(seed)
    w, packed = random.normal(size=(3, labels, width)), random_correlations(random, 3, width)
    matrix = np.tile(np.eye(width) / 2, (3, 1, 1))
    rows, columns = np.tril_indices(width, -1)
    matrix[:, rows, columns] = packed
    for product in (lower_product, inference._plain_product):
        np.testing.assert_allclose(product(w, packed), w @ matrix, rtol=1e-10, atol=1e-10)


# --- dropout passes (scatter = "sampling") ---
def perceptron(dropout: float) -> tuple[Perceptron, UncertainNetwork, np.ndarray]:
    torch.manual_seed(1)
    network = UncertainNetwork(Architecture(6, 0, (9, 8), 3, dropout=dropout)).double()
    return network.to_perceptron(), network, np.random.default_rng(2).normal(size=(9, 6))


def test_passes_are_those_of_the_training_network() -> None:
    ours, theirs, x = perceptron(0.2)
    centre, covariance = ours.dropout_passes(x, 4000)
    with torch.no_grad():
        many = torch.stack([theirs(torch.as_tensor(x), drop=True).mean for _ in range(4000)])
    sigma = many.std(dim=0).numpy()
    assert (np.abs(centre - many.quantile(0.5, dim=0).numpy()) < 0.1 * sigma).all()
    np.testing.assert_allclose(np.sqrt(np.einsum("nkk->nk", covariance)), sigma, rtol=0.1)
    for star in range(9):
        stated = np.cov(many[:, star].numpy().T) / np.outer(sigma[star], sigma[star])
        found = covariance[star] / np.outer(sigma[star], sigma[star])
        np.testing.assert_allclose(found, stated, atol=0.1)


def test_passes_come_again_and_do_not_depend_on_the_other_stars() -> None:
    ours, _, x = perceptron(0.2)
    whole, again = ours.dropout_passes(x, 20), ours.dropout_passes(x, 20)
    order = np.array([4, 8, 0, 2, 1, 3, 5, 7, 6])
    shuffled = ours.dropout_passes(x[order], 20)
    for one, two, other in zip(whole, again, shuffled, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(other, one[order], rtol=1e-12, atol=1e-15)


def test_the_median_of_an_even_number_of_passes_lies_between_the_middle_two() -> None:
    """torch.median would take the lower one (METHOD 4)."""
    ours, _, x = perceptron(0.5)
    centre, covariance = ours.dropout_passes(x[:1], 2)
    with np.errstate(all="ignore"):  # one pass has no covariance
        one, _ = ours.dropout_passes(x[:1], 1)
    half = np.sqrt(np.einsum("nkk->nk", covariance) / 2)
    np.testing.assert_allclose(np.abs(one - centre), half, rtol=1e-9)


def test_a_sampling_model_states_its_passes(small_model: Model, small_stars: Stars) -> None:
    sampling = replace(small_model, recipe=replace(small_model.recipe, scatter="sampling"))
    few = small_stars[:40]
    one, other = sampling.predict(few), sampling.predict(few[::-1])
    np.testing.assert_allclose(one.values, other.values[::-1], rtol=1e-5)
    assert not np.allclose(one.values, small_model.predict(few).values, rtol=1e-4)


# --- what prediction does without ---
WITHOUT = """
import sys
for name in {names}:
    sys.modules[name] = None
from xplabels.cli import main
sys.exit(main({words}))
"""


def without(names: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    """The command line where some packages are not installed."""
    script = WITHOUT.format(names=names, words=list(words))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


NOT_NEEDED = ["torch", "scipy", "matplotlib", "jinja2", "numba", "pandas"]


def test_prediction_needs_none_of_the_extras(shared_data, tmp_path) -> None:
    spectra = str(shared_data / "xp_archive" / "XP_CONTINUOUS_RAW.csv")
    for ending in ("csv", "fits", "parquet"):
        output = tmp_path / f"labels.{ending}"
        words = ("predict", spectra, "--correlations", "--unshrunk", "--output", str(output))
        found = without(NOT_NEEDED, *words)
        assert found.returncode == 0, found.stderr
        assert output.exists()
    assert without(NOT_NEEDED, "models").stdout.startswith("apogee-dr17-library: teff")


def test_what_needs_an_extra_says_which(tmp_path) -> None:
    words = ("train", "none.parquet", "--labels", "teff", "--output", str(tmp_path / "model"))
    found = without(["torch"], *words)
    assert found.returncode == 2
    assert found.stderr.startswith(
        "xplabels: error: this needs PyTorch, which is not installed; pip install 'xplabels[train]'"
    )
    assert "CPU build" in found.stderr
    assert found.stderr.count("\n") == 1
    script = "import sys; sys.modules['torch'] = None; import xplabels; xplabels.train"
    python = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "InputError: this needs PyTorch" in python.stderr


def test_a_few_stars_are_predicted_before_anything_heavy_is_loaded() -> None:
    script = (
        "import sys, xplabels as xp\n"
        "xp.load_model().predict(xp.example_stars(3), covariance=True).to_arrow()\n"
        "print(*sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "numba", "astropy", "pandas", "matplotlib", "scipy"}
    assert not heavy & set(found.stdout.split())
