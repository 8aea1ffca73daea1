"""One file to be labelled, by whatever process: what it needs, and what became of it."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from xplabels.core.errors import InputError
from xplabels.pipeline.file import PredictOptions, Predictor, predict_file
from xplabels.pipeline.manifest import ManifestEntry, Settings, entry_path

DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What no other file would be spared."""
GO_ON = "the same command goes on from here"


@dataclass(frozen=True)
class Task:
    """One file to be labelled.

    Attributes
    ----------
    path, output
        From where, to where.
    published
        MD5 sum that the input must have, if one was published.
    """

    path: Path
    output: Path
    published: str | None = None


@dataclass(frozen=True)
class Failure:
    """Why a file has no labels.

    Attributes
    ----------
    path
        The input.
    why
        In full: what, where and what to do.
    ends_run
        Whether every other file would fail in the same way.
    error
        The same where the user can mend it.
    """

    path: Path
    why: str
    ends_run: bool = False
    error: InputError | None = None


Outcome = ManifestEntry | Failure
Report = Callable[[Task, Outcome], None]
Tell = Callable[[int], None]


@dataclass(frozen=True)
class Work:
    """What all files of a run share."""

    model: Predictor
    order: PredictOptions
    settings: Settings


def attempt(work: Work, task: Task, tell: Tell) -> Outcome:
    """Label one file; what goes wrong with it is the outcome."""
    try:
        return predict_file(
            work.model, task.path, task.output, work.order,
            published=task.published, settings=work.settings, overwrite=True, done=tell,
        )  # fmt: skip
    except InputError as error:
        refused = isinstance(error.__cause__, OSError) and error.__cause__.errno in DISK_REFUSES
        if refused:
            error = InputError(error.what, where=error.where, remedy="make room; " + GO_ON)
        return Failure(task.path, str(error), refused, error)
    except Exception:  # one file must not cost the others their run, whatever it is
        return Failure(task.path, f"{task.path}: unexpected: {traceback.format_exc()}")


def remove_temporaries(output: Path) -> None:
    """Clear away what a dead worker left of an output and its entry."""
    for path in (output, entry_path(output)):
        for left in path.parent.glob(f".*.partial.{path.name}"):
            left.unlink(missing_ok=True)


def bare(model: Predictor) -> Predictor:
    """The model without what it makes of itself when it is first used."""
    try:
        return replace(model)  # type: ignore[type-var]
    except TypeError:
        return model
