"""Sections on all labels of the stars together, and on the populations they show.

Abundance planes (FS24, figs 9 and 10), the stars poor in nitrogen (section 4.1), the trend to the
mean, and the cut flow of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xplabels.core.labels import LABELS, Labels
from xplabels.core.scores import Array, Scores, score
from xplabels.cuts.flow import CutFlow
from xplabels.figures import populations as figures
from xplabels.report.paper_tables import table_1, table_1_scores, table_3, table_metrics
from xplabels.report.sections import Picture, Section, Table, sample_columns, score_text
from xplabels.validation import Validation
from xplabels.validation.trend import Trend

PLANES = (
    ("fe_h", "c_fe"), ("logg", "c_fe"), ("fe_h", "n_fe"), ("logg", "n_fe"), ("fe_h", "alpha_m"),
)  # fmt: skip
"""FS24, figures 9 and 10: abscissa and ordinate."""
POOR_IN_NITROGEN = -0.4
"""[N/Fe] below which FS24 doubt APOGEE's labels."""


def population_sections(validation: Validation, training_labels: Labels | None) -> list[Section]:
    """The sections here that need nothing but a validation, as far as they say something."""
    made = [
        planes_section(validation, training_labels),
        tables_section(validation),
    ]
    return [section for section in made if section is not None]


def population_metrics(validation: Validation) -> dict[str, Any]:
    """What these sections add to ``metrics.json``."""
    found = nitrogen_scores(validation)
    plain: dict[str, Any] = {"table_1": table_metrics(table_1_scores(validation))}
    if found:
        plain["poor_in_nitrogen"] = table_metrics(found)
    return plain


def planes_section(validation: Validation, training_labels: Labels | None) -> Section | None:
    """Abundance planes of predictions beside known labels, or None without two such labels.

    The first column is what the model says, the second the same for the half of the stars whose
    errors are small in both labels, then the known labels of the stars and of the training set.
    """
    pairs = [pair for pair in PLANES if set(pair) <= set(validation.names)]
    if not pairs:
        return None
    values = _by_label(validation, "predicted")
    columns = {
        "Predicted": values,
        "Predicted, small errors": _small(validation, values),
        "Known": _by_label(validation, "truth"),
    }
    if training_labels is not None and set(validation.names) <= set(training_labels.names):
        known = training_labels.select(validation.names).values
        columns["Training set"] = dict(zip(validation.names, known.T, strict=True))
    picture = Picture(
        "planes",
        figures.planes(pairs, columns),
        "Abundance planes",
        "Density of stars on a logarithmic scale. Small errors: stars whose stated error is below "
        "the median in every label shown. A model that tends to the mean makes these planes "
        "narrower than they are. As figures 9 and 10 of Fallows & Sanders (2024).",
    )
    table, text = nitrogen_table(validation)
    return Section("planes", "Abundance planes", text, [] if table is None else [table], [picture])


def _by_label(validation: Validation, attribute: str) -> dict[str, Array]:
    columns = sample_columns(validation, attribute)
    return dict(zip(validation.names, columns.T, strict=True))


def _small(validation: Validation, values: Mapping[str, Array]) -> dict[str, Array]:
    """The predictions with NaN where an error of any label in a plane is above the median."""
    inside = np.ones(len(next(iter(values.values()))), bool)
    errors = _by_label(validation, "error")
    for name in {name for pair in PLANES for name in pair} & set(values):
        known = np.isfinite(errors[name])
        if known.any():
            inside &= known & (errors[name] <= np.median(errors[name][known]))
    return {name: np.where(inside, column, np.nan) for name, column in values.items()}


def tables_section(validation: Validation) -> Section:
    """FS24's tables 1 and 3."""
    text = "The paper's numbers are of other stars, and printed here for orientation."
    tables = [table_1(validation), table_3(validation)]
    return Section("tables", "Beside the paper", [text], tables)


