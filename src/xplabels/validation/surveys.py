"""A model's predictions against another survey of the same stars (FS24, sections 4.2 and 4.3).

The survey's labels, with their errors, take the place of the truth. They are also compared with
the known labels where the stars have any (fig. 2, right): the scatter between the two surveys
limits the agreement that any prediction can reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels import figures
from xplabels.core.arrays import Array
from xplabels.core.errors import InputError, counted, located
from xplabels.core.labels import Labels
from xplabels.core.lookup import Lookup
from xplabels.core.prediction import Prediction
from xplabels.core.scores import Bin, LabelSample, binned, scores_by_label
from xplabels.core.stars import Photometry
from xplabels.io.memory import name_of
from xplabels.surveys import SPECTROSCOPIC, read_survey
from xplabels.validation import score_prediction
from xplabels.validation.accuracy import scores_text
from xplabels.validation.finding import (
    Finding,
    Section,
    bin_rows,
    format_score,
    score_rows,
    with_unit,
)
from xplabels.validation.populations import TABLE_2, add_errors_table, add_paper_table

COMPARED = tuple(name for name in SPECTROSCOPIC if name != "apogee")
"""Surveys whose tables may be compared with."""

AXES: dict[str, tuple[str, tuple[float, ...]]] = {
    "absolute_g": ("absolute magnitude in G [mag]", (-10.0, -2.0, 0.0, 2.0, 4.0, 6.0, 15.0)),
    "extinction_g": ("extinction in G [mag]", (-0.5, 0.1, 0.25, 0.5, 1.0, 2.0, 20.0)),
}
"""Axes along which differences are binned: their titles, and the edges of the bins."""
PARALLAX_SNR = 5.0
"""Least ratio of parallax to error for an absolute magnitude."""
MIN_COMMON = 2
"""Fewest common stars for which the survey is compared with known labels."""

SHOWN = ("bias", "rmse", "robust", "slope", "std_z", "robust_std_z")
"""Scores (:data:`~xplabels.core.scores.SCORES`) in the table of both comparisons."""


@dataclass(frozen=True)
class ReferenceSurvey:
    """A survey's labels of N stars, to compare predictions with.

    ``name`` is one of :data:`COMPARED`; ``labels`` [N, K] are NaN where the survey lacks the star;
    ``context`` are further columns [N]; ``inflation`` are the factors already applied to the errors
    of ``labels``; ``notes`` say what was left out or assumed.
    """

    name: str
    title: str
    where: str
    source_id: NDArray[np.int64]
    labels: Labels
    context: Mapping[str, Array]
    inflation: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def matched(self) -> NDArray[np.bool_]:
        """Which stars [N] have at least one label."""
        return np.asarray(np.isfinite(self.labels.values).any(axis=1))

    def of_stars(self, source_id: NDArray[np.int64]) -> ReferenceSurvey:
        """The survey's labels for the stars ``source_id`` [N], in their order.

        Raises :class:`InputError` if it has none of them.
        """
        rows, survey_rows = Lookup(self.source_id, self.where).find(source_id)
        if len(rows) == 0:
            raise InputError(
                f"none of its {counted(len(self.source_id), 'Gaia source')} is among the "
                f"{counted(len(source_id), 'star')} to compare",
                where=self.where,
                remedy="check that both are Gaia DR3 source_ids; without --all only the model's "
                "test part is compared",
            )

        def in_order(values: Array) -> Array:
            column = np.full((len(source_id), *values.shape[1:]), np.nan)
            column[rows] = values[survey_rows]
            return column

        labels = Labels(
            self.labels.names, in_order(self.labels.values), in_order(self.labels.errors)
        )
        context = {name: in_order(column) for name, column in self.context.items()}
        return replace(self, source_id=source_id, labels=labels, context=context)


def open_survey(
    path: Any, survey: str, neighbours: Any = None, inflation: Mapping[str, float] | None = None
) -> ReferenceSurvey:
    """Read a survey's table; of several rows for a star, the one of highest S/N is taken.

    Parameters
    ----------
    path, survey
        The table, a file or in memory, and one of :data:`COMPARED`.
    neighbours
        A table that relates its identifiers to Gaia DR3's, or None.
    inflation
        Factors on the survey's errors by label, where its authors recommend them.

    Raises
    ------
    InputError
        If the table cannot be read or has none of that survey's label columns, which the message
        lists; if a factor is not positive or for a label not in the table.

    Examples
    --------
    >>> survey = open_survey("lamost.csv", "lamost-lrs")  # doctest: +SKIP
    >>> xp.validate(model, stars, compare_survey=survey)  # doctest: +SKIP
    """
    if survey not in COMPARED:
        raise InputError(
            f"{survey!r} is not a survey to compare with",
            where=name_of(path),
            remedy=f"name one of {', '.join(COMPARED)}",
        )
    table = read_survey(survey, path, neighbours=neighbours)
    best = table.best(table.source_id > 0)
    labels, factors = best.labels, dict(inflation or {})
    if labels is None:
        raise InputError(f"survey {survey!r} has no labels", where=name_of(path))
    for name, factor in factors.items():
        if name not in labels.names or not (np.isfinite(factor) and factor > 0):
            raise InputError(
                f"errors of {name!r} cannot be multiplied by {factor:g}",
                where=name_of(path),
                remedy=f"give a positive factor for one of {', '.join(labels.names)}",
            )
    multiplied = labels.errors * [factors.get(name, 1.0) for name in labels.names]
    return ReferenceSurvey(
        survey, SPECTROSCOPIC[survey].title, best.where, best.source_id,
        replace(labels, errors=multiplied), best.columns, factors, best.notes,
    )  # fmt: skip


def survey_finding(
    prediction: Prediction,
    survey: ReferenceSurvey,
    known: Labels | None = None,
    photometry: Photometry | None = None,
    *,
    resamples: int = 200,
) -> Finding:
    """The model against a survey, the survey against known labels, and trends of the differences.

    FS24, tables 2 and 3, figures 2-4, and section 4.3. All arguments are for the same N stars:
    ``known`` are labels of the kind the model was trained on; G and parallax of the ``photometry``
    give absolute magnitudes where the survey has none.

    :class:`InputError` if no star has both a prediction and a label of the survey.
    """
    with located(survey.where):
        validation = score_prediction(
            prediction, survey.labels, selection_text=f"stars in {survey.title}",
            resamples=resamples,
        )  # fmt: skip
    names = validation.names
    known_scores = scores_by_label(
        _survey_to_survey(survey.labels, known, names), resamples=resamples
    )
    section = Section("against", f"Against {survey.name}")
    section.paragraphs.append(
        f"{survey.title}: {validation.n:,} stars of {survey.where} have a prediction and a "
        "label there. Its errors are included in z."
    )
    if known is not None:
        section.paragraphs.append(
            "The survey against the known labels of the same stars shows how far two surveys agree."
        )
    caption = (
        f"The model against {survey.name} (as table 2 of Fallows & Sanders 2024); residuals are "
        "prediction minus survey"
    )
    add_paper_table(section, validation, caption, TABLE_2.get(survey.name, {}))
    sides = {f"model - {survey.name}": validation.labels, f"{survey.name} - known": known_scores}
    rows = [
        [f"{title}: {key}", *cells]
        for title, scores in sides.items()
        if scores
        for key, *cells in score_rows(scores, names, SHOWN)
    ]
    section.add_table("Scores; ± is the bootstrap error", ["", *map(with_unit, names)], rows)
    along = _luminosity_and_extinction(survey, photometry)
    differences = {
        axis: {
            name: binned(values, sample, pairwise(AXES[axis][1]), resamples=resamples)
            for name, sample in validation.samples.items()
        }
        for axis, values in along.items()
    }
    for axis, by_label in differences.items():
        title, header = AXES[axis][0], [AXES[axis][0], "N"]
        for name in by_label:
            header += [f"{with_unit(name)}: bias", "robust"]
        section.add_table(
            f"Model minus {survey.name} by {title}", header, bin_rows(by_label, _bias_and_scatter)
        )
    factors = ", ".join(f"{name} x {factor:g}" for name, factor in survey.inflation.items())
    title = survey.title + (f", errors of {factors}" if factors else ", errors as published")
    errors = add_errors_table(section, validation, title)
    if survey.notes:
        section.add_table("Notes", [""], [[note] for note in survey.notes])
    columns = [(survey.name, "model", validation.column("truth"), validation.column("predicted"))]
    caption = "Density of stars on a logarithmic scale; the line is one to one."
    if known is not None:
        columns.append(
            ("known", survey.name, _in_order(known, names), _in_order(survey.labels, names))
        )
        caption += " Left, the model against the survey; right, the survey against known labels."
    caption += " As figures 2 to 4 of Fallows & Sanders (2024)."
    section.add_picture(
        "against", f"Model and {survey.name}", caption, lambda: figures.side_by_side(names, columns)
    )
    if along:
        axes = {AXES[axis][0]: values[validation.rows] for axis, values in along.items()}
        section.add_picture(
            "differences",
            f"Differences from {survey.name}",
            f"Model minus {survey.name} against luminosity and extinction, with running median "
            "(solid) and 16-84 % range (dashed).",
            lambda: figures.differences_along(names, axes, validation.column("residual")),
        )
    metrics: dict[str, Any] = {
        "survey": survey.name,
        "title": survey.title,
        "table": survey.where,
        "inflation": survey.inflation,
        "notes": survey.notes,
        **validation.groups["all"].to_dict(),
        "good": validation.groups["good"].to_dict(),
        "survey_to_survey": known_scores,
        "differences": differences,
    }
    lines = [f"{survey.title}, {counted(validation.n, 'star')} in common:"]
    if known is not None:
        lines.append(scores_text(validation))
    for name, scores in known_scores.items():
        words = ", ".join(f"{key} {format_score(scores, key, '+-')}" for key in ("bias", "rmse"))
        lines.append(
            f"{survey.name} minus known labels, {with_unit(name)}: {words} (N = {scores.n})"
        )
    lines += [f"note: {note}" for note in survey.notes]
    return Finding({"against": metrics, "table_3": errors}, "\n".join(lines), section)


def _survey_to_survey(
    survey: Labels, known: Labels | None, names: Sequence[str]
) -> dict[str, LabelSample]:
    """Samples in which the survey takes the place of the prediction of the known labels."""
    samples = {}
    for name in names:
        if known is None or name not in known.names:
            continue
        (theirs, error), (ours, our_error) = (
            (labels.select([name]).values[:, 0], labels.select([name]).errors[:, 0])
            for labels in (survey, known)
        )
        rows = np.flatnonzero(np.isfinite(theirs) & np.isfinite(ours))
        if len(rows) >= MIN_COMMON:
            samples[name] = LabelSample(
                rows, ours[rows], theirs[rows], error[rows], 2 * error[rows], our_error[rows]
            )
    return samples


def _in_order(labels: Labels, names: Sequence[str]) -> Array:
    """Columns [N, K] of the labels ``names``, NaN where there is none."""
    unknown = np.full(len(labels), np.nan)
    columns = dict(zip(labels.names, labels.values.T, strict=True))
    return np.stack([columns.get(name, unknown) for name in names], axis=1)


def _luminosity_and_extinction(
    survey: ReferenceSurvey, photometry: Photometry | None
) -> dict[str, Array]:
    """M_G and A_G [N] by axis, NaN where unknown; an axis without any star is left out."""
    extinction = survey.context.get("ag_gspphot")
    absolute = survey.context.get("mg_gspphot")
    if absolute is None and photometry is not None:
        g, _ = photometry.column("phot_g_mean_mag")
        parallax, error = photometry.column("parallax")
        with np.errstate(invalid="ignore", divide="ignore"):
            good = parallax > PARALLAX_SNR * error
            absolute = np.where(good, g + 5 * np.log10(np.where(good, parallax, 1.0)) - 10, np.nan)
        if extinction is not None:
            absolute = absolute - extinction
    return {
        axis: values
        for axis, values in zip(AXES, (absolute, extinction), strict=True)
        if values is not None and np.isfinite(values).any()
    }


def _bias_and_scatter(stars: Bin | None) -> list[str]:
    keys = ("bias", "robust")
    return ["-" if stars is None else format_score(stars.scores, key) for key in keys]
