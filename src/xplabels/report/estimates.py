"""Both estimates of a model side by side: its mean, and that without the trend to the mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xplabels.calibration.shrinkage import ShrinkageCorrection
from xplabels.core.prediction import Prediction
from xplabels.core.scores import Array, Sample, Scores, robust_scatter, score, slope
from xplabels.figures import populations as figures
from xplabels.report.sections import Picture, Section, Table, score_text
from xplabels.validation import METAL_POOR, Validation
from xplabels.validation.trend import Trend, trend_along
from xplabels.validation.wording import as_json

STATISTICS = ("slope", "rmse", "robust", "bias", "coverage_68", "coverage_95", "sharpness")
GROUPS = {"all": "all", "metal_poor": "[Fe/H] < -1"}


@dataclass(frozen=True)
class Estimates:
    """What :func:`compare_estimates` found.

    Attributes
    ----------
    scores
        ``scores[estimate][group][label]``; estimates ``mean`` and ``unshrunk``, groups ``all``
        and ``metal_poor`` (where [Fe/H] is known of enough stars).
    trends
        Slopes by S/N of each estimate; None where the stars are too few.
    strength
        By label, of the :class:`~xplabels.calibration.shrinkage.ShrinkageCorrection`.
    """

    scores: Mapping[str, Mapping[str, Mapping[str, Scores]]]
    trends: Mapping[str, Trend | None]
    strength: Mapping[str, float]

    def to_metrics(self) -> dict[str, Any]:
        """As it stands in ``metrics.json``, under ``estimates``."""
        plain: dict[str, Any] = as_json(
            {
                "strength": dict(self.strength),
                **{
                    title: {
                        group: {name: one.to_metrics() for name, one in labels.items()}
                        for group, labels in groups.items()
                    }
                    | {"slope_by_snr": None if trend is None else trend.to_metrics()}
                    for (title, groups), trend in zip(
                        self.scores.items(), self.trends.values(), strict=True
                    )
                },
            }
        )
        return plain

    def section(self, reported: str) -> Section:
        """The section of a report that is of the estimate ``reported``, but for this section."""
        rows = []
        for name in self.strength:
            for group, title in GROUPS.items():
                for estimate, groups in self.scores.items():
                    if group not in groups:
                        continue
                    one = groups[group][name]
                    rows.append(
                        [f"{name}, {title}, {estimate}", f"{one.n:,}",
                         *(score_text(one, key) for key in STATISTICS)]
                    )  # fmt: skip
        strengths = ", ".join(f"{value:.2f} {name}" for name, value in self.strength.items())
        header = ["label, stars, estimate", "N", *(key.replace("_", " ") for key in STATISTICS)]
        return Section(
            "estimates",
            "With and without the trend to the mean",
            [
                "The mean is the best guess for one star, and drawn to what is usual. The unshrunk "
                "estimate divides the training stars' distribution out of it: right on average at "
                "each known label, with larger errors. Its strengths (1: all Gaussian) and factors "
                f"were fitted on the validation part: {strengths}."
            ],
            [Table("Both estimates; ± is the bootstrap error", header, rows)],
            self._pictures(reported),
        )

    def _pictures(self, reported: str) -> list[Picture]:
        return [
            Picture(
                f"slopes_{estimate}",
                figures.slopes(
                    tuple(trend.slopes), trend.along, trend.middle, *_slopes(trend)
                ),
                f"Slope against S/N, {estimate}",
                f"The {estimate} estimate, which the rest of this report is not about. Bins of "
                "equally many stars; bars are bootstrap errors. 1: no trend to the mean.",
            )
            for estimate, trend in self.trends.items()
            if trend is not None and estimate != reported
        ]  # fmt: skip


def compare_estimates(
    validation: Validation,
    mean: Prediction,
    unshrinking: ShrinkageCorrection,
    along: str,
    snr: Array,
) -> Estimates:
    """Scores of both estimates of the stars of a validation.

    Parameters
    ----------
    validation
        Of either estimate: it says which stars and known labels are compared.
    mean
        The model's mean estimate of the same N stars.
    unshrinking
        The model's.
    along, snr
        What :func:`~xplabels.validation.trend.signal_to_noise` gives for the N stars.
    """
    settings = {"resamples": validation.resamples, "seed": validation.seed}
    fe_h = validation.axes.get("fe_h")
    scores: dict[str, dict[str, dict[str, Scores]]] = {}
    trends = {}
    for title, prediction in (("mean", mean), ("unshrunk", unshrinking.apply(mean))):
        samples = {
            name: _sample(prediction, name, known) for name, known in validation.samples.items()
        }
        groups = {"all": samples}
        if fe_h is not None:
            poor = {name: s[fe_h[s.rows] < METAL_POOR] for name, s in samples.items()}
            if any(len(sample) for sample in poor.values()):
                groups["metal_poor"] = poor
        scores[title] = {
            group: {name: score(s, _statistics, **settings) for name, s in chosen.items()}
            for group, chosen in groups.items()
        }
        trends[title] = trend_along(samples, along, snr, **settings)
    chosen_strength = dict(zip(mean.names, unshrinking.strength.tolist(), strict=True))
    return Estimates(scores, trends, {name: chosen_strength[name] for name in validation.names})


def _sample(prediction: Prediction, name: str, known: Sample) -> Sample:
    """The same stars and known labels, by another estimate."""
    k, rows = prediction.names.index(name), known.rows
    return Sample(
        rows, known.truth, prediction.values[rows, k], prediction.errors[rows, k],
        prediction.errors_95[rows, k], known.label_error,
    )  # fmt: skip


def _statistics(of: Callable[[str], Array]) -> dict[str, Array]:
    residual = of("residual")
    return {
        "slope": slope(of("truth"), of("predicted")),
        "rmse": np.sqrt((residual**2).mean(axis=-1)),
        "robust": robust_scatter(residual),
        "bias": np.median(residual, axis=-1),
        "coverage_68": of("inside_68").mean(axis=-1),
        "coverage_95": of("inside_95").mean(axis=-1),
        "sharpness": np.median(of("error"), axis=-1),
    }


def _slopes(trend: Trend) -> tuple[Array, Array]:
    """Slopes and their errors, [B, K] each."""
    rows = list(trend.slopes.values())
    return (
        np.array([[one["slope"] for one in row] for row in rows]).T,
        np.array([[one.error["slope"] for one in row] for row in rows]).T,
    )
