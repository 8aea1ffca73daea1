"""Which row of a survey is which Gaia source, by the archive's tables of neighbours.

Where no such table exists (unWISE), stars are matched on the sky: :mod:`xplabels.sky`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.duplicates import repeated
from xplabels.core.errors import InputError
from xplabels.core.lookup import Lookup
from xplabels.io.memory import name_of
from xplabels.io.plain import read_columns

MATCH_FLAGS = "match_flags"
"""The column of :class:`MatchFlag` that a matched table has."""
SOURCE_COLUMNS = ("source_id", "dr3_source_id")
KEY_COLUMNS = ("original_ext_source_id", "dr2_source_id", "key")
DISTANCE_COLUMNS = ("angular_distance", "match_separation")


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
    """M pairs of a survey's identifier and a Gaia source, one or more per source."""

    key: NDArray[Any]  # the survey's identifiers: int64, or text
    source_id: NDArray[np.int64]
    separation: NDArray[np.float64]  # arcsec or mas: only its order counts; NaN: unknown
    mates: NDArray[np.int64]
    """How many other Gaia sources the archive matched to the same key; -1: unknown."""


def read_neighbours(path: Any, key_is_gaia: bool) -> Neighbours:
    """A table of neighbours from the Gaia archive, or one with columns ``key`` and ``source_id``.

    ``tmass_psc_xsc_best_neighbour`` and ``allwise_best_neighbour`` (``source_id,
    original_ext_source_id, angular_distance, number_of_mates``) and ``dr2_neighbourhood``
    (``dr2_source_id, dr3_source_id, angular_distance``) are read as they are. Raises
    :class:`InputError` if it cannot be read or lacks one of the identifiers.
    """
    integers = {"number_of_mates": -1}
    if key_is_gaia:
        integers |= dict.fromkeys(KEY_COLUMNS, 0)
    wanted = (*SOURCE_COLUMNS, *KEY_COLUMNS, *DISTANCE_COLUMNS, "number_of_mates")
    columns = read_columns(path, wanted, integers, SOURCE_COLUMNS)
    source, key, distance = (
        next((columns[name] for name in names if name in columns), None)
        for names in (SOURCE_COLUMNS, KEY_COLUMNS, DISTANCE_COLUMNS)
    )
    if source is None or key is None:
        raise InputError(
            "is not a table of neighbours",
            where=name_of(path),
            remedy=f"give one of {', '.join(KEY_COLUMNS)} and one of {', '.join(SOURCE_COLUMNS)}",
        )
    return Neighbours(
        key if key_is_gaia else _text(key),
        source,
        np.full(len(source), np.nan) if distance is None else np.asarray(distance, np.float64),
        columns.get("number_of_mates", np.full(len(source), -1, np.int64)),
    )


def match_by_id(
    keys: NDArray[Any], neighbours: Neighbours
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.int64]]:
    """The rows of a table, known by their ``keys`` [N], under the Gaia sources they belong to.

    Of several candidates of a source the nearest is taken (of a source and of a key alike, the
    first of equals), and the match is flagged. Of keys that occur twice in the table the first
    row is taken. Returns source_ids [M], ascending, each once, their rows, and flags of
    :class:`MatchFlag`; last come the rows of no source, with 0.
    """
    known, first = np.unique(
        keys if neighbours.key.dtype.kind == "i" else _text(keys), return_index=True
    )
    place = np.minimum(np.searchsorted(known, neighbours.key), len(known) - 1)
    pairs = np.flatnonzero((known[place] == neighbours.key) & (neighbours.source_id > 0))
    source_id, chosen, flags = _nearest(neighbours.source_id[pairs], neighbours.separation[pairs])
    row = first[place[pairs[chosen]]]
    flags[(neighbours.mates[pairs[chosen]] > 0) | repeated(row)] |= MatchFlag.SHARED
    rest = np.setdiff1d(np.arange(len(keys)), row)
    nothing = np.zeros(len(rest), np.int64)
    return np.append(source_id, nothing), np.append(row, rest), np.append(flags, nothing)


def translate(
    keys: NDArray[np.int64], neighbours: Neighbours
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.int64]]:
    """Gaia source_ids [N] of rows known by identifiers of another release, the rows, and flags.

    As :func:`match_by_id`, the other way round: any number of rows may have one key (a star
    observed twice), and each gets the nearest source of its key, or 0.
    """
    usable = np.flatnonzero(neighbours.source_id > 0)
    known, chosen, flags_of = _nearest(neighbours.key[usable], neighbours.separation[usable])
    source = neighbours.source_id[usable[chosen]]
    flags_of[repeated(source)] |= MatchFlag.SHARED
    source_id, flags = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    rows, place = Lookup(known).find(keys)
    source_id[rows], flags[rows] = source[place], flags_of[place]
    return source_id, np.arange(len(keys)), flags


def _nearest(
    ids: NDArray[np.int64], separation: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.int64]]:
    """Each of ``ids`` [M] once, its pair of smallest separation, and SEVERAL where it has more."""
    order = np.lexsort((np.nan_to_num(separation, nan=np.inf), ids))
    once, start, count = np.unique(ids[order], return_index=True, return_counts=True)
    return once, order[start], np.where(count > 1, MatchFlag.SEVERAL, 0)


def describe_matches(matches: int, flags: NDArray[np.integer[Any]]) -> str:
    """How many matches, and how many of them have each flag."""
    counts = [
        f"{int((flags & flag.value > 0).sum())} {flag.name} ({text})"
        for flag, text in MEANING.items()
        if (flags & flag.value).any()
    ]
    return "; ".join([f"{matches} matches", *counts])


def _text(values: NDArray[Any]) -> NDArray[np.str_]:
    return np.char.strip(values.astype(str))
