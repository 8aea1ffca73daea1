"""Ids of another release -> those of this one, by the archive's table of both."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xplabels.core.errors import InputError, counted, located
from xplabels.fetch.archive import Ids
from xplabels.fetch.products import as_column
from xplabels.fetch.tap import UPLOAD, Columns, Tap
from xplabels.io.partners import Pairs, partners
from xplabels.releases import Release, Table

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class FoundPartners:
    """``ids`` [N] of this release, a table of all pairs looked at, and counts in words."""

    ids: Ids
    table: pa.Table
    text: str


def find_partners(
    ids: Ids,
    other: str,
    release: Release,
    tap: Tap,
    present: Mapping[str, Collection[str]],
    chunk: int,
) -> FoundPartners:
    """The partners of ``ids`` [M] of the release ``other``, asked for ``chunk`` at a time.

    The table has a row per pair, and one for each id without any: ``source_id``,
    ``OTHER_source_id``, the release's columns (separation, difference of magnitudes, whether the
    match is probable) and ``status`` (see :class:`~xplabels.io.partners.Status`). Raises
    :class:`InputError` if the service does not answer, or no id has exactly one partner.
    """
    import pyarrow as pa

    where, theirs = release.ids[other], f"{other}_source_id"
    rows = _rows(where, ids, tap, present, chunk)
    old, new = (np.ma.getdata(rows[name]).astype(np.int64) for name in (where.match, where.key))
    columns = {one.name: rows[one.name] for one in where.columns if one.name in rows}
    pairs = Pairs.of({**columns, "source_id": new, theirs: old})
    alone = np.setdiff1d(ids, old)
    every = np.concatenate([old, alone])
    found = partners(ids, pairs or {})
    chosen = np.unique(found.partner[found.partner > 0])
    text = f"{counted(len(ids), 'id')} of {other} in {release.title}: {found.to_text()}"
    if not len(chosen):
        raise InputError(text, where=where.name, remedy=f"check that the ids are of {other}")
    lost = np.arange(len(every)) >= len(old)
    fields = {theirs: pa.array(every)}
    fields["source_id"] = pa.array(np.append(new, alone), mask=lost)
    for one in where.columns:
        if one.name in columns:
            some = as_column(columns[one.name], pa.type_for_alias(one.type))
            fields[one.name] = pa.concat_arrays([some, pa.nulls(len(alone), some.type)])
    fields["status"] = pa.array(partners(every, pairs or {}).status.tolist())
    table = pa.table(fields).sort_by([(theirs, "ascending"), ("source_id", "ascending")])
    return FoundPartners(chosen, table, text)


def _rows(
    table: Table, ids: Ids, tap: Tap, present: Mapping[str, Collection[str]], chunk: int
) -> Columns:
    """Rows of these ids, and of all others that share a partner with them."""
    columns = [one for one in table.columns if {*one.needs} <= {*present[table.name]}]
    chosen = [f"t.{name}" for name in (table.key, table.match)]
    chosen += [f"{one.adql('t')} AS {one.name}" for one in columns]
    rows: Columns = {}
    with located(f"{tap.url}, {table.name}"):
        for by in (table.match, table.key):
            found = [
                tap.query(
                    f"SELECT {', '.join(chosen)} FROM tap_upload.{UPLOAD} AS {UPLOAD} "
                    f"JOIN {table.name} AS t ON t.{by} = {UPLOAD}.source_id",
                    ids[start : start + chunk],
                    most=100 * chunk,
                )
                for start in range(0, len(ids), chunk)
            ]
            rows = {name: np.ma.hstack([some[name] for some in found]) for name in found[0]}
            ids = np.unique(np.ma.getdata(rows[table.key]).astype(np.int64))
            if not len(ids):
                break
    return rows
