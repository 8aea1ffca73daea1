"""The manifest of a folder of catalogues: what became of each input file, one entry each.

An output ``FOLDER/NAME.parquet`` has its entry in ``FOLDER/_manifest/NAME.json``. Each entry is a
file of its own, not a line of a list that all workers would have to change, so that it appears
whole with its output whenever a run is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xplabels.io.job import Record, check_types

MANIFEST = "_manifest"
"""The folder of entries; tools that read a folder of Parquet skip it."""
DAMAGED_LISTED = 100
"""Damaged rows of a file that are listed one by one; all are counted."""


@dataclass(frozen=True)
class Joined:
    """A table of photometry and how many stars of the file it had a row for."""

    table: str
    stars: int


@dataclass(frozen=True)
class ManifestEntry(Record):
    """What became of one input file; as many rows were written as read.

    ``input.md5`` is the sum of the bytes that were read. ``good`` counts the good stars, ``flags``
    stars by flag. ``damaged`` rows are (row, source_id), the first row being 1; ``notes`` are those
    of the reader and the tables; of both there are at most :data:`DAMAGED_LISTED`.
    ``md5_published`` says whether the input's sum is that of ``_MD5SUM.txt``; None where there is
    no such list.
    """

    rows_in: int
    rows_out: int
    good: int
    flags: Mapping[str, int]
    damaged: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]
    joined: tuple[Joined, ...]
    first_id: int
    last_id: int
    md5_published: bool | None = None
    seconds: float = 0.0
    processor_seconds: float = 0.0
    kind: str = field(default="xplabels catalogue of one file", repr=False)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The fields from JSON values; raises TypeError where one is of another type."""
        check_types([values["flags"]], dict)
        joined = tuple(Joined(**table) for table in values["joined"])
        integers = ("rows_in", "rows_out", "good", "first_id", "last_id")
        check_types([values[name] for name in integers], int)
        check_types((*values["flags"].values(), *(table.stars for table in joined)), int)
        check_types([values["processor_seconds"]], (int, float))
        return super().parse(values) | {
            "joined": joined,
            "damaged": tuple((row, star) for row, star in values["damaged"]),
            "notes": tuple(values["notes"]),
        }


def entry_path(output: Path) -> Path:
    """The path of an output's entry."""
    return output.parent / MANIFEST / f"{output.stem}.json"


def read_entry(output: Path) -> ManifestEntry | None:
    """The entry of ``output``; None where there is none, or it cannot be read."""
    return ManifestEntry.read(entry_path(output))
