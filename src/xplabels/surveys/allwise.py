"""AllWISE: W1 and W2 where unWISE has none. Its magnitudes are the scale used here.

``w1sigmpro`` (``w1mpro_error`` in Gaia's copy) is null where the magnitude is an upper limit;
``ph_qual`` U, X and Z say the same or worse (AllWISE Explanatory Supplement, section II.1.a).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.stars import Photometry
from xplabels.surveys.matching import MATCH_FLAGS, MatchFlag
from xplabels.surveys.table import Columns, Measured, Survey, number
from xplabels.surveys.twomass import first, letters

BANDS = {
    "w1mpro": ("w1sigmpro", "w1mpro_error"),
    "w2mpro": ("w2sigmpro", "w2mpro_error"),
}
NOT_MEASURED = ("U", "X", "Z")


def measure(columns: Columns, source_id: NDArray[np.int64], where: object) -> Measured:
    """Magnitudes [mag, Vega] of AllWISE rows [N]."""
    rows = len(source_id)
    measured, notes = {}, []
    for band, (name, errors) in enumerate(BANDS.items()):
        magnitude, sigma = number(columns, name, rows), first(columns, errors, rows)
        judged = np.isin(letters(columns, "ph_qual", band, rows), NOT_MEASURED)
        limit = np.isfinite(magnitude) & (judged | ~(sigma > 0))
        if limit.any():
            notes.append(f"{where}: {int(limit.sum())} values of {name} are limits: missing")
        measured[name] = (magnitude, np.where(limit, np.nan, sigma))
    return Measured(photometry=Photometry.of(rows, measured), notes=tuple(notes))


ALLWISE = Survey(
    "allwise",
    "AllWISE source catalogue",
    (*BANDS, *(e for errors in BANDS.values() for e in errors), "ph_qual"),
    measure,
    key="designation",
    bits={MATCH_FLAGS: MatchFlag},
)
