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
        commands,
        "predict",
        "label the stars of archive files",
        "FILE is a Gaia XP continuous file (DataLink CSV, ECSV, FITS, VOTable; bulk .csv,\n"
        ".csv.gz) or a star table of this package (.parquet), or a folder of them.",
        "Tables with a column for each coefficient (bp_coeff_0, e_bp_coeff_0, ...) and spectra\n"
        "that GaiaXPy's calibrate has sampled (flux, flux_error) are read, too.",
        "With --cone, --box or --pixel FILE is a HATS catalogue of spectra, such as the public\n"
        "one of DR3 (hf://datasets/UniverseTBD/mmu_gaia_gaia): only what that part of the sky\n"
        "needs is read, and kept in CATALOGUE.spectra until the catalogue is complete.",
        PHOTOMETRY_HELP,
        CATALOGUE_HELP,
        "The format follows the ending of CATALOGUE: .parquet, .fits, .ecsv, .vot or .csv. While\n"
        "a run lasts, finished files are kept in CATALOGUE.partial; an interrupted run resumes\n"
        "when the same command is given again.",
        "Without such an ending the output is a folder: one Parquet file per input, with an\n"
        "account of each in its _manifest/. A broken file is named and the others are completed.\n"
        "The same command again makes what is missing, truncated or altered, or was made with\n"
        "another model, version, photometry or option, and says which. An old output stays until\n"
        "its replacement is complete. If its input cannot be labelled, it is removed only if it\n"
        "is itself broken, or if these settings made it from an input (or GaiaSource file) that\n"
        "has changed. In the documentation: How do I label the whole sky?",
        "The exit status is 0 only if every file has its labels: not if one is broken, nor if a\n"
        "file is missing that the _MD5SUM.txt in a folder given as FILE lists (--allow-missing);\n"
        "one that was labelled before it was removed is not missing.",
    )
    command.add_argument(
        "files",
        type=path_or_address,
        nargs="+",
        metavar="FILE",
        help="archive file, or folder of them; with --cone, --box or --pixel a HATS catalogue, "
        "here or at hf://, https://, ...",
    )
    options.add_area(command)
    options.add_output(command, "CATALOGUE|FOLDER", "catalogue to write, or folder of one per file")
    options.add_model(command)
    options.add_basis(command)
    command.add_argument(
        "--correlations",
        action="store_true",
        help="add a column teff_logg_corr, ... for each pair of labels: how their errors correlate",
    )
    options.add_unshrunk(command)
    options.add_workers(command, "files at a time, each in a process of its own")
    command.add_argument(
        "--dask",
        metavar="ADDRESS|local",
        help="label on the Dask cluster with this scheduler, one task per file (all its machines "
        "have to see input and output); local: on one of --workers processes here",
    )
    options.add_photometry(command)
    command.add_argument(
        "--gaia-source",
        type=Path,
        metavar="FOLDER",
        help="folder of the bulk files GaiaSource_*, joined to the spectra of the same name; "
        "those beside the spectra are joined without it",
    )
    command.add_argument(
        "--carry",
        "--keep-columns",
        type=options.names,
        default=[],
        metavar="COLUMNS",
        help="columns of numbers to take over from the photometry, as ra,dec",
    )
    command.add_argument(
        "--coefficients",
        metavar="PATTERN",
        help="names of the columns in a table with one for each coefficient, and of their errors "
        "(default {band}_coeff_{i},e_{band}_coeff_{i})",
    )
    options.add_bad_rows(command)
    command.add_argument(
        "--allow-missing",
        action="store_true",
        help="files that the _MD5SUM.txt of a folder lists may be missing from it: only a part of "
        "the table was downloaded",
    )
    options.add_overwrite(
        command, "an existing catalogue, or files in FOLDER that were not made here"
    )
    options.add_release(command)
    command.set_defaults(run=run)


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
    print(f"Catalogue: {args.output}")


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
