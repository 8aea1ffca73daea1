"""Compiled: a layer's activation and its derivative in one pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from xplabels.core.jit import intrinsic, jit

LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693145751953125), np.float32(1.428606765330187e-6)
ROUNDING = np.float32(1.5 * 2**23)
"""Adding and subtracting it rounds a float32 to an integer."""
SMALLEST_EXPONENT, LARGEST_EXPONENT = np.float32(-87.0), np.float32(88.0)


@intrinsic
def _as_float32(typing: Any, bits: Any) -> Any:
    """The float32 of these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@jit
def _exp32(x: Any) -> Any:
    """e^x in float32, within 2e-7, without a branch: a loop over it is one of vectors."""
    x = min(max(x, SMALLEST_EXPONENT), LARGEST_EXPONENT)
    n = (x * LOG2_E + ROUNDING) - ROUNDING
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    # the Taylor series to r^7: |r| < 0.35, the rest is below 6e-9
    p = np.float32(1 / 5040)
    p = p * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(1 / 2)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    return p * _as_float32((np.int32(n) + np.int32(127)) << np.int32(23))


@jit
def silu32(z: NDArray[np.float32], bias: NDArray[np.float32], d: NDArray[np.float32]) -> None:
    """z -> silu(z + bias) in place, its derivative into ``d`` [N, H]."""
    one = np.float32(1)
    for n in range(z.shape[0]):
        for i in range(z.shape[1]):
            v = z[n, i] + bias[i]
            s = one / (one + _exp32(-v))
            h = v * s
            z[n, i] = h
            d[n, i] = s + h * (one - s)


@jit
def silu(z: NDArray[Any], bias: NDArray[Any], d: NDArray[Any]) -> None:
    """As :func:`silu32` in any type."""
    for n in range(z.shape[0]):
        for i in range(z.shape[1]):
            v = z[n, i] + bias[i]
            s = 1.0 / (1.0 + math.exp(-v))
            z[n, i] = v * s
            d[n, i] = s + v * s * (1.0 - s)


@jit
def relu(z: NDArray[Any], bias: NDArray[Any], d: NDArray[Any]) -> None:
    """As :func:`silu32`, for the positive part."""
    for n in range(z.shape[0]):
        for i in range(z.shape[1]):
            v = z[n, i] + bias[i]
            positive = v > 0
            z[n, i] = v if positive else 0
            d[n, i] = 1 if positive else 0


@jit
def tanh(z: NDArray[Any], bias: NDArray[Any], d: NDArray[Any]) -> None:
    """As :func:`silu32`, for tanh."""
    for n in range(z.shape[0]):
        for i in range(z.shape[1]):
            h = math.tanh(np.float64(z[n, i] + bias[i]))
            z[n, i] = h
            d[n, i] = 1.0 - h * h


@jit
def gelu(z: NDArray[Any], bias: NDArray[Any], d: NDArray[Any]) -> None:
    """As :func:`silu32`, for z times the normal distribution function."""
    for n in range(z.shape[0]):
        for i in range(z.shape[1]):
            v = np.float64(z[n, i] + bias[i])
            below = 0.5 * (1.0 + math.erf(v * 2.0**-0.5))
            z[n, i] = v * below
            d[n, i] = below + v * math.exp(-0.5 * v * v) * (2.0 * math.pi) ** -0.5


@jit
def softplus(z: NDArray[Any], bias: NDArray[Any], d: NDArray[Any]) -> None:
    """As :func:`silu32`, for ln(1 + e^z)."""
    for n in range(z.shape[0]):
        for i in range(z.shape[1]):
            v = np.float64(z[n, i] + bias[i])
            small = math.exp(-abs(v))
            z[n, i] = max(v, 0.0) + math.log1p(small)
            d[n, i] = (1.0 if v > 0 else small) / (1.0 + small)


ACTIVATIONS = {"silu": silu, "relu": relu, "tanh": tanh, "gelu": gelu, "softplus": softplus}
