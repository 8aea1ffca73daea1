"""Archive files as the archive writes them, of made stars, for the readers' tests."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xplabels.core.stars import SampledSpectra, Stars

FORMATS = ("csv", "csv.gz", "ecsv", "fits", "fits.gz", "vot", "xml", "parquet")
"""``csv`` is DataLink's, ``csv.gz`` the bulk files', ``vot`` binary, ``xml`` plain text."""

KINDS = {"coefficients": "float64", "errors": "float32", "correlations": "float32"}


@dataclass
class FakeStars:
    """Rows as they go into a file; an array of length 0 is a null. Free to be damaged."""

    source_id: list[int]
    cells: dict[str, list[NDArray[Any]]]

    def kind(self, name: str) -> str:
        return KINDS[name.rsplit("_", 1)[1]]


def fake_stars(
    stars: int,
    widths: tuple[int, int],
    without_bp: Sequence[int] = (),
    without_rp: Sequence[int] = (),
    start: int = 0,
) -> FakeStars:
    """``stars`` random stars with ids beyond 2^53; some rows lack a band."""
    rng = np.random.default_rng([stars, *widths, start])
    cells: dict[str, list[NDArray[Any]]] = {}
    for band, width, without in (("bp", widths[0], without_bp), ("rp", widths[1], without_rp)):
        packed = width * (width - 1) // 2
        columns: dict[str, NDArray[Any]] = {
            "coefficients": rng.normal(size=(stars, width)) * 10.0 ** rng.integers(-6, 7, width),
            "coefficient_errors": rng.uniform(0.1, 9, (stars, width)).astype(np.float32),
            "coefficient_correlations": rng.uniform(-1, 1, (stars, packed)).astype(np.float32),
        }
        for part, values in columns.items():
            cells[f"{band}_{part}"] = [
                values[row, :0] if row in without else values[row] for row in range(stars)
            ]
    return FakeStars([4345775217221821312 + start + row for row in range(stars)], cells)


def write(stars: FakeStars, path: Path, upper: bool = False) -> Path:
    """Write ``stars`` to ``path`` in the format of its ending."""
    ending = path.name.split(".", 1)[1]
    if ending == "csv":
        path.write_text(datalink_csv(stars, upper))
    elif ending == "csv.gz":
        head = "# a header line of the bulk files\n#\n"
        text = head + _delimited(stars, "[{}]", ",", "null", upper)
        path.write_bytes(gzip.compress(text.encode(), 1))
    elif ending == "ecsv":
        path.write_text(_ecsv_head(stars, upper) + _delimited(stars, "[{}]", ",", "", upper))
    elif ending == "parquet":
        _write_parquet(stars, path, upper)
    else:
        _write_astropy(stars, path, ending, upper)
    return path


def datalink_csv(stars: FakeStars, upper: bool = False) -> str:
    """``stars`` as DataLink's CSV file has them."""
    return _delimited(stars, "({})", ", ", "", upper)


def unrolled_csv(stars: FakeStars) -> str:
    """``stars`` with a row for each element of the longest array (DATAMODEL_STANDARD)."""
    lines = [",".join(["source_id", *stars.cells])]
    for row, star in enumerate(stars.source_id):
        for place in range(max(len(cells[row]) for cells in stars.cells.values())):
            cells = [column[row] for column in stars.cells.values()]
            texts = [str(cell[place]) if place < len(cell) else "" for cell in cells]
            lines.append(",".join([str(star), *texts]))
    return "\n".join(lines) + "\n"


def _delimited(stars: FakeStars, shell: str, comma: str, null: str, upper: bool) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ["source_id", "solution_id", *stars.cells, "bp_n_relevant_bases"]
    writer.writerow([name.upper() if upper else name for name in names])
    for row, star in enumerate(stars.source_id):
        arrays = [cells[row] for cells in stars.cells.values()]
        # the shortest text that gives the number back in its own type, as Java writes it
        texts = [shell.format(comma.join(map(str, a))) if len(a) else null for a in arrays]
        writer.writerow([star, 4545469030156206080, *texts, null])
    return out.getvalue()


def _ecsv_head(stars: FakeStars, upper: bool) -> str:
    lines = ["# %ECSV 1.0", "# ---", "# delimiter: ','", "# datatype:"]
    for name in ["source_id", "solution_id", *stars.cells, "bp_n_relevant_bases"]:
        shown = name.upper() if upper else name
        kind = f"string, subtype: '{stars.kind(name)}[null]'" if name in stars.cells else "int64"
        lines.append(f"# - {{name: {shown}, datatype: {kind}}}")
    return "\n".join(lines) + "\n"


