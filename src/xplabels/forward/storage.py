"""Converts a forward model to named arrays and two numbers, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from xplabels.forward import ForwardModel, Layers, Tail
from xplabels.forward.directions import Directions

_TAILS = ("fit_tail", "either_tail", "distance_tail")
_KIND = "kind_tails.{}"
_LAYERS = ("network", "kinds")
_ARRAYS = ("spectra", "spread", "low", "high", "linear", "cap")
_TAIL_FIELDS = tuple(Tail.__dataclass_fields__)
_THRESHOLDS = ("threshold", "distance_threshold")


def to_arrays(model: ForwardModel) -> dict[str, NDArray[Any]]:
    """Everything but the thresholds, by names that begin with ``forward``."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(model, name) for name in _ARRAYS}
    for name in Directions.__dataclass_fields__:
        arrays[f"directions.{name}"] = getattr(model.directions, name)
    tails = {name: getattr(model, name) for name in _TAILS}
    tails |= {_KIND.format(number): tail for number, tail in enumerate(model.kind_tails)}
    for tail_name, tail in tails.items():
        for name in _TAIL_FIELDS:
            arrays[f"{tail_name}.{name}"] = getattr(tail, name)
    for layers in _LAYERS:
        for number, array in enumerate(getattr(model, layers).arrays):
            arrays[f"{layers}.{number}"] = array
    return {f"forward.{name}": array for name, array in arrays.items()}


def thresholds(model: ForwardModel) -> dict[str, float]:
    """The thresholds of the p-values as plain numbers, for JSON."""
    return {name: float(getattr(model, name)) for name in _THRESHOLDS}


def from_arrays(
    arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, float], n: int, labels: int
) -> ForwardModel:
    """The model from :func:`to_arrays` and :func:`thresholds`, for n coefficients and K labels.

    Raises KeyError or ValueError where the parts do not fit together.
    """

    def part(name: str) -> NDArray[Any]:
        return arrays[f"forward.{name}"]

    def layers(name: str, inputs: int, outputs: int) -> Layers:
        count = sum(key.startswith(f"forward.{name}.") for key in arrays)
        stack = tuple(part(f"{name}.{number}") for number in range(count))
        width = inputs
        for weight, bias in zip(stack[::2], stack[1::2], strict=True):
            if weight.shape != (width, len(bias)):
                raise ValueError(f"{name}: weights of the shape {weight.shape} after {width}")
            width = len(bias)
        if width != outputs:
            raise ValueError(f"{name} gives {width} numbers, expected {outputs}")
        return Layers(stack)

    directions = Directions(
        *(part(f"directions.{name}") for name in Directions.__dataclass_fields__)
    )
    k, d, f = len(part("cap")), len(part("spread")), labels + 1
    shapes: dict[str, tuple[int, ...]] = {
        "spectra": (k, n), "low": (f,), "high": (f,), "linear": (1 + f, k),
        "directions.centre": (n,), "directions.reference": (n,),
        "directions.axes": (n, k + d), "directions.measured": (n, k + d),
    }  # fmt: skip
    kinds = sum(key.startswith("forward.kind_tails.") for key in arrays) // len(_TAIL_FIELDS)
    kind_names = tuple(_KIND.format(number) for number in range(kinds))
    for name in (*_TAILS, *kind_names):
        sizes = (len(part(f"{name}.levels")), len(part(f"{name}.shares")))
        shapes[f"{name}.statistics"] = sizes
    for name, shape in shapes.items():
        if part(name).shape != shape:
            raise ValueError(f"forward.{name} has the shape {part(name).shape}, expected {shape}")
    fields: dict[str, Any] = {name: part(name) for name in _ARRAYS}
    tails = {
        name: Tail(*(part(f"{name}.{field}") for field in _TAIL_FIELDS))
        for name in (*_TAILS, *kind_names)
    }
    fields |= {name: tails[name] for name in _TAILS}
    fields["kind_tails"] = tuple(tails[name] for name in kind_names)
    fields |= {name: float(numbers[name]) for name in _THRESHOLDS}
    fields |= {"network": layers("network", f, 2 * k), "kinds": layers("kinds", k + f, kinds)}
    return ForwardModel(directions, **fields)
