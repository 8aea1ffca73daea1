"""2MASS point sources: J, H and Ks, from its own tables or from Gaia's copy.

The error is the total one (``*_msigcom``), or else the corrected one (``*_cmsig``). ``ph_qual``
has a letter a band: F (no reliable error), U (upper limit) and X (no valid brightness) are no
measurements (2MASS Explanatory Supplement, section 2.2a).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.stars import Photometry
from xplabels.surveys.matching import MATCH_FLAGS, MatchFlag
from xplabels.surveys.table import Columns, Measured, Survey, number

BANDS = {
    "j_m": (("j_m",), ("j_msigcom", "j_cmsig")),
    "h_m": (("h_m",), ("h_msigcom", "h_cmsig")),
    "ks_m": (("ks_m", "k_m"), ("ks_msigcom", "k_msigcom", "ks_cmsig", "k_cmsig")),
}
"""Measurement -> columns that may hold its values and errors."""
NOT_MEASURED = ("F", "U", "X")


def first(columns: Columns, names: tuple[str, ...], rows: int) -> NDArray[np.float64]:
    """The first of ``names`` that is there, each gap filled from the next."""
    values = np.full(rows, np.nan)
    for name in names:
        values = np.where(np.isfinite(values), values, number(columns, name, rows))
    return values


def letters(columns: Columns, name: str, band: int, rows: int) -> NDArray[np.str_]:
    """The letter [N] that a quality column has for a band; blank where it has none."""
    if name not in columns:
        return np.full(rows, "", "U1")
    text = columns[name].astype(str)
    return np.array([word[band] if len(word) > band else "" for word in text], "U1")


def measure(columns: Columns, source_id: NDArray[np.int64], where: object) -> Measured:
    """Magnitudes [mag, Vega] of 2MASS rows [N]."""
    rows = len(source_id)
    measured, notes = {}, []
    for band, (name, (values, errors)) in enumerate(BANDS.items()):
        sigma = first(columns, errors, rows)
        judged = np.isin(letters(columns, "ph_qual", band, rows), NOT_MEASURED)
        magnitude = first(columns, values, rows)
        if (dropped := int((judged & np.isfinite(magnitude)).sum())) > 0:
            notes.append(f"{where}: {dropped} values of {name} are flagged F, U or X: missing")
        measured[name] = (magnitude, np.where(judged | ~(sigma > 0), np.nan, sigma))
    return Measured(photometry=Photometry.of(rows, measured), notes=tuple(notes))


TWOMASS = Survey(
    "twomass",
    "2MASS point source catalogue",
    (*(c for values, errors in BANDS.values() for c in (*values, *errors)), "ph_qual"),
    measure,
    key="designation",
    bits={MATCH_FLAGS: MatchFlag},
)
