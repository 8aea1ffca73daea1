"""The sampling matrix of a basis of spectra, as a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from xplabels.cli import options
from xplabels.core.errors import InputError


def add(commands: options.Commands) -> None:
    """Add the command ``basis``."""
    command = options.add_command(
        commands, "basis", run,
        "write the sampling matrix of a basis of spectra, or describe such a file",
        "basis --from-gaiaxpy --output dr3.safetensors",
        "A model reads spectra in a basis other than its own (that of another data release) with\n"
        "the sampling matrix of that basis. xplabels predict takes the matrix from the installed\n"
        "GaiaXPy, if it has this basis, or from a file (--basis). With --from-gaiaxpy this\n"
        "command writes such a file; otherwise it describes FILE.",
    )  # fmt: skip
    command.add_argument("file", type=Path, nargs="?", metavar="FILE", help="file to describe")
    text = "take the basis of the installed GaiaXPy"
    command.add_argument("--from-gaiaxpy", action="store_true", help=text)
    text = "numbers of coefficients in the basis (default 55,55 as in DR3)"
    command.add_argument("--widths", default="55,55", metavar="BP,RP", help=text)
    text = "names of GaiaXPy's instrument models, if several have these numbers of coefficients"
    command.add_argument("--models", type=options.names, default=[], metavar="BP,RP", help=text)
    command.add_argument("--output", type=Path, metavar="FILE", help="file to write (.safetensors)")
    options.share(command, "--overwrite")


@options.alone
def run(args: argparse.Namespace) -> None:
    """Write a basis, or describe one."""
    from xplabels.instrument.basis import SUFFIX, THREE_WAYS, Basis, gaiaxpy_basis

    if args.from_gaiaxpy == (args.file is not None):
        raise InputError("give either FILE or --from-gaiaxpy")
    if args.from_gaiaxpy:
        if args.output is None or args.output.suffix != SUFFIX:
            raise InputError(
                f"a basis is written to a file with the extension {SUFFIX}",
                remedy=f"give --output FILE{SUFFIX}",
            )
        try:
            basis = gaiaxpy_basis(_widths(args.widths), tuple(args.models))
        except InputError as error:
            if error.remedy != THREE_WAYS:
                raise
            remedy = "update GaiaXPy to a version that has a basis of these numbers of coefficients"
            raise InputError(error.what, where=error.where, remedy=remedy) from error
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
            f"{text!r} are not numbers of coefficients", remedy="write them as BP,RP, e.g. 51,55"
        ) from error
    return bp, rp
