"""The network that trains: labels, their variances, the Jacobian and the scatter under dropout.

The torch twin of :mod:`xplabels.inference.network`. The Jacobian is computed by the explicit chain
rule, not by automatic differentiation; its operations are differentiable, so that the loss can
contain it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from xplabels.core.errors import InputError, not_installed
from xplabels.inference.network import (
    LOG_VARIANCE_RANGE,
    Architecture,
    LabelDistribution,
    Perceptron,
)

try:
    import torch
    from torch import Tensor, nn
except ModuleNotFoundError:
    raise not_installed("torch") from None

SOFTENING = 0.04
"""Flux, relative to the training stars' mean, below which the logarithm becomes linear."""


def _silu(z: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(z)
    h = z * s
    return h, s + h * (1 - s)


def _relu(z: Tensor) -> tuple[Tensor, Tensor]:
    return torch.relu(z), (z > 0).to(z.dtype)


def _tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.tanh(z)
    return h, 1 - h * h


def _gelu(z: Tensor) -> tuple[Tensor, Tensor]:
    cdf = 0.5 * (1 + torch.erf(z * 2**-0.5))
    return z * cdf, cdf + z * torch.exp(-0.5 * z * z) * (2 * torch.pi) ** -0.5


def _softplus(z: Tensor) -> tuple[Tensor, Tensor]:
    return nn.functional.softplus(z), torch.sigmoid(z)


ACTIVATIONS = {"silu": _silu, "relu": _relu, "tanh": _tanh, "gelu": _gelu, "softplus": _softplus}
"""Each gives the activation and its derivative."""


def check_device(name: str) -> str:
    """Returns ``name`` if torch can use this device.

    Raises
    ------
    InputError
        If torch has no such device, or this machine has none.

    Examples
    --------
    >>> check_device("cpu")
    'cpu'
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch built without a GPU's code asserts
        raise InputError(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}",
            remedy="choose cpu, or cuda on a machine with a GPU",
        ) from None
    return name


class LogFlux(nn.Module):
    """Scaled log flux at S wavelengths with its derivative: inputs from which learning is easy.

    Dust multiplies a spectrum and temperature tilts it: in the logarithm both are additive, while
    in the coefficients they mix. g = asinh(f / s), f = W x + b, is an asinh magnitude (Lupton et
    al. 1999), which stays smooth where noise makes the flux negative. The first ``spectral`` inputs
    are BP and RP coefficients.
    """

    weight: Tensor
    bias: Tensor
    softening: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, samples: int, spectral: int) -> None:
        super().__init__()
        self.spectral = spectral
        self.register_buffer("weight", torch.zeros(samples, spectral))
        self.register_buffer("bias", torch.zeros(samples))
        self.register_buffer("softening", torch.ones(()))
        self.register_buffer("mean", torch.zeros(samples))
        self.register_buffer("scale", torch.ones(samples))

    @torch.no_grad()
    def fit(self, design: Tensor, x_mean: Tensor, x_scale: Tensor, x: Tensor) -> None:
        """Set up for scaled training inputs ``x`` [N, >= n], with ``x_mean`` and ``x_scale`` [n].

        ``design`` [S, n] is the flux per unit of each coefficient.
        """
        self.weight.copy_(design * x_scale)
        self.bias.copy_(design @ x_mean)
        flux = x[:, : self.spectral] @ self.weight.T + self.bias
        self.softening.copy_(SOFTENING * flux.mean())
        log_flux = torch.asinh(flux / self.softening)
        self.mean.copy_(log_flux.mean(dim=0))
        self.scale.copy_(log_flux.std(dim=0).clamp(min=1e-6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs with log flux appended [N, I + S], and its derivative by the flux [N, S]."""
        flux = x[:, : self.spectral] @ self.weight.T + self.bias
        ratio = flux / self.softening
        log_flux = (torch.asinh(ratio) - self.mean) / self.scale
        slope = 1.0 / (self.softening * self.scale * torch.sqrt(1 + ratio * ratio))
        return torch.cat([x, log_flux], dim=1), slope

    def pull_back(self, by_input: Tensor, slope: Tensor) -> Tensor:
        """dy/dx [N, K, I] from derivatives by inputs and log flux [N, K, I + S]."""
        inputs = by_input.shape[-1] - len(self.bias)
        direct, through = by_input[..., :inputs], by_input[..., inputs:]
        spectral = direct[..., : self.spectral] + (through * slope[:, None, :]) @ self.weight
        return torch.cat([spectral, direct[..., self.spectral :]], dim=-1)


class UncertainNetwork(nn.Module):
    """A multilayer perceptron that gives labels and their excess variance (FS24, section 3.1).

    ``input_scale`` multiplies each input of the first layer; None: 1. It does not change which
    functions can be learnt, but larger inputs are learnt from sooner and regularised less.
    """

    input_scale: Tensor | None

    def __init__(self, architecture: Architecture, input_scale: Tensor | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        self.log_flux: LogFlux | None = None
        if architecture.samples:
            self.log_flux = LogFlux(architecture.samples, architecture.spectral)
        self.register_buffer("input_scale", input_scale, persistent=False)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(architecture.sizes))
        self.out = nn.Linear(architecture.hidden[-1], architecture.outputs)
        self.skip: nn.Linear | None = None
        if architecture.skip:
            self.skip = nn.Linear(sum(architecture.hidden[:-1]), architecture.outputs, bias=False)

    def forward(
        self, x: Tensor, *, jacobian: bool = False, drop: bool = False
    ) -> LabelDistribution[Tensor]:
        """Labels and variances for scaled inputs, masks and noise levels [N, F + masks + noise].

        The ``input`` part is 0 here; :class:`~xplabels.network.propagation.Propagation` adds it.
        ``jacobian`` adds dy/dx and, for ``scatter = "dropout"``, the model variance. ``drop``
        applies dropout masks (a sampled pass); derivatives are then those of the thinned network.
        """
        p = self.architecture.dropout
        activation = ACTIVATIONS[self.architecture.activation]
        derivatives: list[Tensor] = []
        units: list[Tensor] = []
        h, slope = x, cast(Tensor | None, None)
        if self.log_flux is not None:
            h, slope = self.log_flux(x)
        if self.input_scale is not None:
            h = h * self.input_scale
        for layer in self.hidden:
            h, d = activation(layer(h))
            if drop and p > 0:
                keep = (torch.rand_like(h) >= p).to(h.dtype) / (1 - p)
                h, d = h * keep, d * keep
            units.append(h)
            derivatives.append(d)
        raw = self.out(h)
        if self.skip is not None:
            raw = raw + self.skip(torch.cat(units[:-1], dim=1))
        k = self.architecture.labels
        low, high = LOG_VARIANCE_RANGE
        bounded = raw[:, k:].clamp(low, high)
        # only variances at the upper bound are reported; those at the lower one are harmless
        clamped = (raw[:, k:].detach() > high).unflatten(1, (-1, k)).any(dim=1)
        excess = bounded[:, :k].exp()
        model = bounded[:, k:].exp() if bounded.shape[1] > k else torch.zeros_like(excess)
        chain = None
        if jacobian:
            chain, scatter = self._chain(units, derivatives)
            if self.input_scale is not None:
                chain = chain * self.input_scale
            if self.log_flux is not None and slope is not None:
                chain = self.log_flux.pull_back(chain, slope)
            if self.architecture.scatter == "dropout":
                model = scatter
        return LabelDistribution(raw[:, :k], excess, model, torch.zeros_like(model), clamped, chain)

    def _chain(self, units: list[Tensor], derivatives: list[Tensor]) -> tuple[Tensor, Tensor]:
        """dy/dh of the first layer's inputs, and the dropout variance by the delta method [N, K].

        See :meth:`xplabels.inference.network.Perceptron.forward`.
        """
        k, p = self.architecture.labels, self.architecture.dropout
        stars = len(units[0])
        by_unit = self.out.weight[:k].expand(stars, -1, -1)
        scatter = units[0].new_zeros((stars, k))
        skip_weights = []  # of each layer but the last
        if self.skip is not None:
            skip_weights = list(self.skip.weight[:k].split(self.architecture.hidden[:-1], dim=1))
        for number in reversed(range(len(units))):
            layer, h, d = self.hidden[number], units[number], derivatives[number]
            if number < len(skip_weights):
                by_unit = by_unit + skip_weights[number]
            if p > 0:
                scatter = scatter + p / (1 - p) * ((by_unit * h[:, None, :]) ** 2).sum(-1)
            weight: Tensor = layer.weight  # type: ignore[assignment]
            by_unit = (by_unit * d[:, None, :]) @ weight
        return by_unit, scatter

    @torch.no_grad()
    def to_perceptron(self) -> Perceptron:
        """The same network for prediction; the input scale goes into the first layer's weights."""
        tensors = {name: tensor.cpu() for name, tensor in self.state_dict().items()}
        if self.input_scale is not None:
            tensors["hidden.0.weight"] = tensors["hidden.0.weight"] * self.input_scale.cpu()
        arrays = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
        return Perceptron(self.architecture, arrays)
