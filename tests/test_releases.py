"""Declarations of data releases: what they say, what is wrong with one, and what a service has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fetch_services import QUICK, serving_dr4
from services.made4 import made_dr4
from services.tap import TapService
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.fetch import compare
from xplabels.fetch.tap import Tap
from xplabels.releases import NAMES, SOURCES, load_release

SOURCE = Path(__file__).parents[1] / "src" / "xplabels"
DR4 = (SOURCE / "data" / "dr4.toml").read_text()


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    """A user's copy of DR4's declaration."""
    text = DR4
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "mine.toml").write_text(text)
    return folder / "mine.toml"


def test_no_name_of_the_archive_is_left_in_code() -> None:
    """Outside docstrings; source_id, and the product gaia_source, are our own words."""
    names = set()
    for release in map(load_release, NAMES):
        names |= {release.schema, release.title, *release.datalink.products}
        names |= {*release.datalink.structures, release.bulk.spectra, release.bulk.sources}
        for table in release.tables.values():
            names |= {table.name, table.label, *table.needs()}
    names -= {"source_id", SOURCES, "name"}
    more = ("cuts/selecting.py", "io/tables.py", "pipeline/inputs.py", "pipeline/photometry.py")
    for path in (*(SOURCE / "fetch").glob("*.py"), *(SOURCE / name for name in more)):
        tree = ast.parse(path.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words = set(re.findall(r"[\w.]+", node.value)) if id(node) not in prose else set()
                assert not words & names, f"{path.name}, line {node.lineno}: {words & names}"


def test_the_declarations() -> None:
    three, four = map(load_release, NAMES)
    assert three.widths == (55, 55)
    assert four.widths == (51, 55)
    assert [*three.products] == ["gaia_source", "tmass", "allwise"]
    assert [*four.products] == ["gaia_source", "tmass", "catwise2020"]
    excess = next(c for c in four.tables["gaia_source"].columns if c.name.endswith("excess_factor"))
    fluxes = [f"phot_{band}_mean_flux" for band in ("bp", "rp", "g")]
    assert sorted(excess.needs) == sorted(fluxes)
    assert excess.adql("t") == "(t.{} + t.{}) / t.{}".format(*fluxes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("has_spectrum", "has_spectra", r"mine\.toml: has an unknown key 'has_spectra'; "),
        ('schema = "gaiadr4"', "schema = 4", r"mine\.toml, schema: 4 is not text; give text"),
        ('schema = "gaiadr4"', "", r"mine\.toml: lacks the key 'schema'; add it"),
        ("widths = [51, 55]", "widths = [51]", r"widths: are not two numbers; write \[BP, RP\]"),
        ('cone = "gaia_source"', 'cone = "gaia_sourc"', r"cone: 'gaia_sourc' .*'gaia_source'"),
        ("structures = ", "structure = ", r"\[datalink\]: has an unknown key 'structure'"),
        ('format = "csv"', 'format = "json"', r"\[datalink\] format: 'json' is none "),
        ('matched = "tmass"', 'matched = "twomass"', r"parts: 'twomass' is none .*write 'tmass'"),
        ('match = "original_ext_source_id"', "", r"best_neighbour\].*: lacks the key 'match'"),
        ('column = "abf"', 'colum = "abf"', r"columns\] ab_flags: has an unknown key 'colum'"),
        ('column = "abf"', 'column = "a-b"', r"ab_flags column: 'a-b' is not a name"),
        ('type = "bool" }  # if', 'type = "boolean" }  # if', r"has_xp type: 'boolean' .*'bool'"),
        ('{ type = "bool" }  # if', "3  # if", r"columns\] has_xp: 3 is not a table"),
        (") / phot_g_mean_flux", ") / pow(2)", r"excess_factor: the expression .* cannot be used"),
        (") / phot_g_mean_flux", ") / 'x'", r"excess_factor: the expression .* cannot be used"),
        (") / phot_g_mean_flux", ") /", r"excess_factor: the expression .* cannot be"),
        ("[products.gaia_source]", "[products.sources]", r"\[products\]: has no product"),
        ("[ids]", "[ids", r"mine\.toml: is not a whole TOML file"),
    ],
)  # fmt: skip
def test_a_wrong_declaration(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_release(changed(tmp_path, (old, new)))


def test_no_declaration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data release 'dr9'; choose dr3 or dr4"):
        load_release("dr9")
    with pytest.raises(InputError, match=r"none\.toml: does not exist"):
        load_release(tmp_path / "none.toml")


def test_a_service_that_differs_in_three_columns_names_these_three(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_dr4(8)
    source = made.tables["gaiadr4.gaia_source"]
    source["phot_g_mag_mean"] = source.pop("phot_g_mean_mag")
    del source["ruwe"]
    flags = made.tables["gaiadr4.all_source_flags"]
    flags["has_xp_mean"] = flags.pop("has_xp")
    with TapService(made.tables) as tap:
        found = compare(load_release("dr4"), Tap(tap.address, QUICK.retry))
        assert main(["releases", "dr4", "--check", "--url", tap.address]) == 2
        missing = {(one.table.name, one.column) for one in found.missing}
        assert missing == {
            ("gaiadr4.gaia_source", "phot_g_mean_mag"),
            ("gaiadr4.gaia_source", "ruwe"),
            ("gaiadr4.all_source_flags", "has_xp"),
        }
        said = capsys.readouterr()
        assert said.err.count("column gaiadr4.") == 3
        assert "column gaiadr4.gaia_source.phot_g_mean_mag (nearest: phot_g_mag_mean" in said.err
        assert "column gaiadr4.gaia_source.ruwe, the column" in said.err
        assert "column gaiadr4.all_source_flags.has_xp (nearest: has_xp_mean" in said.err
        assert "has_epoch_xp): [tables.all_source_flags.columns] has_xp" in said.out
        assert "gaiadr4.all_source_flags: 1 of 2 columns declared are there" in said.out

        # the user's copy, corrected as it says
        copy = changed(
            tmp_path,
            ('phot_g_mean_mag = { type', 'phot_g_mean_mag = { column = "phot_g_mag_mean", type'),
            ('ruwe = { type = "float32" }', 'ruwe = { type = "float32", optional = true }'),
            ("has_xp = { ", 'has_xp = { column = "has_xp_mean", '),
        )  # fmt: skip
        text = copy.read_text()
        head, tail = text.split("[tables.all_source_photometry]")
        copy.write_text(
            head
            + "[tables.all_source_photometry]"
            + tail.replace("phot_g_mag_mean", "phot_g_mean_mag")
        )
        assert main(["releases", str(copy), "--check", "--url", tap.address]) == 0
        assert "lacks the optional column gaiadr4.gaia_source.ruwe" in capsys.readouterr().out


def test_a_table_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    made = made_dr4(8)
    made.tables["gaiadr4.catwise_best_neighbour"] = made.tables.pop(
        "gaiadr4.catwise2020_best_neighbour"
    )
    del made.tables["gaiadr4.all_source_astrometry"]  # beside, and all of it is optional
    with TapService(made.tables) as tap:
        assert main(["releases", "dr4", "--check", "--url", tap.address]) == 2
    said = capsys.readouterr().err
    assert "the service lacks the table gaiadr4.catwise2020_best_neighbour" in said
    assert "nearest: gaiadr4.catwise_best_neighbour" in said
    assert "all_source_astrometry" not in said


def test_services_that_write_names_otherwise() -> None:
    """Names of tables without a schema, or of columns in capitals and quotes, are no difference."""
    made = made_dr4(8)
    with TapService(made.tables) as tap:
        tap.execute(
            "UPDATE TAP_SCHEMA.columns SET column_name = '\"' || upper(column_name) || '\"'"
        )
        tap.execute("UPDATE TAP_SCHEMA.columns SET table_name = 'gaia_source' "
                    "WHERE table_name = 'gaiadr4.gaia_source'")  # fmt: skip
        assert not compare(load_release("dr4"), Tap(tap.address, QUICK.retry)).missing


def test_the_list_and_a_copy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["releases"]) == 0
    assert re.findall(r"^(dr\d) ", capsys.readouterr().out, re.MULTILINE) == [*NAMES]
    assert main(["releases", "dr4"]) == 0
    assert capsys.readouterr().out == DR4


def test_fetch_compares_before_it_downloads(tmp_path: Path) -> None:
    made = made_dr4(8)
    del made.tables["gaiadr4.gaia_source"]["parallax"]
    with serving_dr4(made) as services:
        with pytest.raises(
            InputError, match=r"lacks the column gaiadr4.gaia_source.parallax.*--release my"
        ):
            services.fetch(tmp_path / "out")
        assert not services.datalink.asked
    assert not [*tmp_path.iterdir()]
