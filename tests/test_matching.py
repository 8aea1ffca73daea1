"""Matching on the sky: motion, nearest neighbours and LSDB against slow, obvious twins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from xplabels.sky.crossmatch import nearest, propagate, unit_vectors
from xplabels.surveys import read_survey
from xplabels.surveys.matching import MatchFlag

ROOT = Path(__file__).parents[1]
EPOCH = 2010.5
Made = tuple[Path, dict[str, np.ndarray]]
"""A folder, and the truth of its catalogues: columns of stars and sources, ``counterpart``."""


def test_motion_is_astropys() -> None:
    """Stars everywhere, the poles and ra = 0 included, against astropy's offset along an arc."""
    rng = np.random.default_rng(2)
    ra = np.concatenate([[0, 0, 359.9999999, 10, 20], rng.uniform(0, 360, 200)])
    dec = np.concatenate([[0, 89.9999, 5, 90, -90], np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))])
    pmra, pmdec = rng.normal(0, 3000, (2, len(ra)))
    pmra[:2], pmdec[:2] = (-1.0, 0.0), (0.0, 10300.0)
    years = -5.4
    found = propagate(ra, dec, pmra, pmdec, years)
    arc = np.hypot(pmra, pmdec) * years * u.mas
    # along a straight line in space a star covers the arctangent of its motion
    arc = np.arctan(arc.to_value(u.rad)) * u.rad
    there = SkyCoord(ra * u.deg, dec * u.deg).directional_offset_by(
        np.arctan2(pmra, pmdec) * u.rad, arc
    )
    separation = there.separation(SkyCoord(*found.T, representation_type="cartesian")).arcsec
    # at a pole itself the direction of north is a convention
    assert np.delete(separation, [3, 4]).max() < 1e-6
    unknown = np.full(len(ra), np.nan)
    np.testing.assert_allclose(
        propagate(ra, dec, unknown, unknown, years), unit_vectors(ra, dec), atol=1e-15
    )


@pytest.mark.parametrize("ra", [0.0, 123.0])
@pytest.mark.parametrize("dec", [0.0, 89.999])
def test_nearest_does_what_trying_every_pair_does(ra: float, dec: float) -> None:
    """Across ra = 0 and close to the pole."""
    rng = np.random.default_rng(1)
    near = SkyCoord(ra * u.deg, dec * u.deg)

    def scatter(count: int) -> SkyCoord:
        return near.directional_offset_by(
            rng.uniform(0, 360, count) * u.deg, rng.uniform(0, 20, count) * u.arcsec
        )

    stars, candidates = scatter(80), scatter(120)
    star, candidate, separation, count = nearest(
        *(unit_vectors(c.ra.deg, c.dec.deg) for c in (stars, candidates)), 2.0
    )
    every = stars[:, None].separation(candidates[None, :]).arcsec
    within = np.flatnonzero((every <= 2.0).any(axis=1))
    assert star.tolist() == within.tolist()
    assert candidate.tolist() == every[within].argmin(axis=1).tolist()
    assert separation == pytest.approx(every[within].min(axis=1), abs=1e-6)
    assert count.tolist() == (every[within] <= 2.0).sum(axis=1).tolist()
    some, nothing = unit_vectors(np.zeros(2), np.zeros(2)), np.empty((0, 3))
    for pair in ((some, nothing), (nothing, some)):
        assert [len(part) for part in nearest(*pair, 1.0)] == [0, 0, 0, 0]


def obvious_matches(sky: dict[str, np.ndarray], radius: float) -> dict[int, tuple[int, int, int]]:
    """source_id -> row, candidates and flags, on the whole sky at once, every pair."""
    star = (sky[name] for name in ("star_ra", "star_dec", "pmra", "pmdec"))
    there = propagate(*star, EPOCH - 2016.0)
    source = unit_vectors(sky["ra"], sky["dec"])
    distance = np.degrees(np.linalg.norm(source[None] - there[:, None], axis=2)) * 3600
    near = np.flatnonzero(distance.min(axis=1) <= radius)
    rows, counts = distance[near].argmin(axis=1), (distance[near] <= radius).sum(axis=1)
    flags = np.where(counts > 1, MatchFlag.SEVERAL, 0)
    flags |= np.where(np.bincount(rows)[rows] > 1, MatchFlag.SHARED, 0)
    ids = sky["source_id"][near].tolist()
    return dict(zip(ids, zip(rows, counts, flags, strict=True), strict=True))


REFUSED = [
    (("gaia", "unwise", "--radius", "61"), "margin of 60 arcsec is narrower"),
    (("gaia", "unwise", "--radius", "-1"), "is not positive"),
    (("gaia", "gaia"), "has no margin"),
    (("gaia", "nowhere"), "cannot be read as a HATS catalogue"),
    (("gaia", "unwise", "--workers", "0"), "0 workers are too few"),
]

