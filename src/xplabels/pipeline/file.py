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
"""Stars at a time: half of what readers take, so that what was read is still in the processor's
cache, and no fewer than compiled code wants (:data:`xplabels.inference.COMPILED_FROM`)."""
FEW, FILES = 8, 128
"""Of so many files with few stars each, such as DataLink's, stars are labelled together."""
PART = ".arrow"
"""Ending of the parts of an unfinished catalogue: Arrow's own format, which only we read."""
ROW_GROUP = 65_536
"""Rows of a Parquet row group: a file of the archive is one or two groups."""


@dataclass(frozen=True)
class PredictOptions:
    """The options of every file of a run.

    ``tables``: photometry to join. ``bad_rows``: see :func:`xplabels.io.read_blocks`. With
    ``correlations`` of each star's label errors. ``metadata`` is added to that of each output.
    ``coefficients``: see :func:`xplabels.io.read_blocks`.
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
    """Labels of all stars of one file, read and written in blocks: memory is bounded.

    Every row read is a row written, into the file ``output``, Parquet or a :data:`PART`; its entry
    (:func:`~xplabels.pipeline.manifest.entry_path`) is written just before it takes its place.
    ``published`` is the MD5 sum that the file must have; ``settings`` are
    ``options.settings(model)``, where they are at hand. The labels do not depend on ``block``,
    stars at a time (but for float32's rounding). ``done`` is called with the stars of each finished
    block; what it raises ends the work.

    Raises InputError if the file is damaged, truncated, holds no star, holds one twice, changes
    while it is read, or is not the one published; if photometry is damaged; if the output exists or
    cannot be written. Nothing is left of the output then.
    """
    check_output(output, overwrite)
    steps = file_steps(
        model, path, output, options, published=published, settings=settings,
        block=block, done=done,
    )  # fmt: skip
    next(steps)
    entry = finished(steps)
    sync(output)
    return entry


Labels = tuple["pa.Table | None", NDArray[np.float64]]
"""Those of a file's first stars, None if they are still to be made, and what they took [2], s."""
Steps = Generator[Stars, Labels, ManifestEntry]


TO_BE_MADE: Labels = (None, np.zeros(2))


def finished(steps: Steps, labels: Labels = TO_BE_MADE) -> ManifestEntry:
    """The entry of a file whose first stars are read (:func:`file_steps`) and have ``labels``."""
    try:
        steps.send(labels)
    except StopIteration as end:
        entry: ManifestEntry = end.value
        return entry
    raise AssertionError("a file has one step")


def file_steps(
    model: Model,
    path: Path,
    output: Path,
    options: PredictOptions | None = None,
    *,
    published: str | None = None,
    settings: Settings | None = None,
    block: int = BLOCK,
    done: Callable[[int], object] = lambda stars: None,
) -> Steps:
    """:func:`predict_file` that stops when the first stars are read, and is sent their labels."""
    options = options or PredictOptions()
    begun = _clocks()
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
        for read in archive.read_blocks(
            path, options.bad_rows, block, digest, options.coefficients
        ):
            # stars none of which has a band do not say how wide it would have been
            stars, carried = join.join(with_widths(read, model.feature_set.widths))
            ids.extend((int(read.source_id.min()), int(read.source_id.max())))
            bad = np.flatnonzero(read.flags & np.uint32(Flag.BAD_ROW))
            for row in bad[: DAMAGED_LISTED - len(damaged)].tolist():
                damaged.append((rows_in + row + 1, int(read.source_id[row])))
            notes.extend(stars.notes[: DAMAGED_LISTED - len(notes)])
            rows_in += len(read)
            # the output keeps those notes that hold wherever its input lies
            yield replace(stars, notes=tuple(n for n in read.notes if str(path) not in n)), carried

    def predicted(table: pa.Table | None) -> Iterator[pa.Table]:
        """Each block as rows of the catalogue, the first those of ``table``; counts them."""
        nonlocal good
        for stars, carried in chain(first, blocks):
            rows = labels_of(model, stars, options) if table is None else table
            table = None
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
            table = None
            if first:
                waits = _clocks()
                table, took = yield first[0][0]
                begun += _clocks() - waits - took
            writer: Any = None
            for group in regrouped(predicted(table)):
                if writer is None:
                    writer = stack.enter_context(_writer(temporary, group))
                writer.write_table(group, ROW_GROUP)
                rows_out += len(group)
            digest.take_rest(path)
        check_sum(path, digest.hexadecimal(), published)
        if not rows_out:
            raise InputError("holds no star", where=path, remedy="leave it out")
        written = FileFingerprint.of(temporary, md5_of(temporary))
        seconds, processor = (_clocks() - begun).round(3).tolist()
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
) -> Iterator[Labels]:
    """Rows of the catalogue for the first stars of each file, made together where they are few."""
    together: dict[Any, list[int]] = {}
    for number, stars in enumerate(firsts):
        if len(stars) <= FEW and isinstance(spectra := stars.spectra, CoefficientSpectra):
            known = tuple(band.correlations is not None for band in (spectra.bp, spectra.rp))
            alike = spectra.widths, known, stars.labels is None, stars.made
            together.setdefault(alike, []).append(number)
    found: dict[int, Labels] = {}
    for numbers in together.values():
        begun = _clocks()
        try:
            table = labels_of(model, concatenate([firsts[n] for n in numbers]), options)
        except Exception:  # each by itself says what is wrong with which
            continue
        share, start = (_clocks() - begun) / len(table), 0
        for n in numbers:
            found[n] = table.slice(start, len(firsts[n])), share * len(firsts[n])
            start += len(firsts[n])
    return (found.get(n, TO_BE_MADE) for n in range(len(firsts)))


