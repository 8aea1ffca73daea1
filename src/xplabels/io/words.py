"""What a table says of its labels: units and words, from its columns or a TOML file beside it.

The TOML file has the table's name with the ending ``.toml`` and a table ``[labels.NAME]`` for each
label, with any of ``unit``, ``ucd``, ``description``, ``symbol``, ``range = [lowest, highest]`` and
``logarithmic = true``. It comes before what the columns say. Other TOML files are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xplabels.core.bounds import read_toml
from xplabels.core.errors import InputError
from xplabels.io.files import byte_lines, whole
from xplabels.io.fits import open_fits, readable_fits
from xplabels.io.votable import votables

Words = Mapping[str, Mapping[str, Any]]
"""Lower-case column -> some of the arguments of :class:`~xplabels.core.labels.Label`."""

TEXTS = ("unit", "description", "ucd", "symbol")
NO_UNIT = frozenset(("", "-", "--", "none", "null", "1", "dimensionless", "unitless"))
KEYS = {
    "unit": str, "ucd": str, "description": str, "symbol": str, "range": list, "logarithmic": bool,
}  # fmt: skip


def label_words(path: str | Path) -> Words:
    """Of each column of a table, what its header and the TOML file beside it say.

    Raises InputError if the TOML file cannot be read, or has other keys or values than it may.
    """
    path = Path(path)
    name = path.name.lower().removesuffix(".gz")
    found = {column: dict(about) for column, about in _of_header(path, Path(name).suffix).items()}
    beside = path.with_name(path.name[: len(Path(name).stem)] + ".toml")
    for label, about in (_of_toml(beside) if beside.is_file() else {}).items():
        found.setdefault(label, {}).update(about)
    return found


def column_words(columns: Mapping[str, Mapping[str, Any]]) -> Words:
    """Units, descriptions and UCDs of columns by lower-case name, without empty ones."""
    found: dict[str, dict[str, Any]] = {}
    for name, about in columns.items():
        texts = {key: str(about[key]).strip() for key in TEXTS if about.get(key)}
        found[name.strip().lower()] = {
            key: text for key, text in texts.items()
            if text and not (key == "unit" and text.lower() in NO_UNIT)
        }  # fmt: skip
    return found


def schema_words(schema: Any) -> Words:
    """Of a pyarrow schema: metadata of its fields, or those that astropy writes."""
    columns: dict[str, dict[str, Any]] = {}
    if (text := (schema.metadata or {}).get(b"table_meta_yaml")) is not None:
        columns = _of_yaml(text.decode("utf-8", "replace").split("\n"))
    for field in schema:
        own = {key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
               for key, value in (field.metadata or {}).items()}  # fmt: skip
        columns[field.name] = columns.get(field.name, {}) | own
    found = {name: dict(about) for name, about in column_words(columns).items()}
    for name, about in columns.items():  # a star table's own
        for key in ("lowest", "highest"):
            if key in about:
                found[name.strip().lower()][key] = float(about[key])
        if about.get("logarithmic") == "True":
            found[name.strip().lower()]["logarithmic"] = True
    return found


def _of_header(path: Path, ending: str) -> Words:
    if ending == ".parquet":
        import pyarrow.parquet as pq

        return schema_words(pq.read_schema(path))
    if ending == ".fits":
        with open_fits(path) as hdus, readable_fits(path):
            return column_words({
                column.name: {
                    "unit": column.unit,
                    "description": hdu.header.get(f"TCOMM{number}"),
                    "ucd": hdu.header.get(f"TUCD{number}"),
                }
                for hdu in hdus if hasattr(hdu, "columns")
                for number, column in enumerate(hdu.columns, start=1)
            })  # fmt: skip
    if ending == ".ecsv":
        with whole(path):
            lines = (line.decode("utf-8", "replace") for line in byte_lines(path))
            header = [line[2:].rstrip("\r\n") for line in lines if line.startswith("# ")]
        return column_words(_of_yaml(header))
    if ending in (".vot", ".votable", ".xml"):
        return column_words({
            name: {"unit": table.units.get(name), **table.words.get(name, {})}
            for table in votables(path)
            for name in table.names
        })  # fmt: skip
    return {}


def _of_yaml(lines: list[str]) -> dict[str, dict[str, Any]]:
    """The columns of the header that astropy writes into ECSV and Parquet; none if it is none."""
    from astropy.table.meta import get_header_from_yaml

    try:
        return {column["name"]: column for column in get_header_from_yaml(lines)["datatype"]}
    except Exception:  # units are a courtesy here: the reader of the table says what is wrong
        return {}


def _of_toml(path: Path) -> Words:
    labels = read_toml(path).get("labels", {})
    if not isinstance(labels, dict) or not all(isinstance(one, dict) for one in labels.values()):
        raise InputError("labels is not a table", where=path, remedy="write [labels.NAME] for each")
    return {name.lower(): _checked(about, f"{path}, [labels.{name}]")
            for name, about in labels.items()}  # fmt: skip


def _checked(about: dict[str, Any], where: str) -> dict[str, Any]:
    words = dict(about)
    for key, value in about.items():
        if key not in KEYS:
            raise InputError(f"unknown key {key!r}", where=where, remedy=f"use {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]):
            what = f"{key} = {value!r} is not of the type {KEYS[key].__name__}"
            raise InputError(what[:200], where=where, remedy='as in unit = "Gyr", range = [0, 14]')
    if "range" in words:
        bounds = words.pop("range")
        numbers = all(isinstance(one, int | float) for one in bounds)
        if len(bounds) != 2 or not numbers or not bounds[0] < bounds[1]:
            raise InputError(f"range = {bounds} is none", where=where, remedy="as in [0.01, 200.0]")
        words["lowest"], words["highest"] = map(float, bounds)
    return words
