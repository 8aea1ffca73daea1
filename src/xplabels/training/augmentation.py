"""Augmentation of the training stars: the same star behind more or less dust, or with more noise.

A star's labels do not depend on the dust in front of it: stars reddened at random teach a network
to separate dust from temperature and composition. Noise of the star's own covariance, added to its
spectrum, makes a fainter copy with known labels; the noise level is an input of the network, so
the predictions of bright stars do not suffer. Each copy stays in its original's part of the split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xplabels.core.stars import SampledSpectra, Stars
from xplabels.features import AUXILIARY, EXTINCTION_SLOPE, Features, FeatureSet
from xplabels.features.projection import FLUX_UNIT, Projection
from xplabels.features.scaling import NOISE_LIMIT, Scaling
from xplabels.instrument import MAGNITUDES, band_fluxes, extinction
from xplabels.network.propagation import Block, unpack

REDDENED_SHARE = 0.7
"""Share of the stars in a batch that are reddened; the rest stay as observed."""
LARGEST_ERROR = 0.05
"""Largest relative error of RP 0: ratios to a noisier one are no longer linear."""
JITTER = 1e-6
"""Added to the diagonal of a correlation matrix, which float32 storage may have made singular."""


class Dust:
    """Reddens training stars, in the scaled inputs of a model in training.

    ``stars`` and ``features`` are of all N stars; ``projection`` is the sampling matrix for these
    widths, with its inverse. Raises :class:`InputError` if ``dust_extinction`` is not installed.
    """

    def __init__(
        self, stars: Stars, features: Features, feature_set: FeatureSet, scaling: Scaling,
        projection: Projection, device: str = "cpu",
    ) -> None:  # fmt: skip
        n = feature_set.n_spectral
        self.n, self.r0 = n, feature_set.widths[0]
        self.auxiliary = feature_set.auxiliary
        coefficients = features.x[:, :n] * features.divisor[:, None]
        if isinstance(stars.spectra, SampledSpectra):
            flux = stars.spectra.flux
        else:
            flux = coefficients @ projection.design.T
        curve, by_band = extinction(projection.wavelength)

        def tensor(array: NDArray[np.float64]) -> Tensor:
            return torch.tensor(array, dtype=torch.float32, device=device)

        self.coefficients, self.flux = tensor(coefficients), tensor(flux / FLUX_UNIT)
        self.from_flux = tensor(projection.from_flux.T * FLUX_UNIT)
        self.curve, self.by_band = tensor(curve), by_band
        self.bands = {
            name: tensor(band) for name, band in zip(MAGNITUDES, band_fluxes()[0], strict=True)
        }
        self.mean, self.scale = tensor(scaling.x_mean), tensor(scaling.x_scale)
        # without a good divisor RP 0 the spectrum cannot be reddened
        self.possible = torch.as_tensor(features.is_ratio & (features.divisor > 0), device=device)

    def draw(self, count: int, scatter: float) -> Tensor:
        """Random changes of the extinction A_V [count] (mag), from torch's generator."""
        device = self.flux.device
        chosen = torch.rand(count, device=device) < REDDENED_SHARE
        return torch.randn(count, device=device) * scatter * chosen

    def redden(self, block: Block, rows: Tensor, a_v: Tensor) -> Block:
        """The block of stars ``rows`` behind ``a_v`` [N] magnitudes of further dust.

        Relative errors stay the same, as if the star were observed for longer.
        """
        a_v = torch.where(self.possible[rows], a_v, torch.zeros_like(a_v))
        before = self.coefficients[rows]
        transmission = torch.exp(-0.4 * np.log(10) * a_v[:, None] * self.curve)
        after = before + ((transmission - 1) * self.flux[rows]) @ self.from_flux
        spectral = after / after[:, self.r0 : self.r0 + 1]
        unmoved = (a_v == 0) | (after[:, self.r0] <= 0)
        spectral = torch.where(unmoved[:, None], block.errors.x[:, : self.n], spectral)
        shifts = self._shifts(before, after, torch.where(unmoved, 0.0, a_v))
        auxiliary = [
            self._auxiliary(name, block.errors.x[:, self.n + a], shifts)
            for a, name in enumerate(self.auxiliary)
        ]
        x = torch.cat([spectral, *(column[:, None] for column in auxiliary)], dim=1)
        scaled = torch.nan_to_num((x - self.mean) / self.scale)
        return replace(block, x=scaled, errors=block.errors.with_x(x))

    def _shifts(self, before: Tensor, after: Tensor, a_v: Tensor) -> dict[str, Tensor]:
        """Change [N] of each magnitude."""
        shifts = {name: a_v * ratio for name, ratio in self.by_band.items()}
        for name, band in self.bands.items():
            ratio = (after @ band) / (before @ band)
            change = -2.5 * torch.log10(ratio.clamp(min=1e-3))
            shifts[name] = torch.where(a_v == 0, torch.zeros_like(a_v), change)
        return shifts

    def _auxiliary(self, name: str, value: Tensor, shifts: Mapping[str, Tensor]) -> Tensor:
        """An auxiliary input after its magnitudes have shifted."""
        if name != "m_pseudo":
            blue, red = AUXILIARY[name]
            return value + shifts[blue] - shifts[red]
        rp0 = shifts["phot_rp_mean_mag"] - EXTINCTION_SLOPE * (shifts["h_m"] - shifts["w2mpro"])
        return value * 10 ** (0.2 * rp0)


