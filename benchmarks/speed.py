"""How fast bulk files are read and stars predicted, beside what else there is, in one run.

    python benchmarks/speed.py --output benchmarks/results/speed.json [--only reader,kernels]

The section `memory` (a file of 200,000 stars) runs where --only names it.

Everything of a section runs in turn, round after round, so that a machine that slows down slows
all alike; what counts are the ratios, of which the median over rounds is printed. Times are of the
processor, on one core, where nothing else is said. Bulk files are made on the spot, with simulated
stars in the real layout (benchmarks/bulk_files.py). The paper's network has its shape and random
weights. Needs the extras `fast`, `library` and `benchmarks`.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch count the cores

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from bulk_files import make
from common import RESULTS, known_labels, options, write_json
from speed_of_runs import end_to_end, memory
from xplabels.core.stars import Stars
from xplabels.features import Features, FeatureSet
from xplabels.features.scaling import Scaling
from xplabels.inference import Inference
from xplabels.io import read_blocks
from xplabels.io.files import open_bytes
from xplabels.io.rows import ARRAYS
from xplabels.model import Model
from xplabels.network import Architecture, UncertainNetwork
from xplabels.network.propagation import Block, Propagation
from xplabels.recipes import load_recipe
from xplabels.synthetic import example_stars

SLOW_ROWS = 300
"""Rows that the slow readers get."""
XGBOOST_TREES = 3000
"""A label, as tuned in benchmarks/baseline.py."""

Contestants = dict[str, tuple[Callable[[], object], int]]
"""Name -> what to time, and of how many stars."""


def rounds(contestants: Contestants, count: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Microseconds a star [rounds] of each, all in turn; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(count + 1):
        for name, (run, stars) in contestants.items():
            begun = clock()
            run()
            if number:
                times[name].append(1e6 * (clock() - begun) / stars)
    return times


def table(title: str, times: dict[str, Any], reference: str) -> dict[str, Any]:
    """Print medians, and ratios to ``reference`` round by round."""
    print(f"\n{title}\n{'':34s}{'us/star':>10s}{'stars/s':>10s}   {reference} / this")
    found = {}
    for name, values in times.items():
        ratio = float(np.median(np.array(times[reference]) / np.array(values)))
        median = float(np.median(values))
        found[name] = {"us_per_star": round(median, 2), "times_reference": round(ratio, 3)}
        print(f"{name:34s}{median:10.1f}{1e6 / median:10.0f}   {ratio:.2f}")
    return {"reference": reference, "contestants": found, "rounds": len(times[reference])}


def reader(folder: Path, stars: int, count: int) -> dict[str, Any]:
    """Readers of one bulk file; GaiaXPy and the like get its first rows, unpacked if they must."""
    path = make(folder, stars)[0]
    few = folder / "few.csv"
    with open_bytes(path) as file:
        text = file.read()
    lines = text.split(b"\n")
    header = next(n for n, line in enumerate(lines) if not line.startswith(b"#"))
    few.write_bytes(b"\n".join(lines[header : header + 1 + SLOW_ROWS]) + b"\n")
    few_packed = folder / "few.csv.gz"
    few_packed.write_bytes(gzip.compress(few.read_bytes(), 6))
    contestants: Contestants = {
        "GaiaXPy, with covariances": (lambda: gaiaxpy(few), SLOW_ROWS),
        "pandas + orjson": (lambda: pandas_orjson(few_packed), SLOW_ROWS),
        "polars json_decode": (lambda: polars_json(few_packed), SLOW_ROWS),
        "xplabels without simdjson": (lambda: without_simdjson(few_packed), SLOW_ROWS),
        "xplabels": (lambda: sum(len(block) for block in read_blocks(path)), stars),
        "gunzip alone (isal)": (lambda: unpack(path), stars),
    }  # fmt: skip
    times = rounds(contestants, count, time.process_time)
    return table("reader, one core", times, "GaiaXPy, with covariances")


def without_simdjson(path: Path) -> object:
    """The reader where simdjson is not installed."""
    kept = sys.modules.pop("simdjson", None)
    sys.modules["simdjson"] = None  # type: ignore[assignment]
    try:
        return list(read_blocks(path))
    finally:
        del sys.modules["simdjson"]
        if kept is not None:
            sys.modules["simdjson"] = kept


def gaiaxpy(path: Path) -> object:
    """GaiaXPy's own parser, which cannot read ``.csv.gz``."""
    from gaiaxpy.file_parser.parse_internal_continuous import InternalContinuousParser

    return InternalContinuousParser().parse_file(str(path), disable_info=True)


