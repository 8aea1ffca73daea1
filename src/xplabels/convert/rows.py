"""A block of stars as rows of a HATS catalogue: compact, with a position and its index."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted
from xplabels.core.stars import MEASUREMENTS, CoefficientSpectra, Stars, with_widths
from xplabels.io.columns import MEASURED, PHOTOMETRY_COLUMNS, photometry_of
from xplabels.io.delimited import column_names, take_header
from xplabels.io.files import byte_lines
from xplabels.io.parquet import FORMAT_VERSION, META_KEY, to_arrow
from xplabels.io.partitioning import LEVEL, LEVEL_SHIFT
from xplabels.io.tables import KeyedTable

INDEX = "_healpix_29"
"""Column of the nested HEALPix pixel of the position, at the level its name says."""
POSITION = ("ra", "dec", "pmra", "pmdec", "ref_epoch")
"""Columns taken over from GaiaSource beside the photometry; the first two have to be there."""
PIXEL_POSITION = ("pixel_ra", "pixel_dec")
"""Columns of the position where GaiaSource is not given: the centre of a pixel, not of a star."""
SOURCES = {
    True: "GaiaSource",
    False: "pixel_ra, pixel_dec are the centre of the HEALPix pixel (level 12) that source_id "
    "names: the star may stand most of an arcminute away",
}
PRECISION = "coefficients and their errors are float32, correlations float16"

ArrowTable = Any
"""A pyarrow ``Table``."""


@dataclass(frozen=True)
class Layout:
    """Which columns the catalogue has: the same in every partition.

    Attributes
    ----------
    widths
        Numbers of BP and RP coefficients.
    position
        Columns of the position and motion: of :data:`POSITION`, or :data:`PIXEL_POSITION`.
    measurements
        Those of :data:`~xplabels.core.stars.MEASUREMENTS` that GaiaSource has.
    """

    widths: tuple[int, int]
    position: tuple[str, ...] = PIXEL_POSITION
    measurements: tuple[str, ...] = ()

    @property
    def from_gaia_source(self) -> bool:
        """Whether positions are the stars' own."""
        return self.position != PIXEL_POSITION

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """Of every partition's schema, as a star table has them."""
        told = {
            "format": FORMAT_VERSION,
            "space": CoefficientSpectra.space,
            "origin": "bulk files of the Gaia archive, converted to HATS",
            "notes": [PRECISION],
            "labels": [],
            "position": SOURCES[self.from_gaia_source],
        }
        return {META_KEY: json.dumps(told).encode()}

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {key: list(value) for key, value in asdict(self).items()}


def gaia_columns(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of position, and the measurements, that a file of GaiaSource has.

    Raises
    ------
    InputError
        If it has no positions.
    """
    names = set(column_names(take_header(byte_lines(path))[1]))
    position = tuple(name for name in POSITION if name in names)
    if position[:2] != POSITION[:2]:
        raise InputError(
            "has no columns ra and dec", where=path, remedy="give the archive's gaia_source"
        )
    measured = [name for name in MEASUREMENTS if names.intersection(MEASURED[name].values)]
    return position, tuple(measured)


class GaiaSource:
    """One file of GaiaSource: where its stars stand, and their photometry.

    Raises
    ------
    InputError
        If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._table = KeyedTable.read(path, (*POSITION, *PHOTOMETRY_COLUMNS))

    def join(self, stars: Stars) -> tuple[Stars, dict[str, NDArray[np.float64]]]:
        """``stars`` with photometry, and the columns :data:`POSITION` as far as the file has them.

        Raises
        ------
        InputError
            If a star is not in the file, or stands nowhere.
        """
        path = self._table.path
        rows, columns = self._table.find(stars.source_id)
        if len(rows) < len(stars):
            absent = np.delete(stars.source_id, rows)
            raise InputError(
                f"lacks {counted(len(absent), 'star')} with spectra, the first: "
                f"source_id {absent[0]}",
                where=path,
                remedy="download it again, or convert without --gaia-source",
            )
        photometry, _ = photometry_of(columns, stars.source_id, path)
        position = {name: columns[name] for name in POSITION if name in columns}
        lost = ~np.isfinite(position["ra"] + position["dec"])
        if lost.any():
            raise InputError(
                "has no position",
                where=f"{path}, source_id {stars.source_id[lost][0]}",
                remedy="download it again, or convert without --gaia-source",
            )
        return stars.with_photometry(photometry), position


def rows_of(stars: Stars, layout: Layout, gaia: GaiaSource | None) -> ArrowTable:
    """A block of stars as the catalogue has them, ``source_id`` first, :data:`INDEX` second.

    Raises
    ------
    InputError
        If the stars have not the layout's numbers of coefficients; as :meth:`GaiaSource.join`.
    """
    import pyarrow as pa
    from hats.pixel_math.spatial_index import compute_spatial_index

    stars = with_widths(stars, layout.widths)
    found = stars.spectra.widths if isinstance(stars.spectra, CoefficientSpectra) else (0, 0)
    if found != layout.widths:
        raise InputError(
            f"{found[0]}+{found[1]} coefficients, where other files have "
            f"{layout.widths[0]}+{layout.widths[1]}",
            where=stars.where,
            remedy="convert the files of each data release by themselves",
        )
    if gaia is None:
        position = dict(zip(PIXEL_POSITION, pixel_centres(stars.source_id), strict=True))
    else:
        stars, position = gaia.join(stars)
    ra, dec = (position[name] for name in layout.position[:2])
    table = to_arrow(stars, layout.measurements, compact=True)
    columns = {"source_id": table["source_id"], INDEX: pa.array(compute_spatial_index(ra, dec))}
    columns |= {name: pa.array(position[name]) for name in layout.position}
    columns |= {name: table[name] for name in table.column_names if name != "source_id"}
    return pa.table(columns).replace_schema_metadata(layout.metadata)


def pixel_centres(
    source_id: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right ascension and declination [N], degrees, of the pixels that source_ids [N] name."""
    from cdshealpix.nested import healpix_to_lonlat

    longitude, latitude = healpix_to_lonlat((source_id >> LEVEL_SHIFT).astype(np.uint64), LEVEL)
    return np.asarray(longitude.deg), np.asarray(latitude.deg)
