"""The same star read from every format gives the same arrays; real files and made ones."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from archive_files import FORMATS, arrays_of, fake_stars, same, write
from xplabels.core.flags import Flag
from xplabels.core.stars import with_widths
from xplabels.io import read, read_blocks, read_stars, write_stars


@pytest.mark.parametrize("stem", ["XP_CONTINUOUS_RAW", "XP_CONTINUOUS_RAW_with_missing_BP"])
def test_real_files_agree_in_every_format(stem: str, shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "xp_archive").glob(f"{stem}.*"))
    paths += sorted((shared_data / "xp_archive").glob(f"{stem}_plain.*"))
    assert {path.suffix for path in paths} == {".csv", ".ecsv", ".fits", ".xml"}
    first = read(paths[0])
    for path in paths[1:]:
        same(first, read(path))
    write_stars(first, tmp_path / "s.parquet")
    same(first, read_stars(tmp_path / "s.parquet"))
    assert first.spectra.widths == (55, 55)


def test_real_file_against_a_naive_parser(shared_data: Path) -> None:
    path = shared_data / "xp_archive" / "XP_CONTINUOUS_RAW.ecsv"
    data = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    names = data[0].split(",")
    stars = read(path)
    for row, line in enumerate(data[1:]):
        quoted = line.split('"')  # odd pieces are the arrays, in the order of their columns
        found = [json.loads(text) for text in quoted[1::2]]
        order = [name for name in names if "_coefficient" in name]
        cells = dict(zip(order, found, strict=True))
        assert stars.source_id[row] == int(line.split(",")[0])
        band = stars.spectra.rp
        assert band.coefficients[row].tolist() == cells["rp_coefficients"]
        errors = np.array(cells["rp_coefficient_errors"], np.float32)
        assert np.array_equal(band.errors[row], errors.astype(np.float64))
        # GaiaXPy's order: matrix[tril_indices(n, -1)] = packed
        assert band.correlations[row, 2] == np.float32(cells["rp_coefficient_correlations"][2])


def test_the_star_without_bp_is_nan_and_flagged(shared_data: Path) -> None:
    stars = read(shared_data / "xp_archive" / "XP_CONTINUOUS_RAW_with_missing_BP.csv")
    assert stars.source_id[1] == 5405570973190252288
    assert stars.flags.tolist() == [0, Flag.MISSING_BP, 0]
    bp, rp = stars.spectra.bp, stars.spectra.rp
    assert np.isnan(bp.coefficients[1]).all()
    assert np.isnan(bp.errors[1]).all()
    assert np.isfinite(rp.coefficients).all()
    assert np.isfinite(bp.coefficients[[0, 2]]).all()


def test_a_file_of_that_star_alone_takes_its_width_from_others(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "xp_archive"
    alone = read(folder / "XP_CONTINUOUS_RAW_with_missing_BP.csv")[1:2]
    lines = (folder / "XP_CONTINUOUS_RAW_with_missing_BP.csv").read_text().splitlines()
    path = tmp_path / "one.csv"
    path.write_text(f"{lines[0]}\n{lines[2]}\n")
    widened = with_widths(read(path), (51, 55))
    assert widened.spectra.widths == (51, 55)
    assert widened.flags.tolist() == [Flag.MISSING_BP]
    same(read([path, folder / "XP_CONTINUOUS_RAW.csv"])[:1], alone)


@pytest.mark.parametrize("widths", [(55, 55), (51, 55), (2, 3)])
@pytest.mark.parametrize("ending", FORMATS)
def test_made_stars_come_back(widths: tuple[int, int], ending: str, tmp_path: Path) -> None:
    made = fake_stars(4, widths, without_bp=[2], without_rp=[3])
    stars = read(write(made, tmp_path / f"made.{ending}"))
    assert stars.spectra.widths == widths
    assert stars.flags.tolist() == [0, 0, Flag.MISSING_BP, Flag.MISSING_RP]
    assert stars.source_id.tolist() == made.source_id
    found = arrays_of(stars)
    for name, cells in made.cells.items():
        for row, cell in enumerate(cells):
            values = found[name.replace("coefficient_", "")][row]
            assert np.array_equal(values, cell) if len(cell) else np.isnan(values).all(), name


@pytest.mark.parametrize("ending", FORMATS)
def test_blocks_are_bounded_and_in_order(ending: str, tmp_path: Path) -> None:
    made = fake_stars(7, (3, 4))
    path = write(made, tmp_path / f"made.{ending}")
    blocks = list(read_blocks(path, block=3))
    assert [len(block) for block in blocks] == [3, 3, 1]
    assert [star for block in blocks for star in block.source_id.tolist()] == made.source_id


@pytest.mark.parametrize("ending", FORMATS)
def test_column_case_does_not_matter(ending: str, tmp_path: Path) -> None:
    made = fake_stars(2, (3, 4))
    path = write(made, tmp_path / f"upper.{ending}", upper=True)
    same(read(path), read(write(made, tmp_path / f"lower.{ending}")))


def test_space_delimited_ecsv(tmp_path: Path) -> None:
    made = fake_stars(3, (3, 4), without_bp=[1])
    comma = write(made, tmp_path / "comma.ecsv")
    lines = comma.read_text().splitlines()
    head = [line for line in lines if line.startswith("#") and "delimiter" not in line]
    text = io.StringIO()
    rows = csv.reader(line for line in lines if not line.startswith("#"))
    csv.writer(text, delimiter=" ", lineterminator="\n").writerows(rows)
    space = tmp_path / "space.ecsv"
    space.write_text("\n".join(head) + "\n" + text.getvalue())
    same(read(comma), read(space))


def test_several_files_are_stacked(tmp_path: Path) -> None:
    first, second = fake_stars(3, (3, 4)), fake_stars(2, (3, 4), start=50)
    stars = read([write(first, tmp_path / "a.fits"), str(write(second, tmp_path / "b.csv"))])
    assert stars.source_id.tolist() == first.source_id + second.source_id
    assert "a.fits" in stars.origin
    assert "b.csv" in stars.origin
