"""The pieces of a streaming catalogue run; the runs themselves are tested through the CLI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xplabels.errors import InputError
from xplabels.flags import Flag
from xplabels.streaming import Partial, SeenIds, Settings, Summary, identity

SETTINGS = Settings({"name": "m", "sha256": "0"}, [], "error", "1")


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
    other = Partial(output, Settings({"name": "m", "sha256": "1"}, [], "error", "1"))
    with pytest.raises(InputError, match="--overwrite"):
        other.open(overwrite=False)
    assert (other.folder / "done.parquet").exists()
    other.open(overwrite=True)
    assert not (other.folder / "done.parquet").exists()


def test_flags_are_counted_by_bit() -> None:
    summary = Summary()
    summary.add(np.array([0, Flag.LOW_SNR, Flag.LOW_SNR | Flag.MISSING_BP]))
    summary.add(np.array([Flag.MISSING_BP]))
    assert summary.stars == 4
    assert summary.flags[Flag.LOW_SNR] == 2
    assert summary.flags[Flag.MISSING_BP] == 2
    assert summary.flags[Flag.BAD_ROW] == 0
