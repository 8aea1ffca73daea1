"""A folder of Parquet files keyed by ``source_id``, as a HATS catalogue is: only what is near the
stars asked for is read.

A ``source_id`` begins with the star's HEALPix pixel in nested order, by which HATS cuts the sky, so
that stars near one another stand in few row groups. Which of them a star may be in, their
statistics say: a name of a partition would not do, because the pixel of a ``source_id`` is that of
a position measured earlier, which may lie across a border.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.io.ascending import Ids
from xplabels.io.damage import whole
from xplabels.io.plain import Columns

AHEAD = 32
"""As many blocks' ranges of source_id are read together: neighbours share row groups."""
ROWS_AHEAD = 4_000_000
"""Rows beyond which only what the stars at hand need is kept."""


class Group(NamedTuple):
    """One row group: its file, its number there, its rows, the range of its source_ids."""

    file: Path
    number: int
    rows: int
    first: int
    last: int


class PartitionedTable:
    """Numbers from a folder of Parquet files, looked up by ``source_id``.

    Parameters
    ----------
    folder
        A HATS catalogue, a HATS collection, or any folder of Parquet files of one table.
    wanted
        Lower-case names of columns of numbers, taken as far as they are there.

    Raises
    ------
    InputError
        If there is no Parquet file, one is damaged, or has no column ``source_id``.
    """

    def __init__(self, folder: Path, wanted: Collection[str]) -> None:
        self.path = folder
        self._groups, self._names = _index(folder)
        self.columns = tuple(name for name in wanted if name in self._names)
        self._first = np.array([group.first for group in self._groups], np.int64)
        self._last = np.array([group.last for group in self._groups], np.int64)
        self._rows = np.array([group.rows for group in self._groups], np.int64)
        self._window: tuple[int, int] = (1, 0)
        self._ids: Ids = np.empty(0, np.int64)
        self._values: Columns = {}

    def find(self, source_id: Ids) -> tuple[NDArray[np.intp], Columns]:
        """Which of ``source_id`` [N] are in the table, and their columns.

        Raises
        ------
        InputError
            If a file is damaged, or a source_id comes twice.
        """
        if len(source_id):
            first, last = int(source_id.min()), int(source_id.max())
            if not (self._window[0] <= first and last <= self._window[1]):
                self._look(source_id, first, last)
        place = np.searchsorted(self._ids, source_id)
        inside = np.flatnonzero(place < len(self._ids))
        rows = inside[self._ids[place[inside]] == source_id[inside]]
        return rows, {name: values[place[rows]] for name, values in self._values.items()}

    def _look(self, source_id: Ids, first: int, last: int) -> None:
        """Read what the stars need, and what those after them will."""
        ahead = min(last + (AHEAD - 1) * (last - first), np.iinfo(np.int64).max)
        near = self._between(first, ahead)
        only = None
        if self._rows[near].sum() > ROWS_AHEAD:
            ahead, near, only = last, self._between(first, last), np.sort(source_id)
        ids, values = [], []
        for number in near.tolist():
            some, columns = self._read(self._groups[number])
            keep = (some >= first) & (some <= ahead) if only is None else np.isin(some, only)
            ids.append(some[keep])
            values.append({name: column[keep] for name, column in columns.items()})
        all_ids = np.concatenate([np.empty(0, np.int64), *ids])
        order = np.argsort(all_ids, kind="stable")
        self._ids = all_ids[order]
        twice = np.flatnonzero(self._ids[1:] == self._ids[:-1])
        if len(twice):
            raise InputError(
                f"source_id {self._ids[twice[0]]} occurs twice",
                where=self.path,
                remedy="keep one row a star",
            )
        self._values = {
            name: np.concatenate([np.empty(0), *(one[name] for one in values)])[order]
            for name in self.columns
        }
        # what was kept for these stars alone says nothing of others between them
        self._window = (first, ahead) if only is None else (1, 0)

    def _between(self, first: int, last: int) -> NDArray[np.intp]:
        return np.flatnonzero((self._first <= last) & (self._last >= first))

    def _read(self, group: Group) -> tuple[Ids, Columns]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = {name: self._names[name] for name in ("source_id", *self.columns)}
        with (
            whole(group.file, "Parquet file", (pa.ArrowException, OSError)),
            pq.ParquetFile(group.file) as file,
        ):
            table = file.read_row_group(
                group.number, columns=list(names.values()), use_threads=False
            )
            ids = table.column(names["source_id"]).to_numpy().astype(np.int64)
            return ids, {
                name: table.column(names[name]).cast(pa.float64(), safe=False).to_numpy()
                for name in self.columns
            }


def partition_files(folder: Path) -> list[Path]:
    """The Parquet files of the table that a folder holds, in the order of their names.

    Raises
    ------
    InputError
        If there are none.
    """
    root = _primary(folder)
    files = sorted(
        path
        for path in root.rglob("*.parquet")
        if not any(part.startswith(("_", ".")) for part in path.relative_to(root).parts)
    )
    if not files:
        raise InputError(
            "holds no Parquet file", where=folder, remedy="give the folder of a HATS catalogue"
        )
    return files


def _primary(folder: Path) -> Path:
    """Of a HATS collection the catalogue itself: its margin repeats stars."""
    properties = folder / "collection.properties"
    if properties.is_file():
        for line in properties.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "hats_primary_table_url":
                return folder / value.strip()
    return folder


def _index(folder: Path) -> tuple[list[Group], dict[str, str]]:
    """All row groups, and lower-case name -> name in the files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups: list[Group] = []
    names: dict[str, str] = {}
    for path in partition_files(folder):
        with whole(path, "Parquet file", (pa.ArrowException, OSError)):
            metadata = pq.read_metadata(path)
        if not names:
            names = {name.lower(): name for name in metadata.schema.to_arrow_schema().names}
        key = names.get("source_id")
        leaves = [metadata.schema.column(leaf).path for leaf in range(metadata.num_columns)]
        if key not in leaves:
            raise InputError(
                "column 'source_id' is absent", where=path, remedy="give a table of Gaia sources"
            )
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            first, last = _range(group.column(leaves.index(key)).statistics)
            groups.append(Group(path, number, group.num_rows, first, last))
    return groups, names


def _range(statistics: Any) -> tuple[int, int]:
    """The smallest and largest number of a column; without statistics it may be any."""
    if statistics is None or not statistics.has_min_max:
        everything = np.iinfo(np.int64)
        return int(everything.min), int(everything.max)
    return int(statistics.min), int(statistics.max)
