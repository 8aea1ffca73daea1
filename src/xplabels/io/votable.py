"""Read DataLink's VOTables, in any of their serialisations (TABLEDATA, BINARY, BINARY2, FITS).

The two that the archive sends, BINARY2 and TABLEDATA (VOTable 1.4, sections 5.1 and 5.4), are read
here, because astropy takes nine and three times as long, and reads an integer beyond 64 bits as
another one. All others are read by astropy.
"""

from __future__ import annotations

import binascii
import io
import logging
import math
import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io.arrays import EMPTY
from xplabels.io.files import check_size, open_seekable, whole
from xplabels.io.forms import SOURCE_ID, FileTable, names_of
from xplabels.io.rows import (
    ARRAYS,
    BLOCK_ROWS,
    NEEDED,
    BadRows,
    RawBlock,
    assembled,
    kind_of,
    table_blocks,
    unreadable,
)

logger = logging.getLogger(__name__)

VOTable = Any
"""An astropy ``TableElement``."""

KINDS = {
    "unsignedByte": "u1", "short": ">i2", "int": ">i4", "long": ">i8", "float": ">f4",
    "double": ">f8", "boolean": "S1", "char": "S1", "unicodeChar": "V2", "floatComplex": "V8",
    "doubleComplex": "V16",
}  # fmt: skip
"""VOTable's data types -> numpy's, without ``bit``, which is packed."""


Columns = dict[str, tuple[str, int | None]]
"""Lower-case name -> type of an element, and elements per cell (None: any number)."""
Row = tuple[int | str | None, dict[str, NDArray[Any]], tuple[str, str] | None]
"""A source_id (None: null), the arrays by column, and (column, what is wrong) of a damaged row."""


