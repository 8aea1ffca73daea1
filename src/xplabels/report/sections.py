"""What a report says, as data: sections of paragraphs, tables and pictures.

A new table or figure is one more entry in :func:`standard_sections`, or a :class:`Section` that
the caller hands to :func:`xplabels.report.write_report`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels import figures
from xplabels.flags import UNFLAGGED
from xplabels.labels import LABELS, Labels
from xplabels.prediction import PARTS, Prediction
from xplabels.scores import BIN_STARS, SCORES, Bin, Scores
from xplabels.validation import (
    CHOSEN_AXES,
    COVERAGE_MARGIN,
    GATED_AXES,
    PREDICTED,
    Validation,
    calibration_gate,
)
from xplabels.validation.wording import as_json, format_score, with_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One cell of a table; ``verdict`` is ``pass``, ``fail`` or empty and colours it."""

    text: str
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    """A caption, column titles, and rows of text or :class:`Cell`; the first column is a title.

    Columns without a title hold text of any length. A ``folded`` table opens on a click.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure with the name of its file (without ending), alternative text and caption."""

    name: str
    figure: Figure
    title: str
    caption: str


@dataclass(frozen=True)
class Section:
    """One section of the page; ``anchor`` is its id. ``html`` must come from a safe renderer."""

    anchor: str
    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    commands: Sequence[str] = ()
    verdict: str = ""
    findings: Sequence[str] = ()
    html: str = ""


def standard_sections(
    validation: Validation,
    prediction: Prediction,
    training_labels: Labels | None,
    provenance: Mapping[str, Any],
) -> list[Section]:
    """The sections that every report has."""
    return [
        summary_section(validation, prediction, provenance),
        scores_section(validation),
        calibration_section(validation),
        errors_section(validation, prediction, training_labels),
        kiel_section(validation),
    ]


def summary_section(
    validation: Validation, prediction: Prediction, provenance: Mapping[str, Any]
) -> Section:
    """What was trained on what, and which stars judge it."""
    rows = []
    for name, sample in validation.samples.items():
        known = ["-"] * 3
        if len(sample):
            known = [f"{v:.5g}" for v in np.percentile(sample.truth, (0, 50, 100))]
        rows.append([with_unit(name), f"{len(sample):,}", *known])
    flagged = [[name, f"{count:,}"] for name, count in validation.flags.items() if count]
    told = {key: value for key, value in prediction.meta.items() if key != "NOTES"}
    tables = [mapping_table("The model", told)] if told else []
    training = provenance.get("training")
    if isinstance(training, Mapping):
        tables.append(mapping_table("Its training set", training))
    tables.append(
        Table("Stars compared", ["label", "N", "lowest", "median", "highest known"], rows)
    )
    if flagged:
        tables.append(Table("Flags among them", ["flag", "stars"], flagged))
    text = f"{validation.n:,} stars with at least one known label: {validation.selection}."
    if "data" in provenance:
        text += f" Data: {as_json(provenance['data'])}."
    if provenance.get("notes"):
        text += f" Notes: {provenance['notes']}."
    return Section("data", "What was trained on what", [text], tables)


def scores_section(validation: Validation) -> Section:
    """Scores of every group of stars, and prediction against truth."""
    tables = [
        Table(
            f"Scores of {'all stars' if key == 'all' else group.title + ' stars'}, "
            f"N = {group.n:,}; ± is the bootstrap error "
            f"({validation.resamples} resamples of the stars)",
            ["score", *(with_unit(name) for name in validation.names)],
            [
                ["N", *(f"{group.labels[name].n:,}" for name in validation.names)],
                *(
                    [
                        _spaced(key),
                        *(score_text(group.labels[name], key) for name in validation.names),
                    ]
                    for key in SCORES
                ),
            ],
        )
        for key, group in validation.groups.items()
    ]
    meanings = [
        [_spaced(key), text + (", in the label's unit" if unit else "")]
        for key, (text, unit) in SCORES.items()
    ]
    tables.append(Table("What the scores are", ["", ""], meanings, folded=True))
    truth, predicted = sample_columns(validation, "truth"), sample_columns(validation, "predicted")
    picture = Picture(
        "comparison",
        figures.comparison(validation.names, truth, predicted),
        "Prediction against truth",
        "Density of stars on a logarithmic scale; the line is one to one. Below, residuals with "
        "their running median (solid) and 16-84 % range (dashed). As figure 1 of Fallows & "
        "Sanders (2024).",
    )
    return Section("accuracy", "Accuracy", [UNFLAGGED], tables, [picture])