def _writer(path: Path, first: pa.Table) -> Any:
    """Of a Parquet file, or of a :data:`PART`, which a star's rows take a tenth of the time for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == PART:
        fast = pa.ipc.IpcWriteOptions(compression="lz4")
        return pa.ipc.new_file(path, first.schema, options=fast)
    how = "none" if len(first) <= FEW else "zstd"  # which makes nothing smaller of a few rows
    return pq.ParquetWriter(path, first.schema, compression=how, write_page_checksum=True)


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
    """The catalogue's columns, those carried from photometry after ``source_id``."""
    import pyarrow as pa

    for place, (name, values) in enumerate(carried.items(), start=1):
        if name in table.column_names:
            raise InputError(
                f"column {name!r} is one of the catalogue's own", remedy="do not carry it"
            )
        field_of = pa.field(name, pa.float64(), metadata=CARRIED.get(name, {}))
        table = table.add_column(place, field_of, pa.array(values))
    return table


CARRIED: dict[str, dict[str, str]] = {
    "ra": {"unit": "deg", "ucd": "pos.eq.ra;meta.main", "description": "Right ascension"},
    "dec": {"unit": "deg", "ucd": "pos.eq.dec;meta.main", "description": "Declination"},
    "l": {"unit": "deg", "ucd": "pos.galactic.lon", "description": "Galactic longitude"},
    "b": {"unit": "deg", "ucd": "pos.galactic.lat", "description": "Galactic latitude"},
    "parallax": {"unit": "mas", "ucd": "pos.parallax.trig", "description": "Parallax"},
    "phot_g_mean_mag": {"unit": "mag", "ucd": "phot.mag;em.opt", "description": "G"},
}
"""What is known of columns that are often carried."""


def regrouped(tables: Iterable[pa.Table], size: int = ROW_GROUP) -> Iterator[pa.Table]:
    """The same rows as tables of ``size`` rows: bytes do not depend on the blocks."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += len(table)
        while rows >= size:
            together = pa.concat_tables(waiting)
            yield together[:size].combine_chunks()
            waiting, rows = [together[size:]], rows - size
    if rows:  # in one piece, because pages are cut where pieces are
        yield pa.concat_tables(waiting).combine_chunks()
