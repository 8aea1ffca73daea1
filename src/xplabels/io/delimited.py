"""Read spectra from delimited text: DataLink CSV and ECSV, the bulk files, and similar ones.

A file may begin with lines that begin with ``#``; then come a line of column names and one line per
star. Arrays are quoted text, ``"[a,b]"`` (bulk) or ``"(a, b)"`` (DataLink); null is ``null`` or
empty.

Nearly all lines hold six arrays of the same lengths in the same columns. If simdjson is installed
(extra ``fast``), it reads their numbers, correctly rounded as Python's ``float`` does, ten times as
fast. All other lines are read by :mod:`csv` and :func:`parse_array`, which handle every form and
every fault, so that the result does not depend on simdjson.
"""

from __future__ import annotations

import csv
import importlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io.arrays import EMPTY, Cells, parse_array
from xplabels.io.files import LONGEST_LINE, Digest, again, byte_lines, open_bytes, words_of_page
from xplabels.io.forms import SOURCE_ID, FileTable, check_rounding, id_of_text, names_of
from xplabels.io.rows import (
    ARRAYS,
    BLOCK_ROWS,
    BadRows,
    RawBlock,
    assembled,
    kind_of,
    spectra_columns,
    unreadable,
)

DELIMITERS = (",", "\t", ";", "|")
_ERROR = re.compile(r"(error|warning|exception|traceback|http/|http status|job error)\b[^,;\t|]*$")
FIRST_ROOM = 8
"""Rows for which memory is taken at first, so that a file of one star does not take a block's."""
BRACKETS = (tuple(b"[]"), tuple(b"()"))
csv.field_size_limit(LONGEST_LINE)  # the default, 131,072, holds correlations of 150 coefficients
_DELIMITER = re.compile(rb"""^#\s*delimiter:\s*(["'])(.)\1\s*$""")


def read_csv(
    path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS, digest: Digest | None = None
) -> Iterator[Stars]:
    """Blocks of at most ``block`` stars from delimited text (see :func:`Header.of`), or ECSV.

    ``digest`` counts the file's bytes as they are read. Raises InputError for a file that is
    unreadable, truncated, lacks columns or rows, or (``bad_rows="error"``) holds a damaged row.
    """
    return assembled(_raw_blocks(path, block, digest), path, bad_rows)


def read_ecsv(path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of stars from an ECSV file; only the delimiter is taken from its YAML header.

    Raises InputError as :func:`read_csv`, and if the file is not ECSV.
    """
    if not next(byte_lines(path), b"").startswith(b"# %ECSV"):
        raise InputError(
            "does not begin with '# %ECSV'", where=path, remedy="give it the ending .csv"
        )
    yield from read_csv(path, bad_rows, block)


@dataclass(frozen=True)
class Header:
    """The beginning of a delimited file: its ``lines``, the last of which has the ``names``."""

    lines: int
    names: list[str]
    delimiter: str

    @classmethod
    def of(cls, lines: Iterator[bytes], path: Path) -> Header:
        """The header from the first lines of a file.

        The delimiter is the one that an ECSV header names or else, of comma, semicolon, tab and
        bar, the one that occurs most often in the line of names. Raises InputError if there is no
        such line, or it is not one of a table.
        """
        declared = None
        for number, line in enumerate(lines, start=1):
            if line.startswith(b"#"):
                if b"%ECSV" in line[:9]:
                    declared = " "
                if match := _DELIMITER.match(line):
                    declared = match[2].decode("ascii", "replace")
            elif not line.isspace():
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                _check_text(text, lines, path)
                delimiter = declared or max(DELIMITERS, key=text.count)
                names = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
                return cls(number, [name.strip() for name in names], delimiter)
        raise InputError("is empty", where=path, remedy=again(path))


def _check_text(first: str, rest: Iterator[bytes], path: Path) -> None:
    """Raise InputError, quoting it, if a file is not a table but a page with an error message."""
    begin = first.lstrip()[:200].lower()
    if begin.startswith(("<", "{", "[{")) or _ERROR.match(begin):
        page = first + b"".join(islice(rest, 50)).decode("utf-8", "replace")
        raise InputError(
            f"is not a table but a page of text: {words_of_page(page)[:200]}",
            where=path,
            remedy="ask the archive again, or write it as CSV",
        )
    if "\0" in first or first.count("\ufffd") > len(first) // 10:
        raise InputError(
            "is not text: its first line holds bytes that are not characters",
            where=path,
            remedy="give it the ending of its format, or write it as UTF-8 text",
        )


def csv_table(path: Path, wanted: Collection[str] | None, digest: Digest | None) -> FileTable:
    """A delimited file with those of its columns that are ``wanted`` (None: all), as text.

    Types are not guessed from the first rows, as later rows may not have them.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    header = Header.of(byte_lines(path), path)
    chosen = list(dict.fromkeys(names_of(header.names, path, wanted).values()))
    if not chosen:
        return FileTable("it", header.names, dict[str, Any]().__getitem__)
    try:
        with open_bytes(path, digest) as file:
            table = arrow_csv.read_csv(
                file,
                read_options=arrow_csv.ReadOptions(
                    skip_rows=header.lines, column_names=header.names, use_threads=False
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=header.delimiter, newlines_in_values=True
                ),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=chosen, column_types=dict.fromkeys(header.names, pa.string())
                ),
            )
    except pa.ArrowException as error:
        if "Empty CSV" in str(error):
            raise InputError("has no rows", where=path, remedy="give a table with stars") from error
        if "straddling" in str(error):  # a line reaches over two of the blocks of 1 MB
            raise InputError(
                "has a line of more than 1 MB", where=path, remedy="write one line per row"
            ) from error
        raise
    return FileTable("it", header.names, table.column)


