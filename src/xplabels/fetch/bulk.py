"""The archive's bulk files: listed by their published MD5 sums, downloaded, resumed, verified.

A download is called ``NAME.partial`` until it is complete and has the published sum. A partial file
is continued by an HTTP range request; if the result does not have the published sum, it is
downloaded from the beginning.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from xplabels.core.errors import InputError, counted, located
from xplabels.fetch.archive import Archive
from xplabels.fetch.http import (
    RetryPolicy,
    ServiceError,
    check_installed,
    in_parallel,
    response_to,
    write_body,
)
from xplabels.io.atomic import claimed, rename
from xplabels.io.job import md5_of

SUMS = "_MD5SUM.txt"
PIXEL_SHIFT = 43
"""``source_id >> 43`` is a star's HEALPix level-8 pixel, by which stars are put into files."""

_SUM = re.compile(r"([0-9a-fA-F]{32})\s+\*?(\S+)")
PIXELS = re.compile(r"_(\d+)-(\d+)\.")
"""The first and last HEALPix level-8 pixel of a bulk file, in its name."""


@dataclass(frozen=True)
class RemoteFile:
    """A file that the archive publishes: its name, MD5 sum (32 hexadecimal digits), address."""

    name: str
    md5: str
    url: str

    @property
    def pixels(self) -> tuple[int, int] | None:
        """First and last HEALPix level-8 pixel in it, if its name says so."""
        named = PIXELS.search(self.name)
        return None if named is None else (int(named[1]), int(named[2]))


@dataclass(frozen=True)
class BulkSummary:
    """What became of the files asked for; each is in ``received``, ``present`` or ``failed``."""

    received: tuple[str, ...] = ()  # downloaded and verified now
    present: tuple[str, ...] = ()  # there already (verified again where that was asked for)
    failed: dict[str, str] = field(default_factory=dict)  # name -> why
    size: int = 0  # bytes received now

    def to_text(self) -> str:
        """Counts, and a line per file that failed."""
        head = (
            f"{counted(len(self.received), 'file')} received ({self.size / 1e9:.3g} GB), "
            f"{len(self.present)} here already, {len(self.failed)} failed"
        )
        return "\n".join([head, *(f"{name}: {why}" for name, why in self.failed.items())])


def list_bulk(
    table: str, archive: Archive | None = None, retry: RetryPolicy | None = None
) -> list[RemoteFile]:
    """The files of a bulk table, from its published list of MD5 sums.

    ``table`` is one of the release's ``bulk_tables`` or a folder below the release's. Raises
    InputError if the list cannot be fetched or is not one, or the extra ``archive`` is missing.
    """
    check_installed()
    retry = retry or RetryPolicy()
    folder = (archive or Archive()).bulk_folder(table)
    url = f"{folder}/{SUMS}"

    def get() -> str:
        with response_to(retry, "GET", url) as response:
            return response.text

    with located(url):
        text = retry.call(get)
    return parse_sums(text, folder)


def parse_sums(text: str, folder: str) -> list[RemoteFile]:
    """The files that a list of MD5 sums names, sorted by name.

    Raises InputError if a line is neither a sum with a name nor a comment, or a name comes twice.
    """
    files: dict[str, RemoteFile] = {}
    where = f"{folder}/{SUMS}"
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _SUM.fullmatch(line.strip())
        # without folders, so that a name from outside never leads to a file elsewhere
        name = match[2].rsplit("/", 1)[-1] if match else ""
        if match is None or name in ("", ".", "..") or "\\" in name:
            raise InputError("is not an MD5 sum with a name", where=f"{where}, line {number}")
        if name in files:
            raise InputError(f"names {name} twice", where=where)
        if name != SUMS:
            files[name] = RemoteFile(name, match[1].lower(), f"{folder}/{name}")
    if not files:
        raise InputError("names no file", where=where, remedy="check the address")
    return [files[name] for name in sorted(files)]


