"""The split by hash, as issue and method state it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xplabels.core.errors import InputError
from xplabels.core.split import VALIDATION_FRACTION, part_mask, uniform

PARTS = ("train", "validation", "test")
GAIA = st.integers(0, 2**63 - 1)


def test_the_hash_is_the_documented_one() -> None:
    """printf 4295806720 | sha256sum"""
    assert uniform(np.array([4295806720]))[0] == 0x432EEF3A / 4294967296


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.35, 0.8])
def test_every_star_stands_on_one_side(fraction) -> None:
    ids = np.arange(20000) * 4096 + 12345
    masks = [part_mask(ids, part, fraction) for part in PARTS]
    assert (np.sum(masks, axis=0) == 1).all()
    shares = [mask.mean() for mask in masks]
    wanted = [1 - fraction - VALIDATION_FRACTION, VALIDATION_FRACTION, fraction]
    assert fraction > 0 or not masks[2].any()
    np.testing.assert_allclose(shares, wanted, atol=4 * np.sqrt(0.25 / 20000))


@settings(max_examples=30, deadline=None)
@given(st.lists(GAIA, min_size=2, max_size=20, unique=True), st.sampled_from(PARTS))
def test_a_star_s_side_depends_on_nothing_but_its_id(ids, part) -> None:
    ids = np.array(ids, np.int64)
    whole = part_mask(ids, part, 0.3)
    assert part_mask(ids[::-1], part, 0.3)[::-1].tolist() == whole.tolist()
    assert [part_mask(ids[i : i + 1], part, 0.3)[0] for i in range(len(ids))] == whole.tolist()


def test_a_larger_test_fraction_takes_stars_in_and_gives_none_back() -> None:
    ids = np.arange(5000)
    small, large = (part_mask(ids, "test", f) for f in (0.1, 0.2))
    assert (large | ~small).all()


@pytest.mark.parametrize("fraction", [-0.1, 0.9, 1.0, float("nan")])
def test_impossible_fractions_are_refused(fraction) -> None:
    with pytest.raises(InputError, match=r"between 0 and 0\.8"):
        part_mask(np.arange(3), "test", fraction)
