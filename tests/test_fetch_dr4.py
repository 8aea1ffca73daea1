"""Gaia DR4 from a made archive after the draft data model, and what the release may bring instead.

Each ends in the right stars, or in an error that says what to edit in the declaration.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from archive_files import FakeStars
from archive_files import write as write_file
from fetch_services import Services, account, serving_dr4
from services.made4 import made_dr4
from test_releases import changed
from xplabels.core.errors import InputError
from xplabels.fetch import Cone, Targets, fetch_stars
from xplabels.io import read, read_stars
from xplabels.io.hats import PartitionedTable
from xplabels.io.tables import KeyedTable
from xplabels.releases import using
from xplabels.surveys import read_survey

STARS = 24
RUWE = 'ruwe = { type = "float32" }'
RENAMED_RUWE = 'ruwe = { type = "float32", column = "re_normalised_uwe" }'
STRUCTURES = '["DATAMODEL_GAIA", "RAW"]'


@pytest.fixture(scope="module")
def shared() -> Iterator[Services]:
    with serving_dr4(made_dr4(STARS)) as services:
        yield services


@pytest.fixture
def dr4(shared: Services) -> Services:
    """The made DR4, without past requests or changes."""
    shared.calm()
    shared.release, shared.datalink.structures = "dr4", ("DATAMODEL_GAIA", "DATAMODEL_STANDARD")
    return shared


def test_stars_in_and_outside_of_gaia_source(dr4: Services, tmp_path: Path) -> None:
    output = tmp_path / "out"
    summary = dr4.fetch(output)
    assert summary.complete
    assert [*summary.counts] == ["gaia_source", "tmass", "catwise2020", "xp"]
    dr4.check_spectra(output)
    assert read_stars(output / "xp.parquet").origin == "Gaia DR4 MEAN_SPECTRUM_XP"
    rows = {
        row["source_id"]: row for row in pq.read_table(output / "gaia_source.parquet").to_pylist()
    }
    tables = dr4.made.tables
    assert sorted(rows) == dr4.made.ids.tolist()
    photometry = tables["gaiadr4.all_source_photometry"]
    inside = set(tables["gaiadr4.gaia_source"]["source_id"])
    assert 0 < len(inside) < STARS
    for place, one in enumerate(photometry["source_id"]):
        row = rows[one]
        g, bp, rp = (photometry[f"phot_{band}_mean_flux"][place] for band in ("g", "bp", "rp"))
        assert row["phot_bp_rp_excess_factor"] == np.float32((bp + rp) / g)
        assert row["phot_g_mean_mag"] == photometry["phot_g_mean_mag"][place]
        assert row["ra"] == tables["gaiadr4.all_source_astrometry"]["ra"][place]
        assert (row["ruwe"] is None) == (one not in inside)
        assert row["has_xp"] == (one in dr4.with_spectrum)
    catwise = pq.read_table(output / "catwise2020.parquet")
    near = tables["gaiadr4.catwise2020_best_neighbour"]["source_id"]
    assert catwise.column("source_id").to_pylist() == sorted(near)
    values = tables["external.catwise2020"]["w1mpro_pm"]
    one = catwise.to_pylist()[3]
    assert one["w1mpro_pm"] == values[near.index(one["source_id"])]


def test_a_cone(dr4: Services, tmp_path: Path) -> None:
    archive = dr4.archive
    assert fetch_stars(
        Targets.of_cone(Cone(10.0, 90.0, 170.0), archive.release),
        tmp_path / "c",
        archive,
        ["tmass"],
    ).complete
    assert set(account(tmp_path / "c")) <= set(dr4.made.tables["gaiadr4.gaia_source"]["source_id"])


@pytest.mark.parametrize("structure", ["DATAMODEL_GAIA", "RAW"])
def test_the_words_that_the_service_knows(dr4: Services, tmp_path: Path, structure: str) -> None:
    """The old word where it alone works; the new one is tried first, and asked for once."""
    dr4.datalink.structures = (structure, "DATAMODEL_STANDARD")
    assert dr4.fetch(tmp_path / "out", products=["xp"]).complete
    dr4.check_spectra(tmp_path / "out")
    assert sum(len(ids) == 1 for ids in dr4.datalink.asked) <= 2


def test_a_service_with_other_words(dr4: Services, tmp_path: Path) -> None:
    dr4.datalink.structures = ("DATAMODEL_NEW",)
    with pytest.raises(InputError, match=r"none of the words declared: MEAN_SPECTRUM_XP DATAMODEL_"
                       r"GAIA.*HTTP 500.*under \[datalink\] in .*dr4\.toml"):  # fmt: skip
        dr4.fetch(tmp_path / "out", products=["xp"])
    dr4.release = changed(tmp_path, (STRUCTURES, '["DATAMODEL_NEW"]'))
    assert dr4.fetch(tmp_path / "new", products=["xp"]).complete
    dr4.check_spectra(tmp_path / "new")


def test_arrays_that_are_unrolled(dr4: Services, tmp_path: Path) -> None:
    dr4.release = changed(tmp_path, (STRUCTURES, '["DATAMODEL_STANDARD"]'))
    summary = dr4.fetch(tmp_path / "out", products=["xp"])
    reason = next(why for _, why, _ in summary.reasons if "several rows of one star" in why)
    assert reason.endswith(f"under [datalink] structures in {dr4.release}")


@pytest.mark.parametrize("kind", ["csv", "ecsv", "votable", "votable_plain", "fits"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("renamed", [False, True])
def test_any_format(dr4: Services, tmp_path: Path, kind: str, zipped: bool, renamed: bool) -> None:
    """Whatever was asked for; zipped or not; under other names of columns."""
    dr4.datalink.answers, dr4.datalink.zipped = kind, zipped
    if renamed:
        dr4.datalink.renamed = {"bp_coefficients": "bp_mean_coefficients"}
        with pytest.raises(InputError, match=r"dr4\.toml: .*no column 'bp_coefficients' \(nearest: "
                           r"bp_mean_coefficients.*\[spectra\] bp_coefficients = "):  # fmt: skip
            dr4.fetch(tmp_path / "out", products=["xp"])
        new = '[spectra]\nbp_coefficients = "bp_mean_coefficients"\n\n[datalink]'
        dr4.release = changed(tmp_path, ("[datalink]", new))
    assert dr4.fetch(tmp_path / "new", products=["xp"]).complete
    dr4.check_spectra(tmp_path / "new")


def test_files_under_names_that_a_declaration_gives(dr4: Services, tmp_path: Path) -> None:
    cells = dict(dr4.made.spectra.cells)
    cells["bp_mean_coefficients"] = cells.pop("bp_coefficients")
    renamed = FakeStars(dr4.made.spectra.source_id, cells)
    mine = changed(
        tmp_path,
        ("[datalink]", '[spectra]\nbp_coefficients = "BP_mean_coefficients"\n\n[datalink]'),
    )
    expected = read(write_file(dr4.made.spectra, tmp_path / "expected.csv"))
    for ending in ("csv", "ecsv", "vot", "fits"):
        path = write_file(renamed, tmp_path / f"renamed.{ending}")
        with pytest.raises(InputError, match="bp_coefficients"):
            read(path)
        with using(mine):
            found = read(path).spectra.bp.coefficients
        np.testing.assert_array_equal(found, expected.spectra.bp.coefficients)


def test_a_format_that_is_asked_for(dr4: Services, tmp_path: Path) -> None:
    dr4.release = changed(tmp_path, ('format = "csv"', 'format = "fits"'))
    assert dr4.fetch(tmp_path / "new", products=["xp"]).complete
    dr4.check_spectra(tmp_path / "new")


def test_other_widths_are_taken_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving_dr4(made_dr4(12, widths=(52, 54))) as services:
        assert services.fetch(tmp_path / "out", products=["xp"]).complete
        services.check_spectra(tmp_path / "out")
    assert caplog.text.count("52 + 54 coefficients, where dr4.toml says 51 + 55") == 1


@pytest.mark.parametrize("grades", [[0, 2], ["f", "t"], ["false", "true"]])
def test_any_writing_of_has_xp(tmp_path: Path, grades: list[int | str]) -> None:
    """A grade, as other columns of the table are; or text."""
    made = made_dr4(12)
    flags = made.tables["gaiadr4.all_source_flags"]
    flags["has_xp"] = [grades[known] for known in flags["has_xp"]]
    with serving_dr4(made) as services:
        assert services.fetch(tmp_path / "out", products=["xp"]).complete
        assert {one for ids in services.datalink.asked for one in ids} <= services.with_spectrum
        services.check_spectra(tmp_path / "out")


def test_a_renamed_and_a_new_column(tmp_path: Path) -> None:
    made = made_dr4(12)
    source = made.tables["gaiadr4.gaia_source"]
    source["re_normalised_uwe"] = source.pop("ruwe")
    source["colour_origin"] = [3] * len(source["source_id"])
    with serving_dr4(made) as services:
        with pytest.raises(InputError, match=r"lacks the column gaiadr4.gaia_source.ruwe"):
            services.fetch(tmp_path / "out", products=[])
        new = f'{RENAMED_RUWE}\ncolour_origin = {{ type = "int32" }}'
        services.release = changed(tmp_path, (RUWE, new))
        assert services.fetch(tmp_path / "out", products=[]).complete
    rows = pq.read_table(tmp_path / "out" / "gaia_source.parquet").to_pylist()
    known = dict(zip(source["source_id"], source["re_normalised_uwe"], strict=True))
    for row in rows:
        assert row["ruwe"] == known.get(row["source_id"])
        assert row["colour_origin"] == (3 if row["source_id"] in known else None)


def as_matrices(services: Services, diagonal: float = 1.0) -> dict[str, list[np.ndarray]]:
    """The cells of the spectra with full matrices in place of packed correlations."""
    cells = dict(services.made.spectra.cells)
    for band in ("bp", "rp"):
        full = []
        for packed in cells[f"{band}_coefficient_correlations"]:
            width = len(cells[f"{band}_coefficients"][0])
            matrix = np.eye(width, dtype=np.float32) * np.float32(diagonal)
            for column in range(1, width):  # as the archive packs them: column by column
                start = column * (column - 1) // 2
                matrix[:column, column] = matrix[column, :column] = packed[start : start + column]
            full.append(matrix.ravel())
        cells[f"{band}_coefficient_correlations"] = full
    return cells


@pytest.mark.parametrize("kind", ["csv", "fits"])
def test_full_matrices_of_correlations(dr4: Services, tmp_path: Path, kind: str) -> None:
    dr4.datalink.answers = kind
    dr4.datalink.stars = FakeStars(dr4.made.spectra.source_id, as_matrices(dr4))
    assert dr4.fetch(tmp_path / "out", products=["xp"]).complete
    dr4.check_spectra(tmp_path / "out")
    # covariances, say, are not taken for correlations
    dr4.datalink.stars = FakeStars(dr4.made.spectra.source_id, as_matrices(dr4, 2.0))
    with pytest.raises(InputError, match="2601 values, not 1275"):
        dr4.fetch(tmp_path / "other", products=["xp"])


def test_correlations_or_elements_that_are_absent(dr4: Services, tmp_path: Path) -> None:
    stars = dr4.made.spectra
    lean = {name: cells for name, cells in stars.cells.items() if "correlations" not in name}
    dr4.datalink.stars = FakeStars(stars.source_id, lean)
    with pytest.raises(InputError, match=r"no column 'bp_coefficient_correlations'.*\[spectra\]"):
        dr4.fetch(tmp_path / "lean", products=["xp"])
    holed = {name: list(cells) for name, cells in stars.cells.items()}
    holed["rp_coefficients"][2] = holed["rp_coefficients"][2].copy()
    holed["rp_coefficients"][2][7] = np.nan
    dr4.datalink.stars = FakeStars(stars.source_id, holed)
    assert dr4.fetch(tmp_path / "holed", products=["xp"]).counts["xp"]["failed"] == 1
    (row,) = [row for row in account(tmp_path / "holed").values() if row["xp"] == "failed"]
    assert int(row["source_id"]) == stars.source_id[2]
    assert "value 7 (nan) is not finite" in row["reason"]


def test_tables_of_the_release_itself(tmp_path: Path) -> None:
    """Bulk files of gaia_source: the excess factor of fluxes, a renamed column, in Parquet too."""
    source = made_dr4(12).tables["gaiadr4.gaia_source"]
    columns = {name: np.array(values, np.float64) for name, values in source.items()}
    columns["source_id"] = np.array(source["source_id"])
    columns["phot_bp_mean_flux"][3] = 9e6  # far more than a star has
    columns["re_normalised_uwe"] = columns.pop("ruwe")
    del columns["parallax"]
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "source.parquet")
    (tmp_path / "folder").mkdir()
    pq.write_table(table, tmp_path / "folder" / "a.parquet")
    g, bp, rp = (columns[f"phot_{band}_mean_flux"] for band in ("g", "bp", "rp"))
    mine = changed(tmp_path, (RUWE, RENAMED_RUWE))
    wanted = ("phot_bp_rp_excess_factor", "phot_g_mean_mag", "ruwe")
    for read_one in (KeyedTable.read, PartitionedTable):
        where = tmp_path / ("folder" if read_one is PartitionedTable else "source.parquet")
        with using(mine):
            stars, found = read_one(where, wanted).find(columns["source_id"])
        np.testing.assert_array_equal(found["phot_bp_rp_excess_factor"], ((bp + rp) / g)[stars])
        np.testing.assert_array_equal(found["ruwe"], columns["re_normalised_uwe"][stars])
        assert {*found} == {*wanted}
        assert "ruwe" not in read_one(where, wanted).columns
    with using(mine):
        survey = read_survey(
            "gaia", tmp_path / "source.parquet", ["phot_bp_rp_excess_factor", "ruwe"]
        )
    np.testing.assert_array_equal(survey.columns["ruwe"], columns["re_normalised_uwe"])
    assert (survey.columns["phot_bp_rp_excess_factor"] > 3)[3]
