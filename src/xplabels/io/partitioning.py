"""Divide rows in the order of the sky into HEALPix partitions of bounded size, in one pass.

A source_id begins with the nested HEALPix pixel of its star (level 12), so rows that ascend in
source_id ascend in every coarser pixel, too, and a partition is a run of successive rows. To find
these runs, no more rows have to be in memory than one partition may have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 12
"""HEALPix level of the pixel that a source_id names."""
LEVEL_SHIFT = 35
"""``source_id >> LEVEL_SHIFT`` is that pixel, in the nested scheme."""

Rows = Any
"""A pyarrow ``Table``, or anything else with ``len`` and ``slice(start, length)``."""


class Pixel(NamedTuple):
    """A pixel of the nested HEALPix scheme."""

    order: int
    number: int

    def span(self, level: int) -> tuple[int, int]:
        """The first pixel at a finer (or the same) ``level`` in it, and the first after it."""
        bits = 2 * (level - self.order)
        return self.number << bits, (self.number + 1) << bits


class PixelRows(NamedTuple):
    """Some rows, and the level-12 pixel of each: int64 [N], ascending."""

    rows: Rows
    pixels: NDArray[np.int64]


def partitions(
    blocks: Iterator[PixelRows], root: Pixel, most: int
) -> Iterator[tuple[Pixel, list[Rows]]]:
    """Divide the rows of the pixel ``root`` into the largest pixels with at most ``most`` rows.

    ``blocks`` are all rows of ``root`` and no others, ascending in their pixels. A pixel of level
    12 is not divided further, so only it may have more than ``most`` rows.

    Yields pixels, ascending on the sky and never empty, each with its rows as a list of pieces.
    The HATS library's ``generate_alignment`` makes the same of a histogram.
    """
    read: list[PixelRows] = []  # rows that are read but not yielded yet

    def count_below(end: int, limit: int | None) -> int:
        """Number of rows before the pixel ``end``; if above ``limit``, maybe not all of them."""
        count = sum(int(np.searchsorted(block.pixels, end)) for block in read)
        while (limit is None or count <= limit) and not (read and read[-1].pixels[-1] >= end):
            block = next(blocks, None)
            if block is None:
                break
            if len(block.pixels):
                read.append(block)
                count += int(np.searchsorted(block.pixels, end))
        return count

    def take(count: int) -> Iterator[Rows]:
        while count:
            rows, pixels = read.pop(0)
            taken = min(count, len(pixels))
            if taken < len(pixels):
                read.insert(0, PixelRows(rows.slice(taken), pixels[taken:]))
            count -= taken
            yield rows.slice(0, taken)

    def divide(pixel: Pixel) -> Iterator[tuple[Pixel, list[Rows]]]:
        finest = pixel.order == LEVEL
        count = count_below(pixel.span(LEVEL)[1], None if finest else most)
        if count and (finest or count <= most):
            yield pixel, list(take(count))
        elif count:
            for child in range(4):
                yield from divide(Pixel(pixel.order + 1, 4 * pixel.number + child))

    return divide(root)
