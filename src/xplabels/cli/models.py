"""The models that ship, and their cards."""

from __future__ import annotations

import argparse

from xplabels.cli import options


def add(commands: options.Commands) -> None:
    """Add the command ``models``."""
    command = options.add_command(
        commands, "models", run,
        "list the shipped models; with a name, print that model's card",
        "models apogee-dr17-library",
        "teff is in K, the other labels in dex; the card states inputs, training set and metrics.",
    )  # fmt: skip
    command.add_argument("name", nargs="?", metavar="NAME|MODEL", help="print this model's card")


def run(args: argparse.Namespace) -> None:
    """Print the models, or one's card."""
    from xplabels.model import Model, shipped

    if args.name is not None:
        print(Model.load(args.name).card)
        return
    for name in shipped():
        print(f"{name}: {', '.join(Model.load(name).names)}")
    print("xplabels models NAME prints a model's card.")
