"""Ids of one Gaia release in another, by the archive's table of both.

A source of one release may be two in the next, or two may be one. Where that is so, or where the
archive itself does not think the match probable, nothing is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.duplicates import repeated
from xplabels.core.errors import InputError
from xplabels.core.lookup import Lookup
from xplabels.io.plain import read_columns
from xplabels.releases import NAMES, load_release

Ids = NDArray[np.int64]


class Status(StrEnum):
    """What became of an id."""

    ONE = "one"
    NONE = "none"
    SEVERAL = "several"
    SHARED = "shared"
    IMPROBABLE = "improbable"


MEANING: dict[Status, str] = {
    Status.ONE: "one partner",
    Status.NONE: "not in the table",
    Status.SEVERAL: "several partners",
    Status.SHARED: "one partner, which is that of another id, too",
    Status.IMPROBABLE: "no probable partner",
}


@dataclass(frozen=True)
class Partners:
    """Ids [N] in another release."""

    ids: Ids
    partner: Ids  # 0 where not exactly one source is the partner
    status: NDArray[np.str_]  # of :class:`Status`

    def to_text(self) -> str:
        """How many ids have which status."""
        counts = {status: int((self.status == status.value).sum()) for status in Status}
        return "; ".join(f"{n} {status} ({MEANING[status]})" for status, n in counts.items() if n)


@dataclass(frozen=True)
class Pairs:
    """M pairs of ids of two Gaia releases."""

    older: Ids
    newer: Ids
    probable: NDArray[np.bool_]

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[Any]]) -> Pairs | None:
        """Those of a table with the archive's names; None if it has not the ids of two releases."""
        for new, old in _names():
            if {new, old} <= columns.keys():
                older, newer = columns[old], columns[new]
                said = np.asarray(columns.get(PROBABLE, np.ones(len(older), bool)))
                if said.dtype.kind not in "iufb":
                    said = np.isin(np.char.lower(said.astype(str)), ("true", "t", "1"))
                known = (older > 0) & (newer > 0)
                return cls(older, newer, known & (np.nan_to_num(said) > 0))
        return None

    @classmethod
    def read(cls, path: str | Path) -> Pairs | None:
        """Those of a file."""
        integers = dict.fromkeys((name for both in _names() for name in both), 0)
        return cls.of(read_columns(path, (*integers, PROBABLE), integers))


def partners(
    ids: Ids, neighbourhood: str | Path | Mapping[str, NDArray[Any]] | Pairs, back: bool = False
) -> Partners:
    """The ids of another Gaia release that belong to ``ids`` [N].

    Parameters
    ----------
    ids
        Of the earlier release; with ``back``, of the later one.
    neighbourhood
        The archive's table of both, such as DR4's ``dr3_neighbourhood`` (columns ``source_id,
        dr3_source_id, probable_match``), as file or as columns.

    Only pairs that the archive calls probable count, where it says so; a partner is given if it is
    the only one, and nobody else's. Raises :class:`InputError` if the table cannot be read or has
    not the ids of two releases.

    Examples
    --------
    >>> table = {"dr3_source_id": np.array([1, 2, 2]), "source_id": np.array([11, 12, 13])}
    >>> found = partners(np.array([1, 2, 3]), table)
    >>> found.partner.tolist(), found.status.tolist()
    ([11, 0, 0], ['one', 'several', 'none'])
    """
    pairs: Pairs | None
    if isinstance(neighbourhood, Pairs):
        pairs = neighbourhood
    elif isinstance(neighbourhood, Mapping):
        pairs = Pairs.of(neighbourhood)
    else:
        pairs = Pairs.read(neighbourhood)
    if pairs is None:
        raise InputError(
            "has not the ids of two Gaia releases",
            where=neighbourhood if isinstance(neighbourhood, str | Path) else None,
            remedy="give the archive's table, as DR4's dr3_neighbourhood: source_id, dr3_source_id",
        )
    ids = np.asarray(ids, np.int64)
    here, there = (pairs.newer, pairs.older) if back else (pairs.older, pairs.newer)
    mine, theirs = here[pairs.probable], there[pairs.probable]
    several, twice = repeated(mine), repeated(theirs)
    status = np.where(np.isin(ids, here), Status.IMPROBABLE.value, Status.NONE.value).astype("U10")
    status[np.isin(ids, mine[twice])] = Status.SHARED.value
    status[np.isin(ids, mine[several])] = Status.SEVERAL.value
    alone = np.flatnonzero(~several & ~twice)
    partner = np.zeros(len(ids), np.int64)
    found, rows = Lookup(mine[alone]).find(ids)
    partner[found], status[found] = theirs[alone[rows]], Status.ONE.value
    return Partners(ids, partner, status)


PROBABLE = "probable_match"


def _names() -> dict[tuple[str, str], None]:
    """Columns of the newer and the older id, as releases call them and as ``fetch`` does."""
    ids = [item for name in reversed(NAMES) for item in load_release(name).ids.items()]
    return dict.fromkeys(
        names
        for other, table in ids
        for names in ((table.key, table.match), ("source_id", f"{other}_source_id"))
    )
