"""Whatever a file holds: a result or an error that names it, soon, in little memory, offline."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fuzz
from archive_files import fake_stars, write
from test_bulk import agree
from xplabels import simulate_stars
from xplabels.core.errors import InputError
from xplabels.cuts.rules import load_rules
from xplabels.fetch.datalink import unpacked
from xplabels.instrument.sed import read_sed
from xplabels.io import files, read, write_stars
from xplabels.io.hats import PartitionedTable
from xplabels.io.job import read_json
from xplabels.io.parquet import META_KEY
from xplabels.io.plain import read_table
from xplabels.model.storage import read_model
from xplabels.recipes import load_recipe

IDS = fake_stars(4, (3, 4)).source_id
DEEP = 100_000
HUGE = "1" * 5000


def refused(reader: Callable[[Path], object], path: Path, *words: str) -> None:
    """The error names the file, says all the words, and is no longer than a few lines."""
    with pytest.raises(InputError) as caught:
        reader(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message) < 500 + len(str(path))
    for word in words:
        assert word in message


def test_a_slice_of_the_fuzzer(tmp_path: Path) -> None:
    assert fuzz.fuzz(330, 17, 60.0, tmp_path) == (330, {}, [])


def test_the_fuzzer_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises, waits, takes memory, or does not agree with another."""
    path = tmp_path / "input.bin"
    path.write_bytes(b"a")
    monkeypatch.setattr(fuzz, "SECONDS", 0.4)
    monkeypatch.setattr(fuzz, "MEGABYTES", 50)

    def endless(path: Path) -> None:
        while True:
            pass

    def unnamed(path: Path) -> None:
        raise InputError("is damaged")

    targets = {
        "foreign": [fuzz.Target({}, lambda path: int("a")), fuzz.Target({}, unnamed)],
        "slow": [fuzz.Target({}, endless)],
        "large": [fuzz.Target({}, lambda path: bytearray(100 << 20)),
                  fuzz.Target({}, lambda path: bytearray(1 << 40))],
        "disagree": [fuzz.Target({}, Path.read_bytes, agree=lambda path: False)],
    }  # fmt: skip
    for kind, some in targets.items():
        for target in some:
            assert (fuzz.look(target, path) or ("",))[0] == kind


# The two readers of bulk files -------------------------------------------------------------------


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = write(fake_stars(4, (3, 4), without_bp=(1,)), tmp_path_factory.mktemp("b") / "s.csv.gz")
    return gzip.decompress(path.read_bytes())


SHORT = st.sampled_from([word for word in fuzz.WORDS if len(word) < 4000]) | st.binary(max_size=5)


