"""The real library as a star table."""

from __future__ import annotations

import argparse

from xplabels.cli import options
from xplabels.cli.help import LABELS_HELP
from xplabels.core.errors import counted


def add(commands: options.Commands) -> None:
    """Add the command ``library``."""
    command = options.add_command(
        commands, "library", run,
        "write the library of real APOGEE stars as a star table",
        "library --output library.parquet",
        "STARS.parquet has one row per star: source_id, XP spectra as sampled flux (W m-2 nm-1,\n"
        "at 336-1020 nm), photometry (mag, Vega) and labels with errors. It needs the extra\n"
        "'library'.",
        LABELS_HELP,
    )  # fmt: skip
    options.share(command, "--output", metavar="STARS.parquet", help="table to write")
    options.share(command, "--overwrite")


@options.alone
def run(args: argparse.Namespace) -> None:
    """Write the table and say how many stars it has."""
    from xplabels.api import write_star_table
    from xplabels.surveys.library import read_library

    count = write_star_table(read_library, args.output, args.overwrite)
    print(f"{counted(count, 'star')}: {args.output}")
