"""HTTP servers on loopback whose answers can be made to fail: DataLink's, and of bulk files."""

from __future__ import annotations

import hashlib
import io
import re
import sys
import threading
import time
import traceback
import zipfile
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from archive_files import FakeStars, datalink_csv, unrolled_csv, write

SLOW = 3.0
"""Seconds by which a slow answer comes late; a client under test waits less."""


@dataclass(frozen=True)
class Fault:
    """A failure that the next answer shows.

    ``kind`` is ``status`` (an HTTP status in place of the answer), ``drop`` (the connection closes
    without a word), ``truncate`` (the body breaks off half-way), ``cut`` (half of the body, with a
    length that says it is whole), ``slow``, or a word of the service itself.
    """

    kind: str
    status: int = 500
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Reply:
    """What a service answers."""

    body: bytes
    content_type: str = "application/octet-stream"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Service:
    """A server in threads of its own; a context manager.

    One of ``faults`` is taken for each request, first come first served (None: no fault); every
    answer takes ``delay`` seconds; ``log`` has method and path of each request.
    """

    def __init__(self) -> None:
        self.faults: deque[Fault | None] = deque()
        self.delay = 0.0
        self.log: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if self._server.errors:
            raise RuntimeError("the service failed by itself:\n" + "\n".join(self._server.errors))

    def answer(
        self, method: str, path: str, headers: Any, body: bytes, fault: Fault | None
    ) -> Reply:
        """The reply to a request; ``fault`` is for those kinds that only the service knows."""
        raise NotImplementedError

    def faulty(self, path: str) -> bool:
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.errors: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is none of the server's errors."""
        if not isinstance(sys.exception(), OSError):
            self.errors.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    service: Service
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets; the second does not wait

    def _serve(self) -> None:
        service = self.service
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # of a client that was killed, most likely
            self.close_connection = True
            self._send(Reply(b"the body breaks off", "text/plain", 400))
            return
        with service.lock:
            service.log.append((self.command, self.path))
            takes = service.faults and service.faulty(self.path)
            fault = service.faults.popleft() if takes else None
        kind = fault.kind if fault is not None else ""
        time.sleep(service.delay)
        if kind == "drop":
            self.close_connection = True
            return
        if kind == "slow":
            service.closing.wait(SLOW)
        if fault is not None and kind == "status":
            self._send(Reply(b"out of order", "text/plain", fault.status, fault.headers))
            return
        self._send(service.answer(self.command, self.path, self.headers, body, fault), kind)

    do_GET = do_HEAD = do_POST = do_DELETE = _serve

    def _send(self, reply: Reply, kind: str = "") -> None:
        half = reply.body[: len(reply.body) // 2]
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(half if kind == "cut" else reply.body)))
        for name, value in reply.headers:
            self.send_header(name, value)
        self.end_headers()
        self.close_connection |= kind == "truncate"
        if self.command != "HEAD":
            self.wfile.write(half if kind in ("cut", "truncate") else reply.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class DataLinkService(Service):
    """Hands out ``stars``, at ``/data-server/data`` as the archive does.

    ``words`` are the retrieval type and release that it knows, and ``structures`` the words for
    one row per star; any other word is answered by HTTP 500, as the archive does. If
    ``DATAMODEL_STANDARD`` is among them, it unrolls arrays: one row per element. ``answers`` is how
    it writes, whatever it was asked for (default: as asked), ``zipped`` whether in a ZIP,
    ``renamed`` how it calls columns. Every answer leaves out the ids ``withheld``; any request
    with one of ``poison`` fails with HTTP 500; ``asked`` has the ids of each request.
    """

    def __init__(
        self,
        stars: FakeStars,
        retrieval_type: str = "XP_CONTINUOUS",
        release: str = "Gaia DR3",
        structures: Collection[str] = ("RAW",),
    ) -> None:
        super().__init__()
        self.stars, self.words = stars, [retrieval_type, release]
        self.structures = structures
        self.answers, self.zipped = "", True
        self.renamed: dict[str, str] = {}
        self.rows = {one: row for row, one in enumerate(stars.source_id)}
        self.withheld: Collection[int] = ()
        self.poison: Collection[int] = ()
        self.asked: list[list[int]] = []

    @property
    def address(self) -> str:
        return f"{self.url}/data-server/data"

    def answer(
        self, method: str, path: str, headers: Any, body: bytes, fault: Fault | None
    ) -> Reply:
        """One request for spectra; the fault ``fewer`` leaves out every third star of it."""
        if (method, urlsplit(path).path) != ("POST", "/data-server/data"):
            return Reply(b"no such service", "text/plain", 404)
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        wanted = [form.get(name, "") for name in ("RETRIEVAL_TYPE", "RELEASE")]
        if form.get("DATA_STRUCTURE") not in self.structures or form.get("FORMAT") not in KINDS:
            return Reply(f"cannot serve {form.get('DATA_STRUCTURE')}".encode(), "text/plain", 500)
        if wanted != self.words:
            return Reply(f"cannot serve {wanted}".encode(), "text/plain", 400)
        ids = [int(word) for word in form["ID"].split(",")]
        with self.lock:
            self.asked.append(ids)
        if len(ids) > 5000:
            return Reply(b"too many ids", "text/plain", 400)
        if not set(ids).isdisjoint(self.poison):
            return Reply(b"internal error", "text/plain", 500)
        found = [one for one in ids if one in self.rows and one not in self.withheld]
        if fault is not None and fault.kind == "fewer":
            found = [one for place, one in enumerate(found) if place % 3]
        kind = KINDS[self.answers or form["FORMAT"]]
        return self._reply(found, kind, form["DATA_STRUCTURE"])

    def _reply(self, ids: list[int], kind: str, structure: str) -> Reply:
        rows = [self.rows[one] for one in ids]
        chosen = FakeStars(
            ids,
            {
                self.renamed.get(name, name): [cells[row] for row in rows]
                for name, cells in self.stars.cells.items()
            },
        )
        if structure == "DATAMODEL_STANDARD":
            kind, body = "csv", unrolled_csv(chosen).encode()
        elif kind == "csv":
            body = datalink_csv(chosen).encode()
        else:
            with TemporaryDirectory() as folder:
                body = write(chosen, Path(folder) / f"answer.{kind}").read_bytes()
        if not self.zipped:
            return Reply(body, "application/octet-stream")
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr(f"{self.words[0]}_{structure}.{kind}", body)
        return Reply(out.getvalue(), "application/zip")


KINDS = {"csv": "csv", "ecsv": "ecsv", "votable": "vot", "votable_plain": "xml", "fits": "fits"}
"""DataLink's word for a format -> ending of its files."""


class FileService(Service):
    """Serves ``files`` below ``folder``; honours range requests if ``ranges``.

    ``ranges_asked`` has the range of each request for a file, "" where none was asked for.
    """

    def __init__(self, files: Mapping[str, bytes], folder: str) -> None:
        super().__init__()
        sums = "".join(f"{hashlib.md5(body).hexdigest()}  {name}\n" for name, body in files.items())
        self.files = {f"/{folder}/{name}": body for name, body in files.items()}
        self.sums = f"/{folder}/_MD5SUM.txt"
        self.files[self.sums] = sums.encode()
        self.ranges = True
        self.ranges_asked: list[str] = []

    def faulty(self, path: str) -> bool:
        return path != self.sums

    def answer(
        self, method: str, path: str, headers: Any, body: bytes, fault: Fault | None
    ) -> Reply:
        """One file; the fault ``wrong`` changes a byte, ``shifted`` serves another range."""
        whole = self.files.get(urlsplit(path).path)
        if whole is None:
            return Reply(b"not found", "text/plain", 404)
        asked = headers.get("Range", "")
        if urlsplit(path).path != self.sums:
            with self.lock:
                self.ranges_asked.append(asked)
        if fault is not None and fault.kind == "wrong":
            whole = bytes([whole[0] ^ 1]) + whole[1:]
        if not self.ranges:
            return Reply(whole)
        return part_of(whole, asked, int(fault is not None and fault.kind == "shifted"))


def part_of(whole: bytes, asked: str, shift: int = 0) -> Reply:
    """The reply to a request with the header ``Range: asked``, if it has one."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
    if found is None:
        return Reply(whole, headers=(("Accept-Ranges", "bytes"),))
    first, last = found.groups()
    start = shift + (int(first) if first else len(whole) - int(last))
    if start >= len(whole):
        return Reply(b"", status=416)
    part = whole[start : int(last) + 1 if first and last else None]
    span = f"bytes {start}-{start + len(part) - 1}/{len(whole)}"
    return Reply(part, status=206, headers=(("Content-Range", span),))
