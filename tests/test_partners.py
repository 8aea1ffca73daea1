"""Ids of one Gaia release in another: nothing is chosen where there is a choice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetch_services import Services, account, serving_dr4
from services.made4 import made_dr4, neighbourhood
from test_releases import changed
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.fetch import Targets, fetch_stars
from xplabels.io.partners import Pairs, partners
from xplabels.surveys import read_survey

IDS = [1000, 2000, 3000, 4000, 5000, 6000]
TABLE = {name: np.array(values) for name, values in neighbourhood(IDS).items()}
ids = st.integers(1, 6)


def test_only_partners_of_one_another() -> None:
    found = partners(np.array([1000, 1993, 1992, 2993, 4993, 5993, 9]), TABLE)
    assert found.partner.tolist() == [1000, 2000, 0, 3000, 0, 6000, 0]
    assert found.status.tolist() == ["one", "one", "improbable", "one", "none", "one", "none"]
    assert found.to_text() == (
        "4 one (one partner); 2 none (not in the table); 1 improbable (no probable partner)"
    )
    back = partners(np.array([1000, 2000, 3000, 4000, 5000]), TABLE, back=True)
    assert back.partner.tolist() == [1000, 1993, 2993, 0, 0]
    assert back.status.tolist() == ["one", "one", "one", "improbable", "none"]


def test_without_a_word_on_what_is_probable_nothing_is_guessed() -> None:
    bare = {name: TABLE[name] for name in ("source_id", "dr3_source_id", "angular_distance")}
    found = partners(np.array([1000, 1993, 1992, 2993]), bare)
    assert found.partner.tolist() == [1000, 0, 0, 0]
    assert found.status.tolist() == ["one", "shared", "shared", "several"]


@given(st.lists(st.tuples(ids, ids, st.booleans()), max_size=12))
def test_partners_as_a_loop_finds_them(rows: list[tuple[int, int, bool]]) -> None:
    table = {
        "dr3_source_id": np.array([old for old, *_ in rows], np.int64),
        "source_id": np.array([10 + new for _, new, _ in rows], np.int64),
        "probable_match": np.array([good for *_, good in rows], bool),
    }
    asked = np.arange(1, 8)
    for back in (False, True):
        here = asked + 10 * back
        found = partners(here, table, back)
        pairs = [(10 + new, old) if back else (old, 10 + new) for old, new, good in rows if good]
        for one, partner in zip(here.tolist(), found.partner.tolist(), strict=True):
            mine = [there for source, there in pairs if source == one]
            only = len(mine) == 1 and [there for _, there in pairs].count(mine[0]) == 1
            assert partner == (mine[0] if only else 0)


@pytest.fixture(scope="module")
def dr4() -> Iterator[Services]:
    with serving_dr4(made_dr4(24)) as services:
        yield services


def test_fetching_by_ids_of_the_release_before(
    dr4: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = dr4.made.tables["gaiadr4.dr3_neighbourhood"]
    first, second, third, fourth, fifth, *_ = dr4.made.ids.tolist()
    asked = [first, second - 7, second - 8, third - 7, fifth - 7]
    (tmp_path / "ids.txt").write_text("\n".join(map(str, asked)))
    words = [
        "fetch", "--ids", str(tmp_path / "ids.txt"), "--ids-release", "dr3", "--release", "dr4",
        "--products", "tmass", "--output", str(tmp_path / "out"), "--tap", dr4.tap.address,
        "--datalink", dr4.datalink.address,
    ]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr()
    assert "5 ids of dr3 in Gaia DR4: 3 one (one partner); 1 none" in said.out + said.err
    assert sorted(account(tmp_path / "out")) == [first, second, third]
    rows = pq.read_table(tmp_path / "out" / "dr3_neighbourhood.parquet").to_pylist()
    status = {(row["dr3_source_id"], row["source_id"]): row["status"] for row in rows}
    assert status == {
        (first, first): "one",
        (second - 7, second): "one",
        (second - 8, second): "improbable",
        (third - 7, third): "one",
        (third - 7, fourth): "one",  # the pair is improbable, the id has its partner
        (fifth - 7, None): "none",
    }
    assert {row["angular_distance"] for row in rows} == {0.5, 80.5, None}
    assert table["probable_match"].count(False) == 2

    # the table translates labels
    labels = pa.table({"source_id": asked, "teff": [5e3] * 5, "teff_err": [50.0] * 5})
    pq.write_table(labels, tmp_path / "mine.parquet")
    near = tmp_path / "out" / "dr3_neighbourhood.parquet"
    survey = read_survey("mine", tmp_path / "mine.parquet", neighbours=near)
    assert survey.source_id.tolist() == [first, second, 0, third, 0]
    assert "3 one (one partner)" in survey.notes[0]


def test_ids_that_cannot_be_translated(dr4: Services, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Gaia DR4 has no table of ids of 'dr2'; choose of dr3"):
        fetch_stars(Targets.of_ids(np.array([5]), "dr2"), tmp_path / "out", dr4.archive)
    with pytest.raises(InputError, match=r"1 id of dr3 in Gaia DR4: 1 none .*check that the ids"):
        fetch_stars(Targets.of_ids(np.array([5]), "dr3"), tmp_path / "out", dr4.archive)
    dr4.release = changed(tmp_path, ('match = "dr3_source_id"', 'match = "source_id_dr3"'))
    with pytest.raises(
        InputError, match=r"dr3_neighbourhood.source_id_dr3 \(nearest: dr3_source_id"
    ):
        fetch_stars(Targets.of_ids(np.array([5]), "dr3"), tmp_path / "out", dr4.archive)
    with pytest.raises(InputError, match="has not the ids of two Gaia releases"):
        partners(np.array([5]), {"source_id": np.array([5])})
    assert main(["fetch", "--cone", "1,2,3", "--ids-release", "dr3", "--output", "x"]) == 2


def test_the_table_between_the_second_and_third_release_is_known() -> None:
    found = Pairs.of({"dr2_source_id": np.array([1]), "dr3_source_id": np.array([2])})
    assert found is not None
    assert (found.older.tolist(), found.newer.tolist()) == ([1], [2])
