"""Services that fail: what passes changes nothing, what stays is told star by star."""

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
def spectra_alone(
    archive_services: Services, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What a fetch of spectra brings while nothing fails."""
    archive_services.calm()
    output = tmp_path_factory.mktemp("alone") / "out"
    archive_services.fetch(output, products=["xp"])
    return contents(output)


@pytest.fixture(scope="module")
def sources_alone(
    archive_services: Services, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What a fetch of gaia_source brings while nothing fails."""
    archive_services.calm()
    output = tmp_path_factory.mktemp("alone") / "out"
    archive_services.fetch(output, products=[])
    return contents(output)


PASSING = [
    Fault("status", 500),
    Fault("status", 503, (("Retry-After", "0"),)),
    Fault("status", 429),
    Fault("drop"),
    Fault("truncate"),
    Fault("cut"),
    Fault("slow"),
    Fault("fewer"),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_datalink_failures_that_pass_change_nothing(
    services: Services, tmp_path: Path, spectra_alone: dict[str, bytes], fault: Fault
) -> None:
    services.datalink.faults.extend([fault, None, fault])
    summary = services.fetch(tmp_path / "rough", products=["xp"])
    assert not services.datalink.faults, "every fault was met"
    assert summary.complete
    assert contents(tmp_path / "rough") == spectra_alone


TAP_FAULTS = [
    *((Fault(kind), step) for kind in ("status", "drop") for step in ("async", "phase", "results")),
    *((Fault(kind), "results") for kind in ("truncate", "cut", "slow")),
    (Fault("slow"), "phase"),
    (Fault("status", 429), "async"),
    (Fault("error"), "phase"),
]


@pytest.mark.parametrize(("fault", "step"), TAP_FAULTS)
def test_tap_failures_that_pass_change_nothing(
    services: Services, tmp_path: Path, sources_alone: dict[str, bytes], fault: Fault, step: str
) -> None:
    services.tap.step = step
    # the first request for column names, which has no ids, is not the one that fails
    services.tap.faults.extend([None, fault])
    summary = services.fetch(tmp_path / "rough", products=[])
    assert not services.tap.faults
    assert summary.complete
    assert contents(tmp_path / "rough") == sources_alone


def test_ids_that_are_never_handed_out_fail_and_come_with_the_next_call(
    services: Services, undisturbed: Path, tmp_path: Path
) -> None:
    lost = sorted(services.with_spectrum)[3:6]
    services.datalink.withheld = lost
    output = tmp_path / "out"
    summary = services.fetch(output)
    assert summary.counts["xp"]["failed"] == 3
    told = account(output)
    assert [one for one in sorted(told) if told[one]["xp"] == "failed"] == lost
    assert "leaves it out" in told[lost[0]]["reason"]
    assert len(read_stars(output / "xp.parquet")) == len(services.with_spectrum) - 3
    assert not json.loads((output / "fetch.json").read_text())["complete"]

    services.datalink.withheld = ()
    services.datalink.asked.clear()
    assert services.fetch(output).complete
    assert [one for ids in services.datalink.asked for one in ids] == lost, "only those are asked"
    assert contents(output) == contents(undisturbed)
    assert not (tmp_path / "out.partial").exists()


def test_stars_that_break_the_service_are_cornered(services: Services, tmp_path: Path) -> None:
    poison = {sorted(services.with_spectrum)[place] for place in (2, 17)}
    services.datalink.poison = poison
    summary = services.fetch(tmp_path / "out", products=["xp"])
    told = account(tmp_path / "out")
    assert {one for one in told if told[one]["xp"] == "failed"} == poison
    assert summary.counts["xp"]["received"] == len(services.with_spectrum) - 2
    assert summary.reasons[0][:2] == ("xp", "HTTP 500 Internal Server Error: internal error")


def test_a_dead_service_is_not_asked_for_ever(services: Services, tmp_path: Path) -> None:
    services.datalink.poison = services.with_spectrum
    summary = services.fetch(tmp_path / "out", products=["xp"])
    assert summary.counts["xp"]["failed"] == len(services.with_spectrum)
    # to isolate each of the stars would take 140 requests; parts of a chunk are tried twice
    extra = (QUICK.retry.attempts - SPLIT_ATTEMPTS) * 4 + SPLIT_ATTEMPTS * QUICK.parallel
    assert len(services.datalink.asked) <= SPLIT_ATTEMPTS * MOST_FAILURES + extra
    assert not (tmp_path / "out" / "xp.parquet").exists()


def test_a_table_that_fails_leaves_the_others(
    services: Services, undisturbed: Path, tmp_path: Path
) -> None:
    services.tap.step = "phase"
    # per product: column names of each of its tables, then three chunks; tmass comes second
    services.tap.faults.extend([None] * (1 + 3 + 2) + [Fault("error")] * 4)
    summary = services.fetch(tmp_path / "out")
    assert summary.counts["tmass"]["failed"] == QUICK.tap_chunk
    assert summary.counts["xp"]["failed"] == summary.counts["allwise"]["failed"] == 0
    assert "the database is out of sorts" in summary.reasons[0][1]
    assert services.fetch(tmp_path / "out").complete
    assert contents(tmp_path / "out") == contents(undisturbed)


def test_an_overflowing_answer_is_no_answer(services: Services, tmp_path: Path) -> None:
    services.tap.step = "phase"
    services.tap.faults.extend([None, Fault("overflow")])
    summary = services.fetch(tmp_path / "out", products=[])
    assert summary.counts["gaia_source"]["failed"] == QUICK.tap_chunk
    assert "longer than the service allows" in summary.reasons[0][1]


def test_spectra_wait_for_gaia_source(services: Services, tmp_path: Path) -> None:
    services.tap.step = "phase"
    services.tap.faults.extend([None] + [Fault("error")] * 12)
    summary = services.fetch(tmp_path / "out", products=["xp"])
    assert summary.counts["xp"]["failed"] == STARS
    assert not services.datalink.asked
    assert services.fetch(tmp_path / "out", products=["xp"]).complete


@pytest.mark.parametrize("where", ["assembling", "exchanging", "published"])
def test_a_kill_while_the_output_is_put_in_place(
    services: Services, spectra_alone: dict[str, bytes], tmp_path: Path, where: str
) -> None:
    """The states between which the moves of the end lie, each made by hand."""
    output, ledger = tmp_path / "out", tmp_path / "out.partial"
    services.datalink.withheld = sorted(services.with_spectrum)[:1]
    services.fetch(output, products=["xp"])
    assert ledger.is_dir()
    services.datalink.withheld = ()
    if where == "published":
        keep = shutil.copytree(ledger, tmp_path / "keep")
        services.fetch(output, products=["xp"])
        keep.rename(ledger)
        next(ledger.glob("*.parquet")).unlink()
    else:
        (ledger / "whole").mkdir()
        (ledger / "whole" / "xp.parquet").write_bytes(b"half of")
        (ledger / "answer-1").mkdir()
        (ledger / ".1.partial.xp-0.parquet").write_bytes(b"half of")
        if where == "exchanging":
            output.rename(ledger / "old")
    assert services.fetch(output, products=["xp"]).complete
    assert contents(output) == spectra_alone
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
