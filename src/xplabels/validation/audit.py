"""Known labels that are probably wrong, named by predictions of stars that no network had seen.

Each star's residuals come from one of several causes: nothing is wrong, one of its labels is, or all
of them are, because the survey took the star for another. If nothing is wrong they follow the
predictive distribution, a Student t in all labels together with the label errors added
(:mod:`xplabels.core.distribution`); a wrong label may be that of any star. The share of each cause
is fitted to the stars by expectation maximisation, and Bayes' rule then gives each star the
probability that a label of its is wrong (the good and bad points of Hogg, Bovy & Lang 2010,
arXiv:1008.4686, section 3, with known errors and several labels).

The probability is as good as the stated errors. A spectrum that the model has no business with says
nothing about the labels, so those of such a star are not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.distribution import (
    LEVEL_68,
    SMALLEST_DOF,
    SMALLEST_EIGENVALUE,
    density,
    matched_t,
)
from xplabels.core.flags import UNUSABLE, Flag
from xplabels.core.labels import LABELS, Labels
from xplabels.core.prediction import Prediction, unpacked

if TYPE_CHECKING:
    import pyarrow as pa

Array = NDArray[np.float64]

WRONG = 0.5
"""Probability above which a star's labels are called probably wrong."""
LISTED = 0.01
"""Probability from which a star is listed in the table."""
DISAGREES = 3.0
"""Sigma from which a label is named in a reason."""
RATIOS = ("teff",)
"""Labels whose ratio to the prediction counts, not the difference: 10 % are as much for any star."""
NOT_JUDGED: Mapping[Flag, str] = {
    Flag.OUT_OF_DOMAIN: "spectrum is unlike the training set",
    Flag.LOW_SNR: "spectrum is too noisy",
}
"""Flags of spectra that say nothing about a label."""
BINS = 50
"""Of the distribution of known labels, from which wrong ones are taken to come."""
PRIOR_STARS, PRIOR_SHARE = 500, 0.001
"""The shares start as if so many further stars had been seen, of which each cause had this share."""
CELL, FEWEST = 500, 200
"""Fewest stars in a cell, of at least two, and with a known label, for its errors to be fitted."""
TAILS, LEVELS = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0), tuple(np.exp(np.linspace(-0.4, 0.8, 13)))
SHARES = (0.001, 0.003, 0.01, 0.02, 0.04, 0.08)
"""What is tried for each cell: factors on the tail and the half-width, shares of wrong labels."""
STEPS, CHANGE = 500, 1e-7
"""Most steps of the fit, and the change of the shares at which it ends."""


