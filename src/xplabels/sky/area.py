"""Copy a part of the sky out of a local or remote HATS catalogue, into Parquet files.

Of a catalogue at an address (``https://``, ``hf://``, or any that fsspec knows) only what is needed
is downloaded, by range requests: the list of partitions, the footers of those that overlap the
area, the positions in them and, of row groups with a star inside the area, the columns that labels
are made of.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted
from xplabels.fetch.http import RetryPolicy, ServiceError, in_parallel
from xplabels.fetch.targets import Cone, Degrees
from xplabels.io.atomic import whole_file
from xplabels.io.job import open_partial
from xplabels.io.nested import NEEDED, archive_columns, is_nested

logger = logging.getLogger(__name__)

PIXEL_ORDER = 3
HUB = "https://huggingface.co"
HUB_VARIABLE = "HF_ENDPOINT"
"""Environment variable with another address of the hub, which the hub's own client uses, too."""
PARALLEL = 4
"""Partitions that are read at the same time."""
REQUEST = "area.json"


@dataclass(frozen=True)
class Box:
    """A range of right ascension, across 0 if ``ra[1]`` is below ``ra[0]``, and of declination."""

    ra: tuple[float, float]
    dec: tuple[float, float]

    @classmethod
    def parse(cls, text: str) -> Box:
        """A box as the command line writes it, ``RA1,RA2,DEC1,DEC2``; else :class:`InputError`.

        Examples
        --------
        >>> Box.parse("350,10,-5,5")
        Box(ra=(350.0, 10.0), dec=(-5.0, 5.0))
        """
        remedy = "write it as RA1,RA2,DEC1,DEC2 in degrees, e.g. 350,10,-5,5"
        try:
            ra1, ra2, dec1, dec2 = (float(word) for word in text.split(","))
        except ValueError as error:
            raise InputError(f"{text!r} is not a box", remedy=remedy) from error
        if not (0 <= ra1 <= 360 and 0 <= ra2 <= 360 and ra1 != ra2 and -90 <= dec1 < dec2 <= 90):
            raise InputError(f"the box {text!r} is not on the sphere", remedy=remedy)
        return cls((ra1, ra2), (dec1, dec2))

    def contains(
        self, ra: Degrees, dec: Degrees, beyond: Degrees | float = 0.0
    ) -> NDArray[np.bool_]:
        """Which positions [N] lie in it, or no farther than ``beyond`` from it; in degrees."""
        (ra1, ra2), (dec1, dec2) = self.ra, self.dec
        # a circle of radius `beyond` spans more right ascension the nearer it is to a pole, and all
        # of it if it contains the pole
        ratio = np.sin(np.deg2rad(beyond)) / np.maximum(np.cos(np.deg2rad(dec)), 1e-9)
        span = np.rad2deg(np.arcsin(np.minimum(ratio, 1)))
        span = np.where(np.abs(dec) + beyond < 90, span, 360)
        width = ra2 - ra1 + (360 if ra2 < ra1 else 0)
        across = (ra - ra1 + span) % 360 <= width + 2 * span
        return np.asarray(across & (dec >= dec1 - beyond) & (dec <= dec2 + beyond))


@dataclass(frozen=True)
class SkyPixel:
    """A HEALPix pixel of order :data:`PIXEL_ORDER`, in the nested scheme."""

    number: int

    @classmethod
    def parse(cls, text: str) -> SkyPixel:
        """A pixel as the command line writes it, its number; else :class:`InputError`."""
        if not (text.isdecimal() and int(text) < 12 * 4**PIXEL_ORDER):
            raise InputError(
                f"{text!r} is not a HEALPix pixel of order {PIXEL_ORDER}",
                remedy=f"give a number from 0 to {12 * 4**PIXEL_ORDER - 1} (nested)",
            )
        return cls(int(text))

    def contains(self, ra: Degrees, dec: Degrees) -> NDArray[np.bool_]:
        """Which positions [N] lie in it."""
        from hats.pixel_math import healpix_shim

        return np.asarray(healpix_shim.radec2pix(PIXEL_ORDER, ra, dec) == self.number)


