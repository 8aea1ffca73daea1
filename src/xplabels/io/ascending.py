"""A long table keyed by ``source_id``, in its order: met by stars that ascend, it is never held
whole. The bulk files of gaia_source are such tables, eight times as long as the spectra's."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import check_unique
from xplabels.io.delimited import header_names, lines
from xplabels.io.gunzip import Digest, open_bytes, readable_bytes
from xplabels.io.plain import NULLS, Columns
from xplabels.io.rows import DOWNLOAD_AGAIN

ENDINGS = (".csv.gz", ".csv", ".parquet")
TEXT_BYTES = 1 << 22
"""Text parsed at a time."""
BATCH_ROWS = 1 << 16

Ids = NDArray[np.int64]
Batch = tuple[Ids, Columns]


class AscendingTable:
    """Numbers from a table, looked up by ``source_id``.

    Parameters
    ----------
    path
        ``.csv``, ``.csv.gz`` or ``.parquet``.
    wanted
        Lower-case names of columns of numbers, taken as far as they are there.
    digest
        Counts the file's bytes; see :meth:`finish`.

    Raises
    ------
    InputError
        If the file cannot be read or has no column ``source_id``.

    Notes
    -----
    Stars in another order are served too, with the columns of the whole table in memory; and so
    is a table in another order if that shows before the first stars have been looked up. If it
    shows later, what was said may be wrong: that is an error, at the latest in :meth:`finish`.
    """

    def __init__(self, path: Path, wanted: Collection[str], digest: Digest | None = None) -> None:
        self.path, self._digest = path, digest
        with _whole_table(path):
            self._names = _names(path)
        if "source_id" not in self._names:
            raise InputError(
                "column 'source_id' is absent", where=path, remedy="give a table of Gaia sources"
            )
        self.columns = tuple(name for name in wanted if name in self._names)
        self._batches = self._read(digest)
        self._waiting: Batch = self._nothing()
        self._passed = np.iinfo(np.int64).min  # no star up to this one can be found any more
        self._read_to = self._passed  # source_id of the last row read
        self._whole = self._ended = self._asked = False

    def find(self, source_id: Ids) -> tuple[NDArray[np.intp], Columns]:
        """Which of ``source_id`` [N] are in the table, and their columns.

        Raises
        ------
        InputError
            If the table is damaged, has a source_id twice, or turns out not to ascend.
        """
        if not len(source_id):
            return np.empty(0, np.intp), self._nothing()[1]
        if not self._whole and source_id.min() <= self._passed:
            self._read_whole()
        last = source_id.max()
        while not self._ended and not (len(self._waiting[0]) and self._waiting[0][-1] >= last):
            self._read_on(source_id.min())
        ids, columns = self._waiting
        place = np.searchsorted(ids, source_id)
        inside = np.flatnonzero(place < len(ids))
        rows = inside[ids[place[inside]] == source_id[inside]]
        found = {name: values[place[rows]] for name, values in columns.items()}
        if not self._whole:
            self._drop(int(np.searchsorted(ids, last, side="right")), int(last))
        self._asked = True
        return rows, found

    def finish(self) -> None:
        """Read what was not asked for; afterwards the digest is that of the file.

        Raises
        ------
        InputError
            If a row there is out of order, so that a star may have been missed.
        """
        if self._asked and not self._whole:
            for ids, _ in self._batches:
                self._check_order(ids)
        if self._digest is not None:
            self._digest.take_rest(self.path)

    def _nothing(self) -> Batch:
        return np.empty(0, np.int64), {name: np.empty(0) for name in self.columns}

    def _drop(self, rows: int, passed: int) -> None:
        ids, columns = self._waiting
        self._waiting = ids[rows:], {name: values[rows:] for name, values in columns.items()}
        self._passed = max(self._passed, passed)

    def _read_on(self, first: int) -> None:
        """One more batch; what lies before ``first`` is let go."""
        batch = next(self._batches, None)
        if batch is None:
            self._ended = True
            return
        if not self._asked and not self._in_order(batch[0]):
            self._read_whole()
            return
        self._check_order(batch[0])
        ids = np.concatenate([self._waiting[0], batch[0]])
        joined = {n: np.concatenate([self._waiting[1][n], batch[1][n]]) for n in self.columns}
        self._waiting = ids, joined
        self._drop(int(np.searchsorted(ids, first)), first - 1)

    def _read_whole(self) -> None:
        """Begin anew and keep everything, sorted."""
        batches = [self._nothing(), *self._read(None)]
        ids = np.concatenate([one for one, _ in batches])
        if self._asked:
            self._read_to = ids[0] - 1
            self._check_order(ids)
        real = np.flatnonzero(ids > 0)
        check_unique(ids[real], self.path)
        order = real[np.argsort(ids[real], kind="stable")]
        columns = {n: np.concatenate([c[n] for _, c in batches])[order] for n in self.columns}
        self._waiting, self._whole, self._ended = (ids[order], columns), True, True

    def _in_order(self, ids: Ids) -> bool:
        """Whether the next rows go on ascending."""
        return not len(ids) or bool(ids[0] > self._read_to and (ids[1:] > ids[:-1]).all())

    def _check_order(self, ids: Ids) -> None:
        if not self._in_order(ids):
            before = np.concatenate([[self._read_to], ids])
            at = int(np.flatnonzero(before[1:] <= before[:-1])[0])
            raise InputError(
                f"source_id {ids[at]} stands after {before[at]}: stars may have been missed",
                where=self.path,
                remedy="sort the table by source_id",
            )
        if len(ids):
            self._read_to = int(ids[-1])

    def _read(self, digest: Digest | None) -> Iterator[Batch]:
        chosen = {name: self._names[name] for name in ("source_id", *self.columns)}
        parquet = self.path.suffix.lower() == ".parquet"
        with _whole_table(self.path):
            for table in (
                _parquet(self.path, chosen) if parquet else _csv(self.path, chosen, digest)
            ):
                ids = table.column(chosen["source_id"])
                if ids.null_count:
                    raise InputError("has a row without source_id", where=self.path)
                yield (
                    _int64(ids, self.path),
                    {
                        name: _float64(table.column(chosen[name]), name, self.path)
                        for name in self.columns
                    },
                )


def _int64(column: Any, path: Path) -> Ids:
    import pyarrow as pa

    if not pa.types.is_integer(column.type):
        raise InputError(
            f"holds {column.type} values, not 64-bit integers", where=f"{path}, column source_id"
        )
    ids: Ids = column.to_numpy(zero_copy_only=False).astype(np.int64)
    return ids


def _float64(column: Any, name: str, path: Path) -> NDArray[np.float64]:
    import pyarrow as pa

    try:
        numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(
            zero_copy_only=False
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"does not hold numbers ({str(error).splitlines()[0][:100]})",
            where=f"{path}, column {name}",
        ) from error
    return numbers


def _names(path: Path) -> dict[str, str]:
    """Lower-case name -> name in the file."""
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".parquet":
        return {name.lower(): name for name in pq.read_schema(path).names}
    return {name: name for name in _header(path)[1]}


def _header(path: Path) -> tuple[int, list[str]]:
    """Lines up to and with the header, and the columns' names."""
    head = lines(path)
    before, header = 1, next(head, "")
    while header.startswith("#"):
        before, header = before + 1, next(head, "")
    head.close()  # type: ignore[attr-defined]
    return before, header_names(header.removeprefix("\ufeff"), ",")


def _csv(path: Path, chosen: dict[str, str], digest: Digest | None) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import csv

    before, names = _header(path)
    types = dict.fromkeys(chosen.values(), pa.float64()) | {chosen["source_id"]: pa.int64()}
    with open_bytes(path, digest) as file:
        yield from csv.open_csv(
            file,
            read_options=csv.ReadOptions(
                skip_rows=before, column_names=names, use_threads=False, block_size=TEXT_BYTES
            ),
            convert_options=csv.ConvertOptions(
                include_columns=list(chosen.values()), column_types=types, null_values=list(NULLS)
            ),
        )


def _parquet(path: Path, chosen: dict[str, str]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(BATCH_ROWS, columns=list(chosen.values()), use_threads=False)


@contextmanager
def _whole_table(path: Path) -> Iterator[None]:
    """What goes wrong in reading is an :class:`InputError` that names the file."""
    import pyarrow as pa

    try:
        with readable_bytes(path):
            yield
    except (pa.ArrowException, zlib.error) as error:
        raise InputError(
            f"is damaged or truncated ({(str(error).splitlines() or ['empty'])[0][:200]})",
            where=path,
            remedy=DOWNLOAD_AGAIN,
        ) from error
