"""Z-scores of inputs and labels, and the completion of missing inputs.

A missing input is replaced by its mean given the inputs that are present, and its scatter about
that mean goes into the label errors. Both come from the training set's covariance:
x_m = mu_m + B (x_p - mu_p).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from xplabels.core.arrays import Array
from xplabels.core.errors import InputError

RIDGE = 1e-4
"""Added to the diagonal of the inputs' correlation matrix before it is inverted."""

NOISE_LIMIT = 2.5
"""Scaled noise levels are clipped to so many standard deviations of the training set's."""
SMALLEST_NOISE_SCALE = 0.1
"""Least scale (dex) of the noise levels, for training sets in which they hardly vary."""
LARGEST_LOGARITHM = 50.0
"""Bound of logarithmic labels, so that those of a corrupt spectrum do not become 0 or infinite."""


@dataclass(frozen=True)
class Scaling:
    """Training statistics of F inputs and K labels."""

    # float64 [F]; an input without scatter (RP 0 is 1 for every star) has the scale 1
    x_mean: Array
    x_scale: Array
    x_correlation: Array  # float64 [F, F] of the scaled inputs
    # float64 [K], in the labels' units, or of the natural logarithms of labels in these units
    y_mean: Array
    y_scale: Array
    # float64 [2] of the noise levels, or [0] where the network does not take them
    noise_mean: Array = field(default_factory=lambda: np.empty(0))
    noise_scale: Array = field(default_factory=lambda: np.empty(0))
    # bool [K]: labels whose logarithm is learned, so that errors are relative
    logarithmic: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1, bool))

    @classmethod
    def fit(
        cls,
        x: Array,
        y: Array,
        inputs: Sequence[str] = (),
        labels: Sequence[str] = (),
        noise: Array | None = None,
        logarithmic: Sequence[str] = (),
    ) -> Scaling:
        """Statistics of the training inputs [N, F] and labels [N, K]; NaN is left out.

        ``inputs`` and ``labels`` name the columns, ``logarithmic`` the labels whose logarithm is
        learned; ``noise`` [N, 2 or 0] are the noise levels.

        :class:`InputError` if a label or input is never present.
        """
        for name, values, names in (("input", x, inputs), ("label", y, labels)):
            absent = np.flatnonzero(~np.isfinite(values).any(axis=0))
            if absent.size:
                which = names[absent[0]] if names else f"number {absent[0]}"
                raise InputError(
                    f"{name} {which} is missing for every training star",
                    remedy=f"train without this {name}",
                )
        x_mean, x_scale = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
        x_scale = np.where(x_scale > 1e-12 * (1 + np.abs(x_mean)), x_scale, 1.0)
        scaled = (x - x_mean) / x_scale
        # missing entries count as the mean, which shrinks their correlations: a cautious choice
        complete = np.isfinite(scaled).all(axis=1)
        sample = scaled[complete] if complete.sum() > 2 * x.shape[1] else np.nan_to_num(scaled)
        correlation = sample.T @ sample / len(sample)
        logarithms = np.array([name in logarithmic for name in labels or range(y.shape[1])], bool)
        y = np.log(y, out=y.copy(), where=logarithms)
        y_scale = np.nanstd(y, axis=0)
        noise = np.empty((len(x), 0)) if noise is None else noise
        noise = noise[np.isfinite(noise).all(axis=1)]  # an error of zero has no logarithm
        if not len(noise):
            raise InputError(
                "every training star has coefficient errors of zero in a band",
                remedy="give the errors, or set noise_levels = false in the recipe",
            )
        noise_scale = noise.std(axis=0)
        return cls(
            x_mean,
            x_scale,
            correlation,
            np.nanmean(y, axis=0),
            np.where(y_scale > 0, y_scale, 1.0),
            noise.mean(axis=0),
            np.maximum(noise_scale, SMALLEST_NOISE_SCALE),
            logarithms,
        )

    def select(self, labels: NDArray[np.bool_]) -> Scaling:
        """The same for some of the labels, bool [K]."""
        return replace(
            self, y_mean=self.y_mean[labels], y_scale=self.y_scale[labels],
            logarithmic=self.logarithmic[labels],
        )  # fmt: skip

    def scale_x(self, x: Array) -> Array:
        """Inputs [N, F] in units of the training scatter."""
        return (x - self.x_mean) / self.x_scale

    def scale_noise(self, levels: Array) -> Array:
        """Noise levels [N, 2 or 0] in units of the training scatter, clipped to its range.

        The network thus treats a star fainter than all training stars as one of the faintest of
        them; only the propagated noise makes the error larger.
        """
        scaled = (levels - self.noise_mean) / self.noise_scale
        return np.clip(scaled, -NOISE_LIMIT, NOISE_LIMIT)

    def scale_y(self, values: Array, errors: Array) -> tuple[Array, Array]:
        """Labels and errors [N, K] on the scale that is learned."""
        learned = np.log(values, out=values.copy(), where=self.logarithmic)
        return (learned - self.y_mean) / self.y_scale, errors / self.y_unit(values)

    def unscale_y(self, scaled: Array) -> Array:
        """Labels [N, K] from the scale that is learned: the inverse of :meth:`scale_y`."""
        learned = self.y_mean + self.y_scale * scaled
        limited = np.clip(learned, -LARGEST_LOGARITHM, LARGEST_LOGARITHM)
        return np.exp(limited, out=learned, where=self.logarithmic)

    def y_unit(self, values: Array) -> Array:
        """The unit of the learned scale in the labels' units, [N, K], for small steps.

        It is ``y_scale``, times the label's own value where the logarithm is learned: errors are
        propagated to first order.
        """
        return np.where(self.logarithmic, values, 1.0) * self.y_scale


