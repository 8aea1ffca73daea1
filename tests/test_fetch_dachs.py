"""The same client against a full TAP server, DaCHS: only the address is another.

``make test-archive`` starts the server and runs this; without ``XPLABELS_TAP`` it is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fetch_services import Services, serving, serving_dr4
from services.dachs.publish import STARS
from services.made4 import made_dr4
from test_releases import changed
from xplabels.core.errors import InputError
from xplabels.fetch import Archive, Cone, FetchSettings, RetryPolicy, Targets, compare, fetch_stars
from xplabels.fetch.stars import FetchSummary
from xplabels.fetch.tap import Tap
from xplabels.releases import load_release

ADDRESS = os.environ.get("XPLABELS_TAP", "")

pytestmark = pytest.mark.skipif(not ADDRESS, reason="no TAP server (make test-archive starts one)")

SETTINGS = FetchSettings(
    RetryPolicy(attempts=3, first_wait=0.5, timeout=60.0), chunk=100, tap_chunk=300, progress=False
)


@pytest.fixture(scope="module")
def small() -> Iterator[Services]:
    """The small service with the same stars, and the DataLink service for both."""
    with serving(STARS) as services:
        yield services


def fetch(
    small: Services, targets: Targets, output: Path, products: list[str], release: str = "dr3"
) -> FetchSummary:
    """Tables from DaCHS."""
    archive = Archive(ADDRESS, small.datalink.address, release=load_release(release))
    return fetch_stars(targets, output, archive, products, SETTINGS)


def test_every_table_as_the_small_service_gives_it(small: Services, tmp_path: Path) -> None:
    targets = Targets.of_ids(np.append(small.made.ids, 4295806720))
    products = ["tmass", "allwise", "xp"]
    one, other = tmp_path / "dachs", tmp_path / "small"
    summary = fetch(small, targets, one, products)
    expected = fetch_stars(targets, other, small.archive, products, SETTINGS)
    assert summary.complete
    assert summary.counts == expected.counts
    assert summary.counts["gaia_source"] == {"received": STARS, "absent": 1, "failed": 0}
    for name in ("gaia_source.parquet", "tmass.parquet", "allwise.parquet"):
        table = pq.read_table(one / name)
        assert table.equals(pq.read_table(other / name), check_metadata=True), name
    for name in ("ids.csv", "xp.parquet"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_the_fourth_release(tmp_path: Path) -> None:
    """Stars outside of gaia_source, ids of DR3, CatWISE2020; the schema as a user corrects it."""
    declaration = changed(tmp_path, ("external.catwise2020", "catwise.catwise2020"))
    with serving_dr4(made_dr4(STARS)) as four:
        here = four.archive.release
        release = load_release(declaration)
        assert not compare(release, Tap(ADDRESS, SETTINGS.retry)).missing
        old = np.array(four.made.tables["gaiadr4.dr3_neighbourhood"]["dr3_source_id"])
        for name, targets in (
            ("ids", Targets.of_ids(four.made.ids)),
            ("old", Targets.of_ids(old, "dr3")),
        ):
            products = ["tmass", "catwise2020", "xp"]
            one, other = tmp_path / name / "dachs", tmp_path / name / "small"
            (tmp_path / name).mkdir()
            archive = Archive(ADDRESS, four.datalink.address, release=release)
            summary = fetch_stars(targets, one, archive, products, SETTINGS)
            archive = Archive(four.tap.address, four.datalink.address, release=here)
            expected = fetch_stars(targets, other, archive, products, SETTINGS)
            assert summary.complete
            assert summary.counts == expected.counts
            for path in one.glob("*.parquet"):
                assert pq.read_table(path).equals(pq.read_table(other / path.name)), path


def test_a_cone(small: Services, tmp_path: Path) -> None:
    table = small.made.tables["gaiadr3.gaia_source"]
    north = np.array(table["source_id"])[np.array(table["dec"]) >= 50]
    assert 10 < len(north) < STARS
    targets = Targets.of_cone(Cone(10.0, 90.0, 40.0), load_release("dr3"))
    assert fetch(small, targets, tmp_path / "cone", ["tmass"]).complete
    found = pq.read_table(tmp_path / "cone" / "gaia_source.parquet").column("source_id").to_pylist()
    assert found == sorted(north.tolist())


@pytest.mark.parametrize(
    ("targets", "release", "message"),
    [
        (Targets(query="SELECT nonsense FROM gaiadr3.gaia_source"), "dr3", "nonsense"),
        (Targets.of_ids(np.array([1])), "dr4", r"lacks the table external\.catwise2020"),
    ],
    ids=["query", "table"],
)
def test_what_the_server_refuses_is_an_error(
    small: Services, tmp_path: Path, targets: Targets, release: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fetch(small, targets, tmp_path / "out", ["catwise2020"][release == "dr3" :], release)
