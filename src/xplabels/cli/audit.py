"""Known labels that are probably wrong, as a table."""

from __future__ import annotations

import argparse

from xplabels.cli import options
from xplabels.cli.help import LABELS_HELP, PHOTOMETRY_HELP, STARS_HELP

AUDIT_HELP = """\
TABLE (its file extension sets the format) gets one row per star whose label is wrong
with a probability of at least 0.1, in order of decreasing probability, followed by the
stars that were not judged. Columns: source_id, probability, reason, and for each label
the known and the predicted value, both errors, their disagreement in sigma and the
probability that this label is wrong. Stars that the model was trained on are left out
unless --all is given; label_audit.csv in the model's folder lists them, judged by
networks that were not trained on them."""


def add(commands: options.Commands) -> None:
    """Add the command ``audit``."""
    command = options.add_command(
        commands, "audit", run,
        "list stars whose known labels are probably wrong",
        "audit model stars.parquet --output suspicious.csv",
        STARS_HELP, LABELS_HELP, PHOTOMETRY_HELP, AUDIT_HELP,
    )  # fmt: skip
    options.share(command, "model", "stars")
    options.share(command, "--output", metavar="TABLE", help="file to write")
    text = "all stars; use it if the model was trained on none of them"
    command.add_argument("--all", action="store_true", help=text)
    options.share(command, *options.TABLES, "--overwrite")


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