class Completion:
    """Fills missing auxiliary inputs, and gives the scatter that this adds to the labels.

    ``correlation`` [F, F] is of the scaled inputs; the first ``n_spectral`` are never missing.

    Notes
    -----
    The conditional covariance S is that of the observed inputs: it contains the training stars'
    mean noise N beside the scatter of the true inputs, S - N_aa - B N_ss B^T. The noise is not
    subtracted, although a star's own spectral noise is also propagated, as J_eff N* J_eff^T with
    J_eff = J_s + J_a B. For jointly Gaussian inputs and labels a network that is the regression
    on the observed inputs, given B x_s, is the regression on x_s alone, and its variance follows
    from the law of total variance, for a star of any noise N*:

        V(full) + J_a S J_a^T + J_eff (N* - N_ss) J_eff^T.

    A network with masks learns an intrinsic scatter for each pattern from the total scatter: S
    cancels between that and what is added here, the star's noise counts once, and the errors are
    right also at noise levels that the training set does not have. A network without masks
    (``missing_fraction = 0``) has the intrinsic scatter of complete stars, for which S would have
    to be S + N_aa - B N_ss B^T, less twice J_s N_ss B^T J_a^T: S makes errors too large where
    spectra are noisy, while S - N_aa - B N_ss B^T would make them too small. Both are tested.
    """

    def __init__(self, correlation: Array, n_spectral: int) -> None:
        self.correlation = correlation
        self.n_spectral = n_spectral
        self._rules: dict[int, tuple[Array, Array]] = {}

    def rule(self, pattern: int) -> tuple[Array, Array]:
        """B [A, F] and conditional covariance [A, A] for a pattern of missing auxiliary inputs.

        ``pattern`` is the sum of 2^a over missing inputs a. B has zero columns at missing inputs
        and zero rows at present ones.
        """
        if pattern in self._rules:
            return self._rules[pattern]
        inputs = len(self.correlation)
        auxiliaries = inputs - self.n_spectral
        missing = pattern >> np.arange(auxiliaries) & 1 == 1
        absent = np.concatenate([np.zeros(self.n_spectral, bool), missing])
        present = ~absent
        c = self.correlation + RIDGE * np.eye(inputs)
        weights = np.zeros((auxiliaries, inputs))
        covariance = np.zeros((auxiliaries, auxiliaries))
        if missing.any():
            cross = c[np.ix_(present, absent)]
            b = np.linalg.solve(c[np.ix_(present, present)], cross).T
            weights[np.ix_(missing, present)] = b
            covariance[np.ix_(missing, missing)] = c[np.ix_(absent, absent)] - b @ cross
        self._rules[pattern] = weights, covariance
        return weights, covariance

    def rules(self) -> tuple[Array, Array]:
        """B [2^A, A, F] and conditional covariance [2^A, A, A] of every pattern."""
        patterns = range(2 ** (len(self.correlation) - self.n_spectral))
        weights, covariances = zip(*(self.rule(pattern) for pattern in patterns), strict=True)
        return np.stack(weights), np.stack(covariances)
