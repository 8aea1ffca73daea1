"""Write outputs whole or not at all, and replace existing ones only on request.

(Runs over a folder of catalogues replace their own outputs of another model, but say so first; see
:mod:`xplabels.pipeline.folder`.)
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import inspect
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import ParamSpec, TypeVar

from xplabels.core.errors import InputError

MODEL_FILES = ("model.json", "weights.safetensors", "card.md", "label_audit.csv")
REPORT_FILES = ("metrics.json", "report.html", "figures/*.png")
"""All files that the folders of a model and of a report may hold; any other is the user's."""
LEFTOVER = re.compile(r"\.(\d+)\.(partial|old)\.(?:\.\d+\.partial\.)*(.*)")
"""Names of temporary files and folders: number of the process, kind, name of the output, which may
itself be a temporary name."""
LAST_WORD = "finished.json"
"""Name of the file, in the folder of an unfinished run, that identifies the finished output."""
REMEDIES = {
    errno.ENOSPC: "free some space and repeat the command",
    errno.EDQUOT: "free some space and repeat the command",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another disk",
    errno.EACCES: "choose another folder or change its permissions",
    errno.EROFS: "choose another folder",
}
"""Error number of the system on writing -> remedy."""


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
        # by trying, as permissions tell a superuser nothing of a read-only disk
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
    """Check, before any work, that ``folder`` may be made, or replaced with ``overwrite``.

    Raises InputError as :func:`check_output`, and if it is not a folder or holds a file that
    matches none of the patterns ``ours``, so that a user's folder is never replaced.
    """
    check_output(folder, overwrite)
    if folder.exists():
        check_ours(folder, ours)


def check_ours(folder: Path, ours: Sequence[str]) -> None:
    """Check that an existing ``folder`` holds no files of a user's, before it is replaced.

    Raises InputError if it is not a folder, or holds a file that matches none of the patterns
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


def check_distinct(
    outputs: Iterable[Path], inputs: Iterable[str | Path], replaced: bool = True
) -> None:
    """Raise :class:`InputError` if an output is also an input, by whatever name or link.

    If the output is a folder that is ``replaced``, no input may lie in it either.
    """
    read = {file: Path(path) for path in inputs if (file := _file_of(path)) is not None}
    for output in outputs:
        if _file_of(output) in read:
            raise InputError(
                "is also an input, which would be lost", where=output, remedy="name another output"
            )
        for path in read.values() if replaced and output.is_dir() else ():
            files = (path, *path.rglob("*")) if path.is_dir() else (path,)
            if any(output.resolve() in file.resolve().parents for file in files):
                raise InputError(
                    f"holds the input {path}, which would be lost",
                    where=output,
                    remedy="name another output",
                )


def _file_of(path: str | Path) -> tuple[int, int] | None:
    """Device and inode, which are the same for two names of one file; None if there is no file."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):  # a word that is not a name of a file
        return None
    return state.st_dev, state.st_ino


@contextlib.contextmanager
def claimed(output: Path) -> Iterator[None]:
    """Lock ``output`` for this run, and remove what a killed run left half-written of it.

    The lock is a file ``.NAME.lock`` beside it (or in it, if only the folder ``output`` itself can
    be written), and is released however the run ends. Raises InputError if another run holds it.
    """
    from filelock import FileLock, Timeout

    path = Path(os.path.realpath(output))
    folder = path.parent if os.access(path.parent, os.W_OK) else path
    lock = FileLock(folder / f".{path.name}.lock", timeout=0)
    try:
        if folder.is_dir():  # otherwise FileLock would make it
            lock.acquire()
    except Timeout:
        if os.path.exists(lock.lock_file):
            raise InputError(
                "another run is at work here",
                where=output,
                remedy="wait for it, or name another output",
            ) from None
    except OSError:  # nothing can be written there, which writing the output will report
        pass
    try:
        if lock.is_locked:
            remove_leftovers(output.parent, glob.escape(output.name))
            with contextlib.suppress(OSError, ValueError):
                if json.loads(_last_word(output).read_text()) == _identity(output):
                    discard(_last_word(output).parent, output)
        yield
    finally:
        if lock.is_locked:
            os.unlink(lock.lock_file)  # before the release, while no other run can hold it
            lock.release()


def _last_word(output: Path) -> Path:
    """The file, in the folder of an unfinished run, that identifies the output when it is written.

    If the run is killed before that folder is removed, the next run sees that it had finished.
    """
    return output.with_name(f"{output.name}.partial") / LAST_WORD


