"""Tables 1-3, abundance planes, nitrogen-poor stars, joint coverage, slopes by S/N, cut flow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from xplabels.report.calibration import joint_section
from xplabels.report.paper_tables import TABLE_1, table_1, table_1_scores, table_3_scores
from xplabels.report.populations import (
    flow_section,
    nitrogen_scores,
    planes_section,
    population_sections,
    trend_section,
)
from xplabels.validation.trend import signal_to_noise, trend_along

from simulated_predictions import NAMES, PROVENANCE, simulate
from xplabels import report
from xplabels.api.validation import _cut_flow
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.stars import Band, CoefficientSpectra, SampledSpectra, Stars
from xplabels.cuts.flow import Cut, CutFlow
from xplabels.synthetic import simulate_stars
from xplabels.validation import Validation, validate

SIX = ("teff", "logg", "fe_h", "c_fe", "n_fe", "alpha_m")


def six(n: int = 600, seed: int = 1) -> tuple[Prediction, Labels]:
    """Six labels with right Gaussian errors; a tenth of the stars is poor in nitrogen."""
    rng = np.random.default_rng(seed)
    sigma = np.array([60.0, 0.1, 0.07, 0.04, 0.05, 0.03])
    truth = rng.normal([4700, 2.5, -0.3, 0.0, 0.2, 0.1], [300, 0.6, 0.3, 0.1, 0.1, 0.1], (n, 6))
    truth[: n // 10, 4] = rng.uniform(-0.9, -0.5, n // 10)
    errors = np.broadcast_to(sigma, (n, 6)) * rng.uniform(0.5, 2, (n, 1))
    # what is predicted of the nitrogen-poor knows nothing of it
    values = truth + errors * rng.normal(size=(n, 6))
    values[: n // 10, 4] = 0.2
    made = Prediction(
        np.arange(1, n + 1), SIX, values, errors, 0.6 * errors, 0.8 * errors, 0 * errors,
        2 * errors, np.ones(n), np.zeros(n, np.uint32), correlations=np.zeros((n, 15)),
    )  # fmt: skip
    label_errors = np.full((n, 6), [20, 0.03, 0.01, 0.01, 0.02, 0.01])
    return made, Labels(SIX, truth + label_errors * rng.normal(size=(n, 6)), label_errors)


@pytest.fixture(scope="module")
def validated() -> Validation:
    prediction, labels = six()
    return validate(prediction, labels, resamples=20)


def test_table_1_by_hand(validated: Validation) -> None:
    prediction, labels = six()
    found = table_1_scores(validated)
    for k, name in enumerate(SIX):
        residual = prediction.values[:, k] - labels.values[:, k]
        assert found[name]["median_prediction"] == np.median(prediction.values[:, k])
        assert found[name]["median_error"] == np.median(prediction.errors[:, k])
        assert found[name]["median_residual"] == np.median(residual)
        assert found[name]["rmse"] == pytest.approx(np.sqrt((residual**2).mean()))
        assert found[name].error["rmse"] > 0
    rows = table_1(validated).rows
    assert [row[0] for row in rows[:2]] == ["teff [K]", "paper, other stars"]
    assert rows[1][4] == f"{TABLE_1['teff'][3]:g}" == "51.77"
    assert rows[0][5] == "600"


def test_table_3_without_another_catalogue(validated: Validation) -> None:
    assert list(table_3_scores(validated, None)) == ["this model"]


def test_nitrogen_poor_stars(validated: Validation) -> None:
    poor, others = nitrogen_scores(validated).values()
    assert (poor.n, others.n) == (60, 540)
    assert poor["median_known"] < -0.4 < others["median_known"]
    assert poor["predicted_16"] == poor["predicted_84"] == 0.2
    assert poor["coverage_68"] == 0
    assert abs(others["coverage_68"] - 0.683) < 0.08


def test_planes_have_the_papers_axes(validated: Validation) -> None:
    training = six(200, seed=9)[1]
    section = planes_section(validated, training)
    assert section is not None
    panels = section.pictures[0].figure.axes
    assert len(panels) == 5 * 4
    titles = [ax.get_title(loc="left") for ax in panels]
    assert sum("small errors" in title for title in titles) == 5
    assert "Training set, N = 200" in titles
    inverted = [ax.xaxis_inverted() for ax in panels[::4]]
    assert inverted == [False, True, False, True, False]  # giants at the right, as in the paper
    small = int(titles[1].split("= ")[1])
    assert small == 300  # half of the stars: all errors of a star are large or small together
    assert "poor in nitrogen" in section.tables[0].caption


def test_no_planes_without_two_labels() -> None:
    prediction, labels = six(300)
    few = validate(prediction, labels.select(["teff", "logg"]), resamples=0)
    assert planes_section(few, None) is None
    assert nitrogen_scores(few) == {}
    assert [section.anchor for section in population_sections(few, None)] == ["tables"]


def test_joint_coverage_is_judged(validated: Validation) -> None:
    section = joint_section(validated)
    assert section is not None
    # nitrogen is wrong in a tenth of the stars, so that the ellipsoids hold too few
    assert section.badge.verdict == "fail"
    prediction, labels = six(4000)
    right = validate(
        prediction,
        labels.select([name for name in SIX if name != "n_fe"]),
        resamples=5,
    )
    good = joint_section(right)
    assert good is not None
    assert good.badge.verdict == "pass"


def test_slopes_fall_where_the_noise_is() -> None:
    """Predictions shrunk by the known factor 0.5 below an S/N of 50, exact above."""
    made = simulate(2000)
    truth = made.labels.values
    snr = np.random.default_rng(0).uniform(1, 100, 2000)
    factor = np.where(snr < 50, 0.5, 1.0)[:, None]
    shrunk = truth.mean(axis=0) + factor * (truth - truth.mean(axis=0))
    shrunk += 1e-9 * (np.arange(2000) % 2)[:, None]
    validation = validate(replace(made.prediction, values=shrunk), made.labels, resamples=10)
    trend = trend_along(validation.samples, "S/N", snr, resamples=10)
    assert trend is not None
    assert [one.n for one in trend.slopes["teff"]] == [334, 333, 333, 333, 333, 334]
    for name in NAMES:
        row = [one["slope"] for one in trend.slopes[name]]
        assert row[0] == pytest.approx(0.5, abs=0.02)
        assert row[-1] == pytest.approx(1.0, abs=1e-6)
    assert np.all((trend.edges[:-1] < trend.middle) & (trend.middle < trend.edges[1:]))
    section = trend_section(trend)
    assert len(section.tables[0].rows) == 6
    json.dumps(trend.to_metrics(), allow_nan=False)


def test_no_slopes_of_few_stars() -> None:
    made = simulate(150)
    samples = validate(made.prediction, made.labels, resamples=0).samples
    assert trend_along(samples, "S/N", np.arange(150.0)) is None
    assert trend_along(samples, "S/N", np.full(150, np.nan)) is None


def test_signal_to_noise_of_either_kind() -> None:
    bp = Band(np.ones((2, 3)), np.ones((2, 3)), None)
    rp = Band(np.array([[50.0, 1, 1], [-1, 1, 1]]), np.full((2, 3), 5.0), None)
    words, values = signal_to_noise(CoefficientSpectra(bp, rp))
    assert "RP" in words
    assert np.array_equal(values, [10, np.nan], equal_nan=True)
    flux = np.array([[1.0, 2, 3], [np.nan, 1, 1]])
    words, values = signal_to_noise(
        SampledSpectra(np.array([400.0, 500, 600]), flux, np.full((2, 3), 0.5))
    )
    assert "sample" in words
    assert np.array_equal(values, [4, np.nan], equal_nan=True)


FLOW = CutFlow(100, (Cut("ruwe", "gaia.ruwe <= 1.4", 90, 7, 7), Cut("x", "other", None, 0, 0)))


def test_a_cut_flow_comes_back_and_into_the_report() -> None:
    assert CutFlow.from_dict(json.loads(json.dumps(FLOW.to_dict()))) == FLOW
    section = flow_section(FLOW)
    assert section.tables[0].rows[1] == ["ruwe", "7", "7", "93", "gaia.ruwe <= 1.4"]
    assert section.tables[0].rows[2][1] == "not applied"


def test_the_cut_flow_beside_a_table(tmp_path: Path) -> None:
    said: list[str] = []
    stars: Stars = simulate_stars(3, seed=1)[0]
    here = replace(stars, file=str(tmp_path / "t.parquet"))
    assert _cut_flow(here, said.append) is None
    beside = tmp_path / "t.cuts.json"
    beside.write_text(json.dumps({"flow": FLOW.to_dict()}))
    assert _cut_flow(here, said.append) == FLOW
    beside.write_text("[1]")
    assert _cut_flow(here, said.append) is None
    assert len(said) == 1
    assert "no cut flow" in said[0]


def test_everything_is_in_the_page(validated: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "png", lambda figure: b"")
    prediction, _ = six()
    files = report.report_files(
        validated, prediction, model_card="", provenance=PROVENANCE, metrics={"more": 1}
    )
    metrics = json.loads(files["metrics.json"])
    assert metrics["more"] == 1
    assert metrics["table_1"]["c_fe"]["n"] == 600
    assert metrics["poor_in_nitrogen"]["others"]["n"] == 540
    page = files["report.html"].decode()
    for anchor in ("joint", "planes", "tables"):
        assert f'id="{anchor}"' in page
