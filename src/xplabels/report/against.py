"""The section of a report on another survey of the same stars."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from xplabels.core.scores import Array, Sample, Scores
from xplabels.figures import populations as figures
from xplabels.report.paper_tables import table_2, table_3
from xplabels.report.sections import Cell, Picture, Section, Table, sample_columns, score_text
from xplabels.validation.against import AXES, Comparison
from xplabels.validation.wording import with_unit

SHOWN = ("bias", "rmse", "robust", "slope", "std_z", "robust_std_z")
"""Those of :data:`~xplabels.core.scores.SCORES` that stand in the table of two comparisons."""


def against_section(comparison: Comparison) -> Section:
    """The model against the survey, the survey against known labels, and what differences go with.

    FS24, tables 2 and 3, figures 2-4, and section 4.3.
    """
    against, validation = comparison.against, comparison.validation
    text = [
        f"{against.title}: {validation.n:,} stars of {against.where} have a prediction and a "
        "label there. Its errors are included in z."
    ]
    if comparison.known:
        text.append(
            "The survey beside the labels known of the same stars says how far two surveys "
            "agree at all."
        )
    notes = [Table("Notes", [""], [[note] for note in against.notes])] if against.notes else []
    tables = [table_2(validation, against.survey), _scores(comparison)]
    tables += [_differences(comparison, axis) for axis in comparison.differences]
    tables += [table_3(validation, against), *notes]
    return Section(
        "against",
        f"Against {against.survey}",
        text,
        tables,
        _pictures(comparison),
    )


def _scores(comparison: Comparison) -> Table:
    """Model against survey, and survey against known labels, score by score."""
    names = comparison.validation.names
    sides: list[tuple[str, Mapping[str, Scores]]] = [
        (f"model - {comparison.against.survey}", comparison.validation.labels)
    ]
    if comparison.known_scores:
        sides.append((f"{comparison.against.survey} - known", comparison.known_scores))
    rows: list[list[str | Cell]] = []
    for title, scores in sides:
        rows.append([f"{title}: N", *(f"{scores[n].n:,}" if n in scores else "-" for n in names)])
        rows += [
            [
                f"{title}: {key.replace('_', ' ')}",
                *(score_text(scores[n], key) if n in scores else "-" for n in names),
            ]
            for key in SHOWN
        ]
    return Table("Scores; ± is the bootstrap error", ["", *map(with_unit, names)], rows)


def _differences(comparison: Comparison, axis: str) -> Table:
    """Median difference from the survey, and its scatter, in bins along one axis."""
    by_label = comparison.differences[axis]
    title, edges = AXES[axis]
    lookup = {(n, one.low): one for n, row in by_label.items() for one in row}
    rows = []
    for low, high in pairwise(edges):
        here = {n: lookup[n, low].scores for n in by_label if (n, low) in lookup}
        if here:
            rows.append(
                [
                    f"{low:g} to {high:g}",
                    f"{max(s.n for s in here.values()):,}",
                    *(
                        score_text(here[n], key) if n in here else "-"
                        for n in by_label
                        for key in ("bias", "robust")
                    ),
                ]
            )
    header = [title, "N"]
    for name in by_label:
        header += [f"{with_unit(name)}: bias", "robust"]
    return Table(f"Model minus {comparison.against.survey} by {title}", header, rows)


def _pictures(comparison: Comparison) -> list[Picture]:
    survey, validation = comparison.against.survey, comparison.validation
    names = validation.names
    columns = [
        (survey, "model", sample_columns(validation, "truth"),
         sample_columns(validation, "predicted"))
    ]  # fmt: skip
    caption = "Density of stars on a logarithmic scale; the line is one to one."
    if comparison.known:
        columns.append(
            ("known", survey, _columns(names, comparison.known, "truth"),
             _columns(names, comparison.known, "predicted"))
        )  # fmt: skip
        caption += " Left, the model against the survey; right, the survey against known labels."
    pictures = [
        Picture(
            "against",
            figures.side_by_side(names, columns),
            f"Model and {survey}",
            f"{caption} As figures 2 to 4 of Fallows & Sanders (2024).",
        )
    ]
    if comparison.axes:
        rows = np.unique(np.concatenate([s.rows for s in validation.samples.values()]))
        pictures.append(
            Picture(
                "differences",
                figures.differences_along(
                    names,
                    {AXES[axis][0]: values[rows] for axis, values in comparison.axes.items()},
                    sample_columns(validation, "residual"),
                    "difference in",
                ),
                f"Differences from {survey}",
                f"Model minus {survey} against luminosity and extinction, with running median "
                "(solid) and 16-84 % range (dashed).",
            )
        )
    return pictures


def _columns(names: tuple[str, ...], samples: Mapping[str, Sample], attribute: str) -> Array:
    """An attribute of each label's sample as [most stars, K], filled up with NaN.

    Stars of one label need not stand in the same rows as those of another.
    """
    longest = max((len(sample) for sample in samples.values()), default=0)
    found = np.full((longest, len(names)), np.nan)
    for k, name in enumerate(names):
        if name in samples:
            found[: len(samples[name]), k] = getattr(samples[name], attribute)
    return found
