"""unWISE: fluxes in Vega nanomaggies -> W1 and W2 on AllWISE's magnitude scale.

W = 22.5 - 2.5 log10(flux) - offset. The offsets, 0.004 mag in W1 and 0.032 mag in W2, are what the
makers advise to subtract for agreement with AllWISE, from which unWISE's absolute calibration
descends by way of a PSF normalisation that is uncertain at large radii (unWISE catalogue
documentation, catalog.unwise.me/catalogs.html; Schlafly, Meisner & Green 2019, ApJS 240, 30).

A flux that is not at least three times its error gives no magnitude: the logarithm of a
non-detection has no Gaussian error, and that of a negative flux does not exist. Both are counted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Photometry
from xplabels.io.columns import MAG_PER_RELATIVE_FLUX
from xplabels.surveys.table import Columns, Read, Survey

ZERO_POINT = 22.5
"""Vega magnitude of one nanomaggy."""
TO_ALLWISE = {"w1mpro": 0.004, "w2mpro": 0.032}
"""Subtracted from unWISE magnitudes, mag."""
LOWEST_SNR = 3.0

NAMES = {
    "w1mpro": (("flux_w1", "dflux_w1"), ("fw1", "e_fw1"), ("w1_flux", "w1_dflux")),
    "w2mpro": (("flux_w2", "dflux_w2"), ("fw2", "e_fw2"), ("w2_flux", "w2_dflux")),
}
"""How archives name flux and error per band; the catalogue's own files have arrays of two."""


def magnitude(
    flux: NDArray[np.float64], error: NDArray[np.float64], band: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """W1 or W2 [N] (Vega, AllWISE's scale, mag) with errors; NaN where not detected.

    Flux and error are in Vega nanomaggies [N]; ``band`` is ``w1mpro`` or ``w2mpro``.

    >>> value, sigma = magnitude(np.array([1e4, -5.0]), np.array([1e2, 1.0]), "w1mpro")
    >>> value.round(3), sigma.round(4)
    (array([12.496,    nan]), array([0.0109,    nan]))
    """
    detected = (error > 0) & (flux >= LOWEST_SNR * error) & np.isfinite(flux)
    safe = np.where(detected, flux, np.nan)
    value = ZERO_POINT - 2.5 * np.log10(safe) - TO_ALLWISE[band]
    return value, MAG_PER_RELATIVE_FLUX * error / safe


def read(columns: Columns, source_id: NDArray[np.int64], where: object) -> Read:
    """Magnitudes of unWISE rows [N]."""
    measured, notes = {}, []
    for band, name in enumerate(NAMES):
        flux, error = _flux(columns, band, name, where)
        measured[name] = magnitude(flux, error, name)
        for rows, what in (
            (flux <= 0, "are not positive"),
            ((flux > 0) & ~np.isfinite(measured[name][0]), f"have an S/N below {LOWEST_SNR:g}"),
        ):
            if rows.any():
                notes.append(f"{where}: {int(rows.sum())} fluxes of {name} {what}: missing")
    return Photometry.of(len(source_id), measured), tuple(notes)


def _flux(
    columns: Columns, band: int, name: str, where: object
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Flux and error [N] of a band, from arrays of two or from columns of their own."""
    pairs = [pair for pair in NAMES[name] if columns.keys() >= {*pair}]
    if {"flux", "dflux"} <= columns.keys() and columns["flux"].ndim == 2:
        flux, error = columns["flux"][:, band], columns["dflux"][:, band]
    elif pairs:
        flux, error = (columns[column] for column in pairs[0])
    else:
        raise InputError(
            f"has no flux and error of band {band + 1}",
            where=where,
            remedy=f"name the columns {NAMES[name][0][0]} and {NAMES[name][0][1]}",
        )
    return np.asarray(flux, np.float64), np.asarray(error, np.float64)


UNWISE = Survey(
    "unwise",
    "unWISE catalogue (band-merged)",
    ("flux", "dflux", *(c for pairs in NAMES.values() for pair in pairs for c in pair)),
    read,
    key="unwise_objid",
)
