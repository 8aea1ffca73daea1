"""When a request is repeated, how long the pauses are, and when it is given up."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import CancelledError

import pytest

from fetch_services import Services
from xplabels.core.errors import InputError
from xplabels.fetch.http import RetryPolicy, ServiceError


class Failing:
    """A request that fails some times."""

    def __init__(self, *errors: ServiceError) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


@pytest.mark.parametrize(
    ("failures", "transient", "calls"), [(2, True, 3), (9, True, 3), (9, False, 1)]
)
def test_a_request_is_repeated_until_it_succeeds_or_is_given_up(
    failures: int, transient: bool, calls: int
) -> None:
    request = Failing(*(ServiceError(f"no {n}", transient=transient) for n in range(failures)))
    policy = RetryPolicy(attempts=3, first_wait=0)
    if failures < 3:
        assert policy.call(request) == calls
    else:
        with pytest.raises(ServiceError, match=f"no {calls - 1}; .*try again later"):
            policy.call(request)
    assert request.calls == calls


def test_waits_double_to_a_limit_and_heed_the_service() -> None:
    waits: list[float] = []

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return False

    asked = [0, 0, 0, 50, 0, 0, 1e6]
    request = Failing(*(ServiceError("no", retry_after=wait) for wait in asked))
    RetryPolicy(attempts=8, first_wait=1.0, longest_wait=8.0).call(request, Clock())
    assert waits.pop() == 600
    assert waits.pop(3) == 50
    for drawn, middle in zip(waits, (1, 2, 4, 8, 8), strict=True):
        assert 0.5 * middle <= drawn <= 1.5 * middle


def test_an_interruption_ends_the_wait() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    start = time.monotonic()
    with pytest.raises(CancelledError):
        RetryPolicy(first_wait=100.0).call(Failing(ServiceError("no")), stop)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"timeout": 0}, {"first_wait": -1}, {"job_timeout": float("nan")}]
)
def test_impossible_policies_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_the_test_service_answers_a_truncated_upload(services: Services) -> None:
    """A client killed in the middle of an upload is its error, not the service's."""
    with socket.create_connection(("127.0.0.1", int(services.tap.url.rpartition(":")[2]))) as one:
        head = b"POST /tap/async HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        one.sendall(head + b"Content-Length: 100\r\n\r\n--x\r\n")
        one.shutdown(socket.SHUT_WR)
        assert one.recv(100).startswith(b"HTTP/1.1 400")
