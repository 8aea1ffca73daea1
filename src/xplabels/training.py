"""Stars with known labels and a recipe -> a model."""

from __future__ import annotations

import hashlib
import math
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xplabels import __version__
from xplabels.calibration import Calibration
from xplabels.checkpoint import Checkpoint
from xplabels.domain import Domain
from xplabels.errors import InputError
from xplabels.features import AUXILIARY, Features, FeatureSet
from xplabels.flags import UNUSABLE
from xplabels.labels import Labels, check_names
from xplabels.model import Model, propagate
from xplabels.model_card import write_card
from xplabels.network import Architecture, UncertainNetwork
from xplabels.optimisation import Lesson, Progress, Sample, fit
from xplabels.propagation import Block, Propagated, Propagation
from xplabels.recipes import Recipe, load_recipe
from xplabels.scaling import Scaling
from xplabels.split import VALIDATION_FRACTION, part_mask
from xplabels.stars import Stars

SMALLEST_TRAINING, SMALLEST_VALIDATION = 200, 30
"""Fewer stars than this cannot train a network, or tell whether its errors are right."""


def train(
    stars: Stars,
    labels: Sequence[str],
    recipe: Recipe | str = "default",
    *,
    seed: int = 0,
    test_fraction: float = 0.1,
    checkpoint: Path | None = None,
    progress: bool = True,
    name: str = "",
) -> Model:
    """Train a model on the training part of ``stars``.

    Parameters
    ----------
    stars
        With known labels; a star counts for each label that it has.
    labels
        Names of the labels to learn.
    recipe
        A recipe, or the name or path of one.
    seed
        The result depends on nothing but the stars, the recipe and this number.
    test_fraction
        Share of the stars, by hash of the source_id, that is never touched here.
    checkpoint
        A folder for the states of the run; if it holds those of the same run, training goes on
        where that one stopped.
    progress
        Whether to show epochs, losses and the time left.
    name
        Name of the model, for its card and catalogues.

    Raises
    ------
    InputError
        If a label is unknown or absent, an error is zero or negative, there are too few stars,
        or the checkpoint belongs to another run.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from xplabels.recipes import Recipe
    >>> from xplabels.synthetic import example_stars
    >>> quick = Recipe(hidden=(16,), epochs=2, missing_fraction=0.0)
    >>> model = train(example_stars(600), ["teff", "logg"], quick, progress=False)
    >>> model.names
    ('teff', 'logg')
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    names = check_names(labels)
    table = _training_table(stars, names, recipe, test_fraction)
    manifest = {
        "recipe": recipe.to_dict(), "seed": seed, "labels": list(names),
        "training": table.provenance(), "data": table.digest(), "version": __version__,
    }  # fmt: skip
    run = _Run(
        table, recipe, seed, Checkpoint(checkpoint, manifest), _Bar() if progress else _silent
    )
    networks, history = run.networks()
    model = Model(
        names,
        table.feature_set,
        table.scaling,
        networks,
        recipe,
        _calibrate(table, networks, run.propagation, recipe),
        Domain.fit(run.propagation.network_input(run.training.block)[:, : table.x.shape[1]]
                   .numpy().astype(np.float64)),
        np.stack([np.nanmin(table.y[table.train], 0), np.nanmax(table.y[table.train], 0)], axis=1),
        _metadata(table, recipe, seed, test_fraction, history, name),
    )  # fmt: skip
    model = replace(model, metadata=model.metadata | {"validation": _validate(model, table)})
    return replace(model, card=write_card(model))


@dataclass(frozen=True)
class _Table:
    """Usable stars with features, labels, the split and training statistics."""

    stars: Stars
    feature_set: FeatureSet
    features: Features
    y: NDArray[np.float64]
    y_error: NDArray[np.float64]
    train: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    scaling: Scaling

    @property
    def x(self) -> NDArray[np.float64]:
        return self.features.x

    def sample(self, rows: NDArray[np.bool_]) -> Sample:
        """Float32 tensors of some stars."""
        block = Block.of(self.features, self.feature_set, self.scaling, torch.float32)
        y, error = self.scaling.scale_y(self.y[rows], self.y_error[rows])
        chosen = torch.as_tensor(np.flatnonzero(rows))
        return Sample(
            block.take(chosen),
            torch.as_tensor(y, dtype=torch.float32),
            torch.as_tensor(np.nan_to_num(error), dtype=torch.float32),
        )

    def provenance(self) -> dict[str, Any]:
        """Which stars trained: origin, number, digest of their ids."""
        ids = np.sort(self.stars.source_id[self.train])
        return {
            "origin": self.stars.origin,
            "n_train": int(self.train.sum()),
            "n_validation": int(self.validation.sum()),
            "source_id_sha256": hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest(),
            "n_per_label": np.isfinite(self.y[self.train]).sum(axis=0).tolist(),
            "notes": list(self.stars.notes),
        }

    def digest(self) -> str:
        """Of the inputs and labels themselves: a checkpoint must not outlive a change of them."""
        whole = hashlib.sha256()
        for array in (self.features.x, self.features.errors, self.y, self.y_error):
            whole.update(np.ascontiguousarray(array).tobytes())
        return whole.hexdigest()


def _training_table(
    stars: Stars, names: tuple[str, ...], recipe: Recipe, test_fraction: float
) -> _Table:
    """Everything about the stars that training needs, the test part left out."""
    if stars.labels is None:
        raise InputError(
            "the stars have no labels to learn", where=stars.origin or None,
            remedy=f"add columns such as {names[0]} and {names[0]}_err",
        )  # fmt: skip
    labels = _checked(stars.labels.select(names), stars)
    kept = ~part_mask(stars.source_id, "test", test_fraction)
    kept &= (stars.flags & np.uint32(UNUSABLE)) == 0
    known = np.isfinite(labels.values) & np.isfinite(labels.errors)
    kept &= known.any(axis=1)
    stars, labels = stars[kept], labels[kept]
    auxiliary = recipe.auxiliary or _available(stars)
    feature_set = FeatureSet.for_stars(
        stars, auxiliary, covariance=recipe.covariance, extinction_error=recipe.extinction_error
    )
    features = feature_set.compute(stars)
    n = feature_set.n_spectral
    whole = np.isfinite(features.x[:, :n]).all(axis=1) & np.isfinite(features.errors).all(axis=1)
    # divided by an error instead of RP 0, inputs have another scale: one such star would spoil
    # the training statistics of all
    whole &= features.is_ratio
    train = whole & part_mask(stars.source_id, "train", test_fraction)
    validation = whole & part_mask(stars.source_id, "validation", test_fraction)
    for part, rows, least in (
        ("training", train, SMALLEST_TRAINING),
        ("validation", validation, SMALLEST_VALIDATION),
    ):
        if rows.sum() < least:
            raise InputError(
                f"only {int(rows.sum())} usable stars in the {part} part, {least} are needed",
                where=stars.origin or None,
                remedy="give more stars with labels and spectra",
            )
    y = np.where(known[kept], labels.values, np.nan)
    y_error = np.where(known[kept], labels.errors, np.nan)
    for k, name in enumerate(names):
        for part, rows, least in (("training", train, SMALLEST_TRAINING),
                                  ("validation", validation, SMALLEST_VALIDATION)):  # fmt: skip
            if (count := int(np.isfinite(y[rows, k]).sum())) < least:
                raise InputError(
                    f"only {count} stars of the {part} part have {name}, {least} are needed",
                    where=stars.origin or None,
                    remedy=f"give more stars with {name}, or train without it",
                )
    scaling = Scaling.fit(features.x[train], y[train])
    return _Table(stars, feature_set, features, y, y_error, train, validation, scaling)


def _checked(labels: Labels, stars: Stars) -> Labels:
    """The labels, if every known one has a positive error."""
    bad = np.isfinite(labels.values) & (labels.errors <= 0)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        name = labels.names[column]
        raise InputError(
            f"{name}_err is {labels.errors[row, column]:g}, an error must be positive "
            f"({int(bad.sum())} such entries)",
            where=f"{stars.origin or 'training stars'}, source_id {stars.source_id[row]}",
            remedy=f"leave {name} empty where its error is not known",
        )
    return labels


def _available(stars: Stars) -> tuple[str, ...]:
    """The auxiliary inputs that at least half of the stars have."""
    photometry = stars.photometry

    def share(name: str) -> float:
        present = [np.isfinite(photometry.column(part)[0]) for part in AUXILIARY[name]]
        return float(np.mean(np.all(present, axis=0)))

    return tuple(name for name in AUXILIARY if share(name) >= 0.5)


class _Run:
    """The networks of one training run."""

    def __init__(
        self, table: _Table, recipe: Recipe, seed: int, checkpoint: Checkpoint, progress: Progress
    ) -> None:
        self.table, self.recipe, self.seed = table, recipe, seed
        self.checkpoint, self.progress = checkpoint, progress
        self.masks = len(table.feature_set.auxiliary) if recipe.missing_fraction > 0 else 0
        self.propagation = Propagation(
            table.feature_set, table.scaling, self.masks > 0, torch.float32
        )
        self.training = table.sample(table.train)
        self.validation = table.sample(table.validation)

    def networks(self) -> tuple[tuple[UncertainNetwork, ...], dict[str, list[dict[str, float]]]]:
        """The trained networks, and the history of every stage."""
        recipe = self.recipe
        if recipe.scatter == "distilled":
            return self._distilled()
        kind = "dropout" if recipe.scatter in ("dropout", "sampling") else "none"
        members = recipe.members if recipe.scatter == "ensemble" else 1
        architecture = self._architecture(recipe.hidden, recipe.dropout, kind)
        networks, history = [], {}
        for member in range(members):
            stage = "network" if members == 1 else f"member-{member + 1}"
            network, history[stage] = self._fit(
                architecture, stage, member, self.training, recipe.epochs, recipe.input_fraction
            )
            networks.append(network)
        return tuple(networks), history

    def _distilled(
        self,
    ) -> tuple[tuple[UncertainNetwork, ...], dict[str, list[dict[str, float]]]]:
        """Teachers that each leave out a fold, then one network that learns from all."""
        recipe = self.recipe
        n = len(self.training)
        shuffle = torch.Generator().manual_seed(7_919 * self.seed + 1)
        fold = torch.randperm(n, generator=shuffle) % recipe.folds
        patterns = 2 ** len(self.table.feature_set.auxiliary) if self.masks else 1
        told = torch.zeros((recipe.members, n, patterns, len(self.table.scaling.y_mean)))
        architecture = self._architecture(recipe.teacher_hidden, recipe.teacher_dropout, "none")
        history = {}
        for member in range(recipe.members):
            stage = f"teacher-{member + 1}"
            seen = torch.nonzero(fold != member % recipe.folds)[:, 0]
            teacher, history[stage] = self._fit(
                architecture, stage, member, self.training.take(seen), recipe.teacher_epochs, 0.0
            )
            told[member] = self._say(teacher, patterns)
        unseen = torch.stack([fold == member % recipe.folds for member in range(recipe.members)])
        weight = (unseen / unseen.sum(dim=0))[:, :, None, None]
        lesson = Lesson(told.mean(dim=0), told.var(dim=0), (told * weight).sum(dim=0))
        student, history["student"] = self._fit(
            self._architecture(recipe.hidden, recipe.dropout, "distilled"),
            "student", recipe.members, replace(self.training, lesson=lesson),
            recipe.epochs, recipe.input_fraction,
        )  # fmt: skip
        return (student,), history

    def _say(self, teacher: UncertainNetwork, patterns: int) -> torch.Tensor:
        """Labels [N, patterns, K] of the training stars with further inputs hidden."""
        block = self.training.block
        said = []
        for number in range(patterns):
            hidden = torch.tensor(
                [bool(number >> a & 1) for a in range(block.missing.shape[1])], dtype=torch.bool
            )
            with torch.no_grad():
                x = self.propagation.network_input(block.hide(hidden))
                said.append(torch.cat([teacher(part).labels for part in x.split(4096)]))
        return torch.stack(said, dim=1)

    def _architecture(self, hidden: tuple[int, ...], dropout: float, scatter: Any) -> Architecture:
        return Architecture(
            self.table.x.shape[1], self.masks, hidden, len(self.table.scaling.y_mean),
            self.recipe.activation, dropout, scatter,
        )  # fmt: skip

    def _fit(
        self, architecture: Architecture, stage: str, member: int, sample: Sample,
        epochs: int, input_fraction: float,
    ) -> tuple[UncertainNetwork, list[dict[str, float]]]:  # fmt: skip
        seed = 1000 * self.seed + member
        torch.manual_seed(seed)
        network = UncertainNetwork(architecture)
        history = fit(
            network, self.propagation, sample, self.validation, self.recipe,
            stage=stage, seed=seed, epochs=max(1, round(epochs * self.recipe.scale)),
            input_fraction=input_fraction, checkpoint=self.checkpoint, progress=self.progress,
        )  # fmt: skip
        return network, history


def _calibrate(
    table: _Table, networks: tuple[UncertainNetwork, ...], propagation: Propagation, recipe: Recipe
) -> Calibration:
    """Factors from the validation part, with photometry as it is."""
    if not recipe.recalibrate:
        return Calibration.nominal(len(table.scaling.y_mean), recipe.likelihood, recipe.dof)
    sample = table.sample(table.validation)
    parts = []
    with torch.no_grad():
        for rows in torch.arange(len(sample)).split(2048):
            parts.append(propagate(networks, propagation, sample.block.take(rows), recipe))
    out = Propagated(*(torch.cat(p).double() for p in zip(*parts, strict=True)))
    return Calibration.fit(
        (sample.y - out.labels).numpy(), out.variance.numpy(), sample.y_error.double().numpy()
    )


def _validate(model: Model, table: _Table) -> dict[str, Any]:
    """Scores of the validation part, which chose the calibration: not an independent test."""
    from xplabels.validation import validate

    rows = table.validation
    known = Labels(model.names, table.y[rows], table.y_error[rows])
    scores: dict[str, Any] = validate(model.predict(table.stars[rows]), known).to_metrics()
    return {"n": scores["n"], "labels": scores["labels"]}


def _metadata(
    table: _Table, recipe: Recipe, seed: int, test_fraction: float,
    history: dict[str, list[dict[str, float]]], name: str,
) -> dict[str, Any]:  # fmt: skip
    return {
        "name": name or recipe.name,
        "training": table.provenance(),
        "split": {
            "rule": "u = first 8 hex digits of sha256(str(source_id)) / 2^32; "
            "test: u < test_fraction; validation: the next validation_fraction; else training",
            "test_fraction": test_fraction,
            "validation_fraction": VALIDATION_FRACTION,
        },
        "seed": seed,
        "history": {
            stage: [{k: _finite(v) for k, v in entry.items()} for entry in entries]
            for stage, entries in history.items()
        },
        "versions": {
            "xplabels": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


class _Bar:
    """One progress line a stage: epoch, losses, time left."""

    def __init__(self) -> None:
        self.interactive = sys.stderr.isatty()

    def __call__(
        self, stage: str, epoch: int, epochs: int, train: float, validation: float, left: float
    ) -> None:
        line = (
            f"{stage}: epoch {epoch}/{epochs}  loss {train:.3f}  validation {validation:.3f}  "
            f"{left:.0f} s left"
        )
        if self.interactive:
            print(f"\r{line:78s}", end="\n" if epoch == epochs else "", file=sys.stderr, flush=True)
        elif epoch == epochs or epoch % max(1, epochs // 10) == 0:
            print(line, file=sys.stderr, flush=True)


def _silent(
    stage: str, epoch: int, epochs: int, train: float, validation: float, left: float
) -> None:
    """Show nothing."""
