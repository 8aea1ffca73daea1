"""DataLink VOTable, in any of its serialisations (TABLEDATA, BINARY, BINARY2, FITS).

The two that the archive sends, BINARY2 and TABLEDATA (VOTable 1.4, sections 5.1 and 5.4), are read
here, one array a cell: astropy makes an object of every number, 3,000 of them a star. Whatever
else a VOTable may be is left to astropy.
"""

from __future__ import annotations

import binascii
import gzip
import io
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io.files import DOWNLOAD_AGAIN, whole
from xplabels.io.rows import (
    ARRAYS,
    BLOCK_ROWS,
    EMPTY,
    BadRows,
    RawBlock,
    as_source_id,
    assembled,
    check_columns,
    kind_of,
)

DAMAGE = (OSError, EOFError, zlib.error, ValueError, TypeError, LookupError, SyntaxError,
          struct.error)  # fmt: skip
"""What the parsers raise of a damaged file."""
VOTable = Any
"""An astropy ``TableElement``."""

KINDS = {
    "unsignedByte": "u1", "short": ">i2", "int": ">i4", "long": ">i8", "float": ">f4",
    "double": ">f8", "boolean": "S1", "char": "S1", "unicodeChar": "V2", "floatComplex": "V8",
    "doubleComplex": "V16",
}  # fmt: skip
"""VOTable's data types as bytes; ``bit``, which is packed, is not among them."""


