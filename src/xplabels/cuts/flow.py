"""How many rows a selection had, and what became of every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER: dict[str, tuple[int, str]] = {
    "training stars": (
        3_845_370,
        "as printed in section 2.3; more than APOGEE has stars, 384,537 would fit",
    ),
    "with [Fe/H] < -1": (19_288, "section 2.3"),
    "with [Fe/H] > 0.5": (118, "section 2.3"),
}
"""What Fallows & Sanders 2024 report of their training sample."""


@dataclass(frozen=True)
class Cut:
    """What one rule did.

    Attributes
    ----------
    name, text
        The rule.
    applies
        Rows it was asked of (a rule on a survey's column applies to that survey's rows); None: it
        was not applied, because no such table was given.
    alone
        Rows it would remove by itself.
    removed
        Rows it removed of those that the rules before it had left.
    """

    name: str
    text: str
    applies: int | None
    alone: int
    removed: int


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
        remaining, told = self.before, []
        for cut in self.cuts:
            remaining -= cut.removed
            told.append(asdict(cut) | {"remaining": remaining})
        return {"before": self.before, "after": self.after, "cuts": told}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> CutFlow:
        """The inverse of :meth:`to_dict`.

        Raises
        ------
        KeyError, TypeError
            If ``told`` is nothing that it gives.
        """
        names = [one.name for one in fields(Cut)]
        cuts = tuple(Cut(*(one[name] for name in names)) for one in told["cuts"])
        return cls(int(told["before"]), cuts)

    def to_text(self) -> str:
        """A table for the terminal."""
        width = max([len("rows given"), *(len(cut.name) for cut in self.cuts)])
        lines = [
            f"{'':{width}}  {'alone':>10} {'removed':>10} {'remaining':>10}",
            f"{'rows given':{width}}  {'':>10} {'':>10} {self.before:>10}",
        ]
        for cut, told in zip(self.cuts, self.to_dict()["cuts"], strict=True):
            numbers = (
                f"{'not applied':>21} {told['remaining']:>10}"
                if cut.applies is None
                else f"{cut.alone:>10} {cut.removed:>10} {told['remaining']:>10}"
            )
            lines.append(f"{cut.name:{width}}  {numbers}  {cut.text}")
        return "\n".join(lines)

    def figure(self) -> Figure:
        """Rows removed by each rule alone and in sequence, on a logarithmic axis."""
        from matplotlib.figure import Figure

        from xplabels.figures import CYCLE, styled

        @styled
        def draw() -> Figure:
            applied = [cut for cut in self.cuts if cut.applies is not None]
            figure = Figure(figsize=(7.0, 1.1 + 0.42 * len(applied)), layout="constrained")
            axes = figure.subplots()
            place = np.arange(len(applied))
            for shift, values, colour, label in (
                (-0.2, [cut.alone for cut in applied], CYCLE[0], "by this rule alone"),
                (0.2, [cut.removed for cut in applied], CYCLE[1], "in sequence"),
            ):
                bars = axes.barh(place + shift, values, 0.38, color=colour, label=label)
                axes.bar_label(bars, [f"{value:,}" for value in values], padding=3, fontsize=7)
            axes.set_xscale("symlog", linthresh=1.0)
            axes.set_xlim(0, max(self.before, 1) * 8)
            axes.set_yticks(place, [cut.name for cut in applied])
            axes.invert_yaxis()
            axes.set_xlabel("rows removed")
            axes.set_title(f"{self.before:,} rows given, {self.after:,} kept", loc="left")
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
            return figure

        return draw()


def count(
    before: int,
    verdicts: Sequence[tuple[str, str, NDArray[np.bool_] | None, NDArray[np.bool_] | None]],
) -> tuple[NDArray[np.bool_], CutFlow]:
    """Apply rules one after the other.

    Parameters
    ----------
    before
        N rows.
    verdicts
        Name, text, which rows [N] the rule applies to (None: not applied at all) and which rows
        pass it [N] (looked at only where it applies).

    Returns
    -------
    keep, flow
        Rows [N] that every rule kept, and the flow.
    """
    keep = np.ones(before, bool)
    cuts: list[Cut] = []
    for name, text, applies, passes in verdicts:
        if applies is None or passes is None:
            cuts.append(Cut(name, text, None, 0, 0))
            continue
        fails = applies & ~passes
        removed = int((keep & fails).sum())
        cuts.append(Cut(name, text, int(applies.sum()), int(fails.sum()), removed))
        keep &= ~fails
    return keep, CutFlow(before, tuple(cuts))


def beside_the_paper(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Counts of this selection with those of Fallows & Sanders 2024, where they have one."""
    return [
        {"what": what, "here": counts[what], "paper": number, "paper_note": note}
        for what, (number, note) in PAPER.items()
        if what in counts
    ]
