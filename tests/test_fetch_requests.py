"""Which stars are asked for: a cone, a query, ids from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from fetch_services import QUICK, STARS, Services, account
from xplabels.core.errors import InputError
from xplabels.fetch import Cone, FetchSettings, Targets, fetch_stars
from xplabels.fetch.archive import release_of


def test_a_cone_and_a_query(services: Services, tmp_path: Path) -> None:
    table = services.made.tables["gaiadr3.gaia_source"]
    cone = Cone(180.0, 30.0, 60.0)
    fetch_stars(
        Targets.of_cone(cone, release_of("dr3")), tmp_path / "cone", services.archive, [],
        QUICK,
    )  # fmt: skip
    ra, dec = (np.radians(np.array(table[name])) for name in ("ra", "dec"))
    cosine = np.sin(dec) * np.sin(np.radians(30)) + np.cos(dec) * np.cos(np.radians(30)) * np.cos(
        ra - np.pi
    )
    inside = np.array(table["source_id"])[cosine >= 0.5]
    assert 0 < len(inside) < STARS
    assert sorted(account(tmp_path / "cone")) == sorted(inside)

    query = "SELECT source_id FROM gaiadr3.gaia_source WHERE phot_g_mean_mag < 12"
    fetch_stars(Targets(query=query), tmp_path / "query", services.archive, [], QUICK)
    bright = np.array(table["source_id"])[np.array(table["phot_g_mean_mag"]) < 12]
    assert sorted(account(tmp_path / "query")) == sorted(bright)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT ra FROM gaiadr3.gaia_source", "no column source_id but ra"),
        ("SELECT source_id FROM gaiadr3.gaia_source WHERE ra > 400", "finds no star"),
        ("SELECT nonsense", "no such column: nonsense"),
    ],
)
def test_a_query_of_no_use_is_told(
    services: Services, tmp_path: Path, query: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fetch_stars(Targets(query=query), tmp_path / "out", services.archive, [], QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["csv", "txt", "fits"])
def test_ids_from_a_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"ids.{kind}"
    ids = [4345775217221821313, 4345775217221821312, -1, 0, 4345775217221821313]
    if kind == "fits":  # as APOGEE's allStar
        names = [f"2M{n}" for n in range(len(ids))]
        Table({"APOGEE_ID": names, "GAIAEDR3_SOURCE_ID": ids}).write(path)
    elif kind == "csv":
        path.write_text("name,source_id\n" + "".join(f"x,{one}\n" for one in ids))
    else:
        path.write_text("\n".join(map(str, ids)))
    wanted = Targets.of_file(path).ids
    assert wanted is not None
    assert wanted.tolist() == [4345775217221821312, 4345775217221821313]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "gaia_source_id\n1\n", "none of the columns .*source_id"),
        ("a.csv", "source_id\n0\n", "holds no source_id"),
        ("a.txt", "12\n1.5e18\n", "no id"),
        ("a.txt", "99999999999999999999\n", "no id"),
    ],
)
def test_a_file_without_ids_is_told(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Targets.of_file(path)


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "400,0,1", "0,91,1", "0,0,0", "nan,0,1"])
def test_a_cone_of_no_use_is_told(text: str) -> None:
    with pytest.raises(InputError):
        Cone.parse(text)


@pytest.mark.parametrize(
    "wrong", [{"chunk": 5001}, {"chunk": 0}, {"tap_chunk": 0}, {"parallel": 0}]
)
def test_settings_of_no_use_are_told(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        FetchSettings(**wrong)  # type: ignore[arg-type]
