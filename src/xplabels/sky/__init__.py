"""Gaia stars and a survey's catalogue, matched on the sky through LSDB (extra ``lsdb``).

Both are read as HATS catalogues, local or remote, one HEALPix partition at a time; the stars may
also be a table in any format. Stars are moved to the catalogue's epoch before they are compared, so
the catalogue's margin has to be as wide as they move; a star that moves farther is flagged FAST.
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

from xplabels.core.duplicates import repeated
from xplabels.core.errors import InputError, counted
from xplabels.io.atomic import whole_file
from xplabels.io.columns import numbers
from xplabels.io.plain import read_columns
from xplabels.sky.crossmatch import ADDED, crossmatch
from xplabels.surveys import SURVEYS
from xplabels.surveys.matching import MatchFlag, describe_matches

logger = logging.getLogger(__name__)

EPOCHS = {
    # AllWISE's motion fits refer to MJD 55400 (Explanatory Supplement, II.1.a)
    "allwise": 2010.5589,
    # positions of the fit with motion refer to MJD 57170 (Marocco et al. 2021)
    "catwise2020": 2015.405,
    # an estimate: two visits of 2010 and eight of 2014-2017 in equal parts (five years of WISE)
    "unwise": 2014.9,
    # an estimate: the middle of the observations, June 1997 to February 2001
    "twomass": 1999.1,
}
"""Survey -> mean epoch of its positions, Julian year."""
EARLIEST, LATEST = 1880.0, 2100.0
"""Epochs between which positions may be, Julian year; 1880 is before the first survey by
photographic plates."""
REQUIRED_COLUMNS = ("source_id", "ra", "dec")
MOTION_COLUMNS = ("pmra", "pmdec", "ref_epoch")
"""Columns of the stars that must be there, and those that are used if they are."""


@dataclass(frozen=True)
class SkyMatches:
    """Stars with a counterpart, in ascending order of source_id."""

    columns: Mapping[str, NDArray[Any]]
    """``source_id``, the catalogue's columns, ``match_separation`` (arcsec, at the catalogue's
    epoch), ``match_count`` (candidates within the radius) and ``match_flags``
    (:class:`~xplabels.surveys.matching.MatchFlag`)."""
    stars: int  # how many there were, with a counterpart or without

    def summary(self) -> str:
        """Counts, for the terminal."""
        matches = len(self.columns["source_id"])
        return (
            f"{describe_matches(matches, self.columns['match_flags'])}; "
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
        Further columns to keep.
    workers
        Processes; 1: this one only.

    Raises :class:`InputError` if LSDB is not installed, a catalogue cannot be read, lacks columns
    or a margin, the margin is narrower than the radius, or a source_id has several rows.
    """
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"the radius {radius:g} arcsec is not positive")
    if epoch is None:
        if survey not in EPOCHS:
            raise InputError(f"no epoch is known of {survey!r}", remedy="give --epoch YEAR")
        epoch = EPOCHS[survey]
    if not EARLIEST <= epoch <= LATEST:
        raise InputError(
            f"the epoch {epoch:g} is not a year of a survey", remedy="give one as 2010.5"
        )
    # LSDB's warnings of slow performance and of stars without margins are not for our users
    with warnings.catch_warnings(action="ignore"), _workers(workers):
        left, count = _stars(stars)
        right = _catalogue(catalogue, margin, survey, more_columns)
        threshold = right.margin.hc_structure.catalog_info.margin_threshold
        if threshold < radius:
            raise InputError(
                f"its margin of {threshold:g} arcsec is narrower than the radius {radius:g}",
                where=catalogue,
                remedy="give a smaller radius, or a wider margin with --margin",
            )
        try:
            joined = left.crossmatch(
                right,
                algorithm=crossmatch(radius, epoch),
                suffixes=("_star", ""),
                suffix_method="all_columns",
            )
        except RuntimeError as error:
            if "overlap" not in str(error):
                raise
            logger.warning("%s and %s have no part of the sky in common", stars, catalogue)
            empty = {name.lower(): np.empty(0, kind) for name, kind in _column_types(right).items()}
            return SkyMatches({"source_id": np.empty(0, np.int64), **empty}, count)
        frame = joined.compute(progress_bar=False).sort_values("source_id_star", kind="stable")
    if frame["source_id_star"].duplicated().any():
        raise InputError(
            "a source_id stands in several rows", where=stars, remedy="keep one row per star"
        )
    columns = {"source_id": frame["source_id_star"].to_numpy(np.int64)}
    for name in frame.columns:
        if not name.endswith("_star") and name not in ADDED:
            columns[name.lower()] = frame[name].to_numpy()
    columns |= {name: frame[name].to_numpy(kind) for name, kind in ADDED.items()}
    info = right.hc_structure.catalog_info
    position = frame[[info.ra_column, info.dec_column]].to_numpy(np.float64)
    # rows of the catalogue have no identifier here: the same position is the same row. A pair of
    # floats is viewed as one complex number, so that pairs can be compared
    shared = repeated(np.ascontiguousarray(position).view(np.complex128)[:, 0])
    flags = columns["match_flags"] | np.where(shared, MatchFlag.SHARED, 0)
    return SkyMatches(columns | {"match_flags": flags.astype(np.uint8)}, count)


