"""The command line: verbs and options, exit status, validation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stand_ins import FakeModel, make_stars
from xplabels import __version__
from xplabels.cli import build_parser, main
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.labels import LABELS
from xplabels.core.split import part_mask
from xplabels.io import write_stars

VERBS = ("demo", "library", "train", "predict", "validate", "models")


def test_help_is_fast_and_version_is_told() -> None:
    loaded = "import sys, xplabels.cli; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "torch", "astropy", "pyarrow"} & set(modules)
    told = subprocess.run(
        [sys.executable, "-m", "xplabels.cli", "--version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == f"xplabels {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "--" in text
    assert "dex" in text or "label's unit" in text


def test_help_names_every_flag_label_and_unit(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("predict", "train"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
    text = capsys.readouterr().out
    for flag in Flag:
        assert f"{flag.value}  {flag.name}" in text
    for label in LABELS.values():
        assert f"{label.name:<10s}{label.unit}" in text


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["foretell"],
        ["predict"],
        ["predict", "a.csv"],
        ["predict", "a.csv", "--output", "b.fits", "--bad-rows", "maybe"],
        ["predict", "a.csv", "--out", "b.fits"],
        ["train", "stars.parquet"],
        ["demo"],
    ],
)
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(words)
    assert stopped.value.code == 2


def test_models_lists_and_prints_cards(
    model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models"]) == 0
    assert "fake: teff, logg" in capsys.readouterr().out
    assert main(["models", "fake"]) == 0
    assert capsys.readouterr().out == "# fake\n"


@pytest.fixture
def opaque(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in has no network to look into."""
    from xplabels.explain import section

    def refused(*given: object) -> None:
        raise InputError("it has no network")

    monkeypatch.setattr(section, "attention", refused)


@pytest.mark.usefixtures("opaque")
def test_validate_takes_the_test_part_only(
    folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    stars = make_stars(1, count=300)
    write_stars(stars, folder / "stars.parquet")
    words = ["validate", "fake", "stars.parquet", "--output"]
    assert main([*words, "test"]) == 0
    test = int(part_mask(stars.source_id, "test", 0.3).sum())
    assert f"{test} in the model's test part" in capsys.readouterr().out
    assert model.predicted == [test]
    assert main([*words, "every", "--all", "--range", "teff=6000:"]) == 0
    assert stars.labels is not None
    assert model.predicted[1] == int((stars.labels.values[:, 0] > 6000).sum())
    for name in ("test", "every"):
        assert (folder / name / "report.html").exists()
        assert (folder / name / "metrics.json").exists()


@pytest.mark.usefixtures("opaque")
def test_without_photometry_the_tolerances_double(folder: Path, model: FakeModel) -> None:
    write_stars(make_stars(1, count=300), folder / "stars.parquet")
    words = ["validate", "fake", "stars.parquet", "--output"]
    assert main([*words, "with"]) == 0
    assert main([*words, "without", "--withhold-photometry"]) == 0
    for name, margin in (("with", 1.0), ("without", 2.0)):
        metrics = json.loads((folder / name / "metrics.json").read_text())
        assert metrics["calibration"]["margin"] == margin
    assert "counts 2 times" in (folder / "without" / "report.html").read_text()


@pytest.mark.usefixtures("opaque")
def test_a_report_needs_no_latex_whatever_was_imported_before(
    folder: Path, model: FakeModel
) -> None:
    import matplotlib as mpl

    write_stars(make_stars(1, count=300), folder / "stars.parquet")
    with mpl.rc_context({"text.usetex": True}):  # as importing gaiaxpy leaves it
        assert main(["validate", "fake", "stars.parquet", "--output", "v"]) == 0


def test_validate_wants_a_test_part_and_labels(
    folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stars(make_stars(1), folder / "stars.parquet")
    write_stars(make_stars(1, labels=False), folder / "bare.parquet")
    model.metadata["split"]["test_fraction"] = 0.0
    for words, where, told in (
        (["stars.parquet"], "stars.parquet: ", "--all"),
        (["bare.parquet"], "bare.parquet: ", "--label-table"),
        (["stars.parquet", "--all", "--range", "fe_h=:-1"], "stars.parquet: ", "'fe_h' is absent"),
        (["stars.parquet", "--all", "--range", "teff=:2000"], "stars.parquet: ", "no star is left"),
    ):
        assert main(["validate", "fake", *words, "--output", "v"]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"xplabels: error: {where}")
        assert told in message
    assert not (folder / "v").exists()
