"""Surveys of magnitudes: gaia_source, 2MASS, unWISE, CatWISE2020 and AllWISE.

``ph_qual`` has one letter per band. In 2MASS, F (no reliable error), U (upper limit) and X (no
valid brightness) are not measurements (2MASS Explanatory Supplement, section 2.2a). In AllWISE, U,
X and Z say the same or worse, and so does a null error (AllWISE Explanatory Supplement, II.1.a).

unWISE has fluxes in Vega nanomaggies: W = 22.5 - 2.5 log10(flux) - offset. The offsets, 0.004 mag
in W1 and 0.032 mag in W2, are what its makers advise to subtract for agreement with AllWISE, whose
scale is used here. unWISE's absolute calibration descends from AllWISE by way of a PSF
normalisation that is uncertain at large radii (unWISE catalogue documentation,
catalog.unwise.me/catalogs.html; Schlafly, Meisner & Green 2019, ApJS 240, 30).

CatWISE2020 gives Vega magnitudes, measured by AllWISE's software on unWISE's coadds of 2010 to 2018
(Marocco et al. 2021, ApJS 253, 8). They are taken as they are, on AllWISE's scale: no published
offset is applied. Those of the fit with motion (``w1mpro_pm``) come before those without. In
``ab_flags`` there is one letter per band, "0" where no artefact was found; in ``w1sigmpro`` null
means an upper limit, as in AllWISE (catalogue definitions at irsa.ipac.caltech.edu).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Photometry
from xplabels.io.columns import MAG_PER_RELATIVE_FLUX, first_present, meant
from xplabels.surveys.table import Array, Columns, Read, Survey, number

Bands = Mapping[str, tuple[tuple[str, ...], ...]]
"""Measurement -> columns that may hold its values and errors."""

GAIA_BANDS = ("phot_g_mean", "phot_bp_mean", "phot_rp_mean")
GAIA_ENDS = ("mag", "mag_error", "flux_over_error")
TWOMASS_BANDS: Bands = {
    "j_m": (("j_m",), ("j_msigcom", "j_cmsig")),  # total error, else the corrected one
    "h_m": (("h_m",), ("h_msigcom", "h_cmsig")),
    "ks_m": (("ks_m", "k_m"), ("ks_msigcom", "k_msigcom", "ks_cmsig", "k_cmsig")),
}
ALLWISE_BANDS: Bands = {
    "w1mpro": (("w1mpro",), ("w1sigmpro", "w1mpro_error")),  # the second in Gaia's copy
    "w2mpro": (("w2mpro",), ("w2sigmpro", "w2mpro_error")),
}
CATWISE_BANDS: Bands = {
    band: (
        (f"{band}_pm", band),
        # as CatWISE calls them, and VizieR, whose names Gaia's copy has
        (f"{band.replace('mpro', 'sigmpro')}_pm", f"e_{band}_pm", band.replace("mpro", "sigmpro")),
    )
    for band in ("w1mpro", "w2mpro")
}
CATWISE_ARTEFACTS = ("ab_flags", "abf")
UNWISE_COLUMNS: Bands = {
    "w1mpro": (("flux_w1", "dflux_w1"), ("fw1", "e_fw1"), ("w1_flux", "w1_dflux")),
    "w2mpro": (("flux_w2", "dflux_w2"), ("fw2", "e_fw2"), ("w2_flux", "w2_dflux")),
}
"""How archives name flux and error per band; the catalogue's own files have arrays of two."""
ZERO_POINT = 22.5
"""Vega magnitude of one nanomaggy."""
TO_ALLWISE = {"w1mpro": 0.004, "w2mpro": 0.032}
"""Subtracted from unWISE magnitudes, mag."""
LOWEST_SNR = 3.0
"""Of a flux that gives a magnitude: the logarithm of a non-detection has no Gaussian error."""


