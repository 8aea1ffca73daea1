"""Make src/xplabels/data/noise_model.safetensors and typical_correlations.safetensors from a table
of real field stars.

    python tools/noise_model.py xp_field_2000.fits

The table has archive coefficients and errors of randomly drawn Gaia DR3 sources. Only the fitted
figures ship. The factors in the provenance are of stars that were left out of the fit (five parts,
by turns): `factor` is what that share of all their errors lies within, either side of the
prediction.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from xplabels.instrument import WIDTHS, band_fluxes, magnitudes
from xplabels.instrument.noise import (
    BACKGROUND,
    NoiseModel,
    TypicalCorrelations,
    illustrative_correlations,
    interpolation_weights,
    terms,
)
from xplabels.io import read

Array = NDArray[np.float64]

DATA = Path(__file__).parents[1] / "src" / "xplabels" / "data"
PARTS = 5
NODES_G = (12.0, 14.5, 16.0, 17.5, 19.0)
NODES_COLOUR = (0.4, 0.8, 1.2, 1.7, 2.4, 3.2)
"""mag: where correlations are tabulated; linear in between."""
HUBER = 1.5
"""Residuals beyond so many robust standard deviations count less."""
ITERATIONS = 8
SKY_G = 15.5
"""mag: where the sky adds as much again to that floor, in the typical correlations. On 228 real
spectra of G 5-17.6 the best floor is 0.03 up to G = 16, and 0.1-0.3 beyond it."""
G_BINS = (7.0, 10.0, 11.5, 13.0, 15.0, 17.0, 17.7)


def fit_noise(errors: Array, g: Array, colour: Array) -> NoiseModel:
    """Fit the model by iteratively reweighted least squares with Huber's weights.

    To archive errors [N, n] of real stars, positive, their G and G_BP - G_RP [N], mag (Vega).
    """
    x, y = terms(g, colour), np.log(errors)
    weights = np.asarray(np.linalg.lstsq(x, y, rcond=None)[0])
    for _ in range(ITERATIONS):
        residual = y - x @ weights
        scale = 1.4826 * np.median(np.abs(residual), axis=0)
        trust = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(residual), 1e-12))
        root = np.sqrt(trust)
        fits = [
            np.linalg.lstsq(x * w[:, None], column * w, rcond=None)[0]
            for column, w in zip(y.T, root.T, strict=True)
        ]
        weights = np.stack(fits, axis=1)
    return NoiseModel(weights)


def fit_correlations(coefficients: Array) -> TypicalCorrelations:
    """Typical correlations from coefficients [N, 110] of real stars, of all G, with GaiaXPy."""
    nodes_g, nodes_colour = np.array(NODES_G), np.array(NODES_COLOUR)
    fluxes, zero_points = band_fluxes()
    seen = magnitudes(coefficients)
    near = interpolation_weights(nodes_colour, seen[:, 1] - seen[:, 2])
    near /= near.sum(axis=0)
    below = np.tril_indices(WIDTHS[0], -1)
    packed = []
    for g in nodes_g:
        floor = BACKGROUND * (1 + 10 ** (0.4 * (g - SKY_G)))
        bands = illustrative_correlations(coefficients, floor)
        packed.append(near.T @ np.concatenate([band[:, *below] for band in bands], axis=1))
    stacked = np.concatenate(packed).astype(np.float32)
    return TypicalCorrelations(nodes_g, nodes_colour, fluxes, zero_points, stacked)


def left_out_ratios(errors: Array, g: Array, colour: Array) -> Array:
    """Real over predicted error [N, 110] of stars the fit had not seen."""
    part = np.random.default_rng(0).permutation(len(g)) % PARTS
    ratio = np.empty_like(errors)
    for number in range(PARTS):
        here = part == number
        model = fit_noise(errors[~here], g[~here], colour[~here])
        ratio[here] = errors[here] / model.errors(g[here], colour[here])
    return ratio


def main(path: str) -> None:
    spectra = read(path).spectra
    coefficients, errors = spectra.coefficients, spectra.errors
    g, bp, rp = magnitudes(coefficients).T
    model = fit_noise(errors, g, bp - rp)
    save_file({"weights": model.weights}, DATA / "noise_model.safetensors")
    typical = fit_correlations(coefficients)
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
