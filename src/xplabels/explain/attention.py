"""What the network uses of the spectra: attention (FS24, eq. 13) and derivative spectra (eq. 14).

Attention is the share of each input in a label, G_ij = J_ij x_i. Derivative spectra are the
inverse: how the spectrum changes when a label changes. J = dy/dx has more columns than rows, so its
inverse needs a weighting S of the inputs:

    dx/dy = S J^T (J S J^T)^-1

FS24's eq. 14, pinv(J w^2)^T w^2, is this with S = diag(std(x)^2). With the full covariance of x
it is the regression of the inputs on the predicted labels, for a linear network exactly (Haufe et
al. 2014): inputs that vary together in real spectra also do so in the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.labels import label_of
from xplabels.core.selection import Selection
from xplabels.core.stars import Stars
from xplabels.features import Features
from xplabels.model import BLOCK, Model

Array = NDArray[np.float64]

RED_CLUMP = {
    "teff": (4700.0, 4800.0),
    "logg": (2.0, 3.0),
    "fe_h": (-0.5, 0.5),
    "c_fe": (-0.2, 0.2),
    "n_fe": (0.0, 0.4),
}
"""Ranges of the labels of red clump stars, in their units (FS24, table 5)."""


class Moments:
    """Mean and scatter of arrays [M, ...] that come in blocks; NaN is left out.

    With the update of Chan, Golub & LeVeque many blocks or a large mean cost no accuracy.
    """

    def __init__(self) -> None:
        self.count: Array = np.zeros(())
        self.mean: Array = np.zeros(())
        self._squares: Array = np.zeros(())

    def add(self, values: Array) -> None:
        """Add M more rows."""
        known = np.isfinite(values)
        count = known.sum(axis=0).astype(np.float64)
        mean = np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1.0)
        squares = (np.where(known, values - mean, 0.0) ** 2).sum(axis=0)
        total, step = self.count + count, mean - self.mean
        share = count / np.maximum(total, 1.0)
        self._squares = self._squares + squares + step**2 * self.count * share
        self.mean = self.mean + step * share
        self.count = total

    @property
    def deviation(self) -> Array:
        """Standard deviation about the mean (of the population); NaN where there are no values."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.sqrt(self._squares / self.count))


def in_blocks(stars: Stars, block: int = BLOCK) -> Iterator[Stars]:
    """The stars, at most ``block`` at a time."""
    return (stars[slice(start, start + block)] for start in range(0, len(stars), block))


def derivative_blocks(
    model: Model, stars: Stars, block: int = BLOCK
) -> Iterator[tuple[Features, Array]]:
    """Inputs of the M stars that have a prediction, and derivatives dy/dx [M, K, F] by them.

    They are in the label's unit per unit of the input, averaged over an ensemble's members. For a
    missing input the derivative is 0, and its effect is in those of the inputs from which it is
    completed.

    Raises :class:`InputError` if the spectra are of another kind or width than the model's.
    """
    for part in in_blocks(stars, block):
        features = model.feature_set.compute(part)
        features = features[model.usable(features)]
        jacobian = model.inference.derivatives(features)
        values = model.scaling.unscale_y(model.inference.run(features).labels.mean)
        yield features, jacobian * model.scaling.y_unit(values)[:, :, None]


@dataclass(frozen=True)
class Attention:
    """Attention of K labels to F inputs over a sample (FS24, eq. 13 and fig. 8).

    Mean and standard deviation of G [K, F] over the ``count`` [F] stars that have an input, in the
    labels' units; NaN where none has.
    """

    names: tuple[str, ...]
    inputs: tuple[str, ...]
    count: Array
    mean: Array
    deviation: Array

    def to_metrics(self) -> dict[str, Any]:
        """Label -> statistic -> input -> value."""
        return {
            name: {
                "standard deviation": dict(zip(self.inputs, deviation, strict=True)),
                "mean": dict(zip(self.inputs, mean, strict=True)),
            }
            for name, deviation, mean in zip(self.names, self.deviation, self.mean, strict=True)
        }


def star_attention(model: Model, x: Array, jacobian: Array) -> Array:
    """G_ij = J_ij x_i, [M, K, F], in the labels' units; NaN for inputs a star lacks.

    Spectral inputs are c / r0; from the others their mean over the training set is subtracted,
    since the paper standardises only those.
    """
    n = model.feature_set.n_spectral
    centre = np.where(np.arange(x.shape[1]) < n, 0.0, model.scaling.x_mean)
    return np.asarray(jacobian * (x - centre)[:, None, :])


