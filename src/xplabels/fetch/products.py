"""The tables fetched besides the spectra: columns, queries, and their Parquet schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.fetch.archive import Release
from xplabels.fetch.tap import UPLOAD

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ProductColumn:
    """A column of a product."""

    name: str  # in the file written
    kind: str  # its Arrow type there
    unit: str = ""  # for the file's metadata
    source: str = ""  # alias.column in the archive; else name in the product's last table
    needed: bool = True  # whether an archive without it is of no use


@dataclass(frozen=True)
class Product:
    """A table made of one or two of the archive's, at most one row per star."""

    name: str  # of the product and its file
    tables: Mapping[str, str]  # alias -> table; {schema} stands for the release's
    joins: Mapping[str, str]  # alias -> condition that joins it to those before, or to the upload
    columns: tuple[ProductColumn, ...]  # besides source_id

    def table(self, alias: str, release: Release) -> str:
        """Full name of one of the tables."""
        return self.tables[alias].format(schema=release.schema)

    def _source(self, column: ProductColumn) -> tuple[str, str]:
        """(alias, name in the archive) of a column."""
        alias, _, name = (column.source or f"{list(self.tables)[-1]}.{column.name}").partition(".")
        return alias, name

    def available(self, present: Mapping[str, Collection[str]], release: Release) -> Product:
        """This product without the optional columns that the archive lacks.

        ``present`` gives, by alias, the lower-case names of the columns of the archive's table.
        Raises InputError if a column that is needed is not among them.
        """
        kept = []
        for column in self.columns:
            alias, name = self._source(column)
            if name in present[alias]:
                kept.append(column)
            elif column.needed:
                raise InputError(
                    f"the archive's table has no column {name!r}",
                    where=self.table(alias, release),
                    remedy=f"leave out the product {self.name}, or choose another release",
                )
        return replace(self, columns=tuple(kept))

    def query(self, release: Release) -> str:
        """ADQL for the stars of the uploaded table ``tap_upload.wanted``."""
        chosen = [f"{UPLOAD}.source_id"]
        chosen += [f"{'.'.join(self._source(column))} AS {column.name}" for column in self.columns]
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
            fields.append(pa.field(column.name, pa.type_for_alias(column.kind), metadata=unit))
        return pa.schema(fields)

    def to_arrow(self, columns: Mapping[str, NDArray[Any]]) -> pa.Table:
        """Rows as TAP gave them -> this product's table, sorted by source_id.

        Raises InputError if a column is absent or not of its type, or a source_id comes twice.
        """
        import pyarrow as pa

        arrays = []
        schema = self.schema()
        for field in schema:
            if field.name not in columns:
                raise InputError(f"the answer has no column {field.name!r}", where=self.name)
            try:
                arrays.append(_to_arrow(columns[field.name], field.type))
            except (pa.ArrowException, ValueError, TypeError) as error:
                raise InputError(
                    f"the answer's column {field.name!r} is not {field.type} ({error})",
                    where=self.name,
                ) from error
        table = pa.table(arrays, schema=schema).sort_by("source_id")
        ids = table.column("source_id").to_numpy()
        twice = np.flatnonzero(ids[1:] == ids[:-1])
        if len(twice):
            raise InputError(f"the answer has source_id {ids[twice[0]]} twice", where=self.name)
        return table


