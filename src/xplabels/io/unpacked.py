"""Read spectra from other tables than the archive's: one column per coefficient, or sampled flux.

Papers publish coefficients as ``bp_coeff_0, bp_coeff_1, ...`` with errors ``e_bp_coeff_0, ...``;
GaiaXPy's ``calibrate`` and the archive's XP_SAMPLED give ``flux`` and ``flux_error``. Such tables
are small, so they are read as a whole, by the reader of any table (:mod:`xplabels.io.plain`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.quality import QUALITY_COLUMNS, quality_flags
from xplabels.core.stars import Stars
from xplabels.io.arrays import cells_of
from xplabels.io.columns import PHOTOMETRY_COLUMNS, photometry_of
from xplabels.io.files import byte_lines
from xplabels.io.parquet import stars_of_columns
from xplabels.io.plain import Columns, read_columns
from xplabels.io.rows import BANDS, Assembler, BadRows, unreadable

PATTERNS = (
    "{band}_coeff_{i},e_{band}_coeff_{i}",
    "{band}_coefficients_{i},{band}_coefficient_errors_{i}",
)
"""Patterns of the names of coefficients and errors that are tried."""
MOST_COEFFICIENTS = 128
"""Most coefficients of a band that are looked for."""
FLUX = ("flux", "flux_error")
OTHERS = ("source_id", *PHOTOMETRY_COLUMNS, *QUALITY_COLUMNS)
SAMPLING = "sampling"
DEFAULT_SAMPLING = np.linspace(336.0, 1020.0, 343)
"""Wavelengths of XP_SAMPLED, and GaiaXPy's default, nm."""
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")


def read_unpacked(
    path: Any, bad_rows: BadRows, block: int, pattern: str | None = None
) -> Iterator[Stars] | None:
    """Blocks of stars from a table of columns of coefficients, or of sampled flux.

    ``pattern`` has the names of a coefficient and of its error, separated by a comma, with
    ``{band}`` (bp, rp) and ``{i}`` (from 0 or 1). Returns None if the table has no such columns.

    Raises InputError if the table cannot be read, or lacks the columns of ``pattern``.
    """
    patterns = PATTERNS if pattern is None else (pattern,)
    names = {each: _names(each) for each in patterns}
    all_names = [name for values, errors in names.values() for name in (*values, *errors)]
    columns = read_columns(path, {*all_names, *FLUX, *OTHERS, "xp"})
    if "source_id" in columns:
        for values, errors in names.values():
            if any(name in columns for name in values):
                return _coefficients(path, bad_rows, block, columns, values, errors)
        if pattern is None and all(name in columns for name in FLUX):
            if {str(band).upper() for band in columns.get("xp", ())} & {"BP", "RP"}:
                raise InputError(
                    "holds spectra in pseudo-wavelengths, a row for each band, as GaiaXPy's "
                    "convert gives them",
                    where=path,
                    remedy="use GaiaXPy's calibrate(truncation=False), or the archive's file",
                )
            return _sampled(path, bad_rows, block, columns)
    if pattern is not None:
        raise InputError(
            f"has no columns {names[pattern][0][0]}, ... beside source_id",
            where=path,
            remedy="give the pattern of its names, e.g. --coefficients '" + PATTERNS[0] + "'",
        )
    return None


def _names(pattern: str) -> tuple[list[str], list[str]]:
    """The names of all coefficients that a table may have, BP before RP, and of their errors."""
    value, comma, error = pattern.lower().partition(",")
    if not comma or any("{i}" not in one or "{band}" not in one for one in (value, error)):
        raise InputError(
            f"{pattern!r} is not a pattern of names",
            remedy="name coefficient and error, as in '" + PATTERNS[0] + "'",
        )
    numbered = [(band, str(i)) for band in BANDS for i in range(MOST_COEFFICIENTS)]
    values, errors = (
        [template.replace("{band}", band).replace("{i}", i) for band, i in numbered]
        for template in (value, error)
    )
    return values, errors


