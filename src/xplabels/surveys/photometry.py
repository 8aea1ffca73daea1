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

from collections.abc import Mapping
from functools import partial

import numpy as np

from xplabels.core.errors import InputError
from xplabels.core.stars import Photometry
from xplabels.io.columns import MAG_PER_RELATIVE_FLUX
from xplabels.surveys.table import Array, RawTable, Survey

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
"""What is subtracted from unWISE magnitudes, mag."""
LOWEST_SNR = 3.0
"""Lowest S/N of a flux that is converted to a magnitude: below, its error is not Gaussian."""


def read_gaia(table: RawTable) -> Photometry:
    """G, BP and RP [mag] with errors from the flux over its error, and parallaxes [mas]."""
    measured: dict[str, tuple[Array, Array]] = {}
    for band in GAIA_BANDS:
        value, error, ratio = (table.numbers(f"{band}_{end}") for end in GAIA_ENDS)
        from_ratio = MAG_PER_RELATIVE_FLUX / np.where(ratio > 0, ratio, np.nan)
        measured[f"{band}_mag"] = (value, np.where(error > 0, error, from_ratio))
    error = table.numbers("parallax_error")
    # a parallax may lie below any sentinel, so only its error says whether there is one
    value = np.asarray(table.columns.get("parallax", np.full(len(table), np.nan)), np.float64)
    measured["parallax"] = (value, np.where(error > 0, error, np.nan))
    possible = {
        name: (table.possible(value, name), error) for name, (value, error) in measured.items()
    }
    return Photometry.of(len(table), possible)


def read_graded(bands: Bands, bad: str, why: str, null_is_bad: bool, table: RawTable) -> Photometry:
    """Magnitudes [mag, Vega] [N]; those with a letter of ``bad`` in ``ph_qual`` are missing.

    ``why`` says what such values are, ``null_is_bad`` whether those without an error are the same.
    """
    grades = table.letters("ph_qual")
    measured: dict[str, tuple[Array, Array]] = {}
    for band, (name, (values, errors)) in enumerate(bands.items()):
        magnitude, sigma = table.possible(table.numbers(*values), name), table.numbers(*errors)
        graded = np.array([grade[band : band + 1] in [*bad] for grade in grades])
        graded |= null_is_bad & ~(sigma > 0)
        table.note(graded & np.isfinite(magnitude), f"values of {name} are {why}: missing")
        measured[name] = (magnitude, np.where(graded | ~(sigma > 0), np.nan, sigma))
    return Photometry.of(len(table), measured)


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


def read_unwise(table: RawTable) -> Photometry:
    """Magnitudes of unWISE rows [N]."""
    columns = table.columns
    measured = {}
    for band, (name, pairs) in enumerate(UNWISE_COLUMNS.items()):
        pair = next((pair for pair in pairs if {*pair} <= columns.keys()), None)
        if {"flux", "dflux"} <= columns.keys() and columns["flux"].ndim == 2:
            flux, error = (np.asarray(columns[k][:, band], np.float64) for k in ("flux", "dflux"))
        elif pair is not None:
            flux, error = (np.asarray(columns[k], np.float64) for k in pair)
        else:
            raise InputError(
                f"has no flux and error of band {band + 1}",
                where=table.where,
                remedy=f"name the columns {' and '.join(pairs[0])}",
            )
        measured[name] = unwise_magnitude(flux, error, name)
        faint = (flux > 0) & ~np.isfinite(measured[name][0])
        table.note(flux <= 0, f"fluxes of {name} are not positive: missing")
        table.note(faint, f"fluxes of {name} have an S/N below {LOWEST_SNR:g}: missing")
    return Photometry.of(len(table), measured)


def read_catwise(table: RawTable) -> Photometry:
    """W1 and W2 [mag, Vega] [N]; those with a flag of an artefact, or no error, are missing."""
    flags = table.letters(*CATWISE_ARTEFACTS)
    measured: dict[str, tuple[Array, Array]] = {}
    for band, (name, (values, errors)) in enumerate(CATWISE_BANDS.items()):
        magnitude, sigma = np.full(len(table), np.nan), np.full(len(table), np.nan)
        for value, its_errors in ((values[0], errors[:2]), (values[1], errors[2:])):
            candidate = table.numbers(value)
            # a magnitude is taken with its own error, where no earlier one has an error
            gap = np.isfinite(candidate) & ~(sigma > 0)
            magnitude = np.where(gap, candidate, magnitude)
            sigma = np.where(gap, table.numbers(*its_errors), sigma)
        magnitude = table.possible(magnitude, name)
        marked = np.array([flag[band : band + 1] not in ("", "0") for flag in flags])
        limit = np.isfinite(magnitude) & ~(sigma > 0)
        lost = marked & np.isfinite(magnitude)
        table.note(lost, f"values of {name} have a flag of an artefact: missing")
        table.note(limit, f"values of {name} are limits: missing")
        measured[name] = (magnitude, np.where(marked | limit, np.nan, sigma))
    return Photometry.of(len(table), measured)


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
