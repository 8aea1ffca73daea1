"""Write the made archives for DaCHS: a resource descriptor a schema, and its tables as CSV.

``python publish.py INPUTS`` fills ``INPUTS/gaiadr1``, ``gaiadr3``, ``gaiadr4`` and ``catwise``. The
last stands for ESA's ``external``, a reserved word of ADQL, which DaCHS refuses.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from services.made import DOUBLES, Table, made_archive
from services.made4 import made_dr4

STARS = 500
"""Of the made archive that DaCHS publishes; the test makes the same one."""

KEYS = frozenset(("source_id", "dr3_source_id", "designation", "original_ext_source_id", "name"))


def kind(name: str, values: list[Any]) -> str:
    """DaCHS's type of a column."""
    known = next((value for value in values if value is not None), "")
    if isinstance(known, bool):
        return "boolean"
    if isinstance(known, int):
        return "bigint" if name.endswith("source_id") else "integer"
    if isinstance(known, float):
        return "double precision" if name in DOUBLES or name.endswith("_flux") else "real"
    return "text"


def table_element(name: str, table: Table) -> str:
    """The table and its import, in the descriptor's words."""
    columns = []
    for column, values in table.items():
        declared = kind(column, values)
        # an integer without a null value cannot be null; these never are
        required = ' required="True"' if declared in ("bigint", "integer") else ""
        columns.append(f'<column name="{column}" type="{declared}" ucd=""{required}/>')
    indices = [f'<index columns="{column}"/>' for column in table if column in KEYS]
    return (
        f'<table id="{name}" onDisk="True" adql="True">'
        f'<meta name="description">Made stars under the Gaia archive\'s names.</meta>'
        f"{''.join(indices)}{''.join(columns)}</table>"
        f'<data id="import_{name}"><sources>{name}.csv</sources><csvGrammar/>'
        f'<make table="{name}"><rowmaker idmaps="*"/></make></data>'
    )


def descriptor(schema: str, tables: dict[str, Table]) -> str:
    """The resource descriptor of one schema."""
    elements = "".join(table_element(name, table) for name, table in tables.items())
    return (
        f'<resource schema="{schema}"><meta name="title">Made archive, {schema}</meta>'
        '<meta name="creationDate">2026-01-01T00:00:00Z</meta>'
        '<meta name="description">Made stars, to test a client.</meta>'
        f'<meta name="subject">surveys</meta>{elements}</resource>'
    )


def write(inputs: Path) -> None:
    """Write every schema's folder."""
    schemas: dict[str, dict[str, Table]] = {}
    for full, table in (made_archive(STARS).tables | made_dr4(STARS).tables).items():
        schema, name = full.replace("external.", "catwise.").split(".")
        schemas.setdefault(schema, {})[name] = table
    for schema, tables in schemas.items():
        folder = inputs / schema
        folder.mkdir(exist_ok=True)
        (folder / "q.rd").write_text(descriptor(schema, tables), encoding="utf-8")
        for name, table in tables.items():
            with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(table)
                rows = zip(*table.values(), strict=True)
                writer.writerows(["" if cell is None else cell for cell in row] for row in rows)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
