"""Surveys, another model and the other estimate compared on the same stars, as commands do it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from conftest import quick
from simulated_predictions import simulate
from xplabels import report
from xplabels.api.validation import validate
from xplabels.cli import main
from xplabels.cli.validate import SURVEYS
from xplabels.core.errors import InputError
from xplabels.core.stars import Photometry, Stars
from xplabels.io import write_stars
from xplabels.model import Model
from xplabels.synthetic import simulate_stars
from xplabels.training import train
from xplabels.validation import score_prediction
from xplabels.validation.finding import as_json
from xplabels.validation.models import model_finding
from xplabels.validation.surveys import COMPARED, ReferenceSurvey, open_survey, survey_finding

NAMES = ("fe_h", "n_fe", "alpha_m")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn in test_report and test_figures."""
    monkeypatch.setattr(report, "png", lambda figure: b"")


@pytest.fixture
def never_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the stars were predicted")

    monkeypatch.setattr(Model, "predict", never)


@pytest.fixture(scope="module")
def made(small_model: Model, small_stars: Stars, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a thousand simulated stars, with labels and without."""
    folder = tmp_path_factory.mktemp("made")
    small_model.save(folder / "model")
    replace(small_model, unshrinking=None).save(folder / "old")
    write_stars(small_stars, folder / "stars.parquet")
    write_stars(small_stars.with_labels(None), folder / "unlabelled.parquet")
    return folder


@pytest.fixture(scope="module")
def abundances() -> Stars:
    return simulate_stars(1000, labels=NAMES, widths=(6, 5), noise=5.0, seed=3)[0]


@pytest.fixture(scope="module")
def abundance_model(abundances: Stars, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("abundances")
    train(abundances, NAMES, quick(epochs=6), progress=False).save(folder / "model")
    write_stars(abundances, folder / "stars.parquet")
    return folder


def run(folder: Path, output: Path, *words: str, stars: str = "stars.parquet") -> int:
    paths = [str(folder / "model"), str(folder / stars), "--output", str(output)]
    return main(["validate", *paths, *words])


def metrics_in(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


# --- surveys --------------------------------------------------------------------------------


def survey_labels(stars: Stars) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a survey says, and which rows it says nothing about."""
    random, known = np.random.default_rng(1), stars.labels.values
    values = known + 0.1 * known.std(axis=0) * random.standard_normal(known.shape)
    return dict(zip(stars.labels.names, values.T, strict=True)), random.random(1000) < 0.15


Column = tuple[str, np.ndarray | float]


def lamost_lrs(values: dict[str, np.ndarray]) -> list[Column]:
    return [("snrg", 50.0), ("feh", values["fe_h"]), ("feh_err", 0.05)]


def lamost_mrs(values: dict[str, np.ndarray]) -> list[Column]:
    return [("snr", 50.0), ("n_fe", values["n_fe"]), ("alpha_m_cnn", values["alpha_m"])]


def gspphot(values: dict[str, np.ndarray]) -> list[Column]:
    random, fe_h = np.random.default_rng(2), values["fe_h"]
    return [
        ("mh_gspphot", fe_h),
        ("mh_gspphot_lower", fe_h - 0.05),
        ("mh_gspphot_upper", fe_h + 0.05),
        ("ag_gspphot", random.uniform(0, 2, 1000)),
        ("mg_gspphot", random.uniform(-1, 5, 1000)),
    ]


def fs24(values: dict[str, np.ndarray]) -> list[Column]:
    errors = [(f"{name}_err", 0.1 * float(v.std())) for name, v in values.items()]
    return [*values.items(), *errors]


TABLES: dict[str, tuple[Callable[..., list[Column]], str, tuple[str, ...], tuple[str, ...]]] = {
    "lamost-lrs": (lamost_lrs, "-9999.0", ("fe_h",), ("teff", "logg", "feh")),
    "lamost-mrs": (
        lamost_mrs, "-9999.0", ("n_fe", "alpha_m"), ("teff_cnn", "c_fe", "alpha_m_cnn"),
    ),
    "gspphot": (gspphot, "null", ("fe_h",), ("teff_gspphot", "logg_gspphot", "mh_gspphot")),
    "fs24": (fs24, "", NAMES, ("teff", "n_fe", "alpha_m")),
}  # fmt: skip
"""Columns as published, what stands for no value, labels in them, columns looked for."""


def test_the_command_line_knows_the_surveys() -> None:
    assert SURVEYS == COMPARED == tuple(TABLES)


@pytest.mark.parametrize("survey", COMPARED)
def test_a_survey_as_published(
    survey: str, abundance_model: Path, abundances: Stars, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    columns, null, names, _ = TABLES[survey]
    values, absent = survey_labels(abundances)
    table: dict[str, Any] = {"source_id": abundances.source_id}
    if survey.startswith("lamost"):
        table["obsid"] = range(1000)
    for name, column in columns(values):
        rows = zip(
            np.broadcast_to(column, 1000), absent & (not name.startswith("snr")), strict=True
        )
        table[name] = [null if gone else f"{v:.4f}" for v, gone in rows]
    rows = [tuple(table), *zip(*table.values(), strict=True)]
    if survey.startswith("lamost"):  # observed twice: the spectrum of higher S/N counts
        worse = {"snr": 1.0, "snrg": 1.0, "feh": 0.4, "n_fe": 0.4, "alpha_m_cnn": 0.4}
        rows.append(tuple(worse.get(name, value) for name, value in zip(*rows[:2], strict=True)))
    (tmp_path / "t.csv").write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    words = ("--all", "--compare-survey", str(tmp_path / "t.csv"), "--survey", survey)
    assert run(abundance_model, tmp_path / "v", *words, "--inflate", f"{names[0]}=1.5") == 0
    metrics = metrics_in(tmp_path / "v")
    found = metrics["against"]
    predicted = Model.load(abundance_model / "model").predict(abundances)
    known = dict(zip(NAMES, abundances.labels.values.T, strict=True))
    assert set(found["labels"]) == set(names)
    for name in names:
        theirs = values[name][~absent]
        scores, between = found["labels"][name], found["survey_to_survey"][name]
        assert scores["n"] == between["n"] == len(theirs) < 1000
        residual = predicted.values[~absent, predicted.names.index(name)] - theirs
        assert scores["rmse"] == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-3)
        assert scores["error_of"]["rmse"] > 0
        assert between["rmse"] == pytest.approx((theirs - known[name][~absent]).std(), rel=0.02)
    assert found["inflation"] == {names[0]: 1.5}
    assert len([row for title, row in metrics["table_3"].items() if "x 1.5" in title]) == 1
    poor = known["n_fe"] < -0.4
    counts = [row["n"] for row in metrics["poor_in_nitrogen"].values()]
    assert counts == [poor.sum(), (~poor).sum()]
    assert f"{survey} minus known labels, {names[0]} [dex]" in capsys.readouterr().out
    page = (tmp_path / "v" / "report.html").read_text()
    for words_shown in (f"Against {survey}", 'id="figure-against"', 'id="tables"', 'id="trend"'):
        assert words_shown in page


def test_gspphot_of_stars_without_labels(
    made: Path, small_stars: Stars, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(6)
    absent, extinction = rng.random(1000) < 0.2, rng.uniform(0, 2, 1000)
    none = 0 * extinction
    truth = small_stars.labels.values + np.stack([200 * extinction, none, -extinction], axis=1)
    table = Table({"source_id": small_stars.source_id})
    for k, (name, sigma) in enumerate((("teff", 40.0), ("logg", 0.05), ("mh", 0.05))):
        for ending, shift in (("", 0.0), ("_lower", -sigma), ("_upper", sigma)):
            table[f"{name}_gspphot{ending}"] = MaskedColumn(truth[:, k] + shift, mask=absent)
    table["ag_gspphot"] = MaskedColumn(extinction, mask=absent)
    table["mg_gspphot"] = MaskedColumn(rng.uniform(-1, 5, 1000), mask=absent)
    table.write(tmp_path / "ap.fits")
    words = ("--all", "--against", str(tmp_path / "ap.fits"), "--survey", "gspphot")
    words += ("--inflate", "teff=2")
    assert run(made, tmp_path / "v", *words, stars="unlabelled.parquet") == 0
    metrics = metrics_in(tmp_path / "v")
    found = metrics["against"]
    assert metrics["n"] == found["n"] == (~absent).sum()
    assert found["survey_to_survey"] == {}
    (title,) = (title for title in metrics["table_3"] if "GSP-Phot" in title)
    assert metrics["table_3"][title]["teff"]["median_error"] == pytest.approx(80, rel=1e-4)
    assert metrics["table_3"][title]["logg"]["median_error"] == pytest.approx(0.05, rel=1e-4)
    # its temperatures were made 200 K hotter for each magnitude of extinction
    bins = found["differences"]["extinction_g"]["teff"]
    assert sum(one["n"] for one in bins) == found["labels"]["teff"]["n"]
    assert bins[-1]["bias"] - bins[0]["bias"] == pytest.approx(-200 * 1.45, abs=60)
    assert len(found["differences"]["absolute_g"]["teff"]) == 4
    assert "[M/H] stands for fe_h" in capsys.readouterr().out
    assert 'id="figure-differences"' in (tmp_path / "v" / "report.html").read_text()


TABLE = ("--against", "t.csv", "--survey", "fs24")


@pytest.mark.usefixtures("never_predicts")
@pytest.mark.parametrize(
    ("columns", "words", "message"),
    [
        (("temperature",), TABLE, "t.csv: has no labels: none of the columns teff"),
        (("teff",), (*TABLE, "--inflate", "logg=2"), "errors of 'logg' cannot be multiplied"),
        (("teff",), (*TABLE, "--inflate", "teff=-1"), "cannot be multiplied by -1"),
        (("fe_h",), TABLE, "t.csv: has fe_h, the model teff, logg: no label in common"),
        (("teff",), TABLE, "t.csv: none of its 2 Gaia sources is among the"),
        ((), TABLE, "t.csv: "),
        ((), ("--survey", "gspphot"), "--survey without a table; add --compare-survey"),
        ((), ("--inflate", "teff=2"), "--inflate without a table"),
        ((), ("--against", "t.csv"), "t.csv: whose table it is was not said; add --survey, one of"),
    ],
)
def test_mistakes_show_before_anything_is_predicted(
    columns: tuple[str, ...], words: tuple[str, ...], message: str, made: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_bytes(b"\x00 no table")
    if columns:
        table = {name + end: [0.5, 0.5] for name in columns for end in ("", "_err")}
        Table({"source_id": [1, 2], **table}).write("t.csv", overwrite=True)
    assert run(made, tmp_path / "v", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("survey", COMPARED)
def test_every_survey_says_what_it_looked_for(survey: str, tmp_path: Path) -> None:
    Table({"source_id": [1, 2], "temperature": [1.0, 2.0]}).write(tmp_path / "t.csv")
    with pytest.raises(InputError, match="has no labels") as caught:
        open_survey(tmp_path / "t.csv", survey)
    assert all(name in str(caught.value) for name in TABLES[survey][3])
    with pytest.raises(InputError, match=r"'lamost' is no survey .* name one of lamost-lrs"):
        open_survey(tmp_path / "t.csv", "lamost")


def test_the_papers_catalogue_under_other_names(tmp_path: Path) -> None:
    def opened(values: list[float], error: str) -> ReferenceSurvey:
        table = Table({"source_id": [7, 5, 9], "TEFF": values, error: [50.0] * 3})
        table.write(tmp_path / f"{error}.csv")
        return open_survey(tmp_path / f"{error}.csv", "fs24")

    found = opened([5000.0, np.nan, 4000.0], "e_teff").of_stars(np.array([9, 7, 1, 5]))
    assert found.labels.names == ("teff",)
    assert np.array_equal(found.labels.values[:, 0], [4000, 5000, np.nan, np.nan], equal_nan=True)
    assert found.matched.tolist() == [True, True, False, False]
    nothing = opened([5000.0] * 3, "sigma_of_t").of_stars(np.array([9]))
    assert not nothing.matched.any()
    assert any("no error of teff; looked for teff_err" in note for note in nothing.notes)


def test_luminosity_from_the_parallax(tmp_path: Path) -> None:
    """Without M_G of the survey: G and parallax, where that is good."""
    stars = simulate(200)
    table = {"source_id": stars.prediction.source_id, "teff": stars.labels.values[:, 0]}
    Table(table | {"teff_err": np.full(200, 20.0)}).write(tmp_path / "t.csv")
    survey = open_survey(tmp_path / "t.csv", "fs24").of_stars(stars.prediction.source_id)
    # G = 10 at 100 pc is M_G = 5; fifty parallaxes are too noisy
    photometry = Photometry.of(
        200,
        {
            "phot_g_mean_mag": (np.full(200, 10.0), np.full(200, 0.01)),
            "parallax": (np.full(200, 10.0), np.where(np.arange(200) < 150, 0.1, 5.0)),
        },
    )
    found = survey_finding(stars.prediction, survey, stars.labels, photometry, resamples=5)
    differences = as_json(found.metrics)["against"]["differences"]
    assert set(differences) == {"absolute_g"}
    (one,) = differences["absolute_g"]["teff"]
    assert (one["low"], one["high"], one["n"]) == (4.0, 6.0, 150)
    # the survey is the known labels themselves
    assert as_json(found.metrics)["against"]["survey_to_survey"]["teff"]["rmse"] == 0


# --- another model --------------------------------------------------------------------------


def test_ratios_are_those_of_the_residuals_and_pairs_are_sharper() -> None:
    stars = simulate(2000)
    validation = score_prediction(stars.prediction, stars.labels, resamples=100)
    k = stars.prediction.names.index("logg")
    worse = stars.prediction.values.copy()
    worse[:, k] += 0.25 * (worse[:, k] - stars.labels.values[:, k])
    worse[::7, k] = np.nan
    other = replace(stars.prediction, values=worse)
    one = model_finding(validation, other, "the other").metrics["beside"]["labels"]["logg"]
    assert one["n"] == np.isfinite(worse[:, k]).sum()
    assert one["rmse_ratio"] == pytest.approx(1.25)
    assert one["robust_ratio"] == pytest.approx(1.25)
    # the residuals are the same but for a factor: in pairs, nothing scatters
    assert one["rmse_ratio_error"] < 1e-9
    same = model_finding(validation, stars.prediction, "itself").metrics["beside"]["labels"]
    assert all(row["rmse_ratio"] == 1 for row in same.values())


@pytest.mark.usefixtures("never_predicts")
def test_models_without_a_common_label_are_refused_before_anything_is_predicted(
    small_model: Model, small_stars: Stars
) -> None:
    other = replace(small_model, names=("fe_h", "alpha_m"))
    with pytest.raises(InputError, match="has fe_h, alpha_m, the model teff, logg: no label"):
        validate(small_model, small_stars, all_stars=True, compare_model=other)


def test_a_model_with_an_input_less(
    made: Path, small_stars: Stars, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As figure A1."""
    other = train(small_stars, ["logg"], quick(auxiliary=()), progress=False, name="without")
    other.save(tmp_path / "without")
    assert run(made, tmp_path / "v", "--compare-model", str(tmp_path / "without")) == 0
    metrics = metrics_in(tmp_path / "v")
    found = metrics["beside"]
    assert (found["model"], found["note"], list(found["labels"])) == ("without", "", ["logg"])
    one = found["labels"]["logg"]
    assert one["rmse"] == pytest.approx(metrics["labels"]["logg"]["rmse"])
    shown = capsys.readouterr().out.partition("beside without, on the same stars")[2]
    row = next(line.split() for line in shown.splitlines() if line.startswith("logg [dex]"))
    assert row[2:5] == [f"{one['n']:,}", *(f"{one[k]:.4g}" for k in ("rmse", "rmse_beside"))]
    assert row[8] == f"{one['robust']:.4g}"
    page = (tmp_path / "v" / "report.html").read_text()
    assert 'id="beside"' in page
    assert 'id="figure-beside"' in page


# --- with and without shrinkage -------------------------------------------------------------


def test_predict_writes_the_unshrunk_estimate_on_request(
    made: Path, small_model: Model, small_stars: Stars, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(made / "stars.parquet"), "--unshrunk", "--output"]
    assert main([*words, str(made / "labels.ecsv"), "--model", str(made / "model")]) == 0
    table, expected = Table.read(made / "labels.ecsv"), small_model.unshrunk().predict(small_stars)
    assert np.asarray(table["logg"]) == pytest.approx(expected.values[:, 1])
    assert "ESTIMATE" in table.meta
    assert main([*words, str(made / "no.csv"), "--model", str(made / "old")]) == 2
    assert "fit_unshrinking" in capsys.readouterr().err


def test_a_report_has_both_estimates_and_is_of_the_one_asked_for(
    small_model: Model, small_stars: Stars, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also for a model from before, whose correction is fitted on the validation part."""
    caplog.set_level("INFO", logger="xplabels")
    mean, unshrunk = (validate(small_model, small_stars, unshrunk=u) for u in (False, True))
    both = mean.metrics["estimates"]
    assert both == unshrunk.metrics["estimates"]
    for result, title in ((mean, "mean"), (unshrunk, "unshrunk")):
        for name in ("teff", "logg"):
            found, expected = both[title]["all"][name], as_json(result.validation.labels[name])
            for key in ("slope", "robust", "rmse", "coverage_68", "coverage_95"):
                assert found[key] == pytest.approx(expected[key])
                assert found["error_of"][key] == pytest.approx(expected["error_of"][key])
            poor = result.validation.groups["metal_poor"].labels[name]
            assert both[title]["metal_poor"][name]["n"] == poor.n > 0
        page = result.write(tmp_path / title).read_text()
        assert 'id="estimates"' in page
        assert ("without shrinkage</h1>" in page) == (result is unshrunk)
    assert "fitted here" not in caplog.text
    old = validate(replace(small_model, unshrinking=None), small_stars, unshrunk=True)
    assert "fitted here" in caplog.text
    for name, strength in both["strength"].items():
        fitted = old.metrics["estimates"]["strength"][name]
        assert fitted == pytest.approx(strength, rel=1e-3, abs=1e-3)
