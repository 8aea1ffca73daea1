"""The archives' column names, and which values count as measurements and labels."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted, located
from xplabels.core.labels import (
    LABELS,
    Label,
    Labels,
    is_label_name,
    is_unit,
    label_of,
    unit_factor,
)
from xplabels.core.stars import MEASUREMENTS, Photometry

if TYPE_CHECKING:
    from xplabels.io.words import Words

MAG_PER_RELATIVE_FLUX = 2.5 / np.log(10.0)
"""Magnitude error per relative flux error, 1.0857362 (sigma_mag = this / flux_over_error)."""

Columns = Mapping[str, NDArray[Any]]
"""Lower-case column name -> array [N]; NaN where a number is missing."""


@dataclass(frozen=True)
class MeasurementColumns:
    """Where the archives keep one of :data:`~xplabels.core.stars.MEASUREMENTS`.

    Columns of ``errors`` come before ``over_error``, Gaia's ``*_mean_flux_over_error``.
    """

    name: str
    values: tuple[str, ...]
    errors: tuple[str, ...]
    over_error: str | None = None


def _gaia(band: str) -> MeasurementColumns:
    stem = f"phot_{band}_mean"
    return MeasurementColumns(
        f"{stem}_mag", (f"{stem}_mag",), (f"{stem}_mag_error",), f"{stem}_flux_over_error"
    )


MEASURED: dict[str, MeasurementColumns] = {
    measured.name: measured
    for measured in (
        _gaia("g"),
        _gaia("bp"),
        _gaia("rp"),
        MeasurementColumns("j_m", ("j_m",), ("j_msigcom",)),
        MeasurementColumns("h_m", ("h_m",), ("h_msigcom",)),
        # 2MASS's own tables call the band k, Gaia's copy of them ks
        MeasurementColumns("ks_m", ("ks_m", "k_m"), ("ks_msigcom", "k_msigcom")),
        MeasurementColumns("w1mpro", ("w1mpro", "w1mpro_pm"), ("w1sigmpro", "w1sigmpro_pm")),
        MeasurementColumns("w2mpro", ("w2mpro", "w2mpro_pm"), ("w2sigmpro", "w2sigmpro_pm")),
        MeasurementColumns("parallax", ("parallax",), ("parallax_error",)),
    )
}
POSSIBLE: dict[str, tuple[float, float]] = dict.fromkeys(MEASURED, (-8.0, 35.0)) | {
    "parallax": (-999.0, 999.0)
}
"""Range of possible measurements, mag and mas. No star is brighter than -5 mag in any band, and
Gaia's spurious parallaxes do not go below -190 mas in DR3; that of the nearest star is 768 mas."""
POSSIBLE_ERROR = dict.fromkeys(MEASURED, 9.0) | {"parallax": 999.0}
"""Errors of at least this much, such as 9.99 mag, stand for a missing one."""
LARGEST_RATIO = 1e9
"""Ratios of a flux to its error of at least this much stand for a missing one."""
SENTINELS = (-999.0, -999.9, -999.99, -9999.0, -9999.9, -9999.99, -99999.0)
LARGE_SENTINEL = 1e20
"""Numbers that stand for a missing value in labels without a range: these, and from this one on."""
SENTINEL_ERROR = -9.0
"""Errors of at most this much stand for a missing one; those between it and zero are wrong."""
PHOTOMETRY_COLUMNS: tuple[str, ...] = tuple(
    name
    for measured in MEASURED.values()
    for name in (*measured.values, *measured.errors, measured.over_error)
    if name is not None
)
LABEL_ERRORS = ("{}_err", "{}_error", "{}_unc", "{}_uncertainty", "{}_sigma", "{}_std", "e_{}")
"""Names that the column of a label's errors may have, in order of precedence."""
ARCHIVE = re.compile(
    r"(\w+_)?(ra|dec|pm|pmra|pmdec|parallax|plx|radial_velocity|rv|ruwe|pseudocolour|\w*mag)|"
    r"l|b|[ugrizyjhkv]|ks|bp|rp|w[1-4]|v(helio|hrv)\w*"
)
"""Names of archives' positions, motions and magnitudes, which are labels only if asked for."""


def error_columns(name: str) -> list[str]:
    """The columns that may hold the errors of a label, in order of precedence."""
    return [ending.format(name) for ending in LABEL_ERRORS]


def label_columns(names: Sequence[str]) -> set[str]:
    """The columns that labels may be read from."""
    return {column for name in names for column in (name, *error_columns(name))}


