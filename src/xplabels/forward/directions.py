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
    """k linear combinations of normalised coefficients, and of the measured ones behind them."""

    centre: Array  # float64 [n]: the spectrum they start from
    axes: Array  # float64 [n, k], by the normalised coefficients x
    # float64 [n, k] and [n]: the axes and RP 0 by the archive's coefficients, which differ from x
    # times RP 0 where the features have a projection
    measured: Array
    reference: Array

    @classmethod
    def of(cls, centre: Array, axes: Array, r0: int, projection: Array | None) -> Directions:
        """Along ``axes`` [n, k]; ``r0`` is the column of RP 0, ``projection`` P [n, n] or None."""
        p = np.eye(len(centre)) if projection is None else projection
        return cls(centre, axes, p.T @ axes, p[r0].copy())

    def project(self, features: Features) -> Array:
        """Position [N, k] of stars whose spectra are whole."""
        shifted: Array = features.x[:, : len(self.centre)] @ self.axes - self.centre @ self.axes
        return shifted

    def noise(self, features: Features, positions: Array, exact: int | None = None) -> Array:
        """Variance [N, k] by the archive's covariance of the coefficients, at ``positions``.

        First-order, as :func:`xplabels.inference.input_variance`: RP 0 divides every coefficient
        and its noise is in each. Correlations count where they are known, in the first ``exact``
        directions (None: in all).
        """
        # of p = x . axis, the derivative by c_i is (measured_i - p reference_i) / r0
        place = (positions + self.centre @ self.axes) * features.is_ratio[:, None]
        relative = features.errors / features.divisor[:, None]
        squares = relative**2
        variance: Array = squares @ self.measured**2
        variance -= 2 * place * (squares @ (self.measured * self.reference[:, None]))
        variance += place**2 * (squares @ self.reference**2)[:, None]
        if features.correlations is None:
            return np.maximum(variance, 0.0)
        correlated = _plain
        if len(features) >= COMPILED_FROM and available():
            from xplabels.forward.compiled import correlated_part as correlated
        begin = 0
        for packed in features.correlations:
            width = round((1 + np.sqrt(1 + 8 * packed.shape[1])) / 2)
            band = slice(begin, begin + width)
            begin += width
            variance[:, :exact] += correlated(
                self.measured[band, :exact], self.reference[band], place[:, :exact],
                relative[:, band], packed,
            )  # fmt: skip
        return np.maximum(variance, 0.0)


def _plain(
    measured: Array, reference: Array, place: Array, relative: Array, packed: NDArray[np.float32]
) -> Array:
    """What correlations add to the variances [N, k] in one band of ``width`` coefficients.

    ``measured`` [width, k], ``reference`` [width], ``place`` [N, k], ``relative`` errors
    [N, width], ``packed`` correlations [N, width (width - 1) / 2].
    """
    width = len(reference)
    lower = np.zeros((len(packed), width, width))
    rows, columns = np.tril_indices(width, -1)
    lower[:, rows, columns] = packed
    weights = (measured.T - place[:, :, None] * reference) * relative[:, None, :]
    twice: Array = 2 * np.einsum("nki,nki->nk", weights @ lower, weights)
    return twice