def covering(files: Sequence[RemoteFile], ids: NDArray[np.int64]) -> list[RemoteFile]:
    """The files that hold the stars ``ids`` [N], by the pixels in the files' names.

    Raises InputError if no file's name says which pixels it holds, or a star is in none.
    """
    spans = sorted((*file.pixels, file.name) for file in files if file.pixels is not None)
    if not spans:
        raise InputError("the files' names do not say which part of the sky they hold")
    first, last = np.array([pixels for *pixels, _ in spans]).T
    pixel = np.asarray(ids, np.int64) >> PIXEL_SHIFT
    span_of = np.searchsorted(first, pixel, side="right") - 1
    outside = (span_of < 0) | (pixel > last[span_of])
    if outside.any():
        raise InputError(
            f"no file holds source_id {ids[np.flatnonzero(outside)[0]]} "
            f"({int(outside.sum())} such stars)",
            remedy="check the ids",
        )
    names = {spans[number][-1] for number in np.unique(span_of)}
    return [file for file in files if file.name in names]


def fetch_bulk(
    files: Sequence[RemoteFile],
    folder: str | Path,
    retry: RetryPolicy | None = None,
    parallel: int = 4,
    verify: bool = False,
    progress: bool = True,
) -> BulkSummary:
    """Download files of :func:`list_bulk` into ``folder``, ``parallel`` at a time.

    The folder is made if it does not exist. Files in it that have their final name are not fetched
    again; with ``verify``, those whose MD5 sum differs from the published one are. Raises
    :class:`InputError` if ``folder`` is a file, or another run is at work in it.
    """
    if parallel < 1:
        raise InputError(f"{parallel} downloads at a time are too few", remedy="choose 1 or more")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError("is not a folder", where=folder, remedy="choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    received: dict[str, int] = {}
    present: list[str] = []
    failed: dict[str, str] = {}
    with (
        claimed(folder),
        tqdm(unit="B", unit_scale=True, desc="files", disable=not progress) as bar,
    ):
        folder.mkdir(exist_ok=True)
        download = _Download(folder, retry or RetryPolicy(), verify, bar)
        for done, (file, outcome) in enumerate(
            in_parallel(download.fetch, files, parallel, download.stop), 1
        ):
            if isinstance(outcome, ServiceError):
                failed[file.name] = outcome.what
            elif outcome is None:
                present.append(file.name)
            else:
                received[file.name] = outcome
            bar.set_description(f"{done} of {len(files)} files")
    return BulkSummary(
        tuple(sorted(received)),
        tuple(sorted(present)),
        dict(sorted(failed.items())),
        sum(received.values()),
    )


@dataclass
class _Download:
    """How files are downloaded; shared by several threads."""

    folder: Path
    retry: RetryPolicy
    verify: bool
    bar: Any
    stop: threading.Event = field(default_factory=threading.Event)

    def fetch(self, file: RemoteFile) -> int | ServiceError | None:
        """Bytes received of one file; None if it was there already; the error if it failed."""
        path = self.folder / file.name
        partial = self.folder / f"{file.name}.partial"
        if path.exists():
            if not self.verify or md5_of(path) == file.md5:
                return None
            path.unlink()
        sizes: list[int] = []

        def attempt() -> None:
            self._receive(file, partial, sizes)
            if md5_of(partial) != file.md5:
                # none of it is kept, as the place of the error is unknown
                partial.unlink()
                raise ServiceError("its MD5 sum is not the published one")
            rename(partial, path)

        try:
            self.retry.call(attempt, self.stop)
        except ServiceError as error:
            return error
        return sum(sizes)

    def _receive(self, file: RemoteFile, partial: Path, sizes: list[int]) -> None:
        have = partial.stat().st_size if partial.exists() else 0
        # no compression in transfer, so that a range counts the bytes of the file itself
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})

        def received(size: int) -> None:
            sizes.append(size)
            self.bar.update(size)

        with response_to(self.retry, "GET", file.url, headers=headers) as response:
            if response.status_code == 416 and have:
                return  # the server has nothing more; the MD5 sum shows whether the file is right
            continues, span = response.status_code == 206, response.headers.get("Content-Range", "")
            if continues and not span.startswith(f"bytes {have}-"):
                partial.unlink(missing_ok=True)
                raise ServiceError("the server sent another range than was asked for")
            with partial.open("ab" if continues else "wb") as target:
                write_body(response, target, self.stop, received)
