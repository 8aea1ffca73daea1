"""Many files of spectra -> a folder of catalogues, one each, or one catalogue of all.

The entries of :mod:`~xplabels.pipeline.manifest` say which outputs are complete; these are not made
again. ``_manifest/run.json`` is a summary of the last run, which no run relies on. One catalogue of
all is made in ``CATALOGUE.partial/``, a folder of the same kind whose ``manifest.json`` says what
its labels depend on; when all its files are there, the catalogue is written from them and the
folder is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xplabels.core.errors import InputError, counted
from xplabels.io.atomic import (
    LAST_WORD,
    MODEL_FILES,
    REPORT_FILES,
    alone,
    check_distinct,
    check_output,
    discard,
    remove_leftovers,
    sync,
    whole_file,
)
from xplabels.io.catalogue import check_catalogue, write_table
from xplabels.io.job import FOREIGN, FileFingerprint, Job, Settings, StaleReason, open_partial
from xplabels.io.tables import matched
from xplabels.pipeline.file import (
    FEW_STARS,
    FILES_TOGETHER,
    PART,
    FirstLabels,
    PredictOptions,
    StartedFile,
    finish_file,
    labels_of_files,
    open_part,
    part_groups,
    regrouped,
    start_file,
)
from xplabels.pipeline.inputs import Inputs, no_spectra, output_names, stem
from xplabels.pipeline.manifest import MANIFEST, ManifestEntry, entry_path
from xplabels.pipeline.workers import CountStars, Failure, OnDask, Outcome, attempt, run_jobs

if TYPE_CHECKING:
    from xplabels.core.stars import Stars
    from xplabels.model import Model

logger = logging.getLogger(__name__)

PARTIAL_FILES = (
    "manifest.json",
    LAST_WORD,
    f"*{PART}",
    "*.parquet",
    ".*.partial.*",
    f"{MANIFEST}/*",
)
"""All that the folder of an unfinished catalogue may hold; anything else is the user's."""


@dataclass
class Summary:
    """What a run did.

    ``stars`` and ``files`` count all outputs, ``resumed`` those that were complete before,
    ``remade`` those made again, by reason; ``good`` counts the good stars, ``flags`` stars by flag.
    ``damaged`` rows are (file, row, source_id), as far as the files' entries list them; ``failed``
    says why an input has no output. ``missing`` says in words what the folders of input lack;
    ``absent`` are the files that such a folder's own list names, and that have no output of an
    earlier run either. ``joined`` says how many of the stars each table has, ``notes`` what was
    noticed in the tables and files. ``account`` is the file that holds all this, if there is one.
    """

    stars: int = 0
    files: int = 0
    resumed: int = 0
    good: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    damaged: list[tuple[str, int, int]] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    absent: tuple[Path, ...] = ()
    remade: dict[str, int] = field(default_factory=dict)
    joined: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    account: Path | None = None


@alone
def predict_folder(
    inputs: Inputs,
    output: Path,
    model: Model,
    options: PredictOptions,
    *,
    workers: int | OnDask = 1,
    command: str = "",
    overwrite: bool = False,
    allow_missing: bool = False,
) -> Summary:
    """Labels of every star of every input, in one Parquet file per input, in the folder ``output``.

    Which outputs are made again, and why, is logged before the work begins; each stays until its
    replacement is whole. ``workers`` files are done at a time, each in a process (1: in this
    one), or on a Dask cluster. ``overwrite`` replaces files of the same name that were not made
    here. With ``allow_missing`` a run counts as complete although files that a folder of input
    lists are absent. ``command`` is written to ``run.json``. Files that could not be labelled are
    in ``failed`` of the summary; the others are done.

    Raises InputError if the run cannot begin, or every other file would fail in the same way.
    """
    outputs = {path: output / name for path, name in output_names(inputs.files).items()}
    check_distinct(outputs.values(), (*inputs.files, *options.tables.tables))
    settings = options.settings(model)
    options.tables.open()
    if output.exists() and not output.is_dir():
        raise InputError("is a file, not a folder", where=output, remedy="name a folder")
    if not output.exists():
        check_output(output)
    for name in (*MODEL_FILES, *REPORT_FILES):
        if (output / name).is_file():
            raise InputError(
                f"holds {name}: it is the folder of a model or of a report, not of catalogues",
                where=output,
                remedy="choose another folder, or end the name as in labels.fits",
            )
    with _cleared(output):
        run = _Run(inputs, outputs, output, settings, options, command)
        run.check_existing(overwrite)
        run.check_absent()
        if not run.jobs and inputs.absent:
            raise no_spectra(inputs.absent[0].parent)
        run.label(model, workers)
        for job in run.waiting:
            if job.inputs[0] in run.entries:
                sync(job.output)
        sync(output)
        if not run.summary.failed:
            options.tables.check_joined(run.entries.values())
            run.write(complete=allow_missing or not run.summary.absent)
    return run.summary


