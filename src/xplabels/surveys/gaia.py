"""gaia_source: G, BP, RP and parallax; rules ask for its ``ruwe`` and colour excess."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.stars import Photometry
from xplabels.io.columns import MAG_PER_RELATIVE_FLUX
from xplabels.surveys.table import Columns, Read, Survey, number

BANDS = ("phot_g_mean", "phot_bp_mean", "phot_rp_mean")


def read(columns: Columns, source_id: NDArray[np.int64], where: object) -> Read:
    """Magnitudes [mag] with errors from the flux over its error, and parallaxes [mas]."""
    rows = len(source_id)
    measured = {}
    for band in BANDS:
        value, error, ratio = (
            number(columns, f"{band}_{end}", rows)
            for end in ("mag", "mag_error", "flux_over_error")
        )
        from_ratio = MAG_PER_RELATIVE_FLUX / np.where(ratio > 0, ratio, np.nan)
        measured[f"{band}_mag"] = (value, np.where(error > 0, error, from_ratio))
    error = number(columns, "parallax_error", rows)
    # a parallax may lie below any sentinel, so only its error says whether there is one
    value = np.asarray(columns.get("parallax", np.full(rows, np.nan)), np.float64)
    measured["parallax"] = (value, np.where(error > 0, error, np.nan))
    return Photometry.of(rows, measured), ()


GAIA = Survey(
    "gaia",
    "gaia_source (photometry, parallax, quality)",
    (
        *(f"{b}_{end}" for b in BANDS for end in ("mag", "mag_error", "flux_over_error")),
        "parallax",
        "parallax_error",
    ),
    read,
)
