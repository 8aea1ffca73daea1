"""A model against known labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.cli import options
from xplabels.cli.help import LABELS_HELP, METRICS_HELP, PHOTOMETRY_HELP, STARS_HELP
from xplabels.core.errors import InputError, require

if TYPE_CHECKING:
    from xplabels.validation.surveys import ReferenceSurvey


SURVEYS = ("lamost-lrs", "lamost-mrs", "gspphot", "fs24")
"""As :data:`xplabels.validation.surveys.COMPARED`, whose import would slow down ``--help``."""


def add(commands: options.Commands) -> None:
    """Add the command ``validate``."""
    command = options.add_command(
        commands, "validate", run,
        "compare a model's labels and errors with known labels",
        "validate model stars.parquet --output report",
        STARS_HELP, LABELS_HELP, PHOTOMETRY_HELP, METRICS_HELP,
        "DIR gets metrics.json and a self-contained report.html. Without --all, the stars are\n"
        "the test part of the model's split. Without --range and --complete, they are limited to\n"
        "the ranges that the model was trained with; with them, these limits replace the model's\n"
        "(the report says so). With --compare-survey, labels of another survey are also\n"
        "compared; STARS need not have labels then.",
    )  # fmt: skip
    options.share(command, "model", "stars")
    options.share(command, "--output", metavar="DIR", help="folder to write")
    command.add_argument("--all", action="store_true", help="all stars, not only the test part")
    words, text = ("--compare-survey", "--against"), "also compare with another survey's table"
    command.add_argument(*words, dest="against", type=Path, metavar="TABLE", help=text)
    text = "survey of that table, with its columns as published"
    command.add_argument("--survey", choices=SURVEYS, help=text)
    text = "the archive's table that relates the survey's identifiers (LAMOST: Gaia DR2) to DR3"
    command.add_argument("--neighbours", type=Path, metavar="TABLE", help=text)
    text = "multiply the survey's errors by FACTOR, if its authors recommend it"
    command.add_argument(
        "--inflate", type=factor, action="append", default=[], metavar="LABEL=FACTOR", help=text
    )
    text = "predict from the spectra alone; the verdict follows the same rule"
    command.add_argument("--withhold-photometry", action="store_true", help=text)
    options.share(command, "--unshrunk")
    text = "compare with another model on the same stars, such as one with an input left out"
    words = ("--compare-model", "--beside")
    command.add_argument(*words, dest="beside", metavar="MODEL", help=text)
    text = "compare only stars inside a range of a known label, e.g. fe_h=:-1"
    options.share(command, "--range", help=text)
    options.share(command, "--complete", *options.TABLES, "--overwrite")


def factor(text: str) -> tuple[str, float]:
    """``LABEL=FACTOR``."""
    name, equals, number = text.partition("=")
    try:
        return name, float(number if equals else "")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LABEL=FACTOR") from None


def _survey(args: argparse.Namespace) -> ReferenceSurvey | None:
    """The survey's table, read before anything is predicted, to find mistakes early."""
    if args.against is None:
        given = [f"--{name}" for name in ("survey", "neighbours", "inflate") if getattr(args, name)]
        if given:
            raise InputError(f"{given[0]} without a table", remedy="add --compare-survey TABLE")
        return None
    if args.survey is None:
        raise InputError(
            "the table's survey is not given",
            where=args.against,
            remedy=f"add --survey, one of {', '.join(SURVEYS)}",
        )
    from xplabels.validation.surveys import open_survey

    return open_survey(args.against, args.survey, args.neighbours, dict(args.inflate))


@options.alone
def run(args: argparse.Namespace) -> None:
    """Validate, print and write the report."""
    from xplabels.api.validation import validate
    from xplabels.io.atomic import REPORT_FILES, check_new_folder
    from xplabels.model import Model

    require("scipy", "matplotlib", "jinja2", "markdown_it")
    check_new_folder(args.output, REPORT_FILES, args.overwrite)
    survey = _survey(args)
    model = Model.load(args.model)
    other = None if args.beside is None else Model.load(args.beside)
    stars, selection = options.labelled_stars(args, model)
    result = validate(
        model,
        stars,
        selection=selection,
        all_stars=args.all,
        withhold_photometry=args.withhold_photometry,
        unshrunk=args.unshrunk,
        compare_model=other,
        compare_survey=survey,
        command=args.command,
    )
    page = result.write(args.output, overwrite=args.overwrite)
    print(result)
    print(f"Report: {page}")
