"""GSP-Phot: Gaia DR3's own parameters from BP/RP (``astrophysical_parameters``).

Errors are half the distance of the 16th and 84th percentiles (``*_lower``, ``*_upper``). It gives
[M/H], which stands for [Fe/H] here, as in FS24's comparison; it is not for quantitative use.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.surveys.table import Columns, Measured, Survey, known_labels, number

LABEL_COLUMNS = {"teff": "teff_gspphot", "logg": "logg_gspphot", "fe_h": "mh_gspphot"}
CONTEXT = ("ag_gspphot", "mg_gspphot")
"""Extinction in G and absolute magnitude in G, mag: what its errors go with (FS24, section 4.3)."""


def measure(columns: Columns, source_id: NDArray[np.int64], where: object) -> Measured:
    """teff, logg and fe_h of Gaia sources [N]."""
    rows = len(source_id)
    measured = {}
    for name, column in LABEL_COLUMNS.items():
        if column in columns:
            low, high = (number(columns, f"{column}_{side}", rows) for side in ("lower", "upper"))
            measured[name] = (number(columns, column, rows), (high - low) / 2)
    labels, notes = known_labels(measured, where, LABEL_COLUMNS.values())
    if "fe_h" in labels.names:
        notes += (f"{where}: GSP-Phot's [M/H] stands for fe_h",)
    return Measured(labels=labels, notes=notes)


GSPPHOT = Survey(
    "gspphot",
    "Gaia DR3 GSP-Phot (astrophysical_parameters)",
    tuple(f"{c}{end}" for c in LABEL_COLUMNS.values() for end in ("", "_lower", "_upper")),
    measure,
    context=CONTEXT,
)
