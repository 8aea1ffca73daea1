"""Photometry joined to blocks of spectra: GaiaSource file by file, HATS catalogues by range."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sky import catalogues, edited, list_sums, make_sky, span, spectra_name
from sky import run as sky_run
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io import read
from xplabels.io.tables import join_photometry
from xplabels.model import Model
from xplabels.pipeline import AuxiliaryTables, Summary, predict_file, read_entry

# Whole runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sky(small_stars: Stars, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bulk files with their GaiaSource files."""
    folder = tmp_path_factory.mktemp("sky") / "in"
    make_sky(folder, small_stars, gaia=True)
    return folder


def run(folder: Path, output: Path, model: Model, **keys: Any) -> Summary:
    return sky_run(folder, output, model, tables=AuxiliaryTables(**keys))


@pytest.fixture
def copied(sky: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(sky, tmp_path / "in"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """J of one star."""
    path = tmp_path / "t.csv"
    path.write_text("source_id,j_m,j_msigcom\n128,12.0,0.02\n")
    return path


def as_hats(sky: Path, folder: Path) -> Path:
    """The GaiaSource files as a HATS collection: two partitions, rows across their border."""
    from pyarrow import csv

    read, null = csv.ReadOptions(skip_rows=1), csv.ConvertOptions(null_values=["null"])
    paths = sorted(sky.glob("GaiaSource_*"))
    tables = [csv.read_csv(path, read, convert_options=null) for path in paths]
    table = pa.concat_tables(tables, promote_options="permissive")
    rows = np.arange(len(table))
    second = rows >= len(rows) // 2
    second[7] = True  # a star whose position is across the border from its id's
    for name, chosen in (("catalog", ~second), ("catalog", second), ("margin", rows < 50)):
        part = table.take(rows[chosen])
        pixel = 0 if name == "catalog" and chosen[0] else 1
        place = folder / name / "dataset" / "Norder=0" / "Dir=0"
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, place / f"Npix={pixel}.parquet", row_group_size=200)
    (folder / "collection.properties").write_text("hats_primary_table_url=catalog\n")
    (folder / "catalog" / "partition_info.csv").write_text("Norder,Npix\n0,0\n0,1\n")
    pq.write_metadata(table.schema, folder / "catalog" / "dataset" / "_common_metadata")
    return folder


def test_gaia_source_beside_the_spectra_is_joined_and_carried(
    sky: Path, small_model: Model, small_stars: Stars, tmp_path: Path
) -> None:
    summary = run(sky, tmp_path / "out", small_model, carried=("ra", "dec"))
    assert summary.stars == 999
    path = tmp_path / "out" / spectra_name(1).replace(".csv.gz", ".parquet")
    entry, gaia = read_entry(path), sky / f"GaiaSource_{span(1)}.csv.gz"
    assert entry.beside[0].md5 == hashlib.md5(gaia.read_bytes()).hexdigest()
    assert entry.joined[0].stars == 333
    table = pq.read_table(path)
    assert table.column_names[:3] == ["source_id", "ra", "dec"]
    assert table.schema.field("ra").metadata[b"unit"] == b"deg"
    assert np.isfinite(table["ra"].to_numpy()).all()
    # the slow way: the same photometry, read whole
    from xplabels import io as archive

    stars = join_photometry(archive.read(sky / spectra_name(1)), gaia)
    expected = small_model.predict(stars)
    np.testing.assert_allclose(table["teff"].to_numpy(), expected.values[:, 0], rtol=1e-5)
    alone = tmp_path / spectra_name(1)  # where no GaiaSource lies beside it
    alone.write_bytes((sky / alone.name).read_bytes())
    predict_file(small_model, alone, tmp_path / "alone.parquet")
    without = pq.read_table(tmp_path / "alone.parquet")["teff"].to_numpy()
    assert (without != table["teff"].to_numpy()).mean() > 0.9


def test_the_same_photometry_gives_the_same_labels_wherever_it_is_kept(
    sky: Path, small_model: Model, tmp_path: Path
) -> None:
    small_model.save(tmp_path / "model")
    model = Model.load(tmp_path / "model")
    run(sky, tmp_path / "beside", model, carried=("ra",))
    spectra, gaia = tmp_path / "spectra", tmp_path / "gaia"
    shutil.copytree(sky, spectra, ignore=shutil.ignore_patterns("Gaia*"))
    shutil.copytree(sky, gaia, ignore=shutil.ignore_patterns("Xp*"))
    hats = as_hats(sky, tmp_path / "hats")
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.concat_tables(
        [pq.read_table(p) for p in (hats / "catalog").rglob("Npix=*.parquet")]), whole)  # fmt: skip
    expected = catalogues(tmp_path / "beside")
    words = ["predict", str(spectra), "--model", str(tmp_path / "model"), "--carry", "RA"]
    words += ["--gaia-source", str(gaia), "--output", str(tmp_path / "folder")]
    assert main(words) == 0
    assert catalogues(tmp_path / "folder") == expected
    for name, table in (("by range", hats), ("in memory", whole)):
        run(spectra, tmp_path / name, model, tables=(table,), carried=("ra",))
        assert catalogues(tmp_path / name) == expected


