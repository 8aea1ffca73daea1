"""Outputs: what exists is kept unless asked, what is not ours is never replaced."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from twins import random_stars
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.stars import Stars
from xplabels.io import write_stars
from xplabels.io.atomic import MODEL_FILES, REPORT_FILES, check_new_folder, whole_file


def labelled(count: int = 12) -> Stars:
    values = np.full((count, 1), 5000.0)
    return random_stars(count, (3, 2)).with_labels(Labels(("teff",), values, values / 100))


def existing(path: Path, files: tuple[str, ...]) -> Path:
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("mine")
    return path


@pytest.mark.parametrize("ours", [MODEL_FILES, REPORT_FILES])
def test_a_folder_of_our_own_may_be_replaced_when_asked(
    ours: tuple[str, ...], tmp_path: Path
) -> None:
    folder = existing(tmp_path / "old", tuple(name.replace("*", "z") for name in ours))
    with pytest.raises(InputError, match=r"exists already.*--overwrite"):
        check_new_folder(folder, ours)
    check_new_folder(folder, ours, overwrite=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        check_new_folder(folder, ours, overwrite=True)


@pytest.mark.parametrize("name", ["figures/thesis.tex", "figures/deep/model.json", "a/report.html"])
def test_names_count_where_they_stand(name: str, tmp_path: Path) -> None:
    folder = existing(tmp_path / "old", ("report.html", name))
    with pytest.raises(InputError, match=name):
        check_new_folder(folder, REPORT_FILES, overwrite=True)


def test_a_link_to_a_folder_is_not_replaced(tmp_path: Path) -> None:
    folder = existing(tmp_path / "real", MODEL_FILES)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(InputError, match="not a folder"):
        check_new_folder(tmp_path / "link", MODEL_FILES, overwrite=True)


@pytest.mark.parametrize(
    "words",
    [
        ["library", "--output", "old.parquet"],
        ["train", "stars.parquet", "--labels", "teff", "--output", "old"],
        ["validate", "model", "stars.parquet", "--output", "old"],
        ["demo", "--output", "old"],
    ],
)
def test_every_verb_keeps_what_exists(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_stars(labelled(), tmp_path / "stars.parquet")
    existing(tmp_path / "old", MODEL_FILES)
    (tmp_path / "old.parquet").write_text("mine")
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "--overwrite" in message
    assert "old" in message
    assert (tmp_path / "old.parquet").read_text() == "mine"
    assert {(tmp_path / "old" / name).read_text() for name in MODEL_FILES} == {"mine"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old", "old.parquet", "stars.parquet"]


def test_what_a_killed_run_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, foreign = (tmp_path / f".{pid}.partial.out.csv" for pid in (dead.pid, os.getppid()))
    for path in (left, foreign, tmp_path / f".{dead.pid}.partial.other.csv"):
        path.write_text("half")
    with whole_file(tmp_path / "out.csv") as partial:
        partial.write_text("whole")
    assert not left.exists()
    assert foreign.exists()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv"] * 3
