"""Jobs, which make an output from input files under settings, and check if it exists already.

What an output was made from is in its record, a small JSON file that is written just before the
output. So an output that agrees with its record is complete; one that does not is ours, and made
again; one without a record is a user's. An output is removed without a replacement only if it is
known not to be the one wanted; if an input or the record cannot be read, it is kept.
"""

from __future__ import annotations

import glob
import hashlib
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from xplabels.core.errors import InputError
from xplabels.io.atomic import check_ours, discard, remove_leftovers, whole_file
from xplabels.io.files import whole

Settings = Mapping[str, Any]
"""What an output depends on besides its inputs: plain JSON values."""
DIGITS = 12
"""Digits of a digest that messages show."""
MOST_TEXT = 240
"""Most characters of differing settings that messages show."""


@dataclass(frozen=True)
class FileFingerprint:
    """A file as it was when it was read or written.

    ``name`` is without the folder, so that a file may be moved; ``size`` is in bytes; ``time`` is
    that of the last change, ns; ``md5`` is "" if the file was not read as a whole.
    """

    name: str
    size: int
    time: int
    md5: str = ""

    @classmethod
    def of(cls, path: Path, md5: str = "") -> FileFingerprint:
        """The fingerprint of a file; raises InputError if it is not a readable file."""
        with whole(path):
            state = path.stat()
            with path.open("rb"):
                pass
        return cls(path.name, state.st_size, state.st_mtime_ns, md5)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FileFingerprint:
        """From JSON values; raises TypeError if one is of another type."""
        file = cls(**values)
        check_types((file.name, file.md5), str)
        check_types((file.size, file.time), int)
        return file

    def fits(self, path: Path) -> bool:
        """Whether ``path`` is that file, by size and time or, if only the time differs, MD5 sum.

        Raises OSError if it cannot be read, as then it is unknown.
        """
        state = path.stat()
        if state.st_size != self.size:
            return False
        return state.st_mtime_ns == self.time or (bool(self.md5) and md5_of(path) == self.md5)

    def has_content_of(self, path: Path) -> bool:
        """Whether ``path`` has the same bytes, whatever its time; True for a folder."""
        try:
            return not self.md5 or (path.stat().st_size, md5_of(path)) == (self.size, self.md5)
        except OSError:
            return False


