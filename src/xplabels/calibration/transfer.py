"""Whether errors calibrated on some stars hold for others, of which no label is known.

Calibrated errors are right for stars exchangeable with the calibration stars. The inputs of any
star can be compared with theirs: predicted labels, noise, distance from the training set, and which
photometry is missing. This shows three things, without a known label:

* for each star, whether there are calibration stars like it at all;
* for all stars, what the coverage of their intervals would be if nothing but the inputs differed:
  that of the calibration stars, weighted by the likelihood ratio of the inputs (covariate shift:
  Tibshirani et al. 2019, NeurIPS 32), which is estimated by how often a calibration star is among
  the nearest neighbours of the stars (Lin, Ding & Han 2023, Econometrica 91, 2187);
* whether a classifier distinguishes the two samples (Lopez-Paz & Oquab 2017, ICLR).

A comparison of inputs cannot show that labels differ at the same inputs, as for stars of a kind
that is not in the training set but looks like another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.arrays import Array
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.errors import InputError

LARGEST_SAMPLE, LARGEST_BARE_SAMPLE = 4000, 2000
"""Calibration stars that a model keeps, and how many of them once more without photometry."""
SMALLEST_SAMPLE = 200
"""Fewest calibration stars for a comparison."""
NEAR, NEAREST = 10, 30
"""Number of nearest neighbours by which a star's isolation is measured, and by which calibration
stars are weighted."""
ALONE = 0.01
"""Share of stars like the calibration stars that are called unlike them (lonely)."""
MISSING = 3.0
"""Distance, in standard deviations, of a star without a colour from one that has it."""
SIGMAS = 3.0
"""Standard deviations beyond which a count of lonely stars, or a coverage, is not chance."""
TOLERANCE = 0.05
"""Largest difference of a coverage from its level that is acceptable."""
LEAST_EFFECTIVE = 100.0
"""Least effective number of weighted calibration stars by which coverage is judged."""
MOST_CLASSIFIED = 4000
"""Stars that train and test the classifier."""
NOISE = ("noise_bp", "noise_rp")
DISTANCE = "domain_distance"
WORDS: dict[str, tuple[str, str]] = {
    "teff": ("cooler", "hotter"),
    "noise_bp": ("less noisy in BP", "noisier in BP (fainter)"),
    "noise_rp": ("less noisy in RP (brighter)", "noisier in RP (fainter)"),
    DISTANCE: ("closer to the mean of the training stars", "further from the training stars"),
}
"""Words for a star that is below and above those with which it is compared."""
COLOURS = {
    "bp_rp": "BP - RP", "j_h": "J - H", "g_rp": "G - RP", "g_j": "G - J", "rp_j": "RP - J",
    "rp_ks": "RP - Ks", "h_ks": "H - Ks", "w1_w2": "W1 - W2", "h_w2": "H - W2",
    "m_pseudo": "the pseudo-absolute magnitude",
}  # fmt: skip


@dataclass(frozen=True)
class CalibrationStars:
    """A sample of the stars on which a model's errors were calibrated."""

    coordinates: NDArray[np.float32]  # float32 [n, C] of coordinate_names: scaled
    # float32 [2, n, K]: abs(known - predicted label) over the half-width of the 68.3 and of the
    # 95.4 % interval, label error in quadrature (twice for 95.4 %); NaN where unknown. Inside: at
    # most 1.
    ratios: NDArray[np.float32]

    def compare(
        self,
        stars: Array,
        labels: Sequence[str],
        colours: Sequence[str],
        by: Sequence[str] | None = None,
    ) -> Transfer:
        """Whether the errors hold for ``stars`` [N, C], NaN where there is no prediction.

        ``by`` are the labels by which stars are compared; None: all.

        :class:`InputError` if no star has a prediction.
        """
        usable = np.isfinite(stars).all(axis=1)
        if not usable.any():
            raise InputError("no star has a prediction", remedy="see the flags of xplabels predict")
        names = coordinate_names(by or labels, colours)
        spectral = len(names) - len(colours)
        compared, untested = stars[usable], np.zeros(len(stars), bool)
        compared[:, spectral:], untested[usable] = self._nearest_photometry(
            compared[:, spectral:] > 0
        )
        # if all stars have photometry, or none has, they are compared with such stars alone
        bare, stars_bare = (
            np.all(x[:, spectral:] > 0, axis=1) for x in (self.coordinates, compared)
        )
        chosen = np.isin(bare, stars_bare)
        if chosen.sum() < SMALLEST_SAMPLE:
            chosen[:] = True
        coordinates, ratios = self.coordinates[chosen], self.ratios[:, chosen].astype(np.float64)
        scale = coordinates.std(axis=0, dtype=np.float64)
        scale[spectral:] = 1 / MISSING
        scale = np.where(scale > 0, scale, 1.0)
        calibration, compared = coordinates / scale, compared / scale
        p_value, offset = loneliness(calibration, compared)
        lonely = p_value <= ALONE
        weights = matching_weights(calibration, compared[~lonely])
        inner, outer = (weighted(ratio, weights) for ratio in ratios)
        area, area_p_value = classified(calibration, compared)
        all_p_values = np.full(len(stars), np.nan)
        all_p_values[usable] = p_value
        shift = compared.mean(axis=0) - calibration.mean(axis=0)
        largest = int(np.abs(shift).argmax())
        return Transfer(
            tuple(labels), all_p_values, len(calibration),
            _reasons(offset[lonely], names, len(colours)),
            np.array([inner[0], outer[0]]), np.array([inner[1], outer[1]]), inner[2],
            area, area_p_value, _word(names, largest, float(shift[largest]), len(colours)),
            untested,
        )  # fmt: skip

    def _nearest_photometry(
        self, missing: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The sets of missing colours [N, C] with which stars are compared.

        These are the most similar to each star's own ``missing`` [N, C] among those that at least
        :data:`SMALLEST_SAMPLE` calibration stars lack. Also returns for which stars [N] it is
        another set than their own.
        """
        calibration_missing = self.coordinates[:, -missing.shape[1] :] > 0
        sets, counts = np.unique(calibration_missing, axis=0, return_counts=True)
        sets = sets[counts >= SMALLEST_SAMPLE]
        if not missing.shape[1] or not len(sets):
            return missing, np.zeros(len(missing), bool)
        differing = (missing[:, None] != sets).sum(axis=2)
        return sets[differing.argmin(axis=1)], differing.min(axis=1) > 0


def coordinate_names(labels: Sequence[str], colours: Sequence[str]) -> tuple[str, ...]:
    """Names of the coordinates in which stars are compared.

    They are the predicted labels and noise levels, in standard deviations of the training set, the
    logarithm of the domain distance, and for each colour 1 where it is missing, else 0.
    """
    return (*labels, *NOISE, DISTANCE, *colours)


@dataclass(frozen=True)
class Transfer:
    """How far errors that were calibrated on some stars can be trusted for N others.

    Attributes
    ----------
    names
        K labels.
    p_value
        Float64 [N]: share of the calibration stars that are as lonely among the others as the star
        is; NaN where there is no prediction. For a star exchangeable with them, the probability
        that it is at most a is at most a, for every a, exactly (conformal ranks).
    compared
        Number of calibration stars.
    reasons
        Why stars are lonely, in words, and how many are for each reason: most frequent first.
    coverage, factor
        Float64 [2, K], for the stars that are not lonely: the share expected inside the 68.3 and
        the 95.4 % interval, and the factor of the errors that would make these shares right.
    effective
        Float64 [K]: effective number of the weighted calibration stars.
    separation
        Share of pairs of a star and a calibration star that a classifier puts in order: 0.5 if it
        cannot distinguish them.
    separation_p_value
        Probability of so large a share if it cannot.
    difference
        In which respect the stars differ most in the mean, in words.
    untested
        Bool [N]: whether the star lacks colours that hardly any calibration star lacks. It is
        compared with those of the most similar photometry; the effect of the missing colours on its
        errors is not tested.
    """

    names: tuple[str, ...]
    p_value: Array
    compared: int
    reasons: tuple[tuple[str, int], ...]
    coverage: Array
    factor: Array
    effective: Array
    separation: float
    separation_p_value: float
    difference: str
    untested: NDArray[np.bool_]

    @property
    def lonely(self) -> NDArray[np.bool_]:
        """Stars [N] unlike every calibration star: one in a hundred is, of stars like them."""
        return np.asarray(self.p_value <= ALONE)

    @property
    def n(self) -> int:
        """Stars with a prediction."""
        return int(np.isfinite(self.p_value).sum())

    @property
    def coverage_error(self) -> Array:
        """Standard errors [2, K] of the expected coverages."""
        level = np.array([[LEVEL_68], [LEVEL_95]])
        with np.errstate(divide="ignore"):
            return np.asarray(np.sqrt(level * (1 - level) / self.effective))

    @property
    def many_lonely(self) -> bool:
        """Whether more stars are lonely than by chance, of both samples of stars."""
        spread = np.sqrt(self.n * ALONE * (1 + 2 * self.n / self.compared))
        return bool(self.lonely.sum() > self.n * ALONE + SIGMAS * spread + 1)

    @property
    def wrong(self) -> tuple[str, ...]:
        """Labels whose coverage is off by more than 5 percentage points, and not by chance."""
        off = np.abs(self.coverage - [[LEVEL_68], [LEVEL_95]])
        wrong = ((off > TOLERANCE) & (off > SIGMAS * self.coverage_error)).any(axis=0)
        wrong &= self.effective >= LEAST_EFFECTIVE
        return tuple(compress(self.names, wrong))

    @property
    def answer(self) -> str:
        """Whether the error bars hold, in a sentence."""
        lonely, n = int(self.lonely.sum()), self.n
        similar = n - lonely
        if similar < 0.05 * n:
            return f"No: {similar:,} of your {_stars(n)} are like calibration stars."
        share, rest, of = "", "", f"for your {_stars(n)}"
        if self.many_lonely:
            share, of = f" for {similar:,} ({100 * similar / n:.0f} %)", f"of your {_stars(n)}"
            rest = f"; no for {lonely:,}: their errors are extrapolated"
        if self.wrong:
            k = [self.names.index(name) for name in self.wrong]
            times = ", ".join(f"{self.names[i]} by {self.factor[0, i]:.2f}" for i in k)
            return f"Not as they are{share} {of}: multiply the errors of {times}{rest}."
        if not (self.effective >= LEAST_EFFECTIVE).any():
            return f"Perhaps{share} {of}: it rests on too few calibration stars to tell{rest}."
        return f"Yes{share} {of}{rest}."

    def to_text(self) -> str:
        """The answer with its reasons, for the terminal."""
        lines = [self.answer, ""]
        lonely = int(self.lonely.sum())
        lines.append(
            f"Like calibration stars: {self.n - lonely:,} of {_stars(self.n)}; unlike: {lonely:,} "
            f"(about {ALONE * self.n:.0f} would be if yours were of the same population)."
        )
        if untested := int(self.untested.sum()):
            lines.append(
                f"Not tested: the effect of missing colours on the errors of {_stars(untested)}; "
                "few calibration stars lack the same colours. They are compared with those of the "
                "most similar photometry."
            )
        if missing := len(self.p_value) - self.n:
            lines.append(f"{_stars(missing)} more without a prediction.")
        if self.many_lonely or lonely == self.n:
            lines += [f"{count:9,d}  {words}" for words, count in self.reasons[:5]]
        lines.append("Expected of their intervals, if nothing but the inputs differs:")
        for k, name in enumerate(self.names):
            if not self.effective[k]:
                lines.append(f"  {name}: no calibration star like them has it")
                continue
            share, error = 100 * self.coverage[:, k], 100 * self.coverage_error[:, k]
            lines.append(
                f"  {name}: {share[0]:.1f} +- {error[0]:.1f} % inside 68.3 %, "
                f"{share[1]:.1f} +- {error[1]:.1f} % inside 95.4 % "
                f"(rests on {self.effective[k]:.0f} calibration stars)"
            )
        differ = self.separation_p_value < ALONE
        how = f"; largest difference: {self.difference}." if differ else ", which may be chance."
        lines.append(
            "A classifier tells one of your stars from a calibration star in "
            f"{100 * self.separation:.0f} % of pairs (50 % by chance){how}"
        )
        return "\n".join(lines)

    __str__ = to_text

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the p-values are those of :attr:`p_value`, null without a prediction."""
        return {
            "answer": self.answer,
            "stars": self.n,
            "lonely": int(self.lonely.sum()),
            "reasons": dict(self.reasons),
            "colours_not_tested": int(self.untested.sum()),
            "labels": {
                name: {
                    "coverage_68": _number(self.coverage[0, k]),
                    "coverage_95": _number(self.coverage[1, k]),
                    "error_factor_68": _number(self.factor[0, k]),
                    "error_factor_95": _number(self.factor[1, k]),
                    "effective_stars": float(self.effective[k]),
                }
                for k, name in enumerate(self.names)
            },
            "separation": self.separation,
            "separation_p_value": self.separation_p_value,
            "p_value": [_number(p) for p in self.p_value],
        }


def loneliness(known: Array, stars: Array) -> tuple[Array, Array]:
    """P-values [N] for being like the calibration stars, and offsets [N, C] from the nearest.

    A star's score is its distance to the tenth neighbour among half of the calibration stars, over
    that of its neighbours, since distances are large where stars are rare (Breunig et al. 2000).
    The p-value is its rank among the scores of the other half.
    """
    from scipy.spatial import cKDTree

    shuffled = np.random.default_rng(0).permutation(len(known))
    neighbours, ranked = known[shuffled[::2]], known[shuffled[1::2]]
    tree = cKDTree(neighbours)
    own_distance = tree.query(neighbours, NEAR + 1)[0][:, -1]

    def score(points: Array) -> tuple[Array, NDArray[np.intp]]:
        distance, rows = tree.query(points, NEAR)
        spacing = np.maximum(np.median(own_distance[rows], axis=1), 1e-9)
        return distance[:, -1] / spacing, rows

    known_scores, (scores, rows) = np.sort(score(ranked)[0]), score(stars)
    beyond = len(known_scores) - np.searchsorted(known_scores, scores, side="left")
    return (1 + beyond) / (1 + len(known_scores)), stars - neighbours[rows].mean(axis=1)


def matching_weights(known: Array, stars: Array) -> Array:
    """Weights [n] of the calibration stars: how often each is among a star's nearest neighbours.

    They are divided by the number of neighbours, so that their sum is the number of ``stars``.
    """
    from scipy.spatial import cKDTree

    if not len(stars):
        return np.zeros(len(known))
    _, rows = cKDTree(known).query(stars, NEAREST)
    return np.asarray(np.bincount(rows.ravel(), minlength=len(known)) / NEAREST)


def weighted(ratios: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Coverage, error factor and effective number of the weighted stars, [K] each.

    Coverage is the share of the ``ratios`` [n, K] that are at most 1; NaN does not count. The
    factor is the quantile of the weighted ratios at the coverage of all n stars without weights,
    which is the level for which the half-widths were calibrated.
    """
    share, factor, effective = (np.full(ratios.shape[1], np.nan) for _ in range(3))
    for k, column in enumerate(ratios.T):
        known = np.isfinite(column)
        ratio, weight = column[known], weights[known]
        effective[k] = weight.sum() ** 2 / max((weight**2).sum(), 1e-300)
        if not weight.sum():
            continue
        order = np.argsort(ratio)
        below = np.cumsum(weight[order]) / weight.sum()
        share[k] = weight[ratio <= 1].sum() / weight.sum()
        level = (ratio <= 1).mean()
        factor[k] = ratio[order][min(np.searchsorted(below, level), len(below) - 1)]
    return share, factor, effective


def classified(known: Array, stars: Array) -> tuple[float, float]:
    """Share of pairs that a classifier orders, and the probability of so large a share by chance.

    The classifier is a logistic regression on coordinates, squares and products. It is trained on
    half of both samples and tested on the other half (Mann & Whitney's U), so that the probability
    is right whatever it learns.
    """
    from scipy.special import expit, ndtr

    random = np.random.default_rng(0)
    samples = [
        sample[random.permutation(len(sample))[:MOST_CLASSIFIED]] for sample in (known, stars)
    ]
    if min(map(len, samples)) < 4:
        return 0.5, 1.0
    both = np.concatenate(samples)
    varies = both.std(axis=0) > 0
    centre, spread = both[:, varies].mean(axis=0), both[:, varies].std(axis=0)

    def terms(points: Array) -> Array:
        x = np.clip((points[:, varies] - centre) / spread, -4, 4)
        first, second = np.triu_indices(x.shape[1])
        return np.concatenate([np.ones((len(x), 1)), x, x[:, first] * x[:, second]], axis=1)

    (train_0, test_0), (train_1, test_1) = (
        (terms(sample[::2]), terms(sample[1::2])) for sample in samples
    )
    design, sizes = np.concatenate([train_0, train_1]), [len(train_0), len(train_1)]
    target = np.repeat([0.0, 1.0], sizes)
    each = np.repeat([0.5 / size for size in sizes], sizes)
    weights = np.zeros(design.shape[1])
    ridge = np.eye(len(weights)) / min(sizes)
    for _ in range(20):  # Newton's method; the ridge keeps separable samples finite
        share = expit(design @ weights)
        slope = design.T @ (each * (target - share)) - ridge @ weights
        curvature = (design.T * (each * share * (1 - share))) @ design + ridge
        weights += np.linalg.solve(curvature, slope)
    scores_0, scores_1 = np.sort(test_0 @ weights), test_1 @ weights
    # ties count half
    less, at_most = (np.searchsorted(scores_0, scores_1, side=side) for side in ("left", "right"))
    n_0, n_1 = len(scores_0), len(scores_1)
    area = float((less + at_most).mean() / (2 * n_0))
    area_error = np.sqrt((n_0 + n_1 + 1) / (12 * n_0 * n_1))
    return area, float(ndtr((0.5 - area) / area_error))


def _reasons(offset: Array, names: Sequence[str], colours: int) -> tuple[tuple[str, int], ...]:
    """In which coordinate lonely stars are furthest from their nearest neighbours, with counts."""
    largest = np.abs(offset).argmax(axis=1)
    words = [
        _word(names, int(c), float(star[c]), colours)
        for c, star in zip(largest, offset, strict=True)
    ]
    reasons, counts = np.unique(words, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple((str(reasons[i]), int(counts[i])) for i in order)


def _word(names: Sequence[str], column: int, offset: float, colours: int) -> str:
    name = names[column]
    if column >= len(names) - colours:
        return f"{'without' if offset > 0 else 'with'} {COLOURS.get(name, name)}"
    return WORDS.get(name, (f"of lower {name}", f"of higher {name}"))[offset > 0]


def _stars(count: int) -> str:
    return f"{count:,} star{'' if count == 1 else 's'}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
