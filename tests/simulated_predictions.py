"""Simulated stars, labels and predictions whose errors are correct by construction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.flags import Flag
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction

NAMES = ("teff", "logg", "fe_h", "alpha_m")
SCALE = np.array([55.0, 0.15, 0.09, 0.03])
LABEL_ERROR = np.array([20.0, 0.04, 0.012, 0.012])
PROVENANCE = {
    "command": "xplabels validate MODEL STARS.parquet --output DIR",
    "version": "0.1.0",
    "data": "simulated stars with simulated predictions; no real star is among them",
    "training": {"name": "simulated training set", "n": 31657, "labels": ", ".join(NAMES)},
}


@dataclass(frozen=True)
class Simulated:
    """One simulated table: what is known, what is predicted, and the photometry."""

    prediction: Prediction
    labels: Labels
    g_mag: NDArray[np.float64]
    bp_rp: NDArray[np.float64]


def simulate(n: int = 3500, *, dof: float = 5.0, shrink: float = 1.0, seed: int = 0) -> Simulated:
    """``n`` stars; residuals are Student-t (``dof`` may be inf) and the stated half-widths are
    theirs, times ``shrink``; the known labels carry Gaussian errors of their own."""
    rng = np.random.default_rng(seed)
    truth = _population(rng, n)
    g_mag = np.minimum(8 + 6.9 * rng.beta(3, 1.5, n), 14.99)
    scale = SCALE * np.exp(0.25 * (g_mag - 12) + 0.3 * rng.normal(size=n))[:, None]
    noise = rng.normal(size=truth.shape) if np.isinf(dof) else rng.standard_t(dof, truth.shape)
    t = stats.norm if np.isinf(dof) else stats.t(dof)
    errors = shrink * scale * t.ppf((1 + LEVEL_68) / 2)
    faint = np.clip((g_mag - 9)[:, None] / 8, 0.05, 0.7)  # share of the input part
    flags = np.where(rng.random(n) < 0.04, int(Flag.LOW_SNR), 0).astype(np.uint32)
    prediction = Prediction(
        source_id=np.arange(1, n + 1),
        names=NAMES,
        values=truth + scale * noise,
        errors=errors,
        errors_model=errors * np.sqrt(0.2 * (1 - faint)),
        errors_input=errors * np.sqrt(faint),
        errors_excess=errors * np.sqrt(0.8 * (1 - faint)),
        errors_95=shrink * scale * t.ppf((1 + LEVEL_95) / 2),
        domain_distance=rng.chisquare(5, n),
        flags=flags,
        meta={"model": "simulated"},
    )
    label_errors = np.broadcast_to(LABEL_ERROR, truth.shape).copy()
    known = truth + label_errors * rng.normal(size=truth.shape)
    bp_rp = 0.3 + 1.1 * (5040 / truth[:, 0] - 0.6) * 1.8 + 0.1 * rng.gamma(1.5, 1, n)
    return Simulated(prediction, Labels(NAMES, known, label_errors), g_mag, bp_rp)


def _population(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Giants with a clump, and dwarfs: enough of a Kiel diagram to look at."""
    fe_h = np.where(rng.random(n) < 0.12, rng.normal(-1.1, 0.45, n), rng.normal(-0.1, 0.22, n))
    fe_h = np.clip(fe_h, -2.4, 0.5)
    kind = rng.random(n)
    logg = 3.6 - rng.gamma(2.0, 0.75, n).clip(0, 3.4)
    logg = np.where(kind < 0.3, rng.normal(2.45, 0.07, n), logg)
    teff = 4850 + 420 * (logg - 2.5) - 380 * fe_h + rng.normal(0, 60, n)
    dwarf = kind > 0.7
    teff = np.where(dwarf, rng.uniform(3600, 6700, n), teff).clip(3210, 6990)
    main = 4.75 - 0.55 * ((teff - 3600) / 3000) ** 2 + rng.normal(0, 0.04, n)
    logg = np.where(dwarf, main, logg)
    alpha = np.where(rng.random(n) < 0.3, 0.22, 0.03) - 0.06 * fe_h + rng.normal(0, 0.03, n)
    return np.stack([teff, logg, fe_h, alpha], axis=1)
