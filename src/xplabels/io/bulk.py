"""The bulk files ``XpContinuousMeanSpectrum_*.csv.gz``, as fast as they can be unpacked and parsed.

Bytes are unpacked into one buffer and parsed there by compiled code, straight into the arrays of a
block of stars, so that memory is bounded whatever the file's size. A line that is not plainly right
goes to :class:`~xplabels.io.delimited.LineParser` instead, and a block that has such a line
through the checks of :mod:`xplabels.io.rows`: what comes out, stars and complaints, is what
:func:`~xplabels.io.delimited.read_delimited` would have said.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Band, CoefficientSpectra, Stars
from xplabels.io import compiled_text
from xplabels.io.delimited import LineParser, header_names, read_delimited
from xplabels.io.gunzip import Digest, open_bytes, readable_bytes
from xplabels.io.rows import (
    ARRAYS,
    BANDS,
    BLOCK_ROWS,
    DOWNLOAD_AGAIN,
    EMPTY,
    PARTS,
    Assembler,
    BadRows,
    RawBlock,
    check_columns,
)

CHUNK = 1 << 20
"""Bytes unpacked at a time: small enough to be parsed from the processor's cache."""
PROBED_ROWS = 20
"""Rows that are read, at the start of a file, to learn the numbers of coefficients."""

Arrays = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]


def read_bulk(
    path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS, digest: Digest | None = None
) -> Iterator[Stars]:
    """Blocks of at most ``block`` stars; see :func:`~xplabels.io.delimited.read_delimited`.

    Raises
    ------
    InputError
        As :func:`~xplabels.io.delimited.read_delimited`.
    """
    with readable_bytes(path), open_bytes(path, digest) as file:
        text = _Text(file)
        header = _header(text, path)
        if "\r" not in header:
            yield from _blocks(text, header_names(header, ","), path, bad_rows, block)
            return
    yield from read_delimited(path, bad_rows, block, ",", digest)  # not the archive's line ends


class _Text:
    """A file's bytes in a buffer that is refilled: ``data[start:limit]`` are whole lines."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._allocate(CHUNK)
        self.start = self.limit = self._filled = 0
        self._ended = False

    def _allocate(self, size: int) -> None:
        self._bytes = bytearray(size + compiled_text.PADDING)
        self._size = size
        self.data = np.frombuffer(self._bytes, np.uint8)

    def refill(self) -> bool:
        """Make sure of a whole line, or of what the file ends with; false if nothing is left."""
        while self.start == self.limit and not self._ended:
            rest = bytes(self._bytes[self.start : self._filled])
            if 2 * len(rest) > self._size:
                self._allocate(2 * self._size)
            self._bytes[: len(rest)] = rest
            with memoryview(self._bytes) as view:
                got: int = self._file.readinto(view[len(rest) : self._size])  # type: ignore[attr-defined]
            self._ended = got == 0
            self.start, self._filled = 0, len(rest) + got
            newline = self._bytes.rfind(b"\n", len(rest), self._filled)
            self.limit = self._filled if self._ended else newline + 1
        return self.start < self.limit

    @property
    def whole_lines(self) -> bool:
        """Whether the text at hand ends in a newline, as it must but at the file's end."""
        return self._bytes[self.limit - 1 : self.limit] == b"\n"

    def line(self, start: int) -> str:
        """The line that begins at ``start``, with its newline if it has one."""
        end = self._bytes.find(b"\n", start, self.limit) + 1 or self.limit
        return self._bytes[start:end].decode("utf-8", errors="replace")

    def lines(self, most: int) -> Iterator[str]:
        """The next lines at hand, which stay unread."""
        start = self.start
        while most and start < self.limit:
            end = self._bytes.find(b"\n", start, self.limit) + 1 or self.limit
            yield self.line(start)
            start, most = end, most - 1

    def take_line(self) -> str:
        """The next line."""
        line = self.line(self.start)
        self.start = self._bytes.find(b"\n", self.start, self.limit) + 1 or self.limit
        return line


def _header(text: _Text, path: Path) -> str:
    while text.refill():
        line = text.take_line()
        if line.strip() and not line.startswith("#"):
            return line.removeprefix("\ufeff").removesuffix("\n")
    raise InputError("is empty", where=path, remedy=DOWNLOAD_AGAIN)


