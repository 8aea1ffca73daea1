"""Options that several commands share."""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse has no other name
else:
    Commands = argparse._SubParsersAction

Run = Callable[[argparse.Namespace], None]
"""What does a command's work."""
MOST = 10**9
"""Of copies, draws, rows and the like."""
MOST_PROCESSES = 1024


def add_command(
    commands: Commands, name: str, summary: str, *paragraphs: str
) -> argparse.ArgumentParser:
    """The parser of one command, to which its module adds arguments."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="\n\n".join(paragraphs),
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
        f"distilled: one network taught by four (default: {default})",
    )
    add_seed(command)


def add_seed(command: argparse.ArgumentParser, text: str = "random seed") -> None:
    """``--seed``."""
    command.add_argument("--seed", type=seed, default=0, metavar="N", help=f"{text} (default 0)")


def add_model(command: argparse.ArgumentParser) -> None:
    """``--model``."""
    command.add_argument(
        "--model",
        metavar="NAME|MODEL",
        help="folder of a model, or the name of one that ships (default: see xplabels models)",
    )


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


def add_selection(command: argparse.ArgumentParser, text: str) -> None:
    """``--range`` and ``--complete``."""
    command.add_argument(
        "--range", action="append", default=[], metavar="LABEL=LOW:HIGH", dest="ranges", help=text
    )
    command.add_argument(
        "--complete", action="store_true", help="only stars of which every label is known"
    )


def add_tables(command: argparse.ArgumentParser) -> None:
    """Every table that may be joined to stars with known labels."""
    add_photometry(command)
    command.add_argument(
        "--label-table",
        type=Path,
        metavar="TABLE",
        help="table of labels keyed by source_id, in place of those in STARS",
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


def add_unshrunk(command: argparse.ArgumentParser) -> None:
    """``--unshrunk``."""
    command.add_argument(
        "--unshrunk",
        action="store_true",
        help="labels without shrinkage (regression to the mean): right on average at each true "
        "label, with larger errors; for relations over many stars (docs/errors.md)",
    )


def add_overwrite(command: argparse.ArgumentParser, what: str = "an existing output") -> None:
    """``--overwrite``."""
    command.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def seed(text: str) -> int:
    """A random seed."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{number} is no seed: give 0 or more, below 2^63")
    return number


def whole(text: str, most: int = MOST) -> int:
    """A whole number; nobody can mean more than ``most``."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
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
