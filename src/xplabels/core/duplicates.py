"""Find values that occur several times, and the best row of a star that has several."""

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
    """The row of highest ``quality`` of each ``source_id`` among the rows in ``use``.

    Of equals the first is taken; NaN counts as lowest. The rows [M] are in ascending order.
    """
    candidates = np.flatnonzero(use)
    goodness = np.nan_to_num(quality[candidates], nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    # lexsort is stable and sorts by its last key first: by id, then descending quality, then row
    order = np.lexsort((-goodness, source_id[candidates]))
    _, first = np.unique(source_id[candidates][order], return_index=True)
    return np.sort(candidates[order[first]])
