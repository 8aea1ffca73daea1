"""Slow, obvious float64 versions of the equations, one star at a time, and random stars for them.

Nothing here calls the code it judges: each function is written from FS24's equations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from xplabels.core.stars import MEASUREMENTS, Band, CoefficientSpectra, Photometry, Stars
from xplabels.features import FeatureSet

Array = NDArray[np.float64]


def band_covariance(errors: Array, packed: NDArray[np.float32] | None) -> Array:
    """C = diag(e) R diag(e), R by the archive's order: element (i, j), i > j, row after row."""
    width = len(errors)
    covariance = np.empty((width, width))
    at = 0
    for i in range(width):
        covariance[i, i] = errors[i] ** 2
        for j in range(i):
            rho = 0.0 if packed is None else float(packed[at])
            covariance[i, j] = covariance[j, i] = rho * errors[i] * errors[j]
            at += 1
    return covariance


def coefficient_covariance(spectra: CoefficientSpectra, star: int) -> Array:
    """Both bands' covariance, independent of each other."""
    blocks = [
        band_covariance(b.errors[star], None if b.correlations is None else b.correlations[star])
        for b in (spectra.bp, spectra.rp)
    ]
    n, m = len(blocks[0]), len(blocks[1])
    whole = np.zeros((n + m, n + m))
    whole[:n, :n], whole[n:, n:] = blocks
    return whole


def ratio_covariance(c: Array, covariance: Array, r0_at: int, r0_error: float) -> Array:
    """Exact first order: S C S^T with S_ij the derivative of x_i = c_i / c_r0 by c_j."""
    n = len(c)
    r0 = c[r0_at]
    slopes = np.zeros((n, n))
    for i in range(n):
        if r0 == 0:
            slopes[i, i] = 1 / r0_error
        elif i != r0_at:
            slopes[i, i] = 1 / r0
            slopes[i, r0_at] = -c[i] / r0**2
    return slopes @ covariance @ slopes.T


def printed_covariance(c: Array, covariance: Array, r0_at: int, r0_error: float) -> Array:
    """FS24's eq. 2 as printed for RP, C / r0^2 for BP, nothing between the bands."""
    n, r0 = len(c), c[r0_at]
    if r0 == 0:
        return covariance / r0_error**2
    x = c / r0
    result = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i >= r0_at and j >= r0_at:
                result[i, j] = (
                    covariance[i, j]
                    - x[i] * covariance[r0_at, j]
                    - x[j] * covariance[r0_at, i]
                    + x[i] * x[j] * covariance[r0_at, r0_at]
                ) / r0**2
            elif i < r0_at and j < r0_at:
                result[i, j] = covariance[i, j] / r0**2
    return result


def auxiliary_inputs(measured: dict[str, float]) -> dict[str, float]:
    """Colours and eq. A1 / 3 of the paper, number by number."""
    m = measured
    a_ks = 0.918 * (m["h_m"] - m["w2mpro"] - 0.08)
    a_rp = a_ks * 0.589 / 0.078
    return {
        "bp_rp": m["phot_bp_mean_mag"] - m["phot_rp_mean_mag"],
        "j_h": m["j_m"] - m["h_m"],
        "g_rp": m["phot_g_mean_mag"] - m["phot_rp_mean_mag"],
        "g_j": m["phot_g_mean_mag"] - m["j_m"],
        "rp_j": m["phot_rp_mean_mag"] - m["j_m"],
        "rp_ks": m["phot_rp_mean_mag"] - m["ks_m"],
        "h_ks": m["h_m"] - m["ks_m"],
        "w1_w2": m["w1mpro"] - m["w2mpro"],
        "h_w2": m["h_m"] - m["w2mpro"],
        "m_pseudo": m["parallax"] * 10 ** (0.2 * (m["phot_rp_mean_mag"] - a_rp)),
    }


def auxiliary_slopes(measured: dict[str, float], name: str) -> Array:
    """Central differences of one auxiliary input by every measurement."""
    slopes = np.zeros(len(MEASUREMENTS))
    for at, measurement in enumerate(MEASUREMENTS):
        step = 1e-5
        up = auxiliary_inputs(measured | {measurement: measured[measurement] + step})[name]
        down = auxiliary_inputs(measured | {measurement: measured[measurement] - step})[name]
        slopes[at] = (up - down) / (2 * step)
    return slopes


def explicit(features: FeatureSet, stars: Stars, jacobian: np.ndarray) -> np.ndarray:
    """The diagonal [N, K] of J C J^T."""
    return np.diagonal(explicit_covariance(features, stars, jacobian), axis1=1, axis2=2)


