"""Waiting and giving up; what an archive's answers become."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pyarrow as pa
import pytest

from xplabels.core.errors import InputError
from xplabels.fetch.archive import Archive, release_of
from xplabels.fetch.http import RetryPolicy, ServiceError
from xplabels.fetch.products import ALLWISE, GAIA_SOURCE, TABLES, TMASS


class Failing:
    """A request that fails some times."""

    def __init__(self, *errors: ServiceError) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "at last"


def test_it_asks_again_until_it_has_an_answer() -> None:
    request = Failing(ServiceError("once"), ServiceError("twice"))
    assert RetryPolicy(attempts=3, first_wait=0).call(request) == "at last"
    assert request.calls == 3


def test_it_gives_up_with_the_last_reason() -> None:
    request = Failing(*(ServiceError(f"no {n}") for n in range(9)))
    with pytest.raises(ServiceError, match="no 2"):
        RetryPolicy(attempts=3, first_wait=0).call(request)
    assert request.calls == 3


def test_what_is_final_is_not_asked_again() -> None:
    request = Failing(ServiceError("never", transient=False))
    with pytest.raises(ServiceError, match="never"):
        RetryPolicy(attempts=3, first_wait=0).call(request)
    assert request.calls == 1


def test_waits_double_to_a_limit_and_heed_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return False

    request = Failing(*(ServiceError("no", retry_after=50.0 if n == 3 else 0.0) for n in range(6)))
    RetryPolicy(attempts=7, first_wait=1.0, longest_wait=8.0).call(request, Clock())
    for drawn, middle in zip(waits, (1, 2, 4, None, 8, 8), strict=True):
        if middle is None:
            assert drawn == 50.0
        else:
            assert 0.5 * middle <= drawn <= 1.5 * middle


def test_nobody_waits_after_an_interruption() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    start = time.monotonic()
    with pytest.raises(CancelledError):
        RetryPolicy(first_wait=100.0).call(Failing(ServiceError("no")), stop)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"timeout": 0}, {"first_wait": -1}, {"job_timeout": float("nan")}]
)
def test_patience_of_no_use_is_told(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_queries_name_the_archives_tables_and_columns() -> None:
    query = TMASS.query(release_of("dr3"))
    assert "FROM tap_upload.wanted AS wanted" in query
    assert "JOIN gaiadr3.tmass_psc_xsc_best_neighbour AS near ON" in query
    assert "JOIN gaiadr1.tmass_original_valid AS tmass ON" in query
    assert "allwise.w1mpro_error AS w1sigmpro" in ALLWISE.query(release_of("dr3"))
    assert "JOIN gaiadr4.gaia_source" in GAIA_SOURCE.query(release_of("dr4"))


def test_defaults_are_the_archives() -> None:
    archive = Archive()
    assert archive.tap == "https://gea.esac.esa.int/tap-server/tap"
    assert archive.datalink == "https://gea.esac.esa.int/data-server/data"
    assert archive.bulk_folder("xp") == (
        "https://cdn.gea.esac.esa.int/Gaia/gdr3/Spectroscopy/xp_continuous_mean_spectrum"
    )


def test_answers_keep_digits_and_nulls() -> None:
    rows = 3
    answer = {column.name: np.ma.zeros(rows) for column in TMASS.columns}
    answer["source_id"] = np.ma.array([4345775217221821313, 2, 4345775217221821312])
    answer["j_m"] = np.ma.array([1.5, np.nan, 3.5], mask=[False, False, True])
    for name in ("designation", "ph_qual"):
        answer[name] = np.ma.array([b"00 ", "", "x"], dtype=object, mask=[False, False, True])
    table = TMASS.to_arrow(answer)
    assert table.column("source_id").to_pylist() == [2, 4345775217221821312, 4345775217221821313]
    assert table.column("j_m").to_pylist() == [None, None, 1.5]
    assert table.column("designation").to_pylist() == [None, None, "00"]
    assert table.schema.field("j_m").metadata == {b"unit": b"mag"}
    assert table.schema.field("number_of_mates").type == pa.int32()


def test_truth_comes_in_any_writing() -> None:
    answer = {column.name: np.ma.zeros(4) for column in GAIA_SOURCE.columns}
    answer["source_id"] = np.ma.arange(1, 5)
    for values in (
        np.ma.array([True, False, True, True], mask=[0, 0, 0, 1]),
        np.ma.array(["true", "F", "1", ""], dtype=object, mask=[0, 0, 0, 1]),
        np.ma.array([1, 0, 1, 7], mask=[0, 0, 0, 1]),
    ):
        answer["has_xp_continuous"] = values
        found = GAIA_SOURCE.to_arrow(answer).column("has_xp_continuous").to_pylist()
        assert found == [True, False, True, None]


@pytest.mark.parametrize("fault", ["twice", "absent", "type"])
def test_answers_of_no_use_are_told(fault: str) -> None:
    answer = {column.name: np.ma.zeros(2) for column in GAIA_SOURCE.columns}
    answer["source_id"] = np.ma.array([1, 1] if fault == "twice" else [1, 2])
    answer["has_xp_continuous"] = np.ma.array([True, False])
    if fault == "absent":
        del answer["ra"]
    if fault == "type":
        answer["ra"] = np.ma.array(["here", "there"], dtype=object)
    message = {"twice": "source_id 1 twice", "absent": "no column 'ra'", "type": "'ra' is not"}
    with pytest.raises(InputError, match=message[fault]):
        GAIA_SOURCE.to_arrow(answer)


def test_products_have_no_name_twice() -> None:
    for product in TABLES.values():
        names = product.schema().names
        assert len(names) == len(set(names))
