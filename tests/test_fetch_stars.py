"""Stars from an archive's services on loopback: every id accounted for, whatever fails."""

from __future__ import annotations

import csv
import gc
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from archive_files import FakeStars, fake_stars
from archive_files import write as write_file
from services.datalink import DataLinkService
from services.http import Fault
from services.made import MadeArchive, made_archive
from services.tap import TapService
from xplabels.archive import read, read_stars
from xplabels.errors import InputError
from xplabels.fetch import Archive, Cone, FetchSummary, Patience, Settings, Wanted, fetch_stars
from xplabels.fetch import datalink as datalink_module
from xplabels.fetch.archive import release_of
from xplabels.tables import join_photometry

STARS = 40
QUICK = Settings(
    Patience(attempts=4, first_wait=0.01, timeout=1.0, job_timeout=5.0),
    chunk=10,
    tap_chunk=15,
    progress=False,
)


@dataclass
class Services:
    """The services, what they serve, and the client's word for them."""

    made: MadeArchive
    tap: TapService
    datalink: DataLinkService

    @property
    def archive(self) -> Archive:
        return Archive(tap=self.tap.address, datalink=self.datalink.address)

    @property
    def with_spectrum(self) -> set[int]:
        return set(self.made.spectra.source_id)

    def fetch(
        self, output: Path, ids: Any = None, settings: Settings = QUICK, **more: Any
    ) -> FetchSummary:
        wanted = Wanted.of_ids(self.made.ids if ids is None else np.array(ids))
        return fetch_stars(wanted, output, self.archive, settings=settings, **more)

    def calm(self) -> None:
        """Nothing fails any more, and nothing has been asked."""
        for service in (self.tap, self.datalink):
            service.faults.clear()
            service.log.clear()
        self.tap.step = ""
        self.datalink.withheld = self.datalink.poison = ()
        self.datalink.asked.clear()


@pytest.fixture(scope="module")
def both() -> Iterator[Services]:
    made = made_archive(STARS)
    with TapService(made.tables) as tap, DataLinkService(made.spectra) as datalink:
        yield Services(made, tap, datalink)


@pytest.fixture
def services(both: Services) -> Services:
    both.calm()
    return both


