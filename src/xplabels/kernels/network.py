"""One network on a block of stars: its outputs, its Jacobian and its dropout variance.

Widths are padded with zeros to a multiple of :data:`WIDTH`, at which BLAS is faster by more than
the padding costs: units that are not there have no weights, in or out. Arrays are taken from
:class:`Buffers`, because the pages of fresh memory take as long as what is done with them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xplabels.kernels import activations, compiled
from xplabels.network import LOG_VARIANCE_RANGE, UncertainNetwork
from xplabels.network.log_flux import LogFlux

WIDTH = 16
"""float32 numbers of a cache line."""

Array = NDArray[np.float64]
Floats = NDArray[np.floating]


class Buffers:
    """Arrays of one thread that are used again for the next block.

    They live as long as the model: 9 MB a thread for the one that ships.
    """

    def __init__(self) -> None:
        self._arrays: dict[tuple[Any, ...], NDArray[Any]] = {}

    def __reduce__(self) -> tuple[type[Buffers], tuple[()]]:
        """A model that is sent to another process leaves their contents behind."""
        return Buffers, ()

    def take(self, name: str, rows: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """[rows, *shape] with whatever was last in it; zeros at first."""
        key = (name, shape, np.dtype(dtype))
        known = self._arrays.get(key)
        if known is None or len(known) < rows:
            known = self._arrays[key] = np.zeros((rows, *shape), dtype)
        return known[:rows]


class Outputs(NamedTuple):
    """What one network says of a block.

    ``jacobian`` [N, K, >= F] lies in a buffer, until the next network runs.
    """

    labels: Array
    excess: Array
    model: Array
    jacobian: Floats
    clamped: NDArray[np.bool_]
    covariance: Array | None


class Network:
    """One network's weights as arrays, and the pass through it."""

    def __init__(self, network: UncertainNetwork) -> None:
        self._architecture = network.architecture
        hidden: list[Any] = list(network.hidden)
        self._weights = [_padded(_padded(layer.weight.detach().numpy()).T).T for layer in hidden]
        self._biases = [_padded(layer.bias.detach().numpy()) for layer in hidden]
        self._out = _padded(network.out.weight.detach().numpy().T).T.copy()
        self._out_bias = network.out.bias.detach().numpy()
        self.dtype = self._out.dtype
        name = self._architecture.activation
        fast = name == "silu" and self.dtype == np.float32
        self._activate = activations.silu32 if fast else activations.ACTIVATIONS[name]
        self._log_flux = None if network.log_flux is None else _LogFlux.of(network.log_flux)

    def run(self, x: Array, full: bool, buffers: Buffers) -> Outputs:
        """Labels, variances and Jacobian of a block of scaled inputs [N, F (+ A) (+ 2)]."""
        k, stars = self._architecture.labels, len(x)
        h = buffers.take("inputs", stars, self._weights[0].shape[1:], self.dtype)
        h[:, : x.shape[1]] = x
        slope = None
        if self._log_flux is not None:
            slope = self._log_flux.append(h, x.shape[1])
        units, slopes = [], []
        for number, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            h = product(h, weight.T, buffers.take(f"units {number}", stars, bias.shape, self.dtype))
            d = buffers.take(f"slopes {number}", stars, bias.shape, self.dtype)
            self._activate(h, bias, d)
            units.append(h)
            slopes.append(d)
        out = (product(h, self._out.T) + self._out_bias).astype(np.float64)
        bounded = np.exp(np.clip(out[:, k:], *LOG_VARIANCE_RANGE))
        jacobian, scatter, shared = self._chain(units, slopes, full, buffers)
        if self._log_flux is not None and slope is not None:
            self._log_flux.pull_back(jacobian, x.shape[1], slope)
        if self._architecture.scatter == "dropout":
            model = scatter
        else:
            model = bounded[:, k:] if bounded.shape[1] > k else np.zeros_like(bounded[:, :k])
            shared = None
        clamped = (out[:, k:] > LOG_VARIANCE_RANGE[1]).any(axis=1)
        return Outputs(out[:, :k], bounded[:, :k], model, jacobian, clamped, shared)

    def _chain(
        self, units: list[Floats], slopes: list[Floats], full: bool, buffers: Buffers
    ) -> tuple[Floats, Array, Array | None]:
        """dy by what enters the first layer, the dropout variance [N, K] and covariance."""
        architecture = self._architecture
        k, p = architecture.labels, architecture.dropout
        dropped = p > 0 and architecture.scatter == "dropout"
        stars = len(units[0])
        scatter = np.zeros((stars, k), self.dtype)
        form = np.zeros((stars, k, k)) if full and dropped else None
        out = self._out[:k]
        by_unit = buffers.take("chain", stars, out.shape, self.dtype)
        if form is not None:
            form += _shared(out * units[-1][:, None, :])
        if dropped:
            compiled.first_scatter(out, units[-1], scatter)
        compiled.first_link(out, slopes[-1], by_unit)
        for number in range(len(units) - 1, -1, -1):
            weight = self._weights[number]
            # two buffers in turn: what a product reads it must not write
            name = ("chain", "other chain")[(len(units) - number) % 2]
            shape = (k, weight.shape[1])
            by_unit = product(by_unit, weight, buffers.take(name, stars, shape, self.dtype))
            if number == 0:
                break
            h, d = units[number - 1], slopes[number - 1]
            if form is not None:
                form += _shared(by_unit * h[:, None, :])
            if dropped:
                compiled.link_and_scatter(by_unit, h, d, scatter)
            else:
                compiled.link(by_unit, d)
        rate = p / (1 - p)
        return (
            by_unit,
            rate * scatter.astype(np.float64),
            None if form is None else rate * form,
        )


