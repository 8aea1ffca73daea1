"""A server of files with range requests and published MD5 sums, as the archive's bulk files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from services.http import Fault, Reply, Service


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
        """The list of sums comes without a fault."""
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
        found = re.fullmatch(r"bytes=(\d+)-", asked)
        if found is None or not self.ranges:
            return Reply(whole)
        start = int(found[1]) + (fault is not None and fault.kind == "shifted")
        if start >= len(whole):
            return Reply(b"", status=416)
        span = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        return Reply(whole[start:], status=206, headers=(("Content-Range", span),))
