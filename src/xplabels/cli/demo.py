"""Train on the real library, predict, validate, report: everything in one go."""

from __future__ import annotations

import argparse

from xplabels.cli import options
from xplabels.cli.help import METRICS_HELP


def add(commands: options.Commands) -> None:
    """Add the command ``demo``."""
    command = options.add_command(
        commands,
        "demo",
        "train on real APOGEE stars, label stars not trained on, validate, write a report",
        "The stars have 3200 < teff < 7000 K and known teff, logg, fe_h and alpha_m; a tenth of\n"
        "them is set aside for testing. DIR gets library.parquet, model/, catalogue.fits and\n"
        "report/. To resume an interrupted demo, repeat the command.",
        METRICS_HELP,
    )
    options.add_output(command, "DIR", "folder to fill")
    options.add_recipe(command, default="quick")
    options.add_overwrite(command)
    command.set_defaults(run=run)


@options.alone
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