def _write_last_word(partial: Path, output: Path) -> None:
    if _last_word(output).parent.is_dir():
        _last_word(output).write_text(json.dumps(_identity(partial)))


def _identity(path: Path) -> list[int]:
    """Inode and time, which a file or folder keeps when it is renamed and shares with no other."""
    state = path.stat()
    return [state.st_ino, state.st_mtime_ns]


P = ParamSpec("P")
R = TypeVar("R")


def alone(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that its parameter ``output`` is :func:`claimed` while it runs."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def locked(*args: P.args, **keys: P.kwargs) -> R:
        with claimed(Path(signature.bind(*args, **keys).arguments["output"])):
            return function(*args, **keys)

    return locked


def remove_leftovers(folder: Path, name: str = "*", every: bool = False) -> None:
    """Remove temporary files of ``name`` (a pattern) in ``folder`` whose processes died.

    With ``every``, those of living processes are removed, too. An output that a dead process had
    moved aside to replace it is moved back.
    """
    # names as plain strings, for speed: a folder may hold thousands of files, and this is called
    # before each is written
    hidden = [other for other in os.listdir(folder) if other[0] == "."] if folder.is_dir() else []
    for match in filter(None, map(LEFTOVER.fullmatch, hidden)):
        pid, kind, output = match.groups()
        if not fnmatch(output, name):
            continue
        if not every and int(pid) != os.getpid() and _alive(int(pid)):
            continue
        leftover = folder / match[0]
        with contextlib.suppress(PermissionError):  # another user's, in a shared folder
            if kind == "old" and not (folder / output).exists():
                os.replace(leftover, folder / output)
            elif leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """This process's temporary path beside ``path``."""
    return path.with_name(f".{os.getpid()}.partial.{path.name}")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process, or not a process number
        return True
    return True


@contextlib.contextmanager
def whole_file(path: Path, overwrite: bool = False, one_of_many: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path``, which is renamed to it if the block ends without error.

    ``one_of_many`` is for speed, in a folder that was checked and cleared of leftovers before: an
    existing file is replaced, and the file is not synced to disk, which is left to :func:`sync`.

    Raises InputError as :func:`check_output`, or if the system refuses to write.
    """
    if not one_of_many:
        check_output(path, overwrite)
        remove_leftovers(path.parent, glob.escape(path.name))
    partial = _partial(path)
    try:
        yield partial
        if one_of_many:
            os.replace(partial, path)
        else:
            _write_last_word(partial, path)
            rename(partial, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``path``, which is renamed to it if the block ends without error.

    Raises InputError as :func:`check_output`, or if the system refuses to write.
    """
    check_output(path, overwrite)
    remove_leftovers(path.parent, glob.escape(path.name))
    partial = _partial(path)
    try:
        partial.mkdir()
        yield partial
        _write_last_word(partial, path)
        replace_folder(partial, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unwritable(path: Path, error: OSError) -> InputError:
    """The error to raise if the system refuses to write."""
    what = f"cannot be written: {error.strerror or error}"
    return InputError(what, where=path, remedy=REMEDIES.get(error.errno or 0))


def rename(partial: Path, path: Path) -> None:
    """Rename a complete file, once the disk holds its contents."""
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)


def replace_folder(folder: Path, path: Path, old: Path | None = None) -> None:
    """Rename ``folder`` to ``path``, and remove the folder or file that has that name now.

    That is renamed to ``old`` in between, by default a path beside it.
    """
    old = old or path.with_name(f".{os.getpid()}.old.{path.name}")
    for entry in (*folder.rglob("*"), folder):
        sync(entry)
    try:
        if path.exists():
            os.replace(path, old)
        os.replace(folder, path)
        sync(path.parent)
    finally:
        # if anything, such as Ctrl-C, stopped the exchange, the old output is moved back
        if old.exists() and not path.exists():
            os.replace(old, path)
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)


def discard(folder: Path, output: Path) -> None:
    """Remove the folder of a run whose ``output`` is complete.

    It is renamed first, so that after a kill the rest of it is removed as a leftover of ``output``.
    """
    if folder.exists():
        remove_leftovers(output.parent, glob.escape(output.name))
        gone = _partial(output)
        os.replace(folder, gone)
        shutil.rmtree(gone)


def sync(path: Path) -> None:
    """Wait until the disk holds a file's contents, or a folder's names, e.g. before a rename."""
    if path.is_dir():
        with contextlib.suppress(OSError):  # some systems need and allow no sync of folders
            _sync_opened(os.open(path, os.O_RDONLY))
    else:
        _sync_opened(os.open(path, os.O_RDWR))


def _sync_opened(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