SCRIPT = """
import contextlib, io, json, sys, threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import numpy as np
from astropy.table import Table
from made_sky import make_sky, write_hats
from xplabels.cli import main

# as crowded as 1,500 stars in four square degrees
sky = make_sky(600, seed=5, area=1.6)
write_hats(sky, Path(), margin=60.0, partitions=4)
Table(sky.stars).write("stars.fits")
stars = dict(sky.stars)
stars["star_ra"], stars["star_dec"] = stars.pop("ra"), stars.pop("dec")
np.savez("sky.npz", counterpart=sky.counterpart, **stars, **sky.sources)

def match(stars, sources, output, *words):
    assert main(["match", stars, sources, "--output", output, *words]) == 0

wide = ("--radius", "20", "--epoch", str(sky.epoch))
match("gaia", "unwise", "one.parquet", *wide)
match("gaia", "unwise", "two.parquet", *wide, "--workers", "2")
match("stars.fits", "unwise", "narrow.parquet", "--epoch", str(sky.epoch))
match("stars.fits", "unwise", "far.parquet", "--epoch", "1976", "--radius", "59")
server = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
there = f"http://127.0.0.1:{server.server_port}"
match(f"{there}/gaia", f"{there}/unwise", "remote.parquet", *wide)
server.shutdown()
refused = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as error:
        refused.append((main(["match", *words, "--output", "bad.parquet"]), error.getvalue()))
Path("refused.json").write_text(json.dumps(refused))
"""


@pytest.fixture(scope="module")
def hats(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two HATS catalogues of a crowded field of 600 stars and what the command makes of them.

    In another process: LSDB and Dask leave settings, threads and warnings behind that are not
    this suite's; and in one, since importing them takes seconds.
    """
    pytest.importorskip("lsdb", reason="the extra 'lsdb' is not installed")
    folder = tmp_path_factory.mktemp("hats")
    path = os.pathsep.join(str(ROOT / name) for name in ("src", "benchmarks"))
    # compiling what HATS does with a dozen partitions takes longer than doing it
    environment = {**os.environ, "PYTHONPATH": path, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([words for words, _ in REFUSED])],
        capture_output=True, text=True, env=environment, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, dict(np.load(folder / "sky.npz"))


def test_two_hats_catalogues(hats: Made) -> None:
    """Every match is that of the whole sky, with two workers and over HTTP as in one process."""
    folder, sky = hats
    assert (folder / "one.parquet").read_bytes() == (folder / "two.parquet").read_bytes()
    assert (folder / "one.parquet").read_bytes() == (folder / "remote.parquet").read_bytes()
    found = pq.read_table(folder / "one.parquet").to_pydict()
    rows = [int(name[4:]) for name in found["unwise_objid"]]
    matches = zip(rows, found["match_count"], found["match_flags"], strict=True)
    expected = obvious_matches(sky, 20.0)  # wide, so that many matches are doubtful
    # 40 arcsec of motion, and 20 of radius, reach beyond the margin of 60: none moves so far
    assert dict(zip(found["source_id"], matches, strict=True)) == expected
    assert sum(flags > 0 for *_, flags in expected.values()) > 20
    assert found["source_id"] == sorted(found["source_id"])
    # in forty years, with 59 arcsec of the margin's 60 for the radius: FAST from 25 mas/yr on
    found = pq.read_table(folder / "far.parquet").to_pydict()
    speed = np.hypot(sky["pmra"], sky["pmdec"])
    speed_of = dict(zip(sky["source_id"].tolist(), speed.tolist(), strict=True))
    fast = [speed_of[source_id] > 25 for source_id in found["source_id"]]
    assert [flags & MatchFlag.FAST > 0 for flags in found["match_flags"]] == fast
    assert 10 < sum(fast) < len(fast) / 2


def test_a_table_of_stars_and_what_select_reads(hats: Made) -> None:
    folder, sky = hats
    table = read_survey("unwise", folder / "narrow.parquet", ["match_flags"])
    row_of = dict(zip(sky["source_id"].tolist(), sky["counterpart"].tolist(), strict=True))
    rows = np.array([row_of[source_id] for source_id in table.source_id.tolist()])
    assert (rows >= 0).mean() > 0.99
    expected = 22.5 - 2.5 * np.log10(sky["flux_w1"][rows]) - 0.004
    assert (np.abs(table.photometry.column("w1mpro")[0] - expected) < 1e-6).mean() > 0.99
    assert len(rows) > 0.99 * (sky["counterpart"] >= 0).sum()


def test_what_cannot_be_matched_is_refused(hats: Made) -> None:
    folder, _ = hats
    refused = json.loads((folder / "refused.json").read_text())
    for (status, message), (_, said) in zip(refused, REFUSED, strict=True):
        assert status == 2
        assert said in message
    assert not (folder / "bad.parquet").exists()
