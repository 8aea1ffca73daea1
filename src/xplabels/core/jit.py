"""Compile functions with numba, an extra, without which the decorated functions cannot run.

Modules of compiled functions import this one, and are themselves imported only if
:func:`available`. Numba's cache does not notice a change of the options below: after one, touch the
files of the functions, too.
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


def fast_jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` when it is first called, and cache the result on disk if possible.

    Sums may be made in any order and multiplications fused with additions, but NaN and infinity
    are handled as usual.
    """
    import numba

    options: dict[str, Any] = {
        "nogil": True,
        "fastmath": {"reassoc", "contract", "nsz"},
        "error_model": "numpy",
    }
    try:
        compiled: Callable[P, R] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # the cache can be written neither to the package's nor the user's folder
        compiled = numba.njit(**options)(function)
    return compiled
