"""A verdict on stated errors: how many per cent they are off, and whether that is much or chance.

The size of the error in the stated errors is stated / needed - 1, where the needed half-widths are
the stated ones times the one factor with which the intervals hold their share of the stars, the
known labels' own errors included. It is measured for every label at both levels, 68.3 and 95.4 %,
over all stars and in bins, and for the ellipsoids of all labels together. The factor is a quantile
over stars, so that an interval for it follows from the binomial distribution of the coverage
without any assumption about the residuals. All intervals hold at once, but for a chance of
:data:`FALSE_ALARMS` (Bonferroni), and only what they exclude is held against the errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xplabels.calibration.joint import Joint
from xplabels.core.arrays import Array
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.scores import LabelSample
from xplabels.validation import PREDICTED, Validation, bin_width

TOLERANCE = 0.10
"""Errors that are off by less are right."""
USEFUL = 2 * TOLERANCE
"""Where the interval of a size reaches further to either side there are too few stars to tell."""
FALSE_ALARMS = 0.01
"""Chance that errors which are exactly right are called anything else, over all labels and bins."""
MANY = 0.10
"""Errors that are wrong for so large a share of the stars are wrong; for fewer, slightly off."""
BIN_STARS = 200
"""Neighbouring bins are merged until they have so many stars: there, errors that are off by a third
stand out, and a bin of fewer would only lengthen the list of bins in which nothing can be seen."""

RIGHT, SLIGHTLY, WRONG = "right", "slightly off", "wrong"
FEW = "too few stars to tell"
TOGETHER = "all labels together"
LEVELS = (LEVEL_68, LEVEL_95)
MAGNITUDES = {"g_mag": "G", "bp_rp": "BP-RP"}
"""Axes that are not labels."""
RATIOS = ("c_fe", "n_fe", "alpha_m")
"""Labels along which errors are shown in bins, but not judged."""


class Size(NamedTuple):
    """stated / needed - 1 at one level: -0.2 where the errors are 20 % too small.

    ``error`` is its standard error; the simultaneous interval goes from ``low`` to ``high``. Both
    are infinite where the stars are too few or the known labels' errors hide the stated ones.
    """

    value: float
    error: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """Right, slightly off, wrong or too few stars to tell.

        Wrong: by more than the tolerance, whichever value of the interval is true. Slightly off: it
        is not zero, but may be within the tolerance. Right: it may be zero, or is within the
        tolerance for certain.
        """
        if self.low >= -TOLERANCE and self.high <= TOLERANCE:
            return RIGHT
        if self.low <= 0 <= self.high:
            return RIGHT if self.low >= -USEFUL and self.high <= USEFUL else FEW
        return WRONG if self.low > TOLERANCE or self.high < -TOLERANCE else SLIGHTLY

    @property
    def significance(self) -> float:
        """Distance from zero in standard errors."""
        return abs(self.value) / self.error if np.isfinite(self.error) and self.error else 0.0

    def __str__(self) -> str:
        """``3.1 +- 1.6 % too small``."""
        side = "too small" if self.value < 0 else "too large"
        if not np.isfinite(self.value):
            return "the known labels' errors alone are as large as the differences"
        size, error = 100 * abs(self.value), 100 * self.error
        if not np.isfinite(error):
            return f"{size:.0f} % {side} (few stars)"
        digits = int(error < 2)
        return f"{size:.{digits}f} +- {error:.{digits}f} % {side}"

    def to_dict(self) -> dict[str, float | str]:
        """As in ``metrics.json``."""
        return {**self._asdict(), "word": self.word}


@dataclass(frozen=True)
class Statement:
    """What is said of one label, or of all together, over all stars or in one bin.

    ``n`` rows are of ``different`` stars; ``sizes`` are those at 68.3 and 95.4 %.
    """

    label: str
    axis: str
    low: float
    high: float
    n: int
    different: int
    sizes: tuple[Size, Size]

    @property
    def word(self) -> str:
        """The worse of the two levels' words; too few stars to tell if that holds of the inner."""
        words = [size.word for size in self.sizes]
        return next((one for one in (WRONG, SLIGHTLY) if one in words), words[0])

    @property
    def off(self) -> bool:
        """Whether it is slightly off or wrong."""
        return self.word in (SLIGHTLY, WRONG)

    @property
    def size(self) -> Size:
        """The one that stands out more of those with the statement's word, else the inner one."""
        if not self.off:
            return self.sizes[0]
        telling = [size for size in self.sizes if size.word == self.word]
        return max(telling, key=lambda size: size.significance)

    def __str__(self) -> str:
        """``3.1 +- 1.6 % too small``, or ``95.4 % intervals ...`` where only these stand out."""
        outer = self.size is self.sizes[1]
        return ("95.4 % intervals " if outer else "") + str(self.size)

    @property
    def counted(self) -> str:
        """Number of stars, and of rows if there are more."""
        return f"{self.n:,}" + (f" rows of {self.different:,}" if self.n > self.different else "")

    @property
    def place(self) -> str:
        """``predicted logg 1.5 to 2``."""
        base = self.axis.removesuffix(PREDICTED)
        axis = MAGNITUDES.get(base, base)
        known = "predicted " if base != self.axis else "" if base in MAGNITUDES else "known "
        return f"{known}{axis} {self.low:.5g} to {self.high:.5g}"

    @property
    def at_place(self) -> str:
        """The same after " at "; empty over all stars."""
        return f" at {self.place}" if self.axis else ""

    def to_dict(self) -> dict[str, object]:
        """As in ``metrics.json``."""
        where = {"low": self.low, "high": self.high} if self.axis else {}
        inner, outer = self.sizes
        return {
            **where, "n": self.n, "different": self.different, "word": self.word,
            "size_68": inner.to_dict(), "size_95": outer.to_dict(),
        }  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """All statements and what they amount to."""

    # of each label, and of all together where correlations are predicted, over all stars
    overall: Mapping[str, Statement]
    bins: Mapping[str, Mapping[str, tuple[Statement, ...]]]  # ``bins[axis][label]``
    # the axes whose bins take part in the verdict; the others are only shown
    judged: tuple[str, ...]
    alpha: float  # chance that the interval of one size misses it

    @property
    def judged_sizes(self) -> int:
        """How many sizes share the chance of a false alarm."""
        return round(FALSE_ALARMS / self.alpha)

    def bins_of(self, label: str) -> list[Statement]:
        """The judged bins of one label."""
        return [one for axis in self.judged for one in self.bins[axis].get(label, ())]

    def word_of(self, label: str) -> str:
        """The word for one label: wrong if that is shown for at least a tenth of its stars."""
        whole, bins = self.overall[label], self.bins_of(label)
        wrong = [
            sum(b.different for b in bins if b.axis == axis and b.word == WRONG)
            for axis in self.judged
        ]
        if whole.word == WRONG or any(count >= MANY * whole.different for count in wrong):
            return WRONG
        return SLIGHTLY if any(one.off for one in (whole, *bins)) else whole.word

    @cached_property
    def words(self) -> dict[str, str]:
        """The word for each label, and for all together."""
        return {label: self.word_of(label) for label in self.overall}

    @property
    def word(self) -> str:
        """The worst of these; too few stars to tell only if that holds of every label."""
        found = set(self.words.values())
        return next((one for one in (WRONG, SLIGHTLY, RIGHT) if one in found), FEW)

    @property
    def headline(self) -> str:
        """``slightly off (teff, logg)``."""
        if self.word in (RIGHT, FEW):
            return self.word
        concerned = [label for label, word in self.words.items() if word == self.word]
        return f"{self.word} ({', '.join(concerned)})"

    @property
    def sentence(self) -> str:
        """The verdict in a sentence, with the clearest statement on each label that is off."""
        if self.word == FEW:
            # the known labels' own errors may explain the differences, however many stars there are
            hidden = any(
                one.sizes[0].low > -1 and np.isinf(one.sizes[0].high)
                for one in self.overall.values()
            )
            why = "The known labels are too uncertain" if hidden else "There are too few stars"
            return f"{why} to tell whether the error bars are right."
        if self.word == RIGHT:
            return (
                "The error bars are right: for every label they are off by less than "
                f"{100 * TOLERANCE:g} %, or by no more than chance."
            )
        off = []
        for label, word in self.words.items():
            if word == self.word:
                clearest = _clearest_first([self.overall[label], *self.bins_of(label)])[0]
                off.append(f"{label} ({clearest}{clearest.at_place})")
        others = [label for label, word in self.words.items() if word == RIGHT]
        rest = f", and right for {', '.join(others)}" if others else ""
        return f"The error bars are {self.word} for {', '.join(off)}{rest}."

    @property
    def lines(self) -> list[str]:
        """A sentence for each label: both sizes, the word, and the bin that stands out most."""
        return [self._line(label) for label in self.overall]

    def _line(self, label: str) -> str:
        inner, outer = self.overall[label].sizes
        text = f"{label}: {inner}, 95.4 % intervals {outer}: {self.words[label]}"
        bins = self.bins_of(label)
        if not (off := _clearest_first(bins)):
            return text
        many = "most clearly " if len(off) > 1 else ""
        return (
            f"{text}; off in {len(off)} of {len(bins)} bins, {many}at {off[0].place} "
            f"(N = {off[0].counted}): {off[0]}"
        )

    @property
    def off(self) -> list[str]:
        """Every statement that something is off, a line each."""
        bins = (one for label in self.overall for one in self.bins_of(label))
        return [
            f"{one.label}{one.at_place}: {one}, N = {one.counted}: {one.word}"
            for one in (*self.overall.values(), *bins)
            if one.off
        ]

    def to_dict(self) -> dict[str, object]:
        """As in ``metrics.json``."""
        return {
            "word": self.word,
            "headline": self.headline,
            "sentence": self.sentence,
            "lines": self.lines,
            "tolerance": TOLERANCE,
            "false_alarm_rate": FALSE_ALARMS,
            "sizes_judged": self.judged_sizes,
            "labels": {
                label: one.to_dict() | {"verdict": self.words[label]}
                for label, one in self.overall.items()
            },
            "axes_judged": list(self.judged),
            "bins": {
                axis: {label: [one.to_dict() for one in row] for label, row in labels.items()}
                for axis, labels in self.bins.items()
            },
        }


