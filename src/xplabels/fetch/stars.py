"""Fetch stars by id, cone or query into a folder of tables, which accounts for every id."""

from __future__ import annotations

import csv
import json
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from xplabels import __version__
from xplabels.core.errors import InputError, counted
from xplabels.core.stars import Stars, concatenate, with_widths
from xplabels.fetch.archive import MOST_IDS, Archive, Ids
from xplabels.fetch.checking import compare
from xplabels.fetch.datalink import DataLink
from xplabels.fetch.http import RetryPolicy, ServiceError, check_installed, in_parallel
from xplabels.fetch.partners import find_partners
from xplabels.fetch.products import SPECTRA, Present, Product, products_of
from xplabels.fetch.state import (
    ABSENT,
    ACCOUNT,
    FAILED,
    RECEIVED,
    RECORD,
    FetchState,
    IdStatus,
    Response,
)
from xplabels.fetch.tap import Tap
from xplabels.fetch.targets import Targets
from xplabels.io import read_stars, write_star_blocks
from xplabels.io.atomic import alone
from xplabels.io.parquet import COMPRESSION_LEVEL, ROW_GROUP
from xplabels.io.rows import BANDS
from xplabels.releases import NAMES, SOURCES, Release, using

logger = logging.getLogger(__name__)

FORMAT = 1
MOST_TAP_FAILURES = 3
"""Chunks of ids that may fail in a row, each in every attempt, before no more are asked for."""


