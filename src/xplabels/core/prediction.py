"""What a model says of stars: labels, error bars, their parts, and flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.flags import describe
from xplabels.core.labels import LABELS

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
        Uint32 [N] of :class:`~xplabels.core.flags.Flag`.
    meta
        Model, version and command, as they go into the catalogue's metadata.
    correlations
        Float64 [N, K (K - 1) / 2] of the labels' errors, packed as
        ``matrix[np.tril_indices(K, -1)]``; None unless asked for.
    joint_factor
        What multiplies all errors in statements about several labels at once, which miss more
        often than those about one (``JOINTFAC`` in the catalogue's metadata).
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
    correlations: NDArray[np.float64] | None = None
    joint_factor: float = 1.0

    def __len__(self) -> int:
        return len(self.source_id)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Prediction:
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        packed = None if self.correlations is None else self.correlations[rows]
        return replace(self, correlations=packed, **arrays)

    def part(self, name: str) -> NDArray[np.float64]:
        """Errors [N, K] from one of :data:`PARTS`."""
        array: NDArray[np.float64] = getattr(self, f"errors_{name}")
        return array

    def covariance(self) -> NDArray[np.float64]:
        """Covariance of the labels' errors [N, K, K]; its diagonal is ``errors`` squared.

        For regions of several labels at once, multiply it by the square of ``joint_factor``.

        Raises
        ------
        InputError
            If the prediction was made without correlations.
        """
        if self.correlations is None:
            raise InputError(
                "the prediction has no correlations", remedy="predict(stars, correlations=True)"
            )
        matrix = unpacked(self.correlations, len(self.names))
        covariance: NDArray[np.float64] = self.errors[:, :, None] * matrix * self.errors[:, None, :]
        return covariance

    def to_table(self) -> Table:
        """The catalogue: an astropy table with units, UCDs and descriptions.

        Columns: ``source_id``; per label ``teff, teff_error, teff_error_model, teff_error_input,
        teff_error_excess, teff_error_95``; where correlations were asked for,
        ``teff_logg_corr`` for every pair of labels; ``domain_distance``; ``flags``.
        """
        from astropy.table import Column, Table

        told = {} if self.correlations is None else {"JOINTFAC": f"{self.joint_factor:.4f}"}
        table = Table(meta=dict(self.meta) | told)
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
        if self.correlations is not None:
            for pair, packed in zip(pairs(self.names), self.correlations.T, strict=True):
                first, second = (LABELS[label] for label in pair)
                table["_".join((*pair, "corr"))] = Column(
                    packed,
                    description=f"Correlation of the errors of {first.name} and {second.name}",
                    meta={"ucd": f"stat.correlation;{first.ucd};{second.ucd}"},
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


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of labels behind packed correlations, in their order.

    Examples
    --------
    >>> pairs(("teff", "logg", "fe_h"))
    [('teff', 'logg'), ('teff', 'fe_h'), ('logg', 'fe_h')]
    """
    return [(names[j], names[i]) for i in range(len(names)) for j in range(i)]


def packed_correlations(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations [N, K (K - 1) / 2], packed as ``matrix[np.tril_indices(K, -1)]``, of [N, K, K].

    Where a label has no variance there is no correlation: 0.
    """
    rows, columns = np.tril_indices(covariance.shape[1], -1)
    sigma = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0))
    product = sigma[:, rows] * sigma[:, columns]
    packed = np.divide(
        covariance[:, rows, columns], product, out=np.zeros_like(product), where=product > 0
    )
    # rounding must not carry one beyond 1
    limited: NDArray[np.float64] = np.clip(packed, -1.0, 1.0)
    return limited


def unpacked(packed: NDArray[np.float64], labels: int) -> NDArray[np.float64]:
    """Correlation matrices [N, K, K] from packed ones [N, K (K - 1) / 2]."""
    matrix = np.tile(np.eye(labels), (len(packed), 1, 1))
    rows, columns = np.tril_indices(labels, -1)
    matrix[:, rows, columns] = matrix[:, columns, rows] = packed
    return matrix


_ARRAYS = (
    "source_id", "values", "errors", "errors_model", "errors_input", "errors_excess",
    "errors_95", "domain_distance", "flags",
)  # fmt: skip


def stack(blocks: Sequence[Prediction]) -> Prediction:
    """Predictions of several blocks of stars by one model, as one."""
    first = blocks[0]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(b, name) for b in blocks]) for name in _ARRAYS
    }
    packed = [b.correlations for b in blocks if b.correlations is not None]
    correlations = np.concatenate(packed) if len(packed) == len(blocks) else None
    return replace(first, correlations=correlations, **arrays)
