"""The command line around real training on small stars: the chain, and what stops it."""

from __future__ import annotations

import json
from collections.abc import Callable
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


def make_stars(
    count: int = 900, widths: tuple[int, int] = (4, 5), photometry: bool = True
) -> Stars:
    """Stars whose labels are smooth functions of a few coefficients."""
    rng = np.random.default_rng(5)
    bands = []
    for width in widths:
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
        np.arange(1, count + 1),
        CoefficientSpectra(*bands),
        Photometry.of(count, measured if photometry else {}),
        labels,
        origin="small stars",
    )


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
    assert sorted(path.name for path in trained.iterdir()) == [
        "model", "stars.parquet", "tiny.toml",
    ]  # fmt: skip
    told = json.loads((trained / "model" / "model.json").read_text())
    assert told["selection"]["ranges"] == {"teff": [None, 6400.0]}
    assert told["command"].startswith("xplabels train ")
    assert "with teff < 6400 K" in (trained / "model" / "card.md").read_text()


def test_validate_takes_the_selection_of_the_training(trained: Path, tmp_path: Path) -> None:
    words = ["validate", str(trained / "model"), str(trained / "stars.parquet")]
    assert main([*words, "--output", str(tmp_path / "v")]) == 0
    stars = make_stars()
    assert stars.labels is not None
    inside = part_mask(stars.source_id, "test", 0.2) & (stars.labels.values[:, 0] < 6400)
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    assert metrics["n"] == int(inside.sum())
    assert set(metrics["labels"]) == {"teff", "logg"}
    keys = {"bias", "rmse", "robust", "slope", "std_z", "robust_std_z", "coverage_68"}
    assert keys | {"coverage_95", "crps"} <= set(metrics["labels"]["teff"])


def test_ranges_that_take_the_place_of_the_models_are_told(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["validate", str(trained / "model"), str(trained / "stars.parquet"), "--all"]
    told = "the selection given takes the place of the model's own (teff < 6400 K)"
    assert main([*words, "--range", "logg=1:", "--output", str(tmp_path / "v")]) == 0
    assert told in capsys.readouterr().out
    page = (tmp_path / "v" / "report.html").read_text()
    assert told.replace("'", "&#39;").replace("<", "&lt;") in page
    assert main([*words, "--range", "teff=:6400", "--output", str(tmp_path / "same")]) == 0
    assert "takes the place of" not in capsys.readouterr().out


def test_predict_puts_model_and_command_into_the_metadata(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels.ecsv"
    stars, model = str(trained / "stars.parquet"), str(trained / "model")
    assert main(["predict", stars, "--model", model, "--output", str(output)]) == 0
    table = Table.read(output, format="ascii.ecsv")
    assert len(table) == 900
    assert np.isfinite(table["teff"]).all()
    parts = sum(table[f"teff_error_{part}"] ** 2 for part in ("model", "input", "excess"))
    np.testing.assert_allclose(table["teff_error"] ** 2, parts)
    assert table.meta["MODEL"] == "model"
    assert table.meta["COMMAND"].startswith("xplabels predict ")


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
    write_stars(make_stars(photometry=False), tmp_path / "bare.parquet")
    bare, model = str(tmp_path / "bare.parquet"), str(tmp_path / "model")
    recipe = str(trained / "tiny.toml")
    assert main(["train", bare, "--labels", "teff", "--recipe", recipe, "--output", model]) == 0
    assert main(["predict", bare, "--model", model, "--output", str(tmp_path / "l.csv")]) == 0
    assert np.isfinite(Table.read(tmp_path / "l.csv")["teff"]).all()


def _altered(folder: Path) -> None:
    weights = folder / "model" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))


BAD_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights missing": (
        lambda f: (f / "model" / "weights.safetensors").unlink(), "weights.safetensors",
    ),
    "weights altered": (_altered, "weights.safetensors"),
    "card altered": (lambda f: (f / "model" / "card.md").write_text("better"), "card.md"),
    "no model.json": (lambda f: (f / "model" / "model.json").unlink(), "model.json"),
    "model.json damaged": (
        lambda f: (f / "model" / "model.json").write_text("{"), "model.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_damaged_model_is_told_and_nothing_is_written(
    case: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    damage, told = BAD_MODELS[case]
    shutil.copytree(trained / "model", tmp_path / "model")
    damage(tmp_path)
    words = ["predict", str(trained / "stars.parquet"), "--model", str(tmp_path / "model")]
    assert main([*words, "--output", str(tmp_path / "labels.fits")]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert str(tmp_path / "model") in message
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_coefficient_counts_name_both(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stars(make_stars(10, (3, 5)), tmp_path / "dr4.parquet")
    words = ["predict", str(tmp_path / "dr4.parquet"), "--model", str(trained / "model")]
    assert main([*words, "--output", str(tmp_path / "labels.fits")]) == 2
    message = capsys.readouterr().err
    assert "3 BP + 5 RP" in message
    assert "4 + 5" in message
    assert [path.name for path in tmp_path.iterdir()] == ["dr4.parquet"]


@pytest.mark.parametrize(
    ("stars", "labels", "recipe", "where", "told"),
    [
        (make_stars(5), "teff", RECIPE, "stars.parquet: ", "only 5 usable stars"),
        (make_stars(), "teff,c_fe", RECIPE, "stars.parquet: ", "label 'c_fe' is absent"),
        (make_stars().with_labels(None), "teff", RECIPE, "stars.parquet: ", "no labels to learn"),
        (make_stars(photometry=False), "teff", RECIPE + 'auxiliary = ["j_h"]\n',
         "stars.parquet: ", "j_h is missing for every training star"),
        (make_stars(), "teff", "hiden = [8]\n", "recipe.toml: ", "did you mean 'hidden'?"),
        (make_stars(), "teff", "hidden = 'no'\n", "recipe.toml: ", "hidden = 'no'"),
        (make_stars(), "teff", "hidden = [\n", "recipe.toml: ", "not a TOML file"),
    ],
)  # fmt: skip
def test_training_that_cannot_start_says_why(
    stars: Stars, labels: str, recipe: str, where: str, told: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_stars(stars, tmp_path / "stars.parquet")
    (tmp_path / "recipe.toml").write_text(recipe)
    words = ["train", str(tmp_path / "stars.parquet"), "--labels", labels]
    words += ["--recipe", str(tmp_path / "recipe.toml"), "--output", str(tmp_path / "model")]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"xplabels: error: {tmp_path / where}")
    assert told in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.toml", "stars.parquet"]


@pytest.mark.parametrize("error", [0.0, -1.0])
def test_a_label_without_a_positive_error_is_told(
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
