"""Labels, which are what networks infer, their units, and tables of known values with errors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError


class Label(str):
    """One quantity that a network infers: its name, with unit, description and range.

    A label is a ``str``, so that it can be used wherever its name can; :func:`label_of` makes one
    from any name.

    Parameters
    ----------
    name
        Lower-case letters, digits and underscores.
    unit, ucd, description, symbol
        For catalogues, reports and figures. Unit and UCD are "" by default, description and symbol
        the name.
    lowest, highest
        Range of plausible values in a training table (in ``unit``); a value outside is an error.
    logarithmic
        Whether the label is positive and its logarithm is learned, because relative differences
        matter. For Teff, the recipe decides that.

    Examples
    --------
    >>> mass = Label("mass", unit="Msun", description="Stellar mass", lowest=0.01, highest=200)
    >>> mass == "mass", mass.unit, label_of("logg").description
    (True, 'Msun', 'Surface gravity, log10 of cm s-2')
    """

    unit: str
    ucd: str
    description: str
    symbol: str
    lowest: float
    highest: float
    logarithmic: bool

    def __new__(
        cls, name: str, unit: str = "", ucd: str = "", description: str = "", symbol: str = "",
        lowest: float = -math.inf, highest: float = math.inf, logarithmic: bool = False,
    ) -> Label:  # fmt: skip
        label = super().__new__(cls, name)
        label.unit, label.ucd = unit, ucd
        label.description, label.symbol = description or str(name), symbol or str(name)
        label.lowest, label.highest, label.logarithmic = lowest, highest, logarithmic
        return label

    @property
    def with_unit(self) -> str:
        """``teff [K]``."""
        return f"{self} [{self.unit}]" if self.unit else str(self)

    def about(self) -> dict[str, Any]:
        """The arguments, without the name, that differ from their defaults."""
        default = Label(self)
        return {key: value for key, value in vars(self).items() if value != vars(default)[key]}


LABELS: dict[str, Label] = {
    label: label
    for label in (
        Label("teff", "K", "phys.temperature.effective", "Effective temperature",
              r"$T_\mathrm{eff}$", 1000.0, 60000.0, logarithmic=True),
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
"""Labels with known units, UCDs and descriptions; any other number with an error can be a label."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TAKEN = re.compile(
    r"source_id|flags|flux|good|all|any|domain_distance|fit_chisq|fit_p_value|g_mag|bp_rp|"
    r"phot_\w+|[jhk]s?_m|w[12]mpro|parallax|(bp|rp)_coefficient\w*|"
    r"\w+_(err|error|error_95|error_model|error_input|error_excess|predicted|known|corr)"
)
"""Names of other columns in star tables, catalogues and reports, which no label can have."""


def label_of(name: str) -> Label:
    """The label of a name: itself, one of :data:`LABELS`, or one without unit and description."""
    return name if isinstance(name, Label) else LABELS.get(name) or Label(name)


def predicted(name: str) -> Label:
    """The axis along a label as predicted: ``teff_predicted``, with the label's unit and symbol."""
    label = label_of(name)
    about = {**label.about(), "description": f"{label.description}, predicted"}
    return Label(f"{name}_predicted", **{"symbol": label.symbol, **about})


def is_label_name(name: str) -> bool:
    """Whether a column of this name could be a label."""
    return bool(_NAME.fullmatch(name)) and not _TAKEN.fullmatch(name)


def check_names(names: Sequence[str]) -> tuple[Label, ...]:
    """The labels of ``names``, in lower case, none twice.

    Raises
    ------
    InputError
        If a name cannot be that of a label or is repeated, or if there is none.
    """
    names = [names] if isinstance(names, str) else names
    if not names:
        raise InputError("no label was named", remedy="name columns of numbers with errors")
    labels = tuple(label_of(name if isinstance(name, Label) else name.lower()) for name in names)
    for label in labels:
        if not _NAME.fullmatch(label):
            raise InputError(
                f"{label!r} cannot be the name of a label",
                remedy="begin with a letter, and use letters, digits and underscores, 40 at most",
            )
        if _TAKEN.fullmatch(label):
            raise InputError(
                f"{label!r} cannot be the name of a label: it is that of another column",
                remedy="rename the column and that of its errors",
            )
    if len(set(labels)) != len(labels):
        raise InputError(f"a label is named twice in {','.join(names)}", remedy="name each once")
    return labels


