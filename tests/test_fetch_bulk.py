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

from services.files import FileService
from services.http import Fault
from xplabels.core.errors import InputError
from xplabels.fetch import (
    Archive,
    BulkSummary,
    RemoteFile,
    RetryPolicy,
    covering,
    fetch_bulk,
    list_bulk,
    matching,
)
from xplabels.fetch.bulk import BLOCK_BYTES, parse_sums

FOLDER = "gdr3/Spectroscopy/xp_continuous_mean_spectrum"
QUICK = RetryPolicy(attempts=4, first_wait=0.01, timeout=1.0)


def made_files() -> dict[str, bytes]:
    rng = np.random.default_rng(3)
    edges = [0, 3112, 5264, 786431 + 1]
    return {
        f"XpContinuousMeanSpectrum_{first:06d}-{last - 1:06d}.csv.gz": rng.bytes(size)
        for first, last, size in zip(edges, edges[1:], (300_000, 5, 3_000_000), strict=False)
    }


@pytest.fixture
def server() -> Iterator[FileService]:
    with FileService(made_files(), FOLDER) as service:
        yield service


def fetch(server: FileService, folder: Path, **more: bool) -> BulkSummary:
    files = list_bulk("xp", Archive(bulk=server.url), QUICK)
    return fetch_bulk(files, folder, QUICK, parallel=1, progress=False, **more)


def assert_whole(folder: Path) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == made_files()


def test_files_are_listed_and_fetched(server: FileService, tmp_path: Path) -> None:
    files = list_bulk("xp", Archive(bulk=server.url), QUICK)
    assert [file.name for file in files] == sorted(made_files())
    assert files[0].pixels == (0, 3111)
    summary = fetch_bulk(files, tmp_path / "bulk", QUICK, parallel=3, progress=False)
    assert summary.received == tuple(sorted(made_files()))
    assert summary.size == sum(len(body) for body in made_files().values())
    assert_whole(tmp_path / "bulk")
    again = fetch(server, tmp_path / "bulk")
    assert (again.received, again.present, again.size) == ((), summary.received, 0)


@pytest.mark.parametrize(
    "fault",
    [Fault("status", 503), Fault("drop"), Fault("slow"), Fault("cut"), Fault("wrong")],
    ids=lambda fault: fault.kind,
)
def test_failures_that_pass_change_nothing(
    server: FileService, tmp_path: Path, fault: Fault
) -> None:
    server.faults.extend([fault, fault, None, fault])
    assert len(fetch(server, tmp_path / "bulk").received) == 3
    assert_whole(tmp_path / "bulk")


def test_a_broken_download_goes_on_where_it_ended(server: FileService, tmp_path: Path) -> None:
    server.faults.append(Fault("truncate"))
    size = len(next(iter(made_files().values())))
    summary = fetch(server, tmp_path / "bulk")
    assert_whole(tmp_path / "bulk")
    kept = size // 2 // BLOCK_BYTES * BLOCK_BYTES
    assert kept > 0
    assert server.ranges_asked[:2] == ["", f"bytes={kept}-"]
    assert summary.size == sum(len(body) for body in made_files().values()), (
        "no byte was written twice"
    )


@pytest.mark.parametrize("have", ["part", "other", "whole", "more"])
def test_what_an_earlier_run_left(server: FileService, tmp_path: Path, have: str) -> None:
    name, body = next(iter(made_files().items()))
    left = {
        "part": body[:1000],
        "other": b"\0" * 1000,
        "whole": body,
        "more": body + b"!",
    }[have]
    folder = tmp_path / "bulk"
    folder.mkdir()
    (folder / f"{name}.partial").write_bytes(left)
    fetch(server, folder)
    assert_whole(folder)
    asked = [f"bytes={len(left)}-"] if have in ("part", "whole") else [f"bytes={len(left)}-", ""]
    assert server.ranges_asked == [*asked, "", ""]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_sends_another_range(
    server: FileService, tmp_path: Path, ranges: bool
) -> None:
    server.ranges = ranges
    server.faults.extend([Fault("truncate"), Fault("shifted")])
    summary = fetch(server, tmp_path / "bulk")
    assert_whole(tmp_path / "bulk")
    first = len(next(iter(made_files().values())))
    kept = first // 2 // BLOCK_BYTES * BLOCK_BYTES
    # what was kept came for nothing, but nothing of the wrong range was taken
    assert summary.size == kept + sum(len(body) for body in made_files().values())
    tries = ["", f"bytes={kept}-", ""] if ranges else ["", f"bytes={kept}-"]
    assert server.ranges_asked == [*tries, "", ""]


