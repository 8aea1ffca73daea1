"""Match the rows of a survey to Gaia sources by the archive's tables of neighbours.

If there is no such table (unWISE), stars are matched on the sky: :mod:`xplabels.sky`.
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
    """Why a match may be wrong; 0 if it was the only one possible."""

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
    source, key, distance = (  # each from the first of its possible columns
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
    """Match the rows of a table, identified by their ``keys`` [N], to Gaia sources.

    If a source has several candidates, the nearest is taken (of equally near ones the first), and
    the match is flagged. If a key occurs twice in the table, its first row is taken. Returns
    source_ids [M], ascending, each once, their rows, and flags of :class:`MatchFlag`, followed by
    the rows without a source, whose source_id is 0.
    """
    table_keys, first_row = np.unique(
        keys if neighbours.key.dtype.kind == "i" else _text(keys), return_index=True
    )
    # for each pair, where its key is among the table's, if it is
    index = np.minimum(np.searchsorted(table_keys, neighbours.key), len(table_keys) - 1)
    in_table = table_keys[index] == neighbours.key
    pairs = np.flatnonzero(in_table & (neighbours.source_id > 0))
    source_id, nearest, flags = _nearest(neighbours.source_id[pairs], neighbours.separation[pairs])
    row = first_row[index[pairs[nearest]]]
    flags[(neighbours.mates[pairs[nearest]] > 0) | repeated(row)] |= MatchFlag.SHARED
    unmatched = np.setdiff1d(np.arange(len(keys)), row)
    zeros = np.zeros(len(unmatched), np.int64)
    return np.append(source_id, zeros), np.append(row, unmatched), np.append(flags, zeros)


def translate(
    keys: NDArray[np.int64], neighbours: Neighbours
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.int64]]:
    """Gaia source_ids [N] of rows with source_ids of another release, the rows, and flags.

    Returns the same as :func:`match_by_id`, but by key: several rows may have the same one (a star
    observed twice), and each gets the source nearest to its key, or 0.
    """
    pairs = np.flatnonzero(neighbours.source_id > 0)
    pair_keys, nearest, pair_flags = _nearest(neighbours.key[pairs], neighbours.separation[pairs])
    source = neighbours.source_id[pairs[nearest]]
    pair_flags[repeated(source)] |= MatchFlag.SHARED
    source_id, flags = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    rows, index = Lookup(pair_keys).find(keys)
    source_id[rows], flags[rows] = source[index], pair_flags[index]
    return source_id, np.arange(len(keys)), flags


def _nearest(
    ids: NDArray[np.int64], separation: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.int64]]:
    """Each of ``ids`` [M] once, its pair of smallest separation, and SEVERAL if it has more."""
    order = np.lexsort((np.nan_to_num(separation, nan=np.inf), ids))
    unique_ids, start, count = np.unique(ids[order], return_index=True, return_counts=True)
    return unique_ids, order[start], np.where(count > 1, MatchFlag.SEVERAL, 0)


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
