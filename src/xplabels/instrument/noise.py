"""Errors of XP coefficients for a star of given G and colour, as typical field stars have them.

The logarithm of each coefficient's error is a natural cubic spline of G plus a polynomial of
G_BP - G_RP, fitted robustly to the archive errors of 2,000 real stars (``data/noise_model.json``
tells which, and how far the errors of stars not fitted scatter about it). It is the error of a
typical star: real ones differ with the number of their transits and with crowding, mostly by one
factor common to all coefficients of a star.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.instrument import archive_bases

KNOTS = (8.0, 9.5, 10.75, 11.5, 12.5, 14.0, 16.0, 17.6)
"""G, mag; closer where Gaia changes windows and gates (11-13)."""
G_RANGE = (3.0, 21.0)
"""Where errors are given at all; beyond the fitted stars they go on as a power of the flux."""
COLOUR_RANGE = (0.3, 3.0)
"""G_BP - G_RP, mag: colours beyond the fitted stars count as these."""
G_PIVOT, G_UNIT, COLOUR_PIVOT = 15.0, 3.0, 1.1
HUBER = 1.5
"""Residuals beyond so many robust standard deviations count less."""
ITERATIONS = 8
BACKGROUND = 0.03
"""Of the spectrum's peak: constant noise floor assumed for the illustrative correlations."""


@dataclass(frozen=True)
class NoiseModel:
    """Typical coefficient errors.

    Attributes
    ----------
    weights
        Float64 [terms, n]: of the logarithm of each coefficient's error, BP before RP.
    """

    weights: NDArray[np.float64]

    def errors(self, g: NDArray[np.float64], colour: NDArray[np.float64]) -> NDArray[np.float64]:
        """Errors [N, n], archive units (they contain the fit's standard deviation).

        Parameters
        ----------
        g, colour
            G and G_BP - G_RP [N], mag (Vega).

        Raises
        ------
        InputError
            If G is not within :data:`G_RANGE` or a colour is not finite.
        """
        g, colour = np.atleast_1d(g), np.atleast_1d(colour)
        wrong = ~((g >= G_RANGE[0]) & (g <= G_RANGE[1])) | ~np.isfinite(colour)
        if wrong.any():
            star = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"no errors are known for G = {g[star]:.2f}, G_BP - G_RP = {colour[star]:.2f}",
                where=f"star {star + 1}",
                remedy=f"choose a G within {G_RANGE[0]:g}-{G_RANGE[1]:g}",
            )
        errors: NDArray[np.float64] = np.exp(terms(g, colour) @ self.weights)
        return errors


def terms(g: NDArray[np.float64], colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """The model's terms [N, 11]: a natural cubic spline of G, colour, colour^2, G x colour."""
    last = KNOTS[-1]

    def cubic(knot: float) -> NDArray[np.float64]:
        above = np.clip(g - knot, 0, None) ** 3 - np.clip(g - last, 0, None) ** 3
        return np.asarray(above / (last - knot))

    bends = [(cubic(knot) - cubic(KNOTS[-2])) / (last - KNOTS[0]) for knot in KNOTS[:-2]]
    redness = np.clip(colour, *COLOUR_RANGE) - COLOUR_PIVOT
    brightness = (g - G_PIVOT) / G_UNIT
    return np.stack(
        [np.ones_like(g), brightness, *bends, redness, redness**2, redness * brightness], axis=1
    )


def fit_noise(
    errors: NDArray[np.float64], g: NDArray[np.float64], colour: NDArray[np.float64]
) -> NoiseModel:
    """Fit the model by iteratively reweighted least squares with Huber's weights.

    Parameters
    ----------
    errors
        Archive errors [N, n] of real stars.
    g, colour
        G and G_BP - G_RP [N], mag (Vega).

    Raises
    ------
    InputError
        If an error, magnitude or colour is not finite, or an error not positive.
    """
    usable = np.isfinite(g) & np.isfinite(colour) & (np.isfinite(errors) & (errors > 0)).all(axis=1)
    if not usable.all():
        raise InputError(
            "errors must be positive, magnitudes finite",
            where=f"star {int(np.flatnonzero(~usable)[0]) + 1}",
            remedy="leave such stars out",
        )
    x, y = terms(g, colour), np.log(errors)
    weights: NDArray[np.float64] = np.asarray(np.linalg.lstsq(x, y, rcond=None)[0], np.float64)
    for _ in range(ITERATIONS):
        residual = y - x @ weights
        scale = 1.4826 * np.median(np.abs(residual), axis=0)
        trust = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(residual), 1e-12))
        fits = [_weighted(x, y[:, i], trust[:, i]) for i in range(y.shape[1])]
        weights = np.asarray(np.stack(fits, axis=1), np.float64)
    return NoiseModel(weights)


def _weighted(
    x: NDArray[np.float64], y: NDArray[np.float64], trust: NDArray[np.float64]
) -> NDArray[np.float64]:
    root = np.sqrt(trust)
    return np.asarray(np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0], np.float64)


def illustrative_correlations(
    coefficients: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation matrices of BP [N, 55, 55] and RP [N, 55, 55], for illustration.

    They are those of an unregularised least-squares fit of the bases to evenly spaced samples
    with photon noise and a constant floor (:data:`BACKGROUND`). Real ones also depend on where a
    star's transits fell: of three real sources these have the size, and only in part the sign
    (``docs/instrument.md`` has numbers).
    """
    found = []
    first = 0
    for bases in archive_bases():
        band = coefficients[:, first : first + len(bases)]
        first += len(bases)
        spectrum = np.clip(band @ bases, 0.0, None)
        variance = spectrum + BACKGROUND * spectrum.max(axis=1, keepdims=True)
        found.append(np.stack([_correlation(bases, noise) for noise in variance]))
    return found[0], found[1]


def _correlation(bases: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the coefficients of a least-squares fit to samples of these variances."""
    covariance = np.linalg.inv((bases / variance) @ bases.T)
    width = np.sqrt(np.diag(covariance))
    correlation: NDArray[np.float64] = covariance / np.outer(width, width)
    correlation[np.diag_indices_from(correlation)] = 1.0
    return correlation


@cache
def noise_model() -> NoiseModel:
    """The model that ships, fitted to 2,000 real stars."""
    from safetensors.numpy import load

    data = files("xplabels").joinpath("data/noise_model.safetensors").read_bytes()
    return NoiseModel(load(data)["weights"])


def noise_provenance() -> dict[str, Any]:
    """How the shipped noise model was made, and how real errors scatter about it."""
    text = files("xplabels").joinpath("data/noise_model.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