def _clearest_first(statements: Iterable[Statement]) -> list[Statement]:
    """Those that are off, wrong ones first, by how much they stand out."""
    off = (one for one in statements if one.off)
    return sorted(off, key=lambda one: (one.word != WRONG, -one.size.significance))


def verdict_of(validation: Validation) -> Verdict:
    """The verdict on a validation, :func:`judged` along G and the labels as predicted.

    An error is right if it holds given the prediction. Then it holds along every predicted label
    and along whatever was measured, but not along a known one, at whose ends predictions that
    shrink to the mean are off by more than stated. For the estimate without shrinkage it is the
    other way round. Bins along the other axes are shown, not judged.
    """
    unshrunk = "ESTIMATE" in validation.prediction.meta
    ending = "" if unshrunk else PREDICTED
    wanted = ["g_mag", *(name + ending for name in validation.names if name not in RATIOS)]
    samples: dict[str, LabelSample | Joint] = {
        name: sample for name, sample in validation.samples.items() if len(sample)
    }
    if validation.joint is not None:
        samples[TOGETHER] = validation.joint
    return judged(
        samples,
        validation.axes,
        tuple(axis for axis in wanted if axis in validation.axes),
        validation.star,
    )


def judged(
    samples: Mapping[str, LabelSample | Joint],
    axes: Mapping[str, Array],
    along: Sequence[str],
    star: NDArray[np.int64] | None = None,
) -> Verdict:
    """Measure and judge every label over all stars and in bins.

    ``samples`` are by label, and for :data:`TOGETHER`, which is not binned. ``axes`` are values [N]
    along which bins are made, of :func:`~xplabels.validation.bin_width`, or wider where there would
    be fewer than 200 stars; those ``along`` which are judged. ``star`` [N] identifies the star of
    each row; rows of the same star count once, since their residuals may be the same.
    """
    every = np.unique(np.concatenate([sample.rows for sample in samples.values()]))
    parts: list[tuple[str, str, float, float, NDArray[np.bool_]]] = [
        (label, "", -np.inf, np.inf, np.ones(len(sample.rows), bool))
        for label, sample in samples.items()
    ]
    for axis, values in axes.items():
        edges = merged_edges(
            values[every], bin_width(axis, values), None if star is None else star[every]
        )
        for label, sample in samples.items():
            here = values[sample.rows]
            for low, high in pairwise(edges):
                inside = (here >= low) & (here < high)
                if label != TOGETHER and inside.any():
                    parts.append((label, axis, low, high, inside))
    alpha = FALSE_ALARMS / (len(LEVELS) * sum(axis in ("", *along) for _, axis, *_ in parts))
    counts = [
        int(inside.sum()) if star is None else len(np.unique(star[samples[label].rows[inside]]))
        for label, *_, inside in parts
    ]
    sizes = [
        _sizes(
            [samples[label].needed[k][inside] for label, *_, inside in parts], counts, level, alpha
        )
        for k, level in enumerate(LEVELS)
    ]
    found = [
        Statement(label, axis, low, high, int(inside.sum()), count, both)
        for (label, axis, low, high, inside), count, both in zip(
            parts, counts, zip(*sizes, strict=True), strict=True
        )
    ]
    return Verdict(
        {one.label: one for one in found if not one.axis},
        {
            axis: {
                label: tuple(one for one in found if (one.axis, one.label) == (axis, label))
                for label in samples
                if label != TOGETHER
            }
            for axis in axes
        },
        tuple(along),
        alpha,
    )


