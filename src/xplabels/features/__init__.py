"""The network's inputs x for given stars, with what is needed to propagate measurement errors.

The normalised covariance of FS24's eq. 2 is never built. A derivative with respect to the inputs
is carried back to the archive's own coefficients, magnitudes and parallax, whose errors are known:
then shared errors (the RP coefficient that divides everything, H in two colours) are right by
construction, and J C J^T uses the archive's own blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from xplabels.core.arrays import Array
from xplabels.core.errors import InputError, located
from xplabels.core.flags import Flag, missing_input
from xplabels.core.stars import (
    MEASUREMENTS,
    CoefficientSpectra,
    Photometry,
    SampledSpectra,
    Stars,
    with_widths,
)
from xplabels.features.projection import Projection

Packed = tuple[NDArray[np.float32], NDArray[np.float32]]
CovarianceRule = Literal["exact", "fs24"]

AUXILIARY: Mapping[str, tuple[str, ...]] = {
    "bp_rp": ("phot_bp_mean_mag", "phot_rp_mean_mag"),
    "j_h": ("j_m", "h_m"),
    "g_rp": ("phot_g_mean_mag", "phot_rp_mean_mag"),
    "g_j": ("phot_g_mean_mag", "j_m"),
    "rp_j": ("phot_rp_mean_mag", "j_m"),
    "rp_ks": ("phot_rp_mean_mag", "ks_m"),
    "h_ks": ("h_m", "ks_m"),
    "w1_w2": ("w1mpro", "w2mpro"),
    "h_w2": ("h_m", "w2mpro"),
    "m_pseudo": ("parallax", "phot_rp_mean_mag", "h_m", "w2mpro"),
}
"""The inputs beside the spectra, and the measurements that each is made of."""

RJCE_SLOPE = 0.918
RJCE_ZERO = 0.08
"""A_Ks = 0.918 (H - W2 - 0.08): Rayleigh-Jeans colour excess, Majewski et al. 2011."""
RP_OVER_V, KS_OVER_V = 0.589, 0.078
"""A_RP / A_V and A_Ks / A_V of Wang & Chen 2019."""
EXTINCTION_SLOPE = RJCE_SLOPE * RP_OVER_V / KS_OVER_V
"""A_RP = 6.93 (H - W2 - 0.08) mag; not clipped at zero, so that its error stays symmetric."""

LOW_SNR = 10.0
"""S/N of RP coefficient 0 below which the errors of the ratios to it are no longer linear."""


T = TypeVar("T")


def map_arrays(function: Callable[[Any], Any], part: T) -> T:
    """Apply ``function`` to every array or tensor of a dataclass or tuple; None stays None."""
    mapped: Any = part
    if isinstance(part, tuple):
        mapped = tuple(map_arrays(function, element) for element in part)
    elif is_dataclass(part) and not isinstance(part, type):
        values = ((field.name, getattr(part, field.name)) for field in fields(part))
        mapped = replace(part, **{name: map_arrays(function, value) for name, value in values})
    elif part is not None:
        mapped = function(part)
    same: T = mapped
    return same


@dataclass(frozen=True)
class Features:
    """Inputs of N stars with their errors (numpy arrays, float64 unless stated otherwise)."""

    # [N, F]: BP and RP coefficients divided by RP 0, then the auxiliary inputs; NaN if missing
    x: Array
    divisor: Array  # [N]: RP 0, or its error where RP 0 is zero (FS24, eq. 1)
    is_ratio: NDArray[np.bool_]  # bool [N]: whether the divisor is RP 0
    errors: Array  # [N, nb + nr]: errors of the archive coefficients
    # packed float32 (BP [N, .], RP [N, .]), or None where they are taken as zero
    correlations: Packed | None
    # [N, A, M]: derivative of each auxiliary input by each measurement times that measurement's
    # error; 0 where missing
    auxiliary_errors: Array
    flags: NDArray[np.uint32]  # uint32 [N]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Features:
        return map_arrays(lambda array: array[rows], self)


@dataclass(frozen=True)
class FeatureSet:
    """Which inputs a network takes, and how their covariance is formed."""

    widths: tuple[int, int]  # number of BP and RP coefficients, from the data trained on
    auxiliary: tuple[str, ...]  # any of AUXILIARY, in order
    # ``exact``: the noise of RP 0 is in all coefficients, which it divides. ``fs24``: the paper's
    # eq. 2, where it is in those of RP alone
    covariance: CovarianceRule = "exact"
    # whether the error of A_RP enters that of the pseudo-absolute magnitude (not in the paper)
    extinction_error: bool = True
    # of networks trained on sampled spectra; None: the inputs are archive coefficients
    projection: Projection | None = None
    noise: bool = False  # whether the noise level of each band is also an input (noise_levels)

    def __post_init__(self) -> None:
        for name in self.auxiliary:
            if name not in AUXILIARY:
                raise InputError(
                    f"unknown auxiliary input {name!r}",
                    remedy=f"choose among {', '.join(AUXILIARY)}",
                )

    @classmethod
    def for_stars(cls, stars: Stars, auxiliary: tuple[str, ...], **rules: Any) -> FeatureSet:
        """The inputs that ``stars`` allow: widths, and a projection if they are sampled."""
        if isinstance(stars.spectra, CoefficientSpectra):
            return cls(stars.spectra.widths, auxiliary, **rules)
        from xplabels.features.projection import default_projection

        projection = default_projection()
        return cls(projection.widths, auxiliary, projection=projection, **rules)

    @property
    def n_spectral(self) -> int:
        """Number of inputs from the spectra."""
        return sum(self.widths)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the F inputs."""
        bp, rp = self.widths
        spectral = [f"bp_{i}" for i in range(bp)] + [f"rp_{i}" for i in range(rp)]
        return (*spectral, *self.auxiliary)

    def noise_levels(self, features: Features) -> Array:
        """log10 of the median coefficient error of BP and RP in units of RP 0, [N, 2] or [N, 0].

        They are inputs because the best weight of a weak coefficient depends on its noise. Medians
        over a band are also available for sampled spectra, whose errors follow a template.
        """
        if not self.noise:
            return np.empty((len(features), 0))
        bp = self.widths[0]
        relative = features.errors / np.abs(features.divisor)[:, None]
        bands = (relative[:, :bp], relative[:, bp:])
        with np.errstate(divide="ignore"):
            return np.log10(np.stack([np.median(band, axis=1) for band in bands], axis=1))

    def missing(self, features: Features) -> Array:
        """The share of the auxiliary inputs that each star lacks [N]; 0 where there are none."""
        absent = np.isnan(features.x[:, self.n_spectral :]).sum(axis=1)
        return np.asarray(absent / max(len(self.auxiliary), 1))

    def compute(self, stars: Stars) -> Features:
        """Inputs of ``stars``, with flags for what is missing or doubtful.

        :class:`InputError` if the spectra's widths or kind differ from this set's.
        """
        coefficients, errors, correlations = self._coefficients(stars)
        r0, r0_error = (array[:, self.widths[0]] for array in (coefficients, errors))
        is_ratio = r0 != 0
        divisor = np.where(is_ratio, r0, r0_error)
        photometry = stars.photometry
        auxiliary = np.empty((len(stars), len(self.auxiliary)))
        auxiliary_errors = np.zeros((len(stars), len(self.auxiliary), len(MEASUREMENTS)))
        for a, name in enumerate(self.auxiliary):
            auxiliary[:, a], derivatives = _auxiliary(name, photometry, self.extinction_error)
            for measurement, derivative in derivatives.items():
                m = MEASUREMENTS.index(measurement)
                auxiliary_errors[:, a, m] = derivative * photometry.errors[:, m]
        # a measurement without an error counts as missing: its variance is not zero
        missing = np.isnan(auxiliary) | np.isnan(auxiliary_errors).any(axis=2)
        auxiliary[missing] = np.nan
        auxiliary_errors[missing] = 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            x = np.concatenate([coefficients / divisor[:, None], auxiliary], axis=1)
            low_snr = np.abs(r0) < LOW_SNR * r0_error
        return Features(
            x,
            divisor,
            is_ratio,
            errors,
            correlations,
            auxiliary_errors,
            stars.flags | self._flags(is_ratio, low_snr, missing, photometry),
        )

    def _coefficients(self, stars: Stars) -> tuple[Array, Array, Packed | None]:
        """The network's coefficients, and errors and correlations of the measured ones."""
        # a file in which no star has a band does not show how wide that band would be
        spectra = with_widths(stars, self.widths).spectra
        if isinstance(spectra, SampledSpectra):
            if self.projection is None:
                raise InputError(
                    "the stars come as sampled flux, the model was trained on archive coefficients",
                    where=stars.where,
                    remedy="give the archive's coefficients, or a model trained on sampled spectra",
                )
            projection = self.projection
            with located(stars.where):
                return (
                    projection.coefficients(spectra), projection.coefficient_errors(spectra), None,
                )  # fmt: skip
        if spectra.widths != self.widths:
            raise InputError(
                f"the spectra have {spectra.widths[0]} BP + {spectra.widths[1]} RP coefficients, "
                f"the model {self.widths[0]} + {self.widths[1]}",
                where=stars.where,
                remedy="use a model trained on spectra of the same data release",
            )
        coefficients = np.concatenate([spectra.bp.coefficients, spectra.rp.coefficients], axis=1)
        if self.projection is not None:
            coefficients = coefficients @ self.projection.from_coefficients.T
        errors = np.concatenate([spectra.bp.errors, spectra.rp.errors], axis=1)
        if spectra.bp.correlations is None or spectra.rp.correlations is None:
            return coefficients, errors, None
        return coefficients, errors, (spectra.bp.correlations, spectra.rp.correlations)

    def _flags(
        self, is_ratio: NDArray[np.bool_], low_snr: NDArray[np.bool_],
        missing: NDArray[np.bool_], photometry: Photometry,
    ) -> NDArray[np.uint32]:  # fmt: skip
        """Flags of the inputs themselves."""
        flags = np.where(is_ratio, 0, Flag.ZERO_NORMALISATION) | np.where(low_snr, Flag.LOW_SNR, 0)
        for a, name in enumerate(self.auxiliary):
            flags |= np.where(missing[:, a], missing_input(name), 0)
            for measurement in AUXILIARY[name]:
                absent = np.isnan(photometry.column(measurement)).any(axis=0) & missing[:, a]
                parallax = measurement == "parallax"
                flag = Flag.MISSING_PARALLAX if parallax else Flag.MISSING_PHOTOMETRY
                flags |= np.where(absent, flag, 0)
        return flags.astype(np.uint32)


def _auxiliary(
    name: str, photometry: Photometry, extinction_error: bool
) -> tuple[Array, dict[str, Any]]:
    """One auxiliary input [N] and its derivative by each measurement it is made of."""
    if name != "m_pseudo":
        blue, red = AUXILIARY[name]
        colour = photometry.column(blue)[0] - photometry.column(red)[0]
        return colour, {blue: 1.0, red: -1.0}
    parallax, rp, h, w2 = (photometry.column(n)[0] for n in AUXILIARY[name])
    rp0 = rp - EXTINCTION_SLOPE * (h - w2 - RJCE_ZERO)  # eq. A1
    by_parallax = 10 ** (0.2 * rp0)
    pseudo = parallax * by_parallax  # eq. 3, with RP dereddened
    by_rp = 0.2 * np.log(10) * pseudo
    derivatives = {"parallax": by_parallax, "phot_rp_mean_mag": by_rp}
    if extinction_error:
        derivatives |= {"h_m": -EXTINCTION_SLOPE * by_rp, "w2mpro": EXTINCTION_SLOPE * by_rp}
    return pseudo, derivatives
