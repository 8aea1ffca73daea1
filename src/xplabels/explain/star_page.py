"""One star as an interactive page: its spectrum, its labels, and where in it they come from.

There are two curves for each label. **Information** is (df/dy)^2 / sigma^2 at each wavelength, as
its share of the total in percent per nm: df/dy is the derivative spectrum by the star's own
Jacobian with the inputs' full covariance over a sample (:mod:`xplabels.explain.attention`), so the
other labels are held fixed; sigma is the error of the sampled flux, taken as independent between
wavelengths. **Movement** is the change of the predicted label if the star were brighter by one
sigma within one resolution element of XP around a wavelength, as observed by the instrument, with
unchanged photometry and noise levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.flags import ABOUT, COLOURS
from xplabels.core.labels import label_of
from xplabels.core.prediction import PARTS, Prediction, unpacked
from xplabels.core.split import Part, part_mask
from xplabels.core.stars import SampledSpectra, Stars
from xplabels.explain.attention import (
    derivative_blocks,
    inverse_jacobian,
    plain_numbers,
    spectral_inputs,
    training_covariance,
)
from xplabels.explain.figures import LINES, plain_title
from xplabels.inference import pull_back
from xplabels.instrument import check_widths, gaiaxpy_instrument, resolution, sampled_flux
from xplabels.model import Model
from xplabels.report.page import template

Array = NDArray[np.float64]

SEEN: dict[Part, str] = {
    "train": "The model was trained on this star if it was in the training table: it is in the "
    "part of the split that trains.",
    "validation": "If this star was in the training table, it was not trained on, but helped to "
    "choose and to calibrate the model.",
    "test": "The model was not trained on this star: it is in the part of the split that is kept "
    "for testing.",
}
"""Text for a star with known labels, by its part of the model's split."""
DIGITS = 5
"""Significant digits on the page."""


@dataclass(frozen=True)
class StarView:
    """Content of the page of one star.

    ``prediction`` is that of this star alone, ``known`` are its known values [K] (NaN: unknown),
    ``wavelength`` [L] is in nm, flux and its error [L] in W m^-2 nm^-1; ``part`` is the star's part
    of the model's split. For each label, [K, L]: percent per nm of its ``information``, and its
    ``movement``, the change in its unit for one sigma more flux there.
    """

    source_id: int
    prediction: Prediction
    known: Array
    wavelength: Array
    flux: Array
    flux_error: Array
    part: Part
    information: Array
    movement: Array

    def to_data(self) -> dict[str, Any]:
        """All content as plain numbers, as the page contains it."""
        prediction, short = self.prediction, partial(plain_numbers, digits=DIGITS)
        by_label = {
            "value": short(prediction.values[0]),
            "error": short(prediction.errors[0]),
            "error_95": short(prediction.errors_95[0]),
            "known": short(self.known),
        }
        parts = {part: short(prediction.part(part)[0]) for part in PARTS}
        labels = [
            {
                "name": name,
                "description": label_of(name).description,
                "unit": label_of(name).unit,
                **{key: values[k] for key, values in by_label.items()},
                "parts": {part: values[k] for part, values in parts.items()},
                "information": short(self.information[k]),
                "movement": short(self.movement[k]),
            }
            for k, name in enumerate(prediction.names)
            if np.isfinite(prediction.values[0, k])  # the others are undefined for the star
        ]
        return {
            "source_id": str(self.source_id),
            "wavelength": short(self.wavelength),
            "flux": short(self.flux),
            "flux_error": short(self.flux_error),
            "labels": labels,
            "lines": [[plain_title(title), low, high] for title, low, high in LINES],
        }


def star_views(model: Model, stars: Stars, source_ids: Sequence[int]) -> list[StarView]:
    """The views of some of the ``stars``.

    Derivative spectra are weighted by the covariance of all ``stars`` or, if these are fewer than
    twice the number of coefficients, of the model's training stars.

    Raises :class:`InputError` if a star is not there or cannot be predicted, GaiaXPy is not
    installed, or the model has other widths than DR3's 55 + 55.
    """
    if not source_ids:
        return []
    for source_id in source_ids:
        if source_id not in stars.source_id:
            raise InputError(
                f"there is no source_id {source_id}",
                where=stars.where,
                remedy="name a star of STARS",
            )
    check_widths(model.feature_set.n_spectral)
    x = spectral_inputs(model, stars)
    enough = len(x) >= 2 * model.feature_set.n_spectral
    weights = np.cov(x, rowvar=False, bias=True) if enough else training_covariance(model)
    return [_star_view(model, stars[stars.source_id == star], weights) for star in source_ids]


