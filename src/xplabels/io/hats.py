"""A folder that is a HATS catalogue -> its stars, partition by partition, without any library.

HATS is Parquet in ``dataset/Norder=K/Dir=D/Npix=N.parquet``, one file (or one folder of files) a
HEALPix pixel, with ``hats.properties`` beside ``dataset``. Each file is a star table by itself
(:mod:`xplabels.io.parquet`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xplabels.core.errors import InputError, counted
from xplabels.core.stars import Stars
from xplabels.io.parquet import read_parquet
from xplabels.io.partitioning import Pixel
from xplabels.io.rows import BLOCK_ROWS, BadRows

PROPERTIES = ("hats.properties", "properties")
COLLECTION = "collection.properties"
DATASET = "dataset"
_FINEST = 29
_PARTITION = re.compile(r"Norder=(\d+)/(?:.*/)?Npix=(\d+)")


def is_catalogue(path: Path) -> bool:
    """Whether ``path`` is the folder of a HATS catalogue, or of a collection with one in it."""
    return any((path / name).is_file() for name in (*PROPERTIES, COLLECTION))


def partition_files(folder: Path) -> list[Path]:
    """The files of a catalogue in the order of their pixels on the sky.

    Raises
    ------
    InputError
        If it is no whole HATS catalogue: partitions that its list names are absent, or there are
        none.
    """
    folder = _main_catalogue(folder)
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

    Raises
    ------
    InputError
        As :func:`partition_files` and :func:`~xplabels.io.parquet.read_parquet`.
    """
    for path in partition_files(folder):
        yield from read_parquet(path, bad_rows, block)


def pixel_of(path: Path) -> Pixel | None:
    """The pixel that the path of a partition names, if it does."""
    named = _PARTITION.search(path.as_posix())
    return None if named is None else Pixel(int(named[1]), int(named[2]))


def _main_catalogue(folder: Path) -> Path:
    """The folder itself or, of a collection, that of its main catalogue."""
    if not (folder / COLLECTION).is_file():
        return folder
    for line in (folder / COLLECTION).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "hats_primary_table_url":
            return folder / value.strip()
    raise InputError("names no main catalogue", where=folder / COLLECTION)


def _listed(folder: Path) -> set[Pixel]:
    """The partitions that ``partition_info.csv`` names; none without it."""
    try:
        lines = (folder / "partition_info.csv").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return set()
    try:
        names = lines[0].split(",")
        order, number = names.index("Norder"), names.index("Npix")
        cells = [line.split(",") for line in lines[1:] if line]
        return {Pixel(int(row[order]), int(row[number])) for row in cells}
    except (ValueError, IndexError) as error:
        raise InputError(
            f"is no list of partitions ({error})",
            where=folder / "partition_info.csv",
            remedy="copy the whole catalogue again",
        ) from error
