"""What a user brings to an explanation beside a model and stars: extinctions, pairs of spectra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.labels import check_names
from xplabels.core.stars import Stars, check_unique
from xplabels.explain.differences import extinction_g
from xplabels.features import KS_OVER_V
from xplabels.giants.relations import G_OVER_V
from xplabels.instrument.sed import Sed, read_sed

Array = NDArray[np.float64]
Extinction = Literal["library", "rjce"]


@dataclass(frozen=True)
class Pair:
    """Two spectral energy distributions of the same star that differ in one label by ``step``."""

    name: str
    low: Sed
    high: Sed
    step: float


def extinction_of(stars: Stars, given: Extinction | Array) -> Array:
    """A_G [N]."""
    if isinstance(given, str):
        if given == "rjce":
            return extinction_g(stars)
        from xplabels.surveys.library import library_extinction

        return library_extinction(stars.source_id) * (G_OVER_V / KS_OVER_V)
    return given


def known_extinction(stars: Stars) -> Array | None:
    """A_G [N] by H - W2 or, where no star has both, of the library; None if neither is known."""
    a_g = extinction_g(stars)
    if not np.isfinite(a_g).any():
        try:
            a_g = extinction_of(stars, "library")
        except InputError:  # the library is not installed
            return None
    return a_g if np.isfinite(a_g).any() else None


def read_extinction(path: str | Path, stars: Stars) -> Array:
    """A_G [N] of ``stars`` from a table with ``source_id`` and ``a_g`` (mag); NaN where absent.

    Raises
    ------
    InputError
        If the table cannot be read, lacks the columns, or has a source_id twice.
    """
    from xplabels.io.plain import read_table

    table = read_table(path, ("a_g",))
    if "a_g" not in table or table["a_g"].dtype.kind not in "iuf":
        raise InputError(
            "has no column a_g of numbers", where=path, remedy="add A_G in mag, keyed by source_id"
        )
    check_unique(table["source_id"], path)
    order = np.argsort(table["source_id"])
    ids = table["source_id"][order]
    at = np.minimum(np.searchsorted(ids, stars.source_id), len(ids) - 1)
    values = np.asarray(table["a_g"], np.float64)[order][at]
    return np.where(ids[at] == stars.source_id, values, np.nan)


def read_pair(name: str, low: str | Path, high: str | Path, step: str) -> Pair:
    """A pair in the command line's words: label, two tables of wavelength and flux, step.

    Raises
    ------
    InputError
        If the label is unknown, a table cannot be read, or the step is no positive number.
    """
    check_names([name])
    try:
        size = float(step)
    except ValueError:
        size = np.nan
    if not size > 0:
        raise InputError(
            f"the step {step!r} is no positive number",
            remedy=f"give a label, the table of less {name}, that of more, and by how much",
        )
    return Pair(name, read_sed(low), read_sed(high), size)


def check_pair(pair: Pair, labels: Sequence[str]) -> None:
    """Raise :class:`InputError` if a pair's label is none of a model's ``labels``."""
    if pair.name not in labels:
        raise InputError(
            f"the model has no label {pair.name}", remedy=f"give pairs of {', '.join(labels)}"
        )
