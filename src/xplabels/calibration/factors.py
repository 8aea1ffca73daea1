"""One factor per label that makes stated intervals cover what they say, fitted on unseen stars.

Real residuals have heavier tails than a Gaussian, so the 68.3 and the 95.4 % interval each get
their own factor. A factor multiplies every part of the error alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels.calibration.error_shape import ErrorShape
from xplabels.core.distribution import LEVEL_68, LEVEL_95

if TYPE_CHECKING:
    from xplabels.network.likelihood import Likelihood

Array = NDArray[np.float64]

HALF_WIDTH_50 = NormalDist().inv_cdf(0.75)
"""Half-width of a Gaussian's central half, in standard deviations."""
SMALLEST_FACTOR = 0.1
"""Where label errors explain the residuals by themselves, no factor is small enough; an error of
zero is no error bar, so it ends here and the intervals cover more than they say."""


@dataclass(frozen=True)
class Calibration:
    """What turns predicted variances into half-widths of intervals.

    ``factor_95`` is of the model and intrinsic parts, whose residuals have heavy tails; the noise
    of the input is Gaussian and gets twice its 68.3 %, so a faint star's interval is not too wide.
    """

    factor: Array  # [K] multiplies every part of the 68.3 % half-width
    factor_95: Array  # [K] multiplies the model and intrinsic parts of the 95.4 % half-width
    # multiplies all errors in statements about all labels at once (joint.fit_joint_factor)
    joint: float = 1.0
    # multiplies variances star by star, before these
    shape: ErrorShape = field(default_factory=lambda: ErrorShape.flat(0))

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
        cls, residuals: Array, variance: Array, label_errors: Array, gaussian: Array | float = 0.0
    ) -> Calibration:
        """Factors with which the intervals cover their share of these stars.

        No Gaussian fits a heavy-tailed core at every level, so the inner factor is the geometric
        mean of those that are right for the central half and for the central 68.3 %; the outer
        one is right for the central 95.4 %. They are at least :data:`SMALLEST_FACTOR`.

        All are [N, K] of stars that the network did not see; NaN where a label is unknown. Variance
        and its Gaussian part are those of :meth:`half_widths`, to which the label's error is added
        in quadrature, twice for 95.4 %.
        """

        def quantile(known: Array, share: Array, level: float) -> Any:
            squares = np.clip((residuals**2 - known) / share, 0, None)
            return np.sqrt(np.nanquantile(squares, level, axis=0))

        total = variance + gaussian
        core = quantile((HALF_WIDTH_50 * label_errors) ** 2, total, 0.5) / HALF_WIDTH_50
        inner = quantile(label_errors**2, total, LEVEL_68)
        inner = np.maximum(np.sqrt(np.maximum(core, SMALLEST_FACTOR) * inner), SMALLEST_FACTOR)
        known = 4 * (label_errors**2 + inner**2 * gaussian)
        return cls(inner, np.maximum(quantile(known, variance, LEVEL_95), inner))
