"""One policy for what users bring: the same stars, or the cause, in whatever form they come."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from archive_files import FORMATS, FakeStars, _votable, datalink_csv, fake_stars, same, write
from survey_tables import write as write_table
from xplabels.core.errors import LONGEST, InputError
from xplabels.core.flags import Flag
from xplabels.core.stars import SampledSpectra, Stars
from xplabels.fetch.targets import Targets
from xplabels.io import read, write_stars
from xplabels.io.arrays import cells_of, parse_array
from xplabels.io.forms import check_rounding, converted, source_ids
from xplabels.io.plain import read_table
from xplabels.io.rows import assembled, column_blocks
from xplabels.io.tables import join_labels, join_photometry

MADE = fake_stars(3, (3, 4), without_bp=[1])
IDS = MADE.source_id
TABLES = ("csv", "ecsv", "fits", "vot", "xml", "parquet")
# as Gaia's are, multiples of 128
REAL = np.random.default_rng(5).integers(1 << 53, (1 << 62) // 128 + (1 << 54), 200) * 128


def photometry(**columns: Any) -> Table:
    return Table({"source_id": IDS, "j_m": [9.0, 10.0, 11.0], "j_msigcom": [0.02] * 3} | columns)


def bare() -> Stars:
    flux = np.ones((3, 2))
    return Stars.of(np.array(IDS), SampledSpectra(np.array([400.0, 402.0]), flux, flux))


@pytest.fixture
def whole(tmp_path: Path) -> Stars:
    """The stars of :data:`MADE` as read from the archive's own form."""
    return read(write(MADE, tmp_path / "whole.csv"))


# --- several tables in one file ---


def test_hdus_with_the_same_columns_are_one(whole: Stars, tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU()]
    for row in range(3):
        hdus.append(fits.BinTableHDU(fits.getdata(write(_rows(row), tmp_path / f"{row}.fits"))))
    path = tmp_path / "three.fits"
    fits.HDUList(hdus).writeto(path)
    assert read(path).source_id.tolist() == IDS
    assert np.array_equal(read(path).spectra.rp.errors, whole.spectra.rp.errors)
    other = Table({"source_id": IDS, "bp_coefficients": [[1.0]] * 3})
    fits.HDUList([*hdus[:2], fits.BinTableHDU(other, name="extra")]).writeto(tmp_path / "d.fits")
    with pytest.raises(InputError, match=r"HDU 1 and HDU 2 \(EXTRA\) both have source_ids, but"):
        read(tmp_path / "d.fits")


@pytest.mark.parametrize("binary", [True, False])
def test_votables_with_the_same_columns_are_one(binary: bool, tmp_path: Path) -> None:
    text = _votable(_rows(0), False, binary)
    more = "".join(
        t[t.index("<TABLE>") : t.index("</TABLE>") + 8]
        for t in (_votable(_rows(row), False, binary) for row in (1, 2))
    )
    path = tmp_path / "three.vot"
    path.write_text(text.replace("</RESOURCE>", more + "</RESOURCE>"))
    assert read(path).source_id.tolist() == IDS


def test_photometry_of_two_hdus_is_one(tmp_path: Path) -> None:
    parts = [fits.table_to_hdu(photometry()[rows]) for rows in ([0], [1, 2])]
    fits.HDUList([fits.PrimaryHDU(), *parts]).writeto(tmp_path / "p.fits")
    joined = join_photometry(bare(), tmp_path / "p.fits").photometry
    assert joined.column("j_m")[0].tolist() == [9, 10, 11]


