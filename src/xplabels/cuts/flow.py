"""The cut flow of a selection: how many rows it had, and how many each rule removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xplabels.figures import CYCLE, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cut:
    """What one rule did."""

    name: str
    text: str
    applies: int | None  # rows that the rule concerns; None: not applied, as its table is missing
    alone: int  # rows it would remove by itself
    removed: int  # rows it removed of those that the rules before it had left


@dataclass(frozen=True)
class CutFlow:
    """Rows before, the cuts in order, and rows after: ``before - sum of removed``."""

    before: int
    cuts: tuple[Cut, ...]

    @property
    def after(self) -> int:
        """Rows that every rule kept."""
        return self.before - sum(cut.removed for cut in self.cuts)

    def __add__(self, other: CutFlow) -> CutFlow:
        """The flow of both sets of rows, under the same rules."""
        cuts = tuple(
            Cut(
                a.name,
                a.text,
                None if a.applies is None or b.applies is None else a.applies + b.applies,
                a.alone + b.alone,
                a.removed + b.removed,
            )
            for a, b in zip(self.cuts, other.cuts, strict=True)
        )
        return CutFlow(self.before + other.before, cuts)

    def followed_by(self, *cuts: Cut) -> CutFlow:
        """The flow with more cuts at its end."""
        return CutFlow(self.before, (*self.cuts, *cuts))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``before``, ``after`` and, for each cut, its numbers and what remained."""
        remaining, cuts = self.before, []
        for cut in self.cuts:
            remaining -= cut.removed
            cuts.append(asdict(cut) | {"remaining": remaining})
        return {"before": self.before, "after": self.after, "cuts": cuts}

    @classmethod
    def from_dict(cls, flow: Mapping[str, Any]) -> CutFlow:
        """The inverse of :meth:`to_dict`; raises KeyError or TypeError for anything else."""
        names = [one.name for one in fields(Cut)]
        cuts = tuple(Cut(*(cut[name] for name in names)) for cut in flow["cuts"])
        return cls(int(flow["before"]), cuts)

    def to_text(self) -> str:
        """A table for the terminal."""
        width = max([len("rows given"), *(len(cut.name) for cut in self.cuts)])
        lines = [
            f"{'':{width}}  {'alone':>10} {'removed':>10} {'remaining':>10}",
            f"{'rows given':{width}}  {'':>21} {self.before:>10}",
        ]
        remaining = self.before
        for cut in self.cuts:
            remaining -= cut.removed
            numbers = f"{cut.alone:>10} {cut.removed:>10}"
            if cut.applies is None:
                numbers = f"{'not applied':>21}"
            lines.append(f"{cut.name:{width}}  {numbers} {remaining:>10}  {cut.text}")
        return "\n".join(lines)

    @styled
    def figure(self) -> Figure:
        """Rows removed by each rule alone and in sequence, on a logarithmic axis."""
        from matplotlib.figure import Figure

        applied = [cut for cut in self.cuts if cut.applies is not None]
        figure = Figure(figsize=(7.0, 1.1 + 0.42 * len(applied)), layout="constrained")
        axes = figure.subplots()
        bars_at = np.arange(len(applied))
        for shift, values, colour, label in (
            (-0.2, [cut.alone for cut in applied], CYCLE[0], "by this rule alone"),
            (0.2, [cut.removed for cut in applied], CYCLE[1], "in sequence"),
        ):
            bars = axes.barh(bars_at + shift, values, 0.38, color=colour, label=label)
            axes.bar_label(bars, [f"{value:,}" for value in values], padding=3, fontsize=7)
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(0, max(self.before, 1) * 8)
        axes.set_yticks(bars_at, [cut.name for cut in applied])
        axes.invert_yaxis()
        axes.set_xlabel("rows removed")
        axes.set_title(f"{self.before:,} rows given, {self.after:,} kept", loc="left")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
        return figure


Result = tuple[NDArray[np.bool_], NDArray[np.bool_]] | None
"""Which rows [N] a rule applies to, and which of these pass; None if the rule was not applied."""


def count(
    before: int, results: Sequence[tuple[str, str, Result]]
) -> tuple[NDArray[np.bool_], CutFlow]:
    """Apply rules, each with name, text and result, to N = ``before`` rows, one after the other.

    Returns the rows [N] that every rule kept, and the flow.
    """
    keep = np.ones(before, bool)
    cuts: list[Cut] = []
    for name, text, result in results:
        if result is None:
            cuts.append(Cut(name, text, None, 0, 0))
            continue
        applies, passes = result
        fails = applies & ~passes
        cuts.append(
            Cut(name, text, int(applies.sum()), int(fails.sum()), int((keep & fails).sum()))
        )
        keep &= ~fails
    return keep, CutFlow(before, tuple(cuts))
