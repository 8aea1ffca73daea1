"""Spectral energy distributions: what a user brings to the instrument, checked once.

Wavelengths are in vacuum here; :meth:`Sed.of` converts those in air, if told so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xplabels.errors import InputError

Medium = Literal["vacuum", "air"]

WAVELENGTH_COLUMNS = ("wavelength", "lambda", "wave", "wl", "spectral_axis")
FLUX_COLUMNS = ("flux", "flux_density", "f_lambda", "spectral_flux_density")
FORMATS = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".txt": "ascii", ".dat": "ascii"}
"""Endings that astropy should not guess about."""
UNITS = "wavelength in nm, flux in W m-2 nm-1"
AIR_FROM = 200.0
"""nm: below, the conversion from air is not defined."""


@dataclass(frozen=True)
class Sed:
    """Flux of one source at vacuum wavelengths.

    Attributes
    ----------
    wavelength
        Float64 [L], nm, vacuum, strictly increasing.
    flux
        Float64 [L], W m^-2 nm^-1; between the samples the flux is taken as linear.
    name
        For messages and tables.
    """

    wavelength: NDArray[np.float64]
    flux: NDArray[np.float64]
    name: str = ""

    def __post_init__(self) -> None:
        where = self.name or "spectral energy distribution"
        if self.wavelength.ndim != 1 or self.wavelength.shape != self.flux.shape:
            raise InputError(
                f"wavelength {self.wavelength.shape} and flux {self.flux.shape} "
                "should have one and the same dimension",
                where=where,
            )
        for what, values in (("wavelength", self.wavelength), ("flux", self.flux)):
            bad = np.flatnonzero(~np.isfinite(values))
            if bad.size:
                raise InputError(
                    f"{what} is not finite", where=f"{where}, row {bad[0]}", remedy="leave it out"
                )
        steps = np.flatnonzero(np.diff(self.wavelength) <= 0)
        if len(self.wavelength) < 2 or steps.size:
            row = f", row {steps[0] + 1}" if steps.size else ""
            raise InputError(
                "needs two wavelengths or more, each larger than the last",
                where=f"{where}{row}",
                remedy="sort by wavelength and keep one flux a wavelength",
            )

    @classmethod
    def of(cls, wavelength: Any, flux: Any, *, medium: Medium = "vacuum", name: str = "") -> Sed:
        """From arrays in nm and W m^-2 nm^-1, or from astropy quantities of any such unit.

        Parameters
        ----------
        wavelength, flux
            [L]; descending wavelengths (as frequencies give) are turned around.
        medium
            What the wavelengths are measured in.
        name
            For messages.

        Raises
        ------
        InputError
            If a unit is no wavelength or flux density, ``medium`` is unknown, or the arrays are
            unsorted, not finite or of different lengths.

        Examples
        --------
        >>> sed = Sed.of([330.0, 1050.0], [1e-17, 1e-17])
        >>> len(sed.wavelength)
        2
        """
        nm, values = _plain(wavelength, flux, name)
        if medium not in ("vacuum", "air"):
            raise InputError(f"medium is {medium!r}", remedy="choose 'vacuum' or 'air'")
        if len(nm) > 1 and nm[0] > nm[-1]:
            nm, values = nm[::-1], values[::-1]
        if medium == "air":
            nm = air_to_vacuum(nm)
        return cls(np.ascontiguousarray(nm), np.ascontiguousarray(values), name)

    @classmethod
    def from_spectrum(cls, spectrum: Any, *, medium: Medium = "vacuum", name: str = "") -> Sed:
        """From a one-dimensional ``specutils.Spectrum``.

        Raises
        ------
        InputError
            As :meth:`of`, or if it has no ``spectral_axis`` and ``flux``.
        """
        try:
            axis, flux = spectrum.spectral_axis, spectrum.flux
        except AttributeError as error:
            raise InputError(
                f"{type(spectrum).__name__} has no spectral_axis and flux",
                remedy="give a specutils.Spectrum, or use Sed.of",
            ) from error
        return cls.of(axis, flux, medium=medium, name=name)


def _plain(
    wavelength: Any, flux: Any, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as plain arrays in nm and W m^-2 nm^-1."""
    if hasattr(wavelength, "unit") or hasattr(flux, "unit"):
        from astropy import units as u

        axis = u.Quantity(wavelength) if hasattr(wavelength, "unit") else wavelength * u.nm
        density = u.W / u.m**2 / u.nm
        try:
            nm = axis.to(u.nm, u.spectral())
            values = flux if hasattr(flux, "unit") else flux * density
            flux = u.Quantity(values).to_value(density, u.spectral_density(nm))
        except (u.UnitConversionError, u.UnitTypeError) as error:
            raise InputError(
                f"its units do not tell a spectrum ({error})", where=name or None, remedy=UNITS
            ) from error
        wavelength = nm.value
    try:
        return np.asarray(wavelength, np.float64), np.asarray(flux, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"wavelength or flux is no number ({error})", where=name or None, remedy=UNITS
        ) from error


