"""Inference: inputs of stars to labels and the parts of their variance (FS24, eq. 7-11), in numpy.

The twin of :mod:`xplabels.network`, which trains with torch; tests compare both in float64. Matrix
products with weights are in the networks' own type, everything after the Jacobian in float64. That
is not enough where a common mode dominates a star's noise: J C J^T then is a small difference of
large numbers, and in the end the Jacobian's own rounding shows. Such stars (those whose errors
would be :data:`CANCELLATION` times larger if nothing cancelled) are done again with the network in
float64, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xplabels.core.jit import available
from xplabels.features import Features, FeatureSet
from xplabels.features.scaling import Completion, Scaling
from xplabels.inference.distribution import LabelDistribution
from xplabels.inference.network import Array, Floats, Perceptron, sample_covariance

STARS = 256
"""Stars that go through a network together: their hidden units stay in the processor's cache."""
COMPILED_FROM = 1000
"""Fewer stars than these are done before compiled code is even loaded."""
CANCELLATION = 1000.0
"""sqrt(sum (J_i e_i)^2) / sigma beyond which a star is done again: the Jacobian's rounding, about
1e-6 of it, then moves sigma by some 1e-6."""

TriangleForm = Callable[[Array, NDArray[np.float32]], Array]


class Inferred(NamedTuple):
    """What a model says of N stars, in scaled units.

    Attributes
    ----------
    labels
        Their distribution, with covariances; its Jacobian [N, K, F] is by the unscaled inputs that
        are there. Of a missing input it is 0, and what that would pass on counts for the inputs it
        is completed from.
    x
        [N, F]: scaled inputs, completed.
    """

    labels: LabelDistribution[Array]
    x: Array


