"""The archive's bulk files by the pixels in their names, and the pieces of sky they cover."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from xplabels.core.errors import InputError
from xplabels.fetch.bulk import PIXEL_SHIFT
from xplabels.io.partitioning import LEVEL, LEVEL_SHIFT, Pixel

FILE_LEVEL = LEVEL - (PIXEL_SHIFT - LEVEL_SHIFT) // 2
"""HEALPix level of the pixels in the files' names: 8."""
REGION_ORDER = 3
"""HEALPix order of the pieces of sky that are converted one by one: 768 of them, 285,000 DR3 stars
in one on average."""
_NAME = re.compile(r"(?P<table>[A-Za-z]+)_(?P<first>\d+)-(?P<last>\d+)\.csv(\.gz)?", re.IGNORECASE)
AS_IN_ARCHIVE = "give files named as the archive names them, XpContinuousMeanSpectrum_A-B.csv.gz"


@dataclass(frozen=True)
class BulkFile:
    """A bulk file of spectra.

    Attributes
    ----------
    path
        Of the file.
    first, last
        HEALPix level-8 pixels that its name says it holds.
    gaia_source
        The file of GaiaSource that holds the same pixels, if positions are taken from there.
    """

    path: Path
    first: int
    last: int
    gaia_source: Path | None = None

    def stamps(self) -> tuple[str, ...]:
        """Name, size and time of change of each of its files.

        Raises
        ------
        InputError
            If one cannot be read.
        """
        paths = (self.path,) if self.gaia_source is None else (self.path, self.gaia_source)
        return tuple(_stamp(path) for path in paths)


def bulk_files(inputs: Sequence[Path], gaia_source: Path | None = None) -> list[BulkFile]:
    """The bulk files among ``inputs``, in the order of the sky.

    Parameters
    ----------
    inputs
        Files, or folders of files: of a folder, all whose table's name has ``xp`` in it.
    gaia_source
        A folder with a ``GaiaSource_A-B.csv.gz`` for each.

    Raises
    ------
    InputError
        If there is none, a name does not tell its pixels, two files hold the same pixel, or a file
        of GaiaSource is missing.
    """
    found = [_named(path, gaia_source) for given in inputs for path in _listed(given)]
    if not found:
        raise InputError("holds no bulk file of XP spectra", where=inputs[0], remedy=AS_IN_ARCHIVE)
    found.sort(key=lambda file: (file.first, file.last))
    for before, after in pairwise(found):
        if after.first <= before.last:
            raise InputError(
                f"holds pixel {after.first:06d}, as does {before.path}",
                where=after.path,
                remedy="give each file once",
            )
    return found


def regions(files: Sequence[BulkFile]) -> dict[Pixel, list[BulkFile]]:
    """Each piece of sky that the files touch, and those that do: in order, both."""
    touched: dict[Pixel, list[BulkFile]] = {}
    bits = 2 * (FILE_LEVEL - REGION_ORDER)
    for file in files:
        for number in range(file.first >> bits, (file.last >> bits) + 1):
            touched.setdefault(Pixel(REGION_ORDER, number), []).append(file)
    return touched


def gaps(files: Sequence[BulkFile]) -> list[tuple[int, int]]:
    """Ranges of level-8 pixels between the first and the last that no file holds."""
    return [
        (before.last + 1, after.first - 1)
        for before, after in pairwise(files)
        if after.first > before.last + 1
    ]


def _listed(given: Path) -> list[Path]:
    if given.is_dir():
        return sorted(
            path
            for path in given.iterdir()
            if (named := _NAME.fullmatch(path.name)) and "xp" in named["table"].lower()
        )
    if not given.is_file():
        raise InputError("does not exist", where=given, remedy="check the path")
    return [given]


def _named(path: Path, gaia_source: Path | None) -> BulkFile:
    named = _NAME.fullmatch(path.name)
    if named is None:
        raise InputError(
            "its name does not say which pixels it holds", where=path, remedy=AS_IN_ARCHIVE
        )
    first, last = int(named["first"]), int(named["last"])
    if not 0 <= first <= last < 12 * 4**FILE_LEVEL:
        raise InputError(
            f"{first} to {last} are no HEALPix pixels of level {FILE_LEVEL}",
            where=path,
            remedy=AS_IN_ARCHIVE,
        )
    beside = None
    if gaia_source is not None:
        span = f"{named['first']}-{named['last']}"
        names = [f"GaiaSource_{span}.csv{ending}" for ending in (".gz", "")]
        beside = next((p for name in names if (p := gaia_source / name).is_file()), None)
        if beside is None:
            raise InputError(
                f"holds no {names[0]}",
                where=gaia_source,
                remedy="download it (xplabels fetch), or convert without --gaia-source",
            )
    return BulkFile(path, first, last, beside)


def _stamp(path: Path) -> str:
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", where=path, remedy="check the path"
        ) from error
    return f"{path.name} {state.st_size} {state.st_mtime_ns}"
