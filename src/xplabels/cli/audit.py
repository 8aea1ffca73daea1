"""Known labels that are probably wrong, as a table."""

from __future__ import annotations

import argparse
from pathlib import Path

from xplabels.cli import options
from xplabels.cli.help import LABELS_HELP, PHOTOMETRY_HELP, STARS_HELP


def add(commands: options.Commands) -> None:
    """Add the command ``audit``."""
    command = options.add_command(
        commands,
        "audit",
        "list stars whose known labels are probably wrong",
        STARS_HELP,
        LABELS_HELP,
        PHOTOMETRY_HELP,
        "TABLE (its file extension sets the format) gets one row per star whose label is wrong\n"
        "with a probability of at least 0.1, in order of decreasing probability, followed by the\n"
        "stars that were not judged. Columns: source_id, probability, reason, and for each label\n"
        "the known and the predicted value, both errors, their disagreement in sigma and the\n"
        "probability that this label is wrong. Stars that the model was trained on are left out\n"
        "unless --all is given; label_audit.csv in the model's folder lists them, judged by\n"
        "networks that were not trained on them.",
    )
    command.add_argument(
        "model", metavar="MODEL", help="folder of a model, or the name of a shipped one"
    )
    command.add_argument("stars", type=Path, metavar="STARS", help="star table with known labels")
    options.add_output(command, "TABLE", "file to write")
    command.add_argument(
        "--all",
        action="store_true",
        help="all stars; use it if the model was trained on none of them",
    )
    options.add_tables(command)
    options.add_overwrite(command)
    command.set_defaults(run=run)


@options.alone
def run(args: argparse.Namespace) -> None:
    """Predict, audit, write the table and say how many labels are probably wrong."""
    from xplabels.api import read_stars
    from xplabels.api.validation import audit
    from xplabels.io.catalogue import check_catalogue, write_table
    from xplabels.model import Model

    check_catalogue(args.output, args.overwrite)
    model = Model.load(args.model)
    stars = read_stars(
        args.stars, args.photometry, args.label_table, model.names, args.bad_rows, needed=False
    )
    found = audit(model, stars, all_stars=args.all)
    write_table(found.to_arrow(), args.output, args.overwrite)
    print(f"{found.to_text()}: {args.output}")
