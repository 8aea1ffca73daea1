"""Labels without shrinkage (regression to the mean): the training prior divided out of predictions.

A network whose errors are right predicts the posterior mean of a star's labels, given the spectrum
and, as the prior, the distribution of the training stars. For a poor spectrum it is closer to the
prior's mean than the star is, so the slope of prediction m on truth y is below 1 (FS24, sections
4.1 and 6.1: their main weakness). With a Gaussian prior of mean mu and spread T and an error s, the
mean at a given truth is m = y - w (y - mu), w = (s / T)^2. Dividing the prior out of the posterior
gives

    y' = mu + (m - mu) / (1 - w),    s' = s / sqrt(1 - w),

which is right on average at every truth, at the cost of a larger error. Neither prior nor errors
are Gaussian, so w is multiplied by one number per label, its *strength*, with which the slope of
the validation part is 1; 1 if all were Gaussian. The intervals are then calibrated there anew.

For single stars the calibrated mean has the smaller error; this correction is for relations over
many stars (gradients, the metal-poor tail), which a slope below 1 flattens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.calibration.factors import Calibration
from xplabels.calibration.joint import fit_joint_factors
from xplabels.core.arrays import Array
from xplabels.core.flags import Flag
from xplabels.core.labels import Labels
from xplabels.core.prediction import PARTS, Prediction
from xplabels.core.scores import slope
from xplabels.features.scaling import Scaling

LARGEST_STRETCH = 1.5
"""Largest factor of a label's distance to the mean. Beyond it a star's error grows faster than its
shrinkage falls: on the library's validation part 2.5 costs 30 % in RMSE of [Fe/H] instead of 10 %,
for the same slope."""
LARGEST_STRENGTH, BISECTIONS = 8.0, 40
"""Bound of the strengths, and steps of the bisection for them."""
AT_BOUND = 0.99
"""Fraction of the largest strength beyond which a fit has found none that is large enough."""
LARGEST_RELATIVE_ERROR = 1e3
"""Errors over the labels' spread are clipped to this, so that their squares stay finite."""
KEPT = Flag.OUT_OF_DOMAIN | Flag.POOR_FIT | Flag.LABEL_OUT_OF_RANGE
"""Stars with any of these flags keep their labels: they do not belong to the training set, whose
prior would be divided out, and the correction would move them farther from it."""
FEWEST_STARS = 100
"""Fewest validation stars with a label; with fewer, its predictions stay as they are."""


