"""A fetch that is killed at any point and begun again ends as if it had never been killed."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fetch_services import Services, contents, serving
from services.http import FileService
from xplabels.fetch import Archive, FetchSettings, RetryPolicy, Targets, fetch_stars
from xplabels.fetch.bulk import fetch_bulk, list_bulk

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


def requests(services: Services) -> int:
    return len(services.tap.log) + len(services.datalink.log)


def test_stars_as_if_never_killed(processes: Any, tmp_path: Path) -> None:
    """Killed once anywhere, twice in a row, or while the output is put together."""
    with serving(30) as services:
        services.datalink.delay = 0.005
        archive, ids = services.archive, services.made.ids.tolist()
        stars(archive, ids, tmp_path / "calm")
        calm, whole = contents(tmp_path / "calm"), requests(services)
        points = random.Random(7)
        trials = [(points.randrange(whole), points.randrange(1, 12)) for _ in range(KILLS)]
        killed = 0
        for trial, kills in enumerate([*trials, (whole - 1,), (whole,)]):
            output = tmp_path / f"killed-{trial}"
            for at in kills:
                killed += killed_after(
                    processes, lambda: requests(services), at, stars, archive, ids, output
                )
            services.datalink.asked.clear()
            stars(archive, ids, output)
            assert contents(output) == calm, f"killed after {kills} of {whole} requests"
            assert not output.with_name(f"{output.name}.partial").exists()
            asked = Counter(one for chunk in services.datalink.asked for one in chunk)
            assert max(asked.values(), default=0) <= 1
        assert killed >= KILLS - 3, "the kills fell into the work"


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
