"""Jobs done one after the other, side by side in processes that may die, or on a Dask cluster.

Each job makes an output that appears whole with its record, and returns the record. So a worker
that dies loses only its current file, which another one begins anew. A file at which two workers
have died is left out and reported.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import multiprocessing
import os
import pickle
import tempfile
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from xplabels.core.errors import InputError, interruptible
from xplabels.io.atomic import remove_leftovers
from xplabels.io.job import Job, Record

DEATHS_PER_FILE = 2
"""Workers that may die at a file before it is left out."""
DEATHS_IN_SUCCESSION = 10
"""Workers that may die without a file being finished in between, before the run gives up."""
POLL_SECONDS = 1.0
LOCAL = "local"
CONNECT_SECONDS = 20
DASK_RETRIES = 2
"""How often Dask repeats a job that failed for another reason than its file."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of the disk, which every other file would meet too."""
RESUME = "repeat the command to resume"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip
"""Environment variables that set how many threads numerical libraries use."""


@dataclass(frozen=True)
class OnDask:
    """The Dask cluster of the scheduler at an ``address`` such as ``tcp://host:8786``.

    :data:`LOCAL` stands for one of ``workers`` processes on this machine, started for the run.
    """

    address: str = LOCAL
    workers: int = 1


@dataclass(frozen=True)
class Failure:
    """Why a job has no output, in full; and whether every other job would fail in the same way."""

    why: str
    ends_run: bool = False


T = TypeVar("T")
Outcome = Record | Failure
CountStars = Callable[[int], None]
Work = Callable[[Job, CountStars], Record]
"""Does a job and calls back with the stars of each block; it is sent to other processes."""
Together = Callable[[Sequence[Job], CountStars], Iterator[tuple[Job, Outcome]]]
"""Does jobs in order, sharing work between several of them."""
Report = Callable[[Job, Outcome], None]


def run_jobs(
    work: Work,
    jobs: Sequence[Job],
    workers: int | OnDask,
    report: Report,
    count_stars: CountStars = lambda stars: None,
    together: Together | None = None,
) -> None:
    """Do every job, replacing its output; the others are done even if one fails.

    ``workers`` are processes (1: this process), or a Dask cluster. ``report`` is called with each
    job and its outcome; what it raises ends the run. Where this process does the jobs, it calls
    ``count_stars`` with the number of stars of each block, and does them by ``together``, if given.

    Raises InputError if nothing can be written any more, or if worker after worker dies.
    """

    def report_or_end(job: Job, outcome: Outcome) -> None:
        report(job, outcome)
        if isinstance(outcome, Failure) and outcome.ends_run:
            raise InputError(outcome.why)

    if isinstance(workers, OnDask):
        with connected(workers) as client:
            _run_on_dask(work, jobs, client, report_or_end)
    elif workers == 1:
        one_by_one = ((job, attempt(work, job, count_stars)) for job in jobs)
        for job, outcome in together(jobs, count_stars) if together else one_by_one:
            report_or_end(job, outcome)
    elif jobs:
        _run_in_processes(work, jobs, min(workers, len(jobs)), report_or_end)


def attempt(
    work: Callable[[Job, CountStars], T], job: Job, count_stars: CountStars = lambda stars: None
) -> T | Failure:
    """What ``work`` returns, or why it failed."""
    try:
        with interruptible():
            return work(job, count_stars)
    except InputError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in DISK_ERRORS:
            remedy = f"free some space; {RESUME}"
            full = InputError(error.what, where=error.where, remedy=remedy)
            return Failure(str(full), ends_run=True)
        return Failure(str(error))
    except Exception:  # one file must not cost the others their run, whatever it is
        return Failure(f"{job.inputs[0]}: unexpected: {traceback.format_exc()}")


def _killed(job: Job, what: str) -> Failure:
    remedy = f"is there enough memory for every worker? {RESUME}"
    return Failure(str(InputError(what, where=job.inputs[0], remedy=remedy)))


def _do_anew(work: Work, job: Job) -> Outcome:
    """Do a job whose half-written files a dead worker may have left behind."""
    for path in (job.output, job.record):
        remove_leftovers(path.parent, glob.escape(path.name), every=True)
    return attempt(work, job)


# Processes of this machine ---------------------------------------------------------------------


def _run_in_processes(work: Work, jobs: Sequence[Job], workers: int, report: Report) -> None:
    waiting, deaths = deque(jobs), _Deaths()
    # plain pickle, because multiprocessing's own would put the model's arrays into shared memory;
    # in a file, because writing to the pipe of a process that died would never end
    folder = Path(tempfile.gettempdir())
    remove_leftovers(folder, "xplabels-*")
    prefix = f".{os.getpid()}.partial.xplabels-"
    with tempfile.NamedTemporaryFile(prefix=prefix, dir=folder) as file, _one_thread():
        file.write(pickle.dumps(work))
        file.flush()
        while waiting:  # another pool, if all its workers died before they had begun
            _run_pool(Path(file.name), waiting, workers, report, deaths)


