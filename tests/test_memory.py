"""Tables in memory: read like files, whatever library they are of."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.io.votable import from_table
from astropy.io.votable.tree import TableElement
from astropy.table import MaskedColumn, QTable, Table

import xplabels as xp
from conftest import quick
from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io.parquet import to_arrow
from xplabels.synthetic import simulate_stars

N = 40
BASE = 5853498713190525696


def made() -> Stars:
    return simulate_stars(N, labels=("teff", "logg"), widths=(6, 5), noise=5.0, seed=2)[0]


def plain_arrow(stars: Stars) -> pa.Table:
    """The columns of a star table as the archive's, without this package's metadata."""
    return to_arrow(stars).drop_columns(["flags"]).replace_schema_metadata(None)


def columns(stars: Stars) -> dict[str, Any]:
    """Name -> array; spectra as rectangles."""
    found: dict[str, Any] = {}
    for name in (table := plain_arrow(stars)).column_names:
        column = table.column(name).combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            found[name] = column.flatten().to_numpy().reshape(len(column), -1)
        else:
            found[name] = column.to_numpy()
    return found


def one_a_row(stars: Stars) -> dict[str, Any]:
    """Name -> list of N: an array for each row, as GaiaXPy has them."""
    return {name: list(values) for name, values in columns(stars).items()}


def votable(stars: Stars) -> TableElement:
    return from_table(Table(columns(stars))).get_first_table()


def _relation(table: pa.Table) -> Any:
    """A query of DuckDB, which reads the table when it is asked for."""
    return pytest.importorskip("duckdb").from_arrow(table)


KINDS: dict[str, tuple[Callable[[Stars], Any], str]] = {
    "astropy": (lambda s: Table(columns(s)), "the Table"),
    "masked": (lambda s: Table(columns(s), masked=True), "the Table"),
    "quantities": (lambda s: QTable(columns(s)), "the QTable"),
    "pandas": (lambda s: pd.DataFrame(one_a_row(s)), "the DataFrame"),
    "pandas, index": (lambda s: pd.DataFrame(one_a_row(s)).set_index("source_id"), "the DataFrame"),
    "pandas, nullable": (
        lambda s: pd.DataFrame(one_a_row(s)).astype({"source_id": "Int64", "teff": "Float64"}),
        "the DataFrame",
    ),
    "pandas, arrow": (lambda s: plain_arrow(s).to_pandas(types_mapper=pd.ArrowDtype),
                      "the DataFrame"),
    "polars": (lambda s: pl.DataFrame(plain_arrow(s)), "the DataFrame"),
    "polars, 128 bits": (
        lambda s: pl.DataFrame(plain_arrow(s)).cast({"source_id": pl.Int128}), "the DataFrame"
    ),
    "polars, lazy": (lambda s: pl.DataFrame(one_a_row(s)).lazy(), "the LazyFrame"),
    "pyarrow": (plain_arrow, "the Table"),
    "pyarrow, batch": (lambda s: plain_arrow(s).to_batches()[0], "the RecordBatch"),
    "pyarrow, reader": (lambda s: plain_arrow(s).to_reader(), "the RecordBatchReader"),
    "duckdb": (lambda s: _relation(plain_arrow(s)), "the DuckDBPyRelation"),
    "dict": (columns, "the dict"),
    "dict of lists": (one_a_row, "the dict"),
    "structured": (lambda s: Table(columns(s)).as_array(), "the ndarray"),
    "votable": (votable, "the TableElement"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_gives_the_same_stars(kind: str) -> None:
    make, where = KINDS[kind]
    stars = made()
    found = xp.read(make(stars))
    assert found.where == where
    assert found.source_id.tolist() == stars.source_id.tolist()
    for band, other in ((found.spectra.bp, stars.spectra.bp), (found.spectra.rp, stars.spectra.rp)):
        np.testing.assert_array_equal(band.coefficients, other.coefficients)
        np.testing.assert_allclose(band.errors, other.errors, rtol=1e-6)
        np.testing.assert_allclose(band.correlations, other.correlations, rtol=1e-6)
    np.testing.assert_allclose(found.photometry.values, stars.photometry.values)
    np.testing.assert_allclose(found.labels.values, stars.labels.values)
    assert not found.flags.any()


@pytest.mark.parametrize("kind", KINDS)
def test_joins_and_messages_are_those_of_files(kind: str) -> None:
    make, where = KINDS[kind]
    stars = made()
    bare = Stars.of(stars.source_id[::-1], stars.spectra[::-1])
    joined = bare.join(make(stars), make(stars))
    np.testing.assert_allclose(joined.photometry.values, stars.photometry.values[::-1])
    np.testing.assert_allclose(joined.labels.values, stars.labels.values[::-1])
    spoilt = stars.labels.errors.copy()
    spoilt[3, 1] = -1
    wrong = make(stars.with_labels(xp.Labels(stars.labels.names, stars.labels.values, spoilt)))
    with pytest.raises(InputError, match=rf"^{where}, source_id {stars.source_id[3]}, .*logg_err"):
        bare.join(labels=wrong)


def test_arrays_are_checked_like_files() -> None:
    stars = made()
    bp, rp = stars.spectra.bp, stars.spectra.rp
    arrays = (stars.source_id, bp.coefficients, bp.errors, rp.coefficients, rp.errors)
    found = Stars.from_arrays(*arrays, bp.correlations, rp.correlations)
    np.testing.assert_array_equal(found.spectra.rp.coefficients, rp.coefficients)
    assert not found.flags.any()
    matrices = []
    for band in (bp, rp):
        matrix = np.tile(np.eye(band.width), (N, 1, 1))
        below = np.tril_indices(band.width, -1)
        matrix[:, below[0], below[1]] = matrix[:, below[1], below[0]] = band.correlations
        matrices.append(matrix)
    again = Stars.from_arrays(*arrays, *matrices)
    np.testing.assert_array_equal(again.spectra.bp.correlations, bp.correlations)
    assert (Stars.from_arrays(*arrays).flags == xp.Flag.NO_CORRELATIONS).all()
    assert len(Stars.from_arrays(7, *(array[0] for array in arrays[1:]))) == 1
    errors = bp.errors.copy()
    errors[2, 4] = 0
    with pytest.raises(InputError, match=r"^the arrays, row 3, .*bp_coefficient_errors: value 4"):
        Stars.from_arrays(stars.source_id, bp.coefficients, errors, *arrays[3:])
    with pytest.raises(InputError, match="occurs twice"):
        Stars.from_arrays(np.full(N, 7), *arrays[1:])
    with pytest.raises(InputError, match=r"rows of|shape|source_id"):
        Stars.from_arrays(stars.source_id[:5], *arrays[1:])


def test_units_are_converted_and_masked_values_are_missing() -> None:
    stars = made()
    table = QTable({"source_id": stars.source_id})
    table["parallax"] = (stars.photometry.column("parallax")[0] / 1000) * u.arcsec
    table["parallax_error"] = np.full(N, 2e-5) * u.arcsec
    table["teff"], table["teff_err"] = np.full(N, 5.1) * u.kK, np.full(N, 50.0) * u.K
    table["age"], table["age_err"] = np.full(N, 3.0) * u.Gyr, np.full(N, 0.5) * u.Gyr
    plain = Table(table)
    plain["j_m"] = MaskedColumn(np.full(N, 12.0), mask=np.arange(N) == 0)
    plain["j_msigcom"] = 0.02
    bare = Stars.of(stars.source_id, stars.spectra)
    for one in (table, plain):
        joined = bare.join(one, one, ["teff", "age"])
        np.testing.assert_allclose(
            joined.photometry.column("parallax")[0], stars.photometry.column("parallax")[0]
        )
        assert joined.labels.values[0].tolist() == [pytest.approx(5100.0), 3.0]
        assert joined.labels.errors[0].tolist() == [50.0, 0.5]  # of teff in K, not kK
        assert [label.with_unit for label in joined.labels.names] == ["teff [K]", "age [Gyr]"]
    light = bare.join(plain).photometry.column("j_m")[0]
    assert np.isnan(light[0])
    assert (light[1:] == 12).all()
    mapping = {name: table[name] for name in table.colnames}
    assert bare.join(labels=mapping, names=["age"]).labels.names[0].unit == "Gyr"
    series = {"source_id": pd.Series(stars.source_id), "j_m": pl.Series([12.0] * N)}
    one = bare.join(series | {"j_msigcom": pd.array([0.02] * N, "Float64")}).photometry
    assert (one.column("j_m")[1] == 0.02).all()
    months = bare.join(labels=table, names=[xp.Label("age", "yr")]).labels
    assert months.values[0, 0] == pytest.approx(3e9)
    plain["parallax"].unit = "mag"
    with pytest.raises(InputError, match=r"^the Table, column parallax: its unit is 'mag'"):
        bare.join(plain)


def test_identifiers_that_went_through_floats_are_noticed() -> None:
    ids = BASE + 128 * np.arange(1, N + 1) * 17
    rounded = pd.DataFrame(one_a_row(made())).assign(source_id=ids.astype(np.float64))
    with pytest.raises(InputError, match=r"the DataFrame, row 1, column source_id.*floating-point"):
        xp.read(rounded)
    again = rounded.assign(source_id=ids.astype(np.float64).astype(np.int64))
    with pytest.raises(InputError, match=r"the DataFrame, column source_id: all 40 .*rounding"):
        xp.read(again)


def test_an_answer_of_datalink_goes_straight_in() -> None:
    stars = made()
    other = Table({"source_id": stars.source_id[:1], "wavelength": np.ones((1, 3))})
    answer = {
        f"XP_CONTINUOUS-Gaia DR3 {star}.xml": [Table(columns(stars[np.array([n])]))]
        for n, star in enumerate(stars.source_id)
    }
    found = xp.read(answer | {"XP_SAMPLED-Gaia DR3 1.xml": [other]})
    assert found.source_id.tolist() == stars.source_id.tolist()
    assert "XP_CONTINUOUS-Gaia DR3" in str(found.where)
    with pytest.raises(InputError, match="XP_CONTINUOUS"):
        xp.read({"XP_SAMPLED-Gaia DR3 1.xml": [other]})
    halves = [Table(columns(stars[:5])), Table(columns(stars[5:]))]
    assert len(xp.read({"XP_CONTINUOUS_COMBINED.xml": halves})) == N
    twice = {"a": Table(columns(stars)), "b": Table(columns(stars))}
    with pytest.raises(InputError, match=r"^b: source_id \d+ is in a too"):
        xp.read(twice)


def test_what_gaiaxpy_calibrated_is_read_with_its_sampling() -> None:
    wavelength = np.arange(336.0, 1021.0, 2)
    flux = np.full((3, len(wavelength)), 1e-16)
    frame = pd.DataFrame({"source_id": [1, 2, 3], "flux": list(flux), "flux_error": list(flux / 9)})
    found = xp.read((frame, wavelength))
    np.testing.assert_array_equal(found.spectra.flux, flux)
    np.testing.assert_array_equal(xp.read(frame, wavelength=wavelength).spectra.flux, flux)
    np.testing.assert_array_equal(xp.read(frame).spectra.wavelength, wavelength)  # the default
    short = frame.assign(flux=list(flux[:, :9]), flux_error=list(flux[:, :9]))
    assert xp.read(short, wavelength=wavelength[:9]).spectra.flux.shape == (3, 9)
    with pytest.raises(InputError, match=r"^the DataFrame: has 9 samples a spectrum"):
        xp.read(short)


def test_a_column_for_each_coefficient_is_read_like_that_of_a_file() -> None:
    stars = made()
    columns = {"source_id": stars.source_id}
    for name, band in (("bp", stars.spectra.bp), ("rp", stars.spectra.rp)):
        for n in range(band.width):
            columns[f"{name}_coeff_{n}"] = band.coefficients[:, n]
            columns[f"e_{name}_coeff_{n}"] = band.errors[:, n]
    found = xp.read(pd.DataFrame(columns))
    np.testing.assert_array_equal(found.spectra.rp.coefficients, stars.spectra.rp.coefficients)
    assert found.where == "the DataFrame"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (pd.DataFrame({"x": [1.0]}), "the DataFrame: column 'source_id' is absent"),
        (pd.DataFrame({"source_id": [1]}), "the DataFrame: columns bp_coefficients, .* are absent"),
        (pd.DataFrame({"source_id": []}), "the DataFrame"),
        (pd.DataFrame([[1, 2]], columns=["source_id", "source_id"]), "two columns 'source_id'"),
        (pd.DataFrame({"source_id": [1], "SOURCE_ID": [1]}), "the same name but for case"),
        ([3], "not a table"),
        (3.5, "not a table"),
        (io.StringIO("source_id,bp_coefficients\n1,2\n"), "the StringIO is not a table"),
        (b"stars.csv", "the bytes is not a table"),
        ("source_id,bp_coefficients\n" * 200, r"cannot be read \(File name too long\)"),
        ({"source_id": 1, "bp_coefficients": [1.0]}, "'source_id' is one value, not a column"),
        (pa.array([{"source_id": 1}]), "'source_id' is one value, not a column"),
        ({}, "the dict: is empty"),
    ],
)
def test_what_is_no_table_of_spectra_is_refused(source: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        xp.read(source)


def test_training_and_validation_take_tables() -> None:
    stars = simulate_stars(700, labels=("teff", "logg"), widths=(6, 5), noise=5.0, seed=2)[0]
    bare = stars.with_labels(None)
    frame = pd.DataFrame({"source_id": stars.source_id, "mass": stars.labels.values[:, 0] / 4000})
    frame["mass_err"] = 0.02
    model = xp.train(bare, frame, quick(), progress=False)
    assert model.names == ("mass",)
    found = xp.validate(model, bare, labels=pl.DataFrame(frame), all_stars=True)
    assert found.metrics["labels"]["mass"]["n"] == 700
    prediction = model.predict(bare)
    assert prediction.to_polars().columns == prediction.to_pandas().columns.tolist()
    # a prediction is a table of labels, too
    np.testing.assert_array_equal(
        bare.join(labels=prediction, names=["mass"]).labels.values, prediction.values
    )
    assert xp.train(stars, recipe=quick(), progress=False).names == ("teff", "logg")
    assert xp.train(stars, "logg", quick(), progress=False).names == ("logg",)


def test_surveys_and_neighbours_are_taken_from_memory() -> None:
    ids = 4 * BASE // 5 + 1000 * np.arange(1, 6)
    survey = pd.DataFrame({"gaia_source_id": ids + 1, "teff": 5000.0, "teff_err": 50.0})
    pairs = pl.DataFrame({"dr2_source_id": ids + 1, "dr3_source_id": ids, "angular_distance": 1.0})
    opened = xp.open_survey(survey, "lamost-lrs", pairs)
    assert sorted(opened.source_id.tolist()) == ids.tolist()
    assert opened.where == "the DataFrame"
    with pytest.raises(InputError, match=r"^the DataFrame: is not a table of neighbours"):
        xp.open_survey(survey, "lamost-lrs", pairs.drop("dr3_source_id"))


def test_reprs_are_short() -> None:
    stars = made()
    shown = [stars, stars.labels, stars.photometry, stars.spectra, xp.LABELS["teff"]]
    assert all(len(repr(one)) < 300 for one in shown)
    assert "teff [K] of 40" in repr(stars.labels)
