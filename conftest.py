"""Examples in docstrings write into a folder of their own, and show no log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _folder_of_an_example(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if isinstance(request.node, pytest.DoctestItem):
        folder: Path = tmp_path_factory.mktemp("example")
        monkeypatch.chdir(folder)
        # a test of the command line may have made the package's log visible
        monkeypatch.setattr(logging.getLogger("xplabels"), "handlers", [])
