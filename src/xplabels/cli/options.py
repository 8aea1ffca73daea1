"""Options that several commands share."""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xplabels.fetch import Archive, RetryPolicy
    from xplabels.model import Model
    from xplabels.sky.area import Area

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse has no other name
else:
    Commands = argparse._SubParsersAction

Run = Callable[[argparse.Namespace], None]
"""What does a command's work."""
MOST = 10**9
"""Of copies, draws, rows and the like."""
MOST_PROCESSES = 1024


EXAMPLES = {
    "demo": "xplabels demo --output demo",
    "models": "xplabels models apogee-dr17-library",
    "label": "xplabels label ids.txt --output labels.fits",
    "releases": "xplabels releases --check",
    "fetch": "xplabels fetch --ids stars.csv --output spectra",
    "predict": "xplabels predict spectra/XP_*.csv --photometry photometry.csv --output labels.fits",
    "check-errors": "xplabels check-errors spectra.csv",
    "convert": "xplabels convert XpContinuousMeanSpectrum/ --output xp_hats",
    "library": "xplabels library --output library.parquet",
    "match": "xplabels match gaia_hats unwise_hats --survey unwise --output matched.parquet",
    "select": "xplabels select spectra.csv --table gaia=gaia.fits apogee=allStar-dr17.fits "
    "--output stars.parquet",
    "giants": "xplabels giants --output giants.parquet",
    "train": "xplabels train stars.parquet --labels teff,logg,fe_h --output model",
    "validate": "xplabels validate model stars.parquet --output report",
    "audit": "xplabels audit model stars.parquet --output suspicious.csv",
    "explain": "xplabels explain model stars.parquet --output explained",
    "simulate": "xplabels simulate vega.fits --output vega.parquet",
    "basis": "xplabels basis --from-gaiaxpy --output dr3.safetensors",
}
"""One line to begin with, for the help of each command."""
PAPER = "FS24: Fallows & Sanders (2024), on whose method xplabels is based."


def add_command(
    commands: Commands, name: str, summary: str, *paragraphs: str
) -> argparse.ArgumentParser:
    """The parser of one command, to which its module adds arguments."""
    epilog = "\n\n".join(paragraphs)
    if "FS24" in epilog:
        epilog += f"\n\n{PAPER}"
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\nexample:\n  {EXAMPLES[name]}",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_recipe(command: argparse.ArgumentParser, default: str = "default") -> None:
    """``--recipe`` and ``--seed``."""
    command.add_argument(
        "--recipe",
        default=default,
        metavar="default|quick|paper|distilled|FILE.toml",
        help="network and training: default; quick: the same network in a quarter of the time, its "
        "error bars calibrated on the validation part alone; paper: Fallows & Sanders 2024; "
        f"distilled: one network trained on the predictions of four (default: {default})",
    )
    add_seed(command)


def add_release(command: argparse.ArgumentParser) -> None:
    """``--release``."""
    command.add_argument(
        "--release",
        metavar="NAME|FILE.toml",
        help="also read tables with the column names of this data release (see xplabels "
        "releases); those of dr3 and dr4 are built in",
    )


def add_seed(command: argparse.ArgumentParser, text: str = "random seed") -> None:
    """``--seed``."""
    command.add_argument("--seed", type=seed, default=0, metavar="N", help=f"{text} (default 0)")


def add_model(command: argparse.ArgumentParser) -> None:
    """``--model``."""
    command.add_argument(
        "--model",
        metavar="NAME|MODEL",
        help="folder of a model, or the name of a shipped one (default: see xplabels models)",
    )


def add_basis(command: argparse.ArgumentParser) -> None:
    """``--basis``."""
    command.add_argument(
        "--basis",
        type=Path,
        metavar="FILE",
        help="basis of the spectra, if it is not the model's (a file written by xplabels basis)",
    )


def model(args: argparse.Namespace) -> Model:
    """The model of ``--model``, ``--unshrunk`` and ``--basis``."""
    from xplabels.model import DEFAULT_MODEL, Model

    found = Model.load(args.model or DEFAULT_MODEL)
    if args.basis is not None:
        from xplabels.instrument.basis import Basis

        found = found.with_basis(Basis.load(args.basis))
    return found.unshrunk() if args.unshrunk else found


def add_data_release(command: argparse.ArgumentParser) -> None:
    """``--release``, of an archive."""
    command.add_argument(
        "--release",
        default="dr3",
        metavar="NAME|FILE.toml",
        help="data release: dr3 (default), dr4 or a declaration (see xplabels releases)",
    )


def add_archive(command: argparse.ArgumentParser) -> None:
    """Addresses of an archive, its data release, and how patient to be."""
    add_data_release(command)
    for name, what in (
        ("tap", "Table Access Protocol service"),
        ("datalink", "DataLink service, which provides spectra"),
    ):
        text = f"address of the {what} (default: ESA's Gaia archive)"
        command.add_argument(f"--{name}", metavar="URL", help=text)


