"""Recipes: the paper's as printed, and every way a file can be wrong."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from xplabels.core.errors import InputError
from xplabels.recipes import Recipe, load_recipe, parse_recipe, shipped_recipes


def test_the_paper_s_recipe_is_the_paper_s() -> None:
    """Fallows & Sanders 2024, sections 2.2, 3 and 3.1."""
    paper = load_recipe("paper")
    assert (paper.hidden, paper.dropout, paper.passes) == ((128, 128), 0.2, 50)
    assert (paper.optimizer, paper.learning_rate, paper.weight_decay) == ("adam", 5e-4, 1e-5)
    assert (paper.schedule, paper.batch_size) == ("fixed_batches", 10000)
    assert (paper.iterations, paper.warmup_iterations) == (20000, 2500)
    assert (paper.likelihood, paper.scatter, paper.covariance) == ("gaussian", "sampling", "fs24")
    assert set(paper.auxiliary) == {"bp_rp", "j_h", "w1_w2", "h_w2", "m_pseudo"}
    assert not paper.extinction_error
    assert not paper.recalibrate
    assert paper.activation == "relu"


def test_those_that_ship_can_be_loaded_under_their_own_names() -> None:
    assert {"default", "paper"} <= set(shipped_recipes())
    for name in shipped_recipes():
        assert load_recipe(name).name == name


def test_a_recipe_survives_json() -> None:
    recipe = Recipe(hidden=(3, 4), auxiliary=("j_h",), scale=0.5, recalibrate=False)
    assert parse_recipe(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert set(recipe.to_dict()) == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dropuot = 0.1", r"mine\.toml.*'dropuot'.*'dropout'"),
        ('zzz = "q"', r"unknown key 'zzz'; did you mean"),
        ("epochs = 1.5", r"mine\.toml.*epochs = 1\.5"),
        ("dropout = '0.1'", "dropout = '0.1'"),
        ("hidden = 64", "hidden = 64"),
        ("hidden = [64, 0]", "positive"),
        ("hidden = [64.0]", "hidden"),
        ("dropout = 0.95", "between 0 and 0.9"),
        ("dropout = nan", "dropout"),
        ('scatter = "bayes"', "'bayes'.*none, dropout, sampling, ensemble, distilled"),
        ('auxiliary = ["u_g"]', "'u_g'.*bp_rp"),
        ('scatter = "distilled"\nmembers = 2\nfolds = 5', "members"),
        ('scatter = "ensemble"\nmembers = 1', "members"),
        ("[label_weights]\nteff = 0.0", "label_weights: teff = 0.0 should lie between"),
        ("label_weights = 2.0", "label_weights = 2.0 should be like"),
        ("recalibrate = 1", "recalibrate"),
        ("emphasis = 1.5", r"emphasis = 1\.5 should lie between 0 and 1"),
        ('wrong_labels = "leave_out"\ncalibration_folds = 0', "networks that did not see a star"),
        ("calibration_folds = 1", "calibration_folds = 1 would leave out all stars"),
        ("hidden = [", r"mine\.toml.*not a whole TOML"),
        (b"name = '\xff'", r"mine\.toml"),
    ],
)
def test_every_mistake_is_named(tmp_path, text, message) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(path)
    assert str(caught.value.where) == str(path)
    assert "custom" not in str(caught.value)


def test_an_unknown_name_lists_those_that_ship() -> None:
    with pytest.raises(InputError, match=r"no recipe 'nonesuch'.*default.*paper"):
        load_recipe("nonesuch")


def test_a_file_beats_a_shipped_name(tmp_path, monkeypatch) -> None:
    (tmp_path / "paper").write_text("hidden = [5]\ndropout = 0\n")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("paper")
    assert (recipe.hidden, recipe.dropout) == ((5,), 0.0)  # integers pass as numbers


def test_every_key_stands_in_the_docs_with_its_default() -> None:
    page = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    listed = {
        name
        for cell in re.findall(r"^\| (`.+?) \|", page.split("## Keys\n")[1], re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    }
    assert listed == {field.name for field in fields(Recipe)} - {"name"}
    example = page.split("```toml\n")[1].split("```")[0]
    assert parse_recipe(tomllib.loads(example)).label_weights == {"fe_h": 2.0}
