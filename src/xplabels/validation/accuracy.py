"""The parts of every report: data, accuracy, errors, Kiel diagram, model card, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xplabels import figures
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.flags import ABOUT, GOOD
from xplabels.core.labels import Labels
from xplabels.core.prediction import PARTS
from xplabels.core.scores import SCORES, SEED
from xplabels.validation import Validation
from xplabels.validation.audit import audit_finding
from xplabels.validation.calibration import calibration_findings, joint_finding
from xplabels.validation.finding import (
    Finding,
    Section,
    aligned,
    as_json,
    format_score,
    score_rows,
    with_unit,
)
from xplabels.validation.populations import paper_finding, planes_finding
from xplabels.validation.verdict import MAGNITUDES

GOOD_STARS = (
    f"Good stars are those for which the catalogue's column 'good' is true: each {GOOD} "
    "(documentation: Flags). Stars without a prediction are in none of the tables."
)
"""Explanation in the report."""
SCATTER = {"robust": "robust", "RMSE": "rmse"}
RANGE = (0, 1, 50, 99, 100)
"""Percentiles of the stars compared that are shown."""


def findings_of(
    validation: Validation,
    training_labels: Labels | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """The findings of a validation alone, in the order of the report.

    The distribution of ``training_labels``, or else that of the stars compared, is drawn behind the
    errors (FS24, fig. 5); ``data``, ``notes`` and ``training`` of the ``provenance`` are shown.
    """
    findings = [
        accuracy_finding(validation),
        range_finding(validation),
        errors_finding(validation, training_labels),
        *calibration_findings(validation),
        joint_finding(validation),
        audit_finding(validation.audit),
        metal_poor_finding(validation),
        planes_finding(validation, training_labels),
        paper_finding(validation),
        data_finding(validation, provenance or {}),
    ]
    return [finding for finding in findings if finding is not None]


def data_finding(validation: Validation, provenance: Mapping[str, Any]) -> Finding:
    """The model, its training set, and the stars compared."""
    section = Section("data", "Stars and model", folded=True)
    text = f"{validation.n:,} stars with at least one known label: {validation.selection}."
    if "data" in provenance:
        text += f" Data: {as_json(provenance['data'])}."
    if provenance.get("notes"):
        text += f" Notes: {provenance['notes']}."
    section.paragraphs.append(text)
    meta = {key: value for key, value in validation.prediction.meta.items() if key != "NOTES"}
    if meta:
        section.add_mapping("The model", meta)
    if isinstance(training := provenance.get("training"), Mapping):
        section.add_mapping("Its training set", training)
    metrics = {
        "settings": {
            "selection": validation.selection,
            "bootstrap_resamples": validation.resamples,
            "bootstrap_seed": SEED,
            "nominal_coverage_68": LEVEL_68,
            "nominal_coverage_95": LEVEL_95,
        }
    }
    return Finding(metrics, section=section)


def range_finding(validation: Validation) -> Finding:
    """The stars for which the page holds, how many are good, and what the others' flags say."""
    section, n = Section("range", "Usable range"), validation.n
    rows = []
    axes = {axis: validation.axes[axis] for axis in ("g_mag", "bp_rp") if axis in validation.axes}
    by_label = {with_unit(name): s.truth for name, s in validation.samples.items()}
    for title, values in (
        by_label | {f"{MAGNITUDES[axis]} [mag]": v[validation.rows] for axis, v in axes.items()}
    ).items():
        values = values[np.isfinite(values)]
        numbers = ["-"] * len(RANGE)
        if len(values):
            digits = 0 if np.abs(values).max() >= 1000 else 2
            numbers = [f"{v:,.{digits}f}" for v in np.percentile(values, RANGE)]
        rows.append([title, f"{len(values):,}", *numbers])
    shares = [{0: "lowest", 50: "median", 100: "highest"}.get(p, f"{p:g} %") for p in RANGE]
    section.add_table("The stars compared", ["known", "N", *shares], rows)
    good = validation.groups["good"].n
    section.paragraphs.append(
        "The accuracy on this page is that of stars like those compared, whose labels and "
        f"magnitudes are below. {good:,} of {n:,} stars ({100 * good / n:.1f} %) are good: each "
        f"{GOOD}. Flags marked 'not good' say that a star is outside the usable range; the others "
        "are remarks."
    )
    flagged = []
    for flag, about in ABOUT.items():
        if count := validation.flags[str(flag.name)]:
            meaning = about.meaning + (" [not good]" if about.bad else "")
            flagged.append([str(flag.name), f"{count:,}", f"{100 * count / n:.3g}", meaning])
    if flagged:
        section.add_table("Flags", ["flag", "stars", "%", ""], flagged)
    return Finding({"flags": validation.flags}, section=section)


