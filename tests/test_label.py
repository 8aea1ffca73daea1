"""From ids, or a circle on the sky, to labels in one command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyvo")

import xplabels as xp
from fetch_services import QUICK, Services
from xplabels.cli import main
from xplabels.io.parquet import read_stars
from xplabels.model import Model


@pytest.fixture(scope="module")
def model_folder(small_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    small_model.save(folder)
    return folder


def words(services: Services, model: Path, *more: str) -> list[str]:
    where = ["--tap", services.tap.address, "--datalink", services.datalink.address]
    return ["label", *more, *where, "--model", str(model)]


def test_ids_to_a_table_in_their_order(
    services: Services, small_model: Model, undisturbed: Path, tmp_path: Path
) -> None:
    ids = services.made.ids[::-1]
    keys = {"archive": services.archive, "settings": QUICK, "data": tmp_path / "data"}
    table = xp.label(ids[:30], small_model, **keys)
    has = [one for one in ids[:30].tolist() if one in services.with_spectrum]
    assert table["source_id"].tolist() == has
    assert table.meta["WITHOUT"] == str(30 - len(has))
    assert str(table["teff"].unit) == "K"
    # the same as fetch and predict one after the other
    stars = read_stars(undisturbed / "xp.parquet").join(
        [undisturbed / f"{name}.parquet" for name in ("gaia_source", "tmass", "allwise")]
    )
    expected = small_model.predict(stars).to_table()
    rows = [expected["source_id"].tolist().index(one) for one in has]
    for name in ("teff", "teff_error", "flags"):
        np.testing.assert_allclose(table[name], expected[name][rows], rtol=1e-5, equal_nan=True)
    # only what is missing is asked for, and only what is wanted comes
    services.datalink.asked.clear()
    more = xp.label(ids[20:], small_model, **keys)
    assert set(more["source_id"].tolist()) == services.with_spectrum & set(ids[20:].tolist())
    asked = {one for chunk in services.datalink.asked for one in chunk}
    assert not asked & set(ids[:30].tolist())
    assert not list((tmp_path / "data").glob("*.selected"))


def test_ids_that_lost_their_digits_are_refused(small_model: Model) -> None:
    with pytest.raises(xp.InputError, match=r"ids, row 2.* went through a floating-point number"):
        xp.label(np.array([1.0, 5853498713190525696]), small_model)


def test_one_command_goes_on_after_a_failure(
    services: Services, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("ids.txt").write_text("\n".join(map(str, services.made.ids)))
    command = words(services, model_folder, "ids.txt", "--output", "labels.fits")
    services.datalink.withheld = tuple(services.with_spectrum)[:2]
    assert main(command) == 2
    assert "some ids failed" in capsys.readouterr().err
    assert not Path("labels.fits").exists()
    assert Path("labels.fits.data").is_dir()
    services.datalink.withheld = ()
    assert main(command) == 0
    shown = capsys.readouterr().out
    for line in (
        "stars: 40, 0 of them",
        "fetched: gaia_source 40",
        "labels: ",
        "Catalogue: labels",
    ):
        assert line in shown
    assert sorted(path.name for path in Path().iterdir()) == ["ids.txt", "labels.fits"]
    assert main(command) == 2
    assert "labels.fits: exists already" in capsys.readouterr().err


def test_stars_without_spectra_are_an_error(
    services: Services, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = [one for one in services.made.ids.tolist() if one not in services.with_spectrum]
    (tmp_path / "ids.txt").write_text(str(without[0]))
    command = words(services, model_folder, str(tmp_path / "ids.txt"))
    assert main([*command, "--output", str(tmp_path / "l.csv")]) == 2
    assert "of 1 star none has an XP spectrum" in capsys.readouterr().err


def test_a_cone(services: Services, model_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "l.parquet"
    command = words(services, model_folder, "--cone", "10,20,180", "--output", str(output))
    assert main(command) == 0
    import pyarrow.parquet as pq

    assert set(pq.read_table(output)["source_id"].to_pylist()) == services.with_spectrum