Area = Cone | Box | SkyPixel


def copy_area(
    address: str,
    area: Area,
    folder: Path,
    overwrite: bool = False,
    retry: RetryPolicy | None = None,
) -> list[Path]:
    """Copy the rows of a HATS catalogue inside ``area`` to ``folder``, one file per partition.

    Files that are there already, of the same catalogue and area, are not read again. All of them
    are tables that :func:`xplabels.read` takes.

    Parameters
    ----------
    address
        A folder, or an address: ``hf://datasets/OWNER/NAME[@REVISION][/FOLDER]``, ``https://...``
        or any other that fsspec opens. A collection stands for its main catalogue.
    overwrite
        Whether to begin anew if ``folder`` holds another catalogue or area.

    Raises InputError if the extra ``lsdb`` is missing, there is no such catalogue, the service
    fails in every attempt, or no star lies in the area.
    """
    import pyarrow.parquet as pq
    from tqdm import tqdm

    retry = retry or RetryPolicy()
    request = {"catalogue": address, "area": repr(area)}
    with _reading(address):
        catalogue = retry.call(lambda: _opened(address))
    partitions = zip(catalogue.get_healpix_pixels(), catalogue.get_pixel_paths(), strict=True)
    open_partial(folder, REQUEST, request, (REQUEST, "*.parquet", ".*.partial.*"), overwrite)
    info = catalogue.catalog_info
    position = (info.ra_column, info.dec_column)
    source_of = {  # file to write -> partition of the catalogue
        folder / f"Norder={pixel.order}_Npix={pixel.pixel}.parquet": partition
        for (pixel, partition), overlaps in zip(partitions, _overlap(area, catalogue), strict=True)
        if overlaps
    }
    to_fetch = [file for file in source_of if not file.exists()]

    def fetch(file: Path) -> None:
        with whole_file(file) as temporary:
            retry.call(lambda: _copy(source_of[file], area, position, temporary), stop)

    stop = threading.Event()
    with (
        _reading(address),
        tqdm(desc="spectra", total=len(source_of), initial=len(source_of) - len(to_fetch),
             unit=" partitions", disable=None) as bar,
    ):  # fmt: skip
        for _ in in_parallel(fetch, to_fetch, PARALLEL, stop):
            bar.update()
    rows = {file: pq.read_metadata(file).num_rows for file in source_of}
    total = sum(rows.values())
    if not total:
        raise InputError(
            f"has no star in the {type(area).__name__.lower().removeprefix('sky')} asked for",
            where=address,
            remedy="choose another part of the sky",
        )
    logger.info(
        f"spectra: {counted(total, 'star')} from {counted(len(source_of), 'partition')} "
        f"of {len(catalogue.get_healpix_pixels())}"
    )
    return [file for file, stars in rows.items() if stars]


def plain_address(address: str) -> str:
    """An address on the Hugging Face hub as one over HTTP, which needs no client and no account.

    Examples
    --------
    >>> plain_address("hf://datasets/UniverseTBD/mmu_gaia_gaia")
    'https://huggingface.co/datasets/UniverseTBD/mmu_gaia_gaia/resolve/main'
    """
    prefix = next((p for p in ("hf://datasets/", f"{HUB}/datasets/") if address.startswith(p)), "")
    owner, _, rest = address.removeprefix(prefix).strip("/").partition("/")
    name, _, inner = rest.partition("/")
    if not prefix or inner.startswith("resolve/"):
        return address
    name, _, revision = name.partition("@")
    hub = os.environ.get(HUB_VARIABLE, HUB).rstrip("/")
    parts = (hub, "datasets", owner, name, "resolve", revision or "main", inner)
    return "/".join(part for part in parts if part)


def _opened(address: str) -> Any:
    """The main hats catalogue at an address."""
    try:
        import hats
        from hats.io.file_io import get_upath
    except ImportError:
        raise InputError(
            "a part of the sky needs the package hats", remedy="pip install 'xplabels[lsdb]'"
        ) from None
    with fsspec_as_service_error(), warnings.catch_warnings(action="ignore"):
        catalogue = hats.read_hats(get_upath(plain_address(address)), read_moc=False)
    return getattr(catalogue, "main_catalog", catalogue)


