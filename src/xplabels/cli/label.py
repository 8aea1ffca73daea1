"""Ids, or a circle on the sky, to a catalogue of labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from xplabels.cli import options
from xplabels.cli.help import CATALOGUE_HELP
from xplabels.core.errors import InputError


def add(commands: options.Commands) -> None:
    """Add the command ``label``."""
    command = options.add_command(
        commands,
        "label",
        "label stars by id or in a circle on the sky: fetch their data and predict",
        "Fetched data (spectra, Gaia's photometry, 2MASS and WISE) are kept in DIR, where later\n"
        "commands find them; without --data, in CATALOGUE.data until the catalogue is complete.\n"
        "To resume an interrupted run, repeat the command.",
        "It combines xplabels fetch and xplabels predict, and needs the extra 'archive'.",
        CATALOGUE_HELP,
    )
    command.add_argument(
        "ids",
        type=Path,
        nargs="?",
        metavar="IDS",
        help="table with a column source_id, or .txt: one id per line",
    )
    command.add_argument("--cone", metavar="RA,DEC,RADIUS", help="all sources in a circle, in deg")
    options.add_output(
        command, "CATALOGUE", "catalogue to write: .parquet, .fits, .ecsv, .vot, .csv"
    )
    command.add_argument(
        "--data", type=Path, metavar="DIR", help="folder in which fetched data are kept"
    )
    options.add_model(command)
    options.add_basis(command)
    options.add_correlations(command)
    options.add_unshrunk(command)
    options.add_archive(command)
    options.add_workers(command, "number of files labelled in parallel, each in its own process")
    options.add_overwrite(command, "an existing catalogue")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Fetch and predict."""
    from xplabels.api.labelling import label_stars
    from xplabels.cli.predict import summary_lines
    from xplabels.fetch import Cone, FetchSettings, Targets

    archive, retry = options.archive(args)
    if (args.ids is None) == (args.cone is None):
        raise InputError("give either a table of ids or --cone")
    targets = (
        Targets.of_cone(Cone.parse(args.cone), archive.release)
        if args.ids is None
        else Targets.of_file(args.ids)
    )
    summary = label_stars(
        targets,
        args.output,
        options.model(args),
        data=args.data,
        archive=archive,
        settings=FetchSettings(retry),
        correlations=args.correlations,
        workers=args.workers,
        overwrite=args.overwrite,
        command=args.command,
    )
    print("\n".join(summary_lines(summary)[1:]))
    print(f"Catalogue: {args.output}")
