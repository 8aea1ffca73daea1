"""What a library says of a damaged file, told as an :class:`InputError` that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xplabels.core.errors import InputError
from xplabels.io.rows import DOWNLOAD_AGAIN


@contextmanager
def whole(path: Path, what: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """``errors`` mean that ``path`` is not a whole ``what``; an :class:`InputError` passes.

    Raises
    ------
    InputError
        With the first line of what the library says.
    """
    try:
        yield
    except InputError:
        raise
    except errors as error:
        said = str(error).splitlines()
        raise InputError(
            f"is not a whole {what} ({said[0] if said else 'empty'})",
            where=path,
            remedy=DOWNLOAD_AGAIN,
        ) from error
