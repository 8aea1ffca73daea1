"""HTTP with retries: which failures are transient, how long to wait, and when to give up.

All services share one loop. urllib3's ``Retry`` could not replace it, as it retries neither a body
that breaks off nor one whose content is damaged, and its waits cannot be interrupted.
"""

from __future__ import annotations

import importlib.util
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar

from xplabels.core.errors import InputError

if TYPE_CHECKING:
    import requests

S = TypeVar("S")
T = TypeVar("T")

TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504, 507, 509))
"""HTTP statuses after which the same request may well succeed."""
LONGEST_RETRY_AFTER = 600.0
"""Seconds to wait at most, even if a service asks for more."""
BLOCK_BYTES = 1 << 16
"""Bytes written at a time: the most that a download which breaks off loses."""


class ServiceError(InputError):
    """A failed request; if ``transient``, it may succeed later (after ``retry_after`` seconds)."""

    def __init__(self, reason: str, *, transient: bool = True, retry_after: float = 0.0) -> None:
        super().__init__(reason, remedy="check the query and the address, or try again later")
        self.transient, self.retry_after = transient, retry_after


LONGEST = 86_400.0
"""Longest wait or timeout, seconds."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often one request is made before it counts as failed; times in seconds.

    The wait before the second attempt is ``first_wait``, and doubles each time up to
    ``longest_wait``. It is multiplied by a random factor between 0.5 and 1.5, so that clients do
    not return at the same moment. ``timeout`` limits the wait for a connection or the next byte of
    an answer, ``job_timeout`` an asynchronous query.
    """

    attempts: int = 5
    first_wait: float = 2.0
    longest_wait: float = 120.0
    timeout: float = 300.0
    job_timeout: float = 7200.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError(f"{self.attempts} attempts are too few", remedy="allow at least 1")
        for name in ("timeout", "job_timeout", "longest_wait"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is not positive", remedy="give seconds")
        if self.first_wait < 0:
            raise InputError("the first wait is negative", remedy="give seconds")
        if not max(self.first_wait, self.timeout) <= LONGEST:  # nor nan
            raise InputError("a wait or timeout is longer than a day", remedy="give seconds")

    def call(
        self,
        request: Callable[[], T],
        stop: threading.Event | None = None,
        attempts: int | None = None,
    ) -> T:
        """Call ``request``, again while it raises a transient :class:`ServiceError`.

        Returns what it returns. Raises the last ServiceError if every attempt failed or the error
        is not transient, and CancelledError if ``stop`` is set between attempts.
        """
        stop = stop or threading.Event()
        attempts = attempts or self.attempts
        for attempt in range(attempts):
            if stop.is_set():
                break
            try:
                return request()
            except ServiceError as error:
                if not error.transient or attempt == attempts - 1:
                    raise
                pause = min(self.first_wait * 2**attempt, self.longest_wait)
                asked = min(error.retry_after, LONGEST_RETRY_AFTER)
                stop.wait(max(pause * random.uniform(0.5, 1.5), asked))
        raise CancelledError


def check_installed() -> None:
    """Raise :class:`InputError` if the packages for requests to archives are not installed."""
    for package in ("pyvo", "requests"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"fetching needs the package {package}", remedy="pip install 'xplabels[archive]'"
            )


def session(retry: RetryPolicy) -> requests.Session:
    """A session whose requests all have the policy's timeout, also those that pyvo makes."""
    import requests

    from xplabels import __version__

    class TimeoutSession(requests.Session):
        def request(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            return super().request(*args, **kwargs | {"timeout": retry.timeout})

    new_session = TimeoutSession()
    new_session.headers["User-Agent"] = f"xplabels/{__version__}"
    return new_session


@contextmanager
def response_to(
    retry: RetryPolicy, method: str, url: str, **options: Any
) -> Iterator[requests.Response]:
    """The response to one request, if it succeeded or is a 416; its body is not read yet.

    Any failure, also while the body is read inside the block, is raised as :class:`ServiceError`.
    """
    with (
        as_service_error(),
        session(retry) as http,
        http.request(method, url, stream=True, **options) as response,
    ):
        if response.status_code >= 400 and response.status_code != 416:
            text = " ".join(response.text.split())[:200]
            after = response.headers.get("Retry-After", "").strip()
            raise ServiceError(
                f"HTTP {response.status_code} {response.reason}" + (f": {text}" if text else ""),
                transient=response.status_code in TRANSIENT,
                retry_after=float(after) if after.isdigit() else 0.0,
            )
        yield response


def write_body(
    response: requests.Response,
    file: IO[bytes],
    stop: threading.Event,
    received: Callable[[int], object] = lambda size: None,
) -> None:
    """Append a response's body to ``file``; ``received`` is called with the size of each block.

    Raises CancelledError once ``stop`` is set.
    """
    for block in response.iter_content(BLOCK_BYTES):
        if stop.is_set():
            raise CancelledError
        file.write(block)
        received(len(block))


@contextmanager
def as_service_error() -> Iterator[None]:
    """Turn what requests and urllib3 raise into :class:`ServiceError`."""
    import requests
    import urllib3

    try:
        yield
    except requests.exceptions.InvalidURL as error:
        raise ServiceError(f"no such address ({error})", transient=False) from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise ServiceError("no answer in time") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        cause: BaseException = error
        while (inner := cause.__cause__ or cause.__context__) is not None:
            cause = inner
        raise ServiceError(
            f"the connection broke ({type(cause).__name__}: {cause})"[:230]
        ) from error


def in_parallel(
    work: Callable[[S], T], items: Iterable[S], parallel: int, stop: threading.Event
) -> Iterator[tuple[S, T]]:
    """Yield each item with the result of ``work``, as they are done, ``parallel`` at a time.

    If the loop over them ends before all are done, ``stop`` is set.
    """
    waiting = iter(items)
    running: dict[Future[T], S] = {}
    with ThreadPoolExecutor(parallel) as pool:
        try:
            while True:
                for item in waiting:
                    running[pool.submit(work, item)] = item
                    if len(running) == parallel:
                        break
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
        finally:
            if running:
                stop.set()
