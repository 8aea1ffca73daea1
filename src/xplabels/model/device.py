"""Where tensors live: the CPU, or a GPU if the machine has one."""

from __future__ import annotations

import torch

from xplabels.core.errors import InputError


def best_device() -> str:
    """``cuda`` where torch sees a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str) -> str:
    """``name``, if tensors can be there.

    Raises
    ------
    InputError
        If torch knows no such device, or this machine has none.

    Examples
    --------
    >>> check_device("cpu")
    'cpu'
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch built without a GPU's code asserts
        raise InputError(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}",
            remedy="choose cpu, or cuda on a machine with a GPU",
        ) from None
    return name
