"""Rows of a table by ``source_id``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.stars import check_unique

Rows = NDArray[np.intp]


class Lookup:
    """Finds the row of each star in a table.

    Parameters
    ----------
    source_id
        Int64 [N] of the table's rows. Zero and negative ids, which surveys write for stars without
        a Gaia source, are ignored.
    where
        The table's name in messages.

    Raises InputError if a source_id occurs twice.

    Examples
    --------
    >>> lookup = Lookup(np.array([30, -1, 10]))
    >>> stars, rows = lookup.find(np.array([10, 20, 30]))
    >>> stars.tolist(), rows.tolist()
    ([0, 2], [2, 0])
    """

    def __init__(self, source_id: NDArray[np.int64], where: object = None) -> None:
        real = np.flatnonzero(source_id > 0)
        check_unique(source_id[real], where)
        self._rows = real[np.argsort(source_id[real], kind="stable")]
        self._sorted = source_id[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, source_id: NDArray[np.int64]) -> tuple[Rows, Rows]:
        """Indices of those of ``source_id`` [M] that are in the table, and the row of each."""
        index = np.searchsorted(self._sorted, source_id)
        in_range = np.flatnonzero(index < len(self._sorted))
        stars = in_range[self._sorted[index[in_range]] == source_id[in_range]]
        return stars, self._rows[index[stars]]
