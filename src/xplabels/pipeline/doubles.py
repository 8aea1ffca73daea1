"""Stars that come twice, in two files: found by their files' ranges of source_id first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import check_unique
from xplabels.pipeline.manifest import ManifestEntry


class SeenIds:
    """The source_ids met so far, to find a star that comes twice.

    They are kept as sorted runs; only runs whose ranges overlap are compared.
    """

    def __init__(self) -> None:
        self._runs: list[NDArray[np.int64]] = []

    def add(self, source_id: NDArray[np.int64], where: Path) -> None:
        """Take the ids of one more file.

        Raises
        ------
        InputError
            If one occurs twice in it, or in a file before it.
        """
        check_unique(source_id, where)
        if not len(source_id):
            return
        new = np.sort(source_id)
        apart: list[NDArray[np.int64]] = []
        for run in self._runs:
            if run[-1] < new[0] or new[-1] < run[0]:
                apart.append(run)
                continue
            both = np.intersect1d(run, new, assume_unique=True)
            if len(both):
                raise InputError(
                    f"source_id {both[0]} occurs in an earlier input file too "
                    f"({len(both)} source_ids do)",
                    where=where,
                    remedy="give each star once",
                )
            new = np.sort(np.concatenate([run, new]), kind="stable")
        self._runs = [*apart, new]


Labelled = tuple[Path, Path, ManifestEntry]
"""Input, output and the entry of a file that is through."""


def find_duplicates(files: Sequence[Labelled]) -> Iterator[tuple[Path, InputError]]:
    """Input files with a star that an input before them has, and what is to be said of each.

    The archive's bulk files are apart in source_id, so that nothing of theirs is read again.
    """
    import pyarrow.parquet as pq

    for group in _overlapping(files):
        seen = SeenIds()
        for path, output, _ in group:
            ids = pq.read_table(output, columns=["source_id"])["source_id"].to_numpy()
            try:
                seen.add(ids, path)
            except InputError as error:
                yield path, error


def _overlapping(files: Sequence[Labelled]) -> Iterator[list[Labelled]]:
    """Groups of files whose ranges of source_id are connected, each in the order given."""
    order = sorted(range(len(files)), key=lambda number: files[number][2].first_id)
    group: list[int] = []
    last = np.iinfo(np.int64).min
    for number in order:
        entry = files[number][2]
        if group and entry.first_id > last:
            yield from ([files[n] for n in sorted(group)],) if len(group) > 1 else ()
            group = []
        group.append(number)
        last = max(last, entry.last_id) if len(group) > 1 else entry.last_id
    if len(group) > 1:
        yield [files[n] for n in sorted(group)]
