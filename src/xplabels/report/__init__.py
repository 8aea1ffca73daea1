"""A validated prediction -> metrics.json, figures and one self-contained HTML page."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xplabels.core.labels import LABELS, Labels
from xplabels.core.prediction import Prediction
from xplabels.io.atomic import REPORT_FILES, check_new_folder, whole_folder
from xplabels.report.calibration import calibration_section, joint_section, verdict
from xplabels.report.page import template
from xplabels.report.populations import population_metrics, population_sections
from xplabels.report.sections import (
    Section,
    card_section,
    errors_section,
    kiel_section,
    provenance_section,
    scores_section,
    summary_section,
)
from xplabels.validation import Validation
from xplabels.validation.gate import calibration_gate
from xplabels.validation.wording import format_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(
    folder: Path | str,
    validation: Validation,
    prediction: Prediction,
    *,
    model_card: Mapping[str, Any] | str,
    provenance: Mapping[str, Any],
    training_labels: Labels | None = None,
    sections: Sequence[Section] = (),
    metrics: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``metrics.json``, ``report.html`` and ``figures/*.png`` into a new folder.

    The folder appears whole or not at all.

    Parameters
    ----------
    folder
        To be created.
    validation, prediction
        Scores, and the prediction they were made from (the known labels are in its samples).
    model_card
        Markdown, or names and values.
    provenance
        At least ``command`` (what to run again), ``version`` and ``data``; a value that is a
        mapping (e.g. ``training``) becomes a table of its own.
    training_labels
        Labels of the training set, whose distribution stands behind the errors (FS24, fig. 5);
        left out: that of the stars compared.
    sections
        Further sections, before the model card.
    metrics
        Further entries of ``metrics.json``, plain numbers and text.
    overwrite
        Replace an existing report. A folder that holds anything else is never replaced.

    Returns
    -------
    Path
        The page, ``folder/report.html``.

    Raises
    ------
    InputError
        If the folder exists (without ``overwrite``), holds other things, or cannot be written.
    """
    folder = Path(folder)
    check_new_folder(folder, REPORT_FILES, overwrite)
    files = report_files(
        validation,
        prediction,
        model_card=model_card,
        provenance=provenance,
        training_labels=training_labels,
        sections=sections,
        metrics=metrics,
    )
    with whole_folder(folder, overwrite) as partial:
        for name, content in files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(content)
    return folder / "report.html"


def report_files(
    validation: Validation,
    prediction: Prediction,
    *,
    model_card: Mapping[str, Any] | str,
    provenance: Mapping[str, Any],
    training_labels: Labels | None = None,
    sections: Sequence[Section] = (),
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """The files of a report by relative name; arguments as in :func:`write_report`."""
    body = [
        summary_section(validation, prediction, provenance),
        scores_section(validation),
        calibration_section(validation),
        errors_section(validation, prediction, training_labels),
        kiel_section(validation),
        *([joint] if (joint := joint_section(validation)) else []),
        *population_sections(validation, training_labels),
        *sections,
        card_section(model_card),
        provenance_section(provenance),
    ]
    files: dict[str, bytes] = {}
    for section in body:
        for picture in section.pictures:
            files[f"figures/{picture.name}.png"] = png(picture.figure)
    told = validation.to_metrics(provenance) | population_metrics(validation) | dict(metrics or {})
    files["metrics.json"] = (json.dumps(told, indent=1, allow_nan=False) + "\n").encode()
    files["report.html"] = _render(body, files, validation, prediction, provenance).encode()
    return files


def png(figure: Figure) -> bytes:
    """A figure as PNG, the same bytes for the same figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _render(
    body: Sequence[Section],
    files: Mapping[str, bytes],
    validation: Validation,
    prediction: Prediction,
    provenance: Mapping[str, Any],
) -> str:
    images = {
        name.removeprefix("figures/").removesuffix(".png"): base64.b64encode(content).decode()
        for name, content in files.items()
        if name.endswith(".png")
    }
    return template("report.html.j2").render(
        title=f"Validation of {_model_name(prediction)}"
        + (", without the trend to the mean" if "ESTIMATE" in prediction.meta else ""),
        version=provenance.get("version", ""),
        sections=body,
        images=images,
        n=validation.n,
        headline=_headline(validation),
        verdict=verdict(validation),
        findings=calibration_gate(validation),
    )


def _model_name(prediction: Prediction) -> str:
    """The model's name, by whatever case of "model" the metadata spell it."""
    named = (value for key, value in prediction.meta.items() if key.lower() == "model" and value)
    return str(next(named, "a model"))


def _headline(validation: Validation) -> list[dict[str, str]]:
    """Four numbers a label, for the cards at the top."""
    return [
        {
            "name": LABELS[name].description.split(",")[0],
            "unit": LABELS[name].unit,
            **{
                key: format_score(scores, key).replace("+-", "±")
                for key in ("rmse", "robust", "coverage_68", "coverage_95")
            },
            "n": f"{scores.n:,}",
        }
        for name, scores in validation.labels.items()
    ]