def attention(model: Model, stars: Stars, block: int = BLOCK) -> Attention:
    """Mean and standard deviation of G over a sample, ``block`` stars at a time.

    Raises :class:`InputError` if no star can be predicted, or the spectra do not fit the model.

    Examples
    --------
    >>> from xplabels.synthetic import example_stars
    >>> model = Model.load("apogee-dr17-library")
    >>> attention(model, example_stars(30)).deviation.shape == (6, len(model.feature_set.names))
    True
    """
    sums = Moments()
    for features, jacobian in derivative_blocks(model, stars, block):
        sums.add(star_attention(model, features.x, jacobian))
    if not np.any(sums.count):
        raise _too_few()
    mean = np.where(sums.count > 0, sums.mean, np.nan)
    return Attention(model.names, model.feature_set.names, sums.count[0], mean, sums.deviation)


def mean_jacobian(model: Model, stars: Stars) -> tuple[Array, Array]:
    """Mean Jacobian [K, n] by the spectral inputs x = c / r0, and these inputs' covariance [n, n].

    Raises :class:`InputError` if fewer than two stars have a prediction.
    """
    n = model.feature_set.n_spectral
    mean, inputs = Moments(), []
    for features, jacobian in derivative_blocks(model, stars):
        mean.add(jacobian[:, :, :n])
        inputs.append(features.x[:, :n])
    if sum(map(len, inputs)) < 2:
        raise _too_few()
    return mean.mean, np.cov(np.concatenate(inputs), rowvar=False, bias=True)


def spectral_inputs(model: Model, stars: Stars) -> Array:
    """The spectral inputs x = c / r0 [N, n] of all stars that have a spectrum."""
    n = model.feature_set.n_spectral
    x = np.concatenate([model.feature_set.compute(part).x[:, :n] for part in in_blocks(stars)])
    return np.asarray(x[np.isfinite(x).all(axis=1)])


def training_covariance(model: Model) -> Array:
    """Covariance [n, n] of the spectral inputs over the model's training stars, as saved in it."""
    n, scaling = model.feature_set.n_spectral, model.scaling
    scale = scaling.x_scale[:n]
    return np.asarray(scale[:, None] * scaling.x_correlation[:n, :n] * scale)


def inverse_jacobian(jacobian: Array, weights: Array) -> Array:
    """Derivative spectra dx/dy [K, n] per unit of each label, the others held fixed.

    They are the transpose of S J^T (J S J^T)^-1, for J [K, n] and S [n, n], the full covariance of
    x or, as in eq. 14, its diagonal. For a model trained on sampled flux, x are the coefficients
    of its projection.

    Raises :class:`InputError` if J S J^T is singular: the labels do not depend on the inputs
    independently.
    """
    cross = jacobian @ weights  # [K, n]
    gram = cross @ jacobian.T
    scale = np.sqrt(np.diag(gram))
    if not (scale > 0).all() or np.linalg.cond(gram / np.outer(scale, scale)) > 1e12:
        raise InputError(
            "the labels do not depend on the spectra independently of each other here",
            remedy="choose more stars, or more varied ones",
        )
    return np.asarray(np.linalg.solve(gram, cross))


def forward_derivatives(model: Model, stars: Stars) -> Array | None:
    """Mean derivative spectra dx/dy [K, n] of the forward model at the stars' predicted labels.

    The derivatives are by the K labels that most training stars have (:attr:`Model.common_names`),
    per unit of each label, the others held fixed; no Jacobian is inverted. None for a model without
    a forward model. Raises :class:`InputError` if no star has a prediction.
    """
    if model.forward is None:
        return None
    mean = Moments()
    for part in in_blocks(stars):
        features = model.feature_set.compute(part)
        labels = model.inference.run(features[model.usable(features)]).labels.mean
        unit = model.scaling.y_unit(model.scaling.unscale_y(labels))
        labels, unit = model.of_common(labels), model.of_common(unit)
        mean.add(model.forward.derivatives(labels) / unit[:, :, None])
    if not np.any(mean.count):
        raise _too_few()
    return np.asarray(mean.mean)


def red_clump(stars: Stars) -> tuple[Stars, list[str]]:
    """The red clump stars of FS24's table 5 among stars with known labels, and the cut flow.

    Cuts on labels that the table lacks are left out, as the cut flow states; if it has none of
    them, all stars are taken. Raises :class:`InputError` if no star is in the clump.
    """
    known = () if stars.labels is None else stars.labels.names
    ranges = {name: bounds for name, bounds in RED_CLUMP.items() if name in known}
    if not ranges:
        return stars, ["all stars: the table has none of the labels of a red clump star"]
    selected, flow = Selection(ranges).apply(stars)
    left_out = [label_of(name).description for name in RED_CLUMP if name not in known]
    if left_out:
        flow.append(f"not cut on, because the table lacks it: {', '.join(left_out)}")
    return selected, flow


def plain_numbers(values: Array, digits: int) -> list[float | None]:
    """Numbers [N] for JSON, rounded to significant digits; None where not finite."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values]


def _too_few() -> InputError:
    return InputError(
        "too few stars have a prediction to say what the model looks at",
        remedy="give more stars, with spectra in both bands",
    )
