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
from xplabels.io import ascending, partitioned
from xplabels.io.ascending import AscendingTable
from xplabels.io.gunzip import Digest
from xplabels.io.partitioned import PartitionedTable

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
    told = []
    for block in blocks:
        ids = np.array(block, np.int64)
        rows, columns = table.find(ids)
        told.append(dict(zip(ids[rows].tolist(), columns["parallax"].tolist(), strict=True)))
    return told


def plain(rows: Rows, blocks: list[list[int]]) -> list[Rows]:
    """The same by a dictionary."""
    return [{star: rows[star] for star in block if star in rows} for block in blocks]


numbers = st.floats(-5, 5, allow_nan=False)
id_sets = st.lists(st.integers(1, 80), unique=True, min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    table=st.dictionaries(st.integers(1, 80), numbers, min_size=1, max_size=60),
    asked=id_sets,
    ordered=st.booleans(),
    in_order=st.booleans(),
    cut=st.integers(1, 15),
)
def test_lookups_are_those_of_a_dictionary(
    table: Rows, asked: list[int], ordered: bool, in_order: bool, cut: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    rows = dict(sorted(table.items())) if ordered else table
    stars = sorted(asked) if in_order else asked
    blocks = [stars[start : start + cut] for start in range(0, len(stars), cut)]
    folder = tmp_path_factory.mktemp("t")
    expected = plain(rows, blocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ascending, "BATCH_ROWS", 4)
        patch.setattr(ascending, "TEXT_BYTES", 64)
        for name in ("t.csv", "t.csv.gz", "t.parquet"):
            path = write_table(rows, folder / name)
            lookup = AscendingTable(path, ["parallax"])
            try:
                told = looked_up(lookup, blocks)
                lookup.finish()
            except InputError:  # it may show too late that the rows do not ascend
                assert list(rows) != sorted(rows)
            else:
                assert told == expected
    (folder / "parts").mkdir()
    half = len(rows) // 2
    write_table(dict(list(rows.items())[:half]) or {900: 0.0}, folder / "parts" / "a.parquet")
    write_table(dict(list(rows.items())[half:]), folder / "parts" / "b.parquet")
    for ahead in (0, 5, partitioned.ROWS_AHEAD):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(partitioned, "ROWS_AHEAD", ahead)
            found = looked_up(PartitionedTable(folder / "parts", ["parallax"]), blocks)
            assert found == expected


@pytest.mark.parametrize("ending", ["csv.gz", "parquet"])
def test_a_long_table_is_not_held(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ascending, "BATCH_ROWS", 50)
    monkeypatch.setattr(ascending, "TEXT_BYTES", 1000)
    rows = {star: 0.1 * star for star in range(1, 5000)}
    table = AscendingTable(write_table(rows, tmp_path / f"t.{ending}"), ["parallax"])
    held = []
    for start in range(1, 5000, 40):
        looked_up(table, [list(range(start, start + 40, 7))])
        held.append(len(table._waiting[0]))
    assert max(held) < 200
    assert not table._whole


def test_a_file_is_summed_as_it_is_read(tmp_path: Path) -> None:
    path = write_table(dict.fromkeys(range(1, 3000), 1.0), tmp_path / "t.csv.gz")
    digest = Digest()
    table = AscendingTable(path, ["parallax"], digest)
    looked_up(table, [[5, 7]])
    table.finish()
    assert digest.hexadecimal() == hashlib.md5(path.read_bytes()).hexdigest()


def test_a_truncated_table_is_an_error_that_names_it(tmp_path: Path) -> None:
    rows = {star: 1.0 / star for star in range(1, 3000)}
    path = write_table(rows, tmp_path / "t.csv.gz")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"t\.csv\.gz: is (truncated|damaged)"):
        looked_up(AscendingTable(path, ["parallax"]), [[2999]])


def test_columns_that_hold_no_numbers_are_told(tmp_path: Path) -> None:
    path = write_table({1: 0.5, 2: 0.5}, tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"damaged|numbers"):
        AscendingTable(path, ["name"]).find(np.array([1]))
    (tmp_path / "u.csv").write_text("id,parallax\n1,2\n")
    with pytest.raises(InputError, match="'source_id' is absent"):
        AscendingTable(tmp_path / "u.csv", ["parallax"])


def test_only_row_groups_near_the_stars_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parts").mkdir()
    for part in range(4):
        rows = {100 * part + star: 1.0 for star in range(1, 13)}
        write_table(rows, tmp_path / "parts" / f"{part}.parquet")
    read: list[tuple[str, int]] = []
    real = PartitionedTable._read

    def noticed(self: PartitionedTable, group: partitioned.Group) -> Any:
        read.append((group.file.name, group.number))
        return real(self, group)

    monkeypatch.setattr(PartitionedTable, "_read", noticed)
    table = PartitionedTable(tmp_path / "parts", ["parallax"])
    assert looked_up(table, [[205, 206]]) == [{205: 1.0, 206: 1.0}]
    # what was looked at ahead (up to 237) holds the rest of the file, and no other
    assert sorted(read) == [("2.parquet", 1), ("2.parquet", 2), ("2.parquet", 3)]
    looked_up(table, [[207, 211]])
    assert len(read) == 3


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_rows_out_of_order_are_served_or_told(tmp_path: Path, monkeypatch, name: str) -> None:
    early = write_table({9: 1.0, 2: 2.0, 30: 3.0}, tmp_path / f"a{name}")
    assert looked_up(AscendingTable(early, ["parallax"]), [[2, 9]]) == [{2: 2.0, 9: 1.0}]
    monkeypatch.setattr(ascending, "BATCH_ROWS", 4)
    monkeypatch.setattr(ascending, "TEXT_BYTES", 64)
    late = write_table(dict.fromkeys((*range(10, 40), 3), 0.5), tmp_path / f"b{name}")
    table = AscendingTable(late, ["parallax"])
    assert looked_up(table, [[3, 12]]) == [{12: 0.5}]
    with pytest.raises(InputError, match=r"source_id 3 stands after 39.*missed"):
        table.finish()
    table = AscendingTable(late, ["parallax"])
    looked_up(table, [[12]])
    with pytest.raises(InputError, match="source_id 3 stands after 39"):
        table.find(np.array([11]))  # behind: the whole is read