def read_votable(path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of stars from the first table that has a column ``source_id``.

    The format has no random access: but for TABLEDATA, the whole file is in memory while it is
    read.

    Raises
    ------
    InputError
        For a file that is unreadable, truncated, lacks columns or rows, or (``bad_rows="error"``)
        holds a damaged row.
    """
    return assembled(_raw_blocks(path, block), path, bad_rows)


@contextmanager
def readable_votable(path: Path) -> Iterator[None]:
    """Turn what astropy says of a damaged VOTable into an :class:`InputError`; silence the rest."""
    with warnings.catch_warnings(), whole(path, "VOTable", DAMAGE):
        warnings.simplefilter("ignore")
        yield


def first_votable(path: Path) -> VOTable:
    """The first table of the file that has a column ``source_id``, in any case.

    Raises
    ------
    InputError
        If there is none or the file cannot be parsed.
    """
    from astropy.io.votable import parse

    with readable_votable(path):
        # "mask" makes an unreadable number a masked one: damage to a row, not to the file
        tables = list(parse(path, verify="ignore", invalid="mask").iter_tables())
    for table in tables:
        if any(field.name.lower() == "source_id" for field in table.fields):
            return table
    raise _no_sources(path)


def _no_sources(path: Path) -> InputError:
    return InputError(
        "no table in it has a column source_id", where=path, remedy="give a table of Gaia sources"
    )


@dataclass(frozen=True)
class FieldType:
    """One FIELD: its name in lower case, the type of an element, elements a cell (None: varies)."""

    name: str
    kind: np.dtype[Any]
    count: int | None

    @classmethod
    def of(cls, attributes: dict[str, str]) -> FieldType | None:
        """From the attributes of a FIELD; None if only astropy can read it."""
        kind = KINDS.get(attributes.get("datatype", ""))
        if kind is None:
            return None
        size = attributes.get("arraysize", "1")
        count = None if size.endswith("*") else math.prod(int(n) for n in size.split("x"))
        return cls(attributes["name"].strip().lower(), np.dtype(kind), count)


class Row(NamedTuple):
    """One star: its source_id (None: unreadable), its arrays, and what else is wrong with it."""

    source_id: int | None
    cells: dict[str, NDArray[np.floating]]
    fault: tuple[str, str] | None


Events = Iterator[tuple[str, Any]]
"""Starts and ends of XML elements, as :func:`xml.etree.ElementTree.iterparse` gives them."""
RowReader = Callable[[Events, Sequence[FieldType]], Iterator[Row]]


def _raw_blocks(path: Path, block: int) -> Iterator[RawBlock]:
    with ExitStack() as stack:
        with readable_votable(path):
            file = stack.enter_context(_open(path))
            events = iter(ElementTree.iterparse(file, ("start", "end")))
            columns, read = _head(events, path)
        if read is None:
            yield from _astropy_blocks(path, block)
            return
        rows, done = read(events, columns), 0
        while True:
            with readable_votable(path):
                chunk = list(islice(rows, block))
            if not chunk:
                return
            ids = [row.source_id for row in chunk if row.source_id is not None]
            if len(ids) < len(chunk):
                first = next(n for n, row in enumerate(chunk, 1) if row.source_id is None)
                raise InputError(
                    "is null or no 64-bit integer",
                    where=f"{path}, row {done + first}, column source_id",
                    remedy=DOWNLOAD_AGAIN,
                )
            yield RawBlock(
                np.array(ids, np.int64),
                {name: [row.cells[name] for row in chunk] for name in ARRAYS},
                {number: row.fault for number, row in enumerate(chunk) if row.fault},
            )
            done += len(chunk)


def _open(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _head(events: Events, path: Path) -> tuple[list[FieldType], RowReader | None]:
    """The columns of the first table with a column ``source_id``, and what reads its rows.

    None reads them where the file is one for astropy.
    """
    columns: list[FieldType] = []
    usual = True
    for event, element in events:
        tag = _tag(element)
        if event == "end":
            element.clear()
        elif tag == "TABLE":
            columns, usual = [], True
        elif tag == "FIELD":
            column = FieldType.of(element.attrib)
            usual &= column is not None
            columns += [] if column is None else [column]
        elif tag == "VALUES" and "null" in element.attrib:
            usual = False  # one number stands for a null
        elif tag in ("TABLEDATA", "STREAM", "BINARY", "FITS"):  # STREAM: inside BINARY2
            kinds = {column.name: column.kind.kind for column in columns}
            if usual and "source_id" not in kinds:
                continue
            if usual:
                check_columns(kinds, path)
                usual = kinds["source_id"] == "i" and all(kinds[name] in "iuf" for name in ARRAYS)
            if usual and tag == "TABLEDATA":
                return columns, _text_rows
            inside = element.get("encoding") == "base64" and "href" not in element.attrib
            return columns, _binary_rows if usual and tag == "STREAM" and inside else None
    raise _no_sources(path)


def _tag(element: Any) -> str:
    """Its name without the namespace."""
    return str(element.tag.rpartition("}")[2])


def _binary_rows(events: Events, columns: Sequence[FieldType]) -> Iterator[Row]:
    """Rows of BINARY2: a bit a column for nulls, then the cells, arrays after their length."""
    stream = next(element for event, element in events if event == "end")
    data = binascii.a2b_base64(stream.text or "")
    for _ in events:  # the file must be whole to its end
        pass
    at, flags = 0, (len(columns) + 7) // 8
    while at < len(data):
        nulls = int.from_bytes(data[at : at + flags].ljust(flags, b"\0"))
        at += flags
        values: dict[str, NDArray[Any]] = {}
        for number, column in enumerate(columns):
            count = column.count
            if count is None:
                (count,) = struct.unpack_from(">i", data, at)
                at += 4
            if count < 0 or at + count * column.kind.itemsize > len(data):
                raise ValueError("its BINARY2 stream ends inside a row")
            if not nulls >> (8 * flags - 1 - number) & 1:
                values[column.name] = np.frombuffer(data, column.kind, count, at)
            at += count * column.kind.itemsize
        star = values.get("source_id")
        cells = {name: _in_kind(values.get(name, EMPTY), name) for name in ARRAYS}
        yield Row(None if star is None else int(star[0]), cells, None)


def _text_rows(events: Events, columns: Sequence[FieldType]) -> Iterator[Row]:
    """Rows of TABLEDATA: one element a cell, the numbers of an array apart by blanks."""
    index = {column.name: number for number, column in enumerate(columns)}
    for event, element in events:
        if event == "start" or _tag(element) not in ("TR", "TABLEDATA"):
            continue
        if _tag(element) == "TABLEDATA":
            break
        texts = [cell.text or "" for cell in element]
        element.clear()
        fault = None
        if len(texts) != len(columns):
            fault = ("", f"has {len(texts)} of {len(columns)} columns")
            texts += [""] * (len(columns) - len(texts))
        cells: dict[str, NDArray[np.floating]] = {}
        for name in ARRAYS:
            try:
                cells[name] = _in_kind(np.array(texts[index[name]].split(), kind_of(name)), name)
            except ValueError as error:
                cells[name] = EMPTY
                fault = fault or (name, f"cannot be read as numbers ({error})")
        star = texts[index["source_id"]].strip()
        whole = star.removeprefix("-").isdecimal() and abs(int(star)) < 2**63
        yield Row(int(star) if whole else None, cells, fault)
    for _ in events:  # the file must be whole to its end
        pass


def _in_kind(values: NDArray[Any], column: str) -> NDArray[np.floating]:
    with np.errstate(over="ignore"):  # beyond float32: infinite, which the row checks refuse
        return values.astype(kind_of(column))


def _astropy_blocks(path: Path, block: int) -> Iterator[RawBlock]:
    table = first_votable(path)
    # the array's columns go by ID, which need not be the name
    names = {field.name.lower(): field.ID for field in table.fields}
    check_columns(names, path)
    source_id = as_source_id(table.array[names["source_id"]], path)
    for start in range(0, len(source_id), block):
        rows = slice(start, min(start + block, len(source_id)))
        with readable_votable(path):
            cells = {
                name: [_plain(cell, name) for cell in table.array[names[name]][rows]]
                for name in ARRAYS
            }
        yield RawBlock(source_id[rows], cells)


def _plain(cell: object, column: str) -> NDArray[np.floating]:
    """One cell without its mask (astropy widens float32)."""
    values = np.ma.filled(np.ma.asarray(cell, np.float64), np.nan)
    return np.atleast_1d(_in_kind(values, column))
