"""Compiled: J C J^T straight from packed correlations, star by star, in float64.

Large numbers cancel here. With J = dy/dc and C = diag(e) R diag(e) it is w R w^T of w = J e for
each label, of which the triangle below R's diagonal makes nearly all the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from xplabels.core.jit import fast_jit, intrinsic

LANES = 8
"""Numbers that are taken side by side: a vector register or two of float64."""
ROWS = 4
"""Rows of R that are taken at a time; it divides :data:`LANES`."""

NUMBER, SHORT, BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)
DOUBLES, SINGLES = ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(ir.FloatType(), LANES)
MASK, PLACES = ir.VectorType(ir.IntType(1), LANES), ir.VectorType(NUMBER, LANES)

_tools: Any = cgutils


def _at(builder: Any, data: Any, index: Any, kind: Any) -> Any:
    """A pointer to what of this kind begins at an array's element."""
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _spread(builder: Any, one: Any) -> Any:
    """A vector of the same number."""
    unset = ir.Constant(ir.VectorType(one.type, LANES), ir.Undefined)
    first = builder.insert_element(unset, one, SHORT(0))
    everywhere = ir.Constant(ir.VectorType(SHORT, LANES), [0] * LANES)
    return builder.shuffle_vector(first, unset, everywhere)


def _add(builder: Any, total: Any, one: Any, other: Any) -> None:
    """``total`` += one x other, rounded once."""
    product = builder.fmul(one, other, flags=("contract",))
    builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)


def _first_of(builder: Any, start: Any, j: Any, count: Any) -> Any:
    """The vector at ``start`` + j, of which nothing is read from its element ``count`` on: 0."""
    load = _tools.get_or_insert_function(
        builder.module,
        ir.FunctionType(SINGLES, [SINGLES.as_pointer(), SHORT, MASK, SINGLES]),
        f"llvm.masked.load.v{LANES}f32.p0",
    )
    places = ir.Constant(PLACES, list(range(LANES)))
    wanted = builder.icmp_unsigned("<", places, _spread(builder, count))
    zero = ir.Constant(SINGLES, [0.0] * LANES)
    return builder.call(load, [_at(builder, start, j, SINGLES), SHORT(4), wanted, zero])


def _prefetch(builder: Any, data: Any, index: Any) -> None:
    """Have an element at hand when it will be read."""
    fetch = _tools.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), SHORT, SHORT, SHORT]),
        "llvm.prefetch.p0",
    )
    read, kept_near, is_data = SHORT(0), SHORT(3), SHORT(1)
    builder.call(fetch, [_at(builder, data, index, BYTE), read, kept_near, is_data])


