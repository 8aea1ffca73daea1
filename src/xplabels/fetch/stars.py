"""Stars by id, cone or query -> a folder of tables, every id accounted for."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xplabels import __version__
from xplabels.core.errors import InputError, counted
from xplabels.core.stacking import concatenate
from xplabels.core.stars import Stars, with_widths
from xplabels.fetch.archive import Archive
from xplabels.fetch.http import check_installed
from xplabels.fetch.products import GAIA_SOURCE, PRODUCTS, SPECTRA
from xplabels.fetch.run import FetchRun, FetchSettings
from xplabels.fetch.state import ABSENT, ACCOUNT, FAILED, RECEIVED, RECORD, FetchState
from xplabels.fetch.targets import Targets
from xplabels.io import read_stars, write_star_blocks
from xplabels.io.parquet import COMPRESSION_LEVEL, ROW_GROUP
from xplabels.io.rows import BANDS

FORMAT = 1


@dataclass(frozen=True)
class FetchSummary:
    """What a fetch brought.

    Attributes
    ----------
    output
        The folder.
    ids
        Stars asked for.
    counts
        Product -> status -> ids; the statuses of a product add up to ``ids``.
    reasons
        Why ids failed, the most common reason first: (product, reason, ids).
    """

    output: Path
    ids: int
    counts: dict[str, dict[str, int]]
    reasons: tuple[tuple[str, str, int], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether no id failed."""
        return not any(counts[FAILED] for counts in self.counts.values())

    def to_text(self) -> str:
        """The account as a table."""
        head = f"{'':12}{RECEIVED:>10}{ABSENT:>10}{FAILED:>10}"
        rows = [
            f"{product:12}" + "".join(f"{c[status]:10d}" for status in (RECEIVED, ABSENT, FAILED))
            for product, c in self.counts.items()
        ]
        return "\n".join([f"{counted(self.ids, 'star')} asked for", head, *rows])


def fetch_stars(
    targets: Targets,
    output: str | Path,
    archive: Archive | None = None,
    products: Sequence[str] = PRODUCTS,
    settings: FetchSettings | None = None,
    overwrite: bool = False,
) -> FetchSummary:
    """Fetch spectra and photometry of stars from an archive.

    Parameters
    ----------
    targets
        The stars.
    output
        Folder to make: ``xp.parquet`` (a star table of this package), ``gaia_source.parquet``,
        ``tmass.parquet``, ``allwise.parquet`` (the archive's column names, one row per star,
        keyed by ``source_id``), ``ids.csv`` (what became of each id) and ``fetch.json`` (what was
        asked of whom). While the fetch lasts, ``OUTPUT.partial`` holds what has come; the same
        call goes on from there.
    archive
        The archive's addresses and data release; ESA's and DR3 by default.
    products
        Of :data:`~xplabels.fetch.products.PRODUCTS`; ``gaia_source`` is always among them, since
        it says which stars exist and which have spectra.
    settings
        How to ask.
    overwrite
        Replace an output of another request, or ask anew for one that is complete.

    Returns
    -------
    FetchSummary
        Whose ``complete`` is false if ids failed in spite of all attempts; the same call asks for
        those again.

    Raises
    ------
    InputError
        If the output exists and is of another request; if the request makes no sense to the
        service; if a table of the archive lacks a column that is needed; without the extra
        ``archive``.
    """
    check_installed()
    archive, settings = archive or Archive(), settings or FetchSettings()
    for name in products:
        if name not in PRODUCTS:
            raise InputError(f"no product {name!r}", remedy=f"choose of {', '.join(PRODUCTS)}")
    chosen = [name for name in PRODUCTS if name in products or name == GAIA_SOURCE.name]
    request = {
        "format": FORMAT,
        "stars": targets.to_dict(),
        "products": chosen,
        "release": archive.release.name,
        "tap": archive.tap,
        "datalink": archive.datalink,
    }
    state = FetchState(Path(output), request)
    record = None if overwrite else state.finished()
    if record is not None:
        state.discard()
        return FetchSummary(Path(output), record["ids"], record["counts"])
    with state.opened(overwrite):
        run = FetchRun(targets, state, archive, settings)
        run.run(chosen)
        return _publish(run, chosen)


def _publish(run: FetchRun, products: Sequence[str]) -> FetchSummary:
    """Write the output: the tables, the account of ids, the record."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    state, ids = run.state, run.ids
    status = {name: state.products[name] for name in products}
    summary = FetchSummary(
        state.output,
        len(ids),
        {name: one.counts(ids) for name, one in status.items()},
        tuple(
            (name, reason, count)
            for name, one in status.items()
            for reason, count in Counter(one.failed.values()).most_common()
        ),
    )
    whole = state.folder / "whole"
    whole.mkdir()
    for name, one in status.items():
        path = whole / f"{name}.parquet"
        if one.files and name == SPECTRA:
            write_star_blocks(_sorted_blocks(one.files), path)
        elif one.files:
            table = pa.concat_tables(pq.read_table(file) for file in one.files)
            table = table.sort_by("source_id").combine_chunks()
            pq.write_table(table, path, compression="zstd", compression_level=COMPRESSION_LEVEL)
    with (whole / ACCOUNT).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["source_id", *products, "reason"])
        for one_id in ids.tolist():
            states = {name: one.status(one_id) for name, one in status.items()}
            reasons = [f"{name}: {reason}" for name, (_, reason) in states.items() if reason]
            writer.writerow([one_id, *(word for word, _ in states.values()), "; ".join(reasons)])
    record: dict[str, Any] = {
        "request": state.request,
        "xplabels": __version__,
        "ids": summary.ids,
        "counts": summary.counts,
        "complete": summary.complete,
    }
    (whole / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    state.publish(whole, keep=not summary.complete)
    return summary


def _sorted_blocks(files: Sequence[Path]) -> Iterator[Stars]:
    """The stars of ``files`` by source_id, a row group at a time.

    The files' ranges of source_id may overlap, where ids were asked for again: each file is kept
    in memory from the first block that needs it to the last.
    """
    import pyarrow.parquet as pq

    ids = [pq.read_table(file, columns=["source_id"])["source_id"].to_numpy() for file in files]
    every = np.concatenate(ids)
    file_of = np.repeat(np.arange(len(files)), [len(part) for part in ids])
    order = np.argsort(every)
    # every block has both bands, even if none of its stars has; a band that no star of a file has
    # is of type null there
    kinds = [[pq.read_schema(f).field(f"{b}_coefficients").type for b in BANDS] for f in files]
    bp, rp = np.array([[getattr(kind, "list_size", 0) for kind in row] for row in kinds]).max(0)
    read: dict[int, Stars] = {}
    for start in range(0, len(order), ROW_GROUP):
        rows = order[start : start + ROW_GROUP]
        parts = []
        for n in np.unique(file_of[rows]).tolist():
            stars = read[n] if n in read else read_stars(files[n])
            read[n] = with_widths(stars, (int(bp), int(rp)))
            parts.append(read[n][np.flatnonzero(np.isin(read[n].source_id, every[rows]))])
        block = concatenate(parts)
        yield block[np.argsort(block.source_id)]
        read = {n: stars for n, stars in read.items() if ids[n].max() > every[rows[-1]]}
