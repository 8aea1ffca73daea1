"""Many files of spectra -> a folder of catalogues, one each; what stands is verified, not redone.

What is complete is told by the entries of :mod:`~xplabels.pipeline.manifest`. The account of the
last run as a whole is ``_manifest/run.json``: written by the run alone, it only sums up.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from xplabels.core.errors import InputError, counted
from xplabels.io.atomic import check_output, take_lock, whole_file
from xplabels.pipeline.doubles import find_duplicates
from xplabels.pipeline.existing import FOREIGN, StaleReason, check_existing, standing_alone
from xplabels.pipeline.file import PredictOptions, Predictor
from xplabels.pipeline.inputs import Inputs, no_spectra, output_names, stem
from xplabels.pipeline.manifest import ENTRIES, ManifestEntry, Settings, entry_path
from xplabels.pipeline.on_dask import OnDask
from xplabels.pipeline.tasks import Outcome, Task, Work
from xplabels.pipeline.workers import Progress, label_files

RUN = "run.json"
LOCK = "lock"


@dataclass
class Summary:
    """What a run did.

    Attributes
    ----------
    stars
        Rows of all outputs.
    files
        Input files that have their output.
    resumed
        Those of them that had it before, complete and verified.
    flags
        Name of a flag -> stars that have it.
    damaged
        Damaged rows, file by file: (file, row, source_id), as far as their entries list them.
    failed
        Input -> why it has no output.
    missing
        What the folders of input lack.
    absent
        Files among them that the folder's own list names, and that have no output of an earlier
        run either.
    remade
        Why outputs that were there have been made again -> how many.
    account
        The file in which all of this stands, if there is one.
    """

    stars: int = 0
    files: int = 0
    resumed: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    damaged: list[tuple[str, int, int]] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    absent: tuple[Path, ...] = ()
    remade: dict[str, int] = field(default_factory=dict)
    account: Path | None = None

    def add(self, entry: ManifestEntry) -> None:
        """Count one file that is through."""
        self.files += 1
        self.stars += entry.rows_out
        for name, number in entry.flags.items():
            self.flags[name] = self.flags.get(name, 0) + number
        self.damaged.extend((entry.input.name, row, star) for row, star in entry.damaged)


def predict_folder(
    inputs: Inputs,
    output: Path,
    model: Predictor,
    order: PredictOptions,
    *,
    workers: int | OnDask = 1,
    command: str = "",
    overwrite: bool = False,
    allow_missing: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> Summary:
    """Labels of every star of every input, in one Parquet file an input, in the folder ``output``.

    Parameters
    ----------
    inputs
        Of :func:`~xplabels.pipeline.inputs.find_inputs`.
    output
        Made if it is not there.
    model, order
        The model, photometry and options.
    workers
        Files at a time, each in a process; 1 is this process. Or a Dask cluster.
    command
        Told in ``run.json``.
    overwrite
        Replace files of the same name that were not made here; without it they are an error.
    allow_missing
        A run may be complete though files that a folder of input lists are absent.
    progress
        Show a bar where the terminal has one.
    say
        Told, before the work begins, which outputs that are there are made again, and why. They
        stay until what replaces them is whole.

    Returns
    -------
    Summary
        A file that could not be labelled is in ``failed``; the others are done.

    Raises
    ------
    InputError
        If the run cannot begin, or cannot go on: no other file would fare better.
    """
    names = output_names(inputs.files)
    settings = order.settings(model)
    order.companions.open()
    _make(output)
    with _locked(output):
        tasks = [Task(f, output / names[f], inputs.published.get(f)) for f in inputs.files]
        run = _Run(output, settings, order, command, tasks)
        waiting = run.sort(overwrite)
        run.look_for(inputs, allow_missing)
        if not run.tasks and inputs.absent:
            raise no_spectra(inputs.absent[0].parent)
        if waiting:  # what an earlier run says of itself is not true any more
            run.write(complete=False)
        if run.lacking:
            say(f"{output}: {again(run.reasons(done=False), 'to be made again')}")
        with Progress(waiting, progress) as bar:

            def report(task: Task, outcome: Outcome) -> None:
                run.note(task, outcome)
                bar.file(task.path)

            label_files(Work(model, order, settings), waiting, workers, report, bar.stars)
        run.finish()
    return run.summary


class _Run:
    """What is known of the files of one run."""

    def __init__(
        self,
        output: Path,
        settings: Settings,
        order: PredictOptions,
        command: str,
        tasks: Sequence[Task],
    ) -> None:
        self.output, self.settings, self.order, self.command = output, settings, order, command
        self.tasks = list(tasks)
        self.summary = Summary(account=output / ENTRIES / RUN)
        self.entries: dict[Path, ManifestEntry] = {}
        self.lacking: dict[Path, StaleReason] = {}
        self.allow_missing = False

    def sort(self, overwrite: bool) -> list[Task]:
        """The tasks that are to be done; those that are done already are noted.

        Raises
        ------
        InputError
            If an output is not ours, and ``overwrite`` is false.
        """
        waiting, foreign = [], []
        for task in self.tasks:
            found = check_existing(task, self.settings, self.order.companions)
            if isinstance(found, ManifestEntry):
                self._resume(task, found)
                continue
            if found is not None:
                self.lacking[task.path] = found
            if found is FOREIGN:
                foreign.append(task.output)
            waiting.append(task)
        if foreign and not overwrite:
            raise InputError(
                f"exists already and was not made here{_more(foreign)}",
                where=foreign[0],
                remedy="choose another folder, or --overwrite",
            )
        return waiting

    def _resume(self, task: Task, entry: ManifestEntry) -> None:
        self.entries[task.path] = entry
        self.summary.resumed += 1

    def look_for(self, inputs: Inputs, allow_missing: bool) -> None:
        """Sort out what is missing: not what was labelled before its spectra were removed."""
        absent, done = [], []
        for path in inputs.absent:
            task = Task(path, self.output / f"{stem(path)}.parquet", inputs.published.get(path))
            entry = standing_alone(task, self.settings, self.order.companions)
            if entry is None:
                absent.append(path)
            else:
                done.append(task)
                self._resume(task, entry)
        # first, so that of two files with the same stars not the one goes that cannot be made again
        self.tasks = done + self.tasks
        inputs = replace(inputs, absent=tuple(absent))
        self.summary.missing, self.summary.absent = inputs.missing, inputs.absent
        self.allow_missing = allow_missing

    def reasons(self, done: bool) -> dict[str, int]:
        """Why outputs have been made again, or still are to be -> how many."""
        of = [lacks.why for p, lacks in self.lacking.items() if (p in self.entries) == done]
        return dict(Counter(of))

    def note(self, task: Task, outcome: Outcome) -> None:
        """Keep what became of a file.

        If it could not be labelled, an output goes that is broken, or of an input that is known to
        be another one now (:class:`~xplabels.pipeline.existing.StaleReason`); any other stays.
        """
        if isinstance(outcome, ManifestEntry):
            self.entries[task.path] = outcome
            return
        if outcome.ends_run:  # there may be no room even to say so
            with suppress(InputError):
                self.fail(task, outcome.why)
            return
        lacks = self.lacking.get(task.path)
        if lacks is not None and lacks.stays:
            self.fail(task, f"{outcome.why}\n{task.output}: stays as it was ({lacks.why})")
            return
        self.fail(task, outcome.why)
        _remove(task.output)

    def fail(self, task: Task, why: str) -> None:
        """Put a failure down at once."""
        self.summary.failed[task.path] = why
        self.write(complete=False)

    def finish(self) -> None:
        """Find stars that two files have, sum up, and write the account."""
        by_path = {task.path: task for task in self.tasks}
        for path, error in list(
            find_duplicates([(t.path, t.output, e) for t, e in self._through()])
        ):
            del self.entries[path]
            _remove(by_path[path].output)
            self.fail(by_path[path], str(error))
        self.summary.remade = self.reasons(done=True)
        for _, entry in self._through():
            self.summary.add(entry)
        self.write(complete=False)
        if not self.summary.failed:
            self.order.companions.check_joined(self.entries.values())
            self.write(complete=self.allow_missing or not self.summary.absent)

    def _through(self) -> list[tuple[Task, ManifestEntry]]:
        return [(t, self.entries[t.path]) for t in self.tasks if t.path in self.entries]

    def write(self, complete: bool) -> None:
        """The account of the run, as far as it has come."""
        summary = replace(self.summary, stars=0, files=0, flags={}, damaged=[])
        for _, entry in self._through():
            summary.add(entry)
        told = {
            "command": self.command,
            "complete": complete,
            "settings": self.settings.told(),
            "files": summary.files,
            "stars": summary.stars,
            "flags": summary.flags,
            "failed": {str(path): why for path, why in summary.failed.items()},
            "missing": list(summary.missing),
            "absent": [str(path) for path in summary.absent],
            "made_again": self.reasons(done=True),
            "to_be_made_again": self.reasons(done=False),
            "damaged": [
                {"file": file, "row": row, "source_id": star} for file, row, star in summary.damaged
            ],
            "processor_hours": round(
                sum(entry.processor_seconds for entry in self.entries.values()) / 3600, 4
            ),
        }
        with whole_file(self.output / ENTRIES / RUN, overwrite=True) as temporary:
            temporary.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def again(reasons: Mapping[str, int], words: str = "made again") -> str:
    """How many outputs are made again, and why; reasons are those of :attr:`Summary.remade`."""
    told = "; ".join(f"{number} {why}" for why, number in reasons.items())
    return f"{counted(sum(reasons.values()), 'output')} {words}: {told}"


def _make(output: Path) -> None:
    """The output folder, and that of the entries."""
    if output.exists() and not output.is_dir():
        raise InputError("is a file, not a folder", where=output, remedy="name a folder")
    if not output.exists():
        check_output(output)
    (output / ENTRIES).mkdir(parents=True, exist_ok=True)


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Keep a second run out, and clear away what a kill left half-written."""
    with (output / ENTRIES / LOCK).open("w") as lock:
        if not take_lock(lock):
            raise InputError(
                "another run is at work here",
                where=output,
                remedy="wait for it, or name another folder",
            )
        _clear(output)
        yield
        _clear(output)  # a scheduler may have replaced a worker that died without telling us


def _clear(output: Path) -> None:
    for folder in (output, output / ENTRIES):
        for left in folder.glob(".*.partial.*"):
            left.unlink(missing_ok=True)


def _remove(output: Path) -> None:
    output.unlink(missing_ok=True)
    entry_path(output).unlink(missing_ok=True)


def _more(outputs: Sequence[Path]) -> str:
    return f" (and so {counted(len(outputs) - 1, 'other')})" if len(outputs) > 1 else ""
