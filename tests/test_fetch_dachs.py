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

from services.dachs.publish import STARS
from services.datalink import DataLinkService
from services.made import MadeArchive, made_archive
from services.tap import TapService
from xplabels.core.errors import InputError
from xplabels.fetch import (
    Archive,
    Cone,
    FetchSettings,
    RetryPolicy,
    Targets,
    fetch_stars,
    release_of,
)

BOTH = ("dachs", "small")
ADDRESS = os.environ.get("XPLABELS_TAP", "")

pytestmark = pytest.mark.skipif(not ADDRESS, reason="no TAP server (make test-archive starts one)")

SETTINGS = FetchSettings(
    RetryPolicy(attempts=3, first_wait=0.5, timeout=60.0), chunk=100, tap_chunk=300, progress=False
)


@pytest.fixture(scope="module")
def made() -> MadeArchive:
    return made_archive(STARS)


@pytest.fixture(scope="module")
def datalink(made: MadeArchive) -> Iterator[DataLinkService]:
    with DataLinkService(made.spectra) as service:
        yield service


def test_every_table_as_the_small_service_gives_it(
    made: MadeArchive, datalink: DataLinkService, tmp_path: Path
) -> None:
    wanted = Targets.of_ids(np.append(made.ids, 4295806720))
    dachs = fetch_stars(
        wanted, tmp_path / "dachs", Archive(ADDRESS, datalink.address), settings=SETTINGS
    )
    with TapService(made.tables) as tap:
        small = fetch_stars(
            wanted, tmp_path / "small", Archive(tap.address, datalink.address), settings=SETTINGS
        )
    assert dachs.complete
    assert dachs.counts == small.counts
    assert dachs.counts["gaia_source"] == {"received": STARS, "absent": 1, "failed": 0}
    for name in ("gaia_source", "tmass", "allwise"):
        one, other = (pq.read_table(tmp_path / out / f"{name}.parquet") for out in BOTH)
        assert one.schema.equals(other.schema, check_metadata=True)
        assert one.equals(other), name
    for name in ("ids.csv", "xp.parquet"):
        one, other = ((tmp_path / out / name).read_bytes() for out in BOTH)
        assert one == other, name


def test_a_cone(made: MadeArchive, datalink: DataLinkService, tmp_path: Path) -> None:
    table = made.tables["gaiadr3.gaia_source"]
    ra, dec = (np.radians(np.array(table[name])) for name in ("ra", "dec"))
    north = np.sin(dec) >= np.cos(np.radians(40))
    assert 10 < north.sum() < STARS
    wanted = Targets.of_cone(Cone(10.0, 90.0, 40.0), release_of("dr3"))
    summary = fetch_stars(
        wanted, tmp_path / "cone", Archive(ADDRESS, datalink.address), ["tmass"], SETTINGS
    )
    assert summary.complete
    found = pq.read_table(tmp_path / "cone" / "gaia_source.parquet").column("source_id").to_pylist()
    assert found == sorted(np.array(table["source_id"])[north].tolist())
    assert len(ra) == STARS


def test_a_query_that_it_refuses_is_told(datalink: DataLinkService, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nonsense"):
        fetch_stars(
            Targets(query="SELECT nonsense FROM gaiadr3.gaia_source"),
            tmp_path / "out",
            Archive(ADDRESS, datalink.address),
            [],
            SETTINGS,
        )


def test_a_table_that_it_lacks_is_told(datalink: DataLinkService, tmp_path: Path) -> None:
    archive = Archive(ADDRESS, datalink.address, release=release_of("dr4"))
    with pytest.raises(InputError, match=r"table gaiadr4\.gaia_source: "):
        fetch_stars(Targets.of_ids(np.array([1])), tmp_path / "out", archive, [], SETTINGS)
