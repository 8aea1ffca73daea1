"""The predictive distribution behind two half-widths: a Student-t, Gaussian where tails are light.

A catalogue states the half-widths of the central 68.3 and 95.4 % intervals. Their ratio is 2 for
a Gaussian and grows with the tails, so that the two numbers fix a symmetric Student-t: the ratio
gives the degrees of freedom, the inner half-width the scale.
"""

from __future__ import annotations

from functools import lru_cache
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL_68 = erf(1 / sqrt(2))
"""0.68269: what one sigma of a Gaussian holds, the level of ``errors``."""
LEVEL_95 = erf(2 / sqrt(2))
"""0.95450: what two sigma of a Gaussian hold, the level of ``errors_95``."""

GAUSSIAN_DOF = 1e6
"""Degrees of freedom that stand for a Gaussian (they agree to about 1e-6)."""
SMALLEST_DOF = 1.1
"""Heavier tails than this have (nearly) no mean, so no CRPS; wider ratios are cut here."""

SMALLEST_EIGENVALUE = 1e-6
"""Of a correlation matrix that is inverted."""


@lru_cache(maxsize=1)
def _table() -> tuple[Array, Array, Array]:
    """Ratio of the half-widths and inner half-width at unit scale, against 1 / dof, ascending."""
    from scipy.special import stdtrit

    inverse = np.linspace(1 / GAUSSIAN_DOF, 1 / SMALLEST_DOF, 4001)
    inner = stdtrit(1 / inverse, (1 + LEVEL_68) / 2)
    return inverse, stdtrit(1 / inverse, (1 + LEVEL_95) / 2) / inner, inner


def matched_t(half_width_68: Array, half_width_95: Array) -> tuple[Array, Array]:
    """Degrees of freedom and scale of the Student-t with these two half-widths.

    Parameters
    ----------
    half_width_68, half_width_95
        Positive, of one shape and unit. A ratio of 2 or less gives a Gaussian
        (:data:`GAUSSIAN_DOF`); one beyond that of :data:`SMALLEST_DOF` (6.5) keeps the inner
        half-width only.

    Returns
    -------
    dof, scale
        Arrays of the same shape; the scale in the half-widths' unit.

    Examples
    --------
    >>> dof, scale = matched_t(np.array([1.0, 1.0]), np.array([2.0, 2.4]))
    >>> dof.round(1).tolist(), scale.round(3).tolist()
    ([1000000.0, 4.9], [1.0, 0.897])
    """
    inverse, ratios, inner = _table()
    inverse_dof = np.interp(np.asarray(half_width_95) / half_width_68, ratios, inverse)
    scale = half_width_68 / np.interp(inverse_dof, inverse, inner)
    return 1 / inverse_dof, scale


def cdf(x: Array, dof: Array, scale: Array) -> Array:
    """Probability below ``x`` of Student-t distributions centred on 0 (arrays that broadcast)."""
    from scipy.special import stdtr

    below: Array = stdtr(dof, np.asarray(x) / scale)
    return below


def density(x: Array, dof: Array, scale: Array) -> Array:
    """Probability density at ``x`` of Student-t distributions centred on 0 (they broadcast)."""
    from scipy.special import betaln

    z = np.asarray(x) / scale
    log_norm = 0.5 * np.log(dof) + betaln(0.5, dof / 2) + np.log(scale)
    result: Array = np.exp(-0.5 * (dof + 1) * np.log1p(z**2 / dof) - log_norm)
    return result


def crps(x: Array, dof: Array, scale: Array) -> Array:
    """Continuous ranked probability score of ``x`` under Student-t distributions centred on 0.

    The integral of (F(t) - [t >= x])^2 over t, in the unit of ``x``; smaller is better. Closed
    form of Jordan, Krueger & Lerch (2019, J. Stat. Softw. 90, 12), for more than one degree of
    freedom. Arguments broadcast.
    """
    from scipy.special import betaln

    z = np.asarray(x) / scale
    below = cdf(z, dof, np.ones(()))
    at = density(z, dof, np.ones(()))
    spread = np.exp(betaln(0.5, dof - 0.5) - 2 * betaln(0.5, dof / 2))
    score: Array = scale * (
        z * (2 * below - 1)
        + 2 * at * (dof + z**2) / (dof - 1)
        - 2 * np.sqrt(dof) / (dof - 1) * spread
    )
    return score


def ellipsoid_content(z: Array, correlation: Array, dof: Array) -> Array:
    """Probability inside the ellipsoid through residuals, under a Student-t of K labels.

    (z^T R^-1 z) / K follows Fisher's F with K and ``dof`` degrees of freedom; for a Gaussian,
    z^T R^-1 z follows chi-squared with K. Right errors and correlations make it uniform on [0, 1].

    Parameters
    ----------
    z
        Residuals [N, K] in units of each label's scale.
    correlation
        R [N, K, K].
    dof
        Degrees of freedom of each label [N, K]; all labels of a star share one tail, whose inverse
        degrees of freedom are the mean of theirs.

    Examples
    --------
    >>> one = np.full((1, 2), 1e6)
    >>> ellipsoid_content(np.array([[1.0, 0.0]]), np.eye(2)[None], one).round(3).tolist()
    [0.393]
    """
    from scipy.special import fdtr

    labels = z.shape[1]
    values, axes = np.linalg.eigh(correlation)
    # two labels that are one, to rounding: their difference has no scale of its own
    along = np.einsum("nkj,nk->nj", axes, z) ** 2 / np.maximum(values, SMALLEST_EIGENVALUE)
    content: Array = fdtr(labels, 1 / np.mean(1 / dof, axis=1), along.sum(axis=1) / labels)
    return content
