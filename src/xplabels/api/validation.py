"""Validate a model on stars with known labels: findings and a report."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xplabels import __version__
from xplabels.api import source_of
from xplabels.core.errors import InputError, counted, located
from xplabels.core.labels import Labels
from xplabels.core.selection import Selection
from xplabels.core.split import part_mask
from xplabels.core.stars import Photometry, Stars
from xplabels.io.files import whole

if TYPE_CHECKING:
    from xplabels.cuts.flow import CutFlow
    from xplabels.model import Model
    from xplabels.validation import Validation
    from xplabels.validation.audit import LabelAudit
    from xplabels.validation.finding import Finding
    from xplabels.validation.surveys import ReferenceSurvey

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class ValidationResult:
    """The result of :func:`validate`, which prints as text.

    ``validation`` holds the scores against the stars' known labels or, if they have none, the
    survey's; ``findings`` are all parts of the report, in its order.
    """

    validation: Validation
    findings: Sequence[Finding] = field(repr=False)

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        from xplabels.validation.finding import metrics_of

        return metrics_of(self.findings)

    def __str__(self) -> str:
        from xplabels.validation.finding import text_of

        return text_of(self.findings)

    __repr__ = __str__

    def write(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write ``metrics.json``, ``report.html`` and figures into a new folder; returns the page.

        Raises
        ------
        InputError
            As :func:`~xplabels.report.write_report`.
        """
        from xplabels.report import write_report

        return write_report(folder, self.validation, self.findings, overwrite=overwrite)


def test_fraction_of(model: Model) -> float:
    """The share of stars that the model's split keeps for testing."""
    return float(model.metadata["split"]["test_fraction"])


def reporting_stars(
    model: Model, stars: Stars, selection: Selection | None, every: bool
) -> tuple[Stars, Labels, list[str]]:
    """The stars to validate on, their known labels, and the cut flow.

    These are the test part of the model's split, or with ``every`` all stars, inside the
    ``selection`` of known labels, by default that with which the model was trained.

    Raises
    ------
    InputError
        If the stars have no labels, or none of them is in the model's test part.
    """
    labels = _labels(stars).in_units_of(model.names)
    stars = stars.with_labels(labels)
    own = Selection.of_model(model.metadata, labels.names)
    selection = own if selection is None else selection.complete_in(labels.names)
    chosen, flow = selection.apply(stars)
    if selection != own and own.to_text():
        flow.insert(0, f"the selection given takes the place of the model's own ({own.to_text()})")
    if every:
        return chosen, _labels(chosen), flow
    fraction = test_fraction_of(model)
    test = part_mask(chosen.source_id, "test", fraction)
    if not test.any():
        raise InputError(
            f"no star is in the model's test part (test fraction {fraction:g})",
            where=stars.where,
            remedy="add --all if the model has not seen these stars",
        )
    chosen = chosen[test]
    return chosen, _labels(chosen), [*flow, f"{len(chosen)} in the model's test part"]


def _labels(stars: Stars) -> Labels:
    if stars.labels is None:
        raise InputError(
            "has no known labels to compare with",
            where=stars.where,
            remedy="add columns such as teff and teff_err, or --label-table TABLE",
        )
    return stars.labels


def validate(
    model: Model,
    stars: Stars,
    *,
    labels: Any = None,
    selection: Selection | None = None,
    all_stars: bool = False,
    withhold_photometry: bool = False,
    unshrunk: bool = False,
    compare_model: Model | None = None,
    compare_survey: ReferenceSurvey | None = None,
    training_labels: Labels | None = None,
    command: str = "",
) -> ValidationResult:
    """Predict stars with known labels and compare: accuracy, and whether the errors are correct.

    Parameters
    ----------
    model, stars
        The stars need known labels, unless a table of them or a survey is given.
    labels
        A table of known labels, a file or in memory, in place of those of the stars.
    selection
        Cuts on the known labels; default: those the model was trained with.
    all_stars
        Compare all of them, not only the test part of the model's split.
    withhold_photometry
        Predict from the spectra alone; magnitudes still define the bins. The verdict on the errors
        follows the same rule.
    unshrunk
        Correct the labels for shrinkage (:mod:`xplabels.calibration.shrinkage`); for a model
        without the correction it is fitted here, on the validation part of ``stars``.
    compare_model
        Another model, compared on the same stars.
    compare_survey
        Another survey (:func:`~xplabels.validation.surveys.open_survey`), whose labels take the
        place of the known ones for stars that have none.
    training_labels
        Labels of the training set, drawn behind the errors.
    command
        The command that repeats this, for the report.

    Raises
    ------
    InputError
        See :func:`reporting_stars` and :class:`~xplabels.validation.surveys.ReferenceSurvey`. The
        input is checked before anything is predicted.

    Examples
    --------
    >>> import xplabels as xp
    >>> result = xp.validate(xp.load_model(), xp.read_library())  # doctest: +SKIP
    >>> print(result)  # doctest: +SKIP
    >>> result.write("report")  # doctest: +SKIP
    """
    from xplabels.explain.section import explain_finding
    from xplabels.validation import common_names, score_prediction
    from xplabels.validation.accuracy import card_finding, findings_of, provenance_finding
    from xplabels.validation.models import estimates_finding, model_finding
    from xplabels.validation.populations import flow_finding, shrinkage_finding, signal_to_noise
    from xplabels.validation.surveys import survey_finding

    if labels is not None:
        from xplabels.io.tables import join_labels

        stars = join_labels(stars, labels, model.names, needed=False)
    given, labelled_by = stars, None
    if compare_survey is not None:
        with located(compare_survey.where):
            common_names(model.names, compare_survey.labels.names)
        if stars.labels is None:
            stars, labelled_by = _labelled_by(compare_survey, stars)
    if compare_model is not None:
        with located(_name(compare_model)):
            common_names(model.names, compare_model.names)
    all_given = stars
    stars, labels, flow = reporting_stars(model, stars, selection, all_stars)
    for line in flow:
        logger.info(line)
    with located(stars.where):
        common_names(model.names, labels.names)
    if compare_survey is not None:
        compare_survey = compare_survey.of_stars(stars.source_id)
    model = _with_estimate(model, given, unshrunk)
    if compare_model is not None:
        compare_model = _with_estimate(compare_model, given, unshrunk)
    inputs = stars
    if withhold_photometry:
        inputs = stars.with_photometry(Photometry.missing(len(stars)))
        flow = [*flow, "photometry withheld"]
    mean = replace(model, estimate="mean").predict(inputs, progress=True, correlations=True)
    prediction = mean
    if model.estimate == "unshrunk" and model.unshrinking is not None:
        prediction = model.unshrinking.apply(mean, model.label_range)
    g, bp, rp = (stars.photometry.column(f"phot_{band}_mean_mag")[0] for band in ("g", "bp", "rp"))
    with located(stars.where):
        validation = score_prediction(
            prediction, labels, g_mag=g, bp_rp=bp - rp, selection_text="; ".join(flow)
        )
    provenance = {
        "command": command,
        "version": __version__,
        "data": source_of(stars),
        "notes": "; ".join(stars.notes),
        "training": model.metadata["training"],
    }
    if labelled_by is not None:
        provenance["labels compared with"] = f"{labelled_by.title}: {labelled_by.where}"
    along, snr = signal_to_noise(stars.spectra)
    findings: list[Finding | None] = [*findings_of(validation, training_labels, provenance)]
    if model.unshrinking is not None:
        findings.append(
            estimates_finding(validation, mean, model.unshrinking, along, snr, model.estimate)
        )
    findings.append(shrinkage_finding(validation, along, snr))
    if compare_survey is not None:
        known = labels if labelled_by is None else None
        findings.append(survey_finding(prediction, compare_survey, known, stars.photometry))
    if cuts := _cut_flow(stars):
        findings.append(flow_finding(cuts))
    if compare_model is not None:
        other, note = compare_model.predict(inputs), _note(model, compare_model)
        findings.append(model_finding(validation, other, _name(compare_model), note))
    findings += [
        explain_finding(model, all_given, inputs),
        card_finding(model.card),
        provenance_finding(provenance),
    ]
    return ValidationResult(validation, [one for one in findings if one is not None])


