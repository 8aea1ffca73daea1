"""Tuned XGBoost and the paper's network beside the default and the shipped model.

    python benchmarks/baseline.py --output benchmarks/results

All see the same stars of the real library (3200 < Teff < 7000 K, four labels), the same inputs
(XP coefficients and their noise level, which the paper's network does not take, BP-RP, J-H) and
the same split; what is printed is the test part, on which nothing is trained.
XGBoost's settings are those of the tuned baseline (3000 trees, depth 8, rate 0.03). It has no
error bar. Needs the extras `library` and `benchmarks`; about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from xplabels.api.demo import LABELS, TEST_FRACTION
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.features import FeatureSet
from xplabels.model import Model
from xplabels.recipes import load_recipe
from xplabels.surveys.library import WELL_LABELLED, read_library
from xplabels.training import train
from xplabels.validation import score_prediction
from xplabels.validation.finding import as_json

AUXILIARY = ("bp_rp", "j_h")
XGBOOST = {
    "n_estimators": 3000,
    "max_depth": 8,
    "learning_rate": 0.03,
    "subsample": 0.7,
    "colsample_bytree": 0.5,
    "min_child_weight": 5,
    "tree_method": "hist",
    "random_state": 0,
}
COLUMNS = ("rmse", "robust", "coverage_68", "robust_std_z")


def xgboost_scores(stars: Stars, labels: Labels) -> dict[str, Any]:
    """One regressor a label on the network's own inputs; RMSE and robust scatter, no errors."""
    feature_set = FeatureSet.for_stars(stars, AUXILIARY, noise=True)
    features = feature_set.compute(stars)
    x = np.concatenate([features.x, feature_set.noise_levels(features)], axis=1)
    training = part_mask(stars.source_id, "train", TEST_FRACTION)
    test = part_mask(stars.source_id, "test", TEST_FRACTION)
    scores: dict[str, Any] = {}
    for k, name in enumerate(labels.names):
        y = labels.values[:, k]
        regressor = xgboost.XGBRegressor(**XGBOOST)
        regressor.fit(x[training], y[training])
        residual = regressor.predict(x[test]) - y[test]
        scores[name] = {"rmse": _rms(residual), "robust": _robust(residual)}
    return scores


def network_scores(make: Callable[[], Model], stars: Stars) -> dict[str, Any]:
    """Scores of a model on the test part."""
    test = stars[part_mask(stars.source_id, "test", TEST_FRACTION)]
    prediction: Prediction = make().predict(test)
    scores: dict[str, Any] = as_json(score_prediction(prediction, _labels(test)).labels)
    return scores


def _labels(stars: Stars) -> Labels:
    if stars.labels is None:
        raise SystemExit("the library has no labels")
    return stars.labels


def _rms(residual: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(residual**2)))


def _robust(residual: NDArray[np.float64]) -> float:
    return float(1.4826 * np.median(np.abs(residual - np.median(residual))))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--paper-scale", type=float, default=0.02,
                        help="share of the paper's 20,000 iterations a batch")  # fmt: skip
    parser.add_argument("--only", default="", metavar="NAMES",
                        help="comma-separated contestants beside xgboost; default all")  # fmt: skip
    parser.add_argument("--keep", default="", metavar="NAMES",
                        help="comma-separated contestants whose results stand")  # fmt: skip
    arguments = parser.parse_args()
    stars, _ = WELL_LABELLED.apply(read_library())
    paper = replace(load_recipe("paper"), auxiliary=AUXILIARY, scale=arguments.paper_scale)
    default = replace(load_recipe("default"), auxiliary=AUXILIARY)
    contestants: dict[str, Callable[[], dict[str, Any]]] = {
        "xgboost": lambda: xgboost_scores(stars, _labels(stars)),
        "paper": lambda: network_scores(lambda: train(stars, LABELS, paper), stars),
        "default": lambda: network_scores(lambda: train(stars, LABELS, default), stars),
        "shipped": lambda: network_scores(lambda: Model.load("apogee-dr17-library"), stars),
    }
    if arguments.only:
        wanted = ("xgboost", *arguments.only.split(","))
        contestants = {name: contestants[name] for name in wanted}
    facts = {
        "n_train": int(part_mask(stars.source_id, "train", TEST_FRACTION).sum()),
        "n_test": int(part_mask(stars.source_id, "test", TEST_FRACTION).sum()),
        "paper_scale": arguments.paper_scale,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "baseline.json"
    results: dict[str, Any] = json.loads(file.read_text()) if arguments.keep else {}
    if any(results.get(key, value) != value for key, value in facts.items()):
        raise SystemExit(f"{file} is of other stars or settings: run without --keep")
    results |= facts
    for name, run in contestants.items():
        if name in arguments.keep.split(","):
            continue
        begun = time.monotonic()
        results[name] = {"labels": run(), "seconds": round(time.monotonic() - begun, 1)}
        print(f"{name}: {results[name]['seconds']} s", flush=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results, tuple(contestants)))


def table(results: dict[str, Any], contestants: tuple[str, ...]) -> str:
    """Scores and their ratio to XGBoost's, as text."""
    lines = [f"{results['n_train']} training stars, {results['n_test']} test stars"]
    for name in LABELS:
        lines.append(f"{name:8s} " + " ".join(f"{column:>14s}" for column in COLUMNS))
        reference = results["xgboost"]["labels"][name]
        for contestant in contestants:
            scores = results[contestant]["labels"][name]
            cells = []
            for column in COLUMNS:
                value = scores.get(column)
                text = "-" if value is None else f"{value:.4g}"
                if value is not None and column in reference:
                    text += f" ({value / reference[column]:.2f})"
                cells.append(f"{text:>14s}")
            lines.append(f"  {contestant:8s}" + " ".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
