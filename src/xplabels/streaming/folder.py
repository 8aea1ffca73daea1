"""Many files of spectra -> a folder of catalogues, one each; what stands is verified, not redone.

What is complete is told by the entries of :mod:`~xplabels.streaming.manifest`. The account of the
last run as a whole is ``_manifest/run.json``: written by the run alone, it only sums up.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from xplabels.errors import InputError, counted
from xplabels.output import check_output, take_lock, whole_file
from xplabels.streaming.doubles import doubled
from xplabels.streaming.file import Order, Predictor
from xplabels.streaming.inputs import Inputs, output_names
from xplabels.streaming.manifest import (
    ENTRIES,
    Entry,
    Settings,
    difference,
    entry_path,
    read_entry,
    whole_output,
)
from xplabels.streaming.on_dask import OnDask
from xplabels.streaming.workers import Outcome, Progress, Task, Work, label_files

RUN = "run.json"
LOCK = "lock"
ALTERED = "truncated or altered since"
"""Why an output that does not fit its entry is made again."""
WHY = {
    "damaged": ALTERED,
    "outdated": "of an input that changed since",
    "foreign": "not made here (--overwrite)",
}
"""What is found in the place of an output, beside one of other settings -> why it is made again."""


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
        Files among them that the folder's own list names.
    remade
        Why outputs that were there have been made again -> how many.
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

    def add(self, entry: Entry) -> None:
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
    order: Order,
    *,
    workers: int | OnDask = 1,
    command: str = "",
    overwrite: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> Summary:
    """Labels of every star of every input, in one Parquet file an input, in the folder ``output``.

    Parameters
    ----------
    inputs
        Of :func:`~xplabels.streaming.inputs.find_inputs`.
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
        run = _Run(output, settings, inputs, order, command)
        waiting = run.sort(tasks, overwrite)
        if run.why:
            say(f"{output}: {again(Counter(run.why.values()), 'to be made again')}")
        with Progress(waiting, progress) as bar:

            def report(task: Task, outcome: Outcome) -> None:
                run.note(task, outcome)
                bar.file(task.path)

            label_files(Work(model, order, settings), waiting, workers, report, bar.stars)
        run.finish(tasks)
    return run.summary


class _Run:
    """What is known of the files of one run."""

    def __init__(
        self, output: Path, settings: Settings, inputs: Inputs, order: Order, command: str
    ) -> None:
        self.output, self.settings, self.order, self.command = output, settings, order, command
        self.summary = Summary(missing=inputs.missing, absent=inputs.absent)
        self.entries: dict[Path, Entry] = {}
        self.why: dict[Path, str] = {}
        self.kept: set[Path] = set()

    def sort(self, tasks: Sequence[Task], overwrite: bool) -> list[Task]:
        """The tasks that are to be done; those that are done already are noted.

        Raises
        ------
        InputError
            If an output is not ours, and ``overwrite`` is false.
        """
        waiting, foreign = [], []
        for task in tasks:
            state = self._state(task)
            if isinstance(state, Entry):
                if state.settings == self.settings.told():
                    self.entries[task.path] = state
                    self.summary.resumed += 1
                    continue
                self.kept.add(task.path)
                told = difference(state.settings, self.settings.told())
                self.why[task.path] = f"made with {told}"
            elif state in WHY:
                self.why[task.path] = WHY[state]
            if state == "foreign":
                foreign.append(task.output)
                self.kept.add(task.path)
            waiting.append(task)
        if foreign and not overwrite:
            raise InputError(
                f"exists already and was not made here{_more(foreign)}",
                where=foreign[0],
                remedy="choose another folder, or --overwrite",
            )
        return waiting

    def _state(self, task: Task) -> Entry | str:
        """The entry of an output that is whole and of this input; or what is there instead."""
        if not task.output.exists():
            return "absent"
        entry = read_entry(task.output)
        if entry is None:
            # an entry that cannot be read is ours all the same
            return "damaged" if entry_path(task.output).exists() else "foreign"
        if not whole_output(entry, task.output):
            return "damaged"
        known = task.published in (None, entry.input.md5)
        return entry if known and self._same_inputs(entry, task.path) else "outdated"

    def _same_inputs(self, entry: Entry, path: Path) -> bool:
        try:
            beside = self.order.companions.beside(path)
        except InputError:  # told when its turn comes
            return False
        if [stamp.name for stamp in entry.beside] != ([] if beside is None else [beside.name]):
            return False
        return entry.input.fits(path) and (beside is None or entry.beside[0].fits(beside))

    def note(self, task: Task, outcome: Outcome) -> None:
        """Keep what became of a file.

        If it could not be labelled, an output that is broken or not of the file as it is now goes;
        one of other settings, and one that was not made here, stays.
        """
        if isinstance(outcome, Entry):
            self.entries[task.path] = outcome
            return
        if outcome.ends_run:  # there may be no room even to say so
            with suppress(InputError):
                self.fail(task, outcome.why)
            return
        if task.path in self.kept:
            self.fail(
                task, f"{outcome.why}\n{task.output}: stays as it was ({self.why[task.path]})"
            )
            return
        self.fail(task, outcome.why)
        _remove(task.output)

    def fail(self, task: Task, why: str) -> None:
        """Put a failure down at once."""
        self.summary.failed[task.path] = why
        self.write(complete=False)

    def finish(self, tasks: Sequence[Task]) -> None:
        """Find stars that two files have, sum up, and write the account."""
        by_path = {task.path: task for task in tasks}
        through = [
            (t.path, t.output, self.entries[t.path]) for t in tasks if t.path in self.entries
        ]
        for path, error in list(doubled(through)):
            del self.entries[path]
            _remove(by_path[path].output)
            self.fail(by_path[path], str(error))
        for task in tasks:
            if task.path in self.entries:
                self.summary.add(self.entries[task.path])
        self.summary.remade = dict(Counter(w for p, w in self.why.items() if p in self.entries))
        self.write(complete=not self.summary.failed)
        if not self.summary.failed:
            self.order.companions.check_joined(self.entries.values())

    def write(self, complete: bool) -> None:
        """The account of the run."""
        summary = self.summary
        told = {
            "command": self.command,
            "complete": complete,
            "settings": self.settings.told(),
            "files": len(self.entries),
            "stars": summary.stars,
            "flags": summary.flags,
            "failed": {str(path): why for path, why in summary.failed.items()},
            "missing": list(summary.missing),
            "made_again": summary.remade,
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
