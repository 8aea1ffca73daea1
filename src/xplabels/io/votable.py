"""DataLink VOTable, in any of its serialisations (TABLEDATA, BINARY, BINARY2, FITS).

The two that the archive sends, BINARY2 and TABLEDATA (VOTable 1.4, sections 5.1 and 5.4), are read
here: astropy takes nine and three times as long, and an integer beyond 64 bits as another one.
Whatever else a VOTable may be is left to astropy.
"""

from __future__ import annotations

import binascii
import io
import math
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io.files import check_size, open_seekable, reads, whole
from xplabels.io.rows import (
    ARRAYS,
    BLOCK_ROWS,
    EMPTY,
    BadRows,
    RawBlock,
    assembled,
    check_columns,
    column_blocks,
    kind_of,
    no_sources,
)

VOTable = Any
"""An astropy ``TableElement``."""

KINDS = {
    "unsignedByte": "u1", "short": ">i2", "int": ">i4", "long": ">i8", "float": ">f4",
    "double": ">f8", "boolean": "S1", "char": "S1", "unicodeChar": "V2", "floatComplex": "V8",
    "doubleComplex": "V16",
}  # fmt: skip
"""VOTable's data types as bytes; ``bit``, which is packed, is not among them."""


Columns = dict[str, tuple[str, int | None]]
"""Lower-case name -> type of an element, elements a cell (None: varies)."""
Row = tuple[int | None, dict[str, NDArray[Any]], tuple[str, str] | None]
"""A source_id (None: unreadable), the arrays, and what else is wrong."""


