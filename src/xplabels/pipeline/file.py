"""One file of spectra -> one Parquet file of labels, whole or not at all, and its entry."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels import __version__
from xplabels import io as archive
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag, is_good
from xplabels.core.stars import CoefficientSpectra, Stars, concatenate, with_widths
from xplabels.io.atomic import alone, check_output, sync, whole_file
from xplabels.io.files import unchanged
from xplabels.io.job import FileFingerprint, Settings, md5_of
from xplabels.pipeline.inputs import check_sum
from xplabels.pipeline.manifest import DAMAGED_LISTED, ManifestEntry, entry_path
from xplabels.pipeline.photometry import AuxiliaryTables, Join

if TYPE_CHECKING:
    import pyarrow as pa

    from xplabels.io import BadRows
    from xplabels.model import Model


BLOCK = 1000
"""Stars that are labelled at a time: half of what readers take, so that what was read is still in
the processor's cache, and no fewer than :data:`xplabels.inference.COMPILED_FROM`, from which on
compiled code is used."""
FEW_STARS = 8
"""A file with at most so many stars, such as DataLink's, is labelled together with others."""
FILES_TOGETHER = 128
"""Most files whose stars are labelled together."""
PART = ".arrow"
"""Ending of the parts of an unfinished catalogue, which are Arrow files that only we read."""
ROW_GROUP = 65_536
"""Rows of a Parquet row group; an output of one of the archive's files has one or two groups."""


@dataclass(frozen=True)
class PredictOptions:
    """The options that all files of a run share.

    ``tables`` are photometry to join. ``bad_rows`` and ``coefficients`` are those of
    :func:`xplabels.io.read_blocks`. ``correlations`` adds those of each star's label errors.
    ``metadata`` is added to that of each output.
    """

    tables: AuxiliaryTables = field(default_factory=AuxiliaryTables)
    bad_rows: BadRows = "error"
    correlations: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    coefficients: str | None = None

    def settings(self, model: Model) -> Settings:
        """What the labels of ``model`` depend on besides the input file, as JSON values."""
        name = {key: str(model.metadata.get(key, "")) for key in ("name", "sha256")}
        if self.correlations:
            name["columns"] = "correlations"
        if self.coefficients is not None:
            name["coefficients"] = self.coefficients
        if (estimate := model.estimate) != "mean":
            name["estimate"] = estimate
        if model.basis is not None:
            name["basis"] = f"{model.basis.name}, sha256 {model.basis.sha256}"
        return {
            "model": name,
            "photometry": self.tables.identity(),
            "bad_rows": self.bad_rows,
            "version": __version__,
            "carried": list(self.tables.carried),
        }


@alone
def predict_file(
    model: Model,
    path: Path,
    output: Path,
    options: PredictOptions | None = None,
    *,
    published: str | None = None,
    settings: Settings | None = None,
    overwrite: bool = False,
    block: int = BLOCK,
    done: Callable[[int], object] = lambda stars: None,
) -> ManifestEntry:
    """Label all stars of one file, in blocks, so that memory is bounded.

    Every row read becomes a row of the file ``output``, Parquet or a :data:`PART`. Its entry
    (:func:`~xplabels.pipeline.manifest.entry_path`) is written just before ``output`` takes its
    place. ``published`` is the MD5 sum that the file must have; ``settings`` are
    ``options.settings(model)``, if they have been computed already. ``block`` is the number of
    stars at a time; labels do not depend on it (but for float32's rounding). ``done`` is called
    with the number of stars of each finished block; what it raises ends the work.

    Raises InputError if the file is damaged, truncated, holds no star, holds one twice, changes
    while it is read, or is not the one published; if photometry is damaged; if the output exists or
    cannot be written. Nothing is left of the output then.
    """
    check_output(output, overwrite)
    started = start_file(
        model, path, output, options, published=published, settings=settings,
        block=block, done=done,
    )  # fmt: skip
    next(started)
    entry = finish_file(started)
    sync(output)
    return entry


# Of files with few stars, many are labelled in one call of the model, which is far faster than a
# call for each. So the work on a file is a generator, which pauses once. `next` makes it read the
# first block of stars, which it yields; then it is sent their labels (NOT_LABELLED: it computes
# them itself), labels all further blocks, and returns the file's entry.

FirstLabels = tuple["pa.Table | None", NDArray[np.float64]]
"""Labels of a file's first stars, None if not computed yet, and the wall-clock and processor time
that they took [2], s."""
StartedFile = Generator[Stars, FirstLabels, ManifestEntry]

