"""Tables of surveys and files of spectra to a training or prediction table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xplabels.cli import options
from xplabels.core.errors import InputError

SURVEYS_HELP = """\
NAME of a table:
  gaia        gaia_source: G, BP, RP, parallax, and columns for rules (ruwe, ...)
  twomass     2MASS: J, H, Ks                         (or keyed by designation, --neighbours)
  unwise      unWISE: fluxes to W1, W2 (Vega mag, on AllWISE's scale)
  catwise2020 CatWISE2020: W1, W2 where unWISE has none   (or keyed by designation, --neighbours)
  allwise     AllWISE: W1, W2 where neither has one       (or keyed by designation, --neighbours)
  apogee      APOGEE DR17 allStar: six labels, flags
  lamost-lrs  LAMOST DR7 low resolution: teff, logg, fe_h    (DR2 ids: --neighbours)
  lamost-mrs  LAMOST DR7 medium resolution: six labels       (DR2 ids: --neighbours)
  gspphot     Gaia's astrophysical_parameters: teff, logg, [M/H] as fe_h
  fs24        the catalogue of Fallows & Sanders (2024): six labels
  any other   a table of your own: source_id, labels as teff, teff_err, mass, mass_err, ...
The rows are those of the tables of labels, the first taking precedence; without such a table they
are those of the spectra (for a prediction table, or a star table that has labels)."""

RULES_HELP = """\
a rule keeps rows for which it is true; a missing value fails, unless it ends in 'or missing':
  SURVEY.COLUMN < NUMBER        also <=, >, >=, ==, !=
  SURVEY.COLUMN lacks BIT, BIT  none of these bits, by name (apogee) or number
  labels has all                all labels of the row's survey are known; also: any, or names
  photometry has j_m, w1mpro    these magnitudes or parallaxes are known
the default rules are the cuts of Fallows & Sanders (2024): colour_excess, ruwe (gaia), aspcap,
star, extratarg (apogee), labels. A rule on a table that is not given is not applied,
and the cut flow says so."""

OUTPUT_HELP = """\
TABLE.cuts.json and TABLE.cuts.png, next to TABLE.parquet, count the rows before and after the
cuts and those removed by each rule, alone and in sequence; they list repeated stars, offsets
between surveys (K, dex) and the fate of every spectrum. Labels: teff in K, the others in dex;
magnitudes in mag (Vega)."""


def add(commands: options.Commands) -> None:
    """Add the command ``select``."""
    command = options.add_command(
        commands, "select", run,
        "join spectra with survey tables, apply cuts, and write a training table",
        "select spectra.csv --table gaia=gaia.fits apogee=allStar-dr17.fits --output stars.parquet",
        SURVEYS_HELP, RULES_HELP, OUTPUT_HELP,
    )  # fmt: skip
    text = "XP spectra or star tables"
    command.add_argument("spectra", type=Path, nargs="+", metavar="SPECTRA", help=text)
    options.share(command, "--output", metavar="TABLE.parquet", help="star table to write")
    many: dict[str, Any] = {"type": named, "nargs": "+", "action": "extend", "metavar": "NAME=FILE"}
    text = "tables of surveys, in any format that astropy or pyarrow reads"
    command.add_argument("--table", dest="tables", default=[], help=text, **many)
    text = "the Gaia archive's tables that relate a survey's identifiers to source_ids"
    command.add_argument("--neighbours", default=[], help=text, **many)
    text = "labels to keep, with commas (default all)"
    command.add_argument("--labels", type=options.names, metavar="NAMES", help=text)
    text = "rules that replace the default ones"
    command.add_argument("--rules", type=Path, metavar="FILE.toml", help=text)
    text = "add a rule, or change the one of that name, e.g. 'ruwe=gaia.ruwe <= 1.2'"
    command.add_argument(
        "--rule", action="append", default=[], metavar="NAME=EXPRESSION", dest="changes", help=text
    )
    text = "leave a rule out"
    command.add_argument("--without", action="append", default=[], metavar="NAME", help=text)
    text = "put several surveys on the scale of the first by means of common stars (default fit)"
    command.add_argument("--offsets", choices=["fit", "none"], default="fit", help=text)
    options.share(command, "--bad-rows", "--release", "--overwrite")


def named(text: str) -> tuple[str, Path]:
    """``NAME=FILE``."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(path)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from xplabels.core.labels import check_names
    from xplabels.cuts.rules import load_rules
    from xplabels.cuts.selecting import SelectOptions, select_stars

    if len(dict(args.neighbours)) < len(args.neighbours):
        raise InputError("--neighbours names a survey twice", remedy="give one table for each")
    options = SelectOptions(
        tuple(args.spectra),
        tuple(args.tables),
        dict(args.neighbours),
        load_rules(args.rules, args.changes, args.without),
        None if args.labels is None else check_names(args.labels),
        args.offsets == "fit",
        args.bad_rows,
    )
    select_stars(options, args.output, overwrite=args.overwrite, command=args.command)
    print(f"Stars: {args.output}")
