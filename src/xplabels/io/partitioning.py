"""Rows in the order of the sky -> HEALPix partitions of bounded size, in one pass.

A source_id begins with the nested HEALPix pixel of its star (level 12), so rows that ascend in
source_id ascend in every coarser pixel too: a partition is a run of rows. Which runs they are
needs no more rows in memory than one partition may have.
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
"""A pyarrow ``Table``, or anything else that ``len`` and ``slice(start, length)`` know."""


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
    """The rows of ``root`` as the largest pixels in it that have at most ``most`` rows.

    ``blocks`` are all rows of ``root`` and no others, ascending in their pixels. Only a pixel of
    level 12, which is not divided, may have more than ``most``.

    Yields pixels, ascending on the sky and never empty, each with its rows as a list of pieces.
    This is what the HATS library's ``generate_alignment`` makes of a histogram.
    """
    read: list[PixelRows] = []  # what belongs to no partition yet

    def count_below(end: int, limit: int | None) -> int:
        """Rows below the pixel ``end``: all of them, or any number above ``limit``."""
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
            some = min(count, len(pixels))
            if some < len(pixels):
                read.insert(0, PixelRows(rows.slice(some), pixels[some:]))
            count -= some
            yield rows.slice(0, some)

    def divided(pixel: Pixel) -> Iterator[tuple[Pixel, list[Rows]]]:
        finest = pixel.order == LEVEL
        count = count_below(pixel.span(LEVEL)[1], None if finest else most)
        if count and (finest or count <= most):
            yield pixel, list(take(count))
        elif count:
            for child in range(4):
                yield from divided(Pixel(pixel.order + 1, 4 * pixel.number + child))

    return divided(root)
