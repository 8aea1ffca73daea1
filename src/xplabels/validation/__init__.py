"""Predictions against known labels: accuracy, and whether the error bars are correct (METHOD 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.calibration.joint import Joint, joint_coverage
from xplabels.core.arrays import Array
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.labels import Labels, predicted
from xplabels.core.prediction import Prediction
from xplabels.core.scores import Bin, LabelSample, Scores, binned, scores_by_label
from xplabels.validation.audit import LabelAudit, audit_labels

PREDICTED = "_predicted"
"""Ending of the names of axes along predicted instead of known labels."""

BINS = 12
"""Approximate number of bins for 98 % of the stars, along axes that :data:`BIN_WIDTHS` lacks."""
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
"""Stars below this [Fe/H] are also scored separately."""


@dataclass(frozen=True)
class GroupScores:
    """Scores of every label over one group of stars; ``n`` have at least one label compared."""

    title: str
    n: int
    labels: Mapping[str, Scores]

    def to_dict(self) -> dict[str, Any]:
        """``{"n": N, "labels": {name: {...}}}``."""
        return {"n": self.n, "labels": {k: s.to_dict() for k, s in self.labels.items()}}


@dataclass(frozen=True, repr=False)
class Validation:
    """The result of :func:`score_prediction`.

    Attributes
    ----------
    prediction, names
        The prediction for N stars, and the K labels compared.
    groups
        Scores by group: ``all``, ``good``, ``rightly_labelled`` (without labels that are probably
        wrong), ``metal_poor`` (known [Fe/H] < -1).
    bins, axes
        ``bins[axis][label]``: bins along G, BP-RP, each known label and each predicted one (ending
        ``_predicted``), and the values [N] along these. Along a known label even correct errors
        are too small or too large in places, because predictions shrink to the mean; along a
        predicted one they must not be.
    samples
        The stars compared, by label: residuals, z, PIT and so on.
    audit
        Which of the known labels are probably wrong.
    flags, selection
        Number of the stars compared that have each flag, and which stars they are, in words.
    resamples
        Number of bootstrap resamples.
    joint
        Joint coverage of all labels, if the prediction has their correlations.
    star
        Identifies the star of each row [N], where several rows belong to one.
    """

    prediction: Prediction
    names: tuple[str, ...]
    groups: Mapping[str, GroupScores]
    bins: Mapping[str, Mapping[str, tuple[Bin, ...]]]
    samples: Mapping[str, LabelSample]
    axes: Mapping[str, Array]
    audit: LabelAudit
    flags: Mapping[str, int]
    selection: str
    resamples: int
    joint: Joint | None = None
    star: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        return (
            f"Validation(N = {self.n}: {', '.join(self.names)}; scores in .labels, .groups, .bins)"
        )

    @property
    def n(self) -> int:
        """Stars with at least one label compared."""
        return self.groups["all"].n

    @property
    def labels(self) -> Mapping[str, Scores]:
        """Scores of each label over all stars compared."""
        return self.groups["all"].labels

    @property
    def rows(self) -> NDArray[np.intp]:
        """Indices [n] of the stars compared in at least one label."""
        return np.unique(np.concatenate([sample.rows for sample in self.samples.values()]))

    def column(self, attribute: str) -> Array:
        """An attribute of each label's sample as [n, K], NaN where not compared."""
        rows = self.rows
        values = np.full((len(rows), len(self.names)), np.nan)
        for k, sample in enumerate(self.samples.values()):
            values[np.searchsorted(rows, sample.rows), k] = getattr(sample, attribute)
        return values

    def by_label(self, attribute: str) -> dict[str, Array]:
        """The same as {label: [n]}."""
        return dict(zip(self.names, self.column(attribute).T, strict=True))