@settings(max_examples=120, deadline=None)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), SHORT), min_size=1, max_size=3),
    end=st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\n \n"]),
    packed=st.booleans(),
)
def test_any_text_is_read_alike(
    edits: list[tuple[float, int, bytes]], end: bytes, packed: bool, bulk: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    text = bulk.replace(b"\n", end)
    for share, length, word in edits:
        at = int(share * len(text))
        text = text[:at] + word + text[at + length :]
    path = tmp_path_factory.mktemp("t") / ("s.csv.gz" if packed else "s.csv")
    path.write_bytes(gzip.compress(text, 1) if packed else text)
    agree(path)


def test_a_cell_of_any_length(tmp_path: Path) -> None:
    """Beyond the 131,072 characters to which Python's csv module holds."""
    stars = fake_stars(2, (160, 3))
    path = write(stars, tmp_path / "s.csv")
    assert max(len(cell) for cell in path.read_text().split('"')) > 131_072
    agree(path)
    assert read(path).spectra.widths == (160, 3)


def test_lines_that_end_in_carriage_returns_need_no_memory_for_the_file(
    bulk: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(bulk.replace(b"\n", b"\r"))
    expected = read(path).source_id.tolist()
    for limit in (700, 701, 1000, 5000):
        monkeypatch.setattr(files, "LONGEST_LINE", limit)
        assert read(path).source_id.tolist() == expected == IDS
    monkeypatch.setattr(files, "LONGEST_LINE", 100)
    refused(read, path, "has a line of more than")


# Sizes that files declare ------------------------------------------------------------------------


def with_card(data: bytes, key: str, value: str) -> bytes:
    """A FITS file with another value of ``key`` in its last header."""
    at = data.rindex(f"{key:8}=".encode())
    return data[:at] + f"{key:8}= {value:>20}".ljust(80).encode() + data[at + 80 :]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NAXIS", "99999999999"), ("NAXIS", "-1"), ("NAXIS1", "9999999999"), ("NAXIS2", HUGE[:60]),
        ("NAXIS2", "999999999999"), ("TFIELDS", "9223372036854775807"), ("PCOUNT", "99999999999"),
        ("GCOUNT", "abc"), ("BITPIX", "'8'"), ("TFORM5", "9D'"), ("TFORM5", "'99999999999D'"),
        ("TFORM1", "'source_id'"), ("TTYPE1", "'a"), ("TTYPE1", "T"),
    ],
)  # fmt: skip
def test_fits_headers(key: str, value: str, tmp_path: Path) -> None:
    data = with_card(fuzz.fixed_fits(IDS), key, value)
    for name, content in (("s.fits", data), ("s.fits.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(content)
        for reader in (read, read_table, read_sed):
            refused(reader, tmp_path / name)


def test_a_second_number_of_axes(tmp_path: Path) -> None:
    """Astropy takes the last, and makes a list of so many."""
    data = fuzz.fixed_fits(IDS)
    end = data.index(b"END".ljust(80))
    card = f"{'NAXIS':8}= {10**9:>20}".ljust(80).encode()
    (tmp_path / "s.fits").write_bytes(data[:end] + card + data[end : end + 80] + data[end + 160 :])
    for reader in (read, read_table):
        refused(reader, tmp_path / "s.fits", "NAXIS twice")


def test_a_long_ecsv_header(tmp_path: Path) -> None:
    """YAML is read slowly."""
    items = ",1" * 60_000
    (tmp_path / "s.ecsv").write_text(f"# %ECSV 1.0\n# ---\n# datatype: [{items}]\nsource_id\n1\n")
    refused(read_table, tmp_path / "s.ecsv", "header of more than 100,000 letters")


def test_what_unpacks_to_a_thousand_times_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SMALL", 1 << 20)
    bomb = gzip.compress(b" " * (3 << 20))
    for name in ("s.csv.gz", "s.ecsv.gz", "s.fits.gz", "s.vot.gz", "s.xml"):
        (tmp_path / name).write_bytes(bomb)
        refused(read, tmp_path / name, "of memory")
        refused(read_table, tmp_path / name, "of memory")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", b" " * (3 << 20))
    refused(unpacked, tmp_path / "a.zip", "of memory")
    flags = pa.array([0]).take(pa.array([0] * 1_000_000))
    pq.write_table(pa.table({"source_id": flags, "j_m": flags}), tmp_path / "s.parquet")
    for reader in (read, read_table):
        refused(reader, tmp_path / "s.parquet", "of memory")


def votable(fields: str, data: str, nrows: str = "") -> str:
    return (
        f"<VOTABLE><RESOURCE><TABLE{nrows}><FIELD name='source_id' datatype='long'/>{fields}"
        f"<DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>"
    )


ROWS = "<TABLEDATA><TR><TD>1</TD></TR></TABLEDATA>"
SEVERAL = "<FIELD name='x' datatype='double' arraysize='{}'/>"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (votable("", ROWS, " nrows='99999999999'"), "of memory"),
        (votable(SEVERAL.format("9999999999"), ROWS), "of memory"),
        (votable(SEVERAL.format("99999x99999x*"), ROWS, " nrows='a'"), "invalid literal"),
        (votable("<FIELD name='source_id' datatype='long'/>" * 500,
                 ROWS.replace("<TD>1</TD>", "<TD>1</TD>" * 501)), "two columns have the name"),
        ("<RESOURCE>" * 3000 + votable("", ROWS) + "</RESOURCE>" * 3000, "VOTable"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]>" + votable("", ROWS), "an XML entity"),
        (votable("", "<BINARY><STREAM encoding='base64'>AAAA</STREAM></BINARY>").replace(
            "'long'", "'char' arraysize='0'"), "empty"),
    ],
)  # fmt: skip
def test_votables(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "s.vot"
    path.write_text(text)
    refused(read_table, path, said)


# Nothing is opened but the file ------------------------------------------------------------------


@pytest.fixture
def port() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        socket.setdefaulttimeout(0.2)  # of one that waits for an answer
        yield server
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("kind", ["BINARY", "BINARY2", "FITS"])
@pytest.mark.parametrize("where", ["http://127.0.0.1:{}/leak", "file://{}", "{}", "beside.bin"])
def test_a_votable_opens_nothing(
    kind: str, where: str, port: socket.socket, tmp_path: Path
) -> None:
    secret = tmp_path / "beside.bin"
    secret.write_bytes(struct.pack(">q", 1234567890123))
    place = port.getsockname()[1] if "http" in where else secret
    path = tmp_path / "s.vot"
    text = votable("", f"<{kind}><STREAM href='{where.format(place)}'/></{kind}>")
    for content in (text, text.replace("<", "<v:").replace("<v:/", "</v:").replace(
        "VOTABLE>", "VOTABLE xmlns:v='http://www.ivoa.net/xml/VOTable/v1.3'>", 1)):  # fmt: skip
        path.write_text(content)
        for reader in (read, read_table, read_sed):
            refused(reader, path, "elsewhere")
    with pytest.raises(BlockingIOError):
        port.accept()


@pytest.mark.parametrize("name", ["s.ecsv", "s.csv", "s.vot", "s.dat", "s.txt"])
def test_no_text_is_taken_for_an_address(name: str, port: socket.socket, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{port.getsockname()[1]}/"
    path = tmp_path / name
    for text in (
        address, f"<!DOCTYPE VOTABLE SYSTEM '{address}'>{votable('', ROWS)}",
        f"<!DOCTYPE a [<!ENTITY b SYSTEM '{address}'>]><VOTABLE>&b;</VOTABLE>",
    ):  # fmt: skip
        path.write_text(text)
        for reader in (read, read_table, read_sed):
            with contextlib.suppress(InputError):
                reader(path)
    with pytest.raises(BlockingIOError):
        port.accept()


# Texts and metadata ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"members = {HUGE}", f"hidden = [{HUGE}]", "hidden = [100000000, 100000000]",
        "hidden = " + "[" * DEEP, "a" * DEEP, "name = '\x00'", "teacher_hidden = [20000, 20000]",
        "a." * DEEP + "b = 1", "hidden = [1e8, 1e8]",
    ],
)  # fmt: skip
def test_recipes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    refused(load_recipe, path)
    refused(load_rules, path)


