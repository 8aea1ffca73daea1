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
        commands, "check-errors", run,
        "test whether a model's error bars hold for your stars; needs no known labels",
        "check-errors spectra.csv",
        STARS_HELP, PHOTOMETRY_HELP,
        "Your stars are compared with those on which the model's errors were calibrated, in\n"
        "predicted labels, noise, distance from the training set and missing colours. The result\n"
        "states how many of your stars have similar calibration stars, what coverage to expect,\n"
        "and how the other stars differ. Stars that resemble others in all of this but have\n"
        "different labels cannot be detected. Documentation: Which stars can I keep?",
    )  # fmt: skip
    options.share(command, "stars", help="spectra: a star table or file")
    options.share(command, "--model")
    text = "also write the results to this file, with a p-value for each star"
    command.add_argument("--json", type=Path, metavar="FILE", help=text)
    options.share(command, "--photometry", "--bad-rows", "--overwrite")


@options.alone
def run(args: argparse.Namespace) -> None:
    """Compare, print and write."""
    from xplabels.api import DEFAULT_MODEL, read_stars
    from xplabels.io.atomic import check_output, whole_file
    from xplabels.model import Model
    from xplabels.model.refitting import check_errors

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
