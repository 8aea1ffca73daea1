"""Surveys of labels: APOGEE, LAMOST, GSP-Phot, Fallows & Sanders (2024), and a user's own table.

In a published table, which users cannot correct, a value outside the label's plausible range or
without a positive error is taken as unknown and counted. In a user's own table it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntFlag
from functools import partial
from typing import Any

import numpy as np

from xplabels.core.errors import InputError
from xplabels.core.labels import LABELS, Labels, check_names, label_of
from xplabels.io.columns import first_present, label_columns, labels_of
from xplabels.io.words import Words
from xplabels.surveys.table import NO_SOURCE, RawTable, Survey

Wanted = Mapping[str, tuple[str, ...]]
"""Label -> column of its values, and columns that may hold its errors, in order of precedence."""


def read_labels(wanted: Wanted, table: RawTable) -> Labels:
    """Those labels [N, K] that the table has; :class:`InputError` if it has none."""
    names = [name for name in wanted if wanted[name][0] in table.columns]
    if not names:
        raise InputError(
            f"has no labels: none of the columns {', '.join(w[0] for w in wanted.values())}",
            where=table.where,
            remedy="give the survey's table in its published columns, or name another survey",
        )
    values = np.full((len(table), len(names)), np.nan)
    errors = values.copy()
    for k, name in enumerate(names):
        value_column, *error_columns = wanted[name]
        error_column = first_present(error_columns, table.columns) or ""
        value, error = table.numbers(value_column), table.numbers(error_column)
        label, known = label_of(name), np.isfinite(value)
        without_error = known & ~(error > 0)
        outside = known & ((value < label.lowest) | (value > label.highest))
        span = f"{label.lowest:g} to {label.highest:g} {label.unit}"
        table.note(without_error, f"values of {name} without a positive error: taken as unknown")
        table.note(outside, f"values of {name} outside {span}: taken as unknown")
        known &= ~(without_error | outside)
        values[known, k], errors[known, k] = value[known], error[known]
    return Labels(check_names(names), values, errors)


def label_survey(
    name: str,
    title: str,
    labels: Wanted,
    read: Callable[[Wanted, RawTable], Labels] = read_labels,
    **options: Any,
) -> Survey:
    """A survey whose labels are in columns of values and errors."""
    columns = tuple(column for names in labels.values() for column in names)
    return Survey(name, title, columns, partial(read, labels), **options)


# --- APOGEE ---------------------------------------------------------------------------------
# Bit numbers are those of the SDSS DR17 page "APOGEE Bitmasks" (sdss.org/dr17/irspec/
# apogee-bitmasks); ASPCAPFLAG needs 64-bit integers. Missing numbers are NaN or -9999.99, and a
# GAIAEDR3_SOURCE_ID of 0 or below means no Gaia source; EDR3's identifiers are DR3's.


def _flags(name: str, runs: Mapping[int, str]) -> type[IntFlag]:
    """An IntFlag from runs of successive bits: number of the first bit -> their names."""
    bits = {
        flag: 1 << bit for first, run in runs.items() for bit, flag in enumerate(run.split(), first)
    }
    return IntFlag(name, bits)  # type: ignore[return-value]  # a class, when called with names


_FITTED = (
    "TEFF_{0} LOGG_{0} VMICRO_{0} M_H_{0} ALPHA_M_{0} C_M_{0} N_M_{0} STAR_{0} CHI2_{0} "
    "COLORTE_{0} ROTATION_{0} SN_{0} SPEC_HOLE_{0} ATMOS_HOLE_{0} VSINI_{0}"
)
ASPCAP_FLAG = _flags(
    "AspcapFlag",
    {
        0: _FITTED.format("WARN"),
        16: _FITTED.format("BAD"),
        31: "NO_ASPCAP_RESULT MISSING_APSTAR NO_GRID BAD_FRAC_LOWSNR BAD_FRAC_BADPIX FERRE_FAIL",
        40: "PROBLEM_TARGET MULTIPLE_SUSPECT",
    },
)
"""APOGEE_ASPCAPFLAG: the fit of the combined spectrum."""
STAR_FLAG = _flags(
    "StarFlag",
    {
        0: "BAD_PIXELS COMMISSIONING BRIGHT_NEIGHBOR VERY_BRIGHT_NEIGHBOR LOW_SNR",
        9: "PERSIST_HIGH PERSIST_MED PERSIST_LOW PERSIST_JUMP_POS PERSIST_JUMP_NEG",
        16: "SUSPECT_RV_COMBINATION SUSPECT_BROAD_LINES BAD_RV_COMBINATION RV_REJECT RV_SUSPECT",
        21: "MULTIPLE_SUSPECT RV_FAIL SUSPECT_ROTATION MTPFLUX_LT_75 MTPFLUX_LT_50",
    },
)
"""APOGEE_STARFLAG: the star and its visits."""
EXTRA_TARGET = _flags("ExtraTarget", {0: "NOT_MAIN COMMISSIONING TELLURIC APO1M DUPLICATE"})
"""EXTRATARG: why the star was observed; 0 is the main red-star sample."""

APOGEE = label_survey(
    "apogee",
    "APOGEE DR17 allStar",
    {name: (name, f"{name}_err") for name in LABELS},
    source_id=("source_id", "gaiaedr3_source_id", "gaiadr3_source_id", "gaia_source_id"),
    bits={"aspcapflag": ASPCAP_FLAG, "starflag": STAR_FLAG, "extratarg": EXTRA_TARGET},
    quality=("snr", "snrev"),
)

# --- LAMOST ---------------------------------------------------------------------------------
# Both DR7 catalogues name Gaia DR2 sources (gaia_source_id): they are joined to DR3 through
# Gaia's table dr2_neighbourhood, unless the user has added a column source_id of DR3.

LAMOST_LRS = label_survey(
    "lamost-lrs",
    "LAMOST DR7 low-resolution stellar parameters (A, F, G, K)",
    {"teff": ("teff", "teff_err"), "logg": ("logg", "logg_err"), "fe_h": ("feh", "feh_err")},
    key="gaia_source_id",
    key_is_gaia=True,
    quality=("snr", "snrg"),
)

MRS_ERRORS = {
    "teff": 119.0, "logg": 0.17, "fe_h": 0.12, "c_fe": 0.12, "n_fe": 0.12, "alpha_m": 0.12,
}  # fmt: skip
"""Errors assumed for the MRS labels that FS24 compare with, which come without any (K, dex): the
precision stated for SPCANet, which made them. It is 119 K, 0.17 dex in log g and 0.06-0.12 dex in
abundances (Wang et al. 2020, ApJ 891, 23, abstract), of which the upper end is taken."""


def read_mrs(wanted: Wanted, table: RawTable) -> Labels:
    """The six labels of MRS rows [N], with SPCANet's precisions where they have no errors."""
    errors = {}
    for name, (_, column) in wanted.items():
        stated = table.numbers(column)
        errors[column] = np.where(np.isfinite(stated), stated, MRS_ERRORS[name])
    labels = read_labels(wanted, table.with_columns(errors))
    without = [name for name in labels.names if wanted[name][1] not in table.columns]
    if without:
        assumed = ", ".join(f"{MRS_ERRORS[name]:g} for {name}" for name in without)
        table.notes.append(
            f"{table.where}: has no errors; SPCANet's precisions are assumed (K, dex): {assumed}"
        )
    return labels


