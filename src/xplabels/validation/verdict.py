"""A verdict on stated errors: by how many per cent they are off, and whether that may be chance.

The size of the error in the stated errors is stated / needed - 1, where the needed half-widths are
the stated ones times the factor with which the intervals contain their share of the stars, the
known labels' own errors included. It is measured for every label at both levels, 68.3 and 95.4 %,
over all stars and in bins, and for the ellipsoids of all labels together. The factor is a quantile
over stars, so an interval for it follows from the binomial distribution of the coverage without any
assumption about the residuals. The probability that not all intervals contain the true size is at
most :data:`FALSE_ALARMS` (Bonferroni); errors are called off only where the intervals exclude that
they are right.
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
"""Size up to which errors count as right."""
USEFUL = 2 * TOLERANCE
"""If the interval of a size extends beyond this on either side, there are too few stars to tell."""
FALSE_ALARMS = 0.01
"""Probability that exactly right errors are called anything else, over all labels and bins."""
MANY = 0.10
"""Share of a label's stars in wrong bins from which on its errors are wrong, not slightly off."""
BIN_STARS = 200
"""Fewest stars in a bin; neighbours are merged until they have so many. With so many, errors that
are off by a third are significant; smaller bins would hardly show anything."""

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

    ``error`` is its standard error; the simultaneous interval is from ``low`` to ``high``. Both are
    infinite where there are too few stars or the known labels' errors dominate the stated ones.
    """

    value: float
    error: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """Right, slightly off, wrong or too few stars to tell.

        Wrong: the whole interval is beyond the tolerance. Slightly off: the interval excludes zero,
        but not the tolerance. Right: it contains zero, or is within the tolerance.
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
        """The entry in ``metrics.json``."""
        return {**self._asdict(), "word": self.word}


@dataclass(frozen=True)
class Statement:
    """The sizes of one label, or of all together, over all stars or in one bin.

    The ``n`` rows belong to ``different`` stars; ``sizes`` are those at 68.3 and 95.4 %. Over all
    stars ``axis`` is empty.
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
        """The word of a level that is wrong, else slightly off; if neither is, that of 68.3 %."""
        words = [size.word for size in self.sizes]
        return next((word for word in (WRONG, SLIGHTLY) if word in words), words[0])

    @property
    def off(self) -> bool:
        """Whether it is slightly off or wrong."""
        return self.word in (SLIGHTLY, WRONG)

    @property
    def size(self) -> Size:
        """The more significant size with the statement's word; if not off, the inner one."""
        if not self.off:
            return self.sizes[0]
        concerned = [size for size in self.sizes if size.word == self.word]
        return max(concerned, key=lambda size: size.significance)

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
        """The entry in ``metrics.json``."""
        where = {"low": self.low, "high": self.high} if self.axis else {}
        inner, outer = self.sizes
        return {
            **where, "n": self.n, "different": self.different, "word": self.word,
            "size_68": inner.to_dict(), "size_95": outer.to_dict(),
        }  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """All statements, and the verdict that follows from them."""

    # over all stars, for each label, and for all together where correlations are predicted
    overall: Mapping[str, Statement]
    bins: Mapping[str, Mapping[str, tuple[Statement, ...]]]  # ``bins[axis][label]``
    # the axes whose bins take part in the verdict; the others are only shown
    judged: tuple[str, ...]
    alpha: float  # probability that the interval of one size does not contain the true one

    @property
    def judged_sizes(self) -> int:
        """Number of sizes judged, which share the probability of a false alarm."""
        return round(FALSE_ALARMS / self.alpha)

    def bins_of(self, label: str) -> list[Statement]:
        """The judged bins of one label."""
        return [part for axis in self.judged for part in self.bins[axis].get(label, ())]

    def word_of(self, label: str) -> str:
        """The word for one label: wrong if that is so for at least a tenth of its stars."""
        whole, bins = self.overall[label], self.bins_of(label)
        wrong = [
            sum(b.different for b in bins if b.axis == axis and b.word == WRONG)
            for axis in self.judged
        ]
        if whole.word == WRONG or any(count >= MANY * whole.different for count in wrong):
            return WRONG
        return SLIGHTLY if any(part.off for part in (whole, *bins)) else whole.word

    @cached_property
    def words(self) -> dict[str, str]:
        """The word for each label, and for all together."""
        return {label: self.word_of(label) for label in self.overall}

    @property
    def word(self) -> str:
        """The worst of these; too few stars to tell only if that is so for every label."""
        words = set(self.words.values())
        return next((word for word in (WRONG, SLIGHTLY, RIGHT) if word in words), FEW)

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
                whole.sizes[0].low > -1 and np.isinf(whole.sizes[0].high)
                for whole in self.overall.values()
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
        """All statements that are off, one line each."""
        bins = (part for label in self.overall for part in self.bins_of(label))
        return [
            f"{part.label}{part.at_place}: {part}, N = {part.counted}: {part.word}"
            for part in (*self.overall.values(), *bins)
            if part.off
        ]

    def to_dict(self) -> dict[str, object]:
        """The entry in ``metrics.json``."""
        return {
            "word": self.word,
            "headline": self.headline,
            "sentence": self.sentence,
            "lines": self.lines,
            "tolerance": TOLERANCE,
            "false_alarm_rate": FALSE_ALARMS,
            "sizes_judged": self.judged_sizes,
            "labels": {
                label: whole.to_dict() | {"verdict": self.words[label]}
                for label, whole in self.overall.items()
            },
            "axes_judged": list(self.judged),
            "bins": {
                axis: {label: [part.to_dict() for part in parts] for label, parts in labels.items()}
                for axis, labels in self.bins.items()
            },
        }


