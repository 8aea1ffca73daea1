"""Two catalogues of one made sky, with the truth of which source is which star."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.sky.crossmatch import ARCSEC_PER_DEGREE, propagate

STARS_NAME, SOURCES_NAME = "gaia", "unwise"


@dataclass(frozen=True)
class MadeSky:
    """Simulated stars and infrared sources.

    Columns of N stars at J2016.0 (degrees, mas/yr) and of M sources at ``epoch`` (Julian year);
    ``counterpart`` [N] is the row of each star's source, or -1 where it has none.
    """

    stars: dict[str, NDArray[Any]]
    sources: dict[str, NDArray[Any]]
    counterpart: NDArray[np.int64]
    epoch: float


def make_sky(
    stars: int,
    seed: int = 0,
    *,
    area: float = 4.0,
    epoch: float = 2010.5,
    detected: float = 0.8,
    unrelated: float = 1.0,
    position_error: float = 0.15,
) -> MadeSky:
    """A square field about (ra, dec) = (0, 0), where HEALPix's base pixels meet.

    ``stars`` in ``area`` square degrees, the share ``detected`` of which has a source, at ``epoch``
    (Julian year) with ``position_error`` (arcsec, standard deviation along each axis); and
    ``unrelated`` sources per star that are no star's.
    """
    rng = np.random.default_rng(seed)
    half = np.sqrt(area) / 2

    def positions(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return rng.uniform(-half, half, count) % 360, rng.uniform(-half, half, count)

    ra, dec = positions(stars)
    # most stars crawl; one in fifty has a motion of 0.1 to 3 arcsec/yr
    speed = np.where(
        rng.random(stars) < 0.02, 10 ** rng.uniform(2, 3.5, stars), rng.exponential(8.0, stars)
    )
    angle = rng.uniform(0, 2 * np.pi, stars)
    pmra, pmdec = speed * np.sin(angle), speed * np.cos(angle)
    seen = np.flatnonzero(rng.random(stars) < detected)
    x, y, z = propagate(ra[seen], dec[seen], pmra[seen], pmdec[seen], epoch - 2016.0).T
    there_ra, there_dec = np.degrees(np.arctan2(y, x)), np.degrees(np.arcsin(z))
    noise = rng.normal(0, position_error / ARCSEC_PER_DEGREE, (2, len(seen)))
    others_ra, others_dec = positions(int(unrelated * stars))
    source_ra = np.concatenate([(there_ra + noise[0]) % 360, others_ra])
    source_dec = np.concatenate([there_dec + noise[1], others_dec])
    order = rng.permutation(len(source_ra))
    counterpart = np.full(stars, -1, np.int64)
    counterpart[seen] = np.argsort(order)[: len(seen)]
    flux = 10 ** rng.uniform(2, 5, len(order))
    return MadeSky(
        {
            "source_id": 4_000_000_000_000_000_000 + rng.permutation(stars),
            "ra": ra, "dec": dec, "pmra": pmra, "pmdec": pmdec,
        },
        {
            "unwise_objid": np.array([f"made{row:012d}" for row in range(len(order))]),
            "ra": source_ra[order], "dec": source_dec[order],
            "flux_w1": flux, "dflux_w1": 0.01 * flux, "flux_w2": 0.5 * flux,
            "dflux_w2": 0.01 * flux,
        },
        counterpart,
        epoch,
    )  # fmt: skip


def write_hats(sky: MadeSky, folder: Path, margin: float, partitions: int = 12) -> None:
    """Both catalogues as HATS collections ``gaia`` and ``unwise`` in an existing folder (LSDB).

    ``margin`` is that of the sources' partitions, arcsec; there are about so many partitions.
    """
    import lsdb
    import pandas as pd

    level = {"compression": "zstd", "compression_level": 3}
    for name, columns in ((STARS_NAME, sky.stars), (SOURCES_NAME, sky.sources)):
        catalogue = lsdb.from_dataframe(
            pd.DataFrame(columns),
            ra_column="ra",
            dec_column="dec",
            catalog_name=name,
            # stars need none: the sources come to them
            margin_threshold=margin if name == SOURCES_NAME else None,
            partition_rows=max(len(columns["ra"]) // partitions, 100),
        )
        catalogue.write_catalog(
            folder / name, as_collection=True, write_table_kwargs=level, progress_bar=False
        )
