"""From the archives to files: spectra and photometry by id, cone or query, and the bulk files."""

from __future__ import annotations

from xplabels.fetch.archive import RELEASES, Archive, Release, release_of
from xplabels.fetch.bulk import BulkSummary, RemoteFile, covering, fetch_bulk, list_bulk, matching
from xplabels.fetch.http import RetryPolicy, ServiceError
from xplabels.fetch.products import PRODUCTS
from xplabels.fetch.stars import FetchSettings, FetchSummary, fetch_stars
from xplabels.fetch.targets import Cone, Targets

__all__ = [
    "PRODUCTS",
    "RELEASES",
    "Archive",
    "BulkSummary",
    "Cone",
    "FetchSettings",
    "FetchSummary",
    "Release",
    "RemoteFile",
    "RetryPolicy",
    "ServiceError",
    "Targets",
    "covering",
    "fetch_bulk",
    "fetch_stars",
    "list_bulk",
    "matching",
    "release_of",
]
