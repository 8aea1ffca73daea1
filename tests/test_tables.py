"""Tables joined by source_id: any format, exact ids, and every way a table can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from survey_tables import write
from xplabels.core.errors import InputError
from xplabels.core.stars import Photometry, SampledSpectra, Stars
from xplabels.io.tables import join_labels, join_photometry, read_table

# neighbours that one float64 cannot tell apart
IDS = np.array([5853498713190525696, 5853498713190525697, 5405570973190252288])
ENDINGS = ("csv", "csv.gz", "ecsv", "fits", "fits.gz", "vot", "xml", "parquet")


@pytest.fixture
def stars() -> Stars:
    flux = np.ones((3, 2))
    return Stars.of(IDS, SampledSpectra(np.array([400.0, 402.0]), flux, flux))


def table() -> Table:
    """Three stars, one null of each kind, another order than the stars'."""
    return Table({
        "SOURCE_ID": IDS[[2, 0, 1]],
        "phot_g_mean_mag": MaskedColumn([12.5, 0, 14.0], mask=[0, 1, 0]),
        "phot_g_mean_flux_over_error": [100.0, 200.0, 400.0],
        "j_m": [1.0, 2.0, 3.0], "j_msigcom": MaskedColumn([0.02, 0.0, 0.03], mask=[0, 1, 0]),
        "n_obs": MaskedColumn([3, 0, 5], mask=[0, 1, 0]), "ph_qual": ["AAA", "BBB", "UUU"],
    })  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_columns(ending: str, tmp_path: Path) -> None:
    columns = read_table(write(table(), tmp_path / f"t.{ending}"))
    assert columns["source_id"].dtype == np.int64
    assert columns["source_id"].tolist() == IDS[[2, 0, 1]].tolist()
    assert np.array_equal(columns["phot_g_mean_mag"], [12.5, np.nan, 14], equal_nan=True)
    assert np.array_equal(columns["j_msigcom"], [0.02, np.nan, 0.03], equal_nan=True)
    assert np.array_equal(columns["n_obs"].astype(float), [3, np.nan, 5], equal_nan=True)
    assert columns["ph_qual"].tolist() == ["AAA", "BBB", "UUU"]
    assert columns["j_m"].dtype.isnative
    assert set(read_table(tmp_path / f"t.{ending}", ["j_m", "absent"])) == {"source_id", "j_m"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_photometry_goes_to_its_star(ending: str, stars: Stars, tmp_path: Path) -> None:
    joined = join_photometry(stars, write(table(), tmp_path / f"t.{ending}"))
    g, sigma = joined.photometry.column("phot_g_mean_mag")
    assert np.array_equal(g, [np.nan, 14, 12.5], equal_nan=True)
    # sigma_mag = 1.0857362 / flux_over_error
    expected = [np.nan, 1.0857362 / 400, 1.0857362 / 100]
    assert np.allclose(sigma, expected, rtol=1e-7, equal_nan=True)
    j, sigma = joined.photometry.column("j_m")
    assert np.array_equal(j, [np.nan, 3, 1], equal_nan=True)
    assert np.array_equal(sigma, [np.nan, 0.03, 0.02], equal_nan=True)
    assert any("1 value of j_m without an error" in note for note in joined.notes)
    assert np.isnan(joined.photometry.column("parallax")[0]).all()


def test_a_long_csv_may_change_its_mind_about_a_type(tmp_path: Path) -> None:
    rows = [f"{10**18 + i},{i}" for i in range(150_000)] + [f"{10**18 + 150_000},0.5"]
    path = tmp_path / "long.csv"
    path.write_text("source_id,x\n" + "\n".join(rows) + "\n")
    columns = read_table(path, ["x"])
    assert columns["x"][-1] == 0.5
    assert columns["source_id"][-1] == 10**18 + 150_000


def test_a_later_table_overrides_where_it_has_values(stars: Stars, tmp_path: Path) -> None:
    first = write(table(), tmp_path / "a.fits")
    later = Table({
        "source_id": IDS[:2],
        "j_m": [np.nan, 7.0], "j_msigcom": [np.nan, 0.5],
        "k_m": [5.0, np.nan], "k_msigcom": [0.04, np.nan],  # 2MASS's own name
        "parallax": [-0.3, 2.0], "parallax_error": [0.1, 0.2],
    })  # fmt: skip
    joined = join_photometry(stars, [first, write(later, tmp_path / "b.ecsv")]).photometry
    assert np.array_equal(joined.column("j_m")[0], [np.nan, 7, 1], equal_nan=True)
    assert np.array_equal(joined.column("j_m")[1], [np.nan, 0.5, 0.02], equal_nan=True)
    assert np.array_equal(joined.column("ks_m")[1], [0.04, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(joined.column("parallax")[0], [-0.3, 2, np.nan], equal_nan=True)


def test_what_the_stars_had_stays_where_no_table_speaks(stars: Stars, tmp_path: Path) -> None:
    known = {"w1mpro": (np.array([1.0, 2, 3]), np.full(3, 0.1))}
    had = stars.with_photometry(Photometry.of(3, known))
    joined = join_photometry(had, write(table(), tmp_path / "t.csv"))
    assert joined.photometry.column("w1mpro")[0].tolist() == [1, 2, 3]


def _set(column: str, row: int, value: float) -> Callable[[Table], None]:
    def change(content: Table) -> None:
        content[column] = np.ma.filled(content[column].astype(float), np.nan)
        content[column][row] = value

    return change


WRONG: dict[str, tuple[Callable[[Table], None], str]] = {
    "error column absent": (lambda t: t.remove_column("j_msigcom"), "'j_msigcom' is absent"),
    "no photometry": (
        lambda t: t.remove_columns(["j_m", "phot_g_mean_mag"]),
        "no column of photometry",
    ),
    "negative error": (
        _set("j_msigcom", 0, -0.02),
        f"source_id {IDS[2]}, column j_msigcom: the error -0.02",
    ),
    "zero error": (_set("phot_g_mean_flux_over_error", 2, 0), f"source_id {IDS[1]}.*not positive"),
    "duplicate": (lambda t: t.add_row(t[1]), f"source_id {IDS[0]} occurs 2 times"),
    "no id column": (lambda t: t.rename_column("SOURCE_ID", "id"), "source_id"),
    "float ids": (lambda t: t.replace_column("SOURCE_ID", t["SOURCE_ID"] * 1.0), "source_id"),
    "text as magnitude": (lambda t: t.replace_column("j_m", ["a", "b", "c"]), "column j_m"),
    "no rows": (lambda t: t.remove_rows([0, 1, 2]), "has no rows"),
    "other stars": (
        lambda t: t.replace_column("SOURCE_ID", t["SOURCE_ID"] + 9),
        "shares no source_id",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("ending", ["csv", "fits", "ecsv", "parquet", "vot"])
def test_a_wrong_table_is_named(fault: str, ending: str, stars: Stars, tmp_path: Path) -> None:
    content = table()
    change, message = WRONG[fault]
    change(content)
    path = write(content, tmp_path / f"wrong.{ending}")
    with pytest.raises(InputError, match=message) as caught:
        join_photometry(stars, path)
    assert "wrong." in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_truncated_table_is_an_error(ending: str, stars: Stars, tmp_path: Path) -> None:
    path = write(table(), tmp_path / f"cut.{ending}")
    whole = path.read_bytes()
    share = 0.97 if ending == "ecsv" else 0.8
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"cut\."):
        join_photometry(stars, path)


def test_missing_files_and_endings_are_named(stars: Stars, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        join_photometry(stars, tmp_path / "none.csv")
    (tmp_path / "t.xlsx").write_text("")
    with pytest.raises(InputError, match="unknown ending"):
        join_photometry(stars, tmp_path / "t.xlsx")
    (tmp_path / "fake.csv.gz").write_text("source_id,j_m\n1,2\n")
    with pytest.raises(InputError, match="'j_msigcom' is absent"):  # a browser may have unpacked it
        join_photometry(stars, tmp_path / "fake.csv.gz")


def test_rows_without_a_gaia_source_are_nobodys(stars: Stars, tmp_path: Path) -> None:
    content = table()
    for _ in range(2):
        content.add_row(content[0])
        content["SOURCE_ID"][-1] = -1
    joined = join_photometry(stars, write(content, tmp_path / "t.csv"))
    assert joined.photometry.column("j_m")[0][2] == 1.0


def labels_table() -> Table:
    return Table({
        "source_id": [IDS[1], IDS[0], 99],
        "TEFF": [5000.0, 6000.0, 7000.0], "teff_err": [50.0, np.nan, 70.0],
        "logg": [4.0, 1.0, -0.5], "logg_error": [0.1, 0.2, 0.3],
    })  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_labels_join(ending: str, stars: Stars, tmp_path: Path) -> None:
    path = write(labels_table(), tmp_path / f"l.{ending}")
    joined = join_labels(stars, path)
    assert joined.labels.names == ("teff", "logg")
    expected = np.array([[np.nan, 1], [5000, 4], [np.nan, np.nan]])
    assert np.array_equal(joined.labels.values, expected, equal_nan=True)
    expected = np.array([[np.nan, 0.2], [50, 0.1], [np.nan, np.nan]])
    assert np.array_equal(joined.labels.errors, expected, equal_nan=True)
    assert any("1 value of teff without an error" in note for note in joined.notes)
    chosen = join_labels(stars, path, ["logg"]).labels
    assert chosen.names == ("logg",)


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        (_set("teff_err", 0, 0.0), None, f"source_id {IDS[1]}, column teff_err"),
        (_set("logg_error", 1, -0.2), None, f"source_id {IDS[0]}, column logg_error"),
        (_set("TEFF", 0, -9999.0), None, f"source_id {IDS[1]}, column teff.*1000 to 60000 K"),
        (lambda t: t.remove_column("teff_err"), None, "'teff_err' is absent"),
        (lambda t: None, ["fe_h"], "'fe_h' is absent"),
        (lambda t: None, ["magic"], "'magic' is absent"),
        (lambda t: t.remove_columns(["TEFF", "logg"]), None, "no column of labels"),
        (lambda t: t.remove_rows([0, 1]), None, "shares no source_id"),
    ],
)
def test_wrong_labels_are_named(
    change: Callable[[Table], None], names: list[str] | None, message: str, stars: Stars,
    tmp_path: Path,
) -> None:  # fmt: skip
    content = labels_table()
    change(content)
    with pytest.raises(InputError, match=message):
        join_labels(stars, write(content, tmp_path / "l.fits"), names)


@pytest.mark.parametrize("nothing", [-9999, -9999.99, -999, 1e20])
def test_what_stands_for_no_value_of_any_label_is_noticed(
    nothing: float, stars: Stars, tmp_path: Path
) -> None:
    path = write(
        Table({"source_id": IDS, "age": [1.0, nothing, 3.0], "age_err": [0.1] * 3}),
        tmp_path / "l.csv",
    )
    with pytest.raises(InputError, match=rf"{IDS[1]}, column age: .* that there is no value"):
        join_labels(stars, path)
    (tmp_path / "l.toml").write_text("[labels.age]\nrange = [-1e5, 1e21]\n")
    assert join_labels(stars, path).labels.values[1, 0] == nothing


def test_a_table_without_the_labels_of_a_model_is_an_error(stars: Stars, tmp_path: Path) -> None:
    path = write(table(), tmp_path / "gaia.csv")
    with pytest.raises(InputError, match=r"gaia\.csv: has none of the labels teff"):
        join_labels(stars, path, ["teff"], needed=False)


def test_the_name_of_one_label_is_a_name(stars: Stars, tmp_path: Path) -> None:
    path = write(
        Table({"source_id": IDS, "teff": [5000.0] * 3, "teff_err": [50.0] * 3}), tmp_path / "l.csv"
    )
    assert join_labels(stars, path, "teff").labels.names == ("teff",)
