"""What is done in each pair of partitions; a module of its own, which Dask's workers import.

Importing it imports LSDB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from lsdb.core.crossmatch.abstract_crossmatch_algorithm import AbstractCrossmatchAlgorithm
from numpy.typing import NDArray

from xplabels.matching import ARCSEC_PER_DEGREE, MatchFlag, nearest, propagate, unit_vectors


def _column(values: NDArray[Any], kind: pa.DataType) -> pd.Series:
    return pd.Series(values, dtype=pd.ArrowDtype(kind))


class MovingCrossmatch(AbstractCrossmatchAlgorithm):  # type: ignore[misc]  # LSDB is untyped
    """The nearest row of the right catalogue at its epoch, with what makes it doubtful.

    Parameters
    ----------
    radius
        Arcsec.
    epoch
        Of the right catalogue's positions, Julian year.
    reference_epoch
        Of the left catalogue's, where it has no column ``ref_epoch``.
    """

    extra_columns = pd.DataFrame(
        {
            "match_separation": _column(np.empty(0), pa.float64()),
            "match_count": _column(np.empty(0, np.int64), pa.int64()),
            "match_flags": _column(np.empty(0, np.int64), pa.int64()),
            "match_row": _column(np.empty(0, np.int64), pa.int64()),
        }
    )

    def __init__(self, radius: float, epoch: float, reference_epoch: float) -> None:
        super().__init__()
        self.radius, self.epoch, self.reference_epoch = radius, epoch, reference_epoch

    def perform_crossmatch(
        self, crossmatch_args: Any
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], pd.DataFrame]:
        """Rows of both partitions, and the columns of :attr:`extra_columns`."""
        args = crossmatch_args
        left, right = args.left_df, args.right_df
        ra, dec = _position(left, args.left_catalog_info)
        moved_ra, moved_dec = self._moved(left, ra, dec)
        candidates = unit_vectors(*_position(right, args.right_catalog_info))
        moved = unit_vectors(moved_ra, moved_dec)
        star, candidate, separation, count = nearest(moved, candidates, self.radius)
        chord = np.linalg.norm(moved[star] - unit_vectors(ra[star], dec[star]), axis=1)
        shift = np.degrees(2 * np.arcsin(chord / 2)) * ARCSEC_PER_DEGREE
        margin = args.right_margin_catalog_info
        reach = 0.0 if margin is None else margin.margin_threshold
        flags = np.where(count > 1, MatchFlag.SEVERAL, 0)
        flags |= np.where(shift + self.radius > reach, MatchFlag.FAST, 0)
        extra = pd.DataFrame(
            {
                "match_separation": _column(separation, pa.float64()),
                "match_count": _column(count, pa.int64()),
                "match_flags": _column(flags.astype(np.int64), pa.int64()),
                "match_row": _column(_identity(candidates[candidate]), pa.int64()),
            }
        )
        return star, candidate, extra

    def _moved(
        self, left: pd.DataFrame, ra: NDArray[np.float64], dec: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if "pmra" not in left.columns or "pmdec" not in left.columns:
            return ra, dec
        start: NDArray[np.float64] | float = self.reference_epoch
        if "ref_epoch" in left.columns:
            start = _floats(left["ref_epoch"])
        return propagate(ra, dec, _floats(left["pmra"]), _floats(left["pmdec"]), self.epoch - start)


def _position(frame: pd.DataFrame, info: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return _floats(frame[info.ra_column]), _floats(frame[info.dec_column])


def _floats(column: pd.Series) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _identity(directions: NDArray[np.float64]) -> NDArray[np.int64]:
    """A number that tells rows of a catalogue apart by their positions, in any partition."""
    bits = np.ascontiguousarray(directions).view(np.uint64)
    return (bits[:, 0] ^ np.left_shift(bits[:, 1], 1) ^ np.left_shift(bits[:, 2], 2)).view(np.int64)
