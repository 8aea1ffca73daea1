"""Jobs done one after the other, side by side in processes that may die, or on a Dask cluster.

Each job makes an output that appears whole with its record; what comes back is the record. So a
worker that dies loses only its current file, which another one begins anew; a file at which two
have died is named and left out.
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
DEATHS_IN_SUCCESSION = 10
"""Workers that may die, no file being finished in between, until the run gives up."""
POLL_SECONDS = 1.0
LOCAL = "local"
CONNECT_SECONDS = 20
DASK_RETRIES = 2
"""How often Dask tries a job again that failed for a reason that is none of its file's."""
DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that every other file would meet."""
GO_ON = "repeat the command to resume"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class OnDask:
    """A Dask cluster: of the scheduler at an ``address`` such as ``tcp://host:8786``.

    :data:`LOCAL`: of ``workers`` processes on this machine, for the time of the run.
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
"""Does a job and calls back with the stars of each block; it travels to other processes."""
Together = Callable[[Sequence[Job], CountStars], Iterator[tuple[Job, Outcome]]]
"""Does jobs in order, but what is alike in several of them at once."""
Report = Callable[[Job, Outcome], None]


def run_jobs(
    work: Work,
    jobs: Sequence[Job],
    workers: int | OnDask,
    report: Report,
    count_stars: CountStars = lambda stars: None,
    together: Together | None = None,
) -> None:
    """Do every job, replacing its output; one that fails does not keep the others from being done.

    ``workers`` are processes (1: this process), or a Dask cluster. ``report`` is called with each
    job and its outcome; what it raises ends the run. ``count_stars`` is called with numbers of
    stars as they are done, where this process does them; it does jobs ``together``, if given.

    Raises InputError if nothing can be written any more, or if worker after worker dies.
    """

    def ended(job: Job, outcome: Outcome) -> None:
        report(job, outcome)
        if isinstance(outcome, Failure) and outcome.ends_run:
            raise InputError(outcome.why)

    if isinstance(workers, OnDask):
        with connected(workers) as client:
            _run_on_dask(work, jobs, client, ended)
    elif workers == 1:
        one_by_one = ((job, attempt(work, job, count_stars)) for job in jobs)
        for job, outcome in together(jobs, count_stars) if together else one_by_one:
            ended(job, outcome)
    elif jobs:
        _run_in_processes(work, jobs, min(workers, len(jobs)), ended)


def attempt(
    work: Callable[[Job, CountStars], T], job: Job, count_stars: CountStars = lambda stars: None
) -> T | Failure:
    """What ``work`` returns, or why it failed."""
    try:
        with interruptible():
            return work(job, count_stars)
    except InputError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in DISK_REFUSES:
            full = InputError(error.what, where=error.where, remedy="free some space; " + GO_ON)
            return Failure(str(full), ends_run=True)
        return Failure(str(error))
    except Exception:  # one file must not cost the others their run, whatever it is
        return Failure(f"{job.inputs[0]}: unexpected: {traceback.format_exc()}")


def _killed(job: Job, what: str) -> Failure:
    remedy = f"is there enough memory for every worker? {GO_ON}"
    return Failure(str(InputError(what, where=job.inputs[0], remedy=remedy)))


def _do_anew(work: Work, job: Job) -> Outcome:
    """Do a job of which a dead worker may have left half-written files."""
    for path in (job.output, job.record):
        remove_leftovers(path.parent, glob.escape(path.name), every=True)
    return attempt(work, job)


# Processes of this machine ---------------------------------------------------------------------


def _run_in_processes(work: Work, jobs: Sequence[Job], workers: int, report: Report) -> None:
    waiting, deaths = deque(jobs), _Deaths()
    # plain pickle: multiprocessing's own would put the model's arrays into shared memory; in a
    # file: a process that dies before it has read its pipe would leave us writing for ever
    place = Path(tempfile.gettempdir())
    remove_leftovers(place, "xplabels-*")
    prefix = f".{os.getpid()}.partial.xplabels-"
    with tempfile.NamedTemporaryFile(prefix=prefix, dir=place) as file, _one_thread():
        file.write(pickle.dumps(work))
        file.flush()
        while waiting:  # another pool, if all its workers died before they had begun
            _run_pool(Path(file.name), waiting, workers, report, deaths)


