"""The declarations of Gaia's data releases, listed, printed, or compared with a service."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from xplabels.cli import options

TEXT = """\
A declaration is a TOML file that says what a data release calls its tables, columns and products.
Those of the package are listed; with a NAME (dr3, dr4, or a FILE.toml), that one is printed:
  xplabels releases dr4 > my_dr4.toml    a copy to correct, for --release my_dr4.toml
  xplabels releases dr4 --check          what the archive has of it, what not, and the nearest names
The exit status of --check is 0 if the service has all that is needed, else 2."""

KEYS = """\
title            what DataLink calls the release
schema           of tables in TAP whose `name` has no dot
widths           numbers of BP and RP coefficients, where known
cone             the table in which --cone looks for stars
has_spectrum     the column of gaia_source.parquet that says which stars have a spectrum
[datalink]       products and structures to ask for, the first that is known; format
[spectra]        our column of spectra = "the archive's", where they differ
[bulk]           folder of bulk files, how their names begin; [bulk.tables] folders by short name
[tables.NAME]    name, key (column that identifies a row), match (that of a row elsewhere)
[tables.NAME.columns]  OURS = { type, unit, column = "THEIRS" or expression = "A / B", optional }
[ids]            another release = the table of both ids
[products.NAME]  parts: from, matched, beside (a star's row is of the first part that has it)"""


def add(commands: options.Commands) -> None:
    """Add the command ``releases``."""
    command = options.add_command(
        commands,
        "releases",
        "list what Gaia's data releases call their tables, and compare it with the archive",
        TEXT,
        KEYS,
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="dr3, dr4 or a FILE.toml")
    command.add_argument("--check", action="store_true", help="compare with a service's TAP_SCHEMA")
    command.add_argument(
        "--url", metavar="TAP", help="address of the service (default: ESA's Gaia archive)"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """List, print or compare."""
    from xplabels.releases import NAMES, load_release

    if args.check:
        _compare([args.name] if args.name else NAMES, args.url)
    elif args.name:
        print(load_release(args.name).file.read_text(encoding="utf-8"), end="")
    else:
        for name in NAMES:
            release = load_release(name)
            tables = {table.name for table in release.tables.values()}
            print(f"{name}  {release.title}: {len(tables)} tables; {release.status}")


def _compare(names: Sequence[str], url: str | None) -> None:
    from xplabels.fetch import Archive, RetryPolicy, compare
    from xplabels.fetch.http import check_installed
    from xplabels.fetch.tap import Tap
    from xplabels.releases import load_release

    check_installed()
    tap = Tap(url or Archive.tap, RetryPolicy())
    compared = [compare(load_release(name), tap) for name in names]
    for one in compared:
        print(one.to_text())
    for one in compared:
        one.check()
