"""Train on the real library, predict, validate, report: everything in one go."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.cli.help import METRICS_HELP
from xplabels.cli.options import add_overwrite, add_recipe, add_verb

if TYPE_CHECKING:
    from xplabels.cli.options import Verbs


def add(commands: Verbs) -> None:
    """Add the command ``demo``."""
    command = add_verb(
        commands,
        "demo",
        "train on real APOGEE stars, predict stars never seen, validate, report",
        "The stars have 3200 < teff < 7000 K and all of teff, logg, fe_h, alpha_m known; a tenth\n"
        "is kept for the test. DIR gets library.parquet, model/, catalogue.fits and report/.\n"
        "A demo that was interrupted goes on when the same command is given again.",
        METRICS_HELP,
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to fill")
    add_recipe(command, default="quick")
    add_overwrite(command)
    command.set_defaults(verb=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from xplabels.api.demo import run_demo

    report = run_demo(
        args.output,
        recipe=args.recipe,
        seed=args.seed,
        overwrite=args.overwrite,
        command=args.command,
    )
    print(f"Open {report}")
