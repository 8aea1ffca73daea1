"""Many files of spectra -> one catalogue: resumable, whole or not at all.

While a run lasts, ``CATALOGUE.partial/`` holds ``manifest.json``, which says what the labels depend
on, and one Parquet part per finished input file, named after the file's path, size and time of
change, with its entry. The same command goes on from there; a part of a file that has changed since
is made anew. When all parts are there the catalogue is written from them and the folder removed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xplabels.core.errors import InputError
from xplabels.io.atomic import check_ours, whole_file
from xplabels.io.catalogue import check_catalogue, write_table
from xplabels.pipeline.doubles import find_duplicates
from xplabels.pipeline.existing import ALTERED
from xplabels.pipeline.file import PredictOptions, Predictor
from xplabels.pipeline.folder import Summary
from xplabels.pipeline.inputs import Inputs, no_spectra
from xplabels.pipeline.manifest import (
    ENTRIES,
    FileFingerprint,
    ManifestEntry,
    Settings,
    read_entry,
    whole_output,
)
from xplabels.pipeline.on_dask import OnDask
from xplabels.pipeline.tasks import Failure, Outcome, Task, Work
from xplabels.pipeline.workers import Progress, label_files

if TYPE_CHECKING:
    import pyarrow as pa

PARTIAL_FILES = ("manifest.json", "*.parquet", ".*.partial.*", f"{ENTRIES}/*")
"""All that the folder of an unfinished run may hold; anything else is the user's."""


class Partial:
    """The folder ``CATALOGUE.partial`` of a run that is not finished."""

    def __init__(self, output: Path, settings: Settings) -> None:
        self.folder = output.with_name(output.name + ".partial")
        self._manifest = self.folder / "manifest.json"
        self.settings = settings

    def open(self, overwrite: bool) -> None:
        """Go on in the folder if its manifest matches, else make it.

        Raises
        ------
        InputError
            If an interrupted run with other settings left it and ``overwrite`` is false, or if
            the folder is not of our making: a user's is never removed.
        """
        wanted = self.settings.to_json()
        if self.folder.exists():
            found = self._found()
            if found == wanted:
                return
            if found and not overwrite:
                raise InputError(
                    "was left by a run with another model, photometry, option or version",
                    where=self.folder,
                    remedy="repeat that run's command, or start anew with --overwrite",
                )
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        with whole_file(self._manifest) as temporary:
            temporary.write_text(wanted, encoding="utf-8")

    def _found(self) -> str:
        """The manifest of the folder that is there, which must be ours; "" where it is empty."""
        check_ours(self.folder, PARTIAL_FILES)
        if not any(self.folder.iterdir()):
            return ""
        try:
            text = self._manifest.read_text(encoding="utf-8")
            told = json.loads(text)
        except (OSError, ValueError):
            told = None
        if not isinstance(told, dict) or told.keys() != self.settings.told().keys():
            raise InputError(
                "is in the way: it has not the manifest of an interrupted run",
                where=self.folder,
                remedy="move it away, or choose another output",
            )
        return text

    def part(self, path: Path) -> Path:
        """Where the labels of one input file go."""
        digest = hashlib.sha256(identity(path).encode()).hexdigest()[:16]
        return self.folder / f"{digest}.parquet"

    def drop_if_empty(self) -> None:
        """Leave no trace of a run that finished no input file."""
        if self.folder.is_dir() and not any(self.folder.glob("[!.]*.parquet")):
            self.remove()

    def remove(self) -> None:
        """The catalogue stands: the parts are not needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


def identity(path: Path) -> str:
    """Path, size and time of change of a file, as one line.

    Raises
    ------
    InputError
        If it is not a readable file.
    """
    stamp = FileFingerprint.of(path)
    return f"{path.resolve()} {stamp.size} {stamp.time}"


def predict_catalogue(
    inputs: Inputs,
    output: Path,
    model: Predictor,
    order: PredictOptions,
    *,
    workers: int | OnDask = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Labels of the stars of every input as the catalogue ``output``.

    Parameters
    ----------
    inputs
        Of :func:`~xplabels.pipeline.inputs.find_inputs`.
    output
        Its ending names the format (:data:`xplabels.io.catalogue.FORMATS`).
    model, order
        The model, photometry and options.
    workers
        Files at a time, each in a process; 1 is this process. Or a Dask cluster.
    overwrite
        Replace an existing catalogue, or what a different interrupted run left.
    progress
        Show a progress bar where the terminal has one.

    Raises
    ------
    InputError
        If the output exists or cannot be written, an input cannot be read or a star occurs twice.
        No catalogue is written then; finished parts stay, so that the run can go on.
    """
    check_catalogue(output, overwrite)
    if not inputs.files and inputs.absent:
        raise no_spectra(inputs.absent[0].parent)
    for path in inputs.files:
        FileFingerprint.of(path)
    partial = Partial(output, order.settings(model))
    order.companions.open()
    partial.open(overwrite)
    try:
        summary = _make_parts(inputs, partial, model, order, workers, progress)
        _assemble([partial.part(path) for path in inputs.files], output, overwrite)
    except BaseException:
        partial.drop_if_empty()
        raise
    partial.remove()
    return summary


