"""What a model predicts for stars: labels, errors and their parts, and flags."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, require
from xplabels.core.flags import GOOD, describe, is_good
from xplabels.core.labels import Rows, label_of, rows_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from astropy.table import Table

PARTS = ("model", "input", "excess")
SHOWN = 5
"""Stars in the HTML of a prediction."""


def plus_minus(value: float, error: float) -> str:
    """A value to the second significant digit of its error.

    Examples
    --------
    >>> plus_minus(10142.3, 898.7), plus_minus(2.4381, 0.0713)
    ('10140 ± 900', '2.438 ± 0.071')
    """
    if not (np.isfinite(value) and error > 0):
        return f"{value:.4g} ± {error:.2g}"
    digits = 1 - int(np.floor(np.log10(float(f"{error:.2g}"))))
    value, error = round(value, digits), round(error, digits)
    return f"{value:.{max(digits, 0)}f} ± {error:.{max(digits, 0)}f}"


@dataclass(frozen=True, repr=False)
class LabelEstimate:
    """One label of N stars: ``labels["teff"]``.

    Attributes
    ----------
    name, unit
        Of the label.
    value, error, error_95
        Float64 [N]: the label and the half-widths of its 68.3 and 95.4 % intervals.
    parts
        Error [N] from each of :data:`PARTS`; their squares add up to that of ``error``.
    """

    name: str
    unit: str
    value: NDArray[np.float64]
    error: NDArray[np.float64]
    error_95: NDArray[np.float64]
    parts: dict[str, NDArray[np.float64]]

    def __repr__(self) -> str:
        first = [plus_minus(v, e) for v, e in zip(self.value[:SHOWN], self.error, strict=False)]
        more = ", ..." if len(self.value) > SHOWN else ""
        title = f"{self.name} [{self.unit}]" if self.unit else self.name
        return f"LabelEstimate({title}, N = {len(self.value)}: {', '.join(first)}{more})"


@dataclass(frozen=True, repr=False)
class Prediction:
    """Labels of N stars with errors.

    Attributes
    ----------
    source_id
        Int64 [N].
    names
        K labels, each its name with unit and words.
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
    joint_factors
        What multiplies all errors in 68.3 and in 95.4 % statements about several labels at once,
        which miss more often than those about one (``JOINTFAC`` and ``JOINTF95`` in the catalogue's
        metadata).
    fit_chisq
        Float64 [N]: chi-squared of the spectrum about the one that the labels predict, by the
        archive's covariance and the model's intrinsic scatter; NaN without a forward model.
    fit_p_value
        Float64 [N]: share of ordinary single stars with as much noise that fit at least as badly.

    Examples
    --------
    >>> import xplabels as xp
    >>> labels = xp.load_model().predict(xp.example_stars(3))
    >>> labels.names, labels["teff"].value.shape, labels["teff"].parts["input"].shape
    (('teff', 'logg', 'fe_h', 'c_fe', 'n_fe', 'alpha_m'), (3,), (3,))
    >>> len(labels[labels["teff"].error < 1e5])
    3
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
    joint_factors: tuple[float, float] = (1.0, 1.0)
    fit_chisq: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    fit_p_value: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        for name in ("fit_chisq", "fit_p_value"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(len(self.source_id), np.nan))

    def __len__(self) -> int:
        return len(self.source_id)

    @overload
    def __getitem__(self, key: str) -> LabelEstimate: ...

    @overload
    def __getitem__(self, key: Rows) -> Prediction: ...

    def __getitem__(self, key: str | Rows) -> LabelEstimate | Prediction:
        """One label by its name, or the stars of a mask, a slice or row numbers."""
        if isinstance(key, str):
            k = self._column(key)
            return LabelEstimate(
                key,
                label_of(self.names[k]).unit,
                self.values[:, k],
                self.errors[:, k],
                self.errors_95[:, k],
                {part: self.part(part)[:, k] for part in PARTS},
            )
        rows, known = rows_of(key, len(self)), ((name, getattr(self, name)) for name in _ARRAYS)
        some: dict[str, Any] = {name: one if one is None else one[rows] for name, one in known}
        return replace(self, **some)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.names)

    def __repr__(self) -> str:
        good = int(self.good.sum())
        model = f" by {self.meta['MODEL']}" if self.meta.get("MODEL") else ""
        return f"Prediction(N = {len(self)}: {', '.join(self.names)}{model}; {good} good)"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{label_of(name).with_unit}</th>" for name in self.names)
        rows = []
        for star in range(min(len(self), SHOWN)):
            cells = "".join(
                f"<td>{plus_minus(value, error)}</td>"
                for value, error in zip(self.values[star], self.errors[star], strict=True)
            )
            rows.append(
                f"<tr><td>{self.source_id[star]}</td>{cells}<td>{self.flags[star]}</td></tr>"
            )
        return (
            f"<p>{self!r}</p><table><tr><th>source_id</th>{head}<th>flags</th></tr>"
            f"{''.join(rows)}</table>"
        )

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which stars [N] have a prediction and no flag that casts doubt on it (docs/flags.md)."""
        return is_good(self.flags)

    def part(self, name: str) -> NDArray[np.float64]:
        """Errors [N, K] from one of :data:`PARTS`."""
        array: NDArray[np.float64] = getattr(self, f"errors_{name}")
        return array

    def covariance(self, names: str | Sequence[str] | None = None) -> NDArray[np.float64]:
        """Covariance of the errors of the labels ``names``, by default all, [N, K, K].

        Its diagonal is ``errors`` squared. For regions of several labels at once, multiply it by
        the square of ``joint_factors[0]`` for 68.3 %, ``[1]`` for 95.4 %.

        Raises
        ------
        InputError
            If the prediction was made without correlations, or lacks a label.
        """
        if self.correlations is None:
            raise InputError(
                "the prediction has no correlations", remedy="predict(stars, covariance=True)"
            )
        matrix = unpacked(self.correlations, len(self.names))
        covariance: NDArray[np.float64] = self.errors[:, :, None] * matrix * self.errors[:, None, :]
        if names is None:
            return covariance
        columns = [self._column(name) for name in ([names] if isinstance(names, str) else names)]
        return covariance[:, columns][:, :, columns]

    def _column(self, name: str) -> int:
        if name not in self.names:
            raise InputError(
                f"no label {name!r} was predicted", remedy=f"there are {', '.join(self.names)}"
            )
        return self.names.index(name)

    def to_arrow(self) -> pa.Table:
        """The catalogue, with units, UCDs and descriptions in the fields' metadata.

        Columns: ``source_id``; per label ``teff, teff_error, teff_error_model, teff_error_input,
        teff_error_excess, teff_error_95``; if correlations were asked for, ``teff_logg_corr`` for
        every pair of labels; ``domain_distance``; ``fit_chisq, fit_p_value``; ``good``; ``flags``.
        """
        import pyarrow as pa

        arrays, fields = [], []
        for name, values, unit, ucd, description in self._columns():
            about = {"unit": unit, "ucd": ucd, "description": description}
            metadata = {key: text for key, text in about.items() if text}
            kind = pa.from_numpy_dtype(values.dtype)
            bits = np.packbits(values, bitorder="little") if values.dtype == bool else values
            # not by pa.array, which would import pandas to check for its types
            buffers = [None, pa.py_buffer(np.ascontiguousarray(bits))]
            arrays.append(pa.Array.from_buffers(kind, len(values), buffers))
            fields.append(pa.field(name, kind, metadata=metadata))
        meta = dict(self.meta)
        if self.correlations is not None:
            inner, outer = self.joint_factors
            meta |= {"JOINTFAC": f"{inner:.4f}", "JOINTF95": f"{outer:.4f}"}
        return pa.table(arrays, schema=pa.schema(fields, metadata=meta_text(meta)))

    def to_table(self) -> Table:
        """The catalogue (:meth:`to_arrow`) as an astropy table."""
        table = astropy_table(self.to_arrow())
        bits, flags = "FLAGS", table["flags"]
        table.meta[bits], flags.description = flags.description, f"Bit mask, see meta[{bits!r}]"
        return table

    def to_pandas(self) -> pd.DataFrame:
        """The catalogue (:meth:`to_arrow`) as a data frame."""
        require("pandas")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """The catalogue (:meth:`to_arrow`) as a data frame of polars."""
        require("polars")
        import polars

        return polars.DataFrame(self.to_arrow())

    def write(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the catalogue in the format of the ending; see :func:`xplabels.write_catalogue`."""
        from xplabels.io.catalogue import write_catalogue

        write_catalogue(self, path, overwrite)

    def _columns(self) -> Iterator[tuple[str, NDArray[Any], str, str, str]]:
        """Name, values, unit, UCD and description of each column."""
        yield "source_id", self.source_id, "", "meta.id;meta.main", "Gaia source identifier"
        for name in map(label_of, self.names):
            one, error = self[name], f"stat.error;{name.ucd}".rstrip(";")
            parts = [
                (f"_error_{part}", values, error, f": {part} part of the error")
                for part, values in one.parts.items()
            ]
            for suffix, values, ucd, text in (
                ("", one.value, name.ucd, ""),
                ("_error", one.error, error, ": half-width of the central 68.3 % interval"),
                *parts,
                ("_error_95", one.error_95, error, ": half-width of the central 95.4 % interval"),
            ):
                yield name + suffix, values, name.unit, ucd, f"{name.description}{text}"
        if self.correlations is not None:
            for pair, packed in zip(pairs(self.names), self.correlations.T, strict=True):
                ucd = ";".join(("stat.correlation", *filter(None, (label_of(n).ucd for n in pair))))
                text = f"Correlation of the errors of {pair[0]} and {pair[1]}"
                yield "_".join((*pair, "corr")), packed, "", ucd, text
        text = "Distance of the inputs from the training set; flagged where far"
        yield "domain_distance", self.domain_distance, "", "stat.value", text
        text = "Chi-squared of the spectrum about the one that the labels predict"
        yield "fit_chisq", self.fit_chisq, "", "stat.fit.chi2", text
        text = "Share of ordinary single stars with as much noise that fit at least as badly"
        yield "fit_p_value", self.fit_p_value, "", "stat.probability", text
        yield "good", self.good, "", "meta.code.qual", f"The star {GOOD}"
        bits = "; ".join(" ".join(line.split()) for line in describe().splitlines())
        yield "flags", self.flags.astype(np.int64), "", "meta.code", f"Bit mask: {bits}"


