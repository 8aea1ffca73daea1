"""Cuts on known labels: which stars train and which report, with a count of what is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted, located
from xplabels.core.labels import LABELS, check_names
from xplabels.core.stars import Stars


def parse_range(text: str) -> tuple[str, tuple[float, float]]:
    """A range in the words of the command line: ``teff=3200:7000``, either side may be left out.

    Raises
    ------
    InputError
        If it is not of this form, names no known label or is empty.

    Examples
    --------
    >>> parse_range("teff=3200:7000")
    ('teff', (3200.0, 7000.0))
    >>> parse_range("fe_h=:-1")
    ('fe_h', (-inf, -1.0))
    """
    name, equals, interval = text.partition("=")
    lower, colon, upper = interval.partition(":")
    remedy = "write a range as teff=3200:7000"
    if not (equals and colon):
        raise InputError(f"{text!r} is no range", remedy=remedy)
    check_names([name])
    try:
        bounds = float(lower or -math.inf), float(upper or math.inf)
    except ValueError as error:
        raise InputError(f"{text!r} has a bound that is no number", remedy=remedy) from error
    if not bounds[0] < bounds[1]:
        raise InputError(f"the range {text!r} is empty", remedy="give the lower bound first")
    return name, bounds


@dataclass(frozen=True)
class Selection:
    """Stars whose known labels lie inside ranges.

    Attributes
    ----------
    ranges
        Open intervals (lower, upper) by label, in the label's unit; a star whose label is
        unknown lies outside.
    complete
        Labels that must all be known.
    """

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    complete: tuple[str, ...] = ()

    @classmethod
    def of(cls, ranges: Sequence[str], complete: Sequence[str] = ()) -> Selection:
        """A selection from the command line's words (see :func:`parse_range`)."""
        parsed: dict[str, tuple[float, float]] = {}
        for text in ranges:
            name, bounds = parse_range(text)
            if name in parsed:
                raise InputError(f"two ranges for {name}", remedy="give one range a label")
            parsed[name] = bounds
        return cls(parsed, tuple(complete))

    @classmethod
    def from_metadata(cls, told: Mapping[str, Any]) -> Selection:
        """The inverse of :meth:`to_metadata`."""
        ranges = {
            name: (
                -math.inf if lower is None else float(lower),
                math.inf if upper is None else float(upper),
            )
            for name, (lower, upper) in told.get("ranges", {}).items()
        }
        return cls(ranges, tuple(told.get("complete", ())))

    @classmethod
    def of_model(cls, metadata: Mapping[str, Any], here: Sequence[str]) -> Selection:
        """The one a model was trained with, as far as it is about the labels ``here``.

        A table with fewer labels than the training set is cut by those it has.
        """
        told = cls.from_metadata(metadata.get("selection", {}))
        return cls(
            {name: bounds for name, bounds in told.ranges.items() if name in here},
            tuple(name for name in told.complete if name in here),
        )

    def to_metadata(self) -> dict[str, Any]:
        """What a model records of it (JSON has no infinity: an open side is null)."""
        ranges = {
            name: [bound if math.isfinite(bound) else None for bound in bounds]
            for name, bounds in self.ranges.items()
        }
        return {"ranges": ranges, "complete": list(self.complete)}

    def apply(self, stars: Stars) -> tuple[Stars, list[str]]:
        """The stars inside, and the cut flow: one line a cut with the stars that remain.

        Raises
        ------
        InputError
            If a label that is cut on is absent, or if no star remains.
        """
        keep = np.ones(len(stars), bool)
        flow = [f"{counted(len(stars), 'star')} in {stars.origin or 'the table'}"]
        with located(stars.where):
            cuts = self._cuts(stars)
        for text, inside in cuts:
            keep &= inside
            flow.append(f"{int(keep.sum())} with {text}")
        if not keep.any():
            raise InputError(
                f"no star is left: {'; '.join(flow)}",
                where=stars.where,
                remedy="widen the selection",
            )
        return (stars if keep.all() else stars[keep]), flow

    def to_text(self) -> str:
        """The cuts in words, "" where there are none.

        Examples
        --------
        >>> Selection({"teff": (3200.0, math.inf)}, ("teff", "logg")).to_text()
        '3200 < teff K; all of teff, logg known'
        """
        texts = [_range_text(name, bounds) for name, bounds in self.ranges.items()]
        if self.complete:
            texts.append(_complete_text(self.complete))
        return "; ".join(texts)

    def _cuts(self, stars: Stars) -> list[tuple[str, NDArray[np.bool_]]]:
        if not (self.ranges or self.complete):
            return []
        if stars.labels is None:
            raise InputError(
                "has no labels to select by",
                remedy="add columns such as teff and teff_err, or join a table of labels",
            )
        cuts: list[tuple[str, NDArray[np.bool_]]] = []
        for name, (lower, upper) in self.ranges.items():
            values = stars.labels.select([name]).values[:, 0]
            text = _range_text(name, (lower, upper))
            cuts.append((text, (values > lower) & (values < upper)))
        if self.complete:
            values = stars.labels.select(self.complete).values
            known = np.isfinite(values).sum(axis=1) == len(self.complete)
            cuts.append((_complete_text(self.complete), known))
        return cuts


def _range_text(name: str, bounds: tuple[float, float]) -> str:
    low = f"{bounds[0]:g} < " if math.isfinite(bounds[0]) else ""
    high = f" < {bounds[1]:g}" if math.isfinite(bounds[1]) else ""
    return f"{low}{name}{high} {LABELS[name].unit}"


def _complete_text(names: Sequence[str]) -> str:
    return f"all of {', '.join(names)} known"
