"""How unlike the training set a star's inputs are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COMPONENTS = 40
"""Principal components of the scaled inputs that are compared; later ones are mostly noise."""
FLAGGED_SHARE = 0.01
"""Share of the training stars that the threshold leaves outside."""


@dataclass(frozen=True)
class Domain:
    """A Mahalanobis distance in the leading principal components of the training inputs."""

    whitening: NDArray[np.float64]  # [F, k]: scaled inputs to components of unit scatter
    threshold: float  # distance beyond which a star is flagged

    @classmethod
    def fit(cls, x: NDArray[np.float64]) -> Domain:
        """From the scaled, completed training inputs [N, F]."""
        _, spread, axes = np.linalg.svd(x, full_matrices=False)
        count = min(COMPONENTS, int((spread > 1e-6 * spread[0]).sum()))
        whitening = axes[:count].T * (np.sqrt(len(x)) / spread[:count])
        domain = cls(whitening, np.inf)
        return cls(whitening, float(np.quantile(domain.distance(x), 1 - FLAGGED_SHARE)))

    def distance(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Root mean square of the whitened components [N]: about 1 for a training star."""
        distance: NDArray[np.float64] = np.sqrt(np.mean((x @ self.whitening) ** 2, axis=1))
        return distance
