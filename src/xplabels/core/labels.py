"""What is inferred: the labels, their units, and tables of known values with errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError


@dataclass(frozen=True)
class Label:
    """One quantity the network infers.

    ``lower`` and ``upper`` bound what is physically believable in a training table (in ``unit``);
    a value outside them is an input error, not a star.
    """

    name: str
    unit: str
    ucd: str
    description: str
    symbol: str
    lower: float
    upper: float


LABELS: dict[str, Label] = {
    label.name: label
    for label in (
        Label("teff", "K", "phys.temperature.effective", "Effective temperature",
              r"$T_\mathrm{eff}$", 1000.0, 60000.0),
        Label("logg", "dex", "phys.gravity", "Surface gravity, log10 of cm s-2",
              r"$\log g$", -2.0, 9.0),
        Label("fe_h", "dex", "phys.abund.Fe", "Iron abundance [Fe/H]",
              r"[Fe/H]", -6.0, 2.0),
        Label("c_fe", "dex", "phys.abund", "Carbon abundance [C/Fe]",
              r"[C/Fe]", -3.0, 4.0),
        Label("n_fe", "dex", "phys.abund", "Nitrogen abundance [N/Fe]",
              r"[N/Fe]", -3.0, 4.0),
        Label("alpha_m", "dex", "phys.abund", "Alpha-element abundance [alpha/M]",
              r"[$\alpha$/M]", -2.0, 2.0),
    )
}  # fmt: skip


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """``names`` as a tuple, each a key of :data:`LABELS` and none twice.

    Raises
    ------
    InputError
        If a name is unknown or repeated, or if there is none.
    """
    known = ", ".join(LABELS)
    if not names:
        raise InputError("no label was named", remedy=f"choose among {known}")
    for name in names:
        if name not in LABELS:
            raise InputError(f"unknown label {name!r}", remedy=f"choose among {known}")
    if len(set(names)) != len(names):
        raise InputError(f"a label is named twice in {','.join(names)}", remedy="name each once")
    return tuple(names)


def check_shapes(shape: tuple[int, ...], arrays: Mapping[str, NDArray[np.float64]]) -> None:
    """Raise :class:`InputError` unless both arrays have the shape."""
    if any(array.shape != shape for array in arrays.values()):
        found = " and ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InputError(f"{found} should both have the shape {shape}")


@dataclass(frozen=True)
class Labels:
    """Known labels of N stars: NaN where unknown.

    Attributes
    ----------
    names
        K names, keys of :data:`LABELS`.
    values, errors
        Float64 arrays [N, K] in the labels' units; an error is positive wherever its value is
        finite, and NaN where the value is.

    Examples
    --------
    >>> labels = Labels(("teff", "logg"), np.array([[4800.0, 2.4]]), np.array([[50.0, 0.1]]))
    >>> labels.select(["logg"]).values
    array([[2.4]])
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]

    def __post_init__(self) -> None:
        check_names(self.names)
        shape = (len(self.values), len(self.names))
        check_shapes(shape, {"label values": self.values, "errors": self.errors})

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Labels:
        return Labels(self.names, self.values[rows], self.errors[rows])

    def select(self, names: Sequence[str]) -> Labels:
        """The columns ``names``, in that order.

        Raises
        ------
        InputError
            If one of them is not here.
        """
        for name in check_names(names):
            if name not in self.names:
                raise InputError(
                    f"label {name!r} is absent",
                    remedy=f"the table has {', '.join(self.names)}; add {name} and {name}_err",
                )
        columns = [self.names.index(name) for name in names]
        return Labels(tuple(names), self.values[:, columns], self.errors[:, columns])
