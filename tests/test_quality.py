"""Gaia's own quality columns: the rules against a slow twin, and the way through every reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from sky import edited, make_sky, run, spectra_name
from test_tables import ENDINGS, write
from xplabels import io as archive
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.quality import (
    QUALITY_COLUMNS,
    corrected_excess,
    excess_scatter,
    has_quality,
    quality_flags,
)
from xplabels.core.stars import Photometry, Stars, concatenate
from xplabels.io import write_stars
from xplabels.io.tables import join_photometry, read_table
from xplabels.model import Model
from xplabels.pipeline import AuxiliaryTables

GAIA_FLAGS = np.uint32(Flag.HIGH_RUWE | Flag.BLENDED_TRANSITS | Flag.BAD_EXCESS_FACTOR)


def usual_excess(x: float) -> float:
    """Table 2 of Riello et al. 2021, term by term."""
    if x < 0.5:
        return 1.154360 + 0.033772 * x + 0.032277 * x * x
    if x < 4.0:
        return 1.162004 + 0.011464 * x + 0.049255 * x * x - 0.005879 * x * x * x
    return 1.057572 + 0.140537 * x


@given(st.floats(-1, 7), st.floats(0.5, 10), st.floats(3, 21))
def test_corrected_excess_is_that_of_the_paper(x: float, excess: float, g: float) -> None:
    corrected = corrected_excess(np.array([excess]), np.array([x]))[0]
    assert corrected == pytest.approx(excess - usual_excess(x), abs=1e-12)
    sigma = excess_scatter(np.array([g]))[0]
    assert sigma == pytest.approx(0.0059898 + 8.817481e-12 * g**7.618399)
    magnitudes = {"phot_g_mean_mag": (np.array([g]), np.array([0.01]))}
    columns = {"phot_bp_rp_excess_factor": np.array([excess]), "bp_rp": np.array([x])}
    found = quality_flags(columns, Photometry.of(1, magnitudes))[0] & Flag.BAD_EXCESS_FACTOR
    assert bool(found) == (abs(excess - usual_excess(x)) > 5 * sigma)


counts = st.integers(0, 60)


@given(st.lists(counts, min_size=6, max_size=6))
def test_blended_transits_are_a_share_of_both_bands(numbers: list[int]) -> None:
    ends = ("n_obs", "n_blended_transits", "n_contaminated_transits")
    names = [f"phot_{band}_{end}" for end in ends for band in ("bp", "rp")]
    columns = {name: np.array([one]) for name, one in zip(names, numbers, strict=True)}
    observed, blended, contaminated = np.array(numbers).reshape(3, 2).sum(axis=1)
    nothing = Photometry.missing(1)
    assert bool(quality_flags(columns, nothing)[0]) == (2 * max(blended, contaminated) > observed)
    without = dict(list(columns.items())[:4])
    assert bool(quality_flags(without, nothing)[0]) == (2 * blended > observed)


@pytest.mark.parametrize("name", QUALITY_COLUMNS)
def test_what_is_missing_sets_no_flag(name: str) -> None:
    columns = {column: np.array([1e3, 1e3]) for column in QUALITY_COLUMNS}
    columns |= {"phot_bp_n_obs": np.ones(2), "phot_rp_n_obs": np.ones(2), "bp_rp": np.ones(2)}
    g = {"phot_g_mean_mag": (np.full(2, 15.0), np.full(2, 0.01))}
    whole = quality_flags(columns, Photometry.of(2, g))
    assert (whole == GAIA_FLAGS).all()
    columns[name] = np.array([np.nan, columns[name][1]])
    part = quality_flags(columns, Photometry.of(2, g))
    assert part[1] == GAIA_FLAGS
    spared = name.endswith("_transits")  # the blended ones are enough, and the contaminated ones
    assert (part[0] == GAIA_FLAGS) == spared
    assert has_quality([name]) == (name in ("ruwe", "phot_bp_rp_excess_factor"))


def gaia_table(ids: np.ndarray) -> Table:
    """Of four stars: nothing, RUWE, blended transits, excess factor."""
    return Table(
        {
            "SOURCE_ID": ids[:4],
            "ruwe": [1.0, 1.5, 1.0, 1.0],
            "phot_bp_n_obs": [20, 20, 20, 20],
            "phot_rp_n_obs": [20, 20, 20, 20],
            "phot_bp_n_blended_transits": [0, 0, 20, 0],
            "phot_rp_n_blended_transits": [0, 0, 20, 0],
            "phot_bp_rp_excess_factor": [1.2, 1.2, 1.2, 1.9],
            "bp_rp": [0.8, 0.8, 0.8, 0.8],
        }
    )


EXPECTED = [0, int(Flag.HIGH_RUWE), int(Flag.BLENDED_TRANSITS), int(Flag.BAD_EXCESS_FACTOR)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_tables_of_every_format_set_flags(
    ending: str, small_stars: Stars, small_model: Model, tmp_path: Path
) -> None:
    stars = small_stars[small_model.predict(small_stars).flags == 0][slice(0, 6)]
    path = write(gaia_table(stars.source_id), tmp_path / f"t.{ending}")
    joined = join_photometry(stars, path)
    assert (joined.flags & GAIA_FLAGS).tolist() == [*EXPECTED, 0, 0]
    np.testing.assert_array_equal(joined.photometry.values, stars.photometry.values)
    assert small_model.predict(joined).good.all()  # remarks: the spectra fit
    # they go with the stars
    assert (joined[np.array([3, 1])].flags & GAIA_FLAGS).tolist() == [EXPECTED[3], EXPECTED[1]]
    again = concatenate([joined[:2], joined[2:]])
    assert again.flags.tolist() == joined.flags.tolist()
    write_stars(joined, tmp_path / "stars.parquet")
    assert archive.read(tmp_path / "stars.parquet").flags.tolist() == joined.flags.tolist()


def test_a_star_table_that_has_the_columns(small_stars: Stars, tmp_path: Path) -> None:
    stars = small_stars[slice(0, 4)]
    write_stars(stars, tmp_path / "stars.parquet")
    table = pq.read_table(tmp_path / "stars.parquet")
    for name in gaia_table(stars.source_id).colnames[1:]:
        table = table.append_column(name, pa.array(gaia_table(stars.source_id)[name]))
    pq.write_table(table, tmp_path / "more.parquet")
    assert (archive.read(tmp_path / "more.parquet").flags & GAIA_FLAGS).tolist() == EXPECTED
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "foreign.parquet")
    assert (archive.read(tmp_path / "foreign.parquet").flags & GAIA_FLAGS).tolist() == EXPECTED


def test_columns_that_hold_no_numbers_are_named(small_stars: Stars, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"source_id,ruwe\n{small_stars.source_id[0]},high\n")
    with pytest.raises(InputError, match=r"t\.csv, row 1, column ruwe: 'high' is not a number"):
        join_photometry(small_stars, tmp_path / "t.csv")


def gaia_source(lines: list[str]) -> list[str]:
    """A GaiaSource file in which the second star, and its neighbours, have a high RUWE."""
    header, rows = lines[:2], lines[2:]
    first = int(rows[4].split(",")[0])
    ruwe = [1.6 if first <= int(row.split(",")[0]) < first + 4 else 1.0 for row in rows]
    return [
        header[0], header[1].rstrip("\n") + ",ruwe\n",
        *(f"{row.rstrip()},{one}\n" for row, one in zip(rows, ruwe, strict=True)),
    ]  # fmt: skip


def test_gaia_source_files_set_flags_in_a_run_and_in_a_conversion(
    small_stars: Stars, small_model: Model, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    make_sky(folder, small_stars, files=(1,), gaia=True)
    edited(next(folder.glob("GaiaSource*")), gaia_source)
    summary = run(folder, tmp_path / "out", small_model, tables=AuxiliaryTables())
    assert summary.flags["HIGH_RUWE"] == 1
    path = tmp_path / "out" / spectra_name(1).replace(".csv.gz", ".parquet")
    flags = read_table(path, ["flags"])["flags"]
    assert np.flatnonzero(flags & int(Flag.HIGH_RUWE)).tolist() == [1]
    assert summary.good == read_table(path, ["good"])["good"].sum() > 900
    pytest.importorskip("hats")
    from xplabels.convert import convert_files

    convert_files([folder], tmp_path / "xp", gaia_source=folder)
    stars = archive.read(tmp_path / "xp")
    assert np.flatnonzero(stars.flags & np.uint32(Flag.HIGH_RUWE)).tolist() == [1]


@pytest.mark.parametrize("ending", [".fits", ".vot", ".ecsv", ".parquet", ".csv"])
def test_good_is_a_boolean_column_that_is_read_back(
    ending: str, small_stars: Stars, small_model: Model, tmp_path: Path
) -> None:
    prediction = small_model.predict(small_stars[slice(0, 50)])
    flags = prediction.flags | np.where(np.arange(50) % 3 == 0, np.uint32(Flag.POOR_FIT), 0)
    flags[1] |= np.uint32(Flag.MISSING_H_KS)
    prediction = replace(prediction, flags=flags.astype(np.uint32))
    prediction.write(tmp_path / f"labels{ending}")
    columns = read_table(tmp_path / f"labels{ending}", ["good", "flags"])
    assert columns["good"].dtype == bool
    assert columns["good"].tolist() == prediction.good.tolist()
    assert columns["flags"].tolist() == prediction.flags.tolist()
    assert 1 < columns["good"].sum() < 50
    assert f"{prediction.good.sum()} good" in repr(prediction)
    frame = prediction.to_pandas()
    assert frame["good"].dtype == bool
    assert (frame[frame["good"]]["flags"] & int(Flag.POOR_FIT) == 0).all()


def test_true_and_false_with_gaps(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("source_id,good,name\n1,True,a\n2,,b\n3,false,c\n")
    columns = read_table(tmp_path / "t.csv")
    assert np.array_equal(columns["good"], [1, np.nan, 0], equal_nan=True)
    assert columns["name"].tolist() == ["a", "b", "c"]
    pq.write_table(pa.table({"source_id": [1, 2], "good": [True, None]}), tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet")["good"]
    assert np.array_equal(found, [1, np.nan], equal_nan=True)