def calibration_section(validation: Validation) -> Section:
    """Whether the stated errors are right: the gate, curves, z, bins."""
    findings = calibration_gate(validation)
    text = (
        "Stated 68.3 and 95.4 % intervals must cover within 2.5 points, the robust standard "
        "deviation of z must lie within 0.95-1.05, and in every bin of at least "
        f"{BIN_STARS} stars along {', '.join(_plain(a) for a in GATED_AXES)} the 68.3 % interval "
        "must cover within the larger of 6 points and 3.5 binomial sigma. The labels' own errors "
        "are included."
    )
    if validation.margin != 1:
        text += f" Here every tolerance counts {validation.margin:g} times."
    shape = (
        "The predictive distribution is a Student-t fixed by the two stated half-widths (a "
        "Gaussian where the outer is twice the inner). Heavier tails than a Gaussian's give a "
        "standard deviation of z above 1 with right intervals. Along a known label, predictions "
        "that tend to the mean cover too little at the ends; along a predicted label they cover "
        "alike everywhere if each prediction is a proper posterior distribution."
    )
    judged = _judged_bins(validation)
    pictures = [
        Picture(
            "calibration",
            figures.calibration_curve(
                validation.names,
                sample_columns(validation, "pit"),
                validation.margin * COVERAGE_MARGIN,
            ),
            "Calibration at every level",
            "Left: observed minus stated coverage of central intervals. Right: probability "
            "integral transform, flat if the errors are right. Grey: 95 % of right "
            "predictions; bars: the margins at the stated levels.",
        ),
        Picture(
            "z",
            figures.z_histograms(
                validation.names, sample_columns(validation, "z"), sample_columns(validation, "dof")
            ),
            "Residuals over errors",
            "z with the label's error included, the unit Gaussian, and the distribution that the "
            "two half-widths state. As figure 7 of Fallows & Sanders (2024), with the tails on a "
            "logarithmic scale below.",
        ),
    ]
    if judged:
        pictures.append(
            Picture(
                "coverage_bins",
                figures.coverage_by_bins(validation.names, judged),
                "Coverage in bins",
                f"Bins of at least {BIN_STARS} stars; grey: tolerance.",
            )
        )
    return Section(
        "calibration",
        "Calibration",
        [text, shape],
        [bin_table(validation, axis) for axis in validation.bins],
        pictures,
        verdict="fail" if findings else "pass",
        findings=findings,
    )


def bin_table(validation: Validation, axis: str) -> Table:
    """Coverage along one axis: a row a bin, a column a label, with pass or fail."""
    by_label = validation.bins[axis]
    edges = sorted({(one.low, one.high) for row in by_label.values() for one in row})
    lookup = {(name, one.low): one for name, row in by_label.items() for one in row}
    rows: list[list[str | Cell]] = []
    for low, high in edges:
        row: list[str | Cell] = [f"{low:g} to {high:g}"]
        most: Bin | None = None
        for name in validation.names:
            one = lookup.get((name, low))
            if one is None:
                row.append("-")
                continue
            most = one if most is None or one.scores.n > most.scores.n else most
            verdict = {True: "pass", False: "fail", None: ""}[one.within(validation.margin)]
            row.append(Cell(score_text(one.scores, "coverage_68"), verdict))
        rows.append([row[0], "0" if most is None else most.counted, *row[1:]])
    return Table(
        f"Coverage of the 68.3 % interval along {_plain(axis)}; bins under {BIN_STARS} stars are "
        "not judged",
        [_plain(axis), "N", *validation.names],
        rows,
        folded=axis not in GATED_AXES,
    )


def errors_section(
    validation: Validation, prediction: Prediction, training_labels: Labels | None
) -> Section:
    """The stated errors and their parts against G and against each label."""
    names = validation.names
    compared = np.zeros(len(prediction), bool)
    for sample in validation.samples.values():
        compared[sample.rows] = True
    stars = prediction[compared]
    columns = [prediction.names.index(name) for name in names]
    total = stars.errors[:, columns]
    parts = {part: stars.part(part)[:, columns] for part in PARTS}
    source = "stars compared"
    background = sample_columns(validation, "truth")
    if training_labels is not None and set(names) <= set(training_labels.names):
        source, background = "training set", training_labels.select(names).values
    pictures = []
    if "g_mag" in validation.axes:
        g = validation.axes["g_mag"][compared]
        pictures.append(
            Picture(
                "errors_g",
                figures.errors_along(names, "g_mag", g, total, parts, g, "stars compared"),
                "Errors against G",
                "Median stated error and its three parts, which add in quadrature; grey, the "
                "stars' distribution. As figure 6 of Fallows & Sanders (2024).",
            )
        )
    values = stars.values[:, columns]
    pictures.append(
        Picture(
            "errors_labels",
            figures.errors_along(names, None, values, total, parts, background, source),
            "Errors against each label",
            f"The same against the predicted label; grey, the known labels of the {source}. As "
            "figure 5 of Fallows & Sanders (2024).",
        )
    )
    return Section("errors", "The errors and their parts", pictures=pictures)