def pandas_orjson(path: Path) -> object:
    """Pandas for the columns, orjson for the arrays."""
    import orjson
    import pandas as pd

    frame = pd.read_csv(path, usecols=["source_id", *ARRAYS])
    return [np.array([orjson.loads(cell) for cell in frame[name]]) for name in ARRAYS]


def polars_json(path: Path) -> object:
    """Polars for all of it."""
    import polars as pl

    frame = pl.read_csv(path, columns=["source_id", *ARRAYS])
    arrays = [pl.col(name).str.json_decode(pl.List(pl.Float64)) for name in ARRAYS]
    return frame.with_columns(arrays)


def unpack(path: Path) -> None:
    """Gunzip and throw away."""
    buffer = memoryview(bytearray(1 << 20))
    with open_bytes(path) as file:
        while file.readinto(buffer):  # type: ignore[attr-defined]
            pass


def paper_network(
    stars: Stars,
) -> tuple[Inference, Features, UncertainNetwork, Callable[[], object]]:
    """Inference by the paper's network, features, the network, and its batched torch path."""
    recipe = load_recipe("paper")
    feature_set = FeatureSet.for_stars(
        stars, recipe.auxiliary, covariance=recipe.covariance,
        extinction_error=recipe.extinction_error,
    )  # fmt: skip
    features = feature_set.compute(stars)
    labels = np.random.default_rng(0).normal(size=(len(stars), 6))
    scaling = Scaling.fit(features.x, labels)
    shape = Architecture(
        inputs=features.x.shape[1], masks=0, hidden=recipe.hidden, labels=6,
        activation=recipe.activation, dropout=recipe.dropout,
    )  # fmt: skip
    torch.manual_seed(0)
    network = UncertainNetwork(shape).requires_grad_(False)
    propagation = Propagation(feature_set, scaling, False, torch.float32)

    def batched() -> object:
        block = Block.of(features, feature_set, scaling, torch.float32)
        with torch.no_grad():
            return propagation.run(network, block)

    inference = Inference(feature_set, scaling, (network.to_perceptron(),))
    return inference, features, network, batched


def autograd_star_by_star(
    network: UncertainNetwork, features: Features, stars: int
) -> Callable[[], None]:
    """As the paper describes it: 50 dropout passes, dy/dx by autograd, J C J^T with C built."""
    width = int((1 + (1 + 8 * features.correlations[0].shape[1]) ** 0.5) / 2)  # type: ignore[index]
    rows, columns = np.tril_indices(width, -1)

    def run() -> None:
        for star in range(stars):
            x = torch.as_tensor(np.nan_to_num(features.x[star]), dtype=torch.float32)[None]
            with torch.no_grad():
                drawn = torch.cat([network(x, drop=True).mean for _ in range(50)])
            drawn.median(dim=0), drawn.var(dim=0)
            jacobian = torch.autograd.functional.jacobian(lambda one: network(one).mean[0], x)[
                :, 0
            ].numpy()
            covariance = np.zeros((2 * width, 2 * width))
            for band, packed in enumerate(features.correlations):  # type: ignore[arg-type]
                block = np.zeros((width, width))
                block[rows, columns] = packed[star]
                part = slice(band * width, (band + 1) * width)
                covariance[part, part] = block + block.T + np.eye(width)
            errors = features.errors[star] / features.divisor[star]
            by_x = jacobian[:, : 2 * width]
            np.diag(by_x @ (covariance * np.outer(errors, errors)) @ by_x.T)

    return run


