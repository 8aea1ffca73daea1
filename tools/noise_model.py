"""Make src/xplabels/data/noise_model.safetensors and typical_correlations.safetensors from a table
of real field stars.

    python tools/noise_model.py xp_field_2000.fits

The table has columns bp_coeff_0, e_bp_coeff_0, ..., rp_coeff_0, ...: archive coefficients and
errors of randomly drawn Gaia DR3 sources. Only the fitted figures ship. The factors in the
provenance are of stars that were left out of the fit (five parts, by turns): `factor` is what
that share of all their errors lies within, either side of the prediction.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from safetensors.numpy import save_file

from xplabels.instrument import magnitudes
from xplabels.instrument.noise import fit_correlations, fit_noise

DATA = Path(__file__).parents[1] / "src" / "xplabels" / "data"
PARTS = 5
NODES_G = (12.0, 14.5, 16.0, 17.5, 19.0)
NODES_COLOUR = (0.4, 0.8, 1.2, 1.7, 2.4, 3.2)
"""mag: where correlations are tabulated; linear in between."""
G_BINS = (7.0, 10.0, 11.5, 13.0, 15.0, 17.0, 17.7)


def field_stars(path: str | Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients and errors [N, 110] of the table."""
    table = Table.read(path)

    def matrix(prefix: str) -> NDArray[np.float64]:
        names = [f"{prefix}{band}_coeff_{i}" for band in ("bp", "rp") for i in range(55)]
        return np.stack([np.asarray(table[name], np.float64) for name in names], axis=1)

    return matrix(""), matrix("e_")


def left_out_ratios(
    errors: NDArray[np.float64], g: NDArray[np.float64], colour: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Real over predicted error [N, 110] of stars the fit had not seen."""
    part = np.random.default_rng(0).permutation(len(g)) % PARTS
    ratio = np.empty_like(errors)
    for number in range(PARTS):
        here = part == number
        model = fit_noise(errors[~here], g[~here], colour[~here])
        ratio[here] = errors[here] / model.errors(g[here], colour[here])
    return ratio


def main(path: str) -> None:
    coefficients, errors = field_stars(path)
    g, bp, rp = magnitudes(coefficients).T
    model = fit_noise(errors, g, bp - rp)
    save_file({"weights": model.weights}, DATA / "noise_model.safetensors")
    typical = fit_correlations(coefficients, np.array(NODES_G), np.array(NODES_COLOUR))
    arrays = {name: value for name, value in vars(typical).items() if name != "packed"}
    arrays["packed"] = typical.packed.astype(np.float16)
    save_file(arrays, DATA / "typical_correlations.safetensors")
    ratio = left_out_ratios(errors, g, bp - rp)
    scatter = {}
    for low, high in itertools.pairwise(G_BINS):
        inside = (g > low) & (g <= high)
        quantiles = np.quantile(ratio[inside], [0.025, 0.16, 0.5, 0.84, 0.975])
        scatter[f"{low:g}-{high:g}"] = {
            "stars": int(inside.sum()),
            "real/predicted at 2.5, 16, 50, 84, 97.5 %": [round(float(q), 3) for q in quantiles],
        }
    provenance = {
        "what": "weights of the logarithm of XP coefficient errors by G and G_BP - G_RP "
        "(xplabels.instrument.noise.terms); G and colour synthesised by GaiaXPy",
        "stars": len(g),
        "g_range": [round(float(g.min()), 2), round(float(g.max()), 2)],
        "source": f"{Path(path).name} (archive coefficients and errors of real Gaia DR3 sources)",
        "source_sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "command": "python tools/noise_model.py xp_field_2000.fits",
        "factor": {
            f"{share} %": round(float(np.exp(np.quantile(np.abs(np.log(ratio)), share / 100))), 3)
            for share in (68.3, 95.4)
        },
        "left_out_stars_by_g": scatter,
    }
    (DATA / "noise_model.json").write_text(json.dumps(provenance, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
