"""Spectra as delimited text: DataLink CSV, the bulk files, ECSV, and any like them.

A file is: maybe header lines that begin with ``#``, a line of column names, then one line a star.
Arrays are quoted text, ``"[a,b]"`` (bulk) or ``"(a, b)"`` (DataLink); null is ``null`` or nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io.gunzip import Digest, open_bytes, readable_bytes
from xplabels.io.rows import (
    ARRAYS,
    DOWNLOAD_AGAIN,
    EMPTY,
    REQUIRED,
    BadRows,
    RawBlock,
    assembled,
    check_columns,
    kind_of,
)

NULLS = frozenset(("", "null", "nan", "[]", "()"))


def read_delimited(
    path: Path, bad_rows: BadRows, block: int, delimiter: str, digest: Digest | None = None
) -> Iterator[Stars]:
    """Blocks of at most ``block`` stars from a delimited text file, gzipped or not.

    ``delimiter`` is one character. ``digest`` counts the file's bytes as they are read.

    Raises
    ------
    InputError
        For a file that is unreadable, truncated, lacks columns or rows, or (``bad_rows="error"``)
        holds a damaged row.
    """
    return assembled(_raw_blocks(path, block, delimiter, digest), path, bad_rows)


def lines(path: Path, digest: Digest | None = None) -> Iterator[str]:
    """The lines of a text file, gzipped if its name ends in ``.gz``.

    Raises
    ------
    InputError
        If the file cannot be read, or its gzip stream is damaged or cut off.
    """
    with (
        readable_bytes(path),
        # damaged bytes should reach the row checks, not stop the decoder
        io.TextIOWrapper(open_bytes(path, digest), encoding="utf-8", errors="replace") as file,
    ):
        yield from file


def header_names(header: str, delimiter: str) -> list[str]:
    """Column names, in lower case: releases differ in case."""
    names = next(csv.reader([header], delimiter=delimiter), [])
    return [name.strip().lower() for name in names]


def _raw_blocks(
    path: Path, block: int, delimiter: str, digest: Digest | None
) -> Iterator[RawBlock]:
    text = (line for line in lines(path, digest) if line.strip())
    header = next((line for line in text if not line.startswith("#")), None)
    if header is None:
        raise InputError("is empty", where=path, remedy=DOWNLOAD_AGAIN)
    names = header_names(header.removeprefix("\ufeff"), delimiter)
    check_columns(names, path)
    parser = LineParser(path, names, delimiter)
    for line in text:
        parser.add(line)
        if len(parser.source_id) == block:
            yield parser.take()
    yield parser.take()


class LineParser:
    """Lines -> a raw block; text becomes numbers at once, so a block holds no text."""

    def __init__(self, path: Path, names: Sequence[str], delimiter: str) -> None:
        self.path, self.delimiter, self.columns = path, delimiter, len(names)
        self.index = {name: names.index(name) for name in REQUIRED}
        self.taken = 0
        self._clear()

    def _clear(self) -> None:
        self.source_id: list[int] = []
        self.cells: dict[str, list[NDArray[np.floating]]] = {name: [] for name in ARRAYS}
        self.faults: dict[int, tuple[str, str]] = {}

    def add(self, line: str) -> None:
        """One data line.

        Raises
        ------
        InputError
            If it is cut off, or its source_id cannot be read.
        """
        row = len(self.source_id)
        values, fault = self._split(line)
        self.source_id.append(self._source_id(values))
        if fault:
            self.faults[row] = ("", fault)
        for name in ARRAYS:
            try:
                cell = EMPTY if fault else parse_array(values[self.index[name]], kind_of(name))
            except ValueError as error:
                cell = EMPTY
                self.faults.setdefault(row, (name, f"cannot be read as numbers ({error})"))
            self.cells[name].append(cell)

    def take(self) -> RawBlock:
        """The rows since the last call."""
        raw = RawBlock(np.array(self.source_id, np.int64), self.cells, self.faults)
        self.taken += len(self.source_id)
        self._clear()
        return raw

    def _where(self) -> str:
        return f"{self.path}, row {self.taken + len(self.source_id) + 1}"

    def _split(self, line: str) -> tuple[list[str], str]:
        """The fields of a line and what is wrong with it, if anything."""
        fault = ""
        try:
            # one reader a line: an unclosed quote must not swallow the lines that follow
            values = next(csv.reader([line], delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            values = line.split(self.delimiter, 1 + self.index["source_id"])
            fault = f"is not readable ({error})"
        if not fault and len(values) != self.columns:
            fault = f"has {len(values)} of {self.columns} columns"
        if fault and not line.endswith("\n"):
            raise InputError(
                f"is truncated: the last line {fault}", where=self._where(), remedy=DOWNLOAD_AGAIN
            )
        return values, fault

    def _source_id(self, values: Sequence[str]) -> int:
        index = self.index["source_id"]
        text = values[index].strip() if index < len(values) else ""
        # a plain int() would take "1_0", and a float cannot hold 19 digits
        if not text.removeprefix("-").isdecimal() or abs(int(text)) >= 2**63:
            raise InputError(
                f"{text!r} is not a 64-bit integer",
                where=f"{self._where()}, column source_id",
                remedy=DOWNLOAD_AGAIN,
            )
        return int(text)


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
