"""Spectra in a basis that the model was not made with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gaiaxpy")

import xplabels as xp
from xplabels.cli import main
from xplabels.core.flags import Flag
from xplabels.core.prediction import packed_correlations, unpacked
from xplabels.core.stars import Band, CoefficientSpectra, Stars
from xplabels.instrument import basis as bases
from xplabels.instrument.basis import Basis, gaiaxpy_basis
from xplabels.instrument.noise import with_correlations

WIDTHS = (51, 55)


def rotated(band: Band, rotation: np.ndarray) -> Band:
    """The coefficients that a rotation [n', n] makes, with their covariance."""
    full = unpacked(band.correlations.astype(np.float64), band.width)
    covariance = band.errors[:, :, None] * full * band.errors[:, None, :]
    covariance = rotation @ covariance @ rotation.T
    errors = np.sqrt(np.einsum("nii->ni", covariance))
    packed = packed_correlations(covariance).astype(np.float32)
    return Band(band.coefficients @ rotation.T, errors, packed)


def in_bands(stars: Stars, rotations: tuple[np.ndarray, np.ndarray]) -> Stars:
    bands = (stars.spectra.bp, stars.spectra.rp)
    turned = (rotated(band, r) for band, r in zip(bands, rotations, strict=True))
    return Stars.of(stars.source_id, CoefficientSpectra(*turned), stars.photometry)


@pytest.fixture(scope="module")
def field(shared_data: Path) -> Stars:
    """Real field stars with typical correlations."""
    return with_correlations(xp.read(shared_data / "xp_field_2000.fits"))


@pytest.fixture(scope="module")
def rotations(field: Stars) -> tuple[np.ndarray, np.ndarray]:
    """To an invented orthonormal basis of 51 + 55: the strongest directions, mixed at random."""
    random, found = np.random.default_rng(1), []
    for band, width in zip((field.spectra.bp, field.spectra.rp), WIDTHS, strict=True):
        scaled = band.coefficients / np.median(band.errors, axis=1)[:, None]
        strongest = np.linalg.eigh(scaled.T @ scaled)[1][:, ::-1][:, :width]
        mixed = np.linalg.qr(random.standard_normal((width, width)))[0]
        found.append((strongest @ mixed).T)
    return found[0], found[1]


@pytest.fixture(scope="module")
def invented(rotations: tuple[np.ndarray, np.ndarray]) -> Basis:
    """Its sampling matrix, from DR3's."""
    dr3 = gaiaxpy_basis()
    bp, rp = np.split(dr3.matrix, [55], axis=1)
    matrix = np.concatenate([bp @ rotations[0].T, rp @ rotations[1].T], axis=1)
    return Basis(dr3.wavelength, matrix, WIDTHS, "invented", {"made by": "a test"})


def test_labels_are_those_of_the_same_spectra_in_dr3s_basis(
    field: Stars, rotations: tuple[np.ndarray, np.ndarray], invented: Basis
) -> None:
    model = xp.load_model()
    found = model.with_basis(invented).predict(in_bands(field, rotations))
    # what the truncation leaves, in DR3's own coefficients
    left = (rotations[0].T @ rotations[0], rotations[1].T @ rotations[1])
    same = model.predict(in_bands(field, left))
    whole = model.predict(field)
    # not every label is defined for every star
    known = np.isfinite(found.values) & np.isfinite(same.values) & np.isfinite(whole.values)
    assert known[:, 0].mean() > 0.9
    moved = np.abs(found.values - same.values)[known] / whole.errors[known]
    cost = np.abs(same.values - whole.values)[known] / whole.errors[known]
    assert moved.max() < 2e-3
    assert 0.01 < np.median(cost) < 0.03
    ratio = (found.errors_input / same.errors_input)[known]
    assert np.abs(ratio - 1).max() < 2e-3
    assert (found.flags & Flag.OTHER_BASIS).all()
    assert not (whole.flags & Flag.OTHER_BASIS).any()
    assert "invented" in found.meta["BASIS"]
    assert "BASIS" not in whole.meta


def test_a_basis_comes_back_from_its_file(invented: Basis, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    invented.save(path)
    again = Basis.load(path)
    assert (again.name, again.widths, dict(again.provenance)) == (
        "invented", WIDTHS, {"made by": "a test"},
    )  # fmt: skip
    assert again.sha256 == invented.sha256
    with pytest.raises(xp.InputError, match="exists already"):
        invented.save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        xp.InputError, match=r"is not a whole basis .*; write one with xplabels basis"
    ):
        Basis.load(path)


def test_without_a_matrix_three_ways_are_told() -> None:
    stars, _ = xp.simulate_stars(3, widths=WIDTHS)
    with pytest.raises(xp.InputError) as caught:
        xp.load_model().predict(stars)
    text = str(caught.value)
    assert "51 BP + 55 RP coefficients, the model 55 + 55" in text
    for way in ("install a GaiaXPy that knows", "--basis FILE", "sample the spectra"):
        assert way in text


def test_other_wavelengths_are_refused(invented: Basis) -> None:
    other = Basis(invented.wavelength + 1, invented.matrix, WIDTHS, "shifted")
    stars, _ = xp.simulate_stars(3, widths=WIDTHS)
    with pytest.raises(xp.InputError, match="shifted is sampled at other wavelengths"):
        xp.load_model().with_basis(other).predict(stars)


@pytest.mark.parametrize(
    ("shape", "widths"), [((343, 105), WIDTHS), ((342, 106), WIDTHS), ((343, 51), (51, 0))]
)
def test_matrices_have_to_fit(shape: tuple[int, int], widths: tuple[int, int]) -> None:
    with pytest.raises(xp.InputError, match="the sampling matrix has the shape"):
        Basis(np.arange(343.0), np.zeros(shape), widths, "wrong")


def carry(folder: Path, stage: str, model: str, band: str, width: int) -> None:
    """Files of an instrument model of other widths, as GaiaXPy's are: DR3's with fewer bases."""
    import csv
    import shutil

    import gaiaxpy.config

    config_path = Path(gaiaxpy.config.__file__).parent
    source = f"{band}C03_{'v375wi' if band == 'bp' else 'v142r'}"
    for part in ("dispersion", "response"):
        shutil.copy(
            f"{config_path}/{source}_{part}.csv", folder / f"{band}{stage}_{model}_{part}.csv"
        )
    csv.field_size_limit(2**31 - 1)
    with open(f"{config_path}/{source}_bases.csv", newline="") as file:
        (row,) = csv.DictReader(file)

    def cut(name: str, columns: int) -> str:
        whole = np.array(row[name].strip("()").split(",")).reshape(55, 55)
        return "(" + ",".join(whole[:width, :columns].ravel()) + ")"

    row["inverseBasesCoefficients"] = cut("inverseBasesCoefficients", 55)
    row["transformationMatrix"] = cut("transformationMatrix", width)
    row["nBases"] = row["nTransformedBases"] = str(width)
    with open(folder / f"{band}{stage}_{model}_bases.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)


@pytest.fixture
def gaiaxpy_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of GaiaXPy's configuration."""
    gaiaxpy_basis()
    folder = tmp_path / "config"
    folder.mkdir()
    monkeypatch.setattr("gaiaxpy.config.paths.config_path", str(folder))
    gaiaxpy_basis.cache_clear()
    yield folder
    gaiaxpy_basis.cache_clear()


def test_a_basis_is_found_by_what_gaiaxpy_carries(gaiaxpy_files: Path) -> None:
    carry(gaiaxpy_files, "C04", "x1", "bp", 51)
    with pytest.raises(xp.InputError, match="has no basis of 51 BP"):  # no RP beside it
        gaiaxpy_basis(WIDTHS)
    carry(gaiaxpy_files, "C03", "v142r", "rp", 55)
    with pytest.raises(xp.InputError, match="has no basis of 51 BP"):  # of another stage
        gaiaxpy_basis(WIDTHS)
    carry(gaiaxpy_files, "C04", "y1", "rp", 55)
    found = gaiaxpy_basis(WIDTHS)
    assert found.name == "GaiaXPy x1,y1"
    # RP's is DR3's under another name, on an explicit grid: 0.3 % of what the default has
    dr3 = gaiaxpy_basis()
    scale = np.abs(dr3.matrix[:, 55:]).max()
    assert np.abs(found.matrix[:, 51:] - dr3.matrix[:, 55:]).max() < 0.01 * scale
    stars, _ = xp.simulate_stars(300, widths=WIDTHS)
    model = xp.load_model()
    assert (model.predict(stars).flags & Flag.OTHER_BASIS).all()
    # what DR3's coefficients cannot give is not made up for by coefficients without bounds
    before = np.median(stars.spectra.bp.errors / stars.spectra.bp.coefficients[:, :1])
    after = bases.converted(stars, found, dr3).spectra.bp
    assert 0.2 < np.median(after.errors / after.coefficients[:, :1]) / before < 5
    carry(gaiaxpy_files, "C04", "x2", "bp", 51)
    gaiaxpy_basis.cache_clear()
    with pytest.raises(xp.InputError, match=r"several bases .*--models: x1,y1; x2,y1"):
        gaiaxpy_basis(WIDTHS)
    assert gaiaxpy_basis(WIDTHS, ("x2", "y1")).name == "GaiaXPy x2,y1"


def test_the_commands(
    invented: Basis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["basis", "--from-gaiaxpy", "--output", "dr3.safetensors"]) == 0
    assert main(["basis", "dr3.safetensors"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Gaia DR3: 55 BP + 55 RP coefficients") == 2
    assert "343 wavelengths, 336-1020 nm" in shown
    assert main(["basis", "--from-gaiaxpy", "--widths", "51,55", "--output", "x.safetensors"]) == 2
    assert "has no basis of 51 BP + 55 RP coefficients; update GaiaXPy" in capsys.readouterr().err
    invented.save("inv.safetensors")
    stars, _ = xp.simulate_stars(20, widths=WIDTHS)
    xp.write_stars(stars, "s.parquet")
    words = ["predict", "s.parquet", "--output", "l.csv"]
    assert main(words) == 2
    assert main([*words, "--basis", "inv.safetensors"]) == 0
    assert "OTHER_BASIS" in capsys.readouterr().out
