"""Every error that the package raises on purpose: it says what, where and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

LONGEST = 500
"""Most characters of a line of a message, as quoted contents of a file may be of any length."""


class XplabelsError(Exception):
    """The base of every error that the package raises on purpose.

    Examples
    --------
    >>> import xplabels as xp
    >>> try:
    ...     xp.read("absent.csv")
    ... except xp.XplabelsError as error:
    ...     print(error)
    absent.csv: ...
    """


class InputError(XplabelsError, ValueError):
    """Something the user gave cannot be used.

    Parameters
    ----------
    what
        What is wrong, in one sentence without a full stop.
    where
        File, row, source_id, column: whatever locates it.
    remedy
        What the user can do about it.

    Examples
    --------
    >>> print(InputError("column 'teff' is absent", where="stars.fits", remedy="add it"))
    stars.fits: column 'teff' is absent; add it
    """

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        text = what if where is None else f"{where}: {what}"
        lines = (text if remedy is None else f"{text}; {remedy}").split("\n")
        super().__init__("\n".join(map(_shortened, lines)))


def _shortened(line: str) -> str:
    """A line, without its middle if it is too long, as file and remedy are at its ends."""
    half = LONGEST // 2 - 3
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Ctrl-C or SIGTERM as such, not as an error of what it interrupted.

    A reader that is interrupted may raise another error while it is closed, as astropy reads on.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while isinstance(cause, Exception):
            cause = cause.__context__
        if cause is not None:
            raise cause from None
        raise


EXTRA_OF = {
    "torch": "train", "scipy": "report", "matplotlib": "report", "jinja2": "report",
    "markdown_it": "report",
}  # fmt: skip
"""Package that prediction does not need -> the extra that installs it."""


def not_installed(package: str) -> InputError:
    """The error to raise if a package that prediction does not need is not installed."""
    name = {"torch": "PyTorch", "scipy": "SciPy", "markdown_it": "markdown-it-py"}.get(package)
    extra = EXTRA_OF.get(package)
    remedy = f"pip install 'xplabels[{extra}]'" if extra else f"pip install {package}"
    if package == "torch":
        remedy += "; on Linux, PyTorch's CPU build first saves gigabytes (page Install of the docs)"
    return InputError(f"this needs {name or package}, which is not installed", remedy=remedy)


def require(*packages: str) -> None:
    """Raise, before any work, :func:`not_installed` for the first of ``packages`` that is absent.

    Examples
    --------
    >>> require("numpy")
    """
    for package in packages:
        if find_spec(package) is None:
            raise not_installed(package)


@contextmanager
def located(where: object) -> Iterator[None]:
    """Add ``where`` in front of the location of an :class:`InputError` raised in the block.

    Examples
    --------
    >>> with located("stars.fits"):
    ...     raise InputError("label 'teff' is absent")
    Traceback (most recent call last):
    xplabels.core.errors.InputError: stars.fits: label 'teff' is absent
    """
    try:
        yield
    except InputError as error:
        if where is None:
            raise
        place = where if error.where is None else f"{where}, {error.where}"
        raise InputError(error.what, where=place, remedy=error.remedy) from error


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is 1.

    Examples
    --------
    >>> counted(1, "star"), counted(1200, "star")
    ('1 star', '1200 stars')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
