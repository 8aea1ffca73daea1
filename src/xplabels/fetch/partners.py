"""Translate ids of another data release to this one, by the archive's table of both."""

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
    """``ids`` [N] of this release, a table of all pairs found, and counts in words."""

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

    The table has one row per pair, and one for each id without any: ``source_id``,
    ``OTHER_source_id``, the release's columns (separation, difference of magnitudes, whether the
    match is probable) and ``status`` (see :class:`~xplabels.io.partners.Status`). Raises
    :class:`InputError` if the service does not answer, or no id has exactly one partner.
    """
    import pyarrow as pa

    neighbours, other_name = release.ids[other], f"{other}_source_id"
    rows = _rows(neighbours, ids, tap, present, chunk)
    old, new = (
        np.ma.getdata(rows[name]).astype(np.int64) for name in (neighbours.match, neighbours.key)
    )
    columns = {column.name: rows[column.name] for column in neighbours.columns
               if column.name in rows}  # fmt: skip
    pairs = Pairs.of({**columns, "source_id": new, other_name: old})
    found = partners(ids, pairs or {})
    chosen = np.unique(found.partner[found.partner > 0])
    text = f"{counted(len(ids), 'id')} of {other} in {release.title}: {found.to_text()}"
    if not len(chosen):
        raise InputError(text, where=neighbours.name, remedy=f"check that the ids are of {other}")
    # the pairs, then a row for each id without any, in which all but the id is null
    unpaired = np.setdiff1d(ids, old)
    all_old = np.concatenate([old, unpaired])
    fields = {other_name: pa.array(all_old)}
    null = np.arange(len(all_old)) >= len(old)
    fields["source_id"] = pa.array(np.append(new, unpaired), mask=null)
    for column in neighbours.columns:
        if column.name in columns:
            values = as_column(columns[column.name], pa.type_for_alias(column.type))
            nulls = pa.nulls(len(unpaired), values.type)
            fields[column.name] = pa.concat_arrays([values, nulls])
    fields["status"] = pa.array(partners(all_old, pairs or {}).status.tolist())
    table = pa.table(fields).sort_by([(other_name, "ascending"), ("source_id", "ascending")])
    return FoundPartners(chosen, table, text)


def _rows(
    table: Table, ids: Ids, tap: Tap, present: Mapping[str, Collection[str]], chunk: int
) -> Columns:
    """Rows of these ids, and of all others that share a partner with them."""
    columns = [column for column in table.columns if {*column.needs} <= {*present[table.name]}]
    selected = [f"t.{name}" for name in (table.key, table.match)]
    selected += [f"{column.adql('t')} AS {column.name}" for column in columns]
    rows: Columns = {}
    with located(f"{tap.url}, {table.name}"):
        # first the partners of the ids, then all ids that have one of these partners
        for by in (table.match, table.key):
            parts = [
                tap.query(
                    f"SELECT {', '.join(selected)} FROM tap_upload.{UPLOAD} AS {UPLOAD} "
                    f"JOIN {table.name} AS t ON t.{by} = {UPLOAD}.source_id",
                    ids[start : start + chunk],
                    most=100 * chunk,
                )
                for start in range(0, len(ids), chunk)
            ]
            rows = {name: np.ma.hstack([part[name] for part in parts]) for name in parts[0]}
            ids = np.unique(np.ma.getdata(rows[table.key]).astype(np.int64))
            if not len(ids):
                break
    return rows
