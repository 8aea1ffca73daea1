"""Compiled: what numba cannot say of single bytes and bits, said to LLVM.

Little-endian machines only. A text is the address of its first byte, because an array is counted
each time that it is handed on, which takes as long as reading a number; indices are not checked.
Numba's cache of :mod:`xplabels.io.compiled_text` does not notice a change made here: touch
that file, too.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from xplabels.core.jit import intrinsic

_pair: Any = types.UniTuple


def _at(builder: Any, place: Any, kind: Any) -> Any:
    """What of this kind stands at a place: a text and an index."""
    pointer = builder.inttoptr(builder.add(*place), kind.as_pointer())
    return builder.load(pointer, align=1)


@intrinsic
def word(typing: Any, text: Any, index: Any) -> Any:
    """The eight bytes from ``index`` on as one number, the first byte lowest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _at(builder, arguments, ir.IntType(64))

    return types.uint64(types.intp, types.intp), generate


@intrinsic
def byte(typing: Any, text: Any, index: Any) -> Any:
    """The byte at ``index``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(_at(builder, arguments, ir.IntType(8)), ir.IntType(64))

    return types.uint64(types.intp, types.intp), generate


@intrinsic
def other_than_digits(typing: Any, text: Any, index: Any) -> Any:
    """A number whose lowest bit is set if no digit stands at ``index``, and so on for 16 bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = ir.VectorType(ir.IntType(8), 16)
        values = builder.sub(_at(builder, arguments, lanes), ir.Constant(lanes, [ord("0")] * 16))
        other = builder.icmp_unsigned(">", values, ir.Constant(lanes, [9] * 16))
        return builder.zext(builder.bitcast(other, ir.IntType(16)), ir.IntType(64))

    return types.uint64(types.intp, types.intp), generate


@intrinsic
def sixteen_digits(typing: Any, text: Any, index: Any, count: Any) -> Any:
    """The ``count`` digits from ``index`` on, 1 to 16, as 16 bytes 0 to 9 in two words.

    Zeros come before them; a word's first digit is its lowest byte.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *place, count = arguments
        half, whole = ir.IntType(64), ir.IntType(128)
        zeros = ir.Constant(whole, int.from_bytes(b"0" * 16, "little"))
        values = builder.xor(_at(builder, place, whole), zeros)
        empty = builder.mul(builder.sub(half(16), count), half(8))
        moved = builder.shl(values, builder.zext(empty, whole))
        words = [
            builder.trunc(moved, half),
            builder.trunc(builder.lshr(moved, ir.Constant(whole, 64)), half),
        ]
        return context.make_tuple(builder, signature.return_type, words)

    return _pair(types.uint64, 2)(types.intp, types.intp, types.uint64), generate


@intrinsic
def trailing_zeros(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@intrinsic
def leading_zeros(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@intrinsic
def upper_product(typing: Any, one: Any, other: Any) -> Any:
    """The upper 64 bits of the product of two 64-bit numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        upper = builder.lshr(product, ir.Constant(wide, 64))
        return builder.trunc(upper, ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


@intrinsic
def as_float(typing: Any, bits: Any) -> Any:
    """The float64 of these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.uint64), generate