NOT_LABELLED: FirstLabels = (None, np.zeros(2))


def finish_file(started: StartedFile, labels: FirstLabels = NOT_LABELLED) -> ManifestEntry:
    """Finish a file whose first stars are read and have ``labels``; its entry."""
    try:
        started.send(labels)
    except StopIteration as end:
        entry: ManifestEntry = end.value
        return entry
    raise AssertionError("the work on a file pauses only once")


def start_file(
    model: Model,
    path: Path,
    output: Path,
    options: PredictOptions | None = None,
    *,
    published: str | None = None,
    settings: Settings | None = None,
    block: int = BLOCK,
    done: Callable[[int], object] = lambda stars: None,
) -> StartedFile:
    """:func:`predict_file` as a generator that pauses when the first stars are read."""
    options = options or PredictOptions()
    start = _clocks()
    fingerprint, digest = FileFingerprint.of(path), archive.Digest()
    join = Join(path, options.tables)
    rows_in = rows_out = good = 0
    ids: list[int] = []
    counts: Counter[str] = Counter()
    damaged: list[tuple[int, int]] = []
    notes: list[str] = []

    def joined() -> Iterator[tuple[Stars, dict[str, NDArray[np.float64]]]]:
        """Each block with its photometry, and the columns to carry; notes what is in it."""
        nonlocal rows_in
        for as_read in archive.read_blocks(
            path, options.bad_rows, block, digest, options.coefficients
        ):
            # if no star of a block has a band, the block does not say how wide it would have been
            stars, carried = join.join(with_widths(as_read, model.feature_set.widths))
            ids.extend((int(as_read.source_id.min()), int(as_read.source_id.max())))
            bad = np.flatnonzero(as_read.flags & np.uint32(Flag.BAD_ROW))
            for row in bad[: DAMAGED_LISTED - len(damaged)].tolist():
                damaged.append((rows_in + row + 1, int(as_read.source_id[row])))
            notes.extend(stars.notes[: DAMAGED_LISTED - len(notes)])
            rows_in += len(as_read)
            # the output keeps those notes that hold wherever its input lies
            kept_notes = tuple(note for note in as_read.notes if str(path) not in note)
            yield replace(stars, notes=kept_notes), carried

    def predicted(first_labels: pa.Table | None) -> Iterator[pa.Table]:
        """Each block as rows of the catalogue; counts them. The first's may be ``first_labels``."""
        nonlocal good
        labels = first_labels
        for stars, carried in chain(first, blocks):
            rows = labels_of(model, stars, options) if labels is None else labels
            labels = None
            flags = rows["flags"].to_numpy()
            for flag in Flag:
                counts[str(flag.name)] += int(np.count_nonzero(flags & flag.value))
            good += int(is_good(flags).sum())
            yield _with_carried(rows, carried)
            done(len(stars))

    with whole_file(output, one_of_many=True) as temporary:
        with unchanged(path), contextlib.ExitStack() as stack:
            blocks = joined()
            first = list(islice(blocks, 1))
            first_labels = None
            if first:
                paused = _clocks()
                first_labels, labelling_time = yield first[0][0]
                # this file's time is without the pause, but with its part of the labelling
                start += _clocks() - paused - labelling_time
            writer: Any = None
            for group in regrouped(predicted(first_labels)):
                if writer is None:
                    writer = stack.enter_context(_writer(temporary, group))
                writer.write_table(group, ROW_GROUP)
                rows_out += len(group)
            digest.take_rest(path)
        check_sum(path, digest.hexadecimal(), published)
        if not rows_out:
            raise InputError("holds no star", where=path, remedy="leave it out")
        written = FileFingerprint.of(temporary, md5_of(temporary))
        seconds, processor = (_clocks() - start).round(3).tolist()
        entry = ManifestEntry(
            input=replace(fingerprint, md5=digest.hexadecimal()),
            beside=join.source,
            output=replace(written, name=output.name, time=0),
            settings=settings or options.settings(model),
            rows_in=rows_in,
            rows_out=rows_out,
            good=good,
            flags=dict(+counts),
            damaged=tuple(damaged),
            notes=tuple(notes),
            joined=join.joined(),
            first_id=min(ids),
            last_id=max(ids),
            md5_published=None if published is None else True,
            seconds=seconds,
            processor_seconds=processor,
        )
        entry.write(entry_path(output))
    return entry


