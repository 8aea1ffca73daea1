"""A model's derivatives dy/dx by its inputs, star by star, in the labels' and inputs' own units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xplabels.core.stars import Stars
from xplabels.model import BLOCK, Model


@dataclass(frozen=True)
class Derivatives:
    """Derivatives of K labels by F inputs, of the M stars that have a prediction.

    Attributes
    ----------
    rows
        Int [M]: which of the stars given.
    x
        Float64 [M, F]: the inputs, unscaled; NaN where missing.
    jacobian
        Float64 [M, K, F]: dy/dx in the label's unit per unit of the input. Of a missing input it
        is 0, and what that input would pass on counts for those it is completed from.
    values
        Float64 [M, K]: the labels.
    """

    rows: NDArray[np.intp]
    x: NDArray[np.float64]
    jacobian: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.x)


def derivative_blocks(
    model: Model, stars: Stars | Iterable[Stars], block: int = BLOCK
) -> Iterator[Derivatives]:
    """Derivatives of ``stars``, or of a stream of them, at most ``block`` stars at a time.

    The Jacobian of an ensemble is its members' mean; ``rows`` count within each ``Stars`` given.

    Raises
    ------
    InputError
        If the spectra are of another kind or width than the model's.
    """
    for part in [stars] if isinstance(stars, Stars) else stars:
        for start in range(0, len(part), block):
            yield _derivatives(model, part[slice(start, start + block)], start)


def _derivatives(model: Model, stars: Stars, start: int) -> Derivatives:
    features = model.feature_set.compute(stars)
    rows = np.flatnonzero(model.usable(features))
    features = features[rows]
    labels = model.inference.run(features).labels
    scale = model.scaling.y_scale
    return Derivatives(
        rows + start,
        features.x,
        np.asarray(labels.jacobian) * scale[:, None],
        model.scaling.y_mean + scale * labels.mean,
    )
