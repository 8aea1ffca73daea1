"""XP spectra from the archive's DataLink service.

The protocol is the one ``astroquery.gaia.Gaia.load_data`` speaks: ids in a form, a ZIP back. It is
spoken here directly because that function waits without end, notices neither a truncated answer
nor ids left out, and unpacks into the current folder.
"""

from __future__ import annotations

import shutil
import threading
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import CoefficientSpectra, Stars, concatenate, with_widths
from xplabels.fetch.archive import Archive
from xplabels.fetch.retry import (
    RetryPolicy,
    ServiceError,
    Stopped,
    check_answer,
    session,
    told_as_service_error,
)
from xplabels.io import read

Ids = NDArray[np.int64]
ROUNDS = 3
"""Times that ids which an answer leaves out are asked for."""
SPLIT_ATTEMPTS = 2
"""Attempts at each part of a chunk that failed as a whole."""
STRIKES = 16
"""Requests that fail in a row before nothing more is asked. It takes 13 to corner one star on
which the service fails among 5,000."""
BLOCK_BYTES = 1 << 20


@dataclass
class Response:
    """What became of the ids that were asked for.

    Attributes
    ----------
    stars
        The stars received.
    left_out
        Ids that whole answers do not hold, in :data:`ROUNDS` rounds.
    failed
        Id -> why no whole answer came.
    """

    stars: list[Stars] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, other: Response) -> None:
        """Take in another answer, of other ids."""
        self.stars += other.stars
        self.left_out += other.left_out
        self.failed |= other.failed


@dataclass
class DataLink:
    """The service that hands out spectra.

    Attributes
    ----------
    archive
        Its address, and the release's name and type of spectra.
    patience
        What is bearable of it.
    scratch
        Folder for answers while they are read.
    stop
        Set when the user has interrupted.
    """

    archive: Archive
    patience: RetryPolicy
    scratch: Path
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._strikes = 0
        self._lock = threading.Lock()

    def spectra(self, ids: Ids) -> Response:
        """Spectra of ``ids`` [N], each id accounted for.

        Ids that an answer leaves out are asked for again by themselves. If a request fails for
        good its ids are asked for in halves, until the star that the service fails on stands
        alone.
        """
        answer = Response()
        wanted = ids
        for _ in range(ROUNDS):
            part = self._in_halves(wanted, self.patience.attempts)
            wanted = np.array(part.left_out, np.int64)
            part.left_out = []
            answer.add(part)
            if not len(wanted):
                return answer
        answer.left_out = wanted.tolist()
        return answer

    def _in_halves(self, ids: Ids, attempts: int) -> Response:
        if self._strikes >= STRIKES:
            return _all_failed(ids, "not asked: the service failed too often in a row")
        try:
            stars = self.patience.persist(lambda: self._ask(ids), self.stop, attempts)
        except ServiceError as error:
            with self._lock:
                self._strikes += 1
            if len(ids) == 1:
                return _all_failed(ids, error.reason)
            middle = len(ids) // 2
            answer = self._in_halves(ids[:middle], SPLIT_ATTEMPTS)
            answer.add(self._in_halves(ids[middle:], SPLIT_ATTEMPTS))
            return answer
        with self._lock:
            self._strikes = 0
        got = np.concatenate([part.source_id for part in stars]) if stars else ids[:0]
        return Response(stars, ids[~np.isin(ids, got)].tolist())

    def _ask(self, ids: Ids) -> list[Stars]:
        """One request: the stars among ``ids`` that its answer holds."""
        with TemporaryDirectory(dir=self.scratch, prefix="answer-") as folder:
            path = Path(folder) / "answer.zip"
            self._receive(ids, path)
            files = _unpacked(path)
            if not files:
                return []
            try:
                stars = read(files)
            except InputError as error:
                raise ServiceError(f"the answer is damaged ({error.what})") from error
        stars = stars[np.flatnonzero(np.isin(stars.source_id, ids))]
        # where the files lay for a moment is no provenance
        origin = f"{self.archive.release.name} {self.archive.release.spectra}"
        return [replace(stars, origin=origin, notes=(), file="")] if len(stars) else []

    def _receive(self, ids: Ids, path: Path) -> None:
        """Write the body of one answer to ``path``, and see that it is whole."""
        form = {
            "RETRIEVAL_TYPE": self.archive.release.spectra,
            "ID": ",".join(str(one) for one in ids.tolist()),
            "RELEASE": self.archive.release.name,
            "DATA_STRUCTURE": "RAW",
            "FORMAT": "csv",
            "VALID_DATA": "false",
            "USE_ZIP_ALWAYS": "true",
        }
        with (
            told_as_service_error(),
            session(self.patience) as http,
            http.post(self.archive.datalink, data=form, stream=True) as response,
        ):
            check_answer(response)
            with path.open("wb") as file:
                for block in response.iter_content(BLOCK_BYTES):
                    if self.stop.is_set():
                        raise Stopped
                    file.write(block)


def _all_failed(ids: Ids, reason: str) -> Response:
    return Response(failed=dict.fromkeys(ids.tolist(), reason))


def _unpacked(path: Path) -> list[Path]:
    """The CSV files of an answer, their checksums verified."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.lower().endswith(".csv")]
            files = []
            for number, member in enumerate(members):
                # the names inside are the service's: none of them becomes a path here
                target = path.with_name(f"{number}.csv")
                with archive.open(member) as packed, target.open("wb") as file:
                    shutil.copyfileobj(packed, file)
                if _has_rows(target):
                    files.append(target)
            return files
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ServiceError(f"the answer is no whole ZIP file ({error})") from error


def _has_rows(path: Path) -> bool:
    """Whether a CSV file has a line after that of its column names."""
    with path.open("rb") as file:
        told = (line for line in file if line.strip() and not line.startswith(b"#"))
        return next(told, None) is not None and next(told, None) is not None


def stacked(parts: Sequence[Stars]) -> Stars:
    """Stars of several answers as one table, sorted by source_id."""
    widths = np.array([_widths(part) for part in parts]).max(axis=0)
    # an answer in which no star has BP does not say how many coefficients BP has
    stars = concatenate([with_widths(part, (int(widths[0]), int(widths[1]))) for part in parts])
    return stars[np.argsort(stars.source_id)]


def _widths(stars: Stars) -> tuple[int, int]:
    spectra = stars.spectra
    return spectra.widths if isinstance(spectra, CoefficientSpectra) else (0, 0)
