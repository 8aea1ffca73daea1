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
        commands, "label", run,
        "label stars by id or in a circle on the sky: fetch their data and predict",
        "label ids.txt --output labels.fits",
        "Fetched data (spectra, Gaia's photometry, 2MASS and WISE) are kept in DIR, where later\n"
        "commands find them; without --data, in CATALOGUE.data until the catalogue is complete.\n"
        "To resume an interrupted run, repeat the command.",
        "It combines xplabels fetch and xplabels predict, and needs the extra 'archive'.",
        CATALOGUE_HELP,
    )  # fmt: skip
    text = "table with a column source_id, or .txt: one id per line"
    command.add_argument("ids", type=Path, nargs="?", metavar="IDS", help=text)
    options.share(command, "--cone")
    text = "catalogue to write: .parquet, .fits, .ecsv, .vot, .csv"
    options.share(command, "--output", metavar="CATALOGUE", help=text)
    text = "folder in which fetched data are kept"
    command.add_argument("--data", type=Path, metavar="DIR", help=text)
    options.share(command, "--model", "--basis", "--correlations", "--unshrunk")
    options.share(command, "--release", **options.ARCHIVE_RELEASE)
    options.share(command, "--tap", "--datalink", "--workers")
    options.share(command, "--overwrite", help="replace an existing catalogue")


def run(args: argparse.Namespace) -> None:
    """Fetch and predict."""
    from xplabels.api.labelling import label_stars
    from xplabels.cli.predict import summary_lines
    from xplabels.fetch import Cone, Targets

    if (args.ids is None) == (args.cone is None):
        raise InputError("give either a table of ids or --cone")
    archive = options.archive(args)
    if args.ids is None:
        targets = Targets.of_cone(Cone.parse(args.cone), archive.release)
    else:
        targets = Targets.of_file(args.ids)
    summary = label_stars(
        targets,
        args.output,
        options.model(args),
        data=args.data,
        archive=archive,
        correlations=args.correlations,
        workers=args.workers,
        overwrite=args.overwrite,
        command=args.command,
    )
    print("\n".join(summary_lines(summary)[1:]))
    print(f"Catalogue: {args.output}")
