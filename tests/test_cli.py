"""The command line: verbs and options, exit status, and a clear word for every bad input."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from xplabels import __version__
from xplabels.archive import write_stars
from xplabels.cli import build_parser, main
from xplabels.flags import UNUSABLE, Flag
from xplabels.labels import LABELS, Labels
from xplabels.prediction import Prediction
from xplabels.split import part_mask
from xplabels.stars import Band, CoefficientSpectra, Stars

VERBS = ("demo", "library", "train", "predict", "validate", "models")
BP, RP = 3, 4


def make_stars(first: int = 1, count: int = 40, labels: bool = True) -> Stars:
    """Stars of a few coefficients whose labels are simple functions of them."""
    rng = np.random.default_rng(first)
    bands = []
    for width in (BP, RP):
        coefficients = rng.normal(10.0, 1.0, (count, width))
        errors = np.full((count, width), 0.1)
        correlations = np.zeros((count, width * (width - 1) // 2), np.float32)
        bands.append(Band(coefficients, errors, correlations))
    values = np.column_stack([5000 + 100 * bands[0].coefficients[:, 0], 0.3 * np.ones(count)])
    known = Labels(("teff", "logg"), values, np.full((count, 2), [50.0, 0.1]))
    return Stars.of(
        np.arange(first, first + count),
        CoefficientSpectra(*bands),
        labels=known if labels else None,
        origin=f"stars from {first}",
    )


@dataclass
class FakeModel:
    """A stand-in for a trained network: teff and logg from the first BP coefficient."""

    names: tuple[str, ...] = ("teff", "logg")
    metadata: dict[str, Any] = field(
        default_factory=lambda: {
            "name": "fake",
            "split": {"test_fraction": 0.3},
            "training": {"stars": 7},
        }
    )
    card: str = "# fake"
    feature_set: Any = field(default_factory=lambda: types.SimpleNamespace(widths=(BP, RP)))
    predicted: list[int] = field(default_factory=list)
    photometry: list[int] = field(default_factory=list)
    stop_after: int | None = None

    def predict(self, stars: Stars, progress: bool = False) -> Prediction:
        if self.stop_after is not None and len(self.predicted) >= self.stop_after:
            raise KeyboardInterrupt
        self.predicted.append(len(stars))
        self.photometry.append(int(np.isfinite(stars.photometry.column("j_m")[0]).sum()))
        assert isinstance(stars.spectra, CoefficientSpectra)
        count = len(stars)
        usable = (stars.flags & np.uint32(UNUSABLE)) == 0
        teff = 5000 + 100 * stars.spectra.bp.coefficients[:, 0]
        values = np.column_stack([teff, np.full(count, 0.3)])
        values[~usable] = np.nan
        error = np.full((count, 2), [60.0, 0.1])
        none = np.zeros((count, 2))
        return Prediction(
            stars.source_id, self.names, values, error, error, none, none, 2 * error,
            np.zeros(count), stars.flags, {"model": "fake"},
        )  # fmt: skip


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """A model that every name loads."""
    fake = FakeModel()
    module = types.ModuleType("xplabels.model")
    module.Model = types.SimpleNamespace(load=lambda name: fake)  # type: ignore[attr-defined]
    module.shipped = lambda: ["fake"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xplabels.model", module)
    return fake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


@pytest.mark.parametrize("ending", [".parquet", ".fits", ".ecsv", ".csv"])
def test_predict_labels_every_star_of_every_file(
    folder: Path, model: FakeModel, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stars(make_stars(1), folder / "a.parquet")
    write_stars(make_stars(100), folder / "b.parquet")
    output = folder / f"labels{ending}"
    assert main(["predict", "a.parquet", "b.parquet", "--output", str(output)]) == 0
    assert "80 stars" in capsys.readouterr().out
    table = Table.read(output, format="ascii.ecsv" if ending == ".ecsv" else None)
    assert list(table["source_id"]) == [*range(1, 41), *range(100, 140)]
    expected = make_stars(1).labels
    assert expected is not None
    np.testing.assert_allclose(table["teff"][:40], expected.values[:, 0])
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.parquet", "b.parquet", f"labels{ending}",
    ]  # fmt: skip


def test_predict_goes_on_where_it_was_interrupted(folder: Path, model: FakeModel) -> None:
    for first in (1, 100, 200):
        write_stars(make_stars(first), folder / f"{first}.parquet")
    words = ["predict", "1.parquet", "100.parquet", "200.parquet", "--output", "labels.parquet"]
    model.stop_after = 2
    assert main(words) == 130
    assert not (folder / "labels.parquet").exists()
    model.stop_after = None
    assert main(words) == 0
    assert len(model.predicted) == 3  # each file once, over both runs
    assert len(Table.read(folder / "labels.parquet")) == 120
    assert not (folder / "labels.parquet.partial").exists()


def test_predict_makes_a_part_anew_when_its_file_changed(folder: Path, model: FakeModel) -> None:
    write_stars(make_stars(1), folder / "a.parquet")
    write_stars(make_stars(100), folder / "b.parquet")
    words = ["predict", "a.parquet", "b.parquet", "--output", "labels.csv"]
    model.stop_after = 1
    assert main(words) == 130
    write_stars(make_stars(1, count=5), folder / "a.parquet", overwrite=True)
    model.stop_after = None
    assert main(words) == 0
    assert len(Table.read(folder / "labels.csv")) == 45


def test_another_interrupted_run_needs_overwrite(
    folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stars(make_stars(1), folder / "a.parquet")
    write_stars(make_stars(100), folder / "b.parquet")
    words = ["predict", "a.parquet", "b.parquet", "--output", "labels.csv"]
    model.stop_after = 1
    assert main(words) == 130
    model.stop_after = None
    model.metadata["name"] = "another"
    assert main(words) == 2
    assert "labels.csv.partial" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert len(model.predicted) == 3  # the finished part of the other model was not used


def test_a_full_disk_is_told_and_leaves_no_catalogue(
    folder: Path, model: FakeModel, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_stars(make_stars(1), folder / "a.parquet")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "labels.fits")

    monkeypatch.setattr("xplabels.catalogue._write_fits", full)
    assert main(["predict", "a.parquet", "--output", "labels.fits"]) == 2
    assert "labels.fits: cannot be written: No space left on device" in capsys.readouterr().err
    assert not (folder / "labels.fits").exists()


def test_photometry_of_no_star_is_told_and_leaves_no_trace(
    folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stars(make_stars(1), folder / "a.parquet")
    for name, first in (("p.csv", 1), ("q.csv", 1000)):
        (folder / name).write_text(f"source_id,j_m,j_msigcom\n{first},12.0,0.02\n")
    words = ["predict", "a.parquet", "--output", "labels.csv", "--photometry"]
    assert main([*words, "p.csv", "q.csv"]) == 2
    assert "q.csv" in capsys.readouterr().err
    assert not list(folder.glob("labels*"))
    assert main([*words, "p.csv"]) == 0
    assert model.photometry == [1, 1]  # stars with J that the model was given, in each run


def test_a_file_without_any_bp_gives_flagged_stars(folder: Path, model: FakeModel) -> None:
    rows = bulk_rows()
    for row in rows:
        row |= {name: "null" for name in row if name.startswith("bp_")}
    (folder / "x.csv").write_text(csv_text(rows))
    assert main(["predict", "x.csv", "--output", "labels.csv"]) == 0
    table = Table.read(folder / "labels.csv")
    assert np.isnan(table["teff"]).all()
    assert all(table["flags"] & Flag.MISSING_BP)


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


def test_models_lists_and_prints_cards(
    model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models"]) == 0
    assert "fake: teff, logg" in capsys.readouterr().out
    assert main(["models", "fake"]) == 0
    assert capsys.readouterr().out == "# fake\n"


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


def test_without_photometry_the_tolerances_double(folder: Path, model: FakeModel) -> None:
    write_stars(make_stars(1, count=300), folder / "stars.parquet")
    words = ["validate", "fake", "stars.parquet", "--output"]
    assert main([*words, "with"]) == 0
    assert main([*words, "without", "--withhold-photometry"]) == 0
    for name, margin in (("with", 1.0), ("without", 2.0)):
        metrics = json.loads((folder / name / "metrics.json").read_text())
        assert metrics["calibration"]["margin"] == margin
    assert "counts 2 times" in (folder / "without" / "report.html").read_text()


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


Row = dict[str, Any]


def bulk_rows(count: int = 3) -> list[Row]:
    """Rows of a bulk file of the Gaia archive, with few coefficients."""
    rows = []
    for i in range(count):
        row: Row = {"source_id": 100 + i, "solution_id": 1}
        for band, width in (("bp", BP), ("rp", RP)):
            row |= {
                f"{band}_n_relevant_bases": 2,
                f"{band}_relative_shrinking": 0.5,
                f"{band}_standard_deviation": 1.0,
                f"{band}_coefficients": [10.0 + i, *[0.5] * (width - 1)],
                f"{band}_coefficient_errors": [0.1] * width,
                f"{band}_coefficient_correlations": [0.01] * (width * (width - 1) // 2),
            }
        rows.append(row)
    return rows


def csv_text(rows: list[Row], columns: list[str] | None = None) -> str:
    """The text of a bulk file: arrays in brackets, quoted."""
    names = columns or list(bulk_rows(1)[0])

    def cell(value: object) -> str:
        if isinstance(value, list):
            return '"[' + ",".join(map(str, value)) + ']"'
        return str(value)

    lines = [",".join(names), *(",".join(cell(row[name]) for name in names) for row in rows)]
    return "\n".join(lines) + "\n"


def changed(column: str, value: object) -> bytes:
    """A file whose second star has ``value`` (into index 1 of an array column)."""
    rows = bulk_rows()
    if isinstance(rows[1][column], list) and not isinstance(value, list):
        rows[1][column][1] = value
    else:
        rows[1][column] = value
    return csv_text(rows).encode()


GOOD = csv_text(bulk_rows()).encode()
SHORT = [name for name in bulk_rows(1)[0] if name != "rp_coefficients"]

BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "truncated gzip": ("x.csv.gz", gzip.compress(GOOD * 50)[:-20], "x.csv.gz"),
    "not gzip": ("x.csv.gz", GOOD, "x.csv.gz"),
    "truncated text": ("x.csv", GOOD[: len(GOOD) // 2], "x.csv"),
    "absent column": ("x.csv", csv_text(bulk_rows(), SHORT).encode(), "rp_coefficients"),
    "wrong length": ("x.csv", changed("bp_coefficients", [1.0, 2.0]), "101"),
    "not finite": ("x.csv", changed("rp_coefficients", "NaN"), "101"),
    "infinite error": ("x.csv", changed("rp_coefficient_errors", "Infinity"), "101"),
    "negative error": ("x.csv", changed("bp_coefficient_errors", -0.1), "101"),
    "zero error": ("x.csv", changed("bp_coefficient_errors", 0.0), "101"),
    "correlation above 1": ("x.csv", changed("bp_coefficient_correlations", 1.5), "101"),
    "duplicate source_id": ("x.csv", changed("source_id", 100), "100"),
    "no rows": ("x.csv", csv_text([]).encode(), "x.csv"),
    "empty file": ("x.csv", b"", "x.csv"),
    "not FITS": ("x.fits", GOOD, "x.fits"),
    "not VOTable": ("x.xml", GOOD, "x.xml"),
    "not ECSV": ("x.ecsv", GOOD, "x.ecsv"),
    "not Parquet": ("x.parquet", GOOD, "x.parquet"),
    "unknown ending": ("x.doc", GOOD, "x.doc"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_and_nothing_is_written(
    case: str, folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content, told = BAD_FILES[case]
    (folder / name).write_bytes(content)
    assert main(["predict", name, "--output", "labels.fits"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("xplabels: error: ")
    assert "Traceback" not in message
    assert name in message
    assert told in message
    assert [path.name for path in folder.iterdir()] == [name]


def test_the_good_file_behind_the_bad_ones_is_good(folder: Path, model: FakeModel) -> None:
    (folder / "x.csv").write_bytes(GOOD)
    assert main(["predict", "x.csv", "--output", "labels.fits"]) == 0
    assert len(Table.read(folder / "labels.fits")) == 3


def test_a_damaged_row_can_be_flagged(folder: Path, model: FakeModel) -> None:
    (folder / "x.csv").write_bytes(changed("bp_coefficient_errors", -0.1))
    assert main(["predict", "x.csv", "--output", "labels.csv", "--bad-rows", "flag"]) == 0
    table = Table.read(folder / "labels.csv")
    assert list(np.isnan(table["teff"])) == [False, True, False]
    assert table["flags"][1] & Flag.BAD_ROW


Prepare = Callable[[Path], None]


def _star_in_two_files(folder: Path) -> None:
    write_stars(make_stars(100, count=1), folder / "y.parquet")


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
        ["x.csv", "y.parquet", "--output", "l.fits"], _star_in_two_files, "source_id 100",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_bad_call_is_told_and_no_catalogue_is_written(
    case: str, folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    words, prepare, told = BAD_CALLS[case]
    (folder / "x.csv").write_bytes(GOOD)
    prepare(folder)
    before = {path.name for path in folder.iterdir()}
    assert main(["predict", *words]) == 2
    assert told in capsys.readouterr().err
    after = {path.name for path in folder.iterdir() if not path.name.endswith(".partial")}
    assert after == before
    if "labels.fits" in before:
        assert (folder / "labels.fits").read_text() == "mine"


def test_an_unwritable_folder_is_told_before_any_work(
    folder: Path, model: FakeModel, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (folder / "x.csv").write_bytes(GOOD)

    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write anywhere
    assert main(["predict", "x.csv", "--output", "labels.fits"]) == 2
    assert "labels.fits: cannot be written" in capsys.readouterr().err
    assert model.predicted == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--labels", "teff,colour"], "unknown label 'colour'"),
        (["--labels", "teff,teff"], "named twice"),
        (["--labels", ""], "no label"),
        (["--range", "teff=7000:3200"], "empty"),
        (["--range", "teff"], "teff=3200:7000"),
        (["--range", "mass=1:2"], "unknown label 'mass'"),
        (["--test-fraction", "0.95"], "0.95"),
        (["--test-fraction", "nan"], "nan"),
    ],
)
def test_bad_words_for_training_are_told(
    words: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stars(make_stars(1), folder / "stars.parquet")
    assert main(["train", "stars.parquet", "--output", "model", *words]) == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["stars.parquet"]
