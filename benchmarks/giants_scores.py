"""What the runs of benchmarks/giants.py are scored by, and how their results stand together."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import scored
from giants_margins import BIN_STARS, CHOSEN_AXES, TESTED_AXES, tolerance
from giants_words import markdown
from xplabels.core.flags import UNUSABLE
from xplabels.core.prediction import Prediction
from xplabels.core.stars import Stars
from xplabels.features import Features
from xplabels.giants import NAMES
from xplabels.giants.copies import FIRST_COPY, copy_ids
from xplabels.inference import input_variance
from xplabels.model import Model
from xplabels.validation import Validation
from xplabels.validation.accuracy import findings_of
from xplabels.validation.finding import metrics_of
from xplabels.validation.populations import TABLE_1

DIAGONAL_STARS, DIAGONAL_BLOCK = 4000, 64
SHOWN = ("rmse", "robust", "slope", "robust_std_z", "coverage_68", "coverage_95")


def star_of(source_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """The id [N] of the star that each row of a whole table is, or is a fainter copy of."""
    originals = source_id[source_id < FIRST_COPY]
    copies = len(source_id) // len(originals) - 1
    if copies == 0:
        return source_id
    known = {int(one): int(one) for one in originals}
    for ids in copy_ids(originals, copies):
        known |= zip(ids.tolist(), originals.tolist(), strict=True)
    return np.array([known[one] for one in source_id.tolist()])


def judged_bins(validation: Validation) -> dict[str, dict[str, list[list[float]]]]:
    """``[axis][label]``: (low, high, different stars, coverage_68, allowed distance) of every bin
    judged.

    Bins along predicted labels move with the network, but their edges do not.
    """
    return {
        axis: {
            name: [
                [one.low, one.high, one.different, one.scores["coverage_68"], tolerance(one)]
                for one in row
                if one.different >= BIN_STARS
            ]
            for name, row in validation.bins[axis].items()
        }
        for axis in dict.fromkeys((*TESTED_AXES, *CHOSEN_AXES))
    }


def told(validation: Validation) -> dict[str, Any]:
    """Scores of all and of metal-poor stars, joint coverage, without the bins."""
    metrics = metrics_of(findings_of(validation))
    return {key: metrics[key] for key in ("n", "labels", "metal_poor", "joint") if key in metrics}


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
    less = rescaled(prediction, np.hypot(prediction.errors_input, prediction.errors_excess))
    parts = {"all parts": prediction, "without the model part": less}
    keys = ("std_z", "robust_std_z", "coverage_68", "coverage_95", "sharpness")
    found: dict[str, Any] = {}
    for title, one in parts.items():
        labels = metrics_of(findings_of(scored(one, test, NAMES)))["labels"]
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
    projection = model.feature_set.projection
    p = None if projection is None else projection.from_coefficients
    ratios = []
    for start in range(0, len(rows), DIAGONAL_BLOCK):
        features = model.feature_set.compute(test[rows[start : start + DIAGONAL_BLOCK]])
        by_x = model.inference.derivatives(features)

        def variance(by: NDArray[np.float64], of: Features = features) -> NDArray[np.float64]:
            total, _ = input_variance(by, of, model.feature_set, p)
            return np.diagonal(total, axis1=1, axis2=2)

        one_by_one = np.broadcast_to(np.eye(by_x.shape[2]), (len(by_x), *[by_x.shape[2]] * 2))
        diagonal = (by_x**2 * variance(one_by_one)[:, None, :]).sum(axis=2)
        ratios.append(np.sqrt(diagonal / variance(by_x)))
    ratio = np.concatenate(ratios)
    chosen = prediction[rows]
    of_input = chosen.errors_input * ratio
    errors = np.sqrt(of_input**2 + chosen.errors_model**2 + chosen.errors_excess**2)
    quantiles = np.quantile(ratio, (0.05, 0.5, 0.95), axis=0)
    return {
        "n": len(rows),
        "input_error_over_full_05_50_95": dict(zip(NAMES, quantiles.T.tolist(), strict=True)),
        "full": told(scored(replace(chosen, correlations=None), test[rows], NAMES))["labels"],
        "diagonal": told(scored(rescaled(chosen, errors), test[rows], NAMES))["labels"],
    }


def write_piece(folder: Path, name: str, about: dict[str, Any], found: dict[str, Any]) -> None:
    """Write one run's results, whole or not at all."""
    _write(folder / f"{name}.json", {"about": about, "run": found})


def read_piece(folder: Path, name: str, about: dict[str, Any]) -> dict[str, Any] | None:
    """One run's results, if they stand and are of the same stars and settings."""
    file = folder / f"{name}.json"
    if not file.exists():
        return None
    piece = json.loads(file.read_text())
    run: dict[str, Any] | None = piece["run"] if piece["about"] == about else None
    return run


def merge(folder: Path, names: tuple[str, ...], about: dict[str, Any], file: Path) -> str:
    """Write the results that stand as one file and as Markdown; returns them as text."""
    pieces = {name: read_piece(folder, name, about) for name in names}
    results = about | {"runs": {name: piece for name, piece in pieces.items() if piece}}
    _write(file, results)
    _put(file.with_suffix(".md"), markdown(results))
    return table(results)


def _write(file: Path, contents: dict[str, Any]) -> None:
    text = json.dumps(contents, indent=1) + "\n"
    # a list of numbers on one line
    _put(file, re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text))


def _put(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(file)


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
            f"{title:20s} {together}; {cost['training_seconds']:.0f} s to train "
            f"({cost['training_cpu_seconds']:.0f} s of the CPU) on {cost['device']}, "
            f"{cost['prediction_us_a_star']:.0f} us a star; {len(one['violated'])} margins not met"
        )
        for part, rows in one.get("counted_twice", {}).items():
            spread = ", ".join(f"{n} {row['robust_std_z']:.3f}" for n, row in rows.items())
            lines.append(f"  robust std of z, {part}: {spread}")
    return "\n".join(lines)
