"""The uncertain network: labels, their excess variance, the Jacobian and the model's scatter.

Everything is in scaled units. The Jacobian dy/dx comes from the closed chain
W_out D_L W_L ... D_1 W_1 (D: derivatives of the activation), not from automatic differentiation;
being made of differentiable operations it can stand inside the loss. The same chain holds dy/dh of
every hidden unit, which gives the scatter under dropout without sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from xplabels.core.errors import InputError
from xplabels.features import products
from xplabels.network.log_flux import LogFlux

LOG_VARIANCE_RANGE = (-14.0, 6.0)
"""Bounds of ln(variance) in scaled units: keeps likelihoods and errors finite."""

ModelScatter = Literal["none", "dropout", "distilled"]


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


@dataclass(frozen=True)
class Architecture:
    """Shape of a network.

    Attributes
    ----------
    inputs
        Number of scaled inputs F.
    masks
        Number of further inputs that say which auxiliary inputs are missing (1) or not (0).
    noise
        Number of noise levels that the network is told after these: 2 or 0.
    hidden
        Width of each hidden layer.
    labels
        Number of labels K.
    activation
        A key of :data:`ACTIVATIONS`.
    dropout
        Probability that a hidden unit is dropped in training.
    scatter
        Where the model's part of the error comes from: ``dropout`` of this network, ``distilled``
        (K further outputs that learnt the scatter of an ensemble), or ``none``.
    samples, spectral
        Number of log-flux samples made of the first ``spectral`` inputs (see
        :mod:`xplabels.network.log_flux`), or 0.
    """

    inputs: int
    masks: int
    hidden: tuple[int, ...]
    labels: int
    activation: str = "silu"
    dropout: float = 0.0
    scatter: ModelScatter = "dropout"
    samples: int = 0
    spectral: int = 0
    noise: int = 0

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
        """Widths of what enters the first layer and of the hidden layers."""
        return (self.inputs + self.masks + self.noise + self.samples, *self.hidden)

    @property
    def flop_with_jacobian(self) -> int:
        """Floating-point operations a star: forward pass and Jacobian chain."""
        body = sum(a * b for a, b in pairwise(self.sizes)) + self.samples * self.spectral
        return 2 * (body * (1 + self.labels) + self.hidden[-1] * self.outputs)


class Outputs(NamedTuple):
    """What the network says of N stars, in scaled units.

    ``jacobian`` is None where it was not asked for. ``model`` is [N, K, K] where the full
    covariance was.
    """

    labels: Tensor  # [N, K]
    excess: Tensor  # [N, K] variance
    model: Tensor  # [N, K] variance
    jacobian: Tensor | None  # [N, K, F + masks + noise]
    clamped: Tensor  # bool [N]


class UncertainNetwork(nn.Module):
    """A multilayer perceptron that gives labels and their excess variance (FS24, section 3.1)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.log_flux: LogFlux | None = None
        if architecture.samples:
            self.log_flux = LogFlux(architecture.samples, architecture.spectral)
        self.emphasis: Tensor | None = None
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(architecture.sizes))
        self.out = nn.Linear(architecture.hidden[-1], architecture.outputs)

    def forward(
        self,
        x: Tensor,
        *,
        jacobian: bool = False,
        drop: bool = False,
        shared: bool = False,
        full: bool = False,
    ) -> Outputs:
        """Outputs for scaled inputs, masks and noise levels [N, F + masks + noise].

        Parameters
        ----------
        jacobian
            Whether to give dy/dx and, for ``scatter = "dropout"``, the model variance.
        drop
            Whether to draw dropout masks (a sampled pass); derivatives are then those of the
            thinned network.
        shared
            Whether all stars get the same dropout mask, instead of one each.
        full
            Whether the model's part is the covariance of the labels; where a network only
            knows variances, it is diagonal.
        """
        p = self.architecture.dropout
        activation = ACTIVATIONS[self.architecture.activation]
        derivatives: list[Tensor] = []
        units: list[Tensor] = []
        h, slope = x, cast(Tensor | None, None)
        if self.log_flux is not None:
            h, slope = self.log_flux(x)
        if self.emphasis is not None:
            h = h * self.emphasis
        for layer in self.hidden:
            h, d = activation(layer(h))
            if drop and p > 0:
                # one mask for all is drawn where any machine can draw the same
                drawn = torch.rand(h[:1].shape, dtype=h.dtype) if shared else torch.rand_like(h)
                keep = (drawn.to(h.device) >= p).to(h.dtype) / (1 - p)
                h, d = h * keep, d * keep
            units.append(h)
            derivatives.append(d)
        raw = self.out(h)
        k = self.architecture.labels
        low, high = LOG_VARIANCE_RANGE
        bounded = raw[:, k:].clamp(low, high)
        # a variance at its floor is no cause for alarm: the upper bound is
        clamped = (raw[:, k:].detach() > high).any(dim=1)
        excess = bounded[:, :k].exp()
        model = bounded[:, k:].exp() if bounded.shape[1] > k else torch.zeros_like(excess)
        chain = None
        if jacobian:
            chain, scatter = self._chain(units, derivatives, full)
            if self.emphasis is not None:
                chain = chain * self.emphasis
            if self.log_flux is not None and slope is not None:
                chain = self.log_flux.pull_back(chain, slope)
            if self.architecture.scatter == "dropout":
                return Outputs(raw[:, :k], excess, scatter, chain, clamped)
        if full:
            model = torch.diag_embed(model)
        return Outputs(raw[:, :k], excess, model, chain, clamped)

    def emphasise(self, emphasis: Tensor) -> None:
        """Multiply what enters the first layer by ``emphasis`` while training goes on.

        The same functions can be learnt, but an input that comes in larger is learnt from sooner
        and restrained less.
        """
        self.emphasis = emphasis

    @torch.no_grad()
    def fold_scale_into_weights(self) -> None:
        """Put the emphasis into the first layer's weights: the same outputs without it."""
        if self.emphasis is not None:
            first = cast(nn.Linear, self.hidden[0])
            first.weight.mul_(self.emphasis)
            self.emphasis = None

    def _chain(
        self, units: list[Tensor], derivatives: list[Tensor], full: bool
    ) -> tuple[Tensor, Tensor]:
        """dy by what enters the first layer, and the dropout variance by the delta method [N, K].

        With inverted dropout a unit h becomes h b / (1 - p), of variance h^2 p / (1 - p), so to
        first order Cov(y_k, y_l) = p / (1 - p) sum dy_k/dh dy_l/dh h^2 over all hidden units.
        """
        k, p = self.architecture.labels, self.architecture.dropout
        stars = len(units[0])
        by_unit = self.out.weight[:k].expand(stars, -1, -1)
        shape = (stars, k, k) if full else (stars, k)
        scatter = units[0].new_zeros(shape)
        for layer, h, d in zip(
            reversed(self.hidden), reversed(units), reversed(derivatives), strict=True
        ):
            if p > 0:
                moved = by_unit * h[:, None, :]
                scatter = scatter + p / (1 - p) * products(moved, moved, full)
            weight: Tensor = layer.weight  # type: ignore[assignment]
            by_unit = (by_unit * d[:, None, :]) @ weight
        return by_unit, scatter


def dropout_passes(
    network: UncertainNetwork, x: Tensor, passes: int, generator_seed: int = 0, full: bool = False
) -> tuple[Tensor, Tensor]:
    """Median and variance [N, K] of ``passes`` forward passes with dropout (FS24, 3.1.1).

    With ``full`` the covariance [N, K, K] takes the variance's place.

    Each pass is one thinned network that all stars go through: what is said of a star then does
    not depend on the stars beside it. The state of torch's random generator is left as it was.
    """
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(generator_seed)
        drawn = torch.stack([network(x, drop=True, shared=True).labels for _ in range(passes)])
    return drawn.quantile(0.5, dim=0), sample_variance(drawn, full)


def sample_variance(drawn: Tensor, full: bool = False) -> Tensor:
    """Variance [N, K] of samples [S, N, K], or (``full``) their covariance [N, K, K]."""
    if not full:
        return drawn.var(dim=0)
    off = (drawn - drawn.mean(dim=0)).permute(1, 2, 0)
    return products(off, off, full) / (len(drawn) - 1)
