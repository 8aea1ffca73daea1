"""DataLink ECSV: commented YAML, then delimited text with JSON arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io.delimited import lines, read_delimited
from xplabels.io.rows import BLOCK_ROWS, BadRows

DEFAULT_DELIMITER = " "
_DELIMITER = re.compile(r"""^#\s*delimiter:\s*(["'])(.)\1\s*$""")


def read_ecsv(path: Path, bad_rows: BadRows, block: int = BLOCK_ROWS) -> Iterator[Stars]:
    """Blocks of stars from an ECSV file; only the delimiter is taken from its YAML header.

    Raises
    ------
    InputError
        As :func:`xplabels.io.delimited.read_delimited`, and if the file is not ECSV.
    """
    header = list(takewhile(lambda line: line.startswith("#"), lines(path)))
    if not header or "%ECSV" not in header[0]:
        raise InputError(
            "does not begin with '# %ECSV'", where=path, remedy="give it the ending .csv"
        )
    found = [match.group(2) for line in header if (match := _DELIMITER.match(line))]
    return read_delimited(path, bad_rows, block, found[0] if found else DEFAULT_DELIMITER)
