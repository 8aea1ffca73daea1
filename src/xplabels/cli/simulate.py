"""Spectral energy distributions through the instrument, as a star table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xplabels.cli import options
from xplabels.core.errors import counted

if TYPE_CHECKING:
    from xplabels.core.stars import Stars


def add(commands: options.Commands) -> None:
    """Add the command ``simulate``."""
    command = options.add_command(
        commands, "simulate", run,
        "simulate XP spectra from spectral energy distributions",
        "simulate vega.fits --output vega.parquet",
        "SED is a table of wavelength and flux, one source per file (.ecsv, .fits, .vot, .csv,\n"
        "or text), covering 330-1050 nm. Units are read from the columns; columns without a unit\n"
        "are in nm and W m-2 nm-1, unless --wavelength-unit and --flux-unit are given. Columns\n"
        "are found by name (wavelength, flux); if there are only two, they may have any names.",
        "STARS.parquet has one row per simulated star: source_id 1, 2, ... in the order of\n"
        "files, then of G, then of draws; 55 BP + 55 RP coefficients with errors typical of\n"
        "their G and colour, illustrative correlations, G, BP and RP. Its metadata state that it\n"
        "is simulated. It needs the extra 'library' (GaiaXPy's instrument files).",
    )  # fmt: skip
    text = "table of wavelength and flux"
    command.add_argument("seds", type=Path, nargs="+", metavar="SED", help=text)
    options.share(command, "--output", metavar="STARS.parquet", help="table to write")
    command.add_argument(
        "--g-mag",
        type=_magnitudes,
        metavar="MAG",
        help="scale each SED to this G (Vega, mag), or to several with commas (default: no "
        "scaling)",
    )
    text = "number of stars per SED and G, with different noise (default 1)"
    command.add_argument("--draws", type=options.whole, default=1, metavar="N", help=text)
    options.share(command, "--seed", help="random seed of the noise (default 0)")
    text = "add no noise; errors are written nevertheless"
    command.add_argument("--noiseless", action="store_true", help=text)
    command.add_argument(
        "--wavelengths",
        choices=["vacuum", "air"],
        default="vacuum",
        help="medium of the wavelengths (default vacuum)",
    )
    for what, several, example in (
        ("wavelength", "wavelengths", "Angstrom"),
        ("flux", "fluxes", "'erg s-1 cm-2 Angstrom-1'"),
    ):
        text = f"unit of {several} without a declared one, such as {example}"
        command.add_argument(f"--{what}-unit", default="", metavar="UNIT", help=text)
    text = "if an SED does not cover 330-1050 nm, hold its flux constant beyond its ends"
    command.add_argument("--extrapolate", action="store_true", help=text)
    options.share(command, "--overwrite")


def _magnitudes(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give magnitudes, such as 13 or 12,13.5"
        ) from None


@options.alone
def run(args: argparse.Namespace) -> None:
    """Write the table and say how many stars it has."""
    from xplabels.api import write_star_table
    from xplabels.instrument.sed import read_sed
    from xplabels.instrument.simulation import simulate_spectra

    def make() -> Stars:
        units = {"wavelength_unit": args.wavelength_unit, "flux_unit": args.flux_unit}
        return simulate_spectra(
            [read_sed(path, medium=args.wavelengths, **units) for path in args.seds],
            g_mag=args.g_mag,
            draws=args.draws,
            noise=not args.noiseless,
            seed=args.seed,
            extrapolate=args.extrapolate,
        )

    count = write_star_table(make, args.output, args.overwrite)
    print(f"{counted(count, 'simulated star')}: {args.output}")
