"""The populations that the stars show, and the paper's tables beside theirs.

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
from xplabels.validation.finding import (
    Finding,
    Picture,
    ReportTable,
    Section,
    format_score,
    with_unit,
)

PLANES = (
    ("fe_h", "c_fe"), ("logg", "c_fe"), ("fe_h", "n_fe"), ("logg", "n_fe"), ("fe_h", "alpha_m"),
)  # fmt: skip
"""FS24, figures 9 and 10: abscissa and ordinate."""

POOR_IN_NITROGEN = -0.4
"""[N/Fe] below which FS24 doubt APOGEE's labels."""

NITROGEN_SCORES = {
    "median_known": Statistic(median, ("truth",)),
    **{
        f"predicted_{p}": Statistic(partial(np.percentile, q=p, axis=-1), ("predicted",))
        for p in (16, 50, 84)
    },
    "median_label_error": Statistic(median, ("label_error",)),
    "median_error": Statistic(median, ("error",)),
    "coverage_68": SCORES["coverage_68"],
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
    names = validation.names
    pairs = [pair for pair in PLANES if set(pair) <= set(names)]
    nitrogen = nitrogen_scores(validation)
    metrics = {"poor_in_nitrogen": nitrogen} if nitrogen else {}
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
    picture = Picture(
        "planes",
        partial(figures.planes, pairs, columns),
        "Abundance planes",
        "Density of stars on a logarithmic scale. Small errors: stars whose stated error is below "
        "the median in every label shown. A model that shrinks to the mean makes these planes "
        "narrower than they are. As figures 9 and 10 of Fallows & Sanders (2024).",
    )
    text, tables = [], []
    if nitrogen:
        text.append(
            "Fallows & Sanders (2024, section 4.1) find stars that APOGEE says are poor in "
            "nitrogen, which their network spreads over -0.2 < [N/Fe] < 0.6, and doubt the labels, "
            "whose errors are larger there."
        )
        header = [
            "stars", "N", "median known", "predicted 16 %", "50 %", "84 %", "median label error",
            "median stated error", "inside 68.3 %",
        ]  # fmt: skip
        rows = [
            [title, f"{one.n:,}", *(format_score(one, key) for key in NITROGEN_SCORES)]
            for title, one in nitrogen.items()
        ]
        tables.append(ReportTable("Stars poor in nitrogen", header, rows))
    return Finding(metrics, section=Section("planes", "Abundance planes", text, tables, [picture]))


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
    scores, errors = paper_scores(validation), error_scores(validation)
    caption = "As table 1 of Fallows & Sanders (2024); residuals are prediction minus known label"
    tables = [paper_table(caption, scores, TABLE_1), errors_table(validation, errors)]
    text = "The paper's numbers are of other stars, and printed here for orientation."
    return Finding(
        {"table_1": scores, "table_3": errors},
        section=Section("tables", "Beside the paper", [text], tables),
    )


def paper_scores(validation: Validation) -> dict[str, Scores]:
    """:data:`PAPER_SCORES` of each label over the stars compared."""
    return scores_by_label(validation.samples, PAPER_SCORES, **validation.bootstrap)


def paper_table(
    caption: str, scores: Mapping[str, Scores], printed: Mapping[str, tuple[float, ...]]
) -> ReportTable:
    """FS24's table 1 or 2: scores of each label, and what the paper prints in the last columns."""
    rows = []
    for name, one in scores.items():
        rows.append([with_unit(name), *(format_score(one, s) for s in PAPER_SCORES), str(one.n)])
        if name in printed:
            numbers = [f"{value:g}" for value in printed[name]]
            blank = ["-"] * (len(PAPER_SCORES) - len(numbers))
            rows.append(["paper, other stars", *blank, *numbers, "-"])
    return ReportTable(caption, ["label", *(s.text for s in PAPER_SCORES.values()), "N"], rows)


def error_scores(
    validation: Validation, catalogue: str | None = None
) -> dict[str, dict[str, Scores]]:
    """Median stated errors by source: the model's and, by its title, another catalogue's.

    The catalogue's are the errors of the labels compared with.
    """
    sources = {"this model": "error"} | ({} if catalogue is None else {catalogue: "label_error"})
    return {
        title: scores_by_label(
            validation.samples,
            {"median_error": Statistic(median, (attribute,))},
            **validation.bootstrap,
        )
        for title, attribute in sources.items()
    }


def errors_table(validation: Validation, errors: Mapping[str, Mapping[str, Scores]]) -> ReportTable:
    """FS24's table 3: how large the errors are that catalogues state."""
    names = validation.names
    rows = [
        [title, *(format_score(scores[name], "median_error") for name in names)]
        for title, scores in errors.items()
    ]
    rows += [
        [f"{title}, as printed", *(f"{printed[n]:g}" if n in printed else "-" for n in names)]
        for title, printed in TABLE_3.items()
    ]
    counts = ", ".join(f"{len(s):,} {n}" for n, s in validation.samples.items())
    caption = (
        f"Errors that catalogues state, medians (as table 3 of Fallows & Sanders 2024); N here: "
        f"{counts}. Rows as printed are of other stars"
    )
    return ReportTable(caption, ["catalogue", *map(with_unit, names)], rows)


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

    Attributes
    ----------
    along
        What the S/N is of, in words.
    edges, middle
        Of the bins [B + 1], and the median S/N in each [B].
    slopes
        By label, scores ``slope`` and ``rmse`` for each bin.
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

    def picture(self, name: str, title: str, caption: str) -> Picture:
        """Slopes against S/N."""
        rows = self.slopes.values()
        value = np.array([[one["slope"] for one in row] for row in rows]).T
        error = np.array([[one.error["slope"] for one in row] for row in rows]).T
        draw = partial(figures.slopes, tuple(self.slopes), self.along, self.middle, value, error)
        caption += "Bins of equally many stars; bars are bootstrap errors. 1: no shrinkage."
        return Picture(name, draw, title, caption)


def slopes_by_snr(
    samples: Mapping[str, LabelSample],
    along: str,
    snr: Array,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> SlopesBySnr | None:
    """Slopes in bins of equally many stars, or None where there are too few for two bins.

    Parameters
    ----------
    samples
        By label, of a :class:`~xplabels.validation.Validation`.
    along, snr
        What :func:`signal_to_noise` gives for all N stars.
    resamples, seed
        Of the bootstrap.
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
    rows = [
        [
            f"{low:.4g} to {high:.4g}",
            f"{max(one.n for one in scores):,}",
            *(format_score(one, "slope") for one in scores),
        ]
        for (low, high), *scores in zip(pairwise(trend.edges), *trend.slopes.values(), strict=True)
    ]
    text = (
        "The least-squares slope of prediction on known label is below 1 where the model falls "
        "back on what is usual. Errors of the known labels lower it, too."
    )
    header = [trend.along, "N", *(LABELS[name].name for name in trend.slopes)]
    section = Section(
        "trend",
        "Shrinkage (regression to the mean)",
        [text],
        [ReportTable("Slopes", header, rows)],
        [trend.picture("slopes", "Slope against S/N", "")],
    )
    return Finding({"slope_by_snr": trend.to_dict()}, section=section)


def flow_finding(flow: CutFlow) -> Finding:
    """The cut flow of the table the stars came in."""
    metrics = flow.to_dict()
    rows = [["rows given", "", "", f"{flow.before:,}", ""]]
    for cut in metrics["cuts"]:
        numbers = [f"{cut['alone']:,}", f"{cut['removed']:,}"]
        if cut["applies"] is None:
            numbers = ["not applied", ""]
        rows.append([cut["name"], *numbers, f"{cut['remaining']:,}", cut["text"]])
    section = Section(
        "cuts",
        "Cut flow of the table",
        tables=[ReportTable("", ["rule", "alone", "in sequence", "remaining", ""], rows)],
        pictures=[
            Picture(
                "cuts",
                flow.figure,
                "Rows removed",
                "By each rule alone, and in sequence, on a logarithmic axis.",
            )
        ],
    )
    return Finding({"cut_flow": metrics}, section=section)
