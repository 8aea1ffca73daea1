"""Train on the real library, predict, validate, report: everything in one go."""

from __future__ import annotations

import argparse

from xplabels.cli import options
from xplabels.cli.help import METRICS_HELP


def add(commands: options.Commands) -> None:
    """Add the command ``demo``."""
    command = options.add_command(
        commands, "demo", run,
        "train on real APOGEE stars, label stars not trained on, validate, write a report",
        "demo --output demo",
        "The stars have 3200 < teff < 7000 K and known teff, logg, fe_h and alpha_m; a tenth of\n"
        "them is set aside for testing. DIR gets library.parquet, model/, catalogue.fits and\n"
        "report/. To resume an interrupted demo, repeat the command.",
        METRICS_HELP,
    )  # fmt: skip
    options.share(command, "--output", metavar="DIR", help="folder to fill")
    options.share(command, "--recipe", default="quick")
    options.share(command, "--seed", "--overwrite")


@options.alone
def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from xplabels.api.demo import run_demo

    keys = {"seed": args.seed, "overwrite": args.overwrite, "command": args.command}
    report = run_demo(args.output, recipe=args.recipe, **keys)
    print(f"Open {report}")
