"""What became of one input file: an entry of the manifest, and whether its output still fits it.

An output ``FOLDER/NAME.parquet`` has its entry in ``FOLDER/_manifest/NAME.json``. One small file
each, because each then appears whole with its output, whoever is writing others beside it, on this
machine or another one, and whenever a run is killed: there is no list that all would have to
change. The entry is put down just before the output takes its place. So an output that fits its
entry is complete; one that does not fit is ours, and made again; one without an entry is a user's
(:mod:`xplabels.pipeline.existing`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xplabels.core.errors import InputError
from xplabels.io.atomic import whole_file

ENTRIES = "_manifest"
"""The folder of entries beside the outputs; tools that read a folder of Parquet pass it by."""
DAMAGED_LISTED = 100
"""Damaged rows of a file that are listed one by one; all are counted."""
DIGITS = 12
"""Of a digest, where it is told."""


@dataclass(frozen=True)
class FileFingerprint:
    """A file as it was when it was read.

    Attributes
    ----------
    name
        Without its folder: a file that is moved stays the same.
    size
        Bytes.
    time
        Of its last change, nanoseconds.
    md5
        Its sum; "" where it was not read as a whole.
    """

    name: str
    size: int
    time: int
    md5: str = ""

    @classmethod
    def of(cls, path: Path, md5: str = "") -> FileFingerprint:
        """Of a file as it is.

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
        return cls(path.name, state.st_size, state.st_mtime_ns, md5)

    def fits(self, path: Path) -> bool:
        """Whether ``path`` is that file: by size and time or, if only the time differs, its sum.

        Raises
        ------
        OSError
            If it cannot be read: it may be that file all the same.
        """
        state = path.stat()
        if state.st_size != self.size:
            return False
        return state.st_mtime_ns == self.time or (bool(self.md5) and md5_of(path) == self.md5)


@dataclass(frozen=True)
class Settings:
    """What labels depend on beside the input file.

    Attributes
    ----------
    model
        Name and digest of the model, and what it was asked for.
    photometry
        Each table joined to every file.
    bad_rows
        What happens to damaged rows.
    version
        Of this package.
    carried
        Columns of the photometry that the catalogue takes over.
    """

    model: Mapping[str, str]
    photometry: tuple[str, ...]
    bad_rows: str
    version: str
    carried: tuple[str, ...] = ()

    def told(self) -> dict[str, Any]:
        """As it stands in JSON."""
        listed = {"photometry": list(self.photometry), "carried": list(self.carried)}
        return asdict(self) | listed | {"model": dict(self.model)}

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.told(), indent=1, sort_keys=True)


