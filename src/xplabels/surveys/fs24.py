"""The catalogue of Fallows & Sanders (2024): their own labels of Gaia's stars, as one more table.

The paper calls its labels ``alpha_m``, ``teff``, ``logg``, ``c_fe``, ``n_fe`` and ``fe_h`` (section
2.3) and says that the catalogue is at doi:10.5281/zenodo.10471095; it does not print the names of
the catalogue's columns, and nobody here has seen the file. The labels' names are taken as the
paper has them; the total error (eq. 11) under any of :data:`ERROR_NAMES`. A table with other
names needs its columns renamed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.labels import LABELS
from xplabels.surveys.table import Columns, Measured, Survey, known_labels, number

ERROR_NAMES = ("{}_err", "{}_error", "{}_unc", "{}_uncertainty", "{}_total_unc", "{}_sigma", "e_{}")
"""How the column of a label's total error may be called."""


def measure(columns: Columns, source_id: NDArray[np.int64], where: object) -> Measured:
    """The labels [N] of the catalogue, those without an error left out and counted."""
    rows = len(source_id)
    measured = {}
    for name in LABELS:
        if name in columns:
            error = next((e for e in _errors(name) if e in columns), f"{name}_err")
            measured[name] = (number(columns, name, rows), number(columns, error, rows))
    labels, notes = known_labels(measured, where, LABELS)
    without = [name for name in labels.names if not any(e in columns for e in _errors(name))]
    if without:
        wanted = ", ".join(_errors(without[0]))
        notes += (f"{where}: no error of {', '.join(without)}; looked for {wanted}",)
    return Measured(labels=labels, notes=notes)


def _errors(name: str) -> tuple[str, ...]:
    return tuple(pattern.format(name) for pattern in ERROR_NAMES)


FS24 = Survey(
    "fs24",
    "Fallows & Sanders (2024), from Gaia BP/RP spectra",
    tuple(column for name in LABELS for column in (name, *_errors(name))),
    measure,
    source_id=("source_id", "gaia_source_id", "gaiadr3_source_id", "dr3_source_id"),
)
