"""XP spectra from the archive's DataLink service.

The protocol is the one ``astroquery.gaia.Gaia.load_data`` speaks: ids in a form, a ZIP back. It is
spoken here directly because that function has no timeout, notices neither a truncated answer nor
ids left out, and unpacks into the current folder.
"""

from __future__ import annotations

import shutil
import threading
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.fetch.archive import Archive
from xplabels.fetch.http import RetryPolicy, ServiceError, response_to, write_body
from xplabels.io import read

Ids = NDArray[np.int64]
ROUNDS = 3
"""Times that ids which an answer leaves out are asked for."""
SPLIT_ATTEMPTS = 2
"""Attempts at each part of a chunk that failed as a whole."""
MOST_FAILURES = 16
"""Requests that fail in a row before no more are made. It takes 13 to isolate one star on which
the service fails among 5,000."""
GIVEN_UP = "not asked: the service failed too often in a row"


@dataclass
class Response:
    """What became of the ids that were asked for.

    Attributes
    ----------
    stars
        The stars received, in one or several parts.
    left_out
        Ids that whole answers do not hold, in :data:`ROUNDS` rounds.
    failed
        Id -> why no whole answer came.
    """

    stars: list[Stars] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, other: Response) -> None:
        """Take in the response to other ids."""
        self.stars += other.stars
        self.left_out += other.left_out
        self.failed |= other.failed


class DataLink:
    """The service of spectra.

    Parameters
    ----------
    archive
        Its address, and the release's name and type of spectra.
    retry
        How often a request is made.
    scratch
        Folder for answers while they are read.
    stop
        Set when the user has interrupted.
    """

    def __init__(
        self, archive: Archive, retry: RetryPolicy, scratch: Path, stop: threading.Event
    ) -> None:
        self.archive, self.retry, self.scratch, self.stop = archive, retry, scratch, stop
        self._failures = 0  # in a row, in all threads

    def spectra(self, ids: Ids) -> Response:
        """Spectra of ``ids`` [N], each id accounted for.

        Ids that an answer leaves out are asked for again by themselves. If a request fails for
        good its ids are asked for in halves, until the star that the service fails on is alone.
        """
        response = Response(left_out=ids.tolist())
        for _ in range(ROUNDS):
            ids = np.array(response.left_out, np.int64)
            response.left_out = []
            response.add(self._in_halves(ids, self.retry.attempts))
            if not response.left_out:
                break
        return response

    def _in_halves(self, ids: Ids, attempts: int) -> Response:
        if self._failures >= MOST_FAILURES:
            return Response(failed=dict.fromkeys(ids.tolist(), GIVEN_UP))
        try:
            stars = self.retry.call(lambda: self._request(ids), self.stop, attempts)
        except ServiceError as error:
            self._failures += 1
            if len(ids) == 1:
                return Response(failed={int(ids[0]): error.reason})
            response = Response()
            for half in np.array_split(ids, 2):
                response.add(self._in_halves(half, SPLIT_ATTEMPTS))
            return response
        self._failures = 0
        left_out = ids if stars is None else ids[~np.isin(ids, stars.source_id)]
        return Response([] if stars is None else [stars], left_out.tolist())

    def _request(self, ids: Ids) -> Stars | None:
        """One request: the stars among ``ids`` that its answer holds, if any."""
        form = {
            "RETRIEVAL_TYPE": self.archive.release.spectra,
            "ID": ",".join(str(one) for one in ids.tolist()),
            "RELEASE": self.archive.release.name,
            "DATA_STRUCTURE": "RAW",
            "FORMAT": "csv",
            "VALID_DATA": "false",
            "USE_ZIP_ALWAYS": "true",
        }
        with TemporaryDirectory(dir=self.scratch, prefix="answer-") as folder:
            path = Path(folder) / "answer.zip"
            with (
                response_to(self.retry, "POST", self.archive.datalink, data=form) as response,
                path.open("wb") as file,
            ):
                write_body(response, file, self.stop)
            files = _unpacked(path)
            if not files:
                return None
            try:
                stars = read(files)
            except InputError as error:
                raise ServiceError(f"the answer is damaged ({error.what})") from error
        stars = stars[np.flatnonzero(np.isin(stars.source_id, ids))]
        # the temporary files are no provenance
        origin = f"{self.archive.release.name} {self.archive.release.spectra}"
        return replace(stars, origin=origin, notes=(), file="") if len(stars) else None


def _unpacked(path: Path) -> list[Path]:
    """The CSV files with rows of an answer, their checksums verified."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = []
            for number, member in enumerate(archive.infolist()):
                if not member.filename.lower().endswith(".csv"):
                    continue
                # the names inside are the service's: none of them becomes a path here
                target = path.with_name(f"{number}.csv")
                with archive.open(member) as packed, target.open("wb") as file:
                    shutil.copyfileobj(packed, file)
                with target.open("rb") as file:
                    lines = (line for line in file if line.strip() and not line.startswith(b"#"))
                    next(lines, None)  # the columns' names
                    if next(lines, None) is not None:
                        files.append(target)
            return files
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ServiceError(f"the answer is no whole ZIP file ({error})") from error
