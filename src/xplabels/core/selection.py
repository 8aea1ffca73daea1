"""Cuts on known labels for training and validation, with counts of the stars that are left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted, located
from xplabels.core.labels import check_names, label_of
from xplabels.core.stars import Stars


def parse_range(text: str) -> tuple[str, tuple[float, float]]:
    """A range as the command line writes it; either bound may be left out.

    >>> parse_range("fe_h=:-1")
    ('fe_h', (-inf, -1.0))
    """
    name, equals, interval = text.partition("=")
    lower, colon, upper = interval.partition(":")
    remedy = "write a range as teff=3200:7000"
    if not (equals and colon):
        raise InputError(f"{text!r} is not a range", remedy=remedy)
    check_names([name])
    try:
        bounds = float(lower or -math.inf), float(upper or math.inf)
    except ValueError as error:
        raise InputError(f"{text!r} has a bound that is not a number", remedy=remedy) from error
    if not bounds[0] < bounds[1]:
        raise InputError(f"the range {text!r} is empty", remedy="give the lower bound first")
    return name, bounds


@dataclass(frozen=True)
class Selection:
    """Stars whose known labels lie inside ranges."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Open intervals (lower, upper) by label, in the label's unit; a star whose label is unknown
    lies outside."""
    complete: tuple[str, ...] = ()  # labels that must all be known

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
    def from_metadata(cls, stored: Mapping[str, Any]) -> Selection:
        """The inverse of :meth:`to_metadata`."""
        ranges = {
            name: (
                -math.inf if lower is None else float(lower),
                math.inf if upper is None else float(upper),
            )
            for name, (lower, upper) in stored.get("ranges", {}).items()
        }
        return cls(ranges, tuple(stored.get("complete", ())))

    @classmethod
    def of_model(cls, metadata: Mapping[str, Any], present: Sequence[str]) -> Selection:
        """The selection with which a model was trained, without cuts on labels not in ``present``.

        So a table with fewer labels than the training set is cut on those that it has.
        """
        trained = cls.from_metadata(metadata.get("selection", {})).complete_in(present)
        ranges = {name: limits for name, limits in trained.ranges.items() if name in present}
        return replace(trained, ranges=ranges)

    def complete_in(self, present: Sequence[str]) -> Selection:
        """The selection that requires only those of its labels to be known that are ``present``."""
        return replace(self, complete=tuple(name for name in self.complete if name in present))

    def to_metadata(self) -> dict[str, Any]:
        """The selection as stored with a model; as JSON has no infinity, open bounds are null."""
        ranges = {
            name: [bound if math.isfinite(bound) else None for bound in bounds]
            for name, bounds in self.ranges.items()
        }
        return {"ranges": ranges, "complete": list(self.complete)}

    def apply(self, stars: Stars) -> tuple[Stars, list[str]]:
        """The stars inside, and the cut flow: one line per cut with the stars that remain.

        Raises :class:`InputError` if a label that is cut on is absent, or if no star remains.
        """
        keep = np.ones(len(stars), bool)
        flow = [f"{counted(len(stars), 'star')} in {stars.origin or 'the table'}"]
        with located(stars.where):
            cuts = zip(self._texts(), self._inside(stars), strict=True)
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
        """The cuts in words, "" if there are none.

        >>> Selection({"teff": (3200.0, math.inf)}, ("teff", "logg")).to_text()
        '3200 < teff K; all of teff, logg known'
        """
        return "; ".join(self._texts())

    def _texts(self) -> list[str]:
        texts = []
        for name, (lower, upper) in self.ranges.items():
            low = f"{lower:g} < " if math.isfinite(lower) else ""
            high = f" < {upper:g}" if math.isfinite(upper) else ""
            texts.append(f"{low}{name}{high} {label_of(name).unit}".rstrip())
        if self.complete:
            texts.append(f"all of {', '.join(self.complete)} known")
        return texts

    def _inside(self, stars: Stars) -> list[NDArray[np.bool_]]:
        """Which stars [N] pass, for each of the cuts."""
        if not (self.ranges or self.complete):
            return []
        if stars.labels is None:
            raise InputError(
                "has no labels to select by",
                remedy="add columns such as teff and teff_err, or join a table of labels",
            )
        cuts = []
        for name, (lower, upper) in self.ranges.items():
            values = stars.labels.select([name]).values[:, 0]
            cuts.append((values > lower) & (values < upper))
        if self.complete:
            known = np.isfinite(stars.labels.select(self.complete).values)
            cuts.append(np.asarray(known.all(axis=1)))
        return cuts
