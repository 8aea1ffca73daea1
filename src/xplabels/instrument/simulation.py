"""Stars simulated from spectral energy distributions, as if from the archive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Band, CoefficientSpectra, Photometry, Stars
from xplabels.instrument import MAGNITUDES, WIDTHS, gaiaxpy_instrument, magnitude_errors, magnitudes
from xplabels.instrument.noise import illustrative_correlations, noise_model, noise_provenance
from xplabels.instrument.sed import Sed

Array = NDArray[np.float64]

PHOTOMETRY_FLOOR = 0.005
"""Error (mag) added in quadrature to those of simulated G, BP and RP, as in the library."""


def simulate_spectra(
    seds: Sed | Sequence[Sed],
    *,
    g_mag: float | Sequence[float] | None = None,
    draws: int = 1,
    noise: bool = True,
    seed: int = 0,
    extrapolate: bool = False,
) -> Stars:
    """Simulated stars: XP coefficients with errors, and G, BP and RP, of given spectra.

    The stars are in the order of ``seds``, then of ``g_mag``, then of the draws, with source_ids
    1, 2, ... in that order. ``notes`` states that they are simulated, from what and how.

    Each SED, covering at least 330-1050 nm, is scaled to each G of ``g_mag`` (Vega, mag; None: as
    bright as given) and observed ``draws`` times with different noise. Errors are also given
    without ``noise``. ``extrapolate`` keeps the flux constant beyond the ends of spectra that are
    too short.

    Raises :class:`InputError` if there is no spectrum, one is too short or has no positive flux in
    G, BP and RP, or a G lies outside the noise model's range.

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
    clean, clean_mag, of_sed = _clean_spectra(listed, g_mag, extrapolate)
    errors = noise_model().errors(clean_mag[:, 0], clean_mag[:, 1] - clean_mag[:, 2])
    correlations = illustrative_correlations(clean)
    mag_errors = np.hypot(magnitude_errors(clean, errors, correlations), PHOTOMETRY_FLOOR)
    rows = np.repeat(np.arange(len(clean)), draws)
    random = np.random.default_rng(seed) if noise else None
    spectra = observed_spectra(clean, errors, correlations, rows, random)
    shift = np.zeros((len(rows), 3)) if random is None else random.standard_normal((len(rows), 3))
    measured = clean_mag[rows] + shift * mag_errors[rows]
    photometry = {name: (measured[:, b], mag_errors[rows, b]) for b, name in enumerate(MAGNITUDES)}
    sources = [
        f"source_id {first}{'' if draws == 1 else f'-{first + draws - 1}'}: "
        f"{listed[sed].name or f'spectrum {sed + 1}'} at G = {g:.3f}"
        for first, sed, g in zip(
            range(1, len(rows) + 1, draws), of_sed, clean_mag[:, 0], strict=True
        )
    ]
    factor = noise_provenance()["factor"]["68.3 %"]
    return Stars.of(
        np.arange(1, len(rows) + 1, dtype=np.int64),
        spectra,
        Photometry.of(len(rows), photometry),
        origin=f"simulated from {len(listed)} spectral energy distributions",
        notes=(
            "these stars are simulated: spectral energy distributions through GaiaXPy's DR3 "
            "instrument model",
            f"noise was drawn with seed {seed}" if noise else "no noise was added",
            "coefficient errors are typical of field stars of this G and colour (68.3 % of real "
            f"ones lie within a factor {factor:g}); their correlations are illustrative",
            "G, BP and RP are synthesised with GaiaXPy; other photometry and parallaxes are "
            "missing",
            *sources,
        ),
    )


def _clean_spectra(
    seds: list[Sed], g_mag: float | Sequence[float] | None, extrapolate: bool
) -> tuple[Array, Array, NDArray[np.intp]]:
    """Every spectrum at every G without noise.

    Returns coefficients [M, n], magnitudes [M, 3], and the index of their SED [M].
    """
    given = gaiaxpy_instrument().coefficients(seds, extrapolate=extrapolate)
    given_mag = magnitudes(given)
    for sed, row in zip(seds, given_mag, strict=True):
        if not np.isfinite(row).all():
            raise InputError(
                "has no positive flux in each of G, BP and RP",
                where=sed.name or "spectral energy distribution",
                remedy=f"check its flux and wavelengths ({sed.wavelength[0]:g}-"
                f"{sed.wavelength[-1]:g} nm)",
            )
    numbers = np.arange(len(seds))
    if g_mag is None:
        return given, given_mag, numbers
    wanted = np.atleast_1d(np.asarray(g_mag, np.float64))
    rows, g = np.repeat(numbers, len(wanted)), np.tile(wanted, len(seds))
    fainter = (g - given_mag[rows, 0])[:, None]
    return given[rows] * 10 ** (-0.4 * fainter), given_mag[rows] + fainter, rows


def observed_spectra(
    clean: Array,
    errors: Array,
    correlations: tuple[Array, Array],
    rows: NDArray[np.intp],
    random: np.random.Generator | None,
) -> CoefficientSpectra:
    """The stars ``rows`` [N] of M noiseless ones, with noise of the full covariance in each band.

    ``clean`` and ``errors`` are [M, 110], ``correlations`` matrices of BP and RP [M, 55, 55];
    without ``random``, no noise is added.
    """
    bands = []
    below = np.tril_indices(WIDTHS[0], -1)
    by_band = (np.split(array, [WIDTHS[0]], axis=1) for array in (clean, errors))
    for coefficients, error, matrix in zip(*by_band, correlations, strict=True):
        observed = coefficients[rows]
        if random is not None:
            roots = np.linalg.cholesky(matrix)[rows]
            drawn = random.standard_normal(observed.shape)
            observed = observed + error[rows] * np.einsum("nij,nj->ni", roots, drawn)
        packed = matrix[:, *below].astype(np.float32)
        bands.append(Band(observed, error[rows], packed[rows]))
    return CoefficientSpectra(*bands)