def explicit_covariance(features: FeatureSet, stars: Stars, jacobian: np.ndarray) -> np.ndarray:
    """J C J^T [N, K, K] with every matrix written out."""
    bp, n = features.widths[0], features.n_spectral
    p = np.eye(n) if features.projection is None else features.projection.from_coefficients
    rule = ratio_covariance if features.covariance == "exact" else printed_covariance
    result = []
    for star in range(len(stars)):
        raw = np.concatenate(
            [stars.spectra.bp.coefficients[star], stars.spectra.rp.coefficients[star]]
        )
        covariance = p @ coefficient_covariance(stars.spectra, star) @ p.T
        spectral = rule(p @ raw, covariance, bp, stars.spectra.rp.errors[star, 0])
        measured = dict(zip(MEASUREMENTS, stars.photometry.values[star], strict=True))
        slopes = np.zeros((len(features.auxiliary), len(MEASUREMENTS)))
        for a, name in enumerate(features.auxiliary):
            slopes[a] = auxiliary_slopes(measured, name)
        if not features.extinction_error and "m_pseudo" in features.auxiliary:
            row = slopes[features.auxiliary.index("m_pseudo")]
            row[[MEASUREMENTS.index("h_m"), MEASUREMENTS.index("w2mpro")]] = 0
        photometric = slopes @ np.diag(stars.photometry.errors[star] ** 2) @ slopes.T
        j = jacobian[star]
        result.append(j[:, :n] @ spectral @ j[:, :n].T + j[:, n:] @ photometric @ j[:, n:].T)
    return np.array(result)


def conditional(c: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """B and the covariance of the missing given the present, from the inverse's blocks: another
    way than the code's."""
    precision = np.linalg.inv(c)
    block = np.linalg.inv(precision[np.ix_(missing, missing)])
    return -block @ precision[np.ix_(missing, ~missing)], block


def random_correlations(random: np.random.Generator, n: int, width: int) -> NDArray[np.float32]:
    """Packed correlations of random positive definite matrices."""
    rows = []
    for _ in range(n):
        root = random.standard_normal((width, width + 3))
        cov = root @ root.T
        scale = np.sqrt(np.diag(cov))
        rows.append((cov / np.outer(scale, scale))[np.tril_indices(width, -1)])
    return np.asarray(rows, np.float32).reshape(n, width * (width - 1) // 2)


def random_stars(
    n: int, widths: tuple[int, int], seed: int = 0, *, correlated: bool = True
) -> Stars:
    """Stars of nothing in particular: random coefficients, errors, correlations, photometry."""
    random = np.random.default_rng(seed)
    bands = []
    for width in widths:
        c = random.standard_normal((n, width)) * 50
        e = random.uniform(0.2, 2.0, (n, width))
        bands.append(Band(c, e, random_correlations(random, n, width) if correlated else None))
    bands[1].coefficients[:, 0] = random.choice([-1, 1], n) * random.uniform(80, 900, n)
    magnitudes = {
        name: (random.uniform(10, 14, n), random.uniform(0.01, 0.05, n))
        for name in MEASUREMENTS
        if name != "parallax"
    }
    magnitudes["w2mpro"] = (
        magnitudes["h_m"][0] - random.uniform(-0.1, 0.4, n), magnitudes["w2mpro"][1],
    )  # fmt: skip
    magnitudes["parallax"] = (random.normal(0.5, 1.0, n), random.uniform(0.02, 0.2, n))
    return Stars.of(np.arange(1, n + 1), CoefficientSpectra(*bands), Photometry.of(n, magnitudes))


def with_bands(stars: Stars, change: Callable[[Band], Band]) -> Stars:
    """The same stars, each band changed."""
    bp, rp = change(stars.spectra.bp), change(stars.spectra.rp)
    return replace(stars, spectra=CoefficientSpectra(bp, rp))


def some_missing(stars: Stars, seed: int = 0) -> Stars:
    """Photometry with holes of every pattern."""
    values, errors = stars.photometry.values, stars.photometry.errors
    gone = np.random.default_rng(seed).random(values.shape) < 0.1
    holes = (np.where(gone, np.nan, array) for array in (values, errors))
    return stars.with_photometry(Photometry(*holes))


def check_gradients(
    loss: Callable[[], Tensor], weights: Iterable[Tensor], every: int, floor: float
) -> None:
    """Compare the gradient of ``loss`` by every so many weights with finite differences."""
    loss().backward()
    for weight in weights:
        assert weight.grad is not None
        flat, gradient = weight.data.view(-1), weight.grad.view(-1)
        for i in range(0, len(flat), every):
            kept = float(flat[i])
            sides = []
            for step in (1e-6, -1e-6):
                flat[i] = kept + step
                sides.append(float(loss().detach()))
            flat[i] = kept
            wanted = (sides[0] - sides[1]) / 2e-6
            assert float(gradient[i]) == pytest.approx(wanted, rel=1e-5, abs=floor)
