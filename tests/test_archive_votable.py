"""VOTables: what is read here and what astropy reads give the same arrays; damage is named."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io.votable import from_table
from astropy.table import Table

from archive_files import fake_stars, same, write
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.io import read, read_blocks

SERIALISATIONS = ("tabledata", "binary2", "binary")  # astropy reads the last


def test_astropy_reads_the_same(shared_data: Path, tmp_path: Path) -> None:
    """A number that stands for a null, unused here, is what hands a file to astropy."""
    for name in ("XP_CONTINUOUS_RAW_with_missing_BP.xml", "XP_CONTINUOUS_RAW_plain.xml"):
        path = shared_data / "xp_archive" / name
        field = re.search(r'<FIELD[^>]*name="solution_id"[^>]*?(/>|>)', path.read_text())
        assert field
        end = "</FIELD>" if field[1] == "/>" else ""
        null = field[0].removesuffix(field[1]) + f'><VALUES null="-1"/>{end}'
        (tmp_path / name).write_text(path.read_text().replace(field[0], null))
        same(read(path), read(tmp_path / name))


@pytest.mark.parametrize("serialisation", SERIALISATIONS)
def test_columns_of_every_kind_may_stand_between(serialisation: str, tmp_path: Path) -> None:
    """Arrays of fixed length, text, truth values and numbers of other sizes."""
    made = fake_stars(5, (3, 4))
    table = Table({"name": ["a", "bc", "", "def", "g"], "source_id": made.source_id})
    for number, (name, cells) in enumerate(made.cells.items()):
        kind = ("i2", "u1", "f4", "c16", "?", "i4")[number]
        table[f"extra_{number}"] = np.arange(5).astype(kind)
        table[name] = np.array(cells)
    file = from_table(table)
    file.to_xml(str(tmp_path / "made.vot"), tabledata_format=serialisation)
    same(read(tmp_path / "made.vot"), read(write(made, tmp_path / "plain.csv")))


@pytest.mark.parametrize("ending", ["vot", "xml"])
def test_a_table_of_something_else_may_come_first(ending: str, tmp_path: Path) -> None:
    path = write(fake_stars(3, (3, 4)), tmp_path / f"one.{ending}")
    other = (
        '<TABLE><FIELD name="a" datatype="int"/><DATA><TABLEDATA><TR><TD>1</TD></TR></TABLEDATA>'
        '</DATA></TABLE><TABLE><FIELD name="b" datatype="bit"/><DATA><BINARY2>'
        '<STREAM encoding="base64"></STREAM></BINARY2></DATA></TABLE><TABLE>'
    )
    both = tmp_path / f"both.{ending}"
    both.write_text(path.read_text().replace("<TABLE>", other, 1))
    same(read(path), read(both))
    alone = tmp_path / f"alone.{ending}"
    alone.write_text(path.read_text().replace('"source_id"', '"id"'))
    with pytest.raises(InputError, match=r"alone\..*column 'source_id' is absent"):
        read(alone)


def nulled(path: Path, column: int) -> Path:
    """The same BINARY2 file of few columns with a null in one of the first row."""
    text = path.read_text()
    found = re.search(r"<STREAM encoding='base64'>(.*)</STREAM>", text, re.DOTALL)
    assert found
    data = bytearray(base64.b64decode(found[1]))
    data[0] |= 128 >> column
    path.write_text(text.replace(found[1], base64.b64encode(data).decode()))
    return path


def test_the_null_bits_of_binary2_count(tmp_path: Path) -> None:
    made = fake_stars(2, (3, 4))
    path = write(made, tmp_path / "a.vot")
    for column in (1, 2, 3):  # BP
        nulled(path, column)
    stars = read(path)
    assert stars.flags.tolist() == [Flag.MISSING_BP, 0]
    assert np.isnan(stars.spectra.bp.coefficients[0]).all()
    nobody = read(nulled(write(made, tmp_path / "b.vot"), 0))
    assert nobody.source_id.tolist() == made.source_id[1:]
    assert nobody.notes[0].endswith("1 row without a source_id left out")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<TD>{star}</TD>", "<TD>1e18</TD>", r"x\.xml, row 2, .*: 1e18 went through"),
        ("<TD>{star}</TD>", "<TD>" + "9" * 25 + "</TD>", "row 2, column source_id: '9+' is"),
        ("<TD>{coefficients}</TD>", "", r"row 2, source_id \d+: has 6 of 7 columns"),
        ("{coefficients}", "1.0 nought 3.0", r"row 2, .*bp_coefficients: cannot be read as num"),
    ],
)
def test_damage_to_text_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    made = fake_stars(3, (3, 4))
    path = write(made, tmp_path / "x.xml")
    coefficients = " ".join(str(value) for value in made.cells["bp_coefficients"][1])
    shown = old.format(star=made.source_id[1], coefficients=coefficients)
    assert shown in path.read_text()
    path.write_text(path.read_text().replace(shown, new))
    with pytest.raises(InputError, match=message):
        read(path)


def test_a_stream_that_ends_inside_a_row_is_named(tmp_path: Path) -> None:
    """Whole XML around it: nothing else would notice."""
    path = write(fake_stars(3, (3, 4)), tmp_path / "x.vot")
    text = path.read_text()
    found = re.search(r"base64'>(.*)</STREAM>", text, re.DOTALL)
    assert found
    data = base64.b64decode(found[1])
    whole = 0
    for cut in range(0, len(data), 3):
        path.write_text(text.replace(found[1], base64.b64encode(data[:cut]).decode()))
        try:
            whole += sum(len(block) for block in read_blocks(path)) in (1, 2)
        except InputError as error:
            assert "x.vot" in str(error)  # noqa: PT017
    assert whole <= 2  # it may end between two rows
