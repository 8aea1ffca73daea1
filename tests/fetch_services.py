"""The archive's services on loopback, and what tests of fetching ask of a result."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archive_files import same, write
from services.http import DataLinkService
from services.made import MadeArchive, made_archive
from services.tap import TapService
from xplabels.fetch import Archive, FetchSettings, RetryPolicy, Targets, fetch_stars
from xplabels.fetch.stars import FetchSummary
from xplabels.io import read, read_stars
from xplabels.releases import load_release

STARS = 40
QUICK = FetchSettings(
    RetryPolicy(attempts=4, first_wait=0.01, timeout=1.0, job_timeout=5.0),
    chunk=10,
    tap_chunk=15,
    progress=False,
)


@dataclass
class Services:
    """The services, and what they serve."""

    made: MadeArchive
    tap: TapService
    datalink: DataLinkService
    release: str | Path = "dr3"

    @property
    def archive(self) -> Archive:
        release = load_release(self.release)
        return Archive(tap=self.tap.address, datalink=self.datalink.address, release=release)

    @property
    def with_spectrum(self) -> set[int]:
        return set(self.made.spectra.source_id)

    def fetch(self, output: Path, ids: Any = None, **options: Any) -> FetchSummary:
        targets = Targets.of_ids(self.made.ids if ids is None else np.array(ids))
        return fetch_stars(targets, output, self.archive, settings=QUICK, **options)

    def check_spectra(self, output: Path) -> None:
        """The spectra of ``output`` are what the archive has."""
        expected = read(write(self.made.spectra, output.parent / "expected.csv"))
        same(read_stars(output / "xp.parquet"), expected[np.argsort(expected.source_id)])

    def calm(self) -> None:
        """Nothing fails any more, and nothing has been asked."""
        for service in (self.tap, self.datalink):
            service.faults.clear()
            service.log.clear()
        self.tap.step = ""
        self.datalink.withheld = self.datalink.poison = ()
        self.datalink.asked.clear()
        self.datalink.stars = self.made.spectra
        self.datalink.answers, self.datalink.zipped, self.datalink.renamed = "", True, {}


@contextmanager
def serving(stars: int = STARS) -> Iterator[Services]:
    """Both services, with a made archive."""
    made = made_archive(stars)
    with TapService(made.tables) as tap, DataLinkService(made.spectra) as datalink:
        yield Services(made, tap, datalink)


@contextmanager
def serving_dr4(
    made: MadeArchive, release: str | Path = "dr4", structures: Sequence[str] = ("DATAMODEL_GAIA",)
) -> Iterator[Services]:
    """Both services of a made DR4."""
    words = ("MEAN_SPECTRUM_XP", "Gaia DR4", (*structures, "DATAMODEL_STANDARD"))
    with TapService(made.tables) as tap, DataLinkService(made.spectra, *words) as datalink:
        yield Services(made, tap, datalink, release)


def account(output: Path) -> dict[int, dict[str, str]]:
    """``ids.csv`` as {id: row}; no id stands in it twice."""
    with (output / "ids.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {int(row["source_id"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
