"""Turn the errors of libraries that parse files into errors that name the file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any

from xplabels.core.errors import InputError, XplabelsError, interruptible

GZIP = "gzip file"
MOST_TOML, LONGEST_TOML_LINE = 1_000_000, 5_000
"""Most bytes of a TOML file, and of a line of it."""
_ARCHIVES = re.compile(
    r"XpContinuous|GaiaSource|XP_(CONTINUOUS|SAMPLED)|MEAN_SPECTRUM_XP|dl_products|datalink", re.I
)


def again(path: object) -> str:
    """The remedy for a damaged file: download it again, if it is an archive's, or copy it again."""
    archived = _ARCHIVES.search(Path(str(path)).name)
    return "download the file again" if archived else "copy or write the file again"


@contextmanager
def whole(path: Path | str, what: str = "file", remedy: str | None = None) -> Iterator[None]:
    """Turn any error while ``path`` is read into an :class:`InputError` that names it.

    ``what`` is the kind of file that it should be; the library's message says why it is not. Errors
    that the package raises on purpose are not changed.

    Examples
    --------
    >>> with whole(Path("model.json"), "JSON file"):
    ...     int("one")
    Traceback (most recent call last):
    xplabels.core.errors.InputError: model.json: is not a whole JSON file (invalid literal for \
int() with base 10: 'one'); copy or write the file again
    """
    try:
        with interruptible():
            yield
    except XplabelsError:
        raise
    except MemoryError as error:
        raise InputError(
            "takes more memory than there is", where=path, remedy="use a smaller part of it"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno == ENOSPC:
            raise  # the disk is full, so this is an error of writing an unpacked file
        if isinstance(error, FileNotFoundError) and not Path(path).exists():
            raise InputError("does not exist", where=path, remedy="check the path") from error
        if isinstance(error, OSError) and error.strerror:
            raise InputError(
                f"cannot be read ({error.strerror})", where=path, remedy="check the file"
            ) from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        said = f"is not a whole {what} ({reason})"
        if isinstance(error, EOFError) and what == GZIP:
            said = "is truncated: the gzip stream ends early"
        raise InputError(said, where=path, remedy=remedy or again(path)) from error


def read_toml(path: Path | str, data: bytes | None = None) -> dict[str, Any]:
    """The contents of a TOML file, or of ``data``, which messages call ``path``.

    Raises InputError if it cannot be read, is not TOML, or is much longer, as a whole or in a line,
    than what people write: reading a key of n parts takes time and memory proportional to n^2.
    """
    with whole(path, "TOML file", "mend it"):
        data = Path(path).read_bytes() if data is None else data
        if len(data) > MOST_TOML or max(map(len, data.splitlines()), default=0) > LONGEST_TOML_LINE:
            raise ValueError(f"more than {MOST_TOML:,} bytes, or {LONGEST_TOML_LINE:,} in a line")
        return tomllib.loads(data.decode("utf-8"))