@dataclass(frozen=True)
class LabelAudit:
    """What :func:`audit_labels` found for N stars and the K labels that are known and predicted.

    Attributes
    ----------
    prediction, labels
        Of the same stars.
    sigma
        (known - predicted) / error [N, K], the label's error added in quadrature; NaN where either
        is missing. Of Teff: ln(known / predicted) over the relative error.
    probability
        That a label of the star is wrong [N]; NaN where that was not judged.
    by_label
        That this label is wrong [N, K].
    share
        Of the stars judged, that have a wrong label, as fitted.
    """

    prediction: Prediction = field(repr=False)
    labels: Labels = field(repr=False)
    sigma: Array = field(repr=False)
    probability: Array = field(repr=False)
    by_label: Array = field(repr=False)
    share: float

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Stars whose labels were judged [N]."""
        return np.isfinite(self.probability)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Stars with a label that is probably wrong [N]."""
        return np.nan_to_num(self.probability) > WRONG

    @property
    def compared(self) -> NDArray[np.bool_]:
        """Stars with a label that is known, judged or not [N]."""
        known: NDArray[np.bool_] = np.isfinite(self.labels.values).any(axis=1)
        return known

    def worst(self, least: float = LISTED) -> NDArray[np.intp]:
        """Rows of the stars with at least this probability, the most probable first.

        Among equals the one with the largest sigma comes first.
        """
        rows = np.flatnonzero(np.nan_to_num(self.probability) >= least)
        largest = np.nanmax(np.abs(self.sigma[rows]), axis=1, initial=0.0)
        return rows[np.lexsort((-largest, -self.probability[rows]))]

    def reason(self, row: int) -> str:
        """Why the star has its probability, or none, in words."""
        if not self.judged[row]:
            flags = int(self.prediction.flags[row])
            why = [text for flag, text in NOT_JUDGED.items() if flags & flag]
            return f"{'; '.join(why) or 'no prediction'}: label not judged"
        sigma = np.nan_to_num(self.sigma[row])
        order = [k for k in np.argsort(-np.abs(sigma)) if abs(sigma[k]) >= DISAGREES]
        each = [f"{self.labels.names[k]} by {abs(sigma[k]):.0f} sigma" for k in order]
        if not each:
            return "labels disagree with the spectrum taken together, none by itself"
        verb = "label disagrees" if len(each) == 1 else "labels disagree"
        return f"{verb} with the spectrum in {', '.join(each)}"

    def summary(self) -> dict[str, Any]:
        """Numbers of stars, as in ``metrics.json`` and ``model.json``."""
        return {
            "n": int(self.compared.sum()),
            "judged": int(self.judged.sum()),
            "probably_wrong": int(self.wrong.sum()),
            "expected_wrong": float(np.nansum(self.probability)),
            "fitted_share": self.share,
        }

    def to_text(self) -> str:
        """One sentence."""
        found = self.summary()
        left = found["n"] - found["judged"]
        return (
            f"labels that are probably wrong: {found['probably_wrong']:,} of {found['judged']:,} "
            f"stars judged" + (f" ({left:,} not judged)" if left else "")
        )

    def to_arrow(self, rows: NDArray[np.intp] | None = None) -> pa.Table:
        """The table of these rows, by default :meth:`worst` and then the stars not judged.

        Columns: ``source_id``, ``probability`` (NaN: not judged), ``reason``; per label
        ``teff_known``, ``teff_known_error``, ``teff``, ``teff_error`` (both predicted),
        ``teff_sigma`` and ``teff_probability``. Units and descriptions are in the fields' metadata.
        """
        import pyarrow as pa

        if rows is None:
            rows = np.concatenate([self.worst(), np.flatnonzero(self.compared & ~self.judged)])
        stars, known = self.prediction[rows], self.labels[rows]
        columns: list[tuple[str, Any, str, str]] = [
            ("source_id", stars.source_id, "", "Gaia source identifier"),
            ("probability", self.probability[rows], "", "Probability that a known label is wrong"),
            ("reason", [self.reason(row) for row in rows.tolist()], "", "Why"),
        ]
        for k, name in enumerate(known.names):
            label, one = LABELS[name], stars[name]
            text, unit = label.description, label.unit
            columns += [
                (f"{name}_known", known.values[:, k], unit, f"{text}, as known"),
                (f"{name}_known_error", known.errors[:, k], unit, f"{text}: error of the known"),
                (name, one.value, unit, f"{text}, as predicted"),
                (f"{name}_error", one.error, unit, f"{text}: error of the prediction (68.3 %)"),
                (f"{name}_sigma", self.sigma[rows, k], "", f"{text}: disagreement over error"),
                (f"{name}_probability", self.by_label[rows, k], "",
                 f"{text}: probability that the known one is wrong"),
            ]  # fmt: skip
        fields = [
            pa.field(name, pa.array(values).type,
                     metadata={"description": about} | ({"unit": unit} if unit else {}))
            for name, values, unit, about in columns
        ]  # fmt: skip
        arrays = [pa.array(values) for _, values, _, _ in columns]
        return pa.table(arrays, schema=pa.schema(fields))