class Inference:
    """A model's arrays, prepared once for many blocks of stars.

    Parameters
    ----------
    feature_set, scaling
        Of the model.
    networks
        One network, or the members of an ensemble: the mean of labels, Jacobians and intrinsic
        scatter; the spread of the members is the model part.
    passes
        Of dropout that give the label and the model part of a single network; 0: the delta method.
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

    def run(self, features: Features) -> Inferred:
        """Labels, variances and derivatives of N stars whose spectra are whole."""
        form = _triangle_form(len(features))

        def piece(start: int) -> tuple[Inferred, Array]:
            return self._piece(features[start : start + STARS], form)

        pieces = _in_threads(piece, range(0, max(len(features), 1), STARS))
        labels = LabelDistribution(*map(_joined, zip(*(p.labels for p, _ in pieces), strict=True)))
        whole = Inferred(labels, _joined([p.x for p, _ in pieces]))
        if any(network.dtype != np.float64 for network in self._networks):
            size = _joined([size for _, size in pieces])
            variance = np.einsum("nkk->nk", labels.input)
            again = np.flatnonzero((size > CANCELLATION**2 * variance).any(axis=1))
            if len(again):
                labels.input[again] = self._exact.run(features[again]).labels.input
        return whole

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

    def _piece(self, features: Features, form: TriangleForm) -> tuple[Inferred, Array]:
        """A piece of the stars, and their input variance [N, K] if nothing cancelled."""
        x, pattern = self.network_input(features)
        outputs = [network.forward(x) for network in self._networks]
        labels: LabelDistribution[Any] = outputs[0]
        if len(outputs) > 1:
            means = np.stack([out.mean for out in outputs])
            labels = LabelDistribution(
                means.mean(axis=0),
                np.mean([out.excess for out in outputs], axis=0),
                sample_covariance(means),
                labels.input,
                np.any([out.clamped for out in outputs], axis=0),
                sum(np.asarray(out.jacobian, np.float64) for out in outputs) / len(outputs),
            )
        elif self._passes:
            centre, scatter = self._networks[0].dropout_passes(x, self._passes)
            labels = labels._replace(mean=centre, model=scatter)
        inputs = features.x.shape[1]
        jacobian, scatter = self._by_present(labels.jacobian, pattern, inputs)
        variance, size = input_variance(
            jacobian, features, self._feature_set, self._projection, form
        )
        labels = labels._replace(input=variance + scatter, jacobian=jacobian)
        return Inferred(labels, x[:, :inputs]), size

    def _by_present(
        self, by_input: Floats | None, pattern: NDArray[np.int64], inputs: int
    ) -> tuple[Array, Array]:
        """dy/dx by the unscaled inputs that are there, and [N, K, K] what missing ones scatter."""
        n = self._feature_set.n_spectral
        present = np.array(by_input, np.float64)[..., :inputs]
        stars, k, _ = present.shape
        scatter = np.zeros((stars, k, k))
        for number in np.unique(pattern[pattern > 0]):
            weights, covariance = self._completion.rule(number)
            rows = pattern == number
            # a rule neither takes from nor scatters an input that is there
            lost = present[rows, :, n:]
            scatter[rows] = lost @ covariance @ lost.transpose(0, 2, 1)
            gone = np.flatnonzero([number >> a & 1 for a in range(inputs - n)])
            moved = present[rows]
            moved[..., n + gone] = 0.0
            present[rows] = moved + lost @ weights
        present /= self._scaling.x_scale
        return present, scatter


def input_variance(
    jacobian: Array,
    features: Features,
    feature_set: FeatureSet,
    projection: Array | None = None,
    form: TriangleForm | None = None,
) -> tuple[Array, Array]:
    """J C J^T of FS24's eq. 7, by pull-back of J to the measurements.

    Parameters
    ----------
    jacobian
        dy/dx [N, K, F] by the unscaled inputs; 0 for missing inputs.
    features, feature_set
        Of the same N stars.
    projection
        P [n, n], if the features have a projection.
    form
        What gives sum over j < i of w_ki R_ij w_lj [N, K, K] from w [N, K, n] and packed R.

    Returns
    -------
    total, size
        [N, K, K], and its diagonal if nothing cancelled [N, K].
    """
    n, bp = feature_set.n_spectral, feature_set.widths[0]
    form = _plain_form if form is None else form
    raw, terms = pull_back(jacobian[..., :n], features, feature_set)
    variances = features.errors**2
    if projection is not None:
        variances = variances @ (projection**2).T
    # RP 0 is divided out of every input: what is large in that sum may cancel, too
    size = (raw**2 @ variances[:, :, None])[:, :, 0]
    size += (
        np.einsum("nki,nki->nk", terms, terms) * (variances[:, bp] / features.divisor**2)[:, None]
    )
    if projection is not None:
        raw = (raw.reshape(-1, n) @ projection).reshape(raw.shape)
    w = raw * features.errors[:, None, :]
    photometric = jacobian[..., n:] @ features.auxiliary_errors
    total = w @ w.transpose(0, 2, 1) + photometric @ photometric.transpose(0, 2, 1)
    if features.correlations is not None:
        for part, packed in zip((w[..., :bp], w[..., bp:]), features.correlations, strict=True):
            half = form(np.ascontiguousarray(part), packed)
            total += half + half.transpose(0, 2, 1)
    return total, size


def pull_back(spectral: Array, features: Features, feature_set: FeatureSet) -> tuple[Array, Array]:
    """dy/dc [N, K, n] by the coefficients from dy/dx [N, K, n] of the spectral inputs.

    x_i = c_i / r0, so dy/dc_i = J_i / r0, and r0 itself feels every input it divides:
    dy/dr0 = -(sum_i J_i x_i) / r0 over BP and RP > 0 (``fs24``: over RP > 0 alone). Where the
    features have a projection P, dy/dc @ P is by the measured coefficients.

    Returns
    -------
    raw, terms
        dy/dc, and the J_i x_i of that sum (0 where r0 is zero: its error divides instead).
    """
    bp = feature_set.widths[0]
    terms = spectral * (features.x[:, : spectral.shape[2]] * features.is_ratio[:, None])[:, None, :]
    terms[..., bp] = 0.0
    if feature_set.covariance == "fs24":
        terms[..., :bp] = 0.0
    raw = spectral / features.divisor[:, None, None]
    own = np.where(features.is_ratio[:, None], -terms.sum(axis=2), spectral[..., bp])
    raw[..., bp] = own / features.divisor[:, None]
    return raw, terms


def _triangle_form(stars: int) -> TriangleForm:
    """What gives sum over j < i of w_ki R_ij w_lj [N, K, K], best for so many stars."""
    if stars < COMPILED_FROM or not available():
        return _plain_form
    from xplabels.inference.compiled import triangle_form

    def form(w: Array, packed: NDArray[np.float32]) -> Array:
        filled = np.empty((*w.shape[:2], w.shape[1]))
        triangle_form(w, packed, filled)
        return filled

    return form


def _plain_form(w: Array, packed: NDArray[np.float32]) -> Array:
    stars, _, width = w.shape
    below = np.zeros((stars, width, width))
    rows, columns = np.tril_indices(width, -1)
    below[:, rows, columns] = packed
    form: Array = w @ below @ w.transpose(0, 2, 1)
    return form


def _joined(pieces: Sequence[Any]) -> Any:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _in_threads(function: Callable[[int], Any], starts: range) -> list[Any]:
    """``function`` of each, in order, in as many threads as BLAS is allowed.

    One thread per piece wastes less than all of them on each product, between which they would
    wait.
    """
    if len(starts) == 1:
        return [function(start) for start in starts]
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import threadpool_info, threadpool_limits

    threads = max([1, *(x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas")])
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, starts))
