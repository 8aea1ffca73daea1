"""One file of spectra -> one Parquet file of labels, whole or not at all, and its entry."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xplabels import __version__
from xplabels import io as archive
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import with_widths
from xplabels.io.atomic import whole_file
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

    Every row read is a row written, into the ``.parquet`` file ``output``; its entry
    (:func:`~xplabels.pipeline.manifest.entry_path`) is written just before it takes its place.
    ``published`` is the MD5 sum that the file must have; ``settings`` are
    ``options.settings(model)``, where they are at hand. The labels do not depend on ``block``,
    stars at a time (but for float32's rounding). ``done`` is called with the stars of each finished
    block; what it raises ends the work.

    Raises InputError if the file is damaged, truncated, holds no star, holds one twice, changes
    while it is read, or is not the one published; if photometry is damaged; if the output exists or
    cannot be written. Nothing is left of the output then.
    """
    import pyarrow.parquet as pq

    options = options or PredictOptions()
    begun, processor = time.perf_counter(), time.process_time()
    fingerprint, digest = FileFingerprint.of(path), archive.Digest()
    join = Join(path, options.tables)
    rows_in = rows_out = good = 0
    ids: list[int] = []
    flags: Counter[str] = Counter()
    damaged: list[tuple[int, int]] = []
    notes: list[str] = []

    def predicted() -> Iterator[pa.Table]:
        """Each block as rows of the catalogue; counts them as they go by."""
        nonlocal rows_in, good
        for read in archive.read_blocks(
            path, options.bad_rows, block, digest, options.coefficients
        ):
            # stars none of which has a band do not say how wide it would have been
            stars, carried = join.join(with_widths(read, model.feature_set.widths))
            # the output keeps those notes that hold wherever its input lies
            kept = replace(stars, notes=tuple(n for n in read.notes if str(path) not in n))
            prediction = model.predict(kept, correlations=options.correlations)
            prediction = replace(prediction, meta={**prediction.meta, **options.metadata})
            ids.extend((int(read.source_id.min()), int(read.source_id.max())))
            bad = np.flatnonzero(read.flags & np.uint32(Flag.BAD_ROW))
            for row in bad[: DAMAGED_LISTED - len(damaged)].tolist():
                damaged.append((rows_in + row + 1, int(read.source_id[row])))
            notes.extend(stars.notes[: DAMAGED_LISTED - len(notes)])
            for flag in Flag:
                flags[str(flag.name)] += int(np.count_nonzero(prediction.flags & flag.value))
            good += int(prediction.good.sum())
            rows_in += len(read)
            yield _with_carried(prediction.to_arrow(), carried)
            done(len(stars))

    with whole_file(output, overwrite) as temporary:
        with unchanged(path), contextlib.ExitStack() as stack:
            writer: Any = None
            for group in regrouped(predicted()):
                if writer is None:
                    writer = pq.ParquetWriter(temporary, group.schema, compression="zstd")
                    stack.enter_context(writer)
                writer.write_table(group, row_group_size=ROW_GROUP)
                rows_out += len(group)
            digest.take_rest(path)
        check_sum(path, digest.hexadecimal(), published)
        if not rows_out:
            raise InputError("holds no star", where=path, remedy="leave it out")
        written = FileFingerprint.of(temporary, md5_of(temporary))
        entry = ManifestEntry(
            input=replace(fingerprint, md5=digest.hexadecimal()),
            beside=join.source,
            output=replace(written, name=output.name, time=0),
            settings=settings or options.settings(model),
            rows_in=rows_in,
            rows_out=rows_out,
            good=good,
            flags=dict(+flags),
            damaged=tuple(damaged),
            notes=tuple(notes),
            joined=join.joined(),
            first_id=min(ids),
            last_id=max(ids),
            md5_published=None if published is None else True,
            seconds=round(time.perf_counter() - begun, 3),
            processor_seconds=round(time.process_time() - processor, 3),
        )
        entry.write(entry_path(output))
    return entry


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
