"""Stars by id, cone or query -> a folder of tables, every id accounted for."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xplabels import __version__
from xplabels.core.errors import InputError, counted
from xplabels.fetch.archive import Archive
from xplabels.fetch.assembly import write_spectra, write_table
from xplabels.fetch.ids import Targets
from xplabels.fetch.products import GAIA_SOURCE, PRODUCTS, SPECTRA
from xplabels.fetch.retry import check_installed
from xplabels.fetch.run import FetchRun, Settings
from xplabels.fetch.state import ABSENT, ACCOUNT, FAILED, RECEIVED, REQUEST, FetchState

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
    wanted: Targets,
    output: str | Path,
    archive: Archive | None = None,
    products: Sequence[str] = PRODUCTS,
    settings: Settings | None = None,
    overwrite: bool = False,
) -> FetchSummary:
    """Fetch spectra and photometry of stars from an archive.

    Parameters
    ----------
    wanted
        The stars.
    output
        Folder to make: ``xp.parquet`` (a star table of this package), ``gaia_source.parquet``,
        ``tmass.parquet``, ``allwise.parquet`` (the archive's column names, one row a star,
        keyed by ``source_id``), ``ids.csv`` (what became of each id) and ``fetch.json`` (what was
        asked of whom). While the fetch lasts, ``OUTPUT.partial`` holds what has come; the same
        call goes on from there.
    archive
        The archive's addresses and data release; ESA's and DR3 by default.
    products
        Of :data:`~xplabels.fetch.products.PRODUCTS`; ``gaia_source`` is always among them, since
        it tells which stars exist and which have spectra.
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
    archive, settings = archive or Archive(), settings or Settings()
    chosen = _chosen(products)
    request = {
        "format": FORMAT,
        "stars": wanted.told(),
        "products": list(chosen),
        "release": archive.release.name,
        "tap": archive.tap,
        "datalink": archive.datalink,
    }
    ledger = FetchState(Path(output), request)
    record = None if overwrite else ledger.finished()
    if record is not None:
        ledger.discard()
        return FetchSummary(Path(output), record["ids"], record["counts"])
    ledger.open(overwrite)
    with ledger.locked():
        asking = FetchRun(wanted, ledger, archive, settings)
        asking.run(chosen)
        summary = _summary(asking)
        _publish(asking, summary, request)
    return summary


def _chosen(products: Sequence[str]) -> tuple[str, ...]:
    for name in products:
        if name not in PRODUCTS:
            raise InputError(f"no product {name!r}", remedy=f"choose of {', '.join(PRODUCTS)}")
    return tuple(name for name in PRODUCTS if name in products or name == GAIA_SOURCE.name)


def _summary(asking: FetchRun) -> FetchSummary:
    return FetchSummary(
        asking.ledger.output,
        len(asking.ids),
        {name: account.counts(asking.ids) for name, account in asking.accounts.items()},
        tuple(
            (name, reason, count)
            for name, account in asking.accounts.items()
            for reason, count in Counter(account.failed.values()).most_common()
        ),
    )


def _publish(asking: FetchRun, summary: FetchSummary, request: dict[str, Any]) -> None:
    """Write the output from the ledger: the tables, the account, the record."""
    ledger = asking.ledger
    whole = ledger.folder / "whole"
    whole.mkdir()
    for name in asking.accounts:
        files = ledger.rows(name)
        if files:
            write = write_spectra if name == SPECTRA else write_table
            write(files, whole / f"{name}.parquet")
    _write_account(asking, whole / ACCOUNT)
    record = {
        "request": request,
        "xplabels": __version__,
        "ids": summary.ids,
        "counts": summary.counts,
        "complete": summary.complete,
    }
    (whole / REQUEST).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    ledger.publish(whole, keep=not summary.complete)


def _write_account(asking: FetchRun, path: Path) -> None:
    """One row an id: its status for each product, and the reasons."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["source_id", *asking.accounts, "reason"])
        for one in asking.ids.tolist():
            states = {name: account.status(one) for name, account in asking.accounts.items()}
            reasons = [f"{name}: {reason}" for name, (_, reason) in states.items() if reason]
            writer.writerow([one, *(status for status, _ in states.values()), "; ".join(reasons)])
