"""A model against known labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.cli.help import LABELS_HELP, METRICS_HELP, PHOTOMETRY_HELP, STARS_HELP
from xplabels.cli.options import add_overwrite, add_selection, add_tables, add_verb

if TYPE_CHECKING:
    from xplabels.cli.options import Verbs


def add(verbs: Verbs) -> None:
    """Add the verb ``validate``."""
    verb = add_verb(
        verbs,
        "validate",
        "compare a model's labels and errors with known labels",
        STARS_HELP,
        LABELS_HELP,
        PHOTOMETRY_HELP,
        METRICS_HELP,
        "DIR gets metrics.json and one self-contained report.html. Without --all, the stars are\n"
        "the test part of the model's split; without --range and --complete, those inside the\n"
        "ranges the model was trained with.",
    )
    verb.add_argument("model", metavar="MODEL", help="folder of a model, or a shipped name")
    verb.add_argument("stars", type=Path, metavar="STARS", help="star table with known labels")
    verb.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    verb.add_argument("--all", action="store_true", help="every star, not the test part only")
    verb.add_argument(
        "--withhold-photometry",
        action="store_true",
        help="predict from the spectra alone, and judge the larger errors by twice the margins",
    )
    add_selection(verb, "compare only stars inside a range of a known label, e.g. fe_h=:-1")
    add_tables(verb)
    add_overwrite(verb)
    verb.set_defaults(verb=run)


def run(args: argparse.Namespace) -> None:
    """What the verb does."""
    from xplabels.model import Model
    from xplabels.output import REPORT_FILES, check_new_folder
    from xplabels.selection import Selection
    from xplabels.workflow import read_stars, validate_model

    check_new_folder(args.output, REPORT_FILES, args.overwrite)
    model = Model.load(args.model)
    given = bool(args.ranges or args.complete)
    selection = Selection.of(args.ranges, model.names if args.complete else ()) if given else None
    stars = read_stars(args.stars, args.photometry, args.label_table, None, args.bad_rows)
    validation = validate_model(
        model,
        stars,
        args.output,
        selection=selection,
        every=args.all,
        withhold_photometry=args.withhold_photometry,
        overwrite=args.overwrite,
        command=args.command,
    )
    print(validation.to_text())
    print(f"Report: {args.output / 'report.html'}")
