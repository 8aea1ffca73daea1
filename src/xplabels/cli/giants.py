"""Semi-synthetic giants as a star table."""

from __future__ import annotations

import argparse
from functools import partial

from xplabels.cli import options
from xplabels.cli.help import LABELS_HELP


def add(commands: options.Commands) -> None:
    """Add the command ``giants``."""
    command = options.add_command(
        commands, "giants", run,
        "write semi-synthetic giants with known carbon and nitrogen abundances as a star table",
        "giants --output giants.parquet",
        "Real giants of the library with [C/Fe] and [N/Fe] imprinted on their spectra, and with\n"
        "parallax (mas), W1 and W2 (mag) computed from their labels; --copies adds fainter\n"
        "copies. The features of the star's own carbon and nitrogen remain in the spectrum. A\n"
        "copy has a source_id that no real star has, in the same part of the split as its star.\n"
        "It needs the extra 'synthetic'.",
        LABELS_HELP,
    )  # fmt: skip
    options.share(command, "--output", metavar="STARS.parquet", help="table to write")
    text = "fainter copies of each giant (default 1)"
    command.add_argument("--copies", type=options.whole, default=1, metavar="N", help=text)
    options.share(command, "--seed", "--overwrite")


@options.alone
def run(args: argparse.Namespace) -> None:
    """Write the table and say how many stars it has."""
    from xplabels.api import write_star_table
    from xplabels.giants import semi_synthetic_giants

    make = partial(semi_synthetic_giants, copies=args.copies, seed=args.seed)
    count = write_star_table(make, args.output, args.overwrite)
    print(f"{count} semi-synthetic stars: {args.output}")
