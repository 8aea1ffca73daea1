"""What tests of selection share: spectra to select, and the verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from xplabels.cli import main
from xplabels.core.stars import Band, CoefficientSpectra, Stars
from xplabels.io import write_stars


def spectra_of(
    source_id: np.ndarray,
    path: Path,
    bp_missing: np.ndarray | None = None,
    widths: tuple[int, int] = (3, 4),
) -> Path:
    """A star table of few coefficients."""
    rng = np.random.default_rng(7)
    bands = []
    for width in widths:
        coefficients = rng.normal(10.0, 1.0, (len(source_id), width))
        bands.append(
            Band(
                coefficients,
                np.full_like(coefficients, 0.125),
                np.zeros((len(source_id), width * (width - 1) // 2), np.float32),
            )
        )
    if bp_missing is not None:
        bands[0].coefficients[bp_missing] = np.nan
        bands[0].errors[bp_missing] = np.nan
    write_stars(Stars.of(source_id, CoefficientSpectra(*bands)), path)
    return path


def select(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the verb; status and report."""
    out = folder / "training.parquet"
    status = main(
        ["select", str(folder / "one.parquet"), str(folder / "two.parquet"), "--overwrite",
         "--output", str(out), *words]
    )  # fmt: skip
    report = folder / "training.cuts.json"
    return status, json.loads(report.read_text()) if report.is_file() else {}
