"""Factors with which intervals have their stated coverage, fitted to unseen stars.

Real residuals have heavier tails than a Gaussian, so the 68.3 and the 95.4 % interval each get
their own factor, which multiplies all parts of the error. The factor of a label for all stars is
that of split conformal prediction (Vovk et al. 2005; Lei et al. 2018, JASA 113, 1094), with its
guarantee; :mod:`~xplabels.calibration.local` makes factors depend on the star.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from xplabels.calibration.error_shape import ErrorShape
from xplabels.calibration.local import LocalFactors, inner_score, outer_score
from xplabels.core.arrays import Array
from xplabels.core.distribution import LEVEL_68, LEVEL_95

if TYPE_CHECKING:
    from xplabels.recipes import Likelihood


@dataclass(frozen=True)
class Calibration:
    """Turns predicted variances into half-widths of intervals.

    ``factor_95`` is for the model and intrinsic parts, whose residuals have heavy tails. The noise
    of the input is Gaussian: in the 95.4 % half-width it counts twice as in that of 68.3 %, so that
    a faint star's interval is not too wide.
    """

    # both factors are [K], or [N, K] after for_stars
    factor: Array  # multiplies all parts of the 68.3 % half-width
    factor_95: Array  # multiplies the model and intrinsic parts of the 95.4 % half-width
    # multiply all errors in the 68.3 and 95.4 % ellipsoids of all labels (joint.fit_joint_factors)
    joint: tuple[float, float] = (1.0, 1.0)
    # multiplies variances star by star, before the factors
    shape: ErrorShape = field(default_factory=lambda: ErrorShape.flat(0))
    # multiplies the two factors star by star
    local: LocalFactors = field(default_factory=lambda: LocalFactors.flat(0))

    def for_stars(self, labels: Array, noise: Array, missing: Array | float = 0.0) -> Calibration:
        """The same with the factors [N, K] of N stars; see :meth:`LocalFactors.factors`."""
        inner, outer = self.local.factors(labels, noise, missing)
        return replace(self, factor=self.factor * inner, factor_95=self.factor_95 * outer)

    def half_widths(self, variance: Array, gaussian: Array) -> tuple[Array, Array]:
        """Half-widths [N, K] of the 68.3 and 95.4 % intervals.

        ``variance`` is that of the model and intrinsic parts, ``gaussian`` of the input part.
        """
        inner = self.factor * np.sqrt(variance + gaussian)
        outer = np.sqrt(self.factor_95**2 * variance + (2 * self.factor) ** 2 * gaussian)
        return inner, np.maximum(outer, inner)

    @classmethod
    def nominal(cls, labels: int, likelihood: Likelihood, dof: float) -> Calibration:
        """Factors by the quantiles of the likelihood: 1 and 2 for a Gaussian."""
        from scipy.special import stdtrit

        def quantile(p: float) -> float:
            match likelihood:
                case "gaussian":
                    return NormalDist().inv_cdf(p)
                case "student_t":
                    return float(stdtrit(dof, p))
                case _:
                    raise ValueError(f"unknown likelihood {likelihood!r}")

        inner, outer = (quantile(0.5 + level / 2) for level in (LEVEL_68, LEVEL_95))
        shape = ErrorShape.flat(labels)
        return cls(np.full(labels, inner), np.full(labels, outer), shape=shape)

    @classmethod
    def fit(
        cls,
        residuals: Array,
        variance: Array,
        label_errors: Array,
        gaussian: Array | float = 0.0,
        inner: Array | float = 1.0,
        outer: Array | float = 1.0,
    ) -> Calibration:
        """Factors with which the intervals contain their share of these stars.

        All arguments are [N, K] for stars that the network did not see; NaN where a label is
        unknown. ``variance`` and ``gaussian`` are those of :meth:`half_widths`; the label's error
        is added to the half-width in quadrature, twice it for 95.4 %. ``inner`` and ``outer``
        multiply each star's factors. No factor is smaller than
        :data:`~xplabels.calibration.local.SMALLEST_FACTOR`.

        If everything else was fitted to other stars, and these n and a new star are exchangeable
        (with their labels' true and stated errors), the new star's known label lies inside its
        interval with a probability between the level and the level + 1 / (n + 1), apart from ties.
        This holds in the mean over choices of the n stars; for one choice the coverage scatters by
        sqrt(level (1 - level) / n).
        """
        gaussian = np.broadcast_to(gaussian, np.shape(variance))
        score = inner_score(residuals, label_errors, inner**2 * variance, inner**2 * gaussian)
        factor = conformal_quantile(score, LEVEL_68)
        score = outer_score(residuals, label_errors, outer**2 * variance, gaussian, factor * inner)
        return cls(factor, np.maximum(conformal_quantile(score, LEVEL_95), factor))


def conformal_quantile(scores: Array, level: float) -> Array:
    """The ceil((n + 1) level)-th smallest of each column of scores [N, K]; NaN does not count.

    If there are too few for that rank it is the largest, and NaN if there is none.
    """
    ranked = np.sort(scores, axis=0)
    count = np.isfinite(scores).sum(axis=0)
    rank = np.minimum(np.ceil((count + 1) * level).astype(int), count)
    return np.asarray(ranked[np.maximum(rank - 1, 0), np.arange(scores.shape[1])])
