"""XP spectra from the archive's DataLink service.

The protocol is the one ``astroquery.gaia.Gaia.load_data`` speaks: ids in a form, a ZIP back. It is
spoken here directly because that function has no timeout, notices neither a truncated answer nor
ids left out, and unpacks into the current folder.
"""

from __future__ import annotations

import shutil
import threading
import zipfile
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.fetch.archive import Archive, Ids
from xplabels.fetch.http import RetryPolicy, ServiceError, response_to, write_body
from xplabels.fetch.state import GIVEN_UP, Response
from xplabels.io import read, write_stars
from xplabels.io.files import byte_lines, check_size, whole

ROUNDS = 3
"""How often ids that answers leave out are asked for."""
SPLIT_ATTEMPTS = 2
"""Attempts at each part of a chunk that failed as a whole."""
MOST_FAILURES = 16
"""Requests that fail in a row before no more are made. It takes 13 to isolate one star on which
the service fails among 5,000."""


class DataLink:
    """The service of spectra; answers lie in the folder ``scratch`` while they are read."""

    def __init__(
        self, archive: Archive, retry: RetryPolicy, scratch: Path, stop: threading.Event
    ) -> None:
        self.archive, self.retry, self.scratch, self.stop = archive, retry, scratch, stop
        self._failures = 0  # in a row, in all threads

    def spectra(self, ids: Ids) -> tuple[Response, list[int]]:
        """Spectra of ``ids`` [N], and the ids that whole answers leave out.

        Ids that an answer leaves out are asked for again by themselves. If a request fails for
        good its ids are asked for in halves, until the star that the service fails on is alone.
        """
        response = Response()
        left_out = ids.tolist()
        for _ in range(ROUNDS):
            if left_out:
                left_out = self._in_halves(np.array(left_out), self.retry.attempts, response)
        return response, left_out

    def _in_halves(self, ids: Ids, attempts: int, response: Response) -> list[int]:
        """Add the answers to ``ids`` to ``response``; return the ids that they leave out."""
        if self._failures >= MOST_FAILURES:
            response.failed |= dict.fromkeys(ids.tolist(), GIVEN_UP)
            return []
        try:
            stars = self.retry.call(lambda: self._request(ids), self.stop, attempts)
        except ServiceError as error:
            self._failures += 1
            if len(ids) == 1:
                response.failed[int(ids[0])] = error.what
                return []
            one, other = np.array_split(ids, 2)
            left_out = self._in_halves(one, SPLIT_ATTEMPTS, response)
            return left_out + self._in_halves(other, SPLIT_ATTEMPTS, response)
        self._failures = 0
        if stars is None:
            return list(ids.tolist())
        response.parts.append((stars.source_id, partial(write_stars, stars)))
        return list(ids[~np.isin(ids, stars.source_id)].tolist())

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
            try:
                files = unpacked(path)
                if not files:
                    return None
                stars = read(files)
            except InputError as error:
                raise ServiceError(f"the answer is damaged ({error.what})") from error
        stars = stars[np.flatnonzero(np.isin(stars.source_id, ids))]
        # the temporary files are no provenance
        origin = f"{self.archive.release.name} {self.archive.release.spectra}"
        return replace(stars, origin=origin, notes=(), file="") if len(stars) else None


def unpacked(path: Path) -> list[Path]:
    """The CSV files with rows of an answer, their checksums verified."""
    with whole(path, "ZIP file"), zipfile.ZipFile(path) as archive:
        files = []
        # no member gives more bytes than it says
        check_size(path, sum(member.file_size for member in archive.infolist()))
        for number, member in enumerate(archive.infolist()):
            if not member.filename.lower().endswith(".csv"):
                continue
            # the names inside are the service's: none of them becomes a path here
            target = path.with_name(f"{number}.csv")
            with archive.open(member) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file)
            lines = (line for line in byte_lines(target) if not line.startswith(b"#"))
            if len(list(islice((line for line in lines if line.strip()), 2))) == 2:
                files.append(target)  # the columns' names, and a row
        return files
