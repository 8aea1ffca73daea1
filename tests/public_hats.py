"""A catalogue in the very schema of the public HATS collection of DR3's spectra, and its server."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats.pixel_math import healpix_shim
from numpy.typing import NDArray

from services.http import Fault, Reply, Service, part_of
from xplabels.core.stars import Stars
from xplabels.io.columns import MAG_PER_RELATIVE_FLUX

Array = NDArray[np.float64]
NAME = "made_gaia"
REPOSITORY = "/datasets/made/gaia/resolve/main"
ZERO_POINTS = {"g": 25.69, "bp": 25.34, "rp": 24.75}
GSPPHOT = ("ag", "azero", "distance", "ebpminrp", "logg", "mh", "teff")
MOTION = ("ra", "dec", "parallax", "pmra", "pmdec")
UNUSED = {
    "radial_velocity": (
        "radial_velocity", "radial_velocity_error", "rv_template_fe_h", "rv_template_logg",
        "rv_template_teff",
    ),
    "gspphot": tuple(f"{one}_gspphot{end}" for one in GSPPHOT for end in ("", "_lower", "_upper")),
    "corrections": (
        "ecl_lat", "ecl_lon", "nu_eff_used_in_astrometry", "pseudocolour",
        "astrometric_params_solved", "rv_template_teff", "grvs_mag",
    ),
}  # fmt: skip
"""Structs that labels do not need, with all their fields."""


def _floats(values: Any) -> pa.Array:
    return pa.array(np.asarray(values, np.float32))


def _lists(values: NDArray[Any]) -> pa.Array:
    flat = _floats(np.ascontiguousarray(values).reshape(-1))
    return pa.ListArray.from_arrays(np.arange(0, len(flat) + 1, values.shape[1]), flat)


def public_table(stars: Stars, ra: Array, dec: Array) -> pa.Table:
    """Rows of the collection; all but positions and integers float32, as there."""
    bands = (stars.spectra.bp, stars.spectra.rp)
    coeff, error = (
        _lists(np.concatenate([getattr(band, name) for band in bands], axis=1))
        for name in ("coefficients", "errors")
    )
    photometry: dict[str, pa.Array] = {}
    for band, zero in ZERO_POINTS.items():
        mag, sigma = stars.photometry.column(f"phot_{band}_mean_mag")
        flux = 10 ** (0.4 * (zero - mag))
        photometry[f"phot_{band}_mean_mag"] = _floats(mag)
        photometry[f"phot_{band}_mean_flux"] = _floats(flux)
        photometry[f"phot_{band}_mean_flux_error"] = _floats(flux * sigma / MAG_PER_RELATIVE_FLUX)
    photometry["phot_bp_rp_excess_factor"] = _floats(np.full(len(stars), 1.2))
    for colour in ("bp_rp", "bp_g", "g_rp"):
        blue, red = (photometry[f"phot_{band}_mean_mag"].to_numpy() for band in colour.split("_"))
        photometry[colour] = _floats(blue - red)
    parallax, parallax_error = stars.photometry.column("parallax")
    random = np.random.default_rng(5)

    def noise() -> pa.Array:
        return _floats(random.standard_normal(len(stars)))

    astrometry = {name + end: noise() for name in MOTION for end in ("", "_error")}
    astrometry |= {
        f"{one}_{other}_corr": noise() for n, one in enumerate(MOTION) for other in MOTION[n + 1 :]
    }
    astrometry |= {"ra": _floats(ra), "dec": _floats(dec)}
    astrometry |= {"parallax": _floats(parallax), "parallax_error": _floats(parallax_error)}
    structs = {
        "photometry": photometry,
        "astrometry": astrometry,
        "flags": {"ruwe": _floats(np.ones(len(stars)))},
        **{name: {one: noise() for one in names} for name, names in UNUSED.items()},
    }
    order = ("photometry", "astrometry", "radial_velocity", "gspphot", "flags", "corrections")
    columns = {
        "_healpix_29": pa.array(healpix_shim.radec2pix(29, ra, dec).astype(np.int64)),
        "spectral_coefficients": pa.StructArray.from_arrays(
            [coeff, error], ["coeff", "coeff_error"]
        ),
        **{
            name: pa.StructArray.from_arrays([*structs[name].values()], [*structs[name]])
            for name in order
        },
        "ra": pa.array(ra),
        "dec": pa.array(dec),
        "healpix": pa.array(healpix_shim.radec2pix(4, ra, dec).astype(np.int64)),
        "object_id": pa.array(stars.source_id),
    }
    return pa.table(columns)


def write_collection(folder: Path, table: pa.Table, order: int, row_group: int = 2000) -> Path:
    """A collection whose main catalogue has partitions of one order."""
    main = folder / NAME
    pixel = table["_healpix_29"].to_numpy() >> 2 * (29 - order)
    lines = ["Norder,Npix,num_rows"]
    for number in np.unique(pixel).tolist():
        part = table.filter(pixel == number).sort_by("_healpix_29")
        path = main / f"dataset/Norder={order}/Dir={number // 10000 * 10000}/Npix={number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, path, compression="zstd", row_group_size=row_group)
        lines.append(f"{order},{number},{len(part)}")
    pq.write_metadata(table.schema, main / "dataset/_common_metadata")
    (main / "partition_info.csv").write_text("\n".join(lines) + "\n")
    properties = {
        "obs_collection": NAME, "dataproduct_type": "object", "hats_nrows": len(table),
        "hats_col_ra": "ra", "hats_col_dec": "dec", "hats_max_rows": len(table),
        "hats_order": order, "hats_builder": "made by a test", "hats_version": "v0.1",
        "hats_col_healpix": "_healpix_29", "hats_col_healpix_order": 29,
        "hats_npix_suffix": ".parquet",
    }  # fmt: skip
    (main / "hats.properties").write_text("\n".join(f"{k}={v}" for k, v in properties.items()))
    (folder / "collection.properties").write_text(
        f"obs_collection={NAME}\nhats_primary_table_url={NAME}\n"
    )
    return folder


class Hub(Service):
    """Files of a folder, plainly and as a repository of the Hugging Face hub.

    Requests with ``step`` in their path take a fault; ``sent`` counts the bytes of all answers.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.step, self.sent = folder, "", 0

    def faulty(self, path: str) -> bool:
        return self.step in path

    def answer(
        self, method: str, path: str, headers: Any, body: bytes, fault: Fault | None
    ) -> Reply:
        """One file, or a part of it."""
        file = self.folder / unquote(path).removeprefix(REPOSITORY).lstrip("/")
        if not file.is_file():
            return Reply(b"", status=404)
        reply = part_of(file.read_bytes(), headers.get("Range", ""))
        self.sent += len(reply.body) * (method == "GET")
        return reply
