"""Spectral energy distributions: units, air and vacuum, files, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table

from xplabels.core.errors import InputError
from xplabels.instrument.sed import Sed, air_to_vacuum, read_sed

WAVELENGTH = np.linspace(320.0, 1080.0, 200)
FLUX = 1e-17 * (1 + 0.3 * np.sin(WAVELENGTH / 40))


def test_any_unit_gives_the_same_spectrum() -> None:
    """Plain arrays are in nm and W m^-2 nm^-1."""
    flux = FLUX * u.W / u.m**2 / u.nm
    cgs = flux.to(u.erg / u.s / u.cm**2 / u.AA)
    frequency = (WAVELENGTH * u.nm).to(u.THz, u.spectral())
    jansky = flux.to(u.Jy, u.spectral_density(WAVELENGTH * u.nm))
    for axis, values in ((WAVELENGTH, FLUX), (WAVELENGTH * 10 * u.AA, cgs), (frequency, jansky)):
        same(Sed.of(axis, values))


def same(sed: Sed) -> None:
    np.testing.assert_allclose(sed.wavelength, WAVELENGTH, rtol=1e-12)
    np.testing.assert_allclose(sed.flux, FLUX, rtol=1e-12)


def test_air_is_converted_as_by_ciddor() -> None:
    # H alpha and Na D2: 656.2801 and 588.9950 nm in air, 656.4614 and 589.1583 in vacuum (NIST)
    found = air_to_vacuum(np.array([588.9950, 656.2801]))
    np.testing.assert_allclose(found, [589.1583, 656.4614], atol=1e-4)
    vacuum = Sed.of(WAVELENGTH, FLUX, medium="air").wavelength
    wavenumber2 = (1e3 / vacuum) ** 2
    index = 1 + 1e-8 * (5792105 / (238.0185 - wavenumber2) + 167917 / (57.362 - wavenumber2))
    np.testing.assert_allclose(vacuum / index, WAVELENGTH, rtol=1e-12)


def test_specutils_spectra_are_accepted() -> None:
    specutils = pytest.importorskip("specutils")
    spectrum = specutils.Spectrum(
        spectral_axis=WAVELENGTH * 10 * u.AA, flux=FLUX * u.W / u.m**2 / u.nm
    )
    np.testing.assert_allclose(Sed.from_spectrum(spectrum).flux, FLUX)
    with pytest.raises(InputError, match="no spectral_axis"):
        Sed.from_spectrum(FLUX)


@pytest.mark.parametrize("ending", [".ecsv", ".fits", ".vot"])
def test_files_keep_their_units(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"sed{ending}"
    table = QTable(
        {
            "Wavelength": (WAVELENGTH / 1e3) * u.um,
            "flux": (FLUX * u.W / u.m**2 / u.nm).to(u.W / u.m**2 / u.um),
            "other": FLUX,
        }
    )
    table.write(path, format="votable" if ending == ".vot" else None)
    sed = read_sed(path)
    same(sed)
    assert sed.name == f"sed{ending}"


@pytest.mark.parametrize("form", ["ascii.csv", "ascii.basic", "ascii.no_header"])
def test_text_without_units_and_two_columns_needs_no_names(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("sed.csv" if form == "ascii.csv" else "sed.txt")
    Table({"a": WAVELENGTH, "b": FLUX}).write(path, format=form)
    same(read_sed(path))
    assert read_sed(path, medium="air").wavelength[0] > 320.09


def test_units_as_calspec_spells_them_are_known(tmp_path: Path) -> None:
    """A file with its column units ANGSTROMS and FLAM, and errors beside."""
    path = tmp_path / "sun_mod_001.fits"
    cgs = (FLUX * u.W / u.m**2 / u.nm).to_value(u.erg / u.s / u.cm**2 / u.AA)
    columns = [
        fits.Column("WAVELENGTH", "D", unit="ANGSTROMS", array=WAVELENGTH * 10),
        fits.Column("FLUX", "D", unit="FLAM", array=cgs),
        fits.Column("STATERROR", "D", unit="FLAM", array=0.01 * cgs),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(path)
    same(read_sed(path))
    columns[1] = fits.Column("FLUX", "D", unit="furlong", array=cgs)
    fits.BinTableHDU.from_columns(columns).writeto(path, overwrite=True)
    with pytest.raises(InputError, match="unit 'furlong' is unknown"):
        read_sed(path)


def test_units_may_be_told_for_columns_that_state_none(tmp_path: Path) -> None:
    path = tmp_path / "sed.csv"
    Table({"wavelength": WAVELENGTH * 10, "flux": FLUX * 1e2}).write(path)
    same(read_sed(path, wavelength_unit="Angstrom", flux_unit="flam"))
    with pytest.raises(InputError, match="unit 'Angstroem' is unknown"):
        read_sed(path, wavelength_unit="Angstroem")
    stated = tmp_path / "sed.ecsv"
    QTable({"wavelength": WAVELENGTH * u.nm, "flux": FLUX}).write(stated)
    assert read_sed(stated, wavelength_unit="Angstrom").wavelength[0] == WAVELENGTH[0]


@pytest.mark.parametrize("ending", [".fits", ".fits.gz"])
def test_images_of_one_dimension_are_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"image{ending}"
    image = fits.PrimaryHDU(FLUX * 1e2)
    step = 7600.0 / (len(FLUX) - 1)
    image.header.update(
        CTYPE1="WAVE", CUNIT1="Angstrom", CRPIX1=1.0, CRVAL1=3200.0, CDELT1=step,
        BUNIT="erg / (s cm2 Angstrom)",
    )  # fmt: skip
    image.writeto(path)
    same(read_sed(path))
    image.header["CTYPE1"] = "AWAV"
    image.writeto(path, overwrite=True)
    with pytest.raises(InputError, match="has wavelengths in air"):
        read_sed(path)
    found = read_sed(path, medium="air").wavelength
    np.testing.assert_allclose(found, air_to_vacuum(WAVELENGTH), rtol=1e-12)
    image.header["CTYPE1"] = "LINEAR"
    image.writeto(path, overwrite=True)
    with pytest.raises(InputError, match="not along wavelength"):
        read_sed(path)


@pytest.mark.parametrize(
    ("wavelength", "flux", "medium", "message"),
    [
        (WAVELENGTH, FLUX[:-1], "vacuum", "one and the same"),
        (WAVELENGTH * u.kg, FLUX, "vacuum", "units are not those of a spectrum"),
        (WAVELENGTH, FLUX * u.m, "vacuum", "units are not those of a spectrum"),
        (WAVELENGTH, FLUX, "water", "choose 'vacuum' or 'air'"),
        ([0.3, 1.1], [1, 1], "air", "below 200 nm"),
        (["a", "b"], [1, 1], "vacuum", "is not a number"),
        ([1, 2, 2], [1, 1, 1], "vacuum", "row 3: needs two wavelengths or more"),
        ([1, 2, 3], [1, np.nan, 1], "vacuum", "row 2 in order of wavelength: flux is not finite"),
    ],
)
def test_wrong_arrays_are_errors(wavelength: Any, flux: Any, medium: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sed.of(wavelength, flux, medium=medium)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "does not exist"),
        ("empty.csv", "", "is empty"),
        ("bare.csv", "330,1e-17\n1050,2e-17\n1060,1e-17\n", "has no header"),
        ("names.csv", "wavelength,flux\n", "holds no row"),
        ("three.csv", "a,b,c\n1,2,3\n", "no column of wavelength among a, b, c"),
        ("text.csv", "wavelength,flux\n330,high\n1050,low\n", "holds no numbers"),
        ("broken.fits", "nothing of the kind", "is not a whole FITS file"),
    ],
)
def test_files_that_cannot_be_used_are_errors(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_sed(tmp_path / name)
