"""Spectral energy distributions through the instrument, as a star table."""

from __future__ import annotations

import argparse
from pathlib import Path

from xplabels.cli import options
from xplabels.core.errors import counted


def add(commands: options.Commands) -> None:
    """Add the command ``simulate``."""
    command = options.add_command(
        commands,
        "simulate",
        "simulate the XP spectra of spectral energy distributions",
        "SED is a table of wavelength and flux, one source per file (.ecsv, .fits, .vot, .csv, or\n"
        "text), covering 330-1050 nm. Units are those of its columns; columns without one are in\n"
        "nm and W m-2 nm-1, or as --wavelength-unit and --flux-unit say. Columns are found by\n"
        "name (wavelength, flux); where there are just two, they may have any.",
        "STARS.parquet holds one simulated star per row: source_id 1, 2, ... in the order of\n"
        "files, then of G, then of draws; 55 BP + 55 RP coefficients with errors typical of\n"
        "their G and colour, illustrative correlations, G, BP and RP. That it is simulated stands\n"
        "in its metadata. It needs the extra 'library' (GaiaXPy's instrument files).",
    )
    command.add_argument(
        "seds", type=Path, nargs="+", metavar="SED", help="table of wavelength, flux"
    )
    options.add_output(command, "STARS.parquet", "table to write")
    command.add_argument(
        "--g-mag",
        type=_magnitudes,
        metavar="MAG",
        help="scale each SED to this G (Vega, mag), or to several with commas (default: as given)",
    )
    command.add_argument(
        "--draws",
        type=options.whole,
        default=1,
        metavar="N",
        help="stars of each SED and G (default 1)",
    )
    options.add_seed(command, "random seed of the noise")
    command.add_argument(
        "--noiseless", action="store_true", help="add no noise; errors are given all the same"
    )
    command.add_argument(
        "--wavelengths",
        choices=["vacuum", "air"],
        default="vacuum",
        help="what the wavelengths are measured in (default vacuum)",
    )
    for what, several, example in (
        ("wavelength", "wavelengths", "Angstrom"),
        ("flux", "fluxes", "'erg s-1 cm-2 Angstrom-1'"),
    ):
        command.add_argument(
            f"--{what}-unit",
            default="",
            metavar="UNIT",
            help=f"unit of {several} that state none, such as {example}",
        )
    command.add_argument(
        "--extrapolate",
        action="store_true",
        help="hold the flux of a SED that does not cover 330-1050 nm constant at its ends",
    )
    options.add_overwrite(command)
    command.set_defaults(run=run)


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
    from xplabels.instrument.sed import read_sed
    from xplabels.instrument.simulation import simulate_spectra
    from xplabels.io import write_stars
    from xplabels.io.atomic import check_parquet

    check_parquet(args.output, args.overwrite)
    stars = simulate_spectra(
        [
            read_sed(
                path,
                medium=args.wavelengths,
                wavelength_unit=args.wavelength_unit,
                flux_unit=args.flux_unit,
            )
            for path in args.seds
        ],
        g_mag=args.g_mag,
        draws=args.draws,
        noise=not args.noiseless,
        seed=args.seed,
        extrapolate=args.extrapolate,
    )
    write_stars(stars, args.output, args.overwrite)
    print(f"{counted(len(stars), 'simulated star')}: {args.output}")
