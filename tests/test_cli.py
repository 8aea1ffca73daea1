"""The command line: commands and options, exit status, validation."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stand_ins import FakeModel, make_stars
from xplabels import __version__
from xplabels.api import read_stars
from xplabels.cli import build_parser, main
from xplabels.core.errors import InputError
from xplabels.core.split import part_mask
from xplabels.explain import section
from xplabels.io import write_stars


def test_the_version_is_shown() -> None:
    command = [sys.executable, "-m", "xplabels.cli", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown == f"xplabels {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        "", "foretell", "predict", "predict a.csv", "train stars.parquet", "demo",
        "predict a.csv --output b.fits --bad-rows maybe", "predict a.csv --out b.fits",
    ],
)  # fmt: skip
def test_wrong_usage_is_status_2(words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(words.split())
    assert stopped.value.code == 2


def test_models_lists_and_prints_cards(
    model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models"]) == 0
    assert "fake: teff, logg" in capsys.readouterr().out
    assert main(["models", "fake"]) == 0
    assert capsys.readouterr().out == "# fake\n"


def test_validate_takes_the_test_part_only(
    folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The rule is the same without photometry; no LaTeX is needed, whatever asked for it before."""
    import matplotlib as mpl

    def no_network(*given: object) -> None:
        raise InputError("it has no network")

    monkeypatch.setattr(section, "attention", no_network)
    stars = make_stars(1, count=300)
    write_stars(stars, folder / "stars.parquet")
    options = ["--all", "--range", "teff=6000:", "--withhold-photometry"]
    for name, words, expected in (
        ("test", [], part_mask(stars.source_id, "test", 0.3)),
        ("every", options, stars.labels.values[:, 0] > 6000),
    ):
        with mpl.rc_context({"text.usetex": True}):  # as importing gaiaxpy leaves it
            assert main(["validate", "fake", "stars.parquet", "--output", name, *words]) == 0
        assert model.predicted[-1] == expected.sum()
        metrics = json.loads((folder / name / "metrics.json").read_text())
        assert metrics["verdict"]["tolerance"] == 0.1  # whatever is withheld
    assert f"{model.predicted[0]} in the model's test part" in capsys.readouterr().out


def test_validate_wants_a_test_part_and_labels(
    folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stars(make_stars(1), folder / "stars.parquet")
    write_stars(make_stars(1, labels=False), folder / "unlabelled.parquet")
    model.metadata["split"]["test_fraction"] = 0.0
    for words, where, remedy in (
        (["stars.parquet"], "stars.parquet: ", "--all"),
        (["unlabelled.parquet"], "unlabelled.parquet: ", "--label-table"),
        (["stars.parquet", "--all", "--range", "fe_h=:-1"], "stars.parquet: ", "'fe_h' is absent"),
        (["stars.parquet", "--all", "--range", "teff=:2000"], "stars.parquet: ", "no star is left"),
    ):
        assert main(["validate", "fake", *words, "--output", "v"]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"xplabels: error: {where}")
        assert remedy in message
    assert not (folder / "v").exists()


def test_labels_of_the_stars_own_table_are_not_reported_as_joined(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stars = make_stars(1)
    write_stars(stars.with_labels(stars.labels.select(["teff"])), folder / "stars.parquet")
    with caplog.at_level("INFO"):
        found = read_stars(folder / "stars.parquet", names=["teff", "logg"], needed=False)
    assert found.labels.names == ("teff",)
    assert "joined" not in caplog.text


def test_every_command_has_an_example_that_parses_and_names_the_paper_it_cites(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = build_parser()
    (commands,) = (a for a in parser._actions if isinstance(a.choices, dict))
    for name, command in commands.choices.items():
        text = command.format_help()
        assert "FS24" not in text or "Fallows & Sanders" in text, name
        (example,) = re.findall(r"example:\n  xplabels (.*)", text)
        assert example.split()[0] == name
        parser.parse_args(shlex.split(example))
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert all(re.search(rf"^    {name}\b", shown, re.MULTILINE) for name in commands.choices)