def _to_arrow(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """One column; what is masked, NaN or an empty text is null."""
    import pyarrow as pa

    mask, plain = np.ma.getmaskarray(values), np.ma.getdata(values)
    if plain.dtype.kind in "OSU":
        texts = [(v.decode() if isinstance(v, bytes) else str(v)).strip() for v in plain]
        if pa.types.is_boolean(kind):  # some services send truth values as text
            texts = [{"t": "true", "f": "false"}.get(text.lower(), text) for text in texts]
        pairs = zip(texts, mask, strict=True)
        return pa.array([text if text and not m else None for text, m in pairs]).cast(kind)
    if pa.types.is_floating(kind):
        plain = np.asarray(plain, np.float64)
        mask = mask | np.isnan(plain)
    return pa.array(plain, mask=mask).cast(kind)


def _columns(kind: str, unit: str, *names: str) -> tuple[ProductColumn, ...]:
    """Columns of one kind and unit; "?" after the name of one that an archive may lack."""
    return tuple(ProductColumn(n.rstrip("?"), kind, unit, needed=n[-1] != "?") for n in names)


GAIA_SOURCE = Product(
    "gaia_source",
    {"gaia": "{schema}.gaia_source"},
    {"gaia": f"gaia.source_id = {UPLOAD}.source_id"},
    (
        *_columns("float64", "deg", "ra", "dec", "l?", "b?"),
        *_columns("float64", "yr", "ref_epoch?"),
        *_columns("float64", "mas/yr", "pmra?"),
        *_columns("float32", "mas/yr", "pmra_error?"),
        *_columns("float64", "mas/yr", "pmdec?"),
        *_columns("float32", "mas/yr", "pmdec_error?"),
        *_columns("float64", "mas", "parallax"),
        *_columns("float32", "mas", "parallax_error"),
        *(
            ProductColumn(f"phot_{band}_mean_{quantity}", "float32", unit)
            for band in ("g", "bp", "rp")
            for quantity, unit in (("mag", "mag"), ("flux_over_error", ""))
        ),
        *_columns("float32", "mag", "bp_rp"),
        *_columns("float32", "", "phot_bp_rp_excess_factor", "ruwe"),
        *(
            column
            for end in ("n_obs?", "n_blended_transits?", "n_contaminated_transits?")
            for column in _columns("int32", "", f"phot_bp_{end}", f"phot_rp_{end}")
        ),
        *_columns("bool", "", "has_xp_continuous?"),
    ),
)


def _matched(name: str, neighbours: str, *columns: ProductColumn) -> Product:
    """Columns of an external catalogue, by Gaia's best neighbour in it.

    The neighbour's own designation, not the join table by oid: that one gives every suspected
    duplicate in the external catalogue, this one the duplicate with the best astrometry.
    """
    return Product(
        name,
        {"near": "{schema}." + neighbours, name: f"gaiadr1.{name}_original_valid"},
        {
            "near": f"near.source_id = {UPLOAD}.source_id",
            name: f"{name}.designation = near.original_ext_source_id",
        },
        (
            ProductColumn("designation", "string"),
            ProductColumn("angular_distance", "float32", "arcsec", "near.angular_distance"),
            ProductColumn("number_of_mates", "int32", "", "near.number_of_mates", needed=False),
            *columns,
        ),
    )


TMASS = _matched(
    "tmass",
    "tmass_psc_xsc_best_neighbour",
    *_columns("float32", "mag", "j_m", "j_msigcom", "h_m", "h_msigcom", "ks_m", "ks_msigcom"),
    *_columns("string", "", "ph_qual?"),
)
ALLWISE = _matched(
    "allwise",
    "allwise_best_neighbour",
    # Gaia's copy says w1mpro_error for what AllWISE calls w1sigmpro
    ProductColumn("w1mpro", "float32", "mag"),
    ProductColumn("w1sigmpro", "float32", "mag", "allwise.w1mpro_error"),
    ProductColumn("w2mpro", "float32", "mag"),
    ProductColumn("w2sigmpro", "float32", "mag", "allwise.w2mpro_error"),
    *_columns("string", "", "cc_flags?"),
    *_columns("int32", "", "ext_flag?"),
    *_columns("string", "", "var_flag?", "ph_qual?"),
)

TABLES: dict[str, Product] = {product.name: product for product in (GAIA_SOURCE, TMASS, ALLWISE)}
SPECTRA = "xp"
PRODUCTS = (*TABLES, SPECTRA)
"""What can be fetched, in this order."""
