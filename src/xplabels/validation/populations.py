"""Stellar populations in the predictions, and the paper's tables for the stars compared.

Abundance planes (FS24, figs 9 and 10), nitrogen-poor stars (section 4.1), shrinkage by S/N
(sections 4.1 and 6.1), tables 1-3, and the cut flow of the table. The paper's numbers are for
other stars, for orientation only. It does not give the sign of its residuals; here they are
prediction minus the other value.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise

import numpy as np

from xplabels import figures
from xplabels.core.arrays import Array
from xplabels.core.labels import Labels
from xplabels.core.scores import (
    SCORES,
    Bin,
    LabelSample,
    Scores,
    Statistic,
    binned,
    median,
    scores_by_label,
    some_scores,
)
from xplabels.core.stars import CoefficientSpectra, Spectra
from xplabels.cuts.flow import CutFlow
from xplabels.validation import Validation
from xplabels.validation.finding import (
    Finding,
    Section,
    bin_rows,
    format_score,
    score_row,
    with_unit,
)

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
"""Most bins along S/N, with equally many stars each, and fewest stars in a bin."""

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
"""FS24's table 1 as printed: :data:`PAPER_SCORES` against APOGEE, in K and dex."""
TABLE_2: dict[str, dict[str, tuple[float, float]]] = {
    "lamost-lrs": {"fe_h": (0.096, 0.104), "teff": (-34.3, 81.5), "logg": (0.018, 0.134)},
    "lamost-mrs": {"c_fe": (0.052, 0.059), "n_fe": (0.120, 0.117), "alpha_m": (0.001, 0.027)},
}
"""FS24's table 2 as printed, by survey: median residual and RMSE against LAMOST DR7, K and dex."""
TABLE_3: dict[str, dict[str, float]] = {
    "Fallows & Sanders (2024)": {"fe_h": 0.068, "teff": 69.1, "logg": 0.142},
    "Leung & Bovy (2023)": {"fe_h": 0.070, "teff": 47.0, "logg": 0.110},
    "Andrae et al. (2023), inflated as they advise": {"fe_h": 0.039, "teff": 21.5, "logg": 0.028},
}
"""FS24's table 3 as printed: average errors, K and dex. The last row's factors are not printed."""


def planes_finding(validation: Validation, training_labels: Labels | None) -> Finding | None:
    """Abundance planes of predictions and known labels, or None without two such labels.

    The columns of planes are the predictions, those of the stars whose errors are below the median
    in every label shown, and the known labels of these stars and of the training set.
    """
    names, nitrogen = validation.names, nitrogen_scores(validation)
    metrics = {"poor_in_nitrogen": nitrogen} if nitrogen else {}
    pairs = [pair for pair in PLANES if set(pair) <= set(names)]
    if not pairs:
        return Finding(metrics) if metrics else None
    values, errors = validation.by_label("predicted"), validation.by_label("error")
    small = np.ones(len(validation.rows), bool)
    for name in {name for pair in PLANES for name in pair} & set(names):
        if np.isfinite(errors[name]).any():
            small &= errors[name] <= np.nanmedian(errors[name])
    columns = {
        "Predicted": values,
        "Predicted, small errors": {k: np.where(small, v, np.nan) for k, v in values.items()},
        "Known": validation.by_label("truth"),
    }
    if training_labels is not None and set(names) <= set(training_labels.names):
        known = training_labels.select(names).values
        columns["Training set"] = dict(zip(names, known.T, strict=True))
    section = Section("planes", "Abundance planes", folded=True)
    section.add_picture(
        "planes",
        "Abundance planes",
        "Density of stars on a logarithmic scale. Small errors: stars whose stated error is below "
        "the median in every label shown. Shrinkage makes these planes narrower than they are. "
        "As figures 9 and 10 of Fallows & Sanders (2024).",
        lambda: figures.planes(pairs, columns),
    )
    if nitrogen:
        section.paragraphs.append(
            "Fallows & Sanders (2024, section 4.1) find stars that are nitrogen-poor according to "
            "APOGEE, which their network spreads over -0.2 < [N/Fe] < 0.6, and doubt the labels, "
            "whose errors are larger there."
        )
        header = ["stars", "N", *(statistic.text for statistic in NITROGEN_SCORES.values())]
        rows = [score_row(title, scores, NITROGEN_SCORES) for title, scores in nitrogen.items()]
        section.add_table("Stars poor in nitrogen", header, rows)
    return Finding(metrics, section=section)


def nitrogen_scores(validation: Validation) -> dict[str, Scores]:
    """Scores of stars with a known [N/Fe] below -0.4, and of all others; empty without [N/Fe]."""
    sample = validation.samples.get("n_fe")
    if sample is None or not len(sample):
        return {}
    poor = sample.truth < POOR_IN_NITROGEN
    groups = {f"known [N/Fe] < {POOR_IN_NITROGEN:g}": sample[poor], "others": sample[~poor]}
    return scores_by_label(groups, NITROGEN_SCORES, validation.resamples)


def paper_finding(validation: Validation) -> Finding:
    """FS24's tables 1 and 3."""
    section = Section("tables", "Beside the paper", folded=True)
    section.paragraphs.append("The paper's numbers are for other stars, for orientation only.")
    caption = "As table 1 of Fallows & Sanders (2024); residuals are prediction minus known label"
    metrics = {
        "table_1": add_paper_table(section, validation, caption, TABLE_1),
        "table_3": add_errors_table(section, validation),
    }
    return Finding(metrics, section=section)


