"""The sampling matrix of a basis of spectra, as a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from xplabels.cli import options
from xplabels.core.errors import InputError


def add(commands: options.Commands) -> None:
    """Add the command ``basis``."""
    command = options.add_command(
        commands,
        "basis",
        "write the sampling matrix of a basis of spectra, or say what a file has",
        "A model reads spectra of a basis that it was not made with (another data release's) by\n"
        "that basis's sampling matrix: xplabels predict takes it from the installed GaiaXPy if it\n"
        "carries it, or from a file (--basis). This command writes the file where there is a\n"
        "GaiaXPy that does; without --from-gaiaxpy it says what a file holds.",
    )
    command.add_argument("file", type=Path, nargs="?", metavar="FILE", help="file to look at")
    command.add_argument(
        "--from-gaiaxpy", action="store_true", help="take the basis of the installed GaiaXPy"
    )
    command.add_argument(
        "--widths",
        default="55,55",
        metavar="BP,RP",
        help="numbers of coefficients of the basis wanted (default 55,55, DR3's)",
    )
    command.add_argument(
        "--models",
        type=options.names,
        default=[],
        metavar="BP,RP",
        help="names of GaiaXPy's instrument models, where several have these widths",
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="file to write (.safetensors)")
    options.add_overwrite(command)
    command.set_defaults(run=run)


@options.alone
def run(args: argparse.Namespace) -> None:
    """Write a basis, or describe one."""
    from xplabels.instrument.basis import SUFFIX, Basis, gaiaxpy_basis

    if args.from_gaiaxpy == (args.file is not None):
        raise InputError("nothing is asked for, or twice", remedy="give FILE, or --from-gaiaxpy")
    if args.from_gaiaxpy:
        if args.output is None or args.output.suffix != SUFFIX:
            raise InputError("no output is named", remedy=f"give --output FILE{SUFFIX}")
        basis = gaiaxpy_basis(_widths(args.widths), tuple(args.models))
        basis.save(args.output, args.overwrite)
    else:
        basis = Basis.load(args.file)
    low, high = basis.wavelength[[0, -1]]
    print(f"{basis.name}: {basis.widths[0]} BP + {basis.widths[1]} RP coefficients")
    print(f"sampled at {len(basis.wavelength)} wavelengths, {low:g}-{high:g} nm")
    for key, value in basis.provenance.items():
        print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    print(f"sha256: {basis.sha256}")
    if args.from_gaiaxpy:
        print(f"Basis: {args.output}")


def _widths(text: str) -> tuple[int, int]:
    try:
        bp, rp = (options.positive(word) for word in text.split(","))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise InputError(
            f"{text!r} are no numbers of coefficients", remedy="write them as BP,RP, e.g. 51,55"
        ) from error
    return bp, rp
