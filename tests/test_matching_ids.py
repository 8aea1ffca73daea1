"""Matching by identifiers: the archive's tables of neighbours, against slow, obvious twins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from survey_tables import IDS, write
from xplabels.surveys import read_survey
from xplabels.surveys.matching import MatchFlag, Neighbours, match_by_id, translate


def test_two_mass_by_the_best_neighbour_table(tmp_path: Path) -> None:
    psc = {
        "designation": ["00000000+0000000", "00000001+0000001", "00000002+0000002"],
        "j_m": [10.0, 11.0, 12.0],
        "j_msigcom": [0.02] * 3,
        "ph_qual": ["AAA"] * 3,
    }
    best = {
        "source_id": IDS[:3],
        "original_ext_source_id": ["00000001+0000001", "00000001+0000001", "00000000+0000000"],
        "angular_distance": [0.1, 0.2, 0.1],
        "number_of_mates": [1, 1, 0],
    }
    table = read_survey(
        "twomass",
        write(psc, tmp_path / "psc.csv"),
        ["match_flags"],
        neighbours=write(best, tmp_path / "best.csv"),
    )
    assert table.photometry is not None
    found = dict(zip(table.source_id.tolist(), table.photometry.column("j_m")[0], strict=True))
    assert found == {IDS[0]: 11.0, IDS[1]: 11.0, IDS[2]: 10.0, 0: 12.0}
    assert "3 matches; 2 SHARED" in table.notes[0]
    flags = dict(zip(table.source_id.tolist(), table.columns["match_flags"], strict=True))
    assert flags == {IDS[0]: MatchFlag.SHARED, IDS[1]: MatchFlag.SHARED, IDS[2]: 0, 0: 0}
    assert "1 of 3 rows have no Gaia source" in table.notes[0]


PAIRS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 6), st.floats(0, 1)), min_size=1, max_size=12
)


def obvious_matches(
    keys: list[int], pairs: list[tuple[int, int, float]]
) -> dict[int, tuple[int, int]]:
    """source -> (row, flags), by trying every pair."""
    candidates: dict[int, list[tuple[float, int]]] = {}
    for key, source, distance in pairs:
        if key in keys and source > 0:
            candidates.setdefault(source, []).append((distance, keys.index(key)))
    chosen = {s: min(c, key=lambda pair: pair[0])[1] for s, c in candidates.items()}
    rows = list(chosen.values())
    return {
        s: (
            row,
            (MatchFlag.SEVERAL if len(candidates[s]) > 1 else 0)
            | (MatchFlag.SHARED if rows.count(row) > 1 else 0),
        )
        for s, row in chosen.items()
    }


@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=6),
    PAIRS,
)
def test_matching_by_id_does_what_the_obvious_loop_does(
    keys: list[int], pairs: list[tuple[int, int, float]]
) -> None:
    key, source, distance = (np.array(column) for column in zip(*pairs, strict=True))
    unknown = np.full(len(pairs), -1)
    found = match_by_id(np.array(keys), Neighbours(key, source, distance.astype(float), unknown))
    told = {
        int(s): (int(r), int(f))
        for s, r, f in zip(found.source_id, found.row, found.flags, strict=True)
    }
    assert told == obvious_matches(keys, pairs)


def obvious_translation(key: int, pairs: list[tuple[int, int, float]]) -> tuple[int, int]:
    """Source and flags of one row, by trying every pair."""
    nearest = {
        k: min((p for p in pairs if p[0] == k and p[1] > 0), key=lambda p: p[2], default=None)
        for k, _, _ in pairs
    }
    mine = nearest.get(key)
    if mine is None:
        return 0, 0
    flags = 0
    if sum(k == key and source > 0 for k, source, _ in pairs) > 1:
        flags |= MatchFlag.SEVERAL
    if sum(pair is not None and pair[1] == mine[1] for pair in nearest.values()) > 1:
        flags |= MatchFlag.SHARED
    return mine[1], int(flags)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), PAIRS)
def test_translation_does_what_the_obvious_loop_does(
    keys: list[int], pairs: list[tuple[int, int, float]]
) -> None:
    key, source, distance = (np.array(column) for column in zip(*pairs, strict=True))
    unknown = np.full(len(pairs), -1)
    found, flags = translate(
        np.array(keys), Neighbours(key, source, distance.astype(float), unknown)
    )
    assert list(zip(found.tolist(), flags.tolist(), strict=True)) == [
        obvious_translation(k, pairs) for k in keys
    ]
