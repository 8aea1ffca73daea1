"""What docs/benchmarks/explain.md shows of models, in one run: its figures and its tables.

    python benchmarks/explain.py [--model NAME|MODEL] [--giants giants.parquet --six SIX_LABELS]

Of the model on the real library: attention, curves of the red clump and their correlations, what
the spectra hold beside what the model reaches. With --giants and --six, a table of semi-synthetic
giants and a model of six labels trained on its training part: the same of carbon and nitrogen. It
needs the extras library and synthetic, writes docs/figures/explain_*.png, puts the tables between
the marks there, and prints them.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xplabels.core.labels import LABELS
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.explain import Explanation, explain, figures
from xplabels.explain.differences import SIDES, read_extinction
from xplabels.explain.information import DUSTLESS, FREE, GRID, GRID_G, POPULATION, Content
from xplabels.giants.emulator import load_emulator
from xplabels.io import read
from xplabels.model import Model
from xplabels.report import png
from xplabels.surveys.library import read_library

ROOT = Path(__file__).parents[1]
MODEL = "apogee-dr17-library"
COVARIANCE, PAPER = "derivative, full covariance", "derivative, FS24 eq. 14"
SLOPE, SPLIT = "observed, other labels held", "observed, median split"
SIMULATED = "simulated (bossbrain)"
PAIRS = (
    (PAPER, SLOPE), (COVARIANCE, SLOPE), (PAPER, SPLIT), (COVARIANCE, SPLIT), (SLOPE, SPLIT),
    (SLOPE, SIMULATED), (PAPER, SIMULATED), (COVARIANCE, SIMULATED),
)  # fmt: skip
TITLES = {
    COVARIANCE: "full covariance", PAPER: "eq. 14", SLOPE: "observed slope",
    SPLIT: "observed split", SIMULATED: "simulated",
}  # fmt: skip

Array = NDArray[np.float64]
Correlations = Mapping[str, Mapping[str, float]]


def name_of(label: str) -> str:
    """As the tables call a label."""
    return {"teff": "Teff", "logg": "log g"}.get(label, LABELS[label].description.split()[-1])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def of_pair(correlations: Correlations, one: str, other: str, side: str) -> str:
    """The correlation of two curves, in whichever order they stand; - where one is absent."""
    for pair in (f"{one} / {other}", f"{other} / {one}"):
        if pair in correlations:
            return f"{correlations[pair][side]:.2f}"
    return "-"


def correlation_lines(by_label: Mapping[str, Correlations]) -> list[str]:
    """A row a pair, a column a label: both sides together, and (BP, RP)."""
    rows = []
    for one, other in PAIRS:
        row = []
        for correlations in by_label.values():
            both, *sides = (of_pair(correlations, one, other, side) for side in ("both", *SIDES))
            row.append(both if both == "-" else f"{both} ({', '.join(sides)})")
        if any(cell != "-" for cell in row):
            rows.append([f"{TITLES[one]} / {TITLES[other]}", *row])
    return table(["correlation: both sides (BP, RP)", *map(name_of, by_label)], rows)


def information_lines(content: Content) -> list[str]:
    """Medians over the stars: bounds, stated errors, robust scatter."""
    rows = []
    for k, label in enumerate(content.names):
        residual = content.residuals[:, k]
        residual = residual[np.isfinite(residual)]
        scatter = 1.4826 * np.median(np.abs(residual - np.median(residual)))
        values = [
            np.median(content.attainable[kind][:, k]) for kind in (DUSTLESS, FREE, POPULATION)
        ]
        values += [np.nanmedian(content.stated[:, k]), scatter]
        unit = LABELS[label].unit
        rows.append([f"{name_of(label)} [{unit}]", *(f"{float(v):.3g}" for v in values)])
    header = ["bound: no dust", "bound: dust free", "and population known"]
    return table(["", *header, "model: stated", "model: robust scatter"], rows)


def branch_lines(branch: Mapping[str, Array]) -> list[str]:
    """Bounds at four corners of the grid along the giant branch."""
    corners = [(t, m) for t in (4500.0, 5500.0) for m in (0.0, -2.0)]
    rows = [
        [
            name_of(label),
            *(
                f"{branch[label][GRID['teff'].index(t), GRID['fe_h'].index(m)]:.2g}"
                for t, m in corners
            ),
        ]
        for label in figures.FADING
    ]
    return table(
        [f"bound at G = {GRID_G:g} [dex]", *(f"{t:.0f} K, {m:g}" for t, m in corners)], rows
    )


def told(model: Model, found: Explanation) -> list[str]:
    """Which model and which stars."""
    digest = str(model.metadata.get("sha256", ""))[:12]
    return [
        f"Of the model `{model.metadata.get('name', '')}` whose `model.json` has the SHA-256 "
        f"{digest}... (recipe `{model.recipe.name}`, hidden layers {list(model.recipe.hidden)}, "
        f"{model.recipe.epochs} epochs, {model.metadata['training']['n_train']:,} training stars). "
        f"The curves' stars: {'; '.join(found.flow)}.",
        "",
    ]


def content_of(found: Explanation) -> Content:
    """The information content, which every run here asks for."""
    if found.content is None:
        raise SystemExit("no information content was computed")
    return found.content


def explained(model: Model, stars: Stars, extinction: str) -> Explanation:
    """All of ``explain``, errors on the test part."""
    fraction = float(model.metadata["split"]["test_fraction"])
    unseen = stars[part_mask(stars.source_id, "test", fraction)]
    a_g = read_extinction(extinction, stars)
    return explain(model, stars, a_g=a_g, emulator=load_emulator(), unseen=unseen)


def draw(found: Explanation, labels: Sequence[str], prefix: str, folder: Path) -> None:
    """The figures of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "attention": figures.attention_bars(found.attention),
        "information": figures.information(content_of(found)),
    }
    for label in labels:
        pictures[label] = figures.curves(label, found.wavelength, found.curves[label], found.flux)
    if found.branch is not None and prefix == "explain":  # of no model: the same for all
        pictures["fading"] = figures.fading(found.branch)
    for name, figure in pictures.items():
        (folder / f"{prefix}_{name}.png").write_bytes(png(figure))


