"""Spectra as delimited text: DataLink CSV and ECSV, the bulk files, and any like them.

A file is: maybe header lines that begin with ``#``, a line of column names, then one line per star.
Arrays are quoted text, ``"[a,b]"`` (bulk) or ``"(a, b)"`` (DataLink); null is ``null`` or nothing.

Nearly all lines hold six arrays of the same lengths in the same places; where simdjson is installed
(extra ``fast``) it reads their numbers, correctly rounded as Python's ``float`` is, ten times as
fast. Any other line goes through :mod:`csv` and :func:`parse_array`, which know every form and
every fault, so that what comes out does not depend on simdjson.
"""

from __future__ import annotations

import csv
import importlib
import re
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io.files import DOWNLOAD_AGAIN, Digest, byte_lines
from xplabels.io.rows import (
    ARRAYS,
    BLOCK_ROWS,
    EMPTY,
    REQUIRED,
    BadRows,
    Cells,
    RawBlock,
    assembled,
    check_columns,
    kind_of,
)

USUAL_ORDER = sorted(ARRAYS, key=lambda name: name.endswith("correlations"))
WIDE = 4
"""In this order the arrays of a row are read, so that the first four are kept as float64."""
NULLS = frozenset(("", "null", "nan", "[]", "()"))
_DELIMITER = re.compile(rb"""^#\s*delimiter:\s*(["'])(.)\1\s*$""")
SHELLS = (tuple(b"[]"), tuple(b"()"))
_LINE_END = ord("\n"), ord("\r")


def read_csv(
    path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS, digest: Digest | None = None
) -> Iterator[Stars]:
    """Blocks of at most ``block`` stars from comma-separated text, gzipped or not.

    ``digest`` counts the file's bytes as they are read.

    Raises
    ------
    InputError
        For a file that is unreadable, truncated, lacks columns or rows, or (``bad_rows="error"``)
        holds a damaged row.
    """
    return assembled(_raw_blocks(path, block, ",", digest), path, bad_rows)


