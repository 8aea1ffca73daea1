"""The flags and the rule of ``good``: documented, and monotone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xplabels.core.flags import (
    ABOUT,
    BAD,
    MEANING,
    UNUSABLE,
    Flag,
    describe,
    is_good,
    missing_input,
)
from xplabels.features import AUXILIARY

masks = st.integers(0, 2 * max(Flag) - 1)


def test_every_flag_is_a_bit_of_its_own_and_described() -> None:
    assert [flag.value for flag in Flag] == [1 << bit for bit in range(len(Flag))]
    assert set(ABOUT) == set(MEANING) == set(Flag)
    assert all(about.meaning and about.advice for about in ABOUT.values())
    lines = describe().splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == [flag.name for flag in Flag]
    assert [line.endswith("[not good]") for line in lines] == [bool(flag & BAD) for flag in Flag]


def test_what_is_only_a_remark() -> None:
    remarks = {flag.name for flag in Flag if is_good(np.array([flag]))[0]}
    inputs = {missing_input(name).name for name in AUXILIARY}
    assert inputs <= remarks
    assert {flag for flag in remarks - inputs if not str(flag).startswith("MISSING_")} == {
        "NO_CORRELATIONS", "LABEL_UNDEFINED", "HIGH_RUWE", "BLENDED_TRANSITS",
    }  # fmt: skip
    assert UNUSABLE & BAD == UNUSABLE


@given(st.lists(masks, min_size=1, max_size=20), masks)
def test_good_is_monotone(flags: list[int], more: int) -> None:
    before = is_good(np.array(flags, np.uint32))
    after = is_good(np.array(flags, np.uint32) | np.uint32(more))
    assert not (after & ~before).any()
    assert not after.any() or not more & BAD
    # remarks change nothing
    assert np.array_equal(is_good(np.array(flags) | (more & ~int(BAD))), before)


@pytest.mark.parametrize("kind", [np.uint32, np.int64, np.uint64])
def test_the_type_of_the_column_does_not_matter(kind: type[np.integer]) -> None:
    every = np.array([0, *(int(flag) for flag in Flag)], kind)
    assert is_good(every).tolist() == [True, *(not flag & BAD for flag in Flag)]
