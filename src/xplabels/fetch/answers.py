"""What DataLink sends, zipped or not, in any format -> files that :mod:`xplabels.io` reads."""

from __future__ import annotations

import gzip
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from xplabels.core.errors import InputError
from xplabels.fetch.http import ServiceError
from xplabels.io.delimited import column_names, take_header
from xplabels.io.fits import first_table, open_fits
from xplabels.releases import SPECTRA_COLUMNS, Release, nearest

_FIELD = re.compile(rb"(<FIELD\b[^>]*?\bname\s*=\s*[\"'])([^\"']*)")
_BEGINNINGS = {b"SIMPLE  =": ".fits", b"# %ECSV": ".ecsv", b"<?xml": ".vot", b"<VOTABLE": ".vot"}


def unpacked(answer: Path, release: Release) -> list[Path]:
    """The files with rows of an answer, their columns named as this package names them.

    They lie beside it. Raises :class:`ServiceError` if the answer is damaged, :class:`InputError`
    if it lacks a column of the declaration.
    """
    files = []
    with _zip_errors():
        for number, (name, member) in enumerate(_members(answer)):
            # the names inside are the service's: none of them becomes a path here
            path = answer.with_name(f"{number}.member")
            with member, path.open("wb") as file:
                shutil.copyfileobj(member, file)
            ending = _ending(path, name)
            if ending:
                files.append(path.rename(path.with_suffix(ending)))
    return [path for path in files if _renamed(path, release)]


@contextmanager
def _zip_errors() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError,
            gzip.BadGzipFile) as error:  # fmt: skip
        raise ServiceError(f"the answer is no whole ZIP file ({error})") from error


def _members(answer: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each file of an answer, its checksum verified as it is read."""
    if answer.read_bytes()[:2] != b"PK":
        yield "", _gunzipped(answer.open("rb"))
        return
    with zipfile.ZipFile(answer) as archive:
        for member in archive.infolist():
            yield member.filename.lower(), _gunzipped(archive.open(member))


def _gunzipped(file: IO[bytes]) -> IO[bytes]:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return gzip.open(file) if packed else file  # type: ignore[return-value]


def _ending(path: Path, name: str) -> str:
    """By what a file begins with; none if it holds no table."""
    with path.open("rb") as file:
        head = file.read(4096)
    for beginning, ending in _BEGINNINGS.items():
        if head.lstrip().startswith(beginning):
            return ending
    if name:
        return ".csv" if name.removesuffix(".gz").endswith(".csv") else ""
    if b"source_id" not in head.lower():
        raise zipfile.BadZipFile(f"it begins with {head[:40]!r}")
    return ".csv"


def _renamed(path: Path, release: Release) -> bool:
    """Give the columns of a file our names; false if it has no rows."""
    theirs = {release.spectra.get(name, name).lower(): name for name in SPECTRA_COLUMNS}
    if path.suffix == ".fits":
        with open_fits(path) as hdus:
            names = [name.lower() for name in first_table(hdus, path).columns.names]
    elif path.suffix == ".vot":
        names = [_name(match) for match in _FIELD.finditer(path.read_bytes())]
    else:
        with path.open("rb") as file:
            _, header = take_header(file)
            rows = any(not line.isspace() for line in file)
        if not rows:
            return False
        names = column_names(header, "," if "," in header else " ")
    for name in theirs:
        if name not in names:
            others = [one for one in names if one not in theirs]
            like = nearest(name, others)
            raise InputError(
                f"DataLink's answer has no column {name!r}"
                + (f" (nearest: {', '.join(like)})" if like else ""),
                where=release.file,
                remedy=f'write [spectra] {theirs[name]} = "NAME" in (a copy of) it, with the '
                "archive's name, and give it as --release FILE.toml",
            )
    if release.spectra:
        _rename(path, {other: name for other, name in theirs.items() if other != name})
    return True


def _name(field: re.Match[bytes]) -> str:
    return field[2].decode("utf-8", "replace").strip().lower()


def _rename(path: Path, names: Mapping[str, str]) -> None:
    if path.suffix == ".fits":
        from astropy.io import fits

        with fits.open(path, mode="update") as hdus:
            columns = first_table(hdus, path).columns
            for name in [*columns.names]:
                if name.lower() in names:
                    columns.change_name(name, names[name.lower()])
        return
    content = path.read_bytes()
    if path.suffix == ".vot":

        def own(match: re.Match[bytes]) -> bytes:
            return match[1] + names.get(_name(match), _name(match)).encode()

        path.write_bytes(_FIELD.sub(own, content))
        return
    lines = content.splitlines(keepends=True)
    number, header = take_header(iter(lines))
    for name, ours in names.items():
        header = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", ours, header, flags=re.IGNORECASE)
    lines[number - 1] = header.encode() + b"\n"
    path.write_bytes(b"".join(lines))
