"""Gaia stars and a survey's catalogue, matched on the sky."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.cli.options import add_overwrite, add_verb, names

if TYPE_CHECKING:
    from xplabels.cli.options import Verbs

MATCH_HELP = """\
STARS has source_id, ra, dec (degrees) and, to be moved to the catalogue's epoch, pmra, pmdec
(mas/yr) and maybe ref_epoch (Julian year, 2016.0 without it); CATALOGUE is a HATS collection, or a
HATS catalogue with --margin. Both may be folders or addresses.

MATCHES.parquet is read by xplabels select --table SURVEY=MATCHES.parquet; it has the catalogue's
columns, and
  source_id         Gaia source identifier
  match_separation  arcsec, at the catalogue's epoch
  match_count       candidates within the radius
  match_flags       sum of: 1 SEVERAL candidates, the nearest was taken; 2 SHARED with another star;
                    4 FAST: moves farther than the margin, so candidates may be unseen
It needs the extra 'lsdb'. The matches are held in memory."""


def add(verbs: Verbs) -> None:
    """Add the command ``match``."""
    verb = add_verb(
        verbs, "match", "match Gaia stars with a survey's catalogue on the sky", MATCH_HELP
    )
    verb.add_argument("stars", metavar="STARS", help="HATS catalogue or table of Gaia sources")
    verb.add_argument("catalogue", metavar="CATALOGUE", help="HATS catalogue of the survey")
    verb.add_argument(
        "--survey", choices=["unwise", "allwise", "twomass"], default="unwise",
        help="what CATALOGUE is (default unwise)",
    )  # fmt: skip
    verb.add_argument(
        "--radius", type=float, default=1.0, metavar="ARCSEC", help="of the match (default 1)"
    )
    verb.add_argument(
        "--epoch", type=float, metavar="YEAR",
        help="of the catalogue's positions (default unwise 2014.9, allwise 2010.5589, twomass "
        "1999.1: means of surveys that took years)",
    )  # fmt: skip
    verb.add_argument("--margin", metavar="MARGIN", help="the catalogue's margin")
    verb.add_argument(
        "--columns", type=names, default=[], metavar="NAMES", help="more columns to keep"
    )
    verb.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes of a Dask cluster on this machine (default 1: this process)",
    )  # fmt: skip
    verb.add_argument(
        "--output", type=Path, required=True, metavar="MATCHES.parquet", help="table to write"
    )
    add_overwrite(verb)
    verb.set_defaults(verb=run)


def run(args: argparse.Namespace) -> None:
    """What the command does."""
    from xplabels.core.errors import InputError
    from xplabels.sky import check_matches, match_on_sky, write_matches

    check_matches(args.output, args.overwrite)
    if args.workers < 1:
        raise InputError(f"{args.workers} workers are too few", remedy="give 1 or more")
    matches = match_on_sky(
        args.stars,
        args.catalogue,
        survey=args.survey,
        radius=args.radius,
        epoch=args.epoch,
        margin=args.margin,
        more_columns=args.columns,
        workers=args.workers,
    )
    write_matches(matches, args.output, args.overwrite)
    print(matches.summary())
    print(f"Matches: {args.output}")