def unit_factor(unit: str, wanted: str, name: str) -> float:
    """The factor that converts numbers in ``unit`` to the unit ``wanted``; 1 if one of them is "".

    Raises :class:`InputError` if that is not possible.
    """
    if unit == wanted or not unit or not wanted:
        return 1.0
    from astropy.units import Unit

    try:
        return float(Unit(unit).to(Unit(wanted)))
    except (ValueError, TypeError):  # UnitConversionError, or no unit that astropy has
        raise InputError(
            f"label {str(name)!r} is in {unit} and cannot be converted to {wanted}",
            remedy=f"give it in {wanted}",
        ) from None


def is_unit(text: str) -> bool:
    """Whether astropy has such a unit."""
    from astropy.units import Unit

    try:
        Unit(text)
    except (ValueError, TypeError):
        return False
    return True


Rows = int | NDArray[np.bool_] | NDArray[np.intp] | slice
"""An index of stars: a mask, row numbers, a slice, or the number of one star."""


def rows_of(rows: Any, count: int, instead: str = "a mask, a slice or numbers") -> Any:
    """An index that selects ``rows`` of arrays [count, ...] without dropping an axis.

    Raises IndexError beyond the last star, as iteration needs, and :class:`InputError` for text,
    whose remedy is ``instead``.

    Examples
    --------
    >>> rows_of(-1, 5)
    slice(4, 5, None)
    """
    if isinstance(rows, str):
        raise InputError(f"{rows!r} does not choose stars", remedy=f"use {instead}")
    if isinstance(rows, int | np.integer) and not isinstance(rows, bool):
        row = range(count)[rows]
        return slice(row, row + 1)
    return rows


def check_shapes(shape: tuple[int, ...], arrays: Mapping[str, NDArray[np.float64]]) -> None:
    """Raise :class:`InputError` unless both arrays have the shape."""
    if any(array.shape != shape for array in arrays.values()):
        found = " and ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InputError(f"{found} should both have the shape {shape}")


@dataclass(frozen=True, repr=False)
class Labels:
    """Known labels of N stars: NaN where unknown.

    Attributes
    ----------
    names
        K names; each becomes a :class:`Label`.
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
        object.__setattr__(self, "names", check_names(self.names))
        shape = (len(self.values), len(self.names))
        check_shapes(shape, {"label values": self.values, "errors": self.errors})

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        known = np.isfinite(self.values).sum(axis=0)
        each = (f"{label_of(n).with_unit} of {k:,}" for n, k in zip(self.names, known, strict=True))
        return f"Labels(N = {len(self)}: {', '.join(each)})"

    def __getitem__(self, rows: Rows) -> Labels:
        rows = rows_of(rows, len(self), f"labels.select([{rows!r}]).values")
        return Labels(self.names, self.values[rows], self.errors[rows])

    def extended(self, names: Sequence[str]) -> Labels:
        """With those of the labels ``names`` added that are absent, as unknown for every star."""
        absent = [name for name in names if name not in self.names]
        unknown = np.full((len(self), len(absent)), np.nan)
        values, errors = (np.hstack([array, unknown]) for array in (self.values, self.errors))
        return Labels((*self.names, *absent), values, errors)

    def in_units_of(self, others: Sequence[str]) -> Labels:
        """The same labels with the units and descriptions of ``others``, if they have any.

        A label without a unit is assumed to be in the other's. Raises :class:`InputError` if one
        unit cannot be converted to the other.
        """
        words = {str(label): label.about() for label in map(label_of, others)}
        names = tuple(
            Label(name, **{**label_of(name).about(), **words.get(name, {})}) for name in self.names
        )
        factor = np.array([
            unit_factor(label_of(own).unit, label_of(other).unit, own)
            for own, other in zip(self.names, names, strict=True)
        ])  # fmt: skip
        return Labels(names, self.values * factor, self.errors * factor)

    def select(self, names: Sequence[str]) -> Labels:
        """The columns ``names``, in that order, in the units of those that have one.

        Raises
        ------
        InputError
            If one of them is not here, or cannot be converted.
        """
        wanted = check_names(names)
        for name in wanted:
            if name not in self.names:
                raise InputError(
                    f"label {name!r} is absent",
                    remedy=f"the table has {', '.join(self.names)}; add {name} and {name}_err",
                )
        columns = [self.names.index(name) for name in wanted]
        own = tuple(self.names[column] for column in columns)
        chosen = Labels(own, self.values[:, columns], self.errors[:, columns])
        return chosen.in_units_of(wanted)
