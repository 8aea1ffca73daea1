"""Inference: labels and the parts of their variance (FS24, eq. 7-11) by trained networks, in numpy.

The twin of :mod:`xplabels.network`, which trains with torch; tests compare both in float64. Matrix
products with weights are in the networks' own type, all that follows the Jacobian in float64. That
is not enough where a common mode dominates a star's noise: J C J^T is then a small difference of
large numbers, and the Jacobian's own rounding shows. Such stars (those whose errors would be
:data:`CANCELLATION` times larger if nothing cancelled) are repeated with the network in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xplabels.core.arrays import Array
from xplabels.core.jit import available
from xplabels.features import Features, FeatureSet
from xplabels.features.scaling import Completion, Scaling
from xplabels.inference.network import LabelDistribution, Perceptron, products, sample_covariance

STARS = 128
"""Stars that go through a network together: their hidden units stay in the processor's cache."""
COMPILED_FROM = 1000
"""Fewest stars for which compiled code is used: fewer are done before it is even loaded."""
CANCELLATION = 1000.0
"""Ratio sqrt(sum (J_i e_i)^2) / sigma beyond which a star is repeated in float64. The Jacobian's
rounding, about 1e-6 of it, then changes sigma by about 1e-6."""

Lower = Callable[[Array, NDArray[np.float32]], Array]


class Inferred(NamedTuple):
    """The distribution over the labels of N stars, and their scaled, completed inputs [N, F]."""

    labels: LabelDistribution[Array]
    x: Array


