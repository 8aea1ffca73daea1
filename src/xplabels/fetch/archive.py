"""Where an archive is and what a data release calls things."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError

Ids = NDArray[np.int64]
MOST_IDS = 5000
"""DataLink hands out no more stars per request."""


@dataclass(frozen=True)
class Release:
    """What a data release calls things."""

    name: str  # in DataLink
    schema: str  # of its tables in TAP
    spectra: str  # DataLink's type of the mean XP spectra
    folder: str  # of its bulk files, below Archive.bulk
    bulk_tables: Mapping[str, str]  # short name -> folder of bulk files, below folder


RELEASES: dict[str, Release] = {
    "dr3": Release(
        "Gaia DR3",
        "gaiadr3",
        "XP_CONTINUOUS",
        "gdr3",
        {
            "xp": "Spectroscopy/xp_continuous_mean_spectrum",
            "gaia_source": "gaia_source",
            "astrophysical_parameters": "Astrophysical_parameters/astrophysical_parameters",
        },
    ),
    # announced, not seen yet: the type is astroquery's, schema and folder follow DR3's pattern
    "dr4": Release(
        "Gaia DR4", "gaiadr4", "MEAN_SPECTRUM_XP", "gdr4", {"gaia_source": "gaia_source"}
    ),
}


@dataclass(frozen=True)
class Archive:
    """Addresses of an archive's services (TAP, DataLink, bulk files), ESA's by default."""

    tap: str = "https://gea.esac.esa.int/tap-server/tap"
    datalink: str = "https://gea.esac.esa.int/data-server/data"
    bulk: str = "https://cdn.gea.esac.esa.int/Gaia"
    release: Release = field(default_factory=lambda: RELEASES["dr3"])

    def bulk_folder(self, table: str) -> str:
        """Address of a bulk table, by its short name or its folder below the release's."""
        folder = self.release.bulk_tables.get(table, table).strip("/")
        if not folder or ".." in folder.split("/"):
            raise InputError(
                f"{table!r} is no bulk table",
                remedy=f"give one of {', '.join(self.release.bulk_tables)}, or a folder",
            )
        return f"{self.bulk.rstrip('/')}/{self.release.folder}/{folder}"


def digest_of(ids: Ids) -> str:
    """SHA-256 of ids, in hexadecimal."""
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()


def release_of(name: str) -> Release:
    """The release called ``name`` (``dr3``, ``dr4``); :class:`InputError` if there is none."""
    if name not in RELEASES:
        raise InputError(f"no data release {name!r}", remedy=f"choose {' or '.join(RELEASES)}")
    return RELEASES[name]
