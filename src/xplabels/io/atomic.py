"""Outputs appear whole or not at all, and what exists is replaced only where that is asked for.

(A rerun over a folder of catalogues replaces its own outputs of another model; it says so first,
:mod:`xplabels.pipeline.folder`.)
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from xplabels.core.errors import InputError

MODEL_FILES = ("model.json", "weights.safetensors", "card.md", "label_audit.csv")
REPORT_FILES = ("metrics.json", "report.html", "figures/*.png")
"""All that a model's and a report's folder may hold; anything else is the user's."""


def check_output(path: Path, overwrite: bool = False) -> None:
    """Raise :class:`InputError` if ``path`` exists without ``overwrite``, or cannot be written."""
    if path.exists() and not overwrite:
        raise InputError("exists already", where=path, remedy="choose another name or --overwrite")
    parent = path.absolute().parent
    if parent.exists() and not parent.is_dir():
        raise InputError(
            f"cannot be written: {path.parent} is a file", where=path, remedy="choose another name"
        )
    if not parent.is_dir():
        raise InputError("its folder does not exist", where=path, remedy=f"make {parent}")
    try:
        # tried, not asked: the superuser may write everywhere, but not on a read-only disk
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror or error}",
            where=path,
            remedy=f"make {parent} writable, or choose another folder",
        ) from error


def check_parquet(path: Path, overwrite: bool = False, what: str = "a star table is") -> None:
    """Raise :class:`InputError` unless ``path`` names a Parquet file that can be written."""
    if path.suffix.lower() != ".parquet":
        raise InputError(f"{what} Parquet", where=path, remedy="end its name in .parquet")
    check_output(path, overwrite)


def check_new_folder(folder: Path, ours: Sequence[str], overwrite: bool = False) -> None:
    """Make sure, before any work, that ``folder`` may be made, or replaced with ``overwrite``.

    Raises InputError as :func:`check_output`; if it is no folder; if it holds a file that matches
    none of the patterns ``ours``: a user's folder is never replaced.
    """
    check_output(folder, overwrite)
    if folder.exists():
        check_ours(folder, ours)


def check_ours(folder: Path, ours: Sequence[str]) -> None:
    """Make sure that an existing ``folder`` holds nothing of a user's before it is replaced.

    Raises InputError if it is no folder, or holds a file that matches none of the patterns
    ``ours``.
    """
    if not folder.is_dir() or folder.is_symlink():
        raise InputError("is not a folder", where=folder, remedy="choose another name")
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())
    foreign = next((n for n in names if not any(fnmatch(n, pattern) for pattern in ours)), None)
    if foreign is not None:
        raise InputError(
            f"holds {foreign!r}, which was not made here, so the folder is not replaced",
            where=folder,
            remedy="move that away, or choose another output",
        )


def _new_partial(path: Path) -> Path:
    """This process's temporary path beside ``path``; those of processes that died are removed."""
    for leftover in path.parent.glob(f".*.partial.{glob.escape(path.name)}"):
        pid = leftover.name.split(".")[1]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return path.with_name(f".{os.getpid()}.partial.{path.name}")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


@contextlib.contextmanager
def whole_file(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    Raises InputError as :func:`check_output`, or if the system refuses to write.
    """
    check_output(path, overwrite)
    partial = _new_partial(path)
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", where=path) from error
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends well.

    Raises InputError as :func:`check_output`, or if the system refuses to write.
    """
    check_output(path, overwrite)
    partial = _new_partial(path)
    try:
        partial.mkdir()
        yield partial
        replace_folder(partial, path)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", where=path) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(folder: Path, path: Path, old: Path | None = None) -> None:
    """Give ``folder`` the name ``path``; what has it now, a folder or a file, is removed.

    ``old`` is its name for a moment, beside it by default.
    """
    old = old or path.with_name(f".{os.getpid()}.old.{path.name}")
    try:
        if path.exists():
            os.replace(path, old)
        os.replace(folder, path)
    finally:
        # whatever stopped the exchange, Ctrl-C included: what was there comes back
        if old.exists() and not path.exists():
            os.replace(old, path)
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)


def take_lock(file: IO[str]) -> bool:
    """Lock a file for this process, until it ends in whatever way; False if it is taken."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: two runs into one folder are the user's care
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def release_lock(file: IO[str]) -> None:
    """Release the lock; closing the file is not enough while a forked process has it, too."""
    with contextlib.suppress(ImportError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)
