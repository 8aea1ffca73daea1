"""What a model says of stars: labels, error bars, their parts, and flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels.flags import describe
from xplabels.labels import LABELS

if TYPE_CHECKING:
    from astropy.table import Table

PARTS = ("model", "input", "excess")


@dataclass(frozen=True)
class Prediction:
    """Labels of N stars with errors.

    Attributes
    ----------
    source_id
        Int64 [N].
    names
        K label names.
    values
        Float64 [N, K], in the labels' units; NaN where there is no prediction.
    errors
        Float64 [N, K]: half-width of the central 68.3 % interval. Its square is the sum of the
        squares of ``errors_model``, ``errors_input`` and ``errors_excess`` (FS24, eq. 11).
    errors_95
        Float64 [N, K]: half-width of the central 95.4 % interval; more than twice ``errors``,
        because real residuals have heavier tails than a Gaussian.
    domain_distance
        Float64 [N]: how unlike the training set the inputs are.
    flags
        Uint32 [N] of :class:`~xplabels.flags.Flag`.
    meta
        Model, version and command, as they go into the catalogue's metadata.
    """

    source_id: NDArray[np.int64]
    names: tuple[str, ...]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    errors_model: NDArray[np.float64]
    errors_input: NDArray[np.float64]
    errors_excess: NDArray[np.float64]
    errors_95: NDArray[np.float64]
    domain_distance: NDArray[np.float64]
    flags: NDArray[np.uint32]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.source_id)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Prediction:
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return Prediction(names=self.names, meta=self.meta, **arrays)

    def part(self, name: str) -> NDArray[np.float64]:
        """Errors [N, K] from one of :data:`PARTS`."""
        array: NDArray[np.float64] = getattr(self, f"errors_{name}")
        return array

    def to_table(self) -> Table:
        """The catalogue: an astropy table with units, UCDs and descriptions.

        Columns: ``source_id``; per label ``teff, teff_error, teff_error_model, teff_error_input,
        teff_error_excess, teff_error_95``; ``domain_distance``; ``flags``.
        """
        from astropy.table import Column, Table

        table = Table(meta=dict(self.meta))
        table["source_id"] = Column(
            self.source_id,
            description="Gaia source identifier",
            meta={"ucd": "meta.id;meta.main"},
        )
        for k, name in enumerate(self.names):
            label = LABELS[name]
            for suffix, values, text, ucd in self._columns(k):
                table[name + suffix] = Column(
                    values,
                    unit=label.unit,
                    description=f"{label.description}{text}",
                    meta={"ucd": ucd.format(label.ucd)},
                )
        table["domain_distance"] = Column(
            self.domain_distance,
            description="Distance of the inputs from the training set; flagged where far",
            meta={"ucd": "stat.value"},
        )
        table["flags"] = Column(
            self.flags.astype(np.int64),
            description="Bit mask: "
            + "; ".join(" ".join(line.split()) for line in describe().splitlines()),
            meta={"ucd": "meta.code"},
        )
        return table

    def _columns(self, k: int) -> list[tuple[str, NDArray[np.float64], str, str]]:
        error = "stat.error;{}"
        return [
            ("", self.values[:, k], "", "{}"),
            ("_error", self.errors[:, k], ": half-width of the central 68.3 % interval", error),
            *(
                (f"_error_{part}", self.part(part)[:, k], f": {part} part of the error", error)
                for part in PARTS
            ),
            ("_error_95", self.errors_95[:, k], ": half-width of the central 95.4 % interval",
             error),
        ]  # fmt: skip


_ARRAYS = (
    "source_id", "values", "errors", "errors_model", "errors_input", "errors_excess",
    "errors_95", "domain_distance", "flags",
)  # fmt: skip


def stack(blocks: Sequence[Prediction]) -> Prediction:
    """Predictions of several blocks of stars by one model, as one."""
    first = blocks[0]
    arrays = {name: np.concatenate([getattr(b, name) for b in blocks]) for name in _ARRAYS}
    return Prediction(names=first.names, meta=first.meta, **arrays)
