"""What a fetch has so far: the folder from which a killed one goes on, and the final account.

``OUTPUT.partial/`` holds ``request.json``, ``ids.parquet`` and, for each request that was answered,
two files named after the ids it asked for: the rows received, then ``*.ids.parquet`` with what
became of each id. Only the second makes the first count, so that a kill between them loses one
answer and doubles none. A failed id is not written down: it is asked for again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.io.atomic import check_new_folder, check_output, take_lock, whole_file

Ids = NDArray[np.int64]

RECEIVED, ABSENT, FAILED = "received", "absent", "failed"
REQUEST = "fetch.json"
ACCOUNT = "ids.csv"
OUTPUT_FILES = (REQUEST, ACCOUNT, "*.parquet")
"""All that the folder of a fetch may hold."""


@dataclass
class IdStatus:
    """What became of each id, for one product.

    Attributes
    ----------
    received
        Ids of which there are rows.
    absent
        Id -> why the archive has nothing of it.
    failed
        Id -> why it is not known yet.
    """

    received: set[int] = field(default_factory=set)
    absent: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def open_ids(self, ids: Ids) -> Ids:
        """Those of ``ids`` of which nothing is known."""
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
    """The folder ``OUTPUT.partial`` of one fetch.

    Parameters
    ----------
    output
        The folder that the fetch makes.
    request
        What is asked for; a ledger of another request is not gone on with.
    """

    def __init__(self, output: Path, request: Mapping[str, Any]) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".partial")
        self.request = json.dumps(request, indent=1, sort_keys=True)

    def finished(self) -> dict[str, Any] | None:
        """The record of the output if it is complete and of the same request, else None."""
        try:
            record = json.loads((self.output / REQUEST).read_text(encoding="utf-8"))
            same = json.dumps(record["request"], indent=1, sort_keys=True) == self.request
            return dict(record) if same and record["complete"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def open(self, overwrite: bool) -> None:
        """Make the folder, or go on with it if it is of the same request.

        Raises
        ------
        InputError
            If the output or a folder of another request exists and ``overwrite`` is false, or
            they hold files of somebody else.
        """
        manifest = self.folder / "request.json"
        if self.folder.exists() and not self._same(manifest):
            if not overwrite:
                raise InputError(
                    "holds an unfinished fetch of another request",
                    where=self.folder,
                    remedy="give the same command as then, or --overwrite",
                )
            check_new_folder(self.folder, ("request.json", "lock", "*.parquet", "whole/*"), True)
            shutil.rmtree(self.folder)
        if not self.folder.exists():
            check_output(self.folder)
            check_new_folder(self.output, OUTPUT_FILES, overwrite)
            self.folder.mkdir()
        if not manifest.exists():
            with whole_file(manifest) as path:
                path.write_text(self.request, encoding="utf-8")

    def _same(self, manifest: Path) -> bool:
        """Whether the folder is of this request, or one that a kill left before it said so."""
        try:
            return manifest.read_text(encoding="utf-8") == self.request
        except FileNotFoundError:
            return self.folder.is_dir() and not any(self.folder.glob("*.parquet"))
        except OSError:
            return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second fetch out of the folder, and clear away what a kill left half-written.

        Raises
        ------
        InputError
            If another fetch is at work there.
        """
        with (self.folder / "lock").open("w") as lock:
            if not take_lock(lock):
                raise InputError(
                    "another fetch is at work here",
                    where=self.folder,
                    remedy="wait for it, or name another output",
                )
            self._clear()
            yield

    def _clear(self) -> None:
        for left in self.folder.iterdir():
            if left.name.startswith((".", "answer-", "whole", "old")):
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    @staticmethod
    def _rows_of(told: Path) -> Path:
        """The file of rows that ``*.ids.parquet`` is about."""
        return told.with_suffix("").with_suffix(".parquet")

    def ids(self) -> Ids | None:
        """The ids asked for, sorted, if they are written down already."""
        import pyarrow.parquet as pq

        path = self.folder / "ids.parquet"
        if not path.exists():
            return None
        column: Ids = pq.read_table(path).column("source_id").to_numpy()
        return column

    def write_ids(self, ids: Ids) -> None:
        """Write the ids down: whatever the archive says tomorrow, this fetch is of these."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with whole_file(self.folder / "ids.parquet") as path:
            pq.write_table(pa.table({"source_id": ids}), path)

    def name(self, product: str, asked: Ids) -> Path:
        """The file of rows that answers a request for ``asked``."""
        digest = hashlib.sha256(np.ascontiguousarray(asked, "<i8").tobytes()).hexdigest()
        return self.folder / f"{product}-{digest[:20]}.parquet"

    def record(self, rows: Path, received: Ids, absent: Mapping[int, str]) -> None:
        """Write down what became of ids; ``rows`` has been written before, if any came."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(
            {
                "source_id": pa.array([*received.tolist(), *absent], pa.int64()),
                "absent": pa.array([*[None] * len(received), *absent.values()], pa.string()),
            }
        )
        with whole_file(rows.with_suffix(".ids.parquet"), overwrite=True) as path:
            pq.write_table(table, path)

    def rows(self, product: str) -> list[Path]:
        """The files of rows that count, in the order of their names."""
        told = sorted(self.folder.glob(f"{product}-*.ids.parquet"))
        files = [self._rows_of(path) for path in told]
        return [path for path in files if path.exists()]

    def account(self, product: str) -> IdStatus:
        """What is known of each id."""
        import pyarrow.parquet as pq

        account = IdStatus()
        for path in sorted(self.folder.glob(f"{product}-*.ids.parquet")):
            table = pq.read_table(path).to_pydict()
            for one, reason in zip(table["source_id"], table["absent"], strict=True):
                if reason is None:
                    account.received.add(one)
                else:
                    account.absent[one] = reason
        return account

    def publish(self, whole: Path, keep: bool) -> None:
        """Put the finished folder ``whole`` where the output belongs; then remove the ledger.

        Parameters
        ----------
        whole
            Inside the ledger's folder, so that a kill leaves nothing elsewhere.
        keep
            Keep the ledger: some ids failed and can be asked for again.
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
        manifest = self.folder / "request.json"
        if not (self.folder.exists() and self._same(manifest)):
            return
        # the request goes last: without it, what is left would be nobody's
        for path in self.folder.iterdir():
            if path != manifest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        manifest.unlink(missing_ok=True)
        self.folder.rmdir()
