"""The state of a fetch: the folder from which a killed one resumes.

``OUTPUT.partial/`` holds the request (``request.json``), Parquet files of rows received and
``state.jsonl``: a line with the ids, then one line per answer with its files, the ids in them, and
the ids of which the archive has nothing. A file is valid once its line is written, so that a kill
loses at most one answer. Failed ids are not written down, and so asked for again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from xplabels.fetch.archive import Ids, digest_of
from xplabels.io.atomic import check_new_folder, discard, replace_folder, unwritable, whole_file
from xplabels.io.files import whole
from xplabels.io.job import open_partial, read_json

RECEIVED, ABSENT, FAILED = "received", "absent", "failed"
GIVEN_UP = "not asked: the service failed too often in a row"
REQUEST, STATE = "request.json", "state.jsonl"
RECORD = "fetch.json"
ACCOUNT = "ids.csv"
OUTPUT_FILES = (RECORD, ACCOUNT, "*.parquet")
"""All files that the folder of a finished fetch may hold."""
PARTIAL_FILES = (REQUEST, STATE, "*.parquet", "whole/*", "old/*", "answer-*", ".*.partial.*")
"""All files that the folder of an unfinished fetch may hold."""


class IdStatus(NamedTuple):
    """What became of one id, for one product, and why, unless it was received."""

    status: str = FAILED
    reason: str = GIVEN_UP


@dataclass
class Response:
    """What became of the ids of one request.

    ``parts`` are the ids received, each with a function that writes their rows to a path.
    ``absent`` says why the archive has nothing of an id, ``failed`` why an id got no valid answer.
    """

    parts: list[tuple[Ids, Callable[[Path], object]]] = field(default_factory=list)
    absent: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)


class FetchState:
    """The folder ``OUTPUT.partial`` of one fetch of ``request``, used inside :meth:`opened`."""

    def __init__(self, output: Path, request: Mapping[str, Any]) -> None:
        self.output, self.request = output, dict(request)
        self.folder = output.with_name(output.name + ".partial")
        self.ids: list[int] = []  # sorted; empty until they are known
        self.products: dict[str, dict[int, IdStatus]] = defaultdict(dict)
        self.files: dict[str, list[Path]] = defaultdict(list)  # of each product's rows

    def status(self, product: str, one: int) -> IdStatus:
        """What became of one id of a product."""
        return self.products[product].get(one, IdStatus())

    def finished(self) -> dict[str, Any] | None:
        """The record of the output if it is complete and of the same request, else None."""
        record = read_json(self.output / RECORD) or {}
        complete = record.get("request") == self.request and record.get("complete")
        return record if complete else None

    @contextmanager
    def opened(self, overwrite: bool) -> Iterator[None]:
        """Make the folder, or resume one of the same request.

        Raises InputError if the output or a folder of another request exists without
        ``overwrite``, or if they hold other files.
        """
        if overwrite or not self.folder.exists():
            check_new_folder(self.output, OUTPUT_FILES, overwrite)
        open_partial(self.folder, REQUEST, self.request, PARTIAL_FILES, overwrite)
        with (self.folder / STATE).open("a", encoding="utf-8") as self._file:
            self._restore()
            yield

    def _restore(self) -> None:
        """Read the state, and remove what a killed run left half-written."""
        path = self.folder / STATE
        lines, end, _ = path.read_bytes().rpartition(b"\n")
        os.truncate(path, len(lines + end))
        with whole(path, "record of a fetch", "start anew with --overwrite"):
            for line in map(json.loads, lines.splitlines()):
                if "ids" in line:
                    self.ids = line["ids"]
                else:
                    self._take(line)
        known = {path.name for files in self.files.values() for path in files}
        for path in self.folder.iterdir():
            if path.name not in (REQUEST, STATE, *known):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritable(self.folder / STATE, error) from error

    def _take(self, line: dict[str, Any]) -> None:
        product = line["product"]
        self.files[product] += [self.folder / file for file in line["files"]]
        status = self.products[product]
        status |= dict.fromkeys(line["received"], IdStatus(RECEIVED, ""))
        for why, ids in line["absent"].items():
            status |= dict.fromkeys(ids, IdStatus(ABSENT, why))

    def set_ids(self, ids: Ids) -> None:
        """Set and save the ids; a resumed fetch keeps them, even if the query would give others."""
        self.ids = ids.tolist()
        self._write({"ids": self.ids})

    def record(self, product: str, response: Response) -> None:
        """Save an answer: its rows first, then its line in the state."""
        files, received = [], []
        for ids, write in response.parts:
            files.append(f"{product}-{digest_of(ids)[:20]}.parquet")
            received += ids.tolist()
            with whole_file(self.folder / files[-1], overwrite=True) as path:
                write(path)
        if received or response.absent:
            absent: dict[str, list[int]] = defaultdict(list)
            for one, why in response.absent.items():
                absent[why].append(one)
            line = {"product": product, "files": files, "received": received, "absent": absent}
            self._write(line)
            self._take(line)
        failed = {one: IdStatus(FAILED, why) for one, why in response.failed.items()}
        self.products[product] |= failed

    def publish(self, whole: Path, keep: bool) -> None:
        """Move ``whole``, a folder inside this one, to the output.

        ``keep`` keeps the state, so that ids that failed can be asked for again.
        """
        replace_folder(whole, self.output, self.folder / "old")
        if not keep:
            self.discard()

    def discard(self) -> None:
        """Remove the folder, if it is of this request."""
        if read_json(self.folder / REQUEST) == self.request:
            discard(self.folder, self.output)
