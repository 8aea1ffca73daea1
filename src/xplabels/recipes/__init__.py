"""Recipes: everything that decides how a network is trained, in one TOML file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from xplabels.core.bounds import read_toml
from xplabels.core.errors import InputError
from xplabels.core.labels import LABELS
from xplabels.features import AUXILIARY, CovarianceRule

Scatter = Literal["none", "dropout", "sampling", "ensemble", "distilled"]
Likelihood = Literal["gaussian", "student_t"]

LARGEST_WEIGHT = 1e6
"""Bound of the weights of labels in the loss."""
MOST_WEIGHTS = 1e8
"""Most weights of a network (0.4 GB); the default has half a million."""


def _within(low: float, high: float, default: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class Recipe:
    """How to train: every field is a key of the TOML file (documentation: Recipes).

    Examples
    --------
    >>> Recipe(hidden=(128, 128), epochs=20).dropout
    0.1
    """

    name: str = "custom"
    # inputs and their covariance; auxiliary "available": those that half of the stars have
    auxiliary: tuple[str, ...] = ("available",)
    covariance: CovarianceRule = "exact"
    extinction_error: bool = True
    flux_samples: int = _within(0, 343, 86)
    noise_levels: bool = True
    emphasis: float = _within(0, 1, 0.3)
    # labels whose logarithm is learned
    logarithmic: tuple[str, ...] = ("teff",)
    # augmentation of the training stars: dust, noise, hidden auxiliary inputs
    reddening: float = _within(0, 5, 0.3)
    fainter_share: float = _within(0, 1, 0.3)
    fainter_decades: float = _within(0, 3, 0.5)
    missing_fraction: float = _within(0, 0.9, 0.1)
    # network, likelihood and the model's part of the error
    hidden: tuple[int, ...] = (350, 350, 350, 350, 350)
    activation: Literal["silu", "relu", "tanh", "gelu", "softplus"] = "silu"
    dropout: float = _within(0, 0.9, 0.1)
    likelihood: Likelihood = "student_t"
    dof: float = _within(1, 1e6, 4.0)
    balance: float = _within(0, 1, 0.3)
    label_weights: Mapping[str, float] = field(default_factory=dict)
    scatter: Scatter = "dropout"
    passes: int = _within(2, 1e6, 50)
    members: int = _within(1, 1000, 1)
    # labels with a smaller share of the stars than this, relative to the commonest, are learnt last
    sparse_share: float = _within(0, 1, 0.1)
    sparse_epochs: int = _within(1, 1e6, 150)
    # teachers of a distilled network
    folds: int = _within(1, 1000, 1)
    teacher_hidden: tuple[int, ...] = (448, 448, 448, 448, 448)
    teacher_dropout: float = _within(0, 0.9, 0.1)
    teacher_epochs: int = _within(1, 1e6, 80)
    # what to do with stars whose label is probably wrong according to the calibration folds
    wrong_labels: Literal["keep", "leave_out"] = "keep"
    # schedule
    schedule: Literal["one_cycle", "fixed_batches"] = "one_cycle"
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = _within(1e-8, 10, 2e-3)
    weight_decay: float = _within(0, 10, 1e-2)
    batch_size: int = _within(1, 1e9, 512)
    epochs: int = _within(1, 1e6, 100)
    input_fraction: float = _within(0, 1, 0.15)
    iterations: int = _within(1, 1e9, 20000)
    warmup_iterations: int = _within(0, 1e9, 2500)
    scale: float = _within(1e-6, 1e6, 1.0)
    # calibration
    recalibrate: bool = True
    calibration_folds: int = _within(0, 20, 4)
    forward: bool = True
    # a label is null for kinds of stars of which fewer have it, relative to all training stars
    defined_share: float = _within(0, 1, 0.5)

    def __post_init__(self) -> None:
        def refuse(what: str, remedy: str | None = None) -> None:
            raise InputError(what, where=f"recipe {self.name}", remedy=remedy)

        for name, choices in _choices().items():
            value = getattr(self, name)
            for word in value if isinstance(value, tuple) else (value,):
                if word not in choices:
                    refuse(f"{name} = {word!r} is not known", f"choose among {', '.join(choices)}")
        for key in fields(self):
            if "range" in key.metadata:
                value, (low, high) = getattr(self, key.name), key.metadata["range"]
                if not low <= value <= high:
                    refuse(f"{key.name} = {value} should lie between {low:g} and {high:g}")
        for name in self.logarithmic:
            if name in LABELS and not LABELS[name].lowest > 0:
                refuse(f"logarithmic = {name!r}: it may be zero or negative, and has no logarithm")
        if self.calibration_folds == 1:
            refuse("calibration_folds = 1 would leave out all stars", "give 0, or at least 2")
        if self.wrong_labels == "leave_out" and not (self.recalibrate and self.calibration_folds):
            refuse("wrong_labels = 'leave_out' takes networks that did not see a star",
                   "give calibration_folds and recalibrate, or wrong_labels = 'keep'")  # fmt: skip
        for name in ("hidden", "teacher_hidden"):
            widths = getattr(self, name)
            if not widths or min(widths) < 1:
                refuse(f"{name} = {list(widths)} should be positive widths")
            weights = sum(a * b for a, b in pairwise((100, *widths)))
            if weights > MOST_WEIGHTS:
                refuse(f"{name} = {list(widths)} would be {weights:.0e} weights",
                       f"give widths that make no more than {MOST_WEIGHTS:.0e}")  # fmt: skip
        for name, weight in self.label_weights.items():
            if not 0 < weight < LARGEST_WEIGHT:
                refuse(f"label_weights: {name} = {weight} should lie between 0 and "
                       f"{LARGEST_WEIGHT:g}")  # fmt: skip
        if self.scatter == "ensemble" and self.members < 2:
            refuse(f"members = {self.members}: one network alone has no scatter",
                   "give at least 2 members, or another scatter")  # fmt: skip
        if self.scatter == "distilled" and self.members < self.folds:
            refuse(f"{self.members} teachers leave out only as many of the {self.folds} folds",
                   "give at least as many members as folds")  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """All keys, as they are saved with a model."""
        return asdict(self)


@cache
def _choices() -> dict[str, tuple[str, ...]]:
    """The words allowed for each key that takes words."""
    words = {name: get_args(kind) for name, kind in get_type_hints(Recipe).items()
             if getattr(kind, "__origin__", None) is Literal}  # fmt: skip
    return words | {"auxiliary": (*AUXILIARY, "available")}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """The recipe in a TOML file or, if there is no such file, the shipped one of this name.

    Raises
    ------
    InputError
        If there is no such recipe, the file is not TOML, or a key is unknown (the nearest known
        one is named), of the wrong type or out of range.

    Examples
    --------
    >>> load_recipe("paper").hidden
    (128, 128)
    """
    path = Path(name_or_path)
    if path.is_file():
        data, where = path.read_bytes(), str(path)
    elif str(name_or_path) in shipped_recipes():
        data = files("xplabels.recipes").joinpath(f"{name_or_path}.toml").read_bytes()
        where = f"recipe {name_or_path}"
    else:
        raise InputError(
            f"no recipe {str(name_or_path)!r}",
            remedy=f"name a TOML file or one of {', '.join(shipped_recipes())}",
        )
    return parse_recipe(read_toml(where, data), where)


def check_learnt(recipe: Recipe, labels: Sequence[str], where: object) -> None:
    """Raise :class:`InputError` if a recipe has keys for a label that is not among those learnt.

    Labels of :data:`~xplabels.core.labels.LABELS` may be logarithmic without being learnt: by
    default one is.
    """
    for key, named in (
        ("label_weights", set(recipe.label_weights)),
        ("logarithmic", set(recipe.logarithmic) - set(LABELS)),
    ):
        if strange := sorted(named - set(labels)):
            raise InputError(
                f"{key} names {', '.join(strange)}, which is not learnt",
                where=where,
                remedy=f"choose any of {', '.join(labels)}, or add the label to those to learn",
            )


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    entries = (entry.name for entry in files("xplabels.recipes").iterdir())
    return sorted(name.removesuffix(".toml") for name in entries if name.endswith(".toml"))


def parse_recipe(keys: dict[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from a mapping of keys, each checked; raises as :func:`load_recipe`."""
    defaults = asdict(_DEFAULT)
    values: dict[str, Any] = {}
    for key, value in keys.items():
        if key not in defaults:
            nearest = difflib.get_close_matches(key, defaults, n=1, cutoff=0.0)[0]
            raise InputError(
                f"unknown key {key!r}", where=where, remedy=f"did you mean {nearest!r}?"
            )
        values[key] = _converted(key, value, defaults[key], where)
    try:
        return Recipe(**values)
    except InputError as error:  # which names the recipe, not its file
        raise InputError(error.what, where=where, remedy=error.remedy) from None


def _converted(key: str, value: Any, default: Any, where: str) -> Any:
    """``value`` as the type of ``default``; integers pass as floats, nothing else converts."""
    if isinstance(default, tuple):
        kind, default = type(default[0]), list(default)
        if isinstance(value, (list, tuple)) and all(type(v) is kind for v in value):
            return tuple(value)
    elif isinstance(default, dict):
        default = {"fe_h": 2.0}
        if isinstance(value, dict) and all(type(v) in (int, float) for v in value.values()):
            return {name: float(weight) for name, weight in value.items()}
    elif isinstance(default, float) and type(value) in (int, float):
        return float(value)
    elif type(value) is type(default):
        return value
    raise InputError(f"{key} = {value!r} should be like {default!r}", where=where)


_DEFAULT = Recipe()
