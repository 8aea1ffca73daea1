"""Another survey beside the model: tables as published, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from xplabels.report.against import against_section
from xplabels.validation.against import COMPARED, Request, compare, read_against

from simulated_predictions import simulate
from xplabels import report
from xplabels.cli import main
from xplabels.cli.validate import SURVEYS
from xplabels.core.errors import InputError
from xplabels.core.stars import Photometry, Stars
from xplabels.io import write_stars
from xplabels.model import Model
from xplabels.surveys import read_survey


@pytest.fixture(scope="module")
def folder(
    small_model: Model, small_stars: Stars, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model and a thousand simulated stars, with labels and without."""
    made = tmp_path_factory.mktemp("against")
    small_model.save(made / "model")
    write_stars(small_stars, made / "stars.parquet")
    write_stars(small_stars.with_labels(None), made / "bare.parquet")
    return made


def run(folder: Path, stars: str, output: Path, *words: str) -> int:
    paths = [str(folder / "model"), str(folder / stars), "--output", str(output)]
    return main(["validate", *paths, "--all", *words])


def lamost(stars: Stars, folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A thousand rows of LRS in the published columns, -9999 where there is nothing."""
    rng = np.random.default_rng(4)
    n = len(stars)
    assert stars.labels is not None
    absent = rng.random((n, 3)) < 0.15
    values = stars.labels.values + rng.normal(0, [60, 0.1, 0.06], (n, 3))
    table = Table({"obsid": np.arange(n), "source_id": stars.source_id})
    table["snrg"] = rng.uniform(5, 200, n)
    for k, (name, sigma) in enumerate((("teff", 60.0), ("logg", 0.1), ("feh", 0.06))):
        table[name] = np.where(absent[:, k], -9999.0, values[:, k])
        table[f"{name}_err"] = np.where(absent[:, k], -9999.0, sigma)
    # one star observed twice: the better spectrum counts
    worse = Table(table[:1])
    worse["snrg"], worse["teff"], worse["teff_err"] = 1.0, 4000.0, 10.0
    path = folder / "lrs.csv"
    pair = [*table, *worse]
    Table(rows=pair, names=table.colnames).write(path, overwrite=True)
    known = np.where(absent, np.nan, values)
    return path, {"teff": known[:, 0], "logg": known[:, 1]}


def test_lamost_from_the_command_line(
    folder: Path, small_model: Model, small_stars: Stars, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(report, "png", lambda figure: b"")  # drawn in the next test
    path, known = lamost(small_stars, tmp_path)
    output = tmp_path / "v"
    words = ("--against", str(path), "--survey", "lamost-lrs")
    assert run(folder, "stars.parquet", output, *words) == 0
    told = json.loads((output / "metrics.json").read_text())["against"]
    prediction = small_model.predict(small_stars)
    assert small_stars.labels is not None
    for k, name in enumerate(("teff", "logg")):
        here = np.isfinite(known[name]) & np.isfinite(prediction.values[:, k])
        residual = (prediction.values[:, k] - known[name])[here]
        assert told["labels"][name]["n"] == here.sum() < 1000
        assert told["labels"][name]["rmse"] == pytest.approx(
            np.sqrt((residual**2).mean()), rel=1e-6
        )
        assert told["labels"][name]["error_of"]["rmse"] > 0
        between = (known[name] - small_stars.labels.values[:, k])[np.isfinite(known[name])]
        beside = told["survey_to_survey"][name]
        assert beside["n"] == len(between)
        assert beside["rmse"] == pytest.approx(np.sqrt((between**2).mean()), rel=1e-6)
        assert beside["robust_std_z"] < 1.2
    shown = capsys.readouterr().out
    assert "LAMOST DR7 low-resolution" in shown
    assert "lamost-lrs minus known labels, teff [K]" in shown
    page = (output / "report.html").read_text()
    assert 'id="against"' in page
    assert 'id="figure-against"' in page
    assert 'id="tables"' in page
    assert 'id="trend"' in page


def gspphot(stars: Stars, path: Path) -> np.ndarray:
    """A thousand rows of astrophysical_parameters, masked where null; teff where known."""
    rng = np.random.default_rng(6)
    n = len(stars)
    assert stars.labels is not None
    absent = rng.random(n) < 0.2
    table = Table({"source_id": stars.source_id})
    extinction = rng.uniform(0, 2, n)
    truth = stars.labels.values + np.stack([200 * extinction, 0 * extinction, -extinction], axis=1)
    for k, (name, sigma) in enumerate((("teff", 40.0), ("logg", 0.05), ("mh", 0.05))):
        for ending, shift in (("", 0.0), ("_lower", -sigma), ("_upper", sigma)):
            table[f"{name}_gspphot{ending}"] = MaskedColumn(truth[:, k] + shift, mask=absent)
    table["ag_gspphot"] = MaskedColumn(extinction, mask=absent)
    table["mg_gspphot"] = MaskedColumn(rng.uniform(-1, 5, n), mask=absent)
    table.write(path, overwrite=True)
    return np.where(absent, np.nan, truth[:, 0])


def test_gspphot_of_stars_without_labels(
    folder: Path, small_stars: Stars, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = gspphot(small_stars, tmp_path / "ap.fits")
    output = tmp_path / "v"
    words = ("--against", str(tmp_path / "ap.fits"), "--survey", "gspphot", "--inflate", "teff=2")
    assert run(folder, "bare.parquet", output, *words) == 0
    metrics = json.loads((output / "metrics.json").read_text())
    told = metrics["against"]
    assert metrics["n"] == told["n"] == np.isfinite(known).sum()
    assert told["survey_to_survey"] == {}
    assert told["inflation"] == {"teff": 2.0}
    titles = [title for title in metrics["table_3"] if "GSP-Phot" in title]
    assert metrics["table_3"][titles[0]]["teff"]["median_error"] == pytest.approx(80, rel=1e-4)
    assert metrics["table_3"][titles[0]]["logg"]["median_error"] == pytest.approx(0.05, rel=1e-4)
    # its temperatures were made 200 K hotter for each magnitude of extinction
    bins = told["differences"]["extinction_g"]["teff"]
    assert sum(one["n"] for one in bins) == told["labels"]["teff"]["n"]
    first, last = bins[0], bins[-1]
    assert last["bias"] - first["bias"] == pytest.approx(-200 * 1.45, abs=60)
    assert len(told["differences"]["absolute_g"]["teff"]) == 4
    assert "[M/H] stands for fe_h" in capsys.readouterr().out
    assert 'id="figure-differences"' in (output / "report.html").read_text()


def test_a_table_without_the_expected_columns(
    folder: Path, small_stars: Stars, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.csv"
    Table({"source_id": small_stars.source_id, "temperature": np.ones(1000)}).write(path)
    words = ("--against", str(path), "--survey", "lamost-lrs")
    assert run(folder, "stars.parquet", tmp_path / "v", *words) == 2
    message = capsys.readouterr().err
    assert f"{path}: has no labels: none of the columns teff, logg, feh;" in message
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize(
    ("columns", "words", "message"),
    [
        (("temperature",), (), "has no labels: none of the columns teff"),
        (("teff", "teff_err"), ("--inflate", "logg=2"), "errors of 'logg' cannot be multiplied"),
        (("teff", "teff_err"), ("--inflate", "teff=-1"), "cannot be multiplied by -1"),
        (("fe_h", "fe_h_err"), (), "knows fe_h, the model teff, logg: there is no label"),
        ((), (), "t.csv"),
    ],
)
def test_mistakes_show_before_anything_is_predicted(
    columns: tuple[str, ...], words: tuple[str, ...], message: str, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / "t.csv"
    if columns:
        Table({"source_id": [1, 2], **{name: [0.5, 0.5] for name in columns}}).write(path)
    else:
        path.write_bytes(b"\x00 no table")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the stars were predicted")

    monkeypatch.setattr(Model, "predict", never)
    words = ("--against", str(path), "--survey", "fs24", *words)
    assert run(folder, "stars.parquet", tmp_path / "v", *words) == 2
    told = capsys.readouterr()
    assert (message in told.err, str(path) in told.err) == (True, True)
    assert not (tmp_path / "v").exists()


def test_an_unknown_survey_is_told_from_python_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'lamost' is no survey .* name one of lamost-lrs"):
        read_against(Request(tmp_path / "t.csv", "lamost"), np.array([1]))


LOOKED_FOR = {
    "lamost-lrs": ("teff", "logg", "feh"),
    "lamost-mrs": ("teff_cnn", "c_fe", "alpha_m_cnn"),
    "gspphot": ("teff_gspphot", "logg_gspphot", "mh_gspphot"),
    "fs24": ("teff", "n_fe", "alpha_m"),
}


def test_the_command_line_knows_the_surveys() -> None:
    assert SURVEYS == COMPARED == tuple(LOOKED_FOR)


@pytest.mark.parametrize("survey", COMPARED)
def test_every_survey_says_what_it_looked_for(survey: str, tmp_path: Path) -> None:
    Table({"source_id": [1, 2], "temperature": [1.0, 2.0]}).write(tmp_path / "t.csv")
    with pytest.raises(InputError, match="has no labels") as caught:
        read_survey(survey, tmp_path / "t.csv")
    assert all(name in str(caught.value) for name in LOOKED_FOR[survey])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--survey", "gspphot"), "--survey without a table; add --against"),
        (("--inflate", "teff=2"), "--inflate without a table"),
        (("--against", "x.csv"), "add --survey, one of lamost-lrs"),
    ],
)
def test_half_of_the_options(
    words: tuple[str, ...], message: str, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(folder, "stars.parquet", tmp_path / "v", *words) == 2
    assert message in capsys.readouterr().err


def fs24(path: Path, ids: np.ndarray, values: np.ndarray, error: str = "teff_err") -> Request:
    Table({"source_id": ids, "TEFF": values, error: np.full(len(ids), 50.0)}).write(path)
    return Request(path, "fs24")


def test_the_papers_catalogue(tmp_path: Path) -> None:
    ids = np.array([7, 5, 9])
    found = read_against(
        fs24(tmp_path / "a.csv", ids, np.array([5000.0, np.nan, 4000.0]), "e_teff"),
        np.array([9, 7, 1, 5]),
    )
    assert found.labels.names == ("teff",)
    assert np.array_equal(found.labels.values[:, 0], [4000, 5000, np.nan, np.nan], equal_nan=True)
    assert found.matched.tolist() == [True, True, False, False]
    nothing = read_against(
        fs24(tmp_path / "b.csv", ids, np.full(3, 5000.0), "sigma_of_t"), np.array([9])
    )
    assert not nothing.matched.any()
    assert any("no error of teff; looked for teff_err" in note for note in nothing.notes)


@pytest.mark.parametrize(
    ("ids", "inflation", "message"),
    [
        ([1, 2], {}, "none of its 3 Gaia sources is among the 2 stars"),
        ([7], {"teff": -1.0}, "cannot be multiplied by -1"),
        ([7], {"logg": 2.0}, "'logg' cannot be multiplied"),
    ],
)
def test_what_stops_a_comparison(
    ids: list[int], inflation: dict[str, float], message: str, tmp_path: Path
) -> None:
    request = fs24(tmp_path / "a.csv", np.array([7, 5, 9]), np.full(3, 5000.0))
    with pytest.raises(InputError, match=message):
        read_against(Request(request.path, "fs24", inflation=inflation), np.array(ids))


def test_luminosity_from_the_parallax(tmp_path: Path) -> None:
    """Without M_G of the survey: G and parallax, where that is good."""
    made = simulate(200)
    values = made.labels.values
    table: dict[str, Any] = {"source_id": made.prediction.source_id, "teff": values[:, 0]}
    Table(table | {"teff_err": np.full(200, 20.0)}).write(tmp_path / "t.csv")
    against = read_against(Request(tmp_path / "t.csv", "fs24"), made.prediction.source_id)
    photometry = Photometry.of(
        200,
        {
            "phot_g_mean_mag": (np.full(200, 10.0), np.full(200, 0.01)),
            "parallax": (np.full(200, 10.0), np.where(np.arange(200) < 150, 0.1, 5.0)),
        },
    )
    found = compare(made.prediction, against, made.labels, photometry, resamples=5)
    assert set(found.axes) == {"absolute_g"}
    # G = 10 at 100 pc is M_G = 5; fifty parallaxes are too noisy
    assert np.nanmin(found.axes["absolute_g"]) == pytest.approx(5.0)
    (one,) = found.differences["absolute_g"]["teff"]
    assert (one.low, one.high, one.scores.n) == (4.0, 6.0, 150)
    # the survey is the known labels themselves
    assert found.known_scores["teff"]["rmse"] == 0
    titles = [table.caption for table in against_section(found).tables]
    assert any("Errors that catalogues state" in title for title in titles)
