"""Partitions cut from a stream are those that the HATS library makes of the whole histogram."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xplabels.io.partitioning import LEVEL, Pixel, PixelRows, partitions

ROOT = Pixel(9, 5)
FIRST, END = ROOT.span(LEVEL)


def cut(pixels: list[int], most: int, size: int) -> list[tuple[Pixel, list[int]]]:
    """The partitions of rows at ``pixels``, handed over ``size`` at a time; rows by number."""
    at = np.array(sorted(pixels), np.int64)
    rows = pa.table({"row": np.arange(len(at))})
    blocks = (
        PixelRows(rows.slice(start, size), at[start : start + size])
        for start in range(0, len(at), size)
    )
    return [
        (pixel, list(itertools.chain(*(piece["row"].to_pylist() for piece in pieces))))
        for pixel, pieces in partitions(blocks, ROOT, most)
    ]


@settings(deadline=None)
@given(
    pixels=st.lists(st.integers(FIRST, END - 1), max_size=60),
    most=st.integers(1, 20),
    size=st.integers(1, 30),
)
def test_every_row_once_in_its_own_pixel(pixels: list[int], most: int, size: int) -> None:
    made = cut(pixels, most, size)
    at = sorted(pixels)
    assert [row for _, rows in made for row in rows] == list(range(len(at)))
    for pixel, rows in made:
        first, end = pixel.span(LEVEL)
        assert all(first <= at[row] < end for row in rows)
        assert 0 < len(rows) <= most or pixel.order == LEVEL
    assert made == cut(pixels, most, 1000)  # whatever the blocks


@settings(deadline=None)
@given(
    pixels=st.lists(st.integers(FIRST, END - 1), min_size=1, max_size=60), most=st.integers(1, 9)
)
def test_the_hats_librarys_own_partitions(pixels: list[int], most: int) -> None:
    stats = pytest.importorskip("hats.pixel_math.partition_stats")
    counts = np.zeros(12 * 4**5, np.int64)
    # the tree of the root alone, moved to where a small histogram has room for it
    np.add.at(counts, np.array(pixels) - FIRST, 1)
    most = max(most, int(counts.max()))
    expected = {
        (int(order), int(number), int(rows))
        for order, number, rows in filter(
            None, stats.generate_alignment(counts, highest_order=5, lowest_order=2, threshold=most)
        )
    }
    shift = LEVEL - 5
    made = {
        (p.order - shift, p.number - (FIRST >> 2 * (LEVEL - p.order)), len(rows))
        for p, rows in cut(pixels, most, 7)
    }
    assert made == expected