def labels_among(columns: Collection[str]) -> tuple[str, ...]:
    """The columns that are taken as labels if none are asked for by name.

    These are those of :data:`~xplabels.core.labels.LABELS`, then all others, in their order, that
    have a column of errors and are not an archive's (:data:`ARCHIVE`).
    """
    known = [name for name in LABELS if name in columns]
    others = (
        name
        for name in columns
        if not ARCHIVE.fullmatch(name) and is_label_name(name)
        and first_present(error_columns(name), columns)
    )  # fmt: skip
    return tuple(dict.fromkeys((*known, *others)))


def first_present(names: Sequence[str], columns: Collection[str]) -> str | None:
    """The first of ``names`` that is among ``columns``, or None."""
    return next((name for name in names if name in columns), None)


def photometry_of(
    columns: Columns, source_id: NDArray[np.int64], where: object
) -> tuple[Photometry, tuple[str, ...]]:
    """Photometry [N] from a table's columns, and notes on values that are taken as missing.

    These are values without an error, or that no star can have (:data:`POSSIBLE`).

    Raises InputError if a column of values has no column of errors, or an error is zero or
    negative.
    """
    measured: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    notes: list[str] = []
    for name in MEASUREMENTS:
        column = first_present(MEASURED[name].values, columns)
        if column is None:
            continue
        values, impossible = meant(numbers(columns, column, where), name)
        if impossible:
            what = counted(impossible, "value")
            notes.append(f"{where}: {what} of {column} that no star can have: taken as missing")
        errors = _errors_of(MEASURED[name], column, columns, source_id, where, values)
        without_error = int((np.isfinite(values) & ~np.isfinite(errors)).sum())
        if without_error:
            text = (
                f"{counted(without_error, 'value')} of {column} without an error: taken as missing"
            )
            notes.append(f"{where}: {text}")
        measured[name] = (values, errors)
    return Photometry.of(len(source_id), measured), tuple(notes)


def labels_of(
    columns: Columns, names: Sequence[str], source_id: NDArray[np.int64], where: object,
    words: Words | None = None,
) -> tuple[Labels, tuple[str, ...]]:  # fmt: skip
    """The labels ``names`` [N] from a table's columns, and notes on values without an error.

    ``words`` are the table's own descriptions of its columns (:mod:`xplabels.io.words`). Units and
    descriptions of ``names`` take precedence, and values in another unit are converted.

    Raises InputError if a column is absent, an error is zero or negative, or a value is outside the
    label's plausible range.
    """
    values = np.full((len(source_id), len(names)), np.nan)
    errors = values.copy()
    notes: list[str] = []
    labels = []
    for k, name in enumerate(names):
        label = described(name, (words or {}).get(name, {}))
        labels.append(label)
        value, error = _label(columns, label, words or {}, source_id, where)
        known = np.isfinite(value) & np.isfinite(error)
        values[known, k], errors[known, k] = value[known], error[known]
        without_error = int((np.isfinite(value) & ~known).sum())
        if without_error:
            text = f"{counted(without_error, 'value')} of {name} without an error: taken as unknown"
            notes.append(f"{where}: {text}")
    return Labels(tuple(labels), values, errors), tuple(notes)


def described(name: str, words: Mapping[str, Any]) -> Label:
    """A label with a table's description of it.

    For one of :data:`~xplabels.core.labels.LABELS`, only the range is taken from the table.
    """
    own = label_of(name)
    if name in LABELS:
        words = {key: words[key] for key in ("lowest", "highest") if key in words}
        return Label(name, **{**own.about(), **words})
    return Label(name, **{**words, **own.about()})


def _in_unit(
    columns: Columns, column: str, label: Label, unit: str, where: object
) -> NDArray[np.float64]:
    """A column of values or errors [N] in its label's unit, from the ``unit`` declared."""
    values = numbers(columns, column, where)
    # logarithmic units are written in many ways, such as [cm/s2] and log(cm.s**-2), and are dex
    if not unit or (label in LABELS and (label.unit == "dex" or not is_unit(unit))):
        return values
    with located(where):
        return values * unit_factor(unit, label.unit, label)


def meant(values: NDArray[np.float64], name: str) -> tuple[NDArray[np.float64], int]:
    """Values [N] of a measurement, NaN where impossible, and how many of these there are.

    Impossible values are those that no star can have, which includes 99, -9999, 1e20, 9.9e37 and
    0 mag, with which tables mark missing values.

    Examples
    --------
    >>> meant(np.array([12.5, 99.99, np.nan]), "j_m")
    (array([12.5,  nan,  nan]), 1)
    """
    lowest, highest = POSSIBLE[name]
    impossible = ~np.isnan(values) & ~((values > lowest) & (values < highest))
    if name != "parallax":
        impossible |= values == 0  # written by tools that have no null
    return np.where(impossible, np.nan, values), int(impossible.sum())


