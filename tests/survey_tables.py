"""Tables as surveys have them, in every format."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import Table

# neighbours that one float64 cannot tell apart
IDS = np.array([5853498713190525696, 5853498713190525697, 5405570973190252288, 4472832130942575872])


def write(columns: dict[str, Any], path: Path) -> Path:
    """A table in the format of the ending."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix == ".parquet":
            arrays = {
                name: pa.array(list(values), type=pa.list_(pa.float32(), 2))
                if np.ndim(values) == 2
                else pa.array(np.asarray(values), mask=getattr(values, "mask", None))
                for name, values in columns.items()
            }
            pq.write_table(pa.table(arrays), path)
        else:
            kinds = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".vot": "votable"}
            Table(columns).write(path, format=kinds.get(path.suffix, "fits"), overwrite=True)
    return path
