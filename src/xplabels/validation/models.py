"""Comparison of two estimates of one model, and of two models, on the same stars.

This is like FS24's figure A1, which shows one label with and without an input, but for every label
and with the ratio of the scatters. The bootstrap resamples stars with both models' residuals.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xplabels import figures
from xplabels.calibration.shrinkage import ShrinkageCorrection
from xplabels.core.arrays import Array
from xplabels.core.prediction import Prediction
from xplabels.core.scores import SEED, rms, robust_scatter, scores_by_label, some_scores
from xplabels.validation import METAL_POOR, Validation, common_names
from xplabels.validation.finding import Finding, Section, aligned, score_row, score_title, with_unit
from xplabels.validation.populations import add_slopes, slopes_by_snr

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
    """The mean estimate and the one without shrinkage, overall and by S/N.

    ``validation`` holds the stars and known labels to compare, ``mean`` the mean estimate for the
    same N stars; ``along`` and ``snr`` are those of
    :func:`~xplabels.validation.populations.signal_to_noise`; ``reported`` is the estimate (``mean``
    or ``unshrunk``) shown in the rest of the report.
    """
    all_strengths = dict(zip(mean.names, correction.strength.tolist(), strict=True))
    strengths = {name: all_strengths[name] for name in validation.names}
    section = Section(
        "estimates", "With and without shrinkage (regression to the mean)", folded=True
    )
    section.paragraphs.append(
        "The mean is the best estimate for a single star, and shrinks to the training set's mean. "
        "The unshrunk estimate divides out the distribution of the training stars: it is unbiased "
        "at each known label, with larger errors. Its strengths (1: all Gaussian) and factors "
        "were fitted on the validation part: "
        f"{', '.join(f'{value:.2f} {name}' for name, value in strengths.items())}."
    )
    metrics: dict[str, Any] = {"strength": strengths}
    for title, prediction in (("mean", mean), ("unshrunk", correction.apply(mean))):
        samples = {
            name: replace(
                sample,
                predicted=prediction.values[sample.rows, k],
                error=prediction.errors[sample.rows, k],
                error_95=prediction.errors_95[sample.rows, k],
            )
            for name, sample in validation.samples.items()
            for k in (prediction.names.index(name),)
        }
        groups = {"all": samples}
        if (fe_h := validation.axes.get("fe_h")) is not None:
            poor = {name: s[fe_h[s.rows] < METAL_POOR] for name, s in samples.items()}
            if any(map(len, poor.values())):
                groups["metal_poor"] = poor
        slopes = slopes_by_snr(samples, snr, validation.resamples)
        metrics[title] = {
            group: scores_by_label(chosen, ESTIMATE_SCORES, validation.resamples)
            for group, chosen in groups.items()
        } | {"slope_by_snr": {"along": along, "labels": slopes} if slopes else None}
        if slopes and title != reported:
            add_slopes(section, f"slopes_{title}", f"Slope against S/N, {title}", along, slopes)
    rows = [
        score_row(f"{name}, {words}, {title}", metrics[title][group][name], ESTIMATE_SCORES)
        for name in strengths
        for group, words in GROUPS.items()
        for title in ("mean", "unshrunk")
        if group in metrics[title]
    ]
    header = ["label, stars, estimate", "N", *map(score_title, ESTIMATE_SCORES)]
    section.add_table("Both estimates; ± is the bootstrap error", header, rows)
    return Finding({"estimates": metrics}, section=section)


def model_finding(validation: Validation, other: Prediction, title: str, note: str = "") -> Finding:
    """Another model's prediction for the N stars of a validation, label by label.

    ``title`` is the other model's name, ``note`` a remark on the comparison.

    :class:`InputError` if the models have no label in common.
    """
    ratios, columns = {}, []
    truth, ours = validation.by_label("truth"), validation.by_label("predicted")
    for name in common_names(validation.names, other.names):
        theirs = other.values[validation.rows, other.names.index(name)]
        predicted = np.isfinite(ours[name]) & np.isfinite(theirs)  # by both models
        if predicted.sum() < FEWEST_STARS:
            continue
        column = np.where(predicted, np.stack([truth[name], ours[name], theirs]), np.nan)
        columns.append(column)
        our_residuals, their_residuals = (column[1:] - column[0])[:, predicted]
        ratios[name] = _ratios(our_residuals, their_residuals, validation.resamples)
    rows = []
    for name, ratio in ratios.items():
        cells = [with_unit(name), f"{ratio['n']:,}"]
        for key in ("rmse", "robust"):
            cells += [
                f"{ratio[key]:.4g}",
                f"{ratio[f'{key}_beside']:.4g}",
                f"{ratio[f'{key}_ratio']:.3f} ± {ratio[f'{key}_ratio_error']:.3f}",
            ]
        rows.append(cells)
    header = ["label", "N", "RMSE", "other's", "ratio", "robust", "other's", "ratio"]
    section = Section("beside", f"Beside {title}", [note] if note else [])
    section.add_table(
        f"This model and {title}; ratios are the other's over this one's, with bootstrap errors "
        "from resampled pairs",
        header,
        rows,
    )
    if columns:
        known, this, others = np.stack(columns, axis=2)
        pairs = (("known", "this model", known, this), ("known", "other model", known, others))
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


def _ratios(ours: Array, theirs: Array, resamples: int) -> dict[str, float]:
    """RMSE and robust scatter of two sets of residuals [n] of the same stars, with their ratios."""
    results: dict[str, float] = {"n": len(ours)}
    rows = np.random.default_rng(SEED).integers(0, len(ours), (resamples, len(ours)))
    for key, measure in (("rmse", rms), ("robust", robust_scatter)):
        our_scatter, their_scatter = float(measure(ours)), float(measure(theirs))
        ratios = np.full(2, np.nan)
        if resamples > 1:
            ratios = measure(theirs[rows]) / measure(ours[rows])
        results |= {
            key: our_scatter, f"{key}_beside": their_scatter,
            f"{key}_ratio": their_scatter / our_scatter,
            f"{key}_ratio_error": float(np.std(ratios, ddof=1)),
        }  # fmt: skip
    return results
