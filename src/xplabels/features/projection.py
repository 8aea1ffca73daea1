"""Coefficients for networks trained on sampled spectra, from sampled flux or archive coefficients.

GaiaXPy samples a spectrum with one matrix, f = D c. The samples determine only 85-90 of the 110
directions of c, so a network that learns from sampled spectra takes, for every star, the estimate
of its coefficients from the samples and a prior:

    c^ = mu + K (f - D mu),   K = S D^T (D S D^T + s^2 1)^-1

for a spectrum scaled to unit mean flux, with mean mu and covariance S of real stars. With the scale
included the map is strictly linear, c^ = Q f with Q = K + (mu - K D mu) 1^T / L, hence c^ = P c
with P = Q D for a star with archive coefficients.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from xplabels.core.arrays import Array
from xplabels.core.errors import InputError
from xplabels.core.stars import SampledSpectra

FLUX_UNIT = 1e-17
"""Unit of flux (W m^-2 nm^-1) in which D is of order one."""
PRIOR_INFLATION = 4.0
"""Factor of the prior's covariance over that of real field stars, to allow for unusual stars."""
FLUX_NOISE = 1e-5
"""Assumed noise of a sample relative to the mean spectrum's peak; labels hardly depend on it."""


@dataclass(frozen=True)
class Projection:
    """The linear map of spectra to c^, for one pair of widths."""

    wavelength: Array  # float64 [L], nm
    # D, float64 [L, n]: sampled flux (W m^-2 nm^-1) per unit of each coefficient, BP before RP
    design: Array
    from_flux: Array  # Q, float64 [n, L]
    widths: tuple[int, int]  # number of BP and RP coefficients; they add up to n
    # float64 [n]: typical coefficient errors of a band relative to each other
    error_template: Array

    @classmethod
    def from_prior(
        cls,
        wavelength: Array,
        design: Array,
        widths: tuple[int, int],
        mean: Array,
        covariance: Array,
        error_template: Array,
        noise: float = FLUX_NOISE,
    ) -> Projection:
        """Build Q from the mean [n] and covariance [n, n] of coefficients at unit mean flux.

        Unit mean flux means that the samples' mean is :data:`FLUX_UNIT`.
        """
        samples = len(wavelength)
        d = design / FLUX_UNIT
        noise_variance = (noise * (d @ mean).max()) ** 2
        gain = np.linalg.solve(
            d @ covariance @ d.T + noise_variance * np.eye(samples), d @ covariance
        ).T
        q = gain + np.outer(mean - gain @ (d @ mean), np.full(samples, 1.0 / samples))
        return cls(wavelength, design, q / FLUX_UNIT, widths, error_template)

    @property
    def from_coefficients(self) -> Array:
        """P = Q D, float64 [n, n]."""
        return self.from_flux @ self.design

    def coefficients(self, spectra: SampledSpectra) -> Array:
        """c^ [N, n] of sampled spectra.

        :class:`InputError` if the spectra are sampled at other wavelengths.
        """
        self._check_wavelength(spectra)
        return spectra.flux @ self.from_flux.T

    def coefficient_errors(self, spectra: SampledSpectra) -> Array:
        """Approximate errors [N, n] of the archive coefficients behind sampled spectra.

        A sampled spectrum has lost its coefficients' covariance. Here their errors are independent
        and proportional to the template, and scaled for each star and band so that the implied flux
        errors, sqrt(diag(D C D^T)), agree with the stated ones (in the median over the samples that
        this band alone determines).
        """
        self._check_wavelength(spectra)
        bp = self.widths[0]
        errors = np.empty((len(spectra), len(self.error_template)))
        only_bp = (self.design[:, bp:] == 0).all(axis=1)
        only_rp = (self.design[:, :bp] == 0).all(axis=1)
        for columns, rows in ((slice(0, bp), only_bp), (slice(bp, None), only_rp)):
            template = self.error_template[columns]
            implied = np.sqrt(self.design[rows, columns] ** 2 @ template**2)
            scale = np.median(spectra.flux_error[:, rows] / implied, axis=1)
            errors[:, columns] = scale[:, None] * template
        return errors

    def _check_wavelength(self, spectra: SampledSpectra) -> None:
        same = spectra.wavelength.shape == self.wavelength.shape and np.allclose(
            spectra.wavelength, self.wavelength, rtol=0, atol=1e-6
        )
        if not same:
            raise InputError(
                f"flux is sampled at {len(spectra.wavelength)} wavelengths "
                f"({spectra.wavelength[0]:g}-{spectra.wavelength[-1]:g} nm), the model wants "
                f"{len(self.wavelength)} ({self.wavelength[0]:g}-{self.wavelength[-1]:g} nm)",
                remedy="sample with GaiaXPy's calibrate(truncation=False) and its default sampling",
            )


