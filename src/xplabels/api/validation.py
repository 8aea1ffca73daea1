"""A model, stars and known labels -> metrics.json and a report; another survey beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xplabels import __version__
from xplabels.api import Say
from xplabels.core.errors import InputError, counted, located
from xplabels.core.labels import Labels
from xplabels.core.selection import Selection
from xplabels.core.split import part_mask
from xplabels.core.stars import Photometry, Stars
from xplabels.io.atomic import REPORT_FILES, check_new_folder

if TYPE_CHECKING:
    from xplabels.core.prediction import Prediction
    from xplabels.cuts.flow import CutFlow
    from xplabels.model import Model
    from xplabels.report.model_comparison import ModelComparison
    from xplabels.report.sections import Section
    from xplabels.validation import Validation
    from xplabels.validation.against import Against, Comparison, Opened, Request

WITHHELD_MARGIN = 2.0
"""Tolerances on calibration are this many times wider where photometry is withheld."""


@dataclass(frozen=True)
class Validated:
    """What :func:`validate_model` found.

    Attributes
    ----------
    validation
        Against the labels known of the stars or, where they have none, the survey's.
    comparison
        Against a survey, where one was given.
    beside
        Another model on the same stars, where one was given.
    """

    validation: Validation
    comparison: Comparison | None = None
    beside: ModelComparison | None = None

    def to_text(self) -> str:
        """For the terminal; metal-poor stars by themselves."""
        parts = [self.validation.to_text(), _verdict(self.validation)]
        poor = self.validation.groups.get("metal_poor")
        if poor is not None and poor.n:
            parts.append(self.validation.to_text("metal_poor"))
        if self.comparison is not None:
            parts.append(self.comparison.to_text())
        if self.beside is not None:
            parts.append(self.beside.to_text())
        return "\n\n".join(parts)


def _verdict(validation: Validation) -> str:
    """One line: whether the errors are right, and how many margins are not met."""
    from xplabels.report.calibration import verdict
    from xplabels.validation.gate import calibration_gate

    missed = len(calibration_gate(validation))
    told = f" ({counted(missed, 'margin')} not met, see the report)" if missed else ""
    return f"error bars: {verdict(validation).text}{told}"


def test_fraction_of(model: Model) -> float:
    """The share of stars that the model's split keeps for testing."""
    return float(model.metadata["split"]["test_fraction"])


def reporting_stars(
    model: Model, stars: Stars, selection: Selection | None, every: bool
) -> tuple[Stars, Labels, list[str]]:
    """The stars to validate on, their known labels, and the cut flow.

    Parameters
    ----------
    model
        Its split names the test part; its own selection holds where none is given.
    stars
        With known labels.
    selection
        Cuts on the known labels; None: those the model was trained with.
    every
        Take all stars, not the test part only.

    Raises
    ------
    InputError
        If the stars have no labels, the model kept no test part or none of it is here.
    """
    own = Selection.of_model(model.metadata, _labels(stars).names)
    chosen, flow = (own if selection is None else selection).apply(stars)
    if selection not in (None, own) and own.to_text():
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


