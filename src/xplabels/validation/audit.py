"""Finds known labels that are probably wrong, by predictions of stars that no network had seen.

Each star's residuals have one of several causes: nothing is wrong, one of its labels is wrong, or
all of them are, because the survey took the star for another. If nothing is wrong they follow the
predictive distribution, a Student t in all labels together with the label errors added
(:mod:`xplabels.core.distribution`); a wrong label may be that of any star. The share of each cause
is fitted to the stars by expectation maximisation, and Bayes' rule then gives for each star the
probability that one of its labels is wrong (the good and bad points of Hogg, Bovy & Lang 2010,
arXiv:1008.4686, section 3, with known errors and several labels). Stars with similar predictions
have shares of their own, because surveys fail for some kinds of stars.

The probability is only as good as the stated errors: a label that the spectrum does not determine,
or a kind of star for which the model is poor, may look wrong. Stars that are not good (flags) are
not judged: a spectrum for which the model is not valid says nothing about a label.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.arrays import Array
from xplabels.core.distribution import LEVEL_68, SMALLEST_EIGENVALUE, matched_t
from xplabels.core.flags import BAD, MEANING, Flag
from xplabels.core.labels import Labels, label_of
from xplabels.core.prediction import Prediction, unpacked
from xplabels.validation.finding import Finding, Section, with_unit

if TYPE_CHECKING:
    import pyarrow as pa

WRONG = 0.5
"""Probability above which a star's labels are called probably wrong."""
LISTED = 0.1
"""Probability from which a star is listed in the table."""
DISAGREES = 3.0
"""Sigma from which a label is named in a reason."""
SHOWN = 20
"""Stars in a report's table."""
BINS = 50
"""Bins of the distribution of known labels, which is taken to be that of wrong ones."""
ALIKE = 20.0
"""Known labels that span fewer of their errors (with the prediction's) count as equally likely."""
PRIOR_STARS, PRIOR_SHARE = 500, 0.001
"""Number of stars for which the prior of the shares counts, and the prior share of each cause; in a
cell the prior shares are those of all stars."""
HEAVIEST = 4.0
"""Fewest degrees of freedom of right labels, those of the networks' own likelihood: residuals far
beyond its tails are to be explained by wrong labels."""
CELL = 500
"""Fewest stars with similar predictions that have shares of their own."""
STEPS, CHANGE = 500, 1e-7
"""Most steps of the fit, and the change of the shares at which it ends."""


