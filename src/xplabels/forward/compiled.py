"""Compiled: the part of variances that packed correlations make."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.jit import fast_jit


def correlated_part(
    measured: NDArray[np.float64],
    reference: NDArray[np.float64],
    place: NDArray[np.float64],
    relative: NDArray[np.float64],
    packed: NDArray[np.float32],
) -> NDArray[np.float64]:
    """As the plain one in :mod:`xplabels.forward.directions`, in single precision.

    What is multiplied has lost the noise that all coefficients share: nothing large cancels.
    """
    a, b, c, d = (array.astype(np.float32) for array in (measured, reference, place, relative))
    return _correlated_part(a, b, c, d, packed)


@fast_jit
def _correlated_part(
    measured: NDArray[np.float32],
    reference: NDArray[np.float32],
    place: NDArray[np.float32],
    relative: NDArray[np.float32],
    packed: NDArray[np.float32],
) -> NDArray[np.float64]:
    width, count = measured.shape
    stars = len(place)
    total = np.empty((stars, count), np.float64)
    weights = np.empty((width, count), np.float32)
    sums, found = np.empty(count, np.float32), np.empty(count, np.float32)
    for star in range(stars):
        found[:] = 0.0
        begin = 0
        for i in range(width):
            error = relative[star, i]
            for j in range(count):
                weights[i, j] = (measured[i, j] - place[star, j] * reference[i]) * error
                sums[j] = 0.0
            row = packed[star, begin : begin + i]
            begin += i
            whole = i - i % 4
            for other in range(0, whole, 4):  # four at a time: the sums are written once for them
                a, b, c, d = row[other], row[other + 1], row[other + 2], row[other + 3]
                for j in range(count):
                    sums[j] += (
                        a * weights[other, j] + b * weights[other + 1, j]
                        + c * weights[other + 2, j] + d * weights[other + 3, j]
                    )  # fmt: skip
            for other in range(whole, i):
                a = row[other]
                for j in range(count):
                    sums[j] += a * weights[other, j]
            for j in range(count):
                found[j] += 2 * weights[i, j] * sums[j]
        for j in range(count):
            total[star, j] = found[j]
    return total