@pytest.fixture(scope="module")
def undisturbed(both: Services, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fetch of everything while nothing failed."""
    both.calm()
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert both.fetch(output).complete
    return output


def account(output: Path) -> dict[int, dict[str, str]]:
    """``ids.csv`` as {id: row}; no id stands in it twice."""
    with (output / "ids.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = {int(row["source_id"]): row for row in rows}
    assert len(told) == len(rows)
    return told


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def slow_twin(made: MadeArchive, product: str) -> dict[int, dict[str, Any]]:
    """Rows of a product as loops over the archive's tables give them, one star at a time."""
    if product == "gaia_source":
        near, table, key = None, made.tables["gaiadr3.gaia_source"], "source_id"
    else:
        near = made.tables[
            f"gaiadr3.{'tmass_psc_xsc' if product == 'tmass' else 'allwise'}_best_neighbour"
        ]
        table, key = made.tables[f"gaiadr1.{product}_original_valid"], "designation"
    found: dict[int, dict[str, Any]] = {}
    for one in made.ids.tolist():
        links = [one] if near is None else [
            name
            for star, name in zip(near["source_id"], near["original_ext_source_id"], strict=True)
            if star == one
        ]  # fmt: skip
        for link in links:
            row = table[key].index(link)
            found[one] = {name: values[row] for name, values in table.items()}
    return found


def test_what_comes_is_what_the_archive_has(
    services: Services, undisturbed: Path, tmp_path: Path
) -> None:
    output = undisturbed
    summary = services.fetch(output)
    assert summary.complete
    assert sorted(contents(output)) == [
        "allwise.parquet", "fetch.json", "gaia_source.parquet", "ids.csv", "tmass.parquet",
        "xp.parquet",
    ]  # fmt: skip
    assert not output.with_name("out.partial").exists()

    path = write_file(services.made.spectra, tmp_path / "whole.csv")
    expected, stars = read(path), read_stars(output / "xp.parquet")
    order = np.argsort(expected.source_id)
    assert stars.source_id.tolist() == expected.source_id[order].tolist()
    for band in ("bp", "rp"):
        one, other = getattr(stars.spectra, band), getattr(expected[order].spectra, band)
        np.testing.assert_array_equal(one.coefficients, other.coefficients)
        np.testing.assert_array_equal(one.errors, other.errors)
        np.testing.assert_array_equal(one.correlations, other.correlations)
    np.testing.assert_array_equal(stars.flags, expected[order].flags)

    renamed = {"w1sigmpro": "w1mpro_error", "w2sigmpro": "w2mpro_error"}
    for product in ("gaia_source", "tmass", "allwise"):
        twin = slow_twin(services.made, product)
        rows = pq.read_table(output / f"{product}.parquet").to_pylist()
        assert [row["source_id"] for row in rows] == sorted(twin)
        for row in rows:
            for name in set(row) - {"source_id", "angular_distance", "number_of_mates"}:
                assert row[name] == twin[row["source_id"]][renamed.get(name, name)], name
        assert summary.counts[product] == {
            "received": len(twin), "absent": STARS - len(twin), "failed": 0,
        }  # fmt: skip

    for one, row in account(output).items():
        assert row["xp"] == ("received" if one in services.with_spectrum else "absent")
        assert row["tmass"] == (
            "received" if one in slow_twin(services.made, "tmass") else "absent"
        )


def test_tables_join_the_spectra(undisturbed: Path) -> None:
    names = ("gaia_source", "tmass", "allwise")
    stars = join_photometry(
        read_stars(undisturbed / "xp.parquet"),
        [undisturbed / f"{name}.parquet" for name in names],
    )
    values, errors = stars.photometry.column("w1mpro")
    assert 0 < np.isfinite(values).sum() < len(stars)
    assert (np.isfinite(values) == np.isfinite(errors)).all()
    assert np.isfinite(stars.photometry.column("phot_g_mean_mag")[1]).all()


def test_only_stars_with_a_spectrum_are_asked_for_in_small_chunks(
    services: Services, tmp_path: Path
) -> None:
    services.fetch(tmp_path / "out", products=["xp"])
    assert all(len(ids) <= QUICK.chunk for ids in services.datalink.asked)
    asked = [one for ids in services.datalink.asked for one in ids]
    assert sorted(asked) == sorted(services.with_spectrum)
    assert not services.tap.jobs, "every job is deleted"


def test_unknown_ids_are_absent_and_duplicates_count_once(
    services: Services, tmp_path: Path
) -> None:
    stranger = 4295806720
    ids = [*services.made.ids[:5], *services.made.ids[:5], stranger]
    summary = services.fetch(tmp_path / "out", ids)
    assert (summary.ids, summary.complete) == (6, True)
    row = account(tmp_path / "out")[stranger]
    assert {row[name] for name in ("gaia_source", "tmass", "allwise", "xp")} == {"absent"}
    assert "no row in gaiadr3.gaia_source" in row["reason"]


@pytest.fixture(scope="module")
def spectra_alone(both: Services, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a fetch of spectra brings while nothing fails."""
    both.calm()
    output = tmp_path_factory.mktemp("alone") / "out"
    both.fetch(output, products=["xp"])
    return contents(output)


@pytest.fixture(scope="module")
def sources_alone(both: Services, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a fetch of gaia_source brings while nothing fails."""
    both.calm()
    output = tmp_path_factory.mktemp("alone") / "out"
    both.fetch(output, products=[])
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


def test_a_dead_service_is_not_asked_for_ever(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datalink_module, "STRIKES", 4)
    services.datalink.poison = services.with_spectrum
    summary = services.fetch(tmp_path / "out", products=["xp"])
    assert summary.counts["xp"]["failed"] == len(services.with_spectrum)
    assert len(services.datalink.asked) <= 4 * 4 + 2 * QUICK.parallel
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


def test_a_cone_and_a_query(services: Services, tmp_path: Path) -> None:
    table = services.made.tables["gaiadr3.gaia_source"]
    cone = Cone(180.0, 30.0, 60.0)
    fetch_stars(
        Wanted.of_cone(cone, release_of("dr3")), tmp_path / "cone", services.archive, [],
        QUICK,
    )  # fmt: skip
    ra, dec = (np.radians(np.array(table[name])) for name in ("ra", "dec"))
    cosine = np.sin(dec) * np.sin(np.radians(30)) + np.cos(dec) * np.cos(np.radians(30)) * np.cos(
        ra - np.pi
    )
    inside = np.array(table["source_id"])[cosine >= 0.5]
    assert 0 < len(inside) < STARS
    assert sorted(account(tmp_path / "cone")) == sorted(inside)

    query = "SELECT source_id FROM gaiadr3.gaia_source WHERE phot_g_mean_mag < 12"
    fetch_stars(Wanted(query=query), tmp_path / "query", services.archive, [], QUICK)
    bright = np.array(table["source_id"])[np.array(table["phot_g_mean_mag"]) < 12]
    assert sorted(account(tmp_path / "query")) == sorted(bright)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT ra FROM gaiadr3.gaia_source", "no column source_id but ra"),
        ("SELECT source_id FROM gaiadr3.gaia_source WHERE ra > 400", "finds no star"),
        ("SELECT nonsense", "no such column: nonsense"),
    ],
)
def test_a_query_of_no_use_is_told(
    services: Services, tmp_path: Path, query: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fetch_stars(Wanted(query=query), tmp_path / "out", services.archive, [], QUICK)
    assert not (tmp_path / "out").exists()


def test_a_column_that_the_archive_lacks(services: Services, tmp_path: Path) -> None:
    made = services.made
    lean = {name: dict(table) for name, table in made.tables.items()}
    del lean["gaiadr3.gaia_source"]["has_xp_continuous"]
    del lean["gaiadr1.tmass_original_valid"]["h_m"]
    with TapService(lean) as tap:
        archive = Archive(tap=tap.address, datalink=services.datalink.address)
        wanted = Wanted.of_ids(made.ids)
        # without the word of gaia_source, a star that is not handed out has no spectrum
        fetch_stars(wanted, tmp_path / "out", archive, ["xp"], QUICK)
        told = account(tmp_path / "out")
        received = {one for one, row in told.items() if row["xp"] == "received"}
        assert received == services.with_spectrum
        assert {row["xp"] for row in told.values()} == {"received", "absent"}
        with pytest.raises(InputError, match=r"gaiadr1\.tmass_original_valid.*no column 'h_m'"):
            fetch_stars(wanted, tmp_path / "more", archive, ["tmass"], QUICK)


def test_the_fourth_release_by_its_names(tmp_path: Path) -> None:
    """51 + 55 coefficients, schema gaiadr4, type MEAN_SPECTRUM_XP; made, since not out yet."""
    made = made_archive(6)
    tables = {
        name.replace("gaiadr3", "gaiadr4") if name == "gaiadr3.gaia_source" else name: table
        for name, table in made.tables.items()
    }
    spectra = fake_stars(len(made.spectra.source_id), (51, 55))
    renamed = FakeStars(made.spectra.source_id, spectra.cells)
    from services import tap as tap_module

    tap_module.SCHEMAS = (*tap_module.SCHEMAS, "gaiadr4")
    with (
        TapService(tables) as tap,
        DataLinkService(renamed, "MEAN_SPECTRUM_XP", "Gaia DR4") as datalink,
    ):
        archive = Archive(tap.address, datalink.address, release=release_of("dr4"))
        fetch_stars(Wanted.of_ids(made.ids), tmp_path / "out", archive, ["xp"], QUICK)
    stars = read_stars(tmp_path / "out" / "xp.parquet")
    assert stars.spectra.widths == (51, 55)
    assert stars.origin == "Gaia DR4 MEAN_SPECTRUM_XP"


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # astroquery leaves its connections open
def test_the_archives_own_client_understands_the_service(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """astroquery gets from the service what it would get from the archive, and so do we."""
    from astroquery.gaia import GaiaClass

    monkeypatch.chdir(tmp_path)
    client = GaiaClass(
        gaia_tap_server=services.tap.url + "/",
        gaia_data_server=services.datalink.url + "/",
        show_server_messages=False,
    )
    ids = sorted(services.with_spectrum)[:4]
    files = client.load_data(
        ids, data_release="Gaia DR3", data_structure="RAW", retrieval_type="XP_CONTINUOUS",
        format="csv",
    )  # fmt: skip
    (table,) = files["XP_CONTINUOUS_RAW.csv"]
    assert table["source_id"].tolist() == ids
    services.fetch(tmp_path / "out", ids, products=["xp"])
    assert read_stars(tmp_path / "out" / "xp.parquet").source_id.tolist() == ids
    del client
    gc.collect()


def test_a_finished_fetch_is_not_done_again(services: Services, tmp_path: Path) -> None:
    first = services.fetch(tmp_path / "out", products=["xp"])
    before = contents(tmp_path / "out")
    requests = len(services.tap.log)
    again = services.fetch(tmp_path / "out", products=["xp"])
    assert again.counts == first.counts
    assert len(services.tap.log) == requests
    assert contents(tmp_path / "out") == before
    assert services.fetch(tmp_path / "out", products=["xp"], overwrite=True).complete
    assert len(services.tap.log) > requests


def test_nothing_of_anybody_else_is_replaced(services: Services, tmp_path: Path) -> None:
    output = tmp_path / "out"
    services.fetch(output, services.made.ids[:5], products=[])
    with pytest.raises(InputError, match="exists already"):
        services.fetch(output, products=[])
    output.joinpath("thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'thesis\.tex'"):
        services.fetch(output, products=[], overwrite=True)
    output.joinpath("thesis.tex").unlink()
    assert services.fetch(output, products=[], overwrite=True).ids == STARS

    services.datalink.withheld = services.with_spectrum
    services.fetch(tmp_path / "half", products=["xp"])
    with pytest.raises(InputError, match="unfinished fetch of another request"):
        services.fetch(tmp_path / "half", services.made.ids[:5])


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
        (ledger / ".1.partial.ids.parquet").write_bytes(b"half of")
        if where == "exchanging":
            output.rename(ledger / "old")
    assert services.fetch(output, products=["xp"]).complete
    assert contents(output) == spectra_alone
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_fetches_do_not_share_a_folder(services: Services, tmp_path: Path) -> None:
    from xplabels.fetch.ledger import Ledger

    ledger = Ledger(tmp_path / "out", {"some": "request"})
    ledger.open(False)
    with ledger.locked():
        other = Ledger(tmp_path / "out", {"some": "request"})
        other.open(False)
        with pytest.raises(InputError, match="another fetch is at work"), other.locked():
            pass


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
    wanted = Wanted.of_file(path).ids
    assert wanted is not None
    assert wanted.tolist() == [4345775217221821312, 4345775217221821313]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "gaia_source_id\n1\n", "none of the columns .*source_id"),
        ("a.csv", "source_id\n0\n", "holds no source_id"),
        ("a.txt", "12\n1.5e18\n", "no id"),
        ("a.txt", "99999999999999999999\n", "no id"),
    ],
)
def test_a_file_without_ids_is_told(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Wanted.of_file(path)


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "400,0,1", "0,91,1", "0,0,0", "nan,0,1"])
def test_a_cone_of_no_use_is_told(text: str) -> None:
    with pytest.raises(InputError):
        Cone.parse(text)


@pytest.mark.parametrize(
    "wrong", [{"chunk": 5001}, {"chunk": 0}, {"tap_chunk": 0}, {"parallel": 0}]
)
def test_settings_of_no_use_are_told(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        Settings(**wrong)  # type: ignore[arg-type]
