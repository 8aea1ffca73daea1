"""The real library as a star table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from xplabels.cli.help import LABELS_HELP
from xplabels.cli.options import add_overwrite, add_star_output, add_verb
from xplabels.core.errors import counted

if TYPE_CHECKING:
    from xplabels.cli.options import Verbs


def add(commands: Verbs) -> None:
    """Add the command ``library``."""
    command = add_verb(
        commands,
        "library",
        "write the real library of APOGEE stars as a star table",
        "STARS.parquet: one row a star: source_id, XP spectra as sampled flux (W m-2 nm-1, at\n"
        "336-1020 nm), photometry (mag, Vega), labels with errors. It needs the extra 'library'.",
        LABELS_HELP,
    )
    add_star_output(command)
    add_overwrite(command)
    command.set_defaults(verb=run)


def run(args: argparse.Namespace) -> None:
    """Write the table and say how many stars it has."""
    from xplabels.api import write_star_table
    from xplabels.surveys.library import read_library

    count = write_star_table(read_library, args.output, args.overwrite)
    print(f"{counted(count, 'star')}: {args.output}")
