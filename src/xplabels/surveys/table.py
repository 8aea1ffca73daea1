"""What every survey's table becomes: rows with Gaia source_ids, photometry or labels, columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.labels import LABELS, Labels, check_names
from xplabels.core.stars import Photometry, Rows

Columns = Mapping[str, NDArray[Any]]
"""Lower-case column name -> array [N]."""

NO_SOURCE = 0
"""A source_id that no Gaia source has: the row has none."""
UNKNOWN_BITS = -1
"""A bit mask that is null."""
SENTINEL = -999.0
"""Surveys write -9999, -9999.99 or -999 for a missing number; nothing used here is as low."""


@dataclass(frozen=True)
class SurveyTable:
    """N rows of one survey.

    Attributes
    ----------
    survey
        Its name, by which rules call it.
    where
        The file, for messages.
    source_id
        Int64 [N], Gaia DR3; :data:`NO_SOURCE` where there is none. A source may stand in several
        rows.
    columns
        What rules ask for, and the survey's context: float64 [N] with NaN where null; bit masks
        int64 with :data:`UNKNOWN_BITS`.
    labels, photometry
        What the survey knows of the stars, or None.
    quality
        Float64 [N], the higher the better (S/N of the spectrum), which chooses among rows of one
        star; NaN where unknown.
    notes
        What a user of the rows should know.
    """

    survey: str
    where: str
    source_id: NDArray[np.int64]
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    labels: Labels | None = None
    photometry: Photometry | None = None
    quality: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.source_id)

    def take(self, rows: Rows, source_id: NDArray[np.int64] | None = None) -> SurveyTable:
        """Some rows, in that order; with ``source_id``, under other source_ids."""
        return SurveyTable(
            self.survey,
            self.where,
            self.source_id[rows] if source_id is None else source_id,
            {name: values[rows] for name, values in self.columns.items()},
            None if self.labels is None else self.labels[rows],
            None if self.photometry is None else self.photometry[rows],
            None if self.quality is None else self.quality[rows],
            self.notes,
        )


@dataclass(frozen=True)
class Measured:
    """What a survey's module makes of the columns it asked for."""

    labels: Labels | None = None
    photometry: Photometry | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """How one survey's table is read.

    Attributes
    ----------
    name, title
        What the command line calls it, and what it is.
    columns
        The columns that :attr:`measure` wants, as far as they are there.
    measure
        Columns, source_ids and file -> labels or photometry.
    source_id
        Columns that may hold Gaia DR3 source_ids; the first that is there counts.
    key
        The survey's own identifier, which a table of neighbours translates.
    key_is_gaia
        Whether that is a source_id of another Gaia release; it is text otherwise.
    bits
        Column of bit masks -> its bits by name.
    quality
        Columns that may tell how good a row is; the first that is there counts.
    context
        Further numbers that say what kind of star it is, kept where they are there.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    measure: Callable[[Columns, NDArray[np.int64], object], Measured]
    source_id: tuple[str, ...] = ("source_id",)
    key: str | None = None
    key_is_gaia: bool = False
    bits: Mapping[str, type[IntFlag]] = field(default_factory=dict)
    quality: tuple[str, ...] = ()
    context: tuple[str, ...] = ()


def number(columns: Columns, name: str, rows: int) -> NDArray[np.float64]:
    """A column as float64 [N], sentinels and infinities as NaN; all NaN where it is absent."""
    if name not in columns:
        return np.full(rows, np.nan)
    values = np.asarray(columns[name], np.float64)
    return np.where(np.isfinite(values) & (values > SENTINEL), values, np.nan)


def known_labels(
    measured: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    where: object,
    looked_for: Iterable[str],
) -> tuple[Labels, tuple[str, ...]]:
    """Labels [N, K] from ``{label: (values, errors)}``, and notes on what was left out.

    A survey's table is not the user's to mend: a value outside the label's believable range, or
    without a positive error, becomes unknown and is counted, where a table of the user's own
    would be refused.

    Raises
    ------
    InputError
        If nothing was measured: the table has none of the columns ``looked_for``.
    """
    if not measured:
        raise InputError(
            f"has no labels: none of the columns {', '.join(looked_for)}",
            where=where,
            remedy="give the survey's table in its published columns, or name another survey",
        )
    names = check_names([name for name in LABELS if name in measured])
    values = np.stack([measured[name][0] for name in names], axis=1)
    errors = np.stack([measured[name][1] for name in names], axis=1)
    notes: list[str] = []
    for k, name in enumerate(names):
        label, here = LABELS[name], np.isfinite(values[:, k])
        alone = here & ~(errors[:, k] > 0)
        outside = here & ((values[:, k] < label.lower) | (values[:, k] > label.upper))
        for rows, why in (
            (alone, "without a positive error"),
            (outside, f"outside {label.lower:g} to {label.upper:g} {label.unit}"),
        ):
            if rows.any():
                notes.append(f"{where}: {int(rows.sum())} values of {name} {why}: taken as unknown")
        unknown = ~here | alone | outside
        values[unknown, k] = errors[unknown, k] = np.nan
    return Labels(names, values, errors), tuple(notes)
