"""Gaia stars and a survey's catalogue, matched on the sky."""

from __future__ import annotations

import argparse

from xplabels.cli import options

MATCH_HELP = """\
STARS has source_id, ra, dec (deg) and, for propagation to the catalogue's epoch, pmra, pmdec
(mas/yr) and optionally ref_epoch (Julian year, default 2016.0); CATALOGUE is a HATS collection, or
a HATS catalogue with --margin. Both may be local folders or web addresses.

MATCHES.parquet is read by xplabels select --table SURVEY=MATCHES.parquet; it has the catalogue's
columns, and
  source_id         Gaia source identifier
  match_separation  arcsec, at the catalogue's epoch
  match_count       candidates within the radius
  match_flags       sum of: 1 SEVERAL candidates, the nearest was taken; 2 SHARED with another star;
                    4 FAST: moves farther than the margin, so candidates may be missed
It needs the extra 'lsdb'. The matches are held in memory."""


def add(commands: options.Commands) -> None:
    """Add the command ``match``."""
    command = options.add_command(
        commands, "match", run,
        "match Gaia stars with a survey's catalogue on the sky",
        "match gaia_hats unwise_hats --survey unwise --output matched.parquet",
        MATCH_HELP,
    )  # fmt: skip
    command.add_argument("stars", metavar="STARS", help="HATS catalogue or table of Gaia sources")
    command.add_argument("catalogue", metavar="CATALOGUE", help="HATS catalogue of the survey")
    surveys = ["unwise", "catwise2020", "allwise", "twomass"]
    text = "survey of CATALOGUE (default unwise)"
    command.add_argument("--survey", choices=surveys, default="unwise", help=text)
    text = "search radius (default 1)"
    command.add_argument("--radius", type=float, default=1.0, metavar="ARCSEC", help=text)
    text = "epoch of the catalogue's positions (default: the survey's mean epoch: unwise 2014.9, "
    text += "catwise2020 2015.405, allwise 2010.5589, twomass 1999.1)"
    command.add_argument("--epoch", type=float, metavar="YEAR", help=text)
    command.add_argument("--margin", metavar="MARGIN", help="HATS margin catalogue of CATALOGUE")
    text = "additional columns to keep"
    command.add_argument("--columns", type=options.names, default=[], metavar="NAMES", help=text)
    text = "processes of a Dask cluster on this machine (default 1: this process alone)"
    options.share(command, "--workers", help=text)
    options.share(command, "--output", metavar="MATCHES.parquet", help="table to write")
    options.share(command, "--overwrite")


@options.alone
def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from xplabels.core.errors import InputError
    from xplabels.io.atomic import check_parquet
    from xplabels.sky import match_on_sky, write_matches

    check_parquet(args.output, args.overwrite, "matches are")
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
