"""Labels that nobody foresaw: from a column with errors to the catalogue and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable, Table

from conftest import quick
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.core.labels import Label, Labels, check_names, label_of
from xplabels.core.prediction import Prediction
from xplabels.core.stars import Stars
from xplabels.io import read, write_stars
from xplabels.io.tables import join_labels
from xplabels.io.words import label_words
from xplabels.model import Model
from xplabels.surveys import read_survey
from xplabels.synthetic import simulate_stars
from xplabels.training import train
from xplabels.validation import score_prediction

NAMES = ("mass", "mg_fe", "a_v")
TOML = """
[labels.mass]
description = "Stellar mass"
range = [0.01, 200.0]
logarithmic = true
[labels.a_v]
unit = "mag"
"""


def stars_and_table() -> tuple[Stars, QTable]:
    """Stars without labels, and a table of a log-normal mass, a ratio and an extinction."""
    stars = simulate_stars(900, labels=("teff", "logg", "fe_h"), widths=(6, 5), noise=5.0)[0]
    centre, spread = np.array([4800, 2.8, -0.3]), np.array([600, 1.0, 0.4])
    z = (stars.labels.values - centre) / spread
    table = QTable({"source_id": stars.source_id, "Mg_Fe": 0.1 * z[:, 1], "A_V": 1 + z[:, 2]})
    table["MASS"] = np.exp(0.4 * z[:, 0]) * u.Msun
    table["MASS_err"] = 0.02 * table["MASS"]
    table["e_Mg_Fe"], table["A_V_error"] = 0.01, 0.1
    return stars.with_labels(None), table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spectra, a FITS table of labels with the words of it, a recipe, and a model trained on it."""
    folder = tmp_path_factory.mktemp("any")
    stars, table = stars_and_table()
    write_stars(stars, folder / "stars.parquet")
    table.write(folder / "labels.fits")
    (folder / "labels.toml").write_text(TOML)
    recipe = quick(epochs=25, learning_rate=5e-3, hidden=(32,))
    keys = {k: v for k, v in recipe.to_dict().items() if k in (
        "forward", "hidden", "epochs", "batch_size", "missing_fraction", "flux_samples",
        "reddening", "calibration_folds", "learning_rate")}  # fmt: skip
    lines = [f"{k} = {json.dumps(list(v) if isinstance(v, tuple) else v)}" for k, v in keys.items()]
    (folder / "recipe.toml").write_text("\n".join(lines))
    words = ["--labels", ",".join(NAMES), "--recipe", str(folder / "recipe.toml")]
    tables = [str(folder / "stars.parquet"), "--label-table", str(folder / "labels.fits")]
    assert main(["train", *tables, "--output", str(folder / "model"), *words]) == 0
    return folder


def test_a_model_has_the_units_and_words_of_its_labels(folder: Path) -> None:
    model = Model.load(folder / "model")
    assert model.names == NAMES
    assert [label_of(name).with_unit for name in model.names] == [
        "mass [solMass]", "mg_fe", "a_v [mag]",
    ]  # fmt: skip
    assert label_of(model.names[0]).description == "Stellar mass"
    assert model.scaling.logarithmic.tolist() == [True, False, False]
    assert "| Stellar mass `mass` | solMass |" in model.card
    assert "Learned as a logarithm: mass." in model.card
    prediction = model.predict(read(folder / "stars.parquet"), correlations=True)
    assert (prediction["mass"].value > 0).all()
    truth = np.asarray(stars_and_table()[1]["MASS"])
    assert np.std(np.log(prediction["mass"].value / truth)) < 0.2  # of 0.4
    assert prediction["mass"].unit == "solMass"
    assert "mass [solMass]" in prediction._repr_html_()


@pytest.mark.parametrize("ending", ["fits", "vot", "ecsv", "parquet"])
def test_a_catalogue_has_their_columns_and_units(folder: Path, ending: str) -> None:
    output = folder / f"out.{ending}"
    command = ["predict", str(folder / "stars.parquet"), "--model", str(folder / "model")]
    assert main([*command, "--output", str(output)]) == 0
    words = label_words(output)
    assert words["mass"]["unit"] == words["mass_error_95"]["unit"] == "solMass"
    assert words["a_v_error_input"]["unit"] == "mag"
    assert "unit" not in words["mg_fe"]
    if ending != "fits":
        assert words["mass"]["description"] == "Stellar mass"
        assert words["mg_fe"]["description"] == "mg_fe"
        assert "ucd" not in words["mass"]


