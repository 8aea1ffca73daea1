"""What packed correlations add to the variances along directions, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.jit import fast_jit


def correlated_part(
    measured: NDArray[np.float64],
    reference: NDArray[np.float64],
    projected: NDArray[np.float64],
    relative: NDArray[np.float64],
    packed: NDArray[np.float32],
) -> NDArray[np.float64]:
    """As ``_correlated_part`` of :mod:`xplabels.forward.directions`, in single precision.

    This is enough: the noise of RP 0, which all coefficients share, has been subtracted from the
    factors, so no large terms cancel in the sum.
    """
    a, b, c, d = (array.astype(np.float32) for array in (measured, reference, projected, relative))
    return _correlated_part(a, b, c, d, packed)


@fast_jit
def _correlated_part(
    measured: NDArray[np.float32],
    reference: NDArray[np.float32],
    projected: NDArray[np.float32],
    relative: NDArray[np.float32],
    packed: NDArray[np.float32],
) -> NDArray[np.float64]:
    width, count = measured.shape
    stars = len(projected)
    total = np.empty((stars, count), np.float64)
    weights = np.empty((width, count), np.float32)
    sums, variance = np.empty(count, np.float32), np.empty(count, np.float32)
    for star in range(stars):
        variance[:] = 0.0
        begin = 0
        for i in range(width):
            error = relative[star, i]
            for j in range(count):
                weights[i, j] = (measured[i, j] - projected[star, j] * reference[i]) * error
                sums[j] = 0.0
            row = packed[star, begin : begin + i]
            begin += i
            in_fours = i - i % 4
            for other in range(0, in_fours, 4):  # four at a time, to write each sum less often
                a, b, c, d = row[other], row[other + 1], row[other + 2], row[other + 3]
                for j in range(count):
                    sums[j] += (
                        a * weights[other, j] + b * weights[other + 1, j]
                        + c * weights[other + 2, j] + d * weights[other + 3, j]
                    )  # fmt: skip
            for other in range(in_fours, i):
                a = row[other]
                for j in range(count):
                    sums[j] += a * weights[other, j]
            for j in range(count):
                variance[j] += 2 * weights[i, j] * sums[j]
        for j in range(count):
            total[star, j] = variance[j]
    return total
