"""How far stated errors are too small or too large, as a smooth function of the star.

Faint and rare stars are overfitted more than others, which one factor for all cannot correct. Here
ln(factor) is a polynomial in the noise level and the predicted labels, fitted to unseen stars with
a heavy-tailed likelihood; the calibration then sets the level. A factor multiplies all parts of a
star's error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xplabels.core.arrays import Array

BOUND = 2.5
"""Standard deviations to which labels are clipped, so that the polynomial does not extrapolate."""
LARGEST = 2.0
"""Largest factor, and inverse of the smallest, of a star's errors."""
PENALTY = 30.0
"""Weight of the sum of squared coefficients; thousands of stars outweigh it, a few do not."""
STARS_A_TERM = 20
"""Fewest stars for each term of the polynomial; with fewer the errors keep their shape."""
DOF = 4.0
"""Degrees of freedom of the Student t likelihood; fixed, and not the recipe's ``dof``."""


@dataclass(frozen=True)
class ErrorShape:
    """The factor of each label's error.

    ``weights`` are the coefficients of the T :func:`terms` in ln(factor): float64 [K, T], or [K, 0]
    where the errors keep their shape.
    """

    weights: Array

    @classmethod
    def flat(cls, labels: int) -> ErrorShape:
        """The shape that leaves the errors of K labels unchanged."""
        return cls(np.empty((labels, 0)))

    def squares(self, labels: Array, noise: Array) -> Array:
        """Factors of the variances [N, K], by scaled labels [N, C] and noise levels."""
        if not self.weights.shape[1]:
            return np.ones((len(labels), len(self.weights) or 1))
        logarithm = terms(labels, noise) @ self.weights.T
        return np.exp(2 * np.clip(logarithm, -np.log(LARGEST), np.log(LARGEST)))

    @classmethod
    def fit(
        cls, labels: Array, noise: Array, residuals: Array, variance: Array, label_errors: Array
    ) -> ErrorShape:
        """The shape with which the residuals of unseen stars are most likely.

        ``labels`` and ``noise`` as in :meth:`squares`; the others [N, K] in the same units, NaN
        where a label is unknown. The variance is that of the prediction alone. Labels that too few
        stars have keep the shape of their errors.
        """
        columns = terms(labels, noise)
        known = np.isfinite(residuals) & np.isfinite(label_errors)
        enough = known.sum(axis=0) >= STARS_A_TERM * columns.shape[1]
        if not enough.any():
            return cls.flat(known.shape[1])
        weights = np.zeros((known.shape[1], columns.shape[1]))
        for k in np.flatnonzero(enough):
            rows = known[:, k]
            weights[k] = _fit_one(
                columns[rows], residuals[rows, k], variance[rows, k], label_errors[rows, k]
            )
        return cls(weights)


def terms(labels: Array, noise: Array) -> Array:
    """The polynomial's terms [N, T].

    These are the labels and RP's noise level, their squares and products, and the labels' cubes.
    Squares have their mean for a Gaussian subtracted, so that the terms are hardly correlated.
    """
    labels = np.clip(labels, -BOUND, BOUND)
    variables = np.concatenate([labels, noise[:, 1:]], axis=1)
    products = [
        variables[:, i] * variables[:, j] - (i == j)
        for i in range(variables.shape[1])
        for j in range(i + 1)
    ]
    return np.concatenate([variables, np.stack(products, axis=1), labels**3 / 3], axis=1)


def _fit_one(columns: Array, residuals: Array, variance: Array, label_errors: Array) -> Array:
    """Coefficients [T] for one label; the level of its errors is left to the calibration."""
    from scipy.optimize import minimize

    design = np.concatenate([np.ones((len(columns), 1)), columns], axis=1)

    def loss(weights: Array) -> tuple[float, Array]:
        predicted = np.exp(2 * np.clip(design @ weights, -10, 10)) * variance
        total = predicted + label_errors**2
        square = residuals**2 / total
        value = 0.5 * np.log(total) + 0.5 * (DOF + 1) * np.log1p(square / DOF)
        by_total = 0.5 / total * (1 - (DOF + 1) * square / (DOF + square))
        gradient = design.T @ (by_total * 2 * predicted)
        gradient[1:] += 2 * PENALTY * weights[1:]
        return float(value.sum() + PENALTY * (weights[1:] ** 2).sum()), gradient

    best: Array = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B").x
    return best[1:]