LAMOST_MRS = label_survey(
    "lamost-mrs",
    "LAMOST DR7 medium-resolution stellar parameters",
    {
        "teff": ("teff_cnn", "teff_cnn_err"),
        "logg": ("logg_cnn", "logg_cnn_err"),
        "fe_h": ("feh_cnn", "feh_cnn_err"),
        "c_fe": ("c_fe", "c_fe_err"),
        "n_fe": ("n_fe", "n_fe_err"),
        "alpha_m": ("alpha_m_cnn", "alpha_m_cnn_err"),
    },
    read_mrs,
    key="gaia_source_id",
    key_is_gaia=True,
    quality=("snr",),
)

# --- GSP-Phot -------------------------------------------------------------------------------


def read_gspphot(wanted: Wanted, table: RawTable) -> Labels:
    """teff, logg and fe_h of Gaia sources [N]; [M/H] stands for [Fe/H], as in FS24's comparison.

    Errors are half the distance of the 16th and 84th percentiles (``*_lower``, ``*_upper``).
    """
    half = {low: (table.numbers(high) - table.numbers(low)) / 2 for _, low, high in wanted.values()}
    labels = read_labels(wanted, table.with_columns(half))
    if "fe_h" in labels.names:
        table.notes.append(f"{table.where}: GSP-Phot's [M/H] stands for fe_h")
    return labels


