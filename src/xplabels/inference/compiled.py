"""Compiled: J C J^T straight from packed correlations, which numpy would have to unpack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.jit import fast_jit


@fast_jit
def triangle_form(
    w: NDArray[np.float64], packed: NDArray[np.float32], form: NDArray[np.float64]
) -> None:
    """Sum over j < i of w_ki R_ij w_lj, star by star, in float64: large numbers cancel here.

    Parameters
    ----------
    w
        [N, K, n].
    packed
        Correlations R below the diagonal [N, n (n - 1) / 2], row by row.
    form
        Filled, [N, K, K].
    """
    stars, labels, width = w.shape
    for star in range(stars):
        form[star] = 0.0
        begin = 0
        for i in range(1, width):
            row = packed[star, begin : begin + i]
            begin += i
            for m in range(labels):
                column, total = w[star, m], 0.0
                for j in range(len(row)):
                    total += row[j] * column[j]
                for k in range(labels):
                    form[star, k, m] += w[star, k, i] * total