def kiel_section(validation: Validation) -> Section:
    """Kiel diagrams; empty text if teff, logg or fe_h is not among the labels."""
    needed = ("teff", "logg", "fe_h")
    if not set(needed) <= set(validation.names):
        return Section("kiel", "Kiel diagram", ["Needs teff, logg and fe_h."])
    truth, predicted = (
        dict(zip(validation.names, sample_columns(validation, key).T, strict=True))
        for key in ("truth", "predicted")
    )
    panels = {
        "Known": tuple(truth[name] for name in needed),
        "Predicted": tuple(predicted[name] for name in needed),
    }
    picture = Picture(
        "kiel",
        figures.kiel(panels),
        "Kiel diagram",
        "The same stars by their known and their predicted labels, coloured by [Fe/H].",
    )
    return Section("kiel", "Kiel diagram", pictures=[picture])


def card_section(card: Mapping[str, Any] | str) -> Section:
    """The model card, from Markdown or from names and values."""
    if isinstance(card, Mapping):
        return Section("card", "Model card", tables=[mapping_table("", card)])
    from markdown_it import MarkdownIt

    # raw HTML is shown as text, and no image is loaded from elsewhere
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return Section("card", "Model card", html=str(markdown.render(card)))


def provenance_section(provenance: Mapping[str, Any]) -> Section:
    """Where all this came from, and the command that makes it again."""
    command = provenance.get("command")
    flat = {k: v for k, v in provenance.items() if not isinstance(v, Mapping) and k != "command"}
    nested = {k: v for k, v in provenance.items() if isinstance(v, Mapping) and k != "training"}
    return Section(
        "provenance",
        "Provenance",
        ["To make this report again:"] if command else [],
        [mapping_table("", flat), *(mapping_table(k, v) for k, v in nested.items())],
        commands=[str(command)] if command else [],
    )


def sample_columns(validation: Validation, attribute: str) -> Array:
    """An attribute of each label's sample as [n compared, K], NaN where not compared."""
    rows = np.unique(np.concatenate([s.rows for s in validation.samples.values()]))
    found = np.full((len(rows), len(validation.names)), np.nan)
    for k, sample in enumerate(validation.samples.values()):
        found[np.searchsorted(rows, sample.rows), k] = getattr(sample, attribute)
    return found


def _judged_bins(
    validation: Validation,
) -> dict[str, list[tuple[Array, Array, Array, Array]]]:
    chosen = dict.fromkeys((*GATED_AXES, *CHOSEN_AXES))
    found = {}
    for axis in (axis for axis in chosen if axis in validation.bins):
        rows = [
            [one for one in validation.bins[axis][name] if one.judged] for name in validation.names
        ]
        if any(rows):
            found[axis] = [
                (
                    np.array([(one.low, one.high) for one in row]).reshape(-1, 2),
                    np.array([one.scores["coverage_68"] for one in row]),
                    np.array([one.tolerance(validation.margin) for one in row]),
                    np.array([one.scores.n for one in row]),
                )
                for row in rows
            ]
    return found


def score_text(scores: Scores, key: str) -> str:
    return format_score(scores, key).replace("+-", "±")


def _spaced(key: str) -> str:
    return key.replace("_", " ")


def _plain(axis: str) -> str:
    """An axis in words: ``fe_h_predicted`` -> ``predicted fe_h [dex]``."""
    base = axis.removesuffix(PREDICTED)
    title = with_unit(base) if base in LABELS else {"g_mag": "G", "bp_rp": "BP-RP"}[base] + " [mag]"
    return f"predicted {title}" if base != axis else title


def mapping_table(caption: str, mapping: Mapping[str, Any]) -> Table:
    rows = []
    for key, value in mapping.items():
        plain = as_json(value)
        if isinstance(plain, list) and all(isinstance(one, str | int | float) for one in plain):
            plain = "; ".join(map(str, plain))
        text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
        rows.append([str(key), text])
    return Table(caption, ["", ""], rows)
