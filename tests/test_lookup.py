"""One lookup by source_id, against a dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xplabels.core.errors import InputError
from xplabels.core.lookup import Lookup

ids = st.integers(-3, 40)


@given(st.lists(ids, unique=True), st.lists(ids))
def test_rows_are_those_of_a_dictionary(table: list[int], wanted: list[int]) -> None:
    row_of = {star: row for row, star in enumerate(table) if star > 0}
    stars, rows = Lookup(np.array(table, np.int64)).find(np.array(wanted, np.int64))
    expected = [(n, row_of[star]) for n, star in enumerate(wanted) if star in row_of]
    assert list(zip(stars.tolist(), rows.tolist(), strict=True)) == expected


def test_a_star_in_two_rows_is_named() -> None:
    with pytest.raises(InputError, match=r"^table.fits: source_id 7 occurs 2 times"):
        Lookup(np.array([7, 5, 7]), "table.fits")
    assert len(Lookup(np.array([-1, 0, -1, 5]))) == 1