def _write_parquet(stars: FakeStars, path: Path, upper: bool) -> None:
    columns: dict[str, Any] = {"source_id": pa.array(stars.source_id, pa.int64())}
    for name, cells in stars.cells.items():
        kind = pa.list_(pa.from_numpy_dtype(np.dtype(stars.kind(name))))
        columns[name] = pa.array([list(cell) if len(cell) else None for cell in cells], kind)
    names = {name: name.upper() if upper else name for name in columns}
    pq.write_table(pa.table({names[name]: column for name, column in columns.items()}), path)


def _write_astropy(stars: FakeStars, path: Path, ending: str, upper: bool) -> None:
    if ending.startswith("fits"):
        from astropy.io import fits

        columns = [fits.Column("source_id", "K", array=np.array(stars.source_id))]
        for name, cells in stars.cells.items():
            letter = "D" if stars.kind(name) == "float64" else "E"
            ragged = np.empty(len(cells), object)
            ragged[:] = [np.asarray(cell) for cell in cells]
            columns.append(fits.Column(name, f"P{letter}()", array=ragged))
        for column in columns:
            column.name = column.name.upper() if upper else column.name
        fits.BinTableHDU.from_columns(columns).writeto(path, overwrite=True)
        return
    path.write_text(_votable(stars, upper, binary=ending == "vot"))


def _votable(stars: FakeStars, upper: bool, binary: bool) -> str:
    types = {"float64": "double", "float32": "float"}
    fields = ['<FIELD name="{}" datatype="long"/>'.format("SOURCE_ID" if upper else "source_id")]
    for name in stars.cells:
        shown = name.upper() if upper else name
        fields.append(f'<FIELD name="{shown}" datatype="{types[stars.kind(name)]}" arraysize="*"/>')
    data = _binary2(stars) if binary else _tabledata(stars)
    return (
        '<?xml version="1.0"?>\n<VOTABLE version="1.4" '
        'xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results"><TABLE>\n'
        + "\n".join(fields)
        + f"\n<DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>\n"
    )


def _tabledata(stars: FakeStars) -> str:
    rows = []
    for row, star in enumerate(stars.source_id):
        texts = [" ".join(str(value) for value in cells[row]) for cells in stars.cells.values()]
        rows.append("<TR>" + "".join(f"<TD>{text}</TD>\n" for text in [star, *texts]) + "</TR>")
    return "<TABLEDATA>\n" + "\n".join(rows) + "\n</TABLEDATA>"


def _binary2(stars: FakeStars) -> str:
    """By hand: astropy 8.0 writes variable-length float arrays as double."""
    parts: list[bytes] = []
    for row, star in enumerate(stars.source_id):
        # one bit a column, set where it is null: none here, an array of length 0 says it
        parts.append(bytes((len(stars.cells) + 8) // 8) + struct.pack(">q", star))
        for name, cells in stars.cells.items():
            values = np.asarray(cells[row], np.dtype(stars.kind(name)).newbyteorder(">"))
            parts.append(struct.pack(">i", len(values)) + values.tobytes())
    text = base64.encodebytes(b"".join(parts)).decode()
    return f"<BINARY2><STREAM encoding='base64'>\n{text}</STREAM></BINARY2>"


def same(one: Stars, other: Stars) -> None:
    """Every array, bit by bit (NaN equals NaN)."""
    arrays, others = arrays_of(one), arrays_of(other)
    assert arrays.keys() == others.keys()
    for name, values in arrays.items():
        assert values.dtype == others[name].dtype, name
        np.testing.assert_array_equal(values, others[name], err_msg=name)


def arrays_of(stars: Stars) -> dict[str, NDArray[np.generic]]:
    """Every array of the stars, by name."""
    spectra = stars.spectra
    arrays: dict[str, NDArray[np.generic]] = {"id": stars.source_id, "flags": stars.flags}
    arrays |= {"photometry": stars.photometry.values, "sigma": stars.photometry.errors}
    if isinstance(spectra, SampledSpectra):
        arrays |= {"wavelength": spectra.wavelength, "flux": spectra.flux}
        arrays["flux_error"] = spectra.flux_error
    else:
        for name, band in (("bp", spectra.bp), ("rp", spectra.rp)):
            arrays |= {f"{name}_coefficients": band.coefficients, f"{name}_errors": band.errors}
            if band.correlations is not None:
                arrays[f"{name}_correlations"] = band.correlations
    if stars.labels is not None:
        arrays |= {"labels": stars.labels.values, "label_errors": stars.labels.errors}
    return arrays
