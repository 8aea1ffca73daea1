"""The tables that are asked for beside the spectra: columns, queries, and their Parquet schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.fetch.archive import Release

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["float64", "float32", "int64", "int32", "bool", "string"]
UPLOAD = "wanted"
"""Name of the uploaded table of ids, in the schema ``tap_upload``."""


@dataclass(frozen=True)
class Column:
    """A column of a product.

    Attributes
    ----------
    name
        In the file written.
    kind
        Its type there.
    unit
        Its unit, for the file's metadata.
    source
        ``alias.column`` in the archive; the product's last table and ``name`` without it.
    needed
        Whether an archive without it is of no use.
    """

    name: str
    kind: Kind
    unit: str = ""
    source: str = ""
    needed: bool = True


@dataclass(frozen=True)
class Product:
    """A table, made of one or two of the archive's, at most one row a star.

    Attributes
    ----------
    name
        Of the product and its file.
    tables
        Alias -> table; ``{schema}`` stands for the release's.
    joins
        Alias -> condition that joins it to the tables before it; the first to ``wanted``.
    columns
        Beside ``source_id``.
    """

    name: str
    tables: Mapping[str, str]
    joins: Mapping[str, str]
    columns: tuple[Column, ...]

    def table(self, alias: str, release: Release) -> str:
        """Full name of one of the tables."""
        return self.tables[alias].format(schema=release.schema)

    def source(self, column: Column) -> tuple[str, str]:
        """(alias, name in the archive) of a column."""
        alias, _, name = (column.source or f"{list(self.tables)[-1]}.{column.name}").partition(".")
        return alias, name

    def available(self, present: Mapping[str, Collection[str]], release: Release) -> Product:
        """This product without the optional columns that the archive lacks.

        Parameters
        ----------
        present
            Alias -> lower-case names of the columns that the archive's table has.

        Raises
        ------
        InputError
            If a column that is needed is absent.
        """
        kept: list[Column] = []
        for column in self.columns:
            alias, name = self.source(column)
            if name in present[alias]:
                kept.append(column)
            elif column.needed:
                raise InputError(
                    f"the archive's table has no column {name!r}",
                    where=self.table(alias, release),
                    remedy=f"leave out the product {self.name}, or choose another release",
                )
        return Product(self.name, self.tables, self.joins, tuple(kept))

    def query(self, release: Release) -> str:
        """ADQL for the stars of the uploaded table ``tap_upload.wanted``."""
        chosen = [f"{UPLOAD}.source_id"]
        for column in self.columns:
            alias, name = self.source(column)
            chosen.append(f"{alias}.{name} AS {column.name}")
        joins = [
            f"JOIN {self.table(alias, release)} AS {alias} ON {condition}"
            for alias, condition in self.joins.items()
        ]
        return f"SELECT {', '.join(chosen)} FROM tap_upload.{UPLOAD} AS {UPLOAD} {' '.join(joins)}"

    def schema(self) -> pa.Schema:
        """Of the Parquet file; units in the fields' metadata."""
        import pyarrow as pa

        fields = [pa.field("source_id", pa.int64(), nullable=False)]
        for column in self.columns:
            unit = {"unit": column.unit} if column.unit else None
            fields.append(pa.field(column.name, _arrow_kind(column.kind), metadata=unit))
        return pa.schema(fields)

    def to_arrow(self, columns: Mapping[str, NDArray[Any]]) -> pa.Table:
        """Rows as TAP gave them -> this product's table, sorted by source_id.

        Raises
        ------
        InputError
            If a column is absent or cannot be of its type, or a source_id comes twice.
        """
        import pyarrow as pa

        arrays = []
        schema = self.schema()
        for entry in schema:
            if entry.name not in columns:
                raise InputError(f"the answer has no column {entry.name!r}", where=self.name)
            try:
                arrays.append(_to_arrow(columns[entry.name], entry.type))
            except (pa.ArrowException, ValueError, TypeError) as error:
                raise InputError(
                    f"the answer's column {entry.name!r} is not {entry.type} ({error})",
                    where=self.name,
                ) from error
        table = pa.table(arrays, schema=schema).sort_by("source_id")
        ids = table.column("source_id").to_numpy()
        twice = np.flatnonzero(ids[1:] == ids[:-1])
        if len(twice):
            raise InputError(f"the answer has source_id {ids[twice[0]]} twice", where=self.name)
        return table


def _arrow_kind(kind: Kind) -> pa.DataType:
    import pyarrow as pa

    makers = {
        "float64": pa.float64,
        "float32": pa.float32,
        "int64": pa.int64,
        "int32": pa.int32,
        "bool": pa.bool_,
        "string": pa.string,
    }
    return makers[kind]()


