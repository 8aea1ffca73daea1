"""Files labelled one after the other, or side by side in processes of their own that may die.

Each worker is a pool of one process (:mod:`concurrent.futures`), so that if it dies, it is known at
which file. Its file is given to another one; a file at which two have died is named and left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from xplabels.core.errors import InputError
from xplabels.pipeline.on_dask import OnDask, connected, label_on_dask
from xplabels.pipeline.tasks import (
    GO_ON,
    Failure,
    Outcome,
    Report,
    Task,
    Tell,
    Work,
    attempt,
    bare,
    remove_temporaries,
)

DEATHS_A_FILE = 2
DEATHS_IN_SUCCESSION = 10
"""Workers that may die, no file being finished in between, until the run gives up."""
POLL_SECONDS = 0.2


class Stopped(BaseException):
    """The run was interrupted."""


def label_files(
    work: Work, tasks: Sequence[Task], workers: int | OnDask, report: Report, tell: Tell
) -> None:
    """Label every file; a broken one does not keep the others from it.

    Parameters
    ----------
    work
        Model and options.
    tasks
        The files; their outputs are replaced if they exist.
    workers
        Processes. One is this process. Or a Dask cluster.
    report
        Called with each task and what became of it, as they end.
    tell
        Called with numbers of stars, as they are labelled.

    Raises
    ------
    InputError
        If nothing can be written any more, or if worker after worker dies.
    """

    def ended(task: Task, outcome: Outcome) -> None:
        report(task, outcome)
        if isinstance(outcome, Failure) and outcome.ends_run:
            raise outcome.error or InputError(outcome.why)

    if isinstance(workers, OnDask):
        with connected(workers) as client:
            label_on_dask(work, tasks, client, ended, tell)
    elif workers == 1:
        for task in tasks:
            ended(task, attempt(work, task, tell))
    else:
        _Pool(work, min(workers, len(tasks))).run(tasks, ended, tell)


class _Pool:
    """Workers, each a pool of one process."""

    def __init__(self, work: Work, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        # plain pickle: multiprocessing's own would put the model's arrays into shared memory; in a
        # file: a process that dies before it has read its pipe would leave us writing for ever
        self._file = tempfile.NamedTemporaryFile(prefix="xplabels-", suffix=".work")  # noqa: SIM115
        self._file.write(pickle.dumps(replace(work, model=bare(work.model))))
        self._file.flush()
        self._stop: Any = context.RawValue(ctypes.c_bool, False)
        self._slots = [
            _Slot(context, Path(self._file.name), self._stop) for _ in range(max(1, workers))
        ]
        self._running: dict[Future[Outcome], tuple[_Slot, Task]] = {}
        self._deaths: Counter[Path] = Counter()
        self._succession = 0

    def run(self, tasks: Sequence[Task], report: Report, tell: Tell) -> None:
        """As :func:`label_files`."""
        waiting, free = deque(tasks), list(self._slots)
        try:
            while waiting or self._running:
                while waiting and free:
                    slot, task = free.pop(), waiting.popleft()
                    self._running[slot.submit(task)] = slot, task
                ended, _ = wait(self._running, POLL_SECONDS, FIRST_COMPLETED)
                for slot in self._slots:
                    tell(slot.news())
                for future in ended:
                    slot, task = self._running.pop(future)
                    free.append(slot)
                    outcome = self._outcome(future, slot, task)
                    if outcome is None:
                        waiting.append(task)
                    else:
                        report(task, outcome)
        finally:
            self._stop.value = True
            for slot in self._slots:
                slot.close()
            self._file.close()

    def _outcome(self, future: Future[Outcome], slot: _Slot, task: Task) -> Outcome | None:
        """What became of a task; None if its worker died and it is to be tried again."""
        try:
            outcome = future.result()
        except BrokenProcessPool:
            slot.renew()
            remove_temporaries(task.output)
            self._deaths[task.path] += 1
            self._succession += 1
            if self._succession >= DEATHS_IN_SUCCESSION:
                raise InputError(
                    f"{self._succession} workers died one after the other, the last at this file",
                    where=task.path,
                    remedy=f"look for what kills them (memory?), or take fewer; {GO_ON}",
                ) from None
            if self._deaths[task.path] < DEATHS_A_FILE:
                return None
            error = InputError(
                "its worker was killed, and so was the one that tried again",
                where=task.path,
                remedy=f"is there memory enough for every worker? {GO_ON}",
            )
            return Failure(task.path, str(error), error=error)
        self._succession = 0
        return outcome


class _Slot:
    """One worker, and the next if it dies."""

    def __init__(self, context: SpawnContext, work: Path, stop: Any) -> None:
        self._context, self._work, self._stop = context, work, stop
        self._stars: Any = context.RawValue(ctypes.c_int64, 0)
        self._told = 0
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, self._context, _begin, (self._work, self._stars, self._stop))

    def submit(self, task: Task) -> Future[Outcome]:
        """Begin a file."""
        with _one_thread_each():
            try:
                return self._pool.submit(_attempt, task)
            except BrokenProcessPool:  # killed while it had nothing to do
                self.renew()
                return self._pool.submit(_attempt, task)

    def news(self) -> int:
        """Stars labelled since this was last asked."""
        stars = int(self._stars.value)
        new, self._told = stars - self._told, stars
        return new

    def renew(self) -> None:
        """Another process in the place of a dead one."""
        self._pool.shutdown(wait=True)
        self._pool = self._new()

    def close(self) -> None:
        """Let it end, after the block it is at."""
        self._pool.shutdown(wait=True, cancel_futures=True)


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that begin now keep to one thread: there is one for each processor already."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Mine:
    """What a worker has."""

    work: Work
    stars: Any
    stop: Any


def _begin(work: Path, stars: Any, stop: Any) -> None:
    """Prepare a worker."""
    import pyarrow as pa
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which tells its workers
    threading.Thread(target=end_with_parent, daemon=True).start()
    threadpool_limits(1)
    pa.set_cpu_count(1)
    _Mine.work, _Mine.stars, _Mine.stop = pickle.loads(work.read_bytes()), stars, stop


def end_with_parent() -> None:
    """A worker whose run was killed would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _attempt(task: Task) -> Outcome:
    def tell(stars: int) -> None:
        _Mine.stars.value += stars
        if _Mine.stop.value:
            raise Stopped

    try:
        return attempt(_Mine.work, task, tell)
    except Stopped:
        return Failure(task.path, "the run was interrupted")


class Progress:
    """A bar of bytes, with files, stars and stars per second beside it."""

    def __init__(self, tasks: Sequence[Task], shown: bool) -> None:
        from tqdm import tqdm

        self._files = len(tasks)
        self._done = self._stars = 0
        self._begun = time.perf_counter()
        # disable=None: no bar where the output is not a terminal
        self._bar = tqdm(
            total=sum(task.path.stat().st_size for task in tasks if task.path.is_file()),
            disable=None if shown else True,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {postfix} [{elapsed}<{remaining}]",
        )
        self.stars(0)

    def stars(self, number: int) -> None:
        """So many more stars are labelled."""
        self._stars += number
        rate = self._stars / max(time.perf_counter() - self._begun, 1e-9)
        self._bar.set_description(f"{self._done}/{self._files} files", refresh=False)
        self._bar.set_postfix_str(f"{self._stars:,} stars, {rate:,.0f} stars/s")

    def file(self, path: Path) -> None:
        """A file is through."""
        self._done += 1
        self._bar.update(path.stat().st_size if path.is_file() else 0)
        self.stars(0)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
