"""Compare a release's declaration with the tables and columns that a service has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from xplabels.core.errors import InputError, counted, located
from xplabels.fetch.http import ServiceError
from xplabels.fetch.tap import Tap
from xplabels.releases import NAMES, Release, Table, nearest

MOST_ROWS = 100_000
"""Most rows of TAP_SCHEMA that are asked for."""
MOST_LISTED = 3
"""Most differences in an error message; ``releases --check`` prints all."""


@dataclass(frozen=True)
class Difference:
    """A declared table, or column of one, that the service lacks."""

    table: Table
    column: str  # "": the whole table
    needed: bool
    nearest: tuple[str, ...]  # names in the service that are most like it

    @property
    def place(self) -> str:
        """The key of the declaration that names it."""
        if not self.column:
            return f"[tables.{self.table.label}] name"
        for key, name in (("key", self.table.key), ("match", self.table.match)):
            if name == self.column:
                return f"[tables.{self.table.label}] {key}"
        ours = next(column.name for column in self.table.columns if self.column in column.needs)
        return f"[tables.{self.table.label}.columns] {ours}"

    def to_text(self) -> str:
        """What is missing, and what is most like it."""
        what = f"column {self.table.name}.{self.column}"
        if not self.column:
            what = f"table {self.table.name}"
        return what + (f" (nearest: {', '.join(self.nearest)})" if self.nearest else "")


@dataclass(frozen=True)
class Comparison:
    """How a service's tables differ from a release's declaration."""

    release: Release
    address: str
    present: Mapping[str, frozenset[str]]  # table -> lower-case names of its columns
    differences: tuple[Difference, ...]

    @property
    def missing(self) -> tuple[Difference, ...]:
        """Differences that make fetching impossible."""
        return tuple(difference for difference in self.differences if difference.needed)

    def to_text(self) -> str:
        """A line for each table that the service has, and for each difference."""
        lines = [f"{self.release.title} ({self.release.file.name}) at {self.address}"]
        for table in self.release.tables.values():
            if self.present.get(table.name):
                declared = [name.lower() for name in table.needs()]
                present = sum(name in self.present[table.name] for name in declared)
                more = len(self.present[table.name]) - present
                lines.append(
                    f"  {table.name}: {present} of {counted(len(declared), 'column')} declared "
                    f"are there, {more} more"
                )
            for difference in self.differences:
                if difference.table is table:
                    optional = "" if difference.needed else "optional "
                    what = f"{optional}{difference.to_text()}"
                    lines.append(f"    lacks the {what}: {difference.place}")
        return "\n".join(lines)

    def check(self) -> None:
        """Raise :class:`InputError`, with every name, if the service lacks what is needed."""
        if not self.missing:
            return
        name = self.release.file.stem
        listed = [difference.to_text() for difference in self.missing[:MOST_LISTED]]
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
    """Compare the declared tables of these ``labels`` (default: all) with the service's.

    Raises :class:`InputError` if the service cannot be asked.
    """
    tables = [table for table in release.tables.values() if labels is None or table.label in labels]
    parts = [part for parts in release.products.values() for part in parts]
    # tables that only add columns to others, and so are never asked for by themselves
    beside = {label for part in parts for label in part.beside}
    with located(tap.url):
        present = _present(tap, [table.name for table in tables])
        all_tables = [] if all(present.values()) else _table_names(tap)
    differences = []
    for table in tables:
        columns = present[table.name]
        if not columns:
            needed = any(table.needs()[name] for column in table.columns for name in column.needs)
            needed |= table.label not in beside
            similar = nearest(table.name, all_tables)
            differences.append(Difference(table, "", needed, tuple(similar)))
            continue
        # a renamed column is among those that the declaration does not name
        others = columns - {name.lower() for name in table.needs()}
        for name, needed in table.needs().items():
            if name.lower() not in columns:
                similar = nearest(name.lower(), others)
                differences.append(Difference(table, name, needed, tuple(similar)))
    return Comparison(release, tap.url, present, tuple(differences))


def _present(tap: Tap, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Table -> lower-case names of its columns in the service; none if it lacks the table."""
    columns: dict[str, set[str]] = {name: set() for name in names}
    listed = ", ".join(f"'{name}'" for name in columns)
    rows = tap.query(
        f"SELECT table_name, column_name FROM TAP_SCHEMA.columns WHERE table_name IN ({listed})",
        most=MOST_ROWS,
    )
    for table, column in zip(rows["table_name"], rows["column_name"], strict=True):
        columns[str(table)].add(str(column).strip('"').lower())
    for name, names_of_columns in columns.items():
        if not names_of_columns:  # TAP_SCHEMA may write the table's name in another way
            try:
                names_of_columns |= tap.column_names(name)
            except ServiceError as error:
                if error.transient:
                    raise
    return {name: frozenset(of_table) for name, of_table in columns.items()}


def _table_names(tap: Tap) -> list[str]:
    rows = tap.query("SELECT table_name FROM TAP_SCHEMA.tables", most=MOST_ROWS)
    return sorted({str(name) for name in rows["table_name"]})