GSPPHOT = label_survey(
    "gspphot",
    "Gaia DR3 GSP-Phot (astrophysical_parameters)",
    {
        name: tuple(f"{stem}_gspphot{end}" for end in ("", "_lower", "_upper"))
        for name, stem in (("teff", "teff"), ("logg", "logg"), ("fe_h", "mh"))
    },
    read_gspphot,
    # extinction and absolute magnitude in G, mag: what its errors go with (FS24, section 4.3)
    context=("ag_gspphot", "mg_gspphot"),
)

# --- Fallows & Sanders (2024) ---------------------------------------------------------------

ERROR_NAMES = ("{}_err", "{}_error", "{}_unc", "{}_uncertainty", "{}_total_unc", "{}_sigma", "e_{}")
"""How the column of a label's total error (eq. 11) may be called.

The paper names its labels (section 2.3) and the catalogue (doi:10.5281/zenodo.10471095), but not
the catalogue's columns, and the file has not been seen."""


def read_fs24(wanted: Wanted, table: RawTable) -> Labels:
    """The labels [N] of the catalogue; those without an error are left out and counted."""
    labels = read_labels(wanted, table)
    without = [name for name in labels.names if table.columns.keys().isdisjoint(wanted[name][1:])]
    if without:
        looked_for = ", ".join(wanted[without[0]][1:])
        table.notes.append(
            f"{table.where}: no error of {', '.join(without)}; looked for {looked_for}"
        )
    return labels


FS24 = label_survey(
    "fs24",
    "Fallows & Sanders (2024), from Gaia BP/RP spectra",
    {name: (name, *(error.format(name) for error in ERROR_NAMES)) for name in LABELS},
    read_fs24,
    source_id=("source_id", "gaia_source_id", "gaiadr3_source_id", "dr3_source_id"),
)

# --- a user's own ---------------------------------------------------------------------------


def read_own(names: Sequence[str], words: Words, table: RawTable) -> Labels:
    """Those labels ``names`` that the table has; see :func:`~xplabels.io.columns.labels_of`."""
    present = [name for name in names if name in table.columns]
    if not present:
        raise InputError(
            f"has no column of labels: none of {', '.join(names)}",
            where=table.where,
            remedy="name its labels by --labels as in teff,mass, and errors as in mass_err",
        )
    # rows without an id belong to no star: their values are not used, nor checked
    used = {name: np.where(table.source_id != NO_SOURCE, column, np.nan)
            for name, column in table.columns.items() if column.dtype.kind in "iuf"}  # fmt: skip
    columns = table.with_columns(used).columns
    labels, notes = labels_of(columns, present, table.source_id, table.where, words)
    table.notes.extend(notes)
    return labels


def own_survey(name: str, labels: Sequence[str] = (), words: Words | None = None) -> Survey:
    """A user's own table (GALAH, an observing run, ...), with columns ``teff, teff_err``, ...

    ``labels`` are those to read, by default :data:`~xplabels.core.labels.LABELS`; ``words`` are
    their units and descriptions in the table.
    """
    names = tuple(labels) or tuple(LABELS)
    columns, read = tuple(label_columns(names)), partial(read_own, names, words or {})
    return Survey(name, "a table of the user's own", columns, read, quality=("snr",))
