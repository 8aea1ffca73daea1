"""Bulk files to a HATS catalogue: every row once, in its place, and back with the stated loss."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("hats")

from sky import edited, make_sky, span, write_gaia
from xplabels import io as archive
from xplabels.cli import main
from xplabels.convert import convert_files
from xplabels.convert.region import pixel_centres
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import Stars
from xplabels.io.hats import partition_files, pixel_of
from xplabels.model import Model

FILES = (101, 102, 103)
"""The middle one lies across the border of two pieces of sky, at level-8 pixel 1024."""
HALF = 2.0**-11
"""Greatest relative error of rounding to float16 (and 2^-25 where numbers are tiny)."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_stars: Stars) -> Path:
    """Three bulk files of 900 stars in all."""
    folder = tmp_path_factory.mktemp("bulk")
    make_sky(folder, small_stars[slice(0, 900)], FILES)
    return folder


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory, made: Path) -> Path:
    """The same as HATS, at most 200 rows a partition."""
    path = tmp_path_factory.mktemp("hats") / "xp"
    convert_files([made], path, most_rows=200)
    return path


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """The bulk files, to be broken."""
    return Path(shutil.copytree(made, tmp_path / "bulk"))


def halved(path: Path) -> bytes:
    """Truncate a file; what it was."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return whole


def bulk(folder: Path) -> list[Path]:
    return sorted(folder.glob("Xp*"))


def contents(folder: Path) -> dict[str, list[object]]:
    """Each partition's rows."""
    return {
        path.relative_to(folder).as_posix(): pq.read_table(path).to_pylist()
        for path in partition_files(folder)
    }


def indexed(folder: Path) -> np.ndarray:
    """Every source_id, in order, if each row and its index is in the partition that it names."""
    ids = []
    for path in partition_files(folder):
        table, pixel = pq.read_table(path), pixel_of(path)
        assert table.num_rows <= 200
        for name, shift in (("source_id", 35), ("_healpix_29", 34)):
            level_12, (first, end) = table[name].to_numpy() >> shift, pixel.span(12)
            assert ((level_12 >= first) & (level_12 < end)).all()
        ids.append(table["source_id"].to_numpy())
    return np.concatenate(ids)


def test_every_row_is_in_a_catalogue_as_the_hats_library_wants_it(
    catalogue: Path, made: Path
) -> None:
    from hats import read_hats
    from hats.io.skymap import read_skymap
    from hats.io.validation import is_valid_catalog

    assert is_valid_catalog(catalogue, strict=True)
    info = read_hats(catalogue).catalog_info
    assert (info.total_rows, info.ra_column, info.dec_column) == (900, "pixel_ra", "pixel_dec")
    assert info.hats_max_rows <= 200
    assert "centre of the HEALPix pixel" in info.xplabels_position
    assert read_skymap(read_hats(catalogue), 8).sum() == 900
    assert np.array_equal(indexed(catalogue), archive.read(bulk(made)).source_id)
    # some partition holds rows of two files
    borders = [int(span(number).split("-")[1]) << 43 for number in FILES[:-1]]
    some = [pq.read_table(path)["source_id"].to_numpy() for path in partition_files(catalogue)]
    assert any(ids[0] < border < ids[-1] for ids in some for border in borders)


def test_what_is_rounded_and_by_how_much(catalogue: Path, made: Path) -> None:
    exact, back = archive.read(bulk(made)), archive.read(catalogue)
    assert np.array_equal(exact.flags, back.flags)
    for band, other in ((exact.spectra.bp, back.spectra.bp), (exact.spectra.rp, back.spectra.rp)):
        np.testing.assert_allclose(other.coefficients, band.coefficients, rtol=2.0**-24)
        np.testing.assert_allclose(other.errors, band.errors, rtol=2.0**-24)
        assert (np.abs(band.correlations) > 0.01).any()
        np.testing.assert_allclose(other.correlations, band.correlations, rtol=HALF, atol=2.0**-25)
        assert not np.array_equal(other.correlations, band.correlations)


def test_it_predicts_the_same_within_the_rounding(
    catalogue: Path, made: Path, small_model: Model, tmp_path: Path
) -> None:
    exact = small_model.predict(archive.read(bulk(made)))
    small_model.save(tmp_path / "model")
    words = ["predict", str(catalogue), "--model", str(tmp_path / "model")]
    assert main([*words, "--output", str(tmp_path / "labels.parquet")]) == 0
    labels = pq.read_table(tmp_path / "labels.parquet")
    assert np.array_equal(labels["source_id"].to_numpy(), exact.source_id)
    assert np.array_equal(labels["flags"].to_numpy(), exact.flags)
    # labels come from coefficients alone: float32
    for k, name in enumerate(exact.names):
        values, errors = labels[name].to_numpy(), labels[f"{name}_error"].to_numpy()
        assert np.nanmax(np.abs(values - exact.values[:, k]) / exact.errors[:, k]) < 1e-4
        np.testing.assert_allclose(errors, exact.errors[:, k], rtol=1e-3)