def accuracy_finding(validation: Validation) -> Finding:
    """Prediction against truth, Kiel diagrams, and scores of every group of stars."""
    names, groups = validation.names, validation.groups
    section = Section("accuracy", "Predictions against known labels", [GOOD_STARS])
    section.add_table(
        "Predicted minus known labels: 1.4826 MAD (robust) and root mean square (RMSE); "
        "± is the bootstrap error",
        ["stars", "N", *map(with_unit, names)],
        [
            [
                f"{group.title}, {what}",
                f"{group.n:,}",
                *(format_score(group.labels[name], key) for name in names),
            ]
            for group in groups.values()
            if group.n
            for what, key in SCATTER.items()
        ],
    )
    for key, group in groups.items():
        section.add_table(
            f"All scores of {'all stars' if key == 'all' else group.title + ' stars'}, "
            f"N = {group.n:,}; ± is the bootstrap error "
            f"({validation.resamples} resamples of the stars)",
            ["score", *map(with_unit, names)],
            score_rows(group.labels, names, SCORES),
            folded=True,
        )
    meanings = [
        [key.replace("_", " "), score.text + (", in the label's unit" if score.has_unit else "")]
        for key, score in SCORES.items()
    ]
    section.add_table("What the scores are", ["", ""], meanings, folded=True)
    section.add_picture(
        "comparison",
        "Predicted against known labels",
        "Density of stars on a logarithmic scale; the line is one to one. Below, residuals with "
        "their running median (solid) and 16-84 % range (dashed). As figure 1 of Fallows & "
        "Sanders (2024).",
        lambda: figures.comparison(
            names, validation.column("truth"), validation.column("predicted")
        ),
    )
    _add_kiel(section, validation)
    metrics = groups["all"].to_dict()
    metrics |= {key: groups[key].to_dict() for key in ("good", "rightly_labelled")}
    return Finding(metrics, scores_text(validation), section)


def metal_poor_finding(validation: Validation) -> Finding | None:
    """Scores of the metal-poor stars; the report has them in the section on accuracy."""
    poor = validation.groups.get("metal_poor")
    if poor is None:
        return None
    text = scores_text(validation, "metal_poor") if poor.n else ""
    return Finding({"metal_poor": poor.to_dict()}, text)


def scores_text(validation: Validation, group: str = "all") -> str:
    """The scores of one group as a table for the terminal; for all stars also the joint ones."""
    stars = validation.groups[group]
    labels = [stars.labels[name] for name in validation.names]
    rows = [
        [stars.title, *map(with_unit, validation.names)],
        ["N", *(str(scores.n) for scores in labels)],
        *([key, *(format_score(scores, key, "+-") for scores in labels)] for key in SCORES),
    ]
    wrong = validation.audit.wrong.sum()
    if group == "all" and wrong:
        right = validation.groups["rightly_labelled"].labels
        without = [format_score(right[name], "rmse", "+-") for name in validation.names]
        rows.append([f"rmse without {wrong} stars whose label is probably wrong", *without])
    table = aligned(rows)
    joint = validation.joint if group == "all" else None
    return table if joint is None else f"{table}\n{joint.to_text()}"


def errors_finding(validation: Validation, training_labels: Labels | None) -> Finding:
    """The stated errors and their parts, against G and against each label."""
    names, rows = validation.names, validation.rows
    stars = validation.prediction[rows]
    columns = [stars.names.index(name) for name in names]
    values, total = stars.values[:, columns], stars.errors[:, columns]
    parts = {part: stars.part(part)[:, columns] for part in PARTS}
    source, known = "stars compared", validation.column("truth")
    if training_labels is not None and set(names) <= set(training_labels.names):
        source, known = "training set", training_labels.select(names).values
    section = Section("errors", "Errors against magnitude and label")
    if (g := validation.axes.get("g_mag")) is not None:
        along_g = [figures.axis_title("g_mag")] * len(names)
        repeated = np.repeat(g[rows][:, None], len(names), axis=1)
        section.add_picture(
            "errors_g",
            "Errors against G",
            "Median stated error and its three parts, which add in quadrature; grey: distribution "
            "of the stars. As figure 6 of Fallows & Sanders (2024).",
            lambda: figures.errors_along(
                names, along_g, repeated, total, parts, repeated, "stars compared"
            ),
        )
    section.add_picture(
        "errors_labels",
        "Errors against each label",
        f"The same against the predicted label; grey: known labels of the {source}. As "
        "figure 5 of Fallows & Sanders (2024).",
        lambda: figures.errors_along(
            names, [figures.axis_title(f"{name}_predicted") for name in names],
            values, total, parts, known, source,
        ),
    )  # fmt: skip
    return Finding(section=section)


def _add_kiel(section: Section, validation: Validation) -> None:
    """Kiel diagrams of known and predicted labels, where teff, logg and fe_h are among them."""
    needed = ("teff", "logg", "fe_h")
    if not set(needed) <= set(validation.names):
        return
    panels = {
        title: tuple(validation.by_label(attribute)[name] for name in needed)
        for title, attribute in (("Known", "truth"), ("Predicted", "predicted"))
    }
    section.add_picture(
        "kiel",
        "Kiel diagram",
        "The same stars by their known and their predicted labels, coloured by [Fe/H].",
        lambda: figures.kiel(panels),
    )


def card_finding(card: Mapping[str, Any] | str) -> Finding:
    """The model card, from Markdown or from names and values."""
    section = Section("card", "Model card", folded=True)
    if isinstance(card, Mapping):
        section.add_mapping("", card)
    else:
        from markdown_it import MarkdownIt

        # raw HTML is shown as text, and no image is loaded from elsewhere
        markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
        section.html = str(markdown.render(card))
    return Finding(section=section)


def provenance_finding(provenance: Mapping[str, Any]) -> Finding:
    """The origin of data and model, and the command that repeats the validation."""
    command = str(provenance.get("command", ""))
    section = Section("provenance", "Provenance", command=command, folded=True)
    if section.command:
        section.paragraphs.append("To make this report again:")
    plain = {}
    for name, value in provenance.items():
        if not isinstance(value, Mapping):
            plain[name] = value
        elif name != "training":
            section.add_mapping(name, value)
    plain.pop("command", None)
    section.add_mapping("", plain)
    return Finding({"provenance": dict(provenance)}, section=section)
