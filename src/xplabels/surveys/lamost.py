"""LAMOST DR7: low-resolution (LRS) and medium-resolution (MRS) stellar parameters.

Both catalogues name Gaia **DR2** sources (``gaia_source_id``): they are never joined to DR3
directly, but through Gaia's table ``dr2_neighbourhood``, unless the user has added a column
``source_id`` of DR3. Missing is -9999.

The MRS labels that FS24 compare with (``teff_cnn``, ..., ``c_fe``, ``n_fe``) come without errors.
SPCANet, the network that made them, states precisions of 119 K, 0.17 dex in log g and 0.06-0.12
dex in abundances (Wang et al. 2020, ApJ 891, 23, abstract); these stand in for errors, the
upper end for abundances, and the table's notes say so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.surveys.matching import MATCH_FLAGS, MatchFlag
from xplabels.surveys.table import Columns, Measured, Survey, known_labels, number

LRS_COLUMNS = {
    "teff": ("teff", "teff_err"),
    "logg": ("logg", "logg_err"),
    "fe_h": ("feh", "feh_err"),
}
MRS_COLUMNS = {
    "teff": "teff_cnn",
    "logg": "logg_cnn",
    "fe_h": "feh_cnn",
    "c_fe": "c_fe",
    "n_fe": "n_fe",
    "alpha_m": "alpha_m_cnn",
}
MRS_ERRORS = {
    "teff": 119.0, "logg": 0.17, "fe_h": 0.12, "c_fe": 0.12, "n_fe": 0.12, "alpha_m": 0.12,
}  # fmt: skip
"""SPCANet's stated precisions, K and dex."""


def measure_lrs(columns: Columns, source_id: NDArray[np.int64], where: object) -> Measured:
    """teff, logg and fe_h of LRS rows [N]."""
    rows = len(source_id)
    measured = {
        name: (number(columns, value, rows), number(columns, error, rows))
        for name, (value, error) in LRS_COLUMNS.items()
        if value in columns
    }
    looked_for = (value for value, _ in LRS_COLUMNS.values())
    labels, notes = known_labels(measured, where, looked_for)
    return Measured(labels=labels, notes=notes)


def measure_mrs(columns: Columns, source_id: NDArray[np.int64], where: object) -> Measured:
    """The six labels of MRS rows [N], with SPCANet's precisions as errors."""
    rows = len(source_id)
    measured = {}
    for name, column in MRS_COLUMNS.items():
        if column in columns:
            values = number(columns, column, rows)
            errors = number(columns, f"{column}_err", rows)
            measured[name] = (values, np.where(np.isfinite(errors), errors, MRS_ERRORS[name]))
    labels, notes = known_labels(measured, where, MRS_COLUMNS.values())
    assumed = ", ".join(
        f"{MRS_ERRORS[name]:g} for {name}"
        for name in labels.names
        if f"{MRS_COLUMNS[name]}_err" not in columns
    )
    if assumed:
        notes += (f"{where}: has no errors; SPCANet's precisions are assumed (K, dex): {assumed}",)
    return Measured(labels=labels, notes=notes)


LAMOST_LRS = Survey(
    "lamost-lrs",
    "LAMOST DR7 low-resolution stellar parameters (A, F, G, K)",
    tuple(column for pair in LRS_COLUMNS.values() for column in pair),
    measure_lrs,
    key="gaia_source_id",
    key_is_gaia=True,
    bits={MATCH_FLAGS: MatchFlag},
    quality=("snr", "snrg"),
)
LAMOST_MRS = Survey(
    "lamost-mrs",
    "LAMOST DR7 medium-resolution stellar parameters",
    tuple(name for column in MRS_COLUMNS.values() for name in (column, f"{column}_err")),
    measure_mrs,
    key="gaia_source_id",
    key_is_gaia=True,
    bits={MATCH_FLAGS: MatchFlag},
    quality=("snr",),
)
