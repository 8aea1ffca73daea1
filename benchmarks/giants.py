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

Of `default` also, not trained anew: input errors from the diagonal of the covariance of the 110
inputs. Of both recipes: z with and without the model part of the error, which tells what is counted
twice. Runs that stand in the results under the same settings are kept, so that a benchmark that
was stopped goes on; --only names some, --scale 0.02 tries all of it in minutes (the results say
that they are of a trial). In full about three hours on two cores, estimated.
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

from xplabels.archive import read
from xplabels.farther import FIRST_COPY
from xplabels.features import AUXILIARY, input_variance
from xplabels.flags import UNUSABLE
from xplabels.giants import NAMES
from xplabels.labels import Labels
from xplabels.model import Model
from xplabels.paper_tables import TABLE_1
from xplabels.prediction import Prediction
from xplabels.propagation import Block, Propagation
from xplabels.recipes import Recipe, load_recipe
from xplabels.split import part_mask
from xplabels.stars import Stars
from xplabels.training import train
from xplabels.validation import Validation, calibration_gate, validate

TEST_FRACTION = 0.1
HIDDEN_SHARE = 1 / 3
DIAGONAL_STARS, DIAGONAL_BLOCK = 4000, 64
SHOWN = ("rmse", "robust", "slope", "robust_std_z", "coverage_68", "coverage_95")


@dataclass(frozen=True)
class Run:
    """A recipe, and what is done to the stars before it trains on them."""

    recipe: Recipe
    prepare: Callable[[Stars], Stars] = lambda stars: stars


def runs(scale: float, paper_scale: float) -> dict[str, Run]:
    """All runs by name."""
    every = tuple(AUXILIARY)

    def default(**changes: Any) -> Recipe:
        recipe = load_recipe("default")
        keys: dict[str, Any] = {"auxiliary": every, "scale": scale} | changes
        return replace(recipe, **keys)

    paper = replace(load_recipe("paper"), scale=scale * paper_scale)
    return {
        "default": Run(default()),
        "paper": Run(paper),
        "no_m_pseudo": Run(default(auxiliary=("bp_rp", "j_h", "w1_w2", "h_w2"))),
        "no_wise": Run(default(auxiliary=("bp_rp", "j_h"))),
        "no_2mass": Run(default(auxiliary=("bp_rp", "w1_w2"))),
        "xp_alone": Run(default(auxiliary=())),
        "eq2": Run(default(covariance="fs24")),
        "missing_labels": Run(default(), hide_labels),
    }


def hide_labels(stars: Stars) -> Stars:
    """The stars with a third of their labels unknown, each label by itself, at random."""
    labels = known_labels(stars)
    hidden = np.random.default_rng(0).random(labels.values.shape) < HIDDEN_SHARE
    values, errors = (np.where(hidden, np.nan, array) for array in (labels.values, labels.errors))
    return stars.with_labels(Labels(labels.names, values, errors))


def known_labels(stars: Stars) -> Labels:
    """The six labels."""
    if stars.labels is None:
        raise SystemExit("the giants have no labels")
    return stars.labels.select(NAMES)


def perform(run: Run, stars: Stars, test: Stars) -> tuple[Model, Prediction, dict[str, Any]]:
    """Train, predict the test part, and score."""
    begun, used = time.monotonic(), time.process_time()
    model = train(run.prepare(stars), NAMES, run.recipe, test_fraction=TEST_FRACTION)
    trained, cpu = time.monotonic() - begun, time.process_time() - used
    begun = time.monotonic()
    model.predict(test)
    predicted = time.monotonic() - begun
    prediction = model.predict(test, correlations=True)
    validation = scored(prediction, test)
    return model, prediction, {
        "cost": {
            "training_seconds": round(trained, 1),
            "training_cpu_seconds": round(cpu, 1),
            "prediction_us_a_star": round(1e6 * predicted / len(test), 1),
            "parameters": sum(p.numel() for net in model.networks for p in net.parameters()),
            "flop_a_star": model.networks[0].architecture.flop_with_jacobian,
        },
        "recipe": run.recipe.to_dict(),
        "violated": calibration_gate(validation),
        **told(validation),
    }  # fmt: skip


def scored(prediction: Prediction, stars: Stars) -> Validation:
    g, bp, rp = (stars.photometry.column(f"phot_{band}_mean_mag")[0] for band in ("g", "bp", "rp"))
    return validate(prediction, known_labels(stars), g_mag=g, bp_rp=bp - rp)


def told(validation: Validation) -> dict[str, Any]:
    """Scores of all and of metal-poor stars, joint coverage, without the bins."""
    metrics = validation.to_metrics()
    return {key: metrics[key] for key in ("n", "labels", "metal_poor", "joint") if key in metrics}


def without_model_part(prediction: Prediction) -> Prediction:
    """The prediction whose error leaves out the network's own scatter."""
    return rescaled(prediction, np.hypot(prediction.errors_input, prediction.errors_excess))


def rescaled(prediction: Prediction, errors: NDArray[np.float64]) -> Prediction:
    """The prediction with other errors, the 95.4 % ones in proportion."""
    share = errors / prediction.errors
    return replace(
        prediction, errors=errors, errors_95=prediction.errors_95 * share, correlations=None
    )


def counted_twice(prediction: Prediction, test: Stars) -> dict[str, Any]:
    """z with all parts of the error, and with the model part left out.

    A network trained on single dropout passes has their scatter in its residuals, and so in its
    excess: adding the model part counts it again, and z is narrower than 1.
    """
    parts = {"all parts": prediction, "without the model part": without_model_part(prediction)}
    keys = ("std_z", "robust_std_z", "coverage_68", "coverage_95", "sharpness")
    found: dict[str, Any] = {}
    for title, one in parts.items():
        labels = scored(one, test).to_metrics()["labels"]
        found[title] = {
            name: {key: row[key] for key in keys} | {"n": row["n"]} for name, row in labels.items()
        }
    return found


