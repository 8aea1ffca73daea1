"""The populations that the stars show, and the paper's tables with numbers of these stars.

Abundance planes (FS24, figs 9 and 10), stars poor in nitrogen (section 4.1), shrinkage by S/N
(sections 4.1 and 6.1), tables 1-3, and the cut flow of the table. The paper's stars are others, so
its numbers are for orientation. It does not say the sign of its residuals; here they are
prediction minus the other value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels import figures
from xplabels.core.labels import LABELS, Labels
from xplabels.core.scores import (
    SCORES,
    Array,
    LabelSample,
    Scores,
    Statistic,
    median,
    score,
    scores_by_label,
    some_scores,
)
from xplabels.core.stars import CoefficientSpectra, Spectra
from xplabels.cuts.flow import CutFlow
from xplabels.validation import Validation
from xplabels.validation.finding import Finding, Section, format_score, with_unit

PLANES = (
    ("fe_h", "c_fe"), ("logg", "c_fe"), ("fe_h", "n_fe"), ("logg", "n_fe"), ("fe_h", "alpha_m"),
)  # fmt: skip
"""FS24, figures 9 and 10: abscissa and ordinate."""

POOR_IN_NITROGEN = -0.4
"""[N/Fe] below which FS24 doubt APOGEE's labels."""

NITROGEN_SCORES = {
    "median_known": Statistic(median, ("truth",), "median known"),
    **{
        f"predicted_{p}": Statistic(partial(np.percentile, q=p, axis=-1), ("predicted",), text)
        for p, text in ((16, "predicted 16 %"), (50, "50 %"), (84, "84 %"))
    },
    "median_label_error": Statistic(median, ("label_error",), "median label error"),
    "median_error": Statistic(median, ("error",), "median stated error"),
    "coverage_68": SCORES["coverage_68"]._replace(text="inside 68.3 %"),
}

SNR_BINS, FEWEST = 6, 100
"""Bins of equally many stars, and how many stars a bin must have at least."""

PAPER_SCORES = {
    "median_prediction": Statistic(median, ("predicted",), "median prediction"),
    "median_error": Statistic(median, ("error",), "median error"),
    "median_residual": Statistic(median, ("residual",), "median residual"),
    "rmse": SCORES["rmse"]._replace(text="RMSE"),
}
TABLE_1: dict[str, tuple[float, float, float, float]] = {
    "fe_h": (-0.22, 0.068, 0.043, 0.064),
    "teff": (4777.0, 69.1, -49.9, 51.77),
    "logg": (2.64, 0.14, -0.034, 0.091),
    "c_fe": (-0.014, 0.031, 0.016, 0.043),
    "n_fe": (0.20, 0.040, 0.036, 0.052),
    "alpha_m": (0.083, 0.029, -1.4e-3, 0.025),
}
"""As printed: :data:`PAPER_SCORES` against APOGEE, K and dex."""
TABLE_2: dict[str, dict[str, tuple[float, float]]] = {
    "lamost-lrs": {"fe_h": (0.096, 0.104), "teff": (-34.3, 81.5), "logg": (0.018, 0.134)},
    "lamost-mrs": {"c_fe": (0.052, 0.059), "n_fe": (0.120, 0.117), "alpha_m": (0.001, 0.027)},
}
"""As printed, by survey: median residual and RMSE against LAMOST DR7, K and dex."""
TABLE_3: dict[str, dict[str, float]] = {
    "Fallows & Sanders (2024)": {"fe_h": 0.068, "teff": 69.1, "logg": 0.142},
    "Leung & Bovy (2023)": {"fe_h": 0.070, "teff": 47.0, "logg": 0.110},
    "Andrae et al. (2023), inflated as they advise": {"fe_h": 0.039, "teff": 21.5, "logg": 0.028},
}
"""As printed: average errors, K and dex. The factors behind the last row are not printed."""


def planes_finding(validation: Validation, training_labels: Labels | None) -> Finding | None:
    """Abundance planes of predictions and known labels, or None without two such labels.

    The first column is what the model says, the second the same for the half of the stars whose
    errors are small in both labels, then the known labels of the stars and of the training set.
    """
    names, nitrogen = validation.names, nitrogen_scores(validation)
    metrics = {"poor_in_nitrogen": nitrogen} if nitrogen else {}
    pairs = [pair for pair in PLANES if set(pair) <= set(names)]
    if not pairs:
        return Finding(metrics) if metrics else None
    values = validation.by_label("predicted")
    columns = {
        "Predicted": values,
        "Predicted, small errors": _small(validation, values),
        "Known": validation.by_label("truth"),
    }
    if training_labels is not None and set(names) <= set(training_labels.names):
        known = training_labels.select(names).values
        columns["Training set"] = dict(zip(names, known.T, strict=True))
    section = Section("planes", "Abundance planes")
    section.add_picture(
        "planes",
        "Abundance planes",
        "Density of stars on a logarithmic scale. Small errors: stars whose stated error is below "
        "the median in every label shown. A model that shrinks to the mean makes these planes "
        "narrower than they are. As figures 9 and 10 of Fallows & Sanders (2024).",
        lambda: figures.planes(pairs, columns),
    )
    if nitrogen:
        section.paragraphs.append(
            "Fallows & Sanders (2024, section 4.1) find stars that APOGEE says are poor in "
            "nitrogen, which their network spreads over -0.2 < [N/Fe] < 0.6, and doubt the labels, "
            "whose errors are larger there."
        )
        header = ["stars", "N", *(statistic.text for statistic in NITROGEN_SCORES.values())]
        rows = [
            [title, f"{one.n:,}", *(format_score(one, key) for key in NITROGEN_SCORES)]
            for title, one in nitrogen.items()
        ]
        section.add_table("Stars poor in nitrogen", header, rows)
    return Finding(metrics, section=section)


