"""A DataLink service that speaks the Gaia archive's protocol (a form of ids in, a ZIP out)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs, urlsplit

from archive_files import FakeStars, datalink_csv
from services.http import Fault, Reply, Service

MOST_IDS = 5000


class DataLinkService(Service):
    """Hands out ``stars``, at ``/data-server/data`` as the archive does.

    Every answer leaves out the ids ``withheld``; any request with one of ``poison`` fails with HTTP
    500; ``asked`` has the ids of each request.
    """

    def __init__(
        self, stars: FakeStars, retrieval_type: str = "XP_CONTINUOUS", release: str = "Gaia DR3"
    ) -> None:
        super().__init__()
        self.stars, self.retrieval_type, self.release = stars, retrieval_type, release
        self.rows = {one: row for row, one in enumerate(stars.source_id)}
        self.withheld: Collection[int] = ()
        self.poison: Collection[int] = ()
        self.asked: list[list[int]] = []

    @property
    def address(self) -> str:
        """For the client."""
        return f"{self.url}/data-server/data"

    def answer(
        self, method: str, path: str, headers: Any, body: bytes, fault: Fault | None
    ) -> Reply:
        """One request for spectra; the fault ``fewer`` leaves out every third star of it."""
        if (method, urlsplit(path).path) != ("POST", "/data-server/data"):
            return Reply(b"no such service", "text/plain", 404)
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        wanted = [form.get(k) for k in ("RETRIEVAL_TYPE", "RELEASE", "DATA_STRUCTURE", "FORMAT")]
        if wanted != [self.retrieval_type, self.release, "RAW", "csv"]:
            return Reply(f"cannot serve {wanted}".encode(), "text/plain", 400)
        ids = [int(word) for word in form["ID"].split(",")]
        with self.lock:
            self.asked.append(ids)
        if len(ids) > MOST_IDS:
            return Reply(b"too many ids", "text/plain", 400)
        if not set(ids).isdisjoint(self.poison):
            return Reply(b"internal error", "text/plain", 500)
        found = [one for one in ids if one in self.rows and one not in self.withheld]
        if fault is not None and fault.kind == "fewer":
            found = [one for place, one in enumerate(found) if place % 3]
        return Reply(self._packed(found), "application/zip")

    def _packed(self, ids: list[int]) -> bytes:
        rows = [self.rows[one] for one in ids]
        chosen = FakeStars(
            ids, {name: [cells[row] for row in rows] for name, cells in self.stars.cells.items()}
        )
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr(f"{self.retrieval_type}_RAW.csv", datalink_csv(chosen))
        return out.getvalue()
