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
from xplabels.io.files import DOWNLOAD_AGAIN, LONGEST_LINE, Digest, byte_lines, reads
from xplabels.io.rows import (
    ARRAYS,
    BLOCK_ROWS,
    EMPTY,
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
SHELLS = (tuple(b"[]"), tuple(b"()"))
csv.field_size_limit(LONGEST_LINE)  # 131,072 by default: the correlations of 150 coefficients
_DELIMITER = re.compile(rb"""^#\s*delimiter:\s*(["'])(.)\1\s*$""")


@reads("CSV file")
def read_csv(
    path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS, digest: Digest | None = None
) -> Iterator[Stars]:
    """Blocks of at most ``block`` stars from comma-separated text, gzipped or not.

    ``digest`` counts the file's bytes as they are read. Raises InputError for a file that is
    unreadable, truncated, lacks columns or rows, or (``bad_rows="error"``) holds a damaged row.
    """
    return assembled(_raw_blocks(path, block, ",", digest), path, bad_rows)


@reads("ECSV file")
def read_ecsv(path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of stars from an ECSV file; only the delimiter is taken from its YAML header.

    Raises InputError as :func:`read_csv`, and if the file is not ECSV.
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
        if not rows.source_id:
            return
        yield rows.take()


class _Rows:
    """Lines -> raw blocks; text becomes numbers at once, so a block holds no text."""

    def __init__(self, path: Path, names: Sequence[str], delimiter: str, block: int) -> None:
        self._path, self._delimiter, self._columns = path, delimiter.encode(), len(names)
        self._star = names.index("source_id")
        self._column = {name: names.index(name) for name in ARRAYS}
        places = sorted(self._column.values())
        # pieces of text, some empty, before the first array, between one and the next, and after
        self._apart = (np.diff([0, *places, len(names) - 1]) + 1).tolist()
        self._in_order = [places.index(self._column[name]) for name in USUAL_ORDER]
        try:
            self._parser: Any = importlib.import_module("simdjson").Parser()
        except ImportError:
            self._parser = None
        self._taken, self._block = 0, block
        self._clear([0] * len(ARRAYS))

    def _clear(self, lengths: list[int]) -> None:
        """Begin a block whose usual rows have arrays of these lengths."""
        self._lengths = lengths
        self._ends = np.cumsum(lengths)[WIDE - 1 :].tolist()
        self._wide = np.empty((self._block, self._ends[0]))
        # float32 from the start: half the memory to pass through, a tenth of the time
        self._narrow = [np.empty((self._block, packed), np.float32) for packed in lengths[WIDE:]]
        self.source_id: list[int] = []
        self._other: dict[int, dict[str, NDArray[np.floating]]] = {}
        self._faults: dict[int, tuple[str, str]] = {}

    def add(self, line: bytes) -> None:
        """One data line. Raises InputError if it is cut off or its source_id is unreadable."""
        star = None if self._parser is None else self._add_usual(line)
        self.source_id.append(self._add_other(line) if star is None else star)

    def take(self) -> RawBlock:
        """The rows since the last call."""
        rows, other = len(self.source_id), self._other
        wide = np.split(self._wide[:rows], np.cumsum(self._lengths[: WIDE - 1]), axis=1)
        arrays = (*wide, *(packed[:rows] for packed in self._narrow))
        cells: dict[str, Cells] = {}
        for name, values in zip(USUAL_ORDER, arrays, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):  # other rows hold anything
                usual = values.astype(kind_of(name), copy=False)
            cells[name] = (
                [other[n][name] if n in other else row for n, row in enumerate(usual)]
                if other
                else usual
            )
        raw = RawBlock(np.array(self.source_id, np.int64), cells, self._faults)
        self._taken += rows
        self._clear(self._lengths)
        return raw

    def _add_usual(self, line: bytes) -> int | None:
        """Read six arrays as one JSON document; the source_id, None if the row is not usual."""
        view, at = memoryview(line), 0
        between, arrays = [], []
        for _ in ARRAYS:
            start = line.find(b'"', at) + 1
            end = line.find(b'"', start)
            if not 0 < start < end or (line[start], line[end - 1]) not in SHELLS:
                return None
            if line.find(b"[", start + 1, end) > 0:
                return None
            between.append(line[at : start - 1].split(self._delimiter))
            arrays.append(view[start + 1 : end - 1])
            at = end + 1
        after = line[at:].rstrip(b"\r\n")
        before, *between = *between, after.split(self._delimiter)
        if [len(before), *map(len, between)] != self._apart or b'"' in after:
            return None
        # quotes stand around whole cells
        if before[-1] or between[-1][0] or any(cells[0] or cells[-1] for cells in between[:-1]):
            return None
        star = before[self._star] if self._star < len(before) else b""
        if not star.isdigit() or len(star) > 19 or int(star) >= 2**63:
            return None
        try:
            document = b"],[".join([arrays[place] for place in self._in_order])
            parsed = self._parser.parse(b"[[%b]]" % document)
            lengths = [len(array) for array in parsed]
            numbers = np.frombuffer(parsed.as_buffer(of_type="d"))
        except (ValueError, TypeError, RuntimeError):  # simdjson's ways to refuse
            return None
        row = len(self.source_id)
        if lengths != self._lengths:
            if len(self._other) < row or not _consistent(lengths):
                return None
            source_id, other, faults = self.source_id, self._other, self._faults
            self._clear(lengths)
            self.source_id, self._other, self._faults = source_id, other, faults
        wide, bp, rp = self._ends
        self._wide[row] = numbers[:wide]
        self._narrow[0][row], self._narrow[1][row] = numbers[wide:bp], numbers[bp:rp]
        return int(star)

    def _add_other(self, line: bytes) -> int:
        """Read a line of any kind; its source_id."""
        row = len(self.source_id)
        where = f"{self._path}, row {self._taken + row + 1}"
        text, delimiter = line.decode("utf-8", "replace"), self._delimiter.decode()
        fault = ""
        try:
            # one reader per line: an unclosed quote must not swallow the lines that follow
            texts = next(csv.reader([text], delimiter=delimiter, strict=True))
        except csv.Error as error:
            texts, fault = text.split(delimiter, 1 + self._star), f"is not readable ({error})"
        if not fault and len(texts) != self._columns:
            fault = f"has {len(texts)} of {self._columns} columns"
        if fault and not line.endswith((b"\n", b"\r")):
            raise InputError(
                f"is truncated: the last line {fault}", where=where, remedy=DOWNLOAD_AGAIN
            )
        star = texts[self._star].strip() if self._star < len(texts) else ""
        # a plain int() would take "1_0", and a float cannot hold 19 digits
        if len(star) > 20 or not star.removeprefix("-").isdecimal() or abs(int(star)) >= 2**63:
            raise InputError(
                f"{star!r} is not a 64-bit integer",
                where=f"{where}, column source_id",
                remedy=DOWNLOAD_AGAIN,
            )
        self._other[row] = dict.fromkeys(ARRAYS, EMPTY)
        if fault:
            self._faults[row] = ("", fault)
            return int(star)
        for name, column in self._column.items():
            try:
                self._other[row][name] = parse_array(texts[column], kind_of(name))
            except ValueError as error:
                self._faults.setdefault(row, (name, f"cannot be read as numbers ({error})"))
        return int(star)


def _consistent(lengths: Sequence[int]) -> bool:
    """Whether both bands are there, with as many errors and correlations as they must have."""
    bp, bp_errors, rp, rp_errors, *packed = lengths
    return (
        bp * rp > 0
        and (bp_errors, rp_errors) == (bp, rp)
        and packed == [bp * (bp - 1) // 2, rp * (rp - 1) // 2]
    )


def parse_array(text: str, kind: type[np.floating]) -> NDArray[np.floating]:
    """Numbers from ``"[a,b]"`` or ``"(a, b)"``; empty for a null. Raises ValueError for the rest.

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
