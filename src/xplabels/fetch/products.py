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
    columns: Mapping[Column, int]  # column -> number of its table, t0, t1, ... in the query

    @classmethod
    def of(cls, part: Part, tables: Mapping[str, Table], present: Present | None) -> Query:
        """The query of one part of a product."""
        used = [tables[label] for label in part.tables]
        joins: list[str] = []
        columns: dict[Column, int] = {}
        for number, table in enumerate(used):
            available = None if present is None else present[table.name]
            if available is not None and not available:
                continue
            matched = part.matched and number == 1
            link = f"t0.{used[0].match}" if matched else f"{UPLOAD}.source_id"
            outer = "LEFT OUTER " if number > bool(part.matched) else ""
            alias = f"t{number}"
            joins.append(f"{outer}JOIN {table.name} AS {alias} ON {alias}.{table.key} = {link}")
            taken = {column.name for column in columns}
            columns |= {
                column: number
                for column in table.columns
                if column.name not in taken
                and (available is None or {name.lower() for name in column.needs} <= {*available})
            }
        return cls(used[0].name, " ".join(joins), columns)

    def adql(self) -> str:
        """ADQL for the stars of the uploaded table ``tap_upload.wanted``."""
        selected = [f"{UPLOAD}.source_id"]
        for column, number in self.columns.items():
            selected.append(f"{column.adql(f't{number}')} AS {column.name}")
        return f"SELECT {', '.join(selected)} FROM tap_upload.{UPLOAD} AS {UPLOAD} {self.joins}"


@dataclass(frozen=True)
class Product:
    """A table made of the archive's, with at most one row per star."""

    name: str  # of the product and its file
    queries: tuple[Query, ...]  # a star's row comes from the first that returns one

    @classmethod
    def of(cls, name: str, release: Release, present: Present | None = None) -> Product:
        """The product ``name`` of a release.

        Optional columns and tables that are not among those ``present`` are left out.
        """
        parts = release.products[name]
        return cls(name, tuple(Query.of(part, release.tables, present) for part in parts))

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of its file, besides source_id."""
        columns: dict[str, Column] = {}
        for column in chain.from_iterable(query.columns for query in self.queries):
            columns.setdefault(column.name, column)
        return tuple(columns.values())

    @property
    def absence(self) -> str:
        """Why a star has no row."""
        return f"no row in {' or '.join(query.source for query in self.queries)}"

    def schema(self) -> pa.Schema:
        """The schema of the Parquet file, with units in the fields' metadata."""
        import pyarrow as pa

        fields = [pa.field("source_id", pa.int64(), nullable=False)]
        for column in self.columns:
            unit = {"unit": column.unit} if column.unit else None
            fields.append(pa.field(column.name, pa.type_for_alias(column.type), metadata=unit))
        return pa.schema(fields)

    def to_arrow(self, columns: Mapping[str, NDArray[Any]], query: Query | None = None) -> pa.Table:
        """This product's table, sorted by source_id, from the rows that one query returned.

        Columns that are not the query's are null. Raises InputError if one of the query's is absent
        or not of its type, or a source_id occurs twice.
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
    """One column in Arrow's type ``kind``; masked values, NaN and empty texts are null."""
    import pyarrow as pa

    mask, plain = np.ma.getmaskarray(values), np.ma.getdata(values)
    if plain.dtype.kind in "OSU":
        texts = [(v.decode() if isinstance(v, bytes) else str(v)).strip() for v in plain]
        if pa.types.is_boolean(kind):  # some services send truth values as text
            texts = [{"t": "true", "f": "false"}.get(text.lower(), text) for text in texts]
        pairs = zip(texts, mask, strict=True)
        return pa.array([text if text and not null else None for text, null in pairs]).cast(kind)
    if pa.types.is_floating(kind):
        plain = np.asarray(plain, np.float64)
        mask = mask | np.isnan(plain)
    return pa.array(plain, mask=mask).cast(kind)


SPECTRA = "xp"
"""The product of spectra."""


def products_of(release: Release) -> tuple[str, ...]:
    """What can be fetched, in this order."""
    return (*release.products, SPECTRA)
