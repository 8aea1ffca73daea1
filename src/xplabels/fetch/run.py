"""The requests of one fetch: what the state lacks is asked for, what comes is written down."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from xplabels.core.errors import InputError
from xplabels.fetch.archive import MOST_IDS, Archive
from xplabels.fetch.datalink import GIVEN_UP, DataLink, Response
from xplabels.fetch.http import RetryPolicy, ServiceError, as_input_error, in_parallel
from xplabels.fetch.products import GAIA_SOURCE, SPECTRA, TABLES, Product
from xplabels.fetch.state import FetchState
from xplabels.fetch.tap import Columns, Tap
from xplabels.fetch.targets import Targets
from xplabels.io import write_stars

Ids = NDArray[np.int64]
MOST_TAP_FAILURES = 3
"""Chunks of ids that fail in a row, each in every attempt, before no more are asked for."""


@dataclass(frozen=True)
class FetchSettings:
    """How to ask; nothing here changes what is fetched.

    Attributes
    ----------
    retry
        How often and how long to try.
    chunk
        Ids per request for spectra, at most :data:`~xplabels.fetch.archive.MOST_IDS`.
    tap_chunk
        Ids uploaded with one query for a table.
    parallel
        Requests for spectra at the same time.
    progress
        Show progress bars.
    """

    retry: RetryPolicy = field(default_factory=RetryPolicy)
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
    """One run, inside the opened ``state``."""

    def __init__(
        self, targets: Targets, state: FetchState, archive: Archive, settings: FetchSettings
    ) -> None:
        self.state, self.archive, self.settings = state, archive, settings
        self.tap = Tap(archive.tap, settings.retry)
        ids = state.ids
        if ids is None:
            ids = targets.find(self.tap)
            state.set_ids(ids)
        self.ids: Ids = ids

    def run(self, products: Sequence[str]) -> None:
        """Fetch the products, in their order."""
        for name in products:
            if name == SPECTRA:
                self._fetch_spectra()
            else:
                self._fetch_table(TABLES[name])

    def _fetch_table(self, product: Product) -> None:
        """Fetch one of the archive's tables, chunk after chunk."""
        status = self.state.products[product.name]
        left = status.open_ids(self.ids)
        if not len(left):
            return
        product = self._available(product)
        adql = product.query(self.archive.release)
        failures = 0
        with self._bar(product.name, left) as bar:
            for ids in _chunks(left, self.settings.tap_chunk):
                if failures == MOST_TAP_FAILURES:
                    status.failed |= dict.fromkeys(ids.tolist(), GIVEN_UP)
                    continue
                try:
                    answer = self.tap.query(adql, ids, most=len(ids) + 1)
                except ServiceError as error:
                    status.failed |= dict.fromkeys(ids.tolist(), error.reason)
                    failures += 1
                    continue
                failures = 0
                self._keep_table(product, ids, answer)
                bar.update(len(ids))

    def _available(self, product: Product) -> Product:
        """The product as far as the archive has its columns."""
        present = {}
        for alias in product.tables:
            table = product.table(alias, self.archive.release)
            with as_input_error(f"its table {table} cannot be read", self.tap.url):
                present[alias] = self.tap.column_names(table)
        return product.available(present, self.archive.release)

    def _keep_table(self, product: Product, ids: Ids, answer: Columns) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        table = product.to_arrow(answer)
        table = table.filter(pc.is_in(table.column("source_id"), pa.array(ids)))
        received: Ids = table.column("source_id").to_numpy()
        reason = f"no row in {product.table(next(iter(product.tables)), self.archive.release)}"
        absent = dict.fromkeys(ids[~np.isin(ids, received)].tolist(), reason)
        self.state.record(product.name, received, partial(pq.write_table, table), absent)

    def _fetch_spectra(self) -> None:
        """Fetch spectra, several requests at a time, of the stars that have one."""
        status = self.state.products[SPECTRA]
        published = self._published()
        left = status.open_ids(self.ids)
        left = left[np.isin(left, list(published))]
        stop = threading.Event()
        datalink = DataLink(self.archive, self.settings.retry, self.state.folder, stop)
        chunks = _chunks(left, self.settings.chunk)
        with self._bar(SPECTRA, left) as bar:
            for ids, response in in_parallel(
                datalink.spectra, chunks, self.settings.parallel, stop
            ):
                self._keep_spectra(response, published)
                bar.update(len(ids) - len(response.failed))

    def _published(self) -> dict[int, bool | None]:
        """Ids to ask for -> whether the archive says that there is a spectrum.

        The others are accounted for here: without one, or not in gaia_source at all.
        """
        import pyarrow.parquet as pq

        status, gaia = self.state.products[SPECTRA], self.state.products[GAIA_SOURCE.name]
        has: dict[int, bool | None] = dict.fromkeys(gaia.received)
        for path in gaia.files:
            rows = pq.read_table(path).to_pydict()
            if "has_xp_continuous" in rows:
                has |= dict(zip(rows["source_id"], rows["has_xp_continuous"], strict=True))
        for one in self.ids.tolist():
            if has.get(one) is False:
                status.absent[one] = "the archive has no XP spectrum of it"
            elif one in gaia.absent:
                status.absent[one] = gaia.absent[one]
            elif one not in has:
                table = GAIA_SOURCE.table("gaia", self.archive.release)
                status.failed[one] = f"{table} could not be asked"
        return {one: said for one, said in has.items() if said is not False}

    def _keep_spectra(self, response: Response, published: dict[int, bool | None]) -> None:
        status = self.state.products[SPECTRA]
        status.failed |= response.failed
        absent = {}
        for one in response.left_out:
            if published[one]:
                status.failed[one] = "the archive has its spectrum but leaves it out"
            else:
                absent[one] = "the archive returns no XP spectrum of it"
        for stars in response.stars:
            self.state.record(SPECTRA, stars.source_id, partial(write_stars, stars))
        if absent:
            self.state.record(SPECTRA, absent=absent)

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
