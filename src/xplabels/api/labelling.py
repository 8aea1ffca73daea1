"""Label stars by their ids, or in a circle on the sky; their spectra are fetched if necessary."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted
from xplabels.core.prediction import astropy_table
from xplabels.core.stars import Stars
from xplabels.io import read_blocks, write_star_blocks
from xplabels.io.atomic import discard
from xplabels.io.catalogue import check_catalogue
from xplabels.io.forms import source_ids
from xplabels.io.job import read_json
from xplabels.io.tables import read_table
from xplabels.model import DEFAULT_MODEL, Model

if TYPE_CHECKING:
    from astropy.table import Table

    from xplabels.fetch import Archive, FetchSettings, Targets
    from xplabels.pipeline import Summary

logger = logging.getLogger(__name__)

Ids = NDArray[np.int64]

SPECTRA = "xp.parquet"
"""File of spectra in the folder of a fetch; its other Parquet files are tables of photometry."""


def label(
    ids: Any,
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    data: str | Path | None = None,
    archive: Archive | None = None,
    settings: FetchSettings | None = None,
    correlations: bool = False,
) -> Table:
    """Labels of stars by their Gaia source_ids: fetched from the archive and predicted.

    Parameters
    ----------
    ids
        Gaia DR3 source_ids [N], in any order: a list, an array, a column of integers or text.
    model
        A model, its folder, or the name of one that ships.
    data
        Folder in which fetched data are kept, so that they are not fetched again; without it,
        nothing is kept.
    archive, settings
        The archive, by default ESA's, and how requests are made.
    correlations
        Whether to add the correlations of each star's label errors.

    Returns
    -------
    astropy.table.Table
        One row for each star that has a spectrum, in the order of ``ids``, with the columns, units
        and metadata of a catalogue; ``meta["WITHOUT"]`` says how many have none.

    Raises InputError if an id is not an integer, or went through a floating-point number; if no
    star has a spectrum; or if the archive fails in every attempt.

    Examples
    --------
    >>> label([5853498713190525696, 4345775217221821312], data="xp_data")  # doctest: +SKIP
    """
    import pyarrow.parquet as pq

    from xplabels.fetch import Targets

    wanted = source_ids(np.atleast_1d(np.ma.asarray(ids)), "ids")
    wanted = wanted[wanted > 0]
    with tempfile.TemporaryDirectory(prefix="xplabels-") as folder:
        output = Path(folder) / "labels.parquet"
        data = Path(folder) / "data" if data is None else Path(data)
        model = model if isinstance(model, Model) else Model.load(model)
        label_stars(
            Targets.of_ids(wanted), output, model, data=data, archive=archive, settings=settings,
            correlations=correlations,
        )  # fmt: skip
        table = astropy_table(pq.ParquetFile(output).read())
    order = {star: row for row, star in enumerate(dict.fromkeys(wanted.tolist()))}
    table = table[np.argsort([order[star] for star in table["source_id"].tolist()])]
    table.meta["WITHOUT"] = str(len(order) - len(table))
    return table


def label_stars(
    targets: Targets,
    output: Path,
    model: Model,
    *,
    data: Path | None = None,
    archive: Archive | None = None,
    settings: FetchSettings | None = None,
    correlations: bool = False,
    workers: int = 1,
    overwrite: bool = False,
    command: str = "",
) -> Summary:
    """Make the catalogue ``output`` of the stars of ``targets``, fetching spectra if necessary.

    Fetched data are kept in the folder ``data``, where later calls find them; by default in
    ``OUTPUT.data`` until the catalogue is complete. A call that was interrupted can be repeated to
    resume it.

    Raises InputError if the output exists, some ids could not be fetched, or none has a spectrum.
    """
    from xplabels import pipeline
    from xplabels.fetch import Archive

    check_catalogue(output, overwrite)
    archive = archive or Archive()
    folder = output.with_name(f"{output.name}.data") if data is None else data
    ids = _fetched(targets, folder, archive, settings)
    fetches = _fetches(folder, archive)
    tables = [path for fetch in fetches for path in sorted(fetch.glob("*.parquet"))]
    spectra = [path for path in tables if path.name == SPECTRA and _has(path, ids)]
    if not spectra:
        raise InputError(
            f"of {counted(len(ids), 'star')} none has an XP spectrum in the archive",
            where=folder,
            remedy="check that the ids are of this data release",
        )
    with _only(ids, spectra, folder) as inputs:
        with_spectra = np.concatenate([_ids_of(path) for path in inputs])
        options = pipeline.PredictOptions(
            pipeline.AuxiliaryTables(
                tuple(path for path in tables if path.name != SPECTRA and _has(path, with_spectra))
            ),
            correlations=correlations,
            metadata={"COMMAND": command} if command else {},
        )
        summary = pipeline.predict_catalogue(
            pipeline.find_inputs(inputs), output, model, options, workers=workers,
            overwrite=overwrite,
        )  # fmt: skip
    logger.info(f"labels: {counted(summary.stars, 'star')}, {summary.good} good")
    if data is None:
        discard(folder, output)
    return summary


def _fetched(
    targets: Targets, folder: Path, archive: Archive, settings: FetchSettings | None
) -> Ids:
    """Fetch what ``folder`` lacks of the data of the targets, and return their ids.

    Each fetch has a folder in it, named by its ids, so that an interrupted one can be resumed.
    """
    from xplabels.fetch import FetchSettings, Targets, fetch_stars
    from xplabels.fetch.archive import digest_of
    from xplabels.fetch.tap import Tap

    settings = settings or FetchSettings()
    ids = targets.find(Tap(archive.tap, settings.retry))
    missing = ids
    for fetch in _fetches(folder, archive):  # its ids were received, or the archive lacks them
        missing = missing[~np.isin(missing, read_table(fetch / "ids.csv", ())["source_id"])]
    logger.info(f"stars: {len(ids)}, {len(ids) - len(missing)} of them fetched before")
    if len(missing):
        folder.mkdir(exist_ok=True)
        output = folder / digest_of(missing)[:16]
        summary = fetch_stars(Targets.of_ids(missing), output, archive, settings=settings)
        summary.check()
        counts = (f"{name} {count['received']}" for name, count in summary.counts.items())
        logger.info(f"fetched: {', '.join(counts)}")
    return ids


def _fetches(folder: Path, archive: Archive) -> list[Path]:
    """The folders of complete fetches from the same data release, which have no failures."""
    records = ((path.parent, read_json(path) or {}) for path in sorted(folder.glob("*/fetch.json")))
    release = archive.release.title
    return [
        fetch
        for fetch, record in records
        if record.get("complete") and record.get("request", {}).get("release") == release
    ]


@contextlib.contextmanager
def _only(ids: Ids, spectra: Sequence[Path], folder: Path) -> Iterator[list[Path]]:
    """Tables of spectra of only the stars ``ids``; temporary copies if the tables have others."""

    def chosen(path: Path) -> Iterator[Stars]:
        for stars in read_blocks(path):
            rows = np.isin(stars.source_id, ids)
            if rows.any():
                yield stars[rows]

    if all(np.isin(_ids_of(path), ids).all() for path in spectra):
        yield list(spectra)
        return
    from xplabels.fetch.archive import digest_of

    selected = folder / f"{digest_of(ids)[:16]}.selected"
    selected.mkdir(exist_ok=True)
    copies = [selected / f"{path.parent.name}.parquet" for path in spectra]
    for path, copy in zip(spectra, copies, strict=True):
        if not copy.exists():
            write_star_blocks(chosen(path), copy)
    yield copies
    shutil.rmtree(selected)


def _ids_of(path: Path) -> Ids:
    import pyarrow.parquet as pq

    ids: Ids = pq.ParquetFile(path).read(columns=["source_id"])["source_id"].to_numpy()
    return ids


def _has(path: Path, ids: Ids) -> bool:
    return bool(np.isin(_ids_of(path), ids).any())
