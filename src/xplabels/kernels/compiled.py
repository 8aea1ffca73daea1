"""Compiled: the Jacobian's chain and J C J^T, star by star.

Matrix products with weights are left to BLAS. Arrays of the network are in its own type (mostly
float32); what comes after the Jacobian, where large numbers cancel, is in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from xplabels.jit import fast_jit, intrinsic

LANES = 8
"""Labels that :func:`quadratic_form` takes side by side: a vector register or two of float64."""


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
def complete(
    jacobian: NDArray[Any],
    pattern: NDArray[np.int64],
    weights: NDArray[np.float64],
    roots: NDArray[np.float64],
    scale: NDArray[np.float64],
    by_input: NDArray[np.float64],
    scatter: NDArray[np.float64],
) -> None:
    """dy/dx by the unscaled inputs, what is missing moving with what it is completed from.

    Parameters
    ----------
    jacobian
        By scaled inputs [N, K, >= F].
    pattern
        [N]: the number of each star's pattern of missing auxiliary inputs, 0 for none.
    weights, roots
        Of :meth:`xplabels.scaling.Completion.torch_rules`: [2^A, A, F] and [2^A, A, A].
    scale
        Of the inputs [F].
    by_input
        Filled, [N, K, F].
    scatter
        Filled, [N, K, A]: what the missing inputs' scatter, in A independent parts, does.
    """
    labels, inputs = by_input.shape[1], by_input.shape[2]
    auxiliaries = scatter.shape[2]
    n = inputs - auxiliaries
    for star in range(by_input.shape[0]):
        q = pattern[star]
        for k in range(labels):
            for i in range(inputs):
                by_input[star, k, i] = jacobian[star, k, i]
            for b in range(auxiliaries):
                scatter[star, k, b] = 0.0
            if q == 0:
                continue
            for a in range(auxiliaries):
                if q >> a & 1:
                    by_input[star, k, n + a] = 0.0
            for a in range(auxiliaries):
                if q >> a & 1:
                    lost = np.float64(jacobian[star, k, n + a])
                    for i in range(inputs):
                        by_input[star, k, i] += lost * weights[q, a, i]
                    for b in range(auxiliaries):
                        scatter[star, k, b] += lost * roots[q, a, b]
        for k in range(labels):
            for i in range(inputs):
                by_input[star, k, i] /= scale[i]


@fast_jit
def pull_back(
    by_input: NDArray[np.float64],
    x: NDArray[np.float64],
    divisor: NDArray[np.float64],
    is_ratio: NDArray[np.bool_],
    bp: int,
    first_divided: int,
    raw: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """dy/dc [N, K, n] from dy/dx [N, K, F]; see :func:`xplabels.features.pull_back`.

    ``first_divided`` is 0, or ``bp`` where the noise of RP 0 stays inside RP (FS24, eq. 2).
    ``squares`` becomes the sum of the squares of the terms that each element of ``raw`` sums up.
    """
    n = raw.shape[2]
    for star in range(raw.shape[0]):
        inverse = 1.0 / divisor[star]
        for k in range(raw.shape[1]):
            for i in range(n):
                one = by_input[star, k, i] * inverse
                raw[star, k, i] = one
                squares[star, k, i] = one * one
            if is_ratio[star]:
                shift = sizes = 0.0
                for i in range(first_divided, n):
                    term = by_input[star, k, i] * x[star, i]
                    shift += term
                    sizes += term * term
                own = by_input[star, k, bp] * x[star, bp]
                raw[star, k, bp] = (own - shift) * inverse
                squares[star, k, bp] = sizes * inverse * inverse


@fast_jit
def weighted_sum(
    squares: NDArray[np.float64], errors: NDArray[np.float64], total: NDArray[np.float64]
) -> None:
    """total [N, K] = sum_i squares [N, K, i] errors [N, i]^2."""
    for star in range(squares.shape[0]):
        for k in range(squares.shape[1]):
            one = 0.0
            for i in range(squares.shape[2]):
                one += squares[star, k, i] * errors[star, i] * errors[star, i]
            total[star, k] = one


def _side_by_side(rows: int) -> Callable[..., None]:
    """A function (packed, i, w, t): t_r = sum over j < r of R_rj w_j, for ``rows`` rows r >= i.

    Written for LLVM, because numba makes no vectors of what stands side by side in an array's row:
    each row's sum is one vector of :data:`LANES`, and several do not wait for one another.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, lanes = arguments[1], ir.VectorType(ir.DoubleType(), LANES)
        single_lanes = ir.VectorType(ir.FloatType(), LANES)
        r_data, w_data, t_data = (
            context.make_array(signature.args[a])(context, builder, arguments[a]).data
            for a in (0, 2, 3)
        )
        w_rows = builder.bitcast(w_data, lanes.as_pointer())
        t_rows = builder.bitcast(t_data, lanes.as_pointer())
        numbers = [builder.add(first, first.type(r)) for r in range(rows)]
        starts = [
            builder.lshr(builder.mul(row, builder.sub(row, first.type(1))), first.type(1))
            for row in numbers
        ]
        zero = ir.Constant(lanes, [0.0] * LANES)
        make: Any = cgutils.alloca_once_value
        sums = [make(builder, zero) for _ in range(rows)]
        unset = ir.Constant(single_lanes, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)

        def add(r: int, j: Any, weights: Any) -> None:
            number = builder.load(builder.gep(r_data, [builder.add(starts[r], j)]))
            alone = builder.insert_element(unset, number, ir.Constant(ir.IntType(32), 0))
            spread = builder.fpext(builder.shuffle_vector(alone, unset, everywhere), lanes)
            product = builder.fmul(spread, weights, flags=("contract",))
            total = builder.fadd(builder.load(sums[r]), product, flags=("contract",))
            builder.store(total, sums[r])

        def weights_of(j: Any) -> Any:
            return builder.load(builder.gep(w_rows, [j]), align=8)

        with cgutils.for_range(builder, first) as loop:
            weights = weights_of(loop.index)
            for r in range(rows):
                add(r, loop.index, weights)
        for above in range(rows - 1):  # the triangle that these rows have among themselves
            weights = weights_of(numbers[above])
            for r in range(above + 1, rows):
                add(r, numbers[above], weights)
        for row, total in zip(numbers, sums, strict=True):
            builder.store(builder.load(total), builder.gep(t_rows, [row]), align=8)
        return context.get_dummy_value()

    def typed(typing: Any, packed: Any, i: Any, w: Any, t: Any) -> Any:
        return types.void(packed, types.int64, w, t), generate

    return intrinsic(typed)


