"""What each Gaia data release calls its tables, columns and products: one TOML file per release.

``data/dr3.toml`` and ``data/dr4.toml`` are such declarations; users may give a corrected copy
instead. Other modules take the names of the archive's tables and columns from them, except those of
Gaia's own astrophysical parameters, which `xplabels.surveys.labels` declares as a survey's.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xplabels.core.bounds import read_toml, whole
from xplabels.core.errors import InputError, located

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]

DATA = Path(__file__).parent / "data"
NAMES = ("dr3", "dr4")
"""Releases whose declarations come with the package."""
SOURCES = "gaia_source"
"""The product that says which stars there are."""
TYPES = ("bool", "int32", "int64", "float32", "float64", "string")
FORMATS = ("csv", "ecsv", "votable", "votable_plain", "fits")

SPECTRA_COLUMNS = (
    "source_id",
    "bp_coefficients", "bp_coefficient_errors", "bp_coefficient_correlations",
    "rp_coefficients", "rp_coefficient_errors", "rp_coefficient_correlations",
)  # fmt: skip
"""This package's names for the columns of spectra."""

VARIABLE = "XPLABELS_RELEASE"
"""Environment variable that names a release, or its file, whose column names are read, too."""

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")
_TYPES = {"str": str, "bool": bool, "dict": dict, "list": list}
_TYPE_WORDS = {str: "text", bool: "true or false", dict: "a table", list: "a list"}


@dataclass(frozen=True)
class Column:
    """A column that ``fetch`` writes, and how it is obtained from the archive's table."""

    name: str
    type: str  # Arrow's name of it
    unit: str = ""
    column: str = ""  # its name in the archive; "" if it is computed
    expression: str = ""  # by which it is computed from the archive's columns
    optional: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """The archive's columns from which it is made."""
        if not self.expression:
            return (self.column,)
        names = (n.id for n in ast.walk(ast.parse(self.expression)) if isinstance(n, ast.Name))
        return tuple(dict.fromkeys(names))

    def adql(self, alias: str) -> str:
        """The ADQL by which it is selected from a table with the ``alias``."""
        if not self.expression:
            return f"{alias}.{self.column}"
        return re.sub(r"\b[A-Za-z_]\w*", lambda match: f"{alias}.{match[0]}", self.expression)


@dataclass(frozen=True)
class Table:
    """One of the archive's tables."""

    label: str  # in the declaration
    name: str  # with its schema
    key: str  # the column that identifies a row
    match: str = ""  # the column that identifies the row of another table
    columns: tuple[Column, ...] = ()

    def needs(self) -> dict[str, bool]:
        """Every column of it that is used -> whether it is required."""
        used = {name: True for name in (self.key, self.match) if name}
        for column in self.columns:
            for name in column.needs:
                used[name] = used.get(name, False) or not column.optional
        return used


