"""Write findings of a validation as metrics.json, figures and one self-contained HTML page."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from xplabels import __version__
from xplabels.io.atomic import REPORT_FILES, check_new_folder, whole_folder
from xplabels.report.page import png as png
from xplabels.report.page import pretty, template
from xplabels.validation import Validation
from xplabels.validation.calibration import COLOURS, badge_of
from xplabels.validation.finding import Finding, format_score, metrics_of, with_unit
from xplabels.validation.verdict import verdict_of


def write_report(
    folder: Path | str,
    validation: Validation,
    findings: Sequence[Finding],
    *,
    overwrite: bool = False,
) -> Path:
    """Write ``metrics.json``, ``report.html`` and ``figures/*.png`` into a new folder.

    The folder appears whole or not at all; ``overwrite`` replaces an existing report, but never a
    folder that holds anything else. The ``validation`` makes the top of the page; the ``findings``,
    in their order, the entries of ``metrics.json`` and the sections
    (:func:`~xplabels.validation.accuracy.findings_of` has those of a validation alone).

    Returns
    -------
    Path
        The page, ``folder/report.html``.

    Raises
    ------
    InputError
        If the folder exists (without ``overwrite``), holds other things, or cannot be written.

    Examples
    --------
    >>> from xplabels.validation.accuracy import findings_of
    >>> page = write_report("report", validation, findings_of(validation))  # doctest: +SKIP
    """
    folder = Path(folder)
    check_new_folder(folder, REPORT_FILES, overwrite)
    with_section = [finding.section for finding in findings if finding.section is not None]
    sections = sorted(with_section, key=lambda section: section.folded)
    images = {
        picture.name: png(picture.draw()) for section in sections for picture in section.pictures
    }
    meta, verdict = validation.prediction.meta, verdict_of(validation)
    model = next((v for k, v in meta.items() if k.lower() == "model" and v), "a model")
    page = template("report.html.j2").render(
        title=f"Validation of {model}" + (", without shrinkage" if "ESTIMATE" in meta else ""),
        version=__version__,
        sections=sections,
        images={name: base64.b64encode(image).decode() for name, image in images.items()},
        n=validation.n,
        notes=meta.get("NOTES", ""),
        scores=validation.labels,
        with_unit=with_unit,
        pretty=lambda text: pretty(text, validation.names),
        format_score=format_score,
        badge_of_all=badge_of(verdict),
        words=verdict.words,
        sentence=verdict.sentence,
        colours=COLOURS,
    )
    metrics = json.dumps(metrics_of(findings), indent=1, allow_nan=False) + "\n"
    files = {"metrics.json": metrics.encode(), "report.html": page.encode()}
    files |= {f"figures/{name}.png": image for name, image in images.items()}
    with whole_folder(folder, overwrite) as partial:
        for name, content in files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(content)
    return folder / "report.html"
