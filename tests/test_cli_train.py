"""The command line around real training on small stars: the chain, and what stops it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from conftest import two_label_stars
from xplabels.cli import main
from xplabels.core.split import part_mask
from xplabels.core.stars import Photometry
from xplabels.io import write_stars

RECIPE = (
    "hidden = [16]\nepochs = 2\nmissing_fraction = 0.0\nflux_samples = 0\nreddening = 0.0\n"
    "calibration_folds = 0\n"
)


def words(folder: Path, *more: str, recipe: str = RECIPE) -> list[str]:
    """A command line that trains on ``stars.parquet`` of a folder."""
    (folder / "recipe.toml").write_text(recipe)
    return [
        "train", str(folder / "stars.parquet"), "--output", str(folder / "model"),
        "--recipe", str(folder / "recipe.toml"), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stars and a model trained on them through the command line."""
    folder = tmp_path_factory.mktemp("trained")
    write_stars(two_label_stars(), folder / "stars.parquet")
    selection = ["--range", "teff=:6400", "--test-fraction", "0.2"]
    assert main(words(folder, "--labels", "teff,logg", *selection)) == 0
    return folder


def test_the_model_records_what_it_was_made_from(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {"model", "stars.parquet", "recipe.toml"}
    description = json.loads((trained / "model" / "model.json").read_text())
    assert description["selection"]["ranges"] == {"teff": [None, 6400.0]}
    assert description["command"].startswith("xplabels train ")
    card = (trained / "model" / "card.md").read_text()
    assert "(stars.parquet, from simulated stars)" in card
    assert "with teff < 6400 K" in card


def test_validate_takes_the_selection_of_the_training_unless_another_is_given(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validate = ["validate", str(trained / "model"), str(trained / "stars.parquet")]
    message, shown = "(teff < 6400 K)", "(T<sub>eff</sub> &lt; 6400 K)"
    assert main([*validate, "--output", str(tmp_path / "v")]) == 0
    assert message not in capsys.readouterr().out
    stars = two_label_stars()
    assert stars.labels is not None
    inside = part_mask(stars.source_id, "test", 0.2) & (stars.labels.values[:, 0] < 6400)
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    assert metrics["n"] == int(inside.sum())
    assert set(metrics["labels"]) == {"teff", "logg"}

    validate += ["--all", "--range", "logg=1:", "--output", str(tmp_path / "w")]
    assert main(validate) == 0
    assert message in capsys.readouterr().out
    assert shown in (tmp_path / "w" / "report.html").read_text()


def test_training_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xplabels.model import Model

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    write_stars(two_label_stars(), tmp_path / "stars.parquet")
    command = words(tmp_path, "--labels", "teff")
    with monkeypatch.context() as patch:
        patch.setattr(Model, "save", killed)
        assert main(command) == 130
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"model.partial"}
    assert main([*command, "--seed", "4"]) == 2  # another run
    assert main(command) == 0
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"model"}


def test_a_damaged_model_is_an_error_and_nothing_is_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path(shutil.copytree(trained / "model", tmp_path / "model")) / "weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    predict = ["predict", str(trained / "stars.parquet"), "--model", str(tmp_path / "model")]
    assert main([*predict, "--output", str(tmp_path / "labels.fits")]) == 2
    assert f"{damaged}: was altered" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_spectra_alone_are_enough(tmp_path: Path) -> None:
    stars = two_label_stars()
    plain = tmp_path / "stars.parquet"
    write_stars(stars.with_photometry(Photometry.missing(len(stars))), plain)
    model, output = str(tmp_path / "model"), str(tmp_path / "l.csv")
    assert main(words(tmp_path, "--labels", "teff")) == 0
    assert main(["predict", str(plain), "--model", model, "--output", output]) == 0
    assert np.isfinite(Table.read(output)["teff"]).all()


@pytest.mark.parametrize(
    ("count", "labels", "recipe", "where", "message"),
    [
        (5, "teff", "", "stars.parquet: ", "only 5 usable stars in the training part"),
        (700, "teff,c_fe", "", "stars.parquet: ", "column 'c_fe' is absent"),
        (700, "teff", 'auxiliary = ["j_h"]', "stars.parquet: ",
         "j_h is missing for every training star"),
        (700, "teff,logg", "", "stars.parquet: ", "only 50 stars of the training part have logg"),
        (700, "teff", "calibration_folds = 20", "stars.parquet: ",
         " of 20 have teff, 30 are needed to tell whether its errors are right; give "
         "fewer calibration_folds (the recipe quick has none), or more stars"),
        (700, "teff", "hiden = [8]", "recipe.toml: ", "did you mean 'hidden'?"),
    ],
)  # fmt: skip
def test_training_that_cannot_start_says_why(
    count: int, labels: str, recipe: str, where: str, message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    stars = two_label_stars()[:count]
    assert stars.labels is not None
    training = np.flatnonzero(part_mask(stars.source_id, "train", 0.1))
    stars.labels.values[training[50:], 1] = np.nan
    write_stars(stars.with_photometry(Photometry.missing(count)), tmp_path / "stars.parquet")
    text = recipe if recipe.startswith("cal") else RECIPE + recipe
    assert main(words(tmp_path, "--labels", labels, recipe=text)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"xplabels: error: {tmp_path / where}")
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.toml", "stars.parquet"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teff_err": 0.0}, "teff_err: the error 0 is not positive (1 such rows)"),
        ({"teff_err": -1.0}, "teff_err: the error -1 is not positive"),
        # a survey's table has more labels than one trains on, with sentinels where they are lost
        ({"c_fe": -9999.0, "c_fe_err": -9999.0}, "usable stars"),
    ],
)
def test_only_labels_that_are_learnt_need_positive_errors(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stars = two_label_stars()[:9].with_labels(None)
    write_stars(stars, tmp_path / "stars.parquet")
    table = Table({"source_id": stars.source_id})
    for name, value in (("teff", 5000.0), ("logg", 3.0), ("c_fe", 0.1)):
        table[name], table[f"{name}_err"] = np.full(9, value), np.full(9, value / 100)
    for column, value in changes.items():
        table[column][6] = value
    table.write(tmp_path / "labels.csv")
    given = ["--labels", "teff", "--range", "logg=2:4"]
    assert main(words(tmp_path, *given, "--label-table", str(tmp_path / "labels.csv"))) == 2
    error = capsys.readouterr().err
    assert message in error
    assert (f"labels.csv, source_id {stars.source_id[6]}" in error) == ("teff_err" in changes)
    assert "c_fe" not in error
    assert not (tmp_path / "model").exists()
