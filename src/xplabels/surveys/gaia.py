"""gaia_source: G, BP, RP and parallax, and the columns that judge them (ruwe, colour excess)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.stars import Photometry
from xplabels.io.columns import MAG_PER_RELATIVE_FLUX, MEASURED
from xplabels.surveys.table import Columns, Measured, Survey, number

MAGNITUDES = ("phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag")


def measure(columns: Columns, source_id: NDArray[np.int64], where: object) -> Measured:
    """Magnitudes [mag] with errors from the flux over its error, and parallaxes [mas]."""
    rows = len(source_id)
    measured = {}
    for name in MAGNITUDES:
        errors = number(columns, f"{name}_error", rows)
        ratio = number(columns, str(MEASURED[name].over_error), rows)
        from_ratio = MAG_PER_RELATIVE_FLUX / np.where(ratio > 0, ratio, np.nan)
        errors = np.where(errors > 0, errors, from_ratio)
        measured[name] = (number(columns, name, rows), errors)
    errors = number(columns, "parallax_error", rows)
    # a parallax may lie below any sentinel, so only its error tells whether there is one
    values = np.asarray(columns.get("parallax", np.full(rows, np.nan)), np.float64)
    measured["parallax"] = (values, np.where(errors > 0, errors, np.nan))
    return Measured(photometry=Photometry.of(rows, measured))


GAIA = Survey(
    "gaia",
    "gaia_source (photometry, parallax, quality)",
    tuple(
        column
        for name in (*MAGNITUDES, "parallax")
        for column in (name, *MEASURED[name].errors, MEASURED[name].over_error)
        if column is not None
    ),
    measure,
)
