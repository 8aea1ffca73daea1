"""Whether a model's error bars hold for stars of which no label is known."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from xplabels.cli import options
from xplabels.cli.help import PHOTOMETRY_HELP, STARS_HELP


def add(commands: options.Commands) -> None:
    """Add the command ``check-errors``."""
    command = options.add_command(
        commands,
        "check-errors",
        "say whether a model's error bars hold for your stars; they need no known labels",
        STARS_HELP,
        PHOTOMETRY_HELP,
        "Your stars are compared with those on which the model's errors were calibrated, by\n"
        "predicted labels, noise, distance from the training set and missing colours.\n"
        "The answer says how many of yours have calibration stars like them, what share of true\n"
        "labels the intervals of these should hold, and how the others differ. It cannot see\n"
        "stars that look like others but have other labels. In the documentation:\n"
        "Which stars can I keep?",
    )
    command.add_argument("stars", type=Path, metavar="STARS", help="spectra: a star table or file")
    options.add_model(command)
    command.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write the numbers there, with a p-value per star",
    )
    options.add_photometry(command)
    options.add_bad_rows(command)
    options.add_overwrite(command)
    command.set_defaults(run=run)


@options.alone
def run(args: argparse.Namespace) -> None:
    """Compare, print and write."""
    from xplabels.api import DEFAULT_MODEL, read_stars
    from xplabels.io.atomic import check_output, whole_file
    from xplabels.model import Model
    from xplabels.model.transfer import check_errors

    if args.json is not None:
        check_output(args.json, args.overwrite)
    model = Model.load(args.model or DEFAULT_MODEL)
    stars = read_stars(args.stars, args.photometry, bad_rows=args.bad_rows)
    found = check_errors(model, stars)
    print(found)
    if args.json is not None:
        numbers = found.to_dict() | {"source_id": [str(star) for star in stars.source_id]}
        with whole_file(args.json, args.overwrite) as partial:
            partial.write_text(json.dumps(numbers, allow_nan=False) + "\n", encoding="utf-8")
