"""LAMOST DR7: low-resolution (LRS) and medium-resolution (MRS) stellar parameters.

Both catalogues name Gaia **DR2** sources (``gaia_source_id``): they are never joined to DR3
directly, but through Gaia's table ``dr2_neighbourhood``, unless the user has added a column
``source_id`` of DR3. Missing is -9999.

The MRS labels that FS24 compare with (``teff_cnn``, ..., ``c_fe``, ``n_fe``) come without errors.
SPCANet, the network that made them, states precisions of 119 K, 0.17 dex in log g and 0.06-0.12
dex in abundances (Wang et al. 2020, ApJ 891, 23, abstract); these serve as errors, the upper
end for abundances, and the table's notes say so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.surveys.table import Columns, Read, Survey, label_survey, number, read_labels

MRS_LABELS = {
    "teff": "teff_cnn",
    "logg": "logg_cnn",
    "fe_h": "feh_cnn",
    "c_fe": "c_fe",
    "n_fe": "n_fe",
    "alpha_m": "alpha_m_cnn",
}
MRS_COLUMNS = {name: (column, f"{column}_err") for name, column in MRS_LABELS.items()}
MRS_ERRORS = {
    "teff": 119.0, "logg": 0.17, "fe_h": 0.12, "c_fe": 0.12, "n_fe": 0.12, "alpha_m": 0.12,
}  # fmt: skip
"""SPCANet's stated precisions, K and dex."""


def read_mrs(columns: Columns, source_id: NDArray[np.int64], where: object) -> Read:
    """The six labels of MRS rows [N], with SPCANet's precisions where they have no errors."""
    errors = {}
    for name, (_, column) in MRS_COLUMNS.items():
        stated = number(columns, column, len(source_id))
        errors[column] = np.where(np.isfinite(stated), stated, MRS_ERRORS[name])
    labels, notes = read_labels(MRS_COLUMNS, {**columns, **errors}, source_id, where)
    assumed = ", ".join(
        f"{MRS_ERRORS[name]:g} for {name}"
        for name in labels.names
        if MRS_COLUMNS[name][1] not in columns
    )
    if assumed:
        notes += (f"{where}: has no errors; SPCANet's precisions are assumed (K, dex): {assumed}",)
    return labels, notes


LAMOST_LRS = label_survey(
    "lamost-lrs",
    "LAMOST DR7 low-resolution stellar parameters (A, F, G, K)",
    {"teff": ("teff", "teff_err"), "logg": ("logg", "logg_err"), "fe_h": ("feh", "feh_err")},
    key="gaia_source_id",
    key_is_gaia=True,
    quality=("snr", "snrg"),
)
LAMOST_MRS = Survey(
    "lamost-mrs",
    "LAMOST DR7 medium-resolution stellar parameters",
    tuple(column for names in MRS_COLUMNS.values() for column in names),
    read_mrs,
    key="gaia_source_id",
    key_is_gaia=True,
    quality=("snr",),
)
