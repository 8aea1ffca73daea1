"""What stands in the place of an output: whether it does, and if not, whether it may go.

An output goes without a replacement only if it is known not to be the one that is wanted: broken
itself, or of an input that was looked at and is another one now. Where that cannot be told, because
an input or an entry cannot be read, it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xplabels.core.errors import InputError
from xplabels.pipeline.manifest import (
    ManifestEntry,
    Settings,
    difference,
    entry_path,
    read_entry,
    whole_output,
)
from xplabels.pipeline.photometry import AuxiliaryTables
from xplabels.pipeline.tasks import Task


@dataclass(frozen=True)
class StaleReason:
    """Why an output that is there does not do.

    Attributes
    ----------
    why
        In words that follow "an output".
    stays
        Whether it stays if it cannot be made again.
    """

    why: str
    stays: bool = True


ALTERED = "truncated or altered since"
DAMAGED = StaleReason(ALTERED, stays=False)
CHANGED = StaleReason("of an input that changed since", stays=False)
OTHER_SOURCE = StaleReason("whose GaiaSource file changed since", stays=False)
SOURCE_OR_NOT = StaleReason("whose GaiaSource file came or went since")
UNPUBLISHED = StaleReason("of an input that is not the published one")
UNREADABLE = StaleReason("of an input, or GaiaSource file, that cannot be read now")
UNCLEAR = StaleReason("whose entry in _manifest cannot be read")
FOREIGN = StaleReason("not made here (--overwrite)")


def check_existing(
    task: Task, settings: Settings, companions: AuxiliaryTables
) -> ManifestEntry | StaleReason | None:
    """The entry of an output that is as wanted; what it lacks; None where there is none."""
    found = _whole(task.output, settings)
    if not isinstance(found, ManifestEntry):
        return found
    try:
        if not found.input.fits(task.path):
            return CHANGED
        lacking = _beside(found, companions.beside(task.path))
    except (OSError, InputError):  # told in full when its turn comes
        return UNREADABLE
    if lacking is None and task.published not in (None, found.input.md5):
        return UNPUBLISHED
    return found if lacking is None else lacking


def standing_alone(
    task: Task, settings: Settings, companions: AuxiliaryTables
) -> ManifestEntry | None:
    """The entry of an output as wanted whose input is not there any more, or None.

    The input is known by its published sum alone. Its GaiaSource file may be gone, too; one that
    is there, or is asked for, must have been joined.
    """
    found = _whole(task.output, settings)
    if not isinstance(found, ManifestEntry) or found.input.md5 != task.published:
        return None
    try:
        source = companions.beside(task.path)
    except InputError:  # asked for
        return found if found.beside else None
    try:
        return found if source is None or _beside(found, source) is None else None
    except OSError:
        return found if found.beside else None


def _whole(output: Path, settings: Settings) -> ManifestEntry | StaleReason | None:
    """The entry of an output that is whole and of these settings, whatever it was made from."""
    if not output.exists():
        return None
    entry = read_entry(output)
    if entry is None:  # an entry that cannot be read is ours all the same
        return UNCLEAR if entry_path(output).exists() else FOREIGN
    if not whole_output(entry, output):
        return DAMAGED
    if entry.settings == settings.told():
        return entry
    return StaleReason(f"made with {difference(entry.settings, settings.told())}")


def _beside(entry: ManifestEntry, source: Path | None) -> StaleReason | None:
    """What an entry lacks if ``source`` is the GaiaSource file now; raises OSError."""
    if [stamp.name for stamp in entry.beside] != ([] if source is None else [source.name]):
        return SOURCE_OR_NOT
    return None if source is None or entry.beside[0].fits(source) else OTHER_SOURCE
