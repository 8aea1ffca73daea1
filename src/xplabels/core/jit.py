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


def fast_jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` when it is first called, once a machine where its cache can be kept.

    Sums may be made in any order and multiply-adds be fused; NaN and infinity stay.
    """
    import numba

    options: dict[str, Any] = {
        "nogil": True,
        "fastmath": {"reassoc", "contract", "nsz"},
        "error_model": "numpy",
    }
    try:
        compiled: Callable[P, R] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        compiled = numba.njit(**options)(function)
    return compiled
