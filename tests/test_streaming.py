"""The pieces of a streaming catalogue run; the runs themselves are tested through the CLI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xplabels.core.errors import InputError
from xplabels.inference import COMPILED_FROM
from xplabels.pipeline import Settings
from xplabels.pipeline.catalogue import Partial, identity
from xplabels.pipeline.doubles import SeenIds
from xplabels.pipeline.file import BLOCK

SETTINGS = Settings({"name": "m", "sha256": "0"}, (), "error", "1")


def test_whole_blocks_are_worth_compiled_code() -> None:
    assert BLOCK >= COMPILED_FROM


@given(st.lists(st.lists(st.integers(0, 60), min_size=0, max_size=8), max_size=8))
def test_duplicates_are_found_as_a_plain_set_finds_them(files: list[list[int]]) -> None:
    seen, plain, twice, found = SeenIds(), set[int](), False, False
    for number, ids in enumerate(files):
        twice = len(set(ids)) < len(ids) or bool(plain & set(ids))
        plain |= set(ids)
        try:
            seen.add(np.array(ids, np.int64), Path(f"{number}.csv"))
        except InputError:
            found = True
        if twice or found:
            break
    assert found == twice


def test_identity_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("one")
    first = identity(path)
    assert identity(path) == first
    path.write_text("three")
    assert identity(path) != first
    with pytest.raises(InputError, match=r"b\.csv: cannot be read"):
        identity(tmp_path / "b.csv")


def test_a_partial_folder_is_kept_only_with_finished_parts(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "c.fits", SETTINGS)
    partial.open(overwrite=False)
    (partial.folder / ".half.parquet").touch()
    partial.drop_if_empty()
    assert not partial.folder.exists()
    partial.open(overwrite=False)
    (partial.folder / "done.parquet").touch()
    partial.drop_if_empty()
    assert partial.folder.exists()


def test_a_partial_folder_of_other_settings_needs_overwrite(tmp_path: Path) -> None:
    output = tmp_path / "c.fits"
    Partial(output, SETTINGS).open(overwrite=False)
    (tmp_path / "c.fits.partial" / "done.parquet").touch()
    other = Partial(output, Settings({"name": "m", "sha256": "1"}, (), "error", "1"))
    with pytest.raises(InputError, match="--overwrite"):
        other.open(overwrite=False)
    assert (other.folder / "done.parquet").exists()
    other.open(overwrite=True)
    assert not (other.folder / "done.parquet").exists()


def _nothing(folder: Path) -> None:
    """An empty folder, as a run leaves that was killed at once."""


def _parts_alone(folder: Path) -> None:
    (folder / "mine.parquet").write_text("mine")


def _another_manifest(folder: Path) -> None:
    _parts_alone(folder)
    (folder / "manifest.json").write_text('{"name": "a data set of mine"}')


def _damaged_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff{")


def _ours_and_more(folder: Path) -> None:
    (folder / "manifest.json").write_text(SETTINGS.to_json())
    (folder / "thesis.tex").write_text("mine")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("fill", "told"),
    [
        (_nothing, None),
        (_parts_alone, "has not the manifest of an interrupted run; move it away"),
        (_another_manifest, "has not the manifest of an interrupted run"),
        (_damaged_manifest, "has not the manifest of an interrupted run"),
        (_ours_and_more, r"thesis\.tex.*, which was not made here"),
    ],
)
def test_a_folder_of_the_user_is_never_taken_for_a_partial_one(
    fill: Callable[[Path], None], told: str | None, overwrite: bool, tmp_path: Path
) -> None:
    partial = Partial(tmp_path / "c.fits", SETTINGS)
    partial.folder.mkdir()
    fill(partial.folder)
    before = {path.name: path.read_bytes() for path in partial.folder.iterdir()}
    if told is None:
        partial.open(overwrite)
        assert [path.name for path in partial.folder.iterdir()] == ["manifest.json"]
        return
    with pytest.raises(InputError, match=rf"c\.fits\.partial: .*{told}"):
        partial.open(overwrite)
    assert {path.name: path.read_bytes() for path in partial.folder.iterdir()} == before


def test_a_link_in_the_place_of_a_partial_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "c.fits.partial").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="is not a folder"):
        Partial(tmp_path / "c.fits", SETTINGS).open(overwrite=True)
    assert (tmp_path / "real").is_dir()
