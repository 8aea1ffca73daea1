"""Merge several files and surveys into one row per star."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, located
from xplabels.core.labels import LABELS, Label, Labels, label_of
from xplabels.core.stars import Photometry, stacked
from xplabels.surveys import PHOTOMETRIC
from xplabels.surveys.table import SurveyTable


def stack(tables: Sequence[SurveyTable]) -> SurveyTable:
    """The tables of one survey, from several files, as one; they must have the same columns."""
    first = tables[0]
    if len(tables) == 1:
        return first
    for table in tables[1:]:
        if (table.quality is None) != (first.quality is None) or (
            table.labels is not None
            and first.labels is not None
            and table.labels.names != first.labels.names
        ):
            raise InputError(
                f"differs in its columns from {first.where}",
                where=table.where,
                remedy="give one file, or files with the same columns",
            )
    return replace(
        first,
        where=", ".join(table.where for table in tables),
        source_id=np.concatenate([table.source_id for table in tables]),
        columns={
            name: np.concatenate([table.columns[name] for table in tables])
            for name in first.columns
            if all(name in table.columns for table in tables)
        },
        labels=stacked([table.labels for table in tables]),
        photometry=stacked([table.photometry for table in tables]),
        quality=stacked([table.quality for table in tables]),
        notes=tuple(note for table in tables for note in table.notes),
    )


def merged_photometry(
    source_id: NDArray[np.int64], tables: Mapping[str, SurveyTable], own: Photometry | None = None
) -> Photometry:
    """Magnitudes and parallaxes [N]: each from the first survey that has it.

    The order is that of :data:`~xplabels.surveys.PHOTOMETRIC`. So AllWISE is used, band by band,
    where unWISE has no value; both are on AllWISE's scale. The stars' ``own`` photometry comes
    last.
    """
    merged = Photometry.missing(len(source_id))

    def fill(stars: NDArray[np.intp], more: Photometry) -> None:
        gap = np.isnan(merged.values[stars])
        merged.values[stars] = np.where(gap, more.values, merged.values[stars])
        merged.errors[stars] = np.where(gap, more.errors, merged.errors[stars])

    for name in PHOTOMETRIC:
        if name in tables and (light := tables[name].photometry) is not None:
            stars, rows = tables[name].lookup.find(source_id)
            fill(stars, light[rows])
    if own is not None:
        fill(np.arange(len(source_id)), own)
    return merged


def in_common_units(tables: Sequence[SurveyTable]) -> list[SurveyTable]:
    """The tables with each label in the unit of the first table that declares one.

    Raises InputError if one cannot be converted.
    """
    units: dict[str, Label] = {}  # the first label of each name that has a unit
    names = (name for table in tables if table.labels is not None for name in table.labels.names)
    for label in map(label_of, names):
        if not units.get(label, Label(label)).unit:
            units[label] = label
    converted = []
    for table in tables:
        with located(table.where):
            labels = None if table.labels is None else table.labels.in_units_of([*units.values()])
        converted.append(replace(table, labels=labels))
    return converted


def merged_labels(
    tables: Sequence[SurveyTable],
) -> tuple[NDArray[np.int64], Labels, dict[str, dict[str, int]]]:
    """Merge the stars of several surveys, taking each label from the first survey that has it.

    ``tables`` have one row per star. Returns source_ids [N], ascending, labels [N, K], all K that
    any survey has, and label -> survey -> number of stars whose label is from that survey.
    """
    labelled = [(table, table.labels) for table in tables if table.labels is not None]
    source_id = np.unique(np.concatenate([table.source_id for table, _ in labelled]))
    # the package's own labels first, in their order; as keys are names, as values labels with units
    others = {name: name for _, labels in labelled for name in labels.names}
    names = tuple(others.pop(name) for name in LABELS if name in others) + tuple(others)
    values = np.full((len(source_id), len(names)), np.nan)
    errors = values.copy()
    counts: dict[str, dict[str, int]] = {name: {} for name in names}
    for table, labels in labelled:
        rows = np.searchsorted(source_id, table.source_id)
        for column, name in enumerate(labels.names):
            k = names.index(name)
            gap = np.isnan(values[rows, k]) & np.isfinite(labels.values[:, column])
            values[rows[gap], k] = labels.values[gap, column]
            errors[rows[gap], k] = labels.errors[gap, column]
            counts[name][table.survey] = int(gap.sum())
    return source_id, Labels(names, values, errors), counts
