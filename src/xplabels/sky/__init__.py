"""Gaia stars and a survey's catalogue, matched on the sky through LSDB (extra ``lsdb``).

Both are read as HATS catalogues, local or remote, one HEALPix partition at a time; a table of
stars will do as well. Stars are moved to the catalogue's epoch before they are compared, so the
catalogue's margin has to reach as far as they move: a star that moves farther is flagged FAST.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.io.atomic import check_output, whole_file
from xplabels.io.plain import read_columns
from xplabels.sky.crossmatch import Moving, lsdb_algorithm
from xplabels.surveys import SURVEYS
from xplabels.surveys.matching import MatchFlag, shared, told

REFERENCE_EPOCH = 2016.0
"""Of Gaia DR3 positions, Julian year, where a table has no column ``ref_epoch``."""
EPOCHS = {
    # AllWISE's motion fits refer to MJD 55400 (Explanatory Supplement, II.1.a)
    "allwise": 2010.5589,
    # an estimate: two visits of 2010 and eight of 2014-2017 in equal parts (five years of WISE)
    "unwise": 2014.9,
    # an estimate: the middle of the observations, June 1997 to February 2001
    "twomass": 1999.1,
}
"""Mean epoch of a catalogue's positions, Julian year."""
LEFT = ("source_id", "ra", "dec", "pmra", "pmdec", "ref_epoch")
REMEDY = "pip install xplabels[lsdb]"

Catalogue = Any
"""An LSDB catalogue."""
Frame = Any
"""A pandas data frame."""


@dataclass(frozen=True)
class SkyMatches:
    """Stars with a counterpart, in ascending order of source_id.

    Attributes
    ----------
    columns
        ``source_id``, the catalogue's columns, ``match_separation`` (arcsec, at the catalogue's
        epoch), ``match_count`` (candidates within the radius) and ``match_flags``
        (:class:`~xplabels.surveys.matching.MatchFlag`).
    stars
        How many stars there were.
    """

    columns: Mapping[str, NDArray[Any]]
    stars: int

    def told(self) -> str:
        """Counts, for the terminal."""
        matches = len(self.columns["source_id"])
        return (
            f"{told(matches, self.columns['match_flags'])}; "
            f"{self.stars - matches} of {self.stars} stars have no counterpart"
        )


def match_on_sky(
    stars: str | Path,
    catalogue: str | Path,
    *,
    survey: str,
    radius: float,
    epoch: float | None = None,
    margin: str | Path | None = None,
    more_columns: Collection[str] = (),
    workers: int = 1,
) -> SkyMatches:
    """The nearest row of a survey's catalogue within ``radius`` of each Gaia star.

    Parameters
    ----------
    stars
        A HATS catalogue (folder or address) or a table of any format, with ``source_id, ra, dec``
        (degrees), and ``pmra, pmdec`` (mas/yr; NaN: not moved), ``ref_epoch`` if it has them.
    catalogue
        A HATS catalogue (folder or address) with a margin.
    survey
        One of :data:`~xplabels.surveys.PHOTOMETRIC`: which columns are kept.
    radius
        Arcsec.
    epoch
        Of the catalogue's positions, Julian year; None: that of :data:`EPOCHS`.
    margin
        The catalogue's margin, if it is not part of a collection.
    more_columns
        Columns to keep besides.
    workers
        Processes; 1: this one only.

    Raises
    ------
    InputError
        If LSDB is not installed, a catalogue cannot be read, lacks columns or a margin, the
        margin is narrower than the radius, or a source_id stands in several rows.
    """
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"the radius {radius:g} arcsec is not positive")
    if epoch is None:
        if survey not in EPOCHS:
            raise InputError(f"no epoch is known of {survey!r}", remedy="give --epoch YEAR")
        epoch = EPOCHS[survey]
    with _quiet():
        lsdb = _lsdb()
    with _quiet(), _workers(workers):
        left, count = _stars(lsdb, stars)
        right = _catalogue(lsdb, catalogue, margin, survey, more_columns)
        threshold = right.margin.hc_structure.catalog_info.margin_threshold
        if threshold < radius:
            raise InputError(
                f"its margin of {threshold:g} arcsec is narrower than the radius {radius:g}",
                where=catalogue,
                remedy="give a smaller radius, or a wider margin with --margin",
            )
        algorithm = lsdb_algorithm(Moving(radius, epoch, REFERENCE_EPOCH))
        joined = left.crossmatch(
            right, algorithm=algorithm, suffixes=("_star", ""), suffix_method="all_columns"
        )
        return _gathered(joined.compute(progress_bar=False), count, stars)