def _raw_blocks(path: Path, block: int, digest: Digest | None) -> Iterator[RawBlock]:
    lines = byte_lines(path, digest)
    header = Header.of(lines, path)
    chosen = spectra_columns(header.names, path)
    places = {name: header.names.index(column) for name, column in chosen.items()}
    rows = _Rows(path, places, len(header.names), header.delimiter, block)
    filled = Pushback(line for line in lines if not line.isspace())
    while True:
        # numbers too large for float32 become infinite, which the checks of rows refuse
        with np.errstate(over="ignore"):
            for line in islice(filled, block):
                rows.add(line, filled)
        if not rows.source_id:
            return
        yield rows.take()


class Pushback:
    """An iterator of lines to which lines can be given back."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines, self._waiting = lines, list[bytes]()

    def __iter__(self) -> Pushback:
        return self

    def __next__(self) -> bytes:
        return self._waiting.pop() if self._waiting else next(self._lines)

    def continued(self, line: bytes, is_row: Callable[[bytes], bool]) -> bytes:
        """A line, joined with those after it until its quotes are closed if that makes a row.

        Some tools break arrays of many numbers into lines. If it is only an unclosed quote, the
        lines are given back, so that other rows are not lost.
        """
        if line.count(b'"') % 2 == 0:
            return line
        size, taken = len(line), [line]
        while size < LONGEST_LINE and (following := next(self, b"")):
            taken.append(following)
            size += len(following)
            if following.count(b'"') % 2:
                if is_row(joined := b"".join(taken)):
                    return joined
                break
        self._waiting += taken[:0:-1]
        return line


class _Rows:
    """Reads lines into raw blocks. Text becomes numbers at once, so that a block holds no text.

    Rows are usual if each array has the length that is usual in its column. Their arrays go into
    ``_usual``, arrays of ``_room`` rows, those of all other rows into ``_other``.
    """

    def __init__(
        self, path: Path, places: Mapping[str, int], columns: int, delimiter: str, block: int
    ) -> None:
        self._path, self._delimiter, self._columns = path, delimiter.encode(), columns
        self._star = places[SOURCE_ID]
        in_file = sorted((place, name) for name, place in places.items() if name in ARRAYS)
        self._column = {name: place for place, name in in_file}
        # numbers of pieces, some empty, into which delimiters divide the text before the first
        # array, between one array and the next, and after the last
        self._pieces = (np.diff([0, *self._column.values(), columns - 1]) + 1).tolist()
        self._parser: Any = None
        with suppress(ImportError):
            self._parser = importlib.import_module("simdjson").Parser()
        self._taken, self._block, self._room = 0, block, min(FIRST_ROOM, block)
        self._begin_block()
        self._set_lengths([0] * len(self._column))

    def _begin_block(self) -> None:
        self.source_id: list[int] = []
        self._other: dict[int, dict[str, NDArray[np.floating]]] = {}
        self._faults: dict[int, tuple[str, str]] = {}

    def _set_lengths(self, lengths: list[int]) -> None:
        """Make room for usual rows, with arrays of these ``lengths``."""
        self._lengths = lengths
        self._usual = {
            name: np.empty((self._room, length), kind_of(name))
            for name, length in zip(self._column, lengths, strict=True)
        }

    def add(self, line: bytes, rest: Pushback) -> None:
        """Read one data line; lines of the ``rest`` that continue it are read, too.

        Raises InputError if it is cut off or its source_id is unreadable.
        """
        star = None if self._parser is None else self._add_usual(line)
        if star is None:
            star = self._add_other(rest.continued(line, self._is_row))
        self.source_id.append(star)

    def take(self) -> RawBlock:
        """The rows since the last call."""
        rows, other = len(self.source_id), self._other
        cells: dict[str, Cells] = {}
        for name, usual in self._usual.items():
            cells[name] = usual[:rows]
            if other:
                cells[name] = [other[n][name] if n in other else usual[n] for n in range(rows)]
        source_id = np.array(self.source_id, np.int64)
        check_rounding(source_id, self._path)
        raw = RawBlock(source_id, cells, self._faults)
        self._taken += rows
        self._begin_block()
        self._set_lengths(self._lengths)
        return raw

    def _add_usual(self, line: bytes) -> int | None:
        """Read a usual row, its arrays as one JSON document; None if it is not usual.

        Returns its source_id.
        """
        view, at = memoryview(line), 0
        between, arrays = [], []
        for _ in self._column:
            start = line.find(b'"', at) + 1
            end = line.find(b'"', start)
            if not 0 < start < end or (line[start], line[end - 1]) not in BRACKETS:
                return None
            if line.find(b"[", start + 1, end) > 0:
                return None
            between.append(line[at : start - 1].split(self._delimiter))
            arrays.append(view[start + 1 : end - 1])
            at = end + 1
        after = line[at:].rstrip(b"\r\n")
        before, *between = *between, after.split(self._delimiter)
        if [len(before), *map(len, between)] != self._pieces or b'"' in after:
            return None
        # quotes must enclose whole cells, so that pieces next to them are empty
        if before[-1] or between[-1][0] or any(cells[0] or cells[-1] for cells in between[:-1]):
            return None
        star = before[self._star] if self._star < len(before) else b""
        if not star.isdigit() or len(star) > 19 or int(star) >= 2**63:
            return None
        try:
            parsed = self._parser.parse(b"[[%b]]" % b"],[".join(arrays))
            lengths = [len(array) for array in parsed]
            numbers = np.frombuffer(parsed.as_buffer(of_type="d"))
        except (ValueError, TypeError, RuntimeError):  # simdjson's ways to refuse
            return None
        row = len(self.source_id)
        if lengths != self._lengths:
            if len(self._other) < row:
                return None
            self._set_lengths(lengths)
        if row >= self._room:
            self._room = min(max(2 * self._room, row + 1), self._block)
            for name, values in self._usual.items():
                self._usual[name] = np.resize(values, (self._room, values.shape[1]))
        end = 0
        for values in self._usual.values():
            start, end = end, end + values.shape[1]
            values[row] = numbers[start:end]
        return int(star)

    def _is_row(self, line: bytes) -> bool:
        """Whether a line has as many cells as there are columns."""
        text = line.decode("utf-8", "replace")
        with suppress(csv.Error):
            rows = [*csv.reader([text], delimiter=self._delimiter.decode(), strict=True)]
            return [*map(len, rows)] == [self._columns]
        return False

    def _add_other(self, line: bytes) -> int:
        """Read a line of any kind, and return its source_id."""
        row = len(self.source_id)
        where = f"{self._path}, row {self._taken + row + 1}"
        text, delimiter = line.decode("utf-8", "replace"), self._delimiter.decode()
        fault = ""
        try:
            # one reader per line, so that an unclosed quote does not take in the lines after it
            texts = next(csv.reader([text], delimiter=delimiter, strict=True))
        except csv.Error as error:
            texts, fault = text.split(delimiter, 1 + self._star), f"is not readable ({error})"
        if not fault and len(texts) != self._columns:
            fault = f"has {len(texts)} of {self._columns} columns"
            if len(texts) > self._columns + 50:
                fault += ": its arrays are not within double quotes"
        if fault and not line.endswith((b"\n", b"\r")):
            raise InputError(
                f"is truncated: the last line {fault}", where=where, remedy=again(self._path)
            )
        text = texts[self._star] if self._star < len(texts) else ""
        try:
            star = id_of_text(text, self._taken + row, self._path)
        except InputError as error:
            if self._faults.get(row - 1, ("whole",))[0]:
                raise
            # after a damaged row, this is probably its continuation, not a row
            raise InputError(
                f"{self._faults[row - 1][1]}, and the next line is not a row",
                where=f"{self._path}, row {self._taken + row}",
                remedy=again(self._path),
            ) from error
        self._other[row] = dict.fromkeys(self._column, EMPTY)
        if fault:
            self._faults[row] = ("", fault)
            return star
        for name, column in self._column.items():
            try:
                self._other[row][name] = parse_array(texts[column], kind_of(name))
            except ValueError as error:
                self._faults.setdefault(row, (name, unreadable(str(error)[:100])))
        return star
