"""Errors of XP coefficients for a star of given G and colour, as typical field stars have them.

The logarithm of each coefficient's error is a natural cubic spline of G plus a polynomial of
G_BP - G_RP, fitted robustly to the archive errors of 2,000 real stars (``data/noise_model.json``
lists which, and how far the errors of other stars scatter about it). It is the error of a typical
star: real ones differ because of the number of their transits and crowding, mostly by one factor
common to all coefficients of a star.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import CoefficientSpectra, Stars, has_correlations
from xplabels.instrument import WIDTHS, archive_bases

Array = NDArray[np.float64]

KNOTS = (8.0, 9.5, 10.75, 11.5, 12.5, 14.0, 16.0, 17.6)
"""Knots of the spline in G (mag), denser where Gaia changes windows and gates (11-13)."""
G_RANGE = (3.0, 21.0)
"""Range of G (mag) in which errors are given; beyond the fitted stars they are a power of flux."""
COLOUR_RANGE = (0.3, 3.0)
"""Range of the fitted stars in G_BP - G_RP (mag), to which colours are clipped."""
G_PIVOT, G_UNIT, COLOUR_PIVOT = 15.0, 3.0, 1.1
BACKGROUND = 0.03
"""Constant noise floor, relative to the spectrum's peak, for the illustrative correlations."""


@dataclass(frozen=True)
class NoiseModel:
    """Typical coefficient errors: ``weights`` [terms, n] of their logarithms, BP before RP."""

    weights: Array

    def errors(self, g: Array, colour: Array) -> Array:
        """Errors [N, n], archive units (they contain the fit's standard deviation).

        ``g`` and ``colour`` (G_BP - G_RP) [N] are in mag (Vega). Raises :class:`InputError` if G is
        not within :data:`G_RANGE` or a colour is not finite.
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
        return np.asarray(np.exp(terms(g, colour) @ self.weights))


def terms(g: Array, colour: Array) -> Array:
    """The model's terms [N, 11]: a natural cubic spline of G, colour, colour^2, G x colour."""
    last = KNOTS[-1]

    def cubic(knot: float) -> Array:
        above = np.clip(g - knot, 0, None) ** 3 - np.clip(g - last, 0, None) ** 3
        return np.asarray(above / (last - knot))

    bends = [(cubic(knot) - cubic(KNOTS[-2])) / (last - KNOTS[0]) for knot in KNOTS[:-2]]
    redness = np.clip(colour, *COLOUR_RANGE) - COLOUR_PIVOT
    brightness = (g - G_PIVOT) / G_UNIT
    return np.stack(
        [np.ones_like(g), brightness, *bends, redness, redness**2, redness * brightness], axis=1
    )


def illustrative_correlations(
    coefficients: Array, background: float = BACKGROUND
) -> tuple[Array, Array]:
    """Correlation matrices of BP [N, 55, 55] and RP [N, 55, 55], for illustration.

    They are those of an unregularised least-squares fit of the bases to evenly spaced samples with
    photon noise and a constant floor (``background``, relative to the peak). Real ones also depend
    on the positions of a star's transits: for three real sources the size of these agrees, but the
    sign only in part (``docs/instrument.md`` has numbers).
    """
    bands = np.split(coefficients, [WIDTHS[0]], axis=1)
    bp, rp = (
        _correlations(band, bases, background)
        for band, bases in zip(bands, archive_bases(), strict=True)
    )
    return bp, rp


def _correlations(band: Array, bases: Array, background: float) -> Array:
    spectra = np.clip(band @ bases, 0.0, None)
    variances = spectra + background * spectra.max(axis=1, keepdims=True)
    correlations = np.empty((len(band), len(bases), len(bases)))
    for matrix, variance in zip(correlations, variances, strict=True):
        covariance = np.linalg.inv((bases / variance) @ bases.T)
        width = np.sqrt(np.diag(covariance))
        matrix[:] = covariance / np.outer(width, width)
        np.fill_diagonal(matrix, 1.0)
    return correlations


@dataclass(frozen=True)
class TypicalCorrelations:
    """Correlations of typical stars by G and colour, for tables of spectra without them.

    They are the illustrative ones of real field stars, averaged about each pair of nodes, with a
    floor that increases with the sky's share. Between nodes they are interpolated linearly, which
    keeps the matrices positive definite. ``fluxes`` [3, n] and ``zero_points`` [3] give G, BP and
    RP of a spectrum; ``packed`` is [G nodes x colour nodes, pairs of BP then of RP].
    """

    g: Array
    colour: Array
    fluxes: Array
    zero_points: Array
    packed: NDArray[np.float32]

    def of(self, coefficients: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Packed correlations of BP and RP for coefficients [N, 110] of DR3, BP before RP."""
        flux = coefficients @ self.fluxes.T
        with np.errstate(invalid="ignore", divide="ignore"):
            g, bp, rp = (self.zero_points - 2.5 * np.log10(flux)).T
        weights = (
            interpolation_weights(self.g, g)[:, :, None]
            * interpolation_weights(self.colour, bp - rp)[:, None, :]
        )
        packed = weights.reshape(len(g), -1).astype(np.float32) @ self.packed
        bands = np.split(packed, [WIDTHS[0] * (WIDTHS[0] - 1) // 2], axis=1)
        return np.ascontiguousarray(bands[0]), np.ascontiguousarray(bands[1])


def interpolation_weights(nodes: Array, x: Array) -> Array:
    """Weights [N, nodes] of linear interpolation at ``x`` [N]; beyond the ends that of the end.

    For NaN it is that of the first node.
    """
    x = np.clip(np.where(np.isfinite(x), x, nodes[0]), nodes[0], nodes[-1])
    return np.stack([np.interp(x, nodes, row) for row in np.eye(len(nodes))], axis=1)


def with_correlations(stars: Stars) -> Stars:
    """The same stars, with typical correlations where those of DR3's coefficients are absent.

    Such stars already have the flag ``NO_CORRELATIONS``; other spectra stay as they are.
    """
    spectra = stars.spectra
    if (
        not isinstance(spectra, CoefficientSpectra)
        or spectra.widths != WIDTHS
        or has_correlations(spectra)
    ):
        return stars
    typical = typical_correlations().of(spectra.coefficients)
    bands = (
        band if band.correlations is not None else replace(band, correlations=packed)
        for band, packed in zip((spectra.bp, spectra.rp), typical, strict=True)
    )
    return replace(stars, spectra=CoefficientSpectra(*bands))


@cache
def typical_correlations() -> TypicalCorrelations:
    """The correlations that ship with xplabels (``data/typical_correlations.safetensors``)."""
    arrays = _shipped("typical_correlations")
    return TypicalCorrelations(packed=arrays.pop("packed").astype(np.float32), **arrays)


@cache
def noise_model() -> NoiseModel:
    """The noise model that ships with xplabels, fitted to 2,000 real stars."""
    return NoiseModel(_shipped("noise_model")["weights"])


def _shipped(name: str) -> dict[str, NDArray[Any]]:
    from safetensors.numpy import load

    return load(files("xplabels").joinpath(f"data/{name}.safetensors").read_bytes())


def noise_provenance() -> dict[str, Any]:
    """How the shipped noise model was made, and how real errors scatter about it."""
    text = files("xplabels").joinpath("data/noise_model.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
