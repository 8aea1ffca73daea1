"""The networks of one training run: one, an ensemble, or one that learns from teachers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xplabels.features.projection import FLUX_UNIT, Projection, default_projection
from xplabels.inference.network import Architecture, Perceptron
from xplabels.network import UncertainNetwork
from xplabels.network.propagation import Propagation
from xplabels.recipes import Recipe
from xplabels.training.checkpoint import Checkpoint
from xplabels.training.cross_fitting import Fold
from xplabels.training.distillation import Teachers
from xplabels.training.dust import Dust
from xplabels.training.noise_augmentation import NoiseAugmentation
from xplabels.training.optimisation import Progress, Sample, fit
from xplabels.training.table import TrainingTable

LOG_FLUX_EMPHASIS = 2.0
"""Standard deviation with which log flux enters the first layer, where a recipe has emphasis."""

History = dict[str, list[dict[str, float]]]


class Run:
    """Trains what a recipe asks for, on the training part of a table."""

    def __init__(
        self,
        table: TrainingTable,
        recipe: Recipe,
        seed: int,
        checkpoint: Checkpoint,
        progress: Progress,
        device: str = "cpu",
        prefix: str = "",
    ) -> None:
        self.device, self.prefix = device, prefix
        self.table, self.recipe, self.seed = table, recipe, seed
        self.checkpoint, self.progress = checkpoint, progress
        self.masks = len(table.feature_set.auxiliary) if recipe.missing_fraction > 0 else 0
        self.propagation = Propagation(
            table.feature_set, table.scaling, self.masks > 0, torch.float32, device
        )
        self.left_out: list[str] = []
        self.sampling = self._sampling()
        weights = self._weights()
        sample = replace(table.sample(table.train, device), weights=weights)
        self.training = self._faint(self._dusty(sample))
        self.validation = replace(table.sample(table.validation, device), weights=weights)

    def _weights(self) -> torch.Tensor | None:
        """Of the labels [K], if they differ."""
        told = self.recipe.label_weights
        if not told:
            return None
        return torch.tensor([told.get(name, 1.0) for name in self.table.names], device=self.device)

    def _sampling(self) -> Projection | None:
        """The sampling matrix of these widths, if it is known here."""
        if not (self.recipe.flux_samples or self.recipe.reddening):
            return None
        features = self.table.feature_set
        if features.projection is not None:
            return features.projection
        if features.widths == (55, 55) and importlib.util.find_spec("gaiaxpy"):
            return default_projection()
        self.left_out.append(
            "log flux and reddening: GaiaXPy is not installed or does not sample "
            f"{features.widths[0]} + {features.widths[1]} coefficients"
        )
        return None

    def _dusty(self, sample: Sample) -> Sample:
        """The training stars with the means to redden them, where the recipe asks for it."""
        if not self.recipe.reddening or self.sampling is None:
            return sample
        if not importlib.util.find_spec("dust_extinction"):
            self.left_out.append("reddening: dust_extinction is not installed")
            return sample
        table = self.table
        dust = Dust(
            table.stars, table.features, table.feature_set, table.scaling, self.sampling,
            self.device,
        )  # fmt: skip
        rows = torch.as_tensor(np.flatnonzero(table.train), device=self.device)
        return replace(sample, dust=dust, rows=rows)

    def _faint(self, sample: Sample) -> Sample:
        """The training stars with the means to dim them, where the recipe asks for it."""
        recipe, features = self.recipe, self.table.feature_set
        if not (recipe.fainter_share and recipe.fainter_decades and recipe.noise_levels):
            return sample
        faint = NoiseAugmentation(
            features, self.table.scaling, self.propagation.projection, self.device
        )
        return replace(sample, faint=faint)

    def networks(self) -> tuple[tuple[Perceptron, ...], History]:
        """The trained networks and the history of every stage."""
        one_or_more = self._distilled if self.recipe.scatter == "distilled" else self._alike
        networks, history = one_or_more()
        return tuple(network.to_perceptron() for network in networks), history

    def calibration_folds(self) -> Iterator[Fold]:
        """For each fold of the training stars, networks like the run's that never saw it."""
        folds = self.table.folds(self.recipe.calibration_folds)
        for number, left_out in enumerate(folds, start=1):
            yield Fold(left_out, self._without(left_out, f"fold-{number}-"))

    def _without(self, left_out: NDArray[np.bool_], prefix: str) -> tuple[Perceptron, ...]:
        """Networks of a run of its own, whose tensors go when it ends."""
        kept = replace(self.table, train=self.table.train & ~left_out)
        run = Run(kept, self.recipe, self.seed, self.checkpoint, self.progress, self.device, prefix)
        return run.networks()[0]

    def _alike(self) -> tuple[list[UncertainNetwork], History]:
        """One network, or the members of an ensemble."""
        recipe = self.recipe
        kind = "dropout" if recipe.scatter in ("dropout", "sampling") else "none"
        members = recipe.members if recipe.scatter == "ensemble" else 1
        architecture = self._architecture(recipe.hidden, recipe.dropout, kind)
        networks, history = [], {}
        for member in range(members):
            stage = "network" if members == 1 else f"member-{member + 1}"
            network, history[stage] = self._fit(
                architecture, stage, member, self.training, recipe.epochs
            )
            networks.append(network)
        return networks, history

    def _distilled(self) -> tuple[list[UncertainNetwork], History]:
        """Teachers, each of which may leave out a fold, then one network that learns from all."""
        recipe = self.recipe
        n = len(self.training)
        shuffle = torch.Generator().manual_seed(7_919 * self.seed + 1)
        fold = torch.randperm(n, generator=shuffle) % recipe.folds
        architecture = self._architecture(recipe.teacher_hidden, recipe.teacher_dropout, "none")
        teachers, history = [], {}
        for member in range(recipe.members):
            stage = f"teacher-{member + 1}"
            seen = fold != member % recipe.folds if recipe.folds > 1 else fold >= 0
            teacher, history[stage] = self._fit(
                architecture, stage, member,
                self.training.take(torch.nonzero(seen)[:, 0].to(self.device)),
                recipe.teacher_epochs, input_term=False,
            )  # fmt: skip
            teachers.append(teacher)
        taught = replace(
            self.training, teachers=Teachers(tuple(teachers), fold.to(self.device), recipe.folds)
        )
        student, history["student"] = self._fit(
            self._architecture(recipe.hidden, recipe.dropout, "distilled"),
            "student", recipe.members, taught, recipe.epochs,
        )  # fmt: skip
        return [student], history

    def _architecture(self, hidden: tuple[int, ...], dropout: float, scatter: Any) -> Architecture:
        table = self.table
        return Architecture(
            table.x.shape[1], self.masks, hidden, len(table.scaling.y_mean),
            self.recipe.activation, dropout, scatter,
            0 if self.sampling is None else self.recipe.flux_samples,
            table.feature_set.n_spectral, len(table.scaling.noise_mean),
        )  # fmt: skip

    def _fit(
        self, architecture: Architecture, stage: str, member: int, sample: Sample,
        epochs: int, input_term: bool = True,
    ) -> tuple[UncertainNetwork, list[dict[str, float]]]:  # fmt: skip
        stage = self.prefix + stage
        seed = 1000 * self.seed + member
        torch.manual_seed(seed)
        network = UncertainNetwork(architecture, self._input_scale(architecture))
        self._set_log_flux(network)
        network.to(self.device)
        history = fit(
            network, self.propagation, sample, self.validation, self.recipe,
            stage=stage, seed=seed, epochs=max(1, round(epochs * self.recipe.scale)),
            input_term=input_term, checkpoint=self.checkpoint, progress=self.progress,
        )  # fmt: skip
        return network, history

    def _input_scale(self, architecture: Architecture) -> torch.Tensor | None:
        """What lets the inputs that vary most come in larger: they are measured best, too."""
        if not self.recipe.emphasis:
            return None
        n = self.table.feature_set.n_spectral
        emphasis = np.ones(architecture.sizes[0])
        spread = np.nanstd(self.table.x[self.table.train, :n], axis=0)
        varies = spread > 0  # RP 0 is 1 for every star
        relative = spread[varies] / np.median(spread[varies])
        emphasis[:n][varies] = relative**self.recipe.emphasis
        if architecture.samples:
            emphasis[-architecture.samples :] = LOG_FLUX_EMPHASIS
        return torch.as_tensor(emphasis, dtype=torch.float32)

    def _set_log_flux(self, network: UncertainNetwork) -> None:
        """Wavelengths spread evenly over the sampling, statistics from the training stars."""
        if network.log_flux is None or self.sampling is None:
            return
        design = self.sampling.design / FLUX_UNIT
        chosen = np.linspace(0, len(design) - 1, self.recipe.flux_samples).round().astype(int)
        n = self.table.feature_set.n_spectral
        scaling = self.table.scaling

        def tensor(array: Any) -> torch.Tensor:
            return torch.as_tensor(array, dtype=torch.float32)

        network.log_flux.fit(
            tensor(design[chosen]),
            tensor(scaling.x_mean[:n]),
            tensor(scaling.x_scale[:n]),
            self.training.block.x.cpu(),
        )


class Bar:
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


def silent(
    stage: str, epoch: int, epochs: int, train: float, validation: float, left: float
) -> None:
    """Show nothing."""
