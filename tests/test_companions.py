"""Photometry joined to blocks of spectra: GaiaSource file by file, HATS catalogues by range."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sky import catalogues, edited, make_sky, placed, span, spectra_name
from xplabels.archive import ascending, partitioned
from xplabels.archive.ascending import AscendingTable
from xplabels.archive.gunzip import Digest
from xplabels.archive.partitioned import PartitionedTable
from xplabels.cli import main
from xplabels.errors import InputError
from xplabels.model import Model
from xplabels.stars import Stars
from xplabels.streaming import (
    Companions,
    Order,
    Summary,
    find_inputs,
    predict_file,
    predict_folder,
    read_entry,
)
from xplabels.tables import join_photometry

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


# Whole runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sky(small_stars: Stars, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bulk files with their GaiaSource files."""
    folder = tmp_path_factory.mktemp("sky") / "in"
    make_sky(folder, small_stars, gaia=True)
    return folder


def run(folder: Path, output: Path, model: Model, **keys: Any) -> Summary:
    order = Order(Companions(**keys))
    return predict_folder(find_inputs([folder]), output, model, order, progress=False)


def as_hats(sky: Path, folder: Path) -> Path:
    """The GaiaSource files as a HATS collection: two partitions, rows across their border."""
    from pyarrow import csv

    tables = []
    for path in sorted(sky.glob("GaiaSource_*")):
        text = gzip.decompress(path.read_bytes()).decode().splitlines()[1:]
        options = csv.ConvertOptions(null_values=["null"])
        source = pa.BufferReader("\n".join(text).encode())
        tables.append(csv.read_csv(source, convert_options=options))
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
    assert entry is not None
    assert entry.beside[0].md5 == hashlib.md5(gaia.read_bytes()).hexdigest()
    assert entry.joined[0].stars == 333
    table = pq.read_table(path)
    assert table.column_names[:3] == ["source_id", "ra", "dec"]
    assert table.schema.field("ra").metadata[b"unit"] == b"deg"
    assert np.isfinite(table["ra"].to_numpy()).all()
    # the slow way: the same photometry, read whole
    from xplabels import archive

    stars = join_photometry(archive.read(sky / spectra_name(1)), gaia)
    expected = small_model.predict(stars)
    np.testing.assert_allclose(table["teff"].to_numpy(), expected.values[:, 0], rtol=1e-5)
    without = run_without(sky, tmp_path, small_model)
    assert (without != table["teff"].to_numpy()).mean() > 0.9


def run_without(sky: Path, tmp_path: Path, model: Model) -> Any:
    """The same file where no GaiaSource lies beside it."""
    alone = tmp_path / "alone"
    alone.mkdir()
    path = alone / spectra_name(1)
    path.write_bytes((sky / path.name).read_bytes())
    predict_file(model, path, tmp_path / "alone.parquet")
    return pq.read_table(tmp_path / "alone.parquet")["teff"].to_numpy()


def test_the_same_photometry_gives_the_same_labels_wherever_it_is_kept(
    sky: Path, small_model: Model, tmp_path: Path
) -> None:
    run(sky, tmp_path / "beside", small_model, carried=("ra",))
    spectra, gaia = tmp_path / "spectra", tmp_path / "gaia"
    for folder, stem in ((spectra, "Xp"), (gaia, "GaiaSource")):
        folder.mkdir()
        for path in sky.glob(f"{stem}*"):
            (folder / path.name).write_bytes(path.read_bytes())
    hats = as_hats(sky, tmp_path / "hats")
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.concat_tables(
        [pq.read_table(p) for p in (hats / "catalog").rglob("Npix=*.parquet")]), whole)  # fmt: skip
    expected = catalogues(tmp_path / "beside")
    run(spectra, tmp_path / "folder", small_model, gaia_source=gaia, carried=("ra",))
    assert catalogues(tmp_path / "folder") == expected
    for name, table in (("by range", hats), ("in memory", whole)):
        run(spectra, tmp_path / name, small_model, tables=(table,), carried=("ra",))
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


