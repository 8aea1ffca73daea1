"""Bulk files of spectra to a HATS catalogue."""

from __future__ import annotations

import argparse
from pathlib import Path

from xplabels.cli import options

CONVERT_HELP = """\
The archive's bulk files become a HATS catalogue: Parquet, one file per HEALPix partition, read by
LSDB, polars, DuckDB and xplabels predict. Coefficients and their errors are float32, correlations
float16, which changes the errors of labels by a fraction of less than 1e-3.

With --gaia-source, ra, dec and, where available, pmra, pmdec, ref_epoch, photometry and parallax
are copied from the files GaiaSource_A-B.csv.gz of the same pixels. Without it, the columns
pixel_ra, pixel_dec give the centre of the pixel (52 arcsec wide) that source_id encodes.

During a run, finished parts are kept in CATALOGUE.partial; to resume an interrupted run, repeat
the command. It needs the extra 'lsdb'."""


def add(commands: options.Commands) -> None:
    """Add the command ``convert``."""
    command = options.add_command(
        commands, "convert", run,
        "convert bulk files to a HATS catalogue",
        "convert XpContinuousMeanSpectrum/ --output xp_hats",
        CONVERT_HELP,
    )  # fmt: skip
    text = "bulk files XpContinuousMeanSpectrum_A-B.csv.gz, or folders of them"
    command.add_argument("inputs", type=Path, nargs="+", metavar="FOLDER|FILE", help=text)
    options.share(command, "--output", metavar="CATALOGUE", help="folder to write")
    text = "folder of the GaiaSource files"
    command.add_argument("--gaia-source", type=Path, metavar="FOLDER", help=text)
    options.share(command, "--workers", help="number of processes (default 1)")
    text = "largest number of rows in a partition (default 50000)"
    command.add_argument("--most-rows", type=options.whole, metavar="N", help=text)
    text = "level of the HEALPix pixels in the file names (default 8)"
    command.add_argument("--level", type=int, metavar="N", help=text)
    options.share(command, "--bad-rows", "--release", "--overwrite")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from xplabels.convert import MOST_ROWS, convert_files
    from xplabels.convert.region import FILE_LEVEL

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
        level=FILE_LEVEL if args.level is None else args.level,
        overwrite=args.overwrite,
    )
    print(made.to_text())
    print(f"Catalogue: {args.output}")