def nitrogen_scores(validation: Validation) -> dict[str, Scores]:
    """Stars with a known [N/Fe] below -0.4, and all others; empty where no star has [N/Fe]."""
    sample = validation.samples.get("n_fe")
    if sample is None or not len(sample):
        return {}
    poor = sample.truth < POOR_IN_NITROGEN
    return {
        title: score(sample[rows], _nitrogen, resamples=validation.resamples, seed=validation.seed)
        for title, rows in ((f"known [N/Fe] < {POOR_IN_NITROGEN:g}", poor), ("others", ~poor))
    }


def _nitrogen(of: Callable[[str], Array]) -> dict[str, Array]:
    predicted = of("predicted")
    return {
        "median_known": np.median(of("truth"), axis=-1),
        **{f"predicted_{p}": np.percentile(predicted, p, axis=-1) for p in (16, 50, 84)},
        "median_label_error": np.median(of("label_error"), axis=-1),
        "median_error": np.median(of("error"), axis=-1),
        "coverage_68": of("inside_68").mean(axis=-1),
    }


def nitrogen_table(validation: Validation) -> tuple[Table | None, list[str]]:
    """The same as a table, and what it is about."""
    found = nitrogen_scores(validation)
    if not found:
        return None, []
    rows = [
        [title, f"{one.n:,}", *(score_text(one, key) for key in one.value)]
        for title, one in found.items()
    ]
    header = [
        "stars", "N", "median known", "predicted 16 %", "50 %", "84 %", "median label error",
        "median stated error", "inside 68.3 %",
    ]  # fmt: skip
    text = (
        "Fallows & Sanders (2024, section 4.1) find stars that APOGEE says are poor in nitrogen, "
        "which their network spreads over -0.2 < [N/Fe] < 0.6, and doubt the labels, whose errors "
        "are larger there."
    )
    return Table("Stars poor in nitrogen", header, rows), [text]


def trend_section(trend: Trend) -> Section:
    """Slope of prediction on truth by S/N."""
    names = tuple(trend.slopes)
    rows = [
        [
            f"{low:.4g} to {high:.4g}",
            f"{max(trend.slopes[name][b].n for name in names):,}",
            *(score_text(trend.slopes[name][b], "slope") for name in names),
        ]
        for b, (low, high) in enumerate(zip(trend.edges[:-1], trend.edges[1:], strict=True))
    ]
    picture = Picture(
        "slopes",
        figures.slopes(
            names,
            trend.along,
            trend.middle,
            np.array(
                [[trend.slopes[n][b]["slope"] for n in names] for b in range(len(trend.middle))]
            ),
            np.array(
                [
                    [trend.slopes[n][b].error["slope"] for n in names]
                    for b in range(len(trend.middle))
                ]
            ),
        ),
        "Slope against S/N",
        "Bins of equally many stars; bars are bootstrap errors. 1: no trend to the mean.",
    )
    text = (
        "The least-squares slope of prediction on known label is below 1 where the model falls "
        "back on what is usual. Errors of the known labels lower it, too."
    )
    header = [trend.along, "N", *(LABELS[name].name for name in names)]
    return Section("trend", "Trend to the mean", [text], [Table("Slopes", header, rows)], [picture])


def flow_section(flow: CutFlow) -> Section:
    """The cut flow of the table the stars came in."""
    rows = [["rows given", "", "", f"{flow.before:,}", ""]]
    rows += [
        [
            cut["name"],
            *(
                ("not applied", "")
                if cut["applies"] is None
                else (f"{cut['alone']:,}", f"{cut['removed']:,}")
            ),
            f"{cut['remaining']:,}",
            cut["text"],
        ]
        for cut in flow.to_dict()["cuts"]
    ]
    return Section(
        "cuts",
        "Cut flow of the table",
        tables=[Table("", ["rule", "alone", "in sequence", "remaining", ""], rows)],
        pictures=[
            Picture(
                "cuts",
                flow.figure(),
                "Rows removed",
                "By each rule alone, and in sequence, on a logarithmic axis.",
            )
        ],
    )