def test_a_report_names_their_units(folder: Path) -> None:
    command = ["validate", str(folder / "model"), str(folder / "stars.parquet"), "--all"]
    some = Table(stars_and_table()[1][["source_id", "MASS", "MASS_err", "Mg_Fe", "e_Mg_Fe"]])
    some.write(folder / "some.fits")
    words = ["--label-table", str(folder / "some.fits"), "--range", "mass=0.2:5"]
    assert main([*command, *words, "--output", str(folder / "report")]) == 0
    metrics = json.loads((folder / "report" / "metrics.json").read_text())
    assert set(metrics["labels"]) == {"mass", "mg_fe"}
    judged = ["g_mag", "mass_predicted", "mg_fe_predicted"]
    assert metrics["verdict"]["axes_judged"] == judged
    assert len(metrics["bins"]["mass_predicted"]["mass"]) > 3
    page = (folder / "report" / "report.html").read_text()
    for text in ("mass [solMass]", "predicted mass [solMass]", "Stellar mass"):
        assert text in page
    assert "mg_fe []" not in page


def test_known_labels_in_another_unit_are_converted(folder: Path) -> None:
    stars, table = stars_and_table()
    prediction = Model.load(folder / "model").predict(stars)
    names = ("mass", "a_v")
    values, errors = (
        np.stack([np.asarray(table[one]) for one in columns], axis=1)
        for columns in (("MASS", "A_V"), ("MASS_err", "A_V_error"))
    )
    same = score_prediction(prediction, Labels(names, values, errors), resamples=2)
    kg = np.array([u.Msun.to(u.kg), 1.0])
    labels = Labels((Label("mass", "kg"), "a_v"), values * kg, errors * kg)
    again = score_prediction(prediction, labels, resamples=2)
    assert again.labels["mass"]["rmse"] == pytest.approx(same.labels["mass"]["rmse"])
    with pytest.raises(InputError, match=r"'mass' is in mag and cannot be converted to solMass"):
        score_prediction(prediction, Labels((Label("mass", "mag"),), values[:, :1], errors[:, :1]))


def test_a_star_table_keeps_what_is_known_of_a_label(tmp_path: Path) -> None:
    stars, _ = stars_and_table()
    age = Label("age", "Gyr", "time.age", "Age", "$t$", 0.0, 14.0, logarithmic=True)
    labels = Labels((age,), np.full((900, 1), 3.0), np.full((900, 1), 0.5))
    write_stars(stars.with_labels(labels), tmp_path / "s.parquet")
    again = read(tmp_path / "s.parquet").labels
    assert label_of(again.names[0]).about() == age.about()


def test_labels_in_columns_of_the_stars_own_table_are_found(folder: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    stars = pq.read_table(folder / "stars.parquet").replace_schema_metadata(None)
    stars = stars.append_column("age", [np.full(900, 3.0)])
    pq.write_table(stars.append_column("e_age", [np.full(900, 0.5)]), tmp_path / "s.parquet")
    (tmp_path / "s.toml").write_text('[labels.age]\nunit = "Gyr"\n')
    from xplabels.api import read_stars

    labels = read_stars(tmp_path / "s.parquet", names=["age"]).labels
    assert label_of(labels.names[0]).with_unit == "age [Gyr]"
    assert (labels.values == 3).all()


@pytest.mark.parametrize("ending", ["fits", "ecsv", "vot", "parquet"])
def test_units_of_known_labels_are_converted_or_refused(ending: str, tmp_path: Path) -> None:
    stars, table = stars_and_table()
    plain = Table({"source_id": table["source_id"]})
    for name, value, unit in (
        ("teff", 5.0, "kK"), ("teff_err", 0.1, "kK"), ("logg", 4.0, ""), ("logg_err", 0.1, ""),
    ):  # fmt: skip
        plain[name] = np.full(900, value)
        plain[name].unit = unit
    path = tmp_path / f"t.{ending}"
    kind = {"vot": "votable", "ecsv": "ascii.ecsv"}.get(ending, ending)
    plain.write(path, format=kind)
    labels = join_labels(stars, path).labels
    assert labels.values[0].tolist() == [5000.0, 4.0]
    assert labels.errors[0].tolist() == pytest.approx([100.0, 0.1])
    plain["teff"].unit = plain["teff_err"].unit = "mag"
    plain.write(path, format=kind, overwrite=True)
    with pytest.raises(InputError, match=rf"t\.{ending}.*mag.* K"):
        join_labels(stars, path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[labels.age]\nunits = 'Gyr'", "unknown key 'units'; use unit"),
        ("[labels.age]\nrange = [5, 1]", "range"),
        ("[labels.age]\nrange = ['a', 1]", "range"),
        ("[labels.age]\nlogarithmic = 1", "logarithmic = 1 is not of the type bool"),
        ("labels = 3", "labels is not a table"),
        ("[labels", "TOML"),
    ],
)
def test_a_wrong_toml_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("source_id,age,age_err\n1,2,3\n")
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(InputError, match=r"t\.toml") as error:
        label_words(tmp_path / "t.csv")
    assert said in str(error.value)
    (tmp_path / "t.toml").write_text("hidden = [16]")  # a recipe is none of ours
    assert label_words(tmp_path / "t.csv") == {}


