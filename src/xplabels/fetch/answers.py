"""What DataLink sends, zipped or not, in any format -> files that :mod:`xplabels.io` reads."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from xplabels.core.errors import InputError
from xplabels.io.delimited import Header
from xplabels.io.files import byte_lines, check_size, open_bytes, whole
from xplabels.io.fits import first_table, open_fits
from xplabels.releases import SPECTRA_COLUMNS, Release, nearest

_FIELD = re.compile(rb"(<FIELD\b[^>]*?\bname\s*=\s*[\"'])([^\"']*)")
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
        # no member gives more bytes than it says
        check_size(answer, sum(member.file_size for member in archive.infolist()))
        for number, member in enumerate(archive.infolist()):
            # the names inside are the service's: none of them becomes a path here
            path = answer.with_name(f"{number}.member")
            with archive.open(member) as packed, path.open("wb") as target:
                shutil.copyfileobj(packed, target)
            files += _tables(path, member.filename.lower())
    return files


def _tables(path: Path, name: str) -> list[Path]:
    """The file under the ending of what it is, if it is a table with rows."""
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
    """Names of a table's columns, in lower case. Raises :class:`InputError` if it is damaged."""
    if path.suffix == ".fits":
        with open_fits(path) as hdus:
            return [name.lower() for name in first_table(hdus, path).columns.names]
    if path.suffix == ".vot":
        return [_name(match) for match in _FIELD.finditer(path.read_bytes())]
    return [name.lower() for name in Header.of(byte_lines(path), path).names]


def give_our_names(path: Path, columns: Sequence[str], release: Release) -> None:
    """Rename the columns of spectra where the release calls them otherwise.

    Raises :class:`InputError` if the table lacks one that is declared.
    """
    theirs = {release.spectra.get(name, name).lower(): name for name in SPECTRA_COLUMNS}
    for name, ours in theirs.items():
        if name not in columns:
            like = nearest(name, [one for one in columns if one not in theirs])
            raise InputError(
                f"DataLink's answer has no column {name!r}"
                + (f" (nearest: {', '.join(like)})" if like else ""),
                where=release.file,
                remedy=f'write [spectra] {ours} = "NAME" in (a copy of) it, with the archive\'s '
                "name, and give it as --release FILE.toml",
            )
    if release.spectra:
        _rename(path, {other: name for other, name in theirs.items() if other != name})


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
    number = Header.of(iter(lines), path).lines
    header = lines[number - 1].decode("utf-8", "replace").strip()
    for name, ours in names.items():
        header = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", ours, header, flags=re.IGNORECASE)
    lines[number - 1] = header.encode() + b"\n"
    path.write_bytes(b"".join(lines))
