"""Predictions, block after block, to one Parquet file whose bytes do not depend on the blocks."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 65_536
"""Rows that are packed together: a file of the archive is one or two groups."""


class PartWriter:
    """Writes Arrow tables of any lengths as row groups of :data:`ROW_GROUP` rows.

    Parameters
    ----------
    path
        The file to write.
    """

    def __init__(self, path: Path) -> None:
        self._file = _Summed(path)
        self._writer: Any = None
        self._waiting: list[pa.Table] = []
        self.rows = 0
        self._written = 0

    def add(self, table: pa.Table) -> None:
        """Take the next rows; all tables have the schema of the first."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._waiting.append(table.cast(self._writer.schema))
        self.rows += len(table)
        while self.rows - self._written >= ROW_GROUP:
            together = pa.concat_tables(self._waiting)
            self._write(together[:ROW_GROUP])
            self._waiting = [together[ROW_GROUP:]]

    def finish(self) -> str:
        """Write what waits, close the file and return its MD5 sum."""
        import pyarrow as pa

        if self.rows > self._written:
            self._write(pa.concat_tables(self._waiting))
        if self._writer is not None:
            self._writer.close()
        self._file.close()
        return self._file.md5.hexdigest()

    def abandon(self) -> None:
        """Close what is open; nothing of it is kept."""
        self._file.close()

    def _write(self, table: pa.Table) -> None:
        # in one piece, because pages are cut where pieces are
        self._writer.write_table(table.combine_chunks(), row_group_size=ROW_GROUP)
        self._written += len(table)


class _Summed(io.RawIOBase):
    """A new file that knows the MD5 sum of what was written, all of it in order."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self.md5 = hashlib.md5(usedforsecurity=False)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._file.closed:  # abandoned: what a library still wants to write does not matter
            return len(data)
        rest = memoryview(data).cast("B")
        self.md5.update(rest)
        size = len(rest)
        while len(rest):  # a disk that is nearly full takes a part, and complains at the next
            rest = rest[self._file.write(rest) or 0 :]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()
