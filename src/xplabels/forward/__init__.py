"""Forward model: the spectrum that labels predict, with its scatter, and how well a star fits it.

The labels that a network predicts say what the normalised spectrum should be. What they leave open
(dust, abundances, rotation, the errors of predicted labels) is an intrinsic scatter, learned from
stars that the network had not seen. Spectra are compared along directions in which scatter and the
archive's noise are both independent, so that along each the variance is their sum. Two further
statistics are the distance of the spectrum from all training stars, and how much the residuals look
like those of the sum of two stars, or of a star with emission lines. Each becomes a p-value: the
share of ordinary stars of the same noise that are as strange.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xplabels.core.arrays import Array
from xplabels.features import Features
from xplabels.forward.directions import Directions

LARGEST_LOG_VARIANCE = 12.0
"""Largest logarithm of the scatter's variance in units of that in training; minus it, the least."""
SMALLEST_P = 1e-12


class Layers(NamedTuple):
    """A small perceptron: weights [in, out] and biases [out] of each layer, SiLU between them."""

    arrays: tuple[NDArray[np.floating[Any]], ...]

    def __call__(self, x: Array) -> Array:
        """Outputs [N, out] of inputs [N, in], in single precision."""
        h = x.astype(self.arrays[0].dtype)
        for number in range(0, len(self.arrays), 2):
            if number:
                with np.errstate(over="ignore"):
                    h /= 1 + np.exp(-h)
            h = h @ self.arrays[number] + self.arrays[number + 1]
        return h.astype(np.float64)

    def derivative(self, x: Array) -> tuple[Array, Array]:
        """Outputs [N, out] and their derivatives [N, out, in]."""
        h = x.astype(np.float64)
        chain: Array = np.broadcast_to(np.eye(x.shape[1]), (len(x), x.shape[1], x.shape[1]))
        for number in range(0, len(self.arrays), 2):
            weight = self.arrays[number].astype(np.float64)
            if number:
                gate = 1 / (1 + np.exp(-h))
                chain = (gate * (1 + h * (1 - gate)))[:, :, None] * chain
                h = h * gate
            chain = np.einsum("jo,nji->noi", weight, chain)
            h = h @ weight + self.arrays[number + 1]
        return h, chain


@dataclass(frozen=True)
class Tail:
    """The share of ordinary stars whose statistic is larger, as a function of their noise level."""

    levels: Array  # float64 [B], ascending: noise levels
    shares: Array  # float64 [Q], descending: shares of stars
    statistics: Array  # float64 [B, Q]: the statistic that this share of the stars exceeds

    @classmethod
    def fit(cls, statistic: Array, level: Array, shares: Array, bins: int) -> Tail:
        """From stars [N]: quantiles in ``bins`` bins of level with as many stars each."""
        parts = np.array_split(np.argsort(level), bins)
        levels = np.array([level[part].mean() for part in parts])
        quantiles = np.array([np.quantile(statistic[part], 1 - shares) for part in parts])
        return cls(levels, shares, quantiles)

    def p_value(self, statistic: Array, level: Array) -> Array:
        """Share [N] of the ordinary stars of each noise level that exceed the statistic [N].

        Logarithms of shares are linear between the tabulated ones and beyond the last.
        """
        upper = np.clip(np.searchsorted(self.levels, level), 1, max(len(self.levels) - 1, 1))
        lower = upper - 1
        upper = np.minimum(upper, len(self.levels) - 1)
        step = np.maximum(self.levels[upper] - self.levels[lower], 1e-12)
        weight = np.clip((level - self.levels[lower]) / step, 0.0, 1.0)[:, None]
        table = (1 - weight) * self.statistics[lower] + weight * self.statistics[upper]
        column = np.clip((table < statistic[:, None]).sum(axis=1), 1, table.shape[1] - 1)
        rows = np.arange(len(table))
        low, high = table[rows, column - 1], table[rows, column]
        logs = np.log(self.shares)
        along = (statistic - low) / np.maximum(high - low, 1e-12)
        along = np.clip(along, 0.0, None)
        p: Array = np.exp(logs[column - 1] + along * (logs[column] - logs[column - 1]))
        return np.clip(p, SMALLEST_P, 1.0)


class Statistics(NamedTuple):
    """Chi-squared [N], logits [N, C] of odd kinds, distance [N] and noise level [N]."""

    chisq: Array
    logits: Array
    distance: Array
    level: Array


class Fit(NamedTuple):
    """How well N stars fit.

    ``chisq`` [N] about the spectrum that the labels predict; ``p_value`` [N]: the share of ordinary
    single stars of such noise that fit as badly, or look as much like two stars or one with
    emission lines; ``distance`` [N] from the training stars, about 1 for one of them, and
    ``distance_p_value`` [N], its share.
    """

    chisq: Array
    p_value: Array
    distance: Array
    distance_p_value: Array