def write_matches(matches: SkyMatches, path: Path, overwrite: bool = False) -> None:
    """Write the matches as Parquet, to be read as a table of the survey (``--table``).

    Raises
    ------
    InputError
        If ``path`` exists and ``overwrite`` is false, is not named ``.parquet``, or cannot be
        written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_matches(path, overwrite)
    with whole_file(path, overwrite) as temporary:
        pq.write_table(
            pa.table(dict(matches.columns)), temporary, compression="zstd", compression_level=3
        )


def check_matches(path: Path, overwrite: bool = False) -> None:
    """Raise :class:`InputError` unless ``path`` may be written, before any work."""
    if path.suffix.lower() != ".parquet":
        raise InputError("matches are Parquet", where=path, remedy="end its name in .parquet")
    check_output(path, overwrite)


def _lsdb() -> Any:
    try:
        import lsdb
    except ImportError:
        raise InputError("matching on the sky needs LSDB", remedy=REMEDY) from None
    return lsdb


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without LSDB's advice to its own users (on performance, on margins of the stars)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _workers(number: int) -> Iterator[None]:
    """One process, or a Dask cluster of some on this machine."""
    import dask

    if number == 1:
        with dask.config.set(scheduler="synchronous"):
            yield
        return
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            dashboard_address=None,
            memory_limit=None,
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster),
    ):
        yield


def _stars(lsdb: Any, path: str | Path) -> tuple[Catalogue, int]:
    """The stars, and how many they are."""
    if _is_hats(path):
        left = _open(lsdb, path, columns="all")
        _check_columns(left, ("source_id", "ra", "dec"), path)
        return left[[name for name in LEFT if name in left.columns]], len(left)
    import pandas as pd

    columns = read_columns(path, LEFT, {"source_id": 0})
    for name in ("source_id", "ra", "dec"):
        if name not in columns:
            raise InputError(
                f"column {name!r} is absent",
                where=path,
                remedy="give a table with source_id, ra and dec (deg), such as gaia_source",
            )
    frame = pd.DataFrame(columns)
    frame = frame[frame.source_id > 0]
    return lsdb.from_dataframe(frame, ra_column="ra", dec_column="dec"), len(frame)


def _catalogue(
    lsdb: Any,
    path: str | Path,
    margin: str | Path | None,
    survey: str,
    more_columns: Collection[str],
) -> Catalogue:
    options = {} if margin is None else {"margin_cache": str(margin)}
    right = _open(lsdb, path, columns="all", **options)
    if right.margin is None:
        raise InputError(
            "has no margin, so that matches across the borders of its partitions would be lost",
            where=path,
            remedy="open the collection it belongs to, or name its margin with --margin",
        )
    info = right.hc_structure.catalog_info
    known = SURVEYS[survey]
    wanted = {*known.columns, *known.bits, known.key, *more_columns}
    chosen = [name for name in right.columns if name.lower() in wanted]
    if not any(name.lower() in known.columns for name in chosen):
        raise InputError(
            f"has none of the columns {', '.join(known.columns)}",
            where=path,
            remedy=f"check that it is a catalogue of {known.title}",
        )
    _check_columns(right, more_columns, path)
    place = [info.ra_column, info.dec_column]
    return right[[*place, *(name for name in chosen if name not in place)]]


def _open(lsdb: Any, path: str | Path, **options: Any) -> Catalogue:
    try:
        return lsdb.open_catalog(str(path), **options)
    except (OSError, ValueError, KeyError, TypeError) as error:
        first = (str(error).splitlines() or ["unreadable"])[0]
        raise InputError(
            f"cannot be read as a HATS catalogue ({first})",
            where=path,
            remedy="give the folder or address that holds its properties",
        ) from error


def _is_hats(path: str | Path) -> bool:
    return "://" in str(path) or Path(path).is_dir()


def _check_columns(catalogue: Catalogue, names: Collection[str], path: str | Path) -> None:
    for name in names:
        if name not in catalogue.columns:
            raise InputError(
                f"column {name!r} is absent",
                where=path,
                remedy=f"name columns of the catalogue: {', '.join(map(str, catalogue.columns))}",
            )


def _gathered(frame: Frame, stars: int, where: object) -> SkyMatches:
    """The joined rows in order of source_id, with candidates of several stars flagged."""
    frame = frame.sort_values("source_id_star", kind="stable")
    source_id = frame["source_id_star"].to_numpy(np.int64)
    if len(np.unique(source_id)) != len(source_id):
        raise InputError(
            "a source_id stands in several rows", where=where, remedy="keep one row a star"
        )
    flags = frame["match_flags"].to_numpy(np.int64).astype(np.uint8)
    flags[shared(frame["match_row"].to_numpy(np.int64))] |= np.uint8(MatchFlag.SHARED)
    mine = ("match_separation", "match_count", "match_flags", "match_row")
    columns: dict[str, NDArray[Any]] = {"source_id": source_id}
    for name in frame.columns:
        if not name.endswith("_star") and name not in mine:
            columns[name.lower()] = frame[name].to_numpy()
    columns["match_separation"] = frame["match_separation"].to_numpy(np.float64)
    columns["match_count"] = frame["match_count"].to_numpy(np.int64)
    columns["match_flags"] = flags
    return SkyMatches(columns, stars)
