"""Stars from an archive's services on loopback: every id accounted for."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fetch_services import QUICK, STARS, Services, account, contents
from services.made import MadeArchive
from services.tap import TapService
from xplabels.core.errors import InputError
from xplabels.io import read_stars
from xplabels.io.atomic import claimed


def slow_twin(made: MadeArchive, product: str) -> dict[int, dict[str, Any]]:
    """Rows of a product as loops over the archive's tables give them, one star at a time."""
    if product == "gaia_source":
        table, key = made.tables["gaiadr3.gaia_source"], "source_id"
        links = {one: one for one in made.ids.tolist()}
    else:
        table, key = made.tables[f"gaiadr1.{product}_original_valid"], "designation"
        matched = "tmass_psc_xsc" if product == "tmass" else product
        near = made.tables[f"gaiadr3.{matched}_best_neighbour"]
        links = dict(zip(near["source_id"], near["original_ext_source_id"], strict=True))
    rows = {one: table[key].index(link) for one, link in links.items()}
    return {one: {name: table[name][row] for name in table} for one, row in rows.items()}


def test_what_comes_is_what_the_archive_has(services: Services, tmp_path: Path) -> None:
    output = tmp_path / "out"
    summary = services.fetch(output)
    assert summary.complete
    assert all(len(ids) <= QUICK.chunk for ids in services.datalink.asked)
    asked = [one for ids in services.datalink.asked for one in ids]
    assert sorted(asked) == sorted(services.with_spectrum), "only stars that have one"
    assert not services.tap.jobs, "every job is deleted"
    tables = ["allwise", "gaia_source", "tmass", "xp"]
    expected_files = ["fetch.json", "ids.csv", *(f"{name}.parquet" for name in tables)]
    assert sorted(contents(output)) == sorted(expected_files)
    assert not output.with_name("out.partial").exists()

    services.check_spectra(output)
    renamed = {"w1sigmpro": "w1mpro_error", "w2sigmpro": "w2mpro_error"}
    have = {"xp": services.with_spectrum}
    for product in tables[:3]:
        twin = slow_twin(services.made, product)
        have[product] = set(twin)
        rows = pq.read_table(output / f"{product}.parquet").to_pylist()
        assert [row["source_id"] for row in rows] == sorted(twin)
        for row in rows:
            for name in set(row) - {"source_id", "angular_distance", "number_of_mates"}:
                assert row[name] == twin[row["source_id"]][renamed.get(name, name)], name
        counts = {"received": len(twin), "absent": STARS - len(twin), "failed": 0}
        assert summary.counts[product] == counts
    for one, row in account(output).items():
        for product in tables:
            assert row[product] == ("received" if one in have[product] else "absent")


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


def test_a_column_that_the_archive_lacks(services: Services, tmp_path: Path) -> None:
    lean = {name: dict(table) for name, table in services.made.tables.items()}
    del lean["gaiadr3.gaia_source"]["has_xp_continuous"]
    del lean["gaiadr1.tmass_original_valid"]["h_m"]
    with TapService(lean) as tap:
        services = replace(services, tap=tap)
        # without the word of gaia_source, a star that is not handed out has no spectrum
        assert services.fetch(tmp_path / "out", products=["xp"]).complete
        rows = account(tmp_path / "out")
        received = {one for one, row in rows.items() if row["xp"] == "received"}
        assert received == services.with_spectrum
        with pytest.raises(
            InputError, match=r"lacks the column gaiadr1\.tmass_original_valid\.h_m"
        ):
            services.fetch(tmp_path / "more", products=["tmass"])


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
    before, requests = contents(tmp_path / "out"), len(services.tap.log)
    assert services.fetch(tmp_path / "out", products=["xp"]).counts == first.counts
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
    with pytest.raises(InputError, match="was left by a run with other options"):
        services.fetch(tmp_path / "half", services.made.ids[:5])


def test_two_fetches_do_not_share_a_folder(services: Services, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with claimed(output), pytest.raises(InputError, match=r"out: another run is at work here"):
        services.fetch(output, products=[])
    assert not list(tmp_path.iterdir())
    services.fetch(output, products=[])