class _Deaths:
    """How many workers died: at each output, and since the last file that was finished."""

    def __init__(self) -> None:
        self.of_output: Counter[Path] = Counter()
        self.in_succession = 0

    def count(self, job: Job) -> None:
        """Count one more death, at ``job``; raises InputError if there were too many."""
        self.in_succession += 1
        if self.in_succession >= DEATHS_IN_SUCCESSION:
            raise InputError(
                f"{self.in_succession} workers died one after the other, the last at this file",
                where=job.inputs[0],
                remedy=f"find out what kills them (memory?), or use fewer; {RESUME}",
            )


def _run_pool(
    work: Path, waiting: deque[Job], workers: int, report: Report, deaths: _Deaths
) -> None:
    """Do the jobs ``waiting``; those that are not done if the pool breaks are left in it."""
    from pebble import ProcessExpired, ProcessPool

    context = multiprocessing.get_context("spawn")
    pool: Any = ProcessPool(workers, 0, _begin_worker, (work,), context)
    running: dict[Any, Job] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                try:
                    running[pool.schedule(_do_in_worker, (waiting[0],))] = waiting[0]
                except RuntimeError as error:  # raised by Pebble if the pool is broken
                    deaths.count(waiting[0])
                    raise BrokenProcessPool from error
                waiting.popleft()
            done = wait(running, POLL_SECONDS, FIRST_COMPLETED).done
            if not done and not pool.active:  # it broke before it had noticed the last job
                deaths.count(next(iter(running.values())))
                raise BrokenProcessPool
            for future in done:
                job, died = running.pop(future), future.exception()
                if died is None:
                    deaths.in_succession = 0
                    report(job, future.result())
                    continue
                waiting.append(job)
                deaths.count(job)
                if not isinstance(died, ProcessExpired):
                    raise BrokenProcessPool from died
                deaths.of_output[job.output] += 1
                if deaths.of_output[job.output] == DEATHS_PER_FILE:
                    waiting.remove(job)
                    report(job, _killed(job, "its worker was killed, and so was the one after it"))
    except BrokenProcessPool:  # a worker died before any had begun
        waiting.extend(running.values())
    finally:
        pool.stop()
        pool.join()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started in the block use one thread each, as there is a process per processor."""
    before = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name in THREAD_VARIABLES:
            del os.environ[name]
        os.environ.update(before)


_work: Work
"""What this worker process does with each job."""


def _begin_worker(work: Path) -> None:
    global _work
    from tqdm import tqdm

    # tqdm's own lock would be a semaphore of the system, which outlives a worker that is killed
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work = _unpacked(work.read_bytes())


def _end_with_parent() -> None:
    """End this worker at once if the run is killed, not only when its file is done."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do_in_worker(job: Job) -> Outcome:
    return _do_anew(_work, job)


def _unpacked(work: bytes) -> Work:
    import pyarrow as pa
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    pa.set_cpu_count(1)
    unpacked: Work = pickle.loads(work)
    return unpacked


# Dask ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def connected(cluster: OnDask) -> Iterator[Any]:
    """A ``distributed.Client`` of the cluster.

    Raises InputError if Dask is not installed, or no scheduler answers at the address.
    """
    try:
        from dask.distributed import Client
    except ImportError:
        raise InputError("Dask is not installed", remedy="pip install 'xplabels[lsdb]'") from None
    keys: dict[str, Any] = {"address": cluster.address, "timeout": CONNECT_SECONDS}
    if cluster.address == LOCAL:
        keys = {"n_workers": cluster.workers, "threads_per_worker": 1, "dashboard_address": None}
        keys |= {"memory_limit": None, "silence_logs": logging.CRITICAL}
    try:
        client = Client(**keys)
    except (OSError, ValueError, TimeoutError) as error:
        first = (str(error).splitlines() or ["timeout"])[0]
        raise InputError(
            f"no Dask scheduler answers ({first})",
            where=cluster.address,
            remedy="start one (dask scheduler), or give --dask local",
        ) from error
    with client:
        yield client


def _run_on_dask(work: Work, jobs: Sequence[Job], client: Any, report: Report) -> None:
    """One task per job; Dask schedules, retries and replaces workers."""
    from dask.distributed import as_completed
    from distributed.scheduler import KilledWorker

    # a task's result, not scattered data: Dask can make it again if the worker that had it died
    shared = client.submit(_unpacked, pickle.dumps(work), pure=False)

    def begin(job: Job) -> Any:
        return client.submit(_do_anew, shared, job.absolute(), pure=False, retries=DASK_RETRIES)

    running = {begin(job): job for job in jobs}
    suspects: list[Job] = []
    try:
        for future in as_completed(running):
            try:
                report(running[future], future.result())
            except KilledWorker:
                suspects.append(running[future])
        # Dask blames a death on every file that its worker had, so each is tried by itself
        for job in suspects:
            retry = begin(job)
            running[retry] = job
            try:
                outcome: Outcome = retry.result()
            except KilledWorker:
                outcome = _killed(job, "worker after worker died at it")
            report(job, outcome)
    finally:
        client.cancel([*running, shared])