def _triangle(labels: int) -> Callable[..., None]:
    """A function (packed, n, w, sums) for one band's packed correlations R of n coefficients.

    sums_kl, over l = 1 ... 8, add up to the sum over j < i of w_ki R_ij w_kj. ``w`` has ``labels``
    rows or more, of :func:`_padded` length, zero beyond n. Written for LLVM, because numba makes
    no vectors of several sums at a time: here each is a vector, added up only in the end.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        packed, w, sums = (
            context.make_array(signature.args[a])(context, builder, arguments[a]) for a in (0, 2, 3)
        )
        n, length = arguments[1], _tools.unpack_tuple(builder, w.shape)[1]
        w_of = [builder.gep(w.data, [builder.mul(length, NUMBER(k))]) for k in range(labels)]
        zero = ir.Constant(DOUBLES, [0.0] * LANES)
        make = _tools.alloca_once_value
        totals = [make(builder, zero) for _ in range(labels)]
        row_sums = [[make(builder, zero) for _ in range(labels)] for _ in range(ROWS)]

        def before(row: Any) -> Any:
            """Numbers in the rows of the triangle above this one."""
            return builder.lshr(builder.mul(row, builder.sub(row, NUMBER(1))), NUMBER(1))

        def add_columns(j: Any, correlations: list[Any]) -> None:
            columns = [builder.load(_at(builder, w_of[k], j, DOUBLES), align=8)
                       for k in range(labels)]  # fmt: skip
            for of_row, some in zip(row_sums, correlations, strict=True):
                wide = builder.fpext(some, DOUBLES)
                for total, column in zip(of_row, columns, strict=True):
                    _add(builder, total, wide, column)

        rows = cgutils.for_range_slice(builder, NUMBER(0), n, NUMBER(ROWS), NUMBER)
        with rows as (first, _):
            for total in (total for of_row in row_sums for total in of_row):
                builder.store(zero, total)
            own = [builder.add(first, NUMBER(r)) for r in range(ROWS)]
            # a row beyond the last one is the last one again, and counts nothing: w is zero there
            last = builder.sub(n, NUMBER(1))
            there = [builder.select(builder.icmp_signed("<", i, n), i, last) for i in own]
            starts = [builder.gep(packed.data, [before(i)]) for i in there]
            whole = builder.udiv(first, NUMBER(LANES))  # the same for all these rows
            with cgutils.for_range(builder, whole) as loop:
                j = builder.mul(loop.index, NUMBER(LANES))
                for start in starts:  # the next star's follow at once
                    _prefetch(builder, start, builder.add(j, before(n)))
                add_columns(j, [builder.load(_at(builder, start, j, SINGLES), align=4)
                                for start in starts])  # fmt: skip
            j = builder.mul(whole, NUMBER(LANES))
            add_columns(j, [_first_of(builder, start, j, builder.sub(i, j))
                            for i, start in zip(there, starts, strict=True)])  # fmt: skip
            for i, of_row in zip(own, row_sums, strict=True):
                for k in range(labels):
                    factor = builder.load(builder.gep(w_of[k], [i]))
                    _add(builder, totals[k], builder.load(of_row[k]), _spread(builder, factor))
        for k, total in enumerate(totals):
            place = _at(builder, sums.data, NUMBER(k * LANES), DOUBLES)
            builder.store(builder.load(total), place, align=8)
        return context.get_dummy_value()

    def typed(typing: Any, packed: Any, n: Any, w: Any, sums: Any) -> Any:
        return types.void(packed, types.int64, w, sums), generate

    return intrinsic(typed)


_two_labels, _four_labels, _six_labels = _triangle(2), _triangle(4), _triangle(6)


@fast_jit
def _padded(n: int) -> int:
    """The next multiple of :data:`LANES`."""
    return (n + LANES - 1) // LANES * LANES


@fast_jit
def _forms(
    w: NDArray[np.float64],
    packed: NDArray[np.float32],
    n: int,
    sums: NDArray[np.float64],
    forms: NDArray[np.float64],
) -> None:
    """forms_k = w_k R w_k^T of as many rows of ``w``; ``packed`` may be empty: R = 1."""
    for row in range(0, len(forms), 6):
        here = min(6, len(forms) - row)
        if len(packed) and here > 4:
            _six_labels(packed, n, w[row:], sums)
        elif len(packed) and here > 2:
            _four_labels(packed, n, w[row:], sums)
        elif len(packed):
            _two_labels(packed, n, w[row:], sums)
        for k in range(here):
            form = 0.0
            for lane in range(LANES):
                form += 2.0 * sums[k, lane]
            for i in range(n):
                form += w[row + k, i] * w[row + k, i]
            forms[row + k] = form


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
    pairs = labels * (labels - 1) // 2 if len(covariance) else 0
    # one more row, so that labels can be taken by twos, fours and sixes
    w = np.zeros((labels + pairs + 1, _padded(width)))
    sums, forms = np.zeros((6, LANES)), np.zeros(labels + pairs)
    none = np.zeros(0, np.float32)
    for star in range(raw.shape[0]):
        # slices, because an index that might be negative is looked after at every step
        by_errors = errors[star, first : first + width]
        for k in range(labels):
            by_raw = raw[star, k, first : first + width]
            for i in range(width):
                w[k, i] = by_raw[i] * by_errors[i]
        row = labels
        for k in range(labels if pairs else 0):
            for m in range(k):
                for i in range(width):
                    w[row, i] = w[k, i] + w[m, i]
                row += 1
        _forms(w, packed[star] if len(packed) else none, width, sums, forms)
        for k in range(labels):
            total[star, k] += forms[k]
        row = labels
        for k in range(labels if len(covariance) else 0):
            covariance[star, k, k] += forms[k]
            for m in range(k):
                # a b from squares: 2 a b = (a + b)^2 - a^2 - b^2
                both = (forms[row] - forms[k] - forms[m]) / 2.0
                covariance[star, k, m] += both
                covariance[star, m, k] += both
                row += 1
