"""Known labels that are probably wrong, named by predictions of stars that no network had seen.

Each star's residuals have one of several causes: nothing is wrong, one of its labels is, or all of
them are, because the survey took the star for another. If nothing is wrong they follow the
predictive distribution, a Student t in all labels together with the label errors added
(:mod:`xplabels.core.distribution`); a wrong label may be that of any star. The share of each cause
is fitted to the stars by expectation maximisation, and Bayes' rule then gives each star the
probability that a label of its is wrong (the good and bad points of Hogg, Bovy & Lang 2010,
arXiv:1008.4686, section 3, with known errors and several labels). Stars with like predictions have
shares of their own, because a survey goes wrong on some kinds of stars.

The probability is as good as the stated errors: a label that the spectrum does not determine, or
a kind of star that the model does not do well, may look wrong. Stars that are not good (flags) are
not judged: a spectrum that the model cannot read says nothing about a label.
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
"""Of the distribution of known labels, from which wrong ones are taken to come."""
ALIKE = 20.0
"""Known labels within so many of their errors (the prediction's and their own) are all alike."""
PRIOR_STARS, PRIOR_SHARE = 500, 0.001
"""So many further stars count for the shares, of which each cause has this share; in a cell they
have the shares of all stars."""
HEAVIEST = 4.0
"""Fewest degrees of freedom of right labels: what lies further out than the tails of the networks'
own likelihood is what wrong labels are for."""
CELL = 500
"""Fewest stars with like predictions that have shares of their own."""
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
        is missing. Of a logarithmic label: ln(known / predicted) over the relative error.
    probability
        That a label of the star is wrong [N]; NaN where that was not judged.
    by_label
        That this label is wrong [N, K].
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
        """Why the star has its probability, or none, in words."""
        if not self.judged[row]:
            flags = int(self.prediction.flags[row]) & int(BAD)
            why = [MEANING[flag] for flag in Flag if flags & flag]
            reason = "; ".join(why) or "no known label with an error is predicted"
            return f"{reason}: label not judged"
        sigma = np.nan_to_num(self.sigma[row])
        order = [k for k in np.argsort(-np.abs(sigma)) if abs(sigma[k]) >= DISAGREES]
        each = [f"{self.labels.names[k]} by {abs(sigma[k]):.0f} sigma" for k in order]
        if not each:
            return "labels disagree with the spectrum taken together, none by itself"
        verb = "label disagrees" if len(each) == 1 else "labels disagree"
        return f"{verb} with the spectrum in {', '.join(each)}"

    def beside(self, row: int, k: int) -> str:
        """The known label of a star and, after an arrow, the predicted one; "-" where absent."""
        label, one = self.labels.values[row, k], self.prediction[self.labels.names[k]]
        if not np.isfinite(label):
            return "-"
        if not np.isfinite(one.value[row]):
            return f"{label:.4g} → -"
        return f"{label:.4g} → {one.value[row]:.4g} ± {one.error[row]:.2g}"

    def summary(self) -> dict[str, Any]:
        """Numbers of stars, as in ``metrics.json`` and ``model.json``."""
        return {
            "n": int(self.compared.sum()),
            "judged": int(self.judged.sum()),
            "probably_wrong": int(self.wrong.sum()),
            "expected_wrong": float(np.nansum(self.probability)),
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
            label, one = label_of(name), stars[name]
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


def audit_finding(found: LabelAudit) -> Finding:
    """How many labels are probably wrong, and the worst of them."""
    section = Section("label_audit", "Labels that are probably wrong", folded=True)
    rows, names = found.worst(WRONG), found.labels.names
    section.paragraphs.append(
        f"{found.to_text().capitalize()}. The probability is that of a wrong label, or of all, "
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
                    str(found.prediction.source_id[row]),
                    f"{found.probability[row]:.3f}",
                    *(found.beside(row, k) for k in range(len(names))),
                    found.reason(row),
                ]
                for row in rows[:SHOWN].tolist()
            ],
        )
    listed = [
        {
            "source_id": int(found.prediction.source_id[row]),
            "probability": float(found.probability[row]),
            "reason": found.reason(row),
        }
        for row in rows[:SHOWN].tolist()
    ]
    return Finding({"label_audit": found.summary() | {"worst": listed}}, section=section)


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
        if label_of(name).logarithmic:  # 10 % are as much for any star
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
        known_here = np.isfinite(sigma[rows])
        half, whole = (np.where(known_here, a[rows], b) for a, b in ((inner, 1.0), (outer, 2.0)))
        dof = np.maximum(matched_t(half, whole)[0], HEAVIEST)
        scale = half / stdtrit(dof, (1 + LEVEL_68) / 2)
        correlation = np.tile(np.eye(len(names)), (len(rows), 1, 1))
        if prediction.correlations is not None:
            stated = unpacked(np.nan_to_num(prediction.correlations[rows]), len(prediction.names))
            part = np.nan_to_num(prediction.errors[rows][:, columns] / inner[rows])
            correlation = part[:, :, None] * stated[:, columns][:, :, columns] * part[:, None, :]
        with np.errstate(divide="ignore", invalid="ignore"):
            elsewhere = _log_density_of_known(position[rows], (inner / unit)[rows])
            elsewhere -= np.log(unit[rows])
        densities = _log_densities(residual[rows] / scale, scale, dof, correlation, elsewhere)
        causes, shares = fit_shares(densities)
        for cell in _cells(prediction.values[rows][:, columns]):
            causes[cell], _ = fit_shares(densities[cell], shares)
        probability[rows] = 1 - causes[:, 0]
        wrong = causes[:, 1:-1] + causes[:, -1:]
        by_label[rows] = np.where(known_here, wrong, np.nan)
    return LabelAudit(prediction, known, sigma, probability, by_label)


def fit_shares(log_densities: Array, prior: Array | None = None) -> tuple[Array, Array]:
    """Probability of each of C causes for each star [N, C], and their shares [C].

    ``log_densities`` [N, C] of each star's residuals under each cause, the first of which is that
    nothing is wrong; ``-inf`` where a star cannot have it. ``prior`` [C] are the shares of
    :data:`PRIOR_STARS` further stars.
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
        found: Array = _log_t(z, dof, correlation, labels) - (log_scale * labels).sum(axis=1)
        return found

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
    density: Array = np.logaddexp(together, apart) - np.log(2) - 0.5 * np.log(values).sum(axis=1)
    return density


def _cells(values: Array) -> list[NDArray[np.intp]]:
    """Rows of stars with like predictions, 500-1000 each: halves of halves along the widest label.

    An undefined label counts as an average one.
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
    """Of each label [N, K] among the known ones of all stars: a histogram, no bin of it empty.

    Flat where they lie within :data:`ALIKE` of their errors [N, K]: that the stars of a cluster
    have one [Fe/H] does not make it wrong.
    """
    found = np.zeros(position.shape)
    for k, column in enumerate(position.T):
        known = np.isfinite(column) & np.isfinite(error[:, k])
        if not known.any():
            continue
        here, least = column[known], ALIKE * float(np.median(error[known, k]))
        low, spread = here.min(), float(np.ptp(here))
        if spread < least:
            found[:, k] = -np.log(least)
            continue
        width = spread / BINS
        number = np.clip(np.nan_to_num((column - low) / width).astype(int), 0, BINS - 1)
        counts = np.bincount(number[known], minlength=BINS) + 1.0
        found[:, k] = np.log(counts / counts.sum() / width)[number]
    return found
