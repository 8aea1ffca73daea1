"""Factors of the half-widths that depend on the star, so that coverage is right everywhere.

One factor per label is right on average: too small for some kinds of star and too large for
others. Here ln(factor) of each half-width is a sum of continuous, piecewise linear functions, one
for each predicted label and noise level, whose knots lie at quantiles of the calibration stars. It
is fitted by quantile regression, at the interval's level, of the scores: the factors at which each
star's interval would just contain its known label. This is conformal prediction whose coverage is
conditional on a class of functions (Gibbs, Cherian & Candes 2025, JRSS B 87, 1100). At the minimum
the derivative by the height at each knot is zero: in each hat function (a soft bin about a knot)
the weighted share of calibration stars inside their interval is the level, apart from the
smoothing and the penalty below.

The functions are of single coordinates; products are left to
:mod:`~xplabels.calibration.error_shape`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from xplabels.core.arrays import Array
from xplabels.core.distribution import LEVEL_68, LEVEL_95

LARGEST = 3.0
"""Largest factor, and inverse of the smallest, of a half-width."""
SMALLEST_FACTOR = 0.1
"""Least score. Where label errors alone explain the residuals no factor would be small enough: with
this one the intervals cover more than they say."""
STARS_AT_THE_END = 100
"""Stars beyond each outermost knot. With fewer than four times as many in all, factors are
constant."""
RARE = 0.3
"""Labels that fewer stars have, relative to the commonest, do not count in placing the knots; the
penalty keeps their factors smooth."""
KNOTS_PER_FOLD = 2.0
"""Knots for each factor of e in the number of stars, in both directions from the median."""
STIFFNESS = 60.0
"""Weight of squared differences of ln(factor) at neighbouring knots; a star weighs about 1."""
SMOOTHING = 0.1
"""Width of the smoothing, in ln(score), that makes the pinball loss differentiable."""


@dataclass(frozen=True)
class LocalFactors:
    """Factors of each star's half-widths, beside the one per label for all stars."""

    # float64 [C, J]: J ascending knots of each of the C coordinates (labels, then the noise levels,
    # all scaled); J = 0 where no half-width changes
    knots: Array
    # float64 [K, C, J]: ln(factor) of the 68.3 and the 95.4 % half-width at the knots, to be summed
    # over coordinates
    inner: Array
    outer: Array
    # float64 [2, K], or [2, 1] of ones: factors of both half-widths for a star without auxiliary
    # inputs; where some are missing, raised to the power of the share that is missing
    bare: Array = field(default_factory=lambda: np.ones((2, 1)))

    @classmethod
    def flat(cls, labels: int) -> LocalFactors:
        """Factors that leave the half-widths of K labels unchanged."""
        return cls(np.empty((0, 0)), np.empty((labels, 0, 0)), np.empty((labels, 0, 0)))

    def factors(
        self, labels: Array, noise: Array, missing: Array | float = 0.0
    ) -> tuple[Array, Array]:
        """Factors [N, K] of both half-widths, by scaled labels [N, C - 2] and noise levels.

        ``missing`` [N] is the share of its auxiliary inputs that each star lacks.
        """
        inner, outer = self.bare[:, None] ** np.broadcast_to(missing, len(labels))[:, None]
        if not self.knots.size:
            ones = np.ones((len(labels), len(self.inner) or 1))
            return ones * inner, ones * outer
        coordinates = np.concatenate([labels, noise], axis=1).T
        bound = np.log(LARGEST)

        def factor(heights: Array) -> Array:
            logarithm = [
                sum(map(np.interp, coordinates, self.knots, of_label), np.zeros(len(labels)))
                for of_label in heights
            ]
            return np.exp(np.clip(np.stack(logarithm, axis=1), -bound, bound))

        return factor(self.inner) * inner, factor(self.outer) * outer

    @classmethod
    def fit(
        cls,
        labels: Array,
        noise: Array,
        residuals: Array,
        variance: Array,
        label_errors: Array,
        gaussian: Array,
    ) -> LocalFactors:
        """Factors with which the coverage is the same in each soft bin of unseen stars.

        ``labels`` and ``noise`` as in :meth:`factors`; the others [N, K] in the same units, NaN
        where a label is unknown; variances as in
        :meth:`~xplabels.calibration.factors.Calibration.fit`, which then sets the level by one
        factor per label for all stars.
        """
        known = np.isfinite(residuals) & np.isfinite(label_errors)
        count = known.sum(axis=0)
        least = int(count[count >= RARE * count.max()].min())
        if least < 4 * STARS_AT_THE_END:
            return cls.flat(known.shape[1])
        coordinates = np.concatenate([labels, noise], axis=1)
        knots = _knots(coordinates, least)
        design = np.concatenate([hats(x, at) for x, at in zip(coordinates.T, knots, strict=True)],
                                axis=1)  # fmt: skip
        penalty = _penalty(*knots.shape)
        inner, outer = [], []
        for k, rows in enumerate(known.T):
            columns = design[rows]
            known_stars = (
                residuals[rows, k], label_errors[rows, k], variance[rows, k], gaussian[rows, k],
            )  # fmt: skip
            score = inner_score(*known_stars)
            heights, level = quantile_regression(columns, np.log(score), LEVEL_68, penalty)
            inner.append(heights)
            score = outer_score(*known_stars, np.exp(level + columns @ heights))
            outer.append(quantile_regression(columns, np.log(score), LEVEL_95, penalty)[0])
        shape = (known.shape[1], *knots.shape)
        return cls(knots, np.reshape(inner, shape), np.reshape(outer, shape))


