"""Spectral energy distributions, the instrument's input: reading and checks.

Wavelengths are in vacuum here; :meth:`Sed.of` converts those in air.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted
from xplabels.io.files import open_seekable, text_lines, whole
from xplabels.io.fits import open_fits, readable_fits
from xplabels.io.votable import open_checked

Array = NDArray[np.float64]
Medium = Literal["vacuum", "air"]

WAVELENGTH_COLUMNS = ("wavelength", "lambda", "wave", "wl", "spectral_axis")
FLUX_COLUMNS = ("flux", "flux_density", "f_lambda", "spectral_flux_density")
FORMATS = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".txt": "ascii", ".dat": "ascii"}
"""Formats for astropy by file ending, where it should not guess."""
UNITS = "wavelength in nm, flux in W m-2 nm-1"
UNIT_NAMES = {
    "angstroms": "Angstrom",
    "nanometers": "nm",
    "microns": "micron",
    "flam": "erg / (s cm2 Angstrom)",
    "fnu": "erg / (s cm2 Hz)",
    "photlam": "photon / (s cm2 Angstrom)",
}
"""Units of CALSPEC and synphot in astropy's spelling."""
NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)
LONGEST_LINE = 10_000
"""Most bytes in a line: astropy tries formats whose time is quadratic in the line's length."""
AIR_FROM = 200.0
"""Wavelength (nm) below which the conversion from air is not defined."""


@dataclass(frozen=True)
class Sed:
    """Flux [L] of one source, W m^-2 nm^-1, at increasing vacuum wavelengths [L], nm.

    It is linear in between. ``name`` is for messages and tables.

    Examples
    --------
    >>> flat = Sed.of([300.0, 1100.0], [1e-16, 1e-16], name="flat")
    >>> len(flat.wavelength)
    2
    """

    wavelength: Array
    flux: Array
    name: str = ""

    def __post_init__(self) -> None:
        where = self.name or "spectral energy distribution"
        if self.wavelength.ndim != 1 or self.wavelength.shape != self.flux.shape:
            raise InputError(
                f"wavelength {self.wavelength.shape} and flux {self.flux.shape} "
                "should have one and the same dimension",
                where=where,
            )
        for what in ("wavelength", "flux"):
            bad = np.flatnonzero(~np.isfinite(getattr(self, what)))
            if bad.size:
                raise InputError(
                    f"{what} is not finite",
                    where=f"{where}, row {bad[0] + 1} in order of wavelength",
                    remedy="leave it out",
                )
        steps = np.flatnonzero(np.diff(self.wavelength) <= 0)
        if len(self.wavelength) < 2 or steps.size:
            row = f", row {steps[0] + 2}" if steps.size else ""
            raise InputError(
                "needs two wavelengths or more, each larger than the last",
                where=f"{where}{row}",
                remedy="sort by wavelength and keep one flux a wavelength",
            )

    @classmethod
    def of(cls, wavelength: Any, flux: Any, *, medium: Medium = "vacuum", name: str = "") -> Sed:
        """From arrays in nm and W m^-2 nm^-1, or from astropy quantities of any such unit.

        Descending wavelengths (as of frequencies) are reversed. Raises
        :class:`InputError` if a unit is no wavelength or flux density, ``medium`` is unknown, or
        the arrays are unsorted, not finite or of different lengths.

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
        """From a one-dimensional ``specutils.Spectrum``; raises as :meth:`of`."""
        try:
            axis, flux = spectrum.spectral_axis, spectrum.flux
        except AttributeError as error:
            raise InputError(
                f"{type(spectrum).__name__} has no spectral_axis and flux",
                remedy="give a specutils.Spectrum, or use Sed.of",
            ) from error
        return cls.of(axis, flux, medium=medium, name=name)


def _plain(wavelength: Any, flux: Any, name: str) -> tuple[Array, Array]:
    """Both as plain arrays in nm and W m^-2 nm^-1."""
    problem = "wavelength or flux is not a number"
    try:
        if hasattr(wavelength, "unit") or hasattr(flux, "unit"):
            from astropy import units as u

            problem = "its units are not those of a spectrum"
            density = u.W / u.m**2 / u.nm
            axis = u.Quantity(wavelength) if hasattr(wavelength, "unit") else wavelength * u.nm
            nm = axis.to(u.nm, u.spectral())
            values = flux if hasattr(flux, "unit") else flux * density
            flux = u.Quantity(values).to_value(density, u.spectral_density(nm))
            wavelength = nm.value
        return np.asarray(wavelength, np.float64), np.asarray(flux, np.float64)
    except (TypeError, ValueError) as error:  # astropy's errors of units are both
        raise InputError(f"{problem} ({error})", where=name or None, remedy=UNITS) from error


def air_to_vacuum(wavelength: Array) -> Array:
    """Vacuum wavelengths (nm) of wavelengths in standard air (15 C, 101325 Pa), from 200 nm on.

    The refractive index is that of Ciddor 1996 (dry air, 450 ppm CO2). Since its argument is the
    vacuum wavelength, the result is iterated, to 1e-9 nm. Raises :class:`InputError` below 200 nm.
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


