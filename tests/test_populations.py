"""Tables 1-3, abundance planes, nitrogen-poor stars, joint coverage, slopes by S/N, cut flow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulated_predictions import NAMES, simulate
from xplabels.api.validation import validate
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.stars import Band, CoefficientSpectra, SampledSpectra, Stars
from xplabels.cuts.flow import Cut, CutFlow
from xplabels.model import Model
from xplabels.validation import Validation, score_prediction
from xplabels.validation.accuracy import findings_of
from xplabels.validation.calibration import joint_finding
from xplabels.validation.finding import metrics_of
from xplabels.validation.populations import (
    TABLE_1,
    flow_finding,
    paper_finding,
    planes_finding,
    shrinkage_finding,
    signal_to_noise,
)

SIX = ("teff", "logg", "fe_h", "c_fe", "n_fe", "alpha_m")


def six(n: int = 600, seed: int = 1) -> tuple[Prediction, Labels]:
    """Six labels with correct Gaussian errors; a tenth of the stars is nitrogen-poor."""
    rng = np.random.default_rng(seed)
    sigma = np.array([60.0, 0.1, 0.07, 0.04, 0.05, 0.03])
    truth = rng.normal([4700, 2.5, -0.3, 0.0, 0.2, 0.1], [300, 0.6, 0.3, 0.1, 0.1, 0.1], (n, 6))
    truth[: n // 10, 4] = rng.uniform(-0.9, -0.5, n // 10)
    errors = np.broadcast_to(sigma, (n, 6)) * rng.uniform(0.5, 2, (n, 1))
    # the prediction for the nitrogen-poor stars is that of a normal one
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
    return score_prediction(prediction, labels, resamples=20)


def test_table_1_by_hand(validated: Validation) -> None:
    prediction, labels = six()
    found = paper_finding(validated)
    scores = found.metrics["table_1"]
    for k, name in enumerate(SIX):
        residual = prediction.values[:, k] - labels.values[:, k]
        assert scores[name]["median_prediction"] == np.median(prediction.values[:, k])
        assert scores[name]["median_error"] == np.median(prediction.errors[:, k])
        assert scores[name]["median_residual"] == np.median(residual)
        assert scores[name]["rmse"] == pytest.approx(np.sqrt((residual**2).mean()))
        assert scores[name].error["rmse"] > 0
    rows = found.section.tables[0].rows
    assert rows[0][:2] == ["teff [K]", "600"]
    assert (rows[1][0], rows[1][5]) == ("paper, other stars", f"{TABLE_1['teff'][3]:g}")
    assert list(found.metrics["table_3"]) == ["this model"]


def test_nitrogen_poor_stars(validated: Validation) -> None:
    poor, others = metrics_of(findings_of(validated))["poor_in_nitrogen"].values()
    assert (poor["n"], others["n"]) == (60, 540)
    assert poor["median_known"] < -0.4 < others["median_known"]
    assert poor["predicted_16"] == poor["predicted_84"] == 0.2
    assert poor["coverage_68"] == 0
    assert abs(others["coverage_68"] - 0.683) < 0.08


def test_planes_have_the_papers_axes(validated: Validation) -> None:
    found = planes_finding(validated, six(200, seed=9)[1])
    panels = found.section.pictures[0].draw().axes
    assert len(panels) == 5 * 4
    titles = [ax.get_title(loc="left") for ax in panels]
    assert sum("small errors" in title for title in titles) == 5
    assert "Training set, N = 200" in titles
    inverted = [ax.xaxis_inverted() for ax in panels[::4]]
    assert inverted == [False, True, False, True, False]  # giants at the right, as in the paper
    small = int(titles[1].split("= ")[1])
    assert small == 300  # half of the stars: all errors of a star are large or small together
    assert "poor in nitrogen" in found.section.tables[0].caption


def test_joint_coverage_has_a_verdict_where_correlations_are_predicted(
    validated: Validation,
) -> None:
    prediction, labels = six(4000)
    # nitrogen is wrong for a tenth of the stars, so that the ellipsoids hold too few
    assert joint_finding(validated).section.badge.verdict == "fail"
    known = labels.select([name for name in SIX if name != "n_fe"])
    right = score_prediction(prediction, known, resamples=5)
    assert joint_finding(right).section.badge.verdict == "pass"
    alone = replace(prediction, correlations=None)
    few = score_prediction(alone, labels.select(["teff", "logg"]), resamples=0)
    assert joint_finding(few) is planes_finding(few, None) is None


def test_slopes_fall_where_the_noise_is() -> None:
    """Predictions shrunk by the known factor 0.5 below an S/N of 50, exact above."""
    made = simulate(2000)
    truth = made.labels.values
    snr = np.random.default_rng(0).uniform(1, 100, 2000)
    factor = np.where(snr < 50, 0.5, 1.0)[:, None]
    shrunk = truth.mean(axis=0) + factor * (truth - truth.mean(axis=0))
    shrunk += 1e-9 * (np.arange(2000) % 2)[:, None]
    prediction = replace(made.prediction, values=shrunk)
    validation = score_prediction(prediction, made.labels, resamples=10)
    found = shrinkage_finding(validation, "S/N", snr)
    trend = metrics_of([found])["slope_by_snr"]
    json.dumps(trend, allow_nan=False)
    for name in NAMES:
        row = trend["labels"][name]
        assert [one["n"] for one in row] == [334, 333, 333, 333, 333, 334]
        assert row[0]["slope"] == pytest.approx(0.5, abs=0.02)
        assert row[-1]["slope"] == pytest.approx(1.0, abs=1e-6)
        assert [one["high"] for one in row[:-1]] == [one["low"] for one in row[1:]]
    assert len(found.section.tables[0].rows) == 6
    few = score_prediction(prediction[:150], made.labels[:150], resamples=0)
    assert shrinkage_finding(few, "S/N", snr) is None
    assert shrinkage_finding(validation, "S/N", np.full(2000, np.nan)) is None


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


def test_the_cut_flow_next_to_a_table_is_in_the_report(
    small_model: Model, small_stars: Stars, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="xplabels")
    flow = CutFlow(100, (Cut("ruwe", "gaia.ruwe <= 1.4", 90, 7, 7), Cut("x", "other", None, 0, 0)))
    found = flow_finding(flow)
    assert found.section.tables[0].rows[1] == ["ruwe", "7", "7", "93", "gaia.ruwe <= 1.4"]
    assert found.section.tables[0].rows[2][1] == "not applied"
    stars = replace(small_stars, file=str(tmp_path / "t.parquet"))
    assert "cut_flow" not in validate(small_model, stars).metrics
    (tmp_path / "t.cuts.json").write_text(json.dumps({"flow": flow.to_dict()}))
    assert validate(small_model, stars).metrics["cut_flow"] == flow.to_dict()
    (tmp_path / "t.cuts.json").write_text("[1]")
    assert "cut_flow" not in validate(small_model, stars).metrics
    assert caplog.text.count("is not a cut flow") == 1
