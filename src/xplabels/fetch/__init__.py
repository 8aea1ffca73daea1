"""From the archives to files: spectra and photometry by id, cone or query, and the bulk files."""

from __future__ import annotations

from xplabels.fetch.archive import RELEASES, Archive, Release, release_of
from xplabels.fetch.asking import Settings
from xplabels.fetch.bulk import BulkFile, BulkSummary, covering, fetch_bulk, list_bulk, matching
from xplabels.fetch.ids import Cone, Wanted
from xplabels.fetch.patience import Patience
from xplabels.fetch.products import PRODUCTS
from xplabels.fetch.stars import FetchSummary, fetch_stars

__all__ = [
    "PRODUCTS",
    "RELEASES",
    "Archive",
    "BulkFile",
    "BulkSummary",
    "Cone",
    "FetchSummary",
    "Patience",
    "Release",
    "Settings",
    "Wanted",
    "covering",
    "fetch_bulk",
    "fetch_stars",
    "list_bulk",
    "matching",
    "release_of",
]
