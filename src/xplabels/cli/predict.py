"""Archive files to a catalogue of labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.cli import options
from xplabels.cli.help import CATALOGUE_HELP, PHOTOMETRY_HELP
from xplabels.core.errors import InputError, counted

if TYPE_CHECKING:
    from xplabels.pipeline import Summary

SHOWN = 10
"""Damaged rows, and missing files, that are named; the catalogue and ``run.json`` have them all."""


def add(commands: options.Commands) -> None:
    """Add the command ``predict``."""
    command = options.add_command(
        commands, "predict", run,
        "label the stars in files from the Gaia archive",
        "predict spectra/XP_*.csv --photometry photometry.csv --output labels.fits",
        "FILE is a Gaia XP continuous file (DataLink CSV, ECSV, FITS, VOTable; bulk .csv,\n"
        ".csv.gz) or a star table of this package (.parquet), or a folder of them.",
        "Tables with one column per coefficient (bp_coeff_0, e_bp_coeff_0, ...) and spectra\n"
        "sampled by GaiaXPy's calibrate (flux, flux_error) are also read.",
        "With --cone, --box or --pixel, FILE is a HATS catalogue of spectra, such as the public\n"
        "one of DR3 (hf://datasets/UniverseTBD/mmu_gaia_gaia). Only the data for that part of\n"
        "the sky are read, and they are kept in CATALOGUE.spectra until the catalogue is\n"
        "complete.",
        PHOTOMETRY_HELP,
        CATALOGUE_HELP,
        "The file extension of CATALOGUE sets the format: .parquet, .fits, .ecsv, .vot or .csv.\n"
        "During a run, finished files are kept in CATALOGUE.partial; to resume an interrupted\n"
        "run, repeat the command.",
        "Without such an extension the output is a folder, with one Parquet file per input and\n"
        "an entry for each in its _manifest/. A broken input is named, and the others are\n"
        "completed. A repeated command makes the outputs that are missing, truncated or altered,\n"
        "or that were made with another model, version, photometry or option, and says which. An\n"
        "old output stays until its replacement is complete. If its input cannot be labelled, it\n"
        "is removed only if it is itself broken, or if it was made with the same settings from\n"
        "an input (or GaiaSource file) that has since changed. Documentation: How do I label the\n"
        "whole sky?",
        "The exit status is 0 only if every file has been labelled: it is 2 if a file is broken,\n"
        "or if one is missing that the _MD5SUM.txt in a folder given as FILE lists (unless\n"
        "--allow-missing is given). A file that was removed after it was labelled does not count\n"
        "as missing.",
    )  # fmt: skip
    command.add_argument(
        "files",
        type=path_or_address,
        nargs="+",
        metavar="FILE",
        help="archive file, or folder of them; with --cone, --box or --pixel a HATS catalogue, "
        "local or at hf://, https://, ...",
    )
    area = command.add_mutually_exclusive_group()
    options.share(area, "--cone", help="only stars in a circle on the sky, in deg")
    text = "only stars within these limits, in deg"
    area.add_argument("--box", metavar="RA1,RA2,DEC1,DEC2", help=text)
    text = "only stars of HEALPix pixel N (order 3, nested)"
    area.add_argument("--pixel", metavar="N", help=text)
    text = "catalogue to write, or folder for one per input"
    options.share(command, "--output", metavar="CATALOGUE|FOLDER", help=text)
    options.share(command, "--model", "--basis", "--correlations", "--unshrunk", "--workers")
    command.add_argument(
        "--dask",
        metavar="ADDRESS|local",
        help="use the Dask cluster with this scheduler, one task per file (all its machines "
        "need access to input and output); local: a cluster of --workers processes on "
        "this machine",
    )
    options.share(command, "--photometry")
    command.add_argument(
        "--gaia-source",
        type=Path,
        metavar="FOLDER",
        help="folder of the bulk files GaiaSource_*, joined to the spectra of the same pixels; "
        "files next to the spectra are joined without this option",
    )
    text = "numerical columns to copy from the photometry, with commas, e.g. ra,dec"
    words = ("--carry", "--keep-columns")
    command.add_argument(*words, type=options.names, default=[], metavar="COLUMNS", help=text)
    command.add_argument(
        "--coefficients",
        metavar="PATTERN",
        help="names of the columns of single coefficients and of their errors (default "
        "{band}_coeff_{i},e_{band}_coeff_{i})",
    )
    options.share(command, "--bad-rows")
    command.add_argument(
        "--allow-missing",
        action="store_true",
        help="files listed in the _MD5SUM.txt of a folder may be missing: only part of the "
        "table was downloaded",
    )
    text = "replace an existing catalogue, or files in FOLDER that xplabels did not make"
    options.share(command, "--overwrite", help=text)
    options.share(command, "--release")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from xplabels.api import predict_files
    from xplabels.pipeline import OnDask

    summary = predict_files(
        args.files,
        args.output,
        options.model(args),
        area=options.area(args),
        photometry=args.photometry,
        gaia_source=args.gaia_source,
        carried=args.carry,
        bad_rows=args.bad_rows,
        correlations=args.correlations,
        coefficients=args.coefficients,
        workers=args.workers if args.dask is None else OnDask(args.dask, args.workers),
        allow_missing=args.allow_missing,
        overwrite=args.overwrite,
        command=args.command,
    )
    print("\n".join(summary_lines(summary)))
    check_failures(summary, args.allow_missing)
    what = "Folder of catalogues" if args.output.is_dir() else "Catalogue"
    print(f"{what}: {args.output}")


def path_or_address(text: str) -> Path | str:
    """A path; an address stays as it is."""
    return text if "://" in text else Path(text)


def summary_lines(summary: Summary) -> list[str]:
    """What a run did."""
    from xplabels.core.flags import ABOUT, COLOURS
    from xplabels.pipeline.folder import again

    lines = [f"{counted(summary.stars, 'star')}, {summary.good} good"]
    if summary.resumed:
        files = counted(summary.resumed, "input file")
        lines[0] += f" ({files} finished by an earlier run)"
    if summary.remade:
        lines.append(again(summary.remade))
    lines += summary.joined
    noted = [note for note in summary.notes if "BAD_ROW" not in note]  # these are listed below
    lines += [f"note: {note}" for note in noted[:SHOWN]]
    colours = summary.flags.get("MISSING_PHOTOMETRY", 0)
    for title, bad in (("flags that make a star not good:", True), ("remarks:", False)):
        fired = [
            f"{count:9d}  {flag.name}: {about.meaning}"
            for flag, about in ABOUT.items()
            if about.bad == bad
            and (count := summary.flags.get(str(flag.name), 0))
            # where all colours are missing, one line says so
            and not (flag in COLOURS and count == colours)
        ]
        lines += [title, *fired] if fired else []
    for file, row, star in summary.damaged[:SHOWN]:
        lines.append(f"damaged: {file}, row {row}, source_id {star}")
    if len(summary.damaged) > SHOWN:
        lines.append(f"damaged: {len(summary.damaged) - SHOWN} rows more")
    shown = len(summary.missing) if summary.account is None else SHOWN
    lines.extend(f"missing: {missing}" for missing in summary.missing[:shown])
    if len(summary.missing) > shown:
        lines.append(f"missing: {len(summary.missing) - shown} more (all in {summary.account})")
    return lines


def check_failures(summary: Summary, allow_missing: bool) -> None:
    """Raise :class:`InputError` that names every file without labels, absent ones included."""
    from xplabels.pipeline.folder import check_absent

    if summary.failed:
        listed = "\n".join(summary.failed.values())
        raise InputError(
            f"{len(summary.failed)} of {summary.files + len(summary.failed)} files "
            f"could not be labelled{'; the others are done' if summary.files else ''}:\n{listed}"
        )
    if not allow_missing:
        check_absent(summary.absent, "what is there is labelled")
