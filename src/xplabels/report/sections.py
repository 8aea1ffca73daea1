"""What a report says, as data: sections of paragraphs, tables and pictures.

A new table or figure is one more section in :func:`xplabels.report.write_report`, or a
:class:`Section` that the caller hands to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels import figures
from xplabels.core.flags import UNFLAGGED
from xplabels.core.labels import Labels
from xplabels.core.prediction import PARTS, Prediction
from xplabels.core.scores import SCORES, Scores
from xplabels.validation import (
    Validation,
)
from xplabels.validation.wording import as_json, format_score, with_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """Text that ``verdict`` colours: ``pass``, ``partly``, ``fail`` or empty."""

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
    badge: Cell | None = None
    findings: Sequence[str] = ()
    html: str = ""


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


def score_text(scores: Scores, key: str) -> str:
    return format_score(scores, key).replace("+-", "±")


def _spaced(key: str) -> str:
    return key.replace("_", " ")


def mapping_table(caption: str, mapping: Mapping[str, Any]) -> Table:
    rows = []
    for key, value in mapping.items():
        plain = as_json(value)
        if isinstance(plain, list) and all(isinstance(one, str | int | float) for one in plain):
            plain = "; ".join(map(str, plain))
        text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
        rows.append([str(key), text])
    return Table(caption, ["", ""], rows)
