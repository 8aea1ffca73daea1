"""A user's own table of labels (GALAH, an observing run, ...): ``source_id`` and any labels.

Columns are those of every table here: ``teff``, ``teff_err`` (or ``teff_error``), ...; what is
wrong in it is an error with its row, since the user can mend it. A column ``snr`` chooses among
several rows of a star.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.labels import LABELS
from xplabels.io.columns import LABEL_COLUMNS, labels_of
from xplabels.surveys.table import Columns, Read, Survey


def read(columns: Columns, source_id: NDArray[np.int64], where: object) -> Read:
    """The labels [N] that the table has; see :func:`xplabels.io.columns.labels_of`."""
    names = [name for name in LABELS if name in columns]
    if not names:
        raise InputError(
            "has no column of labels",
            where=where,
            remedy=f"name its columns {', '.join(LABELS)}, and their errors teff_err, ...",
        )
    return labels_of(columns, names, source_id, where)


def own_survey(name: str) -> Survey:
    """A survey of the user's, under any name."""
    return Survey(name, "a table of the user's own", LABEL_COLUMNS, read, quality=("snr",))
