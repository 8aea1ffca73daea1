"""Tables that are met by stars in order, or by ranges of source_id, instead of being held."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xplabels.core.errors import InputError
from xplabels.core.lookup import Lookup
from xplabels.io import hats
from xplabels.io.files import Digest
from xplabels.io.hats import PartitionedTable
from xplabels.io.tables import KeyedTable

Rows = dict[int, float]


def write_table(rows: Rows, path: Path) -> Path:
    """A table of source_id and parallax in the order of ``rows``."""
    ids, values = list(rows), list(rows.values())
    if path.suffix == ".parquet":
        table = pa.table({"SOURCE_ID": pa.array(ids, pa.int64()), "Parallax": values})
        pq.write_table(table, path, row_group_size=3)
        return path
    lines = ["# comment", "solution_id,source_id,name,parallax"]
    lines += [f"1,{star},a b,{'null' if np.isnan(v) else v}" for star, v in rows.items()]
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def looked_up(table: Any, blocks: list[list[int]]) -> list[Rows]:
    """What a table says of blocks of stars, one after the other."""
    found = []
    for block in blocks:
        ids = np.array(block, np.int64)
        rows, columns = table.find(ids)
        found.append(dict(zip(ids[rows].tolist(), columns["parallax"].tolist(), strict=True)))
    return found


def plain(rows: Rows, blocks: list[list[int]]) -> list[Rows]:
    """The same by a dictionary."""
    return [{star: rows[star] for star in block if star in rows} for block in blocks]


numbers = st.floats(-5, 5, allow_nan=False)
id_sets = st.lists(st.integers(1, 80), unique=True, min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.dictionaries(st.integers(1, 80), numbers, min_size=1, max_size=60),
    asked=id_sets,
    cut=st.integers(1, 15),
)
def test_lookups_are_those_of_a_dictionary(
    rows: Rows, asked: list[int], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    blocks = [asked[start : start + cut] for start in range(0, len(asked), cut)]
    folder = tmp_path_factory.mktemp("t")
    expected = plain(rows, blocks)
    for name in ("t.csv", "t.csv.gz", "t.parquet"):
        table = KeyedTable.read(write_table(rows, folder / name), ["parallax"])
        assert looked_up(table, blocks) == expected
    (folder / "parts").mkdir()
    half = len(rows) // 2
    write_table(dict(list(rows.items())[:half]) or {900: 0.0}, folder / "parts" / "a.parquet")
    write_table(dict(list(rows.items())[half:]), folder / "parts" / "b.parquet")
    for ahead in (0, 5, hats.ROWS_AHEAD):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hats, "ROWS_AHEAD", ahead)
            found = looked_up(PartitionedTable(folder / "parts", ["parallax"]), blocks)
            assert found == expected


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_a_file_is_summed_as_it_is_read(ending: str, tmp_path: Path) -> None:
    path = write_table(dict.fromkeys(range(1, 3000), 1.0), tmp_path / f"t.{ending}")
    digest = Digest()
    KeyedTable.read(path, ["parallax"], digest)
    assert digest.hexadecimal() == hashlib.md5(path.read_bytes()).hexdigest()


def test_what_cannot_be_looked_up_is_named(tmp_path: Path) -> None:
    path = write_table({1: 0.5, 2: 0.5}, tmp_path / "t.csv")
    with pytest.raises(InputError, match="column name: 'a b' is not a number"):
        KeyedTable.read(path, ["name"])
    path.write_text("source_id,parallax\n7,2\n7,3\n")
    with pytest.raises(InputError, match="source_id 7 occurs 2 times"):
        KeyedTable.read(path, ["parallax"])


def test_only_row_groups_near_the_stars_are_read(tmp_path: Path) -> None:
    """What is destroyed elsewhere does not matter, footers apart."""
    (tmp_path / "parts").mkdir()
    for part in range(4):
        rows = {1000 * part + star: 1.0 for star in range(1, 13)}
        path = write_table(rows, tmp_path / "parts" / f"{part}.parquet")
        if part != 2:
            content = bytearray(path.read_bytes())
            content[4:200] = bytes(196)
            path.write_bytes(content)
    table = PartitionedTable(tmp_path / "parts", ["parallax"])
    assert looked_up(table, [[2005, 2006], [2007, 2011]]) == [
        {2005: 1.0, 2006: 1.0},
        {2007: 1.0, 2011: 1.0},
    ]
    with pytest.raises(InputError, match="parts: is not a whole folder of Parquet files"):
        looked_up(table, [[1001, 1002]])
    write_table({2005: 1.0}, tmp_path / "parts" / "9.parquet")
    with pytest.raises(InputError, match="source_id 2005 occurs 2 times"):
        looked_up(PartitionedTable(tmp_path / "parts", ["parallax"]), [[2005, 2006]])


@given(st.lists(st.integers(-3, 40), unique=True), st.lists(st.integers(-3, 40)))
def test_rows_are_those_of_a_dictionary(table: list[int], wanted: list[int]) -> None:
    row_of = {star: row for row, star in enumerate(table) if star > 0}
    stars, rows = Lookup(np.array(table, np.int64)).find(np.array(wanted, np.int64))
    expected = [(n, row_of[star]) for n, star in enumerate(wanted) if star in row_of]
    assert list(zip(stars.tolist(), rows.tolist(), strict=True)) == expected


def test_a_star_in_two_rows_is_named() -> None:
    with pytest.raises(InputError, match=r"^table.fits: source_id 7 occurs 2 times"):
        Lookup(np.array([7, 5, 7]), "table.fits")
    assert len(Lookup(np.array([-1, 0, -1, 5]))) == 1
