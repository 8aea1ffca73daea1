"""A finding: one part of a validation, with its numbers, its text and its section of the report.

A validation is a list of findings: their metrics are written to ``metrics.json``, their texts to
the terminal, their sections to the report. A new part is one more function that returns a finding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from xplabels.core.labels import label_of
from xplabels.core.scores import Bin, Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PER_CENT = ("coverage_68", "coverage_95")
"""Scores shown in per cent; in ``metrics.json`` they are fractions."""


@dataclass(frozen=True)
class Cell:
    """Text, coloured by its ``verdict``: ``pass``, ``partly``, ``fail`` or empty (no colour)."""

    text: str
    verdict: str = ""


Rows = Sequence[Sequence[str | Cell]]


@dataclass(frozen=True)
class ReportTable:
    """A caption, column titles, and rows of text or :class:`Cell`; the first column is a title.

    Columns without a title contain text of any length. A ``folded`` table opens on a click.
    """

    caption: str
    header: Sequence[str]
    rows: Rows
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure, drawn only when a report is written, and its file name without ending."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]


@dataclass
class Section:
    """One section of the page; ``anchor`` is its id. ``html`` must come from a safe renderer.

    ``folded`` sections are details: they come after the others and open on a click.
    """

    anchor: str
    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[ReportTable] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    command: str = ""
    badge: Cell | None = None
    missed: Sequence[str] = ()
    html: str = ""
    folded: bool = False

    def add_table(
        self, caption: str, header: Sequence[str], rows: Rows, *, folded: bool = False
    ) -> None:
        """One more :class:`ReportTable`."""
        self.tables.append(ReportTable(caption, header, rows, folded))

    def add_mapping(self, caption: str, mapping: Mapping[str, Any]) -> None:
        """A table of names and values, lists joined by semicolons."""
        rows = []
        for key, value in mapping.items():
            plain = as_json(value)
            if isinstance(plain, list) and all(isinstance(x, str | int | float) for x in plain):
                plain = "; ".join(map(str, plain))
            text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
            rows.append([str(key), text])
        self.add_table(caption, ["", ""], rows)

    def add_picture(self, name: str, title: str, caption: str, draw: Callable[[], Figure]) -> None:
        """One more :class:`Picture`."""
        self.pictures.append(Picture(name, title, caption, draw))


@dataclass(frozen=True)
class Finding:
    """Entries of ``metrics.json``, text for the terminal, and a section of the report."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    section: Section | None = None


def metrics_of(findings: Iterable[Finding]) -> dict[str, Any]:
    """The content of ``metrics.json``: plain numbers, None where a number is not defined."""
    merged: dict[str, Any] = {}
    for finding in findings:
        merged |= finding.metrics
    plain: dict[str, Any] = as_json(merged)
    return plain


def text_of(findings: Iterable[Finding]) -> str:
    """The terminal's output."""
    return "\n\n".join(finding.text for finding in findings if finding.text)


def as_json(value: Any) -> Any:
    """``value`` in JSON's types: None for numbers that are not finite, text for anything else."""
    if isinstance(value, Scores | Bin):
        return as_json(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [as_json(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return None if value is None else str(value)


def format_score(scores: Scores, key: str, sign: str = "±") -> str:
    """``value ± error`` of a score, coverages in per cent.

    Rounded to the first digit of the error, or the second if the first is 1.
    """
    unit = 100.0 if key in PER_CENT else 1.0
    value, error = unit * scores.value[key], unit * scores.error[key]
    if not np.isfinite(value):
        return "-"
    if not np.isfinite(error) or error <= 0:
        return f"{value:.4g}"
    power = int(np.floor(np.log10(error)))
    digits = min(max(0, (error < 2 * 10.0**power) - power), 6)
    return f"{value:.{digits}f} {sign} {error:.{digits}f}"


def score_title(key: str) -> str:
    """A score in words: ``coverage 68 [%]``."""
    return key.replace("_", " ") + (" [%]" if key in PER_CENT else "")


def with_unit(name: str) -> str:
    """``teff [K]``."""
    return label_of(name).with_unit


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A header and rows as an aligned table for the terminal; the first column is a title.

    Examples
    --------
    >>> print(aligned([["label", "N"], ["teff", "1000"]]))
    label     N
    -----  ----
    teff   1000
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in [rows[0], ["-" * width for width in widths], *rows[1:]]
    )


def score_row(title: str, scores: Scores, keys: Iterable[str]) -> list[str]:
    """A title, N, and some of the scores."""
    return [title, f"{scores.n:,}", *(format_score(scores, key) for key in keys)]


def score_rows(
    by_label: Mapping[str, Scores], names: Iterable[str], keys: Iterable[str]
) -> list[list[str]]:
    """A row for N and for each score, with a column for each label."""
    keys = tuple(keys)
    absent = ["-"] * (1 + len(keys))
    columns = [
        score_row("", by_label[name], keys)[1:] if name in by_label else absent for name in names
    ]
    titles = ["N", *map(score_title, keys)]
    return [[title, *row] for title, *row in zip(titles, *columns, strict=True)]


def bin_rows(
    by_label: Mapping[str, Sequence[Bin]], cells: Callable[[Bin | None], Sequence[str | Cell]]
) -> list[list[str | Cell]]:
    """A row for each bin: its limits, its number of stars, and the ``cells`` of each label.

    A label may lack a bin. The number of stars is that of the label with the most.
    """
    rows: list[list[str | Cell]] = []
    for low in sorted({b.low for bins in by_label.values() for b in bins}):
        at_low = [next((b for b in bins if b.low == low), None) for bins in by_label.values()]
        fullest = max((b for b in at_low if b is not None), key=lambda b: b.scores.n)
        limits = f"{low:.5g} to {fullest.high:.5g}"
        rows.append([limits, fullest.counted, *chain(*map(cells, at_low))])
    return rows
