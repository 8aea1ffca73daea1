"""Archive files to a catalogue of labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.cli.help import CATALOGUE_HELP, PHOTOMETRY_HELP
from xplabels.cli.options import add_bad_rows, add_overwrite, add_photometry, add_verb

if TYPE_CHECKING:
    from xplabels.cli.options import Verbs


def add(verbs: Verbs) -> None:
    """Add the verb ``predict``."""
    verb = add_verb(
        verbs,
        "predict",
        "label the stars of archive files",
        "FILE is a Gaia XP continuous file (DataLink CSV, ECSV, FITS, VOTable; bulk .csv,\n"
        ".csv.gz) or a star table of this package (.parquet).",
        PHOTOMETRY_HELP,
        CATALOGUE_HELP,
        "The format follows the ending of CATALOGUE: .parquet, .fits, .ecsv, .vot or .csv. While\n"
        "a run lasts, finished files are kept in CATALOGUE.partial; a run that was interrupted\n"
        "goes on when the same command is given again.",
    )
    verb.add_argument("files", type=Path, nargs="+", metavar="FILE", help="archive file")
    verb.add_argument(
        "--output", type=Path, required=True, metavar="CATALOGUE", help="catalogue to write"
    )
    verb.add_argument(
        "--model",
        metavar="NAME|MODEL",
        help="folder of a model, or the name of one that ships (default: see xplabels models)",
    )
    verb.add_argument(
        "--correlations",
        action="store_true",
        help="add a column teff_logg_corr, ... for each pair of labels: how their errors correlate",
    )
    add_photometry(verb)
    add_bad_rows(verb)
    add_overwrite(verb)
    verb.set_defaults(verb=run)


def run(args: argparse.Namespace) -> None:
    """What the verb does."""
    from xplabels.catalogue import check_catalogue
    from xplabels.model import Model
    from xplabels.workflow import DEFAULT_MODEL, predict_catalogue, summary_lines

    check_catalogue(args.output, args.overwrite)
    summary = predict_catalogue(
        args.files,
        args.output,
        Model.load(args.model or DEFAULT_MODEL),
        photometry=args.photometry,
        bad_rows=args.bad_rows,
        correlations=args.correlations,
        overwrite=args.overwrite,
        command=args.command,
    )
    print("\n".join(summary_lines(summary)))
    print(f"Catalogue: {args.output}")