def test_a_spectrum_file_without_its_gaia_source_fails_alone(
    sky: Path, small_model: Model, tmp_path: Path
) -> None:
    gaia = tmp_path / "gaia"
    gaia.mkdir()
    for number in (0, 2):
        name = f"GaiaSource_{span(number)}.csv.gz"
        (gaia / name).write_bytes((sky / name).read_bytes())
    for _ in range(2):
        summary = run(sky, tmp_path / "out", small_model, gaia_source=gaia)
        assert list(summary.failed) == [sky / spectra_name(1)]
        assert f"GaiaSource_{span(1)}" in summary.failed[sky / spectra_name(1)]
        assert summary.files == 2
    assert summary.resumed == 2


def test_other_photometry_is_noticed(sky: Path, small_model: Model, tmp_path: Path) -> None:
    spectra, output = tmp_path / "in", tmp_path / "out"
    spectra.mkdir()
    for path in sky.iterdir():
        (spectra / path.name).write_bytes(path.read_bytes())
    run(spectra, output, small_model)
    edited(spectra / f"GaiaSource_{span(1)}.csv.gz", lambda lines: lines[:-20])
    assert run(spectra, output, small_model).resumed == 2
    for path in spectra.glob("GaiaSource*"):
        path.unlink()
    assert run(spectra, output, small_model).resumed == 0
    table = tmp_path / "t.csv"
    table.write_text("source_id,j_m,j_msigcom\n128,12.0,0.02\n")
    with pytest.raises(InputError, match=r"t\.csv.*--overwrite"):
        run(spectra, output, small_model, tables=(table,))


def test_a_sum_of_gaia_source_is_compared_too(
    sky: Path, small_model: Model, tmp_path: Path
) -> None:
    gaia = tmp_path / "gaia"
    gaia.mkdir()
    lines = []
    for number in range(3):
        name = f"GaiaSource_{span(number)}.csv.gz"
        (gaia / name).write_bytes((sky / name).read_bytes())
        md5 = hashlib.md5((gaia / name).read_bytes()).hexdigest() if number else "0" * 32
        lines.append(f"{md5}  {name}\n")
    (gaia / "_MD5SUM.txt").write_text("".join(lines))
    summary = run(sky, tmp_path / "out", small_model, gaia_source=gaia)
    assert list(summary.failed) == [sky / spectra_name(0)]
    assert "GaiaSource" in summary.failed[sky / spectra_name(0)]


@pytest.mark.parametrize("column", ["ruwe", "teff"])
def test_a_column_that_cannot_be_carried_is_told(
    column: str, sky: Path, small_model: Model, tmp_path: Path
) -> None:
    failed = run(sky, tmp_path / "out", small_model, carried=(column,)).failed
    assert len(failed) == 3
    assert all(f"no table has a column '{column}'" in why for why in failed.values())


def test_a_table_that_is_not_there_is_told(sky: Path, small_model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        run(sky, tmp_path / "out", small_model, tables=(Path("none.csv"),))
    assert not (tmp_path / "out").exists()


def test_tables_of_no_star_are_told(sky: Path, small_model: Model, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("source_id,j_m,j_msigcom\n77,12.0,0.02\n")
    with pytest.raises(InputError, match="shares no source_id"):
        run(sky, tmp_path / "out", small_model, tables=(table,))


def test_companions_travel_without_their_tables(sky: Path, tmp_path: Path) -> None:
    hats, table = as_hats(sky, tmp_path / "hats"), tmp_path / "t.csv"
    table.write_text("source_id,j_m,j_msigcom\n77,12.0,0.02\n")
    companions = Companions((hats, table), carried=("ra",))
    companions.open()
    sent = pickle.loads(pickle.dumps(companions))
    assert sent._opened is None
    assert sent.identity() == companions.identity()
    assert len(sent.open()) == 2


def test_the_command_line_takes_it_all(
    sky: Path, small_model: Model, small_stars: Stars, tmp_path: Path
) -> None:
    small_model.save(tmp_path / "model")
    hats = as_hats(sky, tmp_path / "hats")
    words = ["predict", str(sky), "--model", str(tmp_path / "model"), "--carry", "ra,dec"]
    words += ["--gaia-source", str(sky), "--photometry", str(hats), "--output"]
    assert main([*words, str(tmp_path / "labels.parquet")]) == 0
    table = pq.read_table(tmp_path / "labels.parquet")
    assert table.column_names[:3] == ["source_id", "ra", "dec"]
    first = placed(replace(small_stars[slice(0, 333)]), 0)
    assert table["source_id"].to_pylist()[:333] == first.source_id.tolist()


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
