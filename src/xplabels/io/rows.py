"""Turn the rows of a file in any format into checked blocks of :class:`Stars`.

Every reader passes its rows on as :class:`RawBlock`. What counts as missing or as damage, and how a
damaged row is reported, is defined only here, so that all formats agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted
from xplabels.core.flags import Flag
from xplabels.core.stars import Band, CoefficientSpectra, SampledSpectra, Spectra, Stars
from xplabels.io import forms
from xplabels.io.arrays import Cells, cells_of
from xplabels.io.files import again
from xplabels.io.forms import NOBODY

BadRows = Literal["error", "flag"]

BANDS = ("bp", "rp")
PARTS = ("coefficients", "coefficient_errors", "coefficient_correlations")
ARRAYS = tuple(f"{band}_{part}" for band in BANDS for part in PARTS)
NEEDED = tuple(name for name in ARRAYS if not name.endswith("correlations"))
"""Required columns. Without correlations, stars are flagged NO_CORRELATIONS."""

BLOCK_ROWS = 2000
"""Rows per block: about 30 MB of numbers, whatever the length of the file."""
CORRELATION_ROUNDING = 1e-6
"""How far beyond 1 the archive's float32 rounding may push a correlation."""

AS_RAW = "download the XP continuous spectra with all their columns (DataLink structure RAW)"


def kind_of(column: str) -> type[np.floating]:
    """The archive's own type of a column of arrays: coefficients and flux are float64."""
    return np.float64 if column.endswith(("coefficients", "flux", "flux_error")) else np.float32


@dataclass
class RawBlock:
    """N rows as read from a file; ``cells`` need not have columns of correlations."""

    source_id: NDArray[np.int64]  # NOBODY in a row that is left out
    cells: Mapping[str, Cells]  # by column of ARRAYS
    faults: dict[int, tuple[str, str]] = field(default_factory=dict)  # row -> column, what is wrong


class Faults:
    """Which rows of a block are damaged, and the first damage noticed in each."""

    def __init__(self, rows: int, known: Mapping[int, tuple[str, str]]) -> None:
        self.rows = np.zeros(rows, bool)
        self.first = dict(known)
        self.rows[list(known)] = True

    def add(self, rows: NDArray[np.bool_], column: str, what: Callable[[int], str]) -> None:
        """Mark ``rows`` [N] as damaged in ``column``; ``what`` says how, for a row."""
        for row in np.flatnonzero(rows & ~self.rows).tolist():
            self.first[row] = (column, what(row))
        self.rows |= rows

    def check_lengths(
        self,
        rows: NDArray[np.bool_],
        column: str,
        lengths: NDArray[np.intp],
        expected: int,
        cut: str = "",
    ) -> None:
        """Mark those of ``rows`` whose array has not the length expected; ``cut`` may say why."""
        self.add(
            rows & (lengths != expected),
            column,
            lambda row: f"has {lengths[row]} values, not {expected}{cut}",
        )

    def check_values(
        self, rows: NDArray[np.bool_], column: str, values: NDArray[np.floating]
    ) -> None:
        """Mark those of ``rows`` that hold an impossible value."""
        lowest, highest, what = _limits(column)
        if values.size and values.min() >= lowest and values.max() <= highest:
            return  # nearly always, four times as fast as checking each value; false if any is NaN
        wrong = ~((values >= lowest) & (values <= highest))

        def first(row: int) -> str:
            index = int(wrong[row].argmax())
            return f"value {index} ({values[row, index]:g}) {what}"

        self.add(rows & wrong.any(axis=1), column, first)


EMPTY_BAND = Band(np.empty((0, 0)), np.empty((0, 0)))
"""The band of a block without stars, whose number of coefficients is unknown."""


