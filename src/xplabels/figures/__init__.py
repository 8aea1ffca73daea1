"""The figures of FS24 and further ones of a validation, from arrays, with matplotlib.

Every function returns a :class:`matplotlib.figure.Figure`; pyplot with its global state is not
used. Arrays of several labels are [N, K] in the order of ``names``; NaN is left out. Colours are
those of Okabe & Ito.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from xplabels.core import distribution as predictive
from xplabels.core.labels import Label, label_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xplabels.core.scores import Bin

Array = NDArray[np.float64]
P = ParamSpec("P")
R = TypeVar("R")

STYLE: dict[str, object] = {
    "text.usetex": False,  # GaiaXPy turns LaTeX on for the whole process when it is imported
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "xtick.direction": "out",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "mathtext.fontset": "dejavusans",
}
DPI = 110
DENSITY = "viridis_r"
TOTAL, LINE, ACCENT = "#000000", "#D55E00", "#0072B2"
PART_COLOURS = {"model": "#D55E00", "input": "#0072B2", "excess": "#009E73"}
"""The paper's red, blue and green, in colours that the colour-blind can distinguish."""
BACKGROUND = "#eceef1"
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")

AXIS_TITLES = {"g_mag": "$G$ [mag]", "bp_rp": r"$G_\mathrm{BP} - G_\mathrm{RP}$ [mag]"}
FEWEST = 20
"""Fewest stars for a point of a running median."""


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function with :data:`STYLE`, without changing the caller's settings."""

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            return function(*args, **kwargs)

    return inside


def axis_title(name: str, prefix: str = "") -> str:
    """Symbol and unit of a label, magnitude or colour, e.g. ``$T_eff$ [K]``."""
    base = name.removesuffix("_predicted")
    if base in AXIS_TITLES:
        return prefix + AXIS_TITLES[base]
    after = ", predicted" if base != name else ""
    label = name if isinstance(name, Label) else label_of(base)
    unit = f" [{label.unit}]" if label.unit else ""
    return f"{prefix}{label.symbol}{after}{unit}"


@styled
def comparison(names: Sequence[str], truth: Array, predicted: Array) -> Figure:
    """Prediction against truth, with residuals below, for each label (FS24, fig. 1)."""
    from matplotlib.ticker import LogFormatter

    rows, columns = _grid(len(names))
    figure = new_figure(3.9 * columns, 4.3 * rows)
    cells = figure.subfigures(rows, columns, squeeze=False).ravel()
    for cell, name, x, y in zip(cells, names, truth.T, predicted.T, strict=False):
        x, y = _known(x, y)
        upper, lower = cell.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
        _count(upper, label_of(name).symbol, x)
        upper.set_ylabel(axis_title(name, "predicted "))
        lower.set_xlabel(axis_title(name, "known "))
        lower.set_ylabel("pred. $-$ known")
        if len(x):
            low, high = limits_of(np.concatenate([x, y]))
            _density(upper, x, y, (low, high), (low, high), 70)
            upper.plot([low, high], [low, high], color=LINE, linewidth=1.0)
            _residuals(lower, x, y - x, (low, high), 24, 99.5, (70, 22))
            upper.set(xlim=(low, high), ylim=(low, high))
            bar = cell.colorbar(
                upper.collections[0], ax=upper, label="stars per cell", pad=0.02, aspect=30
            )
            bar.formatter = bar.minorformatter = LogFormatter()  # 4, not 4 x 10^0
    return figure


@styled
def z_histograms(names: Sequence[str], z: Array, dof: Array) -> Figure:
    """Residuals over errors with the unit Gaussian (FS24, fig. 7) and the stated distribution.

    ``dof`` [N, K] are degrees of freedom of the predictive Student-t. Upper panels are linear,
    lower ones logarithmic, which shows the tails.
    """
    figure = new_figure(max(2.7 * len(names), 5.4), 4.6)
    axes = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    edges = np.linspace(-6, 6, 61)
    fine = np.linspace(-6, 6, 241)
    for k, name in enumerate(names):
        known = np.isfinite(z[:, k])
        values = z[known, k]
        gaussian = predictive.density(fine, np.full(1, predictive.GAUSSIAN_DOF), np.ones(1))
        stated = mean_density(fine, dof[known, k])
        for ax in axes[:, k]:
            if len(values):
                ax.hist(
                    values, edges, weights=np.full(len(values), 1 / (len(values) * 0.2)),
                    color="#c8ccd2", label="stars",
                )  # fmt: skip
            ax.plot(fine, gaussian, color=LINE, linewidth=1.4, label="unit Gaussian")
            ax.plot(fine, stated, color=ACCENT, linewidth=1.2, linestyle="--", label="as stated")
        beyond = int((np.abs(values) > 6).sum())
        axes[0, k].set_title(
            f"{label_of(name).symbol}\nN = {len(values):,}, {beyond} beyond $\\pm$6", loc="left"
        )
        axes[1, k].set(yscale="log", ylim=(1e-4, 0.9), xlabel="$z$ = (known $-$ pred.) / error")
    axes[0, 0].set_ylabel("density")
    axes[1, 0].set_ylabel("density (log)")
    axes[0, 0].legend(loc="upper left", handlelength=1.2, fontsize=7)
    return figure


