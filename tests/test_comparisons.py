"""Surveys, another model and the other estimate compared on the same stars, as commands do it."""

from __future__ import annotations

import json
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
from xplabels.validation.surveys import COMPARED, open_survey, survey_finding


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


def run(folder: Path, output: Path, *words: str, stars: str = "stars.parquet") -> int:
    paths = [str(folder / "model"), str(folder / stars), "--output", str(output)]
    return main(["validate", *paths, *words])


def metrics_in(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


# --- surveys --------------------------------------------------------------------------------


LOOKED_FOR = {
    "lamost-lrs": ("teff", "logg", "feh"),
    "lamost-mrs": ("teff_cnn", "c_fe", "alpha_m_cnn"),
    "gspphot": ("teff_gspphot", "logg_gspphot", "mh_gspphot"),
    "fs24": ("teff", "n_fe", "alpha_m"),
}


def test_every_survey_says_what_it_looked_for(tmp_path: Path) -> None:
    assert SURVEYS == COMPARED == tuple(LOOKED_FOR)
    path = tmp_path / "t.csv"
    Table({"source_id": [1, 2], "temperature": [1.0, 2.0]}).write(path)
    for survey, names in LOOKED_FOR.items():
        with pytest.raises(InputError, match="has no labels") as caught:
            open_survey(path, survey)
        assert all(name in str(caught.value) for name in names)
    with pytest.raises(InputError, match=r"'lamost' is not a survey .* name one of lamost-lrs"):
        open_survey(path, "lamost")


def test_a_survey_as_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LAMOST's null value, and a star observed twice, of which the higher S/N counts."""
    names = ("n_fe", "alpha_m")
    stars = simulate_stars(1000, labels=("fe_h", *names), widths=(6, 5), noise=5.0, seed=3)[0]
    model = train(stars, ("fe_h", *names), quick(epochs=6), progress=False)
    model.save(tmp_path / "model")
    write_stars(stars, tmp_path / "stars.parquet")
    random, known = np.random.default_rng(1), stars.labels.select(names).values
    values = known + 0.1 * known.std(axis=0) * random.standard_normal(known.shape)
    absent = random.random(1000) < 0.15
    values[absent] = -9999.0
    columns = [stars.source_id, range(1000), np.full(1000, 50.0), *values.T]
    table = Table(columns, names=("source_id", "obsid", "snr", "n_fe", "alpha_m_cnn"))
    table.add_row([stars.source_id[0], 1000, 1.0, 0.4, 0.4])
    table.write(tmp_path / "t.csv")
    words = ("--all", "--compare-survey", str(tmp_path / "t.csv"), "--survey", "lamost-mrs")
    assert run(tmp_path, tmp_path / "v", *words, "--inflate", "n_fe=1.5") == 0
    metrics = metrics_in(tmp_path / "v")
    found, predicted = metrics["against"], model.predict(stars)
    assert set(found["labels"]) == set(names)
    for name, theirs, ours in zip(names, values.T, known.T, strict=True):
        scores, between = found["labels"][name], found["survey_to_survey"][name]
        assert scores["n"] == between["n"] == (~absent).sum() < 1000
        residual = (predicted.values[:, predicted.names.index(name)] - theirs)[~absent]
        assert scores["rmse"] == pytest.approx(np.sqrt((residual**2).mean()))
        assert scores["error_of"]["rmse"] > 0
        assert between["rmse"] == pytest.approx((theirs - ours)[~absent].std(), rel=0.02)
    assert found["inflation"] == {"n_fe": 1.5}
    assert len([title for title in metrics["table_3"] if "n_fe x 1.5" in title]) == 1
    poor = known[:, 0] < -0.4
    counts = [row["n"] for row in metrics["poor_in_nitrogen"].values()]
    assert counts == [poor.sum(), (~poor).sum()]
    assert "lamost-mrs minus known labels, n_fe [dex]" in capsys.readouterr().out
    page = (tmp_path / "v" / "report.html").read_text()
    for shown in ("Against lamost-mrs", 'id="figure-against"', 'id="tables"', 'id="trend"'):
        assert shown in page


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
        (
            (),
            ("--against", "t.csv"),
            "t.csv: the table's survey is not given; add --survey, one of",
        ),
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


def test_a_survey_in_the_order_of_other_stars(tmp_path: Path) -> None:
    table = {"source_id": [7, 5, 9], "TEFF": [5000.0, np.nan, 4000.0], "e_teff": [50.0] * 3}
    Table(table).write(tmp_path / "t.csv")
    found = open_survey(tmp_path / "t.csv", "fs24").of_stars(np.array([9, 7, 1, 5]))
    assert found.labels.names == ("teff",)
    assert np.array_equal(found.labels.values[:, 0], [4000, 5000, np.nan, np.nan], equal_nan=True)
    assert found.matched.tolist() == [True, True, False, False]


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
    """Also for an older model, whose correction is fitted on the validation part."""
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