def nitrogen_scores(validation: Validation) -> dict[str, Scores]:
    """Stars with a known [N/Fe] below -0.4, and all others; empty where no star has [N/Fe]."""
    sample = validation.samples.get("n_fe")
    if sample is None or not len(sample):
        return {}
    poor = sample.truth < POOR_IN_NITROGEN
    groups = {
        f"known [N/Fe] < {POOR_IN_NITROGEN:g}": sample[poor],
        "others": sample[~poor],
    }
    return scores_by_label(groups, NITROGEN_SCORES, **validation.bootstrap)


def _small(validation: Validation, values: Mapping[str, Array]) -> dict[str, Array]:
    """The predictions with NaN where an error of any label in a plane is above the median."""
    inside = np.ones(len(validation.rows), bool)
    errors = validation.by_label("error")
    for name in {name for pair in PLANES for name in pair} & set(values):
        known = np.isfinite(errors[name])
        if known.any():
            inside &= known & (errors[name] <= np.median(errors[name][known]))
    return {name: np.where(inside, column, np.nan) for name, column in values.items()}


def paper_finding(validation: Validation) -> Finding:
    """FS24's tables 1 and 3."""
    section = Section("tables", "Beside the paper")
    section.paragraphs.append(
        "The paper's numbers are of other stars, and printed here for orientation."
    )
    caption = "As table 1 of Fallows & Sanders (2024); residuals are prediction minus known label"
    metrics = {
        "table_1": add_paper_table(section, validation, caption, TABLE_1),
        "table_3": add_errors_table(section, validation),
    }
    return Finding(metrics, section=section)


def add_paper_table(
    section: Section,
    validation: Validation,
    caption: str,
    printed: Mapping[str, tuple[float, ...]],
) -> dict[str, Scores]:
    """FS24's table 1 or 2: scores of each label, and what the paper prints in the last columns."""
    scores, rows = scores_by_label(validation.samples, PAPER_SCORES, **validation.bootstrap), []
    for name, one in scores.items():
        rows.append([with_unit(name), *(format_score(one, s) for s in PAPER_SCORES), str(one.n)])
        if name in printed:
            numbers = [f"{value:g}" for value in printed[name]]
            blank = ["-"] * (len(PAPER_SCORES) - len(numbers))
            rows.append(["paper, other stars", *blank, *numbers, "-"])
    section.add_table(caption, ["label", *(s.text for s in PAPER_SCORES.values()), "N"], rows)
    return scores


def add_errors_table(
    section: Section, validation: Validation, catalogue: str | None = None
) -> dict[str, dict[str, Scores]]:
    """FS24's table 3: median errors as stated by the model and, by its title, another catalogue.

    The catalogue's are the errors of the labels compared with.
    """
    sources = {"this model": "error"} | ({} if catalogue is None else {catalogue: "label_error"})
    found, names = {}, validation.names
    for title, attribute in sources.items():
        statistic = {"median_error": Statistic(median, (attribute,))}
        found[title] = scores_by_label(validation.samples, statistic, **validation.bootstrap)
    rows = [
        [title, *(format_score(scores[name], "median_error") for name in names)]
        for title, scores in found.items()
    ]
    rows += [
        [f"{title}, as printed", *(f"{printed[n]:g}" if n in printed else "-" for n in names)]
        for title, printed in TABLE_3.items()
    ]
    counts = ", ".join(f"{len(s):,} {n}" for n, s in validation.samples.items())
    section.add_table(
        f"Errors that catalogues state, medians (as table 3 of Fallows & Sanders 2024); N here: "
        f"{counts}. Rows as printed are of other stars",
        ["catalogue", *map(with_unit, names)],
        rows,
    )
    return found