@dataclass(frozen=True)
class ForwardModel:
    """The spectrum that labels predict, with its scatter.

    The F inputs are the K scaled labels and the noise level.
    """

    directions: Directions  # the k directions in which spectra are compared, then d of the distance
    # float64 [k, n]: change of the normalised coefficients per unit along each of the k directions,
    # by least squares over the training stars
    spectra: Array
    spread: Array  # float64 [d]: variance of the training stars along each (with their noise)
    # float64 [F]: the range to which the inputs are clipped
    low: Array
    high: Array
    linear: Array  # float64 [1 + F, k]: intercept and slopes of the mean
    # from F inputs to the mean's deviation [k] from the linear one, and to the logarithm [k] of the
    # scatter's variance
    network: Layers
    cap: Array  # float64 [k]: the largest such logarithm that is allowed
    # from residuals [k] and inputs [F] to the logits [C] of the sum of two stars and (if C is 2) of
    # emission lines
    kinds: Layers
    # of ordinary stars: of ln chi-squared, each logit, `oddity` (these together), and ln distance
    fit_tail: Tail
    kind_tails: tuple[Tail, ...]
    either_tail: Tail
    distance_tail: Tail
    threshold: float  # a fit with a smaller p-value is poor
    distance_threshold: float  # a star whose distance has a smaller p-value is out of domain

    def level(self, noise: Array) -> Array:
        """Noise level [N]: log10 of the typical error along the directions (noise [N, k + d])."""
        level: Array = 0.5 * np.log10(np.maximum(noise[:, : len(self.cap)].mean(axis=1), 1e-12))
        return level

    def inputs(self, labels: Array, level: Array) -> Array:
        """The network's inputs [N, F] from scaled labels [N, K] and noise levels [N]."""
        raw = np.concatenate([labels, level[:, None]], axis=1)
        inputs: Array = np.clip(raw, self.low, self.high)
        return inputs

    def expected(self, inputs: Array) -> tuple[Array, Array]:
        """Mean [N, k] and intrinsic variance [N, k] along the directions."""
        out = self.network(inputs)
        k = len(self.cap)
        log_variance = np.clip(out[:, k:], -LARGEST_LOG_VARIANCE, self.cap)
        mean = out[:, :k] + self.linear[0] + inputs @ self.linear[1:]
        return mean, np.exp(log_variance)

    def residuals(self, positions: Array, noise: Array, inputs: Array) -> Array:
        """Residuals [N, k] in units of scatter and noise together."""
        mean, scatter = self.expected(inputs)
        k = len(self.cap)
        residuals: Array = (positions[:, :k] - mean) / np.sqrt(scatter + noise[:, :k])
        return residuals

    def statistics(self, features: Features, labels: Array) -> Statistics:
        """The statistics that are compared with those of ordinary stars; see :meth:`score`."""
        positions = self.directions.project(features)
        noise = self.directions.noise(features, positions, exact=len(self.cap))
        level = self.level(noise)
        inputs = self.inputs(labels, level)
        z = self.residuals(positions, noise, inputs)
        logits = self.kinds(np.concatenate([np.arcsinh(z), inputs], axis=1))
        k = len(self.cap)
        scaled = positions[:, k:] ** 2 / (self.spread + noise[:, k:])
        distance = np.sqrt(scaled.mean(axis=1))
        return Statistics(np.einsum("nk,nk->n", z, z), logits, distance, level)

    def score(self, features: Features, labels: Array) -> Fit:
        """How well N stars with complete spectra fit their scaled labels [N, K].

        NaN where the labels are.
        """
        with np.errstate(invalid="ignore"):
            return self.p_values(self.statistics(features, labels))

    def p_values(self, stars: Statistics) -> Fit:
        """The statistics of N stars with the share of ordinary stars that are as strange."""
        # of several p-values the least is often small by chance: `either_tail` corrects for this
        p = self.either_tail.p_value(self.oddity(stars), stars.level)
        log_distance = np.log(np.maximum(stars.distance, 1e-12))
        distance_p = self.distance_tail.p_value(log_distance, stars.level)
        p = np.where(np.isfinite(stars.chisq), p, np.nan)
        return Fit(stars.chisq, p, stars.distance, distance_p)

    def oddity(self, stars: Statistics) -> Array:
        """Minus the logarithm [N] of the least p-value, among those of the fit and each kind."""
        log_chisq = np.log(np.maximum(stars.chisq, 1e-12))
        least = self.fit_tail.p_value(log_chisq, stars.level)
        for logit, tail in zip(stars.logits.T, self.kind_tails, strict=True):
            least = np.minimum(least, tail.p_value(logit, stars.level))
        oddity: Array = -np.log(least)
        return oddity

    def derivatives(self, labels: Array) -> Array:
        """Change [N, K, n] of the normalised coefficients per unit of each scaled label [N, K]."""
        level = np.full(len(labels), self.low[-1])
        inputs = self.inputs(labels, level)
        k = len(self.cap)
        _, by_input = self.network.derivative(inputs)
        slopes = by_input[:, :k].transpose(0, 2, 1) + self.linear[1:]
        by_label: Array = slopes[:, : labels.shape[1]] @ self.spectra
        return by_label
