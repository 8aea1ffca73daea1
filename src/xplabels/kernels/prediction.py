"""A model's networks on blocks of stars: labels and the parts of their variance, compiled.

The torch path (:mod:`xplabels.network.propagation`) does the same and is the reference: this one
agrees with it to 1e-5. It is faster because a few hundred stars at a time stay in the processor's
cache, because element-wise steps are fused, and because J C J^T reads packed correlations as they
are.

Matrix products with weights are in the networks' own type, everything after the Jacobian in
float64. That is not enough where a common mode dominates a star's noise: J C J^T then is a small
difference of large numbers, and in the end the Jacobian's own rounding shows. Such stars (those
whose errors would be :data:`CANCELLATION` times larger if nothing cancelled) are done again with
the network, too, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xplabels.features import Features, FeatureSet
from xplabels.features.scaling import Completion, Scaling
from xplabels.kernels import compiled
from xplabels.kernels.network import Buffers, Network, product
from xplabels.kernels.triangle import quadratic_form
from xplabels.network import UncertainNetwork
from xplabels.network.propagation import Propagated

STARS = 256
"""Stars that go through a network together: their hidden units stay in the cache."""
CANCELLATION = 1000.0
"""sqrt(sum (J_i e_i)^2) / sigma beyond which a star is done again: the Jacobian's rounding, about
1e-6 of it, then moves sigma by some 1e-6."""

Array = NDArray[np.float64]
_NOT_KNOWN = np.empty((0, 0), np.float32)


class Kernels:
    """A model's arrays, prepared once for many blocks of stars.

    Parameters
    ----------
    feature_set, scaling
        Of the model.
    networks
        One network, or the members of an ensemble.
    """

    def __init__(
        self, feature_set: FeatureSet, scaling: Scaling, networks: tuple[UncertainNetwork, ...]
    ) -> None:
        self._feature_set, self._scaling, self._networks = feature_set, scaling, networks
        self._nets = [Network(network) for network in networks]
        self._masks = networks[0].architecture.masks > 0
        rules, roots = Completion(scaling.x_correlation, feature_set.n_spectral).torch_rules(
            torch.float64
        )
        self._rules, self._roots = rules.numpy(), roots.numpy()
        projection = feature_set.projection
        self._projection = None if projection is None else projection.from_coefficients
        self._powers = 2 ** np.arange(len(feature_set.auxiliary))
        self._exact: Kernels | None = None
        self._spare: list[Buffers] = []

    def run(self, features: Features, full: bool = False) -> tuple[Propagated, Array]:
        """Labels and variances of N stars whose spectra are whole.

        Parameters
        ----------
        features
            Of the N stars.
        full
            Whether to give the labels' covariances, too.

        Returns
        -------
        propagated, x
            As :func:`xplabels.model.propagate` gives it, and the scaled, completed inputs [N, F].
        """

        def piece(start: int) -> _Block:
            try:
                buffers = self._spare.pop()
            except IndexError:  # more threads than ever before
                buffers = Buffers()
            block = self._block(features[start : start + STARS], full, buffers)
            self._spare.append(buffers)
            return block

        block = _joined(_in_threads(piece, range(0, len(features), STARS)))
        if any(net.dtype != np.float64 for net in self._nets):
            self._redo_where_it_cancels(features, block, full)
        return block.to_torch(), block.x

    def network_input(self, features: Features) -> tuple[Array, NDArray[np.int64]]:
        """Completed inputs, masks and noise levels [N, F (+ A) (+ 2)], and patterns [N].

        A pattern is the sum of 2^a over missing auxiliary inputs a.
        """
        n = self._feature_set.n_spectral
        x = self._scaling.scale_x(features.x)
        missing = np.isnan(features.x[:, n:])
        pattern = np.asarray(missing @ self._powers, np.int64)
        if pattern.any():
            x[:, n:][missing] = 0.0
            for number in np.unique(pattern[pattern > 0]):
                rows = np.flatnonzero(pattern == number)
                x[rows, n:] += x[rows] @ self._rules[number].T
        told = [x, missing] if self._masks else [x]
        noise = self._scaling.scale_noise(self._feature_set.noise_levels(features))
        told.append(np.nan_to_num(noise))
        return np.concatenate(told, axis=1), pattern

    def _block(self, features: Features, full: bool, buffers: Buffers) -> _Block:
        x, pattern = self.network_input(features)
        first, *others = self._nets
        outputs = [first.run(x, full, buffers)]
        labels, excess, model, jacobian, _, shared = outputs[0]
        if others:
            jacobian = jacobian / len(self._nets)  # out of the buffer that the next one fills
            for net in others:
                outputs.append(net.run(x, full, buffers))
                jacobian += outputs[-1].jacobian / len(self._nets)
            every = np.stack([out.labels for out in outputs])
            labels, model = every.mean(axis=0), every.var(axis=0, ddof=1)
            excess = np.mean([out.excess for out in outputs], axis=0)
            apart = (every - labels).transpose(1, 2, 0)
            shared = apart @ apart.transpose(0, 2, 1) / (len(outputs) - 1) if full else None
        clamped = np.any([out.clamped for out in outputs], axis=0)
        variance, alone, form = self._input_variance(jacobian, features, pattern, full, buffers)
        inputs = x[:, : features.x.shape[1]]
        return _Block(inputs, labels, variance, model, excess, clamped, alone, form, shared)

    def _input_variance(
        self, jacobian: NDArray[np.floating], features: Features, pattern: NDArray[np.int64],
        full: bool, buffers: Buffers,
    ) -> tuple[Array, Array, Array | None]:  # fmt: skip
        """J C J^T [N, K], the same if nothing cancelled, and [N, K, K] if asked for."""
        stars, labels = jacobian.shape[:2]
        feature_set = self._feature_set
        auxiliaries, measurements = features.auxiliary_errors.shape[1:]
        shape = (labels, feature_set.n_spectral)
        raw: Any = buffers.take("pulled back", stars, shape, np.float64)
        rest = np.empty((stars, labels, measurements + auxiliaries))
        alone = np.empty((stars, labels))
        variances = features.errors**2
        if self._projection is not None:
            variances = variances @ (self._projection**2).T
        bp, rp = feature_set.widths
        compiled.pull_back(
            jacobian, pattern, self._rules, self._roots, self._scaling.x_scale, features.x,
            features.divisor, features.is_ratio, bp,
            bp if feature_set.covariance == "fs24" else 0, variances, features.auxiliary_errors,
            raw, rest, alone,
        )  # fmt: skip
        if self._projection is not None:
            raw = product(
                raw, self._projection, buffers.take("raw", stars, raw.shape[1:], np.float64)
            )
        total = (rest**2).sum(axis=2)
        form = rest @ rest.transpose(0, 2, 1) if full else np.empty((0, labels, labels))
        packed = features.correlations or (_NOT_KNOWN, _NOT_KNOWN)
        for band, (first, width) in enumerate(((0, bp), (bp, rp))):
            quadratic_form(
                raw, features.errors, np.ascontiguousarray(packed[band], np.float32),
                first, width, total, form,
            )  # fmt: skip
        return total, alone, form if full else None

    def _redo_where_it_cancels(self, features: Features, block: _Block, full: bool) -> None:
        """Put the input variance from networks in float64 in its place, for stars that need it."""
        again = np.flatnonzero((block.alone > CANCELLATION**2 * block.input).any(axis=1))
        if not len(again):
            return
        if self._exact is None:
            doubles = tuple(_doubled(network) for network in self._networks)
            self._exact = Kernels(self._feature_set, self._scaling, doubles)
        of_input = self._exact.run(features[again], full)[0].input.numpy()
        if block.input_covariance is not None:
            block.input_covariance[again] = of_input
            of_input = np.einsum("nkk->nk", of_input)
        block.input[again] = of_input


class _Block(NamedTuple):
    """What is known of N stars.

    Attributes
    ----------
    x
        [N, F]: scaled, completed inputs.
    labels, input, model, excess
        [N, K]: labels and the three parts of their variance.
    clamped
        Bool [N].
    alone
        [N, K]: the input variance of the spectra if no two coefficients' noise were correlated.
    input_covariance, model_covariance
        [N, K, K], or None where they were not asked for or (model) are diagonal.
    """

    x: Array
    labels: Array
    input: Array
    model: Array
    excess: Array
    clamped: NDArray[np.bool_]
    alone: Array
    input_covariance: Array | None
    model_covariance: Array | None

    def to_torch(self) -> Propagated:
        """As the torch path gives it: covariances in the place of variances where there are any."""
        of_input, model = self.input, self.model
        if self.input_covariance is not None:
            diagonal = self.model[:, :, None] * np.eye(self.model.shape[1])
            shared = self.model_covariance
            of_input, model = self.input_covariance, diagonal if shared is None else shared
        arrays = (self.labels, of_input, model, self.excess, self.clamped)
        return Propagated(*(torch.from_numpy(array) for array in arrays))


def _in_threads(function: Callable[[int], _Block], starts: range) -> list[_Block]:
    """``function`` of each, in order, in as many threads as torch is allowed.

    One thread a piece wastes less than all of them on each product, between which they would wait.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=_settle) as pool:
            return list(pool.map(function, starts))
    finally:
        torch.set_num_threads(threads)


def _settle() -> None:
    """Settings of a thread of its own, which end with it."""
    torch.set_num_threads(1)
    # far from the training set units saturate, and numbers below 1e-38 are ten times as slow
    torch.set_flush_denormal(True)


def _joined(pieces: list[_Block]) -> _Block:
    """The blocks of one run, in order."""
    joined: list[Any] = [
        None if column[0] is None else np.concatenate(column)
        for column in zip(*pieces, strict=True)
    ]
    return _Block(*joined)


def _doubled(network: UncertainNetwork) -> UncertainNetwork:
    double = UncertainNetwork(network.architecture)
    double.load_state_dict(network.state_dict())
    return double.double()
