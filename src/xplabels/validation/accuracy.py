"""What every report has: data, accuracy, errors and their parts, Kiel diagram, model card."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from xplabels import figures
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.flags import UNFLAGGED
from xplabels.core.labels import Labels
from xplabels.core.prediction import PARTS
from xplabels.core.scores import SCORES
from xplabels.validation import Validation
from xplabels.validation.calibration import calibration_finding, joint_finding
from xplabels.validation.finding import (
    Finding,
    Picture,
    ReportTable,
    Section,
    aligned,
    as_json,
    format_score,
    mapping_table,
    with_unit,
)
from xplabels.validation.populations import paper_finding, planes_finding


def findings_of(
    validation: Validation,
    training_labels: Labels | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """What is found by a validation alone, in the order of the report.

    Parameters
    ----------
    validation
        What :func:`~xplabels.validation.score_prediction` found.
    training_labels
        Labels of the training set, whose distribution stands behind the errors (FS24, fig. 5);
        left out: that of the stars compared.
    provenance
        Of the stars and the model: ``data``, ``notes``, ``training``.
    """
    found = [
        data_finding(validation, provenance or {}),
        accuracy_finding(validation),
        calibration_finding(validation),
        metal_poor_finding(validation),
        errors_finding(validation, training_labels),
        kiel_finding(validation),
        joint_finding(validation),
        planes_finding(validation, training_labels),
        paper_finding(validation),
    ]
    return [finding for finding in found if finding is not None]


def data_finding(validation: Validation, provenance: Mapping[str, Any]) -> Finding:
    """What was trained on what, and which stars are compared."""
    rows = []
    for name, sample in validation.samples.items():
        known = ["-"] * 3
        if len(sample):
            known = [f"{v:.5g}" for v in np.percentile(sample.truth, (0, 50, 100))]
        rows.append([with_unit(name), f"{len(sample):,}", *known])
    flagged = [[name, f"{count:,}"] for name, count in validation.flags.items() if count]
    meta = {key: value for key, value in validation.prediction.meta.items() if key != "NOTES"}
    training = provenance.get("training")
    tables = [mapping_table("The model", meta)] if meta else []
    if isinstance(training, Mapping):
        tables.append(mapping_table("Its training set", training))
    header = ["label", "N", "lowest", "median", "highest known"]
    tables.append(ReportTable("Stars compared", header, rows))
    if flagged:
        tables.append(ReportTable("Flags among them", ["flag", "stars"], flagged))
    text = f"{validation.n:,} stars with at least one known label: {validation.selection}."
    if "data" in provenance:
        text += f" Data: {as_json(provenance['data'])}."
    if provenance.get("notes"):
        text += f" Notes: {provenance['notes']}."
    metrics = {
        "flags": validation.flags,
        "settings": {
            "selection": validation.selection,
            "bootstrap_resamples": validation.resamples,
            "bootstrap_seed": validation.seed,
            "nominal_coverage_68": LEVEL_68,
            "nominal_coverage_95": LEVEL_95,
        },
    }
    section = Section("data", "What was trained on what", [text], tables)
    return Finding(metrics, section=section)


def accuracy_finding(validation: Validation) -> Finding:
    """Scores of every group of stars, and prediction against truth."""
    names, groups = validation.names, validation.groups
    tables = [
        ReportTable(
            f"Scores of {'all stars' if key == 'all' else group.title + ' stars'}, "
            f"N = {group.n:,}; ± is the bootstrap error "
            f"({validation.resamples} resamples of the stars)",
            ["score", *map(with_unit, names)],
            [
                ["N", *(f"{group.labels[name].n:,}" for name in names)],
                *(
                    [_spaced(key), *(format_score(group.labels[name], key) for name in names)]
                    for key in SCORES
                ),
            ],
        )
        for key, group in groups.items()
    ]
    meanings = [
        [_spaced(key), one.text + (", in the label's unit" if one.has_unit else "")]
        for key, one in SCORES.items()
    ]
    tables.append(ReportTable("What the scores are", ["", ""], meanings, folded=True))
    picture = Picture(
        "comparison",
        lambda: figures.comparison(
            names, validation.column("truth"), validation.column("predicted")
        ),
        "Prediction against truth",
        "Density of stars on a logarithmic scale; the line is one to one. Below, residuals with "
        "their running median (solid) and 16-84 % range (dashed). As figure 1 of Fallows & "
        "Sanders (2024).",
    )
    return Finding(
        groups["all"].to_dict() | {"unflagged": groups["unflagged"].to_dict()},
        scores_text(validation),
        Section("accuracy", "Accuracy", [UNFLAGGED], tables, [picture]),
    )


def metal_poor_finding(validation: Validation) -> Finding | None:
    """The metal-poor stars by themselves; their table in the report is part of the accuracy."""
    poor = validation.groups.get("metal_poor")
    if poor is None:
        return None
    text = scores_text(validation, "metal_poor") if poor.n else ""
    return Finding({"metal_poor": poor.to_dict()}, text)


def scores_text(validation: Validation, group: str = "all") -> str:
    """The scores of one group as an aligned table for the terminal; of all, the joint ones, too."""
    chosen = validation.groups[group]
    labels = [chosen.labels[name] for name in validation.names]
    table = aligned(
        [
            [chosen.title, *map(with_unit, validation.names)],
            ["N", *(str(scores.n) for scores in labels)],
            *([key, *(format_score(scores, key, "+-") for scores in labels)] for key in SCORES),
        ]
    )
    joint = validation.joint if group == "all" else None
    return table if joint is None else f"{table}\n{joint.to_text()}"


def errors_finding(validation: Validation, training_labels: Labels | None) -> Finding:
    """The stated errors and their parts against G and against each label."""
    names, rows = validation.names, validation.rows
    stars = validation.prediction[rows]
    columns = [stars.names.index(name) for name in names]
    total = stars.errors[:, columns]
    parts = {part: stars.part(part)[:, columns] for part in PARTS}
    source, background = "stars compared", validation.column("truth")
    if training_labels is not None and set(names) <= set(training_labels.names):
        source, background = "training set", training_labels.select(names).values
    pictures = []
    if "g_mag" in validation.axes:
        g = validation.axes["g_mag"][rows]
        pictures.append(
            Picture(
                "errors_g",
                partial(figures.errors_along, names, "g_mag", g, total, parts, g, "stars compared"),
                "Errors against G",
                "Median stated error and its three parts, which add in quadrature; grey, the "
                "stars' distribution. As figure 6 of Fallows & Sanders (2024).",
            )
        )
    values = stars.values[:, columns]
    pictures.append(
        Picture(
            "errors_labels",
            partial(figures.errors_along, names, None, values, total, parts, background, source),
            "Errors against each label",
            f"The same against the predicted label; grey, the known labels of the {source}. As "
            "figure 5 of Fallows & Sanders (2024).",
        )
    )
    return Finding(section=Section("errors", "The errors and their parts", pictures=pictures))


def kiel_finding(validation: Validation) -> Finding:
    """Kiel diagrams; a sentence if teff, logg or fe_h is not among the labels."""
    needed = ("teff", "logg", "fe_h")
    if not set(needed) <= set(validation.names):
        return Finding(section=Section("kiel", "Kiel diagram", ["Needs teff, logg and fe_h."]))
    columns = {"Known": validation.by_label("truth"), "Predicted": validation.by_label("predicted")}
    panels = {title: tuple(one[name] for name in needed) for title, one in columns.items()}
    picture = Picture(
        "kiel",
        partial(figures.kiel, panels),
        "Kiel diagram",
        "The same stars by their known and their predicted labels, coloured by [Fe/H].",
    )
    return Finding(section=Section("kiel", "Kiel diagram", pictures=[picture]))


def card_finding(card: Mapping[str, Any] | str) -> Finding:
    """The model card, from Markdown or from names and values."""
    if isinstance(card, Mapping):
        return Finding(section=Section("card", "Model card", tables=[mapping_table("", card)]))
    from markdown_it import MarkdownIt

    # raw HTML is shown as text, and no image is loaded from elsewhere
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return Finding(section=Section("card", "Model card", html=str(markdown.render(card))))


def provenance_finding(provenance: Mapping[str, Any]) -> Finding:
    """Where all this came from, and the command that makes it again."""
    command = provenance.get("command")
    flat = {k: v for k, v in provenance.items() if not isinstance(v, Mapping) and k != "command"}
    nested = {k: v for k, v in provenance.items() if isinstance(v, Mapping) and k != "training"}
    section = Section(
        "provenance",
        "Provenance",
        ["To make this report again:"] if command else [],
        [mapping_table("", flat), *(mapping_table(k, v) for k, v in nested.items())],
        commands=[str(command)] if command else [],
    )
    return Finding({"provenance": dict(provenance)}, section=section)


def _spaced(key: str) -> str:
    return key.replace("_", " ")
