"""From the archives to files: spectra and photometry by id, cone or query, and the bulk files."""

from __future__ import annotations

from xplabels.fetch.archive import RELEASES, Archive, Release, release_of
from xplabels.fetch.bulk import BulkFile, BulkSummary, covering, fetch_bulk, list_bulk, matching
from xplabels.fetch.ids import Cone, Targets
from xplabels.fetch.products import PRODUCTS
from xplabels.fetch.retry import RetryPolicy
from xplabels.fetch.run import Settings
from xplabels.fetch.stars import FetchSummary, fetch_stars

__all__ = [
    "PRODUCTS",
    "RELEASES",
    "Archive",
    "BulkFile",
    "BulkSummary",
    "Cone",
    "FetchSummary",
    "Release",
    "RetryPolicy",
    "Settings",
    "Targets",
    "covering",
    "fetch_bulk",
    "fetch_stars",
    "list_bulk",
    "matching",
    "release_of",
]
