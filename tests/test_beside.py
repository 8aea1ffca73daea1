"""Another model on the same stars: paired ratios, and the section of the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from xplabels.report.model_comparison import compare_models

from conftest import quick
from simulated_predictions import simulate
from xplabels import report
from xplabels.api.validation import validate_model
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.io import write_stars
from xplabels.model import Model
from xplabels.training import train
from xplabels.validation import validate


def test_ratios_are_those_of_the_residuals_and_pairs_are_sharper() -> None:
    made = simulate(2000)
    validation = validate(made.prediction, made.labels, resamples=100)
    k = made.prediction.names.index("logg")
    residual = made.prediction.values[:, k] - made.labels.values[:, made.labels.names.index("logg")]
    worse = made.prediction.values.copy()
    worse[:, k] += 0.25 * residual
    worse[::7, k] = np.nan
    other = replace(made.prediction, values=worse)
    one = compare_models(validation, other, "the other").ratios["logg"]
    assert one["n"] == np.isfinite(worse[:, k]).sum()
    assert one["rmse_ratio"] == pytest.approx(1.25)
    assert one["robust_ratio"] == pytest.approx(1.25)
    # the residuals are the same but for a factor: in pairs, nothing scatters
    assert one["rmse_ratio_error"] < 1e-9
    same = compare_models(validation, made.prediction, "itself").ratios
    assert all(row["rmse_ratio"] == 1 for row in same.values())


def test_models_without_a_common_label_cannot_be_compared() -> None:
    made = simulate(200)
    validation = validate(made.prediction, made.labels.select(["teff"]), resamples=5)
    k = made.prediction.names.index("logg")
    arrays = ("values", "errors", "errors_model", "errors_input", "errors_excess", "errors_95")
    only = replace(
        made.prediction, names=("logg",), correlations=None,
        **{name: getattr(made.prediction, name)[:, [k]] for name in arrays},
    )  # fmt: skip
    with pytest.raises(InputError, match="predicts none of teff"):
        compare_models(validation, only, "the other")


def test_models_without_a_common_label_are_refused_before_anything_is_predicted(
    small_model: Model, small_stars: Stars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the stars were predicted")

    monkeypatch.setattr(Model, "predict", never)
    with pytest.raises(InputError, match="predicts none of teff, logg"):
        validate_model(
            small_model,
            small_stars,
            tmp_path / "v",
            every=True,
            beside=replace(small_model, names=("fe_h", "alpha_m")),
            say=lambda line: None,
        )


def test_from_the_command_line(
    small_model: Model, small_stars: Stars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As figure A1: the same recipe with an input less."""
    monkeypatch.setattr(report, "png", lambda figure: b"")
    small_model.save(tmp_path / "model")
    train(small_stars, ["logg"], quick(auxiliary=()), progress=False, name="without").save(
        tmp_path / "without"
    )
    write_stars(small_stars, tmp_path / "stars.parquet")
    words = ["validate", str(tmp_path / "model"), str(tmp_path / "stars.parquet"), "--output",
             str(tmp_path / "v"), "--beside", str(tmp_path / "without")]  # fmt: skip
    assert main(words) == 0
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    told = metrics["beside"]
    assert (told["model"], told["note"], list(told["labels"])) == ("without", "", ["logg"])
    assert told["labels"]["logg"]["rmse"] == pytest.approx(metrics["labels"]["logg"]["rmse"])
    shown = capsys.readouterr().out.partition("beside without, on the same stars")[2]
    row = next(line.split() for line in shown.splitlines() if line.startswith("logg [dex]"))
    one = told["labels"]["logg"]
    wanted = [f"{one['n']:,}", *(f"{one[key]:.4g}" for key in ("rmse", "rmse_beside"))]
    assert row[2:5] == wanted
    assert row[8] == f"{one['robust']:.4g}"
    page = (tmp_path / "v" / "report.html").read_text()
    assert 'id="beside"' in page
    assert 'id="figure-beside"' in page
