"""Compiling with numba, which is an extra: what is decorated here runs in no other way.

Modules of compiled functions import this one, and are themselves imported only where
:func:`available` says that they can be. Numba's cache does not notice a change of the options
here: touch the files of the functions, too.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def available() -> bool:
    """Whether numba is installed, on a machine whose byte order the kernels are written for."""
    return sys.byteorder == "little" and importlib.util.find_spec("numba") is not None


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` when it is first called, once a machine where its cache can be kept."""
    return _compiled(function, frozenset())


def inlined_jit(function: Callable[P, R]) -> Callable[P, R]:
    """As :func:`jit`, and put in the place of every call: for what takes a few nanoseconds."""
    return _compiled(function, frozenset(), forceinline=True)


def fast_jit(function: Callable[P, R]) -> Callable[P, R]:
    """As :func:`jit`, with sums in any order and fused multiply-add; NaN and infinity stay."""
    return _compiled(function, frozenset(("reassoc", "contract", "nsz")))


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let compiled functions call what ``function`` writes in LLVM's own language."""
    from numba import extending

    made: Callable[..., Any] = extending.intrinsic(function)
    return made


def _compiled(
    function: Callable[P, R], fastmath: frozenset[str], forceinline: bool = False
) -> Callable[P, R]:
    import numba

    options: dict[str, Any] = {
        "nogil": True,
        "fastmath": set(fastmath) or False,
        "error_model": "numpy",
        "forceinline": forceinline,
    }
    try:
        compiled: Callable[P, R] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        compiled = numba.njit(**options)(function)
    return compiled