class _Deaths:
    """Of workers: by output, and since the last file that was finished."""

    def __init__(self) -> None:
        self.of_output: Counter[Path] = Counter()
        self.in_succession = 0

    def count(self, job: Job) -> None:
        """One more; raises InputError where there are too many."""
        self.in_succession += 1
        if self.in_succession >= DEATHS_IN_SUCCESSION:
            raise InputError(
                f"{self.in_succession} workers died one after the other, the last at this file",
                where=job.inputs[0],
                remedy=f"find out what kills them (memory?), or use fewer; {GO_ON}",
            )


def _run_pool(
    work: Path, waiting: deque[Job], workers: int, report: Report, deaths: _Deaths
) -> None:
    """Do the jobs ``waiting``; those that are not done when this returns are still there."""
    from pebble import ProcessExpired, ProcessPool

    context = multiprocessing.get_context("spawn")
    pool: Any = ProcessPool(workers, 0, _begin, (work,), context)
    running: dict[Any, Job] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                try:
                    running[pool.schedule(_do, (waiting[0],))] = waiting[0]
                except RuntimeError as error:  # Pebble's, of a pool that is broken
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
    """Processes that begin now keep to one thread: there is one for each processor already."""
    before = {name: os.environ[name] for name in THREADS if name in os.environ}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name in THREADS:
            del os.environ[name]
        os.environ.update(before)


_work: Work
"""What a worker process does."""


def _begin(work: Path) -> None:
    global _work
    from tqdm import tqdm

    # its own would be a semaphore of the system, which outlives a worker that is ended
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work = _unpacked(work.read_bytes())


def _end_with_parent() -> None:
    """End at once if the run is killed, in place of when the file is done."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(job: Job) -> Outcome:
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
def connected(where: OnDask) -> Iterator[Any]:
    """A ``distributed.Client`` of the cluster.

    Raises InputError if Dask is not installed, or no scheduler answers at the address.
    """
    try:
        from dask.distributed import Client
    except ImportError:
        raise InputError("Dask is not installed", remedy="pip install 'xplabels[lsdb]'") from None
    keys: dict[str, Any] = {"address": where.address, "timeout": CONNECT_SECONDS}
    if where.address == LOCAL:
        keys = {"n_workers": where.workers, "threads_per_worker": 1, "dashboard_address": None}
        keys |= {"memory_limit": None, "silence_logs": logging.CRITICAL}
    try:
        client = Client(**keys)
    except (OSError, ValueError, TimeoutError) as error:
        first = (str(error).splitlines() or ["timeout"])[0]
        raise InputError(
            f"no Dask scheduler answers ({first})",
            where=where.address,
            remedy="start one (dask scheduler), or give --dask local",
        ) from error
    with client:
        yield client


def _run_on_dask(work: Work, jobs: Sequence[Job], client: Any, report: Report) -> None:
    """One task per job; Dask schedules, retries and replaces workers."""
    from dask.distributed import as_completed
    from distributed.scheduler import KilledWorker

    # not scattered: a task's result can be made again where the worker that had it has died
    shared = client.submit(_unpacked, pickle.dumps(work), pure=False)

    def begin(job: Job) -> Any:
        return client.submit(_do_anew, shared, job.absolute(), pure=False, retries=DASK_RETRIES)

    running = {begin(job): job for job in jobs}
    deadly: list[Job] = []
    try:
        for future in as_completed(running):
            try:
                report(running[future], future.result())
            except KilledWorker:
                deadly.append(running[future])
        # Dask blames a death on every file that its worker had, so each is tried by itself
        for job in deadly:
            last = begin(job)
            running[last] = job
            try:
                outcome: Outcome = last.result()
            except KilledWorker:
                outcome = _killed(job, "worker after worker died at it")
            report(job, outcome)
    finally:
        client.cancel([*running, shared])
