"""Figures of what a model uses of the spectra: FS24's figures 8 and 11-14."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, cycle, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xplabels.core.labels import label_of
from xplabels.explain.attention import Attention
from xplabels.explain.differences import SIDES, Curve, correlations, step_of
from xplabels.explain.information import DUSTLESS, FREE, GRID, GRID_G, POPULATION, Content
from xplabels.figures import CYCLE, MARKERS, axis_title, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

LINES: tuple[tuple[str, float, float], ...] = (
    ("CN", 383.0, 388.3),
    ("Ca H&K", 393.4, 396.8),
    ("CN", 414.0, 421.6),
    ("CH G", 429.0, 431.5),
    ("C$_2$", 466.5, 473.7),
    ("Mg b", 516.7, 518.4),
    ("C$_2$", 547.0, 563.6),
    ("Na D", 589.0, 589.6),
    ("TiO", 615.9, 629.0),
    (r"H$\alpha$", 656.1, 656.8),
    ("CN", 692.0, 698.0),
    ("TiO", 705.4, 713.0),
    ("CN", 787.0, 800.0),
    ("Ca triplet", 849.8, 866.2),
    ("CN", 914.0, 945.0),
)
"""Lines and band heads with the ranges (nm) that are shaded (FS24, figures 11-14)."""


def lines_within(low: float, high: float) -> list[str]:
    """Names of the lines and bands that overlap a range of wavelength, without TeX."""
    inside = [title for title, start, end in LINES if start < high and end > low]
    return [plain_title(title) for title in dict.fromkeys(inside)]


def plain_title(title: str) -> str:
    """A line's name without TeX."""
    return title.replace("C$_2$", "C₂").replace(r"H$\alpha$", "Hα")


TEFF_UNIT = 1000.0
"""Unit (K) in which the attention of teff is drawn, as in FS24."""
CONSTANT = "rp_0"
"""Input that is 1 for every star (eq. 1)."""
WIDEST = 14.0
"""Largest width (inches) of a figure; with more inputs the bars are narrower."""
INPUT_TITLES = {
    "bp_rp": r"$G_\mathrm{BP}-G_\mathrm{RP}$", "j_h": "$J-H$", "w1_w2": "$W_1-W_2$",
    "h_w2": "$H-W_2$", "m_pseudo": "p-mag", "g_rp": r"$G-G_\mathrm{RP}$", "g_j": "$G-J$",
    "rp_j": r"$G_\mathrm{RP}-J$", "rp_ks": r"$G_\mathrm{RP}-K_s$", "h_ks": "$H-K_s$",
}  # fmt: skip