def audit_labels(prediction: Prediction, labels: Labels) -> LabelAudit:
    """Find the labels that are probably wrong.

    Parameters
    ----------
    prediction
        Of N stars that the networks had not seen. With correlations the labels of a star are
        judged together, without them as if their errors were independent.
    labels
        Known labels of the same stars; those that are also predicted count.

    Examples
    --------
    A thousand stars, of which one has the label of another:

    >>> rng = np.random.default_rng(1)
    >>> truth, ones = rng.normal(4.0, 1.0, (1000, 1)), np.ones((1000, 1))
    >>> prediction = Prediction(
    ...     source_id=np.arange(1000), names=("logg",),
    ...     values=truth + rng.normal(0, 0.1, (1000, 1)), errors=0.1 * ones,
    ...     errors_model=0.06 * ones, errors_input=0.08 * ones, errors_excess=0 * ones,
    ...     errors_95=0.2 * ones,
    ...     domain_distance=np.ones(1000), flags=np.zeros(1000, np.uint32))
    >>> truth[7] += 1.5
    >>> audit = audit_labels(prediction, Labels(("logg",), truth, 0.001 * ones))
    >>> np.flatnonzero(audit.wrong), audit.reason(7)
    (array([7]), 'label disagrees with the spectrum in logg by 15 sigma')
    """
    names = [name for name in prediction.names if name in labels.names]
    known = labels.select(names)
    columns = [prediction.names.index(name) for name in names]
    n = len(prediction)
    residual, inner, outer, position, unit = (np.full((n, len(names)), np.nan) for _ in range(5))
    for j, (k, name) in enumerate(zip(columns, names, strict=True)):
        value, label, label_error = prediction.values[:, k], known.values[:, j], known.errors[:, j]
        unit[:, j], position[:, j], residual[:, j] = 1.0, label, label - value
        if name in RATIOS:
            with np.errstate(divide="ignore", invalid="ignore"):
                position[:, j], unit[:, j] = np.log(label), value
                residual[:, j] = value * np.log(label / value)
                label_error = label_error * value / label
        inner[:, j] = np.hypot(prediction.errors[:, k], label_error)
        outer[:, j] = np.hypot(prediction.errors_95[:, k], 2 * label_error)
    sigma = residual / inner
    strange = (prediction.flags & np.uint32(UNUSABLE | sum(NOT_JUDGED))) != 0
    rows = np.flatnonzero(np.isfinite(sigma).any(axis=1) & ~strange)
    probability, by_label, share = np.full(n, np.nan), np.full(sigma.shape, np.nan), 0.0
    if len(rows):
        correlation = np.tile(np.eye(len(names)), (len(rows), 1, 1))
        if prediction.correlations is not None:
            stated = unpacked(prediction.correlations[rows], len(prediction.names))
            part = prediction.errors[rows][:, columns] / inner[rows]
            correlation = part[:, :, None] * stated[:, columns][:, :, columns] * part[:, None, :]
        elsewhere = _log_density_of_known(position[rows]) - np.log(unit[rows])
        dof, scale = _tails(
            prediction.values[rows][:, columns], residual[rows], inner[rows], outer[rows], elsewhere
        )
        densities = _log_densities(residual[rows] / scale, scale, dof, correlation, elsewhere)
        causes, shares = fit_shares(densities)
        probability[rows], share = 1 - causes[:, 0], float(1 - shares[0])
        wrong = causes[:, 1:-1] + causes[:, -1:]
        by_label[rows] = np.where(np.isfinite(sigma[rows]), wrong, np.nan)
    return LabelAudit(prediction, known, sigma, probability, by_label, share)


def fit_shares(log_densities: Array) -> tuple[Array, Array]:
    """Probability of each of C causes for each star [N, C], and their shares [C].

    ``log_densities`` [N, C] of each star's residuals under each cause, the first of which is that
    nothing is wrong; ``-inf`` where a star cannot have it.
    """
    count = log_densities.shape[1]
    prior = np.full(count, PRIOR_SHARE)
    prior[0] = 1 - PRIOR_SHARE * (count - 1)
    shares = prior
    for _ in range(STEPS):
        joint = log_densities + np.log(shares)
        causes = np.exp(joint - joint.max(axis=1, keepdims=True))
        causes /= causes.sum(axis=1, keepdims=True)
        found = (causes.sum(axis=0) + PRIOR_STARS * prior) / (len(causes) + PRIOR_STARS)
        if np.abs(found - shares).max() < CHANGE:
            break
        shares = found
    return causes, shares


def _log_densities(
    z: Array, scale: Array, dof: Array, correlation: Array, elsewhere: Array
) -> Array:
    """Of each star under K + 2 causes: nothing is wrong, one label is, all are; [N, K + 2].

    ``z`` [N, K] are residuals over the ``scale`` [N, K] of a Student t with ``dof`` [N, K],
    ``correlation`` is [N, K, K], ``elsewhere`` the log density [N, K] of a label that is wrong.
    """
    present, single = np.isfinite(z), np.eye(z.shape[1], dtype=bool)
    count = present.sum(axis=1)
    elsewhere, log_scale = (np.where(present, a, 0.0) for a in (elsewhere, np.log(scale)))

    def right(labels: NDArray[np.bool_]) -> Array:
        return _log_t(z, dof, correlation, labels) - (log_scale * labels).sum(axis=1)

    wrong = [
        np.where(present[:, k], elsewhere[:, k] + right(present & ~alone), -np.inf)
        for k, alone in enumerate(single)
    ]
    # of a single label this is the same as that label being wrong
    every = np.where(count > 1, elsewhere.sum(axis=1), -np.inf)
    return np.stack([right(present), *wrong, every], axis=1)


