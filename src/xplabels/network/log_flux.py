"""Inputs that are easy on a network: the logarithm of the sampled flux, beside the coefficients.

Dust multiplies a spectrum and temperature tilts it: in the logarithm both add, where in the
coefficients they mix. Each sample is a fixed linear combination of the scaled spectral inputs, so
nothing new is measured; the network merely need not learn to take logarithms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SOFTENING = 0.04
"""Flux, relative to the mean over the training stars, below which the logarithm turns linear."""


class LogFlux(nn.Module):
    """Scaled log flux at S wavelengths, with its derivative.

    g = asinh(f / s), f = W x + b: an asinh magnitude (Lupton et al. 1999), which goes on smoothly
    where noise makes the flux negative.

    Parameters
    ----------
    samples
        S.
    spectral
        The first inputs, which are BP and RP coefficients.
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
        """Set up for a training set.

        Parameters
        ----------
        design
            Flux of unit coefficients [S, n].
        x_mean, x_scale
            Of the spectral inputs [n].
        x
            Scaled training inputs [N, >= n].
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