def library_block(model: Model, folder: Path) -> list[str]:
    """Figures and tables of a model of the library."""
    stars = read_library()
    found = explained(model, stars, "library")
    draw(found, [name for name in ("fe_h", "alpha_m") if name in found.curves], "explain", folder)
    metrics = found.to_metrics()
    dusty = explain(model, stars, seen=found.attention)
    everyone = dusty.to_metrics()
    content = content_of(found)
    return [
        *told(model, found),
        *correlation_lines(metrics["correlations"]),
        "",
        "The same with dusty stars among them, where both derivative spectra and slopes vary with "
        f"dust, which is no label ({'; '.join(dusty.flow)}):",
        "",
        *correlation_lines(everyone["correlations"]),
        "",
        f"What the spectra hold beside what the model reaches of them, medians: {content.stars}.",
        "",
        *information_lines(content),
        "",
        "Bounds along the giant branch, dust free, solar ratios, at four temperatures and [Fe/H]:",
        "",
        *branch_lines(found.branch or {}),
    ]


def giants_block(model: Model, giants: Path, folder: Path) -> list[str]:
    """Figures and tables of a model of six labels on semi-synthetic giants."""
    found = explained(model, read(giants), "rjce")
    labels = [name for name in ("c_fe", "n_fe") if name in found.curves]
    draw(found, labels, "explain_giants", folder)
    curves = found.to_metrics()["correlations"]
    content = content_of(found)
    return [
        *told(model, found),
        *correlation_lines(curves),
        "",
        f"What the spectra hold beside what the model reaches of them, medians: {content.stars}.",
        "",
        *information_lines(content),
    ]


def put(document: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between a document's marks of this name."""
    text = document.read_text(encoding="utf-8")
    marks = rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)"
    block = "\n".join(lines)
    new, count = re.subn(marks, lambda m: f"{m[1]}{block}\n{m[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{document}: has no marks {name}")
    document.write_text(new, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--giants", type=Path)
    parser.add_argument("--six", type=Path)
    parser.add_argument("--figures", type=Path, default=ROOT / "docs" / "figures")
    parser.add_argument(
        "--document", type=Path, default=ROOT / "docs" / "benchmarks" / "explain.md"
    )
    args = parser.parse_args()
    if (args.giants is None) != (args.six is None):
        parser.error("--giants and --six go together")
    start = time.perf_counter()
    blocks = {"library": library_block(Model.load(args.model), args.figures)}
    if args.six is not None:
        blocks["giants"] = giants_block(Model.load(args.six), args.giants, args.figures)
    for name, lines in blocks.items():
        put(args.document, name, lines)
        print("\n".join(lines), end="\n\n")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