def inner_score(residuals: Array, label_errors: Array, variance: Array, gaussian: Array) -> Array:
    """The factor at which the 68.3 % interval just contains the known label; arrays of one shape.

    The interval's half-width, squared, is factor^2 (variance + gaussian) + label_error^2.
    """
    excess = np.maximum(residuals**2 - label_errors**2, 0.0)
    return np.maximum(np.sqrt(excess / (variance + gaussian)), SMALLEST_FACTOR)


def outer_score(
    residuals: Array, label_errors: Array, variance: Array, gaussian: Array, inner: Array | float
) -> Array:
    """The same for the 95.4 % interval, where ``inner`` is the factor of the 68.3 % one.

    Its half-width, squared, is factor^2 variance + (2 inner)^2 gaussian + (2 label_error)^2.
    """
    excess = np.maximum(residuals**2 - 4 * (label_errors**2 + inner**2 * gaussian), 0.0)
    return np.maximum(np.sqrt(excess / variance), SMALLEST_FACTOR)


def hats(x: Array, knots: Array) -> Array:
    """Hat functions [N, J] of J ascending knots, which sum to 1; constant beyond the outermost."""
    left = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    share = np.clip((x - knots[left]) / (knots[left + 1] - knots[left]), 0, 1)
    values, rows = np.zeros((len(x), len(knots))), np.arange(len(x))
    values[rows, left], values[rows, left + 1] = 1 - share, share
    return values


def quantile_regression(
    design: Array, values: Array, level: float, penalty: Array
) -> tuple[Array, float]:
    """Weights and a constant so that design @ weights + constant is the quantile of ``values``.

    They minimise the pinball loss for ``level``, convolved with a Gaussian of width
    :data:`SMOOTHING` (He et al. 2023, J. Econometrics 232, 367), which is convex and smooth, plus
    weights @ penalty @ weights / 2. The loss's derivative by a weight is the sum over stars of
    design x (probability below - level).
    """
    from scipy.optimize import minimize
    from scipy.special import ndtr

    design = np.concatenate([design, np.ones((len(design), 1))], axis=1)
    stiff = np.zeros((design.shape[1],) * 2)
    stiff[:-1, :-1] = penalty

    def loss(weights: Array) -> tuple[float, Array]:
        beyond = (design @ weights - values) / SMOOTHING
        share = ndtr(beyond) - level
        value = SMOOTHING * (beyond * share + np.exp(-(beyond**2) / 2) / np.sqrt(2 * np.pi))
        pull = stiff @ weights
        return float(value.sum() + weights @ pull / 2), np.asarray(design.T @ share + pull)

    start = np.append(np.zeros(design.shape[1] - 1), np.quantile(values, level))
    best: Array = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    return best[:-1], float(best[-1])


def _knots(coordinates: Array, stars: int) -> Array:
    """Knots [C, J] at quantiles evenly spaced in their logits, which are denser in the tails."""
    end = np.log(stars / STARS_AT_THE_END - 1)
    logits = np.linspace(-end, end, 2 * round(KNOTS_PER_FOLD * end) + 1)
    knots = np.quantile(coordinates, 1 / (1 + np.exp(-logits)), axis=0).T
    # a coordinate of few values has equal quantiles; np.interp needs ascending ones
    return np.asarray(knots + 1e-6 * np.arange(len(logits)))


def _penalty(coordinates: int, knots: int) -> Array:
    """Matrix that penalises differences of neighbouring heights, and slightly the heights."""
    steps = np.diff(np.eye(knots), axis=0)
    per_coordinate = STIFFNESS * steps.T @ steps + np.eye(knots) / 100
    return np.asarray(np.kron(np.eye(coordinates), per_coordinate))
