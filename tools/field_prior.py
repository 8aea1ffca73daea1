"""Make src/xplabels/data/field_prior.safetensors from a table of real field stars.

    python tools/field_prior.py xp_field_2000.fits

The table has columns bp_coeff_0, e_bp_coeff_0, ..., rp_coeff_0, ...: archive coefficients and
errors of randomly drawn Gaia DR3 sources. Only their mean, covariance and median errors ship.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from astropy.table import Table
from safetensors.numpy import save_file

from xplabels.features.projection import field_prior, gaiaxpy_design

DATA = Path(__file__).parents[1] / "src" / "xplabels" / "data"


def main(path: str) -> None:
    table = Table.read(path)
    bands = [(band, 55) for band in ("bp", "rp")]

    def matrix(prefix: str) -> np.ndarray:
        names = [f"{prefix}{band}_coeff_{i}" for band, width in bands for i in range(width)]
        return np.stack([np.asarray(table[name], np.float64) for name in names], axis=1)

    _, design = gaiaxpy_design()
    save_file(
        field_prior(matrix(""), matrix("e_"), design, (55, 55)), DATA / "field_prior.safetensors"
    )
    provenance = {
        "what": "mean and covariance of XP coefficients at unit mean sampled flux (1e-17 W m^-2 "
        "nm^-1), and median relative coefficient errors, of Gaia DR3 field stars",
        "stars": str(len(table)),
        "source": f"{Path(path).name} (archive coefficients of real Gaia DR3 sources)",
        "source_sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "command": "python tools/field_prior.py xp_field_2000.fits",
    }
    (DATA / "field_prior.json").write_text(json.dumps(provenance, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
