"""Archive files to a catalogue of labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.cli.help import CATALOGUE_HELP, PHOTOMETRY_HELP
from xplabels.cli.options import (
    add_bad_rows,
    add_overwrite,
    add_photometry,
    add_unshrunk,
    add_verb,
    names,
)
from xplabels.core.errors import InputError, counted

if TYPE_CHECKING:
    from xplabels.cli.options import Verbs
    from xplabels.pipeline import Summary

SHOWN = 10
"""Damaged rows, and missing files, that are named; the catalogue and ``run.json`` have them all."""


def add(commands: Verbs) -> None:
    """Add the command ``predict``."""
    command = add_verb(
        commands,
        "predict",
        "label the stars of archive files",
        "FILE is a Gaia XP continuous file (DataLink CSV, ECSV, FITS, VOTable; bulk .csv,\n"
        ".csv.gz) or a star table of this package (.parquet), or a folder of them.",
        PHOTOMETRY_HELP,
        CATALOGUE_HELP,
        "The format follows the ending of CATALOGUE: .parquet, .fits, .ecsv, .vot or .csv. While\n"
        "a run lasts, finished files are kept in CATALOGUE.partial; a run that was interrupted\n"
        "goes on when the same command is given again.",
        "Without such an ending the output is a folder: one Parquet file for each input, and in\n"
        "its _manifest/ what became of it. A file that is broken is named, the others are done.\n"
        "The same command again makes what is missing, truncated or altered, or was made with\n"
        "another model, version, photometry or option, and says which; what is there stays until\n"
        "its replacement is whole. If its input cannot be labelled, it stays as it was, unless it\n"
        "is broken itself, or is of these settings and its input (or GaiaSource file) was looked\n"
        "at and is another one now: then it goes. See docs/whole_sky.md.",
        "The exit status is 0 only if every file has its labels: not if one is broken, nor if a\n"
        "file is missing that the _MD5SUM.txt in a folder given as FILE lists (--allow-missing);\n"
        "one that was labelled before it was removed is not missing.",
    )
    argument = command.add_argument
    argument("files", type=Path, nargs="+", metavar="FILE", help="archive file, or folder of them")
    argument(
        "--output", type=Path, required=True, metavar="CATALOGUE|FOLDER",
        help="catalogue to write, or folder of one catalogue a file",
    )  # fmt: skip
    argument(
        "--model", metavar="NAME|MODEL",
        help="folder of a model, or the name of one that ships (default: see xplabels models)",
    )  # fmt: skip
    argument(
        "--correlations", action="store_true",
        help="add a column teff_logg_corr, ... for each pair of labels: how their errors correlate",
    )  # fmt: skip
    add_unshrunk(command)
    argument(
        "--workers", type=int, default=1, metavar="N",
        help="files at a time, each in a process of its own (default 1)",
    )  # fmt: skip
    argument(
        "--dask", metavar="ADDRESS|local",
        help="label on the Dask cluster with this scheduler, one task a file (all its machines "
        "have to see input and output); local: on one of --workers processes here",
    )  # fmt: skip
    add_photometry(command)
    argument(
        "--gaia-source", type=Path, metavar="FOLDER",
        help="folder of the bulk files GaiaSource_*, joined to the spectra of the same name; "
        "those beside the spectra are joined without it",
    )  # fmt: skip
    argument(
        "--carry", "--keep-columns", type=names, default=[], metavar="COLUMNS",
        help="columns of numbers to take over from the photometry, as ra,dec",
    )  # fmt: skip
    add_bad_rows(command)
    argument(
        "--allow-missing", action="store_true",
        help="files that the _MD5SUM.txt of a folder lists may be missing from it: only a part of "
        "the table was downloaded",
    )  # fmt: skip
    message = "replace an existing catalogue, or files in FOLDER that were not made here"
    add_overwrite(command, message)
    command.set_defaults(verb=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from xplabels.api import DEFAULT_MODEL, predict_files
    from xplabels.model import Model
    from xplabels.pipeline import OnDask

    model = Model.load(args.model or DEFAULT_MODEL)
    summary = predict_files(
        args.files,
        args.output,
        model.unshrunk() if args.unshrunk else model,
        photometry=args.photometry,
        gaia_source=args.gaia_source,
        carried=args.carry,
        bad_rows=args.bad_rows,
        correlations=args.correlations,
        workers=args.workers if args.dask is None else OnDask(args.dask, args.workers),
        allow_missing=args.allow_missing,
        overwrite=args.overwrite,
        command=args.command,
    )
    print("\n".join(summary_lines(summary)))
    check_failures(summary, args.allow_missing)
    print(f"Catalogue: {args.output}")


def summary_lines(summary: Summary) -> list[str]:
    """What a run did."""
    from xplabels.core.flags import MEANING
    from xplabels.pipeline.folder import again

    lines = [counted(summary.stars, "star")]
    if summary.resumed:
        files = counted(summary.resumed, "input file")
        lines[0] += f" ({files} finished by an earlier run)"
    if summary.remade:
        lines.append(again(summary.remade))
    for flag, text in MEANING.items():
        if count := summary.flags.get(str(flag.name), 0):
            lines.append(f"{count:9d}  {flag.name}: {text}")
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
