"""A wrong input for every command: an exit status, a message with what, where and what to do, and
nothing written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from xplabels.cli import COMMANDS, build_parser, main

WRONG = {
    "demo": ("demo --output empty.csv", "empty.csv: is a file, not a folder; name a folder"),
    "library": ("library --output s.csv", "s.csv: a star table is Parquet; end its name in"),
    "fetch": ("fetch --output d", "no stars are named; give --ids"),
    "label": ("label --output l.csv", "give either a table of ids or --cone"),
    "basis": (
        "basis empty.csv",
        "empty.csv: is not a whole basis .*; write one with xplabels basis",
    ),
    "giants": ("giants --output g.csv", "g.csv: a star table is Parquet; end its name in"),
    "match": ("match empty.csv hats --output m.parquet", "empty.csv: is empty; give a table"),
    "select": (
        "select some.csv --table apogee=none.fits --output s.parquet",
        "none.fits: does not exist; check the path",
    ),
    "train": ("train empty.csv --output m", "empty.csv: is empty; copy"),
    "convert": (
        "convert none --output c",
        "none: does not exist; check the path",
    ),
    "predict": ("predict empty.csv --output o.csv", "empty.csv: is empty; copy"),
    "validate": ("validate none some.csv --output v", "no model 'none'; give a model folder"),
    "check-errors": ("check-errors empty.csv --json f.json", "empty.csv: is empty; copy"),
    "audit": ("audit none some.csv --output a.csv", "no model 'none'; give a model folder"),
    "models": ("models none", "no model 'none'; give a model folder"),
    "releases": ("releases dr5", "no data release 'dr5'; choose dr3 or dr4, or a .toml file"),
    "simulate": ("simulate empty.csv --output s.parquet", "empty.csv: is empty; give a table"),
    "explain": ("explain none some.csv --output e", "no model 'none'; give a model folder"),
}
MORE = [
    ("predict some.csv --output=", "an argument is empty: is a variable of the shell not set"),
    ("predict '' --output o.parquet", "an argument is empty"),
    (
        "select some.csv --table m=some.csv m=some.csv --output s.parquet",
        "some.csv: is given twice; give each table once",
    ),
    (
        "select some.csv --table m=some.csv --neighbours m=a.csv m=b.csv --output s.parquet",
        "--neighbours names a survey twice",
    ),
    *(
        (f"{words} --output {output} --overwrite", "is also an input, which would be lost; name")
        for words, output in (
            ("predict some.csv", "some.csv"),
            ("predict some.csv --photometry ./short.csv", "short.csv"),
            ("audit apogee-dr17-library some.csv", "./some.csv"),
            ("select some.csv --table apogee=short.csv", "short.csv"),
            ("simulate short.csv", "short.csv"),
        )
    ),
    ("simulate head.csv --output s.parquet", "head.csv: holds no row; give a table"),
    ("giants --copies -1 --output s.parquet", "-1 copies of each star; give 0 or more"),
    ("giants --copies 1000000000000000000 --output s.parquet", "--copies: 10* is too large"),
    (f"simulate short.csv --draws {10**30} --output s.parquet", "is too large: give at most 1,000"),
    ("match some.csv cat --workers 1000000 --output m.parquet", "too large: give at most 1,024"),
    ("fetch --ids some.csv --timeout 1e18 --output f", "a wait or timeout is longer than a day"),
    ("convert none --most-rows x --output c", "--most-rows: 'x' is not a whole number"),
    (
        "match some.csv cat --epoch nan --output m.parquet",
        "the epoch nan is not a year of a survey",
    ),
    ("simulate short.csv --seed -1 --output s.parquet", "--seed: -1 is not a seed"),
    ("giants --seed -1 --output s.parquet", "--seed: -1 is not a seed"),
    ("train some.csv --seed -1 --output m", "--seed: -1 is not a seed"),
    ("train some.csv --seed x --output m", "--seed: 'x' is not a whole number"),
    ("train some.csv --device tpu --output m", "device 'tpu' cannot be used: .*; choose cpu"),
    ("train some.csv --labels teff --recipe w.toml --output m", "w.toml: label_weights names n_fe"),
    ("explain none some.csv --coefficients 0 --output e", "--coefficients: 0 is too few"),
    ("explain none some.csv --max-extinction nan --output e", "nan is not above 0"),
    (
        "explain none some.csv --max-extinction x --output e",
        "--max-extinction: 'x' is not a number",
    ),
    (
        "explain apogee-dr17-library some.csv --pair teff short.csv short.csv x --output e",
        "--pair teff short.csv short.csv x: the step 'x' is not a positive number; give a label",
    ),
    (
        "explain apogee-dr17-library some.csv --pair mg_fe short.csv short.csv 1 --output e",
        "--pair mg_fe .*: the model has no label mg_fe; give pairs of teff",
    ),
    (
        "explain apogee-dr17-library some.csv --pair teff none.csv short.csv 1 --output e",
        "none.csv: does not exist",
    ),
]


def test_every_verb_has_a_wrong_input() -> None:
    actions = build_parser()._subparsers
    assert set(WRONG) == set(actions._group_actions[0].choices or ())
    assert len(WRONG) == len(COMMANDS)


@pytest.mark.parametrize(("words", "message"), [*WRONG.values(), *MORE])
def test_a_wrong_input_is_told_and_nothing_is_written(
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("wavelength,flux\n")
    (tmp_path / "some.csv").write_text("source_id,teff,teff_err\n1,5000,50\n")
    (tmp_path / "short.csv").write_text("wavelength,flux\n400,1\n700,1\n")
    (tmp_path / "w.toml").write_text("[label_weights]\nn_fe = 2.0\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    try:
        status = main(shlex.split(words))
    except SystemExit as error:  # argparse
        status = int(error.code or 0)
    assert status == 2
    told = capsys.readouterr().err
    assert re.search(message, told), told
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predct", "x.csv"], "did you mean predict?"),
        (["predict", "x.csv", "--ouput", "y.fits"], "unknown: --ouput, did you mean --output?"),
        (["predict", "x.csv", "--output=y.fits", "--correlation"], "did you mean --correlations?"),
    ],
)
def test_a_misspelt_word_is_answered_by_the_nearest(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_folder_of_a_report_gets_no_catalogues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import xplabels as xp

    stars = tmp_path / "s.parquet"
    xp.write_stars(xp.example_stars(3), stars)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").touch()
    assert main(["predict", str(stars), "--output", str(tmp_path / "report")]) == 2
    assert "report: holds report.html" in capsys.readouterr().err
    assert main(["predict", str(stars), "--output", str(tmp_path / "labels")]) == 0
    assert f"Folder of catalogues: {tmp_path / 'labels'}" in capsys.readouterr().out


def test_what_stays_of_a_failed_run_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import xplabels as xp

    for name in "ab":
        xp.write_stars(xp.example_stars(3), tmp_path / f"{name}.parquet")
    output = tmp_path / "twice.fits"
    words = [str(tmp_path / f"{name}.parquet") for name in "ab"]
    assert main(["predict", *words, "--output", str(output)]) == 2
    assert f"{output}.partial keeps what is finished, for the next run" in capsys.readouterr().out


def test_labels_of_the_stars_own_table_are_not_announced_as_joined(tmp_path: Path) -> None:
    import xplabels as xp
    from xplabels.api import read_stars

    path = tmp_path / "s.parquet"
    xp.write_stars(xp.example_stars(3), path)
    for names in (["teff", "mass"], ["teff"]):
        notes = read_stars(path, names=names, needed=False).notes
        assert not any("joined" in note for note in notes)