@cache
def default_projection() -> Projection:
    """The projection for DR3's 55 + 55 coefficients and GaiaXPy's default sampling.

    D comes from GaiaXPy (extra ``library``), mu and S from the 2,000 real field stars whose mean
    and covariance ship in ``data/field_prior.safetensors``.
    """
    wavelength, design = gaiaxpy_design()
    prior = field_prior_arrays()
    return Projection.from_prior(
        wavelength,
        design,
        (55, 55),
        prior["mean"],
        PRIOR_INFLATION * prior["covariance"],
        prior["error_template"],
    )


def gaiaxpy_design() -> tuple[Array, Array]:
    """GaiaXPy's default sampling: wavelengths [L] in nm and D [L, 110] in W m^-2 nm^-1.

    ``calibrate`` applied to unit coefficient vectors gives D's columns; D c then equals
    ``calibrate`` of a real source to rounding.

    :class:`InputError` if GaiaXPy is not installed.
    """
    need_gaiaxpy()
    from gaiaxpy import calibrate

    with quiet():
        sampled, wavelength = calibrate(unit_vectors(), truncation=False, save_file=False)
    flux = np.stack(list(sampled.sort_values("source_id")["flux"]))
    return np.asarray(wavelength, np.float64), np.ascontiguousarray(flux.T, dtype=np.float64)


def need_gaiaxpy() -> None:
    """Raise :class:`InputError` if GaiaXPy is not installed."""
    if importlib.util.find_spec("gaiaxpy") is None:
        raise InputError(
            "this needs GaiaXPy, which is not installed", remedy="pip install 'xplabels[library]'"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what GaiaXPy prints.

    Its progress bars keep the stream that was there at import, so the file descriptor of standard
    output itself is redirected.
    """
    sys.stdout.flush()
    stdout = os.dup(1)
    try:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 1)
            with contextlib.redirect_stdout(io.StringIO()):
                yield
            sys.stdout.flush()
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def unit_vectors(width: int = 55) -> object:
    """A GaiaXPy input (pandas.DataFrame) whose row i has coefficient i equal to one."""
    import pandas as pd

    rows = 2 * width
    band = {
        "degrees_of_freedom": 1, "n_parameters": width, "n_measurements": 1,
        "n_rejected_measurements": 0, "standard_deviation": 1.0, "chi_squared": 1.0,
        "n_relevant_bases": width, "relative_shrinking": 0.0,
        "coefficient_errors": [np.ones(width)] * rows,
        "coefficient_correlations": [np.zeros(width * (width - 1) // 2)] * rows,
    }  # fmt: skip
    columns: dict[str, object] = {"source_id": np.arange(rows), "solution_id": 1}
    for name, basis, first in (("bp", 56, 0), ("rp", 57, width)):
        columns |= {f"{name}_{key}": value for key, value in band.items()}
        columns[f"{name}_basis_function_id"] = basis
        columns[f"{name}_coefficients"] = list(np.eye(rows, width, -first))
    return pd.DataFrame(columns)


def field_prior(
    coefficients: Array, errors: Array, design: Array, widths: tuple[int, int]
) -> dict[str, Array]:
    """Mean, covariance and error template of real stars' coefficients at unit mean flux.

    ``coefficients`` and ``errors`` [N, n] are in archive units, ``design`` is D [L, n].
    """
    mean_flux = coefficients @ (design / FLUX_UNIT).mean(axis=0)
    scaled = coefficients / mean_flux[:, None]
    template = np.empty(sum(widths))
    for columns in (slice(0, widths[0]), slice(widths[0], None)):
        band = errors[:, columns]
        template[columns] = np.median(band / np.median(band, axis=1)[:, None], axis=0)
    return {"mean": scaled.mean(axis=0), "covariance": np.cov(scaled.T), "error_template": template}


def field_prior_arrays() -> dict[str, Array]:
    """The mean, covariance and error template of :func:`field_prior` that come with the package."""
    from safetensors.numpy import load

    return load(files("xplabels").joinpath("data/field_prior.safetensors").read_bytes())