def _blocks(
    text: _Text, names: list[str], path: Path, bad_rows: BadRows, block: int
) -> Iterator[Stars]:
    check_columns(names, path)
    assembler = Assembler(path, bad_rows)
    parser = LineParser(path, names, ",")
    columns = _columns(names)
    waiting: deque[str] = deque()
    while waiting or text.refill():
        rows = _Rows(block, _widths(assembler, parser, text))
        while rows.count < block and (waiting or text.refill()):
            if waiting:
                rows.add_line(waiting.popleft(), parser, assembler.rows)
            elif not text.whole_lines or rows.parse(text, columns):
                waiting.extend(_sublines(text.take_line()))
        if rows.count:
            yield rows.stars(assembler)
    assembler.finish()


def _columns(names: list[str]) -> NDArray[np.int64]:
    """What each column is to the compiled parser; of two of one name the first counts."""
    columns = np.full(len(names), compiled_text.SKIPPED, np.int64)
    columns[names.index("source_id")] = compiled_text.SOURCE_ID
    for number, name in enumerate(ARRAYS, start=1):
        columns[names.index(name)] = number
    return columns


def _widths(assembler: Assembler, parser: LineParser, text: _Text) -> tuple[int, int]:
    """Numbers of coefficients as far as they are known, from the next lines if need be."""
    if len(assembler.widths) < len(BANDS):
        parser.taken = assembler.rows
        for line in text.lines(PROBED_ROWS):
            for subline in _sublines(line):
                parser.add(subline)
        assembler.learn_widths(parser.take())
    bp, rp = (assembler.widths.get(band, 0) for band in BANDS)
    return bp, rp


def _sublines(line: str) -> Iterator[str]:
    """A line as text files count lines: a carriage return ends one too, an empty one is none."""
    return (part for part in io.StringIO(line, newline=None) if part.strip())


class _Rows:
    """The rows of a block as they are filled."""

    def __init__(self, most: int, widths: tuple[int, int]) -> None:
        self.count = 0
        self._source_id = np.empty(most, np.int64)
        self._bands: list[Arrays] = [
            (
                np.empty((most, width)),
                np.empty((most, width)),
                np.empty((most, width * (width - 1) // 2), np.float32),
            )
            for width in widths
        ]
        self._lacking = np.zeros((most, len(BANDS)), bool)
        self._other: dict[int, RawBlock] = {}

    def parse(self, text: _Text, columns: NDArray[np.int64]) -> bool:
        """Take as many lines as there are and fit; whether one that is not plain comes next."""
        bp, rp = self._bands
        self.count, text.start, stopped = compiled_text.rows(
            text.data, text.start, text.limit, columns, self.count, self._source_id, bp, rp,
            self._lacking,
        )  # fmt: skip
        return stopped

    def add_line(self, line: str, parser: LineParser, rows_before: int) -> None:
        """Take a line of any kind."""
        parser.taken = rows_before + self.count
        parser.add(line)
        raw = parser.take()
        self._other[self.count] = raw
        self._source_id[self.count] = raw.source_id[0]
        self.count += 1

    def stars(self, assembler: Assembler) -> Stars:
        """The block."""
        source_id = self._source_id[: self.count]
        if self._other:
            cells = {name: self._cells(name) for name in ARRAYS}
            faults = {row: raw.faults[0] for row, raw in self._other.items() if 0 in raw.faults}
            return assembler.stars(RawBlock(source_id, cells, faults))
        bands = []
        for arrays, lacking in zip(self._bands, self._lacking.T, strict=True):
            for array in arrays:
                array[lacking] = np.nan
            bands.append(Band(*(array[: self.count] for array in arrays)))  # type: ignore[arg-type]
        return assembler.checked(source_id, CoefficientSpectra(*bands))

    def _cells(self, name: str) -> list[NDArray[np.floating]]:
        """One array a row of the column ``name``, of length 0 where it is null."""
        band, part = name.split("_", 1)
        b = BANDS.index(band)
        plain = self._bands[b][PARTS.index(part)]
        return [
            self._other[row].cells[name][0]
            if row in self._other
            else EMPTY
            if self._lacking[row, b]
            else plain[row]
            for row in range(self.count)
        ]