def _rows(*rows: int) -> FakeStars:
    cells = {name: [cells[row] for row in rows] for name, cells in MADE.cells.items()}
    return FakeStars([IDS[row] for row in rows], cells)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"', "'"), "its arrays are not within double quotes"),
        (lambda text: "# " + text, f"its first line holds values .{IDS[0]}., not the names"),
        (lambda text: text.split("\n", 1)[1], f"its first line holds values .{IDS[0]}., not"),
        (lambda text: json.dumps([{"source_id": 1}]), "not a table but a page of text: .*CSV"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(
    change: Callable[[str], str], said: str, tmp_path: Path
) -> None:
    wide = fake_stars(3, (12, 12))
    wide.source_id[:] = IDS
    (tmp_path / "t.csv").write_text(change(datalink_csv(wide)))
    with pytest.raises(InputError, match=said):
        read(tmp_path / "t.csv")


# --- identifiers ---


@pytest.mark.parametrize(
    "form",
    ["{}", " {} ", "Gaia DR3 {}", "Gaia EDR3 {}", "gaia dr3 {}", "'{}'", '="{}"'],
)
@pytest.mark.parametrize("ending", TABLES)
def test_exact_text_is_an_identifier(ending: str, form: str, tmp_path: Path) -> None:
    table = photometry(source_id=[form.format(star) for star in IDS])
    assert read_table(write_table(table, tmp_path / f"t.{ending}"))["source_id"].tolist() == IDS


def test_a_web_pages_blanks_are_blanks() -> None:
    texts = np.array([f"\xa0Gaia\xa0DR3\u2009{star}" for star in IDS], object)
    assert source_ids(texts, "t").tolist() == IDS


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Gaia DR2 55", "row 2, .*'Gaia DR2 55' is an identifier of Gaia DR2"),
        ("5.853498713190526e+18", "row 2, .*went through a floating-point number"),
        ("HD 1", "row 2, .*'HD 1' is not a 64-bit integer"),
    ],
)
def test_other_text_is_named(ending: str, text: str, message: str, tmp_path: Path) -> None:
    table = photometry(source_id=[str(IDS[0]), text, str(IDS[2])])
    path = write_table(table, tmp_path / f"t.{ending}")
    with pytest.raises(InputError, match=message):
        read_table(path)