class Inference:
    """A model's arrays, prepared once for many blocks of stars.

    With several ``networks``, the members of an ensemble, labels, Jacobians and intrinsic scatter
    are averaged, and the spread of the labels is the model part. With a single one, label and model
    part come from ``passes`` of dropout, or from the delta method if that is 0.
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        scaling: Scaling,
        networks: Sequence[Perceptron],
        passes: int = 0,
    ) -> None:
        self._feature_set, self._scaling = feature_set, scaling
        self._networks, self._passes = tuple(networks), passes
        self._completion = Completion(scaling.x_correlation, feature_set.n_spectral)
        projection = feature_set.projection
        self._projection = None if projection is None else projection.from_coefficients

    @cached_property
    def _exact(self) -> Inference:
        networks = [network.astype(np.float64) for network in self._networks]
        return Inference(self._feature_set, self._scaling, networks)

    def run(self, features: Features, full: bool = False) -> Inferred:
        """Labels and variances (if ``full``, covariances) of N stars with complete spectra."""
        lower = _lower_product(len(features))
        pieces = _in_threads(
            lambda start: self._piece(features[start : start + STARS], lower, full),
            range(0, max(len(features), 1), STARS),
        )
        distributions, x, sizes = zip(*pieces, strict=True)
        labels = LabelDistribution(*map(_joined, zip(*distributions, strict=True)))
        if any(network.dtype != np.float64 for network in self._networks):
            variance = np.einsum("nkk->nk", labels.input) if full else labels.input
            inexact = np.flatnonzero((_joined(sizes) > CANCELLATION**2 * variance).any(axis=1))
            if len(inexact):
                labels.input[inexact] = self._exact.run(features[inexact], full).labels.input
        return Inferred(labels, _joined(x))

    def derivatives(self, features: Features) -> Array:
        """dy/dx [N, K, F] by the unscaled inputs that are present.

        For a missing input it is 0; its effect is part of the derivatives by the inputs from which
        it is completed.
        """
        starts = range(0, max(len(features), 1), STARS)
        pieces = (self._outputs(features[start : start + STARS], False) for start in starts)
        return np.concatenate([jacobian for _, jacobian, _ in pieces])

    def network_input(self, features: Features) -> tuple[Array, NDArray[np.int64]]:
        """Completed inputs, masks and noise levels [N, F (+ A) (+ 2)], and patterns [N].

        A pattern is the sum of 2^a over missing auxiliary inputs a.
        """
        n = self._feature_set.n_spectral
        x = self._scaling.scale_x(features.x)
        missing = np.isnan(features.x[:, n:])
        pattern = np.asarray(missing @ (1 << np.arange(missing.shape[1])), np.int64)
        x[:, n:][missing] = 0.0
        for number in np.unique(pattern[pattern > 0]):
            rows = pattern == number
            x[rows, n:] += x[rows] @ self._completion.rule(number)[0].T
        noise = np.nan_to_num(self._scaling.scale_noise(self._feature_set.noise_levels(features)))
        masks = missing if self._networks[0].architecture.masks else missing[:, :0]
        return np.concatenate([x, masks, noise], axis=1), pattern

    def _piece(
        self, features: Features, lower: Lower, full: bool
    ) -> tuple[LabelDistribution[Any], Array, Array]:
        """Labels of some stars, their inputs, and the input variance [N, K] without cancelling."""
        labels, jacobian, x = self._outputs(features, full)
        variance, size = input_variance(
            jacobian, features, self._feature_set, self._projection, full, lower
        )
        return labels._replace(input=labels.input + variance), x, size

    def _outputs(
        self, features: Features, full: bool
    ) -> tuple[LabelDistribution[Any], Array, Array]:
        """Labels with the scatter of missing inputs, dy/dx by those present, and the inputs."""
        x, pattern = self.network_input(features)
        outputs = [network.forward(x, full) for network in self._networks]
        labels: LabelDistribution[Any] = outputs[0]
        by_input: Any = labels.jacobian
        if len(outputs) > 1:
            means = np.stack([out.mean for out in outputs])
            by_input = sum(np.asarray(out.jacobian, np.float64) for out in outputs) / len(outputs)
            labels = labels._replace(
                mean=means.mean(axis=0),
                excess=np.mean([out.excess for out in outputs], axis=0),
                model=sample_covariance(means),
                clamped=np.any([out.clamped for out in outputs], axis=0),
            )
        elif self._passes:
            median, covariance = self._networks[0].dropout_passes(x, self._passes)
            labels = labels._replace(mean=median, model=covariance)
        if not full and labels.model.ndim == 3:
            labels = labels._replace(model=np.einsum("nkk->nk", labels.model))
        inputs, n = features.x.shape[1], self._feature_set.n_spectral
        jacobian = np.array(by_input[..., :inputs], np.float64)
        scatter = np.zeros_like(labels.input)
        for number in np.unique(pattern[pattern > 0]):
            weights, covariance = self._completion.rule(number)
            rows = pattern == number
            # weights and covariance are zero for the auxiliary inputs that are present
            by_auxiliary = jacobian[rows, :, n:]
            scatter[rows] = products(by_auxiliary @ covariance, by_auxiliary, full)
            missing = np.flatnonzero([number >> a & 1 for a in range(inputs - n)])
            by_present = jacobian[rows]
            by_present[..., n + missing] = 0.0
            jacobian[rows] = by_present + by_auxiliary @ weights
        jacobian *= 1 / self._scaling.x_scale
        return labels._replace(input=scatter, jacobian=None), jacobian, x[:, :inputs]


def input_variance(
    jacobian: Array,
    features: Features,
    feature_set: FeatureSet,
    projection: Array | None = None,
    full: bool = True,
    lower: Lower | None = None,
) -> tuple[Array, Array]:
    """J C J^T of FS24's eq. 7, by pull-back of J to the measurements.

    ``jacobian`` [N, K, F] is dy/dx by the unscaled inputs, 0 for missing ones; ``projection`` is
    P [n, n], if the features have one; ``lower`` gives w (L + 1/2) [N, K, n] from w [N, K, n] and
    packed correlations 1 + L + L^T.

    Returns the whole matrix [N, K, K] if ``full``, else its diagonal [N, K] (FS24, eq. 8), and what
    the diagonal [N, K] would be if nothing cancelled.
    """
    n, bp = feature_set.n_spectral, feature_set.widths[0]
    spectral = jacobian[..., :n]
    variances = features.errors**2
    if projection is None:
        moved = pull_back(spectral, features, feature_set, features.errors)
    else:
        raw = pull_back(spectral, features, feature_set)
        moved = (raw.reshape(-1, n) @ projection).reshape(raw.shape) * features.errors[:, None, :]
        variances = variances @ (projection**2).T
    # every input is divided by RP 0, whose contributions may also cancel
    r0_variance = variances[:, bp, None].copy()
    variances[features.is_ratio, bp] = 0.0
    variances += divided_inputs(features, feature_set) ** 2 * r0_variance
    variances /= features.divisor[:, None] ** 2
    size = (spectral**2 @ variances[:, :, None])[..., 0]
    photometric = jacobian[..., n:] @ features.auxiliary_errors
    total = products(photometric, photometric, full)
    for band, columns in enumerate((slice(0, bp), slice(bp, n))):
        w = np.ascontiguousarray(moved[..., columns])
        if features.correlations is None:
            half = products(w, w / 2, full)
        else:
            half = products(w, (lower or _plain_product)(w, features.correlations[band]), full)
        total += half + (half.transpose(0, 2, 1) if full else half)
    return total, size


def pull_back(
    spectral: Array, features: Features, feature_set: FeatureSet, times: Array | float = 1.0
) -> Array:
    """dy/dc [N, K, n] by the coefficients from dy/dx [N, K, n], ``times`` [N, n] if given.

    x_i = c_i / r0, so dy/dc_i = J_i / r0, and r0 changes every input that it divides:
    dy/dr0 = -(sum_i J_i x_i) / r0. Where the features have a projection P, the derivative by the
    measured coefficients is dy/dc @ P.
    """
    bp = feature_set.widths[0]
    factor = np.broadcast_to(times / features.divisor[:, None], spectral[:, 0].shape)
    shift = (spectral @ divided_inputs(features, feature_set)[:, :, None])[..., 0]
    raw: Array = spectral * factor[:, None, :]
    own = np.where(features.is_ratio[:, None], -shift, spectral[..., bp])
    raw[..., bp] = own * factor[:, bp, None]
    return raw


def divided_inputs(features: Features, feature_set: FeatureSet) -> Array:
    """The x_i [N, n] that change with r0, which are BP and RP > 0 (``fs24``: RP > 0); others are 0.

    Where r0 is zero all are 0, since its error is the divisor.
    """
    bp, n = feature_set.widths[0], feature_set.n_spectral
    divided = features.x[:, :n] * features.is_ratio[:, None]
    divided[:, bp] = 0.0
    if feature_set.covariance == "fs24":
        divided[:, :bp] = 0.0
    return divided


def _lower_product(stars: int) -> Lower:
    """The function that computes w (L + 1/2) fastest for so many stars."""
    if stars < COMPILED_FROM or not available():
        return _plain_product
    from xplabels.inference.compiled import lower_product

    return lower_product


def _plain_product(w: Array, packed: NDArray[np.float32]) -> Array:
    stars, _, width = w.shape
    lower = np.zeros((stars, width, width))
    rows, columns = np.tril_indices(width, -1)
    lower[:, rows, columns] = packed
    product: Array = w @ lower + w / 2
    return product


def _joined(pieces: Sequence[Any]) -> Any:
    return pieces[0] if len(pieces) == 1 or pieces[0] is None else np.concatenate(pieces)


def _in_threads(function: Callable[[int], Any], starts: range) -> list[Any]:
    """``function`` of each of the ``starts``, in as many threads as BLAS may use.

    One piece per thread is faster than all threads on each matrix product, between which they would
    wait.
    """
    if len(starts) == 1:
        return [function(0)]
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import threadpool_info, threadpool_limits

    threads = max([1, *(x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas")])
    if threads == 1:
        return [function(start) for start in starts]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, starts))
