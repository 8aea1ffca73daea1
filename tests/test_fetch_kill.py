"""A fetch that is killed at any point and begun again ends as if it had never been killed."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.datalink import DataLinkService
from services.files import FileService
from services.made import made_archive
from services.tap import TapService
from xplabels.fetch import (
    Archive,
    FetchSettings,
    RetryPolicy,
    Targets,
    fetch_bulk,
    fetch_stars,
    list_bulk,
)
from xplabels.io import read_stars

KILLS = 10
SETTINGS = FetchSettings(
    RetryPolicy(first_wait=0.01, timeout=20.0), chunk=6, tap_chunk=25, parallel=2, progress=False
)
PRODUCTS = ("tmass", "xp")


def stars(archive: Archive, ids: list[int], output: Path) -> None:
    """What the killed process does."""
    fetch_stars(Targets.of_ids(np.array(ids)), output, archive, PRODUCTS, SETTINGS)


def bulk(archive: Archive, folder: Path) -> None:
    """What the killed process does."""
    files = list_bulk("xp", archive, SETTINGS.retry)
    fetch_bulk(files, folder, SETTINGS.retry, parallel=2, progress=False)


@pytest.fixture(scope="module")
def workshop() -> Any:
    """Processes that begin with every library imported: a kill falls into the work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "xplabels.fetch",
            "pyvo.dal",
            "astropy.table",
            "astropy.io.votable",
            "pyarrow.parquet",
            "pytest",
        ]
    )
    context.Process(target=time.time).start()
    return context


def killed_after(
    context: Any, count: Callable[[], int], requests: int, task: Callable[..., None], *args: Any
) -> bool:
    """Run a task in a process and kill it (SIGKILL) after ``requests`` and a moment more.

    The services' count of requests says when: the clock would make slow machines kill early.
    Returns whether the task was still at work.
    """
    process = context.Process(target=task, args=args)
    start = count()
    process.start()
    while process.is_alive() and count() - start < requests:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.03))
    process.kill()
    process.join()
    code = process.exitcode
    process.close()
    assert code in (0, -9)
    return bool(code)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


Setting = tuple[TapService, DataLinkService, Archive, list[int]]


@pytest.fixture(scope="module")
def setting() -> Iterator[Setting]:
    made = made_archive(30)
    with TapService(made.tables) as tap, DataLinkService(made.spectra) as datalink:
        datalink.delay = 0.005
        yield tap, datalink, Archive(tap=tap.address, datalink=datalink.address), made.ids.tolist()


@pytest.fixture(scope="module")
def undisturbed(
    setting: Setting, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], int]:
    """What a fetch that nobody kills writes, and how many requests it makes."""
    tap, datalink, archive, ids = setting
    output = tmp_path_factory.mktemp("undisturbed") / "calm"
    stars(archive, ids, output)
    return contents(output), len(tap.log) + len(datalink.log)


def test_stars_as_if_never_killed(
    setting: Setting, undisturbed: tuple[dict[str, str], int], workshop: Any, tmp_path: Path
) -> None:
    tap, datalink, archive, ids = setting
    calm, whole = undisturbed

    def count() -> int:
        return len(tap.log) + len(datalink.log)

    # anywhere, and twice after the last answers, while the output is put together
    points = [*random.Random(7).sample(range(whole), KILLS - 2), whole - 1, whole]
    killed = 0
    for trial, at in enumerate(points):
        output = tmp_path / f"killed-{trial}"
        killed += killed_after(workshop, count, at, stars, archive, ids, output)
        datalink.asked.clear()
        stars(archive, ids, output)
        assert contents(output) == calm, f"killed after {at} of {whole} requests"
        assert not output.with_name(f"{output.name}.partial").exists()
        asked = Counter(one for chunk in datalink.asked for one in chunk)
        assert max(asked.values(), default=0) <= 1
    assert killed >= KILLS - 3, "the kills fell into the work"
    found = read_stars(tmp_path / "killed-0" / "xp.parquet").source_id
    assert sorted(found) == sorted(datalink.stars.source_id)


def test_stars_killed_again_and_again(
    setting: Setting, undisturbed: tuple[dict[str, str], int], workshop: Any, tmp_path: Path
) -> None:
    tap, datalink, archive, ids = setting

    def count() -> int:
        return len(tap.log) + len(datalink.log)

    output = tmp_path / "out"
    points = random.Random(8)
    for _ in range(KILLS):
        killed_after(workshop, count, points.randrange(1, 12), stars, archive, ids, output)
    stars(archive, ids, output)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert contents(output) == undisturbed[0]


def test_bulk_files_as_if_never_killed(workshop: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    made = {f"Xp_{n:06d}-{n:06d}.csv.gz": rng.bytes(400_000 + n) for n in range(12)}
    with FileService(made, "gdr3/Spectroscopy/xp_continuous_mean_spectrum") as server:
        server.delay = 0.01
        archive = Archive(bulk=server.url)
        points = random.Random(9)
        folder = tmp_path / "bulk"
        for _ in range(KILLS):
            killed_after(
                workshop, lambda: len(server.log), points.randrange(1, 4), bulk, archive, folder
            )
        bulk(archive, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == made
