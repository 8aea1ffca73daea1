"""Which row of a survey is which Gaia source: by identifiers that an archive's table relates.

Where no such table exists (unWISE), stars are matched on the sky: :mod:`xplabels.sky`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.io.plain import read_columns

MATCH_FLAGS = "match_flags"
"""The column of :class:`MatchFlag` that a matched table has."""


class MatchFlag(IntFlag):
    """Why a match may be wrong; 0 where it was the only one possible."""

    SEVERAL = 1 << 0
    SHARED = 1 << 1
    FAST = 1 << 2


MEANING: dict[MatchFlag, str] = {
    MatchFlag.SEVERAL: "several candidates: the nearest was taken",
    MatchFlag.SHARED: "the same candidate is another star's best match too",
    MatchFlag.FAST: "moves farther than the catalogue's margin: candidates may be unseen",
}


@dataclass(frozen=True)
class Neighbours:
    """M pairs of a survey's identifier and a Gaia source, one or more a source.

    Attributes
    ----------
    key
        The survey's identifiers: int64, or text.
    source_id
        Int64 [M].
    separation
        Float64 [M], arcsec or mas, whatever the table has: only its order counts; NaN: unknown.
    mates
        Int64 [M]: how many other Gaia sources the archive matched to the same key; -1: unknown.
    """

    key: NDArray[Any]
    source_id: NDArray[np.int64]
    separation: NDArray[np.float64]
    mates: NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """Pairs of a row of one table and a Gaia source, each source once.

    Attributes
    ----------
    source_id, row
        Int64 [M], in ascending order of source_id, and the row of the survey's table.
    flags
        Uint8 [M] of :class:`MatchFlag`.
    """

    source_id: NDArray[np.int64]
    row: NDArray[np.intp]
    flags: NDArray[np.uint8]


def told(matches: int, flags: NDArray[np.uint8]) -> str:
    """How many matches, and how many of them have each flag."""
    counts = [
        f"{int((flags & flag.value > 0).sum())} {flag.name} ({text})"
        for flag, text in MEANING.items()
        if (flags & flag.value).any()
    ]
    return "; ".join([f"{matches} matches", *counts])


SOURCE_COLUMNS = ("source_id", "dr3_source_id")
KEY_COLUMNS = ("original_ext_source_id", "dr2_source_id", "key")
DISTANCE_COLUMNS = ("angular_distance", "match_separation")


def read_neighbours(path: str | Path, key_is_gaia: bool) -> Neighbours:
    """A table of neighbours from the Gaia archive, or one with columns ``key`` and ``source_id``.

    ``tmass_psc_xsc_best_neighbour`` and ``allwise_best_neighbour`` (``source_id,
    original_ext_source_id, angular_distance, number_of_mates``) and ``dr2_neighbourhood``
    (``dr2_source_id, dr3_source_id, angular_distance``) are read as they are.

    Raises
    ------
    InputError
        If it cannot be read or lacks one of the identifiers.
    """
    integers = dict.fromkeys(SOURCE_COLUMNS, 0) | {"number_of_mates": -1}
    if key_is_gaia:
        integers |= dict.fromkeys(KEY_COLUMNS, 0)
    wanted = (*SOURCE_COLUMNS, *KEY_COLUMNS, *DISTANCE_COLUMNS, "number_of_mates")
    columns = read_columns(path, wanted, integers)
    source = next((columns[name] for name in SOURCE_COLUMNS if name in columns), None)
    key = next((columns[name] for name in KEY_COLUMNS if name in columns), None)
    if source is None or key is None:
        raise InputError(
            "is no table of neighbours",
            where=path,
            remedy=f"give one of {', '.join(KEY_COLUMNS)} and one of {', '.join(SOURCE_COLUMNS)}",
        )
    rows = len(source)
    distance = next((columns[name] for name in DISTANCE_COLUMNS if name in columns), None)
    return Neighbours(
        key if key_is_gaia else _text(key),
        source,
        np.full(rows, np.nan) if distance is None else np.asarray(distance, np.float64),
        columns.get("number_of_mates", np.full(rows, -1, np.int64)),
    )


def match_by_id(keys: NDArray[Any], neighbours: Neighbours) -> Matches:
    """The rows of a table, known by their ``keys`` [N], that belong to Gaia sources.

    Of several candidates of a source the nearest is taken (of a source and of a key alike, the
    first of equals), and the match is flagged. Keys that occur twice in the table count as
    candidates of their own: the first row is taken.
    """
    if neighbours.key.dtype.kind != "i":
        keys = _text(keys)
    order = np.argsort(keys, kind="stable")
    position = np.searchsorted(keys[order], neighbours.key)
    inside = position < len(keys)
    inside[inside] &= keys[order][position[inside]] == neighbours.key[inside]
    inside &= neighbours.source_id > 0
    pairs = np.flatnonzero(inside)
    row, source = order[position[pairs]], neighbours.source_id[pairs]
    distance = np.nan_to_num(neighbours.separation[pairs], nan=np.inf)
    best = np.lexsort((distance, source))
    ids, start, count = np.unique(source[best], return_index=True, return_counts=True)
    chosen = best[start]
    flags = np.where(count > 1, MatchFlag.SEVERAL, 0).astype(np.uint8)
    mates = neighbours.mates[pairs][chosen] > 0
    flags[mates | shared(row[chosen])] |= np.uint8(MatchFlag.SHARED)
    return Matches(ids, row[chosen].astype(np.intp), flags)


def translate(
    keys: NDArray[np.int64], neighbours: Neighbours
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Gaia source_ids [N] of rows known by identifiers of another release, and flags [N].

    As :func:`match_by_id`, the other way round: any number of rows may have one key (a star
    observed twice), and each gets the nearest source of its key, or 0.
    """
    usable = np.flatnonzero(neighbours.source_id > 0)
    distance = np.nan_to_num(neighbours.separation[usable], nan=np.inf)
    best = usable[np.lexsort((distance, neighbours.key[usable]))]
    known, start, count = np.unique(neighbours.key[best], return_index=True, return_counts=True)
    source = neighbours.source_id[best[start]]
    flags_of = np.where(count > 1, MatchFlag.SEVERAL, 0) | np.where(
        shared(source), MatchFlag.SHARED, 0
    )
    position = np.minimum(np.searchsorted(known, keys), max(len(known) - 1, 0))
    found = (known[position] == keys) if len(known) else np.zeros(len(keys), bool)
    source_id, flags = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.uint8)
    source_id[found], flags[found] = source[position[found]], flags_of[position[found]]
    return source_id, flags