def _stated(
    errors: NDArray[np.float64], values: NDArray[np.float64], most: float
) -> NDArray[np.float64]:
    """Errors [N]; NaN where the value is missing, or the error is a sentinel (-9.99, 99)."""
    return np.where(
        np.isfinite(values) & (errors > SENTINEL_ERROR) & (errors < most), errors, np.nan
    )


def numbers(columns: Columns, name: str, where: object) -> NDArray[np.float64]:
    """The column ``name`` as float64 [N].

    Raises InputError if it does not hold one number per row; if it is text, with row and value.
    """
    column = columns[name]
    if column.dtype.kind not in "iufb" or column.ndim != 1:
        cells = enumerate(column.tolist(), start=1)
        row, cell = next(((row, cell) for row, cell in cells if not _is_number(cell)), (1, ""))
        what, location = "does not hold one number per row", f"column {name}"
        if isinstance(cell, str) and column.ndim == 1:
            what, location = f"{cell[:60]!r} is not a number", f"row {row}, column {name}"
        raise InputError(
            what,
            where=f"{where}, {location}",
            remedy="write numbers, and nothing where a value is missing",
        )
    return column.astype(np.float64)


def _is_number(text: object) -> bool:
    if text == "":
        return True  # null
    if isinstance(text, str) and ("_" in text or not text.isascii()):
        return False  # 1_000 is a number only in Python
    try:
        float(text)  # type: ignore[arg-type]  # what is not a number raises
    except (ValueError, TypeError):
        return False
    return True


def _errors_of(
    measured: MeasurementColumns,
    column: str,
    columns: Columns,
    source_id: NDArray[np.int64],
    where: object,
    values: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Errors [N] of one measurement, each positive or NaN; NaN where ``values`` [N] are."""
    # errors whose name begins as that of the values come first: of k_m k_msigcom, not ks_msigcom
    error_names = sorted(measured.errors, key=lambda name: not name.startswith(column))
    last = measured.over_error or error_names[0]
    name = first_present([*error_names, last], columns)
    if name is None:
        raise InputError(
            f"column {column!r} has no errors: column {last!r} is absent",
            where=where,
            remedy=f"add {last}, or leave {column} out",
        )
    most = POSSIBLE_ERROR[measured.name]
    is_ratio = name == measured.over_error
    errors = _stated(numbers(columns, name, where), values, LARGEST_RATIO if is_ratio else most)
    check_positive(errors, source_id, where, name)
    return _stated(MAG_PER_RELATIVE_FLUX / errors, values, most) if is_ratio else errors


def _label(
    columns: Columns, label: Label, words: Words, source_id: NDArray[np.int64], where: object
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One label's values and errors [N] in its unit, checked."""
    name = str(label)
    if name not in columns:
        raise InputError(
            f"column {name!r} is absent", where=where, remedy=f"add {name} and {name}_err"
        )
    error_name = first_present(error_columns(name), columns)
    if error_name is None:
        raise InputError(
            f"column {name!r} has no errors: column '{name}_err' is absent",
            where=where,
            remedy=f"add {name}_err",
        )
    unit = str(words.get(name, {}).get("unit", ""))
    error_unit = str(words.get(error_name, {}).get("unit", unit))
    values = _in_unit(columns, name, label, unit, where)
    errors = _in_unit(columns, error_name, label, error_unit, where)
    check_positive(errors, source_id, where, error_name)
    if np.isinf([label.lowest, label.highest]).all():
        sentinel = np.isin(values, SENTINELS) | (np.abs(values) >= LARGE_SENTINEL)
        sentinel &= np.isfinite(values)
        if sentinel.any():
            row = int(sentinel.argmax())
            raise InputError(
                f"{values[row]:g} says in most tables that there is no value "
                f"({int(sentinel.sum())} such rows)",
                where=f"{where}, source_id {source_id[row]}, column {name}",
                remedy="write nothing (or NaN) there, or declare the label's range",
            )
    outside = np.isfinite(values) & ((values < label.lowest) | (values > label.highest))
    if outside.any():
        row = int(outside.argmax())
        raise InputError(
            f"{values[row]:g} is outside the plausible range "
            f"{label.lowest:g} to {label.highest:g} {label.unit}".rstrip()
            + f" ({int(outside.sum())} such rows)",
            where=f"{where}, source_id {source_id[row]}, column {name}",
            remedy="write nothing (or NaN) where the label is unknown, or leave the star out",
        )
    return values, errors


def check_positive(
    errors: NDArray[np.float64], source_id: NDArray[np.int64], where: object, column: str
) -> None:
    """Raise :class:`InputError` naming the first star whose error is zero or negative."""
    bad = errors <= 0  # NaN compares false: missing, not wrong
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"the error {errors[row]:g} is not positive ({int(bad.sum())} such rows)",
            where=f"{where}, source_id {source_id[row]}, column {column}",
            remedy="write nothing (or NaN) where it is missing, or leave the star out",
        )