def validate_model(
    model: Model,
    stars: Stars,
    output: Path,
    *,
    selection: Selection | None = None,
    every: bool = False,
    withhold_photometry: bool = False,
    unshrunk: bool = False,
    beside: Model | None = None,
    against: Request | Opened | None = None,
    training_labels: Labels | None = None,
    overwrite: bool = False,
    command: str = "",
    say: Say = print,
) -> Validated:
    """Predict, compare with the known labels and write ``metrics.json`` and ``report.html``.

    ``withhold_photometry`` predicts from the spectra alone, and doubles the tolerances on
    calibration; magnitudes still make the bins. ``unshrunk`` takes the trend to the mean out of
    the labels (:mod:`xplabels.calibration.shrinkage`); for a model that was not fitted for it,
    that is done here, from the validation part of ``stars``. ``beside`` is another model, compared
    on the same stars. ``against`` adds a comparison with another survey, whose labels take the
    place of the known ones for stars that have none.
    ``training_labels``, where the caller has them, are drawn behind the errors.

    Raises
    ------
    InputError
        See :func:`reporting_stars` and :func:`~xplabels.validation.against.read_against`; if the
        output exists and ``overwrite`` is false. All but the numbers themselves is checked before
        anything is predicted.
    """
    from xplabels.report import write_report
    from xplabels.report.model_comparison import check_common
    from xplabels.validation import common_names, validate
    from xplabels.validation.against import compare, read_against

    check_new_folder(output, REPORT_FILES, overwrite)
    against = None if against is None else _opened(against, model)
    if beside is not None:
        check_common(model.names, beside.names, _name(beside))
    given, survey, everyone = stars, None, stars
    if against is not None and stars.labels is None:
        stars, survey = _labelled_by(against, stars)
        everyone = stars
    stars, labels, flow = reporting_stars(model, stars, selection, every)
    for line in flow:
        say(line)
    with located(stars.where):
        common_names(model.names, labels.names)
    theirs = None if against is None else read_against(against, stars.source_id)
    model = _with_estimate(model, given, unshrunk, say)
    if beside is not None:
        beside = _with_estimate(beside, given, unshrunk, say)
    shown = stars
    if withhold_photometry:
        shown = stars.with_photometry(Photometry.missing(len(stars)))
        flow = [*flow, "photometry withheld"]
    mean = replace(model, estimate="mean").predict(shown, progress=True, correlations=True)
    prediction = mean
    if model.estimate == "unshrunk" and model.unshrinking is not None:
        prediction = model.unshrinking.apply(mean, model.label_range)
    g, bp, rp = (stars.photometry.column(f"phot_{band}_mean_mag")[0] for band in ("g", "bp", "rp"))
    with located(stars.where):
        validation = validate(
            prediction,
            labels,
            g_mag=g,
            bp_rp=bp - rp,
            selection_text="; ".join(flow),
            margin=WITHHELD_MARGIN if withhold_photometry else 1.0,
        )
    known = labels if survey is None else None
    comparison = None if theirs is None else compare(prediction, theirs, known, stars.photometry)
    more = _supplements(stars, validation, comparison, say)
    more.add_estimates(model, validation, mean, stars)
    other = None if beside is None else more.add_model(model, beside, validation, shown)
    more.add_explanation(model, everyone, shown)
    provenance = {
        "command": command,
        "version": __version__,
        "data": stars.origin,
        "notes": "; ".join(stars.notes),
        "training": model.metadata["training"],
    }
    if survey is not None:
        provenance["labels compared with"] = f"{survey.title}: {survey.where}"
    write_report(
        output,
        validation,
        prediction,
        model_card=model.card,
        provenance=provenance,
        training_labels=training_labels,
        sections=more.sections,
        metrics=more.metrics,
        overwrite=overwrite,
    )
    return Validated(validation, comparison, other)


def _with_estimate(model: Model, stars: Stars, unshrunk: bool, say: Say) -> Model:
    """The model with the estimate asked for, which may first have to be fitted."""
    if not unshrunk:
        return model
    if model.unshrinking is None:
        from xplabels.model.refitting import fit_unshrinking

        model = fit_unshrinking(model, stars)
        say("the trend to the mean: fitted here, on the stars of the model's validation part")
    if model.unshrinking is not None:
        for text in model.unshrinking.caveats(model.names):
            say(f"mind: {text}")
    return model.unshrunk()


def _opened(request: Request | Opened, model: Model) -> Opened:
    """The survey's table, and a label that the model knows in it."""
    from xplabels.validation.against import Request, open_survey

    opened = open_survey(request) if isinstance(request, Request) else request
    if not set(opened.labels.names) & set(model.names):
        raise InputError(
            f"knows {', '.join(opened.labels.names)}, the model {', '.join(model.names)}: "
            "there is no label to compare",
            where=opened.request.path,
            remedy="name another survey, or take a model of its labels",
        )
    return opened


