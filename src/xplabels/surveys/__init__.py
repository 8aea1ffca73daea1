"""Tables of surveys -> :class:`~xplabels.surveys.table.SurveyTable`: photometry, labels, flags.

Each survey's conventions (names, nulls, units, bits) are in :mod:`~xplabels.surveys.labels` or
:mod:`~xplabels.surveys.photometry`; nothing downstream depends on them. A new survey is added
there, and to the lists below.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.stars import Photometry, Stars
from xplabels.io.columns import first_present
from xplabels.io.memory import name_of, words_of
from xplabels.io.partners import Pairs, partners
from xplabels.io.plain import read_columns
from xplabels.io.tables import labels_in
from xplabels.releases import computed, with_inputs
from xplabels.surveys.labels import APOGEE, FS24, GSPPHOT, LAMOST_LRS, LAMOST_MRS, own_survey
from xplabels.surveys.matching import (
    MATCH_FLAGS,
    describe_matches,
    match_by_id,
    read_neighbours,
    translate,
)
from xplabels.surveys.photometry import ALLWISE, CATWISE, GAIA, TWOMASS, UNWISE
from xplabels.surveys.table import NO_SOURCE, UNKNOWN_BITS, RawTable, Survey, SurveyTable

PHOTOMETRIC: dict[str, Survey] = {s.name: s for s in (GAIA, TWOMASS, UNWISE, CATWISE, ALLWISE)}
"""Surveys that measure magnitudes, in order of precedence."""
SPECTROSCOPIC: dict[str, Survey] = {
    s.name: s for s in (APOGEE, LAMOST_LRS, LAMOST_MRS, GSPPHOT, FS24)
}
"""Surveys that measure labels."""
SURVEYS = PHOTOMETRIC | SPECTROSCOPIC

__all__ = [
    "PHOTOMETRIC",
    "SPECTROSCOPIC",
    "SURVEYS",
    "Survey",
    "SurveyTable",
    "join_survey",
    "read_survey",
    "survey_of",
]


def survey_of(name: str) -> Survey:
    """The survey of that name; any other name is a table of labels of the user's own."""
    return SURVEYS[name] if name in SURVEYS else own_survey(name)


def read_survey(
    name: str,
    path: Any,
    extra: Collection[str] = (),
    neighbours: Any = None,
    bit_masks: Collection[str] = (),
    labels: Sequence[str] = (),
) -> SurveyTable:
    """A survey's table.

    Parameters
    ----------
    name
        One of :data:`SURVEYS`, or any other name for a table of labels of the user's own.
    path
        CSV (also delimited by ``|``), ECSV, FITS or VOTable (each also with ``.gz``), Parquet, or a
        table in memory (:mod:`xplabels.io.memory`).
    extra
        Lower-case names of columns that rules ask for; a mapping has the rules' names as values.
    neighbours
        For a table without ``source_id``: a table that relates the survey's identifiers to Gaia
        DR3's (see :func:`~xplabels.surveys.matching.read_neighbours`). For a table with ids of an
        earlier Gaia release: one of the ids of both releases (see
        :func:`~xplabels.io.partners.partners`).
    bit_masks
        Those of ``extra`` that hold bit masks, besides the survey's own.
    labels
        The labels to read from a table of the user's own; default: every column that has a column
        of errors.

    Raises :class:`InputError` if the table cannot be read, lacks a column of ``extra``, or has no
    source_ids and no neighbours were given.
    """
    survey, where = survey_of(name), name_of(path)
    if name not in SURVEYS:
        survey = own_survey(name, labels or labels_in(path), words_of(path))
    masks = {*survey.masks, *bit_masks} & {*extra}
    integers = dict.fromkeys(masks, UNKNOWN_BITS)
    wanted = {*survey.columns, *survey.source_id, *survey.quality, *survey.context, *extra}
    if survey.key is not None:
        wanted.add(survey.key)
        integers |= {survey.key: NO_SOURCE} if survey.key_is_gaia else {}
    wanted.add("source_id")
    columns = computed(
        read_columns(path, with_inputs(wanted), integers, {*survey.source_id, "source_id"}), wanted
    )
    if neighbours is None:
        table = RawTable(columns, _source_ids(survey, columns, where), where)
    else:
        table = _by_neighbours(survey, columns, neighbours, where)
    absent = sorted({*extra} - table.columns.keys())
    if absent:
        raise InputError(
            f"column {absent[0]!r}, which a rule asks for, is absent",
            where=where,
            remedy=f"leave the rule out (--without {_rule(extra, absent[0])}) or get the table "
            "with this column",
        )
    content = survey.read(table)
    quality = first_present(survey.quality, table.columns)
    context = (name for name in survey.context if name in table.columns)
    kept = dict.fromkeys([*extra, *context])
    return SurveyTable(
        name,
        where,
        table.source_id,
        {
            column: _for_rules(table, column, column in masks, _rule(extra, column))
            for column in kept
        },
        content if isinstance(content, Labels) else None,
        content if isinstance(content, Photometry) else None,
        None if quality is None else table.numbers(quality),
        tuple(table.notes),
    )