def archive(args: argparse.Namespace) -> tuple[Archive, RetryPolicy]:
    """The archive of :func:`add_archive`."""
    from xplabels.fetch import Archive, RetryPolicy
    from xplabels.releases import load_release

    given = {name: url for name in ("tap", "datalink") if (url := getattr(args, name))}
    return Archive(**given, release=load_release(args.release)), RetryPolicy()


def add_output(command: argparse.ArgumentParser, metavar: str, text: str) -> None:
    """``--output``."""
    command.add_argument("--output", type=Path, required=True, metavar=metavar, help=text)


def alone(run: Run) -> Run:
    """A command whose output no second run makes at the same time."""

    @functools.wraps(run)
    def locked(args: argparse.Namespace) -> None:
        from xplabels.io.atomic import claimed

        output = getattr(args, "output", None) or getattr(args, "json", None)
        with claimed(output) if output is not None else contextlib.nullcontext():
            run(args)

    return locked


def add_workers(command: argparse.ArgumentParser, text: str) -> None:
    """``--workers``."""
    command.add_argument(
        "--workers",
        type=functools.partial(whole, most=MOST_PROCESSES),
        default=1,
        metavar="N",
        help=f"{text} (default 1)",
    )


def add_area(command: argparse.ArgumentParser) -> None:
    """``--cone``, ``--box`` and ``--pixel``."""
    which = command.add_mutually_exclusive_group()
    which.add_argument(
        "--cone", metavar="RA,DEC,RADIUS", help="only stars in a circle on the sky, in deg"
    )
    which.add_argument(
        "--box", metavar="RA1,RA2,DEC1,DEC2", help="only stars within these limits, in deg"
    )
    which.add_argument(
        "--pixel", metavar="N", help="only stars of HEALPix pixel N (order 3, nested)"
    )


def area(args: argparse.Namespace) -> Area | None:
    """What :func:`add_area` was given."""
    if args.cone is not None:
        from xplabels.fetch.targets import Cone

        return Cone.parse(args.cone)
    if args.box is None and args.pixel is None:
        return None
    from xplabels.sky.area import Box, SkyPixel

    return SkyPixel.parse(args.pixel) if args.box is None else Box.parse(args.box)


def add_selection(command: argparse.ArgumentParser, text: str) -> None:
    """``--range`` and ``--complete``."""
    command.add_argument(
        "--range", action="append", default=[], metavar="LABEL=LOW:HIGH", dest="ranges", help=text
    )
    command.add_argument("--complete", action="store_true", help="only stars with all labels known")


def add_tables(command: argparse.ArgumentParser) -> None:
    """Every table that may be joined to stars with known labels."""
    add_photometry(command)
    command.add_argument(
        "--label-table",
        type=Path,
        metavar="[SURVEY=]TABLE",
        help="table of labels keyed by source_id, to use instead of those in STARS; with the "
        "name of a survey that xplabels select reads, its table as published, e.g. "
        "apogee=allStar.fits",
    )
    add_bad_rows(command)


def add_photometry(command: argparse.ArgumentParser) -> None:
    """``--photometry``."""
    command.add_argument(
        "--photometry",
        type=Path,
        nargs="+",
        default=[],
        metavar="TABLE",
        help="tables of photometry and parallax keyed by source_id",
    )


def add_bad_rows(command: argparse.ArgumentParser) -> None:
    """``--bad-rows``."""
    command.add_argument(
        "--bad-rows",
        choices=["error", "flag"],
        default="error",
        help="a damaged row stops the run (error, default) or is kept, flagged, without labels",
    )


def add_correlations(command: argparse.ArgumentParser) -> None:
    """``--correlations``."""
    command.add_argument(
        "--correlations",
        action="store_true",
        help="add a column for each pair of labels (teff_logg_corr, ...): the correlation of "
        "their errors",
    )


def add_unshrunk(command: argparse.ArgumentParser) -> None:
    """``--unshrunk``."""
    command.add_argument(
        "--unshrunk",
        action="store_true",
        help="labels without shrinkage (regression to the mean): unbiased on average at each "
        "true label, with larger errors; for relations over many stars (documentation: "
        "Shrinkage)",
    )


def add_overwrite(command: argparse.ArgumentParser, what: str = "an existing output") -> None:
    """``--overwrite``."""
    command.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def seed(text: str) -> int:
    """A random seed."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{number} is not a seed: give 0 or more, below 2^63")
    return number


def whole(text: str, most: int = MOST) -> int:
    """A whole number; nobody can mean more than ``most``."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number > most:
        raise argparse.ArgumentTypeError(f"{text} is too large: give at most {most:,}")
    return number


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few: give 1 or more")
    return number


def positive_number(text: str) -> float:
    """A finite number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and finite")
    return number


def names(text: str) -> list[str]:
    """Words between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