class NoiseAugmentation:
    """Adds noise to training stars, in the scaled inputs of a model in training.

    ``projection`` is P [n, n], if the features have one.
    """

    def __init__(
        self, feature_set: FeatureSet, scaling: Scaling, projection: Tensor | None,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        self.n, self.r0 = feature_set.n_spectral, feature_set.widths[0]
        self.projection = projection
        self.mean, self.scale, self.noise_scale = (
            torch.as_tensor(array, dtype=torch.float32, device=device)
            for array in (scaling.x_mean[: self.n], scaling.x_scale[: self.n], scaling.noise_scale)
        )

    def draw(self, block: Block, share: float, decades: float) -> Tensor:
        """Factors of the errors [N]: for ``share`` of the stars, up to 10^``decades``.

        No star becomes fainter than the range of the noise levels.
        """
        size, device = (len(block),), block.x.device
        logarithm = torch.rand(size, device=device) * decades
        logarithm = logarithm * (torch.rand(size, device=device) < share)
        largest = ((NOISE_LIMIT - block.noise) * self.noise_scale).amin(dim=1)
        error = block.errors.errors[:, self.r0] / block.errors.divisor.abs()
        largest = torch.minimum(largest, torch.log10(LARGEST_ERROR / error)).clamp(min=0.0)
        return 10 ** torch.minimum(logarithm, largest)

    def dim(self, block: Block, factor: Tensor) -> Block:
        """The block with errors ``factor`` [N] times as large, and noise to match."""
        errors = block.errors
        relative = errors.errors / errors.divisor[:, None]
        added = self._noise(block) * relative * (factor**2 - 1).clamp(min=0.0).sqrt()[:, None]
        if self.projection is not None:
            added = added @ self.projection.T
        before, rest = errors.x[:, : self.n], errors.x[:, self.n :]
        spectral = (before + added) / (1 + added[:, self.r0 : self.r0 + 1])
        dimmed = (factor > 1) & errors.is_ratio.bool()
        spectral = torch.where(dimmed[:, None], spectral, before)
        factor = torch.where(dimmed, factor, torch.ones_like(factor))
        scaled = (spectral - self.mean) / self.scale
        return replace(
            block,
            x=torch.cat([scaled, block.x[:, self.n :]], dim=1),
            errors=errors.with_x(torch.cat([spectral, rest], dim=1), factor[:, None]),
            noise=block.noise + torch.log10(factor)[:, None] / self.noise_scale,
        )

    def _noise(self, block: Block) -> Tensor:
        """Unit noise [N, n] with the correlations of each star's coefficients."""
        packed = block.errors.correlations
        drawn = torch.randn(len(block), self.n, device=block.x.device)
        if packed is None:
            return drawn
        parts = []
        bands = drawn.split((self.r0, self.n - self.r0), dim=1)
        for correlations, white in zip(packed, bands, strict=True):
            unit = torch.eye(white.shape[1], device=white.device)
            root, failed = torch.linalg.cholesky_ex(unpack(correlations, len(unit)) + JITTER * unit)
            root = torch.where((failed == 0)[:, None, None], root, unit)
            parts.append((root @ white[:, :, None])[:, :, 0])
        return torch.cat(parts, dim=1)