def join_survey(
    stars: Stars, name: str, path: str | Path, names: Sequence[str] | None = None
) -> Stars:
    """``stars`` with labels from a survey's table as published, in place of any they had.

    If a star has several rows, the best is used; no cuts are applied. ``names`` are the labels
    wanted, by default all that the table has. Labels that a star does not have are NaN.

    Raises :class:`InputError` as :func:`read_survey`, and if a label is absent or no star is
    shared.
    """
    table = read_survey(name, path)
    table = table.best(table.source_id != NO_SOURCE)
    if table.labels is None:
        raise InputError(f"survey {name!r} has no labels", where=path)
    labels = table.labels if names is None else table.labels.select(names)
    joined_stars, rows = table.lookup.find(stars.source_id)
    if not len(joined_stars):
        raise InputError("shares no source_id with the stars", where=path)
    values = np.full((len(stars), len(labels.names)), np.nan)
    errors = values.copy()
    values[joined_stars], errors[joined_stars] = labels.values[rows], labels.errors[rows]
    joined = Labels(labels.names, values, errors)
    return replace(stars, labels=joined, notes=(*stars.notes, *table.notes))


def _source_ids(survey: Survey, columns: dict[str, NDArray[Any]], where: str) -> NDArray[np.int64]:
    """Gaia source_ids [N] from the table's own column; :data:`NO_SOURCE` where there is none."""
    column = first_present((*survey.source_id, "source_id"), columns)
    if column is None:
        hint = "" if survey.key is None else ", or translate its identifiers by --neighbours"
        raise InputError(
            f"has no Gaia DR3 source_id (survey {survey.name!r})",
            where=where,
            remedy=f"name its column {', '.join(survey.source_id)}{hint}; "
            f"surveys: {', '.join(SURVEYS)}",
        )
    return np.where(columns[column] > 0, columns[column], NO_SOURCE)


def _by_neighbours(
    survey: Survey, columns: dict[str, NDArray[Any]], neighbours: Any, where: str
) -> RawTable:
    """The rows with the Gaia source_ids that ``neighbours`` gives them, and match flags.

    Rows without a Gaia source are kept, so that they are accounted for.
    """
    if not survey.key_is_gaia and (pairs_of_ids := Pairs.read(neighbours)) is not None:
        translated = partners(_source_ids(survey, columns, where), pairs_of_ids)
        note = f"{where}: ids of another release: {translated.to_text()}"
        return RawTable(columns, translated.partner, where, [note])
    if survey.key is None or survey.key not in columns:
        raise InputError(
            f"has no column {survey.key or 'of its own identifiers'} to look up in "
            f"{name_of(neighbours)}",
            where=where,
            remedy="leave --neighbours out, or give the table with its identifiers",
        )
    pairs, keys = read_neighbours(neighbours, survey.key_is_gaia), columns[survey.key]
    match = translate if survey.key_is_gaia else match_by_id
    source_id, rows, flags = match(keys, pairs)
    matches = int(np.count_nonzero(source_id))
    matched = {name: values[rows] for name, values in columns.items()}
    note = f"{len(source_id) - matches} of {len(keys)} rows have no Gaia source"
    return RawTable(
        matched | {MATCH_FLAGS: flags},
        source_id,
        where,
        [f"{where}: {describe_matches(matches, flags)}; {note}"],
    )


def _rule(extra: Collection[str], column: str) -> str:
    """The name of the rule that asks for a column."""
    return str(extra.get(column, "NAME")) if isinstance(extra, Mapping) else "NAME"


def _for_rules(table: RawTable, name: str, is_mask: bool, rule: str) -> NDArray[Any]:
    """A column that a rule asks for, with nulls as this package writes them."""
    values = table.columns[name]
    if is_mask:
        # a 32-bit mask with its highest bit set is read as a large negative number; sentinels that
        # stand for a null are small ones
        negative = (values < 0) & (values >= -(2**31)) & (values < -99999)
        unsigned = np.where(negative, values + 2**32, values)
        return np.where(unsigned < 0, UNKNOWN_BITS, unsigned)
    if values.dtype.kind not in "iufb" or values.ndim != 1:
        raise InputError(
            "does not hold one number per row",
            where=f"{table.where}, column {name}",
            remedy=f"rules compare numbers: leave the rule out (--without {rule})",
        )
    return table.numbers(name)
