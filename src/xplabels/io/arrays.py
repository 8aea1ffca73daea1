"""Read columns that hold one array per row, in any form, as arrays of numbers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.io.forms import NULL_WORDS, Column

Cells = NDArray[np.floating] | list[NDArray[np.floating]]
"""One array per row: an array [N, n], or a list of N arrays of any length (0: null)."""
EMPTY: NDArray[np.float64] = np.empty(0)

LONGEST = 200_000
"""Most characters of a printed array; a matrix of 55 x 55, the largest that is used, takes 70,000.
"""
# repeats are bounded, so that text which does not match takes no long search
_WRAPPED = re.compile(r"(?:\w{1,20}\.){0,3}[A-Za-z]\w{0,20}\(\s{0,4}'?([^()',\s]{0,60})'?\s{0,4}\)")
_PRINTED = re.compile(r"(?:\w{1,20}\.)?(?:\w{0,20}array|tensor)\(\s*(?:data\s*=\s*)?(?=[\[(])")
_QUOTED = re.compile(r"""b?(["'])(.*)\1""", re.DOTALL)
_BETWEEN = re.compile(r"[\])][\s,]*[\[(]")
_SHELLS = ("[]", "()", "{}")


def cells_of(column: Column, kind: type[np.floating] = np.float64) -> tuple[Cells, dict[int, str]]:
    """One array of numbers per row, and row -> why it cannot be read.

    The column may hold lists of any kind, arrays, or text in any of the forms of
    :func:`parse_array`. A square matrix becomes its triangle, packed as the archive packs
    correlations.

    Examples
    --------
    >>> cells_of(["(1, 2)", "[null, null]", "[1 2"])
    ([array([1., 2.]), array([], dtype=float64), array([], dtype=float64)], {2: ...})
    """
    if not isinstance(column, np.ndarray) and hasattr(column, "type"):
        column = _lists(column)
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiu" and column.ndim > 1:
        filled = (
            np.ma.filled(column.astype(np.float64), np.nan) if np.ma.is_masked(column) else column
        )
        filled = np.ma.getdata(filled)
        filled = filled.astype(filled.dtype.newbyteorder("="), copy=False)
        return (filled if filled.ndim == 2 else _packed(filled)), {}
    cells: list[NDArray[np.floating]] = []
    faults: dict[int, str] = {}
    for row, cell in enumerate(column):
        try:
            cells.append(_array(cell, kind))
        except (ValueError, TypeError, OverflowError) as error:
            cells.append(EMPTY)
            faults[row] = str(error)[:100]
    return cells, faults


def _lists(column: Any) -> Any:
    """A pyarrow column as an array [N, n], if lists have one length, or as a list of cells."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if not (hasattr(kind, "value_type") and types.is_floating(kind.value_type)):
        return column.to_pylist()
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if len(column) and not column.null_count:
        # most blocks have lists of one length, whether or not the type says so
        if types.is_fixed_size_list(kind):
            lengths = np.array([kind.list_size])
        else:
            lengths = np.diff(column.offsets.to_numpy())
        if (lengths == lengths[0]).all():
            return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), lengths[0])
    return [
        cell.values.to_numpy(zero_copy_only=False) if cell.is_valid else None for cell in column
    ]


def _array(cell: Any, kind: type[np.floating]) -> NDArray[np.floating]:
    """One cell as an array."""
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "replace")
    if isinstance(cell, str):
        return parse_array(cell, kind)
    if cell is None or cell is np.ma.masked:
        return EMPTY
    if isinstance(cell, np.ma.MaskedArray):
        cell = np.ma.filled(cell.astype(np.float64), np.nan)
    # numbers too large for float32 become infinite, which the checks of rows refuse
    with np.errstate(over="ignore"):
        values = np.atleast_1d(np.asarray(cell, dtype=object if _is_list(cell) else None))
        if values.dtype.kind in "OSU":
            values = np.array([_number(value) for value in values.tolist()], np.float64)
        values = values.astype(kind, copy=False)
    if values.ndim > 1:
        values = _packed(values[None])[0]
    # a single NaN is a null that stands for the whole array
    return EMPTY if len(values) == 1 and np.isnan(values[0]) else values


def _is_list(cell: Any) -> bool:
    return isinstance(cell, list | tuple) and any(v is None or isinstance(v, str) for v in cell)


def _number(value: Any) -> float:
    return np.nan if value is None or str(value).strip().lower() in NULL_WORDS else float(value)


def _packed(matrices: NDArray[np.floating]) -> NDArray[np.floating]:
    """Matrices [N, n, n] as their lower triangles [N, n (n - 1) / 2]; [N, 1, n] as [N, n]."""
    _, rows, width = matrices.shape if matrices.ndim == 3 else (0, 0, -1)
    if 1 in (rows, width):
        return matrices.reshape(len(matrices), -1)
    if rows != width:
        raise ValueError(f"an array of shape {matrices.shape[1:]} is neither a list nor a square")
    below = np.tril_indices(width, -1)
    return matrices[:, below[0], below[1]]


def parse_array(text: str, kind: type[np.floating]) -> NDArray[np.floating]:
    """An array of numbers from text; empty for a null. Raises ValueError if it is not one.

    ``[a,b]`` and ``(a, b)`` as archives write them, ``{a,b}``, ``[a b]`` as numpy prints it, also
    with line ends, and ``[np.float64(a), ...]``, ``array([a, b], dtype=float32)``.

    Examples
    --------
    >>> parse_array("(1.5, -2.5E-1)", np.float64), parse_array("[ 1. 2.]", np.float64)
    (array([ 1.5 , -0.25]), array([1., 2.]))
    """
    text = text.strip()
    if text.lower() in NULL_WORDS:
        return EMPTY
    if text[0] + text[-1] in _SHELLS:
        values = text[1:-1].split(",")
        if values[-1].strip() == "":  # "(a,)"
            values.pop()
        try:
            with np.errstate(over="ignore"):  # infinite beyond float32, which row checks refuse
                return np.array(values, kind)
        except ValueError:
            pass
    return _parse_printed(text, kind)


def _bracketed(text: str) -> str:
    """The part of ``text`` from its first character, a bracket, to the one that closes it."""
    depth = 0
    for end, letter in enumerate(text):
        depth += (letter in "[(") - (letter in "])")
        if not depth:
            return text[: end + 1]
    return text


def _parse_printed(text: str, kind: type[np.floating]) -> NDArray[np.floating]:
    """As :func:`parse_array`, for text as numpy and others print arrays."""
    if "..." in text or "\u2026" in text:
        raise ValueError(
            "it was shortened to '...' when it was printed, as numpy does: its numbers are lost"
        )
    if quoted := _QUOTED.fullmatch(text):
        text = quoted[2].strip()
    if len(text) > LONGEST:
        raise ValueError(f"more than {LONGEST:,} letters")
    text = _WRAPPED.sub(r"\1", text)
    if (printed := _PRINTED.match(text)) and text.endswith(")"):
        text = _bracketed(text[printed.end() :])
    if text[:1] + text[-1:] not in _SHELLS:
        raise ValueError("brackets are missing")
    while text[:1] + text[-1:] in _SHELLS:
        text = text[1:-1].strip()
    rows = [_words(line) for line in _BETWEEN.split(text)]  # several, of a matrix
    if all(word.lower() in NULL_WORDS for row in rows for word in row):
        return EMPTY
    if len({*map(len, rows)}) > 1:
        raise ValueError("its rows are not of one length")
    numbers = [["nan" if word and word.lower() in NULL_WORDS else word for word in row]
               for row in rows]  # fmt: skip
    with np.errstate(over="ignore"):
        values = np.array(numbers, kind)
    return np.asarray(values[0] if len(values) == 1 else _packed(values[None])[0])


def _words(text: str) -> list[str]:
    words = text.split(",") if "," in text else text.split()
    return [word.strip().strip("\"'") for word in words]
