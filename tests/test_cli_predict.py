"""From archive files to a catalogue on the command line: whole, resumable, flagged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from archive_files import datalink_csv, fake_stars
from stand_ins import BP, RP, FakeModel, make_stars
from xplabels.cli import main
from xplabels.core.flags import Flag
from xplabels.io import write_stars


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
    np.testing.assert_allclose(table["teff"][:40], expected.values[:, 0])
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.parquet", "b.parquet", f"labels{ending}",
    ]  # fmt: skip


def test_predict_goes_on_where_it_was_interrupted(
    folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    for first in (1, 100, 200):
        write_stars(make_stars(first), folder / f"{first}.parquet")
    words = ["predict", "1.parquet", "100.parquet", "200.parquet", "--output", "labels.csv"]

    def interrupted_after(files: int) -> None:
        model.stop_after = files
        (folder / "labels.csv").unlink(missing_ok=True)
        assert main(words) == 130
        assert not (folder / "labels.csv").exists()
        model.stop_after = None

    interrupted_after(2)
    assert main(words) == 0
    assert len(model.predicted) == 3  # each file once, over both runs
    assert len(Table.read(folder / "labels.csv")) == 120
    assert not (folder / "labels.csv.partial").exists()
    # a file that changed is done again
    interrupted_after(5)
    write_stars(make_stars(1, count=5), folder / "1.parquet", overwrite=True)
    assert main(words) == 0
    assert len(Table.read(folder / "labels.csv")) == 85
    # what another model did is not used
    interrupted_after(len(model.predicted) + 1)
    model.metadata["name"] = "another"
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "labels.csv.partial: was left by a run with other options (model fake, now" in err
    done = len(model.predicted)
    assert main([*words, "--overwrite"]) == 0
    assert len(model.predicted) == done + 3


def test_photometry_of_no_star_is_an_error_and_leaves_no_trace(
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


def test_every_file_that_could_not_be_labelled_is_named(
    folder: Path, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [f"a rather long name of a file that is empty {n}.csv" for n in range(20)]
    for name in broken:
        (folder / name).write_text("")
    assert main(["predict", *broken, "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert all(f"{name}: is empty" in error for name in broken)


def test_a_file_without_any_bp_gives_flagged_stars(folder: Path, model: FakeModel) -> None:
    (folder / "x.csv").write_text(datalink_csv(fake_stars(3, (BP, RP), without_bp=range(3))))
    assert main(["predict", "x.csv", "--output", "labels.csv"]) == 0
    table = Table.read(folder / "labels.csv")
    assert np.isnan(table["teff"]).all()
    assert all(table["flags"] & Flag.MISSING_BP)
