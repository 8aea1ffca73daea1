"""Factors of the half-widths that go with the star, so that coverage is right everywhere.

One factor per label is right on average: too small for some kinds of star and too large for
others. Here ln(factor) of each half-width is a sum of continuous, piecewise linear functions, one
of each predicted label and noise level, whose knots lie at quantiles of the calibration stars. It
is the quantile regression, at the interval's level, of the scores at which each star's interval
would just hold its known label: conformal prediction whose coverage is conditional on a class of
functions (Gibbs, Cherian & Candes 2025, JRSS B 87, 1100). At the minimum the derivative by each
height is zero: over each hat function, the soft bin about a knot, the weighted share of calibration
stars inside is the level, but for the smoothing and the penalty below.

Hat functions along single coordinates leave their combinations to
:mod:`~xplabels.calibration.error_shape`, which has products.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from xplabels.core.arrays import Array
from xplabels.core.distribution import LEVEL_68, LEVEL_95

LARGEST = 3.0
"""A half-width is multiplied by this at most, and divided by it at most."""
SMALLEST_FACTOR = 0.1
"""Where label errors alone explain the residuals, no factor would be small enough: it ends here,
and the intervals cover more than they say."""
STARS_AT_THE_END = 100
"""That lie beyond the outermost knots. With fewer than four times as many, factors are constant."""
RARE = 0.3
"""Labels of which fewer stars are known, relative to the commonest, have no say in where knots lie;
the penalty keeps their factors smooth."""
KNOTS_PER_FOLD = 2.0
"""Knots for each factor of e in the number of stars, either way from the median."""
STIFFNESS = 60.0
"""On the squared differences of ln(factor) at neighbouring knots; a star weighs about 1."""
SMOOTHING = 0.1
"""Of the pinball loss, in ln(score): makes it smooth enough to be minimised with derivatives."""


@dataclass(frozen=True)
class LocalFactors:
    """What multiplies each star's half-widths, beside one factor per label."""

    # float64 [C, J]: of the C coordinates (labels, then the noise levels, all scaled), J knots
    # each, ascending; J = 0 where no half-width changes
    knots: Array
    # float64 [K, C, J]: ln(factor) of the 68.3 and the 95.4 % half-width at the knots, to be summed
    # over coordinates
    inner: Array
    outer: Array
    # float64 [2, K], or [2, 1] of ones: what multiplies both half-widths of a star without any
    # auxiliary input; of a star that lacks some, its power of the share that is missing
    bare: Array = field(default_factory=lambda: np.ones((2, 1)))

    @classmethod
    def flat(cls, labels: int) -> LocalFactors:
        """Half-widths of K labels as they are."""
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
                sum(map(np.interp, coordinates, self.knots, one), np.zeros(len(labels)))
                for one in heights
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
        """Factors with which each soft bin of unseen stars holds its share, but for a constant.

        ``labels`` and ``noise`` as in :meth:`factors`; the others [N, K] in the same units, NaN
        where a label is unknown; variances as in
        :meth:`~xplabels.calibration.factors.Calibration.fit`. One factor per label for all stars
        is left to the calibration.
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
            some = residuals[rows, k], label_errors[rows, k], variance[rows, k], gaussian[rows, k]
            score = inner_score(*some)
            heights, level = quantile_regression(columns, np.log(score), LEVEL_68, penalty)
            inner.append(heights)
            score = outer_score(*some, np.exp(level + columns @ heights))
            outer.append(quantile_regression(columns, np.log(score), LEVEL_95, penalty)[0])
        shape = (known.shape[1], *knots.shape)
        return cls(knots, np.reshape(inner, shape), np.reshape(outer, shape))


def inner_score(residuals: Array, label_errors: Array, variance: Array, gaussian: Array) -> Array:
    """The factor at which the 68.3 % interval just holds the known label; arrays of one shape.

    The interval's half-width, squared, is factor^2 (variance + gaussian) + label_error^2.
    """
    excess = np.maximum(residuals**2 - label_errors**2, 0.0)
    return np.maximum(np.sqrt(excess / (variance + gaussian)), SMALLEST_FACTOR)


def outer_score(
    residuals: Array, label_errors: Array, variance: Array, gaussian: Array, inner: Array | float
) -> Array:
    """The same of the 95.4 % interval, where ``inner`` is the factor of the 68.3 % one.

    Its half-width, squared, is factor^2 variance + (2 inner)^2 gaussian + (2 label_error)^2.
    """
    excess = np.maximum(residuals**2 - 4 * (label_errors**2 + inner**2 * gaussian), 0.0)
    return np.maximum(np.sqrt(excess / variance), SMALLEST_FACTOR)


def hats(x: Array, knots: Array) -> Array:
    """Hat functions [N, J] of J ascending knots, which sum to 1; constant beyond the last ones."""
    left = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    share = np.clip((x - knots[left]) / (knots[left + 1] - knots[left]), 0, 1)
    found, rows = np.zeros((len(x), len(knots))), np.arange(len(x))
    found[rows, left], found[rows, left + 1] = 1 - share, share
    return found


def quantile_regression(
    design: Array, values: Array, level: float, penalty: Array
) -> tuple[Array, float]:
    """Weights and a constant: design @ weights + constant exceeds a share ``level`` of ``values``.

    The pinball loss convolved with a Gaussian of width :data:`SMOOTHING` (He et al. 2023, J.
    Econometrics 232, 367), which is convex and smooth, plus weights @ penalty @ weights / 2. Its
    derivative by a weight is the sum over stars of design x (share below - level).
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
    """Knots [C, J] at quantiles evenly spaced in their logits: closer in the tails."""
    end = np.log(stars / STARS_AT_THE_END - 1)
    logits = np.linspace(-end, end, 2 * round(KNOTS_PER_FOLD * end) + 1)
    knots = np.quantile(coordinates, 1 / (1 + np.exp(-logits)), axis=0).T
    # a coordinate of few values has equal quantiles; np.interp needs ascending ones
    return np.asarray(knots + 1e-6 * np.arange(len(logits)))


def _penalty(coordinates: int, knots: int) -> Array:
    """On differences of neighbours, and a little on the sum of each coordinate's heights."""
    steps = np.diff(np.eye(knots), axis=0)
    one = STIFFNESS * steps.T @ steps + np.eye(knots) / 100
    return np.asarray(np.kron(np.eye(coordinates), one))
