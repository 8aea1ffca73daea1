"""The archive's bulk files: listed by their published MD5 sums, downloaded, resumed, verified.

``NAME.partial`` is a download that has begun; only a file whose sum is the published one gets its
name. A partial file goes on where it ends, by an HTTP range request; if the whole is then not what
was published, it is begun anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from xplabels.core.errors import InputError, counted
from xplabels.fetch.archive import Archive
from xplabels.fetch.retry import (
    RetryPolicy,
    ServiceError,
    Stopped,
    check_answer,
    check_installed,
    session,
    told_as_service_error,
)
from xplabels.fetch.tap import asked

if TYPE_CHECKING:
    import requests

SUMS = "_MD5SUM.txt"
PIXEL_SHIFT = 43
"""``source_id >> 43`` is the HEALPix level-8 pixel by which the files are cut."""
BLOCK_BYTES = 1 << 16
"""What is lost, at most, of a download that breaks off."""

_SUM = re.compile(r"([0-9a-fA-F]{32})\s+\*?(\S+)")
_PIXELS = re.compile(r"_(\d+)-(\d+)\.")


@dataclass(frozen=True)
class BulkFile:
    """A file that the archive publishes.

    Attributes
    ----------
    name
        Without a folder.
    md5
        Its published sum, 32 hexadecimal digits.
    url
        Its address.
    """

    name: str
    md5: str
    url: str

    @property
    def pixels(self) -> tuple[int, int] | None:
        """First and last HEALPix level-8 pixel in it, if its name says so."""
        found = _PIXELS.search(self.name)
        return None if found is None else (int(found[1]), int(found[2]))


@dataclass(frozen=True)
class BulkSummary:
    """What became of the files asked for; every one stands in one of these.

    Attributes
    ----------
    received
        Downloaded and verified now.
    present
        There already (verified again where that was asked for).
    failed
        Name -> why.
    size
        Bytes received now.
    """

    received: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    size: int = 0

    def to_text(self) -> str:
        """The account in a few lines."""
        lines = [
            f"{counted(len(self.received), 'file')} received ({self.size / 1e9:.3g} GB), "
            f"{len(self.present)} here already, {len(self.failed)} failed"
        ]
        return "\n".join(lines + [f"{name}: {why}" for name, why in self.failed.items()])


def list_bulk(
    table: str, archive: Archive | None = None, patience: RetryPolicy | None = None
) -> list[BulkFile]:
    """The files of a bulk table, as its published list of MD5 sums has them.

    Parameters
    ----------
    table
        ``xp``, ``gaia_source``, ``astrophysical_parameters``, or a folder below the release's.
    archive, patience
        Where it is, and what is bearable of it.

    Raises
    ------
    InputError
        If the list cannot be had or is none; without the extra ``archive``.
    """
    check_installed()
    archive, patience = archive or Archive(), patience or RetryPolicy()
    folder = archive.bulk_folder(table)
    url = f"{folder}/{SUMS}"

    def get() -> str:
        with told_as_service_error(), session(patience) as http, http.get(url) as response:
            check_answer(response)
            return response.text

    return parse_sums(
        asked("the list of files cannot be had", url, lambda: patience.persist(get)), folder
    )


def parse_sums(text: str, folder: str) -> list[BulkFile]:
    """The files that a list of MD5 sums names, sorted by name.

    Raises
    ------
    InputError
        If a line is neither a sum with a name nor a comment, or a name comes twice.
    """
    files: dict[str, BulkFile] = {}
    where = f"{folder}/{SUMS}"
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _SUM.fullmatch(line.strip())
        # a name from outside becomes a file here: never one in another folder
        name = found[2].rsplit("/", 1)[-1] if found else ""
        if found is None or name in ("", ".", "..") or "\\" in name:
            raise InputError("is no MD5 sum with a name", where=f"{where}, line {number}")
        if name in files:
            raise InputError(f"names {name} twice", where=where)
        if name != SUMS:
            files[name] = BulkFile(name, found[1].lower(), f"{folder}/{name}")
    if not files:
        raise InputError("names no file", where=where, remedy="check the address")
    return [files[name] for name in sorted(files)]


def matching(files: Sequence[BulkFile], pattern: str) -> list[BulkFile]:
    """Files whose name matches a pattern with ``*`` and ``?``."""
    return [file for file in files if fnmatch(file.name, pattern)]


def covering(files: Sequence[BulkFile], ids: NDArray[np.int64]) -> list[BulkFile]:
    """The files that hold the stars ``ids`` [N], by the pixels in the files' names.

    Raises
    ------
    InputError
        If no file's name says which pixels it holds, or a star is in none.
    """
    ranges = [(file.pixels, file) for file in files]
    known = sorted((pixels, file.name) for pixels, file in ranges if pixels is not None)
    if not known:
        raise InputError("the files' names do not say which part of the sky they hold")
    first = np.array([pixels[0] for pixels, _ in known])
    last = np.array([pixels[1] for pixels, _ in known])
    pixel = np.asarray(ids, np.int64) >> PIXEL_SHIFT
    place = np.searchsorted(first, pixel, side="right") - 1
    outside = (place < 0) | (pixel > last[np.maximum(place, 0)])
    if outside.any():
        raise InputError(
            f"no file holds source_id {ids[np.flatnonzero(outside)[0]]} "
            f"({int(outside.sum())} such stars)",
            remedy="check the ids",
        )
    wanted = {known[row][1] for row in np.unique(place).tolist()}
    return [file for file in files if file.name in wanted]


def fetch_bulk(
    files: Sequence[BulkFile],
    folder: str | Path,
    patience: RetryPolicy | None = None,
    parallel: int = 4,
    verify: bool = False,
    progress: bool = True,
) -> BulkSummary:
    """Download files into ``folder``, several at a time.

    Parameters
    ----------
    files
        Of :func:`list_bulk`.
    folder
        Made if it is not there. Files there that have their final name are left alone.
    patience
        What is bearable of the server.
    parallel
        Downloads at a time.
    verify
        Compute the MD5 sum of files that are there already, and fetch again those that differ.
    progress
        Show a progress bar.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    if parallel < 1:
        raise InputError(f"{parallel} downloads at a time are none", remedy="choose 1 or more")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError("is not a folder", where=folder, remedy="choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    downloads = _Downloads(folder, patience or RetryPolicy(), verify)
    with (
        tqdm(unit="B", unit_scale=True, desc="files", disable=not progress) as bar,
        ThreadPoolExecutor(parallel) as pool,
    ):
        jobs = {pool.submit(downloads.one, file, bar): file.name for file in files}
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                downloads.note(jobs[job], job)
                bar.set_description(f"{done} of {len(files)} files")
        except BaseException:
            downloads.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return downloads.summary()


class _Downloads:
    """Downloads into one folder, and what became of each."""

    def __init__(self, folder: Path, patience: RetryPolicy, verify: bool) -> None:
        self.folder, self.patience, self.verify = folder, patience, verify
        self.stop = threading.Event()
        self._received: dict[str, int] = {}
        self._present: list[str] = []
        self._failed: dict[str, str] = {}

    def one(self, file: BulkFile, bar: Any) -> int | None:
        """Bytes received of one file, or None if it was there."""
        return _Download(file, self.folder, self.patience, self.stop, bar).run(self.verify)

    def note(self, name: str, job: Future[int | None]) -> None:
        """Keep what became of a file; anything but a failing server goes on to the caller."""
        try:
            size = job.result()
        except ServiceError as error:
            self._failed[name] = error.reason
        else:
            if size is None:
                self._present.append(name)
            else:
                self._received[name] = size

    def summary(self) -> BulkSummary:
        """The account."""
        return BulkSummary(
            tuple(sorted(self._received)),
            tuple(sorted(self._present)),
            dict(sorted(self._failed.items())),
            sum(self._received.values()),
        )


class _Download:
    """One file on its way."""

    def __init__(
        self, file: BulkFile, folder: Path, patience: RetryPolicy, stop: threading.Event, bar: Any
    ) -> None:
        self.file, self.patience, self.stop, self.bar = file, patience, stop, bar
        self.path = folder / file.name
        self.partial = folder / f"{file.name}.partial"
        self.received = 0

    def run(self, verify: bool) -> int | None:
        """Bytes received, or None if the file is there already.

        Raises
        ------
        ServiceError
            If it does not come in spite of all attempts.
        """
        if self.path.exists():
            if not verify or self._md5(self.path) == self.file.md5:
                return None
            self.path.unlink()
        self.patience.persist(self._attempt, self.stop)
        return self.received

    def _attempt(self) -> None:
        self._receive()
        if self._md5(self.partial) != self.file.md5:
            # what went wrong where cannot be known: none of it is kept
            self.partial.unlink()
            raise ServiceError("its MD5 sum is not the published one")
        os.replace(self.partial, self.path)

    def _receive(self) -> None:
        """Append to the partial file what it lacks."""
        have = self.partial.stat().st_size if self.partial.exists() else 0
        # no compression on the way: a range counts the bytes of the file
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with (
            told_as_service_error(),
            session(self.patience) as http,
            http.get(self.file.url, headers=headers, stream=True) as response,
        ):
            if response.status_code == 416:
                # nothing lies beyond what is here: it is whole, or not what it should be
                return
            check_answer(response)
            self._store(response, have)

    def _store(self, response: requests.Response, have: int) -> None:
        goes_on = response.status_code == 206
        if goes_on and not _starts_at(response.headers.get("Content-Range", ""), have):
            self.partial.unlink()
            raise ServiceError("the server sent another range than was asked for")
        with self.partial.open("ab" if goes_on else "wb") as file:
            for block in response.iter_content(BLOCK_BYTES):
                if self.stop.is_set():
                    raise Stopped
                file.write(block)
                self.received += len(block)
                self.bar.update(len(block))

    def _md5(self, path: Path) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                if self.stop.is_set():
                    raise Stopped
                digest.update(block)
        return digest.hexdigest()


def _starts_at(content_range: str, byte: int) -> bool:
    found = re.match(r"bytes (\d+)-", content_range)
    return found is not None and int(found[1]) == byte
