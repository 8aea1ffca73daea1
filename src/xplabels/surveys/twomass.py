"""2MASS point sources: J, H and Ks, from its own tables or from Gaia's copy.

The error is the total one (``*_msigcom``), or else the corrected one (``*_cmsig``). ``ph_qual``
has one letter per band: F (no reliable error), U (upper limit) and X (no valid brightness) are no
measurements (2MASS Explanatory Supplement, section 2.2a).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.stars import Photometry
from xplabels.surveys.table import Columns, Read, Survey, first_number, has_letter

BANDS = {
    "j_m": (("j_m",), ("j_msigcom", "j_cmsig")),
    "h_m": (("h_m",), ("h_msigcom", "h_cmsig")),
    "ks_m": (("ks_m", "k_m"), ("ks_msigcom", "k_msigcom", "ks_cmsig", "k_cmsig")),
}
"""Measurement -> columns that may hold its values and errors."""


def read(columns: Columns, source_id: NDArray[np.int64], where: object) -> Read:
    """Magnitudes [mag, Vega] of 2MASS rows [N]."""
    rows = len(source_id)
    measured, notes = {}, []
    for band, (name, (values, errors)) in enumerate(BANDS.items()):
        magnitude, sigma = (first_number(columns, names, rows) for names in (values, errors))
        flagged = has_letter(columns, "ph_qual", band, "FUX", rows)
        if (dropped := int((flagged & np.isfinite(magnitude)).sum())) > 0:
            notes.append(f"{where}: {dropped} values of {name} are flagged F, U or X: missing")
        measured[name] = (magnitude, np.where(flagged | ~(sigma > 0), np.nan, sigma))
    return Photometry.of(rows, measured), tuple(notes)


TWOMASS = Survey(
    "twomass",
    "2MASS point source catalogue",
    (*(c for values, errors in BANDS.values() for c in (*values, *errors)), "ph_qual"),
    read,
    key="designation",
)