def _clearest_first(statements: Iterable[Statement]) -> list[Statement]:
    """Those that are off, wrong ones first, the most significant first."""
    off = (statement for statement in statements if statement.off)
    return sorted(off, key=lambda s: (s.word != WRONG, -s.size.significance))


def verdict_of(validation: Validation) -> Verdict:
    """The verdict on a validation, :func:`judged` along G and the labels as predicted.

    A right error is right given the prediction. It is then right along every predicted label and
    along any measured quantity, but not along a known label, at whose ends predictions that shrink
    to the mean are off by more than stated. For the estimate without shrinkage it is the other way
    round. Bins along the other axes are shown, but not judged.
    """
    unshrunk = "ESTIMATE" in validation.prediction.meta
    ending = "" if unshrunk else PREDICTED
    along = ["g_mag", *(name + ending for name in validation.names if name not in RATIOS)]
    samples: dict[str, LabelSample | Joint] = {
        name: sample for name, sample in validation.samples.items() if len(sample)
    }
    if validation.joint is not None:
        samples[TOGETHER] = validation.joint
    return judged(
        samples,
        validation.axes,
        tuple(axis for axis in along if axis in validation.axes),
        validation.star,
    )


def judged(
    samples: Mapping[str, LabelSample | Joint],
    axes: Mapping[str, Array],
    along: Sequence[str],
    star: NDArray[np.int64] | None = None,
) -> Verdict:
    """Measure and judge every label over all stars and in bins.

    ``samples`` are given by label, and for :data:`TOGETHER`, which is not binned. ``axes`` are the
    values [N] along which bins are made, of :func:`~xplabels.validation.bin_width`, or wider where
    there would be fewer than 200 stars; ``along`` are the axes whose bins are judged. ``star`` [N]
    identifies the star of each row; rows of the same star count once, since their residuals may be
    the same.
    """
    compared = np.unique(np.concatenate([sample.rows for sample in samples.values()]))
    # label, axis, limits along it, and which rows of the label's sample are within them
    parts: list[tuple[str, str, float, float, NDArray[np.bool_]]] = [
        (label, "", -np.inf, np.inf, np.ones(len(sample.rows), bool))
        for label, sample in samples.items()
    ]
    for axis, values in axes.items():
        edges = merged_edges(
            values[compared], bin_width(axis, values), None if star is None else star[compared]
        )
        for label, sample in samples.items():
            position = values[sample.rows]
            for low, high in pairwise(edges):
                inside = (position >= low) & (position < high)
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
    statements = [
        Statement(label, axis, low, high, int(inside.sum()), count, both_sizes)
        for (label, axis, low, high, inside), count, both_sizes in zip(
            parts, counts, zip(*sizes, strict=True), strict=True
        )
    ]
    return Verdict(
        {part.label: part for part in statements if not part.axis},
        {
            axis: {
                label: tuple(p for p in statements if (p.axis, p.label) == (axis, label))
                for label in samples
                if label != TOGETHER
            }
            for axis in axes
        },
        tuple(along),
        alpha,
    )


def merged_edges(values: Array, width: float, star: NDArray[np.int64] | None = None) -> list[float]:
    """Edges, at multiples of ``width``, of bins with at least 200 different stars each.

    If there are fewer in all, there is one bin. Values that are not finite are left out.

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
    for last_bin, inside in zip(bins.tolist(), np.split(stars[order], starts[1:]), strict=True):
        seen.update(inside.tolist())
        if len(seen) >= BIN_STARS:
            edges.append(last_bin + 1)
            seen = set()
    last = int(bins[-1]) + 1
    if len(edges) == 1:
        edges.append(last)
    edges[-1] = last
    return [edge * width for edge in edges]


def _sizes(
    groups: Sequence[Array], counts: Sequence[int], level: float, alpha: float
) -> Iterator[Size]:
    """The size in each of the ``groups`` of needed factors; ``counts`` are their different stars.

    Of n stars the number whose factor is below the true quantile is binomial, so the quantile lies
    between the order statistics at the quantiles of that distribution (David & Nagaraja 2003, Order
    Statistics, 7.1), with at least the stated probability.
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
