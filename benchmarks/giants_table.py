"""The giants' table, small, and what GaiaXPy and dust_extinction say, for a machine without them.

    xplabels giants --output giants.parquet
    python benchmarks/giants_table.py pack giants.parquet small/
    python benchmarks/giants_table.py unpack small/ giants.parquet

``pack`` writes ``giants_1.parquet`` (every star once), ``giants_2.parquet`` (its copies) and
``sampling.npz``: the sampling matrix, the bands, the extinction law. ``unpack`` makes the star
table again; it needs NumPy and pyarrow only, and either half alone will do.

Sampled flux is D c, so it lies in the 110 dimensions that D reaches: its coordinates there are
stored, in float32, and the rest in float32 too, errors with ERROR_BITS of mantissa. Rounding the
343 samples themselves would not do: noise that no spectrum can have is amplified in the weak
directions of the network's inputs (14 bits move them by 0.8 sigma). What packing does to the
inputs, in units of their errors, is measured and printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xplabels.farther import FIRST_COPY

ERROR_BITS, OTHER_BITS, FLOAT32_BITS = 8, 20, 23
COMPARED = 4000
LISTS = ("modes", "flux_error")
HALVES = ("giants_1.parquet", "giants_2.parquet")


def rounded(values: NDArray[np.float64], bits: int) -> NDArray[np.float32]:
    """Float32 with ``bits`` of mantissa."""
    drop = FLOAT32_BITS - bits
    pattern = values.astype(np.float32).view(np.uint32)
    kept = (pattern + np.uint32(1 << (drop - 1))) & np.uint32(0xFFFFFFFF >> drop << drop)
    return np.where(np.isfinite(values), kept.view(np.float32), np.float32(np.nan))


def lists(values: NDArray[np.floating]) -> pa.Array:
    """Rows of a matrix as a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def matrix(table: pa.Table, name: str) -> NDArray[np.floating]:
    """A column of lists as a matrix."""
    flat: NDArray[np.floating] = table[name].combine_chunks().flatten().to_numpy()
    return flat.reshape(table.num_rows, -1)


def packed(table: pa.Table, modes: NDArray[np.float64]) -> pa.Table:
    """Coordinates in ``modes`` [L, n], orthonormal, in place of the flux [L]; float32 elsewhere."""
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name == "flux":
            name, column = "modes", lists((matrix(table, name) @ modes).astype(np.float32))
        elif name == "flux_error":
            column = lists(rounded(matrix(table, name), ERROR_BITS))
        elif pa.types.is_float64(column.type):
            error = name.endswith(("error", "_err", "msigcom", "sigmpro"))
            numbers = column.to_numpy(zero_copy_only=False)
            column = pa.array(rounded(numbers, ERROR_BITS if error else OTHER_BITS))
        columns[name] = column
    return pa.table(columns, metadata=table.schema.metadata)


def unpacked(table: pa.Table, modes: NDArray[np.float64]) -> pa.Table:
    """A star table again."""
    columns = {}
    for name in table.column_names:
        if name == "modes":
            columns["flux"] = lists(matrix(table, name).astype(np.float64) @ modes.T)
        elif name == "flux_error":
            columns[name] = lists(matrix(table, name).astype(np.float64))
        elif pa.types.is_float32(table[name].type):
            columns[name] = table[name].cast(pa.float64())
        else:
            columns[name] = table[name]
    return pa.table(columns, metadata=table.schema.metadata)


def pack(stars: Path, folder: Path) -> None:
    """Two halves of the table, and the sampling."""
    from xplabels.dust import extinction
    from xplabels.projection import gaiaxpy_band_fluxes, gaiaxpy_design

    folder.mkdir(parents=True, exist_ok=True)
    wavelength, design = gaiaxpy_design()
    curve, by_band = extinction(wavelength)
    fluxes = gaiaxpy_band_fluxes()
    modes = np.linalg.qr(design / np.linalg.norm(design, axis=0))[0]
    np.savez_compressed(
        folder / "sampling.npz", wavelength=wavelength, design=design, modes=modes, curve=curve,
        by_band=json.dumps(by_band), fluxes=np.stack(list(fluxes.values())),
        flux_bands=json.dumps(list(fluxes)),
    )  # fmt: skip
    table = pq.read_table(stars)
    copy = table["source_id"].to_numpy() >= FIRST_COPY
    for name, rows in zip(HALVES, (~copy, copy), strict=True):
        part = packed(table.filter(pa.array(rows)), modes)
        split = {
            f"{column}.list.element" if column in LISTS else column: "BYTE_STREAM_SPLIT"
            for column in part.column_names
            if column != "flags"
        }
        pq.write_table(
            part, folder / name, compression="zstd", compression_level=12,
            use_dictionary=["flags"], column_encoding=split,
        )  # fmt: skip
        size = (folder / name).stat().st_size
        print(f"{folder / name}: {part.num_rows} stars, {size / 1e6:.1f} MB")
    print(compare(stars, folder))


def unpack(folder: Path, stars: Path) -> None:
    """The halves that are there as one star table."""
    modes = np.load(folder / "sampling.npz")["modes"]
    halves = [folder / name for name in HALVES if (folder / name).exists()]
    table = pa.concat_tables([unpacked(pq.read_table(half), modes) for half in halves])
    pq.write_table(table, stars, compression="zstd")
    print(f"{stars}: {table.num_rows} stars")


def compare(before: Path, folder: Path) -> str:
    """What packing did to the network's inputs, in their errors."""
    from xplabels.archive import read
    from xplabels.features import FeatureSet
    from xplabels.flags import UNUSABLE

    after = folder / "unpacked.parquet"
    unpack(folder, after)
    stars = [read([file]) for file in (before, after)]
    after.unlink()
    chosen = np.random.default_rng(0).choice(len(stars[0]), COMPARED, replace=False)
    old, new = (
        FeatureSet.for_stars(s, ("bp_rp",), covariance="exact").compute(s[chosen]) for s in stars
    )
    if not (stars[0].source_id == stars[1].source_id).all():
        raise SystemExit("the stars changed places")
    n, usable = old.errors.shape[1], (stars[0].flags[chosen] & np.uint32(UNUSABLE)) == 0
    error = (old.errors / np.abs(old.divisor)[:, None])[usable]
    moved = np.abs(new.x[usable, :n] - old.x[usable, :n]) / error
    middle, most = np.median(moved), np.quantile(moved, 0.999)
    return f"inputs moved by {middle:.1g} sigma (median), {most:.1g} (99.9 %), N = {len(moved)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    {"pack": pack, "unpack": unpack}[arguments.verb](arguments.source, arguments.output)


if __name__ == "__main__":
    main()