def audit(model: Model, stars: Stars, *, all_stars: bool = False) -> LabelAudit:
    """Find known labels of ``stars`` that are probably wrong (:mod:`xplabels.validation.audit`).

    Stars of the model's training part are left out, unless ``all_stars`` says that none was used in
    training. Raises :class:`InputError` if no star has a label of the model's, or all are in the
    training part.
    """
    from xplabels.validation import common_names
    from xplabels.validation.audit import audit_labels

    known = _labels(stars).names
    with located(stars.where):
        common_names(model.names, known)
    if not all_stars:
        unseen = ~part_mask(stars.source_id, "train", test_fraction_of(model))
        if not unseen.any():
            raise InputError(
                "every star is in the model's training part",
                where=stars.where,
                remedy="see label_audit.csv in the model's folder, or add --all if the model has "
                "not seen these stars",
            )
        stars = stars[unseen]
    label_audit = audit_labels(
        model.predict(stars, progress=True, correlations=True), _labels(stars)
    )
    if not label_audit.compared.any():
        raise InputError("no star has a known label that the model predicts", where=stars.where)
    return label_audit


def _with_estimate(model: Model, stars: Stars, unshrunk: bool) -> Model:
    """The model with the estimate asked for; a shrinkage correction is fitted if it has none."""
    if not unshrunk:
        return model
    if model.unshrinking is None:
        from xplabels.model.refitting import fit_unshrinking

        model = fit_unshrinking(model, stars)
        logger.info(
            "shrinkage correction: fitted here, on the stars of the model's validation part"
        )
    if model.unshrinking is not None:
        for text in model.unshrinking.caveats(model.names):
            logger.info("warning: %s", text)
    return model.unshrunk()


def _name(model: Model) -> str:
    return str(model.metadata.get("name") or "another model")


def _labelled_by(survey: ReferenceSurvey, stars: Stars) -> tuple[Stars, ReferenceSurvey]:
    """The stars that have labels in the survey, with these as their known labels."""
    survey = survey.of_stars(stars.source_id)
    matched = survey.matched
    if not matched.any():
        raise InputError(
            f"has no label for the {counted(len(stars), 'star')}",
            where=survey.where,
            remedy="give stars that are in the survey",
        )
    return stars[matched].with_labels(survey.labels[matched]), survey


def _note(model: Model, other: Model) -> str:
    """A warning if the other model may have been trained on some of the stars."""
    ours, theirs = test_fraction_of(model), test_fraction_of(other)
    if theirs >= ours:
        return ""
    return (
        f"It kept a share of {theirs:g} of the stars for testing and this one {ours:g}: it "
        "may have been trained on some of these stars."
    )


def _cut_flow(stars: Stars) -> CutFlow | None:
    """The cut flow that ``xplabels select`` wrote next to the stars' table, if it did."""
    from xplabels.cuts.flow import CutFlow

    path = Path(stars.file).with_suffix(".cuts.json") if stars.file else None
    if path is None or not path.is_file():
        return None
    try:
        with whole(path, "cut flow"):
            return CutFlow.from_dict(json.loads(path.read_text(encoding="utf-8"))["flow"])
    except InputError:
        logger.info("%s: is not a cut flow of xplabels select; left out of the report", path)
        return None
