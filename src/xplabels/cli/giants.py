"""Semi-synthetic giants as a star table."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from xplabels.cli.help import LABELS_HELP
from xplabels.cli.options import add_overwrite, add_star_output, add_verb, seed

if TYPE_CHECKING:
    from xplabels.cli.options import Verbs


def add(commands: Verbs) -> None:
    """Add the command ``giants``."""
    command = add_verb(
        commands,
        "giants",
        "write semi-synthetic giants, with carbon and nitrogen of known amount, as a star table",
        "Real giants of the library whose spectra got [C/Fe] and [N/Fe] imprinted, with parallax\n"
        "(mas), W1 and W2 (mag) made from their labels; each may have copies that are fainter.\n"
        "A star's own carbon and nitrogen stay underneath. A copy's source_id is no real star's,\n"
        "on its star's side of the split. It needs the extra 'synthetic'.",
        LABELS_HELP,
    )
    add_star_output(command)
    command.add_argument(
        "--copies", type=int, default=1, metavar="N", help="fainter copies of each (default 1)"
    )
    command.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="random seed (default 0)"
    )
    add_overwrite(command)
    command.set_defaults(verb=run)


def run(args: argparse.Namespace) -> None:
    """Write the table and say how many stars it has."""
    from xplabels.api import write_star_table
    from xplabels.giants import semi_synthetic_giants

    make = partial(semi_synthetic_giants, copies=args.copies, seed=args.seed)
    count = write_star_table(make, args.output, args.overwrite)
    print(f"{count} semi-synthetic stars: {args.output}")