@pytest.mark.parametrize("text", ["[" * DEEP, '{"a":' * DEEP, HUGE, "\ud800", "1", '{"format": 1}'])
def test_json(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert read_json(path) in (None, {"format": 1})
    with pytest.raises(InputError, match=str(tmp_path)):
        read_model(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"wavelength": [[1], [2, 3]]}, {"wavelength": "a"}, {"labels": 5}, {"labels": [[]]},
        {"notes": 3}, {"origin": {}}, {"format": []}, {"space": None}, {"wavelength": None},
    ],
)  # fmt: skip
def test_metadata_of_a_star_table(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    write_stars(simulate_stars(3, widths=(3, 3), labels=("teff",))[0], path)
    table = pq.read_table(path)
    meta = json.loads(table.schema.metadata[META_KEY]) | {"space": "sampled"} | change
    columns = {"source_id": table["source_id"]}
    columns |= dict.fromkeys(("flux", "flux_error"), table["bp_coefficients"])
    made = pa.table(columns).replace_schema_metadata({META_KEY: json.dumps(meta).encode()})
    pq.write_table(made, path)
    refused(read, path)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"source_id": [1], "an_odd_name": [1.0]}), out, store_schema=False)
    path = tmp_path / "s.parquet"
    path.write_bytes(out.getvalue().replace(b"an_odd_name", b"an_odd_\xff\xfe\xfd\xfc"))
    for reader in (read, read_table):
        refused(reader, path, "utf-8")
    folder = tmp_path / "hats"
    folder.mkdir()
    for text in (b"\xff\xfe", b"hats_primary_table_url=/etc", b"hats_primary_table_url=../hats",
                 b"hats_primary_table_url=http://127.0.0.1/"):  # fmt: skip
        (folder / "collection.properties").write_bytes(text)
        refused(read, folder)
        refused(lambda path: PartitionedTable(path, ["j_m"]), folder)


def test_page_checksums_are_verified(tmp_path: Path) -> None:
    path = write(fake_stars(50, (3, 4)), tmp_path / "s.parquet")
    pq.write_table(pq.read_table(path), path, write_page_checksum=True, compression="none",
                   use_dictionary=False)  # fmt: skip
    data = bytearray(path.read_bytes())
    data[200] ^= 1  # among the source_ids
    path.write_bytes(data)
    for reader in (read, read_table):
        refused(reader, path)
