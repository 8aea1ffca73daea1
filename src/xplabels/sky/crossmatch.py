"""The nearest neighbour on the sky after proper motion, and LSDB's interface to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.surveys.matching import MatchFlag

MAS_PER_DEGREE = 3.6e6
ARCSEC_PER_DEGREE = 3600.0
REFERENCE_EPOCH = 2016.0
"""Epoch of Gaia DR3's positions, Julian year, used if a table has no column ``ref_epoch``."""
ADDED = {"match_separation": "float64", "match_count": "int64", "match_flags": "int64"}
"""Columns that a match adds, and their types."""

Array = NDArray[np.float64]


def crossmatch(radius: float, epoch: float) -> Any:
    """An LSDB algorithm: the nearest row within ``radius`` [arcsec] of stars moved to ``epoch``."""
    import pandas as pd
    from lsdb.core.crossmatch.abstract_crossmatch_algorithm import AbstractCrossmatchAlgorithm

    types = {name: f"{kind}[pyarrow]" for name, kind in ADDED.items()}

    class Crossmatch(AbstractCrossmatchAlgorithm):  # type: ignore[misc]  # LSDB is untyped
        extra_columns = pd.DataFrame({name: [] for name in ADDED}).astype(types)

        def perform_crossmatch(
            self, crossmatch_args: Any
        ) -> tuple[NDArray[np.intp], NDArray[np.intp], Any]:
            """Rows of a pair of partitions (``CrossmatchArgs``), and the columns added."""
            left, info = crossmatch_args.left_df, crossmatch_args.left_catalog_info
            start, moved = _at_epoch(left, info, epoch)
            right, info = crossmatch_args.right_df, crossmatch_args.right_catalog_info
            candidates = unit_vectors(
                _floats(right[info.ra_column]), _floats(right[info.dec_column])
            )
            star, candidate, separation, count = nearest(moved, candidates, radius)
            shift = _arcsec(np.linalg.norm(moved[star] - start[star], axis=1))
            margin = crossmatch_args.right_margin_catalog_info
            margin_width = 0.0 if margin is None else margin.margin_threshold
            flags = np.where(count > 1, MatchFlag.SEVERAL, 0)
            flags |= np.where(shift + radius > margin_width, MatchFlag.FAST, 0)
            added = dict(zip(ADDED, (separation, count, flags), strict=True))
            return star, candidate, pd.DataFrame(added).astype(types)

    return Crossmatch()


def _at_epoch(frame: Any, info: Any, epoch: float) -> tuple[Array, Array]:
    """Directions [N, 3] as given and at ``epoch``; the same if the motion is not known."""
    ra, dec = _floats(frame[info.ra_column]), _floats(frame[info.dec_column])
    start = unit_vectors(ra, dec)
    if "pmra" not in frame.columns or "pmdec" not in frame.columns:
        return start, start
    since = _floats(frame["ref_epoch"]) if "ref_epoch" in frame.columns else REFERENCE_EPOCH
    pmra, pmdec = _floats(frame["pmra"]), _floats(frame["pmdec"])
    return start, propagate(ra, dec, pmra, pmdec, epoch - since)


def _floats(column: Any) -> Array:
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def propagate(ra: Array, dec: Array, pmra: Array, pmdec: Array, years: Array | float) -> Array:
    """Directions [N, 3] after some Julian years of uniform motion along a straight line in space.

    Positions are in degrees, motions in mas/yr, ``pmra`` with cos(dec) in it, as Gaia gives them;
    NaN counts as 0. Parallax and radial velocity are neglected; they matter by less than 0.1 arcsec
    except for some hundred of the nearest stars.
    """
    alpha, delta = np.radians(ra), np.radians(dec)
    east = np.stack([-np.sin(alpha), np.cos(alpha), np.zeros_like(alpha)])
    north = np.stack(
        [-np.sin(delta) * np.cos(alpha), -np.sin(delta) * np.sin(alpha), np.cos(delta)]
    )
    move = np.radians(np.nan_to_num(np.stack([pmra, pmdec])) * years / MAS_PER_DEGREE)
    moved = (unit_vectors(ra, dec).T + move[0] * east + move[1] * north).T
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True))


def unit_vectors(ra: Array, dec: Array) -> Array:
    """Directions [N, 3] of positions in degrees."""
    alpha, delta = np.radians(ra), np.radians(dec)
    return np.stack(
        [np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)], axis=1
    )


def nearest(
    stars: Array, candidates: Array, radius: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], Array, NDArray[np.int64]]:
    """The nearest candidate of each star within ``radius`` [arcsec], from unit vectors [N or M, 3].

    Returns, for the stars that have any: the row of each, the candidate's, their separation
    [arcsec], and how many candidates there are.
    """
    from scipy.spatial import cKDTree

    if not len(stars) or not len(candidates):
        empty = np.empty(0, np.intp)
        return empty, empty, np.empty(0), np.empty(0, np.int64)
    chord = 2 * np.sin(np.radians(radius / ARCSEC_PER_DEGREE) / 2)
    tree = cKDTree(candidates)
    distance, candidate = tree.query(stars, distance_upper_bound=chord)
    matched = np.flatnonzero(np.isfinite(distance))
    count = tree.query_ball_point(stars[matched], chord, return_length=True)
    separation = _arcsec(distance[matched])
    return matched, candidate[matched], separation, np.asarray(count, np.int64)


def _arcsec(chord: Array) -> Array:
    """The angle of a chord of the unit sphere."""
    return np.asarray(np.degrees(2 * np.arcsin(chord / 2)) * ARCSEC_PER_DEGREE)
