"""Copies of stars moved farther away: fainter, noisier, with source_ids of their own.

A copy has its star's labels, so it must be in its star's part of every split.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.split import SLICES, slice_of
from xplabels.core.stars import MEASUREMENTS, Photometry, SampledSpectra, Stars
from xplabels.features.projection import Projection
from xplabels.giants.relations import magnitude_error, parallax_error
from xplabels.instrument.noise import noise_model

Array = NDArray[np.float64]

FAINTEST, BRIGHTEST = 17.5, 14.0
"""Range of G of the copies; XP spectra are published to 17.65."""
FIRST_COPY = 12 * 4**12 << 35
"""First id beyond those of Gaia, which begin with the number of one of the sky's 12 x 4^12
pixels."""


def copy_ids(source_id: NDArray[np.int64], copies: int) -> NDArray[np.int64]:
    """Ids [copies, N] that no real star has, each in the part of its star for any split.

    The split is by the hash u of the id, with cuts at the test fraction and 0.1 beyond. The u of a
    copy is in the same ten-thousandth as its star's, so no split whose test fraction has at most
    four decimals separates them.

    Examples
    --------
    >>> copy_ids(np.array([4295806720]), 2).shape
    (2, 1)
    """
    copies_of_slice: dict[int, list[int]] = defaultdict(list)  # copies that have no id yet
    for copy, number in enumerate(np.tile(slice_of(source_id), copies)):
        copies_of_slice[int(number)].append(copy)
    ids = np.empty(copies * len(source_id), np.int64)
    candidate, remaining = FIRST_COPY, len(ids)
    while remaining:
        candidates = np.arange(candidate, candidate + SLICES, dtype=np.int64)
        candidate += SLICES
        for new_id, number in zip(candidates, slice_of(candidates), strict=True):
            if waiting := copies_of_slice.get(int(number)):
                ids[waiting.pop()] = new_id
                remaining -= 1
    return ids.reshape(copies, len(source_id))


def draw_dimming(stars: Stars, random: np.random.Generator) -> Array:
    """Magnitudes [N] by which copies are fainter than their stars.

    Their G is uniform between the larger of 14 and their star's, and 17.5.
    """
    g = stars.photometry.column("phot_g_mean_mag")[0]
    brightest = np.minimum(np.maximum(g, BRIGHTEST), FAINTEST)
    new = brightest + (FAINTEST - brightest) * random.uniform(size=len(g))
    return np.maximum(new - g, 0.0)


def farther(
    stars: Stars,
    dimming: Array,
    source_id: NDArray[np.int64],
    projection: Projection,
    random: np.random.Generator,
    like: Stars | None = None,
) -> Stars:
    """Stars as they would be seen from farther away.

    Errors grow with magnitude like those of real stars (:mod:`xplabels.instrument.noise`), and
    noise is added to match: independent in the coefficients, with the error template of
    ``projection``, as a network trained on sampled spectra assumes.

    The N stars need sampled spectra, G and BP - RP; ``dimming`` [N], mag, is not negative;
    ``source_id`` [N] is that of the copies. ``like`` are the same stars before their spectra were
    modified, if they were; errors are then those of such stars at the copies' G and colour.

    Raises :class:`InputError` if the spectra are archive coefficients.
    """
    spectra = stars.spectra
    if not isinstance(spectra, SampledSpectra):
        raise InputError("only sampled spectra are moved away", where=stars.origin or None)
    dim = 10 ** (-0.4 * dimming)
    source = stars if like is None else like
    if not isinstance(source.spectra, SampledSpectra):
        raise InputError("only sampled spectra are moved away", where=source.origin or None)
    before = projection.coefficient_errors(source.spectra)
    present = dim[:, None] * projection.coefficient_errors(spectra)
    after = np.maximum(before * _growth(source, stars, dimming, projection.widths), present)
    added = np.sqrt(after**2 - present**2)
    noise = added * random.standard_normal(added.shape)
    squares = projection.design.T**2
    wider = np.sqrt((after**2 @ squares) / (before**2 @ squares))
    moved = SampledSpectra(
        spectra.wavelength,
        dim[:, None] * spectra.flux + noise @ projection.design.T,
        source.spectra.flux_error * wider,
    )
    photometry = _farther_photometry(stars.photometry, dimming, random)
    return replace(stars, source_id=source_id, spectra=moved, photometry=photometry)


def _growth(source: Stars, stars: Stars, dimming: Array, widths: tuple[int, int]) -> Array:
    """Errors [N, n] of the copies of ``stars`` over those of ``source``: one factor per band."""

    def g_and_colour(of: Stars) -> tuple[Array, Array]:
        g, bp, rp = (of.photometry.column(f"phot_{band}_mean_mag")[0] for band in ("g", "bp", "rp"))
        return g, bp - rp

    (g_before, colour_before), (g, colour) = g_and_colour(source), g_and_colour(stars)
    # a modified star may lack a magnitude
    colour = np.where(np.isfinite(colour), colour, colour_before)
    new = noise_model().errors(g + dimming, colour)
    old = noise_model().errors(g_before, colour_before)
    factors = [np.median(band, axis=1) for band in np.split(new / old, [widths[0]], axis=1)]
    return np.repeat(np.stack(factors, axis=1), widths, axis=1)


def _farther_photometry(
    photometry: Photometry, dimming: Array, random: np.random.Generator
) -> Photometry:
    """Fainter magnitudes and smaller parallaxes, with the errors of stars so faint."""
    values, errors = photometry.values.copy(), photometry.errors.copy()
    g = photometry.column("phot_g_mean_mag")[0] + dimming
    for column, name in enumerate(MEASUREMENTS):
        if name == "parallax":
            scale = 10 ** (-0.2 * dimming)
            values[:, column] *= scale
            inherited, error = scale * errors[:, column], parallax_error(g)
        else:
            values[:, column] += dimming
            inherited = errors[:, column]
            old = magnitude_error(name, values[:, column] - dimming, g - dimming, 0.0)
            new = magnitude_error(name, values[:, column], g, 0.0)
            error = np.sqrt(inherited**2 + np.clip(new**2 - old**2, 0, None))
        error = np.maximum(error, inherited)
        added = np.sqrt(error**2 - inherited**2)
        values[:, column] += added * random.standard_normal(len(values))
        errors[:, column] = error
    return Photometry(values, errors)
