"""One file of spectra -> one Parquet file of labels, whole or not at all, and its entry."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xplabels import __version__
from xplabels import io as archive
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import Stars, with_widths
from xplabels.io.atomic import whole_file
from xplabels.pipeline.manifest import (
    DAMAGED_LISTED,
    FileFingerprint,
    ManifestEntry,
    Settings,
    write_entry,
)
from xplabels.pipeline.photometry import AuxiliaryTables, Join
from xplabels.pipeline.published import check_sum
from xplabels.pipeline.writing import PartWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from xplabels.core.prediction import Prediction
    from xplabels.features import FeatureSet
    from xplabels.io import BadRows


BLOCK = 1000
"""Stars at a time: half of what readers take, so that what was read is near when it is used, and
no fewer than compiled code wants (:data:`xplabels.inference.COMPILED_FROM`)."""


class Predictor(Protocol):
    """What a model must offer here (:class:`xplabels.model.Model`)."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Its name and digest, among others."""

    @property
    def feature_set(self) -> FeatureSet:
        """Its inputs: how wide the bands are."""

    def predict(self, stars: Stars, *, correlations: bool = False) -> Prediction:
        """Labels of ``stars``."""


@dataclass(frozen=True)
class PredictOptions:
    """What is asked for of every file of a run.

    Attributes
    ----------
    companions
        Photometry to join.
    bad_rows
        See :func:`xplabels.io.read_blocks`.
    correlations
        With the correlations of each star's label errors.
    metadata
        Added to that of each output.
    """

    companions: AuxiliaryTables = field(default_factory=AuxiliaryTables)
    bad_rows: BadRows = "error"
    correlations: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    def settings(self, model: Predictor) -> Settings:
        """What the labels of ``model`` then depend on."""
        told = {key: str(model.metadata.get(key, "")) for key in ("name", "sha256")}
        if self.correlations:
            told["columns"] = "correlations"
        if (estimate := getattr(model, "estimate", "mean")) != "mean":
            told["estimate"] = estimate
        tables, carried = self.companions.identity(), self.companions.carried
        return Settings(told, tables, self.bad_rows, __version__, carried)


def predict_file(
    model: Predictor,
    path: Path,
    output: Path,
    order: PredictOptions | None = None,
    *,
    published: str | None = None,
    settings: Settings | None = None,
    overwrite: bool = False,
    block: int = BLOCK,
    done: Callable[[int], object] | None = None,
) -> ManifestEntry:
    """Labels of all stars of one file, read and written in blocks: memory is bounded.

    Parameters
    ----------
    model
        The model.
    path
        File of spectra or star table.
    output
        The ``.parquet`` to write. Its entry is written to ``_manifest/`` beside it
        (:func:`~xplabels.pipeline.manifest.entry_path`), just before it takes its place.
    order
        Photometry and options.
    published
        MD5 sum that the file must have.
    settings
        ``order.settings(model)``, where it is at hand already.
    overwrite
        Replace an existing output.
    block
        Stars at a time; the labels do not depend on it (but for float32's rounding).
    done
        Called with the number of stars of each block that is through; what it raises ends the work.

    Returns
    -------
    Entry
        What the manifest says of the file: every row read is a row written.

    Raises
    ------
    InputError
        If the file is damaged, truncated, holds no star, holds one twice, or is not the one
        published; if photometry is damaged; if the output exists or cannot be written. Nothing is
        left of the output then.
    """
    order = order or PredictOptions()
    settings = settings or order.settings(model)
    begun, processor = time.perf_counter(), time.process_time()
    stamp, digest, count = FileFingerprint.of(path), archive.Digest(), _Count()
    join = order.companions.for_file(path)
    with whole_file(output, overwrite) as temporary:
        writer = PartWriter(temporary)
        try:
            blocks = archive.read_blocks(path, order.bad_rows, block, digest)
            for table in _tables(path, _noted(blocks, count), model, order, join, count):
                writer.add(table)
                if done is not None:
                    done(len(table))
            digest.take_rest(path)
            md5 = digest.hexadecimal()
            check_sum(path, md5, published)
            if not writer.rows:
                raise InputError("holds no star", where=path, remedy="leave it out")
            written = writer.finish()
        finally:
            writer.abandon()
        entry = ManifestEntry(
            input=replace(stamp, md5=md5),
            output=replace(FileFingerprint.of(temporary, written), name=output.name, time=0),
            beside=join.finish(),
            rows_in=count.rows,
            rows_out=writer.rows,
            flags=dict(count.flags),
            damaged=tuple(count.damaged),
            notes=tuple(count.notes),
            joined=join.joined(),
            first_id=count.first_id,
            last_id=count.last_id,
            settings=settings.told(),
            md5_published=None if published is None else True,
            seconds=round(time.perf_counter() - begun, 3),
            processor_seconds=round(time.process_time() - processor, 3),
        )
        write_entry(entry, output)
    return entry


@dataclass
class _Count:
    """What a file held, as its blocks go by."""

    rows: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    damaged: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    first_id: int = np.iinfo(np.int64).max
    last_id: int = np.iinfo(np.int64).min

    def read(self, stars: Stars) -> None:
        """Count a block as it was read."""
        self.first_id = min(self.first_id, int(stars.source_id.min()))
        self.last_id = max(self.last_id, int(stars.source_id.max()))
        bad = np.flatnonzero(stars.flags & np.uint32(Flag.BAD_ROW))
        for row in bad[: DAMAGED_LISTED - len(self.damaged)].tolist():
            self.damaged.append((self.rows + row + 1, int(stars.source_id[row])))
        self.rows += len(stars)

    def note(self, notes: tuple[str, ...]) -> None:
        """Keep what was said of a block."""
        self.notes.extend(notes[: DAMAGED_LISTED - len(self.notes)])

    def predicted(self, flags: NDArray[np.uint32]) -> None:
        """Count a block's flags."""
        for flag in Flag:
            if number := int(((flags & np.uint32(flag.value)) != 0).sum()):
                self.flags[str(flag.name)] += number


def _noted(blocks: Iterator[Stars], count: _Count) -> Iterator[Stars]:
    for stars in blocks:
        count.read(stars)
        yield stars


def _tables(
    path: Path,
    blocks: Iterator[Stars],
    model: Predictor,
    order: PredictOptions,
    join: Join,
    count: _Count,
) -> Iterator[pa.Table]:
    """Each block as rows of the catalogue."""
    for read in blocks:
        # stars none of which has a band do not say how wide it would have been
        stars = with_widths(read, model.feature_set.widths)
        stars, carried = join.join(stars)
        count.note(stars.notes)
        # of what was said, the output keeps what is true of it wherever its input lay
        stars = replace(stars, notes=tuple(n for n in read.notes if str(path) not in n))
        prediction = model.predict(stars, correlations=order.correlations)
        prediction = replace(prediction, meta={**prediction.meta, **order.metadata})
        count.predicted(prediction.flags)
        yield _with_carried(prediction.to_arrow(), carried)


def _with_carried(table: pa.Table, carried: Mapping[str, NDArray[np.float64]]) -> pa.Table:
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
