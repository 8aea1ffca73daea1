"""The declarations of Gaia's data releases, listed, printed, or compared with a service."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from xplabels.cli import options

TEXT = """\
A declaration is a TOML file with the names of a data release's tables, columns and products.
Without NAME, the declarations of the package are listed; with one, it is printed:
  xplabels releases dr4 > my_dr4.toml    a copy to correct, for --release my_dr4.toml
  xplabels releases dr4 --check          what the archive has, what it lacks, and the closest names
The exit status of --check is 0 if the service has everything that is needed, and 2 otherwise."""

KEYS = """\
title            DataLink's name of the release
schema           schema of TAP tables whose `name` has no dot
widths           numbers of BP and RP coefficients, where known
cone             the table in which --cone looks for stars
has_spectrum     the column of gaia_source.parquet that marks stars with a spectrum
[datalink]       products and structures to request (the first that exists is used); format
[spectra]        our column of spectra = "the archive's", where they differ
[bulk]           folder of bulk files, beginning of their names; [bulk.tables] folders by short name
[tables.NAME]    name, key (column that identifies a row), match (that of a row elsewhere)
[tables.NAME.columns]  OURS = { type, unit, column = "THEIRS" or expression = "A / B", optional }
[ids]            another release = the table that relates the ids of both
[products.NAME]  parts: from, matched, beside (a star's row is from the first part that has it)"""


def add(commands: options.Commands) -> None:
    """Add the command ``releases``."""
    command = options.add_command(
        commands, "releases", run,
        "list the tables and columns of Gaia's data releases, or compare them with the archive",
        "releases --check",
        TEXT, KEYS,
    )  # fmt: skip
    command.add_argument("name", nargs="?", metavar="NAME", help="dr3, dr4 or a FILE.toml")
    command.add_argument("--check", action="store_true", help="compare with a service's TAP_SCHEMA")
    text = "address of the service (default: ESA's Gaia archive)"
    command.add_argument("--url", metavar="TAP", help=text)


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
