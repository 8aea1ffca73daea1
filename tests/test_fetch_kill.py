"""A fetch that is killed at any point and begun again ends as if it had never been killed."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fetch_services import Services, contents, serving
from services.files import FileService
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


def stars(archive: Archive, ids: list[int], output: Path) -> None:
    """What the killed process does."""
    fetch_stars(Targets.of_ids(np.array(ids)), output, archive, ("tmass", "xp"), SETTINGS)


def bulk(archive: Archive, folder: Path) -> None:
    """What the killed process does."""
    files = list_bulk("xp", archive, SETTINGS.retry)
    fetch_bulk(files, folder, SETTINGS.retry, parallel=2, progress=False)


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that begin with every library imported: a kill falls into the work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["xplabels.fetch", "pyvo.dal", "astropy.io.votable", "pyarrow.parquet", "pytest"]
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


@pytest.fixture(scope="module")
def slow_services() -> Iterator[Services]:
    with serving(30) as services:
        services.datalink.delay = 0.005
        yield services


def requests(services: Services) -> int:
    return len(services.tap.log) + len(services.datalink.log)


@pytest.fixture(scope="module")
def undisturbed(
    slow_services: Services, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], int]:
    """What a fetch that nobody kills writes, and how many requests it makes."""
    output = tmp_path_factory.mktemp("undisturbed") / "calm"
    stars(slow_services.archive, slow_services.made.ids.tolist(), output)
    return contents(output), requests(slow_services)


def test_stars_as_if_never_killed(
    slow_services: Services,
    undisturbed: tuple[dict[str, bytes], int],
    processes: Any,
    tmp_path: Path,
) -> None:
    calm, whole = undisturbed
    archive, ids = slow_services.archive, slow_services.made.ids.tolist()
    # anywhere, and twice after the last answers, while the output is put together
    points = [*random.Random(7).sample(range(whole), KILLS - 2), whole - 1, whole]
    killed = 0
    for trial, at in enumerate(points):
        output = tmp_path / f"killed-{trial}"
        killed += killed_after(
            processes, lambda: requests(slow_services), at, stars, archive, ids, output
        )
        slow_services.datalink.asked.clear()
        stars(archive, ids, output)
        assert contents(output) == calm, f"killed after {at} of {whole} requests"
        assert not output.with_name(f"{output.name}.partial").exists()
        asked = Counter(one for chunk in slow_services.datalink.asked for one in chunk)
        assert max(asked.values(), default=0) <= 1
    assert killed >= KILLS - 3, "the kills fell into the work"
    found = read_stars(tmp_path / "killed-0" / "xp.parquet").source_id
    assert set(found.tolist()) == slow_services.with_spectrum


def test_stars_killed_again_and_again(
    slow_services: Services,
    undisturbed: tuple[dict[str, bytes], int],
    processes: Any,
    tmp_path: Path,
) -> None:
    args = (slow_services.archive, slow_services.made.ids.tolist(), tmp_path / "out")
    points = random.Random(8)
    for _ in range(KILLS):
        at = points.randrange(1, 12)
        killed_after(processes, lambda: requests(slow_services), at, stars, *args)
    stars(*args)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert contents(tmp_path / "out") == undisturbed[0]


def test_bulk_files_as_if_never_killed(processes: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    made = {f"Xp_{n:06d}-{n:06d}.csv.gz": rng.bytes(400_000 + n) for n in range(12)}
    with FileService(made, "gdr3/Spectroscopy/xp_continuous_mean_spectrum") as server:
        server.delay = 0.01
        archive = Archive(bulk=server.url)
        points = random.Random(9)
        for _ in range(KILLS):
            at = points.randrange(1, 4)
            killed_after(processes, lambda: len(server.log), at, bulk, archive, tmp_path)
        bulk(archive, tmp_path)
    assert contents(tmp_path) == made
