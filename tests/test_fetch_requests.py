"""Which stars and columns are asked for, how often, and what an archive's answers become."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from fetch_services import QUICK, STARS, Services, account
from xplabels.core.errors import InputError
from xplabels.fetch import Cone, Targets, fetch_stars
from xplabels.fetch.http import RetryPolicy, ServiceError
from xplabels.fetch.products import Product
from xplabels.releases import load_release


def test_a_cone_and_a_query(services: Services, tmp_path: Path) -> None:
    table = services.made.tables["gaiadr3.gaia_source"]
    ids, ra, dec, mag = (
        np.array(table[name]) for name in ("source_id", "ra", "dec", "phot_g_mean_mag")
    )
    ra, dec = np.radians(ra - 180), np.radians(dec)
    cosine = np.sin(dec) * np.sin(np.pi / 6) + np.cos(dec) * np.cos(np.pi / 6) * np.cos(ra)
    query = "SELECT source_id FROM gaiadr3.gaia_source WHERE phot_g_mean_mag < 12"
    for targets, expected in (
        (Targets.of_cone(Cone(180.0, 30.0, 60.0), load_release("dr3")), ids[cosine >= 0.5]),
        (Targets(query=query), ids[mag < 12]),
    ):
        output = tmp_path / str(len(expected))
        fetch_stars(targets, output, services.archive, [], QUICK)
        assert 0 < len(expected) < STARS
        assert sorted(account(output)) == sorted(expected)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT ra FROM gaiadr3.gaia_source", "no column source_id but ra"),
        ("SELECT source_id FROM gaiadr3.gaia_source WHERE ra > 400", "finds no star"),
        ("SELECT nonsense", "no such column: nonsense"),
    ],
)
def test_useless_queries_are_refused(
    services: Services, tmp_path: Path, query: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fetch_stars(Targets(query=query), tmp_path / "out", services.archive, [], QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["csv", "txt", "fits"])
def test_ids_from_a_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"ids.{kind}"
    ids = [4345775217221821313, 4345775217221821312, -1, 0, 4345775217221821313]
    if kind == "fits":  # as APOGEE's allStar
        names = [f"2M{n}" for n in range(len(ids))]
        Table({"APOGEE_ID": names, "GAIAEDR3_SOURCE_ID": ids}).write(path)
    elif kind == "csv":
        path.write_text("name,source_id\n" + "".join(f"x,{one}\n" for one in ids))
    else:
        path.write_text("\n".join(map(str, ids)))
    wanted = Targets.of_file(path).ids
    assert wanted.tolist() == [4345775217221821312, 4345775217221821313]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "gaia_source_id\n1\n", "does not say of which release"),
        ("a.csv", "source_id\n0\n", "holds no source_id"),
        ("a.txt", "12\n1.5e18\n", "row 2, .*floating-point"),
        ("a.txt", "99999999999999999999\n", "row 1, .*not a 64-bit"),
    ],
)
def test_files_without_ids_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Targets.of_file(path)


GAIA_SOURCE = Product.of("gaia_source", load_release("dr3"))


def answer(rows: int) -> dict[str, Any]:
    """What TAP gives for gaia_source."""
    zeros: dict[str, Any] = {column.name: np.ma.zeros(rows) for column in GAIA_SOURCE.columns}
    return zeros | {"source_id": np.ma.arange(1, rows + 1)}


def test_answers_keep_digits_units_and_nulls() -> None:
    product = Product.of("tmass", load_release("dr3"))
    rows = {column.name: np.ma.zeros(3) for column in product.columns}
    rows["source_id"] = np.ma.array([4345775217221821313, 2, 4345775217221821312])
    rows["j_m"] = np.ma.array([1.5, np.nan, 3.5], mask=[False, False, True])
    for name in ("designation", "ph_qual"):
        rows[name] = np.ma.array([b"00 ", "", "x"], dtype=object, mask=[False, False, True])
    table = product.to_arrow(rows)
    assert table.column("source_id").to_pylist() == [2, 4345775217221821312, 4345775217221821313]
    assert table.column("j_m").to_pylist() == [None, None, 1.5]
    assert table.column("designation").to_pylist() == [None, None, "00"]
    assert table.schema.field("j_m").metadata == {b"unit": b"mag"}
    assert str(table.schema.field("number_of_mates").type) == "int32"


@pytest.mark.parametrize("values", [[True, False, True], ["true", "F", "1"], [1, 0, 7]])
def test_truth_comes_in_any_writing(values: list[Any]) -> None:
    kind = object if isinstance(values[0], str) else None
    column = np.ma.array([*values, values[0]], dtype=kind, mask=[0, 0, 0, 1])
    table = GAIA_SOURCE.to_arrow(answer(4) | {"has_xp_continuous": column})
    assert table.column("has_xp_continuous").to_pylist() == [True, False, True, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_id": np.ma.array([1, 1])}, "source_id 1 twice"),
        ({"ra": None}, "no column 'ra'"),
        ({"ra": np.ma.array(["here", "there"], dtype=object)}, "'ra' is not double"),
    ],
)
def test_useless_answers_are_refused(change: dict[str, Any], message: str) -> None:
    rows = {name: one for name, one in (answer(2) | change).items() if one is not None}
    with pytest.raises(InputError, match=message):
        GAIA_SOURCE.to_arrow(rows)


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