def _name(model: Model) -> str:
    return str(model.metadata.get("name") or "another model")


def _labelled_by(request: Opened, stars: Stars) -> tuple[Stars, Against]:
    """The stars that the survey knows, with its labels as the known ones."""
    from xplabels.validation.against import read_against

    survey = read_against(request, stars.source_id)
    matched = survey.matched
    if not matched.any():
        raise InputError(
            f"knows no label of the {counted(len(stars), 'star')}",
            where=request.request.path,
            remedy="give stars that are in the survey",
        )
    return stars[matched].with_labels(survey.labels[matched]), survey


@dataclass
class _Supplements:
    """Sections and entries of ``metrics.json`` that need more than the validation."""

    sections: list[Section] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)

    def add_estimates(
        self, model: Model, validation: Validation, mean: Prediction, stars: Stars
    ) -> None:
        """With and without the trend to the mean, if the model knows how."""
        from xplabels.report.estimates import compare_estimates
        from xplabels.validation.trend import signal_to_noise

        if model.unshrinking is None:
            return
        along = signal_to_noise(stars.spectra)
        found = compare_estimates(validation, mean, model.unshrinking, *along)
        self.sections.insert(0, found.section(model.estimate))
        self.metrics["estimates"] = found.to_metrics()

    def add_model(
        self, model: Model, other: Model, validation: Validation, stars: Stars
    ) -> ModelComparison:
        """Another model on the same stars."""
        from xplabels.report.model_comparison import compare_models

        ours, theirs = test_fraction_of(model), test_fraction_of(other)
        note = ""
        if theirs < ours:
            note = (
                f"It kept a share of {theirs:g} of the stars for testing and this one {ours:g}: it "
                "may have been trained on some of these stars, if they are those it learnt from."
            )
        found = compare_models(validation, other.predict(stars), _name(other), note)
        self.sections.append(found.section())
        self.metrics["beside"] = found.to_metrics()
        return found

    def add_explanation(self, model: Model, everyone: Stars, compared: Stars) -> None:
        """What the model looks at, of all stars of the table and of those compared."""
        from xplabels.explain.section import explain_section

        found = explain_section(model, everyone, compared)
        self.sections.append(found.section)
        self.metrics["what it looks at"] = dict(found.metrics)


def _supplements(
    stars: Stars, validation: Validation, comparison: Comparison | None, say: Say
) -> _Supplements:
    from xplabels.report.against import against_section
    from xplabels.report.paper_tables import table_3_scores, table_metrics
    from xplabels.report.populations import flow_section, trend_section
    from xplabels.validation.trend import signal_to_noise, trend_along

    found = _Supplements()
    trend = trend_along(
        validation.samples, *signal_to_noise(stars.spectra),
        resamples=validation.resamples, seed=validation.seed,
    )  # fmt: skip
    if trend is not None:
        found.sections.append(trend_section(trend))
        found.metrics["slope_by_snr"] = trend.to_metrics()
    if comparison is not None:
        found.sections.append(against_section(comparison))
        found.metrics["against"] = comparison.to_metrics()
    against = None if comparison is None else comparison.against
    judged = validation if comparison is None else comparison.validation
    found.metrics["table_3"] = {
        title: table_metrics(scores) for title, scores in table_3_scores(judged, against).items()
    }
    flow = _cut_flow(stars, say)
    if flow is not None:
        found.sections.append(flow_section(flow))
        found.metrics["cut_flow"] = flow.to_dict()
    return found


def _cut_flow(stars: Stars, say: Say) -> CutFlow | None:
    """What ``xplabels select`` wrote beside the table the stars came from, if it did."""
    from xplabels.cuts.flow import CutFlow

    path = Path(stars.file).with_suffix(".cuts.json") if stars.file else None
    if path is None or not path.is_file():
        return None
    try:
        return CutFlow.from_dict(json.loads(path.read_text(encoding="utf-8"))["flow"])
    except (OSError, ValueError, KeyError, TypeError):
        say(f"{path}: is no cut flow of xplabels select; left out of the report")
        return None
