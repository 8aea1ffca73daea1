"""Open files that may be gzipped, and keep damaged ones from doing harm.

A damaged file may make the libraries that parse it raise any error, or take any amount of memory.
So every reader of files works inside :func:`~xplabels.core.bounds.whole`, and sizes that a file
declares are checked by :func:`check_size` before memory is taken.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import importlib
import io
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from xplabels.core.bounds import GZIP
from xplabels.core.bounds import again as again
from xplabels.core.bounds import whole as whole
from xplabels.core.errors import InputError, XplabelsError

BUFFER = 1 << 20
"""Bytes unpacked at a time."""
LONGEST_LINE = 1 << 26
"""Most bytes of a line; that of a star with 2,000 coefficients has half as many."""
SMALL = 1 << 27
"""Bytes that any file may unpack to."""
TIMES = 100
"""How many times its own size a file may unpack to, beyond :data:`SMALL`. For catalogues it is 2 to
20 times."""
GZIP_MAGIC = b"\x1f\x8b"
BEGIN = 1000
"""Bytes at a file's beginning by which its format is recognised."""
KINDS = {
    ".csv": "CSV file", ".tsv": "CSV file", ".ecsv": "ECSV file", ".fits": "FITS file",
    ".vot": "VOTable", ".votable": "VOTable", ".xml": "VOTable", ".parquet": "Parquet file",
    ".zip": "ZIP file",
}  # fmt: skip
"""Ending -> name of the format in messages."""
TEXT = (".csv", ".tsv", ".ecsv")
ALIASES = {".fit": ".fits", ".fts": ".fits", ".pq": ".parquet", ".parq": ".parquet"}
BEGINNINGS: dict[str, tuple[bytes, ...]] = {
    ".parquet": (b"PAR1",),
    ".fits": (b"SIMPLE  =",),
    ".zip": (b"PK\x03\x04",),
    ".vot": (b"<VOTABLE",),
}
"""Ending -> how a file of that format begins, whatever its name."""
PACKED = {
    GZIP_MAGIC: "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"(\xb5/\xfd": "Zstandard",
    b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR",
}  # fmt: skip
"""How a packed file begins -> what packed it (gzip, if the unpacked file is gzipped again)."""


class Digest:
    """The MD5 sum of the bytes of a file that a reader gets, without reading it a second time."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._read = 0

    def take(self, data: Any) -> None:
        """Count the next bytes of the file."""
        self._md5.update(data)
        self._read += len(data)

    def take_rest(self, path: Path) -> None:
        """Count the bytes that the reader has not read: those after the last row, or all."""
        with open(path, "rb") as file:
            file.seek(self._read)
            while data := file.read(BUFFER):
                self.take(data)

    def hexadecimal(self) -> str:
        """The sum of what was read."""
        return self._md5.hexdigest()


class _Watched(io.RawIOBase):
    """A file that calls ``look`` with bytes as they are read; closing it closes those ``below``."""

    def __init__(
        self, path: Path, file: Any, look: Callable[[memoryview], None], *below: IO[bytes]
    ) -> None:
        self._path, self._file, self._look, self._files = path, file, look, (file, *below)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with whole(self._path, GZIP):
            count: int = self._file.readinto(buffer) or 0
        self._look(memoryview(buffer)[:count])
        return count

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


def _isal(module: str) -> Any:
    """A module of ISA-L (extra ``fast``), which unpacks three times as fast; None if absent."""
    try:
        return importlib.import_module(f"isal.{module}")
    except ImportError:
        return None


def open_bytes(path: Path, digest: Digest | None = None) -> IO[bytes]:
    """The bytes of a file, unpacked if it begins as gzip does, UTF-16 text as UTF-8.

    ``digest`` counts the bytes on disk, before they are unpacked.
    """
    start = _gzip_start(path)
    with ExitStack() as stack:
        raw: Any = stack.enter_context(path.open("rb", 0))
        if digest is not None:
            raw = _Watched(path, raw, digest.take)
        file: Any = io.BufferedReader(raw, BUFFER)
        if start is not None:
            file.read(start)
            file = stack.enter_context(_unpacked(path, file))
        mark = file.peek(3)[:3]
        if mark.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return io.BytesIO(file.read().decode("utf-16", "replace").encode())
        if mark == codecs.BOM_UTF8:
            file.read(3)
        stack.pop_all()
    return cast(IO[bytes], file)


def _unpacked(path: Path, file: Any) -> IO[bytes]:
    size, total = path.stat().st_size, 0

    def check(data: memoryview) -> None:
        nonlocal total
        total += len(data)
        check_size(path, total, size)

    unpacked = _Watched(path, (_isal("igzip") or gzip).open(file, "rb"), check, file)
    # a larger buffer than its own, from which reading lines takes a third longer
    return io.BufferedReader(unpacked, BUFFER)


def _gzip_start(path: Path) -> int | None:
    """Where the gzip stream in a file begins, maybe after blanks; None if it is not a gzip file."""
    with path.open("rb", 0) as raw:
        first = raw.read(64)
    blank = len(first) - len(first.lstrip())
    return blank if first[blank:].startswith(GZIP_MAGIC) else None


def open_seekable(path: Path) -> IO[bytes]:
    """The bytes of a file, to be read in any order; if it is gzipped, unpacked in memory."""
    start, file = _gzip_start(path), path.open("rb")
    if start is None:
        return file
    file.seek(start)
    with file, _unpacked(path, file) as unpacked:
        return io.BytesIO(unpacked.read())


def format_of(path: Path, endings: Collection[str]) -> str:
    """The ending, of ``endings``, whose format a file has: by its first bytes, else by its name.

    Raises InputError if there is no file, it is empty, or its extension is not one of them.
    """
    with whole(path):
        if path.is_dir():
            raise InputError("is a folder, not a file", where=path, remedy="give a file of it")
        present = path.is_file()
    name = path.name.lower()
    ending = Path(name.removesuffix(".gz")).suffix
    ending = ALIASES.get(ending, ending)
    if ending not in endings or (ending in (".parquet", ".zip") and name.endswith(".gz")):
        raise InputError(
            "has an unknown ending",
            where=path,
            remedy=f"give one of {', '.join(endings)} (all but .parquet and .zip also with .gz)",
        )
    if not present:
        raise InputError("does not exist", where=path, remedy="check the path")
    first = b""
    # an error here would be reported by the file's reader, with more detail
    with suppress(XplabelsError), whole(path), open_bytes(path) as file:
        first = file.peek(BEGIN)[:BEGIN] if hasattr(file, "peek") else file.read(BEGIN)
    first = first.lstrip()
    found = next((e for e, b in BEGINNINGS.items() if e in endings and first.startswith(b)), ending)
    if first.startswith(b"<?xml") and b"<VOTABLE" in first and ".vot" in endings:
        return ".vot"
    packer = next((name for begin, name in PACKED.items() if first.startswith(begin)), None)
    if found in (".parquet", ".zip") and _gzip_start(path) is not None:
        packer = "gzip"
    if packer is not None:
        raise InputError(f"is packed by {packer}", where=path, remedy="unpack it")
    if found == ending and ending not in TEXT:
        _check_no_text(first, ending, path)
    return found


def _check_no_text(first: bytes, ending: str, path: Path) -> None:
    """Raise InputError, quoting it, if a file that should not be text begins as text."""
    page = re.match(rb"<!doctype html|<html|(<\?xml[^>]*>\s*)?<(\w+:)?(job|error)", first, re.I)
    xml = first.startswith(b"<") and KINDS[ending] == "VOTable" and not page
    if not first or xml or re.search(rb"[^\t\r\n\x20-\x7e]", first) or first[:6] == b"SIMPLE":
        return
    raise InputError(
        f"is not a whole {KINDS[ending]} but text: {words_of_page(first.decode())[:150]}",
        where=path,
        remedy="ask the archive again"
        if page or first.startswith(b"{")
        else f"{again(path)}, or give it the ending of its format",
    )


def words_of_page(text: str) -> str:
    """A text without tags of HTML or XML, on one line."""
    text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", text)
    return " ".join(text.split())


def byte_lines(path: Path, digest: Digest | None = None) -> Iterator[bytes]:
    """The lines of a file, gzipped or not, with their ends (``\\n``, ``\\r\\n`` or ``\\r``).

    Raises InputError if the file cannot be read, its gzip stream is damaged or cut off, or a line
    is longer than :data:`LONGEST_LINE`.
    """
    with whole(path), open_bytes(path, digest) as file:
        rest = b""
        while part := file.readline(LONGEST_LINE):
            if not rest and b"\r" not in part and part.endswith(b"\n"):
                yield part  # nearly always
                continue
            lines = (rest + part).splitlines(keepends=True)
            # without a line feed, the last line may go on, if only with the one that ends it
            rest = b"" if part.endswith(b"\n") else lines.pop()
            yield from lines
            if len(rest) >= LONGEST_LINE:
                raise _too_long(path, LONGEST_LINE)
        if rest:
            yield rest


def text_lines(path: Path, longest: int = LONGEST_LINE) -> list[str]:
    """The lines of a text file, for astropy, which takes a single line for a file or an address.

    Raises InputError as :func:`byte_lines`, and for a line of more than ``longest`` bytes.
    """
    lines = []
    for line in byte_lines(path):
        if len(line) > longest:
            raise _too_long(path, longest)
        lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
    return lines


def _too_long(path: Path, longest: int) -> InputError:
    return InputError(
        f"has a line of more than {longest:,} bytes", where=path, remedy="write one line per row"
    )


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Check that a file did not change while it was read in the block.

    Raises InputError if it did, also in place of any InputError raised inside.
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
        remedy="repeat the command once nothing writes to it",
    )


def check_size(path: Path | str, size: int, held: int | None = None) -> None:
    """Raise :class:`InputError` if a file declares more bytes (``size``) than it can hold.

    ``held`` is the number of bytes in which they are packed, by default the file's size.
    """
    held = Path(path).stat().st_size if held is None else held
    if size > max(SMALL, TIMES * held):
        raise InputError(
            f"would take {size / 1e9:.3g} GB of memory, of {held:,} bytes in the file",
            where=path,
            remedy="check where it comes from; if it is right, unpack it or write it in parts",
        )
