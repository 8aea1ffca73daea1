"""Bulk files of spectra to a HATS catalogue."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.cli.options import add_bad_rows, add_overwrite, add_verb

if TYPE_CHECKING:
    from xplabels.cli.options import Verbs

CONVERT_HELP = """\
The archive's bulk files become a HATS catalogue: Parquet, one file per HEALPix partition, read by
LSDB, polars, DuckDB and xplabels predict. Coefficients and their errors are float32, correlations
float16, which moves a label's error by less than 1e-3 of itself (docs/hats.md).

With --gaia-source, ra, dec and, where they are there, pmra, pmdec, ref_epoch, photometry and the
parallax are taken over from the files GaiaSource_A-B.csv.gz of the same pixels. Without it the
columns pixel_ra, pixel_dec are the centre of the pixel (52 arcsec wide) that source_id names.

While a run lasts there is CATALOGUE.partial; a run that was interrupted goes on when the same
command is given again. It needs the extra 'lsdb'."""


def add(commands: Verbs) -> None:
    """Add the command ``convert``."""
    command = add_verb(commands, "convert", "convert bulk files to a HATS catalogue", CONVERT_HELP)
    command.add_argument(
        "inputs", type=Path, nargs="+", metavar="FOLDER|FILE",
        help="bulk files XpContinuousMeanSpectrum_A-B.csv.gz, or folders of them",
    )  # fmt: skip
    command.add_argument(
        "--output", type=Path, required=True, metavar="CATALOGUE", help="folder to write"
    )
    command.add_argument(
        "--gaia-source", type=Path, metavar="FOLDER", help="where the files of GaiaSource are"
    )
    command.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes (default 1)"
    )
    command.add_argument(
        "--most-rows", type=int, metavar="N", help="of a partition (default 50000)"
    )
    add_bad_rows(command)
    add_overwrite(command)
    command.set_defaults(verb=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from xplabels.convert import MOST_ROWS, convert_files

    folders = [path if path.is_dir() else path.parent for path in args.inputs]
    beside = next((folder for folder in folders if any(folder.glob("GaiaSource_*"))), None)
    if args.gaia_source is None and beside is not None:
        print(
            f"GaiaSource files lie beside the spectra but are not joined (positions are those of "
            f"pixels, there is no photometry): add --gaia-source {beside} to join them",
            flush=True,
        )
    made = convert_files(
        args.inputs,
        args.output,
        gaia_source=args.gaia_source,
        workers=args.workers,
        most_rows=MOST_ROWS if args.most_rows is None else args.most_rows,
        bad_rows=args.bad_rows,
        overwrite=args.overwrite,
    )
    print(made.to_text())
    print(f"Catalogue: {args.output}")
