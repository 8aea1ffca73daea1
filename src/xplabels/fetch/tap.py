"""Tables from a Table Access Protocol service: asynchronous queries with uploaded ids.

pyvo speaks the protocol up to the address of the result. The result is received here as a whole,
its length checked, before it is parsed: a truncated or overflowing answer must not pass for one
with few rows.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.fetch.products import UPLOAD
from xplabels.fetch.retry import (
    PASSING,
    RetryPolicy,
    ServiceError,
    Stopped,
    check_answer,
    session,
    told_as_service_error,
)

if TYPE_CHECKING:
    import requests

T = TypeVar("T")
Columns = dict[str, NDArray[Any]]
"""Lower-case name -> array [N], masked where null."""

FIRST_LOOK, LONGEST_LOOK = 0.05, 10.0
"""Seconds between two looks at a running query: at first, and at most."""


@dataclass(frozen=True)
class Tap:
    """A TAP service.

    Attributes
    ----------
    url
        Its base address.
    patience
        What is bearable of it.
    stop
        Set when the user has interrupted.
    """

    url: str
    patience: RetryPolicy
    stop: threading.Event = field(default_factory=threading.Event)

    def query(
        self, adql: str, ids: NDArray[np.int64] | None = None, most: int | None = None
    ) -> Columns:
        """The rows of an asynchronous query.

        Parameters
        ----------
        adql
            The query; ``tap_upload.wanted`` is the table of ``ids``.
        ids
            Source_ids [N] to upload as the column ``source_id``.
        most
            Rows that are allowed for, if the service's own limit might be lower.

        Raises
        ------
        ServiceError
            If it failed in every attempt, or the service refuses the query.
        """
        return self.patience.persist(lambda: self._query(adql, ids, most), self.stop)

    def column_names(self, table: str) -> frozenset[str]:
        """Lower-case names of a table's columns, as one row of it tells.

        (``TAP_SCHEMA`` would do, but services differ in how they write table names there.)

        Raises
        ------
        ServiceError
            As :meth:`query`.
        """
        return frozenset(self.query(f"SELECT TOP 1 * FROM {table}"))

    def _query(self, adql: str, ids: NDArray[np.int64] | None, most: int | None) -> Columns:
        from pyvo.dal.tap import AsyncTAPJob

        uploads = None if ids is None else {UPLOAD: _upload(ids)}
        # a query that is right for one chunk of ids is right for the next: if it fails, it may pass
        with session(self.patience) as http, _told(passing=ids is not None):
            job = AsyncTAPJob.create(self.url, adql, maxrec=most, uploads=uploads, session=http)
            try:
                job.run()
                self._await(job)
                job.raise_if_error()
                if job.result_uri is None:
                    raise ServiceError("the query is done but has no result")
                body = _received(http, job.result_uri)
            finally:
                # the service forgets it in time; a job that cannot be deleted harms nobody
                with contextlib.suppress(Exception):
                    job.delete()
        return _parsed(body)

    def _await(self, job: Any) -> None:
        end = time.monotonic() + self.patience.job_timeout
        pause = FIRST_LOOK
        while job.phase not in ("COMPLETED", "ERROR", "ABORTED"):
            if time.monotonic() > end:
                raise ServiceError(f"the query took longer than {self.patience.job_timeout:g} s")
            if self.stop.wait(pause):
                raise Stopped
            pause = min(pause * 1.5, LONGEST_LOOK)


def _upload(ids: NDArray[np.int64]) -> Any:
    from astropy.table import Table

    return Table({"source_id": np.asarray(ids, np.int64)})


def _received(http: requests.Session, url: str) -> bytes:
    """The whole body at ``url``."""
    with http.get(url) as response:
        check_answer(response)
        return response.content


@contextlib.contextmanager
def _told(passing: bool) -> Iterator[None]:
    """Turn what pyvo raises into :class:`ServiceError`; ``passing``: of a query that failed."""
    from pyvo.dal import DALQueryError, DALRateLimitError, DALServiceError

    try:
        with told_as_service_error():
            yield
    except DALQueryError as error:
        raise ServiceError(f"the query failed ({_line(error)})", passing=passing) from error
    except DALRateLimitError as error:
        raise ServiceError(_line(error)) from error
    except DALServiceError as error:
        code = getattr(error, "code", None)
        final = isinstance(code, int) and code >= 400 and code not in PASSING
        raise ServiceError(_line(error), passing=not final) from error
    except (ValueError, TypeError, LookupError, AttributeError, SyntaxError) as error:
        # an answer that is no UWS document, however pyvo's parser takes it
        if isinstance(error, InputError):
            raise
        raise ServiceError(f"the service's answer makes no sense ({_line(error)})") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _parsed(body: bytes) -> Columns:
    """A VOTable's rows.

    Raises
    ------
    ServiceError
        If it is damaged, says that it is an error, or was cut at the service's limit.
    """
    from astropy.io.votable import parse

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document = parse(io.BytesIO(body), verify="ignore", invalid="mask")
    except Exception as error:  # its XML parser raises what it likes
        raise ServiceError(f"the result is no whole VOTable ({_line(error)})") from error
    for resource in document.resources:
        for info in resource.infos:
            if info.name == "QUERY_STATUS" and info.value == "ERROR":
                raise ServiceError(f"the query failed ({_line_of(info)})")
            if info.name == "QUERY_STATUS" and info.value == "OVERFLOW":
                raise ServiceError("the result is longer than the service allows", passing=False)
    tables = list(document.iter_tables())
    if not tables:
        raise ServiceError("the result holds no table")
    table = tables[0]
    return {entry.name.lower(): table.array[entry.ID] for entry in table.fields}


def _line_of(info: Any) -> str:
    return " ".join(str(info.content or "no reason given").split())[:300]


def asked(what: str, url: str, request: Callable[[], T]) -> T:
    """What ``request`` returns; what a service refuses is told as the user's to mend.

    Raises
    ------
    InputError
        In place of :class:`ServiceError`.
    """
    try:
        return request()
    except ServiceError as error:
        raise InputError(
            f"{what}: {error.reason}",
            where=url,
            remedy="check the query and the address, or try again later",
        ) from error
