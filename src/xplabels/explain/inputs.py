"""A model's derivatives by its inputs, in the labels' and inputs' own units.

The only place of this folder that uses the network's own library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from xplabels.core.flags import UNUSABLE
from xplabels.core.stars import Stars
from xplabels.features import ErrorTensors, pull_back
from xplabels.model import BLOCK, Model
from xplabels.network.propagation import Block, Propagation

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
    masks = model.networks[0].architecture.masks > 0
    propagation = Propagation(model.feature_set, model.scaling, masks, torch.float64)
    for part in star_blocks(stars, block):
        yield _derivatives(model, propagation, part)


@torch.no_grad()
def _derivatives(model: Model, propagation: Propagation, stars: Stars) -> tuple[Array, Array]:
    features = model.feature_set.compute(stars)
    n = model.feature_set.n_spectral
    usable = np.isfinite(features.x[:, :n]).all(axis=1) & np.isfinite(features.divisor)
    features = features[usable & ((features.flags & int(UNUSABLE)) == 0)]
    block = Block.of(features, model.feature_set, model.scaling, torch.float64)
    x = propagation.network_input(block)
    jacobian = torch.zeros((len(x), len(model.names), features.x.shape[1]), dtype=x.dtype)
    for network in model.networks:
        by_input = propagation.outputs(network, x, jacobian=True).jacobian
        by_input = propagation.by_present(by_input, block)[0]  # type: ignore[arg-type]  # asked for
        jacobian += by_input / len(model.networks)
    return features.x, jacobian.numpy() * model.scaling.y_scale[:, None]


def coefficient_derivatives(model: Model, stars: Stars) -> Array:
    """Derivatives [M, K, n] by the archive's coefficients, of M stars that have a prediction."""
    jacobian = np.concatenate([found for _, found in derivative_blocks(model, stars)])
    projection = model.feature_set.projection
    by_coefficient = pull_back(
        torch.as_tensor(jacobian[:, :, : model.feature_set.n_spectral]),
        ErrorTensors(model.feature_set.compute(stars), torch.float64),
        model.feature_set,
        None if projection is None else torch.as_tensor(projection.from_coefficients),
    )
    return np.asarray(by_coefficient.numpy())