@dataclass(frozen=True)
class ShrinkageCorrection:
    """Corrects a model's predictions for shrinkage, on the scale it learned; [K] each."""

    scaling: Scaling  # of the model: mean and spread of the training labels
    strength: Array  # factor of each star's w; 0 leaves a label as it is
    factor: Array  # factor of the corrected half-widths of 68.3 %
    factor_95: Array  # factor of those of 95.4 %
    joint: tuple[float, float]  # the prediction's joint_factors, fitted anew

    @classmethod
    def fit(cls, prediction: Prediction, labels: Labels, scaling: Scaling) -> ShrinkageCorrection:
        """Strengths with which the slopes of these stars are 1, and factors for the intervals.

        ``prediction`` is of validation stars, with correlations (without, both ``joint`` stay 1),
        ``labels`` are their known labels, ``scaling`` is the model's.
        """
        known = labels.select(prediction.names)
        usable = np.isfinite(known.values) & np.isfinite(prediction.values)
        usable &= ~_uncorrected(prediction)[:, None]
        truth, _ = scaling.scale_y(known.values, known.errors)
        scaled, errors = scaling.scale_y(prediction.values, prediction.errors)
        columns = zip(truth.T, scaled.T, errors.T, usable.T, strict=True)
        strength = np.array([_strength(y, m, s, rows) for y, m, s, rows in columns])
        inner, outer = np.ones((2, len(strength)))
        stretched = cls(scaling, strength, inner, outer, (1.0, 1.0)).apply(prediction)
        enough = usable.sum(axis=0) >= FEWEST_STARS
        residuals = np.where(usable, stretched.values - known.values, np.nan)[:, enough]
        errors = known.errors[:, enough]
        # calibrated like all intervals, with each half-width as the error
        squares = (half[:, enough] ** 2 for half in (stretched.errors, stretched.errors_95))
        narrow, wide = (Calibration.fit(residuals, square, errors) for square in squares)
        inner[enough], outer[enough] = narrow.factor, wide.factor_95
        fitted = cls(scaling, strength, inner, outer, (1.0, 1.0))
        joint = fit_joint_factors(fitted.apply(prediction), known)
        return fitted if joint is None else replace(fitted, joint=(joint[0], joint[1]))

    def caveats(self, names: Sequence[str]) -> list[str]:
        """What a user of the labels ``names`` [K] should know about the fit before using it."""
        at_bound = (
            "--unshrunk cannot correct the shrinkage: even the largest correction allowed "
            f"(strength {LARGEST_STRENGTH:g}) leaves a slope below 1, and the errors become large "
            "(few training stars, or the spectra say little about the label)"
        )
        none = (
            "--unshrunk changes nothing here: no shrinkage was found, or fewer than "
            f"{FEWEST_STARS} stars of the validation part have the label"
        )
        return [
            f"{', '.join(np.array(names)[which])}: {text}"
            for which, text in (
                (self.strength > AT_BOUND * LARGEST_STRENGTH, at_bound),
                (self.strength == 0, none),
            )
            if which.any()
        ]

    def apply(self, prediction: Prediction, label_range: Array | None = None) -> Prediction:
        """The prediction without shrinkage.

        Parts of an error are multiplied alike, so they still add in quadrature; correlations
        stay. Labels that leave ``label_range`` [K, 2] are flagged ``LABEL_OUT_OF_RANGE``. Stars
        with a flag of :data:`KEPT` keep their labels and errors.
        """
        uncorrected = _uncorrected(prediction)[:, None]
        scaled, relative = self.scaling.scale_y(prediction.values, prediction.errors)
        stretched_by = stretch(self.strength, relative)
        stretched = self.scaling.unscale_y(scaled * stretched_by)
        values = np.where(uncorrected, prediction.values, stretched)
        unit = self.scaling.y_unit(values) / self.scaling.y_unit(prediction.values)
        wider, wider_95 = (
            np.where(uncorrected, 1.0, factor * unit * np.sqrt(stretched_by))
            for factor in (self.factor, self.factor_95)
        )
        errors = wider * prediction.errors
        parts: dict[str, Any] = {f"errors_{p}": wider * prediction.part(p) for p in PARTS}
        flags = prediction.flags
        if label_range is not None:
            with np.errstate(invalid="ignore"):
                outside = ((values < label_range[:, 0]) | (values > label_range[:, 1])).any(axis=1)
            flags = flags | np.where(outside, Flag.LABEL_OUT_OF_RANGE, 0).astype(np.uint32)
        return replace(
            prediction,
            values=values,
            errors=errors,
            **parts,
            errors_95=np.maximum(wider_95 * prediction.errors_95, errors),
            flags=flags,
            joint_factors=self.joint,
            meta={**prediction.meta, "ESTIMATE": "unshrunk: training prior divided out"},
        )


def stretch(strength: Array | float, relative: Array) -> Array:
    """1 / (1 - w) at errors relative to the labels' spread, at most :data:`LARGEST_STRETCH`."""
    w = strength * np.minimum(relative, LARGEST_RELATIVE_ERROR) ** 2
    return np.asarray(1 / (1 - np.minimum(w, 1 - 1 / LARGEST_STRETCH)))


def _uncorrected(prediction: Prediction) -> NDArray[np.bool_]:
    """Which stars [N] have a flag of :data:`KEPT`."""
    return np.asarray((prediction.flags & np.uint32(KEPT)) != 0)


def _strength(truth: Array, values: Array, errors: Array, rows: NDArray[np.bool_]) -> float:
    """The strength with which a scaled label's slope over ``rows`` is 1; 0 if it needs none."""
    truth, values, errors = truth[rows], values[rows], errors[rows]

    def too_flat(strength: float) -> bool:
        return bool(slope(truth, values * stretch(strength, errors)) < 1)

    low, high = 0.0, LARGEST_STRENGTH
    if len(truth) < FEWEST_STARS or not too_flat(low):
        return 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if too_flat(middle) else (low, middle)
    return (low + high) / 2