@dataclass(frozen=True)
class LabelAudit:
    """The result of :func:`audit_labels` for N stars and the K labels both known and predicted.

    Attributes
    ----------
    prediction, labels
        Predictions and known labels of the same stars.
    sigma
        (known - predicted) / error [N, K], the label's error added in quadrature; NaN where either
        is missing. For a logarithmic label: ln(known / predicted) over the relative error.
    probability
        Probability that a label of the star is wrong [N]; NaN where that was not judged.
    by_label
        Probability that this label is wrong [N, K].
    """

    prediction: Prediction = field(repr=False)
    labels: Labels = field(repr=False)
    sigma: Array = field(repr=False)
    probability: Array = field(repr=False)
    by_label: Array = field(repr=False)

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Stars whose labels were judged [N]."""
        return np.isfinite(self.probability)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Stars with a label that is probably wrong [N]."""
        return np.asarray(np.nan_to_num(self.probability) > WRONG)

    @property
    def compared(self) -> NDArray[np.bool_]:
        """Stars with a label that is known, judged or not [N]."""
        return np.asarray(np.isfinite(self.labels.values).any(axis=1))

    def worst(self, least: float = LISTED) -> NDArray[np.intp]:
        """Rows of the stars with at least this probability, the most probable first.

        Among equals the one with the largest sigma comes first.
        """
        rows = np.flatnonzero(np.nan_to_num(self.probability) >= least)
        largest = np.nanmax(np.abs(self.sigma[rows]), axis=1, initial=0.0)
        return rows[np.lexsort((-largest, -self.probability[rows]))]

    def reason(self, row: int) -> str:
        """The reason for the star's probability, or why it has none, in words."""
        if not self.judged[row]:
            flags = int(self.prediction.flags[row]) & int(BAD)
            why = [MEANING[flag] for flag in Flag if flags & flag]
            reason = "; ".join(why) or "no known label with an error is predicted"
            return f"{reason}: label not judged"
        sigma = np.nan_to_num(self.sigma[row])
        order = [k for k in np.argsort(-np.abs(sigma)) if abs(sigma[k]) >= DISAGREES]
        deviations = [f"{self.labels.names[k]} by {abs(sigma[k]):.0f} sigma" for k in order]
        if not deviations:
            return "labels disagree with the spectrum taken together, none by itself"
        verb = "label disagrees" if len(deviations) == 1 else "labels disagree"
        return f"{verb} with the spectrum in {', '.join(deviations)}"

    def beside(self, row: int, k: int) -> str:
        """The known label of a star and, after an arrow, the predicted one; "-" where absent."""
        known, predicted = self.labels.values[row, k], self.prediction[self.labels.names[k]]
        if not np.isfinite(known):
            return "-"
        if not np.isfinite(predicted.value[row]):
            return f"{known:.4g} → -"
        return f"{known:.4g} → {predicted.value[row]:.4g} ± {predicted.error[row]:.2g}"

    def summary(self) -> dict[str, Any]:
        """Numbers of stars, as in ``metrics.json`` and ``model.json``."""
        return {
            "n": int(self.compared.sum()),
            "judged": int(self.judged.sum()),
            "probably_wrong": int(self.wrong.sum()),
            "expected_wrong": float(np.nansum(self.probability)),
        }

    def to_text(self) -> str:
        """The number of wrong labels in a sentence."""
        counts = self.summary()
        not_judged = counts["n"] - counts["judged"]
        return (
            f"labels that are probably wrong: {counts['probably_wrong']:,} of {counts['judged']:,} "
            f"stars judged" + (f" ({not_judged:,} not judged)" if not_judged else "")
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
            label, predicted = label_of(name), stars[name]
            text, unit = label.description, label.unit
            columns += [
                (f"{name}_known", known.values[:, k], unit, f"{text}, as known"),
                (f"{name}_known_error", known.errors[:, k], unit, f"{text}: error of the known"),
                (name, predicted.value, unit, f"{text}, as predicted"),
                (f"{name}_error", predicted.error, unit,
                 f"{text}: error of the prediction (68.3 %)"),
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


def audit_finding(audit: LabelAudit) -> Finding:
    """How many labels are probably wrong, and the worst of them."""
    section = Section("label_audit", "Labels that are probably wrong", folded=True)
    rows, names = audit.worst(WRONG), audit.labels.names
    section.paragraphs.append(
        f"{audit.to_text().capitalize()}. The probability is that of a wrong label, or of all, "
        "beside the errors that the prediction and the label state, with the share of wrong ones "
        "fitted to these stars. A label that the model does not do well may look wrong, so look "
        "at a star before you drop it. Scores are given with and without them."
    )
    if len(rows):
        section.add_table(
            f"The worst {min(len(rows), SHOWN)}: known label, then predicted",
            ["source_id", "probability", *map(with_unit, names), ""],
            [
                [
                    str(audit.prediction.source_id[row]),
                    f"{audit.probability[row]:.3f}",
                    *(audit.beside(row, k) for k in range(len(names))),
                    audit.reason(row),
                ]
                for row in rows[:SHOWN].tolist()
            ],
        )
    listed = [
        {
            "source_id": int(audit.prediction.source_id[row]),
            "probability": float(audit.probability[row]),
            "reason": audit.reason(row),
        }
        for row in rows[:SHOWN].tolist()
    ]
    return Finding({"label_audit": audit.summary() | {"worst": listed}}, section=section)


def audit_labels(prediction: Prediction, labels: Labels) -> LabelAudit:
    """Find the labels that are probably wrong.

    Parameters
    ----------
    prediction
        Prediction for N stars that the networks had not seen. With correlations the labels of a
        star are judged together, without them as if their errors were independent.
    labels
        Known labels of the same stars; only those that are also predicted are judged.

    Examples
    --------
    >>> import xplabels as xp
    >>> stars = xp.read_library()  # doctest: +SKIP
    >>> found = audit_labels(xp.load_model().predict(stars), stars.labels)  # doctest: +SKIP
    >>> print(found.reason(found.worst()[0]))  # doctest: +SKIP
    label disagrees with the spectrum in teff by 20 sigma
    """
    from scipy.special import stdtrit

    names = [name for name in prediction.names if name in labels.names]
    known = labels.select(names)
    columns = [prediction.names.index(name) for name in names]
    n = len(prediction)
    residual, inner, outer, position, unit = (np.full((n, len(names)), np.nan) for _ in range(5))
    for j, (k, name) in enumerate(zip(columns, names, strict=True)):
        value, label, label_error = prediction.values[:, k], known.values[:, j], known.errors[:, j]
        unit[:, j], position[:, j], residual[:, j] = 1.0, label, label - value
        if label_of(name).logarithmic:  # residuals and errors are relative
            with np.errstate(divide="ignore", invalid="ignore"):
                position[:, j], unit[:, j] = np.log(label), value
                residual[:, j] = value * np.log(label / value)
                label_error = label_error * value / label
        inner[:, j] = np.hypot(prediction.errors[:, k], label_error)
        outer[:, j] = np.hypot(prediction.errors_95[:, k], 2 * label_error)
    sigma = residual / inner
    rows = np.flatnonzero(np.isfinite(sigma).any(axis=1) & prediction.good)
    probability, by_label = np.full(n, np.nan), np.full(sigma.shape, np.nan)
    if len(rows):
        present = np.isfinite(sigma[rows])
        inner_width, outer_width = (
            np.where(present, width[rows], blank) for width, blank in ((inner, 1.0), (outer, 2.0))
        )
        dof = np.maximum(matched_t(inner_width, outer_width)[0], HEAVIEST)
        scale = inner_width / stdtrit(dof, (1 + LEVEL_68) / 2)
        correlation = np.tile(np.eye(len(names)), (len(rows), 1, 1))
        if prediction.correlations is not None:
            stated = unpacked(np.nan_to_num(prediction.correlations[rows]), len(prediction.names))
            # label errors are independent: they lower the correlations
            share = np.nan_to_num(prediction.errors[rows][:, columns] / inner[rows])
            correlation = share[:, :, None] * stated[:, columns][:, :, columns] * share[:, None, :]
        with np.errstate(divide="ignore", invalid="ignore"):
            if_wrong = _log_density_of_known(position[rows], (inner / unit)[rows])
            if_wrong -= np.log(unit[rows])
        densities = _log_densities(residual[rows] / scale, scale, dof, correlation, if_wrong)
        causes, shares = fit_shares(densities)
        for cell in _cells(prediction.values[rows][:, columns]):
            causes[cell], _ = fit_shares(densities[cell], shares)
        probability[rows] = 1 - causes[:, 0]
        wrong = causes[:, 1:-1] + causes[:, -1:]
        by_label[rows] = np.where(present, wrong, np.nan)
    return LabelAudit(prediction, known, sigma, probability, by_label)


def fit_shares(log_densities: Array, prior: Array | None = None) -> tuple[Array, Array]:
    """Probability of each of C causes for each star [N, C], and their shares [C].

    ``log_densities`` [N, C] are those of each star's residuals under each cause, the first of which
    is that nothing is wrong; ``-inf`` where a star cannot have it. ``prior`` [C] are prior shares,
    which count as much as :data:`PRIOR_STARS` stars.
    """
    if prior is None:
        count = log_densities.shape[1]
        prior = np.full(count, PRIOR_SHARE)
        prior[0] = 1 - PRIOR_SHARE * (count - 1)
    shares = prior
    for _ in range(STEPS):
        joint = log_densities + np.log(shares)
        causes = np.exp(joint - joint.max(axis=1, keepdims=True))
        causes /= causes.sum(axis=1, keepdims=True)
        updated = (causes.sum(axis=0) + PRIOR_STARS * prior) / (len(causes) + PRIOR_STARS)
        if np.abs(updated - shares).max() < CHANGE:
            break
        shares = updated
    return causes, shares


def _log_densities(
    z: Array, scale: Array, dof: Array, correlation: Array, if_wrong: Array
) -> Array:
    """Log densities [N, K + 2] of the residuals: if nothing is wrong, one of K labels, all are.

    ``z`` [N, K] are residuals over the ``scale`` [N, K] of a Student t with ``dof`` [N, K],
    ``correlation`` is [N, K, K], ``if_wrong`` the log density [N, K] of a label that is wrong.
    """
    present, single = np.isfinite(z), np.eye(z.shape[1], dtype=bool)
    count = present.sum(axis=1)
    if_wrong, log_scale = (np.where(present, a, 0.0) for a in (if_wrong, np.log(scale)))

    def if_right(labels: NDArray[np.bool_]) -> Array:
        density: Array = _log_t(z, dof, correlation, labels) - (log_scale * labels).sum(axis=1)
        return density

    one_wrong = [
        np.where(present[:, k], if_wrong[:, k] + if_right(present & ~label), -np.inf)
        for k, label in enumerate(single)
    ]
    # for a star with a single label this is the same as that label being wrong
    all_wrong = np.where(count > 1, if_wrong.sum(axis=1), -np.inf)
    return np.stack([if_right(present), *one_wrong, all_wrong], axis=1)


def _log_t(z: Array, dof: Array, correlation: Array, labels: NDArray[np.bool_]) -> Array:
    """Log density [N] of a Student t of some ``labels`` [N, K] at unit scale.

    Real residuals have tails that all labels share (a strange star) and tails of single labels:
    half the density is a multivariate t, half a product of single ones along the correlation's
    axes.
    """
    from scipy.special import gammaln

    def log_t(square: Array, dof: Array, count: Array | float) -> Array:
        density: Array = (
            gammaln((dof + count) / 2) - gammaln(dof / 2) - count / 2 * np.log(np.pi * dof)
            - (dof + count) / 2 * np.log1p(square / dof)
        )  # fmt: skip
        return density

    k = z.shape[1]
    pairs = labels[:, :, None] & labels[:, None, :] & ~np.eye(k, dtype=bool)
    values, axes = np.linalg.eigh(np.where(pairs, correlation, np.eye(k)))
    values = np.maximum(values, SMALLEST_EIGENVALUE)
    along = np.einsum("nkj,nk->nj", axes, np.where(labels, z, 0.0)) / np.sqrt(values)
    # each label's own residual, without what it shares with the others
    own = np.einsum("nkj,nj->nk", axes, along)
    count = labels.sum(axis=1)
    mean_dof = np.maximum(count, 1) / np.maximum((labels / dof).sum(axis=1), 1e-9)
    joint = log_t((along**2).sum(axis=1), mean_dof, count)
    product = np.where(labels, log_t(own**2, dof, 1.0), 0.0).sum(axis=1)
    density: Array = np.logaddexp(joint, product) - np.log(2) - 0.5 * np.log(values).sum(axis=1)
    return density


def _cells(values: Array) -> list[NDArray[np.intp]]:
    """Rows of stars with similar predictions, 500-1000 each.

    The stars are divided in halves along the label with the widest range, again and again. An
    undefined label counts as an average one.
    """
    values = values[:, np.isfinite(values).any(axis=0)]
    offset, spread = values - np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    scaled = np.nan_to_num(offset / np.where(spread > 0, spread, 1.0))

    def halves(rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        if len(rows) < 2 * CELL:
            return [rows]
        low, high = np.quantile(scaled[rows], [0.05, 0.95], axis=0)
        order = rows[np.argsort(scaled[rows, np.argmax(high - low)], kind="stable")]
        return halves(order[: len(order) // 2]) + halves(order[len(order) // 2 :])

    return halves(np.arange(len(values)))


def _log_density_of_known(position: Array, error: Array) -> Array:
    """Log density of each label [N, K] among the known ones of all stars, by a histogram.

    No bin is empty. The density is flat where all lie within :data:`ALIKE` of their errors [N, K]:
    that the stars of a cluster have one [Fe/H] does not make it wrong.
    """
    density = np.zeros(position.shape)
    for k, column in enumerate(position.T):
        known = np.isfinite(column) & np.isfinite(error[:, k])
        if not known.any():
            continue
        values, least = column[known], ALIKE * float(np.median(error[known, k]))
        low, spread = values.min(), float(np.ptp(values))
        if spread < least:
            density[:, k] = -np.log(least)
            continue
        width = spread / BINS
        number = np.clip(np.nan_to_num((column - low) / width).astype(int), 0, BINS - 1)
        counts = np.bincount(number[known], minlength=BINS) + 1.0
        density[:, k] = np.log(counts / counts.sum() / width)[number]
    return density