def _coefficients(
    path: Path, bad_rows: BadRows, block: int, columns: Columns, values: list[str],
    errors: list[str],
) -> Iterator[Stars]:  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {}
    for number, band in enumerate(BANDS):
        of_band = slice(number * MOST_COEFFICIENTS, (number + 1) * MOST_COEFFICIENTS)
        parts = {"coefficients": values[of_band], "coefficient_errors": errors[of_band]}
        for part, names in parts.items():
            present = [name for name in names if name in columns]
            first = names.index(present[0]) if present else 0
            if not present or first > 1 or present != names[first : first + len(present)]:
                absent = next(name for name in names if name not in present)
                raise InputError(
                    f"column {absent!r} is absent", where=path, remedy="give all coefficients"
                )
            arrays[f"{band}_{part}"] = np.stack([columns[name] for name in present], axis=1)
    plain = {name: columns[name] for name in OTHERS if name in columns}
    assembler = Assembler(path, bad_rows)
    for start in range(0, len(columns["source_id"]), block):
        rows = slice(start, start + block)
        part_of = {name: column[rows] for name, column in (plain | arrays).items()}
        yield stars_of_columns(part_of, {}, assembler, {})
    assembler.finish()


def _sampled(path: Path, bad_rows: BadRows, block: int, columns: Columns) -> Iterator[Stars]:
    cells = {name: _arrays(columns[name], name, path) for name in FLUX}
    width = max(len(cell) for cell in cells["flux"])
    wavelength = _sampling(path, width)
    # of a star without BP or RP, GaiaXPy writes no flux at all, or none at that band's wavelengths
    complete = [len(cell) == width and bool(np.isfinite(cell).all()) for cell in cells["flux"]]
    unusable = ~np.array(complete)
    for row in np.flatnonzero(unusable).tolist():
        for name in FLUX:
            cells[name][row] = np.full(width, np.nan)
    assembler = Assembler(path, bad_rows)
    for start in range(0, len(unusable), block):
        rows = slice(start, start + block)
        part = {name: cell[rows] for name, cell in cells.items()}
        stars = assembler.sampled(columns["source_id"][rows], wavelength, part, unusable[rows])
        columns_of_rows = {name: columns[name][rows] for name in OTHERS if name in columns}
        photometry, notes = photometry_of(columns_of_rows, stars.source_id, path)
        flags = stars.flags | quality_flags(columns_of_rows, photometry)
        notes = (*stars.notes, *notes)
        yield replace(stars, photometry=photometry, flags=flags, notes=notes)
    assembler.finish()


def _arrays(column: NDArray[Any], name: str, path: Path) -> list[NDArray[np.floating]]:
    """One array of numbers per row."""
    cells, wrong = cells_of(column)
    for row, why in wrong.items():
        raise InputError(
            unreadable(why),
            where=f"{path}, row {row + 1}, column {name}",
            remedy="write one array of numbers per row",
        )
    return list(cells)


def _sampling(path: Path, width: int) -> NDArray[np.float64]:
    """Wavelengths [L], nm, that GaiaXPy wrote with its spectra; else its default."""
    path = Path(str(path))  # for a table in memory there is no such file
    stem, _, ending = path.name.removesuffix(".gz").rpartition(".")
    beside, ending, text = path.with_name(f"{stem}_{SAMPLING}.csv"), ending.lower(), ""
    if ending == "fits":
        from xplabels.io.fits import open_fits

        with open_fits(path) as hdus:
            text = next((str(h.header[SAMPLING]) for h in hdus if SAMPLING in h.header), "")
    elif ending in ("xml", "vot", "votable"):
        from xplabels.io.votable import parse_votable

        params = [param for table in parse_votable(path) for param in table.params]
        text = next((" ".join(map(str, p.value)) for p in params if p.name == SAMPLING), "")
    elif ending == "ecsv":
        head = b"".join(line for line in byte_lines(path) if line.startswith(b"#")).decode()
        text = head.partition(f"{SAMPLING}:")[2]
    elif beside.is_file():
        text = beside.read_text(encoding="utf-8")
    wavelengths = np.array(NUMBER.findall(text), np.float64)
    if not len(wavelengths) and width == len(DEFAULT_SAMPLING):
        return DEFAULT_SAMPLING
    if len(wavelengths) != width:
        raise InputError(
            f"has {width} samples a spectrum, and {len(wavelengths) or 'no'} wavelengths",
            where=path,
            remedy=f"keep {beside.name} beside it, or sample with GaiaXPy's default",
        )
    return wavelengths
