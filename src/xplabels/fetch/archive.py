"""The addresses of an archive's services."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.releases import Release, load_release

Ids = NDArray[np.int64]
MOST_IDS = 5000
"""Most stars per request that DataLink allows."""


@dataclass(frozen=True)
class Archive:
    """Addresses of an archive's services (TAP, DataLink, bulk files), ESA's by default."""

    tap: str = "https://gea.esac.esa.int/tap-server/tap"
    datalink: str = "https://gea.esac.esa.int/data-server/data"
    bulk: str = "https://cdn.gea.esac.esa.int/Gaia"
    release: Release = field(default_factory=lambda: load_release("dr3"))

    def bulk_folder(self, table: str) -> str:
        """Address of a bulk table, by its short name or its folder below the release's."""
        bulk = self.release.bulk
        folder = bulk.tables.get(table, table).strip("/")
        if not folder or ".." in folder.split("/"):
            raise InputError(
                f"{table!r} is not a bulk table",
                remedy=f"give one of {', '.join(bulk.tables)}, or a folder",
            )
        return f"{self.bulk.rstrip('/')}/{bulk.folder}/{folder}"


def digest_of(ids: Ids) -> str:
    """SHA-256 of ids, in hexadecimal."""
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