@alone
def predict_catalogue(
    inputs: Inputs,
    output: Path,
    model: Model,
    options: PredictOptions,
    *,
    workers: int | OnDask = 1,
    overwrite: bool = False,
    allow_missing: bool = False,
) -> Summary:
    """Labels of the stars of every input as the catalogue ``output``, in its ending's format.

    Parameters are those of :func:`predict_folder`; ``overwrite`` replaces an existing catalogue, or
    what a different interrupted run left.

    Raises InputError if the output exists or cannot be written, an input is absent or cannot be
    read, or a star occurs twice. No catalogue is written then; what is finished stays for the next
    run.
    """
    check_catalogue(output, overwrite, ", or make a folder of that name")
    if not allow_missing:  # a finished catalogue would not be completed by the same command
        check_absent(inputs.absent, "no catalogue is made")
    if not inputs.files and inputs.absent:
        raise no_spectra(inputs.absent[0].parent)
    check_distinct([output], (*inputs.files, *options.tables.tables))
    for path in inputs.files:
        FileFingerprint.of(path)
    settings = options.settings(model)
    options.tables.open()
    folder = output.with_name(output.name + ".partial")
    digests = {p: hashlib.sha256(str(p.resolve()).encode()).hexdigest()[:16] for p in inputs.files}
    outputs = {path: folder / f"{digest}{PART}" for path, digest in digests.items()}
    open_partial(folder, "manifest.json", settings, PARTIAL_FILES, overwrite)
    with _cleared(folder):
        run = _Run(inputs, outputs, folder, settings, options)
        try:
            run.check_existing(overwrite=True)
            run.label(model, workers)
            if failed := list(run.summary.failed.values()):
                several = f"{len(failed)} of {len(outputs)} files could not be labelled:\n"
                raise InputError((several if failed[1:] else "") + "\n".join(failed))
            try:
                options.tables.check_joined(run.entries.values())
            except InputError:
                shutil.rmtree(folder)
                raise
            for path, entry in run.entries.items():
                if not entry.input.fits(path):
                    raise InputError(
                        "changed while other files were labelled",
                        where=path,
                        remedy="repeat the command: the others are done",
                    )
            _assemble(list(outputs.values()), output, overwrite, run.summary.joined)
        except BaseException:
            if not any(folder.glob(f"[!.]*{PART}")):  # no trace of a run that finished no file
                shutil.rmtree(folder, ignore_errors=True)
            else:
                logger.info("%s keeps what is finished, for the next run", folder)
            raise
    discard(folder, output)
    return replace(run.summary, account=None)


def check_absent(absent: Sequence[Path], consequence: str) -> None:
    """Raise InputError if files are absent that their folder's own list names."""
    if absent:
        raise InputError(
            f"{counted(len(absent), 'file')} that the folder's own _MD5SUM.txt lists "
            f"{'is' if len(absent) == 1 else 'are'} not there, the first {absent[0].name}; "
            + consequence,
            where=absent[0].parent,
            remedy="download what is missing and repeat the command, or add "
            "--allow-missing if only a part is wanted",
        )


def again(reasons: Mapping[str, int], words: str = "made again") -> str:
    """How many outputs are made again, and why, in words; ``reasons`` as :attr:`Summary.remade`."""
    listed = "; ".join(f"{number} {why}" for why, number in reasons.items())
    return f"{counted(sum(reasons.values()), 'output')} {words}: {listed}"


