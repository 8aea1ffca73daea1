"""The requests of one fetch: what the ledger lacks is asked for, what comes is written down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from xplabels.core.errors import InputError
from xplabels.fetch.archive import MOST_IDS, Archive
from xplabels.fetch.datalink import DataLink, Response, stacked
from xplabels.fetch.ids import Targets
from xplabels.fetch.products import GAIA_SOURCE, SPECTRA, TABLES, Product
from xplabels.fetch.retry import RetryPolicy, ServiceError
from xplabels.fetch.state import FetchState, IdStatus
from xplabels.fetch.tap import Tap, asked
from xplabels.io import write_stars
from xplabels.io.atomic import whole_file

Ids = NDArray[np.int64]
TAP_STRIKES = 3
"""Chunks of ids that fail in a row, each in every attempt, before no more are asked for."""


@dataclass(frozen=True)
class Settings:
    """How to ask; nothing here changes what is fetched.

    Attributes
    ----------
    patience
        What is bearable of a service.
    chunk
        Ids a request for spectra, at most :data:`~xplabels.fetch.archive.MOST_IDS`.
    tap_chunk
        Ids uploaded with one query for a table.
    parallel
        Requests for spectra at the same time.
    progress
        Show progress bars.
    """

    patience: RetryPolicy = field(default_factory=RetryPolicy)
    chunk: int = MOST_IDS
    tap_chunk: int = 50_000
    parallel: int = 2
    progress: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.chunk <= MOST_IDS:
            raise InputError(
                f"{self.chunk} ids a request are not allowed", remedy=f"choose 1 to {MOST_IDS}"
            )
        for name in ("tap_chunk", "parallel"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", remedy="choose 1 or more")


class FetchRun:
    """One run: asks for what the ledger lacks."""

    def __init__(
        self, wanted: Targets, ledger: FetchState, archive: Archive, settings: Settings
    ) -> None:
        self.ledger, self.archive, self.settings = ledger, archive, settings
        self.stop = threading.Event()
        self.tap = Tap(archive.tap, settings.patience, self.stop)
        found = ledger.ids()
        if found is None:
            found = wanted.find(self.tap)
            ledger.write_ids(found)
        self.ids: Ids = found
        self.accounts: dict[str, IdStatus] = {}

    def run(self, products: Sequence[str]) -> None:
        """Ask for the products, in their order; ``accounts`` tells what became of each id."""
        for name in products:
            self.accounts[name] = self.ledger.account(name)
            if name == SPECTRA:
                self._spectra(self.accounts[name])
            else:
                self._table(TABLES[name], self.accounts[name])

    def _table(self, product: Product, account: IdStatus) -> None:
        """Ask for one of the archive's tables, chunk after chunk."""
        left = account.open_ids(self.ids)
        if not len(left):
            return
        product = self._available(product)
        adql = product.query(self.archive.release)
        strikes = 0
        with self._bar(product.name, left) as bar:
            for asked_for in _chunks(left, self.settings.tap_chunk):
                if strikes == TAP_STRIKES:
                    reason = "not asked: the service failed too often in a row"
                    account.failed |= dict.fromkeys(asked_for.tolist(), reason)
                    continue
                try:
                    answer = self.tap.query(adql, asked_for, most=len(asked_for) + 1)
                except ServiceError as error:
                    account.failed |= dict.fromkeys(asked_for.tolist(), error.reason)
                    strikes += 1
                    continue
                strikes = 0
                self._keep_table(product, asked_for, answer, account)
                bar.update(len(asked_for))

    def _available(self, product: Product) -> Product:
        """The product as far as the archive has its columns."""
        release = self.archive.release
        present = {
            alias: asked(
                f"its table {product.table(alias, release)} cannot be read",
                self.tap.url,
                lambda alias=alias: self.tap.column_names(product.table(alias, release)),  # type: ignore[misc]
            )
            for alias in product.tables
        }
        return product.available(present, release)

    def _keep_table(
        self, product: Product, asked_for: Ids, answer: dict[str, Any], account: IdStatus
    ) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        table = product.to_arrow(answer)
        table = table.filter(pc.is_in(table.column("source_id"), pa.array(asked_for)))
        received: Ids = table.column("source_id").to_numpy()
        rows = self.ledger.name(product.name, asked_for)
        if len(received):
            with whole_file(rows, overwrite=True) as path:
                pq.write_table(table, path)
        reason = f"no row in {product.table(next(iter(product.tables)), self.archive.release)}"
        missing = asked_for[~np.isin(asked_for, received)]
        self._keep(account, rows, received, dict.fromkeys(missing.tolist(), reason))

    def _keep(self, account: IdStatus, rows: Path, received: Ids, absent: dict[int, str]) -> None:
        self.ledger.record(rows, received, absent)
        account.received.update(received.tolist())
        account.absent |= absent

    def _spectra(self, account: IdStatus) -> None:
        """Ask for spectra, several requests at a time, of the stars that have one."""
        published = self._published(account)
        left = account.open_ids(self.ids)
        left = left[[one in published for one in left.tolist()]]
        datalink = DataLink(self.archive, self.settings.patience, self.ledger.folder, self.stop)
        with self._bar(SPECTRA, left) as bar:
            chunks = _chunks(left, self.settings.chunk)
            for asked_for, answer in _in_parallel(
                datalink.spectra, chunks, self.settings.parallel, self.stop
            ):
                self._keep_spectra(asked_for, answer, published, account)
                bar.update(len(asked_for) - len(answer.failed))

    def _published(self, account: IdStatus) -> dict[int, bool | None]:
        """Ids to ask for -> whether the archive says that there is a spectrum.

        The others are accounted for here: known to have none, or unknown themselves.
        """
        told = _has_spectrum(self.ledger.rows(GAIA_SOURCE.name))
        gaia = self.accounts[GAIA_SOURCE.name]
        table = GAIA_SOURCE.table("gaia", self.archive.release)
        published: dict[int, bool | None] = {}
        for one in self.ids.tolist():
            if one in account.received:
                continue
            if one in told and told[one] is not False:
                published[one] = told[one]
            elif one in told:
                account.absent[one] = "the archive has no XP spectrum of it"
            elif one in gaia.absent:
                account.absent[one] = f"no row in {table}"
            else:
                account.failed[one] = f"{table} could not be asked"
        return published

    def _keep_spectra(
        self,
        asked_for: Ids,
        answer: Response,
        published: dict[int, bool | None],
        account: IdStatus,
    ) -> None:
        absent: dict[int, str] = {}
        account.failed |= answer.failed
        for one in answer.left_out:
            if published[one]:
                account.failed[one] = "the archive has its spectrum but leaves it out"
            else:
                absent[one] = "the archive returns no XP spectrum of it"
        rows = self.ledger.name(SPECTRA, asked_for)
        received: Ids = np.empty(0, np.int64)
        if answer.stars:
            stars = stacked(answer.stars)
            received = stars.source_id
            write_stars(stars, rows, overwrite=True)
        if len(received) or absent:
            self._keep(account, rows, received, absent)

    def _bar(self, name: str, left: Ids) -> Any:
        return tqdm(
            total=len(self.ids),
            initial=len(self.ids) - len(left),
            desc=name,
            unit=" stars",
            disable=not self.settings.progress,
        )


def _chunks(ids: Ids, size: int) -> list[Ids]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _in_parallel(
    request: Callable[[Ids], Response], chunks: Sequence[Ids], parallel: int, stop: threading.Event
) -> Iterator[tuple[Ids, Response]]:
    """Answers as they come; no more than ``parallel`` are on their way or held."""
    waiting = iter(chunks)
    running: dict[Future[Response], Ids] = {}
    with ThreadPoolExecutor(parallel) as pool:
        try:
            while True:
                for chunk in waiting:
                    running[pool.submit(request, chunk)] = chunk
                    if len(running) == parallel:
                        break
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
        finally:
            # whether the work is done or has failed: nobody waits for a service any longer
            if running:
                stop.set()


def _has_spectrum(files: Sequence[Path]) -> dict[int, bool | None]:
    """Id -> whether gaia_source says that it has an XP spectrum; None where it does not say."""
    import pyarrow.parquet as pq

    told: dict[int, bool | None] = {}
    for path in files:
        table = pq.read_table(path)
        ids = table.column("source_id").to_pylist()
        if "has_xp_continuous" in table.column_names:
            told |= dict(zip(ids, table.column("has_xp_continuous").to_pylist(), strict=True))
        else:
            told |= dict.fromkeys(ids)
    return told
