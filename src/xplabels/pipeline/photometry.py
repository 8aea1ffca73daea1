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
from xplabels.core.stars import Photometry, Stars
from xplabels.io.columns import PHOTOMETRY_COLUMNS
from xplabels.io.files import Digest
from xplabels.io.hats import PartitionedTable, parquet_files
from xplabels.io.tables import KeyedTable, Table, check_photometry, fill_photometry, has_photometry
from xplabels.pipeline.manifest import FileFingerprint, Joined, ManifestEntry, md5_of
from xplabels.pipeline.published import SPAN, check_sum, published_sums

Columns = dict[str, NDArray[Any]]

SOURCE_ENDINGS = (".csv.gz", ".csv", ".parquet")
"""Of a GaiaSource file, in the order in which they are looked for."""


@dataclass
class AuxiliaryTables:
    """What photometry a run takes, and what of it goes over into the catalogue.

    Parameters
    ----------
    tables
        Tables keyed by ``source_id`` in any format (held in memory), and folders of Parquet files,
        such as HATS catalogues (read where the stars are). A later one overrides an earlier one
        where it has values, and all of them GaiaSource.
    gaia_source
        Folder of the bulk files ``GaiaSource_aaaaaa-bbbbbb.csv.gz``; without it they are taken
        where they lie beside the spectra.
    carried
        Columns of numbers that the catalogue takes over (``ra``, ``dec``), from the first table
        that has them.

    Notes
    -----
    It may be sent to another process: tables are opened when they are first used.
    """

    tables: tuple[Path, ...] = ()
    gaia_source: Path | None = None
    carried: tuple[str, ...] = ()
    _opened: list[Table] | None = field(default=None, repr=False)
    _indexed: dict[Path, PartitionedTable] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # what is large stays here; of a folder, that only its row groups are known
        return self.__dict__ | {"_opened": None}

    def identity(self) -> tuple[str, ...]:
        """Each table by what tells it from another one, wherever it lies and whenever it came.

        Of a file: name, size and MD5 sum, for it is held in memory anyhow; of a folder: name, and
        the names and sizes of its files, which may be too many to read.

        Raises
        ------
        InputError
            If one cannot be read.
        """
        return tuple(_identity(path) for path in self.tables)

    def beside(self, path: Path) -> Path | None:
        """The GaiaSource file of an input file, if there is one.

        Raises
        ------
        InputError
            If a folder was named for them and has none for this input.
        """
        span = SPAN.search(path.name)
        folder = self.gaia_source or path.parent
        stem = None if span is None else f"GaiaSource_{span[1]}-{span[2]}"
        for ending in SOURCE_ENDINGS:
            if stem is not None and (folder / f"{stem}{ending}").is_file():
                return folder / f"{stem}{ending}"
        if self.gaia_source is None:
            return None
        raise InputError(
            f"has no {stem or 'GaiaSource file'} in {folder}",
            where=path,
            remedy="download it, or leave out --gaia-source",
        )

    def open(self) -> list[Table]:
        """The tables of the run, opened once in a process.

        Raises
        ------
        InputError
            If one cannot be read or holds neither photometry nor a column to carry.
        """
        if self._opened is None:
            wanted = (*PHOTOMETRY_COLUMNS, *self.carried)
            for path in self.tables:
                if path.is_dir() and path not in self._indexed:
                    self._indexed[path] = PartitionedTable(path, wanted)
            self._opened = [
                self._indexed[path] if path in self._indexed else KeyedTable.read(path, wanted)
                for path in self.tables
            ]
            for table in self._opened:
                check_table(table, self.carried)
        return self._opened

    def check_joined(self, entries: Iterable[ManifestEntry]) -> None:
        """A table that met no star of any file is a mistake.

        Raises
        ------
        InputError
            If there is one.
        """
        met: Counter[str] = Counter()
        for entry in entries:
            for joined in entry.joined:
                met[joined.table] += joined.stars
        for table in self.tables:
            if not met[table.name]:
                raise InputError(
                    "shares no source_id with the stars",
                    where=table,
                    remedy="check that both have source_ids of the same Gaia data release",
                )

    def for_file(self, path: Path) -> Join:
        """What is joined to one input file.

        Raises
        ------
        InputError
            As :meth:`open` and :meth:`beside`; if no table has a column to carry.
        """
        source = self.beside(path)
        return Join(source, self.open(), self.carried)


class Join:
    """Joins photometry to the blocks of one input file, in order."""

    def __init__(
        self, source: Path | None, tables: Sequence[Table], carried: Sequence[str]
    ) -> None:
        self._digest, self._source = Digest(), source
        self._carried = tuple(carried)
        self._first: KeyedTable | None = None
        if source is not None:
            self._stamp = FileFingerprint.of(source)
            wanted = (*PHOTOMETRY_COLUMNS, *carried)
            self._first = KeyedTable.read(source, wanted, self._digest)
            check_table(self._first, carried)
        first: list[Table] = [] if self._first is None else [self._first]
        self._tables = [*first, *tables]
        self._joined = [0] * len(self._tables)
        for name in self._carried:
            if not any(name in table.columns for table in self._tables):
                raise InputError(
                    f"no table has a column {name!r} to carry into the catalogue",
                    remedy="give the GaiaSource files, or a table that has it",
                )

    def join(self, stars: Stars) -> tuple[Stars, Columns]:
        """``stars`` [N] with photometry, and the columns to carry [N], NaN where unknown.

        Raises
        ------
        InputError
            If a table is damaged, or an error of one of these stars is zero or negative.
        """
        values, errors = stars.photometry.values.copy(), stars.photometry.errors.copy()
        carried = {name: np.full(len(stars), np.nan) for name in self._carried}
        notes: list[str] = []
        for index, table in enumerate(self._tables):
            rows, found = table.find(stars.source_id)
            if has_photometry(found):
                ids = stars.source_id[rows]
                notes.extend(fill_photometry(values, errors, rows, found, ids, table.path))
            for name in self._carried:
                if name in found:
                    lacking = np.isnan(carried[name][rows])
                    carried[name][rows[lacking]] = found[name][lacking]
            self._joined[index] += len(rows)
        if self._tables:
            told = (*stars.notes, *notes)
            stars = replace(stars, photometry=Photometry(values, errors), notes=told)
        return stars, carried

    def finish(self) -> tuple[FileFingerprint, ...]:
        """The file that belongs to this input alone, with the sum of all its bytes.

        Raises
        ------
        InputError
            If its folder has a list of sums, and it is another one.
        """
        if self._source is None or self._first is None:
            return ()
        md5 = self._digest.hexadecimal()
        check_sum(self._source, md5, published_sums(self._source.parent).get(self._source.name))
        return (replace(self._stamp, md5=md5),)

    def joined(self) -> tuple[Joined, ...]:
        """How many stars each table had a row for."""
        return tuple(
            Joined(table.path.name, count)
            for table, count in zip(self._tables, self._joined, strict=True)
        )


def check_table(table: Table, carried: Sequence[str]) -> None:
    """As :func:`xplabels.io.tables.check_photometry`; a table may also be there to be carried."""
    if has_photometry(table.columns) or not any(name in table.columns for name in carried):
        check_photometry(table)


def _identity(path: Path) -> str:
    name = path.name  # that by which entries count the stars it was joined to
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
