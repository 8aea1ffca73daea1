"""What the benchmarks share: options, tables in Markdown, pages that hold them, times, scores."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.stars import Stars
from xplabels.validation import Validation, score_prediction

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def options(description: str | None, output: Path | None = None) -> argparse.ArgumentParser:
    """A parser whose help is a module's docstring; with ``output``, it has a folder of results."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if output is not None:
        parser.add_argument("--output", type=Path, default=output, help="folder of the results")
    return parser


def write_json(path: Path, results: Any, indent: int = 1) -> None:
    """Results as JSON, in a folder that need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=indent, ensure_ascii=False) + "\n", "utf-8")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def fill(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks of a page."""
    head, opened, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, tail = rest.partition(end)
    if not (opened and closed):
        raise SystemExit(f"{page}: has no marks {begin} and {end}")
    page.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def processor_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Processor time of the fastest of some repeats."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def known_labels(stars: Stars, names: Sequence[str] | None = None) -> Labels:
    """The stars' labels, all or those of these names."""
    if stars.labels is None:
        raise SystemExit("these stars have no labels")
    return stars.labels if names is None else stars.labels.select(names)


def scored(prediction: Prediction, stars: Stars, names: Sequence[str] | None = None,
           **keys: Any) -> Validation:  # fmt: skip
    """Scores of a prediction along G, colour and labels."""
    g, bp, rp = (stars.photometry.column(f"phot_{band}_mean_mag")[0] for band in ("g", "bp", "rp"))
    labels = known_labels(stars, names)
    return score_prediction(prediction, labels, g_mag=g, bp_rp=bp - rp, **keys)
