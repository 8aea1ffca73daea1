"""Two estimates of one model, and another model, on the same stars.

FS24's figure A1 shows one label with and without an input; so does this, for every label, with
the ratio of the errors. Stars are resampled in pairs: what both models find hard does not blur it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from xplabels import figures
from xplabels.calibration.shrinkage import ShrinkageCorrection
from xplabels.core.errors import InputError
from xplabels.core.prediction import Prediction
from xplabels.core.scores import (
    Array,
    LabelSample,
    Scores,
    rms,
    robust_scatter,
    scores_by_label,
    some_scores,
)
from xplabels.validation import METAL_POOR, Validation
from xplabels.validation.finding import (
    Finding,
    Picture,
    ReportTable,
    Section,
    aligned,
    format_score,
    with_unit,
)
from xplabels.validation.populations import slopes_by_snr

ESTIMATE_SCORES = some_scores(
    "slope", "rmse", "robust", "bias", "coverage_68", "coverage_95", "sharpness"
)
GROUPS = {"all": "all", "metal_poor": "[Fe/H] < -1"}
FEWEST_STARS = 2


def estimates_finding(
    validation: Validation,
    mean: Prediction,
    correction: ShrinkageCorrection,
    along: str,
    snr: Array,
    reported: str,
) -> Finding:
    """The model's mean and its labels without shrinkage side by side, also by S/N.

    Parameters
    ----------
    validation
        Of either estimate: it says which stars and known labels are compared.
    mean
        The model's mean estimate of the same N stars.
    correction
        The model's.
    along, snr
        What :func:`~xplabels.validation.populations.signal_to_noise` gives for the N stars.
    reported
        The estimate, ``mean`` or ``unshrunk``, that the rest of the report is about.
    """
    fe_h = validation.axes.get("fe_h")
    strengths = dict(zip(mean.names, correction.strength.tolist(), strict=True))
    strengths = {name: strengths[name] for name in validation.names}
    metrics: dict[str, object] = {"strength": strengths}
    scores: dict[tuple[str, str], dict[str, Scores]] = {}
    pictures = []
    for title, prediction in (("mean", mean), ("unshrunk", correction.apply(mean))):
        samples = {
            name: _of_prediction(prediction, name, known)
            for name, known in validation.samples.items()
        }
        groups = {"all": samples}
        if fe_h is not None:
            poor = {name: s[fe_h[s.rows] < METAL_POOR] for name, s in samples.items()}
            if any(map(len, poor.values())):
                groups["metal_poor"] = poor
        for group, chosen in groups.items():
            scores[title, group] = scores_by_label(chosen, ESTIMATE_SCORES, **validation.bootstrap)
        trend = slopes_by_snr(samples, along, snr, **validation.bootstrap)
        metrics[title] = {group: scores[title, group] for group in groups} | {
            "slope_by_snr": None if trend is None else trend.to_dict()
        }
        if trend is not None and title != reported:
            caption = f"The {title} estimate, which the rest of this report is not about. "
            pictures.append(
                trend.picture(f"slopes_{title}", f"Slope against S/N, {title}", caption)
            )
    rows = [
        [f"{name}, {words}, {title}", f"{one.n:,}", *(format_score(one, k) for k in one.value)]
        for name in strengths
        for group, words in GROUPS.items()
        for title in ("mean", "unshrunk")
        if (title, group) in scores
        for one in (scores[title, group][name],)
    ]
    header = ["label, stars, estimate", "N", *(key.replace("_", " ") for key in ESTIMATE_SCORES)]
    text = (
        "The mean is the best guess for one star, and drawn to what is usual. The unshrunk "
        "estimate divides the training stars' distribution out of it: right on average at "
        "each known label, with larger errors. Its strengths (1: all Gaussian) and factors "
        "were fitted on the validation part: "
        f"{', '.join(f'{value:.2f} {name}' for name, value in strengths.items())}."
    )
    section = Section(
        "estimates",
        "With and without shrinkage (regression to the mean)",
        [text],
        [ReportTable("Both estimates; ± is the bootstrap error", header, rows)],
        pictures,
    )
    return Finding({"estimates": metrics}, section=section)


def _of_prediction(prediction: Prediction, name: str, known: LabelSample) -> LabelSample:
    """The same stars and known labels, by another estimate."""
    k, rows = prediction.names.index(name), known.rows
    return replace(
        known,
        predicted=prediction.values[rows, k],
        error=prediction.errors[rows, k],
        error_95=prediction.errors_95[rows, k],
    )


def model_finding(validation: Validation, other: Prediction, title: str, note: str = "") -> Finding:
    """Another model's prediction of the N stars of a validation, label by label.

    Parameters
    ----------
    validation
        Of the model: which stars and known labels are compared.
    other
        The other model's, of the same N stars.
    title, note
        What the other model is called, and what is to be said of the comparison.

    Raises
    ------
    InputError
        If the models have no label in common.
    """
    names = check_common(validation.names, other.names, title)
    ratios, columns = {}, {}
    for name in names:
        sample = validation.samples[name]
        theirs = other.values[sample.rows, other.names.index(name)]
        both = np.isfinite(theirs)
        if both.sum() < FEWEST_STARS:
            continue
        columns[name] = sample.truth[both], sample.predicted[both], theirs[both]
        ratios[name] = _ratios(
            sample.residual[both], theirs[both] - sample.truth[both], **validation.bootstrap
        )
    known, here, there = (
        filled_columns({name: arrays[k] for name, arrays in columns.items()}) for k in range(3)
    )
    rows = [
        [
            with_unit(name),
            f"{one['n']:,}",
            *(
                text
                for key in ("rmse", "robust")
                for text in (
                    f"{one[key]:.4g}",
                    f"{one[f'{key}_beside']:.4g}",
                    f"{one[f'{key}_ratio']:.3f} ± {one[f'{key}_ratio_error']:.3f}",
                )
            ),
        ]
        for name, one in ratios.items()
    ]
    plain = [[cell.replace("±", "+-") for cell in row] for row in rows]
    header = ["label", "N", "RMSE", "other's", "ratio", "robust", "other's", "ratio"]
    notes = [note] if note else []
    text = f"beside {title}, on the same stars; ratio: the other's over this model's"
    caption = (
        f"This model and {title}; ratios are the other's over this one's, ± the bootstrap error "
        "over stars in pairs"
    )
    picture = Picture(
        "beside",
        partial(
            figures.side_by_side,
            tuple(ratios),
            (("known", "this model", known, here), ("known", "other model", known, there)),
        ),
        "Two models against known labels",
        f"Left, this model; right, {title}. Density of stars on a logarithmic "
        "scale; the line is one to one. As figure A1 of Fallows & Sanders (2024).",
    )
    return Finding(
        {"beside": {"model": title, "note": note, "labels": ratios}},
        "\n".join([text, *notes, aligned([header, *plain])]),
        Section(
            "beside", f"Beside {title}", notes, [ReportTable(caption, header, rows)], [picture]
        ),
    )


def check_common(ours: Sequence[str], theirs: Sequence[str], title: str) -> list[str]:
    """Labels that two models have in common.

    Raises
    ------
    InputError
        If they have none.
    """
    names = [name for name in ours if name in theirs]
    if not names:
        raise InputError(
            f"{title} predicts none of {', '.join(ours)}",
            remedy="give a model with a label in common",
        )
    return names


def _ratios(ours: Array, theirs: Array, resamples: int, seed: int) -> dict[str, float]:
    """RMSE and robust scatter of two sets of residuals [n] of the same stars."""
    found: dict[str, float] = {"n": len(ours)}
    rows = np.random.default_rng(seed).integers(0, len(ours), (resamples, len(ours)))
    for key, measure in (("rmse", rms), ("robust", robust_scatter)):
        here, there = float(measure(ours)), float(measure(theirs))
        again = measure(theirs[rows]) / measure(ours[rows]) if resamples > 1 else np.full(2, np.nan)
        found |= {
            key: here, f"{key}_beside": there, f"{key}_ratio": there / here,
            f"{key}_ratio_error": float(np.std(again, ddof=1)),
        }  # fmt: skip
    return found


def filled_columns(columns: Mapping[str, Array]) -> Array:
    """Columns of any lengths as [longest, K], filled up with NaN."""
    longest = max(map(len, columns.values()), default=0)
    found = np.full((longest, len(columns)), np.nan)
    for k, column in enumerate(columns.values()):
        found[: len(column), k] = column
    return found