def read_sed(
    path: str | Path, *, medium: Medium = "vacuum", wavelength_unit: str = "", flux_unit: str = ""
) -> Sed:
    """A spectral energy distribution from a table (ECSV, FITS, VOTable, CSV or text).

    It may also be a FITS image of one dimension whose header has the wavelengths. Columns are found
    by their names (:data:`WAVELENGTH_COLUMNS`, :data:`FLUX_COLUMNS`, in any case); a table of just
    two columns is taken as wavelength and flux. ``wavelength_unit`` and ``flux_unit``, in astropy's
    spelling, are for columns that state no unit; empty: nm and W m^-2 nm^-1.

    Raises :class:`InputError` if the file is absent or unreadable, lacks the columns, has
    wavelengths in air where ``medium`` is vacuum, a unit is unknown, or as :meth:`Sed.of`.

    Examples
    --------
    >>> with open("flat.csv", "w") as file:
    ...     _ = file.write("wavelength,flux\\n300,1e-16\\n1100,1e-16\\n")
    >>> read_sed("flat.csv").name
    'flat.csv'
    """
    path = Path(path)
    wavelength, flux = _read_image(path, medium) or _read_columns(path)
    if wavelength_unit and not hasattr(wavelength, "unit"):
        wavelength = wavelength * _unit(wavelength_unit, path)
    if flux_unit and not hasattr(flux, "unit"):
        flux = flux * _unit(flux_unit, path)
    return Sed.of(wavelength, flux, medium=medium, name=path.name)


def _unit(name: str, path: Path) -> Any:
    """A unit by its name in astropy or in :data:`UNIT_NAMES`."""
    from astropy import units as u

    try:
        return u.Unit(UNIT_NAMES.get(name.strip().lower(), name))
    except ValueError as error:
        raise InputError(
            f"the unit {name!r} is unknown", where=path, remedy="spell it as astropy does: nm, Jy"
        ) from error


def _read_image(path: Path, medium: Medium) -> tuple[Any, Any] | None:
    """Wavelength and flux of a FITS file that is one image of one dimension; None for others."""
    from astropy import units as u
    from astropy.wcs import WCS

    try:
        with open_fits(path) as opened, readable_fits(path):
            if len(opened) > 1 or opened[0].data is None or opened[0].data.ndim != 1:
                return None
            header, flux = opened[0].header, np.asarray(opened[0].data, np.float64)
            axis = WCS(header)
            wavelength = axis.all_pix2world(np.arange(len(flux)), 0)[0]
    except InputError:  # not FITS, or damaged: reading it as a table raises a better error
        return None
    kind = str(axis.wcs.ctype[0])[:4]
    if kind not in ("WAVE", "AWAV"):
        raise InputError(
            f"is an image along {kind or 'an unknown axis'}, not along wavelength (WAVE, AWAV)",
            where=path,
            remedy=f"give a table: {UNITS}",
        )
    if kind == "AWAV" and medium != "air":
        raise InputError(
            "has wavelengths in air (AWAV)",
            where=path,
            remedy="say so: --wavelengths air, or medium='air'",
        )
    unit = str(header.get("BUNIT", ""))
    return wavelength * u.Unit(axis.wcs.cunit[0]), flux * _unit(unit, path) if unit else flux


def _read_columns(path: Path) -> tuple[Any, Any]:
    """Wavelength and flux of a table, with the units of its columns, if any."""
    table = _read_table(path)
    if all(NUMBER.fullmatch(name) for name in table.colnames):
        raise InputError(
            "has no header: its first row was read as names",
            where=path,
            remedy="begin with a line of names: wavelength,flux",
        )
    if not len(table):
        raise InputError("holds no row", where=path, remedy=f"give a table: {UNITS}")
    return _column(table, WAVELENGTH_COLUMNS, 0, path), _column(table, FLUX_COLUMNS, 1, path)


def _read_table(path: Path) -> Any:
    """An astropy table, whose readers raise errors of any type and warn of unknown units."""
    import warnings

    from astropy.table import Table

    if not path.is_file():
        raise InputError("does not exist or is not a file", where=path, remedy="check the path")
    if path.stat().st_size == 0:
        raise InputError("is empty", where=path, remedy=f"give a table: {UNITS}")
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    remedy = f"give .ecsv, .fits, .vot, .csv or text with a header: {UNITS}"
    with whole(path, "table", remedy), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_seekable(path) as file:
            head = file.read(100).lstrip()
        if head.startswith(b"SIMPLE") or ending in (".fits", ".fit"):
            with open_fits(path) as hdus:
                return Table.read(hdus)
        if head.startswith(b"<") or ending in (".vot", ".votable", ".xml"):
            with open_checked(path) as file:
                return Table.read(file, format="votable")
        return Table.read(text_lines(path, LONGEST_LINE), format=FORMATS.get(ending, "ascii"))


def _column(table: Any, names: tuple[str, ...], position: int, path: Path) -> Any:
    """The column with one of the ``names``, with its unit, if any.

    If no name is known and there are just two columns, it is the one at ``position``.
    """
    candidates = [name for name in table.colnames if name.lower() in names]
    known = {*WAVELENGTH_COLUMNS, *FLUX_COLUMNS} & {name.lower() for name in table.colnames}
    if not known and len(table.colnames) == 2:
        candidates = [table.colnames[position]]
    if len(candidates) != 1:
        raise InputError(
            f"{counted(len(candidates), 'column') if candidates else 'no column'} of {names[0]} "
            f"among {', '.join(table.colnames)}",
            where=path,
            remedy=f"name the columns wavelength and flux ({UNITS})",
        )
    column = table[candidates[0]]
    values = np.ma.asarray(column)
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        raise InputError(
            "holds no numbers, one in each row",
            where=f"{path}, column {candidates[0]}",
            remedy=UNITS,
        )
    plain = np.asarray(np.ma.filled(values.astype(np.float64), np.nan))
    return plain if column.unit is None else plain * _unit(str(column.unit), path)
