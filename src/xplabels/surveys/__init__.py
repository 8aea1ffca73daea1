"""Tables of surveys -> :class:`~xplabels.surveys.table.SurveyTable`: photometry, labels, flags.

Each survey's conventions (names, nulls, units, bits) stand in its own module; nothing downstream
knows them.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import IntFlag
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.io.plain import read_columns
from xplabels.surveys.allwise import ALLWISE
from xplabels.surveys.apogee import APOGEE
from xplabels.surveys.fs24 import FS24
from xplabels.surveys.gaia import GAIA
from xplabels.surveys.gspphot import GSPPHOT
from xplabels.surveys.lamost import LAMOST_LRS, LAMOST_MRS
from xplabels.surveys.matching import MATCH_FLAGS, match_by_id, read_neighbours, told, translate
from xplabels.surveys.own import own_survey
from xplabels.surveys.table import NO_SOURCE, UNKNOWN_BITS, Survey, SurveyTable, number
from xplabels.surveys.twomass import TWOMASS
from xplabels.surveys.unwise import UNWISE

PHOTOMETRIC: dict[str, Survey] = {s.name: s for s in (GAIA, TWOMASS, UNWISE, ALLWISE)}
"""Surveys that measure magnitudes: a later one fills only what earlier ones lack."""
SPECTROSCOPIC: dict[str, Survey] = {
    s.name: s for s in (APOGEE, LAMOST_LRS, LAMOST_MRS, GSPPHOT, FS24)
}
"""Surveys that know labels."""
SURVEYS = PHOTOMETRIC | SPECTROSCOPIC

__all__ = [
    "PHOTOMETRIC",
    "SPECTROSCOPIC",
    "SURVEYS",
    "Survey",
    "SurveyTable",
    "bits_of",
    "read_survey",
    "survey_of",
]


def survey_of(name: str) -> Survey:
    """The survey of that name; any other name is a table of labels of the user's own."""
    return SURVEYS[name] if name in SURVEYS else own_survey(name)


def bits_of(survey: str, column: str) -> type[IntFlag] | None:
    """The names of the bits of a survey's column, or None where they have none."""
    return survey_of(survey).bits.get(column)


def read_survey(
    name: str,
    path: str | Path,
    extra: Collection[str] = (),
    neighbours: str | Path | None = None,
    bit_masks: Collection[str] = (),
) -> SurveyTable:
    """A survey's table.

    Parameters
    ----------
    name
        One of :data:`SURVEYS`, or any other name for a table of labels of the user's own.
    path
        CSV (also delimited by ``|``), ECSV, FITS or VOTable (each also with ``.gz``), or Parquet.
    extra
        Lower-case names of columns that rules ask for.
    neighbours
        A table that relates the survey's identifiers to Gaia DR3's (see
        :func:`~xplabels.surveys.matching.read_neighbours`), for a table without ``source_id``.
    bit_masks
        Those of ``extra`` that hold bit masks, beside the survey's own.

    Raises
    ------
    InputError
        If the table cannot be read, lacks a column of ``extra``, or has no source_ids and no
        neighbours were given.
    """
    survey, where = survey_of(name), str(path)
    masks = {*survey.bits, *bit_masks} & {*extra}
    integers = dict.fromkeys(survey.source_id, NO_SOURCE) | dict.fromkeys(masks, UNKNOWN_BITS)
    wanted = {*survey.columns, *survey.source_id, *survey.quality, *survey.context, *extra}
    if survey.key is not None:
        wanted.add(survey.key)
        if survey.key_is_gaia:
            integers[survey.key] = NO_SOURCE
    columns = read_columns(path, wanted, integers)
    source_id, rows, flags, notes = _sources(survey, columns, neighbours, where)
    columns = {key: values[rows] for key, values in columns.items()}
    if neighbours is not None:
        columns[MATCH_FLAGS] = flags
    absent = sorted(set(extra) - set(columns))
    if absent:
        raise InputError(
            f"column {absent[0]!r}, which a rule asks for, is absent",
            where=where,
            remedy="leave the rule out (--without NAME) or get the table with this column",
        )
    measured = survey.measure(columns, source_id, where)
    quality = next((column for column in survey.quality if column in columns), None)
    return SurveyTable(
        name,
        where,
        source_id,
        {
            key: _asked(columns, key, key in masks, where)
            for key in dict.fromkeys([*extra, *(c for c in survey.context if c in columns)])
        },
        measured.labels,
        measured.photometry,
        None if quality is None else number(columns, quality, len(source_id)),
        (*notes, *measured.notes),
    )


def _sources(
    survey: Survey, columns: dict[str, NDArray[Any]], neighbours: str | Path | None, where: str
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.int64], tuple[str, ...]]:
    """Gaia source_ids, the table's rows they belong to, flags of the match, and notes."""
    column = next((name for name in survey.source_id if name in columns), None)
    if neighbours is None:
        if column is None:
            hint = ", ".join(survey.source_id)
            translated = (
                "" if survey.key is None else ", or translate its identifiers by --neighbours"
            )
            raise InputError(
                f"has no Gaia DR3 source_id (survey {survey.name!r})",
                where=where,
                remedy=f"name its column {hint}{translated}; surveys: {', '.join(SURVEYS)}",
            )
        source_id = columns[column]
        source_id = np.where(source_id > 0, source_id, NO_SOURCE)
        return source_id, np.arange(len(source_id)), np.zeros(len(source_id), np.int64), ()
    if survey.key is None or survey.key not in columns:
        raise InputError(
            f"has no column {survey.key or 'of its own identifiers'} to look up in {neighbours}",
            where=where,
            remedy="leave --neighbours out, or give the table with its identifiers",
        )
    pairs = read_neighbours(neighbours, survey.key_is_gaia)
    keys = columns[survey.key]
    if survey.key_is_gaia:
        source_id, flags = translate(keys, pairs)
        rows, found = np.arange(len(keys)), int((source_id > 0).sum())
        orphans = len(keys) - found
    else:
        matches = match_by_id(keys, pairs)
        # rows that no Gaia source claims stay, so that they are accounted for
        rest = np.setdiff1d(np.arange(len(keys)), matches.row)
        source_id = np.concatenate([matches.source_id, np.full(len(rest), NO_SOURCE)])
        rows, flags = np.concatenate([matches.row, rest]), matches.flags
        found, orphans = len(matches.row), len(rest)
    note = f"{where}: {told(found, flags)}; {orphans} of {len(keys)} rows have no Gaia source"
    every = np.zeros(len(source_id), np.int64)
    every[: len(flags)] = flags
    return source_id, rows, every, (note,)


def _asked(columns: dict[str, NDArray[Any]], name: str, is_mask: bool, where: str) -> NDArray[Any]:
    """A column that a rule asks for, nulls as this package writes them."""
    values = columns[name]
    if is_mask:
        # a 32-bit mask with its highest bit set reads as negative; sentinels and nulls are small
        negative = (values < 0) & (values >= -(2**31)) & (values < -99999)
        unsigned = np.where(negative, values + 2**32, values)
        return np.where(unsigned < 0, UNKNOWN_BITS, unsigned)
    if values.dtype.kind not in "iufb" or values.ndim != 1:
        raise InputError(
            "does not hold one number a row",
            where=f"{where}, column {name}",
            remedy="rules compare numbers: leave the rule out (--without NAME)",
        )
    return number(columns, name, len(values))