def _make_parts(
    inputs: Inputs,
    partial: Partial,
    model: Predictor,
    order: PredictOptions,
    workers: int | OnDask,
    progress: bool,
) -> Summary:
    summary, entries = Summary(missing=inputs.missing, absent=inputs.absent), {}
    failed: list[Failure] = []
    tasks = [Task(path, partial.part(path), inputs.published.get(path)) for path in inputs.files]
    waiting = []
    for task in tasks:
        entry = read_entry(task.output)
        if entry is not None and whole_output(entry, task.output):
            entries[task.path] = entry
        else:
            waiting.append(task)
            if task.output.exists():
                summary.remade[ALTERED] = summary.remade.get(ALTERED, 0) + 1
    summary.resumed = len(entries)
    with Progress(waiting, progress) as bar:

        def report(task: Task, outcome: Outcome) -> None:
            if isinstance(outcome, ManifestEntry):
                entries[task.path] = outcome
            else:
                failed.append(outcome)
            bar.file(task.path)

        label_files(Work(model, order, partial.settings), waiting, workers, report, bar.stars)
    if failed:
        raise _of_all(failed, len(tasks))
    for _, error in find_duplicates(
        [(task.path, task.output, entries[task.path]) for task in tasks]
    ):
        raise error
    try:
        order.companions.check_joined(entries.values())
    except InputError:
        partial.remove()
        raise
    for task in tasks:
        summary.add(entries[task.path])
    return summary


def _of_all(failed: Sequence[Failure], files: int) -> InputError:
    """One error of all failures."""
    first = failed[0]
    if len(failed) == 1 and first.error is not None:
        return first.error
    listed = "\n".join(failure.why for failure in failed)
    return InputError(f"{len(failed)} of {files} files could not be labelled:\n{listed}")


def _assemble(parts: Sequence[Path], output: Path, overwrite: bool) -> None:
    """The catalogue from its parts; Parquet without holding it in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(parts)
    if output.suffix.lower() != ".parquet":
        # pq.read_table would import pyarrow.dataset, and that pandas
        whole = pa.concat_tables([pq.ParquetFile(part).read() for part in parts])
        write_table(whole.cast(schema), output, overwrite)
        return
    with (
        whole_file(output, overwrite) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for part in parts:
            for group in _row_groups(pq.ParquetFile(part)):
                writer.write_table(group.replace_schema_metadata(schema.metadata))


def _schema(parts: Sequence[Path]) -> pa.Schema:
    """The first part's, with what any of them notes of its stars."""
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(part) for part in parts]
    metadata = dict(schemas[0].metadata or {})
    notes = dict.fromkeys((schema.metadata or {}).get(b"NOTES") for schema in schemas)
    kept = [note for note in notes if note]
    if kept:
        metadata[b"NOTES"] = b"; ".join(kept)
    return schemas[0].with_metadata(metadata)


def _row_groups(file: Any) -> Iterator[pa.Table]:
    with file:
        for index in range(file.num_row_groups):
            yield file.read_row_group(index)
