"""AllWISE: W1 and W2 where unWISE has none. Its magnitudes are the scale used here.

``w1sigmpro`` (``w1mpro_error`` in Gaia's copy) is null where the magnitude is an upper limit;
``ph_qual`` U, X and Z say the same or worse (AllWISE Explanatory Supplement, section II.1.a).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.stars import Photometry
from xplabels.surveys.table import Columns, Read, Survey, first_number, has_letter, number

BANDS = {"w1mpro": ("w1sigmpro", "w1mpro_error"), "w2mpro": ("w2sigmpro", "w2mpro_error")}


def read(columns: Columns, source_id: NDArray[np.int64], where: object) -> Read:
    """Magnitudes [mag, Vega] of AllWISE rows [N]."""
    rows = len(source_id)
    measured, notes = {}, []
    for band, (name, errors) in enumerate(BANDS.items()):
        magnitude, sigma = number(columns, name, rows), first_number(columns, errors, rows)
        limit = has_letter(columns, "ph_qual", band, "UXZ", rows) | ~(sigma > 0)
        if (dropped := int((limit & np.isfinite(magnitude)).sum())) > 0:
            notes.append(f"{where}: {dropped} values of {name} are limits: missing")
        measured[name] = (magnitude, np.where(limit, np.nan, sigma))
    return Photometry.of(rows, measured), tuple(notes)


ALLWISE = Survey(
    "allwise",
    "AllWISE source catalogue",
    (*BANDS, *(error for errors in BANDS.values() for error in errors), "ph_qual"),
    read,
    key="designation",
)