def diagonal_covariance(model: Model, prediction: Prediction, test: Stars) -> dict[str, Any]:
    """Input errors from the diagonal of the inputs' covariance beside those from all of it.

    The covariance of the 110 ratios is full even where the measured coefficients are taken as
    independent: RP 0 divides all of them, and the map from samples mixes them.
    """
    usable = (test.flags & np.uint32(UNUSABLE)) == 0
    usable &= np.isfinite(prediction.errors).all(axis=1)
    rows = np.flatnonzero(usable)[:DIAGONAL_STARS]
    network = model.networks[0]
    masks = network.architecture.masks > 0
    propagation = Propagation(model.feature_set, model.scaling, masks, torch.float64)
    ratios = []
    for start in range(0, len(rows), DIAGONAL_BLOCK):
        features = model.feature_set.compute(test[rows[start : start + DIAGONAL_BLOCK]])
        block = Block.of(features, model.feature_set, model.scaling, torch.float64)
        with torch.no_grad():
            x = propagation.network_input(block)
            jacobian = propagation.outputs(network, x, jacobian=True).jacobian
            if jacobian is None:
                raise SystemExit("the network has no Jacobian")
            by_x, _ = propagation.by_present(jacobian, block)
            one_by_one = torch.eye(by_x.shape[-1], dtype=by_x.dtype).expand(len(block), -1, -1)

            def variance(by: torch.Tensor, block: Block = block) -> torch.Tensor:
                return input_variance(by, block.errors, model.feature_set, propagation.projection)

            diagonal = (by_x**2 * variance(one_by_one)[:, None, :]).sum(-1)
            ratios.append(torch.sqrt(diagonal / variance(by_x)).numpy())
    ratio = np.concatenate(ratios)
    chosen = prediction[rows]
    of_input = chosen.errors_input * ratio
    errors = np.sqrt(of_input**2 + chosen.errors_model**2 + chosen.errors_excess**2)
    quantiles = np.quantile(ratio, (0.05, 0.5, 0.95), axis=0)
    return {
        "n": len(rows),
        "input_error_over_full_05_50_95": dict(zip(NAMES, quantiles.T.tolist(), strict=True)),
        "full": told(scored(replace(chosen, correlations=None), test[rows]))["labels"],
        "diagonal": told(scored(rescaled(chosen, errors), test[rows]))["labels"],
    }


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


def table(results: dict[str, Any]) -> str:
    """Scores of every run, and of the paper's table 1, as text."""
    lines = [
        f"semi-synthetic giants: {results['n']} stars, {results['n_different']} of them different, "
        f"{results['n_train']} train, {results['n_test']} test"
        + (f"; TRIAL at scale {results['scale']:g}" if results["trial"] else "")
    ]
    for name in NAMES:
        lines.append(f"{name:22s} " + " ".join(f"{key:>18s}" for key in SHOWN))
        for title, one in results["runs"].items():
            row = one["labels"][name]
            cells = [f"{row[key]:.4g} +- {row['error_of'][key]:.2g}" for key in SHOWN]
            lines.append(f"  {title:20s} " + " ".join(f"{cell:>18s}" for cell in cells))
        lines.append(f"  {'FS24, other stars':20s} {TABLE_1[name][3]:>18.4g}")
    for title, one in results["runs"].items():
        joint, cost = one.get("joint"), one["cost"]
        together = (
            ""
            if joint is None
            else f"joint {joint['coverage_68']:.3f} {joint['coverage_95']:.3f} (N = {joint['n']})"
        )
        lines.append(
            f"{title:20s} {together}; {cost['training_cpu_seconds']:.0f} CPU s to train, "
            f"{cost['prediction_us_a_star']:.0f} us a star; {len(one['violated'])} margins not met"
        )
        for part, rows in one.get("counted_twice", {}).items():
            spread = ", ".join(f"{n} {row['robust_std_z']:.3f}" for n, row in rows.items())
            lines.append(f"  robust std of z, {part}: {spread}")
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stars", type=Path, metavar="GIANTS.parquet")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", default="", metavar="NAMES", help="runs, with commas")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the epochs (trials)")
    parser.add_argument(
        "--paper-scale", type=float, default=0.02, help="share of the paper's iterations"
    )
    parser.add_argument("--again", action="store_true", help="forget results that stand")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    stars = read([arguments.stars])
    test = stars[part_mask(stars.source_id, "test", TEST_FRACTION)]
    about = facts(stars, test, arguments.scale, arguments.paper_scale)
    chosen = runs(arguments.scale, arguments.paper_scale)
    if arguments.only:
        chosen = {name: chosen[name] for name in arguments.only.split(",")}
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "giants.json"
    results: dict[str, Any] = {"runs": {}}
    if file.exists() and not arguments.again:
        results = json.loads(file.read_text())
        if any(results.get(key) != value for key, value in about.items()):
            raise SystemExit(f"{file} is of other stars or settings: run with --again")
    results |= about
    for name, run in chosen.items():
        if name in results["runs"]:
            print(f"{name}: stands", flush=True)
            continue
        model, prediction, found = perform(run, stars, test)
        if name in ("default", "paper"):
            found["counted_twice"] = counted_twice(prediction, test)
        if name == "default":
            found["diagonal_covariance"] = diagonal_covariance(model, prediction, test)
        results["runs"][name] = found
        file.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{name}: {found['cost']['training_seconds']} s", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
