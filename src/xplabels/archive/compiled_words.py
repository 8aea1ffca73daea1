"""Compiled: what numba cannot say of single bytes and bits, said to LLVM.

Little-endian machines only. Indices count from the front and are not checked. Numba's cache of
:mod:`xplabels.archive.compiled_text` does not notice a change made here: touch that file, too.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from xplabels.jit import intrinsic


@intrinsic
def word(typing: Any, data: Any, index: Any) -> Any:
    """The eight bytes from ``index`` on as one number, the first byte lowest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        wide = builder.bitcast(pointer, ir.IntType(64).as_pointer())
        return builder.load(wide, align=1)

    return types.uint64(data, index), generate


@intrinsic
def byte(typing: Any, data: Any, index: Any) -> Any:
    """The byte at ``index`` >= 0, without numba's look whether it counts from the end."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte = builder.load(builder.gep(array.data, [arguments[1]]))
        return builder.zext(byte, ir.IntType(64))

    return types.uint64(data, index), generate


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
