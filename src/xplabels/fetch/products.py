"""The tables fetched besides the spectra: columns, queries, and their Parquet schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.fetch.tap import UPLOAD
from xplabels.releases import Column, Part, Release, Table

if TYPE_CHECKING:
    import pyarrow as pa

Present = Mapping[str, Collection[str]]
"""A table that the archive has -> lower-case names of its columns."""


@dataclass(frozen=True)
class Query:
    """One query of a product: tables joined to the uploaded ids, and columns of them."""

    source: str  # the table that says which stars have a row
    joins: str
    columns: Mapping[Column, int]  # column -> place of its table

    @classmethod
    def of(cls, part: Part, tables: Mapping[str, Table], present: Present | None) -> Query:
        """The query of one part of a product."""
        used = [tables[label] for label in part.tables]
        joins: list[str] = []
        columns: dict[Column, int] = {}
        for place, table in enumerate(used):
            here = None if present is None else present[table.name]
            if here is not None and not here:
                continue
            matched = part.matched and place == 1
            link = f"t0.{used[0].match}" if matched else f"{UPLOAD}.source_id"
            outer = "LEFT OUTER " if place > bool(part.matched) else ""
            joins.append(f"{outer}JOIN {table.name} AS t{place} ON t{place}.{table.key} = {link}")
            taken = {column.name for column in columns}
            columns |= {
                one: place
                for one in table.columns
                if one.name not in taken
                and (here is None or {name.lower() for name in one.needs} <= {*here})
            }
        return cls(used[0].name, " ".join(joins), columns)

    def adql(self) -> str:
        """ADQL for the stars of the uploaded table ``tap_upload.wanted``."""
        chosen = [f"{UPLOAD}.source_id"]
        chosen += [f"{one.adql(f't{place}')} AS {one.name}" for one, place in self.columns.items()]
        return f"SELECT {', '.join(chosen)} FROM tap_upload.{UPLOAD} AS {UPLOAD} {self.joins}"


@dataclass(frozen=True)
class Product:
    """A table made of the archive's, at most one row per star."""

    name: str  # of the product and its file
    queries: tuple[Query, ...]  # a star's row is of the first that has it

    @classmethod
    def of(cls, name: str, release: Release, present: Present | None = None) -> Product:
        """The product ``name`` of a release.

        Optional columns, and tables of them, that are not among those ``present`` are left out.
        """
        parts = release.products[name]
        return cls(name, tuple(Query.of(part, release.tables, present) for part in parts))

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those of its file, besides source_id."""
        columns: dict[str, Column] = {}
        for column in chain.from_iterable(query.columns for query in self.queries):
            columns.setdefault(column.name, column)
        return tuple(columns.values())

    @property
    def absence(self) -> str:
        """Why a star has no row."""
        return f"no row in {' or '.join(query.source for query in self.queries)}"

    def schema(self) -> pa.Schema:
        """Of the Parquet file; units in the fields' metadata."""
        import pyarrow as pa

        fields = [pa.field("source_id", pa.int64(), nullable=False)]
        for column in self.columns:
            unit = {"unit": column.unit} if column.unit else None
            fields.append(pa.field(column.name, pa.type_for_alias(column.type), metadata=unit))
        return pa.schema(fields)

    def to_arrow(self, columns: Mapping[str, NDArray[Any]], query: Query | None = None) -> pa.Table:
        """Rows as one query gave them -> this product's table, sorted by source_id.

        Columns that no row of the query can have are null. Raises InputError if one of the query's
        is absent or not of its type, or a source_id comes twice.
        """
        import pyarrow as pa

        arrays = []
        schema = self.schema()
        asked = {"source_id", *(column.name for column in (query or self.queries[0]).columns)}
        for field in schema:
            if field.name not in asked:
                arrays.append(pa.nulls(len(columns["source_id"]), field.type))
                continue
            if field.name not in columns:
                raise InputError(f"the answer has no column {field.name!r}", where=self.name)
            try:
                arrays.append(as_column(columns[field.name], field.type))
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


def as_column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
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


SPECTRA = "xp"
"""The product of spectra."""


def products_of(release: Release) -> tuple[str, ...]:
    """What can be fetched, in this order."""
    return (*release.products, SPECTRA)
