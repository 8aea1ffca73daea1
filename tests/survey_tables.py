"""Tables as surveys have them, in every format; spectra to select, and the command."""

from __future__ import annotations

import gzip
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import Table

from xplabels.cli import main
from xplabels.core.stars import Band, CoefficientSpectra, Stars
from xplabels.io import write_stars

# neighbours that one float64 cannot tell apart
IDS = np.array([5853498713190525696, 5853498713190525697, 5405570973190252288, 4472832130942575872])


def write(columns: dict[str, Any] | Table, path: Path) -> Path:
    """A table in the format of the ending; CSV begins with a comment."""
    table, ending = Table(columns), path.name.split(".", 1)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if ending.startswith("csv"):
            text = io.StringIO("# a comment\n")
            text.seek(0, io.SEEK_END)
            table.write(text, format="ascii.csv")
            content = text.getvalue().encode()
            path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
        elif ending == "parquet":
            arrays = {
                name: pa.array(list(column), type=pa.list_(pa.float32(), 2))
                if column.ndim == 2
                else pa.array(np.asarray(column), mask=getattr(column, "mask", None))
                for name, column in table.columns.items()
            }
            units = [None if c.unit is None else {"unit": str(c.unit)} for c in table.itercols()]
            fields = [pa.field(name, arrays[name].type, metadata=unit)
                      for name, unit in zip(arrays, units, strict=True)]  # fmt: skip
            pq.write_table(pa.table(list(arrays.values()), schema=pa.schema(fields)), path)
        else:
            kinds = {"ecsv": "ascii.ecsv", "vot": "votable", "xml": "votable"}
            table.write(path, format=kinds.get(ending, "fits"), overwrite=True)
    return path


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
        packed = np.zeros((len(source_id), width * (width - 1) // 2), np.float32)
        bands.append(Band(coefficients, np.full_like(coefficients, 0.125), packed))
    if bp_missing is not None:
        bands[0].coefficients[bp_missing] = bands[0].errors[bp_missing] = np.nan
    write_stars(Stars.of(source_id, CoefficientSpectra(*bands)), path)
    return path


def select(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the command on ``one.parquet`` and ``two.parquet``; exit status and report."""
    spectra = [str(folder / f"{name}.parquet") for name in ("one", "two")]
    status = main(
        ["select", *spectra, "--overwrite", "--output", str(folder / "training.parquet"), *words]
    )
    report = folder / "training.cuts.json"
    return status, json.loads(report.read_text()) if report.is_file() else {}
