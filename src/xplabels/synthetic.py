"""Simulated stars with known true labels, for tests, examples and checks of errors.

The spectra are not realistic: coefficients depend on the labels through smooth invented templates.
Errors and correlations have the shape of the archive's. All of these are known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xplabels.core.labels import Labels, check_names
from xplabels.core.stars import Band, CoefficientSpectra, Photometry, Stars

Array = NDArray[np.float64]

POPULATION = {
    "teff": (4800.0, 600.0),
    "logg": (2.8, 1.0),
    "fe_h": (-0.3, 0.4),
    "c_fe": (0.0, 0.1),
    "n_fe": (0.2, 0.1),
    "alpha_m": (0.1, 0.1),
}
"""Mean and scatter of the simulated Gaussian population, in the labels' units."""
LABEL_ERROR = 0.02
"""Error of a simulated label, relative to the population's scatter."""
TEMPLATE_SEED = 1_234_567


def simulate_stars(
    n: int,
    *,
    labels: Sequence[str] = ("teff", "logg", "fe_h", "alpha_m"),
    widths: tuple[int, int] = (55, 55),
    noise: float | Array = 1.0,
    curvature: float = 0.1,
    hidden_scatter: float = 0.0,
    seed: int = 0,
) -> tuple[Stars, Labels]:
    """Simulate stars with noisy spectra, photometry and labels, and return their true labels, too.

    ``labels`` are K names, ``widths`` the numbers of BP and RP coefficients. ``noise``, one number
    or one per star [n], multiplies the coefficient errors: 1 is an S/N of about 600 in RP 0.
    ``curvature`` is the strength of the quadratic dependence on the labels (0: spectra are linear
    in them). ``hidden_scatter`` is a scatter of the labels of which spectra show nothing, relative
    to the population's. ``seed`` determines everything.

    Examples
    --------
    >>> stars, truth = simulate_stars(5, widths=(51, 55))
    >>> stars.spectra.widths, truth.values.shape
    ((51, 55), (5, 4))
    """
    names = check_names(labels)
    random = np.random.default_rng(seed)
    centre = np.array([POPULATION[name][0] for name in names])
    spread = np.array([POPULATION[name][1] for name in names])
    shown = random.standard_normal((n, len(names)))
    true = shown + hidden_scatter * random.standard_normal(shown.shape)
    brightness = 10 ** random.uniform(2.0, 4.0, n)
    bands = []
    for number, width in enumerate(widths):
        clean = brightness[:, None] * spectrum(shown, width, number, curvature)
        bands.append(_observe(clean, brightness, noise, random))
    error = np.full_like(true, LABEL_ERROR)
    measured = true + error * random.standard_normal(true.shape)
    stars = Stars.of(
        # ids spread over the sky like those of real stars
        random.choice(2**40, size=n, replace=False).astype(np.int64) << 22,
        CoefficientSpectra(*bands),
        _photometry(shown, brightness, random),
        Labels(names, centre + spread * measured, spread * error),
        origin="simulated stars",
        notes=("these stars are simulated",),
    )
    return stars, Labels(names, centre + spread * true, spread * error)


def example_stars(n: int, seed: int = 0) -> Stars:
    """Simulated stars of the archive's DR3 layout (55 + 55 coefficients), for examples.

    Examples
    --------
    >>> len(example_stars(3))
    3
    """
    return simulate_stars(n, seed=seed)[0]


def spectrum(scaled_labels: Array, width: int, number: int, curvature: float) -> Array:
    """Clean coefficients [N, width] at unit brightness of labels [N, K] scaled by the population.

    ``number`` is 0 for BP, 1 for RP.
    """
    # one stream of random numbers per band, so that its templates do not depend on the other band
    templates = np.random.default_rng(TEMPLATE_SEED + number)
    index = np.arange(width)
    mean = np.exp(-index / 4.0) * np.cos(index)
    decay = 0.05 / (1 + index) ** 0.7
    k = scaled_labels.shape[1]
    linear = templates.standard_normal((width, 6))[:, :k].T * decay
    quadratic = templates.standard_normal((width, 6))[:, :k].T * decay
    # RP 0 depends on the brightness only, so that ratios to it are known exactly
    if number == 1:
        linear[:, 0] = quadratic[:, 0] = 0.0
    return mean + scaled_labels @ linear + curvature * (scaled_labels**2 - 1) @ quadratic


def _observe(
    clean: Array, brightness: Array, noise: float | Array, random: np.random.Generator
) -> Band:
    """A band with errors falling along the index and correlations falling with distance."""
    n, width = clean.shape
    index = np.arange(width)
    shape = 1.5e-3 * np.exp(-index / 30.0)
    level = np.broadcast_to(np.asarray(noise, np.float64), (n,)) * brightness
    errors = level[:, None] * shape * random.uniform(0.8, 1.25, (n, 1))
    correlation = 0.4 ** np.abs(index[:, None] - index)
    drawn = random.standard_normal((n, width)) @ np.linalg.cholesky(correlation).T
    packed = correlation[np.tril_indices(width, -1)].astype(np.float32)
    return Band(clean + errors * drawn, errors, np.tile(packed, (n, 1)))


def _photometry(scaled_labels: Array, brightness: Array, random: np.random.Generator) -> Photometry:
    """Magnitudes and parallax that follow the first label and the brightness."""
    first, last = scaled_labels[:, 0], scaled_labels[:, -1]
    rp = 20.0 - 2.5 * np.log10(brightness)
    clean = {
        "phot_g_mean_mag": rp + 0.6 - 0.1 * first,
        "phot_bp_mean_mag": rp + 1.1 - 0.3 * first,
        "phot_rp_mean_mag": rp,
        "j_m": rp - 0.9 + 0.1 * first,
        "h_m": rp - 1.4 + 0.2 * first,
        "ks_m": rp - 1.5 + 0.22 * first,
        "w1mpro": rp - 1.55 + 0.22 * first,
        "w2mpro": rp - 1.5 + 0.22 * first + 0.02 * last,
        "parallax": 10 ** (-0.2 * (rp - 10 + 0.5 * first)),
    }
    errors = dict.fromkeys(clean, 0.02) | {
        "phot_g_mean_mag": 0.003, "phot_bp_mean_mag": 0.005, "phot_rp_mean_mag": 0.005,
    }  # fmt: skip
    n = len(brightness)
    return Photometry.of(
        n,
        {
            name: (value + errors[name] * random.standard_normal(n), np.full(n, errors[name]))
            for name, value in clean.items()
        },
    )
