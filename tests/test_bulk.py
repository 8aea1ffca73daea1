"""The compiled reader of bulk files says what the reader of single lines says, only faster."""

from __future__ import annotations

import gzip
import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archive_files import FakeStars, fake_stars, write
from test_archive_damage import DAMAGE
from xplabels.core import jit
from xplabels.core.errors import InputError
from xplabels.core.stars import CoefficientSpectra, Stars
from xplabels.io import gunzip, read_blocks
from xplabels.io.delimited import read_delimited

pytest.importorskip("numba")

from xplabels.io import bulk, compiled_text

ENDINGS = ("csv", "csv.gz")
gunzip_has_isal = gunzip.has_isal


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that lines of these small files, too, lie across refills."""
    monkeypatch.setattr(bulk, "CHUNK", 300)


def outcome(blocks: Iterator[Stars]) -> list[Any]:
    """Everything a reader says: blocks as plain values, then the complaint if there is one."""
    told: list[Any] = []
    try:
        for stars in blocks:
            spectra = stars.spectra
            assert isinstance(spectra, CoefficientSpectra)
            arrays = [stars.source_id, stars.flags]
            for band in (spectra.bp, spectra.rp):
                assert band.correlations is not None
                arrays += [band.coefficients, band.errors, band.correlations]
            told.append([(a.dtype.str, a.shape, a.tobytes()) for a in arrays])
            told.append((stars.notes, stars.origin))
    except InputError as error:
        told.append(str(error))
    return told


def agree(path: Path, block: int = 2) -> None:
    """The two readers, both ways of treating damaged rows."""
    for bad_rows in ("error", "flag"):
        slow = outcome(read_delimited(path, bad_rows, block, ","))  # type: ignore[arg-type]
        fast = outcome(bulk.read_bulk(path, bad_rows, block))  # type: ignore[arg-type]
        assert fast == slow


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("widths", [(3, 4), (51, 55), (1, 1)])
def test_whole_files(ending: str, widths: tuple[int, int], tmp_path: Path) -> None:
    for without in ((), (0,), (1, 2), range(7)):
        stars = fake_stars(7, widths, without_bp=without)
        agree(write(stars, tmp_path / f"s.{ending}"))
        agree(write(stars, tmp_path / f"s.{ending}", upper=True), block=100)


def test_a_band_that_no_early_star_has(tmp_path: Path) -> None:
    late = fake_stars(60, (3, 4), without_bp=range(50), without_rp=(55,))
    agree(write(late, tmp_path / "s.csv.gz"), block=7)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("fault", DAMAGE)
def test_damaged_rows(fault: str, ending: str, tmp_path: Path) -> None:
    stars = fake_stars(5, (3, 4), without_rp=(4,))
    DAMAGE[fault][0](stars)
    agree(write(stars, tmp_path / f"bad.{ending}"))


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "no bracket": lambda line: line.replace(b'"[', b'"', 1),
    "letter": lambda line: line.replace(b"[", b"[x", 1),
    "no quote": lambda line: line.replace(b'"', b"", 1),
    "no closing quote": lambda line: line.replace(b']"', b"]", 1),
    "other closing": lambda line: line.replace(b']"', b')"', 1),
    "round brackets": lambda line: line.replace(b"[", b"(").replace(b"]", b")"),
    "spaces": lambda line: line.replace(b",", b", "),
    "spaces in arrays": lambda line: line.replace(b"[", b"[ ").replace(b"]", b" ]"),
    "comma at the end": lambda line: line.replace(b"]", b",]", 1),
    "no comma": lambda line: line.replace(b",", b"", 3),
    "empty array": lambda line: line.replace(line.split(b'"')[1], b"[]", 1),
    "quoted null": lambda line: line.replace(line.split(b'"')[1], b"null", 1),
    "NaN": lambda line: line.replace(b"[", b"[NaN,", 1),
    "plus": lambda line: line.replace(b"[", b"[+", 1),
    "underscore": lambda line: line.replace(b".", b"_", 1),
    "no digit after the point": lambda line: line.replace(b"[", b"[3.,", 1),
    "no digit before the point": lambda line: line.replace(b"[", b"[.3,", 1),
    "huge": lambda line: line.replace(b"[", b"[1e999,", 1),
    "tiny": lambda line: line.replace(b"[", b"[1e-999,", 1),
    "thirty digits": lambda line: line.replace(b".", b"." + b"123456789" * 4),
    "wrong bytes": lambda line: line.replace(b"[", b"[\xff\xfe", 1),
    "null bytes": lambda line: line.replace(b"[", b"[\0", 1),
    "carriage return at the end": lambda line: line.replace(b"\n", b"\r\n"),
    "carriage return inside": lambda line: line.replace(b",", b",\r", 4),
    "carriage return between": lambda line: b"\r" + line,
    "empty line": lambda line: b"\n  \n" + line,
    "one cell more": lambda line: line.replace(b"\n", b",1\n"),
    "one cell less": lambda line: line.rsplit(b",", 1)[0] + b"\n",
    "quoted number": lambda line: line.replace(b"4545469030156206080", b'"4545"', 1),
    "quote in a number": lambda line: line.replace(b"4545469030156206080", b'45"45', 1),
    "quoted comma": lambda line: line.replace(b"4545469030156206080", b'"4,5"', 1),
    "doubled quote": lambda line: line.replace(b"4545469030156206080", b'"4""5"', 1),
    "NULL": lambda line: line.replace(b"4545469030156206080", b"NULL", 1),
    "id in quotes": lambda line: b'"' + line.replace(b",", b'",', 1),
    "id missing": lambda line: b"," + line.split(b",", 1)[1],
    "id too long": lambda line: b"9" + line,
    "id of 2^63": lambda line: b"9223372036854775808," + line.split(b",", 1)[1],
    "id of 2^63 - 1": lambda line: b"9223372036854775807," + line.split(b",", 1)[1],
    "negative id": lambda line: b"-" + line,
    "id with a space": lambda line: b" " + line,
    "id as float": lambda line: line.replace(b",", b".0,", 1),
    "comment": lambda line: b"#" + line,
    "nothing": lambda line: b"",
}


@pytest.mark.parametrize("where", [0, 2, 4])
@pytest.mark.parametrize("edit", EDITS)
def test_any_line(edit: str, where: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gzip.decompress(write(fake_stars(5, (3, 4)), tmp_path / "s.csv.gz").read_bytes())
    lines = whole.splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if line.startswith(b"source_id")) + 1
    lines[first + where] = EDITS[edit](lines[first + where])
    path = tmp_path / "edited.csv"
    block = 2
    if where == 0:  # a damaged first row must not decide the widths: look at more rows
        monkeypatch.setattr(bulk, "CHUNK", 1 << 20)
        block = 100
    path.write_bytes(b"".join(lines))
    agree(path, block)
    path.write_bytes(b"".join(lines).removesuffix(b"\n"))
    agree(path, block)


@pytest.mark.parametrize("header", [b"\xef\xbb\xbf", b"\n\n", b"# one\n\n# two\n"])
def test_headers(header: bytes, tmp_path: Path) -> None:
    path = write(fake_stars(5, (3, 4)), tmp_path / "s.csv")
    text = path.read_bytes()
    for whole in (header + text, text.replace(b"\n", b"\r\n"), text.replace(b"\n", b"\r"), header):
        path.write_bytes(whole)
        agree(path)


def test_a_column_twice_and_absent_columns(tmp_path: Path) -> None:
    path = write(fake_stars(3, (3, 4)), tmp_path / "s.csv")
    names, rows = path.read_text().split("\n", 1)
    path.write_text(f"{names.replace('solution_id', 'source_id')}\n{rows}")
    agree(path)
    path.write_text(f"{names.replace('rp_coefficients', 'other')}\n{rows}")
    agree(path)


@pytest.mark.parametrize("isal", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_cut_anywhere(
    ending: str, isal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gunzip, "has_isal", lambda: isal and gunzip_has_isal())
    path = write(fake_stars(3, (3, 4)), tmp_path / f"cut.{ending}")
    whole = path.read_bytes()
    for size in {0, 1, 40, *np.linspace(100, len(whole), 30, dtype=int).tolist()}:
        path.write_bytes(whole[:size])
        for bad_rows in ("error", "flag"):
            slow = outcome(read_delimited(path, bad_rows, 2, ","))  # type: ignore[arg-type]
            fast = outcome(bulk.read_bulk(path, bad_rows, 2))  # type: ignore[arg-type]
            # stars just before the cut may be lost with it: the file is refused in any case
            assert fast[-1] == slow[-1]
            assert fast[:-1] == slow[: len(fast) - 1]


@pytest.mark.parametrize("isal", [True, False])
def test_what_is_not_gzip(isal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gunzip, "has_isal", lambda: isal and gunzip_has_isal())
    path = tmp_path / "s.csv.gz"
    whole = bytearray(gzip.compress(b"source_id," + bytes(range(256)) * 100))
    for position in (0, 2, 11, len(whole) // 2, -5, -1):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=r"s\.csv\.gz"):
            list(bulk.read_bulk(path, "flag"))


def test_gzip_members_one_after_another(tmp_path: Path) -> None:
    path = write(fake_stars(4, (3, 4)), tmp_path / "s.csv.gz")
    text = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(text[:777]) + gzip.compress(text[777:]))
    agree(path)


@pytest.mark.parametrize("order", ["twice", "descending", "descending and twice"])
def test_source_ids_in_any_order(order: str, tmp_path: Path) -> None:
    stars = fake_stars(9, (3, 4))
    if "descending" in order:
        stars.source_id.reverse()
    if "twice" in order:
        stars.source_id[7] = stars.source_id[1]
    agree(write(stars, tmp_path / "s.csv.gz"), block=2)
    agree(write(stars, tmp_path / "s.csv.gz"), block=100)


def test_numbers_outside_what_can_be(tmp_path: Path) -> None:
    def stars_with(name: str, value: float) -> FakeStars:
        stars = fake_stars(3, (3, 4))
        stars.cells[name][1] = stars.cells[name][1].copy()
        stars.cells[name][1][1] = value
        return stars

    limit = np.float32(1)
    for name, value in (
        ("rp_coefficient_correlations", float(np.nextafter(limit, np.float32(2)))),
        ("rp_coefficient_correlations", -1.0),
        ("rp_coefficient_correlations", -1.00001),
        ("bp_coefficient_errors", 1e-45),
        ("bp_coefficients", -0.0),
        ("bp_coefficients", 5e-324),
    ):
        agree(write(stars_with(name, value), tmp_path / "s.csv"))


def parsed(texts: list[str]) -> list[float] | None:
    """What the compiled parser makes of an array, None if it passes it on."""
    line = ('"[' + ",".join(texts) + ']"').encode()
    data = np.frombuffer(line + bytes(compiled_text.PADDING), np.uint8)
    out = np.zeros(len(texts))
    end = compiled_text.numbers(data.ctypes.data, 0, out, False, -np.inf, np.finfo(np.float64).max)
    return None if end < 0 else out.tolist()


@settings(max_examples=600, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
@example(2.2250738585072014e-308)
@example(1.7976931348623157e308)
@example(9007199254740993.0)
def test_every_float64_comes_back(value: float) -> None:
    mantissa, _, exponent = repr(value).partition("e")
    for text in (repr(value), f"{value:.16E}", f"{value:.17e}", f"{value:.9g}", f"{value:.3E}",
                 f"{mantissa}E{int(exponent or 0)}"):  # fmt: skip
        found = parsed([text])
        assert found is None or found == [float(text)]
        # what an archive may hold must not be left to the slow parser
        if 1e-300 < abs(value) < 1e300 and len(text) <= 24 and "inf" not in text:
            assert found == [float(text)]


@settings(max_examples=600, deadline=None)
@given(st.integers(0, 10**19 - 1), st.integers(-345, 310))
@example(9007199254740993, 0)  # an exact half between two floats
@example(9007199254740995, 0)
@example(9007199254740993, 1)
@example(4503599627370497 * 5, -1)
@example(10**19 - 1, -25)
def test_every_decimal_is_rounded_as_python_rounds_it(mantissa: int, power: int) -> None:
    for text in (f"{mantissa}E{power}", f"-{mantissa}e{power:+d}"):
        found = parsed([text])
        assert found is None or (
            found == [float(text)] and len(str(found)) == len(str([float(text)]))
        )
        if -280 < power < 280:
            assert found is not None


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**53), st.integers(-60, 60))
def test_exact_halves_go_to_the_even_neighbour(mantissa: int, power: int) -> None:
    """A decimal that lies just between two floats is written out in full and must be sure."""
    half = (2 * mantissa + 1) * 2**power if power >= 0 else (2 * mantissa + 1)
    text = str(half) if len(str(half)) <= 19 else f"{half:.18E}"
    found = parsed([text])
    assert found is None or found == [float(text)]


@settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.from_regex(r"-?[0-9]\.[0-9]{1,16}(E-?[0-9]{1,2})?", fullmatch=True),
        min_size=1,
        max_size=4,
    )
)
@example(["-0.0", "0.0", "0.0E-9", "-0.0E9"])
@example(["0.1234567890123", "-0.1234567890123", "9.9999999999999E-9", "-9.999999999999E9"])
@example(["0.12345678901234", "-0.12345678901234", "1.234567890123456", "-1.2E-10"])
def test_numbers_as_correlations_are_written(texts: list[str]) -> None:
    found = parsed(texts)
    assert found is not None
    assert list(map(repr, found)) == [repr(float(text)) for text in texts]


@pytest.mark.parametrize(
    "text",
    ["1.", "-1.", "1.E-4", ".1", "-.1", "1..2", "--1.2", "1.2E", "1.2E-", "1.2E--4", "1.2-4",
     "1.2345678901234x", "1.2 3", "a.25", "1,25", "1.2E4E4", "\x001.2"],
)  # fmt: skip
def test_what_is_nearly_such_a_number_is_passed_on(text: str) -> None:
    assert parsed([text]) is None


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789.-+eE ,N", max_size=24))
def test_no_text_is_taken_that_float_refuses(text: str) -> None:
    found = parsed([text])
    if found is not None:
        assert found == [float(text)]


def test_real_files(shared_data: Path) -> None:
    for path in sorted((shared_data / "xp_archive").glob("*.csv")):
        agree(path)


def test_large_files_take_the_compiled_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Path] = []

    def noticed(path: Path, *rest: Any) -> Iterator[Stars]:
        taken.append(path)
        return iter(())

    monkeypatch.setattr(bulk, "read_bulk", noticed)
    path = write(fake_stars(3, (3, 4)), tmp_path / "s.csv")
    assert len(list(read_blocks(path))) == 1
    assert taken == []
    monkeypatch.setattr("xplabels.io.csv.COMPILED_FROM", 10)
    list(read_blocks(path))
    assert taken == [path]
    monkeypatch.setattr("xplabels.io.csv.available", lambda: False)
    assert len(list(read_blocks(path))) == 1
    assert len(taken) == 1


def test_numba_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not jit.available()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Ten times the rows, the same peak: blocks are let go, the buffer stays small."""
    import tracemalloc

    def peak(rows: int) -> int:
        path = write(fake_stars(rows, (10, 10)), tmp_path / f"{rows}.csv.gz")
        tracemalloc.start()
        for _ in bulk.read_bulk(path, "error", 20):
            pass
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(50)  # what is loaded and compiled once does not count
    assert peak(2000) < 1.3 * peak(200)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("isal", [True, False])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_file_is_summed_as_it_is_read(
    ending: str, isal: bool, line_end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By both readers, of which the compiled one begins and the other goes on at odd line ends."""
    if isal and not gunzip_has_isal():
        pytest.skip("isal is not installed")
    monkeypatch.setattr(gunzip, "has_isal", lambda: isal)
    path = write(fake_stars(30, (10, 10)), tmp_path / f"s.{ending}")
    text = gzip.decompress(path.read_bytes()) if ending == "csv.gz" else path.read_bytes()
    text = text.replace(b"\n", line_end.encode())
    path.write_bytes(gzip.compress(text) if ending == "csv.gz" else text)
    expected = hashlib.md5(path.read_bytes()).hexdigest()
    for reader in (bulk.read_bulk, partial(read_delimited, delimiter=",")):
        digest = gunzip.Digest()
        assert sum(len(stars) for stars in reader(path, "error", 7, digest=digest)) == 30  # type: ignore[operator]
        digest.take_rest(path)
        assert digest.hexadecimal() == expected