def merged_edges(values: Array, width: float, star: NDArray[np.int64] | None = None) -> list[float]:
    """Edges at multiples of ``width`` between which lie at least 200 different stars each.

    One bin if there are fewer in all. Values that are not finite are left out.

    Examples
    --------
    >>> merged_edges(np.repeat([0.5, 1.5, 2.5, 3.5], [150, 100, 300, 40]), 1.0)
    [0.0, 2.0, 4.0]
    """
    known = np.isfinite(values)
    number = np.floor(values[known] / width).astype(np.int64)
    if not len(number):
        return []
    # the quotient of a value just below an edge may have been rounded up
    number -= values[known] < number * width
    stars = np.arange(len(number)) if star is None else star[known]
    order = np.argsort(number, kind="stable")
    bins, starts = np.unique(number[order], return_index=True)
    edges, seen = [int(bins[0])], set[int]()
    for one, inside in zip(bins.tolist(), np.split(stars[order], starts[1:]), strict=True):
        seen.update(inside.tolist())
        if len(seen) >= BIN_STARS:
            edges.append(one + 1)
            seen = set()
    last = int(bins[-1]) + 1
    if len(edges) == 1:
        edges.append(last)
    edges[-1] = last
    return [edge * width for edge in edges]


def _sizes(
    groups: Sequence[Array], counts: Sequence[int], level: float, alpha: float
) -> Iterator[Size]:
    """The size in each group of ``needed`` factors, which are of so many different stars.

    The number of n stars whose factor is below the true quantile is binomial; so the quantile lies
    between the order statistics at that distribution's own quantiles (David & Nagaraja 2003, Order
    Statistics, 7.1), with at least the probability stated.
    """
    from scipy.stats import binom

    n = np.array(counts)
    ranks = [
        (binom.ppf(chance / 2, n, level), binom.isf(chance / 2, n, level) + 1)
        for chance in (1 - LEVEL_68, alpha)
    ]
    for i, needed in enumerate(groups):
        rows, different = len(needed), counts[i]
        ranked = np.concatenate([[0.0], np.sort(needed), [np.inf]])
        (low, high), (lowest, highest) = (
            (
                _excess(ranked[int(np.ceil(upper[i] * rows / different))])
                if upper[i] <= different
                else -1.0,
                _excess(ranked[int(lower[i] * rows // different)]),
            )
            for lower, upper in ranks
        )
        value = _excess(ranked[int(np.ceil(level * rows))])
        error = (high - low) / 2 if np.isfinite(high) else float("inf")
        yield Size(value, error, lowest, highest)


def _excess(factor: float) -> float:
    """stated / needed - 1."""
    return float(1 / factor - 1) if factor > 0 else float("inf")
