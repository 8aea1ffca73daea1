"""How long to wait for a service, how often to ask again, and when to give up."""

from __future__ import annotations

import importlib.util
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from xplabels.core.errors import InputError

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

PASSING = frozenset((408, 425, 429, 500, 502, 503, 504, 507, 509))
"""HTTP statuses after which the same request may well succeed."""


class ServiceError(Exception):
    """A service did not give what was asked for.

    Attributes
    ----------
    reason
        What happened, in a few words.
    passing
        Whether the same request may succeed later.
    wait
        Seconds the service asked to wait, if it did.
    """

    def __init__(self, reason: str, *, passing: bool = True, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.passing, self.wait = reason, passing, wait


class Stopped(Exception):
    """The user has interrupted; nobody waits any longer."""


@dataclass(frozen=True)
class RetryPolicy:
    """What is bearable of a service.

    Attributes
    ----------
    attempts
        Times that one request is made before it counts as failed.
    first_wait, longest_wait
        Seconds before the second attempt, doubled from one to the next, and their limit. Each wait
        is drawn from half to one and a half of this, so that clients do not come back in step.
    timeout
        Seconds to wait for a connection, or for the next byte of an answer.
    job_timeout
        Seconds to wait until an asynchronous query is done.
    """

    attempts: int = 5
    first_wait: float = 2.0
    longest_wait: float = 120.0
    timeout: float = 300.0
    job_timeout: float = 7200.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError(f"{self.attempts} attempts are none", remedy="allow at least 1")
        for name in ("timeout", "job_timeout", "longest_wait"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is not positive", remedy="give seconds")
        if self.first_wait < 0:
            raise InputError("the first wait is negative", remedy="give seconds")

    def persist(
        self,
        request: Callable[[], T],
        stop: threading.Event | None = None,
        attempts: int | None = None,
    ) -> T:
        """What ``request`` returns, asked again while it fails in a way that may pass.

        Raises
        ------
        ServiceError
            The last one, if every attempt failed or one failed for good.
        Stopped
            If ``stop`` is set while waiting.
        """
        stop = stop or threading.Event()
        left = self.attempts if attempts is None else attempts
        wait = self.first_wait
        while True:
            if stop.is_set():
                raise Stopped
            try:
                return request()
            except ServiceError as error:
                left -= 1
                if left <= 0 or not error.passing:
                    raise
                drawn = min(wait, self.longest_wait) * random.uniform(0.5, 1.5)
                if stop.wait(max(drawn, error.wait)):
                    raise Stopped from error
                wait *= 2


def check_installed() -> None:
    """Raise :class:`InputError` if the packages that speak to archives are not there."""
    for package in ("pyvo", "requests"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"fetching needs the package {package}", remedy="pip install 'xplabels[archive]'"
            )


def session(patience: RetryPolicy) -> requests.Session:
    """A session of HTTP requests, one after the other, that never waits for ever."""
    import requests

    from xplabels import __version__

    class OneByOne(requests.Session):
        last: requests.Response | None = None

        def request(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            self._let_go()
            if kwargs.get("timeout") is None:
                kwargs["timeout"] = patience.timeout
            self.last = super().request(*args, **kwargs)
            return self.last

        def close(self) -> None:
            self._let_go()
            super().close()

        def _let_go(self) -> None:
            # pyvo reads an answer up to the end of its XML and leaves the connection open
            if self.last is not None:
                self.last.close()

    made = OneByOne()
    made.headers["User-Agent"] = f"xplabels/{__version__}"
    return made


def check_answer(response: requests.Response) -> None:
    """Raise :class:`ServiceError` unless the answer's status is one of success."""
    if response.status_code < 400:
        return
    told = " ".join(response.text.split())[:200]
    raise ServiceError(
        f"HTTP {response.status_code} {response.reason}" + (f": {told}" if told else ""),
        passing=response.status_code in PASSING,
        wait=_seconds(response.headers.get("Retry-After", "")),
    )


@contextmanager
def told_as_service_error() -> Iterator[None]:
    """Turn what requests and urllib3 raise of a broken exchange into :class:`ServiceError`."""
    import requests
    import urllib3

    try:
        yield
    except requests.exceptions.InvalidURL as error:
        raise ServiceError(f"no such address ({error})", passing=False) from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise ServiceError("no answer in time") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise ServiceError(f"the connection broke ({_innermost(error)})") from error


def _innermost(error: BaseException) -> str:
    """The cause at the bottom: what lies above it are wrappers."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}"[:200]


def _seconds(text: str) -> float:
    """``Retry-After`` as seconds, at most ten minutes; a date is not worth the trouble."""
    return min(float(text), 600.0) if text.strip().isdigit() else 0.0
