"""Compiled products with packed correlations, which numpy would have to unpack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.jit import fast_jit


@fast_jit
def lower_product(w: NDArray[np.float64], packed: NDArray[np.float32]) -> NDArray[np.float64]:
    """w (L + 1/2) [N, K, n], in float64 because large terms cancel when it is multiplied by w.

    ``packed`` [N, n (n - 1) / 2] is L, the correlations below the diagonal, row by row.
    """
    product = 0.5 * w
    stars, labels, width = w.shape
    for star in range(stars):
        begin = 0
        for i in range(1, width):
            row = packed[star, begin : begin + i]
            begin += i
            for label in range(labels):
                sums, factor = product[star, label], w[star, label, i]
                for j in range(i):
                    sums[j] += row[j] * factor
    return product
