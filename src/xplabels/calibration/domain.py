"""Where a model may be used: how unlike the training set a star is, and which labels its kind has.

A table of known labels may lack one for every star of some kind, because it has no meaning there or
was never measured: the library has no [Fe/H] above 7000 K. A network predicts a number even there.
Here the share of training stars that have a label is mapped over the predicted effective
temperature and surface gravity; where it is small, averaged over a star's own predicted
distribution, the label is undefined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xplabels.core.arrays import Array
from xplabels.core.labels import LABELS

COMPONENTS = 40
"""Principal components of the scaled inputs that are compared; later ones are mostly noise."""
FLAGGED_SHARE = 0.01
"""Share of the training stars that the threshold leaves outside."""
KIND = ("teff", "logg")
"""Labels that define the kind of a star; without them, the first two labels of the user's own."""
STEP = 0.05
"""Step of the map of shares, in standard deviations of the training labels."""
LABELLED = 25
"""Expected number of stars with the label among the nearest training stars that give a share."""
NODES = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)])
WEIGHTS = np.array([1.0, 4.0, 1.0]) / 6.0
"""Gauss-Hermite quadrature over a star's predicted distribution, along each label of ``KIND``."""


@dataclass(frozen=True)
class Domain:
    """A Mahalanobis distance in the leading principal components of the training inputs."""

    whitening: Array  # [F, k]: scaled inputs to components of unit scatter
    threshold: float  # distance beyond which a star is flagged

    @classmethod
    def fit(cls, x: Array) -> Domain:
        """From the scaled, completed training inputs [N, F]."""
        _, spread, axes = np.linalg.svd(x, full_matrices=False)
        count = min(COMPONENTS, int((spread > 1e-6 * spread[0]).sum()))
        whitening = axes[:count].T * (np.sqrt(len(x)) / spread[:count])
        domain = cls(whitening, np.inf)
        return cls(whitening, float(np.quantile(domain.distance(x), 1 - FLAGGED_SHARE)))

    def distance(self, x: Array) -> Array:
        """Root mean square of the whitened components [N]: about 1 for a training star."""
        distance: Array = np.sqrt(np.mean((x @ self.whitening) ** 2, axis=1))
        return distance


@dataclass(frozen=True)
class LabelSupport:
    """For which predicted labels (the kind of star) each label is defined."""

    columns: tuple[int, ...]  # columns of the d labels that define the kind
    low: Array  # float64 [d]: the map's first point, in scaled labels
    # float32 [K, G1 (, G2)]: share of the training stars near each point that have label k,
    # relative to its share of all
    share: NDArray[np.float32]
    least: float  # share below which a label is undefined

    @classmethod
    def fit(
        cls, names: Sequence[str], labels: Array, known: NDArray[np.bool_], least: float
    ) -> LabelSupport | None:
        """From the scaled labels [N, K] predicted for training stars, and which are known [N, K].

        None where every label is known for every star, or no label defines the kind.
        """
        from scipy.spatial import cKDTree

        columns = tuple(k for k, name in enumerate(names) if name in KIND)
        columns = columns or tuple(k for k, name in enumerate(names) if name not in LABELS)[:2]
        if not columns or known.all() or not least:
            return None
        kind = labels[:, columns]
        ends = np.quantile(kind, [0.001, 0.999], axis=0).T  # without stray predictions
        axes = [np.arange(low, high + STEP, STEP) for low, high in ends]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        tree, among_all = cKDTree(kind), known.mean(axis=0)
        share = np.ones((len(names), *points.shape[:-1]), np.float32)
        for k in np.flatnonzero(among_all < 1):
            count = min(int(np.ceil(LABELLED / among_all[k])), len(kind))
            # row by row, to save memory: a rare label takes many neighbours of each point
            for row in np.ndindex(points.shape[:-2]):
                nearest = tree.query(points[row], [*range(1, count + 1)])[1]
                share[(k, *row)] = known[nearest, k].mean(axis=-1) / among_all[k]
        return cls(columns, np.array([axis[0] for axis in axes]), share, least)

    def defined(self, labels: Array, errors: Array) -> NDArray[np.bool_]:
        """Which labels [N, K] stars with these scaled labels and errors [N, K] have."""
        return np.asarray(self.least <= self.share_at(labels, errors).T)

    def share_at(self, labels: Array, errors: Array) -> Array:
        """The share [K, N], averaged over the distributions predicted for N stars."""
        share = np.zeros((len(self.share), len(labels)))
        last = np.array(self.share.shape[1:]) - 1
        for node in np.ndindex(*(len(NODES),) * len(self.columns)):
            kind = labels[:, self.columns] + NODES[list(node)] * errors[:, self.columns]
            cell = np.clip(np.rint((kind - self.low) / STEP), 0, last).astype(np.intp)
            share += WEIGHTS[list(node)].prod() * self.share[(slice(None), *cell.T)]
        return share