def _star_view(model: Model, star: Stars, weights: Array) -> StarView:
    source_id, prediction = int(star.source_id[0]), model.predict(star)
    if not np.isfinite(prediction.values).any():
        raise InputError(
            f"the model has no prediction for source_id {source_id}",
            where=star.where,
            remedy="its flags say why: xplabels predict",
        )
    known = dict(zip(star.labels.names, star.labels.values[0], strict=True)) if star.labels else {}
    wavelength, flux, error = spectrum_of(star)
    fraction = float(model.metadata["split"]["test_fraction"])
    (part,) = (p for p in get_args(Part) if part_mask(star.source_id, p, fraction)[0])
    n, projection = model.feature_set.n_spectral, model.feature_set.projection
    ((features, jacobian),) = derivative_blocks(model, star)
    grid, change = sampled_flux(inverse_jacobian(jacobian[0, :, :n], weights))
    density = (change / error) ** 2
    total = 0.5 * (density[:, 1:] + density[:, :-1]) @ np.diff(grid)
    by_coefficient = pull_back(jacobian[:, :, :n], features, model.feature_set)
    if projection is not None:
        by_coefficient = by_coefficient @ projection.from_coefficients
    return StarView(
        source_id,
        prediction,
        np.array([known.get(name, np.nan) for name in model.names]),
        wavelength,
        flux,
        error,
        part,
        100.0 * density / total[:, None],
        by_coefficient[0] @ (rises(tuple(wavelength)) * error),
    )


def spectrum_of(star: Stars) -> tuple[Array, Array, Array]:
    """Wavelength, flux and its error [L] of one star, W m^-2 nm^-1."""
    spectra = star.spectra
    if isinstance(spectra, SampledSpectra):
        return spectra.wavelength, spectra.flux[0], spectra.flux_error[0]
    wavelength, design = sampled_flux(np.eye(sum(spectra.widths)))
    flux, variance = np.zeros(len(wavelength)), np.zeros(len(wavelength))
    bands = np.split(design, [spectra.bp.width])
    for band, samples in zip((spectra.bp, spectra.rp), bands, strict=True):
        root = band.errors[0][:, None] * samples  # [n, L]
        correlated = root
        if band.correlations is not None:
            correlated = unpacked(band.correlations.astype(np.float64), band.width)[0] @ root
        flux += band.coefficients[0] @ samples
        variance += (root * correlated).sum(axis=0)
    return wavelength, flux, np.sqrt(variance)


@cache
def rises(wavelength: tuple[float, ...]) -> Array:
    """Coefficients [n, L] of unit flux within one resolution element about each wavelength."""
    instrument = gaiaxpy_instrument()
    edges, centre = instrument.edges, np.array(wavelength)
    half = 0.5 * resolution(centre)
    low, high = centre - half, centre + half
    overlap = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    share = np.clip(overlap, 0.0, None) / np.diff(edges)[:, None]
    return np.asarray(instrument.matrix @ share)


def star_page(view: StarView, provenance: Mapping[str, str]) -> str:
    """The self-contained page of one star, with the ``notes`` of the provenance at its top."""
    flags = int(view.prediction.flags[0])
    # missing colours are covered by one flag for all of them
    raised = [ABOUT[flag] for flag in ABOUT if flags & flag and flag not in COLOURS]
    return template("star.html.j2").render(
        data=view.to_data(),
        provenance={"notes": "", **provenance},
        good=bool(view.prediction.good[0]),
        against=[about.meaning for about in raised if about.bad],
        remarks=[about.meaning for about in raised if not about.bad],
        undefined=[
            label_of(name).description
            for name, value in zip(view.prediction.names, view.prediction.values[0], strict=True)
            if np.isnan(value)
        ],
        seen=SEEN[view.part] if np.isfinite(view.known).any() else "",
    )
