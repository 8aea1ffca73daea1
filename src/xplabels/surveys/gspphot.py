"""GSP-Phot: Gaia DR3's own parameters from BP/RP (``astrophysical_parameters``).

Errors are half the distance of the 16th and 84th percentiles (``*_lower``, ``*_upper``). It gives
[M/H], which stands for [Fe/H] here, as in FS24's comparison; it is not for quantitative use.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.surveys.table import Columns, Read, Survey, number, read_labels

COLUMNS = {
    name: (column, f"{column}_half_distance")
    for name, column in (("teff", "teff_gspphot"), ("logg", "logg_gspphot"), ("fe_h", "mh_gspphot"))
}
ENDS = ("lower", "upper")


def read(columns: Columns, source_id: NDArray[np.int64], where: object) -> Read:
    """teff, logg and fe_h of Gaia sources [N]."""
    half = {}
    for column, error in COLUMNS.values():
        low, high = (number(columns, f"{column}_{end}", len(source_id)) for end in ENDS)
        half[error] = (high - low) / 2
    labels, notes = read_labels(COLUMNS, {**columns, **half}, source_id, where)
    if "fe_h" in labels.names:
        notes += (f"{where}: GSP-Phot's [M/H] stands for fe_h",)
    return labels, notes


GSPPHOT = Survey(
    "gspphot",
    "Gaia DR3 GSP-Phot (astrophysical_parameters)",
    tuple(name for c, _ in COLUMNS.values() for name in (c, *(f"{c}_{end}" for end in ENDS))),
    read,
    # extinction and absolute magnitude in G, mag: what its errors go with (FS24, section 4.3)
    context=("ag_gspphot", "mg_gspphot"),
)