def test_a_file_that_never_comes_right_is_told(server: FileService, tmp_path: Path) -> None:
    server.faults.extend([Fault("wrong")] * 4)
    summary = fetch(server, tmp_path / "bulk")
    name = sorted(made_files())[0]
    assert summary.failed == {name: "its MD5 sum is not the published one"}
    assert not list((tmp_path / "bulk").glob(f"{name}*"))
    assert len(summary.received) == 2
    assert fetch(server, tmp_path / "bulk").received == (name,)
    assert_whole(tmp_path / "bulk")


def test_verify_replaces_what_has_changed(server: FileService, tmp_path: Path) -> None:
    folder = tmp_path / "bulk"
    fetch(server, folder)
    name = sorted(made_files())[1]
    (folder / name).write_bytes(b"rotten")
    assert len(fetch(server, folder).present) == 3
    assert fetch(server, folder, verify=True).received == (name,)
    assert_whole(folder)


def test_a_list_that_cannot_be_had(server: FileService) -> None:
    with pytest.raises(InputError, match="HTTP 404"):
        list_bulk("gaia_source", Archive(bulk=server.url), QUICK)
    with pytest.raises(InputError, match="no bulk table"):
        list_bulk("../../etc", Archive(bulk=server.url), QUICK)


def test_sums_of_any_writing() -> None:
    sums = [hashlib.md5(bytes([n])).hexdigest() for n in range(3)]
    text = f"# published\n{sums[0]}  b.gz\n\n{sums[1].upper()} *a.gz\n{sums[2]}  ./sub/c.gz\n"
    found = parse_sums(text, "http://x/y")
    assert found == [
        RemoteFile("a.gz", sums[1], "http://x/y/a.gz"),
        RemoteFile("b.gz", sums[0], "http://x/y/b.gz"),
        RemoteFile("c.gz", sums[2], "http://x/y/c.gz"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no file"),
        ("<html>not found</html>", "line 1: is no MD5 sum"),
        (f"{'0' * 32}  a\n{'0' * 31}  b", "line 2"),
        (f"{'0' * 32}  a\n{'1' * 32}  a", "names a twice"),
        (f"{'0' * 32}  ..", "line 1"),
        (f"{'0' * 32}  x\\..\\y", "line 1"),
    ],
)
def test_a_list_of_no_use_is_told(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_sums(text, "http://x/y")


@given(st.lists(st.integers(0, 786431), min_size=1, max_size=20), st.integers(0, 2**43 - 1))
def test_covering_is_what_a_look_at_every_file_gives(pixels: list[int], below: int) -> None:
    edges = [0, 3112, 5264, 400_000, 786_432]
    files = [
        RemoteFile(f"G_{first:06d}-{last - 1:06d}.csv.gz", "", "")
        for first, last in pairwise(edges)
    ]
    ids = np.array([(pixel << 43) + below for pixel in pixels])
    slow = [
        file
        for file in files
        if any(file.pixels[0] <= pixel <= file.pixels[1] for pixel in pixels)  # type: ignore[index]
    ]
    assert covering(files, ids) == slow


def test_a_star_in_no_file_is_told() -> None:
    files = [RemoteFile("G_000010-000019.csv.gz", "", "")]
    for pixel in (9, 20):
        with pytest.raises(InputError, match="no file holds source_id"):
            covering(files, np.array([pixel << 43]))
    with pytest.raises(InputError, match="do not say"):
        covering([RemoteFile("a.csv", "", "")], np.array([1]))
    assert matching(files, "G_*-000019.*") == files
    assert matching(files, "H*") == []
