"""The demo's folder: made once, gone on with, never taken from the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from xplabels.api.demo import demo_settings, open_folder
from xplabels.core.errors import InputError
from xplabels.recipes import Recipe

SETTINGS = demo_settings(Recipe(), 0)


def test_the_same_settings_go_on_and_others_need_overwrite(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    open_folder(folder, SETTINGS, overwrite=False)
    (folder / "library.parquet").write_text("stars")
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text("{}")
    (folder / "thesis.tex").write_text("mine")
    other = demo_settings(Recipe(epochs=61), 0)  # a recipe's file that was edited, say
    open_folder(folder, SETTINGS, overwrite=False)
    with pytest.raises(InputError, match="--overwrite"):
        open_folder(folder, other, overwrite=False)
    assert (folder / "model" / "model.json").exists()
    open_folder(folder, other, overwrite=True)  # spares the user's files
    assert sorted(path.name for path in folder.iterdir()) == ["demo.json", "thesis.tex"]
    open_folder(folder, other, overwrite=False)


def test_a_folder_with_something_else_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        open_folder(tmp_path, SETTINGS, overwrite=False)
    with pytest.raises(InputError, match="is a file"):
        open_folder(tmp_path / "thesis.tex", SETTINGS, overwrite=True)
    with pytest.raises(InputError, match="does not exist"):
        open_folder(tmp_path / "no" / "demo", SETTINGS, overwrite=False)