def mean_density(z: Array, dof: Array) -> Array:
    """Density of z = residual / half-width, averaged over the stars' Student-t distributions."""
    if not len(dof):
        return np.full(z.shape, np.nan)
    from scipy.special import stdtrit

    # averaged over 99 quantiles of 1 / dof instead of all stars
    typical = 1 / np.quantile(1 / dof, np.linspace(0.005, 0.995, 99))
    scale = 1 / stdtrit(typical, (1 + predictive.LEVEL_68) / 2)
    mean: Array = predictive.density(z[:, None], typical[None], scale[None]).mean(axis=1)
    return mean


WIDE = 15.0
"""Ratio of largest to smallest median error from which the axis is logarithmic."""


@styled
def errors_along(
    names: Sequence[str],
    titles: Sequence[str],
    x: Array,
    total: Array,
    parts: Mapping[str, Array],
    behind: Array,
    behind_title: str,
) -> Figure:
    """The stated error and its parts: median lines against G (FS24, fig. 6) or labels (fig. 5).

    ``total`` and its ``parts`` (``model``, ``input``, ``excess``) are half-widths [N, K] of the
    68.3 % interval, against ``x`` [N, K], named by ``titles``. Behind, a histogram of ``behind``
    [M, K].
    """
    rows, columns = _grid(len(names))
    figure = new_figure(4.3 * columns, 2.9 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for k, (ax, name, title) in enumerate(zip(panels, names, titles, strict=False)):
        known = np.isfinite(x[:, k]) & np.isfinite(total[:, k])
        position, errors = x[known, k], total[known, k]
        ax.set(xlabel=title, ylabel=axis_title(name, "error of "))
        _count(ax, label_of(name).symbol, position)
        if not len(position):
            continue
        centres, (p16, p50, p84) = running(position, errors, 22, (16, 50, 84))
        ax.fill_between(centres, p16, p84, color=TOTAL, alpha=0.13, linewidth=0)
        ax.plot(centres, p50, color=TOTAL, linewidth=1.8, label="total (band: 16-84 %)")
        for (part, colour), dashes in zip(PART_COLOURS.items(), ("--", "-.", ":"), strict=True):
            _, (line,) = running(position, parts[part][known, k], 22, (50,))
            ax.plot(centres, line, color=colour, linewidth=1.6, linestyle=dashes, label=part)
        top = np.nanmax(p84) if np.isfinite(p84).any() else np.max(errors)
        if not np.isfinite(p50).any():  # too few stars for a line: the stars themselves
            ax.plot(position, errors, ".", color=TOTAL, markersize=4)
        ax.set(ylim=(0, 1.15 * float(top)), xlim=limits_of(position))
        median = p50[np.isfinite(p50) & (p50 > 0)]
        if len(median) and median.max() > WIDE * median.min():
            ax.set(yscale="log", ylim=(median.min() / 10, 1.15 * float(top)))
        counts, edges = np.histogram(behind[:, k], 45, limits_of(position))
        twin = ax.twinx()
        twin.stairs(counts, edges, fill=True, color=BACKGROUND)
        twin.set_ylim(0, 1.6 * max(float(counts.max()), 1.0))
        twin.set_yticks([])
        twin.spines["right"].set_visible(False)
        ax.set_zorder(twin.get_zorder() + 1)
        ax.patch.set_visible(False)
    for ax in panels[len(names) :]:
        ax.set_axis_off()
    _legend_below(figure, panels[0], behind_title)
    return figure


@styled
def kiel(panels: Mapping[str, tuple[Array, ...]]) -> Figure:
    """Kiel diagrams side by side: ``{title: (teff [K], logg [dex], fe_h [N])}``, hot at left."""
    figure = new_figure(4.4 * len(panels) + 0.6, 4.4)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    stars = [np.stack(columns)[:, np.isfinite(columns).all(axis=0)] for columns in panels.values()]
    teff, logg, fe_h = np.concatenate(stars, axis=1)
    low, high = limits_of(fe_h, 1.0) if len(fe_h) else (0.0, 1.0)
    for ax, title, shown in zip(axes, panels, stars, strict=True):
        x, y, colour = shown[:, np.argsort(-shown[2])]  # the few metal-poor stars last, on top
        points = ax.scatter(
            x, y, c=colour, s=5, cmap="viridis", vmin=low, vmax=high, linewidths=0, rasterized=True
        )
        _count(ax, title, x)
        ax.set_xlabel(axis_title("teff"))
    axes[0].set_ylabel(axis_title("logg"))
    if len(teff):
        axes[0].set(xlim=limits_of(teff, 0.05)[::-1], ylim=limits_of(logg, 0.05)[::-1])
    figure.colorbar(points, ax=list(axes), label=axis_title("fe_h"), pad=0.02)
    return figure


@styled
def calibration_curve(names: Sequence[str], pit: Array) -> Figure:
    """Observed minus stated coverage at every level, and the PIT histograms.

    The grey bands contain 95 % of correct predictions (binomial, for the smallest N).
    """
    figure = new_figure(9.0, 4.0)
    left, right = figure.subplots(1, 2)
    columns = [column[np.isfinite(column)] for column in pit.T]
    titles = [
        f"{label_of(name).symbol}, N = {len(values):,}"
        for name, values in zip(names, columns, strict=True)
    ]
    _coverage(left, titles, [np.abs(2 * values - 1) for values in columns])
    bins = np.linspace(0, 1, 21)
    half_width = 1.96 * np.sqrt(19 / max(min(map(len, columns), default=1), 1))
    right.fill_between([0, 1], 1 - half_width, 1 + half_width, color="0.9", linewidth=0)
    right.axhline(1, color="0.4", linewidth=0.8)
    for k, values in enumerate(columns):
        if len(values):
            density = np.histogram(values, bins)[0] * 20 / len(values)
            right.stairs(density, bins, color=CYCLE[k % 6], linewidth=1.3, baseline=None)
    for level, text in ((predictive.LEVEL_68, "68.3 %"), (predictive.LEVEL_95, "95.4 %")):
        left.annotate(
            text, (level, 0.02), xycoords="axes fraction", fontsize=7, color="0.35", ha="center",
        )  # fmt: skip
    left.set(xlabel="stated level [%]", ylabel="observed $-$ stated coverage [points]")
    reach = max(3.2, 1.05 * float(np.abs(left.get_ylim()).max()))
    left.set(xlim=(0, 100), ylim=(-reach, reach), title="Coverage of central intervals")
    right.set(xlabel="PIT", ylabel="density", xlim=(0, 1), title="Probability integral transform")
    right.set_ylim(0, max(2.0, right.get_ylim()[1]))
    _legend_below(figure, left, columns=len(names))
    return figure


@styled
def joint_curve(content: Array) -> Figure:
    """Observed minus stated share of the stars inside the ellipsoids, at every level.

    ``content`` [N] is the probability inside the ellipsoid through a star's true labels. The band
    is that of :func:`calibration_curve`.
    """
    figure = new_figure(5.2, 3.6)
    ax: Axes = figure.subplots()
    _coverage(ax, [""], [content])
    ax.set(xlabel="stated level [%]", ylabel="observed $-$ stated share [points]", xlim=(0, 100))
    ax.set_title(f"N = {len(content):,}", loc="left")
    return figure


def _coverage(ax: Axes, titles: Sequence[str], contents: Sequence[Array]) -> None:
    """Observed minus stated share of the stars with ``content`` [N] below each level."""
    levels = np.linspace(0.01, 0.99, 99)
    fewest = max(min(map(len, contents), default=1), 1)
    band = 1.96 * np.sqrt(levels * (1 - levels) / fewest)
    ax.fill_between(100 * levels, -100 * band, 100 * band, color="0.9", linewidth=0)
    ax.axhline(0, color="0.4", linewidth=0.8)
    for k, (title, content) in enumerate(zip(titles, contents, strict=True)):
        if len(content):
            inside = np.searchsorted(np.sort(content), levels, side="right") / len(content)
            ax.plot(100 * levels, 100 * (inside - levels), color=CYCLE[k % 6], label=title)
    for level in (predictive.LEVEL_68, predictive.LEVEL_95):
        ax.axvline(100 * level, color="0.8", linewidth=0.8, zorder=0)


Sizes = tuple[Array, Array, Sequence[Sequence[str]], int]
"""Sizes in n bins: edges [n, 2]; value, standard error, low and high at two levels [n, 2, 4]; the
class of each as in a badge [n, 2]; total number of stars."""
WORD_COLOURS = {"": "0.45", "partly": "#E69F00", "fail": LINE}
WORST = 60.0
"""Largest size (per cent) that is drawn in the panels of bins."""


@styled
def sizes(titles: Sequence[str], numbers: Array, stars: int, tolerance: float) -> Figure:
    """Stated over needed half-width, less one: a row for each of K labels.

    ``numbers`` [K, 2, 4] are value, standard error, low and high at 68.3 and 95.4 %.
    """
    figure = new_figure(6.4, 0.6 * len(titles) + 1.1)
    ax: Axes = figure.subplots()
    rows = np.arange(len(titles))[::-1]
    ax.axvspan(-100 * tolerance, 100 * tolerance, color="0.9", linewidth=0)
    ax.axvline(0, color="0.4", linewidth=0.8)
    for k, (level, marker) in enumerate((("68.3 %", "o"), ("95.4 %", "s"))):
        value, error, low, high = _within(numbers[:, k])
        y = rows + 0.14 - 0.28 * k
        ax.hlines(y, low, high, color=CYCLE[k], linewidth=0.9)
        thick = np.clip([value - error, value + error], low, high)
        ax.hlines(y, *thick, color=CYCLE[k], linewidth=3)
        ax.plot(value, y, marker, color=CYCLE[k], markersize=5, label=f"{level} intervals")
    ax.set_yticks(rows, [label_of(title).symbol for title in titles])
    ax.set(xlabel="stated errors are too small ($-$) or too large ($+$) by [%]")
    ax.set_title(f"N = {stars:,}", loc="left")
    reach = max(20.0, 1.05 * float(np.abs(ax.get_xlim()).max()))
    ax.set(xlim=(-reach, reach), ylim=(-0.6, len(titles) - 0.4))
    _legend_below(figure, ax)
    return figure


@styled
def sizes_by_bins(bins: Mapping[str, Mapping[str, Sizes]], tolerance: float) -> Figure:
    """The same in bins: a row of panels for each axis, a column for each label."""
    names = list(dict.fromkeys(name for row in bins.values() for name in row))
    figure = new_figure(2.7 * len(names) + 0.4, 2.2 * len(bins) + 0.5)
    panels = figure.subplots(len(bins), len(names), squeeze=False, sharey=True)
    for row, (axis, by_label) in zip(panels, bins.items(), strict=True):
        for ax, name in zip(row, names, strict=True):
            ax.axhspan(-100 * tolerance, 100 * tolerance, color="0.9", linewidth=0)
            ax.axhline(0, color="0.4", linewidth=0.8)
            ax.set_xlabel(axis_title(axis))
            if name not in by_label:
                continue
            edges, numbers, words, stars = by_label[name]
            ax.set_title(f"N = {stars:,} in {len(edges)} bins", loc="right", fontsize=7)
            # at equal distances, since the widths of bins differ
            middle = np.arange(len(edges)) + 0.5
            limits = np.append(edges[:, 0], edges[-1, 1])
            ticks = np.unique(np.linspace(0, len(edges), min(len(edges), 5) + 1).astype(int))
            ax.set_xticks(ticks, [f"{limit:.5g}" for limit in limits[ticks]])
            ax.set_xlim(0, len(edges))
            for k, (shift, marker) in enumerate(((-0.15, "o"), (0.15, "s"))):
                value, error, low, high = _within(numbers[:, k])
                colours = [WORD_COLOURS[word[k]] for word in words]
                ax.vlines(middle + shift, low, high, color=colours, linewidth=0.7)
                ax.vlines(middle + shift, value - error, value + error, color=colours, linewidth=2)
                ax.scatter(
                    middle + shift, value, s=14, c="white" if k else colours, marker=marker,
                    edgecolors=colours, zorder=3,
                )  # fmt: skip
            ax.set_ylim(-WORST, WORST)
    for ax, name in zip(panels[0], names, strict=True):
        ax.set_title(f"errors of {label_of(name).symbol}\n", loc="left")
    for ax in panels[:, 0]:
        ax.set_ylabel("too small, too large [%]")
    return figure


def _within(numbers: Array) -> tuple[Array, Array, Array, Array]:
    """Columns of ``numbers`` [n, 4] in per cent, clipped far outside all panels."""
    value, error, low, high = np.clip(np.nan_to_num(100 * numbers.T, posinf=999), -100, 999)
    return value, error, low, high


Pair = tuple[str, str, Array, Array]
"""What x is and what y is, in words, and their values [N, K]."""


@styled
def side_by_side(names: Sequence[str], columns: Sequence[Pair]) -> Figure:
    """One row per label, one column per comparison (FS24, fig. 2): y against x, and one to one.

    The panels of a row share their limits, which shows in which comparison the scatter is smaller.
    """
    figure = new_figure(4.2 * len(columns), 3.4 * len(names))
    axes = figure.subplots(len(names), len(columns), squeeze=False)
    for k, name in enumerate(names):
        stars = [_known(x[:, k], y[:, k]) for *_, x, y in columns]
        values = np.concatenate(stars, axis=None)
        low, high = limits_of(values) if len(values) else (0.0, 1.0)
        for ax, (of_x, of_y, *_), (x, y) in zip(axes[k], columns, stars, strict=True):
            _density(ax, x, y, (low, high), (low, high))
            ax.plot([low, high], [low, high], color=LINE, linewidth=1.0)
            ax.set(
                xlim=(low, high), ylim=(low, high),
                xlabel=axis_title(name, f"{of_x} "), ylabel=axis_title(name, f"{of_y} "),
            )  # fmt: skip
            _count(ax, label_of(name).symbol, x)
    return figure


@styled
def differences_along(names: Sequence[str], axes: Mapping[str, Array], difference: Array) -> Figure:
    """Differences [N, K] against each of ``axes`` ({title: [N]}), with median and 16-84 %."""
    figure = new_figure(4.2 * len(axes), 2.7 * len(names))
    panels = figure.subplots(len(names), len(axes), squeeze=False, sharey="row")
    for row, name, column in zip(panels, names, difference.T, strict=True):
        for ax, (title, values) in zip(row, axes.items(), strict=True):
            x, y = _known(values, column)
            ax.set(xlabel=title)
            _count(ax, label_of(name).symbol, x)
            if len(x):
                _residuals(ax, x, y, limits_of(x), 14, 99)
        row[0].set_ylabel(axis_title(name, "difference in "))
    return figure


@styled
def planes(pairs: Sequence[tuple[str, str]], columns: Mapping[str, Mapping[str, Array]]) -> Figure:
    """Abundance planes: one row per pair of labels (x, y), one column per set of stars (FS24).

    ``columns``: {title: {label: [N]}}; N may differ. A row's panels share limits.
    """
    figure = new_figure(3.7 * len(columns), 3.1 * len(pairs))
    panels = figure.subplots(len(pairs), len(columns), squeeze=False, sharex="row", sharey="row")
    for row, (name_x, name_y) in zip(panels, pairs, strict=True):
        stars = [_known(labels[name_x], labels[name_y]) for labels in columns.values()]
        x, y = np.concatenate(stars, axis=1)
        if not len(x):
            continue
        window = limits_of(x, 0.3), limits_of(y, 0.3)
        for ax, title, shown in zip(row, columns, stars, strict=True):
            _density(ax, *shown, *window)
            _count(ax, title, shown[0])
            ax.set(xlim=window[0], ylim=window[1], xlabel=axis_title(name_x))
        row[0].set_ylabel(axis_title(name_y))
        if name_x == "logg":
            row[0].invert_xaxis()
    return figure


@styled
def slopes(along: str, by_label: Mapping[str, Sequence[Bin]]) -> Figure:
    """Slope of prediction on truth in bins of S/N, with bootstrap errors."""
    figure = new_figure(6.4, 3.6)
    ax: Axes = figure.subplots()
    ax.axhline(1, color="0.4", linewidth=0.8)
    for k, (name, bins) in enumerate(by_label.items()):
        # at the geometric middle, shifted a little, so that error bars do not hide each other
        shift = 1 + 0.012 * (k - (len(by_label) - 1) / 2)
        x = [shift * np.sqrt(b.low * b.high) for b in bins]
        y, error = [b.scores["slope"] for b in bins], [b.scores.error["slope"] for b in bins]
        _line(ax, k, name, x, y, error)
    ax.set(xscale="log", xlabel=along, ylabel="slope of prediction on known label")
    _legend_below(figure, ax, columns=6)
    return figure


def _known(x: Array, y: Array) -> tuple[Array, Array]:
    """The values of ``x`` and ``y`` where both are finite."""
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def _count(ax: Axes, title: str, stars: Array) -> None:
    """Set a title with the number of stars."""
    ax.set_title(f"{title}, N = {len(stars):,}", loc="left")


def _line(
    ax: Axes, k: int, name: str, x: Sequence[float], y: Sequence[float],
    error: Sequence[float] | None = None,
) -> None:  # fmt: skip
    """Draw the points of label number ``k`` and a line between them, in its colour and marker."""
    ax.errorbar(
        x, y, error, color=CYCLE[k % 6], marker=MARKERS[k % 6], markersize=4, linewidth=1.0,
        capsize=2, label=label_of(name).symbol,
    )  # fmt: skip


def _grid(panels: int) -> tuple[int, int]:
    """Numbers of rows and columns for so many panels."""
    columns = min(panels, 3 if panels in (3, 5, 6) else 2)
    return -(-panels // columns), columns


def _density(
    ax: Axes,
    x: Array,
    y: Array,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    cells: int | tuple[int, int] = 55,
) -> None:
    """Density of stars on a logarithmic scale."""
    if len(x):
        ax.hexbin(
            x, y, gridsize=cells, bins="log", mincnt=1, cmap=DENSITY, extent=(*x_range, *y_range),
            linewidths=0,
        )  # fmt: skip


def _residuals(
    ax: Axes,
    x: Array,
    y: Array,
    x_range: tuple[float, float],
    bins: int,
    percentile: float,
    cells: int | tuple[int, int] = 55,
) -> None:
    """Density of residuals ``y`` about zero, with their running median and 16-84 % range."""
    half = max(float(np.percentile(np.abs(y), percentile)), 1e-9)
    _density(ax, x, y, x_range, (-half, half), cells)
    ax.axhline(0, color=LINE, linewidth=1.0)
    centres, (p16, p50, p84) = running(x, y, bins, (16, 50, 84))
    ax.plot(centres, p50, color=TOTAL, linewidth=1.4)
    for edge in (p16, p84):
        ax.plot(centres, edge, color=TOTAL, linewidth=1.0, linestyle="--")
    ax.set_ylim(-half, half)


def running(
    x: Array, y: Array, bins: int, percentiles: Sequence[float]
) -> tuple[Array, list[Array]]:
    """Percentiles of ``y`` in equal bins of ``x``: centres [B] and one array [B] per percentile.

    NaN in bins of fewer than 20 stars.
    """
    edges = np.linspace(*limits_of(x), bins + 1)
    which = np.digitize(x, edges) - 1
    values = np.full((len(percentiles), bins), np.nan)
    for b in range(bins):
        inside = y[which == b]
        if len(inside) >= FEWEST:
            values[:, b] = np.percentile(inside, percentiles)
    return 0.5 * (edges[1:] + edges[:-1]), list(values)


def limits_of(x: Array, tail: float = 0.1) -> tuple[float, float]:
    """Percentiles ``tail`` and 100 - ``tail`` with a small margin; never equal."""
    low, high = (float(v) for v in np.percentile(x, (tail, 100 - tail)))
    pad = 0.02 * (high - low) or 0.5
    return low - pad, high + pad


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _legend_below(
    figure: Figure, ax: Axes, background: str | None = None, columns: int = 5
) -> None:
    from matplotlib.patches import Patch

    handles, titles = ax.get_legend_handles_labels()
    if background:
        handles.append(Patch(color=BACKGROUND))
        titles.append(background)
    fitting = int(figure.get_figwidth() // 1.3)  # in a narrow figure the legend has several rows
    columns = max(min(len(handles), columns, fitting), 1)
    figure.legend(handles, titles, loc="outside lower center", ncols=columns)