def _column_types(catalogue: Any) -> dict[str, Any]:
    """The columns of matches with a catalogue, but for source_id, and their numpy types."""
    types: dict[str, Any] = {}
    for name, dtype in catalogue.dtypes.items():
        # pandas' types that wrap Arrow's have a numpy type, too
        numpy_type = object if dtype.kind == "O" else getattr(dtype, "numpy_dtype", dtype)
        types[name] = np.dtype(numpy_type)
    return types | ADDED | {"match_flags": np.uint8}


def write_matches(matches: SkyMatches, path: Path, overwrite: bool = False) -> None:
    """Write the matches as Parquet, to be read as a table of the survey (``--table``)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with whole_file(path, overwrite) as temporary:
        table = pa.table(dict(matches.columns))
        pq.write_table(table, temporary, compression="zstd", compression_level=3)


@contextlib.contextmanager
def _workers(number: int) -> Iterator[None]:
    """This process (1), or a Dask cluster of ``number`` processes on this machine."""
    try:
        import dask
        import lsdb  # noqa: F401
    except ImportError:
        raise InputError(
            "matching on the sky needs LSDB", remedy="pip install 'xplabels[lsdb]'"
        ) from None
    if number == 1:
        with dask.config.set(scheduler="synchronous"):
            yield
        return
    from dask.distributed import Client

    with Client(
        n_workers=number,
        threads_per_worker=1,
        dashboard_address=None,
        memory_limit=None,
        silence_logs=logging.ERROR,
    ):
        yield


def _stars(path: str | Path) -> tuple[Any, int]:
    """The stars as an LSDB catalogue, and their number."""
    import lsdb
    import pandas as pd

    wanted = (*REQUIRED_COLUMNS, *MOTION_COLUMNS)
    remedy = "give a table with source_id, ra and dec (deg), such as gaia_source"
    if "://" in str(path) or Path(path).is_dir():
        left = _open(path)
        _check_columns(left.columns, REQUIRED_COLUMNS, path, remedy)
        return left[[name for name in wanted if name in left.columns]], len(left)
    columns = read_columns(path, wanted)
    _check_columns(columns, REQUIRED_COLUMNS, path, remedy)
    frame = pd.DataFrame(
        {
            name: values if name == "source_id" else numbers(columns, name, path)
            for name, values in columns.items()
        }
    )
    frame = frame[frame.source_id > 0]
    on_sky = frame.ra.between(0, 360) & frame.dec.between(-90, 90)
    if not on_sky.all():
        left_out = counted(int((~on_sky).sum()), "row")
        logger.warning("%s: %s without a position on the sky (ra, dec) left out", path, left_out)
    frame = frame[on_sky]
    if frame.empty:
        raise InputError(
            "no row has a source_id and a position on the sky", where=path, remedy="mend ra and dec"
        )
    # stars need no margin, as each is compared with the survey's partition and its margin
    left = lsdb.from_dataframe(frame, ra_column="ra", dec_column="dec", margin_threshold=None)
    return left, len(frame)


def _catalogue(
    path: str | Path, margin: str | Path | None, survey: str, more_columns: Collection[str]
) -> Any:
    """The survey's catalogue, with its margin and the columns to keep."""
    right = _open(path, **({} if margin is None else {"margin_cache": str(margin)}))
    if right.margin is None:
        raise InputError(
            "has no margin, so that matches across the borders of its partitions would be lost",
            where=path,
            remedy="open the collection it belongs to, or name its margin with --margin",
        )
    info, its_survey = right.hc_structure.catalog_info, SURVEYS[survey]
    wanted = {*its_survey.columns, *its_survey.masks, its_survey.key, *more_columns}
    kept = [name for name in right.columns if name.lower() in wanted]
    if not any(name.lower() in its_survey.columns for name in kept):
        raise InputError(
            f"has none of the columns {', '.join(its_survey.columns)}",
            where=path,
            remedy=f"check that it is a catalogue of {its_survey.title}",
        )
    remedy = f"name columns of the catalogue: {', '.join(map(str, right.columns))}"
    _check_columns(right.columns, more_columns, path, remedy)
    return right[list(dict.fromkeys([info.ra_column, info.dec_column, *kept]))]


def _open(path: str | Path, **options: Any) -> Any:
    import lsdb

    try:
        return lsdb.open_catalog(str(path), columns="all", **options)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise InputError(
            f"cannot be read as a HATS catalogue ({reason})",
            where=path,
            remedy="give the folder or address that holds its properties",
        ) from error


def _check_columns(
    columns: Collection[str], names: Collection[str], path: str | Path, remedy: str
) -> None:
    for name in names:
        if name not in columns:
            raise InputError(f"column {name!r} is absent", where=path, remedy=remedy)