def score_prediction(
    prediction: Prediction,
    labels: Labels,
    *,
    g_mag: Array | None = None,
    bp_rp: Array | None = None,
    star: NDArray[np.int64] | None = None,
    selection_text: str = "all stars given",
    resamples: int = 200,
) -> Validation:
    """Score a prediction against known labels (METHOD 8; FS24, sections 3.2 and 4).

    Parameters
    ----------
    prediction
        The prediction for N stars.
    labels
        Known labels of the same N stars in the same order, NaN where unknown. Only labels that
        are in both are compared.
    g_mag, bp_rp
        G magnitude and BP-RP colour [N] in mag; bins along them are made where they are given.
    star
        Identifies the star of each row [N], where several rows belong to one; a bin counts it once.
    selection_text
        Which stars these are, in words.
    resamples
        Bootstrap resamples (over stars) behind the error of each score.

    Raises
    ------
    InputError
        If the rows do not match, no label or star is in both, or an error is not positive.

    Examples
    --------
    >>> import xplabels as xp
    >>> stars = xp.example_stars(300)
    >>> validation = score_prediction(xp.load_model().predict(stars), stars.labels, resamples=2)
    >>> validation.n, sorted(validation.labels["teff"].value)[:3]
    (300, ['bias', 'coverage_68', 'coverage_95'])
    """
    if not isinstance(labels, Labels):
        raise InputError(
            f"the known labels are a {type(labels).__name__}",
            remedy="give stars.join(labels=TABLE).labels",
        )
    names = common_names(prediction.names, labels.names)
    labels = labels.in_units_of(names)
    n = len(prediction)
    for title, given in (("labels", labels), ("g_mag", g_mag), ("bp_rp", bp_rp), ("star", star)):
        if given is not None and len(given) != n:
            raise InputError(
                f"{n} stars are predicted but there are {len(given)} rows of {title}",
                remedy="give them for the same stars in the same order",
            )
    samples = {name: _sample(name, prediction, labels) for name in names}
    compared = np.isin(np.arange(n), np.concatenate([s.rows for s in samples.values()]))
    if not compared.any():
        raise InputError(
            "no star has both a prediction and a known label",
            where=",".join(names),
            remedy="check that the labels belong to the predicted stars",
        )
    axes = {
        name: np.asarray(values, np.float64)
        for name, values in (("g_mag", g_mag), ("bp_rp", bp_rp))
        if values is not None
    }
    axes |= dict(zip(labels.names, labels.values.T, strict=True))
    axes |= {
        predicted(name): column
        for name, column in zip(prediction.names, prediction.values.T, strict=True)
        if name in names
    }
    flags, audit = prediction.flags, audit_labels(prediction, labels)
    groups = {
        "all": ("all", compared),
        "good": ("good", compared & prediction.good),
        "rightly_labelled": ("probably rightly labelled", compared & ~audit.wrong),
    }
    if "fe_h" in axes:
        groups["metal_poor"] = ("[Fe/H] < -1", compared & (axes["fe_h"] < METAL_POOR))
    return Validation(
        prediction=prediction,
        names=names,
        groups={
            key: GroupScores(
                title,
                int(mask.sum()),
                scores_by_label(
                    {name: sample[mask[sample.rows]] for name, sample in samples.items()},
                    resamples=resamples,
                ),
            )
            for key, (title, mask) in groups.items()
        },
        bins={
            axis: {
                name: binned(
                    values,
                    sample,
                    _edges(width, values[sample.rows]),
                    resamples=resamples,
                    star=star,
                )
                for name, sample in samples.items()
            }
            for axis, values in axes.items()
            for width in (bin_width(axis, values),)
        },
        samples=samples,
        axes=axes,
        audit=audit,
        flags={str(f.name): int(((flags & np.uint32(f)) > 0)[compared].sum()) for f in Flag},
        selection=selection_text,
        resamples=resamples,
        joint=joint_coverage(prediction, labels, names, np.ones(n, bool), resamples=resamples),
        star=star,
    )


def common_names(predicted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Those of the ``predicted`` labels that are among the ``known`` ones.

    :class:`InputError` if there are none.
    """
    names = tuple(name for name in predicted if name in known)
    if not names:
        raise InputError(
            f"has {', '.join(known)}, the model {', '.join(predicted)}: no label in common",
            remedy="give a table, survey or model with a label of the model's",
        )
    return names


def _sample(name: str, prediction: Prediction, labels: Labels) -> LabelSample:
    """The stars with a known and a predicted label, after a check of their errors."""
    k, j = prediction.names.index(name), labels.names.index(name)
    truth, label_error = labels.values[:, j], labels.errors[:, j]
    predicted = prediction.values[:, k]
    error, error_95 = prediction.errors[:, k], prediction.errors_95[:, k]
    rows = np.flatnonzero(np.isfinite(truth) & np.isfinite(predicted))
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
    return LabelSample(
        rows, truth[rows], predicted[rows], error[rows], error_95[rows], label_error[rows]
    )


def bin_width(axis: str, values: Array) -> float:
    """Width of the bins along an axis; if not in ``BIN_WIDTHS``, 1, 2 or 5 times a power of ten.

    Examples
    --------
    >>> bin_width("teff_predicted", np.empty(0)), bin_width("mass", np.linspace(0.1, 7, 100))
    (250.0, 0.5)
    """
    if (known := BIN_WIDTHS.get(axis.removesuffix(PREDICTED))) is not None:
        return known
    values = values[np.isfinite(values)]
    width = float(np.ptp(np.quantile(values, (0.01, 0.99)))) / BINS if len(values) else 0.0
    if width == 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(width))
    return float(power * min((1, 2, 5, 10), key=lambda step: abs(step - width / power)))


def _edges(width: float, values: Array) -> list[tuple[float, float]]:
    """Bins at multiples of the width that may contain any of the values."""
    numbers = np.floor(values[np.isfinite(values)] / width).astype(int)
    # the quotient of a value just below an edge may have been rounded up
    numbers = np.union1d(numbers - 1, numbers)
    return [(number * width, (number + 1) * width) for number in numbers.tolist()]
