"""Recipes: everything that decides how a network is trained, in one TOML file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from xplabels.core.errors import InputError
from xplabels.features import AUXILIARY, CovarianceRule

Scatter = Literal["none", "dropout", "sampling", "ensemble", "distilled"]


@dataclass(frozen=True)
class Recipe:
    """How to train; every field is a key of the TOML file.

    Attributes
    ----------
    auxiliary
        Inputs beside the spectra; ``available``: those that at least half of the training stars
        have.
    covariance, extinction_error
        See :class:`~xplabels.features.FeatureSet`.
    reddening
        Scatter, in magnitudes of A_V, of the dust added to or taken from training stars (see
        :mod:`xplabels.training.dust`), or 0. Like ``flux_samples`` it needs the sampling matrix.
    fainter_share, fainter_decades
        Share of the training stars of a batch that get noise added, and by how many powers of ten
        their errors grow at most (:mod:`xplabels.training.noise_augmentation`). It needs
        ``noise_levels``.
    missing_fraction
        Share of the stars of which some or all auxiliary inputs are hidden while training, anew
        each epoch; the network is told which are missing. 0: it is not told, and missing inputs
        are only completed.
    flux_samples
        Number of wavelengths whose log flux is put beside the coefficients, or 0. It needs the
        sampling matrix, which is known for 55 + 55 coefficients.
    noise_levels
        Whether the network is told how noisy BP and RP are: the best weight of a weak
        coefficient depends on it, and so does what the labels' error is made of.
    emphasis
        Spectral inputs enter the first layer in proportion to the power ``emphasis`` of their
        scatter: 0: all alike (z-scores), 1: as they are. The weak coefficients are mostly noise.
    hidden, activation, dropout
        See :class:`~xplabels.network.Architecture`.
    scatter
        The model's part of the error: ``none``, ``dropout`` (delta method), ``sampling``
        (``passes`` dropout passes, median and scatter), ``ensemble`` (of ``members`` networks)
        or ``distilled`` (one network that learns an ensemble's mean and scatter).
    members
        Networks in an ensemble, or teachers of a distilled network.
    folds, teacher_hidden, teacher_dropout, teacher_epochs
        With several folds each teacher leaves out one of them, a part of the training stars, so
        that residuals
        are of unseen stars; it may be larger than the network that is kept.
    likelihood, dof
        See :mod:`xplabels.network.likelihood`.
    label_weights
        Label -> how much it counts in the loss, relative to 1 for the others: a table in TOML.
    schedule
        ``one_cycle``: ``epochs`` passes in shuffled batches, learning rate up and down once.
        ``fixed_batches``: the paper's, ``iterations`` steps on each batch in turn.
    input_fraction
        Share of the epochs, at the end, whose loss has the input and dropout terms and no
        dropout masks: what is added at prediction is then in the loss.
    recalibrate
        Whether error bars are made to hold what they say on stars that the network did not see: the
        validation part, and the folds of ``calibration_folds``.
    calibration_folds
        Parts of the training stars each of which is left out once by a further training, so that
        ``recalibrate`` has nearly ten times as many unseen stars (see
        :mod:`xplabels.training.cross_fitting`); 0: the validation part alone, in a quarter of the
        time.
    scale
        Multiplies epochs or iterations.
    """

    name: str = "custom"
    auxiliary: tuple[str, ...] = ("available",)
    covariance: CovarianceRule = "exact"
    extinction_error: bool = True
    reddening: float = 0.3
    fainter_share: float = 0.3
    fainter_decades: float = 0.5
    missing_fraction: float = 0.1
    flux_samples: int = 86
    noise_levels: bool = True
    emphasis: float = 0.3
    hidden: tuple[int, ...] = (350, 350, 350, 350, 350)
    activation: str = "silu"
    dropout: float = 0.1
    scatter: Scatter = "dropout"
    passes: int = 50
    members: int = 1
    folds: int = 1
    likelihood: Literal["gaussian", "student_t"] = "student_t"
    dof: float = 4.0
    label_weights: Mapping[str, float] = field(default_factory=dict)
    schedule: Literal["one_cycle", "fixed_batches"] = "one_cycle"
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    batch_size: int = 512
    epochs: int = 100
    input_fraction: float = 0.15
    teacher_hidden: tuple[int, ...] = (448, 448, 448, 448, 448)
    teacher_dropout: float = 0.1
    teacher_epochs: int = 80
    iterations: int = 20000
    warmup_iterations: int = 2500
    recalibrate: bool = True
    calibration_folds: int = 4
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            for value in _values(getattr(self, name)):
                if value not in choices:
                    raise InputError(
                        f"{name} = {value!r} is not known",
                        where=f"recipe {self.name}",
                        remedy=f"choose among {', '.join(map(str, choices))}",
                    )
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(
                    f"{name} = {value} should lie between {low:g} and {high:g}",
                    where=f"recipe {self.name}",
                )
        if self.calibration_folds == 1:
            raise InputError(
                "calibration_folds = 1 would leave out all stars",
                where=f"recipe {self.name}",
                remedy="give 0, or at least 2",
            )
        for name in ("hidden", "teacher_hidden"):
            if not getattr(self, name) or any(width < 1 for width in getattr(self, name)):
                raise InputError(
                    f"{name} = {list(getattr(self, name))} should be positive widths",
                    where=f"recipe {self.name}",
                )
        for name, weight in self.label_weights.items():
            if not 0 < weight < LARGEST_WEIGHT:
                raise InputError(
                    f"label_weights: {name} = {weight} should lie between 0 and {LARGEST_WEIGHT:g}",
                    where=f"recipe {self.name}",
                )
        if self.scatter == "ensemble" and self.members < 2:
            raise InputError(
                f"members = {self.members}: one network alone has no scatter",
                where=f"recipe {self.name}",
                remedy="give at least 2 members, or another scatter",
            )
        if self.scatter == "distilled" and self.members < self.folds:
            raise InputError(
                f"{self.members} teachers leave out only as many of the {self.folds} folds",
                where=f"recipe {self.name}",
                remedy="give at least as many members as folds",
            )

    def to_dict(self) -> dict[str, Any]:
        """All keys, as they are saved with a model."""
        return asdict(self)


LARGEST_WEIGHT = 1e6
_CHOICES: dict[str, tuple[Any, ...]] = {
    "auxiliary": (*AUXILIARY, "available"),
    "covariance": ("exact", "fs24"),
    "activation": ("silu", "relu", "tanh", "gelu", "softplus"),
    "scatter": ("none", "dropout", "sampling", "ensemble", "distilled"),
    "likelihood": ("gaussian", "student_t"),
    "schedule": ("one_cycle", "fixed_batches"),
    "optimizer": ("adamw", "adam"),
}
_RANGES: dict[str, tuple[float, float]] = {
    "reddening": (0, 5),
    "emphasis": (0, 1),
    "fainter_share": (0, 1),
    "fainter_decades": (0, 3),
    "missing_fraction": (0, 0.9),
    "flux_samples": (0, 343),
    "dropout": (0, 0.9),
    "teacher_dropout": (0, 0.9),
    "passes": (2, 1e6),
    "members": (1, 1000),
    "folds": (1, 1000),
    "calibration_folds": (0, 20),
    "dof": (1, 1e6),
    "learning_rate": (1e-8, 10),
    "weight_decay": (0, 10),
    "batch_size": (1, 1e9),
    "epochs": (1, 1e6),
    "teacher_epochs": (1, 1e6),
    "input_fraction": (0, 1),
    "iterations": (1, 1e9),
    "warmup_iterations": (0, 1e9),
    "scale": (1e-6, 1e6),
}


def _values(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def load_recipe(name_or_path: str | Path) -> Recipe:
    """The recipe of a shipped name or of a TOML file; an existing file beats a name.

    Raises
    ------
    InputError
        If there is no such recipe, the file is no TOML, or a key is unknown (the nearest known
        one is named), of the wrong type or out of range.

    Examples
    --------
    >>> load_recipe("paper").hidden
    (128, 128)
    """
    path = Path(name_or_path)
    if path.is_file():
        where = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read as text: {error}", where=where) from None
    else:
        shipped = files("xplabels.recipes").joinpath(f"{name_or_path}.toml")
        if not shipped.is_file():
            raise InputError(
                f"no recipe {str(name_or_path)!r}",
                remedy=f"name a TOML file or one of {', '.join(shipped_recipes())}",
            )
        text, where = shipped.read_text(encoding="utf-8"), f"recipe {name_or_path}"
    try:
        return parse_recipe(tomllib.loads(text), where)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"not a TOML file: {error}", where=where) from None


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    entries = (entry.name for entry in files("xplabels.recipes").iterdir())
    return sorted(name.removesuffix(".toml") for name in entries if name.endswith(".toml"))


def parse_recipe(keys: dict[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from a mapping of keys, each checked.

    Raises
    ------
    InputError
        As :func:`load_recipe`.
    """
    known = {f.name: f for f in fields(Recipe)}
    values: dict[str, Any] = {}
    for key, value in keys.items():
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise InputError(
                f"unknown key {key!r}", where=where, remedy=f"did you mean {nearest!r}?"
            )
        values[key] = _converted(key, value, getattr(_DEFAULT, key), where)
    try:
        return Recipe(**values)
    except InputError as error:  # which knows the recipe's name only, if it has one
        raise InputError(error.what, where=where, remedy=error.remedy) from None


def _converted(key: str, value: Any, default: Any, where: str) -> Any:
    """``value`` as the type of ``default``; integers pass as floats, nothing else converts."""
    if isinstance(default, tuple):
        kind: type = int if key.endswith("hidden") else str
        if isinstance(value, (list, tuple)) and all(type(v) is kind for v in value):
            return tuple(value)
    elif isinstance(default, dict):
        if isinstance(value, dict) and all(type(v) in (int, float) for v in value.values()):
            return {name: float(weight) for name, weight in value.items()}
        default = {"fe_h": 2.0}
    elif isinstance(default, float) and type(value) in (int, float):
        return float(value)
    elif type(value) is type(default):
        return value
    raise InputError(
        f"{key} = {value!r} should be like {list(default) if isinstance(default, tuple) else default!r}",  # noqa: E501
        where=where,
    )


_DEFAULT = Recipe()