@dataclass(frozen=True)
class FetchSettings:
    """How requests are made; nothing here changes what is fetched."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    chunk: int = MOST_IDS  # ids per request for spectra
    tap_chunk: int = 50_000  # ids uploaded with one query for a table
    parallel: int = 2  # requests for spectra at the same time
    progress: bool = True  # bars

    def __post_init__(self) -> None:
        if not 1 <= self.chunk <= MOST_IDS:
            raise InputError(
                f"{self.chunk} ids per request are not allowed", remedy=f"choose 1 to {MOST_IDS}"
            )
        for name in ("tap_chunk", "parallel"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", remedy="choose 1 or more")


@dataclass(frozen=True)
class FetchRun:
    """One fetch from an archive, whose tables and columns are ``present``, into ``state``."""

    state: FetchState
    archive: Archive
    settings: FetchSettings
    tap: Tap
    present: Present

    def fetch(self, name: str) -> None:
        """Fetch one product for the ids that are not accounted for yet, into :attr:`state`."""
        spectra = name == SPECTRA
        all_ids = self.state.ids
        published = self._published() if spectra else dict.fromkeys(all_ids)
        # an id counts as failed until an answer says otherwise
        failed = (star for star in all_ids if self.state.status(name, star).status == FAILED)
        to_fetch = np.array([star for star in failed if star in published], np.int64)
        if not len(to_fetch):
            return
        answers = self._spectra(to_fetch, published) if spectra else self._rows(name, to_fetch)
        with tqdm(
            total=len(all_ids), initial=len(all_ids) - len(to_fetch), desc=name, unit=" stars",
            disable=not self.settings.progress,
        ) as bar:  # fmt: skip
            for ids, response in answers:
                self.state.record(name, response)
                bar.update(len(ids) - len(response.failed))

    def _rows(self, name: str, to_fetch: Ids) -> Iterator[tuple[Ids, Response]]:
        product = Product.of(name, self.archive.release, self.present)
        failures = 0
        for ids in _chunks(to_fetch, self.settings.tap_chunk):
            try:
                response = self._query(product, ids)
                failures = 0
            except ServiceError as error:
                response = Response(failed=dict.fromkeys(ids.tolist(), error.what))
                failures += 1
            yield ids, response
            if failures == MOST_TAP_FAILURES:
                return

    def _query(self, product: Product, ids: Ids) -> Response:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        response = Response()
        for query in product.queries:
            answer = self.tap.query(query.adql(), ids, most=len(ids) + 1)
            table = product.to_arrow(answer, query)
            table = table.filter(pc.is_in(table.column("source_id"), pa.array(ids)))
            received: Ids = table.column("source_id").to_numpy()
            if len(received):
                response.parts.append((received, partial(pq.write_table, table)))
            ids = ids[~np.isin(ids, received)]
            if not len(ids):
                break
        response.absent = dict.fromkeys(ids.tolist(), product.absence)
        return response

    def _spectra(
        self, to_fetch: Ids, published: dict[int, bool | None]
    ) -> Iterator[tuple[Ids, Response]]:
        stop = threading.Event()
        datalink = DataLink(self.archive, self.settings.retry, self.state.folder, stop)
        datalink.choose_words(to_fetch)

        def request(ids: Ids) -> Response:
            response, left_out = datalink.spectra(ids)
            for star in left_out:
                if published[star]:
                    response.failed[star] = "the archive has its spectrum but leaves it out"
                else:
                    response.absent[star] = "the archive returns no XP spectrum of it"
            return response

        chunks = _chunks(to_fetch, self.settings.chunk)
        return in_parallel(request, chunks, self.settings.parallel, stop)

    def _published(self) -> dict[int, bool | None]:
        """Ids to ask for -> whether the archive has a spectrum; None if it does not say.

        For all other ids, the status is set here: without a spectrum, or not in gaia_source.
        """
        import pyarrow.parquet as pq

        status, release = self.state.products[SPECTRA], self.archive.release
        has_spectrum: dict[int, bool | None] = {}
        for path in self.state.files[SOURCES]:
            rows = pq.read_table(path)
            ids = rows["source_id"].to_pylist()
            column = release.has_spectrum
            flags = rows[column].to_pylist() if column in rows.column_names else [None] * len(ids)
            has_spectrum |= dict(zip(ids, flags, strict=True))
        table = release.tables_of(SOURCES)[0].name
        for star in self.state.ids:
            if has_spectrum.get(star) is False:
                status[star] = IdStatus(ABSENT, "the archive has no XP spectrum of it")
            elif self.state.status(SOURCES, star).status == ABSENT:
                status[star] = self.state.status(SOURCES, star)
            elif star not in has_spectrum:
                status[star] = IdStatus(FAILED, f"{table} could not be asked")
        return {star: flag for star, flag in has_spectrum.items() if flag is not False}


def _chunks(ids: Ids, size: int) -> list[Ids]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


@dataclass(frozen=True)
class FetchSummary:
    """Counts of a fetch into the folder ``output``."""

    output: Path
    ids: int  # stars asked for
    counts: dict[str, dict[str, int]]  # product -> status -> ids; for each product they add up
    reasons: tuple[tuple[str, str, int], ...] = ()  # of failures, common ones first, with counts

    @property
    def complete(self) -> bool:
        """Whether no id failed."""
        return not any(counts[FAILED] for counts in self.counts.values())

    def to_text(self) -> str:
        """A table of counts."""
        head = f"{'':12}{RECEIVED:>10}{ABSENT:>10}{FAILED:>10}"
        rows = [
            f"{product:12}" + "".join(f"{c[status]:10d}" for status in (RECEIVED, ABSENT, FAILED))
            for product, c in self.counts.items()
        ]
        return "\n".join([f"{counted(self.ids, 'star')} asked for", head, *rows])

    def check(self) -> None:
        """Raise :class:`InputError` if an id failed."""
        if not self.complete:
            why = "; ".join(f"{count} of {name}: {why}" for name, why, count in self.reasons[:3])
            raise InputError(
                f"some ids failed ({why})",
                where=self.output / ACCOUNT,
                remedy="repeat the command to request them",
            )


@alone
def fetch_stars(
    targets: Targets,
    output: str | Path,
    archive: Archive | None = None,
    products: Sequence[str] | None = None,
    settings: FetchSettings | None = None,
    overwrite: bool = False,
) -> FetchSummary:
    """Fetch spectra and photometry of stars from an archive.

    Parameters
    ----------
    output
        Folder to make: ``xp.parquet`` (a star table of this package), ``gaia_source.parquet``,
        ``tmass.parquet``, ``allwise.parquet`` (the archive's column names, one row per star,
        keyed by ``source_id``), ``ids.csv`` (what became of each id) and ``fetch.json`` (the
        request and its counts). If the ids are of another release there is
        ``OTHER_neighbourhood.parquet``, too (see :func:`~xplabels.fetch.partners.find_partners`).
        While the fetch lasts, ``OUTPUT.partial`` holds what has been received; the same call
        resumes from there, also for ids that failed in all attempts.
    archive
        ESA's with DR3 by default.
    products
        Some of those that the release declares and ``xp`` (default: all). ``gaia_source`` is always
        fetched, since it says which stars exist and which have spectra.
    overwrite
        Replace an output of another request, or fetch a complete one again.

    Raises :class:`InputError` if the output is of another request, or another run is making it; if
    the service refuses the request, or lacks a table or column that is declared and needed
    (checked before anything is downloaded); or if the extra ``archive`` is missing.
    """
    check_installed()
    archive, settings = archive or Archive(), settings or FetchSettings()
    available = products_of(archive.release)
    products = available if products is None else products
    for name in products:
        if name not in available:
            raise InputError(f"no product {name!r}", remedy=f"choose of {', '.join(available)}")
    chosen = [name for name in available if name in products or name == SOURCES]
    request = {
        "format": FORMAT,
        "stars": targets.to_dict(),
        "products": chosen,
        "release": archive.release.title,
        "tap": archive.tap,
        "datalink": archive.datalink,
    }
    if archive.release.file.stem not in NAMES:
        request["declaration"] = archive.release.digest
    state = FetchState(Path(output), request)
    finished = None if overwrite else state.finished()
    if finished is not None:
        state.discard()
        return FetchSummary(Path(output), finished["ids"], finished["counts"])
    release, tap = archive.release, Tap(archive.tap, settings.retry)
    found_partners = None
    labels = {table.label for name in chosen for table in release.tables_of(name)}
    if targets.ids_release:
        labels.add(_ids_table(targets.ids_release, release))
    service = compare(release, tap, labels)
    service.check()
    if targets.ids_release and targets.ids is not None:
        found_partners = find_partners(
            targets.ids, targets.ids_release, release, tap, service.present, settings.tap_chunk
        )
        logger.info("%s", found_partners.text)
    with state.opened(overwrite), using(release.file):
        if not state.ids:
            state.set_ids(targets.find(tap) if found_partners is None else found_partners.ids)
        run = FetchRun(state, archive, settings, tap, service.present)
        for name in chosen:
            run.fetch(name)
        more = {}
        if found_partners is not None:
            more[f"{targets.ids_release}_neighbourhood"] = found_partners.table
        return _publish(state, chosen, more)


def _ids_table(other: str, release: Release) -> str:
    if other not in release.ids:
        raise InputError(
            f"{release.title} has no table of ids of {other!r}",
            where=release.file,
            remedy=f"choose of {', '.join(release.ids) or 'none'}, or add it under [ids]",
        )
    return release.ids[other].label


def _publish(state: FetchState, products: Sequence[str], more: Mapping[str, Any]) -> FetchSummary:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = state.folder / "whole"
    whole.mkdir()
    for name in products:
        files, path = state.files[name], whole / f"{name}.parquet"
        if files and name == SPECTRA:
            write_star_blocks(_sorted_blocks(files), path)
        elif files:
            table = pa.concat_tables(pq.read_table(file) for file in files)
            table = table.sort_by("source_id").combine_chunks()
            pq.write_table(table, path, compression="zstd", compression_level=COMPRESSION_LEVEL)
    for name, table in more.items():
        pq.write_table(table, whole / f"{name}.parquet")
    counts = {name: {RECEIVED: 0, ABSENT: 0, FAILED: 0} for name in products}
    failures: Counter[tuple[str, str]] = Counter()
    with (whole / ACCOUNT).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["source_id", *products, "reason"])
        for one in state.ids:
            row = {name: state.status(name, one) for name in products}
            for name, (status, reason) in row.items():
                counts[name][status] += 1
                if status == FAILED:
                    failures[name, reason] += 1
            why = "; ".join(f"{name}: {reason}" for name, (_, reason) in row.items() if reason)
            writer.writerow([one, *(status for status, _ in row.values()), why])
    ordered = sorted(failures.most_common(), key=lambda item: products.index(item[0][0]))
    reasons = tuple((*key, count) for key, count in ordered)
    summary = FetchSummary(state.output, len(state.ids), counts, reasons)
    record: dict[str, Any] = {
        "request": state.request,
        "xplabels": __version__,
        "ids": summary.ids,
        "counts": counts,
        "complete": summary.complete,
    }
    (whole / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    state.publish(whole, keep=not summary.complete)
    return summary


def _sorted_blocks(files: Sequence[Path]) -> Iterator[Stars]:
    """The stars of ``files`` sorted by source_id, a row group at a time.

    The files' ranges of source_id may overlap, as ids were asked for again. Each file is in memory
    from the first block that needs it to the last.
    """
    import pyarrow.parquet as pq

    ids = [pq.read_table(file, columns=["source_id"])["source_id"].to_numpy() for file in files]
    all_ids = np.concatenate(ids)
    file_of = np.repeat(np.arange(len(files)), [len(file_ids) for file_ids in ids])
    order = np.argsort(all_ids)
    # all blocks get bands of the same widths; a band that no star of a file has is null there
    types = [[pq.read_schema(f).field(f"{b}_coefficients").type for b in BANDS] for f in files]
    bp, rp = np.array([[getattr(kind, "list_size", 0) for kind in row] for row in types]).max(0)
    in_memory: dict[int, Stars] = {}
    for start in range(0, len(order), ROW_GROUP):
        rows = order[start : start + ROW_GROUP]
        parts = []
        for n in np.unique(file_of[rows]).tolist():
            if n not in in_memory:
                in_memory[n] = with_widths(read_stars(files[n]), (int(bp), int(rp)))
            stars = in_memory[n]
            parts.append(stars[np.flatnonzero(np.isin(stars.source_id, all_ids[rows]))])
        block = concatenate(parts)
        yield block[np.argsort(block.source_id)]
        last = all_ids[rows[-1]]
        in_memory = {n: stars for n, stars in in_memory.items() if ids[n].max() > last}
