"""Translate ids of one Gaia release to another, by the archive's table of both.

A source of one release may be two in the next, or two may be one. In these cases, and if the
archive itself does not consider the match probable, no partner is chosen.
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
    """The partners of ``ids`` [N] in another release."""

    ids: Ids
    partner: Ids  # 0 unless there is exactly one
    status: NDArray[np.str_]  # of :class:`Status`

    def to_text(self) -> str:
        """The number of ids with each status."""
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
        """The pairs of a table with the archive's column names; None if it lacks one of the ids."""
        for new, old in _names():
            if {new, old} <= columns.keys():
                older, newer = columns[old], columns[new]
                probable = np.asarray(columns.get(PROBABLE, np.ones(len(older), bool)))
                if probable.dtype.kind not in "iufb":
                    probable = np.isin(np.char.lower(probable.astype(str)), ("true", "t", "1"))
                has_both = (older > 0) & (newer > 0)
                return cls(older, newer, has_both & (np.nan_to_num(probable) > 0))
        return None

    @classmethod
    def read(cls, path: str | Path) -> Pairs | None:
        """The pairs of a file; None as for :meth:`of`."""
        integers = dict.fromkeys((name for pair in _names() for name in pair), 0)
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

    If the table says which pairs are probable, only these are used. A partner is given if it is the
    only one of its id, and no other id's partner. Raises :class:`InputError` if the table cannot be
    read or lacks the ids of two releases.

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
    own, other = (pairs.newer, pairs.older) if back else (pairs.older, pairs.newer)
    probable_own, probable_other = own[pairs.probable], other[pairs.probable]
    several, shared = repeated(probable_own), repeated(probable_other)
    status = np.where(np.isin(ids, own), Status.IMPROBABLE.value, Status.NONE.value).astype("U10")
    status[np.isin(ids, probable_own[shared])] = Status.SHARED.value
    status[np.isin(ids, probable_own[several])] = Status.SEVERAL.value
    unique = np.flatnonzero(~several & ~shared)
    partner = np.zeros(len(ids), np.int64)
    matched, rows = Lookup(probable_own[unique]).find(ids)
    partner[matched], status[matched] = probable_other[unique[rows]], Status.ONE.value
    return Partners(ids, partner, status)


PROBABLE = "probable_match"


def _names() -> dict[tuple[str, str], None]:
    """Columns of the newer and the older id: as releases name them, and as ``fetch`` does."""
    ids = [item for name in reversed(NAMES) for item in load_release(name).ids.items()]
    return dict.fromkeys(
        names
        for other, table in ids
        for names in ((table.key, table.match), ("source_id", f"{other}_source_id"))
    )
