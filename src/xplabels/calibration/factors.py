"""Factors that make stated intervals cover what they say, fitted on unseen stars.

Real residuals have heavier tails than a Gaussian, so the 68.3 and the 95.4 % interval each get
their own factor. A factor multiplies every part of the error alike. How factors go with the star is
:mod:`~xplabels.calibration.local`; the one per label for all stars is split conformal prediction
(Vovk et al. 2005; Lei et al. 2018, JASA 113, 1094), with its guarantee.
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
    from xplabels.network.likelihood import Likelihood


@dataclass(frozen=True)
class Calibration:
    """What turns predicted variances into half-widths of intervals.

    ``factor_95`` is of the model and intrinsic parts, whose residuals have heavy tails; the noise
    of the input is Gaussian and gets twice its 68.3 %, so a faint star's interval is not too wide.
    """

    # [K], or [N, K] of certain stars (for_stars)
    factor: Array  # multiplies every part of the 68.3 % half-width
    factor_95: Array  # multiplies the model and intrinsic parts of the 95.4 % half-width
    # multiply all errors in 68.3 and 95.4 % statements about all labels at once
    # (joint.fit_joint_factors)
    joint: tuple[float, float] = (1.0, 1.0)
    # multiplies variances star by star, before these
    shape: ErrorShape = field(default_factory=lambda: ErrorShape.flat(0))
    # multiplies the two factors star by star
    local: LocalFactors = field(default_factory=lambda: LocalFactors.flat(0))

    def for_stars(self, labels: Array, noise: Array, missing: Array | float = 0.0) -> Calibration:
        """The same with factors [N, K] of stars; see :meth:`LocalFactors.factors`."""
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
        """The likelihood's own quantiles: 1 and 2 for a Gaussian."""
        from scipy.special import stdtrit

        def quantile(p: float) -> float:
            return NormalDist().inv_cdf(p) if likelihood == "gaussian" else float(stdtrit(dof, p))

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
        """Factors with which the intervals cover their share of these stars.

        All are [N, K] of stars that the network did not see; NaN where a label is unknown. Variance
        and its Gaussian part are those of :meth:`half_widths`, to which the label's error is added
        in quadrature, twice for 95.4 %. ``inner`` and ``outer`` [N, K] multiply each star's
        factors. No factor is smaller than :data:`~xplabels.calibration.local.SMALLEST_FACTOR`.

        If everything else was fitted on other stars, and these n and a new star are exchangeable,
        the new star's known label lies inside its interval with a probability of at least the
        level and at most 1 / (n + 1) above it (but for ties): label error and its statement are
        part of what is exchangeable. That is so in the mean over choices of the n stars; of one
        choice the coverage scatters by sqrt(level (1 - level) / n).
        """
        gaussian = np.broadcast_to(gaussian, np.shape(variance))
        score = inner_score(residuals, label_errors, inner**2 * variance, inner**2 * gaussian)
        factor = conformal_quantile(score, LEVEL_68)
        score = outer_score(residuals, label_errors, outer**2 * variance, gaussian, factor * inner)
        return cls(factor, np.maximum(conformal_quantile(score, LEVEL_95), factor))


def conformal_quantile(scores: Array, level: float) -> Array:
    """The ceil((n + 1) level)-th smallest of each column of scores [N, K]; NaN does not count.

    The largest, where there are too few for that rank, and NaN where there is none.
    """
    ranked = np.sort(scores, axis=0)
    count = np.isfinite(scores).sum(axis=0)
    rank = np.minimum(np.ceil((count + 1) * level).astype(int), count)
    return np.asarray(ranked[np.maximum(rank - 1, 0), np.arange(scores.shape[1])])
