"""Bad input on the command line: a clear word for each, status 2, and nothing written."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from astropy.table import Table

from stand_ins import GOOD, STAR, FakeModel, changed, make_stars
from xplabels.cli import main
from xplabels.io import write_stars

DAMAGED = f"x.csv, row 2, source_id {STAR}, column "

BAD_FILES: dict[str, tuple[str, bytes, str, str]] = {
    "truncated gzip": (
        "x.csv.gz", gzip.compress(GOOD)[:-20],
        "x.csv.gz: is truncated", "copy or write",
    ),
    "no text": ("x.csv.gz", b"\xff\xd8" * 99, "x.csv.gz: is not text", "ending of its format"),
    "truncated text": ("x.csv", GOOD[: len(GOOD) // 2], "x.csv, row 2: is truncated", "copy or"),
    "absent column": (
        "x.csv", GOOD.replace(b"rp_coefficients", b"other", 1),
        "x.csv: column rp_coefficients is absent",
        "download the XP continuous spectra with all their columns",
    ),
    "not finite": (
        "x.csv", changed("rp_coefficients", float("nan")),
        f"{DAMAGED}rp_coefficients: value 1 (nan)", "--bad-rows flag",
    ),
    "duplicate source_id": (
        "x.csv", changed("source_id", STAR - 1), f"x.csv, row 2, source_id {STAR - 1}: ",
        "one row per star",
    ),
    "no rows": ("x.csv", GOOD.split(b"\n")[0] + b"\n", "x.csv: has no rows", "give a file with"),
    "empty file": ("x.csv", b"", "x.csv: is empty", "copy or"),
    "not FITS": ("x.fits", GOOD, "x.fits: is not a whole FITS file", "copy or"),
    "not VOTable": ("x.xml", GOOD, "x.xml: is not a whole VOTable", "copy or"),
    "not ECSV": ("x.ecsv", GOOD, "x.ecsv: does not begin with", ".csv"),
    "not Parquet": ("x.parquet", GOOD, "x.parquet: is not a whole Parquet file", "copy or"),
    "unknown ending": ("x.doc", GOOD, "x.doc: has an unknown ending", "give one of .csv"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_and_nothing_is_written(
    case: str, folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content, shown, remedy = BAD_FILES[case]
    (folder / name).write_bytes(content)
    assert main(["predict", name, "--output", "labels.fits"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"xplabels: error: {shown}")
    assert "Traceback" not in message
    assert remedy in message.split("; ", 1)[1]
    assert [path.name for path in folder.iterdir()] == [name]


def test_the_good_file_behind_the_bad_ones_is_good(folder: Path, model: FakeModel) -> None:
    (folder / "x.csv").write_bytes(GOOD)
    assert main(["predict", "x.csv", "--output", "labels.fits"]) == 0
    assert len(Table.read(folder / "labels.fits")) == 3


Prepare = Callable[[Path], None]


def _star_in_two_files(folder: Path) -> None:
    write_stars(make_stars(STAR, count=1), folder / "y.parquet")


def _existing(folder: Path) -> None:
    (folder / "labels.fits").write_text("mine")


BAD_CALLS: dict[str, tuple[list[str], Prepare, str]] = {
    "missing file": (["nothing.csv", "--output", "l.fits"], lambda f: None, "nothing.csv"),
    "output exists": (["x.csv", "--output", "labels.fits"], _existing, "--overwrite"),
    "output ending": (["x.csv", "--output", "labels.txt"], lambda f: None, ".parquet, .fits"),
    "output folder": (["x.csv", "--output", "no/labels.fits"], lambda f: None, "no/labels.fits"),
    "output is a folder": (
        ["x.csv", "--output", "d.fits"], lambda f: (f / "d.fits").mkdir(), "d.fits",
    ),
    "below a file": (["x.csv", "--output", "x.csv/l.fits"], lambda f: None, "x.csv/l.fits"),
    "missing photometry": (
        ["x.csv", "--output", "l.fits", "--photometry", "p.fits"], lambda f: None, "p.fits",
    ),
    "star in two files": (
        ["x.csv", "y.parquet", "--output", "l.fits"], _star_in_two_files, f"source_id {STAR}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_bad_call_is_named_and_no_catalogue_is_written(
    case: str, folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    words, prepare, shown = BAD_CALLS[case]
    (folder / "x.csv").write_bytes(GOOD)
    prepare(folder)
    before = {path.name for path in folder.iterdir()}
    assert main(["predict", *words]) == 2
    assert shown in capsys.readouterr().err
    after = {path.name for path in folder.iterdir() if not path.name.endswith(".partial")}
    assert after == before
    if "labels.fits" in before:
        assert (folder / "labels.fits").read_text() == "mine"


UNWRITABLE = [
    "x.csv/out",  # below a file: nobody can write there, the superuser neither
    pytest.param(
        "/proc/out",  # nor here, where Linux keeps no files
        marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="has no /proc"),
    ),
]


@pytest.mark.parametrize("place", UNWRITABLE)
@pytest.mark.parametrize(
    ("words", "ending"),
    [
        (["predict", "x.csv"], ".fits"),
        (["train", "stars.parquet", "--labels", "teff"], ""),
        (["validate", "fake", "stars.parquet", "--all"], ""),
        (["library"], ".parquet"),
        (["demo"], ""),
    ],
    ids=lambda value: value[0] if value else "",
)
def test_an_unwritable_output_is_named_before_any_work(
    words: list[str], ending: str, place: str, folder: Path, model: FakeModel,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (folder / "x.csv").write_bytes(GOOD)
    write_stars(make_stars(1), folder / "stars.parquet")

    def work(*_: object, **__: object) -> None:
        raise AssertionError("began to work")

    monkeypatch.setattr("xplabels.surveys.library.read_library", work)
    monkeypatch.setattr("xplabels.io.read", work)
    for overwrite in ([], ["--overwrite"]):
        assert main([*words, "--output", place + ending, *overwrite]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"xplabels: error: {place}{ending}: cannot be written: ")
        assert "choose another" in message
    assert model.predicted == []
    assert sorted(path.name for path in folder.iterdir()) == ["stars.parquet", "x.csv"]
    assert (folder / "x.csv").read_bytes() == GOOD


@pytest.mark.parametrize(
    "words",
    [
        ["train", "stars.parquet", "--output", "thesis", "--labels", "teff"],
        ["validate", "fake", "stars.parquet", "--output", "thesis"],
        ["demo", "--output", "thesis/chapter.tex"],
    ],
)
def test_overwrite_never_takes_a_folder_of_the_user(
    words: list[str], folder: Path, model: FakeModel
) -> None:
    write_stars(make_stars(1), folder / "stars.parquet")
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("mine")
    assert main([*words, "--overwrite"]) == 2
    assert (folder / "thesis" / "chapter.tex").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--labels", "teff,colour"], "column 'colour' is absent"),
        (["--labels", "teff,flux"], "'flux' cannot be the name of a label"),
        (["--labels", "teff,teff"], "named twice"),
        (["--labels", ","], "no label"),
        (["--range", "teff=7000:3200"], "empty"),
        (["--range", "teff"], "teff=3200:7000"),
        (["--range", "mass=1:2"], "is absent"),
        (["--test-fraction", "0.95"], "0.95"),
        (["--test-fraction", "nan"], "nan"),
    ],
)
def test_bad_words_for_training_are_named(
    words: list[str], shown: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stars(make_stars(1), folder / "stars.parquet")
    assert main(["train", "stars.parquet", "--output", "model", *words]) == 2
    assert shown in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["stars.parquet"]
