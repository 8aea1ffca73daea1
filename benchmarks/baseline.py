"""Tuned XGBoost and the paper's network beside the default and the shipped model.

    python benchmarks/baseline.py --output benchmarks/results

XGBoost and the default train on every star of the real library with a known label, on the inputs of
the shipped model: XP coefficients and their noise level, and seven colours. XGBoost learns the
logarithm of Teff, as they do. The paper's network takes what it can: stars of 3200-7000 K with four
known labels, BP-RP and J-H, no noise level. The split is one, and what is printed is of the test
part's stars of 3200-7000 K with four known labels, on which nothing is trained.
XGBoost's settings are those of a tuned baseline on fewer inputs (3000 trees, depth 8, rate 0.03);
--tune N tries N further settings for each label (scikit-learn's ParameterSampler), chooses by the
validation part's RMSE and stops there, too. It has no error bar. Needs the extras `library` and
`benchmarks`; about an hour on two cores, and N times as long with --tune.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from common import RESULTS, known_labels, options, write_json
from xplabels.api.demo import LABELS, TEST_FRACTION
from xplabels.core.scores import rms, robust_scatter
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.features import FeatureSet
from xplabels.model import Model
from xplabels.recipes import load_recipe
from xplabels.surveys.library import WELL_LABELLED, read_library
from xplabels.training import train
from xplabels.validation import score_prediction
from xplabels.validation.finding import as_json

AUXILIARY = ("bp_rp", "j_h", "g_rp", "g_j", "rp_j", "rp_ks", "h_ks")
"""The shipped model's; the paper's network takes the first two."""
LOGARITHMIC = ("teff",)
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
TRIED: dict[str, list[float]] = {
    "max_depth": [5, 6, 8, 10],
    "learning_rate": [0.02, 0.03, 0.05],
    "subsample": [0.5, 0.7, 0.9],
    "colsample_bytree": [0.2, 0.35, 0.5],
    "min_child_weight": [2, 5, 10, 20],
    "reg_lambda": [1.0, 3.0, 10.0],
}
"""What --tune draws from."""
PATIENCE = 100
"""Trees without a better validation RMSE after which a trial of --tune ends."""
COLUMNS = ("rmse", "robust", "coverage_68", "robust_std_z")


def xgboost_scores(stars: Stars, scored: Stars, tries: int) -> dict[str, Any]:
    """One regressor a label, trained on ``stars``: scores of the test part of ``scored``.

    With ``tries`` settings chosen by the validation part beside :data:`XGBOOST`.
    """
    labels, wanted = known_labels(stars), known_labels(scored)
    x, x_scored = _inputs(stars), _inputs(scored)
    parts = [part_mask(stars.source_id, part, TEST_FRACTION) for part in ("train", "validation")]
    test = part_mask(scored.source_id, "test", TEST_FRACTION)
    scores: dict[str, Any] = {}
    for k, name in enumerate(labels.names):
        y = np.log(labels.values[:, k]) if name in LOGARITHMIC else labels.values[:, k]
        known = np.isfinite(y)
        training, validation = (part & known for part in parts)
        regressor, chosen = _fitted(x, y, training, validation, tries)
        predicted = regressor.predict(x_scored[test])
        predicted = np.exp(predicted) if name in LOGARITHMIC else predicted
        residual = predicted - wanted.select([name]).values[test, 0]
        scores[name] = {
            "rmse": float(rms(residual)), "robust": float(robust_scatter(residual)),
            "n_train": int(training.sum()), **chosen,
        }  # fmt: skip
        print(f"xgboost {name}: {scores[name]}", flush=True)
    return scores


def _inputs(stars: Stars) -> NDArray[np.float64]:
    """The network's own inputs [N, F]: coefficients over RP 0, colours, noise levels."""
    feature_set = FeatureSet.for_stars(stars, AUXILIARY, noise=True)
    features = feature_set.compute(stars)
    return np.concatenate([features.x, feature_set.noise_levels(features)], axis=1)


def _fitted(
    x: NDArray[np.float64], y: NDArray[np.float64], training: NDArray[np.bool_],
    validation: NDArray[np.bool_], tries: int,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """The regressor of the smallest validation RMSE, and its settings where they were tuned."""
    if not tries:
        regressor = xgboost.XGBRegressor(**XGBOOST)
        return regressor.fit(x[training], y[training]), {}
    from sklearn.model_selection import ParameterSampler

    best: Any = None
    for settings in ({}, *ParameterSampler(TRIED, tries, random_state=0)):
        regressor = xgboost.XGBRegressor(
            **XGBOOST | settings, early_stopping_rounds=PATIENCE, eval_metric="rmse"
        )
        held_out = [(x[validation], y[validation])]
        regressor.fit(x[training], y[training], eval_set=held_out, verbose=False)
        print(f"  {settings}: {regressor.best_score:.5g}", flush=True)
        if best is None or regressor.best_score < best[0].best_score:
            best = regressor, {"settings": settings, "trees": regressor.best_iteration + 1}
    regressor, chosen = best
    return regressor, chosen


def network_scores(make: Callable[[], Model], stars: Stars) -> dict[str, Any]:
    """Scores of a model on the test part."""
    test = stars[part_mask(stars.source_id, "test", TEST_FRACTION)]
    validation = score_prediction(make().predict(test), known_labels(test))
    scores: dict[str, Any] = as_json(validation.labels)
    return scores


def main() -> None:
    parser = options(__doc__, RESULTS)
    parser.add_argument("--paper-scale", type=float, default=0.02,
                        help="share of the paper's 20,000 iterations a batch")  # fmt: skip
    parser.add_argument("--only", default="", metavar="NAMES",
                        help="comma-separated contestants beside xgboost; default all")  # fmt: skip
    parser.add_argument("--keep", default="", metavar="NAMES",
                        help="comma-separated contestants whose results stand")  # fmt: skip
    parser.add_argument("--tune", type=int, default=0, metavar="N",
                        help="settings of XGBoost to try for each label")  # fmt: skip
    arguments = parser.parse_args()
    library = read_library()
    stars, _ = WELL_LABELLED.apply(library)
    paper = replace(load_recipe("paper"), auxiliary=AUXILIARY[:2], scale=arguments.paper_scale)
    default = replace(load_recipe("default"), auxiliary=AUXILIARY)
    contestants: dict[str, Callable[[], dict[str, Any]]] = {
        "xgboost": lambda: xgboost_scores(library, stars, arguments.tune),
        "paper": lambda: network_scores(lambda: train(stars, LABELS, paper), stars),
        "default": lambda: network_scores(lambda: train(library, LABELS, default), stars),
        "shipped": lambda: network_scores(lambda: Model.load("apogee-dr17-library"), stars),
    }
    if arguments.only:
        wanted = ("xgboost", *arguments.only.split(","))
        contestants = {name: contestants[name] for name in wanted}
    facts = {
        "n_train": int(part_mask(library.source_id, "train", TEST_FRACTION).sum()),
        "n_test": int(part_mask(stars.source_id, "test", TEST_FRACTION).sum()),
        "paper_scale": arguments.paper_scale,
        "tune": arguments.tune,
    }
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
        write_json(file, results)
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
