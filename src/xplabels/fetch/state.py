"""What a fetch has so far: the folder from which a killed one goes on.

``OUTPUT.partial/`` holds Parquet files of rows received and ``state.jsonl``: a line with the
request, one with its ids, then one for each answer: its file, the ids in it, and those that the
archive has nothing of. A file counts once its line is written, so that a kill loses one answer and
doubles none. A failed id is not written down: it is asked for again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.io.atomic import check_new_folder, check_ours, check_output, take_lock, whole_file

Ids = NDArray[np.int64]

RECEIVED, ABSENT, FAILED = "received", "absent", "failed"
STATE = "state.jsonl"
RECORD = "fetch.json"
ACCOUNT = "ids.csv"
OUTPUT_FILES = (RECORD, ACCOUNT, "*.parquet")
"""All that the folder of a fetch may hold."""
PARTIAL_FILES = (STATE, "*.parquet", "whole/*", "old/*", "answer-*", "request.json", "lock")
"""All that an unfinished one may hold, of earlier versions too."""


@dataclass
class IdStatus:
    """What became of each id, for one product.

    Attributes
    ----------
    received
        Ids of which there are rows, in ``files``.
    absent
        Id -> why the archive has nothing of it.
    failed
        Id -> why its status is unknown.
    """

    received: set[int] = field(default_factory=set)
    absent: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def open_ids(self, ids: Ids) -> Ids:
        """Those of ``ids`` whose status is unknown."""
        known = np.fromiter((*self.received, *self.absent), np.int64)
        return ids[~np.isin(ids, known)]

    def status(self, one: int) -> tuple[str, str]:
        """(status, reason) of one id."""
        if one in self.received:
            return RECEIVED, ""
        if one in self.absent:
            return ABSENT, self.absent[one]
        return FAILED, self.failed.get(one, "not asked")

    def counts(self, ids: Ids) -> dict[str, int]:
        """Ids by status; they add up to N."""
        received, absent = len(self.received), len(self.absent)
        return {RECEIVED: received, ABSENT: absent, FAILED: len(ids) - received - absent}


class FetchState:
    """The folder ``OUTPUT.partial`` of one fetch; work with it is inside :meth:`opened`.

    Attributes
    ----------
    request
        What is asked for; the state of another request is not gone on with.
    ids
        Those asked for, sorted, once they are known.
    products
        Name -> status of its ids.
    """

    def __init__(self, output: Path, request: Mapping[str, Any]) -> None:
        self.output, self.request = output, dict(request)
        self.folder = output.with_name(output.name + ".partial")
        self.ids: Ids | None = None
        self.products: dict[str, IdStatus] = defaultdict(IdStatus)

    def finished(self) -> dict[str, Any] | None:
        """The record of the output if it is complete and of the same request, else None."""
        try:
            record = json.loads((self.output / RECORD).read_text(encoding="utf-8"))
            return (
                dict(record) if record["request"] == self.request and record["complete"] else None
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextmanager
    def opened(self, overwrite: bool) -> Iterator[None]:
        """Make the folder, or go on with one of the same request; a second fetch is kept out.

        Raises
        ------
        InputError
            If the output or a folder of another request exists and ``overwrite`` is false, if
            they hold files of somebody else, or if another fetch is at work.
        """
        if self.folder.exists() and not self._is_of_request():
            if not overwrite:
                raise InputError(
                    "holds an unfinished fetch of another request",
                    where=self.folder,
                    remedy="give the same command as then, or --overwrite",
                )
            check_ours(self.folder, PARTIAL_FILES)
            shutil.rmtree(self.folder)
        if not self.folder.exists():
            check_output(self.folder)
            check_new_folder(self.output, OUTPUT_FILES, overwrite)
            self.folder.mkdir()
        with (self.folder / STATE).open("a", encoding="utf-8") as self._file:
            if not take_lock(self._file):
                raise InputError(
                    "another fetch is at work here",
                    where=self.folder,
                    remedy="wait for it, or name another output",
                )
            self._restore()
            yield

    def _lines(self) -> bytes:
        """The state file without a last line that a kill has cut short."""
        path = self.folder / STATE
        whole, end, _ = path.read_bytes().rpartition(b"\n") if path.is_file() else (b"", b"", b"")
        return whole + end

    def _is_of_request(self) -> bool:
        """Whether the folder is of this request, or one that a kill left before it said so."""
        lines = self._lines().splitlines()
        if not lines:
            return self.folder.is_dir() and not any(self.folder.glob("*.parquet"))
        try:
            return bool(json.loads(lines[0]) == {"request": self.request})
        except ValueError:
            return False

    def _restore(self) -> None:
        """Read the state, and clear away what a kill left half-written."""
        lines = self._lines()
        os.truncate(self.folder / STATE, len(lines))
        for line in map(json.loads, lines.splitlines()[1:]):
            if "ids" in line:
                self.ids = np.array(line["ids"], np.int64)
            else:
                self._note(line)
        counted = {path.name for status in self.products.values() for path in status.files}
        for path in self.folder.iterdir():
            if path.name not in (STATE, *counted):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not lines:
            self._write({"request": self.request})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _note(self, line: dict[str, Any]) -> None:
        status = self.products[line["product"]]
        status.received.update(line["received"])
        status.absent |= {int(one): reason for one, reason in line["absent"].items()}
        if line["file"]:
            status.files.append(self.folder / line["file"])

    def set_ids(self, ids: Ids) -> None:
        """Write the ids down: this fetch stays of these, whatever a query gives tomorrow."""
        self._write({"ids": ids.tolist()})
        self.ids = ids

    def record(
        self,
        product: str,
        received: Ids | None = None,
        write: Callable[[Path], object] | None = None,
        absent: Mapping[int, str] | None = None,
    ) -> None:
        """Write down one answer; ``write`` writes the rows of ``received`` to a path."""
        file, ids = "", [] if received is None else received.tolist()
        if write is not None and ids:
            file = f"{product}-{hashlib.sha256(repr(ids).encode()).hexdigest()[:20]}.parquet"
            with whole_file(self.folder / file, overwrite=True) as path:
                write(path)
        line = {
            "product": product,
            "file": file,
            "received": ids,
            "absent": {str(one): reason for one, reason in (absent or {}).items()},
        }
        self._write(line)
        self._note(line)

    def publish(self, whole: Path, keep: bool) -> None:
        """Put ``whole``, a folder inside this one, where the output belongs.

        ``keep`` keeps the state: some ids failed and can be asked for again.
        """
        old = self.folder / "old"
        if self.output.exists():
            os.replace(self.output, old)
        os.replace(whole, self.output)
        if old.exists():
            shutil.rmtree(old)
        if not keep:
            self.discard()

    def discard(self) -> None:
        """Remove the folder, if it is of this request."""
        if not (self.folder.exists() and self._is_of_request()):
            return
        # the request goes last: without it, what is left would be nobody's
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == STATE):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.folder.rmdir()