def _log_t(z: Array, dof: Array, correlation: Array, labels: NDArray[np.bool_]) -> Array:
    """Log density [N] of a Student t of some ``labels`` [N, K] at unit scale.

    Real residuals have tails that labels share (a strange star) and tails of their own: half the
    density is a multivariate t, half a product of single ones along the correlation's axes.
    """
    from scipy.special import gammaln

    def log_t(square: Array, dof: Array, count: Array | float) -> Array:
        found: Array = (
            gammaln((dof + count) / 2) - gammaln(dof / 2) - count / 2 * np.log(np.pi * dof)
            - (dof + count) / 2 * np.log1p(square / dof)
        )  # fmt: skip
        return found

    k = z.shape[1]
    both = labels[:, :, None] & labels[:, None, :] & ~np.eye(k, dtype=bool)
    values, axes = np.linalg.eigh(np.where(both, correlation, np.eye(k)))
    values = np.maximum(values, SMALLEST_EIGENVALUE)
    along = np.einsum("nkj,nk->nj", axes, np.where(labels, z, 0.0)) / np.sqrt(values)
    # back from the axes: each label's own part, the others' taken out
    own = np.einsum("nkj,nj->nk", axes, along)
    count = labels.sum(axis=1)
    shared = np.maximum(count, 1) / np.maximum((labels / dof).sum(axis=1), 1e-9)
    together = log_t((along**2).sum(axis=1), shared, count)
    apart = np.where(labels, log_t(own**2, dof, 1.0), 0.0).sum(axis=1)
    density: Array = (
        np.logaddexp(together, apart) - np.log(2) - 0.5 * np.log(values).sum(axis=1)
    )
    return density


def _tails(
    values: Array, residual: Array, inner: Array, outer: Array, elsewhere: Array
) -> tuple[Array, Array]:
    """Degrees of freedom and scale [N, K] of each residual if nothing is wrong.

    As stated, but for a factor on the half-width and one on the tail (1 / degrees of freedom) for
    each cell of stars with like predictions: those with which its residuals, of which a share is
    ``elsewhere``, are most likely. A label whose errors are known to be too small for such stars is
    not wrong for that.
    """
    from scipy.special import stdtrit

    known = np.isfinite(residual / inner)
    dof, _ = matched_t(np.where(known, inner, 1.0), np.where(known, outer, 2.0))
    scale = np.where(known, inner, 1.0)

    def scaled(inner: Array, dof: Array) -> Array:
        found: Array = inner / stdtrit(dof, (1 + LEVEL_68) / 2)
        return found

    for cell in _cells(values):
        for k in range(residual.shape[1]):
            rows = cell[known[cell, k]]
            if len(rows) < FEWEST:
                continue
            off, wrong = residual[rows, k], np.exp(elsewhere[rows, k])
            best = (-np.inf, 1.0, 1.0)
            for tail in TAILS:
                changed = np.maximum(dof[rows, k] / tail, SMALLEST_DOF)
                width = scaled(inner[rows, k], changed)
                for level in LEVELS:
                    likely = density(off, changed, level * width)
                    for share in SHARES:
                        total = float(np.log((1 - share) * likely + share * wrong).sum())
                        best = max(best, (total, tail, level))
            dof[rows, k] = np.maximum(dof[rows, k] / best[1], SMALLEST_DOF)
            scale[rows, k] = best[2] * inner[rows, k]
    return dof, scaled(scale, dof)


def _cells(values: Array) -> list[NDArray[np.intp]]:
    """Rows of stars with like predictions: halves of halves, along the widest label, of 500-1000."""
    spread = np.nanstd(values, axis=0)
    scaled = np.nan_to_num(values / np.where(spread > 0, spread, 1.0))

    def halves(rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        if len(rows) < 2 * CELL:
            return [rows]
        low, high = np.quantile(scaled[rows], [0.05, 0.95], axis=0)
        order = rows[np.argsort(scaled[rows, np.argmax(high - low)], kind="stable")]
        return halves(order[: len(order) // 2]) + halves(order[len(order) // 2 :])

    return halves(np.arange(len(values)))


def _log_density_of_known(position: Array) -> Array:
    """Of each label [N, K] among the known ones of all stars: a histogram, no bin of it empty."""
    found = np.zeros(position.shape)
    for k, column in enumerate(position.T):
        here = column[np.isfinite(column)]
        if not len(here):
            continue
        low, width = here.min(), max(float(np.ptp(here)), 1e-6) / BINS
        number = np.clip(np.nan_to_num((column - low) / width).astype(int), 0, BINS - 1)
        counts = np.bincount(number[np.isfinite(column)], minlength=BINS) + 1.0
        found[:, k] = np.log(counts / counts.sum() / width)[number]
    return found