def predict_job(
    model: Model, options: PredictOptions, job: Job, count_stars: CountStars
) -> ManifestEntry:
    """Label one file."""
    started = _start(model, options, job, count_stars)
    next(started)
    return finish_file(started)


def _start(model: Model, options: PredictOptions, job: Job, count_stars: CountStars) -> StartedFile:
    return start_file(
        model, job.inputs[0], job.output, options, published=job.published,
        settings=job.settings, done=count_stars,
    )  # fmt: skip


# the signature of both is that of what `attempt` calls


def _read_first(started: StartedFile, job: Job, count_stars: CountStars) -> Stars:
    return next(started)


def _finish(
    started: StartedFile, labels: FirstLabels, job: Job, count_stars: CountStars
) -> ManifestEntry:
    return finish_file(started, labels)


def predict_together(
    model: Model, options: PredictOptions, jobs: Sequence[Job], count_stars: CountStars
) -> Iterator[tuple[Job, Outcome]]:
    """Label files in order; where files have few stars, those of several are labelled together."""
    batch: list[tuple[Job, StartedFile, Stars | Failure]] = []
    for number, job in enumerate(jobs, start=1):
        started = _start(model, options, job, count_stars)
        first = attempt(partial(_read_first, started), job)
        batch.append((job, started, first))
        has_many = not isinstance(first, Failure) and len(first) > FEW_STARS
        if not has_many and len(batch) < FILES_TOGETHER and number < len(jobs):
            continue
        firsts = [stars for _, _, stars in batch if not isinstance(stars, Failure)]
        labels = labels_of_files(model, firsts, options)
        for job, started, stars in batch:
            if isinstance(stars, Failure):
                yield job, stars
            else:
                yield job, attempt(partial(_finish, started, next(labels)), job)
        batch.clear()


