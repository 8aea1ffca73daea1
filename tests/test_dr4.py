"""Files of another data release: 51 BP and 55 RP coefficients, as Gaia DR4 will have them.

The files are made: simulated stars in the layout and number format of the DR3 bulk download. That
DR4's files keep that layout is an assumption; the widths are what is tested. Nothing is told of
them but what the files hold, from the training on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("hats")

import bulk_files
from xplabels import io as archive
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.io.hats import partition_files
from xplabels.model import Model
from xplabels.synthetic import simulate_stars

WIDTHS = (51, 55)
RECIPE = """
name = "small"
hidden = [24]
epochs = 3
batch_size = 128
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bulk files of 1,100 stars each, a training table, a model trained on it."""
    folder = tmp_path_factory.mktemp("dr4")
    bulk_files.make(folder / "bulk", 1100, files=2, widths=WIDTHS, distinct=100)
    stars, _ = simulate_stars(600, labels=("teff", "logg"), widths=WIDTHS, noise=4.0, seed=1)
    archive.write_stars(stars, folder / "stars.parquet")
    (folder / "small.toml").write_text(RECIPE)
    words = ["train", "stars.parquet", "--labels", "teff,logg", "--recipe", "small.toml"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*words, "--output", "model"]) == 0
    return folder


def bulk(folder: Path) -> list[Path]:
    return sorted((folder / "bulk").glob("Xp*"))


def test_the_model_has_their_widths(release: Path) -> None:
    model = Model.load(release / "model")
    assert model.feature_set.widths == WIDTHS
    spectra = archive.read(bulk(release)).spectra
    assert spectra.widths == WIDTHS
    assert spectra.bp.correlations.shape == (2200, 1275)


def test_from_bulk_files_to_labels_through_hats_and_not(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(release)
    words = ["convert", "bulk", "--gaia-source", "bulk", "--most-rows", "900", "--output", "xp"]
    assert main(words) == 0
    predict = ["predict", "--model", "model", "--output"]
    assert main([*predict, "bulk_labels.parquet", "bulk"]) == 0
    assert main([*predict, "hats_labels.parquet", "xp"]) == 0
    one, other = (pq.read_table(f"{name}_labels.parquet") for name in ("bulk", "hats"))
    assert one.num_rows == 2200
    assert one.column_names == other.column_names
    assert other["source_id"].equals(one["source_id"])
    assert other["flags"].equals(one["flags"])
    for name in ("teff", "logg"):
        error = one[f"{name}_error"].to_numpy()
        assert np.isfinite(error).all()
        moved = np.abs(other[name].to_numpy() - one[name].to_numpy())
        assert (moved / error).max() < 1e-4
        np.testing.assert_allclose(other[f"{name}_error"].to_numpy(), error, rtol=1e-3)
    # a folder of labels, one file a partition
    assert main([*predict, "hats_labels", "xp"]) == 0
    assert len(list(Path("hats_labels").glob("Norder=*_Npix=*.parquet"))) == len(
        partition_files(Path("xp"))
    )


def test_a_model_of_dr3_says_that_they_are_others(release: Path) -> None:
    with pytest.raises(InputError, match=r"51 BP \+ 55 RP coefficients, the model 55 \+ 55"):
        Model.load("apogee-dr17-library").predict(archive.read(bulk(release)[0]))


def test_releases_are_not_mixed_in_a_catalogue(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (third,) = bulk_files.make(tmp_path, 20, widths=(55, 55), distinct=20)
    later = tmp_path / "XpContinuousMeanSpectrum_000000-000231.csv.gz"
    assert third == later
    assert (
        main(["convert", str(bulk(release)[1]), str(later), "--output", str(tmp_path / "xp")]) == 2
    )
    assert "where other files have" in capsys.readouterr().err
