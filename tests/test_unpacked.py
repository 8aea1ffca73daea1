"""Tables with a column for each coefficient, and spectra that GaiaXPy has sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

import xplabels as xp
from survey_tables import write
from xplabels.cli import main
from xplabels.core.flags import Flag
from xplabels.core.stars import Stars

N = 6


@pytest.fixture(scope="module")
def stars() -> Stars:
    return xp.example_stars(N, seed=2)


def wide(stars: Stars, value: str, error: str, first: int = 0) -> Table:
    """A column for each coefficient and each error, and Gaia's photometry."""
    table = Table({"source_id": stars.source_id})
    for name, band in (("bp", stars.spectra.bp), ("rp", stars.spectra.rp)):
        for i in range(band.width):
            table[value.format(band=name, i=i + first)] = band.coefficients[:, i]
            table[error.format(band=name, i=i + first)] = band.errors[:, i]
    table["phot_g_mean_mag"], sigma = stars.photometry.column("phot_g_mean_mag")
    table["phot_g_mean_flux_over_error"] = 1.0857362 / sigma
    return table


@pytest.mark.parametrize("ending", ["fits", "csv", "ecsv", "vot", "parquet"])
def test_a_column_a_coefficient_in_any_format(ending: str, stars: Stars, tmp_path: Path) -> None:
    table = wide(stars, "{band}_coeff_{i}", "e_{band}_coeff_{i}")
    read = xp.read(write(table, tmp_path / f"wide.{ending}"))
    np.testing.assert_array_equal(read.source_id, stars.source_id)
    np.testing.assert_allclose(read.spectra.rp.coefficients, stars.spectra.rp.coefficients)
    np.testing.assert_allclose(read.spectra.bp.errors, stars.spectra.bp.errors)
    assert read.spectra.bp.correlations is None
    assert (read.flags & Flag.NO_CORRELATIONS).all()
    for one, other in zip(
        read.photometry.column("phot_g_mean_mag"), stars.photometry.column("phot_g_mean_mag"),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_other_names_by_their_pattern(
    stars: Stars, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "c.fits", tmp_path / "l.csv"
    wide(stars, "{band}C{i}", "{band}C{i}_ERR", first=1).write(path)
    pattern = "{band}c{i},{band}c{i}_err"
    read = xp.read(path, coefficients=pattern)
    np.testing.assert_allclose(read.spectra.bp.coefficients, stars.spectra.bp.coefficients)
    words = ["predict", str(path), "--output", str(output)]
    assert main(words) == 2
    assert "columns bp_coefficients, " in capsys.readouterr().err
    assert main([*words, "--coefficients", pattern]) == 0
    for wrong, message in (
        ("{band}_{i}", "is not a pattern of names; name coefficient and error, as in"),
        ("{band}q{i},{band}e{i}", "c.fits: has no columns bpq0, ... beside source_id"),
    ):
        other = [*words[:-1], str(tmp_path / "o.csv")]
        assert main([*other, "--coefficients", wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_lost_coefficient_is_named_and_a_bad_one_found(stars: Stars, tmp_path: Path) -> None:
    table = wide(stars, "{band}_coeff_{i}", "e_{band}_coeff_{i}")
    lacking = table.copy()
    lacking.remove_column("rp_coeff_7")
    lacking.write(tmp_path / "l.fits")
    with pytest.raises(xp.InputError, match="column 'rp_coeff_7' is absent"):
        xp.read(tmp_path / "l.fits")
    table["e_bp_coeff_3"][2] = -1.0
    table.write(tmp_path / "b.fits")
    with pytest.raises(xp.InputError, match=r"row 3, source_id .*, column bp_coefficient_errors"):
        xp.read(tmp_path / "b.fits")
    flagged = xp.read(tmp_path / "b.fits", bad_rows="flag").flags & Flag.BAD_ROW
    assert np.flatnonzero(flagged).tolist() == [2]


def test_real_field_stars_are_read_as_they_are(shared_data: Path) -> None:
    path = shared_data / "xp_field_2000.fits"
    table, spectra = Table.read(path), xp.read(path).spectra
    names = [f"{band}_coeff_{i}" for band in ("bp", "rp") for i in range(55)]
    for prefix, values in (("", spectra.coefficients), ("e_", spectra.errors)):
        columns = [np.asarray(table[prefix + name], np.float64) for name in names]
        np.testing.assert_array_equal(values, np.stack(columns, axis=1))


@pytest.fixture(scope="module")
def calibrated() -> Any:
    """What GaiaXPy makes of three sources, and the wavelengths."""
    pytest.importorskip("gaiaxpy")
    from gaiaxpy import calibrate

    from xplabels.features.projection import quiet, unit_vectors

    with quiet():
        return calibrate(unit_vectors().iloc[[0, 60, 100]], save_file=False)


@pytest.mark.parametrize("ending", ["csv", "ecsv", "fits", "xml"])
def test_what_gaiaxpys_calibrate_writes_is_read(
    ending: str, calibrated: Any, tmp_path: Path
) -> None:
    from gaiaxpy.output.sampled_spectra_data import SampledSpectraData

    from xplabels.features.projection import gaiaxpy_design

    flux, sampling = calibrated
    SampledSpectraData(flux, sampling).save(True, tmp_path, "s", ending, None)
    stars = xp.read(tmp_path / f"s.{ending}")
    np.testing.assert_array_equal(stars.source_id, [0, 60, 100])
    np.testing.assert_allclose(stars.spectra.wavelength, sampling)
    np.testing.assert_allclose(stars.spectra.flux, np.stack(list(flux["flux"])), rtol=1e-6)
    np.testing.assert_allclose(stars.spectra.flux, gaiaxpy_design()[1].T[[0, 60, 100]], atol=1e-22)


@pytest.mark.parametrize("ending", [".ecsv", ".fits", "_votable_dr3int6.xml"])
def test_the_archives_own_sampled_spectra(ending: str, shared_data: Path) -> None:
    folder = shared_data / "gaiaxpy_variants"
    name = f"XP_SAMPLED_RAW{'' if ending.endswith('xml') else '_dr3int6'}{ending}"
    first, other = (xp.read(folder / one) for one in ("XP_SAMPLED_RAW_dr3int6.csv", name))
    assert sorted(other.source_id) == sorted(first.source_id)
    rows = [other.source_id.tolist().index(one) for one in first.source_id.tolist()]
    assert first.spectra.wavelength[[0, -1]].tolist() == [336.0, 1020.0]
    np.testing.assert_allclose(other.spectra.flux[rows], first.spectra.flux, rtol=1e-6)
    np.testing.assert_allclose(other.spectra.flux_error[rows], first.spectra.flux_error, rtol=1e-6)


def test_another_sampling_and_a_missing_band(tmp_path: Path) -> None:
    text = 'source_id,flux,flux_error\n1,"(1e-16, 2e-16)","(1e-18, 1e-18)"\n2,,\n'
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(xp.InputError, match="has 2 samples a spectrum, and no wavelengths"):
        xp.read(path)
    (tmp_path / "s_sampling.csv").write_text('pos\n"(400.0, 500.0)"\n')
    stars = xp.read(path)
    np.testing.assert_array_equal(stars.spectra.wavelength, [400.0, 500.0])
    np.testing.assert_array_equal(stars.spectra.flux[0], [1e-16, 2e-16])
    assert np.isnan(stars.spectra.flux[1]).all()
    with pytest.raises(xp.InputError, match="flux is sampled at 2 wavelengths"):
        xp.load_model().predict(stars)
    path.write_text(text.replace("2e-16", "x"))
    with pytest.raises(xp.InputError, match="row 1, column flux: cannot be read as numbers"):
        xp.read(path)


def test_spectra_in_pseudo_wavelengths_are_refused(tmp_path: Path) -> None:
    flux = ",".join(["1.0"] * 343)  # as many as GaiaXPy's default for calibrated ones
    text = f'source_id,xp,flux,flux_error\n1,BP,"[{flux}]","[{flux}]"\n'
    (tmp_path / "converted.csv").write_text(text)
    with pytest.raises(xp.InputError, match=r"pseudo-wavelengths, .*; use GaiaXPy's"):
        xp.read(tmp_path / "converted.csv")