def signal_to_noise(spectra: Spectra) -> tuple[str, Array]:
    """What stands for a spectrum's S/N, in words, and the numbers [N].

    The median over wavelengths of sampled spectra; of archive coefficients RP's first, which
    carries most of the flux.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        if isinstance(spectra, CoefficientSpectra):
            title = "S/N of RP coefficient 0"
            ratio = spectra.rp.coefficients[:, 0] / spectra.rp.errors[:, 0]
        else:
            title = "median S/N a sample"
            ratio = np.median(spectra.flux / spectra.flux_error, axis=1)
    return title, np.where(np.isfinite(ratio) & (ratio > 0), ratio, np.nan)


@dataclass(frozen=True)
class SlopesBySnr:
    """Slope of prediction on truth in bins of S/N: where it is below 1, labels shrink to the mean.

    ``along`` says what the S/N is of, ``edges`` [B + 1] are those of the bins, ``middle`` [B] the
    median S/N in each; ``slopes`` holds for each label the scores ``slope`` and ``rmse`` [B].
    """

    along: str
    edges: Array
    middle: Array
    slopes: Mapping[str, tuple[Scores, ...]]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in ``metrics.json``."""
        return {
            "along": self.along,
            "labels": {
                name: [
                    {"low": low, "high": high, **one.to_dict()}
                    for (low, high), one in zip(pairwise(self.edges), row, strict=True)
                ]
                for name, row in self.slopes.items()
            },
        }

    def add_picture(self, section: Section, name: str, title: str, caption: str = "") -> None:
        """Slopes against S/N."""
        rows = self.slopes.values()
        value = np.array([[one["slope"] for one in row] for row in rows]).T
        error = np.array([[one.error["slope"] for one in row] for row in rows]).T
        caption += "Bins of equally many stars; bars are bootstrap errors. 1: no shrinkage."
        names = tuple(self.slopes)
        draw = partial(figures.slopes, names, self.along, self.middle, value, error)
        section.add_picture(name, title, caption, draw)


def slopes_by_snr(
    samples: Mapping[str, LabelSample],
    along: str,
    snr: Array,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> SlopesBySnr | None:
    """Slopes in bins of equally many stars, or None where there are too few for two bins.

    ``samples`` are those of a :class:`~xplabels.validation.Validation`, ``along`` and ``snr`` [N]
    what :func:`signal_to_noise` gives for all N stars.
    """
    compared = np.unique(np.concatenate([sample.rows for sample in samples.values()]))
    known = snr[compared][np.isfinite(snr[compared])]
    bins = min(SNR_BINS, len(known) // FEWEST)
    if bins < 2:
        return None
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)))
    if len(edges) < 3:
        return None

    def bin_of(values: Array) -> NDArray[np.intp]:
        """The last one is closed; -1 where the S/N is not known."""
        which = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        return np.where(np.isfinite(values), which, -1)

    numbers = range(len(edges) - 1)
    statistics = some_scores("slope", "rmse")
    slopes = {}
    for name, sample in samples.items():
        which = bin_of(snr[sample.rows])
        slopes[name] = tuple(
            score(sample[which == b], statistics, resamples=resamples, seed=seed) for b in numbers
        )
    middle = np.array([np.median(known[bin_of(known) == b]) for b in numbers])
    return SlopesBySnr(along, edges, middle, slopes)


def shrinkage_finding(trend: SlopesBySnr) -> Finding:
    """Slope of prediction on truth by S/N."""
    section = Section("trend", "Shrinkage (regression to the mean)")
    section.paragraphs.append(
        "The least-squares slope of prediction on known label is below 1 where the model falls "
        "back on what is usual. Errors of the known labels lower it, too."
    )
    rows = [
        [
            f"{low:.4g} to {high:.4g}",
            f"{max(one.n for one in scores):,}",
            *(format_score(one, "slope") for one in scores),
        ]
        for (low, high), *scores in zip(pairwise(trend.edges), *trend.slopes.values(), strict=True)
    ]
    section.add_table("Slopes", [trend.along, "N", *(LABELS[n].name for n in trend.slopes)], rows)
    trend.add_picture(section, "slopes", "Slope against S/N")
    return Finding({"slope_by_snr": trend.to_dict()}, section=section)


def flow_finding(flow: CutFlow) -> Finding:
    """The cut flow of the table the stars came in."""
    metrics, section = flow.to_dict(), Section("cuts", "Cut flow of the table")
    rows = [["rows given", "", "", f"{flow.before:,}", ""]]
    for cut in metrics["cuts"]:
        numbers = [f"{cut['alone']:,}", f"{cut['removed']:,}"]
        if cut["applies"] is None:
            numbers = ["not applied", ""]
        rows.append([cut["name"], *numbers, f"{cut['remaining']:,}", cut["text"]])
    section.add_table("", ["rule", "alone", "in sequence", "remaining", ""], rows)
    caption = "By each rule alone, and in sequence, on a logarithmic axis."
    section.add_picture("cuts", "Rows removed", caption, flow.figure)
    return Finding({"cut_flow": metrics}, section=section)
