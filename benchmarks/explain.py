"""What docs/benchmarks/explain.md shows of models, in one run: its figures and its tables.

    python benchmarks/explain.py [--model NAME|MODEL] [--giants giants.parquet --six SIX_LABELS]

Of the model on the real library: attention, curves of the red clump and their correlations, what
the spectra hold beside what the model reaches. With --giants and --six, a table of semi-synthetic
giants and a model of six labels trained on its training part: the same of carbon and nitrogen. It
needs the extras library and synthetic, writes docs/figures/explain_*.png, puts the tables between
the marks there, and prints them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common import ROOT, fill, markdown_table, options
from xplabels.core.labels import LABELS
from xplabels.core.scores import robust_scatter
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.explain import Explanation, explain, figures
from xplabels.explain.differences import SIDES, read_extinction
from xplabels.explain.information import DUSTLESS, FREE, GRID, GRID_G, POPULATION, Content
from xplabels.giants.emulator import load_emulator
from xplabels.io import read
from xplabels.model import DEFAULT_MODEL, Model
from xplabels.report import png
from xplabels.surveys.library import read_library

BOUNDS = {
    DUSTLESS: "bound: no dust", FREE: "bound: dust free", POPULATION: "and population known"
}  # fmt: skip
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


def of_pair(correlations: Correlations, one: str, other: str, side: str) -> str:
    """The correlation of two curves, in whichever order they stand; - where one is absent."""
    for pair in (f"{one} / {other}", f"{other} / {one}"):
        if pair in correlations:
            return f"{correlations[pair][side]:.2f}"
    return "-"


def correlation_table(by_label: Mapping[str, Correlations]) -> str:
    """A row per pair, a column per label: both sides together, and (BP, RP)."""
    rows = []
    for one, other in PAIRS:
        row = []
        for correlations in by_label.values():
            both, *sides = (of_pair(correlations, one, other, side) for side in ("both", *SIDES))
            row.append(both if both == "-" else f"{both} ({', '.join(sides)})")
        if any(cell != "-" for cell in row):
            rows.append([f"{TITLES[one]} / {TITLES[other]}", *row])
    return markdown_table(["correlation: both sides (BP, RP)", *map(name_of, by_label)], rows)


def information_table(content: Content) -> str:
    """Medians over the stars: bounds, stated errors, robust scatter."""
    rows = []
    for k, label in enumerate(content.names):
        residual = content.residuals[:, k]
        values = [np.median(content.attainable[kind][:, k]) for kind in BOUNDS]
        values += [np.nanmedian(content.stated[:, k])]
        values += [robust_scatter(residual[np.isfinite(residual)])]
        title = f"{name_of(label)} [{LABELS[label].unit}]"
        rows.append([title, *(f"{float(v):.3g}" for v in values)])
    header = ["", *BOUNDS.values(), "model: stated", "model: robust scatter"]
    return markdown_table(header, rows)


def branch_table(branch: Mapping[str, Array]) -> str:
    """Bounds at four corners of the grid along the giant branch."""
    corners = [(t, m) for t in (4500.0, 5500.0) for m in (0.0, -2.0)]
    rows = []
    for label in figures.FADING:
        bounds = (branch[label][GRID["teff"].index(t), GRID["fe_h"].index(m)] for t, m in corners)
        rows.append([name_of(label), *(f"{bound:.2g}" for bound in bounds)])
    header = [f"bound at G = {GRID_G:g} [dex]", *(f"{t:.0f} K, {m:g}" for t, m in corners)]
    return markdown_table(header, rows)


def block_of(
    model: Model, stars: Stars, extinction: str, labels: Sequence[str], prefix: str, folder: Path
) -> tuple[Explanation, list[str]]:
    """Everything that ``explain`` shows of a model, errors on the test part.

    Its figures, the curves of ``labels`` among them, and the paragraphs that all pages have.
    """
    fraction = float(model.metadata["split"]["test_fraction"])
    unseen = stars[part_mask(stars.source_id, "test", fraction)]
    a_g = read_extinction(extinction, stars)
    found = explain(model, stars, a_g=a_g, emulator=load_emulator(), unseen=unseen)
    if found.content is None:
        raise SystemExit("no information content was computed")
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "attention": figures.attention_bars(found.attention),
        "information": figures.information(found.content),
    }
    for label in labels:
        if label in found.curves:
            shown = found.curves[label]
            pictures[label] = figures.curves(label, found.wavelength, shown, found.flux)
    if found.branch is not None and prefix == "explain":  # of no model: the same for all
        pictures["fading"] = figures.fading(found.branch)
    for name, figure in pictures.items():
        (folder / f"{prefix}_{name}.png").write_bytes(png(figure))
    of_model, recipe = model.metadata, model.recipe
    paragraphs = [
        f"Of the model `{of_model.get('name', '')}` whose `model.json` has the SHA-256 "
        f"{str(of_model.get('sha256', ''))[:12]}... (recipe `{recipe.name}`, hidden layers "
        f"{list(recipe.hidden)}, {recipe.epochs} epochs, {of_model['training']['n_train']:,} "
        f"training stars). The curves' stars: {'; '.join(found.flow)}.",
        correlation_table(found.to_metrics()["correlations"]),
        f"What the spectra hold beside what the model reaches of them, medians: "
        f"{found.content.stars}.",
        information_table(found.content),
    ]
    return found, paragraphs


def library_block(model: Model, folder: Path) -> list[str]:
    """Figures and tables of a model of the library."""
    stars = read_library()
    found, (about, correlations, *information) = block_of(
        model, stars, "library", ("fe_h", "alpha_m"), "explain", folder
    )
    dusty = explain(model, stars, seen=found.attention)
    return [
        about,
        correlations,
        "The same with dusty stars among them, where both derivative spectra and slopes vary with "
        f"dust, which is not a label ({'; '.join(dusty.flow)}):",
        correlation_table(dusty.to_metrics()["correlations"]),
        *information,
        "Bounds along the giant branch, dust free, solar ratios, at four temperatures and [Fe/H]:",
        branch_table(found.branch or {}),
    ]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
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
        six, giants = Model.load(args.six), read(args.giants)
        _, blocks["giants"] = block_of(
            six, giants, "rjce", ("c_fe", "n_fe"), "explain_giants", args.figures
        )
    for name, paragraphs in blocks.items():
        text = "\n\n".join(paragraphs)
        fill(args.document, f"<!-- {name}: begin -->", f"<!-- {name}: end -->", text)
        print(text, end="\n\n")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