@dataclass(frozen=True)
class Part:
    """Where the rows of a product come from, by the labels of tables."""

    source: str  # the table that says which stars have a row
    matched: str = ""  # a table that is joined by the key `match` of the source
    beside: tuple[str, ...] = ()  # tables that add columns, null for stars that they lack

    @property
    def tables(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(name for name in (self.source, self.matched, *self.beside) if name)


@dataclass(frozen=True)
class DataLinkWords:
    """Words of DataLink's requests; of several, the first that the service knows is used."""

    products: tuple[str, ...]
    structures: tuple[str, ...]
    format: str = "csv"


@dataclass(frozen=True)
class BulkFiles:
    """Where bulk files are, and how their names begin."""

    folder: str
    spectra: str
    sources: str
    tables: Mapping[str, str] = field(default_factory=dict)  # short name -> folder below


@dataclass(frozen=True)
class Release:
    """What a data release calls things.

    Examples
    --------
    >>> release = load_release("dr4")
    >>> release.tables["dr3_neighbourhood"].name
    'gaiadr4.dr3_neighbourhood'
    >>> [part.source for part in release.products["gaia_source"]]
    ['gaia_source', 'all_source_photometry']
    """

    title: str
    schema: str
    status: str
    widths: tuple[int, int] | None
    cone: Table
    has_spectrum: str
    datalink: DataLinkWords
    bulk: BulkFiles
    tables: Mapping[str, Table]
    products: Mapping[str, tuple[Part, ...]]
    ids: Mapping[str, Table]  # another release -> the table that has both ids
    spectra: Mapping[str, str]  # our column of spectra -> the archive's, where they differ
    file: Path
    digest: str  # of the declaration

    def tables_of(self, product: str) -> tuple[Table, ...]:
        """The tables of a product, each once."""
        labels = (label for part in self.products.get(product, ()) for label in part.tables)
        return tuple(self.tables[label] for label in dict.fromkeys(labels))

    def position(self, alias: str) -> str:
        """ADQL for right ascension and declination in the table of cones, with the ``alias``."""
        columns = {column.name: column for column in self.cone.columns}
        return ", ".join(columns[name].adql(alias) for name in ("ra", "dec"))


def load_release(name: str | Path) -> Release:
    """The release ``dr3`` or ``dr4``, or that of a user's declaration (a ``.toml`` file).

    Raises :class:`InputError` if there is none of that name, or the file is not a declaration.
    """
    shipped = str(name) in NAMES
    path = DATA / f"{name}.toml" if shipped else Path(name)
    if not shipped and path.suffix != ".toml":
        raise InputError(
            f"no data release {str(name)!r}", remedy=f"choose {' or '.join(NAMES)}, or a .toml file"
        )

    with whole(path):
        content = path.read_bytes()
    raw = read_toml(path, content)
    with located(path):
        return _release(raw, path, hashlib.sha256(content).hexdigest())


@contextmanager
def using(name: str | Path | None) -> Iterator[None]:
    """Read tables by the names of this release, too, in the block and in processes it starts.

    Raises :class:`InputError` as :func:`load_release`.
    """
    before = os.environ.get(VARIABLE)
    _loaded.cache_clear()  # a declaration may have been corrected
    if name is not None:
        os.environ[VARIABLE] = str(
            name if str(name) in NAMES else load_release(name).file.resolve()
        )
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def in_use() -> tuple[Release, ...]:
    """The releases whose names are read: that of :func:`using`, and those of the package."""
    return _loaded(tuple(dict.fromkeys([*filter(None, [os.environ.get(VARIABLE)]), *NAMES])))


@cache
def _loaded(names: tuple[str, ...]) -> tuple[Release, ...]:
    return tuple(map(load_release, names))


def spectra_columns() -> dict[str, str]:
    """Lower-case names of columns of spectra in the releases in use -> this package's names."""
    pairs = (pair for release in in_use() for pair in release.spectra.items())
    return {theirs.lower(): ours for ours, theirs in pairs}


def with_inputs(names: Collection[str]) -> tuple[str, ...]:
    """``names`` of columns, and those of the archive from which absent ones can be computed."""
    more = (name for column in _made_of_others(names) for name in column.needs)
    return tuple(dict.fromkeys([*names, *more]))


def computed(columns: Mapping[str, Values], names: Collection[str]) -> dict[str, Values]:
    """Those columns ``names`` that are among ``columns`` [N] or can be computed from them.

    Examples
    --------
    >>> import numpy as np
    >>> fluxes = {f"phot_{band}_mean_flux": np.array([flux])
    ...           for band, flux in (("g", 2.0), ("bp", 1.0), ("rp", 1.5))}
    >>> computed(fluxes, ["phot_bp_rp_excess_factor", "ruwe"])
    {'phot_bp_rp_excess_factor': array([1.25])}
    """
    import numpy as np

    results = {name: values for name, values in columns.items() if name in names}
    for column in _made_of_others(names):
        if column.name not in results and {*column.needs} <= columns.keys():
            text = column.expression or column.column
            with np.errstate(divide="ignore", invalid="ignore"):
                # safe, because declarations are checked to hold nothing but arithmetic of names
                results[column.name] = eval(text, {"__builtins__": {}}, dict(columns))
    return results


def _made_of_others(names: Collection[str]) -> Iterator[Column]:
    for release in in_use():
        for table in release.tables.values():
            for column in table.columns:
                if column.name in names and column.needs != (column.name,):
                    yield column


def nearest(name: str, names: Iterable[str], most: int = 3) -> list[str]:
    """The names most like ``name``, at most ``most``."""
    return difflib.get_close_matches(name, [*names], n=most, cutoff=0.6)


# Reading a declaration ---------------------------------------------------------------------------


def _release(raw: Mapping[str, Any], path: Path, digest: str) -> Release:
    needed: dict[str, type] = dict.fromkeys(("title", "schema", "cone", "has_spectrum"), str)
    needed |= dict.fromkeys(("datalink", "bulk", "tables", "products"), dict)
    _check(raw, needed | {"status": str, "widths": list, "ids": dict, "spectra": dict}, "", needed)
    tables = {
        label: _table(label, _checked(table, dict, f"[tables.{label}]"), raw["schema"])
        for label, table in raw["tables"].items()
    }
    products = {}
    for product, value in raw["products"].items():
        where = f"[products.{product}]"
        _check(_checked(value, dict, where), {"parts": list}, where, ("parts",))
        products[product] = tuple(
            _part(_checked(part, dict, f"{where} parts"), tables, f"{where} parts")
            for part in value["parts"]
        )
    if SOURCES not in products or not products[SOURCES]:
        raise InputError(
            f"has no product {SOURCES!r}", where="[products]", remedy=f"add [products.{SOURCES}]"
        )
    widths = raw.get("widths")
    if widths is not None and [type(n) is int and n > 0 for n in widths] != [True, True]:
        raise InputError(
            "are not two numbers", where="widths", remedy="write [BP, RP], as [55, 55]"
        )
    bulk_tables = raw["bulk"].get("tables", {})
    bulk = _made(BulkFiles, raw["bulk"], "[bulk]", tables=_texts(bulk_tables, "[bulk.tables]"))
    datalink = _made(DataLinkWords, raw["datalink"], "[datalink]")
    for name in ("products", "structures"):
        if not getattr(datalink, name):
            raise InputError("is empty", where=f"[datalink] {name}", remedy="name at least one")
    _one_of(datalink.format, FORMATS, "[datalink] format")
    spectra = _texts(raw.get("spectra", {}), "[spectra]")
    for name in spectra:
        _one_of(name, SPECTRA_COLUMNS, "[spectra]")
    ids = {
        name: tables[_one_of(label, tables, f"[ids] {name}")]
        for name, label in _texts(raw.get("ids", {}), "[ids]").items()
    }
    release = Release(
        title=raw["title"], schema=raw["schema"], status=raw.get("status", ""),
        widths=None if widths is None else (widths[0], widths[1]),
        cone=tables[_one_of(raw["cone"], tables, "cone")], has_spectrum=raw["has_spectrum"],
        datalink=datalink, bulk=bulk, tables=tables, products=products, ids=ids, spectra=spectra,
        file=path, digest=digest,
    )  # fmt: skip
    sources = [column.name for table in release.tables_of(SOURCES) for column in table.columns]
    _one_of(release.has_spectrum, sources, "has_spectrum")
    for name in ("ra", "dec"):
        _one_of(name, [one.name for one in release.cone.columns], f"[tables.{release.cone.label}]")
    for name, table in release.ids.items():
        if not table.match:
            raise InputError(
                "lacks the key 'match'", where=f"[tables.{table.label}], named in [ids] {name}",
                remedy="name the column of the other release's ids",
            )  # fmt: skip
    return release


def _table(label: str, raw: Mapping[str, Any], schema: str) -> Table:
    where = f"[tables.{label}]"
    known = {"name": str, "key": str, "match": str, "columns": dict}
    _check(raw, known, where, ("key",))
    name = raw.get("name", label)
    for text, what in ((name, "name"), (raw["key"], "key"), (raw.get("match") or "x", "match")):
        _named(text, f"{where} {what}")
    columns = []
    for column, value in raw.get("columns", {}).items():
        key_of_column = f"[tables.{label}.columns] {column}"
        values = {"type": value} if isinstance(value, str) else _checked(value, dict, key_of_column)
        made = _made(Column, values, key_of_column, name=column)
        _one_of(made.type, TYPES, f"{key_of_column} type")
        if made.expression:
            _check_expression(made.expression, key_of_column)
        elif not made.column:
            made = _made(Column, {**values, "column": column}, key_of_column, name=column)
        _named(made.column or "x", f"{key_of_column} column")
        columns.append(made)
    full = name if "." in name else f"{schema}.{name}"
    return Table(label, full, raw["key"], raw.get("match", ""), tuple(columns))


def _part(raw: Mapping[str, Any], tables: Mapping[str, Table], where: str) -> Part:
    _check(raw, {"from": str, "matched": str, "beside": list}, where, ("from",))
    part = Part(raw["from"], raw.get("matched", ""), tuple(raw.get("beside", ())))
    for label in part.tables:
        _one_of(_checked(label, str, where), tables, where)
    if part.matched and not tables[part.source].match:
        raise InputError(
            "lacks the key 'match'",
            where=f"[tables.{part.source}], which {where} matches",
            remedy=f"name the column that identifies a row of {part.matched}",
        )
    return part


def _made(cls: type[T], raw: Mapping[str, Any], where: str, **given: Any) -> T:
    """An instance of a dataclass from a table whose keys are its fields."""
    known, needed = {}, []
    for each in fields(cls):  # type: ignore[arg-type]
        kind = str(each.type).split("[")[0]
        known[each.name] = {"tuple": list, "Mapping": dict}.get(kind) or _TYPES[kind]
        has_default = each.default is not MISSING or each.default_factory is not MISSING
        if each.name not in given and not has_default:
            needed.append(each.name)
    _check(raw, known, where, needed)
    values = {
        name: tuple(_checked(item, str, f"{where} {name}") for item in value)
        if isinstance(value, list)
        else value
        for name, value in raw.items()
    }
    return cls(**(values | given))


def _check(
    raw: Mapping[str, Any], known: Mapping[str, type], where: str, needed: Collection[str]
) -> None:
    """Raise :class:`InputError` for a key that is unknown, missing, or of another type."""
    for key, value in raw.items():
        if key not in known:
            what = f"has an unknown key {key!r}"
            raise InputError(what, where=where or None, remedy=_choice(key, known))
        _checked(value, known[key], f"{where} {key}".strip())
    for key in needed:
        if key not in raw:
            raise InputError(f"lacks the key {key!r}", where=where or None, remedy="add it")


def _checked(value: Any, kind: type[T], where: str) -> T:
    if not isinstance(value, kind):
        raise InputError(
            f"{value!r} is not {_TYPE_WORDS[kind]}"[:200],
            where=where,
            remedy=f"give {_TYPE_WORDS[kind]}",
        )
    return value


def _texts(raw: Mapping[str, Any], where: str) -> dict[str, str]:
    return {name: _checked(value, str, f"{where} {name}") for name, value in raw.items()}


def _one_of(name: str, known: Collection[str], where: str) -> str:
    if name not in known:
        what = f"{name!r} is none of those there are"
        raise InputError(what, where=where, remedy=_choice(name, known))
    return name


def _choice(name: str, known: Collection[str]) -> str:
    similar = nearest(name, known, 1)
    return f"write {similar[0]!r}" if similar else f"choose of {', '.join(known)}"


def _named(text: str, where: str) -> None:
    if not _NAME.fullmatch(text):
        raise InputError(
            f"{text[:100]!r} is not a name", where=where, remedy="use letters, digits and _"
        )


_ARITHMETIC = (ast.Expression, ast.BinOp, ast.Name, ast.Load, ast.Add, ast.Sub, ast.Mult, ast.Div)


def _check_expression(text: str, where: str) -> None:
    nodes, why = list[ast.AST](), ""
    try:
        nodes = [*ast.walk(ast.parse(text, mode="eval"))]
    except (SyntaxError, ValueError, RecursionError) as error:
        why = f" ({error})"
    arithmetic = text.isascii() and all(
        type(node.value) in (int, float) if isinstance(node, ast.Constant)
        else isinstance(node, _ARITHMETIC)
        for node in nodes
    )  # fmt: skip
    if not arithmetic or not any(isinstance(node, ast.Name) for node in nodes):
        raise InputError(
            f"the expression {text[:100]!r} cannot be used{why}",
            where=where,
            remedy="combine columns and numbers by + - * / and parentheses",
        )
