"""The command line: one module per command; the work is done in the package."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import logging
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from xplabels import __version__
from xplabels.cli import (
    audit,
    basis,
    check_errors,
    convert,
    demo,
    explain,
    fetch,
    giants,
    label,
    library,
    match,
    models,
    predict,
    releases,
    select,
    simulate,
    train,
    validate,
)
from xplabels.core.errors import EXTRA_OF, InputError, interruptible, not_installed

COMMANDS = (
    demo, models, label, fetch, releases, predict, check_errors, convert, library, match,
    select, giants, train, validate, audit, explain, simulate, basis,
)  # fmt: skip
"""The command modules, in the order of work, as ``--help`` lists them.

Each has ``add(commands)`` and ``run(args)``.
"""

WRITTEN = ("output", "json")
"""Options that name what a command writes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 2 for input or output that cannot be used, 130 on Ctrl-C,
    143 on SIGTERM."""
    from xplabels.releases import using

    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    if not words:
        parser.print_help()
        return 2
    if any(not word.strip() or re.fullmatch(r"--[\w-]+=\s*", word) for word in words):
        parser.error("an argument is empty: is a variable of the shell not set?")
    _Parser.words = words
    args = parser.parse_args(words)
    args.command = shlex.join(["xplabels", *words])
    _show_log()
    try:
        with interruptible(), _ended_by_sigterm():
            _check_distinct(vars(args))
            with using(getattr(args, "release", None)):
                args.run(args)
    except InputError as error:
        return _fail(str(error))
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(_describe(error))
    except MemoryError as error:
        return _fail(f"there is not enough memory ({error}); request less at a time")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in EXTRA_OF:
            raise
        return _fail(str(not_installed(package)))
    except KeyboardInterrupt as error:
        status = 143 if isinstance(error, _Terminated) else 130
    else:
        return 0
    # after the clause, when the frames that were interrupted, and their progress bars, are closed
    print("xplabels: interrupted; repeat the command to resume", file=sys.stderr)
    return status


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which batch systems and containers send, ends a command as Ctrl-C does."""


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    def end(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # which alone has signals
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_distinct(args: dict[str, Any]) -> None:
    """Raise :class:`InputError` where a command would write over what it reads."""

    def words(value: object) -> Iterator[str]:
        if isinstance(value, (list, tuple)):
            for one in value:
                yield from words(one)
        elif isinstance(value, (str, Path)):
            yield from (str(value), str(value).partition("=")[2])  # or NAME=FILE

    from xplabels.io.atomic import check_distinct

    check_distinct(
        (args[name] for name in WRITTEN if args.get(name)),
        (one for name, value in args.items() if name not in WRITTEN for one in words(value)),
        # predict adds to a folder that is there
        replaced=args.get("overwrite", False) and args["run"] is not predict.run,
    )


class _Terminal(logging.Handler):
    """Prints what the package logs."""

    def emit(self, record: logging.LogRecord) -> None:
        """One message, as it is; whatever standard output is now."""
        print(self.format(record))


def _show_log() -> None:
    """Show on the terminal what library code logs at level INFO and above."""
    logger = logging.getLogger("xplabels")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Terminal) for handler in logger.handlers):
        logger.addHandler(_Terminal())


def _fail(message: str) -> int:
    print(f"xplabels: error: {message}", file=sys.stderr)
    return 2


def _describe(error: OSError) -> str:
    from xplabels.io.atomic import REMEDIES

    what, remedy = str(error.strerror or error), REMEDIES.get(error.errno or 0)
    return str(InputError(what, where=error.filename, remedy=remedy))


class _Parser(argparse.ArgumentParser):
    """One that says what a misspelt command or option may have been."""

    words: ClassVar[Sequence[str]] = ()

    def error(self, message: str) -> NoReturn:
        """Print the message with the nearest names of what is unknown, and exit."""
        groups = self._subparsers._group_actions if self._subparsers else ()
        commands = {
            name: one for group in groups for name, one in dict(group.choices or {}).items()
        }
        first = next(iter(self.words), "")
        command = commands.get(first, self)
        known = [*command._option_string_actions, *(commands if command is self else ())]
        given = [word.partition("=")[0] for word in self.words if word.startswith("--")]
        for word in [first, *given] if command is self and commands else given:
            if word not in known and (near := difflib.get_close_matches(word, known, 1)):
                message += f"; unknown: {word}, did you mean {near[0]}?"
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = _Parser(
        prog="xplabels",
        description="Stellar labels, with calibrated errors, from Gaia XP spectra.",
        epilog="See xplabels COMMAND --help for units and columns.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"xplabels {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser
