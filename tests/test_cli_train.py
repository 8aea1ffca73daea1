"""The command line around real training on small stars: the chain, and what stops it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from xplabels.cli import main
from xplabels.core.labels import Labels
from xplabels.core.split import part_mask
from xplabels.core.stars import Band, CoefficientSpectra, Photometry, Stars
from xplabels.io import write_stars

RECIPE = "hidden = [16]\nepochs = 2\nmissing_fraction = 0.0\n"


def make_stars(count: int = 900, photometry: bool = True) -> Stars:
    """Stars whose labels are smooth functions of a few coefficients."""
    rng = np.random.default_rng(5)
    bands = []
    for width in (4, 5):
        coefficients = rng.normal(0.0, 1.0, (count, width))
        coefficients[:, 0] = rng.uniform(50, 100, count)
        correlations = np.zeros((count, width * (width - 1) // 2), np.float32)
        bands.append(Band(coefficients, np.full((count, width), 0.02), correlations))
    colour = bands[0].coefficients[:, 0] / bands[1].coefficients[:, 0]
    values = np.column_stack([5000 + 800 * colour, 3 + colour])
    labels = Labels(("teff", "logg"), values, np.full((count, 2), [40.0, 0.05]))
    magnitude = rng.uniform(10, 15, count), np.full(count, 0.01)
    measured = dict.fromkeys(("phot_bp_mean_mag", "phot_rp_mean_mag"), magnitude)
    return Stars.of(
        np.arange(1, count + 1), CoefficientSpectra(*bands),
        Photometry.of(count, measured if photometry else {}), labels, origin="small stars",
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stars and a model trained on them through the command line."""
    folder = tmp_path_factory.mktemp("trained")
    write_stars(make_stars(), folder / "stars.parquet")
    (folder / "tiny.toml").write_text(RECIPE)
    words = ["train", str(folder / "stars.parquet"), "--output", str(folder / "model")]
    words += ["--labels", "teff,logg", "--recipe", str(folder / "tiny.toml"), "--seed", "3"]
    assert main([*words, "--range", "teff=:6400", "--test-fraction", "0.2"]) == 0
    return folder


def test_the_model_records_what_it_was_made_from(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {"model", "stars.parquet", "tiny.toml"}
    description = json.loads((trained / "model" / "model.json").read_text())
    assert description["selection"]["ranges"] == {"teff": [None, 6400.0]}
    assert description["command"].startswith("xplabels train ")
    assert "with teff < 6400 K" in (trained / "model" / "card.md").read_text()


def test_validate_takes_the_selection_of_the_training_unless_another_is_given(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["validate", str(trained / "model"), str(trained / "stars.parquet")]
    assert main([*words, "--output", str(tmp_path / "v")]) == 0
    message = "the selection given takes the place of the model's own (teff < 6400 K)"
    assert "takes the place of" not in capsys.readouterr().out
    stars = make_stars()
    assert stars.labels is not None
    inside = part_mask(stars.source_id, "test", 0.2) & (stars.labels.values[:, 0] < 6400)
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    assert metrics["n"] == int(inside.sum())
    assert set(metrics["labels"]) == {"teff", "logg"}

    words += ["--all", "--range", "logg=1:", "--output", str(tmp_path / "w")]
    assert main(words) == 0
    assert message in capsys.readouterr().out
    page = (tmp_path / "w" / "report.html").read_text()
    assert message.replace("'", "&#39;").replace("<", "&lt;") in page


def test_training_goes_on_from_its_checkpoint(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xplabels.model import Model

    words = ["train", str(trained / "stars.parquet"), "--labels", "teff", "--output"]
    words += [str(tmp_path / "model"), "--recipe", str(trained / "tiny.toml")]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Model, "save", killed)
        assert main(words) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["model.partial"]
    assert main([*words, "--seed", "4"]) == 2  # another run
    assert main(words) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_spectra_alone_are_enough(trained: Path, tmp_path: Path) -> None:
    write_stars(make_stars(photometry=False), tmp_path / "plain.parquet")
    plain, model = str(tmp_path / "plain.parquet"), str(tmp_path / "model")
    recipe = str(trained / "tiny.toml")
    assert main(["train", plain, "--labels", "teff", "--recipe", recipe, "--output", model]) == 0
    assert main(["predict", plain, "--model", model, "--output", str(tmp_path / "l.csv")]) == 0
    assert np.isfinite(Table.read(tmp_path / "l.csv")["teff"]).all()


def test_a_damaged_model_is_an_error_and_nothing_is_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    damaged = tmp_path / "model" / "weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    words = ["predict", str(trained / "stars.parquet"), "--model", str(tmp_path / "model")]
    assert main([*words, "--output", str(tmp_path / "labels.fits")]) == 2
    assert f"{damaged}: was altered" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("stars", "labels", "recipe", "where", "message"),
    [
        (make_stars(5), "teff", RECIPE, "stars.parquet: ", "only 5 usable stars"),
        (make_stars(), "teff,c_fe", RECIPE, "stars.parquet: ", "label 'c_fe' is absent"),
        (make_stars(photometry=False), "teff", RECIPE + 'auxiliary = ["j_h"]\n',
         "stars.parquet: ", "j_h is missing for every training star"),
        (make_stars(), "teff", "hiden = [8]\n", "recipe.toml: ", "did you mean 'hidden'?"),
    ],
)  # fmt: skip
def test_training_that_cannot_start_says_why(
    stars: Stars, labels: str, recipe: str, where: str, message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_stars(stars, tmp_path / "stars.parquet")
    (tmp_path / "recipe.toml").write_text(recipe)
    words = ["train", str(tmp_path / "stars.parquet"), "--labels", labels]
    words += ["--recipe", str(tmp_path / "recipe.toml"), "--output", str(tmp_path / "model")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"xplabels: error: {tmp_path / where}")
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.toml", "stars.parquet"]


@pytest.mark.parametrize("error", [0.0, -1.0])
def test_a_label_without_a_positive_error_is_named(
    error: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stars(make_stars().with_labels(None), tmp_path / "stars.parquet")
    table = Table({"source_id": np.arange(1, 901), "teff": np.full(900, 5000.0)})
    table["teff_err"] = np.where(table["source_id"] == 77, error, 50.0)
    table.write(tmp_path / "labels.csv")
    words = ["train", str(tmp_path / "stars.parquet"), "--labels", "teff", "--label-table"]
    assert main([*words, str(tmp_path / "labels.csv"), "--output", str(tmp_path / "model")]) == 2
    message = capsys.readouterr().err
    assert "labels.csv" in message
    assert "77" in message
    assert "teff" in message
    assert not (tmp_path / "model").exists()


def test_labels_that_are_not_learnt_may_be_nonsense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A survey's table has more labels than one trains on, with sentinels where they are lost."""
    write_stars(make_stars(5).with_labels(None), tmp_path / "stars.parquet")
    table = Table({"source_id": np.arange(1, 6)})
    for name, value in (("teff", 5000.0), ("logg", 3.0), ("c_fe", -9999.0)):
        table[name], table[f"{name}_err"] = np.full(5, value), np.full(5, value / 100)
    table.write(tmp_path / "labels.csv")
    words = ["train", str(tmp_path / "stars.parquet"), "--labels", "teff", "--range", "logg=2:4"]
    words += ["--label-table", str(tmp_path / "labels.csv"), "--output", str(tmp_path / "model")]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "usable stars" in message
    assert "c_fe" not in message
