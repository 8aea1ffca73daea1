"""Photometry and labels of one star from several surveys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.labels import LABELS, Labels
from xplabels.core.stars import Photometry, check_unique
from xplabels.surveys import PHOTOMETRIC
from xplabels.surveys.offsets import Labelled
from xplabels.surveys.table import UNKNOWN_BITS, SurveyTable


class Keyed:
    """A survey's rows by source_id, each source once.

    Raises
    ------
    InputError
        If a source_id has several rows.
    """

    def __init__(self, table: SurveyTable) -> None:
        real = np.flatnonzero(table.source_id > 0)
        check_unique(table.source_id[real], table.where)
        self.table = table.take(real[np.argsort(table.source_id[real])])

    def find(self, source_id: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which of ``source_id`` [N] are here, and in which rows."""
        known = self.table.source_id
        position = np.minimum(np.searchsorted(known, source_id), max(len(known) - 1, 0))
        here = known[position] == source_id if len(known) else np.zeros(len(source_id), bool)
        rows = np.flatnonzero(here)
        return rows, position[rows]

    def column(self, name: str, source_id: NDArray[np.int64]) -> NDArray[Any]:
        """A column [N] for these stars; missing where a star is not here."""
        values = self.table.columns[name]
        missing = UNKNOWN_BITS if values.dtype.kind == "i" else np.nan
        aligned = np.full(len(source_id), missing, values.dtype)
        rows, found = self.find(source_id)
        aligned[rows] = values[found]
        return aligned


def stack(tables: Sequence[SurveyTable]) -> SurveyTable:
    """Tables of one survey, from several files, as one.

    Raises
    ------
    InputError
        If they differ in what they measure.
    """
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
    labels = [table.labels for table in tables if table.labels is not None]
    light = [table.photometry for table in tables if table.photometry is not None]
    quality = [table.quality for table in tables if table.quality is not None]
    return replace(
        first,
        where=", ".join(table.where for table in tables),
        source_id=np.concatenate([table.source_id for table in tables]),
        columns={
            name: np.concatenate([table.columns[name] for table in tables])
            for name in first.columns
        },
        labels=Labels(
            labels[0].names,
            np.concatenate([part.values for part in labels]),
            np.concatenate([part.errors for part in labels]),
        )
        if labels
        else None,
        photometry=Photometry(
            np.concatenate([part.values for part in light]),
            np.concatenate([part.errors for part in light]),
        )
        if light
        else None,
        quality=np.concatenate(quality) if quality else None,
        notes=tuple(note for table in tables for note in table.notes),
    )


def merged_photometry(
    source_id: NDArray[np.int64], keyed: Mapping[str, Keyed], own: Photometry | None = None
) -> Photometry:
    """Magnitudes and parallaxes [N]: each from the first survey that has it.

    The order is that of :data:`~xplabels.surveys.PHOTOMETRIC`, so AllWISE fills what unWISE
    lacks, band by band: both are on AllWISE's scale. ``own`` photometry comes last.
    """
    merged = Photometry.missing(len(source_id))

    def fill(rows: NDArray[np.intp], more: Photometry) -> None:
        gap = np.isnan(merged.values[rows])
        merged.values[rows] = np.where(gap, more.values, merged.values[rows])
        merged.errors[rows] = np.where(gap, more.errors, merged.errors[rows])

    for name in PHOTOMETRIC:
        if name in keyed and (light := keyed[name].table.photometry) is not None:
            rows, found = keyed[name].find(source_id)
            fill(rows, light[found])
    if own is not None:
        fill(np.arange(len(source_id)), own)
    return merged


def merged_labels(
    tables: Sequence[Labelled],
) -> tuple[NDArray[np.int64], Labels, dict[str, dict[str, int]]]:
    """Stars that any of the surveys knows, and each label from the first survey that has it.

    Returns
    -------
    source_id, labels, counts
        Int64 [N] in ascending order; labels [N, K], K all that any survey has; and label ->
        survey -> stars that took it from there.
    """
    source_id = np.unique(np.concatenate([table.source_id for table in tables]))
    names = tuple(name for name in LABELS if any(name in table.labels.names for table in tables))
    values = np.full((len(source_id), len(names)), np.nan)
    errors = values.copy()
    counts: dict[str, dict[str, int]] = {name: {} for name in names}
    for table in tables:
        rows = np.searchsorted(source_id, table.source_id)
        for k, name in enumerate(names):
            if name not in table.labels.names:
                continue
            column = table.labels.names.index(name)
            gap = np.isnan(values[rows, k]) & np.isfinite(table.labels.values[:, column])
            values[rows[gap], k] = table.labels.values[gap, column]
            errors[rows[gap], k] = table.labels.errors[gap, column]
            counts[name][table.survey] = int(gap.sum())
    return source_id, Labels(names, values, errors), counts
