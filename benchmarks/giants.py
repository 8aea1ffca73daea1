"""Six labels, all inputs: `default` and `paper` on the same semi-synthetic giants, and ablations.

    xplabels giants --output giants.parquet
    python benchmarks/giants.py giants.parquet --output benchmarks/results

Carbon, nitrogen, parallax and WISE of these stars are made (docs/giants.md): what parallaxes do
for log g is a check of the plumbing, and the stars are not the paper's. Each run trains on the
training part and is scored on the test part, on which nothing is trained; copies of a star stand
on its side.

    default, paper      the two recipes; the paper's at --paper-scale of its 20,000 iterations
    no_m_pseudo         without the pseudo-absolute magnitude (FS24, fig. A1)
    no_wise, no_2mass   without what needs these magnitudes, pseudo-absolute magnitude included
    xp_alone            without any photometry
    eq2                 the covariance of FS24's eq. 2 in place of the exact one, trained with it
    missing_labels      a third of the labels, at random, hidden while training
    quick               the default's network, calibrated on the validation part alone
    default_seed_1 ...  default, quick and missing_labels with other seeds

What inputs and eq. 2 do to the labels shows without the trainings that calibrate the default: these
runs do without, as quick does.

Of `default` also, not trained anew: input errors from the diagonal of the covariance of the 110
inputs. Of both recipes: z with and without the model part of the error, which tells what is counted
twice.

Each run is a piece by itself, with its own file in PIECES; --only names some, so that pieces may
run side by side, and each that ends puts all that stand together in OUTPUT/giants.json, and in
giants.md as docs/giants.md shows them. A piece that stands under the same settings is not run
again. --scale 0.02 tries all of it in minutes (the results say that they are of a trial). On one
core a run of --different 23357 takes eight minutes (without
the paper's), one with the fainter copies about 25.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common import RESULTS, known_labels, options, scored
from giants_margins import CHOSEN_AXES, missed_margins
from giants_scores import (
    counted_twice,
    diagonal_covariance,
    judged_bins,
    merge,
    read_piece,
    star_of,
    told,
    write_piece,
)
from giants_words import seeded, show
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.features import AUXILIARY
from xplabels.giants import NAMES
from xplabels.giants.copies import FIRST_COPY
from xplabels.io import read
from xplabels.model import Model
from xplabels.recipes import Recipe, load_recipe
from xplabels.training import train

TEST_FRACTION = 0.1
HIDDEN_SHARE = 1 / 3
SEEDS = 3
"""Of the runs whose difference is small beside what a seed does."""


@dataclass(frozen=True)
class Run:
    """A recipe, what is done to the stars before it trains on them, and the seed of both."""

    recipe: Recipe
    prepare: Callable[[Stars, int], Stars] = lambda stars, seed: stars
    seed: int = 0


def runs(scale: float, paper_scale: float) -> dict[str, Run]:
    """All runs by name."""
    every = tuple(AUXILIARY)

    def default(**changes: Any) -> Recipe:
        recipe = load_recipe("default")
        keys: dict[str, Any] = {"auxiliary": every, "scale": scale} | changes
        return replace(recipe, **keys)

    def quick(**changes: Any) -> Recipe:
        return default(calibration_folds=0, **changes)

    paper = replace(load_recipe("paper"), scale=scale * paper_scale)
    found = {
        "default": Run(default()),
        "quick": Run(quick()),
        "paper": Run(paper),
        "no_m_pseudo": Run(quick(auxiliary=("bp_rp", "j_h", "w1_w2", "h_w2"))),
        "no_wise": Run(quick(auxiliary=("bp_rp", "j_h"))),
        "no_2mass": Run(quick(auxiliary=("bp_rp", "w1_w2"))),
        "xp_alone": Run(quick(auxiliary=())),
        "eq2": Run(quick(covariance="fs24")),
        "missing_labels": Run(default(), hide_labels),
    }
    again = {
        seeded(name, seed): replace(found[name], seed=seed)
        for name in ("default", "quick", "missing_labels")
        for seed in range(1, SEEDS)
    }
    return found | again


def hide_labels(stars: Stars, seed: int) -> Stars:
    """The stars with a third of their labels unknown, each label by itself, at random."""
    labels = known_labels(stars, NAMES)
    hidden = np.random.default_rng(seed).random(labels.values.shape) < HIDDEN_SHARE
    values, errors = (np.where(hidden, np.nan, array) for array in (labels.values, labels.errors))
    return stars.with_labels(Labels(labels.names, values, errors))


def perform(
    run: Run, stars: Stars, test: Stars, star: NDArray[np.int64], device: str
) -> tuple[Model, Prediction, dict[str, Any]]:
    """Train, predict the test part, and score."""
    begun, used = time.monotonic(), time.process_time()
    where = {} if device == "cpu" else {"device": device}
    model = train(
        run.prepare(stars, run.seed), NAMES, run.recipe, seed=run.seed,
        test_fraction=TEST_FRACTION,
        progress=False, **where,
    )  # fmt: skip
    trained, cpu = time.monotonic() - begun, time.process_time() - used
    begun = time.monotonic()
    model.predict(test)
    predicted = time.monotonic() - begun
    prediction = model.predict(test, correlations=True)
    validation = scored(prediction, test, NAMES, star=star)
    return model, prediction, {
        "cost": {
            "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
            "threads": torch.get_num_threads(),
            "training_seconds": round(trained, 1),
            "training_cpu_seconds": round(cpu, 1),
            "prediction_us_a_star": round(1e6 * predicted / len(test), 1),
            "parameters": sum(a.size for net in model.networks for a in net.arrays.values()),
            "flop_a_star": model.networks[0].architecture.flop_with_jacobian,
        },
        "left_out": model.metadata["left_out"],
        "recipe": run.recipe.to_dict(),
        "violated": missed_margins(validation),
        "violated_as_chosen": missed_margins(validation, axes=CHOSEN_AXES),
        "judged_bins": judged_bins(validation),
        **told(validation),
    } | ({} if model.unshrinking is None else {
        "unshrunk": told(scored(model.unshrinking.apply(prediction), test, NAMES)),
    })  # fmt: skip


def thinned(stars: Stars, count: int) -> Stars:
    """``count`` of the different giants, at random, without their fainter copies."""
    different = np.flatnonzero(stars.source_id < FIRST_COPY)
    chosen = np.random.default_rng(0).permutation(different)[:count]
    return stars[np.sort(chosen)]


def facts(stars: Stars, test: Stars, scale: float, paper_scale: float) -> dict[str, Any]:
    """What the results are of."""
    train_part = part_mask(stars.source_id, "train", TEST_FRACTION)
    return {
        "stars": "semi-synthetic giants: " + stars.origin,
        "n": len(stars),
        "n_different": int((stars.source_id < FIRST_COPY).sum()),
        "n_train": int(train_part.sum()),
        "n_test": len(test),
        "n_test_different": int((test.source_id < FIRST_COPY).sum()),
        "scale": scale,
        "paper_scale": paper_scale,
        "trial": scale != 1.0,
    }


def parsed() -> argparse.Namespace:
    parser = options(__doc__, RESULTS)
    parser.add_argument("stars", type=Path, metavar="GIANTS.parquet")
    parser.add_argument(
        "--pieces", type=Path, metavar="PIECES", help="default: OUTPUT/giants.pieces"
    )
    parser.add_argument("--only", default="", metavar="NAMES", help="runs, with commas")
    parser.add_argument(
        "--different", type=int, metavar="N", help="take N giants, at random, and no fainter copy"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the epochs (trials)")
    parser.add_argument(
        "--paper-scale", type=float, default=0.02, help="share of the paper's iterations"
    )
    parser.add_argument("--device", default="cpu", help="where to train (default cpu)")
    parser.add_argument(
        "--docs", type=Path, metavar="giants.md", help="page to write the tables into"
    )
    parser.add_argument("--again", action="store_true", help="forget results that stand")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    stars = read([arguments.stars])
    if arguments.different is not None:
        stars = thinned(stars, arguments.different)
    test_part = part_mask(stars.source_id, "test", TEST_FRACTION)
    test, star = stars[test_part], star_of(stars.source_id)[test_part]
    about = facts(stars, test, arguments.scale, arguments.paper_scale)
    every = runs(arguments.scale, arguments.paper_scale)
    chosen = arguments.only.split(",") if arguments.only else list(every)
    pieces = arguments.pieces or arguments.output / "giants.pieces"
    pieces.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        if read_piece(pieces, name, about) is not None and not arguments.again:
            print(f"{name}: stands", flush=True)
            continue
        model, prediction, found = perform(every[name], stars, test, star, arguments.device)
        if name in ("default", "paper"):
            found["counted_twice"] = counted_twice(prediction, test)
        if name == "default":
            found["diagonal_covariance"] = diagonal_covariance(model, prediction, test)
        write_piece(pieces, name, about, found)
        print(f"{name}: {found['cost']['training_seconds']} s", flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(merge(pieces, tuple(every), about, arguments.output / "giants.json"))
    if arguments.docs is not None:
        show(json.loads((arguments.output / "giants.json").read_text()), arguments.docs)


if __name__ == "__main__":
    main()
