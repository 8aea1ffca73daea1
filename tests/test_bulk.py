"""What comes out of delimited text, stars and complaints, does not depend on simdjson."""

from __future__ import annotations

import gzip
import hashlib
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archive_files import fake_stars, write
from fuzz import outcome
from test_archive_damage import DAMAGE
from xplabels.core.errors import InputError
from xplabels.io import files, read_blocks

simdjson = pytest.importorskip("simdjson")

ENDINGS = ("csv", "csv.gz")


def agree(path: Path, block: int = 2) -> None:
    """With simdjson and without, both ways of treating damaged rows."""
    for bad_rows in ("error", "flag"):
        fast = outcome(path, bad_rows, block)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "simdjson", None)
            assert fast == outcome(path, bad_rows, block)


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
    "arrays in arrays": lambda line: line.replace(b"[", b"[[", 1).replace(b"]", b"]]", 1),
    "every number an array": lambda line: line.replace(line.split(b'"')[1], b"[[1],[2],[3]]", 1),
    "two arrays": lambda line: line.replace(line.split(b'"')[1], b"[1],[2]", 1),
    "inner brackets": lambda line: line.replace(line.split(b'"')[1], b"[1],2,[3]", 1),
    "true": lambda line: line.replace(b"[", b"[true,", 1),
    "null inside": lambda line: line.replace(b"[", b"[null,", 1),
    "object": lambda line: line.replace(line.split(b'"')[1], b"[{}]", 1),
    "quoted null": lambda line: line.replace(line.split(b'"')[1], b"null", 1),
    "NaN": lambda line: line.replace(b"[", b"[NaN,", 1),
    "plus": lambda line: line.replace(b"[", b"[+", 1),
    "underscore": lambda line: line.replace(b".", b"_", 1),
    "no digit after the point": lambda line: line.replace(b"[", b"[3.,", 1),
    "no digit before the point": lambda line: line.replace(b"[", b"[.3,", 1),
    "leading zeros": lambda line: line.replace(b"[", b"[00", 1),
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
    "id too long": lambda line: b"9" * 5000 + line,
    "id of 2^63": lambda line: b"9223372036854775808," + line.split(b",", 1)[1],
    "id of 2^63 - 1": lambda line: b"9223372036854775807," + line.split(b",", 1)[1],
    "negative id": lambda line: b"-" + line,
    "id with a space": lambda line: b" " + line,
    "id as float": lambda line: line.replace(b",", b".0,", 1),
    "id of wrong bytes": lambda line: b"\xff" + line,
    "comment": lambda line: b"#" + line,
    "nothing": lambda line: b"",
}


@pytest.mark.parametrize("where", [0, 2, 4])
@pytest.mark.parametrize("edit", EDITS)
def test_any_line(edit: str, where: int, tmp_path: Path) -> None:
    whole = gzip.decompress(write(fake_stars(5, (3, 4)), tmp_path / "s.csv.gz").read_bytes())
    lines = whole.splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if line.startswith(b"source_id")) + 1
    lines[first + where] = EDITS[edit](lines[first + where])
    path = tmp_path / "edited.csv"
    path.write_bytes(b"".join(lines))
    agree(path)
    path.write_bytes(b"".join(lines).removesuffix(b"\n"))
    agree(path)


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?[0-9]\.[0-9]{1,20}(E-?[0-9]{1,3})?", fullmatch=True),
    st.integers(-(10**21), 10**21).map(str),
    st.text(alphabet="0123456789.-+eE []()", max_size=12),
)


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(NUMBERS, min_size=3, max_size=3),
    part=st.sampled_from(["coefficients", "coefficient_errors", "coefficient_correlations"]),
)
@example(texts=["9007199254740993.0", "-0.0", "2.2250738585072014e-308"], part="coefficients")
def test_any_number(texts: list[str], part: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Correctly rounded, or refused, as Python does it."""
    path = write(fake_stars(3, (3, 4)), tmp_path_factory.mktemp("n") / "s.csv")
    lines = path.read_text().splitlines(keepends=True)
    column = lines[0].strip().split(",").index(f"bp_{part}") - 2
    cells = lines[2].split('"')
    cells[1 + 2 * column] = f"({', '.join(texts)})"
    lines[2] = '"'.join(cells)
    path.write_text("".join(lines))
    agree(path)


@pytest.mark.parametrize("header", [b"\xef\xbb\xbf", b"\n\n", b"# one\n\n# two\n"])
def test_headers(header: bytes, tmp_path: Path) -> None:
    path = write(fake_stars(5, (3, 4)), tmp_path / "s.csv")
    text = path.read_bytes()
    read = outcome(path)
    for whole in (header + text, text.replace(b"\n", b"\r\n"), text.replace(b"\n", b"\r")):
        path.write_bytes(whole)
        assert outcome(path) == read
    path.write_bytes(header)
    with pytest.raises(InputError, match=r"is empty|absent"):
        list(read_blocks(path))


@pytest.mark.parametrize("isal", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_cut_anywhere(
    ending: str, isal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isal:
        monkeypatch.setitem(sys.modules, "isal.igzip", None)
    path = write(fake_stars(3, (3, 4)), tmp_path / f"cut.{ending}")
    whole = path.read_bytes()
    for size in {0, 1, 40, *np.linspace(100, len(whole), 30, dtype=int).tolist()}:
        path.write_bytes(whole[:size])
        agree(path)


def test_gzip_members_one_after_another(tmp_path: Path) -> None:
    path = write(fake_stars(4, (3, 4)), tmp_path / "s.csv.gz")
    read = outcome(path)
    text = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(text[:777]) + gzip.compress(text[777:]))
    assert outcome(path) == read


def test_real_files(shared_data: Path) -> None:
    for path in sorted((shared_data / "xp_archive").glob("*.csv")):
        agree(path)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Ten times the rows, the same peak: blocks are let go."""

    def peak(rows: int) -> int:
        path = write(fake_stars(rows, (10, 10)), tmp_path / f"{rows}.csv.gz")
        tracemalloc.start()
        for _ in read_blocks(path, "error", 20):
            pass
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(50)  # what is loaded once does not count
    assert peak(2000) < 1.3 * peak(200)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("isal", [True, False])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_file_is_summed_as_it_is_read(
    ending: str, isal: bool, line_end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isal:
        monkeypatch.setitem(sys.modules, "isal.igzip", None)
    path = write(fake_stars(30, (10, 10)), tmp_path / f"s.{ending}")
    text = gzip.decompress(path.read_bytes()) if ending == "csv.gz" else path.read_bytes()
    text = text.replace(b"\n", line_end.encode())
    path.write_bytes(gzip.compress(text) if ending == "csv.gz" else text)
    digest = files.Digest()
    assert sum(len(stars) for stars in read_blocks(path, block=7, digest=digest)) == 30
    digest.take_rest(path)
    assert digest.hexadecimal() == hashlib.md5(path.read_bytes()).hexdigest()
