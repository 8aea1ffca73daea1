"""Read HATS catalogues and other folders of Parquet files, as star tables or tables to look up.

HATS is Parquet in ``dataset/Norder=K/Dir=D/Npix=N.parquet``, one file (or one folder of files) per
HEALPix pixel, with ``hats.properties`` beside ``dataset``. Each file is a star table by itself
(:mod:`xplabels.io.parquet`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted
from xplabels.core.lookup import Lookup
from xplabels.core.stars import Stars
from xplabels.io.files import whole
from xplabels.io.parquet import open_parquet, read_parquet
from xplabels.io.partitioning import Pixel
from xplabels.io.plain import Columns
from xplabels.io.rows import BLOCK_ROWS, BadRows
from xplabels.releases import computed, with_inputs

PROPERTIES = ("hats.properties", "properties")
COLLECTION = "collection.properties"
DATASET = "dataset"
_FINEST = 29
_PARTITION = re.compile(r"Norder=(\d+)/(?:.*/)?Npix=(\d+)")

AHEAD = 32
"""Blocks whose ranges of source_id are read together, as neighbouring stars share row groups."""
ROWS_AHEAD = 4_000_000
"""Most rows that are read ahead; if there are more, only those of the present stars are read."""


def is_catalogue(path: Path) -> bool:
    """Whether ``path`` is the folder of a HATS catalogue, or of a collection with one in it."""
    return any((path / name).is_file() for name in (*PROPERTIES, COLLECTION))


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of the table that a folder holds, in the order of their names.

    Raises InputError if there are none.
    """
    root = main_catalogue(folder)
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


def partition_files(folder: Path) -> list[Path]:
    """The files of a catalogue in the order of their pixels on the sky.

    Raises InputError if it is not a whole HATS catalogue: partitions that it lists are absent,
    or there are none.
    """
    folder = main_catalogue(folder)
    found = {
        path: pixel
        for path in sorted((folder / DATASET).rglob("*.parquet"))
        if not path.name.startswith((".", "_"))
        and (pixel := pixel_of(path.relative_to(folder))) is not None
    }
    absent = sorted(_listed(folder) - set(found.values()))
    if absent:
        order, number = absent[0]
        raise InputError(
            f"lacks {counted(len(absent), 'partition')} that it lists, the first: "
            f"Norder={order}, Npix={number}",
            where=folder,
            remedy="copy the whole catalogue, or make it again",
        )
    if not found:
        raise InputError("is a HATS catalogue without partitions", where=folder)
    return sorted(found, key=lambda path: (found[path].span(_FINEST), path))


def read_hats(folder: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of at most ``block`` stars from a HATS catalogue.

    Raises InputError as :func:`partition_files` and :func:`~xplabels.io.parquet.read_parquet`.
    """
    for path in partition_files(folder):
        yield from read_parquet(path, bad_rows, block)


def pixel_of(path: Path) -> Pixel | None:
    """The pixel that the path of a partition names, if it does."""
    named = _PARTITION.search(path.as_posix())
    return None if named is None else Pixel(int(named[1]), int(named[2]))


class PartitionedTable:
    """Numbers from a folder of Parquet files, looked up by ``source_id``.

    A ``source_id`` begins with the star's HEALPix pixel in nested order, by which HATS divides the
    sky, so neighbouring stars are in few row groups. Only row groups whose statistics admit one of
    the stars are read. Partitions are not chosen by their names, because the pixel in a
    ``source_id`` is that of an earlier position, which may lie in another partition.

    Parameters
    ----------
    folder
        A HATS catalogue, a HATS collection, or any folder of Parquet files of one table.
    wanted
        Lower-case names of columns of numbers, taken as far as they are there.

    Raises InputError if there is no Parquet file, one is damaged, or has no column ``source_id``.
    """

    def __init__(self, folder: Path, wanted: Collection[str]) -> None:
        import pyarrow as pa
        from pyarrow import dataset

        self.path = folder
        files = parquet_files(folder)
        for path in files:
            with whole(path, "Parquet file"), open_parquet(path) as file:
                names = {name.lower(): name for name in file.schema_arrow.names}
            if "source_id" not in names:
                raise InputError(
                    "column 'source_id' is absent",
                    where=path,
                    remedy="give a table of Gaia sources",
                )
        self._dataset = dataset.dataset([str(path) for path in files])
        self._key = dataset.field(names["source_id"])
        self._wanted = wanted
        present = tuple(name for name in with_inputs(wanted) if name in names)
        self.columns = tuple(computed({name: np.empty(0) for name in present}, wanted))
        self._fields = {"source_id": self._key} | {
            name: dataset.field(names[name]).cast(pa.float64(), safe=False) for name in present
        }
        self._range = (1, 0)
        self._read(np.empty(0, np.int64), *self._range)

    def find(self, source_id: NDArray[np.int64]) -> tuple[NDArray[np.intp], Columns]:
        """Which of ``source_id`` [N] are in the table, and their columns.

        Raises InputError if a file is damaged, or a source_id comes twice.
        """
        if len(source_id):
            first, last = int(source_id.min()), int(source_id.max())
            if not (self._range[0] <= first and last <= self._range[1]):
                self._read(source_id, first, last)
        stars, rows = self._lookup.find(source_id)
        return stars, {name: values[rows] for name, values in self._values.items()}

    def _read(self, source_id: NDArray[np.int64], first: int, last: int) -> None:
        """Read the rows of these stars, and those that the next stars will probably need."""
        import pyarrow as pa

        ahead = min(last + (AHEAD - 1) * (last - first), np.iinfo(np.int64).max)
        near = (self._key >= first) & (self._key <= ahead)
        with whole(self.path, "folder of Parquet files"):
            if self._dataset.count_rows(filter=near, use_threads=False) > ROWS_AHEAD:
                # an empty range, as of other stars between these nothing is read
                first, ahead = 1, 0
                near = (self._key >= source_id.min()) & (self._key <= last)
                near &= self._key.isin(pa.array(source_id))
            table = self._dataset.to_table(self._fields, filter=near, use_threads=False)
        self._range = (first, ahead)
        self._lookup = Lookup(table["source_id"].to_numpy(), self.path)
        values = {name: table[name].to_numpy() for name in table.column_names}
        self._values: Columns = computed(values, self._wanted)


def main_catalogue(folder: Path) -> Path:
    """The folder itself or, of a collection, that of its main catalogue (margins repeat stars).

    Raises InputError if a collection names none.
    """
    if not (folder / COLLECTION).is_file():
        return folder
    with whole(folder / COLLECTION, "list of properties"):
        for line in (folder / COLLECTION).read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "hats_primary_table_url":
                main = (folder / value.strip()).resolve()
                if folder.resolve() not in main.parents or not main.is_dir():
                    raise InputError(
                        f"names {value.strip()[:200]!r}, which is not a folder in it",
                        where=folder / COLLECTION,
                        remedy="copy the whole collection",
                    )
                return folder / value.strip()
    raise InputError("names no main catalogue", where=folder / COLLECTION)


def _listed(folder: Path) -> set[Pixel]:
    """The partitions that ``partition_info.csv`` names; none without it."""
    path = folder / "partition_info.csv"
    if not path.exists():
        return set()
    with whole(path, "list of partitions"), path.open(newline="", encoding="utf-8") as file:
        return {Pixel(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(file)}
