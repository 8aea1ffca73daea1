"""Files labelled on a Dask cluster, one task a file; Dask schedules, retries and replaces workers.

A task writes its output, and its entry of the manifest, where all machines see them; what comes
back is the entry. So a worker that dies loses the file it was at, which another one begins anew.
Dask is imported where it is used.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from xplabels.core.errors import InputError
from xplabels.pipeline.manifest import ManifestEntry
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

LOCAL = "local"
CONNECT_SECONDS = 20
RETRIES = 2
"""How often Dask tries a task again that failed for a reason that is none of its file's."""

Client = Any
"""A ``distributed.Client``."""


@dataclass(frozen=True)
class OnDask:
    """Where to label files.

    Attributes
    ----------
    address
        Of a scheduler, such as ``tcp://host:8786``; :data:`LOCAL`: a cluster of processes on this
        machine, for the time of the run.
    workers
        Processes of a local cluster.
    """

    address: str = LOCAL
    workers: int = 1


@contextmanager
def connected(where: OnDask) -> Iterator[Client]:
    """A client of the cluster.

    Raises
    ------
    InputError
        If Dask is not installed, or nobody answers at the address.
    """
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError:
        raise InputError("Dask is not installed", remedy="pip install xplabels[lsdb]") from None
    if where.address == LOCAL:
        with (
            LocalCluster(
                n_workers=where.workers,
                threads_per_worker=1,
                dashboard_address=None,
                memory_limit=None,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(where.address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        first = (str(error).splitlines() or ["timeout"])[0]
        raise InputError(
            f"no Dask scheduler answers ({first})",
            where=where.address,
            remedy="start one (dask scheduler), or give --dask local",
        ) from error
    with client:
        yield client


def label_on_dask(
    work: Work, tasks: Sequence[Task], client: Client, report: Report, tell: Tell
) -> None:
    """Label every file, as workers of this machine do, on the cluster of ``client``.

    Raises
    ------
    InputError
        If nothing can be written any more, as ``report`` says.
    """
    from dask.distributed import as_completed

    # not scattered: what a task makes can be made again where the worker that had it has died
    shared = client.submit(_unpacked, _packed(work), pure=False)

    def begun(task: Task) -> Any:
        return client.submit(_labelled, shared, _absolute(task), pure=False, retries=RETRIES)

    def ended(task: Task, outcome: Outcome) -> None:
        if isinstance(outcome, ManifestEntry):
            tell(outcome.rows_out)
        report(task, outcome)

    running = {begun(task): task for task in tasks}
    deadly: list[Task] = []
    try:
        for future in as_completed(running):
            outcome = _outcome(future, running[future])
            if outcome is None:
                deadly.append(running[future])
            else:
                ended(running[future], outcome)
        # Dask blames a death on every file that its worker had, so each is tried by itself
        for task in deadly:
            last = begun(task)
            running[last] = task
            ended(task, _outcome(last, task) or _killed(task))
    finally:
        client.cancel([*running, shared])


def _packed(work: Work) -> bytes:
    """Model and options for workers that may have another working directory."""
    companions = work.order.companions
    source = companions.gaia_source
    companions = replace(
        companions,
        tables=tuple(path.absolute() for path in companions.tables),
        gaia_source=None if source is None else source.absolute(),
    )
    order = replace(work.order, companions=companions)
    return pickle.dumps(replace(work, model=bare(work.model), order=order))


def _absolute(task: Task) -> Task:
    return replace(task, path=task.path.absolute(), output=task.output.absolute())


def _unpacked(payload: bytes) -> Work:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)  # there is a worker for each processor already
    work: Work = pickle.loads(payload)
    return work


def _labelled(work: Work, task: Task) -> Outcome:
    """What a worker does: one file, over what a dead one may have left of it."""
    remove_temporaries(task.output)
    return attempt(work, task, _nobody)


def _nobody(stars: int) -> None:
    """Nobody is told while a file lasts."""


def _outcome(future: Any, task: Task) -> Outcome | None:
    """What became of a task, with the path as it was asked for; None if workers died of it."""
    from distributed.scheduler import KilledWorker

    try:
        outcome: Outcome = future.result()
    except KilledWorker:
        return None
    return outcome if isinstance(outcome, ManifestEntry) else replace(outcome, path=task.path)


def _killed(task: Task) -> Failure:
    told = InputError(
        "worker after worker died at it",
        where=task.path,
        remedy=f"is there memory enough for every worker? {GO_ON}",
    )
    return Failure(task.path, str(told), error=told)
