"""A model's predictions beside another survey of the same stars (FS24, sections 4.2 and 4.3).

The survey's labels take the place of the truth, with their own errors. Where the stars also have
the labels that the model learnt, the survey is compared with these too (fig. 2, right): what the
two surveys disagree on, no prediction can mend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.duplicates import best_rows
from xplabels.core.errors import InputError, counted, located
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.scores import Array, Bin, Sample, Scores, bin_statistics, score
from xplabels.core.stars import Photometry
from xplabels.surveys import SPECTROSCOPIC, SurveyTable, read_survey
from xplabels.validation import Validation, validate
from xplabels.validation.wording import as_json, format_score, with_unit

COMPARED = tuple(name for name in SPECTROSCOPIC if name != "apogee")
"""Surveys whose tables may be compared with."""

ABSOLUTE_G, EXTINCTION_G = "absolute_g", "extinction_g"
AXES: dict[str, tuple[str, tuple[float, ...]]] = {
    ABSOLUTE_G: ("absolute magnitude in G [mag]", (-10.0, -2.0, 0.0, 2.0, 4.0, 6.0, 15.0)),
    EXTINCTION_G: ("extinction in G [mag]", (-0.5, 0.1, 0.25, 0.5, 1.0, 2.0, 20.0)),
}
"""What differences are looked at along: title and edges of the bins."""
PARALLAX_SNR = 5.0
"""A parallax below this gives no absolute magnitude."""
MIN_COMMON = 2


@dataclass(frozen=True)
class Request:
    """Which table of which survey to compare with.

    Attributes
    ----------
    path, survey
        The table, and one of :data:`COMPARED`.
    neighbours
        A table that relates its identifiers to Gaia DR3's, or None.
    inflation
        By label, what the survey's errors are multiplied by, where its authors ask for it.
    """

    path: Path
    survey: str
    neighbours: Path | None = None
    inflation: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Against:
    """A survey's labels for N stars.

    Attributes
    ----------
    survey, title, where
        Name, what it is, and the file.
    labels
        [N, K] in the order of the stars; NaN where the survey does not know a star.
    context
        Further columns [N] of the survey.
    inflation
        What the errors in ``labels`` have been multiplied by, by label.
    notes
        What was left out or assumed.
    """

    survey: str
    title: str
    where: str
    labels: Labels
    context: Mapping[str, Array]
    inflation: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def matched(self) -> NDArray[np.bool_]:
        """Which of the stars [N] have at least one label here."""
        return np.asarray(np.isfinite(self.labels.values).any(axis=1))


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes
    ----------
    against
        The survey.
    validation
        Predictions scored with the survey's labels as truth.
    known, known_scores
        By label, the survey as if it were a prediction of the stars' known labels, and its
        scores; empty where they have none.
    differences
        ``differences[axis][label]``: bias and scatter of prediction minus survey in bins of
        luminosity and extinction, where these are known.
    axes
        Luminosity and extinction [N] themselves.
    beside
        Whether the stars' known labels are others than the survey's.
    """

    against: Against
    validation: Validation
    known: Mapping[str, Sample]
    known_scores: Mapping[str, Scores]
    differences: Mapping[str, Mapping[str, tuple[Bin, ...]]]
    axes: Mapping[str, Array] = field(repr=False)
    beside: bool

    def to_metrics(self) -> dict[str, Any]:
        """As it stands in ``metrics.json``, under ``against``."""
        plain: dict[str, Any] = as_json(
            {
                "survey": self.against.survey,
                "title": self.against.title,
                "table": self.against.where,
                "inflation": dict(self.against.inflation),
                "notes": self.against.notes,
                **self.validation.groups["all"].to_metrics(),
                "unflagged": self.validation.groups["unflagged"].to_metrics(),
                "survey_to_survey": {k: s.to_metrics() for k, s in self.known_scores.items()},
                "differences": {
                    axis: {name: [_plain(one) for one in row] for name, row in by_label.items()}
                    for axis, by_label in self.differences.items()
                },
            }
        )
        return plain

    def to_text(self) -> str:
        """For the terminal: the scores, and the survey-to-survey comparison beside them."""
        lines = [f"{self.against.title}, {counted(self.validation.n, 'star')} in common:"]
        if self.beside:
            lines.append(self.validation.to_text())
        for name, scores in self.known_scores.items():
            told = ", ".join(f"{key} {format_score(scores, key)}" for key in ("bias", "rmse"))
            lines.append(
                f"{self.against.survey} minus known labels, {with_unit(name)}: {told} "
                f"(N = {scores.n})"
            )
        lines += [f"note: {note}" for note in self.against.notes]
        return "\n".join(lines)


@dataclass(frozen=True)
class Opened:
    """A survey's table that was read and is fit to be compared with.

    Attributes
    ----------
    request
        What was asked for.
    best
        Of each star's rows the best.
    labels
        Those of ``best``.
    factors
        What the errors of each label are multiplied by [K].
    """

    request: Request
    best: SurveyTable
    labels: Labels
    factors: Array


def open_survey(request: Request) -> Opened:
    """Read the survey's table, before anything else is done: what is wrong with it shows here.

    Raises
    ------
    InputError
        If the survey is none of :data:`COMPARED`; if the table cannot be read, has none of the
        survey's columns of labels (the message lists them) or no Gaia source_id; if a factor is
        not positive or of no label here.
    """
    if request.survey not in COMPARED:
        raise InputError(
            f"{request.survey!r} is no survey to compare with",
            where=request.path,
            remedy=f"name one of {', '.join(COMPARED)}",
        )
    table = read_survey(request.survey, request.path, neighbours=request.neighbours)
    labels = table.labels
    if labels is None:
        raise InputError(f"survey {request.survey!r} has no labels", where=request.path)
    quality = np.full(len(table), np.nan) if table.quality is None else table.quality
    best = table.take(best_rows(table.source_id, quality, table.source_id > 0))
    with located(request.path):
        factors = _factors(request.inflation, labels.names)
    return Opened(request, best, best.labels if best.labels is not None else labels, factors)


