"""Services that fail: a transient failure changes nothing, others are accounted for id by id."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fetch_services import QUICK, STARS, Services, account, contents
from services.http import Fault
from xplabels.fetch.datalink import MOST_FAILURES, SPLIT_ATTEMPTS
from xplabels.io import read_stars


@pytest.fixture(scope="module")
def calm(
    archive_services: Services, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, bytes]]:
    """What fetches of spectra, and of gaia_source alone, bring while nothing fails."""
    archive_services.calm()
    folder = tmp_path_factory.mktemp("calm")
    archive_services.fetch(folder / "xp", products=["xp"])
    archive_services.fetch(folder / "gaia_source", products=["gaia_source"])
    return {name: contents(folder / name) for name in ("xp", "gaia_source")}


TRANSIENT = [
    *(("datalink", "", Fault("status", status)) for status in (429, 500)),
    ("datalink", "", Fault("status", 503, (("Retry-After", "0"),))),
    *(("datalink", "", Fault(k)) for k in ("drop", "truncate", "cut", "slow", "fewer")),
    *(("tap", step, Fault(kind)) for kind in ("status", "drop") for step in ("async", "phase")),
    *(("tap", "results", Fault(k)) for k in ("status", "drop", "truncate", "cut", "slow")),
    ("tap", "phase", Fault("slow")),
    ("tap", "async", Fault("status", 429)),
    ("tap", "phase", Fault("error")),
]


@pytest.mark.parametrize(("name", "step", "fault"), TRANSIENT)
def test_transient_failures_change_nothing(
    services: Services,
    tmp_path: Path,
    calm: dict[str, dict[str, bytes]],
    name: str,
    step: str,
    fault: Fault,
) -> None:
    service = services.tap if name == "tap" else services.datalink
    services.tap.step = step
    # TAP's first request, for column names, has no ids: it is not the one that fails
    service.faults.extend([None, fault] if name == "tap" else [fault, None, fault])
    product = "gaia_source" if name == "tap" else "xp"
    assert services.fetch(tmp_path / "out", products=[product]).complete
    assert not service.faults, "every fault was met"
    assert contents(tmp_path / "out") == calm[product]


def test_ids_that_are_never_handed_out_fail_and_come_with_the_next_call(
    services: Services, undisturbed: Path, tmp_path: Path
) -> None:
    lost = sorted(services.with_spectrum)[3:6]
    services.datalink.withheld = lost
    output = tmp_path / "out"
    assert services.fetch(output).counts["xp"]["failed"] == 3
    rows = account(output)
    assert [one for one in sorted(rows) if rows[one]["xp"] == "failed"] == lost
    assert "leaves it out" in rows[lost[0]]["reason"]
    assert len(read_stars(output / "xp.parquet")) == len(services.with_spectrum) - 3
    assert not json.loads((output / "fetch.json").read_text())["complete"]

    services.calm()
    assert services.fetch(output).complete
    assert [one for ids in services.datalink.asked for one in ids] == lost, "only those are asked"
    assert contents(output) == contents(undisturbed)
    assert not (tmp_path / "out.partial").exists()


def test_stars_that_break_the_service_are_isolated(services: Services, tmp_path: Path) -> None:
    poison = {sorted(services.with_spectrum)[place] for place in (2, 17)}
    services.datalink.poison = poison
    summary = services.fetch(tmp_path / "out", products=["xp"])
    rows = account(tmp_path / "out")
    assert {one for one in rows if rows[one]["xp"] == "failed"} == poison
    assert summary.counts["xp"]["received"] == len(services.with_spectrum) - 2
    assert summary.reasons == (("xp", "HTTP 500 Internal Server Error: internal error", 2),)


def test_a_dead_service_is_not_asked_for_ever(services: Services, tmp_path: Path) -> None:
    services.datalink.poison = services.with_spectrum
    summary = services.fetch(tmp_path / "out", products=["xp"])
    assert summary.counts["xp"]["failed"] == len(services.with_spectrum)
    # to isolate every star would take 140 requests; parts of a chunk are tried twice
    extra = (QUICK.retry.attempts - SPLIT_ATTEMPTS) * 4 + SPLIT_ATTEMPTS * QUICK.parallel
    assert len(services.datalink.asked) <= SPLIT_ATTEMPTS * MOST_FAILURES + extra
    assert not (tmp_path / "out" / "xp.parquet").exists()


CHUNK = QUICK.tap_chunk


@pytest.mark.parametrize(
    ("before", "faults", "failed", "reason"),
    [
        # the names of columns, then per product three chunks; tmass comes second
        (1 + 3, [Fault("error")] * 4, (0, CHUNK, 0, 0), "the database is out of sorts"),
        (1, [Fault("overflow")], (CHUNK, 0, 0, CHUNK), "longer than the service allows"),
        (1, [Fault("error")] * 12, (STARS, 0, 0, STARS), "the database is out of sorts"),
    ],
    ids=["one chunk", "overflow", "gaia_source"],
)
def test_what_fails_for_good_leaves_the_rest(
    services: Services,
    undisturbed: Path,
    tmp_path: Path,
    before: int,
    faults: list[Fault],
    failed: tuple[int, ...],
    reason: str,
) -> None:
    services.tap.step = "phase"
    services.tap.faults.extend([None] * before + faults)
    summary = services.fetch(tmp_path / "out")
    assert tuple(counts["failed"] for counts in summary.counts.values()) == failed
    assert reason in summary.reasons[0][1]
    # spectra wait for gaia_source, which says which stars have one
    assert bool(services.datalink.asked) == (failed[-1] < STARS)
    assert services.fetch(tmp_path / "out").complete
    assert contents(tmp_path / "out") == contents(undisturbed)


@pytest.mark.parametrize("where", ["assembling", "exchanging", "published", "writing the state"])
def test_a_kill_at_the_end(
    services: Services, calm: dict[str, dict[str, bytes]], tmp_path: Path, where: str
) -> None:
    """The states between which the moves of the end lie, each made by hand."""
    output, state = tmp_path / "out", tmp_path / "out.partial"
    services.datalink.withheld = sorted(services.with_spectrum)[:1]
    services.fetch(output, products=["xp"])
    services.calm()
    if where == "published":
        keep = shutil.copytree(state, tmp_path / "keep")
        services.fetch(output, products=["xp"])
        keep.rename(state)
        next(state.glob("*.parquet")).unlink()
    elif where == "writing the state":
        lines = (state / "state.jsonl").read_bytes()
        (state / "state.jsonl").write_bytes(lines[:-20])
    else:
        (state / "whole").mkdir()
        (state / "whole" / "xp.parquet").write_bytes(b"half of")
        (state / "answer-1").mkdir()
        (state / ".1.partial.xp-0.parquet").write_bytes(b"half of")
        if where == "exchanging":
            output.rename(state / "old")
    assert services.fetch(output, products=["xp"]).complete
    assert contents(output) == calm["xp"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