def labels_of(model: Model, stars: Stars, options: PredictOptions) -> pa.Table:
    """Rows of the catalogue for N stars."""
    prediction = model.predict(stars, correlations=options.correlations)
    return replace(prediction, meta={**prediction.meta, **options.metadata}).to_arrow()


def labels_of_files(
    model: Model, firsts: Sequence[Stars], options: PredictOptions
) -> Iterator[FirstLabels]:
    """Rows of the catalogue for the first stars of each file, made together where they are few."""
    # only stars whose arrays have the same shapes can be put together
    files_by_shape: dict[Any, list[int]] = {}
    for file, stars in enumerate(firsts):
        if len(stars) <= FEW_STARS and isinstance(spectra := stars.spectra, CoefficientSpectra):
            correlated = tuple(band.correlations is not None for band in (spectra.bp, spectra.rp))
            shape = spectra.widths, correlated, stars.labels is None, stars.made
            files_by_shape.setdefault(shape, []).append(file)
    labelled: dict[int, FirstLabels] = {}
    for files in files_by_shape.values():
        start = _clocks()
        try:
            table = labels_of(model, concatenate([firsts[file] for file in files]), options)
        except Exception:  # labelled one by one, the files say which of them is wrong, and how
            continue
        time_per_star, row = (_clocks() - start) / len(table), 0
        for file in files:
            rows = len(firsts[file])
            labelled[file] = table.slice(row, rows), time_per_star * rows
            row += rows
    return (labelled.get(file, NOT_LABELLED) for file in range(len(firsts)))


def _writer(path: Path, first: pa.Table) -> Any:
    """The writer of a Parquet file, or of a :data:`PART`, which takes a tenth of the time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == PART:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        return pa.ipc.new_file(path, first.schema, options=options)
    compression = "none" if len(first) <= FEW_STARS else "zstd"  # a few rows do not get smaller
    return pq.ParquetWriter(path, first.schema, compression=compression, write_page_checksum=True)


@contextlib.contextmanager
def open_part(part: Path) -> Iterator[Any]:
    """The reader of a :data:`PART`."""
    import pyarrow as pa

    with pa.OSFile(str(part)) as source, pa.ipc.open_file(source) as file:
        yield file


def part_groups(part: Path) -> Iterator[pa.Table]:
    """The rows of a :data:`PART`, at most :data:`ROW_GROUP` at a time."""
    import pyarrow as pa

    with open_part(part) as file:
        for number in range(file.num_record_batches):
            yield pa.Table.from_batches([file.get_batch(number)])


def _clocks() -> NDArray[np.float64]:
    """Wall-clock and processor time [2], s."""
    return np.array([time.perf_counter(), time.process_time()])


def _with_carried(table: pa.Table, carried: Mapping[str, Any]) -> pa.Table:
    """The catalogue's columns, with those carried from photometry after ``source_id``."""
    import pyarrow as pa

    for position, (name, values) in enumerate(carried.items(), start=1):
        if name in table.column_names:
            raise InputError(
                f"column {name!r} is one of the catalogue's own", remedy="do not carry it"
            )
        field = pa.field(name, pa.float64(), metadata=CARRIED.get(name, {}))
        table = table.add_column(position, field, pa.array(values))
    return table


CARRIED: dict[str, dict[str, str]] = {
    "ra": {"unit": "deg", "ucd": "pos.eq.ra;meta.main", "description": "Right ascension"},
    "dec": {"unit": "deg", "ucd": "pos.eq.dec;meta.main", "description": "Declination"},
    "l": {"unit": "deg", "ucd": "pos.galactic.lon", "description": "Galactic longitude"},
    "b": {"unit": "deg", "ucd": "pos.galactic.lat", "description": "Galactic latitude"},
    "parallax": {"unit": "mas", "ucd": "pos.parallax.trig", "description": "Parallax"},
    "phot_g_mean_mag": {"unit": "mag", "ucd": "phot.mag;em.opt", "description": "G"},
}
"""Units, UCDs and descriptions of columns that are often carried."""


def regrouped(tables: Iterable[pa.Table], size: int = ROW_GROUP) -> Iterator[pa.Table]:
    """The same rows as tables of ``size`` rows, so that files do not depend on the blocks."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += len(table)
        while rows >= size:
            joined = pa.concat_tables(waiting)
            yield joined[:size].combine_chunks()
            waiting, rows = [joined[size:]], rows - size
    if rows:  # in one chunk, because a chunk begins a new page of the file
        yield pa.concat_tables(waiting).combine_chunks()
