"""One network as numpy arrays: labels, their variances and the Jacobian by BLAS products.

The twin of :mod:`xplabels.network`, which trains. All is in scaled units. The Jacobian dy/dx is the
product W_out D_L W_L ... D_1 W_1 (D: derivatives of the activation), whose partial products are
dy/dh of the hidden units; they give the scatter under dropout without sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from xplabels.core.arrays import Array
from xplabels.core.errors import InputError

LOG_VARIANCE_RANGE = (-14.0, 6.0)
"""Bounds of ln(variance) in scaled units, which keep likelihoods and errors finite."""
SATURATED = -40.0
"""Input of a unit below which it counts as off: denormal numbers would be ten times as slow."""

ModelScatter = Literal["none", "dropout", "distilled"]
Floats = NDArray[np.floating[Any]]

A = TypeVar("A")
"""An array of numpy or a tensor of torch; the operations here exist for both."""


class LabelDistribution(NamedTuple, Generic[A]):
    """Mean of K labels of N stars and the parts of its variance (FS24, eq. 7-11), scaled.

    Arrays of numpy (inference) or tensors (training).
    """

    mean: A  # [N, K]
    excess: A  # [N, K]: intrinsic scatter, a variance label by label
    # [N, K] variances, or [N, K, K] covariances where these were requested
    model: A
    input: A
    clamped: A  # bool [N, K]: a variance reached its upper bound
    # [N, K, I]: derivative of the mean by the network's inputs, or None where not requested
    jacobian: A | None = None

    def variances(self) -> LabelDistribution[A]:
        """The same with the diagonals of full covariances."""
        parts: LabelDistribution[Any] = self
        model, of_input = parts.model.diagonal(0, 1, 2), parts.input.diagonal(0, 1, 2)
        return self._replace(model=model, input=of_input)

    @property
    def variance(self) -> A:
        """Total [N, K] of variances (eq. 11); an input part rounded below zero counts as zero."""
        parts: LabelDistribution[Any] = self
        total: A = parts.input.clip(min=0.0) + parts.model + parts.excess
        return total

    @property
    def covariance(self) -> A:
        """Total [N, K, K] of full covariances."""
        parts: LabelDistribution[Any] = self
        total = parts.input + parts.model
        labels = range(total.shape[1])
        total[:, labels, labels] += parts.excess
        whole: A = total
        return whole


def _logistic(z: Floats) -> Floats:
    s = np.exp(-np.maximum(z, SATURATED))
    s += 1
    return np.reciprocal(s, out=s)


def _silu(z: Floats) -> tuple[Floats, Floats]:
    s = _logistic(z)
    h = z * s
    return h, s + h * (1 - s)


def _relu(z: Floats) -> tuple[Floats, Floats]:
    return np.maximum(z, 0), (z > 0).astype(z.dtype)


def _tanh(z: Floats) -> tuple[Floats, Floats]:
    h = np.tanh(z)
    return h, 1 - h * h


def _gelu(z: Floats) -> tuple[Floats, Floats]:
    from scipy.special import ndtr

    below = ndtr(z)
    return z * below, below + z * np.exp(-0.5 * z * z) * z.dtype.type((2 * np.pi) ** -0.5)


def _softplus(z: Floats) -> tuple[Floats, Floats]:
    return np.logaddexp(z, z.dtype.type(0)), _logistic(z)


ACTIVATIONS = {"silu": _silu, "relu": _relu, "tanh": _tanh, "gelu": _gelu, "softplus": _softplus}
"""Each gives the activation and its derivative."""


@dataclass(frozen=True)
class Architecture:
    """Shape of a network."""

    inputs: int  # number of scaled inputs F
    # number of further inputs that say which auxiliary inputs are missing (1) or not (0)
    masks: int
    hidden: tuple[int, ...]  # width of each hidden layer
    labels: int  # number of labels K
    activation: str = "silu"  # a key of ACTIVATIONS
    dropout: float = 0.0  # probability that a hidden unit is dropped in training
    # origin of the model's part of the error: ``dropout`` of this network, ``distilled`` (K further
    # outputs that learnt the scatter of an ensemble), or ``none``
    scatter: ModelScatter = "dropout"
    # number of log-flux samples from the first ``spectral`` inputs (xplabels.network.LogFlux), or 0
    samples: int = 0
    spectral: int = 0
    noise: int = 0  # number of noise levels among the inputs, after the masks: 2 or 0
    skip: bool = False  # whether the last layer takes all hidden layers, not the last one alone

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"unknown activation {self.activation!r}",
                remedy=f"choose among {', '.join(ACTIVATIONS)}",
            )
        if self.scatter not in get_args(ModelScatter):
            raise InputError(f"unknown scatter {self.scatter!r}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout {self.dropout} should lie in [0, 1)")
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"hidden layers {list(self.hidden)} should be positive widths")

    @property
    def outputs(self) -> int:
        """Labels, excess variances and, if distilled, the model's variances."""
        return self.labels * (3 if self.scatter == "distilled" else 2)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of inputs of the first layer, and widths of the hidden layers."""
        return (self.inputs + self.masks + self.noise + self.samples, *self.hidden)

    @property
    def flop_with_jacobian(self) -> int:
        """Floating-point operations per star: forward pass and Jacobian chain."""
        body = sum(a * b for a, b in pairwise(self.sizes)) + self.samples * self.spectral
        last_inputs = sum(self.hidden) if self.skip else self.hidden[-1]
        return 2 * (body * (1 + self.labels) + last_inputs * self.outputs)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array of a network, by the name under which it is saved."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.samples:
            n = (self.samples,)
            shapes |= {"log_flux.weight": (*n, self.spectral), "log_flux.bias": n}
            shapes |= {"log_flux.softening": (), "log_flux.mean": n, "log_flux.scale": n}
        for layer, (a, b) in enumerate(pairwise(self.sizes)):
            shapes |= {f"hidden.{layer}.weight": (b, a), f"hidden.{layer}.bias": (b,)}
        out = {"out.weight": (self.outputs, self.hidden[-1]), "out.bias": (self.outputs,)}
        if self.skip:
            out["skip.weight"] = (self.outputs, sum(self.hidden[:-1]))
        return shapes | out


@dataclass(frozen=True, eq=False, repr=False)
class Perceptron:
    """A multilayer perceptron that gives labels and their variances (FS24, section 3.1).

    Raises ValueError if an array is missing, unexpected, or of another shape.
    """

    architecture: Architecture  # its shape
    # weights by name (Architecture.shapes), of the floating-point type in which the network is
    # evaluated
    arrays: Mapping[str, Floats]

    def __post_init__(self) -> None:
        shapes = self.architecture.shapes()
        for name in sorted(shapes.keys() ^ self.arrays.keys()):
            raise ValueError(f"{name} is {'missing' if name in shapes else 'not expected'}")
        for name, shape in shapes.items():
            if self.arrays[name].shape != shape:
                raise ValueError(f"{name} has the shape {self.arrays[name].shape}, not {shape}")

    def __repr__(self) -> str:
        sizes = "-".join(map(str, (*self.architecture.sizes, self.architecture.outputs)))
        return f"Perceptron({sizes}, {self.architecture.activation})"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Floating-point type of the weights."""
        return self.arrays["out.weight"].dtype

    def astype(self, dtype: Any) -> Perceptron:
        """The same network in another floating-point type."""
        return Perceptron(self.architecture, {k: v.astype(dtype) for k, v in self.arrays.items()})

    def forward(self, x: Floats, full: bool = False) -> LabelDistribution[Floats]:
        """Labels, variances and Jacobian for scaled inputs, masks and noise levels [N, I].

        ``model`` is a covariance if ``full``; ``input`` is 0. Means and variances are float64,
        the Jacobian [N, K, I] is of the network's own type.
        """
        k, scatter = self.architecture.labels, self.architecture.scatter
        low, high = LOG_VARIANCE_RANGE
        h, slope = self._with_log_flux(x.astype(self.dtype))
        layers = list(self._hidden(h))
        raw = self._outputs([h for h, _ in layers]).astype(np.float64)
        variances = np.exp(np.clip(raw[:, k:], low, high))
        jacobian, model = self._chain(layers, full)
        if slope is not None:
            jacobian = self._through_log_flux(jacobian, slope, x.shape[1])
        if scatter != "dropout":
            model = variances[:, k:] if scatter == "distilled" else np.zeros((len(x), k))
            model = model[:, :, None] * np.eye(k) if full else model
        return LabelDistribution(
            raw[:, :k],
            variances[:, :k],
            model,
            np.zeros_like(model),
            # only variances at the upper bound are reported; those at the lower one are harmless
            np.asarray((raw[:, k:] > high).reshape(len(raw), raw.shape[1] // k - 1, k).any(axis=1)),
            jacobian,
        )

    def dropout_passes(self, x: Floats, passes: int) -> tuple[Array, Array]:
        """Median [N, K] and covariance [N, K, K] of passes with dropout (FS24, 3.1.1).

        Each pass is one thinned network for all stars, the same in every call, so that the
        prediction of a star does not depend on the stars around it.
        """
        random, p = np.random.default_rng(0), self.architecture.dropout
        h, _ = self._with_log_flux(x.astype(self.dtype))
        drawn = np.empty((passes, len(x), self.architecture.labels))
        for labels in drawn:
            keep = [(random.random(n) >= p) / (1 - p) for n in self.architecture.hidden]
            units = [unit for unit, _ in self._hidden(h, keep)]
            labels[:] = self._outputs(units)[:, : labels.shape[1]]
        return np.median(drawn, axis=0), sample_covariance(drawn)

    def _hidden(
        self, h: Floats, keep: Sequence[Array] | None = None
    ) -> Iterator[tuple[Floats, Floats]]:
        """Units and derivatives [N, H] of each hidden layer; ``keep`` multiplies the units."""
        activation = ACTIVATIONS[self.architecture.activation]
        for layer in range(len(self.architecture.hidden)):
            z = h @ self.arrays[f"hidden.{layer}.weight"].T
            z += self.arrays[f"hidden.{layer}.bias"]
            h, d = activation(z)
            if keep is not None:
                h *= keep[layer].astype(self.dtype)
            yield h, d

    def _outputs(self, units: Sequence[Floats]) -> Floats:
        """The last layer's outputs from all hidden layers' units."""
        raw: Floats = units[-1] @ self.arrays["out.weight"].T + self.arrays["out.bias"]
        if self.architecture.skip:
            raw += np.concatenate(units[:-1], axis=1) @ self.arrays["skip.weight"].T
        return raw

    def _chain(self, layers: list[tuple[Floats, Floats]], full: bool) -> tuple[Floats, Array]:
        """dy/dh of the first layer's inputs, and the dropout variance by the delta method.

        With inverted dropout a unit h becomes h b / (1 - p), of variance h^2 p / (1 - p), so to
        first order Cov(y_k, y_l) = p / (1 - p) sum dy_k/dh dy_l/dh h^2 over all hidden units.
        """
        k, p = self.architecture.labels, self.architecture.dropout
        out, last = self.arrays["out.weight"][:k], layers[-1][0]
        stars, dropped = len(last), p > 0 and self.architecture.scatter == "dropout"
        # all stars share the last layer's dy/dh: one product serves every pair of labels
        pairs = out[:, None] * out if full else out**2
        scatter = np.tensordot(last**2, pairs, (1, -1)).astype(np.float64)
        by_unit: Floats = np.broadcast_to(out, (stars, *out.shape))
        end = sum(self.architecture.hidden[:-1])
        for layer in reversed(range(len(layers))):
            h, d = layers[layer]
            if self.architecture.skip and h is not last:
                start, end = end - h.shape[1], end
                by_unit = by_unit + self.arrays["skip.weight"][:k, start:end]
                end = start
            if dropped and h is not last:
                by_drop = by_unit * h[:, None, :]
                scatter += products(by_drop, by_drop, full)
            weight = self.arrays[f"hidden.{layer}.weight"]
            # one product with many rows: for a stack of matrices numpy would loop over the stars
            rows = (by_unit * d[:, None, :]).reshape(-1, d.shape[1])
            by_unit = (rows @ weight).reshape(stars, k, weight.shape[1])
        return by_unit, p / (1 - p) * scatter

    def _with_log_flux(self, x: Floats) -> tuple[Floats, Floats | None]:
        """Inputs with log flux appended, and its derivative by the flux [N, S]."""
        if not self.architecture.samples:
            return x, None
        weight, bias, softening, mean, scale = (
            self.arrays[f"log_flux.{name}"]
            for name in ("weight", "bias", "softening", "mean", "scale")
        )
        ratio = (x[:, : self.architecture.spectral] @ weight.T + bias) / softening
        slope = 1 / (softening * scale * np.sqrt(1 + ratio * ratio))
        return np.concatenate([x, (np.arcsinh(ratio) - mean) / scale], axis=1), slope

    def _through_log_flux(self, by_input: Floats, slope: Floats, inputs: int) -> Floats:
        """dy/dx [N, K, I] from derivatives by inputs and log flux [N, K, I + S]."""
        stars, k, _ = by_input.shape
        through = (by_input[..., inputs:] * slope[:, None, :]).reshape(-1, slope.shape[1])
        n = self.architecture.spectral
        by_input[..., :n] += (through @ self.arrays["log_flux.weight"]).reshape(stars, k, n)
        return by_input[..., :inputs]


def products(left: Floats, right: Floats, full: bool = False) -> Any:
    """Products of the rows of two matrices [N, K, n]: row by row [N, K], or all [N, K, K]."""
    return left @ right.transpose(0, 2, 1) if full else np.einsum("nki,nki->nk", left, right)


def sample_covariance(drawn: Floats) -> Array:
    """Covariance [N, K, K] of samples [S, N, K]."""
    deviation = (drawn - drawn.mean(axis=0)).transpose(1, 2, 0)
    covariance: Array = deviation @ deviation.transpose(0, 2, 1) / (len(drawn) - 1)
    return covariance
