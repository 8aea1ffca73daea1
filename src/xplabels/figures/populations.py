"""Arrays in, matplotlib figures out: surveys beside each other, and labels beside labels.

Figures 2-4, 9 and 10 of FS24, joint coverage, and the trend to the mean; what
:mod:`xplabels.figures` says of style, units and NaN holds here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xplabels.core import distribution as predictive
from xplabels.core.labels import LABELS
from xplabels.figures import (
    ACCENT,
    CYCLE,
    DENSITY,
    LINE,
    MARKERS,
    TOTAL,
    Array,
    axis_title,
    edges_of,
    limits_of,
    new_figure,
    running,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pair = tuple[str, str, Array, Array]
"""Words for x and for y, x [N, K], y [N, K]."""


@styled
def side_by_side(names: Sequence[str], columns: Sequence[Pair]) -> Figure:
    """A row a label, a column a comparison (FS24, fig. 2): y against x, and one to one.

    The columns of a row share their limits, so that one sees which comparison is tighter.
    """
    figure = new_figure(4.2 * len(columns), 3.4 * len(names))
    axes = figure.subplots(len(names), len(columns), squeeze=False)
    for k, name in enumerate(names):
        stacked = np.concatenate([np.stack([x[:, k], y[:, k]], axis=1) for *_, x, y in columns])
        stacked = stacked[np.isfinite(stacked).all(axis=1)]
        low, high = limits_of(stacked.ravel()) if len(stacked) else (0.0, 1.0)
        for ax, (of_x, of_y, x, y) in zip(axes[k], columns, strict=True):
            known = np.isfinite(x[:, k]) & np.isfinite(y[:, k])
            _density(ax, x[known, k], y[known, k], (low, high), (low, high))
            ax.plot([low, high], [low, high], color=LINE, linewidth=1.0)
            ax.set(
                xlim=(low, high), ylim=(low, high),
                xlabel=axis_title(name, f"{of_x} "), ylabel=axis_title(name, f"{of_y} "),
            )  # fmt: skip
            ax.set_title(f"{LABELS[name].symbol}, N = {int(known.sum()):,}", loc="left")
    return figure


@styled
def differences_along(
    names: Sequence[str], axes: Mapping[str, Array], difference: Array, words: str
) -> Figure:
    """Differences [N, K] against each of ``axes`` ({title: [N]}), with median and 16-84 %."""
    figure = new_figure(4.2 * len(axes), 2.7 * len(names))
    panels = figure.subplots(len(names), len(axes), squeeze=False, sharey="row")
    for k, name in enumerate(names):
        for ax, (title, x) in zip(panels[k], axes.items(), strict=True):
            known = np.isfinite(x) & np.isfinite(difference[:, k])
            ax.set(xlabel=title)
            ax.set_title(f"{LABELS[name].symbol}, N = {int(known.sum()):,}", loc="left")
            if not known.any():
                continue
            here, y = x[known], difference[known, k]
            half = max(float(np.percentile(np.abs(difference[known, k]), 99)), 1e-9)
            _density(ax, here, y, limits_of(here), (-half, half))
            ax.axhline(0, color=LINE, linewidth=1.0)
            centres, (p16, p50, p84) = running(here, y, edges_of(here, 14), (16, 50, 84))
            ax.plot(centres, p50, color=TOTAL, linewidth=1.4)
            for edge in (p16, p84):
                ax.plot(centres, edge, color=TOTAL, linewidth=1.0, linestyle="--")
        panels[k][0].set_ylabel(axis_title(name, f"{words} "))
    return figure


@styled
def planes(pairs: Sequence[tuple[str, str]], columns: Mapping[str, Mapping[str, Array]]) -> Figure:
    """Abundance planes: a row a pair of labels (x, y), a column a set of stars (FS24, 9 and 10).

    ``columns``: {title: {label: [N]}}; N may differ. A row's panels share limits.
    """
    figure = new_figure(3.7 * len(columns), 3.1 * len(pairs))
    panels = figure.subplots(len(pairs), len(columns), squeeze=False, sharex="row", sharey="row")
    for row, (name_x, name_y) in zip(panels, pairs, strict=True):
        points = {
            title: np.stack([labels[name_x], labels[name_y]], axis=1)
            for title, labels in columns.items()
        }
        points = {t: p[np.isfinite(p).all(axis=1)] for t, p in points.items()}
        everything = np.concatenate(list(points.values()))
        if not len(everything):
            continue
        window = limits_of(everything[:, 0], 0.3), limits_of(everything[:, 1], 0.3)
        for ax, (title, here) in zip(row, points.items(), strict=True):
            _density(ax, here[:, 0], here[:, 1], *window)
            ax.set_title(f"{title}, N = {len(here):,}", loc="left")
            ax.set(xlim=window[0], ylim=window[1], xlabel=axis_title(name_x))
        row[0].set_ylabel(axis_title(name_y))
        if name_x == "logg":
            row[0].invert_xaxis()
    return figure


@styled
def joint_curve(content: Array, margin: float) -> Figure:
    """Observed minus stated share of the stars inside the ellipsoids, at every level.

    ``content`` [N]: probability inside the ellipsoid through a star's true labels; grey holds 95 %
    of right predictions (binomial), bars the ``margin`` at 68.3 and 95.4 %.
    """
    figure = new_figure(5.2, 3.6)
    ax: Axes = figure.subplots()
    levels = np.linspace(0.01, 0.99, 99)
    band = 1.96 * np.sqrt(levels * (1 - levels) / max(len(content), 1))
    ax.fill_between(100 * levels, -100 * band, 100 * band, color="0.9", linewidth=0)
    ax.axhline(0, color="0.4", linewidth=0.8)
    inside = np.searchsorted(np.sort(content), levels, side="right") / max(len(content), 1)
    ax.plot(100 * levels, 100 * (inside - levels), color=ACCENT, linewidth=1.6)
    for level in (predictive.LEVEL_68, predictive.LEVEL_95):
        ax.errorbar(100 * level, 0, 100 * margin, color="0.25", capsize=4, linewidth=1.2)
    ax.set(xlabel="stated level [%]", ylabel="observed $-$ stated share [points]", xlim=(0, 100))
    ax.set_title(f"N = {len(content):,}", loc="left")
    return figure


@styled
def slopes(names: Sequence[str], along: str, x: Array, slope: Array, error: Array) -> Figure:
    """Slope of prediction on truth [B, K] in bins at ``x`` [B], with bootstrap errors."""
    figure = new_figure(6.4, 3.6)
    ax: Axes = figure.subplots()
    ax.axhline(1, color="0.4", linewidth=0.8)
    for k, name in enumerate(names):
        # a little apart, so that error bars do not hide each other
        ax.errorbar(
            x * (1 + 0.012 * (k - (len(names) - 1) / 2)), slope[:, k], error[:, k],
            color=CYCLE[k % 6], marker=MARKERS[k % 6], markersize=4, linewidth=1.0, capsize=2,
            label=LABELS[name].symbol,
        )  # fmt: skip
    ax.set(xscale="log", xlabel=along, ylabel="slope of prediction on known label")
    figure.legend(loc="outside lower center", ncols=min(len(names), 6))
    return figure


def _density(
    ax: Axes, x: Array, y: Array, x_range: tuple[float, float], y_range: tuple[float, float]
) -> None:
    if len(x):
        ax.hexbin(
            x, y, gridsize=55, bins="log", mincnt=1, cmap=DENSITY, extent=(*x_range, *y_range),
            linewidths=0,
        )  # fmt: skip
