"""From the archives to files: spectra and photometry by id, cone or query, and the bulk files."""

from __future__ import annotations

from xplabels.fetch.archive import Archive
from xplabels.fetch.bulk import covering, fetch_bulk, list_bulk
from xplabels.fetch.checking import compare
from xplabels.fetch.http import RetryPolicy
from xplabels.fetch.stars import FetchSettings, fetch_stars
from xplabels.fetch.targets import Cone, Targets

__all__ = [
    "Archive",
    "Cone",
    "FetchSettings",
    "RetryPolicy",
    "Targets",
    "compare",
    "covering",
    "fetch_bulk",
    "fetch_stars",
    "list_bulk",
]
