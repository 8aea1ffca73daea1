"""Unpack DataLink's answers, zipped or not, into files that :mod:`xplabels.io` reads."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from xplabels.core.errors import InputError
from xplabels.io.delimited import Header
from xplabels.io.files import byte_lines, check_size, open_bytes, whole
from xplabels.io.fits import first_table, open_fits
from xplabels.releases import SPECTRA_COLUMNS, Release, nearest

_FIELD = re.compile(rb"<FIELD\b[^>]*?\bname\s*=\s*[\"']([^\"']*)")
_BEGINNINGS = {b"SIMPLE  =": ".fits", b"# %ECSV": ".ecsv", b"<?xml": ".vot", b"<VOTABLE": ".vot"}


def unpacked(answer: Path) -> list[Path]:
    """The tables with rows of an answer, in files beside it, their checksums verified.

    Raises :class:`InputError` if the answer is damaged.
    """
    with answer.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if not zipped:
        return _tables(Path(shutil.copy(answer, answer.with_name("0.member"))), "")
    files = []
    with whole(answer, "ZIP file"), zipfile.ZipFile(answer) as archive:
        # unpacking stops at the size that a member declares, so declared sizes can be relied on
        check_size(answer, sum(member.file_size for member in archive.infolist()))
        for number, member in enumerate(archive.infolist()):
            # for safety, the names that the service gave its members are not used as paths
            path = answer.with_name(f"{number}.member")
            with archive.open(member) as packed, path.open("wb") as target:
                shutil.copyfileobj(packed, target)
            files += _tables(path, member.filename.lower())
    return files


def _tables(path: Path, name: str) -> list[Path]:
    """The file, renamed to the ending of its format, if it is a table with rows; else none."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        path = path.rename(path.with_suffix(".gz"))
        with open_bytes(path) as source, path.with_suffix(".member").open("wb") as target:
            shutil.copyfileobj(source, target)
        path = path.with_suffix(".member")
    with path.open("rb") as file:
        head = file.read(4096).lstrip()
    endings = [ending for begin, ending in _BEGINNINGS.items() if head.startswith(begin)]
    if not endings and not name and b"source_id" not in head.lower():
        what = f"is neither a ZIP file nor a table: it begins with {head[:40]!r}"
        raise InputError(what, where=path)
    if not endings and name and not name.removesuffix(".gz").endswith(".csv"):
        return []
    path = path.rename(path.with_suffix(endings[0] if endings else ".csv"))
    if path.suffix in (".csv", ".ecsv"):
        lines = (line for line in byte_lines(path) if not line.startswith(b"#") and line.strip())
        if len(list(islice(lines, 2))) < 2:  # the columns' names, and a row
            return []
    return [path]


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns, in lower case; :class:`InputError` if it is damaged."""
    if path.suffix == ".fits":
        with open_fits(path) as hdus:
            return [name.lower() for name in first_table(hdus, path).columns.names]
    if path.suffix == ".vot":
        names = [name.decode("utf-8", "replace") for name in _FIELD.findall(path.read_bytes())]
    else:
        names = Header.of(byte_lines(path), path).names
    return [name.strip().lower() for name in names]


def check_columns(columns: Sequence[str], release: Release) -> None:
    """Raise :class:`InputError` if a table lacks a column of spectra that the release declares."""
    declared = {release.spectra.get(name, name).lower(): name for name in SPECTRA_COLUMNS}
    for name, ours in declared.items():
        if name not in columns:
            similar = nearest(name, [column for column in columns if column not in declared])
            raise InputError(
                f"DataLink's answer has no column {name!r}"
                + (f" (nearest: {', '.join(similar)})" if similar else ""),
                where=release.file,
                remedy=f'write [spectra] {ours} = "NAME" in (a copy of) it, with the archive\'s '
                "name, and give it as --release FILE.toml",
            )
