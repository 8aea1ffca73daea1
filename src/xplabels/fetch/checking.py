"""A release's declaration beside the tables and columns that a service says it has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from xplabels.core.errors import InputError, counted, located
from xplabels.fetch.http import ServiceError
from xplabels.fetch.tap import Tap
from xplabels.releases import NAMES, Release, Table, nearest

MOST_ROWS = 100_000
"""Of TAP_SCHEMA."""
MOST_LISTED = 3
"""Differences in one message; ``releases --check`` prints all."""


@dataclass(frozen=True)
class Difference:
    """A declared table, or column of one, that the service lacks."""

    table: Table
    column: str  # none: the whole table
    needed: bool
    nearest: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where the declaration names it."""
        if not self.column:
            return f"[tables.{self.table.label}] name"
        for key, name in (("key", self.table.key), ("match", self.table.match)):
            if name == self.column:
                return f"[tables.{self.table.label}] {key}"
        column = next(one.name for one in self.table.columns if self.column in one.needs)
        return f"[tables.{self.table.label}.columns] {column}"

    def to_text(self) -> str:
        """What is lacking, and what is most like it."""
        what = f"column {self.table.name}.{self.column}"
        if not self.column:
            what = f"table {self.table.name}"
        return what + (f" (nearest: {', '.join(self.nearest)})" if self.nearest else "")


@dataclass(frozen=True)
class Comparison:
    """A declaration and a service."""

    release: Release
    address: str
    present: Mapping[str, frozenset[str]]  # table -> lower-case names of its columns
    differences: tuple[Difference, ...]

    @property
    def missing(self) -> tuple[Difference, ...]:
        """Differences that make fetching impossible."""
        return tuple(one for one in self.differences if one.needed)

    def to_text(self) -> str:
        """What is there and what is not, a line each."""
        lines = [f"{self.release.title} ({self.release.file.name}) at {self.address}"]
        for table in self.release.tables.values():
            if self.present.get(table.name):
                used = [name.lower() for name in table.needs()]
                here = sum(name in self.present[table.name] for name in used)
                more = len(self.present[table.name]) - here
                lines.append(
                    f"  {table.name}: {here} of {counted(len(used), 'column')} declared are there, "
                    f"{more} more"
                )
            for one in self.differences:
                if one.table is table:
                    how = "" if one.needed else "optional "
                    lines.append(f"    lacks the {how}{one.to_text()}: {one.place}")
        return "\n".join(lines)

    def check(self) -> None:
        """Raise :class:`InputError`, with every name, if the service lacks what is needed."""
        if not self.missing:
            return
        name = self.release.file.stem
        listed = [one.to_text() for one in self.missing[:MOST_LISTED]]
        if len(self.missing) > MOST_LISTED:
            listed.append(f"and {len(self.missing) - MOST_LISTED} more")
        copy = f"a copy (xplabels releases {name} > my.toml; --release my.toml)"
        raise InputError(
            f"the service lacks the {', the '.join(listed)}",
            where=self.address,
            remedy=f"correct {copy if name in NAMES else self.release.file}; "
            "xplabels releases --check says where",
        )


def compare(release: Release, tap: Tap, labels: Collection[str] | None = None) -> Comparison:
    """Compare the tables of these labels (default: all that are declared) with the service's.

    Raises :class:`InputError` if the service cannot be asked.
    """
    tables = [one for one in release.tables.values() if labels is None or one.label in labels]
    parts = [part for some in release.products.values() for part in some]
    # tables that are never asked for by themselves
    beside = {label for part in parts for label in part.beside}
    with located(tap.url):
        present = _present(tap, [table.name for table in tables])
        known = [] if all(present.values()) else _table_names(tap)
    differences = []
    for table in tables:
        here = present[table.name]
        if not here:
            needed = any(table.needs()[name] for one in table.columns for name in one.needs)
            needed |= table.label not in beside
            differences.append(Difference(table, "", needed, tuple(nearest(table.name, known))))
            continue
        # a renamed column is among those that nothing in the declaration asks for
        others = here - {name.lower() for name in table.needs()}
        for name, needed in table.needs().items():
            if name.lower() not in here:
                like = nearest(name.lower(), others)
                differences.append(Difference(table, name, needed, tuple(like)))
    return Comparison(release, tap.url, present, tuple(differences))


def _present(tap: Tap, names: Iterable[str]) -> dict[str, frozenset[str]]:
    columns: dict[str, set[str]] = {name: set() for name in names}
    listed = ", ".join(f"'{name}'" for name in columns)
    rows = tap.query(
        f"SELECT table_name, column_name FROM TAP_SCHEMA.columns WHERE table_name IN ({listed})",
        most=MOST_ROWS,
    )
    for table, column in zip(rows["table_name"], rows["column_name"], strict=True):
        columns[str(table)].add(str(column).strip('"').lower())
    for name, found in columns.items():
        if not found:  # services differ in how TAP_SCHEMA writes the names of tables
            try:
                found |= tap.column_names(name)
            except ServiceError as error:
                if error.transient:
                    raise
    return {name: frozenset(found) for name, found in columns.items()}


def _table_names(tap: Tap) -> list[str]:
    rows = tap.query("SELECT table_name FROM TAP_SCHEMA.tables", most=MOST_ROWS)
    return sorted({str(name) for name in rows["table_name"]})