def test_polars_and_duckdb_read_it(catalogue: Path) -> None:
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    stars = archive.read(catalogue)
    packed = stars.spectra.rp.correlations
    pattern = f"{catalogue}/dataset/**/*.parquet"
    frame = polars.read_parquet(pattern, hive_partitioning=False).sort("source_id")
    assert np.array_equal(frame["source_id"].to_numpy(), stars.source_id)
    assert np.array_equal(
        frame["rp_coefficient_correlations"].to_numpy().astype(np.float32), packed
    )
    rows = duckdb.sql(
        f"select source_id, rp_coefficient_correlations from '{pattern}' order by source_id"
    ).fetchall()
    assert [row[0] for row in rows] == stars.source_id.tolist()
    assert np.array_equal(np.array([row[1] for row in rows], np.float32), packed)


def join_gaia(folder: Path, made: Path) -> None:
    """GaiaSource files: each star near the middle of its pixel, but for the first."""
    for number, path in zip(FILES, bulk(made), strict=True):
        stars, rng = archive.read(path), np.random.default_rng(number)
        ra, dec = pixel_centres(stars.source_id) + rng.uniform(-2e-3, 2e-3, (2, len(stars)))
        ra[0] += 40.0 if number == FILES[0] else 0.0
        write_gaia(folder, stars, number, (ra, dec))


def test_positions_and_photometry_of_gaia_source(made: Path, tmp_path: Path) -> None:
    join_gaia(tmp_path, made)
    done = convert_files([made], tmp_path / "xp", gaia_source=tmp_path, most_rows=200)
    assert (done.rows, done.outside) == (900, 1)
    table = pq.read_table([str(path) for path in partition_files(tmp_path / "xp")])
    assert {"ra", "dec", "pmra", "pmdec"} < set(table.column_names)
    assert "pixel_ra" not in table.column_names
    centre = pixel_centres(table["source_id"].to_numpy())
    assert np.abs(table["dec"].to_numpy() - centre[1]).max() < 2e-3
    assert np.abs(table["ra"].to_numpy() - centre[0])[1:].max() < 2e-3
    assert (table["pmra"].to_numpy() == 1.5).all()
    # the star that stands elsewhere has an index in its partition all the same
    assert len(indexed(tmp_path / "xp")) == 900
    stars = archive.read(tmp_path / "xp")
    assert np.isfinite(stars.photometry.column("parallax")[0]).all()
    assert not (stars.flags & int(Flag.BAD_ROW)).any()


def test_a_star_that_gaia_source_lacks(made: Path, tmp_path: Path) -> None:
    join_gaia(tmp_path, made)
    edited(tmp_path / f"GaiaSource_{span(102)}.csv.gz", lambda lines: lines[:-4])
    with pytest.raises(InputError, match="lacks 1 star with spectra"):
        convert_files([made], tmp_path / "xp", gaia_source=tmp_path)
    assert not (tmp_path / "xp").exists()
    (tmp_path / f"GaiaSource_{span(102)}.csv.gz").unlink()
    with pytest.raises(InputError, match=r"holds no GaiaSource_001020"):
        convert_files([made], tmp_path / "xp", gaia_source=tmp_path)


def test_it_goes_on_where_it_stopped_in_any_order_with_any_workers(
    folder: Path, catalogue: Path, tmp_path: Path
) -> None:
    whole = halved(bulk(folder)[2])
    output = tmp_path / "xp"
    with pytest.raises(InputError, match="001030-001039"):
        convert_files([folder], output, most_rows=200)
    assert not output.exists()
    assert not archive.hats.is_catalogue(tmp_path / "xp.partial")
    with pytest.raises(InputError, match="other options"):
        convert_files([folder], output, most_rows=100)
    bulk(folder)[2].write_bytes(whole)
    done = convert_files(bulk(folder)[::-1], output, most_rows=200)
    assert (done.rows, done.resumed) == (900, 1)
    assert contents(output) == contents(catalogue)
    assert not (tmp_path / "xp.partial").exists()
    with pytest.raises(InputError, match="exists already"):
        convert_files([folder], output, most_rows=200)
    convert_files([folder], output, most_rows=60, overwrite=True)
    assert contents(output) != contents(catalogue)


def test_what_was_made_of_a_changed_file_is_made_again(folder: Path, tmp_path: Path) -> None:
    whole = halved(bulk(folder)[2])
    with pytest.raises(InputError):
        convert_files([folder], tmp_path / "xp")
    assert len(list((tmp_path / "xp.partial" / "regions").iterdir())) == 1
    bulk(folder)[2].write_bytes(whole)
    edited(bulk(folder)[0], lambda lines: lines[:-1])
    done = convert_files([folder], tmp_path / "xp")
    assert (done.rows, done.resumed) == (899, 0)


