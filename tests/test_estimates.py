"""Both estimates from the command line and in a report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from xplabels import report
from xplabels.calibration.shrinkage import ShrinkageCorrection
from xplabels.cli import main
from xplabels.core.stars import Stars
from xplabels.io import write_stars
from xplabels.model import Model
from xplabels.report.estimates import compare_estimates
from xplabels.validation import validate
from xplabels.validation.trend import signal_to_noise


@pytest.fixture(scope="module")
def here(small_model: Model, small_stars: Stars, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("estimates")
    small_model.save(folder / "model")
    replace(small_model, unshrinking=None).save(folder / "old")
    write_stars(small_stars, folder / "stars.parquet")
    return folder


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn elsewhere."""
    monkeypatch.setattr(report, "png", lambda figure: b"")


def validated(here: Path, model: str, *options: str) -> dict[str, Any]:
    output = here / "_".join(("report", model, *options))
    if not output.exists():
        words = ["validate", str(here / model), str(here / "stars.parquet"), *options]
        assert main([*words, "--output", str(output)]) == 0
    metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    page = (output / "report.html").read_text()
    assert 'id="estimates"' in page
    assert ("without the trend to the mean</h1>" in page) == ("--unshrunk" in options)
    return metrics


def test_predict_writes_the_estimate_asked_for_and_says_which(
    here: Path, small_model: Model, small_stars: Stars
) -> None:
    for options in ([], ["--unshrunk"]):
        output = here / f"labels{len(options)}.ecsv"
        main(["predict", str(here / "stars.parquet"), "--output", str(output),
              "--model", str(here / "model"), *options])  # fmt: skip
        table = Table.read(output)
        model = small_model.unshrunk() if options else small_model
        assert np.asarray(table["logg"]) == pytest.approx(model.predict(small_stars).values[:, 1])
        assert ("ESTIMATE" in table.meta) == bool(options)


def test_the_same_run_with_the_other_estimate_does_not_go_on(
    here: Path, small_model: Model
) -> None:
    """An interrupted catalogue must not mix the two."""
    from xplabels.pipeline.file import PredictOptions

    one, other = (PredictOptions().settings(m) for m in (small_model, small_model.unshrunk()))
    assert one != other


def test_a_report_has_both_and_is_of_the_one_asked_for(here: Path) -> None:
    mean, unshrunk = validated(here, "model"), validated(here, "model", "--unshrunk")
    for name in ("teff", "logg"):
        both = mean["estimates"]
        assert both == unshrunk["estimates"]
        for metrics, title in ((mean, "mean"), (unshrunk, "unshrunk")):
            for key in ("slope", "rmse", "coverage_68"):
                assert both[title]["all"][name][key] == pytest.approx(metrics["labels"][name][key])


def test_for_a_model_of_before_it_is_fitted_on_the_validation_part(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted, trained = validated(here, "old", "--unshrunk"), validated(here, "model", "--unshrunk")
    assert "fitted here" in capsys.readouterr().out
    for name, strength in trained["estimates"]["strength"].items():
        assert fitted["estimates"]["strength"][name] == pytest.approx(strength, rel=1e-3, abs=1e-3)


def test_a_model_of_before_predicts_no_unshrunk_labels(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(here / "stars.parquet"), "--output", str(here / "no.csv")]
    assert main([*words, "--model", str(here / "old"), "--unshrunk"]) == 2
    assert "fit_unshrinking" in capsys.readouterr().err
    assert not (here / "no.csv").exists()


def test_scores_are_those_of_a_validation_of_each(small_model: Model, small_stars: Stars) -> None:
    mean = small_model.predict(small_stars)
    unshrinking = small_model.unshrinking
    assert isinstance(unshrinking, ShrinkageCorrection)
    known = small_stars.labels
    assert known is not None
    found = compare_estimates(
        validate(mean, known, resamples=20),
        mean,
        unshrinking,
        *signal_to_noise(small_stars.spectra),
    )
    twin = validate(unshrinking.apply(mean), known, resamples=20)
    for name in mean.names:
        for key in ("slope", "robust", "coverage_95"):
            here, there = found.scores["unshrunk"]["all"][name], twin.labels[name]
            assert here[key] == pytest.approx(there[key])
            assert here.error[key] == pytest.approx(there.error[key])
    poor = found.scores["mean"]["metal_poor"]["logg"]
    assert poor.n == int((known.select(["fe_h"]).values[:, 0] < -1).sum())