def read_gaia(columns: Columns, source_id: NDArray[np.int64], where: object) -> Read:
    """G, BP and RP [mag] with errors from the flux over its error, and parallaxes [mas]."""
    rows = len(source_id)
    measured: dict[str, tuple[Array, Array]] = {}
    notes: tuple[str, ...] = ()
    for band in GAIA_BANDS:
        value, error, ratio = (number(columns, f"{band}_{end}", rows) for end in GAIA_ENDS)
        value, notes = _meant(value, f"{band}_mag", where, notes)
        from_ratio = MAG_PER_RELATIVE_FLUX / np.where(ratio > 0, ratio, np.nan)
        measured[f"{band}_mag"] = (value, np.where(error > 0, error, from_ratio))
    error = number(columns, "parallax_error", rows)
    # a parallax may lie below any sentinel, so only its error says whether there is one
    value = np.asarray(columns.get("parallax", np.full(rows, np.nan)), np.float64)
    value, notes = _meant(value, "parallax", where, notes)
    measured["parallax"] = (value, np.where(error > 0, error, np.nan))
    return Photometry.of(rows, measured), notes


def _meant(
    values: Array, name: str, where: object, notes: tuple[str, ...]
) -> tuple[Array, tuple[str, ...]]:
    """Values [N] without those that no star can have, and ``notes`` with one on these."""
    values, strange = meant(values, name)
    said = f"{where}: {strange} values of {name} that no star can have: missing"
    return values, (*notes, said) if strange else notes


def read_graded(
    bands: Bands,
    bad: str,
    why: str,
    null_is_bad: bool,
    columns: Columns,
    source_id: NDArray[np.int64],
    where: object,
) -> Read:
    """Magnitudes [mag, Vega] [N]; those with a letter of ``bad`` in ``ph_qual`` are missing."""
    rows = len(source_id)
    grades = columns["ph_qual"].astype(str) if "ph_qual" in columns else [""] * rows
    measured: dict[str, tuple[Array, Array]] = {}
    notes: tuple[str, ...] = ()
    for band, (name, names) in enumerate(bands.items()):
        magnitude, sigma = (_first_number(columns, some, rows) for some in names)
        magnitude, notes = _meant(magnitude, name, where, notes)
        graded = np.array([grade[band : band + 1] in [*bad] for grade in grades])
        graded |= null_is_bad & ~(sigma > 0)
        if (dropped := int((graded & np.isfinite(magnitude)).sum())) > 0:
            notes += (f"{where}: {dropped} values of {name} are {why}: missing",)
        measured[name] = (magnitude, np.where(graded | ~(sigma > 0), np.nan, sigma))
    return Photometry.of(rows, measured), notes


def _first_number(columns: Columns, names: Sequence[str], rows: int) -> Array:
    """The first of ``names`` that is there, each gap filled from the next."""
    values = np.full(rows, np.nan)
    for name in names:
        values = np.where(np.isfinite(values), values, number(columns, name, rows))
    return values


def unwise_magnitude(flux: Array, error: Array, band: str) -> tuple[Array, Array]:
    """W1 or W2 [N] (Vega, AllWISE's scale, mag) with errors; NaN where not detected.

    Flux and error are in Vega nanomaggies [N]; ``band`` is ``w1mpro`` or ``w2mpro``.

    >>> value, sigma = unwise_magnitude(np.array([1e4, -5.0]), np.array([1e2, 1.0]), "w1mpro")
    >>> value.round(3), sigma.round(4)
    (array([12.496,    nan]), array([0.0109,    nan]))
    """
    detected = (error > 0) & (flux >= LOWEST_SNR * error) & np.isfinite(flux)
    safe = np.where(detected, flux, np.nan)
    value = ZERO_POINT - 2.5 * np.log10(safe) - TO_ALLWISE[band]
    return value, MAG_PER_RELATIVE_FLUX * error / safe


