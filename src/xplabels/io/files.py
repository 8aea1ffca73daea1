"""Opening files that may be gzipped, and naming the file that is damaged."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import importlib
import io
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from xplabels.core.errors import InputError

_ARCHIVES = re.compile(
    r"XpContinuous|GaiaSource|XP_(CONTINUOUS|SAMPLED)|MEAN_SPECTRUM_XP|dl_products|datalink", re.I
)
BUFFER = 1 << 20
"""Bytes unpacked at a time."""


def again(path: object) -> str:
    """How to get a whole file in place of a damaged one: an archive's is downloaded again.

    Examples
    --------
    >>> again("GaiaSource_000000-003111.csv.gz"), again("mine.csv")
    ('download the file again', 'copy or write the file again')
    """
    archived = _ARCHIVES.search(Path(str(path)).name)
    return "download the file again" if archived else "copy or write the file again"


GZIP = b"\x1f\x8b"
BEGIN = 1000
"""Bytes of a file by which its format is known."""
BEGINNINGS: dict[str, tuple[bytes, ...]] = {
    ".parquet": (b"PAR1",),
    ".fits": (b"SIMPLE  =",),
    ".zip": (b"PK\x03\x04",),
    ".vot": (b"<VOTABLE",),
}
"""Ending -> how a file of that format begins, whatever its name."""
ALIASES = {".fit": ".fits", ".fts": ".fits", ".pq": ".parquet", ".parq": ".parquet"}


class Digest:
    """The MD5 sum of a file, of the very bytes that its reader gets: no second pass over it."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._read = 0

    def take(self, position: int, data: Any) -> None:
        """Count the bytes ``data`` that stand at ``position``; those known already count once."""
        new = memoryview(data)[max(0, self._read - position) :]
        self._md5.update(new)
        self._read += len(new)

    def take_rest(self, path: Path) -> None:
        """Count what no reader asked for: all of a file, or what follows its last row."""
        with open(path, "rb") as file:
            file.seek(self._read)
            while data := file.read(BUFFER):
                self._md5.update(data)
                self._read += len(data)

    def hexadecimal(self) -> str:
        """The sum of what was read."""
        return self._md5.hexdigest()


class _Digested(io.RawIOBase):
    """A file whose bytes are counted by a digest as they are read."""

    def __init__(self, path: Path, digest: Digest) -> None:
        self._file, self._digest = path.open("rb", buffering=0), digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        position = self._file.tell()
        got = self._file.readinto(buffer) or 0
        self._digest.take(position, memoryview(buffer)[:got])
        return got

    def close(self) -> None:
        self._file.close()
        super().close()


def _isal(module: str) -> Any:
    """A module of ISA-L (extra ``fast``), which unpacks three times as fast; None without it."""
    try:
        return importlib.import_module(f"isal.{module}")
    except ImportError:
        return None


def open_bytes(path: Path, digest: Digest | None = None) -> IO[bytes]:
    """The bytes of a file, unpacked if it begins as gzip does, UTF-16 text as UTF-8.

    ``digest`` counts them as they stand on the disk.
    """
    packed: Any = path
    if digest is not None:
        packed = io.BufferedReader(_Digested(path, digest), 1 << 17)
    with path.open("rb", 0) as raw:
        gzipped = raw.read(2) == GZIP
    file: IO[bytes]
    if gzipped:
        # lines from gzip's own small buffer cost a third more
        file = io.BufferedReader((_isal("igzip") or gzip).open(packed, "rb"), BUFFER)
    else:
        file = path.open("rb", BUFFER) if digest is None else packed
    with ExitStack() as stack:
        stack.enter_context(file)
        peekable: Any = file  # all of these are buffered
        mark = peekable.peek(3)[:3]
        if mark.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return io.BytesIO(file.read().decode("utf-16", "replace").encode())
        if mark == codecs.BOM_UTF8:
            file.read(3)
        stack.pop_all()
    return file


def format_of(path: Path, endings: Collection[str]) -> str:
    """The ending, of ``endings``, whose format a file has: by its first bytes, else by its name.

    Raises InputError if there is no file, it is empty, or its ending is none of them.
    """
    name = path.name.lower()
    ending = Path(name.removesuffix(".gz")).suffix
    ending = ALIASES.get(ending, ending)
    if ending not in endings or (ending == ".parquet" and name.endswith(".gz")):
        raise InputError(
            "has an unknown ending",
            where=path,
            remedy=f"give one of {', '.join(endings)} (all but .parquet also with .gz)",
        )
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(what, where=path, remedy="check the path")
    with readable_bytes(path), open_bytes(path) as file:
        first = file.peek(BEGIN)[:BEGIN] if hasattr(file, "peek") else file.read(BEGIN)
    if not first:
        raise InputError("is empty", where=path, remedy=again(path))
    first = first.lstrip()
    for ending_of, begins in BEGINNINGS.items():
        if ending_of in endings and first.startswith(begins):
            return ending_of
    if first.startswith(b"<?xml") and b"<VOTABLE" in first and ".vot" in endings:
        return ".vot"
    return ending


def byte_lines(path: Path, digest: Digest | None = None) -> Iterator[bytes]:
    """The lines of a file, gzipped or not, with their ends (``\\n``, ``\\r\\n`` or ``\\r``).

    Raises InputError if the file cannot be read, or its gzip stream is damaged or cut off.
    """
    with readable_bytes(path), open_bytes(path, digest) as file:
        for line in file:
            if b"\r" in line:
                yield from line.splitlines(keepends=True)
            else:
                yield line


@contextmanager
def readable_bytes(path: Path) -> Iterator[None]:
    """Whatever goes wrong while ``path`` is read becomes an :class:`InputError` that names it."""
    damaged: tuple[type[Exception], ...] = (gzip.BadGzipFile, zlib.error)
    if (isal := _isal("isal_zlib")) is not None:
        damaged += (isal.error,)
    try:
        yield
    except EOFError as error:
        raise InputError(
            "is truncated: the gzip stream ends early", where=path, remedy=again(path)
        ) from error
    except damaged as error:
        raise InputError(
            f"is not a readable gzip file ({error})", where=path, remedy=again(path)
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror or error})", where=path, remedy="check the file"
        ) from error


@contextmanager
def whole(path: Path, what: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """``errors`` of a library mean that ``path`` is not a whole ``what``.

    Raises InputError with the first line of the library's message; an :class:`InputError` passes
    unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except errors as error:
        message = str(error).splitlines()
        raise InputError(
            f"is not a whole {what} ({message[0] if message else 'empty'})",
            where=path,
            remedy=again(path),
        ) from error