def md5_of(path: Path) -> str:
    """The MD5 sum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@dataclass(frozen=True)
class Record:
    """What an output was made from, as stored in JSON.

    ``input`` is the main input file, ``beside`` are those that belong to it alone (the GaiaSource
    file of the same name). ``output`` has no MD5 sum if it is a folder, which appears whole.
    ``settings`` are everything else that the output depends on.
    """

    input: FileFingerprint
    beside: tuple[FileFingerprint, ...]
    output: FileFingerprint
    settings: Settings

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        path.parent.mkdir(exist_ok=True)
        with whole_file(path, one_of_many=True) as temporary:
            text = json.dumps(vars(self), default=vars, indent=1, sort_keys=True) + "\n"
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record at ``path``; None where there is none, or it cannot be read."""
        try:
            values = read_json(path) or {}
            return cls(**cls.parse({field.name: values[field.name] for field in fields(cls)}))
        except (ValueError, KeyError, TypeError):
            return None

    @classmethod
    def parse(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The fields from JSON values; raises TypeError where one is of another type."""
        check_types([values["settings"]], dict)
        return values | {
            "input": FileFingerprint.from_dict(values["input"]),
            "beside": tuple(map(FileFingerprint.from_dict, values["beside"])),
            "output": FileFingerprint.from_dict(values["output"]),
        }


def read_json(path: Path) -> dict[str, Any] | None:
    """The object that a JSON file holds; None where there is none, or it cannot be read."""
    try:
        with whole(path, "JSON file"):
            found = json.loads(path.read_text(encoding="utf-8"))
    except InputError:
        return None
    return found if isinstance(found, dict) else None


def check_types(values: Iterable[object], kind: type | tuple[type, ...]) -> None:
    """Raise TypeError if one of ``values`` is not of type ``kind``."""
    for value in values:
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} is not of type {kind}")


@dataclass(frozen=True)
class StaleReason:
    """Why an output has to be made again, in words that follow "an output".

    ``stays`` says whether it is kept if it cannot be made again.
    """

    why: str
    stays: bool = True


ALTERED = StaleReason("truncated or altered since", stays=False)
CHANGED = StaleReason("of an input that changed since", stays=False)
OTHER_SOURCE = StaleReason("whose GaiaSource file changed since", stays=False)
SOURCE_OR_NOT = StaleReason("whose GaiaSource file came or went since")
UNPUBLISHED = StaleReason("of an input that is not the published one")
UNREADABLE = StaleReason("of an input, or GaiaSource file, that cannot be read now")
UNCLEAR = StaleReason("whose entry in _manifest cannot be read")
FOREIGN = StaleReason("not made here (--overwrite)")

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Job:
    """One output to be made: a file, or a folder that appears whole.

    ``inputs`` are the main input file and those that belong to it alone, even if they are missing.
    ``record`` is the path of the output's :class:`Record`, in the output itself if it is a folder.
    ``published`` is the MD5 sum that the input must have.
    """

    inputs: tuple[Path, ...]
    settings: Settings
    output: Path
    record: Path
    published: str | None = None

    def absolute(self) -> Job:
        """The same with absolute paths, for a process with another working directory."""
        inputs = tuple(path.absolute() for path in self.inputs)
        output, record = self.output.absolute(), self.record.absolute()
        return replace(self, inputs=inputs, output=output, record=record)

    def check_existing(self, kind: type[R], gone: bool = False) -> R | StaleReason | None:
        """The record of an existing output that is as wanted; else why not; None if there is none.

        ``gone`` says that the input has been removed, so that only its published sum is known. The
        GaiaSource file may have been removed, too; if it exists or is asked for, it must have been
        used.
        """
        if not self.output.exists():
            return None
        record = kind.read(self.record)
        if record is None:  # if there is a record, if an unreadable one, the output is ours
            return UNCLEAR if self.record.exists() else FOREIGN
        if not record.output.has_content_of(self.output):
            return ALTERED
        if record.settings != self.settings:
            return StaleReason(f"made with {difference(record.settings, self.settings)}")
        return self._compare_inputs(record, gone) or record

    def _compare_inputs(self, record: Record, gone: bool) -> StaleReason | None:
        others = self.inputs[1:]
        try:
            if not gone and not record.input.fits(self.inputs[0]):
                return CHANGED
            unreadable = not all(path.is_file() for path in others)
            if not unreadable and (others or not gone):
                if [file.name for file in record.beside] != [path.name for path in others]:
                    return SOURCE_OR_NOT
                if not all(f.fits(p) for f, p in zip(record.beside, others, strict=True)):
                    return OTHER_SOURCE
        except OSError:
            unreadable = True
        if unreadable and not (gone and record.beside):
            return UNREADABLE
        return None if self.published in (None, record.input.md5) else UNPUBLISHED


def difference(made: Settings, wanted: Settings) -> str:
    """The differences between the settings of an output and those wanted, in words."""
    parts = []
    for key in dict.fromkeys([*wanted, *made]):
        if key in made and key in wanted and made[key] == wanted[key]:
            continue
        before, now = made.get(key), wanted.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping) and "sha256" not in now:
            parts.append(difference(before, now))
        elif key == "photometry":  # names, sizes and sums of tables: too long to read
            parts.append("other photometry")
        else:
            parts.append(f"{key} {_short(before)}, now {_short(now)}")
    return textwrap.shorten("; ".join(parts), MOST_TEXT, placeholder=" ...")


def _short(value: Any) -> str:
    """A setting in a few words, e.g. a model's name and the first digits of its digest."""
    if isinstance(value, Mapping):
        rest = ", ".join(
            f"{key} {str(text)[:DIGITS]}" if key.endswith("sha256") else f"{key} {text}"
            for key, text in value.items()
            if key != "name" and text
        )
        name = str(value.get("name") or ("without a name" if "sha256" in value else ""))
        return f"{name} ({rest})" if name and rest else name or rest
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "none"
    text = "none" if value is None else str(value)
    return text if len(text) < MOST_TEXT / 4 else f"{text[:DIGITS]}..."


def open_partial(
    folder: Path, manifest: str, settings: Settings, ours: Sequence[str], overwrite: bool
) -> None:
    """Open the folder of an interrupted run with the same ``settings``, or make a new one.

    Its file ``manifest`` holds the settings; ``ours`` are patterns of all files it may hold.

    Raises InputError if a run with other settings left it and ``overwrite`` is false, or if it
    holds any other file, so that a user's folder is never removed.
    """
    remove_leftovers(folder.parent, glob.escape(folder.name))
    path, text = folder / manifest, json.dumps(settings, indent=1, sort_keys=True)
    if folder.exists():
        check_ours(folder, ours)
        remove_leftovers(folder)
        if any(".partial." not in entry.name for entry in folder.iterdir()):
            existing = read_json(path)
            if existing is None or existing.keys() != settings.keys():
                raise InputError(
                    "is in the way: it has not the manifest of an interrupted run",
                    where=folder,
                    remedy="move it away, or choose another output",
                )
            wanted = json.loads(text)  # in which tuples are lists, as in the file
            if existing == wanted:
                return
            if not overwrite:
                raise InputError(
                    f"was left by a run with other options ({difference(existing, wanted)})",
                    where=folder,
                    remedy="repeat that run's command, or start anew with --overwrite",
                )
        discard(folder, folder)
    folder.mkdir(parents=True)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
