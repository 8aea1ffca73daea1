"""ZIP files, as the archive's DataLink service sends them: members of one product are read."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io.files import check_size
from xplabels.io.rows import BLOCK_ROWS, BadRows

CONTINUOUS = re.compile(r"(XP_CONTINUOUS|MEAN_SPECTRUM_XP)(?!.*SAMPLED)", re.I)
"""Members with spectra in an answer of DataLink (DR3, DR4): PRODUCT-Gaia DR3 ID.csv."""

NO_DATA = re.compile(r"^__MACOSX/|(^|/)(\.|readme)[^/]*$", re.I)
"""Members that belong to a system, or are for people."""


@contextmanager
def unzipped(path: Path) -> Iterator[dict[str, Callable[[], Path]]]:
    """The files in a ZIP file: name -> a function that unpacks it, until the block ends."""
    with zipfile.ZipFile(path) as archive, TemporaryDirectory() as folder:
        members = [
            one for one in archive.infolist()
            if not one.is_dir() and not NO_DATA.search(one.filename)
        ]  # fmt: skip
        check_size(path, sum(member.file_size for member in members))

        def unpack(number: int) -> Path:
            # names inside are another's: of none of them becomes more than the ending a path here
            endings = "".join(Path(Path(members[number].filename).name).suffixes[-2:])
            target = Path(folder) / f"{number}{re.sub(r'[^.A-Za-z]', '', endings)[-16:]}"
            with archive.open(members[number]) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file)
            return target

        yield {one.filename: partial(unpack, n) for n, one in enumerate(members)}


@contextmanager
def named(unpacked: Path, path: Path, member: str) -> Iterator[None]:
    """Name ZIP file and member, not the unpacked file, in an :class:`InputError`."""
    try:
        yield
    except InputError as error:
        where = str(error.where).replace(str(unpacked), f"{path}, {member}")
        raise type(error)(error.what, where=where, remedy=error.remedy) from error


def read_zip(
    path: Path,
    bad_rows: BadRows,
    block: int = BLOCK_ROWS,
    *,
    read_blocks: Callable[[Path, BadRows, int], Iterator[Stars]],
) -> Iterator[Stars]:
    """Blocks of stars from the members of continuous spectra; ``notes`` names the others.

    Where no member's name says what is in it, all are read. Raises InputError as ``read_blocks``,
    if a source_id stands in two members, or there is none to read.
    """
    with unzipped(path) as members:
        taken = [name for name in members if CONTINUOUS.search(Path(name).name)]
        if not taken and not any("-Gaia " in name for name in members):
            taken = list(members)
        if not taken:
            raise InputError(
                f"holds no continuous spectra, but {', '.join(members)[:200] or 'nothing'}",
                where=path,
                remedy="ask DataLink for the retrieval type XP_CONTINUOUS",
            )
        others = [name for name in members if name not in taken]
        notes: tuple[str, ...] = ()
        if others:
            notes = (f"{path}: not read: {', '.join(others)[:300]}",)
        seen: dict[int, str] = {}
        for name in taken:
            file = members[name]()
            with named(file, path, name):
                for stars in read_blocks(file, bad_rows, block):
                    for star in stars.source_id.tolist():
                        if seen.setdefault(star, name) != name:
                            raise InputError(
                                f"source_id {star} is in {seen[star]} too",
                                where=file,
                                remedy="keep one row per star",
                            )
                    notes += tuple(n.replace(str(file), f"{path}, {name}") for n in stars.notes)
                    yield replace(stars, origin=str(path), file=str(path), notes=notes)
                    notes = ()
            file.unlink()