def astropy_table(arrow: pa.Table) -> Table:
    """A catalogue's Arrow table as an astropy table; metadata come as text."""
    from astropy.table import Column, Table

    def decoded(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
        return {key.decode(): text.decode() for key, text in (metadata or {}).items()}

    table = Table(meta=decoded(arrow.schema.metadata))
    for column in arrow.schema:
        about = decoded(column.metadata)
        values = arrow[column.name].to_numpy()
        table[column.name] = Column(
            # FITS and VOTable have strings of a fixed length, but no objects
            values.astype(str) if values.dtype == object else values,
            unit=about.get("unit"),
            description=about.get("description"),
            meta={"ucd": about["ucd"]} if "ucd" in about else None,
        )
    return table


def meta_text(meta: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as text: strings as they are, anything else as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in meta.items()
    }


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
    # rounding errors may have made some larger than 1
    limited: NDArray[np.float64] = np.clip(packed, -1.0, 1.0)
    return limited


def unpacked(packed: NDArray[np.float64], labels: int) -> NDArray[np.float64]:
    """Correlation matrices [N, K, K] from packed ones [N, K (K - 1) / 2]."""
    matrix = np.tile(np.eye(labels), (len(packed), 1, 1))
    rows, columns = np.tril_indices(labels, -1)
    matrix[:, rows, columns] = matrix[:, columns, rows] = packed
    return matrix


_ARRAYS = {f.name for f in fields(Prediction)} - {"names", "meta", "joint_factors"}


def stack(blocks: Sequence[Prediction]) -> Prediction:
    """Predictions of several blocks of stars by one model, as one."""
    arrays = {name: [getattr(block, name) for block in blocks] for name in _ARRAYS}
    joined: dict[str, Any] = {
        name: None if any(one is None for one in parts) else np.concatenate(parts)
        for name, parts in arrays.items()
    }
    return replace(blocks[0], **joined)
