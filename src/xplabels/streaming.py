"""Many archive files -> one catalogue: in blocks, resumable, whole or not at all.

While a run lasts, ``CATALOGUE.partial/`` holds a manifest and one Parquet part per finished input
file, named after the file's path, size and time of change. The same command goes on from there;
a part of a file that has changed since is made anew. When all parts are there the catalogue is
written from them and the folder removed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xplabels.catalogue import check_catalogue, from_arrow, to_arrow, write_table
from xplabels.errors import InputError
from xplabels.output import check_ours, whole_file
from xplabels.stars import Stars, check_unique

if TYPE_CHECKING:
    import pyarrow as pa

    from xplabels.archive import BadRows
    from xplabels.prediction import Prediction


class Predictor(Protocol):
    """What a model must offer here."""

    def predict(self, stars: Stars) -> Prediction:
        """Labels of ``stars``."""


class Joiner(Protocol):
    """What tables of photometry must offer here (:class:`xplabels.tables.PhotometryTables`)."""

    def join(self, stars: Stars) -> Stars:
        """``stars`` with photometry."""

    def check_used(self) -> None:
        """Complain of a table that had nothing for any star."""


@dataclass(frozen=True)
class Settings:
    """What a run's labels depend on beside its input files; kept as the manifest.

    Attributes
    ----------
    model
        Name and digest of the model.
    photometry
        Path, size and time of each table joined.
    bad_rows
        What happens to damaged rows.
    version
        Of this package.
    """

    model: Mapping[str, str]
    photometry: Sequence[str]
    bad_rows: BadRows
    version: str

    def to_json(self) -> str:
        """The manifest."""
        told = {
            "model": dict(self.model),
            "photometry": list(self.photometry),
            "bad_rows": self.bad_rows,
            "version": self.version,
        }
        return json.dumps(told, indent=1, sort_keys=True)


@dataclass
class Summary:
    """What a run did.

    Attributes
    ----------
    stars
        Rows of the catalogue.
    resumed
        Input files whose part an earlier run had finished.
    flags
        Stars with each bit set, by the bit's value.
    """

    stars: int = 0
    resumed: int = 0
    flags: dict[int, int] = field(default_factory=dict)

    def add(self, flags: NDArray[np.int64]) -> None:
        """Count the rows of one part."""
        from xplabels.flags import Flag

        self.stars += len(flags)
        for flag in Flag:
            count = int(((flags & flag.value) != 0).sum())
            self.flags[flag.value] = self.flags.get(flag.value, 0) + count


def identity(path: Path) -> str:
    """Path, size and time of change of a file, as one line.

    Raises
    ------
    InputError
        If it is not a readable file.
    """
    try:
        state = path.stat()
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", where=path, remedy="check the path"
        ) from error
    return f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"


class SeenIds:
    """The source_ids met so far, to find a star that comes twice.

    They are kept as sorted runs; only runs whose ranges overlap are compared. The archive's bulk
    files are disjoint in source_id, so that there each check is one comparison of ranges.
    """

    def __init__(self) -> None:
        self._runs: list[NDArray[np.int64]] = []

    def add(self, source_id: NDArray[np.int64], where: Path) -> None:
        """Take the ids of one more file.

        Raises
        ------
        InputError
            If one occurs twice in it, or in a file before it.
        """
        check_unique(source_id, where)
        if not len(source_id):
            return
        new = np.sort(source_id)
        apart: list[NDArray[np.int64]] = []
        for run in self._runs:
            if run[-1] < new[0] or new[-1] < run[0]:
                apart.append(run)
                continue
            both = np.intersect1d(run, new, assume_unique=True)
            if len(both):
                raise InputError(
                    f"source_id {both[0]} occurs in an earlier input file too "
                    f"({len(both)} source_ids do)",
                    where=where,
                    remedy="give each star once",
                )
            new = np.sort(np.concatenate([run, new]), kind="stable")
        self._runs = [*apart, new]


PARTIAL_FILES = ("manifest.json", "*.parquet", ".*.partial.*")
"""All that the folder of an unfinished run may hold; anything else is the user's."""