@styled
def attention_bars(found: Attention, coefficients: int = 5) -> Figure:
    """Standard deviation of the attention to each input, one row per label (FS24, fig. 8).

    It shows the first ``coefficients`` of BP and RP and all other inputs, without RP 0, which is 1
    for every star.
    """
    from matplotlib.figure import Figure

    shown = [
        i
        for i, name in enumerate(found.inputs)
        if name != CONSTANT and (name in INPUT_TITLES or int(name.split("_")[1]) < coefficients)
    ]
    inputs = [found.inputs[i] for i in shown]
    at, width = np.arange(len(shown)), 0.42 * len(shown) + 1.5
    size = (min(max(5.0, width), WIDEST), 1.3 * len(found.names) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(len(found.names), 1, sharex=True, squeeze=False)[:, 0]
    for ax, name, deviation in zip(rows, found.names, found.deviation, strict=True):
        unit = TEFF_UNIT if name == "teff" else 1.0
        ax.bar(at, deviation[shown] / unit, color=[_colour(name) for name in inputs], width=0.75)
        title = "10$^3$ K" if name == "teff" else label_of(name).unit
        ax.set_ylabel(label_of(name).symbol + (f"\n[{title}]" if title else ""))
    crowded = width > WIDEST
    rows[-1].set_xticks(
        at, [INPUT_TITLES.get(name) or name.upper().replace("_", " ") for name in inputs],
        rotation=90 if crowded else 60, fontsize=6.5 if crowded else None,
    )  # fmt: skip
    rows[-1].set_xlim(-0.7, len(shown) - 0.3)
    words = ["standard deviation", "of the attention $J_{ij}x_i$"]
    figure.supylabel(("\n" if len(found.names) < 3 else " ").join(words))
    return figure


def _colour(name: str) -> str:
    if name in INPUT_TITLES:
        return CYCLE[2]
    return CYCLE[0] if name.startswith("bp_") else CYCLE[1]


@styled
def curves(name: str, wavelength: Array, shown: Sequence[Curve], flux: Array) -> Figure:
    """Curves of one label in BP and RP with lines and bands marked (FS24, figures 11-14).

    All are in per cent of the typical ``flux`` [L] per step of the label (:func:`step_of`, or a
    tenth of it and so on, so that the flux does not double), on one scale for each side, beyond
    which the largest may extend. At the right are the correlations of all pairs of curves on that
    side.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.8, 6.8), layout="constrained")
    axes = figure.subplots(2, 2, width_ratios=(3.6, 1.0))
    colours = list(islice(cycle(CYCLE), len(shown)))
    related = correlations(wavelength, shown)
    # of a label such as mass one unit may be far more than the stars differ by
    typical = np.median([np.percentile(np.abs(curve.values / flux), 97) for curve in shown])
    step = step_of(name)
    while step * typical > 1:
        step /= 10
    per_cent = 100 * step / flux
    for (ax, matrix), (side, (low, high)) in zip(axes, SIDES.items(), strict=True):
        inside = (wavelength >= low) & (wavelength <= high)
        for number, (colour, curve) in enumerate(zip(colours, shown, strict=True), start=1):
            ax.plot(
                wavelength[inside], (per_cent * curve.values)[inside], color=colour, linewidth=1.3,
                label=f"{number} {curve.title}",
            )  # fmt: skip
            if curve.low is not None and curve.high is not None:
                ax.fill_between(
                    wavelength[inside], (per_cent * curve.low)[inside],
                    (per_cent * curve.high)[inside], color=colour, alpha=0.2, linewidth=0,
                )  # fmt: skip
        ax.axhline(0, color="black", linewidth=0.6)
        sizes = [np.percentile(np.abs(per_cent * curve.values)[inside], 97) for curve in shown]
        reach = 1.6 * float(np.median(sizes))
        ax.set(xlim=(low, high), ylim=(-reach, reach))
        ax.set_ylabel(f"{side}: change of flux\nper {step:g} {label_of(name).unit} [%]")
        _mark(ax, low, high)
        pairs = [related[f"{a.title} / {b.title}"][side] for a, b in combinations(shown, 2)]
        _matrix(matrix, pairs, colours)
        matrix.set_title(f"correlation in {side}", fontsize=8)
    axes[1, 0].set_xlabel("wavelength [nm]")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(label_of(name).description, fontsize=10)
    # the first pass of the layout may bring other, wider tick labels than it made room for
    figure.draw_without_rendering()
    return figure


def _matrix(ax: Axes, pairs: Sequence[float], colours: Sequence[str]) -> None:
    """Draw the correlations of pairs of numbered curves as coloured cells with numbers."""
    count = len(colours)
    grid = np.full((count - 1, count - 1), np.nan)
    grid.T[np.triu_indices(count - 1)] = pairs
    ax.imshow(grid, cmap="RdBu", vmin=-1.6, vmax=1.6, aspect="equal")
    for row, column in zip(*np.nonzero(np.isfinite(grid)), strict=True):
        text = f"{grid[row, column]:.2f}".replace("-", "\N{MINUS SIGN}")
        ax.text(column, row, text, ha="center", va="center", fontsize=8)
    ax.set_xticks(range(count - 1), [str(n) for n in range(1, count)])
    ax.set_yticks(range(count - 1), [str(n) for n in range(2, count + 1)])
    for labels, given in (
        (ax.get_xticklabels(), colours[:-1]),
        (ax.get_yticklabels(), colours[1:]),
    ):
        for label, colour in zip(labels, given, strict=True):
            label.set(color=colour, fontweight="bold", fontsize=9)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


INFORMATION: dict[str, dict[str, object]] = {
    DUSTLESS: {"color": CYCLE[0], "linestyle": ":"},
    FREE: {"color": CYCLE[0]},
    POPULATION: {"color": CYCLE[2], "linestyle": "--"},
}


@styled
def information(content: Content) -> Figure:
    """Attainable errors and those reached against Teff and [Fe/H], one row per label."""
    from matplotlib.figure import Figure

    rows = len(content.names)
    figure = Figure(figsize=(8.6, 1.75 * rows + 1.1), layout="constrained")
    axes = figure.subplots(rows, 2, sharex="col", sharey="row", squeeze=False)
    for column, axis in enumerate(("teff", "fe_h")):
        bins = content.binned(axis)
        for k, ax in enumerate(axes[:, column]):
            for kind, style in INFORMATION.items():
                ax.plot(
                    bins["middle"], bins["attainable"][kind][:, k],
                    label=f"attainable, simulated: {kind}", **style,
                )  # fmt: skip
            ax.plot(
                bins["middle"], bins["stated"][:, k], "s-", color=CYCLE[1], markersize=4,
                label="network from the spectrum alone: stated error",
            )  # fmt: skip
            ax.plot(
                bins["middle"], bins["scatter"][:, k], "ko", markersize=4,
                label="network: robust scatter of residuals",
            )  # fmt: skip
            ax.set_yscale("log")
            _name_few_ticks(ax)
            ax.tick_params(axis="y", which="both", labelsize=7.5)
        axes[-1, column].set_xlabel(axis_title(axis))
    for ax, name in zip(axes[:, 0], content.names, strict=True):
        ax.set_ylabel(f"{label_of(name).symbol}\nerror [{label_of(name).unit}]")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


FADING = ("c_fe", "n_fe", "alpha_m")
"""Labels that FS24, section 5.5, expect to fade in hot and metal-poor giants."""
LARGEST = 3.0
"""Largest error (dex) that is drawn: a spectrum with a larger bound says nothing of the label."""


@styled
def fading(branch: Mapping[str, Array]) -> Figure:
    """Attainable errors of ``giant_branch`` against [Fe/H]: a panel per label, a line per Teff."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 3.3), layout="constrained")
    axes = figure.subplots(1, len(FADING), sharex=True, sharey=True)
    for ax, name in zip(axes, FADING, strict=True):
        rows = zip(CYCLE, MARKERS, GRID["teff"], branch[name], strict=False)
        for colour, marker, teff, errors in rows:
            ax.plot(GRID["fe_h"], errors, color=colour, marker=marker, markersize=4,
                    label=f"{teff:.0f} K")  # fmt: skip
        ax.set(title=label_of(name).symbol, xlabel=axis_title("fe_h"), yscale="log")
        _name_few_ticks(ax)
        ax.grid(which="both", axis="y", linewidth=0.4, alpha=0.4)
    axes[0].set_ylim(0.8 * min(branch[name].min() for name in FADING), LARGEST)
    axes[0].set_ylabel("attainable error [dex], simulated")
    axes[0].legend(title=f"along the giant branch,\n$G$ = {GRID_G:g}")
    return figure


def _name_few_ticks(ax: Axes) -> None:
    """Label only the ticks of a logarithmic y axis that begin with 1, 2, 3 or 5."""

    def name(value: float, _: object) -> str:
        return f"{value:g}" if f"{value:.0e}"[0] in "1235" else ""

    ax.yaxis.set_major_formatter(name)
    ax.yaxis.set_minor_formatter(name)


def _mark(ax: Axes, low: float, high: float) -> None:
    """Shade lines and bands, their names in two rows above."""
    inside = [line for line in LINES if low <= 0.5 * (line[1] + line[2]) <= high]
    for number, (title, start, end) in enumerate(inside):
        ax.axvspan(start, end, color="#8a94a3", alpha=0.22, linewidth=0)
        ax.text(
            0.5 * (start + end), 1.01 + 0.055 * (number % 2), title, ha="center", va="bottom",
            fontsize=7, transform=ax.get_xaxis_transform(),
        )  # fmt: skip