def test_a_kill_loses_nothing(made: Path, catalogue: Path, tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from xplabels.convert import convert_files, region

write, count = region.write_partition, []

def deadly(table, path):
    count.append(path)
    if len(count) == {len(partition_files(catalogue)) - 1}:
        os.kill(os.getpid(), signal.SIGKILL)
    write(table, path)

region.write_partition = deadly
convert_files([Path({str(made)!r})], Path({str(tmp_path / "xp")!r}), most_rows=200)
"""
    ended = subprocess.run([sys.executable, "-c", program], env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "xp").exists()
    done = convert_files([made], tmp_path / "xp", most_rows=200)
    assert done.resumed == 1
    assert contents(tmp_path / "xp") == contents(catalogue)


def test_a_damaged_row_is_flagged_or_named(folder: Path, tmp_path: Path) -> None:
    edited(bulk(folder)[1], lambda lines: [*lines[:9], lines[9].replace("[", "[x", 1), *lines[10:]])
    with pytest.raises(InputError, match="row 7, source_id"):
        convert_files([folder], tmp_path / "xp")
    done = convert_files([folder], tmp_path / "xp", bad_rows="flag", overwrite=True)
    assert (done.rows, done.damaged) == (900, 1)
    stars = archive.read(tmp_path / "xp")
    assert int((stars.flags & int(Flag.BAD_ROW) > 0).sum()) == 1


def test_files_that_are_not_what_their_names_say(folder: Path, tmp_path: Path) -> None:
    first, second, third = bulk(folder)
    edited(second, lambda lines: [*lines[:9], lines[11], *lines[9:11], *lines[12:]])
    with pytest.raises(InputError, match="comes after"):
        convert_files([folder], tmp_path / "xp")
    third.rename(folder / "XpContinuousMeanSpectrum_002030-002039.csv.gz")
    with pytest.raises(InputError, match="is of pixel 001030"):
        convert_files([bulk(folder)[-1]], tmp_path / "xp", overwrite=True)
    first.rename(folder / "XpContinuousMeanSpectrum_001011-001025.csv.gz")
    with pytest.raises(InputError, match="holds pixel 001020, as does"):
        convert_files([folder], tmp_path / "xp", overwrite=True)
    second.rename(folder / "spectra.csv.gz")
    with pytest.raises(InputError, match="does not say which pixels"):
        convert_files([folder / "spectra.csv.gz"], tmp_path / "xp")
    with pytest.raises(InputError, match="holds no file of spectra"):
        convert_files([tmp_path], tmp_path / "xp")


def test_files_cut_by_pixels_of_another_level(made: Path, catalogue: Path, tmp_path: Path) -> None:
    finer = tmp_path / "finer"
    finer.mkdir()
    for path in bulk(made):
        first, last = map(int, path.name.split(".")[0].split("_")[1].split("-"))
        name = f"XpContinuousMeanSpectrum_{first << 4:08d}-{(last + 1 << 4) - 1:08d}.csv.gz"
        (finer / name).symlink_to(path)
    with pytest.raises(
        InputError, match=r"give the file the name .*, or the --level of its pixels"
    ):
        convert_files([finer], tmp_path / "wrong", most_rows=200)
    convert_files([finer], tmp_path / "right", most_rows=200, level=10)
    assert contents(tmp_path / "right") == contents(catalogue)
    with pytest.raises(InputError, match="files of level 13 are not read; give 3 to 12"):
        convert_files([finer], tmp_path / "none", level=13)


def test_a_gap_between_files_is_reported(made: Path, tmp_path: Path) -> None:
    first, _, last = bulk(made)
    done = convert_files([first, last], tmp_path / "xp")
    assert done.gaps == ((1020, 1029),)
    assert "No file holds the level-8 pixels 001020 to 001029" in done.to_text()


def test_an_incomplete_copy_is_noticed(catalogue: Path, tmp_path: Path) -> None:
    shutil.copytree(catalogue, tmp_path / "xp")
    partition_files(tmp_path / "xp")[1].unlink()
    with pytest.raises(InputError, match="lacks 1 partition that it lists"):
        archive.read(tmp_path / "xp")


def test_the_command_line(
    made: Path, catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", str(made), "--output", str(tmp_path / "xp"), "--most-rows", "200"]
    assert main([*words, "--workers", "2"]) == 0
    assert contents(tmp_path / "xp") == contents(catalogue)
    assert "900 stars in" in capsys.readouterr().out
    (tmp_path / "xp.partial").mkdir()
    (tmp_path / "xp.partial" / "thesis.tex").touch()
    for more in (["--workers", "0"], ["--workers", "1"]):  # a user's folder is never replaced
        assert main([*words, *more, "--overwrite"]) == 2
    assert "thesis.tex" in capsys.readouterr().err
