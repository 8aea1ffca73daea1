"""Tables from a Table Access Protocol service: asynchronous queries with uploaded ids, by pyvo."""

from __future__ import annotations

import io
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.fetch.http import TRANSIENT, RetryPolicy, ServiceError, as_service_error, session
from xplabels.io.votable import check_votable

Columns = dict[str, NDArray[Any]]
"""Lower-case name -> array [N], masked where null."""
UPLOAD = "wanted"
"""Name of the uploaded table of ids, in the schema ``tap_upload``."""
FIRST_POLL, LONGEST_POLL = 0.05, 10.0
"""Seconds between two looks at a running query: at first, and at most."""


@dataclass(frozen=True)
class Tap:
    """The TAP service with the base address ``url``."""

    url: str
    retry: RetryPolicy

    def query(
        self, adql: str, ids: NDArray[np.int64] | None = None, most: int | None = None
    ) -> Columns:
        """The rows of an asynchronous query.

        ``ids`` [N] are uploaded as the column ``source_id`` of ``tap_upload.wanted``. ``most`` is
        the number of rows to ask for if the service's default limit might be lower. Raises
        ServiceError if every attempt failed, or the service refuses the query.
        """
        return self.retry.call(lambda: self._query(adql, ids, most))

    def column_names(self, table: str) -> frozenset[str]:
        """Lower-case names of a table's columns."""
        # taken from a row of it, as services write table names differently in TAP_SCHEMA
        return frozenset(self.query(f"SELECT TOP 1 * FROM {table}"))

    def _query(self, adql: str, ids: NDArray[np.int64] | None, most: int | None) -> Columns:
        from astropy.table import Table
        from pyvo.dal import DALQueryError, DALServiceError
        from pyvo.dal.tap import AsyncTAPJob

        uploads = None if ids is None else {UPLOAD: Table({"source_id": ids})}
        try:
            with as_service_error(), session(self.retry) as http, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of small violations of the VOTable standard
                http.hooks["response"].append(_read_whole)
                with AsyncTAPJob.create(
                    self.url, adql, maxrec=most, uploads=uploads, session=http
                ) as job:
                    job.run()
                    self._wait(job)
                    job.raise_if_error()
                    result = job.fetch_result()
        except DALQueryError as error:
            # a query with uploaded ids is ours, hence valid: only the service can have failed
            transient = ids is not None
            raise ServiceError(f"the query failed ({_line(error)})", transient=transient) from error
        except DALServiceError as error:
            raise ServiceError(
                _line(error),
                transient=not error.code or error.code < 400 or error.code in TRANSIENT,
                retry_after=getattr(error, "retry_after_seconds", None) or 0.0,
            ) from error
        except ServiceError:
            raise
        except Exception as error:  # pyvo's parsers may raise anything if an answer is damaged
            raise ServiceError(f"the service's answer makes no sense ({_line(error)})") from error
        if result.query_status == "OVERFLOW":
            raise ServiceError("the result is longer than the service allows", transient=False)
        return {name.lower(): result.getcolumn(name) for name in result.fieldnames}

    def _wait(self, job: Any) -> None:
        end = time.monotonic() + self.retry.job_timeout
        pause = FIRST_POLL
        while job.phase not in ("COMPLETED", "ERROR", "ABORTED"):
            if time.monotonic() > end:
                raise ServiceError(f"the query took longer than {self.retry.job_timeout:g} s")
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL)


def _read_whole(response: Any, **options: Any) -> None:
    """Read and check a whole body before pyvo parses it.

    Pyvo stops where the XML ends, and so would not notice a truncated body; and it would open files
    and addresses that a VOTable refers to.
    """
    import urllib3

    if b"VOTABLE" in response.content[:10_000]:
        check_votable(io.BytesIO(response.content), response.url)
    response.raw = urllib3.HTTPResponse(io.BytesIO(response.content), preload_content=False)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
