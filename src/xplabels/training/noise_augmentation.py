"""Noise augmentation: the same training star seen with more noise.

Noise of the star's own covariance, added to its spectrum, makes a fainter copy with known labels,
on its original's side of the split. The noise level is an input of the network, so bright stars
lose nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from xplabels.features import FeatureSet
from xplabels.features.scaling import NOISE_LIMIT, Scaling
from xplabels.network.propagation import Block, unpack

LARGEST_ERROR = 0.05
"""Of RP 0 relative to itself: ratios to a noisier one are no longer linear."""
JITTER = 1e-6
"""On the diagonal of a correlation matrix, whose float32 storage may have cost it its rank."""


class NoiseAugmentation:
    """Adds noise to training stars, in the inputs of the feature set and scaling of a model.

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
        size, where = (len(block),), block.x.device
        logarithm = torch.rand(size, device=where) * decades
        logarithm = logarithm * (torch.rand(size, device=where) < share)
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
