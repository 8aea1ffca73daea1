"""What the archive says of its bulk files: pixels in their names, MD5 sums in a list."""

from __future__ import annotations

import re
from pathlib import Path

from xplabels.core.errors import InputError
from xplabels.fetch.bulk import SUMS, parse_sums

SPAN = re.compile(r"_(\d+)-(\d+)\.")
"""The first and last HEALPix level-8 pixel of a bulk file, in its name."""


def published_sums(folder: Path) -> dict[str, str]:
    """File -> MD5 sum, from the list that the archive publishes with its files; empty without one.

    Raises
    ------
    InputError
        If the list is damaged.
    """
    path = folder / SUMS
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    return {file.name: file.md5 for file in parse_sums(text, str(folder))}


def check_sum(path: Path, md5: str, published: str | None) -> None:
    """Raise :class:`InputError` if a file is not the one that was published."""
    if published is not None and md5 != published:
        raise InputError(
            f"its MD5 sum {md5} is not the published one ({published})",
            where=path,
            remedy="download the file again",
        )
