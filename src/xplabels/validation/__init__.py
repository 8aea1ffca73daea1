"""Predictions against known labels: accuracy, and whether the error bars are right (METHOD 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.calibration.joint import Joint, joint_coverage
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.errors import InputError
from xplabels.core.flags import TABLE_WIDE, Flag
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.scores import SCORES, Array, Bin, Group, Sample, Scores, bin_statistics, score
from xplabels.validation.gate import PREDICTED, calibration_gate
from xplabels.validation.wording import aligned, as_json, format_score, with_unit

BIN_WIDTHS: dict[str, float] = {
    "g_mag": 0.5,
    "bp_rp": 0.25,
    "teff": 250.0,
    "logg": 0.5,
    "fe_h": 0.25,
    "c_fe": 0.1,
    "n_fe": 0.1,
    "alpha_m": 0.05,
}
"""Width of the bins along each axis, in its unit (mag, or the label's)."""

METAL_POOR = -1.0
"""Stars below this [Fe/H] are scored by themselves."""


@dataclass(frozen=True)
class Validation:
    """What :func:`validate` found.

    Attributes
    ----------
    names
        The labels compared.
    groups
        Scores by group: ``all``, ``unflagged``, ``metal_poor`` ([Fe/H] < -1, as known).
    bins
        ``bins[axis][label]``: bins along G, BP-RP, each known label and each predicted one
        (ending ``_predicted``). Along a known label, even right errors over- and undercover
        somewhere, because predictions tend to the mean; along a predicted one they must not.
    samples
        By label, the stars compared: residuals, z, PIT and so on.
    axes
        The values [N] that the bins are along.
    flags
        How many of the stars compared carry each flag.
    selection
        Which stars were compared, in words.
    resamples, seed
        Of the bootstrap.
    margin
        What multiplies the tolerances of :func:`calibration_gate`.
    joint
        Coverage of all labels together, where the prediction has their correlations.
    """

    names: tuple[str, ...]
    groups: Mapping[str, Group]
    bins: Mapping[str, Mapping[str, tuple[Bin, ...]]]
    samples: Mapping[str, Sample]
    axes: Mapping[str, Array] = field(repr=False)
    flags: Mapping[str, int]
    selection: str
    resamples: int
    seed: int
    margin: float = 1.0
    joint: Joint | None = None

    @property
    def n(self) -> int:
        """Stars with at least one label compared."""
        return self.groups["all"].n

    @property
    def labels(self) -> Mapping[str, Scores]:
        """Scores of each label over all stars compared."""
        return self.groups["all"].labels

    def to_metrics(self, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The content of ``metrics.json``: plain numbers, None where a number is not defined."""
        violations = calibration_gate(self)
        metrics: dict[str, Any] = self.groups["all"].to_metrics()
        metrics |= {key: g.to_metrics() for key, g in self.groups.items() if key != "all"}
        metrics["bins"] = {
            axis: {name: [b.to_metrics(self.margin) for b in row] for name, row in by_label.items()}
            for axis, by_label in self.bins.items()
        }
        metrics["calibration"] = {
            "passed": not violations,
            "violations": violations,
            "margin": self.margin,
        }
        if self.joint is not None:
            metrics["joint"] = self.joint.to_metrics()
        metrics["flags"] = dict(self.flags)
        metrics["settings"] = {
            "selection": self.selection,
            "bootstrap_resamples": self.resamples,
            "bootstrap_seed": self.seed,
            "nominal_coverage_68": LEVEL_68,
            "nominal_coverage_95": LEVEL_95,
        }
        metrics["provenance"] = dict(provenance or {})
        plain: dict[str, Any] = as_json(metrics)
        return plain

    def to_text(self, group: str = "all") -> str:
        """The scores of one group as an aligned table for the terminal."""
        chosen = self.groups[group]
        header = [chosen.title, *(with_unit(name) for name in self.names)]
        rows = [["N", *(str(chosen.labels[name].n) for name in self.names)]]
        rows += [
            [key, *(format_score(chosen.labels[name], key) for name in self.names)]
            for key in SCORES
        ]
        lines = [aligned([header, *rows])]
        if self.joint is not None and group == "all":
            lines.append(self.joint.to_text())
        return "\n".join(lines)


def validate(
    prediction: Prediction,
    labels: Labels,
    *,
    g_mag: Array | None = None,
    bp_rp: Array | None = None,
    star: NDArray[np.int64] | None = None,
    selection: NDArray[np.bool_] | None = None,
    selection_text: str = "all stars given",
    resamples: int = 200,
    seed: int = 0,
    margin: float = 1.0,
) -> Validation:
    """Score a prediction against known labels (METHOD 8; FS24, sections 3.2 and 4).

    Parameters
    ----------
    prediction
        Of N stars.
    labels
        Known labels of the same N stars in the same order, NaN where unknown. Only labels that
        both have are compared.
    g_mag, bp_rp
        G magnitude and BP-RP colour [N] in mag, for bins; left out: no bins along them.
    star
        What is alike for rows [N] of one star, of which bins count each once; left out: none is.
    selection
        Which stars [N] to compare; left out: all. ``selection_text`` says it in words.
    resamples, seed
        Bootstrap resamples (over stars) behind the error of each score, and their seed.
    margin
        Multiplies every tolerance of :func:`calibration_gate` (2: photometry withheld).

    Returns
    -------
    Validation

    Raises
    ------
    InputError
        If the rows do not match, no label or star is in both, or an error is not positive.

    Examples
    --------
    A thousand simulated stars whose stated errors are right:

    >>> rng = np.random.default_rng(1)
    >>> truth, ones = rng.normal(4.0, 1.0, (1000, 1)), np.ones((1000, 1))
    >>> prediction = Prediction(
    ...     source_id=np.arange(1000), names=("logg",),
    ...     values=truth + rng.normal(0, 0.1, (1000, 1)), errors=0.1 * ones,
    ...     errors_model=0.06 * ones, errors_input=0.08 * ones, errors_excess=0 * ones,
    ...     errors_95=0.2 * ones,
    ...     domain_distance=np.ones(1000), flags=np.zeros(1000, np.uint32))
    >>> validation = validate(prediction, Labels(("logg",), truth, 0.001 * ones))
    >>> validation.n, round(validation.labels["logg"]["coverage_68"], 2)
    (1000, 0.67)
    >>> validation.to_metrics()["calibration"]["violations"]
    []
    """
    names = common_names(prediction.names, labels.names)
    n = len(prediction)
    chosen = np.ones(n, bool) if selection is None else np.asarray(selection, bool)
    rowwise = {"g_mag": g_mag, "bp_rp": bp_rp, "star": star}
    _check_lengths(n, labels=len(labels), selection=len(chosen), **rowwise)
    samples = {name: _sample(name, prediction, labels, chosen) for name in names}
    compared = _union(samples, n)
    if not compared.any():
        raise InputError(
            "no star has both a prediction and a known label",
            where=",".join(names),
            remedy="check that the labels belong to the predicted stars",
        )
    axes = _axes(names, prediction, labels, g_mag, bp_rp)
    star = np.arange(n) if star is None else star
    flags = prediction.flags
    groups = {"all": ("all", compared)}
    groups["unflagged"] = ("unflagged", compared & ((flags & ~np.uint32(TABLE_WIDE)) == 0))
    if "fe_h" in axes:
        groups["metal_poor"] = ("[Fe/H] < -1", compared & (axes["fe_h"] < METAL_POOR))
    return Validation(
        names=names,
        groups={
            key: _group(*group, samples, resamples=resamples, seed=seed)
            for key, group in groups.items()
        },
        bins={
            axis: {
                name: _bins(axis, values, star, samples[name], resamples=resamples, seed=seed)
                for name in names
            }
            for axis, values in axes.items()
        },
        samples=samples,
        axes=axes,
        flags={str(f.name): int(((flags & np.uint32(f)) > 0)[compared].sum()) for f in Flag},
        selection=selection_text,
        resamples=resamples,
        seed=seed,
        margin=margin,
        joint=joint_coverage(prediction, labels, names, chosen, resamples=resamples, seed=seed),
    )


def common_names(predicted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Labels that are both predicted and known.

    Raises
    ------
    InputError
        If there is none.
    """
    names = tuple(name for name in predicted if name in known)
    if not names:
        raise InputError(
            "no label is both predicted and known",
            where=f"predicted {','.join(predicted)}; known {','.join(known)}",
            remedy="add a known label among the predicted ones",
        )
    return names


def _check_lengths(n: int, labels: int, selection: int, **columns: NDArray[Any] | None) -> None:
    lengths = {"labels": labels, "selection": selection}
    lengths |= {name: len(values) for name, values in columns.items() if values is not None}
    for name, length in lengths.items():
        if length != n:
            raise InputError(
                f"{n} stars are predicted but there are {length} rows of {name}",
                remedy="give them for the same stars in the same order",
            )


def _sample(name: str, prediction: Prediction, labels: Labels, chosen: NDArray[np.bool_]) -> Sample:
    """The stars of ``chosen`` with finite truth and prediction; their errors checked."""
    k, j = prediction.names.index(name), labels.names.index(name)
    truth, label_error = labels.values[:, j], labels.errors[:, j]
    predicted = prediction.values[:, k]
    error, error_95 = prediction.errors[:, k], prediction.errors_95[:, k]
    rows = np.flatnonzero(chosen & np.isfinite(truth) & np.isfinite(predicted))
    checks = (
        (f"{name}_error", error, error > 0),
        (f"{name}_error_95", error_95, error_95 >= error),
        # a label known exactly (a synthetic star's) may have the error 0
        (f"{name}_err", label_error, label_error >= 0),
    )
    for column, values, good in checks:
        bad = rows[~(good & np.isfinite(values))[rows]]
        if len(bad):
            raise InputError(
                f"error {values[bad[0]]} of a finite value is not usable ({len(bad)} stars)",
                where=f"source_id {prediction.source_id[bad[0]]}, column {column}",
                remedy="give a positive error, the 95.4 % one not below the 68.3 % one, "
                "or leave the value out (NaN)",
            )
    return Sample(
        rows, truth[rows], predicted[rows], error[rows], error_95[rows], label_error[rows]
    )


def _union(samples: Mapping[str, Sample], n: int) -> NDArray[np.bool_]:
    compared = np.zeros(n, bool)
    for sample in samples.values():
        compared[sample.rows] = True
    return compared


def _axes(
    names: Sequence[str],
    prediction: Prediction,
    labels: Labels,
    g_mag: Array | None,
    bp_rp: Array | None,
) -> dict[str, Array]:
    axes = {
        name: np.asarray(values, np.float64)
        for name, values in (("g_mag", g_mag), ("bp_rp", bp_rp))
        if values is not None
    }
    axes |= {name: labels.values[:, labels.names.index(name)] for name in labels.names}
    for k, name in enumerate(prediction.names):
        if name in names:
            axes[name + PREDICTED] = prediction.values[:, k]
    return axes


def _group(
    title: str,
    mask: NDArray[np.bool_],
    samples: Mapping[str, Sample],
    *,
    resamples: int,
    seed: int,
) -> Group:
    return Group(
        title,
        int(mask.sum()),
        {
            name: score(sample[mask[sample.rows]], resamples=resamples, seed=seed)
            for name, sample in samples.items()
        },
    )


def _bins(
    axis: str, values: Array, star: NDArray[np.int64], sample: Sample, *, resamples: int, seed: int
) -> tuple[Bin, ...]:
    """The populated bins, with edges at multiples of the width."""
    width = BIN_WIDTHS[axis.removesuffix(PREDICTED)]
    known = np.flatnonzero(np.isfinite(values[sample.rows]))
    numbers = np.floor(values[sample.rows][known] / width).astype(np.int64)
    return tuple(
        Bin(
            float(number * width),
            float((number + 1) * width),
            score(sample[known[numbers == number]], bin_statistics, resamples=resamples, seed=seed),
            len(np.unique(star[sample.rows][known[numbers == number]])),
        )
        for number in np.unique(numbers)
    )
