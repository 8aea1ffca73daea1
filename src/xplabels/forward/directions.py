"""Directions in which spectra are compared, and a star's noise in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xplabels.core.arrays import Array
from xplabels.core.jit import available
from xplabels.features import Features
from xplabels.inference import COMPILED_FROM


@dataclass(frozen=True)
class Directions:
    """k linear combinations of the normalised coefficients x, also in terms of the measured ones.

    They differ from x times RP 0 where the features have a projection.
    """

    centre: Array  # float64 [n]: the normalised spectrum at position 0
    axes: Array  # float64 [n, k]: weights of the normalised coefficients
    measured: Array  # float64 [n, k]: the axes as weights of the measured coefficients
    reference: Array  # float64 [n]: RP 0 as weights of the measured coefficients

    @classmethod
    def of(cls, centre: Array, axes: Array, r0: int, projection: Array | None) -> Directions:
        """Directions along ``axes`` [n, k]; RP 0 is column ``r0``, ``projection`` P [n, n]."""
        p = np.eye(len(centre)) if projection is None else projection
        return cls(centre, axes, p.T @ axes, p[r0].copy())

    def project(self, features: Features) -> Array:
        """Positions [N, k] of stars with complete spectra."""
        positions: Array = features.x[:, : len(self.centre)] @ self.axes - self.centre @ self.axes
        return positions

    def noise(self, features: Features, positions: Array, exact: int | None = None) -> Array:
        """Variances [N, k] of the ``positions`` by the archive's covariance of the coefficients.

        To first order, as in :func:`xplabels.inference.input_variance`: every coefficient is
        divided by RP 0 and shares its noise. Correlations, if known, count in the first ``exact``
        directions (None: in all).
        """
        # of p = x . axis, the derivative by c_i is (measured_i - p reference_i) / r0
        projected = (positions + self.centre @ self.axes) * features.is_ratio[:, None]
        relative = features.errors / features.divisor[:, None]
        squares = relative**2
        variance: Array = squares @ self.measured**2
        variance -= 2 * projected * (squares @ (self.measured * self.reference[:, None]))
        variance += projected**2 * (squares @ self.reference**2)[:, None]
        if features.correlations is None:
            return np.maximum(variance, 0.0)
        correlated = _correlated_part
        if len(features) >= COMPILED_FROM and available():
            from xplabels.forward.compiled import correlated_part as correlated
        begin = 0
        for packed in features.correlations:
            width = round((1 + np.sqrt(1 + 8 * packed.shape[1])) / 2)
            band = slice(begin, begin + width)
            begin += width
            variance[:, :exact] += correlated(
                self.measured[band, :exact], self.reference[band], projected[:, :exact],
                relative[:, band], packed,
            )  # fmt: skip
        return np.maximum(variance, 0.0)


def _correlated_part(
    measured: Array,
    reference: Array,
    projected: Array,
    relative: Array,
    packed: NDArray[np.float32],
) -> Array:
    """What correlations add to the variances [N, k] in one band of ``width`` coefficients.

    ``measured`` [width, k], ``reference`` [width], ``projected`` [N, k], ``relative`` errors
    [N, width], ``packed`` correlations [N, width (width - 1) / 2].
    """
    width = len(reference)
    lower = np.zeros((len(packed), width, width))
    rows, columns = np.tril_indices(width, -1)
    lower[:, rows, columns] = packed
    weights = (measured.T - projected[:, :, None] * reference) * relative[:, None, :]
    twice: Array = 2 * np.einsum("nki,nki->nk", weights @ lower, weights)
    return twice