def read_votable(path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of stars from all tables that have source_ids; they must have the same columns.

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


def parse_votable(path: Path) -> list[VOTable]:
    """All tables of a file, as astropy reads them; InputError if the file is bad."""
    from astropy.io.votable import parse

    with readable_votable(path), open_checked(path) as file:
        # "mask" makes an unreadable number a masked one: damage to a row, not to the file
        tree = parse(file, verify="ignore", invalid="mask")
        found = list(tree.iter_tables())
    infos = [info for part in (tree, *tree.resources) for info in part.infos]
    check_answer(((i.value, i.content) for i in infos if i.name == "QUERY_STATUS"), path)
    return found


def votables(path: Path) -> list[FileTable]:
    """All tables of a file, as astropy reads them; InputError if the file is bad."""
    tables = []
    for number, table in enumerate(parse_votable(path), start=1):
        # the array's columns go by ID, which need not be the name
        ids = {field.name: field.ID for field in table.fields}
        units = {field.name: str(field.unit) for field in table.fields if field.unit}
        title = f"table {number} ({table.name})" if table.name else f"table {number}"
        names = [field.name for field in table.fields]
        column = partial(lambda array, ids, name: array[ids[name]], table.array, ids)
        words = {f.name: {"description": f.description, "ucd": f.ucd} for f in table.fields}
        tables.append(FileTable(title, names, column, units, words))
    return tables


@contextmanager
def open_checked(path: Path) -> Iterator[IO[bytes]]:
    """A VOTable, unpacked, that has passed :func:`check_votable`."""
    with open_seekable(path) as file:
        check_votable(file, path)
        yield file


def check_votable(file: IO[bytes], path: Path | str) -> None:
    """Raise InputError if astropy should not read a VOTable.

    That is if its data are elsewhere, at an address or in another file, which astropy would open;
    if it defines XML entities; or if it declares to be larger than it can be.
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    row = rows = declared = 0  # bytes of a row, and numbers of rows, of the current table

    def begin(tag: str, attributes: dict[str, str]) -> None:
        nonlocal row, rows, declared
        name = tag.rpartition(" ")[2]
        if name == "TD":
            return
        if name == "TABLE":
            row, rows, declared = 0, 0, int(attributes.get("nrows") or 0)
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
        check_size(path, row * max(rows, declared), end)

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
    with readable_votable(path):
        tables = _usual_tables(path) or votables(path)
    yield from table_blocks(tables, path, block, readable_votable)


def _usual_tables(path: Path) -> list[FileTable] | None:
    """The tables of a file whose spectra are BINARY2 or TABLEDATA; None if it is for astropy."""
    with open_checked(path) as file:
        root = ElementTree.parse(file).getroot()
    statuses = root.iterfind(".//{*}INFO[@name='QUERY_STATUS']")
    check_answer(((info.get("value"), info.text) for info in statuses), path)
    tables: list[FileTable] = []
    for number, table in enumerate(root.iterfind(".//{*}TABLE"), start=1):
        names = [field.get("name", "") for field in table.findall("{*}FIELD")]
        chosen = names_of(names, path, (SOURCE_ID, *ARRAYS))
        columns: dict[str, Any] = {}
        faults: dict[int, tuple[str, str]] = {}
        if SOURCE_ID in chosen:
            if (rows := _usual_rows(table, chosen)) is None:
                return None
            listed = list(rows)
            columns = {chosen[name]: [cells[name] for _, cells, _ in listed]
                       for name in ARRAYS if name in chosen}  # fmt: skip
            columns[chosen[SOURCE_ID]] = np.array([star for star, *_ in listed], object)
            faults = {n: fault for n, (*_, fault) in enumerate(listed) if fault}
        title = f"table {number} ({table.get('name', 'without a name')})"
        tables.append(FileTable(title, names, columns.__getitem__, faults=faults))
    return tables if any(SOURCE_ID in names_of(t.names, path) for t in tables) else None


def check_answer(statuses: Iterable[tuple[str | None, str | None]], path: Path) -> None:
    """Check the (value, text) of a file's INFO elements QUERY_STATUS.

    Raises InputError with the service's message if it is an error; logs a warning if it says that
    rows are missing.
    """
    for value, text in statuses:
        if value == "ERROR":
            raise InputError(
                f"is an error of the archive, not a table: {' '.join((text or '').split())[:200]}",
                where=path,
                remedy="ask the archive again",
            )
        if value == "OVERFLOW":
            logger.warning("%s: the archive says that it cut the table off at its limit", path)


def _usual_rows(table: ElementTree.Element, chosen: Mapping[str, str]) -> Iterator[Row] | None:
    """The rows of a table of stars; None if astropy has to read it."""
    if not {SOURCE_ID, *NEEDED} <= chosen.keys():
        return None
    columns: Columns = {}
    lower = {name: key for key, name in chosen.items()}
    for field in table.findall("{*}FIELD"):
        size = field.get("arraysize", "1")
        count = None if size.endswith("*") else math.prod(int(n) for n in size.split("x"))
        name = field.attrib["name"]
        columns[lower.get(name, name)] = (KINDS.get(field.get("datatype", ""), ""), count)
    arrays = [name for name in ARRAYS if name in chosen]
    usual = (
        all(kind for kind, _ in columns.values())
        and columns[SOURCE_ID] == (">i8", 1)
        and all(columns[name][0] in (">f4", ">f8") for name in arrays)
        and table.find("{*}FIELD/{*}VALUES[@null]") is None  # else a number stands for a null
    )
    text = table.find("{*}DATA/{*}TABLEDATA")
    stream = table.find("{*}DATA/{*}BINARY2/{*}STREAM")
    if usual and text is not None:
        return _text_rows(columns, text, arrays)
    if usual and stream is not None and stream.get("encoding") == "base64":
        return _binary_rows(columns, binascii.a2b_base64(stream.text or ""), arrays)
    return None


def _binary_rows(columns: Columns, data: bytes, arrays: Sequence[str]) -> Iterator[Row]:
    """Rows of BINARY2: one bit per column for nulls, then the cells, arrays after their length."""
    at, flag_bytes = 0, (len(columns) + 7) // 8
    while at < len(data):
        nulls = int.from_bytes(data[at : at + flag_bytes].ljust(flag_bytes, b"\0"))
        at += flag_bytes
        row: dict[str, NDArray[Any]] = {}
        for number, (name, (kind, count)) in enumerate(columns.items(), start=1):
            if count is None:
                (count,) = struct.unpack_from(">i", data, at)
                at += 4
            end = at + count * np.dtype(kind).itemsize
            if count < 0 or end > len(data):
                raise ValueError("its BINARY2 stream ends inside a row")
            if not nulls >> (8 * flag_bytes - number) & 1:
                row[name] = np.frombuffer(data, kind, count, at)
            at = end
        star = int(row["source_id"][0]) if "source_id" in row else None
        yield star, {name: row.get(name, EMPTY) for name in arrays}, None


def _text_rows(columns: Columns, data: ElementTree.Element, arrays: Sequence[str]) -> Iterator[Row]:
    """Rows of TABLEDATA: one element per cell, the numbers of an array separated by blanks."""
    for element in data.findall("{*}TR"):
        texts = [cell.text or "" for cell in element]
        fault = None
        if len(texts) != len(columns):
            fault = ("", f"has {len(texts)} of {len(columns)} columns")
            texts += [""] * (len(columns) - len(texts))
        row = dict(zip(columns, texts, strict=False))
        cells: dict[str, NDArray[Any]] = {}
        for name in arrays:
            try:
                cells[name] = np.array(row[name].split(), kind_of(name))
            except ValueError as error:
                cells[name] = EMPTY
                fault = fault or (name, unreadable(str(error)))
        yield row["source_id"], cells, fault