def difference(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In what settings, as :meth:`Settings.told` tells them, two runs differ: then and now."""
    parts = []
    for key in dict.fromkeys([*wanted, *made]):
        if key in made and key in wanted and made[key] == wanted[key]:
            continue
        if key == "photometry":  # names, sizes and sums of tables: more than one would read
            parts.append("other photometry")
        else:
            parts.append(f"{key} {_short(made.get(key))}, now {_short(wanted.get(key))}")
    return "; ".join(parts)


def _short(value: Any) -> str:
    """A setting in a few words; of a digest, the first digits."""
    if isinstance(value, Mapping):
        rest = [
            f"{key} {str(text)[:DIGITS]}" if key == "sha256" else f"{key} {text}"
            for key, text in value.items()
            if key != "name" and text
        ]
        name = str(value.get("name") or "without a name")
        return f"{name} ({', '.join(rest)})" if rest else name
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


@dataclass(frozen=True)
class Joined:
    """A table of photometry and how many stars of the file it had a row for."""

    table: str
    stars: int


@dataclass(frozen=True)
class ManifestEntry:
    """What became of one input file.

    Attributes
    ----------
    input, output
        Both files. ``input.md5`` is of the bytes that were read, ``output.md5`` of those written.
    beside
        Files that belong to this input alone: the same-named GaiaSource.
    rows_in, rows_out
        Rows read and written: the same number, always.
    flags
        Name of a flag -> stars that have it.
    damaged
        (row, source_id) of damaged rows, at most :data:`DAMAGED_LISTED`; rows count from 1.
    notes
        What the reader and the tables had to say, at most as many.
    joined
        Photometry.
    first_id, last_id
        The smallest and the largest source_id.
    settings
        What the labels depend on beside the input.
    md5_published
        Whether the input's sum is that of ``_MD5SUM.txt``; None where there is none.
    seconds, processor_seconds
        What it took.
    """

    input: FileFingerprint
    output: FileFingerprint
    beside: tuple[FileFingerprint, ...]
    rows_in: int
    rows_out: int
    flags: Mapping[str, int]
    damaged: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]
    joined: tuple[Joined, ...]
    first_id: int
    last_id: int
    settings: Mapping[str, Any]
    md5_published: bool | None = None
    seconds: float = 0.0
    processor_seconds: float = 0.0
    kind: str = field(default="xplabels catalogue of one file", repr=False)

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ManifestEntry:
        """The inverse of :meth:`to_json`.

        Raises
        ------
        ValueError, KeyError, TypeError
            If the text is none of ours.
        """
        told = json.loads(text)
        told["input"], told["output"] = (
            FileFingerprint(**told["input"]),
            FileFingerprint(**told["output"]),
        )
        told["beside"] = tuple(FileFingerprint(**one) for one in told["beside"])
        told["joined"] = tuple(Joined(**one) for one in told["joined"])
        told["damaged"] = tuple((row, star) for row, star in told["damaged"])
        told["notes"] = tuple(told["notes"])
        entry = cls(**told)
        entry._check_kinds()
        return entry

    def _check_kinds(self) -> None:
        """Raise TypeError where what others count with or look into is of another kind."""
        stamps = (self.input, self.output, *self.beside)
        numbers = [self.rows_in, self.rows_out, self.first_id, self.last_id]
        numbers += [number for stamp in stamps for number in (stamp.size, stamp.time)]
        numbers += [joined.stars for joined in self.joined]
        for mapping in (self.settings, self.flags):
            if not isinstance(mapping, dict):
                raise TypeError(f"{mapping!r} is no mapping")
        for number in (*numbers, *self.flags.values()):
            if not isinstance(number, int):
                raise TypeError(f"{number!r} is no whole number")
        if not isinstance(self.processor_seconds, (int, float)):
            raise TypeError(f"{self.processor_seconds!r} is no number")
        for stamp in stamps:
            if not isinstance(stamp.name, str) or not isinstance(stamp.md5, str):
                raise TypeError(f"{stamp!r} is of no file")


def entry_path(output: Path) -> Path:
    """Where the entry of an output stands."""
    return output.parent / ENTRIES / f"{output.stem}.json"


def write_entry(entry: ManifestEntry, output: Path) -> None:
    """Put the entry of ``output`` down, whole or not at all."""
    path = entry_path(output)
    path.parent.mkdir(exist_ok=True)
    with whole_file(path, overwrite=True) as temporary:
        temporary.write_text(entry.to_json(), encoding="utf-8")


def read_entry(output: Path) -> ManifestEntry | None:
    """The entry of ``output``; None where there is none, or it cannot be read."""
    try:
        return ManifestEntry.from_json(entry_path(output).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def whole_output(entry: ManifestEntry, output: Path) -> bool:
    """Whether ``output`` opens, has the rows its entry says and is what was written, to the byte.

    Its time does not count: a catalogue may be copied.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if output.stat().st_size != entry.output.size or md5_of(output) != entry.output.md5:
            return False
        return int(pq.read_metadata(output).num_rows) == entry.rows_out
    except (OSError, pa.ArrowException):
        return False


def md5_of(path: Path) -> str:
    """The MD5 sum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)
