"""The table of real field stars from which the shipped prior and noise model are made."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def field_coefficients(path: str | Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Archive coefficients and errors [N, 110] of randomly drawn Gaia DR3 sources, BP before RP.

    From the columns bp_coeff_0, e_bp_coeff_0, ..., rp_coeff_0, ...
    """
    from astropy.table import Table

    table = Table.read(path)
    names = [f"{band}_coeff_{i}" for band in ("bp", "rp") for i in range(55)]
    values, errors = (
        np.stack([np.asarray(table[prefix + name], np.float64) for name in names], axis=1)
        for prefix in ("", "e_")
    )
    return values, errors


def provenance_of(path: str | Path, of: str) -> dict[str, str]:
    """Which table it was, for the provenance of what is made from it."""
    return {
        "source": f"{Path(path).name} (archive {of} of real Gaia DR3 sources)",
        "source_sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
    }
