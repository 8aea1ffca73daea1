"""Two estimates of one model, and another model, on the same stars.

FS24's figure A1 shows one label with and without an input; so does this, for every label, with
the ratio of the errors. Stars are resampled in pairs: what both models find hard does not blur it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xplabels import figures
from xplabels.calibration.shrinkage import ShrinkageCorrection
from xplabels.core.errors import InputError
from xplabels.core.prediction import Prediction
from xplabels.core.scores import (
    Array,
    LabelSample,
    rms,
    robust_scatter,
    scores_by_label,
    some_scores,
)
from xplabels.validation import METAL_POOR, Validation
from xplabels.validation.finding import Finding, Section, aligned, format_score, with_unit
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

    ``validation`` says which stars and known labels are compared; ``mean`` is the mean estimate of
    the same N stars, ``along`` and ``snr`` what
    :func:`~xplabels.validation.populations.signal_to_noise` gives for them, ``reported`` the
    estimate (``mean`` or ``unshrunk``) that the rest of the report is about.
    """
    all_strengths = dict(zip(mean.names, correction.strength.tolist(), strict=True))
    strengths = {name: all_strengths[name] for name in validation.names}
    section = Section("estimates", "With and without shrinkage (regression to the mean)")
    section.paragraphs.append(
        "The mean is the best guess for one star, and drawn to what is usual. The unshrunk "
        "estimate divides the training stars' distribution out of it: right on average at "
        "each known label, with larger errors. Its strengths (1: all Gaussian) and factors "
        "were fitted on the validation part: "
        f"{', '.join(f'{value:.2f} {name}' for name, value in strengths.items())}."
    )
    metrics: dict[str, Any] = {"strength": strengths}
    for title, prediction in (("mean", mean), ("unshrunk", correction.apply(mean))):
        samples = {
            name: _of_prediction(prediction, name, known)
            for name, known in validation.samples.items()
        }
        groups = {"all": samples}
        if (fe_h := validation.axes.get("fe_h")) is not None:
            poor = {name: s[fe_h[s.rows] < METAL_POOR] for name, s in samples.items()}
            if any(map(len, poor.values())):
                groups["metal_poor"] = poor
        trend = slopes_by_snr(samples, along, snr, **validation.bootstrap)
        metrics[title] = {
            group: scores_by_label(chosen, ESTIMATE_SCORES, **validation.bootstrap)
            for group, chosen in groups.items()
        } | {"slope_by_snr": None if trend is None else trend.to_dict()}
        if trend is not None and title != reported:
            caption = f"The {title} estimate, which the rest of this report is not about. "
            trend.add_picture(section, f"slopes_{title}", f"Slope against S/N, {title}", caption)
    rows = [
        [f"{name}, {words}, {title}", f"{one.n:,}", *(format_score(one, k) for k in one.value)]
        for name in strengths
        for group, words in GROUPS.items()
        for title in ("mean", "unshrunk")
        if group in metrics[title]
        for one in (metrics[title][group][name],)
    ]
    header = ["label, stars, estimate", "N", *(key.replace("_", " ") for key in ESTIMATE_SCORES)]
    section.add_table("Both estimates; ± is the bootstrap error", header, rows)
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

    ``title`` is what the other model is called, ``note`` what is to be said of the comparison.

    Raises
    ------
    InputError
        If the models have no label in common.
    """
    ratios, columns = {}, {}
    for name in check_common(validation.names, other.names, title):
        sample = validation.samples[name]
        theirs = other.values[sample.rows, other.names.index(name)]
        both = np.isfinite(theirs)
        if both.sum() < FEWEST_STARS:
            continue
        columns[name] = sample.truth[both], sample.predicted[both], theirs[both]
        ratios[name] = _ratios(
            sample.residual[both], theirs[both] - sample.truth[both], **validation.bootstrap
        )
    rows = []
    for name, one in ratios.items():
        cells = [with_unit(name), f"{one['n']:,}"]
        for key in ("rmse", "robust"):
            cells += [
                f"{one[key]:.4g}",
                f"{one[f'{key}_beside']:.4g}",
                f"{one[f'{key}_ratio']:.3f} ± {one[f'{key}_ratio_error']:.3f}",
            ]
        rows.append(cells)
    header = ["label", "N", "RMSE", "other's", "ratio", "robust", "other's", "ratio"]
    section = Section("beside", f"Beside {title}", [note] if note else [])
    section.add_table(
        f"This model and {title}; ratios are the other's over this one's, ± the bootstrap error "
        "over stars in pairs",
        header,
        rows,
    )
    known, here, there = (
        filled_columns({name: arrays[k] for name, arrays in columns.items()}) for k in range(3)
    )
    pairs = (("known", "this model", known, here), ("known", "other model", known, there))
    section.add_picture(
        "beside",
        "Two models against known labels",
        f"Left, this model; right, {title}. Density of stars on a logarithmic "
        "scale; the line is one to one. As figure A1 of Fallows & Sanders (2024).",
        lambda: figures.side_by_side(tuple(ratios), pairs),
    )
    lines = [f"beside {title}, on the same stars; ratio: the other's over this model's"]
    plain = [[cell.replace("±", "+-") for cell in row] for row in rows]
    lines += [*section.paragraphs, aligned([header, *plain])]
    metrics = {"beside": {"model": title, "note": note, "labels": ratios}}
    return Finding(metrics, "\n".join(lines), section)


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