def _overlap(area: Area, catalogue: Any) -> NDArray[np.bool_]:
    """Which partitions of a hats catalogue overlap the area, and a few that only come close."""
    from astropy.coordinates import angular_separation
    from cdshealpix.nested import healpix_to_lonlat, vertices

    pixels = catalogue.get_healpix_pixels()
    order, number = np.array([(p.order, p.pixel) for p in pixels], np.int64).reshape(-1, 2).T
    if isinstance(area, SkyPixel):
        # both are compared at the coarser of their orders; a pixel has four times its parent's area
        finer, coarser = np.maximum(order - PIXEL_ORDER, 0), np.maximum(PIXEL_ORDER - order, 0)
        return np.asarray(number >> 2 * finer == area.number >> 2 * coarser)
    pixel = (number.astype(np.uint64), order.astype(np.uint8))
    ra, dec = (angle.rad for angle in healpix_to_lonlat(*pixel))
    corners = (angle.rad for angle in vertices(*pixel))
    radius = angular_separation(ra[:, None], dec[:, None], *corners).max(axis=1)
    return area.contains(*np.rad2deg([ra, dec, radius]))


def _copy(path: Any, area: Area, position: tuple[str, str], target: Path) -> None:
    """Write the rows of one partition that lie in the area, with the columns needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with fsspec_as_service_error():
        files = [path] if path.suffix == ".parquet" else sorted(path.glob("*.parquet"))
        tables = [table for file in files for table in _row_groups(file, area, position)]
    copied = pa.table({"source_id": pa.array([], pa.int64())})  # a sign that there are no rows
    if tables:
        read = pa.concat_tables(tables).combine_chunks()
        columns = {name: read[name] for name in read.column_names}
        renamed = archive_columns(columns, Path(path.path))
        copied = pa.table(renamed | {name: columns[name] for name in position})
    pq.write_table(copied, target, compression="zstd", compression_level=1)


def _row_groups(path: Any, area: Area, position: tuple[str, str]) -> Iterator[Any]:
    """The rows of one file inside the area, a table for each row group that has any."""
    import pyarrow.parquet as pq

    # without a cache, as blocks read ahead would be twice what is needed
    keys = {} if path.protocol in ("", "file", "local") else {"cache_type": "none"}
    with path.fs.open(path.path, "rb", **keys) as raw, pq.ParquetFile(raw, pre_buffer=True) as file:
        needed = [*position, *NEEDED] if is_nested(file.schema_arrow.names) else None
        for group in range(file.num_row_groups):
            positions = file.read_row_group(group, columns=list(position))
            ra, dec = (positions[name].to_numpy().astype(np.float64) for name in position)
            inside = area.contains(ra, dec)
            if inside.any():
                yield file.read_row_group(group, columns=needed).filter(inside)


@contextmanager
def fsspec_as_service_error() -> Iterator[None]:
    """Turn what fsspec and its clients raise into :class:`ServiceError`."""
    import asyncio

    import pyarrow as pa

    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        # fsspec raises the same if a server is busy
        status = getattr(error.__cause__, "status", 404)
        said = "is not there" if status == 404 else f"was refused with status {status}"
        raise ServiceError(f"{said} ({error})", transient=status >= 429) from error
    except Exception as error:
        network = isinstance(error, (OSError, asyncio.TimeoutError, pa.ArrowException))
        if not network and not type(error).__module__.startswith(("aiohttp", "fsspec", "hugging")):
            raise
        raise ServiceError(f"{type(error).__name__}: {error}"[:230]) from error


@contextmanager
def _reading(address: str) -> Iterator[None]:
    """Turn a :class:`ServiceError` into an :class:`InputError` that names the catalogue."""
    try:
        yield
    except ServiceError as error:
        raise InputError(
            f"cannot be read as a HATS catalogue ({error.what})",
            where=address,
            remedy="give the folder or address that holds its properties, or try again later",
        ) from error
