"""One factor a label that makes stated intervals cover what they say, fitted on validation stars.

Real residuals have heavier tails than a Gaussian, so the 68.3 and the 95.4 % interval each get
their own factor. A factor multiplies every part of the error alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from xplabels.likelihood import Likelihood
from xplabels.predictive import LEVEL_68, LEVEL_95

SMALLEST_FACTOR = 0.1
"""Where label errors explain the residuals by themselves, no factor is small enough; an error of
zero is no error bar, so it ends here and the intervals cover more than they say."""


@dataclass(frozen=True)
class Calibration:
    """Half-widths of the 68.3 and 95.4 % intervals relative to the predicted scale, [K] each."""

    factor: NDArray[np.float64]
    factor_95: NDArray[np.float64]

    @classmethod
    def nominal(cls, labels: int, likelihood: Likelihood, dof: float) -> Calibration:
        """The likelihood's own quantiles: 1 and 2 for a Gaussian."""
        law = stats.norm if likelihood == "gaussian" else stats.t(dof)
        widths = [float(law.ppf(0.5 + level / 2)) for level in (LEVEL_68, LEVEL_95)]
        return cls(np.full(labels, widths[0]), np.full(labels, widths[1]))

    @classmethod
    def fit(
        cls,
        residuals: NDArray[np.float64],
        variance: NDArray[np.float64],
        label_errors: NDArray[np.float64],
    ) -> Calibration:
        """Factors with which the intervals cover exactly their share of these stars.

        They are at least :data:`SMALLEST_FACTOR`.

        Parameters
        ----------
        residuals, variance, label_errors
            [N, K] of validation stars; NaN where a label is unknown. An interval is as wide as
            hypot(factor sigma, label error), and with twice the label error for 95.4 %.
        """
        factors = [
            np.sqrt(
                np.nanquantile(
                    np.clip((residuals**2 - (times * label_errors) ** 2) / variance, 0, None),
                    level,
                    axis=0,
                )
            )
            for level, times in ((LEVEL_68, 1.0), (LEVEL_95, 2.0))
        ]
        inner = np.maximum(factors[0], SMALLEST_FACTOR)
        return cls(inner, np.maximum(factors[1], inner))
