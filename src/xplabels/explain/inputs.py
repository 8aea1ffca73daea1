"""A model's derivatives by its inputs, in the labels' and inputs' own units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from xplabels.core.stars import Stars
from xplabels.inference import pull_back
from xplabels.model import BLOCK, Model

Array = NDArray[np.float64]


def star_blocks(stars: Stars | Iterable[Stars], block: int = BLOCK) -> Iterator[Stars]:
    """A table of stars, or a stream of tables, at most ``block`` stars at a time."""
    for part in [stars] if isinstance(stars, Stars) else stars:
        for start in range(0, len(part), block):
            yield part[slice(start, start + block)]


def derivative_blocks(
    model: Model, stars: Stars | Iterable[Stars], block: int = BLOCK
) -> Iterator[tuple[Array, Array]]:
    """Inputs x [M, F] and derivatives dy/dx [M, K, F] of the stars that have a prediction.

    Inputs are unscaled, NaN where missing; derivatives in the label's unit per unit of the input,
    the mean over an ensemble's members. Of a missing input the derivative is 0, and what that
    input would pass on counts for those it is completed from.

    Raises :class:`InputError` if the spectra are of another kind or width than the model's.
    """
    for part in star_blocks(stars, block):
        features = model.feature_set.compute(part)
        features = features[model.usable(features)]
        jacobian = model.inference.derivatives(features)
        yield features.x, jacobian * model.scaling.y_scale[:, None]


def coefficient_derivatives(model: Model, stars: Stars) -> Array:
    """Derivatives [M, K, n] by the archive's coefficients, of M stars that have a prediction."""
    jacobian = np.concatenate([found for _, found in derivative_blocks(model, stars)])
    features = model.feature_set.compute(stars)
    features = features[model.usable(features)]
    n, projection = model.feature_set.n_spectral, model.feature_set.projection
    by_coefficient = pull_back(jacobian[:, :, :n], features, model.feature_set)
    if projection is not None:
        by_coefficient = by_coefficient @ projection.from_coefficients
    return np.asarray(by_coefficient)
