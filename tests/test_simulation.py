"""Simulated stars: their noise, brightness and files, up to the labels a model gives them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

pytest.importorskip("gaiaxpy")

from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.instrument import gaiaxpy_instrument, magnitudes
from xplabels.instrument.noise import illustrative_correlations, noise_model
from xplabels.instrument.sed import Sed
from xplabels.instrument.simulation import PHOTOMETRY_FLOOR, simulate_spectra
from xplabels.io import read, write_stars

WAVELENGTH = np.arange(300.0, 1101.0)


def black_body(teff: float) -> Sed:
    flux = WAVELENGTH**-5.0 / np.expm1(1.43877688e7 / (WAVELENGTH * teff))
    return Sed.of(WAVELENGTH, 1e-16 * flux / flux.max(), name=f"{teff:g} K")


def test_stars_have_the_brightness_asked_for_in_the_order_told() -> None:
    stars = simulate_spectra(
        [black_body(4000), black_body(6000)], g_mag=[12, 16], draws=2, noise=False
    )
    assert stars.source_id.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    g = magnitudes(stars.spectra.coefficients)[:, 0]
    np.testing.assert_allclose(g, [12, 12, 16, 16] * 2, atol=1e-9)
    np.testing.assert_allclose(stars.photometry.column("phot_g_mean_mag")[0], g, atol=1e-9)
    colour = stars.photometry.values[:, 1] - stars.photometry.values[:, 2]
    assert (colour[:4] > colour[4:] + 0.5).all()
    assert "source_id 3-4: 4000 K at G = 16.000" in stars.notes
    assert stars.notes[0].startswith("these stars are simulated")


def test_coefficients_and_errors_are_the_instruments_and_the_noise_models() -> None:
    sed = black_body(5000)
    stars = simulate_spectra(sed, noise=False)  # as bright as given
    np.testing.assert_allclose(stars.spectra.coefficients, gaiaxpy_instrument().coefficients(sed))
    stars = simulate_spectra(sed, g_mag=[14, 17], noise=False)
    g, bp, rp = stars.photometry.values[:, :3].T
    np.testing.assert_allclose(stars.spectra.errors, noise_model().errors(g, bp - rp), rtol=1e-9)


def test_noise_has_the_covariance_that_is_told() -> None:
    stars = simulate_spectra(black_body(5000), g_mag=15, draws=4000)
    clean = simulate_spectra(black_body(5000), g_mag=15, noise=False)
    z = (stars.spectra.coefficients - clean.spectra.coefficients) / stars.spectra.errors
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=0.07)
    np.testing.assert_allclose(z.std(axis=0), 1.0, atol=0.05)
    bp, _ = illustrative_correlations(clean.spectra.coefficients)
    np.testing.assert_allclose(np.corrcoef(z[:, :55].T), bp[0], atol=0.08)
    packed = stars.spectra.bp.correlations
    np.testing.assert_allclose(packed[0], bp[0][np.tril_indices(55, -1)], atol=1e-6)
    values, told = stars.photometry.column("phot_g_mean_mag")
    assert values.std() == pytest.approx(told[0], rel=0.05)
    assert told[0] >= PHOTOMETRY_FLOOR


def test_the_seed_says_all() -> None:
    one, same, other = (
        simulate_spectra(black_body(5000), g_mag=15, seed=seed).spectra.coefficients
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"seds": []}, "no spectral energy distribution"),
        ({"g_mag": 2.0}, "no errors are known for G = 2.00.*choose a G within 3-21"),
        ({"g_mag": float("nan")}, "no errors are known for G = nan"),
        ({"draws": 0}, "0 draws"),
        ({"seds": Sed.of(WAVELENGTH, 0 * WAVELENGTH, name="dark")}, "dark: has no positive flux"),
        ({"seds": Sed.of(WAVELENGTH[100:], WAVELENGTH[100:])}, "covers 400-1100 nm"),
    ],
)
def test_what_cannot_be_simulated_is_told(keys: dict[str, object], told: str) -> None:
    arguments: dict[str, object] = {"seds": black_body(5000)} | keys
    seds = arguments.pop("seds")
    with pytest.raises(InputError, match=told):
        simulate_spectra(seds, **arguments)


def test_the_command_makes_a_table_that_predict_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sed = black_body(5000)
    for name in ("a.csv", "b.csv"):
        Table({"wavelength": sed.wavelength, "flux": sed.flux}).write(tmp_path / name)
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    output = str(tmp_path / "stars.parquet")
    assert main(["simulate", *files, "--g-mag", "13,15", "--output", output]) == 0
    real = str(tmp_path / "real.parquet")
    write_stars(replace(read(output), source_id=np.arange(11, 15), notes=("as seen",)), real)
    assert "4 simulated stars" in capsys.readouterr().out
    stars = read(output)
    assert stars.notes[0].startswith("these stars are simulated")
    assert "source_id 4: b.csv at G = 15.000" in stars.notes
    labels = str(tmp_path / "labels.csv")
    assert main(["predict", output, "--output", labels]) == 0
    # a black body is not a star; that its temperature is found roughly shows that units hold
    assert np.median(Table.read(labels)["teff"]) == pytest.approx(5000, abs=700)
    for ending in ("parquet", "ecsv", "fits", "vot"):
        catalogue = tmp_path / f"labels.{ending}"
        assert main(["predict", real, output, "--output", str(catalogue)]) == 0
        assert catalogue.read_bytes().count(b"these stars are simulated") == 1
    assert main(["simulate", *files, "--output", output]) == 2
    assert "exists already" in capsys.readouterr().err
    found = []
    for medium in ("vacuum", "air"):
        words = ["simulate", *files, "--noiseless", "--wavelengths", medium, "--overwrite"]
        assert main([*words, "--output", output]) == 0
        assert "no noise was added" in read(output).notes
        found.append(read(output).spectra.coefficients)
    assert 1e-5 < np.abs(found[1] / found[0] - 1)[0, 0] < 1e-2