def add_paper_table(
    section: Section, validation: Validation, caption: str, printed: Mapping[str, tuple[float, ...]]
) -> dict[str, Scores]:
    """FS24's table 1 or 2: scores of each label, and below them the paper's numbers.

    The ``printed`` numbers of a label are for the last of the :data:`PAPER_SCORES`.
    """
    by_label, rows = scores_by_label(validation.samples, PAPER_SCORES, validation.resamples), []
    for name, scores in by_label.items():
        rows.append(score_row(with_unit(name), scores, PAPER_SCORES))
        if name in printed:
            numbers = [f"{value:g}" for value in printed[name]]
            # no N, and no numbers for the first scores
            not_printed = ["-"] * (1 + len(PAPER_SCORES) - len(numbers))
            rows.append(["paper, other stars", *not_printed, *numbers])
    section.add_table(caption, ["label", "N", *(s.text for s in PAPER_SCORES.values())], rows)
    return by_label


def add_errors_table(
    section: Section, validation: Validation, catalogue: str | None = None
) -> dict[str, dict[str, Scores]]:
    """FS24's table 3: median errors stated by the model and by the ``catalogue`` it is compared to.

    Returns the scores of each label by source.
    """
    sources = {"this model": "error"} | ({} if catalogue is None else {catalogue: "label_error"})
    errors, names = {}, validation.names
    for title, attribute in sources.items():
        statistic = {"median_error": Statistic(median, (attribute,))}
        errors[title] = scores_by_label(validation.samples, statistic, validation.resamples)
    rows = [
        [title, *(format_score(scores[name], "median_error") for name in names)]
        for title, scores in errors.items()
    ]
    rows += [
        [f"{title}, as printed", *(f"{printed[n]:g}" if n in printed else "-" for n in names)]
        for title, printed in TABLE_3.items()
    ]
    counts = ", ".join(f"{len(sample):,} {name}" for name, sample in validation.samples.items())
    section.add_table(
        f"Median errors stated by catalogues (as table 3 of Fallows & Sanders 2024); N here: "
        f"{counts}. Rows as printed are for other stars",
        ["catalogue", *map(with_unit, names)],
        rows,
    )
    return errors


def signal_to_noise(spectra: Spectra) -> tuple[str, Array]:
    """A measure of the spectra's S/N: its name, and its values [N].

    For sampled spectra it is the median over the samples; for archive coefficients that of RP's
    first, which has most of the flux.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        if isinstance(spectra, CoefficientSpectra):
            title = "S/N of RP coefficient 0"
            ratio = spectra.rp.coefficients[:, 0] / spectra.rp.errors[:, 0]
        else:
            title = "median S/N a sample"
            ratio = np.median(spectra.flux / spectra.flux_error, axis=1)
    return title, np.where(np.isfinite(ratio) & (ratio > 0), ratio, np.nan)


def slopes_by_snr(
    samples: Mapping[str, LabelSample], snr: Array, resamples: int
) -> dict[str, tuple[Bin, ...]]:
    """``slope`` and ``rmse`` of each label in bins of equally many stars along ``snr`` [N].

    Empty if there are too few stars for two bins.
    """
    compared = snr[np.unique(np.concatenate([sample.rows for sample in samples.values()]))]
    compared = compared[np.isfinite(compared)]
    bins = min(SNR_BINS, len(compared) // FEWEST)
    if bins < 2:
        return {}
    edges = np.unique(np.quantile(compared, np.linspace(0, 1, bins + 1)))
    if len(edges) < 3:
        return {}
    edges[-1] = np.nextafter(edges[-1], np.inf)  # the last bin includes its upper edge
    statistics, limits = some_scores("slope", "rmse"), list(pairwise(edges.tolist()))
    return {
        name: binned(snr, sample, limits, statistics, resamples=resamples)
        for name, sample in samples.items()
    }


def add_slopes(
    section: Section, name: str, title: str, along: str, slopes: Mapping[str, tuple[Bin, ...]]
) -> None:
    """A picture of the slopes against S/N."""
    caption = "Bins of equally many stars; bars are bootstrap errors. 1: no shrinkage."
    section.add_picture(name, title, caption, lambda: figures.slopes(along, slopes))


def shrinkage_finding(validation: Validation, along: str, snr: Array) -> Finding | None:
    """Slope of prediction on truth by S/N, or None where there are too few stars.

    ``along`` and ``snr`` [N] are those of :func:`signal_to_noise`.
    """
    slopes = slopes_by_snr(validation.samples, snr, validation.resamples)
    if not slopes:
        return None
    section = Section("trend", "Shrinkage (regression to the mean)", folded=True)
    section.paragraphs.append(
        "The least-squares slope of prediction on known label is below 1 where predictions shrink "
        "to the mean. Errors of the known labels also lower it."
    )
    rows = bin_rows(slopes, lambda b: ["-" if b is None else format_score(b.scores, "slope")])
    section.add_table("Slopes", [along, "N", *slopes], rows)
    add_slopes(section, "slopes", "Slope against S/N", along, slopes)
    return Finding({"slope_by_snr": {"along": along, "labels": slopes}}, section=section)


def flow_finding(flow: CutFlow) -> Finding:
    """The cut flow of the stars' table."""
    metrics, section = flow.to_dict(), Section("cuts", "Cut flow of the table", folded=True)
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