def air_to_vacuum(wavelength: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vacuum wavelengths [nm] of wavelengths in standard air (15 C, 101325 Pa), 200 nm and up.

    Refraction index of Ciddor 1996 (dry air, 450 ppm CO2), whose argument is the vacuum
    wavelength: two steps of a fixed-point iteration reach 1e-9 nm.

    Raises
    ------
    InputError
        For wavelengths below 200 nm.
    """
    if (wavelength < AIR_FROM).any():
        raise InputError(
            f"wavelengths below {AIR_FROM:g} nm are not given in air",
            remedy="say that they are in vacuum, or check their unit (nm)",
        )
    vacuum = wavelength
    for _ in range(3):
        wavenumber2 = (1e3 / vacuum) ** 2  # in 1/um^2
        index = 1 + 1e-8 * (
            5792105.0 / (238.0185 - wavenumber2) + 167917.0 / (57.362 - wavenumber2)
        )
        vacuum = wavelength * index
    return vacuum


def read_sed(path: str | Path, *, medium: Medium = "vacuum") -> Sed:
    """A spectral energy distribution from a table of wavelength and flux.

    Any format astropy reads: ECSV, FITS, VOTable, CSV or text with a header. Units are those of
    the columns; columns without a unit are in nm and W m^-2 nm^-1. Columns are found by their
    names (:data:`WAVELENGTH_COLUMNS`, :data:`FLUX_COLUMNS`, in any case); a table of just two
    columns is taken as wavelength and flux.

    Raises
    ------
    InputError
        If the file is absent or unreadable, lacks the columns, or as :meth:`Sed.of`.
    """
    path = Path(path)
    table = _read_table(path)
    return Sed.of(
        _column(table, WAVELENGTH_COLUMNS, 0, path),
        _column(table, FLUX_COLUMNS, 1, path),
        medium=medium,
        name=path.name,
    )


def _read_table(path: Path) -> Any:
    """An astropy table; its readers raise a whole zoo, and warn of units they do not know."""
    import warnings

    from astropy.table import Table

    if not path.is_file():
        raise InputError("does not exist or is no file", where=path, remedy="check the path")
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    keys = {"format": FORMATS[ending]} if ending in FORMATS else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Table.read(path, **keys)
    except Exception as error:
        raise InputError(
            f"cannot be read as a table ({str(error).strip().splitlines()[0][:200]})",
            where=path,
            remedy=f"give .ecsv, .fits, .vot, .csv or text with a header: {UNITS}",
        ) from error


def _column(table: Any, names: tuple[str, ...], position: int, path: Path) -> Any:
    """The column by name, or by position where there are just two; with its unit, if any."""
    found = [name for name in table.colnames if name.lower() in names]
    if not found and len(table.colnames) == 2 and not _any_known(table.colnames):
        found = [table.colnames[position]]
    if len(found) != 1:
        raise InputError(
            f"{len(found) or 'no'} column{'s' if found else ''} of {names[0]} "
            f"among {', '.join(table.colnames)}",
            where=path,
            remedy=f"name the columns wavelength and flux ({UNITS})",
        )
    column = table[found[0]]
    values = np.ma.asarray(column)
    if values.dtype.kind not in "iuf":
        raise InputError("holds no numbers", where=f"{path}, column {found[0]}", remedy=UNITS)
    plain = np.asarray(np.ma.filled(values.astype(np.float64), np.nan))
    return plain if column.unit is None else plain * column.unit


def _any_known(names: list[str]) -> bool:
    return any(name.lower() in (*WAVELENGTH_COLUMNS, *FLUX_COLUMNS) for name in names)