def kernels(stars: int, count: int) -> dict[str, Any]:
    """The paper's network, all variances, on one core."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    some = example_stars(stars)
    compiled, features, network, batched = paper_network(some)
    one, other = torch.rand(2048, 128), torch.rand(128, 128)

    def products() -> None:
        """As many operations as the network's pass and chain take."""
        flop = network.architecture.flop_with_jacobian * stars
        for _ in range(max(1, round(flop / (2 * 2048 * 128 * 128)))):
            torch.mm(one, other)

    contestants: Contestants = {
        "autograd a star, 50 passes": (autograd_star_by_star(network, features, 20), 20),
        "batched torch": (batched, stars),
        "inference": (lambda: compiled.run(features), stars),
        "the products alone": (products, stars),
    }
    times = rounds(contestants, count, time.process_time)
    return table(
        "the paper's network with all variances, one core", times, "autograd a star, 50 passes"
    )


def shipped(name: str, stars: int, count: int, trees: int, threads: int) -> dict[str, Any]:
    """The shipped model with all variances beside XGBoost's bare labels.

    With several threads it is wall time, which says little on a machine that does other work.
    """
    import xgboost

    threadpool_limits(threads)
    model, some = Model.load(name), example_stars(stars)
    features = model.feature_set.compute(some)
    x = np.nan_to_num(features.x)
    # one ensemble of trees for each label of the model; the example stars have four, which repeat
    labels = known_labels(some)
    values = labels.values[:, np.arange(len(model.names)) % len(labels.names)]
    y = values / values.std(axis=0)
    keys = {"n_estimators": trees, "max_depth": 8, "learning_rate": 0.03, "n_jobs": threads}
    boosted = [xgboost.XGBRegressor(**keys).fit(x, one) for one in y.T]

    def predicted(part: int) -> Callable[[], object]:
        return lambda: [one.predict(x, iteration_range=(0, part)) for one in boosted]

    half = trees // 2
    contestants: Contestants = {
        "XGBoost, labels only": (predicted(trees), stars),
        "half": (predicted(half), stars),
        "inference, all variances": (lambda: model.inference.run(features), stars),
        "Model.predict": (lambda: model.predict(some), stars),
    }
    times = rounds(contestants, count, time.process_time if threads == 1 else time.perf_counter)
    # what each tree adds, times the trees that were not grown here
    more = (XGBOOST_TREES - trees) / (trees - half)
    pairs = zip(times["XGBoost, labels only"], times.pop("half"), strict=True)
    times["XGBoost, labels only"] = [whole + more * (whole - part) for whole, part in pairs]
    title = f"{name}, threads: {threads}; XGBoost from {trees} trees to {XGBOOST_TREES}"
    return table(title, times, "XGBoost, labels only")


def main() -> None:
    """Measure what the command line asks for."""
    parser = options(__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "speed.json")
    parser.add_argument("--only", default="reader,kernels,shipped,sky", metavar="SECTIONS")
    parser.add_argument("--rows", type=int, default=2000, help="stars in each bulk file")
    parser.add_argument("--stars", type=int, default=4096, help="stars predicted")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--trees", type=int, default=300, help="that XGBoost grows; its time is extended to 3000"
    )
    parser.add_argument("--threads", type=int, default=1, help="for the shipped model and XGBoost")
    parser.add_argument("--model", default="apogee-dr17-library")
    parser.add_argument(
        "--memory-rows", type=int, default=200_000, help="stars in the file of the section memory"
    )
    parser.add_argument("--scratch", type=Path, help="folder for the made files")
    args = parser.parse_args()
    wanted = args.only.split(",")
    # sections that are not asked for stay as they were measured
    results = json.loads(args.output.read_text()) if args.output.is_file() else {}
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder, gaiaxpy_us = Path(scratch), None
        if "reader" in wanted:
            results["reader"] = reader(folder, args.rows, args.rounds)
            by_name = results["reader"]["contestants"]
            gaiaxpy_us = by_name["GaiaXPy, with covariances"]["us_per_star"]
        if "kernels" in wanted:
            results["kernels"] = kernels(args.stars, args.rounds)
        if "shipped" in wanted:
            results["shipped"] = shipped(
                args.model, args.stars, args.rounds, args.trees, args.threads
            )
        if "sky" in wanted:
            results["sky"] = end_to_end(folder, args.model, args.rows, gaiaxpy_us, 3)
        if "memory" in wanted:
            results["memory"] = memory(folder, args.model, args.memory_rows)
    write_json(args.output, results)


if __name__ == "__main__":
    main()
