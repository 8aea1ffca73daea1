"""Spectral energy distributions -> simulated stars, as the archive would bring them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Band, CoefficientSpectra, Photometry, Stars
from xplabels.instrument import (
    MAGNITUDES,
    gaiaxpy_instrument,
    magnitude_errors,
    magnitudes,
)
from xplabels.instrument.noise import (
    G_RANGE,
    NoiseModel,
    illustrative_correlations,
    noise_model,
    noise_provenance,
)
from xplabels.instrument.sed import Sed

PHOTOMETRY_FLOOR = 0.005
"""mag: added in quadrature to the errors of simulated G, BP and RP, as the library's are."""


def simulate_spectra(
    seds: Sed | Sequence[Sed],
    *,
    g_mag: float | Sequence[float] | None = None,
    draws: int = 1,
    noise: bool = True,
    seed: int = 0,
    extrapolate: bool = False,
    model: NoiseModel | None = None,
) -> Stars:
    """Simulated stars: XP coefficients with errors, and G, BP and RP, of given spectra.

    The stars are in the order of ``seds``, then of ``g_mag``, then of the draws, with source_ids
    1, 2, ... in that order. ``notes`` says that they are simulated, from what and how.

    Parameters
    ----------
    seds
        One or several spectral energy distributions, 330-1050 nm or more.
    g_mag
        G (Vega, mag), one or several: each spectrum is scaled to each. None: as bright as given.
    draws
        Stars of each spectrum and G, with different noise.
    noise
        Whether to add noise to coefficients and magnitudes; errors are given either way.
    seed
        Of the noise.
    extrapolate
        Hold flux constant beyond the ends of spectra that are too short.
    model
        Coefficient errors by G and colour; None: the model that ships.

    Raises
    ------
    InputError
        If there is no spectrum, one is too short or has no positive flux in G, BP and RP, or a G
        lies outside the noise model's range.

    Examples
    --------
    >>> flat = Sed.of([300.0, 1100.0], [1e-16, 1e-16], name="flat")
    >>> stars = simulate_spectra(flat, g_mag=[13.0, 16.0], draws=2)
    >>> len(stars), stars.spectra.widths
    (4, (55, 55))
    """
    listed = [seds] if isinstance(seds, Sed) else list(seds)
    if not listed:
        raise InputError("there is no spectral energy distribution", remedy="give one or more")
    if draws < 1:
        raise InputError(f"{draws} draws", remedy="draw once or more")
    clean = _Clean.of(listed, g_mag, extrapolate)
    errors = (model or noise_model()).errors(clean.magnitudes[:, 0], clean.colour)
    correlations = illustrative_correlations(clean.coefficients)
    mag_errors = np.hypot(
        magnitude_errors(clean.coefficients, errors, correlations), PHOTOMETRY_FLOOR
    )
    rows = np.repeat(np.arange(len(errors)), draws)
    random = np.random.default_rng(seed) if noise else None
    width = gaiaxpy_instrument().widths[0]
    bands = [
        _observed(clean.coefficients[:, columns], errors[:, columns], matrix, rows, random)
        for columns, matrix in zip((slice(width), slice(width, None)), correlations, strict=True)
    ]
    shift = np.zeros((len(rows), 3)) if random is None else random.standard_normal((len(rows), 3))
    measured = clean.magnitudes[rows] + shift * mag_errors[rows]
    photometry = {name: (measured[:, b], mag_errors[rows, b]) for b, name in enumerate(MAGNITUDES)}
    return Stars.of(
        np.arange(1, len(rows) + 1, dtype=np.int64),
        CoefficientSpectra(*bands),
        Photometry.of(len(rows), photometry),
        origin=f"simulated from {len(listed)} spectral energy distributions",
        notes=(*_notes(random is not None, seed), *clean.lines(listed, draws)),
    )


@dataclass(frozen=True)
class _Clean:
    """Noiseless spectra: coefficients [M, n], magnitudes [M, 3], and which SED [M] they are of."""

    coefficients: NDArray[np.float64]
    magnitudes: NDArray[np.float64]
    of_sed: NDArray[np.intp]

    @property
    def colour(self) -> NDArray[np.float64]:
        """G_BP - G_RP [M], mag."""
        return np.asarray(self.magnitudes[:, 1] - self.magnitudes[:, 2])

    @classmethod
    def of(
        cls, seds: list[Sed], g_mag: float | Sequence[float] | None, extrapolate: bool
    ) -> _Clean:
        """Every spectrum at every G."""
        given = gaiaxpy_instrument().coefficients(seds, extrapolate=extrapolate)
        seen = magnitudes(given)
        for sed, row in zip(seds, seen, strict=True):
            if not np.isfinite(row).all():
                raise InputError(
                    "has no positive flux in each of G, BP and RP",
                    where=sed.name or "spectral energy distribution",
                    remedy=f"check its flux and wavelengths ({sed.wavelength[0]:g}-"
                    f"{sed.wavelength[-1]:g} nm)",
                )
        each = np.arange(len(seds))
        if g_mag is None:
            return cls(given, seen, each)
        wanted = np.atleast_1d(np.asarray(g_mag, np.float64))
        outside = ~((wanted >= G_RANGE[0]) & (wanted <= G_RANGE[1]))
        if not wanted.size or outside.any():
            raise InputError(
                f"G = {', '.join(f'{g:g}' for g in wanted[outside])} cannot be simulated",
                remedy=f"choose G within {G_RANGE[0]:g}-{G_RANGE[1]:g} mag",
            )
        rows, g = np.repeat(each, len(wanted)), np.tile(wanted, len(seds))
        fainter = g - seen[rows, 0]
        return cls(
            given[rows] * 10 ** (-0.4 * fainter)[:, None], seen[rows] + fainter[:, None], rows
        )

    def lines(self, seds: list[Sed], draws: int) -> list[str]:
        """For the notes: which source_ids are of which spectrum."""
        return [
            f"source_id {first}{'' if draws == 1 else f'-{first + draws - 1}'}: "
            f"{seds[sed].name or f'spectrum {sed + 1}'} at G = {g:.3f}"
            for first, sed, g in zip(
                range(1, len(self.of_sed) * draws + 1, draws),
                self.of_sed,
                self.magnitudes[:, 0],
                strict=True,
            )
        ]


def _observed(
    clean: NDArray[np.float64],
    errors: NDArray[np.float64],
    correlations: NDArray[np.float64],
    rows: NDArray[np.intp],
    random: np.random.Generator | None,
) -> Band:
    """One band of the stars ``rows`` [N], with noise of its full covariance."""
    coefficients = clean[rows]
    if random is not None:
        roots = np.linalg.cholesky(correlations)
        drawn = random.standard_normal(coefficients.shape)
        coefficients = coefficients + errors[rows] * np.einsum("nij,nj->ni", roots[rows], drawn)
    below = np.tril_indices(clean.shape[1], -1)
    packed = correlations[:, below[0], below[1]].astype(np.float32)
    return Band(coefficients, errors[rows], packed[rows])


def _notes(noise: bool, seed: int) -> list[str]:
    factor = noise_provenance()["factor"]["68.3 %"]
    return [
        "these stars are simulated: spectral energy distributions through GaiaXPy's DR3 "
        "instrument model",
        f"noise was drawn with seed {seed}" if noise else "no noise was added",
        "coefficient errors are typical of field stars of this G and colour (68.3 % of real ones "
        f"lie within a factor {factor:g}); their correlations are illustrative",
        "G, BP and RP are synthesised with GaiaXPy; other photometry and parallaxes are missing",
    ]
