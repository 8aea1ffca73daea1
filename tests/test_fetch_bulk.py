"""Bulk files from a server on loopback: what is kept is what was published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetch_services import contents
from services.http import Fault, FileService
from xplabels.core.errors import InputError
from xplabels.fetch import Archive, RetryPolicy
from xplabels.fetch.bulk import (
    BulkSummary,
    RemoteFile,
    covering,
    fetch_bulk,
    list_bulk,
    parse_sums,
)
from xplabels.fetch.http import BLOCK_BYTES

FOLDER = "gdr3/Spectroscopy/xp_continuous_mean_spectrum"
QUICK = RetryPolicy(attempts=4, first_wait=0.01, timeout=1.0)
EDGES = (0, 3112, 5264, 786432)
FILES = {
    f"XpContinuousMeanSpectrum_{first:06d}-{last - 1:06d}.csv.gz": np.random.default_rng(n).bytes(n)
    for (first, last), n in zip(pairwise(EDGES), (300_000, 5, 3_000_000), strict=True)
}
FIRST, SECOND, _ = FILES
WHOLE = sum(map(len, FILES.values()))
KEPT = len(FILES[FIRST]) // 2 // BLOCK_BYTES * BLOCK_BYTES
"""Bytes of the first file that remain of a download that breaks off half-way."""


@pytest.fixture
def server() -> Iterator[FileService]:
    with FileService(FILES, FOLDER) as service:
        yield service


def fetch(server: FileService, folder: Path, parallel: int = 1, **options: bool) -> BulkSummary:
    files = list_bulk("xp", Archive(bulk=server.url), QUICK)
    return fetch_bulk(files, folder, QUICK, parallel, progress=False, **options)


def test_files_are_listed_and_fetched(server: FileService, tmp_path: Path) -> None:
    files = list_bulk("xp", Archive(bulk=server.url), QUICK)
    assert [file.name for file in files] == sorted(FILES)
    assert files[0].pixels == (0, 3111)
    assert fetch(server, tmp_path / "bulk", 3) == BulkSummary(tuple(sorted(FILES)), size=WHOLE)
    assert contents(tmp_path / "bulk") == FILES
    (tmp_path / "bulk" / SECOND).write_bytes(b"rotten")
    assert fetch(server, tmp_path / "bulk") == BulkSummary(present=tuple(sorted(FILES)))
    assert fetch(server, tmp_path / "bulk", verify=True).received == (SECOND,)
    assert contents(tmp_path / "bulk") == FILES


@pytest.mark.parametrize("kind", ["status", "drop", "slow", "cut", "wrong"])
def test_transient_failures_change_nothing(server: FileService, tmp_path: Path, kind: str) -> None:
    server.faults.extend([Fault(kind, 503), Fault(kind, 503), None])
    assert len(fetch(server, tmp_path).received) == 3
    assert contents(tmp_path) == FILES


@pytest.mark.parametrize(
    ("ranges", "second", "asked"),
    [
        (True, None, ["", f"bytes={KEPT}-"]),
        (True, Fault("shifted"), ["", f"bytes={KEPT}-", ""]),
        (False, None, ["", f"bytes={KEPT}-"]),
    ],
    ids=["goes on", "another range", "no ranges"],
)
def test_a_download_that_breaks_off(
    server: FileService, tmp_path: Path, ranges: bool, second: Fault | None, asked: list[str]
) -> None:
    server.ranges = ranges
    server.faults.extend([Fault("truncate"), second])
    # what was kept came for nothing where the server did not go on from there
    assert fetch(server, tmp_path).size == WHOLE + KEPT * (second is not None or not ranges)
    assert contents(tmp_path) == FILES
    assert KEPT > 0
    assert server.ranges_asked == [*asked, "", ""]


@pytest.mark.parametrize(
    ("left", "begun_anew"),
    [
        (FILES[FIRST][:1000], False),
        (b"\0" * 1000, True),
        (FILES[FIRST], False),
        (FILES[FIRST] + b"!", True),
    ],
    ids=["part", "other", "whole", "more"],
)
def test_what_an_earlier_run_left(
    server: FileService, tmp_path: Path, left: bytes, begun_anew: bool
) -> None:
    (tmp_path / f"{FIRST}.partial").write_bytes(left)
    fetch(server, tmp_path)
    assert contents(tmp_path) == FILES
    assert server.ranges_asked == [f"bytes={len(left)}-", *[""] * (2 + begun_anew)]


def test_a_file_that_never_comes_right_fails(server: FileService, tmp_path: Path) -> None:
    server.faults.extend([Fault("wrong")] * 4)
    summary = fetch(server, tmp_path)
    assert summary.failed == {FIRST: "its MD5 sum is not the published one"}
    assert sorted(contents(tmp_path)) == sorted(summary.received) == sorted(FILES)[1:]
    assert fetch(server, tmp_path).received == (FIRST,)
    assert contents(tmp_path) == FILES


def test_a_list_that_cannot_be_had(server: FileService) -> None:
    with pytest.raises(InputError, match=r"/gaia_source/_MD5SUM.txt: HTTP 404 .*; check"):
        list_bulk("gaia_source", Archive(bulk=server.url), QUICK)
    with pytest.raises(InputError, match="not a bulk table"):
        list_bulk("../../etc", Archive(bulk=server.url), QUICK)


def test_sums_of_any_writing() -> None:
    sums = [hashlib.md5(bytes([n])).hexdigest() for n in range(3)]
    text = f"# published\n{sums[0]}  b.gz\n\n{sums[1].upper()} *a.gz\n{sums[2]}  ./sub/c.gz\n"
    assert [(file.name, file.md5, file.url) for file in parse_sums(text, "http://x/y")] == [
        ("a.gz", sums[1], "http://x/y/a.gz"),
        ("b.gz", sums[0], "http://x/y/b.gz"),
        ("c.gz", sums[2], "http://x/y/c.gz"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no file"),
        ("<html>not found</html>", "line 1: is not an MD5 sum"),
        (f"{'0' * 32}  a\n{'0' * 31}  b", "line 2"),
        (f"{'0' * 32}  a\n{'1' * 32}  a", "names a twice"),
        (f"{'0' * 32}  ..", "line 1"),
        (f"{'0' * 32}  x\\..\\y", "line 1"),
    ],
)
def test_useless_lists_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_sums(text, "http://x/y")


@given(st.lists(st.integers(0, 786431), min_size=1, max_size=20), st.integers(0, 2**43 - 1))
def test_covering_is_what_a_look_at_every_file_gives(pixels: list[int], below: int) -> None:
    files = [RemoteFile(name, "", "") for name in FILES]
    slow = [
        file
        for file, (first, last) in zip(files, pairwise(EDGES), strict=True)
        if any(first <= pixel < last for pixel in pixels)
    ]
    assert covering(files, np.array([(pixel << 43) + below for pixel in pixels])) == slow


def test_a_star_in_no_file_is_an_error() -> None:
    files = [RemoteFile("G_000010-000019.csv.gz", "", "")]
    for pixel in (9, 20):
        with pytest.raises(InputError, match="no file holds source_id"):
            covering(files, np.array([pixel << 43]))
    with pytest.raises(InputError, match="do not say"):
        covering([RemoteFile("a.csv", "", "")], np.array([1]))