def shared(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values [M] occur more than once."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse] > 1)


def _text(values: NDArray[Any]) -> NDArray[np.str_]:
    return np.char.strip(values.astype(str))


MAS_PER_DEGREE = 3.6e6
ARCSEC_PER_DEGREE = 3600.0


def propagate(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    pmra: NDArray[np.float64],
    pmdec: NDArray[np.float64],
    years: NDArray[np.float64] | float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions [N] after some years of uniform motion along a straight line in space.

    Parameters
    ----------
    ra, dec
        Degrees.
    pmra, pmdec
        mas/yr, ``pmra`` with cos(dec) in it, as Gaia gives them; NaN counts as 0.
    years
        Julian years from the positions' epoch, negative into the past.

    Returns
    -------
    ra, dec
        Degrees, 0 <= ra < 360. Parallax and radial velocity are left out: below 0.1 arcsec but
        for some hundred of the nearest stars.
    """
    alpha, delta = np.radians(ra), np.radians(dec)
    move = np.radians(np.nan_to_num(np.stack([pmra, pmdec])) * years / MAS_PER_DEGREE)
    east = np.stack([-np.sin(alpha), np.cos(alpha), np.zeros_like(alpha)])
    north = np.stack(
        [-np.sin(delta) * np.cos(alpha), -np.sin(delta) * np.sin(alpha), np.cos(delta)]
    )
    x, y, z = unit_vectors(ra, dec).T + move[0] * east + move[1] * north
    moved_ra = np.degrees(np.arctan2(y, x)) % 360.0
    # a tiny negative angle is rounded to 360 itself
    moved_ra = np.where(moved_ra < 360.0, moved_ra, 0.0)
    return moved_ra, np.degrees(np.arctan2(z, np.hypot(x, y)))


def unit_vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions [N, 3] of positions in degrees."""
    alpha, delta = np.radians(ra), np.radians(dec)
    return np.stack(
        [np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)], axis=1
    )


def nearest(
    stars: NDArray[np.float64], candidates: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64], NDArray[np.int64]]:
    """The nearest candidate of each star within ``radius``.

    Parameters
    ----------
    stars, candidates
        Unit vectors [N, 3] and [M, 3].
    radius
        Arcsec.

    Returns
    -------
    star, candidate, separation, count
        For the stars that have any: row of each, arcsec, and candidates within the radius.
    """
    from scipy.spatial import cKDTree

    if not len(stars) or not len(candidates):
        empty = np.empty(0, np.intp)
        return empty, empty, np.empty(0), np.empty(0, np.int64)
    chord = 2 * np.sin(np.radians(radius / ARCSEC_PER_DEGREE) / 2)
    tree = cKDTree(candidates)
    distance, candidate = tree.query(stars, distance_upper_bound=chord)
    found = np.flatnonzero(np.isfinite(distance))
    inside = tree.query_ball_point(stars[found], chord, return_length=True)
    separation = np.degrees(2 * np.arcsin(distance[found] / 2)) * ARCSEC_PER_DEGREE
    return found, candidate[found], separation, np.asarray(inside, np.int64)