_one_row, _two_rows, _three_rows, _four_rows = (_side_by_side(rows) for rows in (1, 2, 3, 4))


@fast_jit
def _products(
    packed: NDArray[np.float32], w: NDArray[np.float64], n: int, t: NDArray[np.float64]
) -> None:
    """t_i = sum over j < i of R_ij w_j, for one band's packed correlations; ``w``, ``t`` [n, 8]."""
    whole = n // 4 * 4
    for i in range(0, whole, 4):
        _four_rows(packed, i, w, t)
    if n - whole == 3:
        _three_rows(packed, whole, w, t)
    elif n - whole == 2:
        _two_rows(packed, whole, w, t)
    elif n - whole == 1:
        _one_row(packed, whole, w, t)


@fast_jit
def quadratic_form(
    raw: NDArray[np.float64],
    errors: NDArray[np.float64],
    packed: NDArray[np.float32],
    first: int,
    width: int,
    total: NDArray[np.float64],
    covariance: NDArray[np.float64],
) -> None:
    """Adds J C J^T of one band, C = diag(e) R diag(e), R from its packed correlations.

    Parameters
    ----------
    raw
        dy/dc [N, K, n] of both bands.
    errors
        [N, n].
    packed
        [N, width (width - 1) / 2]; without rows: R = 1.
    first, width
        The band's first coefficient and number of coefficients.
    total
        [N, K], added to.
    covariance
        [N, K, K], added to, or without rows.
    """
    labels = raw.shape[1]
    w = np.zeros((width, LANES))
    t = np.zeros((width, LANES))
    every = np.zeros((width, labels))  # t of all labels, where covariances are asked for
    for star in range(raw.shape[0]):
        for lane in range(0, labels, LANES):
            here = min(LANES, labels - lane)
            for k in range(here):
                for i in range(width):
                    w[i, k] = raw[star, lane + k, first + i] * errors[star, first + i]
            for k in range(here, LANES):
                for i in range(width):
                    w[i, k] = 0.0
            if len(packed):
                _products(packed[star], w, width, t)
            for k in range(here):
                variance = 0.0
                for i in range(width):
                    variance += w[i, k] * (w[i, k] + 2.0 * t[i, k])
                total[star, lane + k] += variance
            if len(covariance):
                for k in range(here):
                    for i in range(width):
                        every[i, lane + k] = t[i, k]
        if len(covariance):
            for k in range(labels):
                for m in range(labels):
                    both = 0.0
                    for i in range(width):
                        u = raw[star, k, first + i] * errors[star, first + i]
                        v = raw[star, m, first + i] * errors[star, first + i]
                        both += u * v + u * every[i, m] + v * every[i, k]
                    covariance[star, k, m] += both
