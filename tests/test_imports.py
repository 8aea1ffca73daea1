"""Importing the package stays fast: the heavy libraries wait until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "torch", "matplotlib", "gaiaxpy", "astropy", "astroquery", "pyvo", "requests", "lsdb", "dask",
    "gavo", "hats", "pandas", "pyarrow", "scipy",
}  # fmt: skip


@pytest.mark.parametrize(
    "module",
    [
        "xplabels",
        "xplabels.cli",
        "xplabels.core.stars",
        "xplabels.api",
        "xplabels.validation",
        "xplabels.figures",
    ],
)
def test_import_loads_no_heavy_library(module: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not HEAVY & set(told.stdout.split())