def read_against(request: Request | Opened, source_id: NDArray[np.int64]) -> Against:
    """The survey's labels of the stars ``source_id`` [N]; of a star's several rows the best.

    Raises
    ------
    InputError
        As :func:`open_survey`; if the table has no row of these stars.
    """
    opened = open_survey(request) if isinstance(request, Request) else request
    request, best, known = opened.request, opened.best, opened.labels
    common, rows, found = np.intersect1d(source_id, best.source_id, return_indices=True)
    if len(common) == 0:
        raise InputError(
            f"none of its {counted(len(best), 'Gaia source')} is among the "
            f"{counted(len(source_id), 'star')} to compare",
            where=request.path,
            remedy="check that both are Gaia DR3 source_ids; without --all only the model's "
            "test part is compared",
        )
    values = np.full((len(source_id), len(known.names)), np.nan)
    errors = values.copy()
    values[rows], errors[rows] = known.values[found], known.errors[found]
    context = {}
    for name, column in best.columns.items():
        context[name] = np.full(len(source_id), np.nan)
        context[name][rows] = column[found]
    errors *= opened.factors
    return Against(
        request.survey, SPECTROSCOPIC[request.survey].title, best.where,
        Labels(known.names, values, errors), context, dict(request.inflation), best.notes,
    )  # fmt: skip


def _factors(inflation: Mapping[str, float], names: Sequence[str]) -> Array:
    for name, factor in inflation.items():
        if name not in names or not (np.isfinite(factor) and factor > 0):
            raise InputError(
                f"errors of {name!r} cannot be multiplied by {factor:g}",
                remedy=f"give a positive factor for one of {', '.join(names)}",
            )
    return np.array([inflation.get(name, 1.0) for name in names])


def compare(
    prediction: Prediction,
    against: Against,
    known: Labels | None = None,
    photometry: Photometry | None = None,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> Comparison:
    """Score predictions of N stars against a survey of them, and the survey against known labels.

    Parameters
    ----------
    prediction, against
        Of the same N stars.
    known
        Labels [N] of the kind the model learnt, or None.
    photometry
        Of the stars [N]: G and parallax give a luminosity where the survey has none.
    resamples, seed
        Of the bootstrap.

    Raises
    ------
    InputError
        If no star has both a prediction and a label of the survey.
    """
    with located(against.where):
        validation = validate(
            prediction, against.labels, selection_text=f"stars in {against.title}",
            resamples=resamples, seed=seed,
        )  # fmt: skip
    samples = {} if known is None else _survey_to_survey(against.labels, known, validation.names)
    axes = _luminosity_and_extinction(against, photometry)
    return Comparison(
        against,
        validation,
        samples,
        {name: score(one, resamples=resamples, seed=seed) for name, one in samples.items()},
        {
            axis: {
                name: _bins(axis, values, sample, resamples, seed)
                for name, sample in validation.samples.items()
            }
            for axis, values in axes.items()
        },
        axes,
        known is not None,
    )


def _survey_to_survey(survey: Labels, known: Labels, names: Sequence[str]) -> dict[str, Sample]:
    """The survey as if it predicted the known labels."""
    samples = {}
    for name in names:
        if name not in known.names:
            continue
        theirs, ours = survey.select([name]), known.select([name])
        rows = np.flatnonzero(np.isfinite(theirs.values[:, 0]) & np.isfinite(ours.values[:, 0]))
        if len(rows) >= MIN_COMMON:
            error = theirs.errors[rows, 0]
            samples[name] = Sample(
                rows, ours.values[rows, 0], theirs.values[rows, 0], error, 2 * error,
                ours.errors[rows, 0],
            )  # fmt: skip
    return samples


def _luminosity_and_extinction(against: Against, photometry: Photometry | None) -> dict[str, Array]:
    """M_G and A_G [N] as far as anyone knows them; axes without a single star left out."""
    extinction = against.context.get("ag_gspphot")
    absolute = against.context.get("mg_gspphot")
    if absolute is None and photometry is not None:
        g, _ = photometry.column("phot_g_mean_mag")
        parallax, error = photometry.column("parallax")
        with np.errstate(invalid="ignore", divide="ignore"):
            good = parallax > PARALLAX_SNR * error
            absolute = np.where(good, g + 5 * np.log10(np.where(good, parallax, 1.0)) - 10, np.nan)
        if extinction is not None:
            absolute = absolute - extinction
    found = {ABSOLUTE_G: absolute, EXTINCTION_G: extinction}
    return {
        axis: values
        for axis, values in found.items()
        if values is not None and np.isfinite(values).any()
    }


def _bins(axis: str, values: Array, sample: Sample, resamples: int, seed: int) -> tuple[Bin, ...]:
    edges = AXES[axis][1]
    here = values[sample.rows]
    found = []
    for low, high in pairwise(edges):
        inside = (here >= low) & (here < high)
        if inside.any():
            scores = score(sample[inside], bin_statistics, resamples=resamples, seed=seed)
            found.append(Bin(low, high, scores, scores.n))
    return tuple(found)


def _plain(one: Bin) -> dict[str, Any]:
    return {"low": one.low, "high": one.high, **one.scores.to_metrics()}