def read_ecsv(path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of stars from an ECSV file; only the delimiter is taken from its YAML header.

    Raises
    ------
    InputError
        As :func:`read_csv`, and if the file is not ECSV.
    """
    header = list(takewhile(lambda line: line.startswith(b"#"), byte_lines(path)))
    if not header or b"%ECSV" not in header[0]:
        raise InputError(
            "does not begin with '# %ECSV'", where=path, remedy="give it the ending .csv"
        )
    found = [match[2].decode() for line in header if (match := _DELIMITER.match(line))]
    return assembled(_raw_blocks(path, block, found[0] if found else " ", None), path, bad_rows)


def take_header(lines: Iterator[bytes]) -> tuple[int, str]:
    """The number of lines up to and with that of column names, and that line ("" if none)."""
    for number, line in enumerate(lines, start=1):
        if not line.startswith(b"#") and not line.isspace():
            return number, line.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\r\n")
    return 0, ""


def column_names(header: str, delimiter: str = ",") -> list[str]:
    """Column names, in lower case: releases differ in case."""
    names = next(csv.reader([header], delimiter=delimiter), [])
    return [name.strip().lower() for name in names]


def _raw_blocks(
    path: Path, block: int, delimiter: str, digest: Digest | None
) -> Iterator[RawBlock]:
    lines = byte_lines(path, digest)
    _, header = take_header(lines)
    if not header:
        raise InputError("is empty", where=path, remedy=DOWNLOAD_AGAIN)
    names = column_names(header, delimiter)
    check_columns(names, path)
    rows = _Rows(path, names, delimiter, block)
    filled = (line for line in lines if not line.isspace())
    while True:
        # beyond float32: infinite, which the row checks refuse
        with np.errstate(over="ignore"):
            for line in islice(filled, block):
                rows.add(line)
        if not len(rows):
            return
        yield rows.take()


class _Rows:
    """Lines -> raw blocks; text becomes numbers at once, so a block holds no text."""

    def __init__(self, path: Path, names: Sequence[str], delimiter: str, block: int) -> None:
        self._path, self._delimiter, self._columns = path, delimiter.encode(), len(names)
        index = {name: names.index(name) for name in REQUIRED}
        self._star = index["source_id"]
        self._column = {name: index[name] for name in ARRAYS}
        self._in_order = [index[name] for name in USUAL_ORDER]
        self._parser = _json_parser()
        self._taken, self._block = 0, block
        self._lengths = [0] * len(ARRAYS)  # of the arrays of a usual row
        self._clear()

    def _clear(self) -> None:
        self._allocate(self._lengths)
        self._source_id: list[int] = []
        self._other: dict[int, dict[str, NDArray[np.floating]]] = {}
        self._faults: dict[int, tuple[str, str]] = {}

    def _allocate(self, lengths: list[int]) -> None:
        """Room for usual rows, whose arrays have these lengths."""
        self._lengths = lengths
        self._ends = np.cumsum(lengths)[WIDE - 1 :].tolist()
        self._wide = np.empty((self._block, self._ends[0]))
        # float32 from the start: half the memory to pass through, a tenth of the time
        self._narrow = [np.empty((self._block, packed), np.float32) for packed in lengths[WIDE:]]
        wide = np.split(self._wide, np.cumsum(lengths[: WIDE - 1]), axis=1)
        self._usual = dict(zip(USUAL_ORDER, (*wide, *self._narrow), strict=True))

    def __len__(self) -> int:
        return len(self._source_id)

    def add(self, line: bytes) -> None:
        """One data line.

        Raises
        ------
        InputError
            If it is cut off, or its source_id cannot be read.
        """
        row, star = len(self), self._add_usual(line)
        if star is not None:
            self._source_id.append(star)
            return
        texts, fault = self._split(line)
        self._source_id.append(self._read_id(texts))
        self._other[row] = dict.fromkeys(ARRAYS, EMPTY)
        if fault:
            self._faults[row] = ("", fault)
            return
        for name, column in self._column.items():
            try:
                self._other[row][name] = parse_array(texts[column], kind_of(name))
            except ValueError as error:
                self._faults.setdefault(row, (name, f"cannot be read as numbers ({error})"))

    def take(self) -> RawBlock:
        """The rows since the last call."""
        cells: dict[str, Cells] = {}
        for name in ARRAYS:
            with np.errstate(over="ignore", invalid="ignore"):  # other rows hold anything
                usual = self._usual[name][: len(self)].astype(kind_of(name), copy=False)
            cells[name] = (
                usual
                if not self._other
                else [
                    self._other[row][name] if row in self._other else values
                    for row, values in enumerate(usual)
                ]
            )
        raw = RawBlock(np.array(self._source_id, np.int64), cells, self._faults)
        self._taken += len(self)
        self._clear()
        return raw

    def _add_usual(self, line: bytes) -> int | None:
        """Read six arrays as one JSON document; the source_id, None if the row is not usual."""
        cells = None if self._parser is None else split_line(line, self._delimiter)
        if cells is None or len(cells) != self._columns:
            return None
        star, view, arrays = cells[self._star], memoryview(line), []
        if isinstance(star, tuple) or not star.isdigit() or len(star) > 18:
            return None
        for column in self._in_order:
            cell = cells[column]
            if not isinstance(cell, tuple):
                return None
            start, end = cell
            if (line[start], line[end - 1]) not in SHELLS or line.find(b"[", start + 1, end) > 0:
                return None
            arrays.append(view[start + 1 : end - 1])
        try:
            parsed = self._parser.parse(b"[[%b]]" % b"],[".join(arrays))
            lengths = [len(array) for array in parsed]
            numbers = np.frombuffer(parsed.as_buffer(of_type="d"))
        except (ValueError, TypeError, RuntimeError):  # simdjson's ways to refuse
            return None
        row = len(self._source_id)
        if lengths != self._lengths:
            if len(self._other) < row or not _consistent(lengths):
                return None
            self._allocate(lengths)
        wide, bp, rp = self._ends
        self._wide[row] = numbers[:wide]
        self._narrow[0][row], self._narrow[1][row] = numbers[wide:bp], numbers[bp:rp]
        return int(star)

    def _where(self) -> str:
        return f"{self._path}, row {self._taken + len(self) + 1}"

    def _split(self, line: bytes) -> tuple[list[str], str]:
        """The cells of a line of any kind, and what is wrong with it, if anything."""
        text, delimiter = line.decode("utf-8", "replace"), self._delimiter.decode()
        fault = ""
        try:
            # one reader per line: an unclosed quote must not swallow the lines that follow
            texts = next(csv.reader([text], delimiter=delimiter, strict=True))
        except csv.Error as error:
            texts = text.split(delimiter, 1 + self._star)
            fault = f"is not readable ({error})"
        if not fault and len(texts) != self._columns:
            fault = f"has {len(texts)} of {self._columns} columns"
        if fault and line[-1] not in _LINE_END:
            raise InputError(
                f"is truncated: the last line {fault}", where=self._where(), remedy=DOWNLOAD_AGAIN
            )
        return texts, fault

    def _read_id(self, texts: Sequence[str]) -> int:
        text = texts[self._star].strip() if self._star < len(texts) else ""
        # a plain int() would take "1_0", and a float cannot hold 19 digits
        if len(text) > 20 or not text.removeprefix("-").isdecimal() or abs(int(text)) >= 2**63:
            raise InputError(
                f"{text!r} is not a 64-bit integer",
                where=f"{self._where()}, column source_id",
                remedy=DOWNLOAD_AGAIN,
            )
        return int(text)


def _json_parser() -> Any:
    try:
        return importlib.import_module("simdjson").Parser()
    except ImportError:
        return None


def _consistent(lengths: Sequence[int]) -> bool:
    """Whether both bands are there, with as many errors and correlations as they must have."""
    bp, bp_errors, rp, rp_errors, *packed = lengths
    return (
        bp * rp > 0
        and (bp_errors, rp_errors) == (bp, rp)
        and packed == [bp * (bp - 1) // 2, rp * (rp - 1) // 2]
    )


def split_line(line: bytes, delimiter: bytes) -> list[bytes | tuple[int, int]] | None:
    """The cells of a line; of a quoted one, where its text starts and ends.

    None if quotes do not stand around whole cells.
    """
    at, end = 0, len(line)
    while end and line[end - 1] in _LINE_END:
        end -= 1
    cells: list[bytes | tuple[int, int]] = []
    while True:
        opening = line.find(b'"', at, end)
        cells += line[at : end if opening < 0 else opening].split(delimiter)
        if opening < 0:
            return cells
        closing = line.find(b'"', opening + 1, end)
        if closing < 0 or cells[-1]:
            return None
        cells[-1] = opening + 1, closing
        if closing + 1 == end:
            return cells
        if not line.startswith(delimiter, closing + 1):
            return None
        at = closing + 1 + len(delimiter)


def parse_array(text: str, kind: type[np.floating]) -> NDArray[np.floating]:
    """Numbers from ``"[a,b]"`` or ``"(a, b)"``; empty for a null.

    Raises
    ------
    ValueError
        If the text is anything else.

    Examples
    --------
    >>> parse_array("(1.5, -2.5E-1)", np.float64)
    array([ 1.5 , -0.25])
    """
    text = text.strip()
    if text.lower() in NULLS:
        return EMPTY
    if text[0] + text[-1] not in ("[]", "()"):
        raise ValueError("brackets are missing")
    values = text[1:-1].split(",")
    if values[-1].strip() == "":  # "(a,)"
        values.pop()
    with np.errstate(over="ignore"):  # beyond float32: infinite, which the row checks refuse
        return np.array(values, kind)