@reads("VOTable")
def read_votable(path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of stars from the first table that has a column ``source_id``.

    The whole file is in memory while it is read. Raises InputError for a file that is unreadable,
    truncated, lacks columns or rows, or (``bad_rows="error"``) holds a damaged row.
    """
    return assembled(_raw_blocks(path, block), path, bad_rows)


@contextmanager
def readable_votable(path: Path) -> Iterator[None]:
    """Turn what astropy says of a damaged VOTable into an :class:`InputError`; silence the rest."""
    with warnings.catch_warnings(), whole(path, "VOTable"):
        warnings.simplefilter("ignore")
        yield


def first_votable(path: Path) -> VOTable:
    """The first table that has a column ``source_id``; InputError if none, or the file is bad."""
    from astropy.io.votable import parse

    with readable_votable(path), open_checked(path) as file:
        # "mask" makes an unreadable number a masked one: damage to a row, not to the file
        tables = list(parse(file, verify="ignore", invalid="mask").iter_tables())
    for table in tables:
        if any(field.name.lower() == "source_id" for field in table.fields):
            return table
    raise no_sources(path)


@contextmanager
def open_checked(path: Path) -> Iterator[IO[bytes]]:
    """A VOTable, unpacked, that has passed :func:`check_votable`."""
    with open_seekable(path) as file:
        check_votable(file, path)
        yield file


def check_votable(file: IO[bytes], path: Path | str) -> None:
    """Raise InputError where a VOTable makes astropy do more than read it.

    That is where its data are elsewhere, at an address or in another file, which astropy would
    open; where it defines XML entities; or where it says to be larger than it can be.
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    row = rows = said = 0

    def begin(tag: str, attributes: dict[str, str]) -> None:
        nonlocal row, rows, said
        name = tag.rpartition(" ")[2]
        if name == "TD":
            return
        if name == "TABLE":
            row, rows, said = 0, 0, int(attributes.get("nrows") or 0)
        elif name == "FIELD":
            size = attributes.get("arraysize", "")
            numbers = [1] if size.endswith("*") else map(int, re.findall(r"\d+", size))
            kind = KINDS.get(attributes.get("datatype", ""))
            row += math.prod(numbers) * np.dtype(kind or "V16").itemsize
        elif name == "TR":
            rows += 1
        elif name == "STREAM" and "href" in attributes:
            raise InputError(
                f"its data are elsewhere ({attributes['href'][:100]!r}), where nothing is read",
                where=path,
                remedy="give the file of data, or save the table with its data in it",
            )
        elif name == "STREAM" and not row:
            raise ValueError("its rows are empty")
        check_size(path, row * max(rows, said), end)

    def entity(name: str, *_: object) -> None:
        raise InputError(
            f"defines an XML entity ({name[:50]!r})",
            where=path,
            remedy="save it without: no VOTable needs one",
        )

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EntityDeclHandler = begin, entity
    parser.ParseFile(file)
    file.seek(0)


def _raw_blocks(path: Path, block: int) -> Iterator[RawBlock]:
    columns: dict[str, Any]
    faults: dict[int, tuple[str, str]] = {}
    with readable_votable(path):
        rows = _usual_rows(path)
        if rows is None:
            table = first_votable(path)
            # the array's columns go by ID, which need not be the name
            columns = {field.name.lower(): table.array[field.ID] for field in table.fields}
        else:
            read = list(rows)
            columns = {name: [cells[name] for _, cells, _ in read] for name in ARRAYS}
            stars = [star for star, *_ in read]
            null = [star is None for star in stars]
            columns["source_id"] = np.ma.array([star or 0 for star in stars], np.int64, mask=null)
            faults = {number: fault for number, (*_, fault) in enumerate(read) if fault}
    yield from column_blocks(columns, path, block, readable_votable, faults)


def _usual_rows(path: Path) -> Iterator[Row] | None:
    """The rows of a BINARY2 or TABLEDATA table of stars; None where the file is one for astropy."""
    with open_checked(path) as file:
        root = ElementTree.parse(file).getroot()
    for table in root.findall(".//{*}TABLE"):
        columns: Columns = {}
        for field in table.findall("{*}FIELD"):
            size = field.get("arraysize", "1")
            count = None if size.endswith("*") else math.prod(int(n) for n in size.split("x"))
            kind = KINDS.get(field.get("datatype", ""), "")
            columns[field.attrib["name"].strip().lower()] = (kind, count)
        if "source_id" not in columns:
            continue
        check_columns(columns, path)
        usual = (
            all(kind for kind, _ in columns.values())
            and columns["source_id"] == (">i8", 1)
            and all(columns[name][0] in (">f4", ">f8") for name in ARRAYS)
            and table.find("{*}FIELD/{*}VALUES[@null]") is None  # a number stands for a null
        )
        text = table.find("{*}DATA/{*}TABLEDATA")
        stream = table.find("{*}DATA/{*}BINARY2/{*}STREAM")
        if usual and text is not None:
            return _text_rows(columns, text)
        if usual and stream is not None and stream.get("encoding") == "base64":
            return _binary_rows(columns, binascii.a2b_base64(stream.text or ""))
        return None
    raise no_sources(path)


def _binary_rows(columns: Columns, data: bytes) -> Iterator[Row]:
    """Rows of BINARY2: a bit a column for nulls, then the cells, arrays after their length."""
    at, flags = 0, (len(columns) + 7) // 8
    while at < len(data):
        nulls = int.from_bytes(data[at : at + flags].ljust(flags, b"\0"))
        at += flags
        row: dict[str, NDArray[Any]] = {}
        for number, (name, (kind, count)) in enumerate(columns.items(), start=1):
            if count is None:
                (count,) = struct.unpack_from(">i", data, at)
                at += 4
            end = at + count * np.dtype(kind).itemsize
            if count < 0 or end > len(data):
                raise ValueError("its BINARY2 stream ends inside a row")
            if not nulls >> (8 * flags - number) & 1:
                row[name] = np.frombuffer(data, kind, count, at)
            at = end
        star = int(row["source_id"][0]) if "source_id" in row else None
        yield star, {name: row.get(name, EMPTY) for name in ARRAYS}, None


def _text_rows(columns: Columns, data: ElementTree.Element) -> Iterator[Row]:
    """Rows of TABLEDATA: one element a cell, the numbers of an array apart by blanks."""
    for element in data.findall("{*}TR"):
        texts = [cell.text or "" for cell in element]
        fault = None
        if len(texts) != len(columns):
            fault = ("", f"has {len(texts)} of {len(columns)} columns")
            texts += [""] * (len(columns) - len(texts))
        row = dict(zip(columns, texts, strict=False))
        cells: dict[str, NDArray[Any]] = {}
        for name in ARRAYS:
            try:
                cells[name] = np.array(row[name].split(), kind_of(name))
            except ValueError as error:
                cells[name] = EMPTY
                fault = fault or (name, f"cannot be read as numbers ({error})")
        star = row["source_id"].strip()
        whole = star.removeprefix("-").isdecimal() and abs(int(star)) < 2**63
        yield int(star) if whole else None, cells, fault