class Partial:
    """The folder ``CATALOGUE.partial`` of a run that is not finished."""

    def __init__(self, output: Path, settings: Settings) -> None:
        self.folder = output.with_name(output.name + ".partial")
        self._manifest = self.folder / "manifest.json"
        self._settings = settings

    def open(self, overwrite: bool) -> None:
        """Go on in the folder if its manifest matches, else make it.

        Raises
        ------
        InputError
            If an interrupted run with other settings left it and ``overwrite`` is false, or if
            the folder is not of our making: a user's is never removed.
        """
        wanted = self._settings.to_json()
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
        if not isinstance(told, dict) or told.keys() != json.loads(self._settings.to_json()).keys():
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
            shutil.rmtree(self.folder, ignore_errors=True)

    def remove(self) -> None:
        """The catalogue stands: the parts are not needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


def predict_files(
    inputs: Sequence[Path],
    output: Path,
    model: Predictor,
    settings: Settings,
    *,
    read_blocks: Callable[[Path], Iterable[Stars]],
    photometry: Joiner | None = None,
    command: str = "",
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Labels of the stars in ``inputs`` as the catalogue ``output``.

    Parameters
    ----------
    inputs
        Archive files or star tables.
    output
        Its ending names the format (:data:`xplabels.catalogue.FORMATS`).
    model, settings
        The model, and what identifies this run.
    read_blocks
        Yields the stars of one input file in blocks.
    photometry
        Tables that are joined to every block.
    command
        Goes into the metadata.
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
    for path in inputs:
        identity(path)
    partial = Partial(output, settings)
    partial.open(overwrite)
    try:
        summary = _make_parts(inputs, partial, model, read_blocks, photometry, command, progress)
        if photometry is not None and not summary.resumed:
            _check_used(photometry, partial)
        _assemble([partial.part(path) for path in inputs], output, overwrite)
    except BaseException:
        partial.drop_if_empty()
        raise
    partial.remove()
    return summary


def _make_parts(
    inputs: Sequence[Path],
    partial: Partial,
    model: Predictor,
    read_blocks: Callable[[Path], Iterable[Stars]],
    photometry: Joiner | None,
    command: str,
    progress: bool,
) -> Summary:
    import pyarrow.parquet as pq
    from tqdm import tqdm

    summary, seen = Summary(), SeenIds()
    # disable=None: no bar where the output is not a terminal
    with tqdm(unit=" stars", unit_scale=True, disable=None if progress else True) as bar:
        for number, path in enumerate(inputs, start=1):
            bar.set_description(f"file {number}/{len(inputs)} {path.name}")
            part = partial.part(path)
            if part.exists():
                seen.add(pq.read_table(part, columns=["source_id"])["source_id"].to_numpy(), path)
                summary.resumed += 1
            else:
                predictions = _predictions(read_blocks(path), model, photometry, command)
                _write_part(predictions, part, path, seen, bar.update)
            summary.add(pq.read_table(part, columns=["flags"])["flags"].to_numpy())
    return summary


def _predictions(
    blocks: Iterable[Stars], model: Predictor, photometry: Joiner | None, command: str
) -> Iterator[Prediction]:
    for block in blocks:
        prediction = model.predict(block if photometry is None else photometry.join(block))
        yield replace(prediction, meta={**prediction.meta, "COMMAND": command})


def _check_used(photometry: Joiner, partial: Partial) -> None:
    """A table that met no star is a mistake: the parts were made without it."""
    try:
        photometry.check_used()
    except InputError:
        partial.remove()
        raise


def _write_part(
    predictions: Iterable[Prediction],
    part: Path,
    source: Path,
    seen: SeenIds,
    done: Callable[[int], Any],
) -> None:
    """One input file's labels; the part appears when all its blocks are through and new."""
    import pyarrow.parquet as pq

    writer, ids = None, []
    with whole_file(part) as temporary:
        try:
            for prediction in predictions:
                arrow = to_arrow(prediction.to_table())
                if writer is None:
                    writer = pq.ParquetWriter(temporary, arrow.schema, compression="zstd")
                writer.write_table(arrow)
                ids.append(prediction.source_id)
                done(len(prediction))
        finally:
            if writer is not None:
                writer.close()
        if not ids:
            raise InputError("holds no star", where=source, remedy="leave it out")
        seen.add(np.concatenate(ids), source)


def _assemble(parts: Sequence[Path], output: Path, overwrite: bool) -> None:
    """The catalogue from its parts; Parquet without holding it in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if output.suffix.lower() != ".parquet":
        whole = pa.concat_tables([pq.read_table(part) for part in parts])
        write_table(from_arrow(whole), output, overwrite)
        return
    schema = pq.read_schema(parts[0])
    with (
        whole_file(output, overwrite) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for part in parts:
            for group in _row_groups(pq.ParquetFile(part)):
                writer.write_table(group.replace_schema_metadata(schema.metadata))


def _row_groups(file: Any) -> Iterator[pa.Table]:
    with file:
        for index in range(file.num_row_groups):
            yield file.read_row_group(index)