@dataclass
class _Run:
    """The jobs of one run and what became of them."""

    inputs: Inputs
    outputs: Mapping[Path, Path]  # by input file
    folder: Path
    settings: Settings
    options: PredictOptions
    command: str = ""
    waiting: list[Job] = field(default_factory=list)  # jobs not done by an earlier run
    entries: dict[Path, ManifestEntry] = field(default_factory=dict)  # by input file that is done
    stale: dict[Path, StaleReason] = field(default_factory=dict)  # why an output is made again

    def __post_init__(self) -> None:
        self.jobs = [self._job(path, output) for path, output in self.outputs.items()]
        account = self.folder / MANIFEST / "run.json"
        self.summary = Summary(
            missing=self.inputs.missing, absent=self.inputs.absent, account=account
        )

    def _job(self, path: Path, output: Path) -> Job:
        source = self.options.tables.source_of(path)
        files = (path,) if source is None else (path, source)
        published = self.inputs.published.get(path)
        return Job(files, self.settings, output, entry_path(output), published)

    def check_existing(self, overwrite: bool) -> None:
        """Find the jobs that are done already; an output that is not ours needs ``overwrite``."""
        foreign = []
        for job in self.jobs:
            existing = job.check_existing(ManifestEntry)
            if isinstance(existing, ManifestEntry):
                self.entries[job.inputs[0]] = existing
                continue
            self.waiting.append(job)
            if existing is not None:
                self.stale[job.inputs[0]] = existing
            if existing is FOREIGN:
                foreign.append(job.output)
        self.summary.resumed = len(self.entries)
        if foreign and not overwrite:
            more = f" (and so {counted(len(foreign) - 1, 'other')})" if foreign[1:] else ""
            raise InputError(
                f"exists already and was not made here{more}",
                where=foreign[0],
                remedy="choose another folder, or --overwrite",
            )

    def check_absent(self) -> None:
        """Find what is missing: files that were labelled before they were removed are not."""
        removed = []
        for path in self.inputs.absent:
            job = self._job(path, self.folder / f"{stem(path)}.parquet")
            entry = job.check_existing(ManifestEntry, gone=True)
            if isinstance(entry, ManifestEntry):
                removed.append(job)
                self.entries[path] = entry
        # first, so that of two files with the same stars the one stays that cannot be made again
        self.jobs = removed + self.jobs
        absent = tuple(path for path in self.inputs.absent if path not in self.entries)
        self.summary.missing = replace(self.inputs, absent=absent).missing
        self.summary.absent = absent
        self.summary.resumed = len(self.entries)

    def label(self, model: Model, workers: int | OnDask) -> None:
        """Do the waiting jobs, leave out files that repeat stars, and sum up in ``run.json``."""
        from tqdm import tqdm

        if self.waiting:  # the last run's account does not hold any more
            self.write(complete=False)
        if self.stale:
            logger.info(f"{self.folder}: {again(self._reasons(done=False), 'to be made again')}")
        options = self.options
        if isinstance(workers, OnDask):
            options = replace(options, tables=options.tables.absolute())
        # a copy of the model, which has no caches to send along
        work = partial(predict_job, replace(model), options)
        sizes = {p: p.stat().st_size for j in self.waiting if (p := j.inputs[0]).is_file()}
        # disable=None: no bar where the output is not a terminal
        with tqdm(total=sum(sizes.values()), unit="B", unit_scale=True, disable=None) as bar:
            stars = 0

            def count(more: int) -> None:
                nonlocal stars
                stars += more
                bar.set_postfix_str(f"{stars:,} stars")

            def report(job: Job, outcome: Outcome) -> None:
                self._note(job, outcome)
                # other processes do not count their blocks here
                if workers != 1 and isinstance(outcome, ManifestEntry):
                    count(outcome.rows_out)
                bar.update(sizes.get(job.inputs[0], 0))

            together = partial(predict_together, model, options)
            run_jobs(work, self.waiting, workers, report, count, together)
        for job, why in list(find_duplicates(self._done())):
            del self.entries[job.inputs[0]]
            _remove(job)
            self.summary.failed[job.inputs[0]] = why
        self.write(complete=False)

    def _done(self) -> list[tuple[Job, ManifestEntry]]:
        paths = self.entries.keys()
        return [(job, self.entries[job.inputs[0]]) for job in self.jobs if job.inputs[0] in paths]

    def _note(self, job: Job, outcome: Outcome) -> None:
        """Take down the outcome of a job.

        If the file could not be labelled, an earlier output is removed if it is broken or its input
        is known to have changed since (:class:`~xplabels.io.job.StaleReason`); any other stays.
        """
        if isinstance(outcome, ManifestEntry):
            self.entries[job.inputs[0]] = outcome
        elif isinstance(outcome, Failure):
            stale = self.stale.get(job.inputs[0])
            if outcome.ends_run:  # the disk may be full: writing this down may fail, too
                with contextlib.suppress(InputError):
                    self._fail(job, outcome.why)
            elif stale is not None and stale.stays:
                self._fail(job, f"{outcome.why}\n{job.output}: stays as it was ({stale.why})")
            else:
                self._fail(job, outcome.why)
                _remove(job)

    def _fail(self, job: Job, why: str) -> None:
        self.summary.failed[job.inputs[0]] = why
        self.write(complete=False)

    def _reasons(self, done: bool) -> dict[str, int]:
        """Why outputs have been made again (``done``) or still have to be -> how many."""
        stale = self.stale.items()
        return dict(Counter(reason.why for path, reason in stale if (path in self.entries) == done))

    def write(self, complete: bool) -> None:
        """Sum up, and write ``run.json``."""
        summary, flags = self.summary, Counter[str]()
        entries = [entry for _, entry in self._done()]
        for entry in entries:
            flags.update(entry.flags)
        summary.files, summary.stars = len(entries), sum(entry.rows_out for entry in entries)
        summary.good = sum(entry.good for entry in entries)
        summary.flags, summary.remade = dict(flags), self._reasons(done=True)
        summary.damaged = [(e.input.name, row, star) for e in entries for row, star in e.damaged]
        joined, stars = Counter[str](), Counter[str]()
        for entry in entries:
            for table in entry.joined:
                joined[table.table] += table.stars
                stars[table.table] += entry.rows_out
        summary.joined = tuple(matched(name, joined[name], stars[name]) for name in stars)
        summary.notes = tuple(dict.fromkeys(note for entry in entries for note in entry.notes))
        account = {
            "command": self.command,
            "complete": complete,
            "settings": self.settings,
            "files": summary.files,
            "stars": summary.stars,
            "good": summary.good,
            "flags": summary.flags,
            "joined": list(summary.joined),
            "failed": {str(path): why for path, why in summary.failed.items()},
            "missing": list(summary.missing),
            "absent": [str(path) for path in summary.absent],
            "made_again": summary.remade,
            "to_be_made_again": self._reasons(done=False),
            "damaged": [
                {"file": file, "row": row, "source_id": star} for file, row, star in summary.damaged
            ],
            "processor_hours": round(sum(e.processor_seconds for e in entries) / 3600, 4),
        }
        with whole_file(self.folder / MANIFEST / "run.json", overwrite=True) as temporary:
            temporary.write_text(json.dumps(account, indent=1) + "\n", encoding="utf-8")