def test_digits_of_other_scripts_are_no_identifier(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("source_id,j_m\n\u0665\u0668,9\n")
    with pytest.raises(InputError, match=r"row 1, .*is not a 64-bit integer"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize(
    "name",
    ["gaiadr3_source_id", "GAIAEDR3_SOURCE_ID", "dr3_source_id", "Source", "Gaia DR3", "source id"],
)
def test_ids_have_the_names_that_users_give(name: str, ending: str, tmp_path: Path) -> None:
    table = photometry()
    table.rename_column("source_id", name)
    assert read_table(write_table(table, tmp_path / f"t.{ending}"))["source_id"].tolist() == IDS


@pytest.mark.parametrize(
    ("name", "message"),
    [("gaiadr2_source_id", "earlier release"), ("gaia_source_id", "of which release"),
     ("id", "absent")],
)  # fmt: skip
def test_ids_of_another_release_are_refused(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{name},j_m,j_msigcom\n{IDS[0]},1,0.1\n")
    with pytest.raises(InputError, match=message):
        join_photometry(bare(), tmp_path / "t.csv")


def test_an_id_that_stands_twice_is_refused_by_every_reader(tmp_path: Path) -> None:
    text = datalink_csv(MADE).splitlines()
    twice = [f"{'SOURCE_ID' if n == 0 else IDS[n - 1]},{line}" for n, line in enumerate(text)]
    (tmp_path / "t.csv").write_text("\n".join(twice) + "\n")
    table = pq.read_table(write(MADE, tmp_path / "s.parquet"))
    pq.write_table(table.append_column("SOURCE_ID", table["source_id"]), tmp_path / "t.parquet")
    xml = write(MADE, tmp_path / "s.xml").read_text()
    field = '<FIELD name="SOURCE_ID" datatype="long"/>'
    (tmp_path / "t.xml").write_text(
        xml.replace("<FIELD", field + "<FIELD", 1).replace("<TR>", "<TR><TD>1</TD>")
    )
    for ending in ("csv", "parquet", "xml"):
        with pytest.raises(InputError, match="have the same name but for case"):
            read(tmp_path / f"t.{ending}")


@pytest.mark.parametrize("ending", TABLES)
def test_a_row_without_an_id_is_nobodys(ending: str, tmp_path: Path) -> None:
    table = Table(photometry(), masked=True)
    table["source_id"].mask = [False, True, False]
    path = write_table(table, tmp_path / f"t.{ending}")
    if ending == "fits":  # astropy writes no TNULL of its own
        hdu = fits.table_to_hdu(table)
        hdu.columns["source_id"].null = int(hdu.data["source_id"][1])
        hdu.writeto(path, overwrite=True)
    joined = join_photometry(bare(), path)
    assert np.isfinite(joined.photometry.column("j_m")[0]).tolist() == [True, False, True]
    assert joined.notes[-1].endswith("2 of 3 stars joined, 1 not in this table")


def test_a_spectrum_without_an_id_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(datalink_csv(MADE).replace(str(IDS[0]), "", 1))
    stars = read(tmp_path / "t.csv")
    assert stars.source_id.tolist() == IDS[1:]
    assert "1 row without a source_id left out" in stars.notes[0]


@given(st.integers(2, 60), st.integers(0, 100))
def test_rounded_ids_are_noticed_and_true_ones_are_not(rows: int, start: int) -> None:
    true = REAL[start : start + rows]
    check_rounding(true, "t")
    rounded = true.astype(float).astype(np.int64)
    if rows >= 20:
        with pytest.raises(InputError, match="after rounding to floating-point"):
            check_rounding(rounded, "t")
        for digits in (15, 16, 17):  # as spreadsheets keep
            with pytest.raises(InputError, match=f"numbers of {digits} digits, filled up"):
                check_rounding(true // 10 ** (19 - digits) * 10 ** (19 - digits), "t")
    check_rounding(np.arange(1, rows) << 44, "t")  # made ones are no rounded ones
    check_rounding(np.arange(1, rows) * 10**16 + 2 * 10**18, "t")


@pytest.mark.parametrize("ending", FORMATS)
def test_a_few_rounded_ids_are_warned_of_once(
    ending: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    ids = [5853498713190525952, 5405570973190252544, 5762406957886626816]
    read(write(FakeStars(ids, MADE.cells), tmp_path / f"few.{ending}"))
    said = f"few.{ending}, column source_id: it seems that all 3 source_ids end"
    assert [said in one.message for one in caplog.records] == [True]


@pytest.mark.parametrize(
    "text",
    ["Gaia DR3 {}\nGaia EDR3 {}\n", "\ufeff{}\n{}\n", "source_id\n{}\n{}\n", "# mine\n{}, {}\n",
     "{}\r\n{}\r\n"],
)  # fmt: skip
def test_a_list_of_ids_is_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(text.format(*IDS[:2]), newline="")
    assert Targets.of_file(tmp_path / "ids.txt").ids.tolist() == IDS[:2]


# --- text ---


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_encodings(
    delimiter: str, encoding: str, whole: Stars, tmp_path: Path
) -> None:
    lines = ["source_id,solution_id," + ",".join(MADE.cells)]
    for row, star in enumerate(IDS):
        cells = (" ".join(map(str, c[row])) for c in MADE.cells.values())
        lines.append(f"{star},1," + ",".join(f"[{cell}]" for cell in cells))
    text = "\n".join(lines).replace(",", delimiter) + "\n"
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    path = tmp_path / "t.csv"
    path.write_bytes((mark + text).encode(encoding))
    same(read(path), whole)


@pytest.mark.parametrize("before", [b"", b"\r\n"])
@pytest.mark.parametrize("ending", ["csv", "ecsv", "fits", "vot", "xml", "vot.gz"])
def test_gzip_is_known_by_its_first_bytes(
    ending: str, before: bytes, whole: Stars, tmp_path: Path
) -> None:
    plain = write(MADE, tmp_path / f"t.{ending.removesuffix('.gz')}")
    path = tmp_path / f"packed.{ending}"
    path.write_bytes(before + gzip.compress(plain.read_bytes()))
    same(read(path), whole)


@pytest.mark.parametrize(
    ("pack", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz"), (gzip.compress, "gzip")]
)
def test_what_packed_a_file_is_named(
    pack: Callable[[bytes], bytes], name: str, tmp_path: Path
) -> None:
    packed = pack(gzip.compress(write(MADE, tmp_path / "s.csv").read_bytes()))
    (tmp_path / "t.csv").write_bytes(packed)
    packed = gzip.compress(write(MADE, tmp_path / "s.parquet").read_bytes())
    (tmp_path / "t.parquet").write_bytes(packed)
    with pytest.raises(InputError, match=f"is packed by {name}; unpack it"):
        read(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"parquet: is packed by gzip; unpack it"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("ending", ["fits", "vot", "parquet"])
def test_the_first_bytes_count_more_than_the_name(
    ending: str, whole: Stars, tmp_path: Path
) -> None:
    same(read(write(MADE, tmp_path / f"s.{ending}").rename(tmp_path / "s.csv")), whole)


@pytest.mark.parametrize(
    "word",
    ["NA", "None", "<NA>", r"\N", "--", "masked", "null", "NaN", "n/a", "", "NaT", "#NA", "1.#QNAN",
     "(null)", "missing"],
)  # fmt: skip
def test_null_words(word: str, tmp_path: Path) -> None:
    lines = "".join(f"{star},{word},{word}\n" for star in IDS[:2]) + f"{IDS[2]},9,0.1\n"
    (tmp_path / "t.csv").write_text("source_id,j_m,j_msigcom\n" + lines)
    found = join_photometry(bare(), tmp_path / "t.csv").photometry.column("j_m")[0]
    assert np.array_equal(found, [np.nan, np.nan, 9], equal_nan=True)


def test_tables_have_cells_of_several_lines(tmp_path: Path) -> None:
    lines = "".join(f'{star * 128},9,0.1,"two\n{"x" * 50}"\n' for star in range(1, 20_000))
    text = f"source_id,j_m,j_msigcom,note\n{lines}{IDS[0]},8,0.1,\n"
    (tmp_path / "t.csv").write_text(text)
    assert join_photometry(bare(), tmp_path / "t.csv").photometry.column("j_m")[0][0] == 8


@pytest.mark.parametrize("word", ["1_000", "\u0661\u0662", "1d5", "12:30"])
def test_only_plain_numbers_are_numbers(word: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"source_id,j_m,j_msigcom\n{IDS[0]},{word},0.1\n")
    with pytest.raises(InputError, match=f"row 1, column j_m: '{word}' is not a number"):
        join_photometry(bare(), tmp_path / "t.csv")


@pytest.mark.parametrize("ending", TABLES)
def test_a_word_that_is_no_number_is_named(ending: str, tmp_path: Path) -> None:
    path = write_table(photometry(j_m=["9.0", "faint", "NA"]), tmp_path / f"t.{ending}")
    with pytest.raises(InputError, match="row 2, column j_m: 'faint' is not a number"):
        join_photometry(bare(), path)
    path = write_table(photometry(j_m=["9.0", "NA", " 11 "]), tmp_path / f"t.{ending}")
    assert join_photometry(bare(), path).photometry.column("j_m")[0][2] == 11


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<html><script>x()</script><h1>504 Gateway Time-out</h1></html>", "504 Gateway Time-out"),
        ('{"error": "no such table"}', "no such table"),
        ("Error: job aborted\n", "job aborted"),
    ],
)
def test_the_words_of_a_page_with_an_error_are_shown(text: str, said: str, tmp_path: Path) -> None:
    for ending in ("fits", "parquet", "vot", "zip", "csv"):
        (tmp_path / f"t.{ending}").write_text(text)
        what = "not a table but a page" if ending == "csv" else "but text:"
        for reader in (read, read_table):
            with pytest.raises(InputError, match=f"{what} .*{said}"):
                reader(tmp_path / f"t.{ending}")


@pytest.mark.parametrize("reader", [read, read_table])
def test_an_error_that_is_a_votable_is_shown(
    reader: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "t.xml").write_text(
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>'
        '<INFO name="QUERY_STATUS" value="ERROR">quota reached</INFO></RESOURCE></VOTABLE>'
    )
    with pytest.raises(InputError, match="is an error of the archive, not a table: quota reached"):
        reader(tmp_path / "t.xml")


# --- arrays ---


def printed(values: np.ndarray) -> str:
    return np.array2string(values, floatmode="unique", threshold=10**6)


TEXTS: dict[str, Callable[[np.ndarray], str]] = {
    "numpy": printed,
    "numpy on one line": lambda values: printed(values).replace("\n", ""),
    "array(...)": lambda values: f"array({printed(values)}, dtype=float32)",
    "np.float64": lambda values: str([f"np.float64({v!s})" for v in values]).replace("'", ""),
    "braces": lambda values: "{" + ",".join(map(str, values)) + "}",
    "tensor(...)": lambda values: f"tensor({values.tolist()}, dtype=torch.float64)",
    "texts": lambda values: str([str(v) for v in values]),
    "lines": lambda values: "[" + ",\n".join(map(str, values)) + "\n]",
    "quoted": lambda values: f"'{values.tolist()}'",
    "bytes": lambda values: f"b'{values.tolist()}'",
    "rows of one": lambda values: "[" + str([float(v) for v in values]) + "]",
}


@pytest.mark.parametrize("form", TEXTS)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_arrays_as_text(ending: str, form: str, whole: Stars, tmp_path: Path) -> None:
    texts = {
        name: [TEXTS[form](cell) if len(cell) else "[null, null]" for cell in cells]
        for name, cells in MADE.cells.items()
    }
    path = tmp_path / f"t.{ending}"
    write_table(Table({"source_id": IDS, **texts}), path)
    same(read(path), whole)


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(arrays(np.float64, st.integers(1, 30), elements=FINITE))
def test_what_numpy_prints_comes_back(values: np.ndarray) -> None:
    for write_text in TEXTS.values():
        assert np.array_equal(parse_array(write_text(values), np.float64), values)


def test_matrices_as_text() -> None:
    square = np.array([[1, 2.5, 3], [2.5, 1, 4], [3, 4, 1]])
    for text in (str(square), str(square.tolist()), repr(square), json.dumps(square.tolist())):
        assert parse_array(text, np.float64).tolist() == [2.5, 3, 4]
    for text in ("[[1, 2, 3], [4]]", "[[1, 2], [3, 4], [5, 6]]"):
        with pytest.raises(ValueError, match=r"one length|neither a list nor a square"):
            parse_array(text, np.float64)


@pytest.mark.parametrize("word", ["x" * 100_000, "a." * 50_000, "[" * 100_000, "x," * 150_000])
def test_what_is_no_array_is_refused_at_once(word: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=r"could not convert|brackets|more than"):
        parse_array(f"[1,{word}]", np.float64)
    assert time.process_time() - start < 1  # minutes, where a pattern tries each letter


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quoted_cells_of_several_lines(end: str, whole: Stars, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = datalink_csv(MADE).replace(", ", f",{end}")
    path.write_text(text, newline="")
    for bad_rows in ("error", "flag"):
        same(read(path, bad_rows), whole)
    # a row without one of its quotes leaves the others as they are
    path.write_text(text.replace(')"', ")", 1), newline="")
    for bad_rows in ("error", "flag"):
        with pytest.raises(InputError, match=r"row 1: .*, and the next line is not a row"):
            read(path, bad_rows)
    path.write_text(datalink_csv(MADE).replace(')"', ")", 1), newline="")
    stars = read(path, "flag")
    assert stars.source_id.tolist() == IDS
    assert stars.flags[0] == Flag.BAD_ROW


def test_shortened_text_and_an_unclosed_quote_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = datalink_csv(MADE)
    path.write_text(text.replace("(", "(1 2 ... ", 1))
    with pytest.raises(InputError, match=r"row 1, .*bp_coefficients.*shortened to '\.\.\.' when"):
        read(path)
    lines = text.splitlines()
    lines[1] = lines[1][: lines[1].index("(") + 9]
    path.write_text("\n".join(lines) + "\n")
    stars = read(path, "flag")
    assert stars.flags.tolist() == [Flag.BAD_ROW, Flag.MISSING_BP, 0]


def test_nested_and_struct_columns(whole: Stars, tmp_path: Path) -> None:
    table = pq.read_table(write(MADE, tmp_path / "s.parquet"))

    def packed(band: str) -> pa.StructArray:
        names = [name for name in MADE.cells if name.startswith(band)]
        arrays = [table[name].combine_chunks() for name in names]
        return pa.StructArray.from_arrays(arrays, [n.removeprefix(f"{band}_") for n in names])

    struct, halves = packed(""), {band: packed(band) for band in ("bp", "rp")}
    other = pa.StructArray.from_arrays([pa.array([1, 2, 3])], ["source_id"])  # of a neighbour
    dotted = {f"xp.{name}": table[name] for name in MADE.cells}
    for columns in ({"xp": struct}, dotted, halves, {"xp": struct, "neighbour": other}):
        pq.write_table(pa.table({"source_id": IDS, **columns}), tmp_path / "t.parquet")
        same(read(tmp_path / "t.parquet"), whole)


def test_columns_in_memory_follow_the_same_policy(whole: Stars) -> None:
    texts = {n: np.array([str([*map(float, c)]) for c in cells]) for n, cells in MADE.cells.items()}
    ids = np.array([f"Gaia DR3 {star}" for star in IDS])
    blocks = column_blocks({"DR3Name": ids, **texts}, "memory")
    same(next(assembled(blocks, Path("memory"), "error")), whole)
    square = np.array([[[1, 0.5], [0.5, 1.0]]])
    assert cells_of(square)[0].tolist() == [[0.5]]
    unit = pa.field("Parallax", pa.float64(), metadata={"unit": "arcsec"})
    schema = pa.schema([pa.field("Source", pa.string()), unit])
    table = read_table(pa.table([pa.array(ids), pa.array([1e-3] * 3)], schema=schema), ["parallax"])
    assert np.allclose(table["parallax"], 1)
    assert table["source_id"].tolist() == IDS


# --- correlations, units, sentinels ---


def test_correlations_that_are_all_nan_are_none(whole: Stars, tmp_path: Path) -> None:
    table = pq.read_table(write(MADE, tmp_path / "s.parquet"))
    for n, name in enumerate(table.column_names):
        if name.endswith("correlations"):
            nothing = [[float("nan")] * len(cell) for cell in table[name].to_pylist() if cell]
            table = table.set_column(n, name, pa.array((nothing * 3)[:3]))
    pq.write_table(table, tmp_path / "t.parquet")
    stars = read(tmp_path / "t.parquet")
    assert (stars.flags & Flag.NO_CORRELATIONS).astype(bool).all()
    assert np.array_equal(stars.spectra.rp.errors, whole.spectra.rp.errors)


def test_errors_without_a_unit_are_in_that_of_their_values(tmp_path: Path) -> None:
    table = Table({"source_id": IDS, "parallax": [1e-3] * 3, "parallax_error": [1e-5] * 3})
    table["parallax"].unit = "arcsec"
    table.write(tmp_path / "t.fits")
    values, errors = join_photometry(bare(), tmp_path / "t.fits").photometry.column("parallax")
    assert np.allclose(values, 1)
    assert np.allclose(errors, 0.01)


@pytest.mark.parametrize(("value", "error"), [(0.0, 0.0), (0.0, 0.02), (9.999, 9.999)])
def test_fillers_of_magnitudes_and_their_errors(value: float, error: float, tmp_path: Path) -> None:
    table = photometry(j_m=[9, value, 11.0], j_msigcom=[0.02, error, 0.02])
    stars = join_photometry(bare(), write_table(table, tmp_path / "t.csv"))
    assert np.isnan(stars.photometry.column("j_m")[0]).tolist() == [False, True, False]
    assert any("1 value of j_m" in note for note in stars.notes)


@pytest.mark.parametrize("ending", FORMATS)
def test_correlations_may_be_absent(ending: str, whole: Stars, tmp_path: Path) -> None:
    cells = {name: c for name, c in MADE.cells.items() if not name.endswith("correlations")}
    stars = read(write(FakeStars(IDS, cells), tmp_path / f"t.{ending}"))
    assert (stars.flags & Flag.NO_CORRELATIONS).all()
    assert stars.spectra.rp.correlations is None
    assert np.array_equal(stars.spectra.rp.coefficients, whole.spectra.rp.coefficients)


def test_topcats_colfits_is_unrolled(tmp_path: Path) -> None:
    made = fake_stars(3, (3, 4))
    columns = [fits.Column("source_id", "3K", dim="(1,3)", array=np.array([made.source_id]))]
    for name, cells in made.cells.items():
        values = np.array(cells, float)
        values[1] *= not name.startswith("bp")  # colfits has no null arrays
        size = values.shape[1]
        kind, shape = f"{3 * size}D", f"({size},3)"
        columns.append(fits.Column(name, kind, dim=shape, array=values.reshape(1, -1)))
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "c.fits")
    stars = read(tmp_path / "c.fits")
    assert stars.source_id.tolist() == made.source_id
    assert stars.flags.tolist() == [0, Flag.MISSING_BP, 0]


@pytest.mark.parametrize("ending", ["ecsv", "fits", "vot", "parquet"])
def test_declared_units_are_converted_or_refused(ending: str, tmp_path: Path) -> None:
    table = photometry(parallax=[1e-3, 2e-3, 3e-3], parallax_error=[1e-5] * 3)
    table["parallax"].unit = table["parallax_error"].unit = "arcsec"
    table["j_msigcom"].unit = "mmag"
    table["j_msigcom"] = 20.0
    joined = join_photometry(bare(), write_table(table, tmp_path / f"t.{ending}")).photometry
    assert np.allclose(joined.column("parallax"), [[1, 2, 3], [0.01] * 3])
    assert np.allclose(joined.column("j_m")[1], 0.02)
    table["j_m"].unit = "Jy"
    with pytest.raises(InputError, match="column j_m: its unit is 'Jy', not mag"):
        join_photometry(bare(), write_table(table, tmp_path / f"u.{ending}"))


@pytest.mark.parametrize("unit", [None, "", "-", "mag", "Vega mag", "mag(Vega)"])
def test_units_that_change_nothing(unit: str | None) -> None:
    assert converted(np.array([9.0]), "ks_m", unit, "t").tolist() == [9.0]


@pytest.mark.parametrize("value", [1e20, 99.0, 99.99, -9999.0, 9.9692e36, -99.9, np.inf, 32767])
def test_values_that_no_star_can_have_are_missing(value: float, tmp_path: Path) -> None:
    table = photometry(parallax=[value * 100, 1.0, -3.0], parallax_error=[0.1, 0.1, 0.1])
    table["j_m"][0], table["j_msigcom"][0] = value, value
    joined = join_photometry(bare(), write_table(table, tmp_path / "t.csv"))
    assert np.isnan(joined.photometry.column("j_m")[0]).tolist() == [True, False, False]
    assert np.isnan(joined.photometry.column("parallax")[0]).tolist() == [True, False, False]
    assert "1 value of j_m that no star can have: taken as missing" in " ".join(joined.notes)


# --- ZIP files, counts, messages ---


@pytest.mark.parametrize("ending", ["csv", "ecsv", "fits", "xml"])
def test_datalinks_zip_is_read(ending: str, whole: Stars, tmp_path: Path) -> None:
    path = tmp_path / "answer.zip"
    with zipfile.ZipFile(path, "w") as file:
        for row in (0, 1, 2):
            member = write(_rows(row), tmp_path / f"m.{ending}")
            file.write(member, f"XP_CONTINUOUS-Gaia DR3 {IDS[row]}.{ending}")
        file.writestr(f"MCMC_MSC-Gaia DR3 1.{ending}", "nothing of ours")
    stars = read(path)
    assert stars.source_id.tolist() == IDS
    assert np.array_equal(stars.spectra.rp.coefficients, whole.spectra.rp.coefficients)
    assert f"not read: MCMC_MSC-Gaia DR3 1.{ending}" in stars.notes[0]
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(f"XP_CONTINUOUS-Gaia DR3 2.{ending}", "broken")
    with pytest.raises(InputError, match=r"answer\.zip, XP_CONTINUOUS-Gaia DR3 2"):
        read(path)


def test_the_archives_own_zips(shared_data: Path) -> None:
    for path in (shared_data / "datalink_zips").glob("*.zip"):
        assert read(path).source_id.tolist() == [5937083312263887616]


def test_a_table_in_a_zip(tmp_path: Path) -> None:
    csv = write_table(photometry(), tmp_path / "t.csv")
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as file:
        file.write(csv, "tables/t.csv")
        for beside in ("README.txt", ".DS_Store", "__MACOSX/tables/._t.csv"):
            file.writestr(beside, "no table")
    assert read_table(tmp_path / "t.zip")["source_id"].tolist() == IDS
    with zipfile.ZipFile(tmp_path / "t.zip", "a") as file:
        file.write(csv, "u.csv")
    with pytest.raises(InputError, match=r"holds 2 files \(tables/t\.csv, u\.csv\), not one table"):
        read_table(tmp_path / "t.zip")


def test_a_file_without_a_readable_row_is_an_error_whatever_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(datalink_csv(MADE).replace("(", "(nought "))
    with pytest.raises(InputError, match=r"none of its 3 rows can be read; the first: .*row 1"):
        read(path, "flag")


def test_vectors_cut_to_the_relevant_bases_are_told(tmp_path: Path) -> None:
    one, two = fake_stars(2, (3, 4)), fake_stars(1, (2, 3), start=5)
    cells = {name: [*one.cells[name], *two.cells[name]] for name in one.cells}
    path = write(FakeStars(one.source_id + two.source_id, cells), tmp_path / "t.csv")
    with pytest.raises(InputError, match="has 2 values, not 3: are they cut to bp_n_relevant"):
        read(path)


def test_flipped_bits_of_a_star_table_are_noticed(whole: Stars, tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    write_stars(whole, path)
    meta = pq.read_metadata(path).row_group(0).column(2)
    data = bytearray(path.read_bytes())
    data[meta.data_page_offset + meta.total_compressed_size - 5] ^= 16
    path.write_bytes(data)
    with pytest.raises(InputError, match="is not a whole Parquet file"):
        read(path)


def test_counts_of_what_joined_are_kept(tmp_path: Path) -> None:
    stars = join_photometry(bare(), write_table(photometry()[:2], tmp_path / "p.csv"))
    labels = Table({"source_id": IDS[:1], "teff": [5000.0], "teff_err": [50.0]})
    stars = join_labels(stars, write_table(labels, tmp_path / "l.csv"))
    assert [note.partition(": ")[2] for note in stars.notes if "joined" in note] == [
        "2 of 3 stars joined, 1 not in this table",
        "1 of 3 stars joined, 2 not in this table",
    ]


def test_no_line_of_a_message_is_long() -> None:
    text = str(InputError("x" * 5000, where="some.csv", remedy="mend it"))
    assert len(text) <= LONGEST
    assert text.startswith("some.csv: x")
    assert text.endswith("; mend it")
