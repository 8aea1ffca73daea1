"""Whether the verdict on error bars is the same whatever the chance in training, and finds faults.

    python benchmarks/verdict.py --output benchmarks/results [--models FOLDER] [--trainings 10]

The demo's training is repeated with other seeds and numbers of threads, and each model is validated
on the test part: the words agree in at least nine of ten. Then errors are made wrong on purpose:
all times 0.8 and 1.25, those of one label, and those of giants (log g below 3.5) times 0.8; each is
called in every model. Last, known labels are drawn from the first model's own predictive
distributions, so that its errors are exactly right: how often are they called anything else?

Models are kept in FOLDER (default: OUTPUT/verdict.models), so that a run that was stopped goes on.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common import RESULTS, options, write_json
from xplabels.api.demo import LABELS, TEST_FRACTION
from xplabels.api.validation import reporting_stars
from xplabels.core.distribution import matched_t
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.stars import Stars
from xplabels.model import Model
from xplabels.recipes import Recipe, load_recipe
from xplabels.surveys.library import read_library
from xplabels.training import train
from xplabels.validation import Validation, score_prediction
from xplabels.validation.verdict import RIGHT, judged, verdict_of

GIANTS = 3.5


def trained(stars: Stars, recipe: Recipe, seed: int, folder: Path) -> Model:
    """The model of one seed, from its folder if it is there."""
    torch.set_num_threads(threads(seed))
    if not folder.exists():
        model = train(stars, LABELS, recipe, seed=seed, test_fraction=TEST_FRACTION, progress=False)
        folder.parent.mkdir(parents=True, exist_ok=True)
        model.save(folder)
    return Model.load(folder)


def threads(seed: int) -> int:
    """1, 2, ... up to the cores, in turn."""
    return 1 + seed % (os.cpu_count() or 1)


def validated(prediction: Prediction, stars: Stars, labels: Labels) -> Validation:
    """Scores along G and the labels, without bootstrap errors."""
    g, _ = stars.photometry.column("phot_g_mean_mag")
    return score_prediction(prediction, labels, g_mag=g, resamples=0)


def faults(labels: Labels) -> dict[str, NDArray[np.float64]]:
    """What multiplies the errors [N, K], by fault."""
    first = np.array([name == labels.names[0] for name in labels.names])
    giants = labels.values[:, labels.names.index("logg")] < GIANTS
    return {
        "x 0.8": np.full(labels.values.shape, 0.8),
        "x 1.25": np.full(labels.values.shape, 1.25),
        f"{labels.names[0]} x 0.8": np.where(first, 0.8, np.ones(labels.values.shape)),
        "giants x 0.8": np.where(giants[:, None], 0.8, np.ones(labels.values.shape)),
    }


def words(validation: Validation) -> dict[str, Any]:
    """The verdict, its words by label, sizes over all stars, and everything that is off."""
    verdict = verdict_of(validation)
    return {
        "word": verdict.word,
        "headline": verdict.headline,
        "labels": verdict.words,
        "lines": verdict.lines,
        "off": verdict.off,
        "sizes": {
            label: [[round(size.value, 4), round(size.error, 4)] for size in one.sizes]
            for label, one in verdict.overall.items()
        },
    }


def false_alarms(validation: Validation, runs: int) -> dict[str, Any]:
    """How often right errors are called anything else, known labels drawn ``runs`` times."""
    random = np.random.default_rng(0)
    axes = {
        axis: values
        for axis, values in validation.axes.items()
        if axis in verdict_of(validation).judged
    }
    found: Counter[str] = Counter()
    for _ in range(runs):
        samples = {}
        for name, given in validation.samples.items():
            dof, scale = matched_t(given.error, given.error_95)
            noise = scale * random.standard_t(dof)
            noise += given.label_error * random.standard_normal(len(dof))
            samples[name] = replace(given, truth=given.predicted + noise)
        found[judged(samples, axes, tuple(axes), validation.star).word] += 1
    return {
        "runs": runs,
        "n": validation.n,
        "words": dict(found),
        "rate": 1 - found[RIGHT] / runs,
    }


def main() -> None:
    parser = options(__doc__, RESULTS)
    parser.add_argument("--models", type=Path, metavar="FOLDER")
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--trainings", type=int, default=10)
    parser.add_argument("--draws", type=int, default=1000, help="for the false alarms")
    parser.add_argument("--epochs", type=int, help="fewer than the recipe's, for a trial")
    arguments = parser.parse_args()
    recipe, stars = load_recipe(arguments.recipe), read_library()
    if arguments.epochs is not None:
        recipe = replace(recipe, epochs=arguments.epochs)
    folder = arguments.models or arguments.output / "verdict.models"
    results: dict[str, Any] = {
        "recipe": arguments.recipe,
        "trial": arguments.epochs is not None,
        "trainings": [],
    }
    for seed in range(arguments.trainings):
        model = trained(stars, recipe, seed, folder / f"seed_{seed}")
        test, labels, _ = reporting_stars(model, stars, None, every=False)
        labels = labels.select(model.names)
        prediction = model.predict(test, correlations=True)
        validation = validated(prediction, test, labels)
        one = {"seed": seed, "threads": threads(seed), "n": len(test), **words(validation)}
        one["faults"] = {}
        for title, factor in faults(labels).items():
            wrong = replace(
                prediction,
                errors=prediction.errors * factor,
                errors_95=prediction.errors_95 * factor,
            )
            found = words(validated(wrong, test, labels))
            one["faults"][title] = {key: found[key] for key in ("word", "headline", "lines")}
        results["trainings"].append(one)
        print(f"seed {seed}: {one['headline']}", *one["lines"], sep="\n  ", flush=True)
        print("  faults: " + "; ".join(f"{k}: {v['word']}" for k, v in one["faults"].items()))
        if seed == 0:
            results["false_alarms"] = false_alarms(validation, arguments.draws)
            print(f"  right errors: {results['false_alarms']}", flush=True)
    every = results["trainings"]
    (word, agree), *_ = Counter(one["word"] for one in every).most_common(1)
    results["agree"] = {"word": word, "of": len(every), "trainings": agree}
    results["called"] = {
        title: sum(one["faults"][title]["word"] != RIGHT for one in every)
        for title in every[0]["faults"]
    }
    print(f"{agree} of {len(every)} trainings: {word}; faults called: {results['called']}")
    write_json(arguments.output / "verdict.json", results)


if __name__ == "__main__":
    main()
