"""Whether errors calibrated on some stars hold for others, of which no label is known.

Calibrated errors are right for stars exchangeable with the calibration stars. Of any star the
inputs can be compared: predicted labels, noise, distance from the training set, which photometry
is missing. Three things follow, none of which needs a label:

* per star, whether there are calibration stars like it at all;
* for all stars, what their intervals would hold if nothing but the inputs differed: calibration
  stars weighed by the likelihood ratio of the inputs (covariate shift: Tibshirani et al. 2019,
  NeurIPS 32), which is how often a calibration star is among the nearest of one of the stars (Lin,
  Ding & Han 2023, Econometrica 91, 2187);
* whether a classifier tells the two apart (Lopez-Paz & Oquab 2017, ICLR).

What no comparison of inputs can show is a difference in labels at the same inputs, such as stars
of a kind that the training set lacks and that look like others of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.arrays import Array
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.errors import InputError

LARGEST_SAMPLE, LARGEST_BARE_SAMPLE = 4000, 2000
"""Calibration stars that a model keeps, and how many of them once more without photometry."""
SMALLEST_SAMPLE = 200
"""With fewer, there is nothing to compare with."""
NEAR, NEAREST = 10, 30
"""Neighbours that say how isolated a star is, and that say how its kind fares."""
ALONE = 0.01
"""Share of stars like the calibration stars that are said to be unlike them."""
MISSING = 3.0
"""Distance, in standard deviations, of a star without a colour from one that has it."""
SIGMAS = 3.0
"""Beyond which a count of lonely stars, or a coverage, is not chance."""
TOLERANCE = 0.05
"""On coverage."""
LEAST_EFFECTIVE = 100.0
"""Weighted calibration stars are worth so many, or their coverage is not judged."""
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
"""Of a star below and above those it is compared with."""
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
        there, untested = stars[usable], np.zeros(len(stars), bool)
        there[:, spectral:], untested[usable] = self._nearest_photometry(there[:, spectral:] > 0)
        # stars that all have photometry, or all have none, are compared with such stars alone
        bare, of_stars = (np.all(x[:, spectral:] > 0, axis=1) for x in (self.coordinates, there))
        kept = np.isin(bare, of_stars)
        if kept.sum() < SMALLEST_SAMPLE:
            kept[:] = True
        coordinates, ratios = self.coordinates[kept], self.ratios[:, kept].astype(np.float64)
        scale = coordinates.std(axis=0, dtype=np.float64)
        scale[spectral:] = 1 / MISSING
        scale = np.where(scale > 0, scale, 1.0)
        known, there = coordinates / scale, there / scale
        p_value, offset = loneliness(known, there)
        lonely = p_value <= ALONE
        weights = matching_weights(known, there[~lonely])
        shares = [weighted(one, weights) for one in ratios]
        coverage, factor = (np.array(one) for one in zip(*(s[:2] for s in shares), strict=True))
        area, tells = classified(known, there)
        everyone = np.full(len(stars), np.nan)
        everyone[usable] = p_value
        moved = there.mean(axis=0) - known.mean(axis=0)
        return Transfer(
            tuple(labels), everyone, len(known), _reasons(offset[lonely], names, len(colours)),
            coverage, factor, shares[0][2], area, tells,
            _word(names, int(np.abs(moved).argmax()), float(moved[np.abs(moved).argmax()]),
                  len(colours)),
            untested,
        )  # fmt: skip

    def _nearest_photometry(
        self, missing: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """For colours that stars lack [N, C], the most similar set that calibration stars lack.

        Also for which stars [N] that is another set than their own, because fewer than
        :data:`SMALLEST_SAMPLE` calibration stars lack the same colours.
        """
        own = self.coordinates[:, -missing.shape[1] :] > 0
        sets, counts = np.unique(own, axis=0, return_counts=True)
        sets = sets[counts >= SMALLEST_SAMPLE]
        if not missing.shape[1] or not len(sets):
            return missing, np.zeros(len(missing), bool)
        differing = (missing[:, None] != sets).sum(axis=2)
        return sets[differing.argmin(axis=1)], differing.min(axis=1) > 0


def coordinate_names(labels: Sequence[str], colours: Sequence[str]) -> tuple[str, ...]:
    """What is compared: predicted labels, noise levels, domain distance, missing colours.

    Labels and noise in standard deviations of the training set, the logarithm of the distance; 1
    where a colour is missing, else 0.
    """
    return (*labels, *NOISE, DISTANCE, *colours)


@dataclass(frozen=True)
class Transfer:
    """How far errors calibrated on some stars may be trusted on N others.

    Attributes
    ----------
    names
        K labels.
    p_value
        Float64 [N]: share of the calibration stars that are as lonely among the others as the star
        is; NaN where there is no prediction. If the star is exchangeable with them, it is at most
        a with probability at most a, for every a: exactly, by conformal ranks.
    compared
        Calibration stars.
    reasons
        Why stars are lonely, in words, and how many are: most frequent first.
    coverage, factor
        Float64 [2, K]: of the stars that are not lonely, the share expected inside the 68.3 and the
        95.4 % interval, and what would make those shares right if it multiplied the errors.
    effective
        Float64 [K]: how many calibration stars the weighted ones are worth.
    separation
        Share of pairs, of a star and a calibration star, that a classifier puts in order: 0.5 if it
        cannot tell them apart.
    separation_p_value
        Probability of so large a share if it cannot.
    difference
        In which way the stars differ most in the mean, in words.
    untested
        Bool [N]: the star lacks colours that hardly any calibration star lacks. It is compared
        with those of the most similar photometry; whether its errors allow for the colours
        missing is not tested.
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
        """Whether more stars are lonely than chance, of the stars and of the calibration's."""
        spread = np.sqrt(self.n * ALONE * (1 + 2 * self.n / self.compared))
        return bool(self.lonely.sum() > self.n * ALONE + SIGMAS * spread + 1)

    @property
    def wrong(self) -> tuple[str, ...]:
        """Labels whose intervals should hold 5 points more or less than they say, not by chance."""
        off = np.abs(self.coverage - [[LEVEL_68], [LEVEL_95]])
        found = ((off > TOLERANCE) & (off > SIGMAS * self.coverage_error)).any(axis=0)
        judged = self.effective >= LEAST_EFFECTIVE
        return tuple(name for name, one in zip(self.names, found & judged, strict=True) if one)

    @property
    def answer(self) -> str:
        """Whether the error bars hold, in a sentence."""
        lonely, n = int(self.lonely.sum()), self.n
        fine = n - lonely
        if fine < 0.05 * n:
            return f"No: {fine:,} of your {_stars(n)} are like calibration stars."
        whole = "" if not self.many_lonely else f" for {fine:,} ({100 * fine / n:.0f} %)"
        rest = "" if not self.many_lonely else f"; no for {lonely:,}: their errors are extrapolated"
        of = f"of your {_stars(n)}" if whole else f"for your {_stars(n)}"
        if self.wrong:
            k = [self.names.index(name) for name in self.wrong]
            times = ", ".join(f"{self.names[i]} by {self.factor[0, i]:.2f}" for i in k)
            return f"Not as they are{whole} {of}: multiply the errors of {times}{rest}."
        if not (self.effective >= LEAST_EFFECTIVE).any():
            return f"Perhaps{whole} {of}: it rests on too few calibration stars to tell{rest}."
        return f"Yes{whole} {of}{rest}."

    def to_text(self) -> str:
        """The answer and what it rests on, for the terminal."""
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

    A star's distance to its tenth neighbour among half of the calibration stars, over that of its
    neighbours (Breunig et al. 2000: where stars are rare, distances are large), is ranked among
    those of the other half.
    """
    from scipy.spatial import cKDTree

    half = np.random.default_rng(0).permutation(len(known))
    near, ranked = known[half[::2]], known[half[1::2]]
    tree = cKDTree(near)
    own = tree.query(near, NEAR + 1)[0][:, -1]

    def score(some: Array) -> tuple[Array, NDArray[np.intp]]:
        distance, rows = tree.query(some, NEAR)
        spacing = np.maximum(np.median(own[rows], axis=1), 1e-9)
        return distance[:, -1] / spacing, rows

    of_known, (of_stars, rows) = np.sort(score(ranked)[0]), score(stars)
    beyond = len(of_known) - np.searchsorted(of_known, of_stars, side="left")
    return (1 + beyond) / (1 + len(of_known)), stars - near[rows].mean(axis=1)


def matching_weights(known: Array, stars: Array) -> Array:
    """How often each calibration star [n] is among the nearest of a star, over their number."""
    from scipy.spatial import cKDTree

    if not len(stars):
        return np.zeros(len(known))
    _, rows = cKDTree(known).query(stars, NEAREST)
    return np.asarray(np.bincount(rows.ravel(), minlength=len(known)) / NEAREST)


def weighted(ratios: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Share of ratios at most 1, quantile at which the level of all is kept, effective number: [K].

    ``ratios`` [n, K]: NaN does not count. The level is the share of all n, which is that for which
    the half-widths were calibrated.
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

    Logistic regression on coordinates, squares and products, trained on half of both samples and
    tested on the other half (Mann & Whitney's U), so that the probability is right whatever it
    learns.
    """
    from scipy.special import expit, ndtr

    random = np.random.default_rng(0)
    chosen = [one[random.permutation(len(one))[:MOST_CLASSIFIED]] for one in (known, stars)]
    if min(map(len, chosen)) < 4:
        return 0.5, 1.0
    both = np.concatenate(chosen)
    varies = both.std(axis=0) > 0
    centre, spread = both[:, varies].mean(axis=0), both[:, varies].std(axis=0)

    def terms(some: Array) -> Array:
        x = np.clip((some[:, varies] - centre) / spread, -4, 4)
        first, second = np.triu_indices(x.shape[1])
        return np.concatenate([np.ones((len(x), 1)), x, x[:, first] * x[:, second]], axis=1)

    (no, later_no), (yes, later_yes) = ((terms(one[::2]), terms(one[1::2])) for one in chosen)
    design = np.concatenate([no, yes])
    target = np.repeat([0.0, 1.0], [len(no), len(yes)])
    each = np.repeat([0.5 / len(no), 0.5 / len(yes)], [len(no), len(yes)])
    weights = np.zeros(design.shape[1])
    ridge = np.eye(len(weights)) / min(len(no), len(yes))
    for _ in range(20):  # Newton's method; the ridge keeps separable samples finite
        share = expit(design @ weights)
        slope = design.T @ (each * (target - share)) - ridge @ weights
        curvature = (design.T * (each * share * (1 - share))) @ design + ridge
        weights += np.linalg.solve(curvature, slope)
    a, b = later_no @ weights, later_yes @ weights
    ranked = np.sort(a)
    less, at_most = (np.searchsorted(ranked, b, side=side) for side in ("left", "right"))
    area = float((less + at_most).mean() / (2 * len(a)))
    spread_of_area = np.sqrt((len(a) + len(b) + 1) / (12 * len(a) * len(b)))
    return area, float(ndtr((0.5 - area) / spread_of_area))


def _reasons(offset: Array, names: Sequence[str], colours: int) -> tuple[tuple[str, int], ...]:
    """In which coordinate each lonely star is furthest from its nearest: words and counts."""
    largest = np.abs(offset).argmax(axis=1)
    words = [
        _word(names, int(c), float(one[c]), colours) for c, one in zip(largest, offset, strict=True)
    ]
    found, counts = np.unique(words, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple((str(found[i]), int(counts[i])) for i in order)


def _word(names: Sequence[str], column: int, offset: float, colours: int) -> str:
    name = names[column]
    if column >= len(names) - colours:
        return f"{'without' if offset > 0 else 'with'} {COLOURS.get(name, name)}"
    return WORDS.get(name, (f"of lower {name}", f"of higher {name}"))[offset > 0]


def _stars(count: int) -> str:
    return f"{count:,} star{'' if count == 1 else 's'}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
