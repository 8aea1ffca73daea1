"""What there is to label: the files of a folder, their published sums, and which are missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from xplabels.core.errors import InputError
from xplabels.fetch.bulk import PIXELS, SUMS, parse_sums
from xplabels.io import READERS
from xplabels.io.files import ALIASES
from xplabels.io.hats import is_catalogue, partition_files, pixel_of
from xplabels.releases import in_use


def spectra_names() -> tuple[str, ...]:
    """How the names of bulk files of spectra begin."""
    return tuple(dict.fromkeys(release.bulk.spectra for release in in_use()))


def source_names() -> tuple[str, ...]:
    """How the names of GaiaSource files begin, which lie beside the spectra and hold none."""
    return tuple(dict.fromkeys(release.bulk.sources for release in in_use()))


@dataclass(frozen=True)
class Inputs:
    """Files to label.

    ``files`` are in the order given, those of a folder by name; there are none if all files that a
    folder lists are absent. ``published`` MD5 sums are from the ``_MD5SUM.txt`` of the file's
    folder; ``absent`` files are in that list, but not in the folder, packed or unpacked. ``gaps``
    describe the ranges of pixels that a folder without such a list lacks between two of its files.
    """

    files: tuple[Path, ...]
    published: dict[Path, str] = field(default_factory=dict)
    absent: tuple[Path, ...] = ()
    gaps: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """What the folders are known to lack, in words."""
        return (*(f"{path} (it is in {SUMS})" for path in self.absent), *self.gaps)


def find_inputs(paths: Sequence[Path]) -> Inputs:
    """The files that ``paths`` (files, folders and HATS catalogues) stand for.

    Raises InputError if a folder neither holds nor lists spectra, a file comes twice, or a list of
    sums is damaged.
    """
    files: list[Path] = []
    for path in paths:
        files.extend(_files_of(path) if path.is_dir() else [path])
    seen: set[str] = set()
    for path in files:
        if (real := os.path.realpath(path)) in seen:  # resolve() raises in a loop of links
            raise InputError("is given twice", where=path, remedy="give each file once")
        seen.add(real)
    published: dict[Path, str] = {}
    gaps: list[str] = []
    absent: list[Path] = []
    folders = [*(path.parent for path in files), *(path for path in paths if path.is_dir())]
    for folder in dict.fromkeys(folders):
        in_folder = [path for path in files if path.parent == folder]
        sums = published_sums(folder)
        published |= {path: sums[path.name] for path in in_folder if path.name in sums}
        if folder in paths:
            listed = [name for name in sums if name.startswith(spectra_names())]
            present = {stem(path) for path in in_folder}  # X.csv is as good as the X.csv.gz listed
            missing = [name for name in listed if stem(Path(name)) not in present]
            absent.extend(folder / name for name in missing)
            published |= {folder / name: sums[name] for name in missing}
            if not listed:
                gaps.extend(_gaps(folder, in_folder))
    return Inputs(tuple(files), published, tuple(absent), tuple(gaps))


def output_names(files: Sequence[Path]) -> dict[Path, str]:
    """The name of each file's output; raises InputError if two have the same."""
    names: dict[str, Path] = {}
    for path in files:
        name = f"{stem(path)}.parquet"
        if name in names:
            raise InputError(
                f"{names[name]} and {path} would both be labelled as {name} in the folder of "
                "output: their names differ in folder or ending alone",
                remedy="rename one of them, leave one out, or label them into two folders",
            )
        names[name] = path
    return {path: name for name, path in names.items()}


def stem(path: Path) -> str:
    """A file's name without its endings, or the order and pixel of a HATS partition."""
    pixel = pixel_of(path)
    if pixel is not None:
        return f"Norder={pixel.order}_Npix={pixel.number}"
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem if _readable(path) else name


def no_spectra(folder: Path) -> InputError:
    """The error of a folder without files to label."""
    return InputError(
        "holds no file of spectra",
        where=folder,
        remedy=f"give the folder of {spectra_names()[0]}_*",
    )


def published_sums(folder: Path) -> dict[str, str]:
    """File -> MD5 sum, from the list that the archive publishes with its files; empty without one.

    Raises InputError if the list is damaged.
    """
    path = folder / SUMS
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    return {file.name: file.md5 for file in parse_sums(text, str(folder))}


def check_sum(path: Path, md5: str, published: str | None) -> None:
    """Raise InputError if a file is not the one that was published."""
    if published is not None and md5 != published:
        raise InputError(
            f"its MD5 sum {md5} is not the published one ({published})",
            where=path,
            remedy="download the file again",
        )


def _files_of(folder: Path) -> list[Path]:
    if is_catalogue(folder):
        return partition_files(folder)
    files = sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and not path.name.startswith((".", "_", *(f"{name}_" for name in source_names())))
        and _readable(path)
    )
    spectra = [path for path in files if path.name.startswith(spectra_names())]
    if not files and not any(name.startswith(spectra_names()) for name in published_sums(folder)):
        raise no_spectra(folder)
    return spectra or files


def _readable(path: Path) -> bool:
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    return ALIASES.get(ending, ending) in READERS


def _gaps(folder: Path, files: Sequence[Path]) -> list[str]:
    """The ranges of pixels missing between two files, in words; before and after all, none is."""
    spans = sorted(
        (int(pixels[1]), int(pixels[2]), path.name)
        for path in files
        if path.name.startswith(spectra_names()) and (pixels := PIXELS.search(path.name))
    )
    return [
        f"{folder}: pixels {last + 1:06d}-{first - 1:06d}, between {before} and {after}"
        for (_, last, before), (first, _, after) in pairwise(spans)
        if first > last + 1
    ]
