"""What is joined to the stars of an input file: its GaiaSource file, tables, HATS catalogues."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.fetch.bulk import PIXELS
from xplabels.io.hats import PartitionedTable, parquet_files
from xplabels.io.job import FileFingerprint, md5_of
from xplabels.io.tables import (
    TAKEN_COLUMNS,
    Filled,
    KeyedTable,
    Table,
    check_photometry,
    has_photometry,
)
from xplabels.pipeline.inputs import check_sum, published_sums, source_names
from xplabels.pipeline.manifest import Joined, ManifestEntry

ENDINGS = (".csv.gz", ".csv", ".parquet")
"""Endings that a GaiaSource file may have."""


@dataclass
class AuxiliaryTables:
    """The photometry of a run, and which of its columns are carried into the catalogue.

    ``tables`` are keyed by ``source_id``: files in any format (held in memory), and folders of
    Parquet files, such as HATS catalogues (of which only the part near the stars is read). Values
    of a later table override those of an earlier one, and those of any table GaiaSource's.
    ``gaia_source`` is the folder of the bulk files ``GaiaSource_aaaaaa-bbbbbb.csv.gz``; without it,
    those that lie beside the spectra are used. ``carried`` columns of numbers are taken from the
    first table that has them.

    An instance can be sent to another process, as tables are opened when they are first used.
    """

    tables: tuple[Path, ...] = ()
    gaia_source: Path | None = None
    carried: tuple[str, ...] = ()
    _opened: dict[Path, Table] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # tables in memory are not sent; those in folders are small, as their rows stay on disk
        sent = {p: t for p, t in self._opened.items() if isinstance(t, PartitionedTable)}
        return self.__dict__ | {"_opened": sent}

    def identity(self) -> list[str]:
        """What identifies the contents of each table, whatever its folder and date.

        A file is identified by name, size and MD5 sum (it is read anyhow), a folder by its name and
        the names and sizes of its files, which may be too large to read. Raises InputError if one
        cannot be read.
        """
        return [_identity(path) for path in self.tables]

    def absolute(self) -> AuxiliaryTables:
        """The same with absolute paths, for a process with another working directory."""
        tables = tuple(path.absolute() for path in self.tables)
        source = None if self.gaia_source is None else self.gaia_source.absolute()
        return AuxiliaryTables(tables, source, self.carried)

    def source_of(self, path: Path) -> Path | None:
        """The GaiaSource file of an input file; None if there is none.

        If the folder ``gaia_source`` lacks it, this is the path that it should have there.
        """
        span = PIXELS.search(path.name)
        folder = self.gaia_source or path.parent
        names = [f"{name}_{span[1]}-{span[2]}" for name in source_names() if span is not None]
        for name in names:
            for ending in ENDINGS:
                if (folder / f"{name}{ending}").is_file():
                    return folder / f"{name}{ending}"
        name = names[0] if names else f"{source_names()[0]} file"
        return None if self.gaia_source is None else folder / name

    def open(self) -> list[Table]:
        """The tables of the run, opened once per process.

        Raises InputError if one cannot be read or holds neither photometry nor a column to carry.
        """
        for path in self.tables:
            if [table.resolve() for table in self.tables].count(path.resolve()) > 1:
                raise InputError("is given twice", where=path, remedy="give each table once")
            if path not in self._opened:
                self._opened[path] = _open(path, self.carried)
        return [self._opened[path] for path in self.tables]

    def name(self, path: Path) -> str:
        """A table's name in the files' entries, with its folder if two tables share a name."""
        unique = [table.name for table in self.tables].count(path.name) < 2
        return path.name if unique else "/".join(path.absolute().parts[-2:])

    def check_joined(self, entries: Iterable[ManifestEntry]) -> None:
        """Raise InputError if a table was joined to no star of any file, which is a mistake."""
        stars: Counter[str] = Counter()
        for entry in entries:
            for joined in entry.joined:
                stars[joined.table] += joined.stars
        for table in self.tables:
            if not stars[self.name(table)]:
                raise InputError(
                    "shares no source_id with the stars",
                    where=table,
                    remedy="check that both have source_ids of the same Gaia data release",
                )


class Join:
    """Joins photometry to the blocks of one input file.

    Raises InputError as :meth:`AuxiliaryTables.open`; if a GaiaSource file is asked for and
    missing, cannot be read, or is not the one published; if no table has a column to carry.
    """

    def __init__(self, path: Path, tables: AuxiliaryTables) -> None:
        self._carried, self._name = tables.carried, tables.name
        self._tables = [*tables.open()]
        self.source: tuple[FileFingerprint, ...] = ()
        source = tables.source_of(path)
        if source is not None:
            if not source.is_file():
                raise InputError(
                    f"has no {source.name} in {source.parent}",
                    where=path,
                    remedy="download it, or leave out --gaia-source",
                )
            self.source = (FileFingerprint.of(source, md5_of(source)),)
            published = published_sums(source.parent).get(source.name)
            check_sum(source, self.source[0].md5, published)
            self._tables.insert(0, _open(source, self._carried))
        self._stars = [0] * len(self._tables)
        for name in self._carried:
            if not any(name in table.columns for table in self._tables):
                raise InputError(
                    f"no table has a column {name!r} to carry into the catalogue",
                    remedy=f"give the {source_names()[0]} files, or a table that has it",
                )

    def join(self, stars: Stars) -> tuple[Stars, dict[str, NDArray[np.float64]]]:
        """``stars`` [N] with photometry and flags, and the columns to carry [N], NaN where unknown.

        Raises InputError if a table is damaged, or an error of a star is zero or negative.
        """
        filled = Filled.of(stars)
        carried = {name: np.full(len(stars), np.nan) for name in self._carried}
        notes: list[str] = []
        for index, table in enumerate(self._tables):
            rows, columns = table.find(stars.source_id)
            if has_photometry(columns):
                notes.extend(filled.take(rows, columns, table.path))
            for name in carried.keys() & columns.keys():
                gaps = np.isnan(carried[name][rows])
                carried[name][rows[gaps]] = columns[name][gaps]
            self._stars[index] += len(rows)
        if self._tables:
            stars = replace(filled.stars(), notes=(*stars.notes, *notes))
        return stars, carried

    def joined(self) -> tuple[Joined, ...]:
        """How many stars each table had a row for."""
        counts = zip(self._tables, self._stars, strict=True)
        return tuple(Joined(self._name(table.path), stars) for table, stars in counts)


def _open(path: Path, carried: Sequence[str]) -> Table:
    wanted = (*TAKEN_COLUMNS, *carried)
    table: Table = (PartitionedTable if path.is_dir() else KeyedTable.read)(path, wanted)
    if has_photometry(table.columns) or not any(name in table.columns for name in carried):
        check_photometry(table)
    return table


def _identity(path: Path) -> str:
    name = path.name
    try:
        if not path.is_dir():
            return f"{name} {FileFingerprint.of(path).size} bytes md5 {md5_of(path)}"
        digest = hashlib.sha256()
        files = parquet_files(path)
        for file in files:
            digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror or error})", where=path, remedy="check the table"
        ) from error
    return f"{name} {len(files)} files {digest.hexdigest()[:16]}"