def _to_arrow(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """One column; what is masked, NaN or an empty text is null."""
    import pyarrow as pa

    mask = np.ma.getmaskarray(values)
    plain = np.ma.getdata(values)
    if pa.types.is_string(kind):
        texts = [_text(value) for value in plain]
        return pa.array(
            [
                None if hidden or not text else text
                for hidden, text in zip(mask, texts, strict=True)
            ],
            kind,
        )
    if pa.types.is_boolean(kind):
        return pa.array(_truth(plain), kind, mask=mask)
    if pa.types.is_floating(kind):
        plain = np.asarray(plain, np.float64)
        mask = mask | np.isnan(plain)
    return pa.array(plain, mask=mask).cast(kind)


def _text(value: Any) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()


def _truth(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Truth values, which some services send as text."""
    if values.dtype.kind in "biu":
        return values.astype(bool)
    texts = [_text(value).lower() for value in values]
    wrong = next((t for t in texts if t not in ("t", "true", "1", "f", "false", "0", "")), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is neither true nor false")
    return np.array([text in ("t", "true", "1") for text in texts], bool)


def _gaia_band(band: str) -> tuple[Column, Column]:
    return (
        Column(f"phot_{band}_mean_mag", "float32", "mag"),
        Column(f"phot_{band}_mean_flux_over_error", "float32"),
    )


GAIA_SOURCE = Product(
    "gaia_source",
    {"gaia": "{schema}.gaia_source"},
    {"gaia": f"gaia.source_id = {UPLOAD}.source_id"},
    (
        Column("ra", "float64", "deg"),
        Column("dec", "float64", "deg"),
        Column("l", "float64", "deg", needed=False),
        Column("b", "float64", "deg", needed=False),
        Column("ref_epoch", "float64", "yr", needed=False),
        Column("pmra", "float64", "mas/yr", needed=False),
        Column("pmra_error", "float32", "mas/yr", needed=False),
        Column("pmdec", "float64", "mas/yr", needed=False),
        Column("pmdec_error", "float32", "mas/yr", needed=False),
        Column("parallax", "float64", "mas"),
        Column("parallax_error", "float32", "mas"),
        *_gaia_band("g"),
        *_gaia_band("bp"),
        *_gaia_band("rp"),
        Column("bp_rp", "float32", "mag"),
        Column("phot_bp_rp_excess_factor", "float32"),
        Column("ruwe", "float32"),
        Column("has_xp_continuous", "bool", needed=False),
    ),
)

# The neighbour's own designation, not the join table by oid: that one gives every suspected
# duplicate in the external catalogue, this one the duplicate with the best astrometry.
TMASS = Product(
    "tmass",
    {
        "near": "{schema}.tmass_psc_xsc_best_neighbour",
        "tmass": "gaiadr1.tmass_original_valid",
    },
    {
        "near": f"near.source_id = {UPLOAD}.source_id",
        "tmass": "tmass.designation = near.original_ext_source_id",
    },
    (
        Column("designation", "string"),
        Column("angular_distance", "float32", "arcsec", "near.angular_distance"),
        Column("number_of_mates", "int32", "", "near.number_of_mates", needed=False),
        *(
            Column(f"{band}_{part}", "float32", "mag")
            for band in ("j", "h", "ks")
            for part in ("m", "msigcom")
        ),
        Column("ph_qual", "string", needed=False),
    ),
)

# Gaia's copy of AllWISE says w1mpro_error for what AllWISE calls w1sigmpro.
ALLWISE = Product(
    "allwise",
    {
        "near": "{schema}.allwise_best_neighbour",
        "allwise": "gaiadr1.allwise_original_valid",
    },
    {
        "near": f"near.source_id = {UPLOAD}.source_id",
        "allwise": "allwise.designation = near.original_ext_source_id",
    },
    (
        Column("designation", "string"),
        Column("angular_distance", "float32", "arcsec", "near.angular_distance"),
        Column("number_of_mates", "int32", "", "near.number_of_mates", needed=False),
        Column("w1mpro", "float32", "mag"),
        Column("w1sigmpro", "float32", "mag", "allwise.w1mpro_error"),
        Column("w2mpro", "float32", "mag"),
        Column("w2sigmpro", "float32", "mag", "allwise.w2mpro_error"),
        Column("cc_flags", "string", needed=False),
        Column("ext_flag", "int32", needed=False),
        Column("var_flag", "string", needed=False),
        Column("ph_qual", "string", needed=False),
    ),
)

TABLES: dict[str, Product] = {product.name: product for product in (GAIA_SOURCE, TMASS, ALLWISE)}
SPECTRA = "xp"
PRODUCTS = (*TABLES, SPECTRA)
"""What can be asked for, in the order in which it is."""
