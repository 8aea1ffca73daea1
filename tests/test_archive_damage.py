"""Whatever can be wrong with an archive file is named: file, row, source_id, column, remedy."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive_files import FORMATS, FakeStars, arrays_of, fake_stars, write
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.io import read, read_blocks
from xplabels.io.arrays import parse_array

BAD = 2  # the damaged row among five, counted from 0


def put(name: str, index: int, value: float) -> Callable[[FakeStars], None]:
    def damage(stars: FakeStars) -> None:
        cell = stars.cells[name][BAD].copy()
        cell[index] = value
        stars.cells[name][BAD] = cell

    return damage


def cut(name: str, length: int) -> Callable[[FakeStars], None]:
    def damage(stars: FakeStars) -> None:
        stars.cells[name][BAD] = stars.cells[name][BAD][:length]

    return damage


DAMAGE: dict[str, tuple[Callable[[FakeStars], None], str]] = {
    "nan coefficient": (put("bp_coefficients", 1, np.nan), r"bp_coefficients: value 1 \(nan\)"),
    "infinite coefficient": (put("rp_coefficients", 0, -np.inf), r"rp_coefficients: value 0"),
    "nan error": (put("rp_coefficient_errors", 2, np.nan), r"rp_coefficient_errors: value 2"),
    "infinite error": (put("rp_coefficient_errors", 2, np.inf), r"rp_coefficient_errors: value 2"),
    "zero error": (put("bp_coefficient_errors", 0, 0), r"bp_coefficient_errors: value 0 \(0\)"),
    "negative error": (put("bp_coefficient_errors", 0, -1.5), r"value 0 \(-1.5\) is not a pos"),
    "correlation above 1": (put("rp_coefficient_correlations", 4, 1.00001),
                            r"rp_.*_correlations: value 4 \(1.00001\) is not between -1 and 1"),
    "nan correlation": (put("bp_coefficient_correlations", 0, np.nan), "bp_coefficient_corr"),
    "short coefficients": (cut("bp_coefficients", 2), "bp_coefficients: has 2 values, not 3"),
    "short errors": (cut("rp_coefficient_errors", 3), "rp_coefficient_errors: has 3 values, not 4"),
    "short correlations": (cut("rp_coefficient_correlations", 5),
                           "rp_coefficient_correlations: has 5 values, not 6"),
    "null errors": (cut("rp_coefficient_errors", 0), "rp_coefficient_errors: has 0 values"),
    "null correlations": (cut("bp_coefficient_correlations", 0), "bp_coefficient_correlations"),
    "null coefficients": (cut("bp_coefficients", 0), "bp_coefficients: is empty, though"),
}  # fmt: skip


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("fault", DAMAGE)
def test_a_damaged_row_is_an_error_or_a_flag(fault: str, ending: str, tmp_path: Path) -> None:
    damage, message = DAMAGE[fault]
    stars = fake_stars(5, (3, 4))
    damage(stars)
    path = write(stars, tmp_path / f"bad.{ending}")
    star = stars.source_id[BAD]
    where = rf"bad\.{ending}, row {BAD + 1}, source_id {star}, column .*"
    # blocks of 2: the row number must count across blocks, also where it is the block's first
    with pytest.raises(InputError, match=where + message) as caught:
        list(read_blocks(path, block=2))
    assert "--bad-rows flag" in (caught.value.remedy or "")
    flagged = read(path, bad_rows="flag")
    assert flagged.flags.tolist() == [0, 0, Flag.BAD_ROW, 0, 0]
    for name, values in arrays_of(flagged).items():
        if name[:2] in ("bp", "rp"):
            assert np.isnan(values[BAD]).all(), name
            assert np.isfinite(np.delete(values, BAD, axis=0)).all(), name
    assert flagged.notes[0].startswith("1 damaged row is flagged BAD_ROW; the first: ")
    assert str(star) in flagged.notes[0]


def test_a_correlation_of_one_and_a_bit_of_rounding_passes(tmp_path: Path) -> None:
    stars = fake_stars(5, (3, 4))
    put("rp_coefficient_correlations", 0, np.nextafter(np.float32(1), np.float32(2)))(stars)
    assert not read(write(stars, tmp_path / "s.fits")).flags.any()


def test_the_first_row_may_be_the_damaged_one(tmp_path: Path) -> None:
    stars = fake_stars(5, (3, 4))
    stars.cells["bp_coefficients"][0] = stars.cells["bp_coefficients"][0][:2]
    flagged = read(write(stars, tmp_path / "s.csv"), bad_rows="flag")
    assert flagged.flags.tolist() == [Flag.BAD_ROW, 0, 0, 0, 0]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("bad_rows", ["error", "flag"])
def test_a_duplicate_source_id_is_an_error(bad_rows: str, ending: str, tmp_path: Path) -> None:
    stars = fake_stars(5, (3, 4))
    stars.source_id[4] = stars.source_id[1]
    path = write(stars, tmp_path / f"twice.{ending}")
    with pytest.raises(InputError, match=rf"row 5, source_id {stars.source_id[1]}.*twice"):
        list(read_blocks(path, bad_rows, block=2))


@pytest.mark.parametrize("ending", FORMATS)
def test_absent_columns_are_listed(ending: str, tmp_path: Path) -> None:
    stars = fake_stars(2, (3, 4))
    del stars.cells["bp_coefficient_errors"], stars.cells["rp_coefficients"]
    path = write(stars, tmp_path / f"few.{ending}")
    with pytest.raises(InputError, match="bp_coefficient_errors, rp_coefficients are absent"):
        read(path)


@pytest.mark.parametrize("ending", [e for e in FORMATS if e != "fits.gz"])
def test_no_rows(ending: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"empty\..*has no rows"):
        read(write(fake_stars(0, (3, 4)), tmp_path / f"empty.{ending}"))


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_cut_anywhere_is_an_error_even_with_flag(ending: str, tmp_path: Path) -> None:
    path = write(fake_stars(3, (3, 4)), tmp_path / f"cut.{ending}")
    whole = path.read_bytes()
    for size in {0, 1, 40, *np.linspace(100, len(whole) - 100, 12, dtype=int).tolist()}:
        path.write_bytes(whole[:size])
        if ending in ("csv", "ecsv") and _complete(whole[:size]):
            continue  # cut between two rows: nothing shows it
        with pytest.raises(InputError, match=rf"cut\.{ending}") as caught:
            read(path, bad_rows="flag")
        assert caught.value.remedy


def _complete(text: bytes) -> bool:
    """Whether a cut CSV ends where a row ends, or in the last column, which is not used."""
    last = text.splitlines()[-1:] or [b""]
    return not last[0].startswith(b"#") and last[0].count(b'"') == 12 and text.count(b"\n") > 1


@pytest.mark.parametrize("ending", ["csv.gz", "ecsv.gz", "fits.gz"])
def test_what_is_not_gzip_is_named(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"fake.{ending}"
    path.write_bytes(b"this is not a gzip file at all" * 10)
    with pytest.raises(InputError, match=rf"fake\.{ending}"):
        read(path)
    damaged = bytearray(gzip.compress(b"source_id," + bytes(range(256)) * 100))
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputError, match=rf"fake\.{ending}"):
        read(path)


def test_missing_files_folders_and_endings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: does not exist"):
        read_blocks(tmp_path / "none.csv")
    (tmp_path / "folder.fits").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read_blocks(tmp_path / "folder.fits")
    for name in ("stars.txt", "stars", "stars.parquet.gz", "stars.gz"):
        (tmp_path / name).write_text("")
        with pytest.raises(InputError, match="unknown ending"):
            read_blocks(tmp_path / name)
    with pytest.raises(InputError, match="'error' or 'flag'"):
        read_blocks(tmp_path / "none.csv", bad_rows="ignore")
    with pytest.raises(InputError, match="no stars"):
        read([])


def test_a_star_in_two_files_is_an_error_that_names_both(tmp_path: Path) -> None:
    one = write(fake_stars(3, (3, 4)), tmp_path / "one.csv")
    two = write(fake_stars(3, (3, 4), start=2), tmp_path / "two.fits")
    with pytest.raises(InputError, match=r"two\.fits: source_id \d+ is in .*one\.csv too"):
        read([one, two])


def test_files_of_different_widths_are_refused(tmp_path: Path) -> None:
    one = write(fake_stars(3, (3, 4)), tmp_path / "one.csv")
    two = write(fake_stars(3, (2, 4), start=9), tmp_path / "two.csv")
    with pytest.raises(InputError, match=r"two\.csv: holds 2\+4 coefficients, .*3\+4"):
        read([one, two])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"(', '"', "row 2, source_id .*, column bp_coefficients: cannot be read as numbers"),
        ("(", "(x", "row 2, source_id .*, column bp_coefficients: cannot be read as numbers"),
        ('"', "", r"row 2, source_id \d+: has \d+ of 9 columns"),
        (')"', "", r"row 2, source_id \d+: has \d+ of 9 columns|is not readable"),
    ],
)
def test_a_damaged_line_stays_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = write(fake_stars(3, (3, 4)), tmp_path / "s.csv")
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace(old, new, 1)
    path.write_text("".join(lines))
    with pytest.raises(InputError, match=message):
        read(path)
    flagged = read(path, bad_rows="flag")
    assert flagged.flags.tolist() == [0, Flag.BAD_ROW, 0]
    assert flagged.source_id.tolist() == fake_stars(3, (3, 4)).source_id


@pytest.mark.parametrize("text", ["1e18", "4345775217221821312.0", "9" * 25, "1_0"])
def test_an_unreadable_source_id_is_always_an_error(text: str, tmp_path: Path) -> None:
    path = write(fake_stars(3, (3, 4)), tmp_path / "s.csv")
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = text + "," + lines[2].split(",", 1)[1]
    path.write_text("".join(lines))
    with pytest.raises(InputError, match=r"s\.csv, row 2, column source_id"):
        read(path, bad_rows="flag")


def test_an_ecsv_ending_asks_for_ecsv(tmp_path: Path) -> None:
    path = write(fake_stars(3, (3, 4)), tmp_path / "s.csv").rename(tmp_path / "s.ecsv")
    with pytest.raises(InputError, match="%ECSV"):
        read(path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5), st.booleans())
def test_float32_text_gives_the_same_float32(values: list[float], bulk: bool) -> None:
    exact = np.array(values, np.float32)
    comma, shell = (",", "[{}]") if bulk else (", ", "({})")
    # Java's exponents have a capital E and no plus sign
    text = comma.join(str(value).upper().replace("INF", "Infinity") for value in exact)
    assert np.array_equal(parse_array(shell.format(text), np.float32), exact)
