"""XP spectra from the archive's DataLink service.

The protocol is that of ``astroquery.gaia.Gaia.load_data``: ids are posted in a form, a ZIP file
comes back. That function is not used, because it has no timeout, notices neither a truncated answer
nor ids left out, and unpacks into the current folder.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from xplabels.core.errors import InputError
from xplabels.core.stars import CoefficientSpectra, Stars
from xplabels.fetch.answers import check_columns, columns_of, unpacked
from xplabels.fetch.archive import Archive, Ids
from xplabels.fetch.http import RetryPolicy, ServiceError, response_to, write_body
from xplabels.fetch.state import GIVEN_UP, Response
from xplabels.io import read, write_stars

logger = logging.getLogger(__name__)

ROUNDS = 3
"""How often an id is asked for that answers leave out."""
SPLIT_ATTEMPTS = 2
"""Attempts at each part of a chunk that failed as a whole."""
MOST_FAILURES = 16
"""Requests that may fail in a row before no more are made; isolating one star among 5,000 on which
the service fails takes 13."""


class DataLink:
    """The service of spectra. Answers are unpacked in the folder ``scratch``."""

    def __init__(
        self, archive: Archive, retry: RetryPolicy, scratch: Path, stop: threading.Event
    ) -> None:
        self.archive, self.retry, self.scratch, self.stop = archive, retry, scratch, stop
        self._failures = 0  # in a row, in all threads
        words = archive.release.datalink
        # pairs of a product and a structure by which spectra may be asked for
        self._ways = [(what, how) for what in words.products for how in words.structures]
        self._warned = False

    def choose_words(self, ids: Ids) -> None:
        """Find the product and structure that the service knows, by asking for single ``ids``.

        Nothing is asked if the release declares only one of each. Raises :class:`InputError` if the
        service knows none of those declared.
        """
        if len(self._ways) == 1:
            return
        errors: dict[str, str] = {}
        empty = []
        for star in np.unique(ids[[0, len(ids) // 2, -1]]):
            for way in self._ways:
                try:
                    stars = self.retry.call(partial(self._request, star[None], way), self.stop, 2)
                except ServiceError as error:
                    errors[" ".join(way)] = error.what
                    continue
                if stars is not None:
                    self._ways = [way]
                    return
                empty.append(way)
        if not empty:
            raise InputError(
                "DataLink answers to none of the words declared: "
                + "; ".join(f"{way}: {what}" for way, what in errors.items()),
                where=self.archive.datalink,
                remedy="try again later; if the service has other words, write them under "
                f"[datalink] in (a copy of) {self.archive.release.file}",
            )
        self._ways = empty[:1]

    def spectra(self, ids: Ids) -> tuple[Response, list[int]]:
        """Spectra of ``ids`` [N], and the ids that undamaged answers leave out.

        Ids that an answer leaves out are asked for again by themselves. If a request fails in all
        attempts, its ids are asked for in halves, until the star on which the service fails is
        alone.
        """
        response = Response()
        left_out = ids.tolist()
        for _ in range(ROUNDS):
            if left_out:
                left_out = self._in_halves(np.array(left_out), self.retry.attempts, response)
        return response, left_out

    def _in_halves(self, ids: Ids, attempts: int, response: Response) -> list[int]:
        """Add the answers to ``ids`` to ``response``; return the ids that they leave out."""
        if self._failures >= MOST_FAILURES:
            response.failed |= dict.fromkeys(ids.tolist(), GIVEN_UP)
            return []
        try:
            stars = self.retry.call(lambda: self._request(ids), self.stop, attempts)
        except ServiceError as error:
            self._failures += 1
            if len(ids) == 1:
                response.failed[int(ids[0])] = error.what
                return []
            first, second = np.array_split(ids, 2)
            left_out = self._in_halves(first, SPLIT_ATTEMPTS, response)
            return left_out + self._in_halves(second, SPLIT_ATTEMPTS, response)
        self._failures = 0
        if stars is None:
            return list(ids.tolist())
        response.parts.append((stars.source_id, partial(write_stars, stars)))
        return list(ids[~np.isin(ids, stars.source_id)].tolist())

    def _request(self, ids: Ids, way: tuple[str, str] | None = None) -> Stars | None:
        """One request: the stars among ``ids`` that its answer holds, if any."""
        release = self.archive.release
        product, structure = way or self._ways[0]
        form = {
            "RETRIEVAL_TYPE": product,
            "ID": ",".join(str(star) for star in ids.tolist()),
            "RELEASE": release.title,
            "DATA_STRUCTURE": structure,
            "FORMAT": release.datalink.format,
            "VALID_DATA": "false",
            "USE_ZIP_ALWAYS": "true",
        }
        with TemporaryDirectory(dir=self.scratch, prefix="answer-") as folder:
            path = Path(folder) / "answer.zip"
            with (
                response_to(self.retry, "POST", self.archive.datalink, data=form) as response,
                path.open("wb") as file,
            ):
                write_body(response, file, self.stop)
            with _damage_as_service_error():
                files = unpacked(path)
                columns = [columns_of(table) for table in files]
            if not files:
                return None
            for names in columns:
                check_columns(names, release)
            with _damage_as_service_error():
                try:
                    stars = read(files)
                except InputError as error:
                    if not error.what.endswith("occurs twice"):
                        raise
                    # not transient: the same request gives the same answer
                    what = f"the answer has several rows of one star: {structure} unrolls arrays; "
                    what += f"name another word under [datalink] structures in {release.file}"
                    raise ServiceError(what, transient=False) from error
        stars = stars[np.flatnonzero(np.isin(stars.source_id, ids))]
        # the names of the temporary files would be no provenance
        origin = f"{release.title} {product}"
        self._compare_widths(stars)
        return replace(stars, origin=origin, notes=(), file="") if len(stars) else None

    def _compare_widths(self, stars: Stars) -> None:
        """Warn, once, if spectra have other numbers of coefficients than declared."""
        release, spectra = self.archive.release, stars.spectra
        if self._warned or release.widths is None or not isinstance(spectra, CoefficientSpectra):
            return
        widths = zip(spectra.widths, release.widths, strict=True)
        if any(width not in (0, declared) for width, declared in widths):
            self._warned = True
            logger.warning(
                "the archive's spectra have %d + %d coefficients, where %s says %d + %d: they are "
                "taken as they are; correct `widths` there",
                *spectra.widths, release.file.name, *release.widths,
            )  # fmt: skip


@contextmanager
def _damage_as_service_error() -> Iterator[None]:
    """Turn damage to an answer into a :class:`ServiceError`: the next answer may be undamaged."""
    try:
        yield
    except ServiceError:
        raise
    except InputError as error:
        raise ServiceError(f"the answer is damaged ({error.what})") from error