class _LogFlux(NamedTuple):
    """The arrays of :class:`xplabels.network.log_flux.LogFlux`."""

    weight: Floats
    bias: Floats
    softening: Floats
    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, module: LogFlux) -> _LogFlux:
        return cls(*(getattr(module, name).numpy() for name in cls._fields))

    def append(self, x: Floats, inputs: int) -> Floats:
        """Puts log flux behind the ``inputs`` first columns of ``x``; its derivative by the flux.

        As :meth:`xplabels.network.log_flux.LogFlux.forward`.
        """
        samples, spectral = self.weight.shape
        ratio = product(x[:, :spectral], self.weight.T)
        ratio += self.bias
        ratio /= self.softening
        x[:, inputs : inputs + samples] = (np.arcsinh(ratio) - self.mean) / self.scale
        slope: Floats = 1.0 / (self.softening * self.scale * np.sqrt(1 + ratio * ratio))
        return slope

    def pull_back(self, by_input: Floats, inputs: int, slope: Floats) -> None:
        """As :meth:`xplabels.network.log_flux.LogFlux.pull_back`, in place."""
        samples, spectral = self.weight.shape
        rows = by_input.reshape(-1, by_input.shape[2])
        through = by_input[:, :, inputs : inputs + samples]
        through *= slope[:, None, :]
        through = rows[:, inputs : inputs + samples]
        torch.from_numpy(rows[:, :spectral]).addmm_(
            torch.from_numpy(through), torch.from_numpy(self.weight)
        )


def product(one: Floats, other: Floats, out: Floats | None = None) -> Floats:
    """Matrix product [..., H] [H, G] by torch's BLAS, which beats numpy's here."""
    rows = torch.from_numpy(one.reshape(-1, one.shape[-1]))
    if out is None:
        out = np.empty((*one.shape[:-1], other.shape[1]), one.dtype)
    torch.mm(rows, torch.from_numpy(other), out=torch.from_numpy(out.reshape(-1, other.shape[1])))
    return out


def _padded(array: Floats) -> Floats:
    """Rows of zeros added up to the next multiple of :data:`WIDTH`."""
    more = -len(array) % WIDTH
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])


def _shared(moved: Floats) -> Array:
    """sum over units of products of two labels' dy/dh h: [N, K, K] from [N, K, H]."""
    form: Array = (moved @ moved.transpose(0, 2, 1)).astype(np.float64)
    return form
