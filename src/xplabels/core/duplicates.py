"""Values that occur several times, and one row per star where a survey has several."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def repeated(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values [N] occur more than once."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse] > 1)


def best_rows(
    source_id: NDArray[np.int64], quality: NDArray[np.float64], use: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Of each ``source_id`` among the rows in ``use``, the row of highest ``quality``.

    The first of equals wins, NaN loses; the rows [M] come in ascending order.
    """
    candidates = np.flatnonzero(use)
    goodness = np.nan_to_num(quality[candidates], nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    # lexsort is stable and its last key counts first: by id, then falling quality, then row
    order = np.lexsort((-goodness, source_id[candidates]))
    _, first = np.unique(source_id[candidates][order], return_index=True)
    return np.sort(candidates[order[first]])
