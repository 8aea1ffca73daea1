"""What is done in each pair of partitions of two HATS catalogues.

LSDB and pandas are imported where they are used: importing this module costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.surveys.matching import ARCSEC_PER_DEGREE, MatchFlag, nearest, propagate, unit_vectors

Frame = Any
"""A pandas data frame."""

EXTRA = {
    "match_separation": np.float64,
    "match_count": np.int64,
    "match_flags": np.int64,
    "match_row": np.int64,
}
"""Columns that a match adds, and their types."""


@dataclass(frozen=True)
class Moving:
    """The nearest row of the right catalogue at its epoch, with what makes it doubtful.

    Attributes
    ----------
    radius
        Arcsec.
    epoch
        Of the right catalogue's positions, Julian year.
    reference_epoch
        Of the left catalogue's, where it has no column ``ref_epoch``.
    """

    radius: float
    epoch: float
    reference_epoch: float

    def match(self, args: Any) -> tuple[NDArray[np.intp], NDArray[np.intp], Frame]:
        """Rows of both partitions of LSDB's ``CrossmatchArgs``, and the columns :data:`EXTRA`."""
        left, right = args.left_df, args.right_df
        ra, dec = _position(left, args.left_catalog_info)
        moved = unit_vectors(*self._moved(left, ra, dec))
        candidates = unit_vectors(*_position(right, args.right_catalog_info))
        star, candidate, separation, count = nearest(moved, candidates, self.radius)
        chord = np.linalg.norm(moved[star] - unit_vectors(ra[star], dec[star]), axis=1)
        shift = np.degrees(2 * np.arcsin(chord / 2)) * ARCSEC_PER_DEGREE
        margin = args.right_margin_catalog_info
        reach = 0.0 if margin is None else margin.margin_threshold
        flags = np.where(count > 1, MatchFlag.SEVERAL, 0)
        flags |= np.where(shift + self.radius > reach, MatchFlag.FAST, 0)
        values = (separation, count, flags, _identity(candidates[candidate]))
        return star, candidate, _frame(values)

    def _moved(
        self, left: Frame, ra: NDArray[np.float64], dec: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if "pmra" not in left.columns or "pmdec" not in left.columns:
            return ra, dec
        start: NDArray[np.float64] | float = self.reference_epoch
        if "ref_epoch" in left.columns:
            start = _floats(left["ref_epoch"])
        return propagate(ra, dec, _floats(left["pmra"]), _floats(left["pmdec"]), self.epoch - start)


def lsdb_algorithm(moving: Moving) -> Any:
    """``moving`` as LSDB wants it: an instance of a class of its own, which Dask can send."""
    from lsdb.core.crossmatch.abstract_crossmatch_algorithm import AbstractCrossmatchAlgorithm

    class Algorithm(AbstractCrossmatchAlgorithm):  # type: ignore[misc]  # LSDB is untyped
        extra_columns = _frame(tuple(np.empty(0, kind) for kind in EXTRA.values()))

        def perform_crossmatch(
            self, crossmatch_args: Any
        ) -> tuple[NDArray[np.intp], NDArray[np.intp], Frame]:
            return moving.match(crossmatch_args)

    return Algorithm()


def _frame(values: tuple[NDArray[Any], ...]) -> Frame:
    import pandas as pd
    import pyarrow as pa

    return pd.DataFrame(
        {
            name: pd.Series(
                column.astype(kind), dtype=pd.ArrowDtype(pa.from_numpy_dtype(np.dtype(kind)))
            )
            for (name, kind), column in zip(EXTRA.items(), values, strict=True)
        }
    )


def _position(frame: Frame, info: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return _floats(frame[info.ra_column]), _floats(frame[info.dec_column])


def _floats(column: Any) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _identity(directions: NDArray[np.float64]) -> NDArray[np.int64]:
    """A number that tells rows of a catalogue apart by their positions, in any partition."""
    bits = np.ascontiguousarray(directions).view(np.uint64)
    return (bits[:, 0] ^ np.left_shift(bits[:, 1], 1) ^ np.left_shift(bits[:, 2], 2)).view(np.int64)