def find_duplicates(files: Sequence[tuple[Job, ManifestEntry]]) -> Iterator[tuple[Job, str]]:
    """Files with a star that an earlier file has, and the message for each.

    Only files whose ranges of source_id overlap are read; those of the archive do not.
    """
    import pyarrow.parquet as pq

    first = np.array([entry.first_id for _, entry in files], np.int64)
    last = np.array([entry.last_id for _, entry in files], np.int64)
    order = np.argsort(first, kind="stable")
    # a new group of overlapping files begins where a file begins after the end of all before it
    begins = first[order][1:] > np.maximum.accumulate(last[order])[:-1]
    for group in np.split(order, np.flatnonzero(begins) + 1):
        seen = np.empty(0, np.int64)
        for number in np.sort(group) if len(group) > 1 else ():
            job = files[number][0]
            if job.output.suffix == PART:
                ids = np.concatenate([g["source_id"].to_numpy() for g in part_groups(job.output)])
            else:
                ids = pq.read_table(job.output, columns=["source_id"])["source_id"].to_numpy()
            repeated = np.intersect1d(seen, ids)
            if len(repeated):
                message = f"source_id {repeated[0]} occurs in an earlier input file too "
                message += f"({len(repeated)} source_ids do)"
                error = InputError(message, where=job.inputs[0], remedy="give each star once")
                yield job, str(error)
            else:
                seen = np.concatenate([seen, ids])


def _assemble(parts: Sequence[Path], output: Path, overwrite: bool, joined: Sequence[str]) -> None:
    """The catalogue from its parts; Parquet without holding it in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = []
    for part in parts:
        with open_part(part) as file:
            schemas.append(file.schema)
    metadata = dict(schemas[0].metadata or {})
    notes = dict.fromkeys((schema.metadata or {}).get(b"NOTES") for schema in schemas)
    if texts := [note for note in notes if note]:
        metadata[b"NOTES"] = b"; ".join(texts)
    if joined:
        metadata[b"JOINED"] = "; ".join(joined).encode()
    schema = schemas[0].with_metadata(metadata)  # the first part's, with the notes of all

    groups = (
        group.replace_schema_metadata(metadata) for part in parts for group in part_groups(part)
    )
    if output.suffix.lower() != ".parquet":
        write_table(pa.concat_tables(groups).cast(schema), output, overwrite)
        return
    with (
        whole_file(output, overwrite) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for group in regrouped(groups):
            writer.write_table(group)


@contextlib.contextmanager
def _cleared(folder: Path) -> Iterator[None]:
    """Clear away half-written files, of killed runs before the work, of dead workers after it."""
    manifest = folder / MANIFEST
    manifest.mkdir(parents=True, exist_ok=True)
    for cleared in (folder, manifest):
        remove_leftovers(cleared, every=True)
    yield
    for cleared in (folder, manifest):  # Dask may have replaced a dead worker without our notice
        remove_leftovers(cleared, every=True)


def _remove(job: Job) -> None:
    job.output.unlink(missing_ok=True)
    job.record.unlink(missing_ok=True)