def test_what_is_carried_comes_from_the_first_table_that_has_it(
    sky: Path, small_model: Model, tmp_path: Path
) -> None:
    run(sky, tmp_path / "gaia", small_model, carried=("ra",))
    table = tmp_path / "t.csv"
    table.write_text("source_id,ra,ruwe\n128,77.5,1.25\n")
    run(sky, tmp_path / "both", small_model, tables=(table,), carried=("ra", "ruwe"))
    for name in catalogues(tmp_path / "gaia"):
        gaia, both = (pq.read_table(tmp_path / folder / name) for folder in ("gaia", "both"))
        assert gaia["ra"].equals(both["ra"])
        ruwe = both["ruwe"].to_numpy()
        assert ((ruwe == 1.25) == (both["source_id"].to_numpy() == 128)).all()


@pytest.mark.parametrize("listed", [False, True])
def test_a_file_whose_gaia_source_is_missing_or_not_the_published_one_fails_alone(
    listed: bool, copied: Path, small_model: Model, tmp_path: Path
) -> None:
    gaia = copied / f"GaiaSource_{span(1)}.csv.gz"
    if listed:
        list_sums(copied)
        gaia.write_bytes(gaia.read_bytes() + b"\0")
    else:
        gaia.unlink()
    for _ in range(2):
        summary = run(copied, tmp_path / "out", small_model, gaia_source=copied)
        assert list(summary.failed) == [copied / spectra_name(1)]
        why = summary.failed[copied / spectra_name(1)]
        assert gaia.name.removesuffix(".csv.gz") in why
        assert ("MD5 sum" in why) is listed
        assert summary.files == 2
    assert summary.resumed == 2


def test_other_photometry_is_noticed(
    copied: Path, table: Path, small_model: Model, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    run(copied, output, small_model)
    edited(copied / f"GaiaSource_{span(1)}.csv.gz", lambda lines: lines[:-20])
    summary = run(copied, output, small_model)
    assert summary.remade == {"whose GaiaSource file changed since": 1}
    for path in copied.glob("GaiaSource*"):
        path.unlink()
    assert run(copied, output, small_model).resumed == 0
    remade = {"made with other photometry": 3}
    assert run(copied, output, small_model, tables=(table,)).remade == remade
    # the same table, wherever it lies and whenever it came
    os.utime(table, (1, 1))
    (tmp_path / "other").mkdir()
    copy = Path(shutil.copy(table, tmp_path / "other"))
    for same in (table, copy):
        assert run(copied, output, small_model, tables=(same,)).resumed == 3
    copy.write_text(copy.read_text().replace("12.0", "13.0"))  # as many bytes
    assert run(copied, output, small_model, tables=(copy,)).remade == remade


@pytest.mark.parametrize("column", ["ruwe", "teff"])
def test_a_column_that_cannot_be_carried_is_an_error(
    column: str, sky: Path, small_model: Model, tmp_path: Path
) -> None:
    failed = run(sky, tmp_path / "out", small_model, carried=(column,)).failed
    assert len(failed) == 3
    assert all(f"no table has a column '{column}'" in why for why in failed.values())


def test_a_table_that_is_absent_is_an_error(sky: Path, small_model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: does not exist"):
        run(sky, tmp_path / "out", small_model, tables=(Path("none.csv"),))
    assert not (tmp_path / "out").exists()


def test_a_table_that_meets_no_star_is_an_error(
    sky: Path, table: Path, small_model: Model, tmp_path: Path
) -> None:
    table.write_text(table.read_text().replace("128", "77"))
    with pytest.raises(InputError, match="shares no source_id"):
        run(sky, tmp_path / "out", small_model, tables=(table,))
    account = json.loads((tmp_path / "out" / "_manifest" / "run.json").read_text())
    assert not account["complete"]


def test_tables_of_one_name_are_told_apart(sky: Path, small_model: Model, tmp_path: Path) -> None:
    lines = [f"{star},12.0,0.02" for star in read(sky / spectra_name(1)).source_id]
    for folder, rows in (("a", lines), ("b", ["77,12.0,0.02"])):
        (tmp_path / folder).mkdir()
        text = "\n".join(["source_id,j_m,j_msigcom", *rows])
        (tmp_path / folder / "t.csv").write_text(text)
    first, second = tmp_path / "a" / "t.csv", tmp_path / "b" / "t.csv"
    with pytest.raises(InputError, match=r"b/t\.csv: shares no source_id"):
        run(sky, tmp_path / "out", small_model, tables=(first, second))
    with pytest.raises(InputError, match=r"t\.csv: is given twice"):
        run(sky, tmp_path / "twice", small_model, tables=(first, first))


def test_tables_are_opened_again_in_another_process(sky: Path, table: Path, tmp_path: Path) -> None:
    tables = AuxiliaryTables((as_hats(sky, tmp_path / "hats"), table), carried=("ra",))
    tables.open()
    sent = pickle.loads(pickle.dumps(tables))
    assert sent.identity() == tables.identity()
    assert len(sent.open()) == 2
    # a folder is known by its files' names and sizes
    first = AuxiliaryTables((tmp_path / "hats",)).identity()
    copy = Path(shutil.copytree(tmp_path / "hats", tmp_path / "other" / "hats"))
    part = next(copy.rglob("Npix=0.parquet"))
    os.utime(part, (1, 1))
    assert AuxiliaryTables((copy,)).identity() == first
    part.write_bytes(part.read_bytes() + b"6")
    assert AuxiliaryTables((copy,)).identity() != first