def read_unwise(columns: Columns, source_id: NDArray[np.int64], where: object) -> Read:
    """Magnitudes of unWISE rows [N]."""
    measured, notes = {}, []
    for band, (name, pairs) in enumerate(UNWISE_COLUMNS.items()):
        pair = next((pair for pair in pairs if {*pair} <= columns.keys()), None)
        if {"flux", "dflux"} <= columns.keys() and columns["flux"].ndim == 2:
            flux, error = (np.asarray(columns[k][:, band], np.float64) for k in ("flux", "dflux"))
        elif pair is not None:
            flux, error = (np.asarray(columns[k], np.float64) for k in pair)
        else:
            raise InputError(
                f"has no flux and error of band {band + 1}",
                where=where,
                remedy=f"name the columns {' and '.join(pairs[0])}",
            )
        measured[name] = unwise_magnitude(flux, error, name)
        for rows, what in (
            (flux <= 0, "are not positive"),
            ((flux > 0) & ~np.isfinite(measured[name][0]), f"have an S/N below {LOWEST_SNR:g}"),
        ):
            if rows.any():
                notes.append(f"{where}: {int(rows.sum())} fluxes of {name} {what}: missing")
    return Photometry.of(len(source_id), measured), tuple(notes)


def read_catwise(columns: Columns, source_id: NDArray[np.int64], where: object) -> Read:
    """W1 and W2 [mag, Vega] [N]; those with a flag of an artefact, or no error, are missing."""
    rows = len(source_id)
    name = first_present(CATWISE_ARTEFACTS, columns)
    flags = [""] * rows if name is None else columns[name].astype(str)
    measured: dict[str, tuple[Array, Array]] = {}
    notes: tuple[str, ...] = ()
    for band, (band_name, (values, errors)) in enumerate(CATWISE_BANDS.items()):
        magnitude, sigma = np.full(rows, np.nan), np.full(rows, np.nan)
        for value, names in ((values[0], errors[:2]), (values[1], errors[2:])):
            here = number(columns, value, rows)
            gap = np.isfinite(here) & ~(sigma > 0)  # a magnitude and its error go together
            magnitude = np.where(gap, here, magnitude)
            sigma = np.where(gap, _first_number(columns, names, rows), sigma)
        magnitude, notes = _meant(magnitude, band_name, where, notes)
        marked = np.array([flag[band : band + 1] not in ("", "0") for flag in flags])
        limit = np.isfinite(magnitude) & ~(sigma > 0)
        for bad, why in ((marked, "have a flag of an artefact"), (limit, "are limits")):
            if (lost := int((bad & np.isfinite(magnitude)).sum())) > 0:
                notes += (f"{where}: {lost} values of {band_name} {why}: missing",)
        measured[band_name] = (magnitude, np.where(marked | limit, np.nan, sigma))
    return Photometry.of(rows, measured), notes


def _names(bands: Bands) -> tuple[str, ...]:
    return tuple(name for pair in bands.values() for names in pair for name in names)


GAIA = Survey(
    "gaia",
    "gaia_source (photometry, parallax, quality)",
    (*(f"{b}_{end}" for b in GAIA_BANDS for end in GAIA_ENDS), "parallax", "parallax_error"),
    read_gaia,
)
TWOMASS = Survey(
    "twomass",
    "2MASS point source catalogue",
    (*_names(TWOMASS_BANDS), "ph_qual"),
    partial(read_graded, TWOMASS_BANDS, "FUX", "flagged F, U or X", False),
    key="designation",
)
ALLWISE = Survey(
    "allwise",
    "AllWISE source catalogue",
    (*_names(ALLWISE_BANDS), "ph_qual"),
    partial(read_graded, ALLWISE_BANDS, "UXZ", "limits", True),
    key="designation",
)
CATWISE = Survey(
    "catwise2020",
    "CatWISE2020 catalogue",
    (*_names(CATWISE_BANDS), *CATWISE_ARTEFACTS),
    read_catwise,
    key="designation",
)
UNWISE = Survey(
    "unwise",
    "unWISE catalogue (band-merged)",
    ("flux", "dflux", *_names(UNWISE_COLUMNS)),
    read_unwise,
    key="unwise_objid",
)
