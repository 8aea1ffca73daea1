"""Which stars to fetch: a file of ids, a cone on the sky, or an ADQL query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, located
from xplabels.fetch.archive import Ids, digest_of
from xplabels.fetch.tap import Tap
from xplabels.io import forms
from xplabels.io.files import byte_lines
from xplabels.io.plain import read_table
from xplabels.releases import Release

Degrees = NDArray[np.float64]
MOST_ROWS = 3_000_000
"""Rows that an asynchronous query of an anonymous user may return at ESA's archive."""


@dataclass(frozen=True)
class Cone:
    """A circle on the sky, in degrees (ICRS)."""

    ra: float
    dec: float
    radius: float

    @classmethod
    def parse(cls, text: str) -> Cone:
        """A cone as the command line writes it, ``RA,DEC,RADIUS``; else :class:`InputError`.

        Examples
        --------
        >>> Cone.parse("56.75,24.12,1")
        Cone(ra=56.75, dec=24.12, radius=1.0)
        """
        remedy = "write it as RA,DEC,RADIUS in degrees, e.g. 56.75,24.12,1"
        try:
            ra, dec, radius = (float(word) for word in text.split(","))
        except ValueError as error:
            raise InputError(f"{text!r} is not a cone", remedy=remedy) from error
        if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 180):
            raise InputError(f"the cone {text!r} is not on the sphere", remedy=remedy)
        return cls(ra, dec, radius)

    def contains(
        self, ra: Degrees, dec: Degrees, beyond: Degrees | float = 0.0
    ) -> NDArray[np.bool_]:
        """Which positions [N] lie in it, or no farther than ``beyond`` from it; in degrees.

        Examples
        --------
        >>> Cone(0.0, 60.0, 1.0).contains(np.array([1.9, 359.0, 4.0]), np.full(3, 60.0))
        array([ True,  True, False])
        """
        from astropy.coordinates import angular_separation

        positions = (np.deg2rad(degrees) for degrees in (ra, dec, self.ra, self.dec))
        return np.asarray(angular_separation(*positions) <= np.deg2rad(self.radius + beyond))


@dataclass(frozen=True)
class Targets:
    """The stars to fetch: ``ids`` [N] (sorted, each once), or those that ``query`` returns."""

    ids: Ids | None = None
    query: str = ""
    ids_release: str = ""  # data release of the ids (dr3), if not the archive's own

    @classmethod
    def of_ids(cls, ids: Ids, ids_release: str = "") -> Targets:
        """Targets from ids in any order, each once or more."""
        return cls(np.unique(np.asarray(ids, np.int64)), ids_release=ids_release)

    @classmethod
    def of_file(cls, path: Path, ids_release: str = "") -> Targets:
        """The ids in a table (see :func:`~xplabels.io.forms.names_of`), or, ``.txt``, one per line.

        Ids that are zero or negative, with which surveys mark stars without one, are left out.
        Raises InputError if the file cannot be read or holds no id.
        """
        if path.suffix == ".txt":
            ids = _ids_of_text(path)
        else:
            ids = read_table(path, columns=())["source_id"]  # which is always read
        ids = ids[ids > 0]
        if not len(ids):
            raise InputError("holds no source_id", where=path, remedy="give at least one")
        return cls.of_ids(ids, ids_release)

    @classmethod
    def of_cone(cls, cone: Cone, release: Release) -> Targets:
        """All sources inside a cone."""
        circle = f"CIRCLE('ICRS', {cone.ra!r}, {cone.dec!r}, {cone.radius!r})"
        return cls(
            query=f"SELECT stars.{release.cone.key} AS source_id FROM {release.cone.name} AS stars "
            f"WHERE 1 = CONTAINS(POINT('ICRS', {release.position('stars')}), {circle})"
        )

    def to_dict(self) -> dict[str, Any]:
        """What identifies the request."""
        if self.ids is None:
            return {"query": self.query}
        release = {"ids_release": self.ids_release} if self.ids_release else {}
        return {"ids": len(self.ids), "ids_sha256": digest_of(self.ids), **release}

    def find(self, tap: Tap) -> Ids:
        """The ids [N], sorted, each once.

        Raises InputError if the service refuses the query, returns no ``source_id``, or no row.
        """
        if self.ids is not None:
            return self.ids
        with located(f"{tap.url}, query for the stars"):
            columns = tap.query(self.query, most=MOST_ROWS)
        if "source_id" not in columns:
            raise InputError(
                f"the query returns no column source_id but {', '.join(columns)}",
                remedy="select source_id",
            )
        ids = columns["source_id"]
        if np.ma.getmaskarray(ids).any() or ids.dtype.kind not in "iu":
            raise InputError("the query's source_id is not an integer in every row")
        if not len(ids):
            raise InputError("the query finds no star", remedy="widen it")
        return np.unique(np.ma.getdata(ids).astype(np.int64))


def _ids_of_text(path: Path) -> Ids:
    """The ids of a file without columns; a heading, blank lines and comments are skipped."""
    ids: list[int] = []
    for row, line in enumerate(byte_lines(path)):
        text = line.decode("utf-8", "replace").strip()
        if text.startswith("#") or (not ids and forms.names_of([text], path, ("source_id",))):
            continue
        words = [text] if "gaia" in text.lower() else text.replace(",", " ").split()
        ids += [forms.id_of_text(word, row, path) for word in words]
    id_array = np.array(ids, np.int64)
    forms.check_rounding(id_array, path)
    return id_array
