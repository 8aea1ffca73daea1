"""Compiled: the Jacobian's chain, and its pull-back to what was measured, star by star.

Matrix products with weights are left to BLAS. Arrays of the network are in its own type (mostly
float32); what comes after the Jacobian, where large numbers cancel, is in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.jit import fast_jit


@fast_jit
def first_link(out: NDArray[Any], d: NDArray[Any], by_unit: NDArray[Any]) -> None:
    """dy/dz of the last hidden layer: ``out`` [K, H] times ``d`` [N, H], into [N, K, H]."""
    for n in range(by_unit.shape[0]):
        for k in range(by_unit.shape[1]):
            for i in range(by_unit.shape[2]):
                by_unit[n, k, i] = out[k, i] * d[n, i]


@fast_jit
def first_scatter(out: NDArray[Any], h: NDArray[Any], scatter: NDArray[Any]) -> None:
    """Adds sum (dy/dh h)^2 of the last hidden layer to ``scatter`` [N, K]."""
    for n in range(h.shape[0]):
        for k in range(out.shape[0]):
            total = out[0, 0] * 0
            for i in range(h.shape[1]):
                moved = out[k, i] * h[n, i]
                total += moved * moved
            scatter[n, k] += total


@fast_jit
def link(by_unit: NDArray[Any], d: NDArray[Any]) -> None:
    """dy/dh [N, K, H] -> dy/dz in place."""
    for n in range(by_unit.shape[0]):
        for k in range(by_unit.shape[1]):
            for i in range(by_unit.shape[2]):
                by_unit[n, k, i] *= d[n, i]


@fast_jit
def link_and_scatter(
    by_unit: NDArray[Any], h: NDArray[Any], d: NDArray[Any], scatter: NDArray[Any]
) -> None:
    """As :func:`link`, adding sum (dy/dh h)^2 to ``scatter`` [N, K] on the way."""
    for n in range(by_unit.shape[0]):
        for k in range(by_unit.shape[1]):
            total = by_unit[0, 0, 0] * 0
            for i in range(by_unit.shape[2]):
                moved = by_unit[n, k, i] * h[n, i]
                total += moved * moved
                by_unit[n, k, i] *= d[n, i]
            scatter[n, k] += total


@fast_jit
def _complete(
    by_input: NDArray[np.float64],
    pattern: int,
    weights: NDArray[np.float64],
    roots: NDArray[np.float64],
    scatter: NDArray[np.float64],
) -> None:
    """One label's dy/dx [F], in place: what is missing moves with what it is completed from.

    ``scatter`` [A] becomes what the missing inputs' scatter does.
    """
    auxiliaries = len(scatter)
    n = len(by_input) - auxiliaries
    for a in range(auxiliaries):
        if pattern >> a & 1:
            lost = by_input[n + a]
            by_input[n + a] = 0.0
            # a rule has no weights for inputs that are missing too
            for i in range(len(by_input)):
                by_input[i] += lost * weights[a, i]
            for b in range(auxiliaries):
                scatter[b] += lost * roots[a, b]


@fast_jit
def pull_back(
    jacobian: NDArray[Any],
    pattern: NDArray[np.int64],
    weights: NDArray[np.float64],
    roots: NDArray[np.float64],
    scale: NDArray[np.float64],
    x: NDArray[np.float64],
    divisor: NDArray[np.float64],
    is_ratio: NDArray[np.bool_],
    bp: int,
    first_divided: int,
    variances: NDArray[np.float64],
    auxiliary_errors: NDArray[np.float64],
    raw: NDArray[np.float64],
    rest: NDArray[np.float64],
    alone: NDArray[np.float64],
) -> None:
    """dy/dc from dy/dx; see :func:`xplabels.features.pull_back`.

    Parameters
    ----------
    jacobian
        By scaled inputs [N, K, >= F].
    pattern
        [N]: the number of each star's pattern of missing auxiliary inputs, 0 for none.
    weights, roots
        Of :meth:`xplabels.features.scaling.Completion.torch_rules`: [2^A, A, F] and [2^A, A, A].
    scale
        Of the inputs [F].
    x, divisor, is_ratio, auxiliary_errors
        Of :class:`xplabels.features.Features`.
    bp, first_divided
        The number of RP 0, and 0 or, where its noise stays inside RP (FS24, eq. 2), ``bp``.
    variances
        [N, n] of the spectral inputs times the divisor's square, if no two were correlated.
    raw
        Filled, [N, K, n].
    rest
        Filled, [N, K, M + A]: what the auxiliary inputs' M measurements do, and the scatter of
        those that are missing, in A independent parts.
    alone
        Filled, [N, K]: the input variance of the spectra if nothing cancelled.
    """
    auxiliaries, measurements = auxiliary_errors.shape[1], auxiliary_errors.shape[2]
    n = raw.shape[2]
    by_input = np.empty(n + auxiliaries)
    inverse_scale = 1.0 / scale
    for star in range(raw.shape[0]):
        inverse = 1.0 / divisor[star]
        for k in range(raw.shape[1]):
            moved, raw_k = rest[star, k], raw[star, k]
            moved[:] = 0.0
            for i in range(len(by_input)):
                by_input[i] = jacobian[star, k, i]
            if pattern[star]:
                q = pattern[star]
                _complete(by_input, q, weights[q], roots[q], moved[measurements:])
            for i in range(len(by_input)):
                by_input[i] *= inverse_scale[i]
            for a in range(auxiliaries):
                for m in range(measurements):
                    moved[m] += by_input[n + a] * auxiliary_errors[star, a, m]
            size = 0.0
            for i in range(n):
                raw_k[i] = by_input[i] * inverse
                size += raw_k[i] * raw_k[i] * variances[star, i]
            if is_ratio[star]:
                shift = sizes = 0.0
                # slices, because an index that might be negative is looked after at every step
                divided, ratios = by_input[first_divided:n], x[star, first_divided:n]
                for i in range(len(divided)):
                    term = divided[i] * ratios[i]
                    shift += term
                    sizes += term * term
                own = by_input[bp] * x[star, bp]
                size += (sizes * inverse * inverse - raw_k[bp] * raw_k[bp]) * variances[star, bp]
                raw_k[bp] = (own - shift) * inverse
            alone[star, k] = size