@dataclass
class Assembler:
    """Turns the raw blocks of one file, in order, into stars.

    It keeps what is known of the blocks before.
    """

    path: Path
    bad_rows: BadRows
    read: int = 0  # number of rows
    readable: int = 0  # number of rows that are not damaged
    first: str = ""  # where and how the first damaged row is damaged
    numbers: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    """Numbers in the file, from 1, of the rows of the current block that are kept."""
    widths: dict[str, int] = field(default_factory=dict)  # band -> number of coefficients
    seen: set[int] = field(default_factory=set)  # source_ids

    def stars(self, raw: RawBlock) -> Stars:
        """The block's stars; damaged rows are NaN with :attr:`Flag.BAD_ROW`, or an error.

        Rows without a source_id are left out, and ``notes`` says how many.

        Raises InputError for a source_id that came before, and, with ``bad_rows="error"``, for the
        first damaged row.
        """
        kept, cells, nobody = self._take(raw.source_id, raw.cells)
        known = {int(np.searchsorted(kept, n)): f for n, f in raw.faults.items() if n in kept}
        faults = Faults(len(kept), known)
        bp, rp = (self._band(cells, band, faults) if len(kept) else EMPTY_BAND for band in BANDS)
        for band in (bp, rp):
            _blank(band, faults.rows)
        return self._block(raw.source_id[kept], CoefficientSpectra(bp, rp), faults, nobody)

    def sampled(
        self,
        source_id: NDArray[np.int64],
        wavelength: NDArray[np.float64],
        cells: Mapping[str, Cells],
        unusable: NDArray[np.bool_],
    ) -> Stars:
        """As :meth:`stars`, for sampled ``flux`` and ``flux_error``.

        Rows known to be ``unusable`` [N] may be NaN.
        """
        kept, cells, nobody = self._take(source_id, cells)
        faults = Faults(len(kept), {})
        arrays = []
        for name in ("flux", "flux_error"):
            lengths, width = _lengths(cells[name]), len(wavelength)
            faults.check_lengths(np.ones(len(kept), bool), name, lengths, width)
            values = _rectangle(cells[name], lengths == width, width, np.float64)
            faults.check_values(~unusable[kept], name, values)
            arrays.append(np.asarray(values, np.float64))
        for array in arrays:
            array[faults.rows] = np.nan
        return self._block(source_id[kept], SampledSpectra(wavelength, *arrays), faults, nobody)

    def _take(
        self, source_id: NDArray[np.int64], cells: Mapping[str, Cells]
    ) -> tuple[NDArray[np.intp], dict[str, Cells], tuple[str, ...]]:
        """The rows of this block that have a source_id, their cells, and a note on the others.

        Raises InputError if a source_id came before.
        """
        kept = np.flatnonzero(source_id != NOBODY)
        self.numbers = self.read + 1 + kept
        self.read += len(source_id)
        self._check_ids(source_id[kept])
        if len(kept) == len(source_id):
            return kept, dict(cells), ()
        chosen = {
            name: column[kept] if isinstance(column, np.ndarray) else [column[n] for n in kept]
            for name, column in cells.items()
        }
        rows = counted(len(source_id) - len(kept), "row")
        return kept, chosen, (f"{self.path}: {rows} without a source_id left out",)

    def _block(
        self, source_id: NDArray[np.int64], spectra: Spectra, faults: Faults, notes: tuple[str, ...]
    ) -> Stars:
        """The stars of one block, with damaged rows reported and flagged."""
        notes += self._report(source_id, faults.first)
        name = str(self.path)
        stars = Stars.of(source_id, spectra, origin=name, notes=notes, file=name)
        self.readable += int((~faults.rows).sum())
        # a damaged row is not flagged as lacking a spectrum, as that is unknown
        lacking = np.uint32(Flag.MISSING_BP | Flag.MISSING_RP)
        damaged = (stars.flags & ~lacking) | np.uint32(Flag.BAD_ROW)
        flags = np.where(faults.rows, damaged, stars.flags).astype(np.uint32)
        return replace(stars, flags=flags)

    def finish(self) -> None:
        """Raise :class:`InputError` if the file had no rows, or none that could be read."""
        if self.read == 0:
            raise InputError("has no rows", where=self.path, remedy="give a file with stars")
        if not self.seen:
            raise InputError("no row has a source_id", where=self.path, remedy=forms.WRITE_IDS)
        if not self.readable and self.first:
            rows = counted(len(self.seen), "row")
            what = f"none of its {rows} can be read; the first: {self.first}"
            raise InputError(what, where=self.path, remedy=again(self.path))

    def _where(self, row: int, source_id: int, column: str = "") -> str:
        """File, row of the file, source_id and column, of a ``row`` of the block counted from 0."""
        text = f"{self.path}, row {self.numbers[row]}, source_id {source_id}"
        return f"{text}, column {column}" if column else text

    def _check_ids(self, source_id: NDArray[np.int64]) -> None:
        for row, star in enumerate(source_id.tolist()):
            if star in self.seen:
                raise InputError(
                    f"source_id {star} occurs twice",
                    where=self._where(row, star),
                    remedy="keep one row per star",
                )
            self.seen.add(star)

    def _report(
        self, source_id: NDArray[np.int64], faults: Mapping[int, tuple[str, str]]
    ) -> tuple[str, ...]:
        if not faults:
            return ()
        row = min(faults)
        column, what = faults[row]
        where = self._where(row, int(source_id[row]), column)
        if self.bad_rows == "error":
            raise InputError(
                what,
                where=where,
                remedy=f"{again(self.path)}, leave the row out, or read with --bad-rows flag",
            )
        self.first = self.first or f"{where}: {what}"
        count = "1 damaged row is" if len(faults) == 1 else f"{len(faults)} damaged rows are"
        return (f"{count} flagged BAD_ROW; the first: {where}: {what}",)

    def _band(self, cells: Mapping[str, Cells], band: str, faults: Faults) -> Band:
        """One band, NaN where it is missing or damaged; adds to ``faults``."""
        names = [f"{band}_{part}" for part in PARTS]
        coefficients, errors, correlations = names
        cells = {name: cells[name] for name in names if name in cells}
        if correlations in cells:
            cells[correlations] = _packed(cells[correlations], cells[coefficients])
        lengths = {name: _lengths(column) for name, column in cells.items()}
        width = self._width(band, lengths, names)
        expected = dict(zip(names, (width, width, width * (width - 1) // 2), strict=True))
        filled = lengths[coefficients] > 0
        # a column of correlations that holds no number is taken as absent
        if width > 1 and correlations in cells and _is_blank(cells[correlations]):
            undamaged = np.flatnonzero(filled & ~faults.rows).tolist()
            if any(np.isfinite(cells[coefficients][row]).any() for row in undamaged):
                del cells[correlations]
        cut = _cut(lengths, names, width)
        arrays: dict[str, NDArray[np.floating]] = {}
        for name, column in cells.items():
            length, wanted = lengths[name], expected[name]
            faults.check_lengths(filled | (length > 0), name, length, wanted, cut)
            kind = np.float32 if name == correlations else np.float64
            arrays[name] = _rectangle(column, length == wanted, wanted, kind)
        present = ~np.isnan(arrays[coefficients]).all(axis=1)
        # tools without null in a column of arrays (TOPCAT's colfits) write zeros instead
        zero = present & ~(arrays[errors][:, :1] != 0).any(axis=1)
        if zero.any():
            present &= arrays[coefficients].any(axis=1) | arrays[errors].any(axis=1)
        faults.add(
            ~present & ~zero & np.isfinite(arrays[errors]).any(axis=1),
            coefficients,
            lambda row: f"is empty, though {errors} is not",
        )
        for name, values in arrays.items():
            faults.check_values(present, name, values)
        packed = arrays.get(correlations)
        result = Band(
            np.asarray(arrays[coefficients], np.float64),
            np.asarray(arrays[errors], np.float64),
            None if packed is None else np.asarray(packed, np.float32),
        )
        _blank(result, ~present)
        return result

    def _width(
        self, band: str, lengths: Mapping[str, NDArray[np.intp]], names: Sequence[str]
    ) -> int:
        """Number of coefficients: that of most rows in the first block with a spectrum."""
        if band in self.widths:
            return self.widths[band]
        coefficients = lengths[names[0]]
        consistent = (coefficients > 0) & (lengths[names[1]] == coefficients)
        if names[2] in lengths:
            consistent &= lengths[names[2]] == coefficients * (coefficients - 1) // 2
        candidates = (
            coefficients[consistent] if consistent.any() else coefficients[coefficients > 0]
        )
        if len(candidates) == 0:
            return 0
        self.widths[band] = int(Counter(candidates.tolist()).most_common(1)[0][0])
        return self.widths[band]


class AbsentColumns(InputError):
    """A table lacks some of the archive's columns; it may hold spectra in another form."""


def check_columns(names: Collection[str], path: object, required: Sequence[str] = NEEDED) -> None:
    """Raise :class:`AbsentColumns` listing the ``required`` columns that are absent."""
    absent = [name for name in required if name not in names]
    if absent:
        what = "columns {} are absent" if len(absent) > 1 else "column {} is absent"
        raise AbsentColumns(what.format(", ".join(absent)), where=path, remedy=AS_RAW)


def spectra_columns(names: Collection[str], where: object) -> dict[str, str]:
    """``source_id`` and those of :data:`ARRAYS` that are there -> their names among ``names``.

    Raises InputError if one that is needed is absent.
    """
    chosen = forms.names_of(names, where, (forms.SOURCE_ID, *ARRAYS))
    if forms.SOURCE_ID not in chosen:
        raise forms.no_ids(names, where)
    check_columns(chosen, where)
    return chosen


def table_blocks(
    tables: Sequence[forms.FileTable],
    path: Path,
    block: int,
    readable: Callable[[Path], AbstractContextManager[None]],
) -> Iterator[RawBlock]:
    """Blocks of rows from the tables of a file that have source_ids; see :func:`column_blocks`.

    Raises InputError if none has, or they differ in their columns.
    """
    parts = forms.alike(tables, (forms.SOURCE_ID, *ARRAYS), path)
    if not any(parts):
        raise forms.no_ids([name for table in tables for name in table.names], path)
    for table, chosen in zip(tables, parts, strict=True):
        if chosen:
            with readable(path):
                columns = {name: table.column(chosen[name]) for name in chosen}
            yield from column_blocks(columns, path, block, readable, table.faults)


def column_blocks(
    columns: Mapping[str, forms.Column],
    path: Path,
    block: int = BLOCK_ROWS,
    readable: Callable[[Path], AbstractContextManager[None]] = lambda path: nullcontext(),
    faults: Mapping[int, tuple[str, str]] | None = None,
) -> Iterator[RawBlock]:
    """Blocks of rows from whole columns, in any of the forms of :mod:`xplabels.io.forms`.

    ``readable`` is a context in which cells are read, which turns the errors of damaged ones into
    InputError; ``faults`` are those of :class:`RawBlock`, by row of the file. Raises InputError if
    a column is absent, or source_ids are not identifiers.
    """
    flat = forms.flattened(columns)
    chosen = spectra_columns(flat, path)
    source_id = forms.source_ids(flat[chosen.pop(forms.SOURCE_ID)], path)
    for start in range(0, len(source_id), block):
        rows = slice(start, start + block)
        block_faults = {
            row - start: fault
            for row, fault in (faults or {}).items()
            if start <= row < start + block
        }
        cells: dict[str, Cells] = {}
        with readable(path), np.errstate(over="ignore"):
            for name, column in chosen.items():
                cells[name], wrong = cells_of(flat[column][rows], kind_of(name))
                for row, why in wrong.items():
                    block_faults.setdefault(row, (name, unreadable(why)))
        yield RawBlock(source_id[rows], cells, block_faults)


def _packed(correlations: Cells, coefficients: Cells) -> Cells:
    """Correlations as the archive packs them, if they are full matrices."""
    sizes, widths = _lengths(correlations), _lengths(coefficients)
    if not ((sizes == widths**2) & (widths > 1)).any():
        return correlations
    packed = []
    for row, width in enumerate(widths.tolist()):
        cell = np.asarray(correlations[row])
        if width > 1 and len(cell) == width**2:
            matrix = cell.reshape(width, width)
            # without ones on the diagonal it is no correlation matrix, and counts as too long
            if np.allclose(np.diag(matrix), 1, atol=CORRELATION_ROUNDING):
                # rows of the lower triangle are columns of the upper one
                cell = matrix[np.tril_indices(width, -1)]
        packed.append(cell)
    return packed


def unreadable(why: str) -> str:
    """The message for an array that cannot be read."""
    return f"cannot be read as numbers ({why})"


def assembled(raw_blocks: Iterator[RawBlock], path: Path, bad_rows: BadRows) -> Iterator[Stars]:
    """The stars of one file, block by block.

    Raises InputError as :meth:`Assembler.stars`, or if there are no rows.
    """
    assembler = Assembler(path, bad_rows)
    for raw in raw_blocks:
        if len(raw.source_id) and len(stars := assembler.stars(raw)):
            yield stars
    assembler.finish()


def _cut(lengths: Mapping[str, NDArray[np.intp]], names: Sequence[str], width: int) -> str:
    """A hint, for messages, why arrays are shorter or longer than those of most rows."""
    coefficients = lengths[names[0]]
    other = (coefficients > 0) & (coefficients != width) & (lengths[names[1]] == coefficients)
    band = names[0][:2]
    return f": are they cut to {band}_n_relevant_bases?" if other.any() else ""


def _lengths(column: Cells) -> NDArray[np.intp]:
    if isinstance(column, np.ndarray):
        return np.full(len(column), column.shape[1], np.intp)
    return np.array([len(cell) for cell in column], np.intp)


def _is_blank(column: Cells) -> bool:
    """Whether no cell holds a number; the first number ends the search."""
    return all(np.isnan(cell).all() for cell in column)


def _rectangle(
    column: Cells, rows: NDArray[np.bool_], width: int, kind: type[np.floating]
) -> NDArray[np.floating]:
    """The cells of all rows as [N, width]; NaN in those that are not in ``rows`` [N]."""
    if rows.all() and len(rows):
        whole = column if isinstance(column, np.ndarray) else np.stack(column)
        return np.require(whole, kind, ("C", "W"))  # a copy where it has to be
    full = np.full((len(rows), width), np.nan, kind)
    chosen = np.flatnonzero(rows)
    if len(chosen) and width:
        full[chosen] = np.stack([column[row] for row in chosen.tolist()])
    return full


def _limits(column: str) -> tuple[float, float, str]:
    """The smallest and largest value of an archive's column, and the message for any other."""
    largest = float(np.finfo(np.float64).max)
    if column.endswith("correlations"):
        return -1 - CORRELATION_ROUNDING, 1 + CORRELATION_ROUNDING, "is not between -1 and 1"
    if column.endswith(("errors", "flux_error")):
        return float(np.nextafter(0.0, 1.0)), largest, "is not a positive finite number"
    return -largest, largest, "is not finite"


def _blank(band: Band, rows: NDArray[np.bool_]) -> None:
    """Set all values of ``rows`` to NaN, in place."""
    for values in (band.coefficients, band.errors, band.correlations):
        if values is not None:
            values[rows] = np.nan