@pytest.mark.parametrize(
    ("change", "names", "said"),
    [
        (lambda t: t.remove_column("MASS_err"), ["mass"], "column 'mass' has no errors"),
        (
            lambda t: t.replace_column("A_V", ["x"] * 900),
            ["a_v"],
            "column a_v: 'x' is not a number",
        ),
        (lambda t: None, ["age"], "column 'age' is absent"),
        (
            lambda t: t["MASS"].fill(500),
            ["mass"],
            "500 is outside the plausible range 0.01 to 200",
        ),
    ],
)
def test_wrong_columns_are_named(change, names, said, tmp_path: Path) -> None:
    stars, table = stars_and_table()
    table = Table(table)
    change(table)
    table.write(tmp_path / "t.fits")
    (tmp_path / "t.toml").write_text(TOML)
    with pytest.raises(InputError, match=r"t\.fits") as error:
        join_labels(stars, tmp_path / "t.fits", names)
    assert said in str(error.value)


def test_what_has_no_logarithm_is_refused() -> None:
    stars, table = stars_and_table()
    values = np.asarray(table["A_V"])[:, None]
    labels = Labels((Label("a_v", logarithmic=True),), values, np.full((900, 1), 0.1))
    with pytest.raises(InputError, match=r"a_v is -?[\d.]+, which has no logarithm"):
        train(stars.with_labels(labels), ["a_v"], quick(), progress=False)
    with pytest.raises(InputError, match="logarithmic names mas, which is not learnt"):
        train(stars.with_labels(labels), ["a_v"], quick(logarithmic=("mas",)), progress=False)


def test_names_in_any_case_are_the_same() -> None:
    assert check_names(["Mg_Fe"]) == ("mg_fe",)
    mass = Label("mass", "Msun")
    assert Labels((mass,), np.ones((1, 1)), np.ones((1, 1))).select(["Mass"]).names == (mass,)


def test_tables_in_several_units_are_put_on_one() -> None:
    from xplabels.surveys.merging import in_common_units, merged_labels
    from xplabels.surveys.table import SurveyTable

    tables = [
        SurveyTable("a", "a.fits", np.array([1]), labels=one(1.0, "")),
        SurveyTable("b", "b.fits", np.array([2]), labels=one(1.0, "Gyr")),
        SurveyTable("c", "c.fits", np.array([3]), labels=one(2e9, "yr")),
    ]
    _, labels, _ = merged_labels(in_common_units(tables))
    np.testing.assert_allclose(labels.values[:, 0], [1, 1, 2])
    assert label_of(labels.names[0]).unit == "Gyr"
    with pytest.raises(InputError, match=r"^d\.fits: label 'age' is in mag"):
        in_common_units([*tables, SurveyTable("d", "d.fits", np.array([4]), labels=one(1, "mag"))])


def one(age: float, unit: str) -> Labels:
    return Labels((Label("age", unit),), np.full((1, 1), age), np.full((1, 1), 0.1))


@pytest.mark.parametrize("ending", ["fits", "vot", "ecsv", "csv", "parquet"])
def test_a_unit_that_nobody_knows_does_not_stop_a_catalogue(ending: str, tmp_path: Path) -> None:
    stars, _ = stars_and_table()
    label = Label("mass", "solar masses & more", description="Mass [of the Sun] <b>")
    values = np.full((900, 1), 1.0)
    prediction = xp_prediction(stars, label, values)
    prediction.write(tmp_path / f"t.{ending}")
    assert (tmp_path / f"t.{ending}").stat().st_size > 1000


def xp_prediction(stars: Stars, label: Label, values: np.ndarray) -> Prediction:
    parts = dict.fromkeys(("errors_model", "errors_input", "errors_excess"), 0.1 * values)
    return Prediction(
        stars.source_id, (label,), values, 0.2 * values, errors_95=0.4 * values,
        domain_distance=values[:, 0], flags=stars.flags, **parts,
    )  # fmt: skip


def test_labels_that_nobody_named_are_all_taken(tmp_path: Path) -> None:
    stars, _ = stars_and_table()
    table = {"source_id": stars.source_id[:5], "ra": np.ones(5), "ra_err": np.ones(5)}
    table |= {name: np.ones(5) for name in ("gmag", "gmag_err", "age", "e_age", "snr")}
    table |= {"teff": np.full(5, 5000.0), "teff_err": np.ones(5), "kind": np.array(["x"] * 5)}
    Table(table).write(tmp_path / "mine.csv")
    assert stars.join(labels=table).labels.names == ("teff", "age")
    own = read_survey("mine", tmp_path / "mine.csv").labels
    assert own is not None
    assert own.names == ("teff", "age")
    with pytest.raises(InputError, match=r"'logg' is absent; .*\(--labels teff,age\)"):
        join_labels(stars, tmp_path / "mine.csv", ["logg", "teff"])
