"""Options that several commands share."""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xplabels.core.selection import Selection
    from xplabels.core.stars import Stars
    from xplabels.fetch import Archive
    from xplabels.model import Model
    from xplabels.sky.area import Area

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse has no other name
else:
    Commands = argparse._SubParsersAction
Container = argparse._ActionsContainer  # a parser, or a group of its arguments

Run = Callable[[argparse.Namespace], None]
"""What does a command's work."""
MOST = 10**9
"""Largest number of copies, draws, rows and the like."""
MOST_PROCESSES = 1024
PAPER = "FS24: Fallows & Sanders (2024), on whose method xplabels is based."


def whole(text: str, most: int = MOST) -> int:
    """A whole number, at most ``most``."""
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


def seed(text: str) -> int:
    """A random seed."""
    number = whole(text, most=2**63 - 1)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is not a seed: give 0 or more")
    return number


def positive_number(text: str) -> float:
    """A finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and finite")
    return number


def names(text: str) -> list[str]:
    """Words between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


SHARED: dict[str, dict[str, Any]] = {
    "model": {"metavar": "MODEL", "help": "folder of a model, or the name of a shipped one"},
    "stars": {"type": Path, "metavar": "STARS", "help": "star table with known labels"},
    "--output": {"type": Path, "required": True},
    "--overwrite": {"action": "store_true", "help": "replace an existing output"},
    "--recipe": {
        "default": "default",
        "metavar": "default|quick|paper|distilled|FILE.toml",
        "help": "network and training: default; quick: the same network in a quarter of the time, "
        "its error bars calibrated on the validation part alone; paper: Fallows & Sanders 2024; "
        "distilled: one network trained on the predictions of four (default: %(default)s)",
    },
    "--seed": {"type": seed, "default": 0, "metavar": "N", "help": "random seed (default 0)"},
    "--model": {
        "metavar": "NAME|MODEL",
        "help": "folder of a model, or the name of a shipped one (default: see xplabels models)",
    },
    "--basis": {
        "type": Path,
        "metavar": "FILE",
        "help": "basis of the spectra, if it is not the model's (a file written by xplabels basis)",
    },
    "--correlations": {
        "action": "store_true",
        "help": "add a column for each pair of labels (teff_logg_corr, ...): the correlation of "
        "their errors",
    },
    "--unshrunk": {
        "action": "store_true",
        "help": "labels without shrinkage (regression to the mean): unbiased on average at each "
        "true label, with larger errors; for relations over many stars (documentation: Shrinkage)",
    },
    "--workers": {
        "type": functools.partial(whole, most=MOST_PROCESSES),
        "default": 1,
        "metavar": "N",
        "help": "number of files labelled in parallel, each in its own process (default 1)",
    },
    "--photometry": {
        "type": Path,
        "nargs": "+",
        "default": [],
        "metavar": "TABLE",
        "help": "tables of photometry and parallax keyed by source_id",
    },
    "--label-table": {
        "type": Path,
        "metavar": "[SURVEY=]TABLE",
        "help": "table of labels keyed by source_id, to use instead of those in STARS; with the "
        "name of a survey that xplabels select reads, its table as published, e.g. "
        "apogee=allStar.fits",
    },
    "--bad-rows": {
        "choices": ["error", "flag"],
        "default": "error",
        "help": "a damaged row stops the run (error, default) or is kept, flagged, without labels",
    },
    "--range": {"action": "append", "default": [], "metavar": "LABEL=LOW:HIGH", "dest": "ranges"},
    "--complete": {"action": "store_true", "help": "only stars with all labels known"},
    "--cone": {"metavar": "RA,DEC,RADIUS", "help": "all sources in a circle, in deg"},
    "--release": {
        "metavar": "NAME|FILE.toml",
        "help": "also read tables with the column names of this data release (see xplabels "
        "releases); those of dr3 and dr4 are built in",
    },
    "--tap": {
        "metavar": "URL",
        "help": "address of the Table Access Protocol service (default: ESA's Gaia archive)",
    },
    "--datalink": {
        "metavar": "URL",
        "help": "address of the DataLink service, which provides spectra (default: ESA's Gaia "
        "archive)",
    },
}
"""Arguments that several commands have."""
ARCHIVE_RELEASE = {
    "default": "dr3",
    "help": "data release: dr3 (default), dr4 or a declaration (see xplabels releases)",
}
"""What ``--release`` is where data are fetched."""
TABLES = ("--photometry", "--label-table", "--bad-rows")
"""Options of commands that read stars with known labels."""


def add_command(
    commands: Commands, name: str, run: Run, summary: str, example: str, *paragraphs: str
) -> argparse.ArgumentParser:
    """The parser of one command, to which its module adds arguments."""
    epilog = "\n\n".join(paragraphs)
    if "FS24" in epilog:
        epilog += f"\n\n{PAPER}"
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\nexample:\n  xplabels {example}",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run)
    return command


def share(command: Container, *names: str, **changes: Any) -> None:
    """Add arguments of :data:`SHARED`, with this command's ``changes``."""
    for name in names:
        command.add_argument(name, **SHARED[name] | changes)


def alone(run: Run) -> Run:
    """Decorate a command so that its output is locked against other runs at the same time."""

    @functools.wraps(run)
    def locked(args: argparse.Namespace) -> None:
        from xplabels.io.atomic import claimed

        output = getattr(args, "output", None) or getattr(args, "json", None)
        with claimed(output) if output is not None else contextlib.nullcontext():
            run(args)

    return locked


def model(args: argparse.Namespace) -> Model:
    """The model of ``--model``, ``--unshrunk`` and ``--basis``."""
    from xplabels.model import DEFAULT_MODEL, Model

    chosen = Model.load(args.model or DEFAULT_MODEL)
    if args.basis is not None:
        from xplabels.instrument.basis import Basis

        chosen = chosen.with_basis(Basis.load(args.basis))
    return chosen.unshrunk() if args.unshrunk else chosen


def archive(args: argparse.Namespace, bulk: str | None = None) -> Archive:
    """The archive of ``--release``, ``--tap`` and ``--datalink``."""
    from xplabels.fetch import Archive
    from xplabels.releases import load_release

    given = {"tap": args.tap, "datalink": args.datalink, "bulk": bulk}
    addresses = {name: url for name, url in given.items() if url}
    return Archive(**addresses, release=load_release(args.release))


def area(args: argparse.Namespace) -> Area | None:
    """The part of the sky of ``--cone``, ``--box`` or ``--pixel``."""
    if args.cone is not None:
        from xplabels.fetch.targets import Cone

        return Cone.parse(args.cone)
    if args.box is None and args.pixel is None:
        return None
    from xplabels.sky.area import Box, SkyPixel

    return SkyPixel.parse(args.pixel) if args.box is None else Box.parse(args.box)


def labelled_stars(args: argparse.Namespace, model: Model) -> tuple[Stars, Selection | None]:
    """The stars with those of the model's labels that are known, and the cuts that were given."""
    from xplabels.api import read_stars
    from xplabels.core.selection import Selection

    given = args.ranges or args.complete
    selection = Selection.of(args.ranges, model.names if args.complete else ()) if given else None
    wanted = tuple(dict.fromkeys((*model.names, *(selection.ranges if selection else ()))))
    stars = read_stars(
        args.stars, args.photometry, args.label_table, wanted, args.bad_rows, needed=False
    )
    return stars, selection
