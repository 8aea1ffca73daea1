"""The results of benchmarks/giants.py as the tables of docs/giants.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from common import fill, markdown_table
from giants_margins import CHOSEN_AXES, TESTED_AXES
from xplabels.core.distribution import LEVEL_68
from xplabels.giants import NAMES
from xplabels.validation.populations import TABLE_1

SYMBOLS = {
    "teff": "Teff (K)", "logg": "log g", "fe_h": "[Fe/H]", "c_fe": "[C/Fe]", "n_fe": "[N/Fe]",
    "alpha_m": "[alpha/M]",
}  # fmt: skip
WORDS = {
    "default": "`default`", "quick": "`quick`", "paper": "`paper`",
    "no_m_pseudo": "without M_pseudo", "no_wise": "without WISE",
    "no_2mass": "without 2MASS", "xp_alone": "XP alone",
    "eq2": "eq. 2 for the exact covariance", "missing_labels": "a third of the labels missing",
}  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    """Tables of accuracy, of calibration and of what is counted twice, as far as runs stand."""
    runs = results["runs"]
    stars = (
        f"{results['n']:,} semi-synthetic giants, {results['n_different']:,} of them different; "
        f"{results['n_train']:,} train, {results['n_test']:,} test."
        + (
            f" `paper` at {results['paper_scale']:g} of its 20,000 iterations a batch."
            if "paper" in runs
            else ""
        )
        + (f" A trial at {results['scale']:g} of the epochs." if results["trial"] else "")
    )
    once = {name: run for name, run in runs.items() if name in WORDS}
    parts = [stars, accuracy(once), calibration(once)]
    pairs = by_seed(runs, "default", "missing_labels")
    if len(pairs) > 1:
        parts += [missing_labels(pairs)]
    for title in ("default", "quick"):
        if len(seeds := by_seed(runs, title)) > 1:
            parts += [bins_over_seeds(title, [run for (run,) in seeds])]
    parts += [twice(runs)] if any("counted_twice" in run for run in runs.values()) else []
    parts += [diagonal(runs["default"])] if "default" in runs else []
    return "\n\n".join(parts) + "\n"


def seeded(name: str, seed: int) -> str:
    """Name of a run with another seed than the first."""
    return f"{name}_seed_{seed}" if seed else name


def show(results: dict[str, Any], page: Path) -> None:
    """Put the tables between the marks of a page."""
    begin = "<!-- tables of benchmarks/giants.py: begin -->"
    fill(page, begin, "<!-- end -->", f"\n{markdown(results)}")


def cell(row: dict[str, Any], key: str) -> str:
    """A score with its bootstrap error, of two significant digits."""
    error = row["error_of"][key]
    digits = max(0, 1 - int(f"{error:e}".split("e")[1])) if error > 0 else 3
    return f"{row[key]:.{digits}f} +- {error:.{digits}f}"


def accuracy(runs: dict[str, Any]) -> str:
    """RMSE of every run, and robust scatter and slope of the two recipes."""
    header = ["RMSE", *(SYMBOLS[name] for name in NAMES)]
    rows = [
        [WORDS[title], *(cell(run["labels"][name], "rmse") for name in NAMES)]
        for title, run in runs.items()
        if title != "quick"  # the default's network
    ]
    for title in ("default", "paper"):
        if title in runs:
            for key, words in (("robust", "robust scatter"), ("slope", "slope")):
                cells = (cell(runs[title]["labels"][name], key) for name in NAMES)
                rows.append([f"{WORDS[title]}, {words}", *cells])
    printed = (f"{TABLE_1[name][3]:g}" for name in NAMES)
    return markdown_table(header, [*rows, ["the paper, other stars", *printed]])


def calibration(runs: dict[str, Any]) -> str:
    """Coverage, robust std of z, joint coverage and cost of every run."""
    header = ["", "in 68.3 %", "in 95.4 %", "robust std of z", "six together",
              "margins not met", "bins as predicted", "training", "MFLOP a star"]  # fmt: skip
    rows = []
    for title, run in runs.items():
        labels, cost, joint = run["labels"], run["cost"], run["joint"]
        spans = [
            f"{min(v):.{d}f} to {max(v):.{d}f}{unit}"
            for key, factor, d, unit in (
                ("coverage_68", 100, 1, " %"), ("coverage_95", 100, 1, " %"),
                ("robust_std_z", 1, 2, ""),
            )
            for v in [[factor * labels[name][key] for name in NAMES]]
        ]  # fmt: skip
        rows.append([
            WORDS[title], *spans,
            f"{100 * joint['coverage_68']:.1f} and {100 * joint['coverage_95']:.1f} %",
            str(len(run["violated"])), _failing_bins(run), f"{cost['training_cpu_seconds']:.0f} s",
            f"{cost['flop_a_star'] / 1e6:.1f}",
        ])  # fmt: skip
    missed = [
        f"{WORDS[title]}, margins not met: {'; '.join(runs[title]['violated'])}."
        for title in ("default", "missing_labels")
        if title in runs and runs[title]["violated"]
    ]
    return "\n\n".join([markdown_table(header, rows), *missed])


def _failing_bins(run: dict[str, Any]) -> str:
    """How many bins fail along G and the predicted log g and [Fe/H], where that was asked."""
    if "violated_as_chosen" not in run:
        return ""
    return str(sum(" stars at " in line for line in run["violated_as_chosen"]))


def by_seed(runs: dict[str, Any], *titles: str) -> list[tuple[dict[str, Any], ...]]:
    """The runs of these titles with the same seed, for every seed that all of them stand for."""
    found: list[tuple[dict[str, Any], ...]] = []
    while all(seeded(title, len(found)) in runs for title in titles):
        found.append(tuple(runs[seeded(title, len(found))] for title in titles))
    return found


def missing_labels(pairs: list[tuple[dict[str, Any], ...]]) -> str:
    """What missing labels cost, over the seeds of both runs: mean and standard error."""
    header = [f"{WORDS['missing_labels']}, {len(pairs)} seeds", *(SYMBOLS[n] for n in NAMES)]
    rows = []
    for key, words in (("rmse", "RMSE"), ("robust", "robust scatter"), ("crps", "CRPS")):
        changes = [
            [100 * (without["labels"][n][key] / whole["labels"][n][key] - 1) for n in NAMES]
            for whole, without in pairs
        ]
        error = np.std(changes, axis=0, ddof=1) / len(pairs) ** 0.5
        cells = zip(np.mean(changes, axis=0), error, strict=True)
        rows.append([f"{words}, change", *(f"{c:+.1f} +- {e:.1f} %" for c, e in cells)])
    for column, words in enumerate(("all labels", "a third missing")):
        covered = [[pair[column]["labels"][n]["coverage_68"] for n in NAMES] for pair in pairs]
        rows.append([f"in 68.3 %, {words}", *(f"{100 * c:.1f} %" for c in np.mean(covered, 0))])
    return markdown_table(header, rows)


def bins_over_seeds(title: str, runs: list[dict[str, Any]]) -> str:
    """Which bins fail in each run, and in the mean over all of them; how far bins are off.

    That is the root mean square of their distance from 68.3 %, less what binomial noise makes.
    """
    every = [
        {
            (axis, name, low, high): (n, coverage, allowed)
            for axis, labels in run["judged_bins"].items()
            for name, row in labels.items()
            for low, high, n, coverage, allowed in row
        }
        for run in runs
    ]

    def failing(one: dict[Any, Any], known: bool) -> list[str]:
        return [
            f"{SYMBOLS[name]} at {axis} {low:g} to {high:g} ({100 * coverage:.1f} % of {n:.0f}, "
            f"{100 * (LEVEL_68 - allowed):.1f} to {100 * (LEVEL_68 + allowed):.1f} allowed)"
            for (axis, name, low, high), (n, coverage, allowed) in one.items()
            if abs(coverage - LEVEL_68) > allowed
            and axis in (TESTED_AXES if known else CHOSEN_AXES)
        ]

    shared = set(every[0]).intersection(*every[1:])
    mean = {key: np.mean([one[key] for one in every], axis=0) for key in every[0] if key in shared}
    rows = []
    for words, one in [*((f"seed {i}", one) for i, one in enumerate(every)), ("mean", mean)]:
        cells = []
        for known in (True, False):
            bad = failing(one, known)
            judged = [
                (coverage - LEVEL_68) ** 2 - LEVEL_68 * (1 - LEVEL_68) / n
                for (axis, *_), (n, coverage, _) in one.items()
                if axis in (TESTED_AXES if known else CHOSEN_AXES)
            ]
            off = 100 * max(np.mean(judged), 0) ** 0.5
            told = f"{len(bad)} of {len(judged)}, off by {off:.1f} points"
            cells.append(told + (f": {'; '.join(bad)}" if bad else ""))
        rows.append([words, *cells])
    header = [f"{WORDS[title]}, bins that fail", "along G and the known log g, [Fe/H]",
              "along G and the predicted ones"]  # fmt: skip
    return markdown_table(header, rows)


def twice(runs: dict[str, Any]) -> str:
    """Spread of z with and without the network's own scatter in the error."""
    rows = [
        [f"{WORDS[title]}, {part}", *(f"{labels[name]['robust_std_z']:.2f}" for name in NAMES)]
        for title, run in runs.items()
        for part, labels in run.get("counted_twice", {}).items()
    ]
    return markdown_table(["robust std of z", *(SYMBOLS[name] for name in NAMES)], rows)


def diagonal(run: dict[str, Any]) -> str:
    """Input errors by the diagonal of the inputs' covariance over those by all of it."""
    found = run["diagonal_covariance"]
    ratios = found["input_error_over_full_05_50_95"]
    cells = ["{1:.2f} ({0:.2f} to {2:.2f})".format(*ratios[name]) for name in NAMES]
    coverages = [
        [f"in 68.3 %, {words}",
         *(f"{100 * found[key][name]['coverage_68']:.1f} %" for name in NAMES)]
        for key, words in (("full", "full"), ("diagonal", "diagonal"))
    ]  # fmt: skip
    header = [f"input error, N = {found['n']:,}", *(SYMBOLS[name] for name in NAMES)]
    return markdown_table(header, [["diagonal over full: median (5 to 95 %)", *cells], *coverages])
