"""The catalogue of Fallows & Sanders (2024): their own labels of Gaia's stars, as one more table.

The paper calls its labels ``alpha_m``, ``teff``, ``logg``, ``c_fe``, ``n_fe`` and ``fe_h`` (section
2.3) and says that the catalogue is at doi:10.5281/zenodo.10471095; it does not print the names of
the catalogue's columns, and the file has not been seen. The labels' names are taken as the paper
has them; the total error (eq. 11) under any of :data:`ERROR_NAMES`. A table with other names needs
its columns renamed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.labels import LABELS
from xplabels.surveys.table import Columns, Read, Survey, read_labels

ERROR_NAMES = ("{}_err", "{}_error", "{}_unc", "{}_uncertainty", "{}_total_unc", "{}_sigma", "e_{}")
"""How the column of a label's total error may be called."""
COLUMNS = {name: (name, *(error.format(name) for error in ERROR_NAMES)) for name in LABELS}


def read(columns: Columns, source_id: NDArray[np.int64], where: object) -> Read:
    """The labels [N] of the catalogue, those without an error left out and counted."""
    labels, notes = read_labels(COLUMNS, columns, source_id, where)
    without = [name for name in labels.names if columns.keys().isdisjoint(COLUMNS[name][1:])]
    if without:
        wanted = ", ".join(COLUMNS[without[0]][1:])
        notes += (f"{where}: no error of {', '.join(without)}; looked for {wanted}",)
    return labels, notes


FS24 = Survey(
    "fs24",
    "Fallows & Sanders (2024), from Gaia BP/RP spectra",
    tuple(column for names in COLUMNS.values() for column in names),
    read,
    source_id=("source_id", "gaia_source_id", "gaiadr3_source_id", "dr3_source_id"),
)
