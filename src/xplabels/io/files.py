"""Opening files that may be gzipped, and naming the file that is damaged."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from xplabels.core.errors import InputError

DOWNLOAD_AGAIN = "download the file again"
BUFFER = 1 << 20
"""Bytes unpacked at a time."""


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
    """The bytes of a file, unpacked if its name ends in ``.gz``.

    ``digest`` counts them as they stand on the disk.
    """
    packed: Any = path
    if digest is not None:
        packed = io.BufferedReader(_Digested(path, digest), 1 << 17)
    if not path.name.lower().endswith(".gz"):
        return path.open("rb", BUFFER) if digest is None else packed
    unpacked = (_isal("igzip") or gzip).open(packed, "rb")
    return io.BufferedReader(unpacked, BUFFER)  # lines from its own small buffer cost a third more


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
            "is truncated: the gzip stream ends early", where=path, remedy=DOWNLOAD_AGAIN
        ) from error
    except damaged as error:
        raise InputError(
            f"is not a readable gzip file ({error})", where=path, remedy=DOWNLOAD_AGAIN
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror or error})", where=path, remedy="check the file"
        ) from error


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """What is read of ``path`` in the block is of one state of the file.

    Raises InputError if it is another one at the end, or when what was read made no sense.
    """
    before = _state(path)
    try:
        yield
    except InputError as error:
        if _state(path) == before:
            raise
        raise _changed(path) from error
    if _state(path) != before:
        raise _changed(path)


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _changed(path: Path) -> InputError:
    return InputError(
        "changed while it was read",
        where=path,
        remedy="give the same command again once nothing writes to it",
    )


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
            remedy=DOWNLOAD_AGAIN,
        ) from error
