"""The networks of one training run: one, an ensemble, or one that learns from teachers.

Labels that few stars have come last, as last layers on the hidden layers of a network for the
others. Thousands of stars with common labels teach a network what a spectrum holds; a rare label
then is a linear function of what all its hidden layers hold, which hundreds of stars determine
(Evci et al. 2022, ICML, PMLR 162, 6009: the last layer alone has lost what its own labels do not
need). The network itself stays unchanged, and with it the common labels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xplabels.features.projection import FLUX_UNIT, Projection, default_projection
from xplabels.inference.network import Architecture, Perceptron
from xplabels.network import UncertainNetwork
from xplabels.network.propagation import Propagation
from xplabels.recipes import Recipe
from xplabels.training.augmentation import Dust, NoiseAugmentation
from xplabels.training.objective import LabelledStars, Objective, Teachers
from xplabels.training.optimisation import LARGEST_SEED, Checkpoint, History, fit
from xplabels.training.table import TrainingTable

LOG_FLUX_EMPHASIS = 2.0
"""Standard deviation with which log flux enters the first layer, where a recipe has emphasis."""


class Fold(NamedTuple):
    """Networks trained like the model's, but without the stars ``left_out`` [N] of the table."""

    left_out: NDArray[np.bool_]
    networks: tuple[Perceptron, ...]


class Run:
    """Trains the networks of a recipe on the training part of a table, sparse labels last.

    The ``checkpoint`` keeps the states of each stage; ``prefix`` comes before the stages' names.
    ``progress`` shows a bar for each stage.
    """

    def __init__(
        self,
        table: TrainingTable,
        recipe: Recipe,
        seed: int,
        checkpoint: Checkpoint,
        progress: bool = False,
        device: str = "cpu",
        prefix: str = "",
    ) -> None:
        self.whole, self.table = table, table.select(~table.sparse)
        table = self.table
        self.recipe, self.seed = recipe, seed
        self.checkpoint, self.progress = checkpoint, progress
        self.device, self.prefix = device, prefix
        features, scaling = table.feature_set, table.scaling
        self.masks = len(features.auxiliary) if recipe.missing_fraction > 0 else 0
        self.propagation = Propagation(features, scaling, self.masks > 0, torch.float32, device)
        self.training = table.sample(table.train, device)
        self.validation = table.sample(table.validation, device)
        self.left_out: list[str] = []
        self.sampling = self._sampling()
        noise = weights = None
        if recipe.fainter_share and recipe.fainter_decades and recipe.noise_levels:
            noise = NoiseAugmentation(features, scaling, self.propagation.projection, device)
        if recipe.label_weights:
            weights = torch.tensor(
                [recipe.label_weights.get(name, 1.0) for name in table.names], device=device
            )
        self.objective = Objective(recipe, self.propagation, self._dust(), noise, weights=weights)

    def _sampling(self) -> Projection | None:
        """The sampling matrix for spectra of these widths, if it is needed and available."""
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

    def _dust(self) -> Dust | None:
        if not self.recipe.reddening or self.sampling is None:
            return None
        if not importlib.util.find_spec("dust_extinction"):
            self.left_out.append("reddening: dust_extinction is not installed")
            return None
        table = self.table
        return Dust(table.stars, table.features, table.feature_set, table.scaling, self.sampling,
                    self.device)  # fmt: skip

    def networks(self) -> tuple[tuple[Perceptron, ...], dict[str, History]]:
        """The trained networks and the history of every stage."""
        history: dict[str, History] = {}
        if self.recipe.scatter == "distilled":
            trained = [self._distilled(history)]
        else:
            trained = self._single_or_ensemble(history)
        if not self.whole.sparse.any():
            return tuple(network.to_perceptron() for network in trained), history
        return tuple(
            joined(network, self._heads(network, number, history), self.whole.sparse)
            for number, network in enumerate(trained)
        ), history

    def _heads(
        self, network: UncertainNetwork, member: int, history: dict[str, History]
    ) -> UncertainNetwork:
        """Heads for the sparse labels, on the unchanged hidden layers of a trained network."""
        table, recipe = self.whole.select(self.whole.sparse), self.recipe
        weights = [recipe.label_weights.get(name, 1.0) for name in table.names]
        recipe = replace(recipe, epochs=recipe.sparse_epochs)
        known = np.isfinite(table.y).any(axis=1)
        heads, seed = heads_on(network, len(table.names)), self._seed_of(member)
        objective = replace(
            self.objective, recipe=recipe, weights=torch.tensor(weights, device=self.device)
        )
        stage = f"heads-{member + 1}"
        history[stage] = fit(
            heads, objective, table.sample(table.train & known, self.device),
            table.sample(table.validation & known, self.device), stage=self.prefix + stage,
            seed=seed, epochs=max(1, round(recipe.epochs * recipe.scale)),
            checkpoint=Checkpoint(None, {}), progress=self.progress,
        )  # fmt: skip
        return heads

    def calibration_folds(self) -> Iterator[Fold]:
        """For each fold of the training stars, networks trained like the run's without it."""
        folds = self.table.folds(self.recipe.calibration_folds)
        for number, left_out in enumerate(folds, start=1):
            rest = replace(self.whole, train=self.whole.train & ~left_out)
            run = Run(rest, self.recipe, self.seed, self.checkpoint, self.progress, self.device,
                      f"fold-{number}-")  # fmt: skip
            yield Fold(left_out, run.networks()[0])

    def _single_or_ensemble(self, history: dict[str, History]) -> list[UncertainNetwork]:
        """One network, or the members of an ensemble."""
        recipe = self.recipe
        kind = "dropout" if recipe.scatter in ("dropout", "sampling") else "none"
        architecture = self._architecture(recipe.hidden, recipe.dropout, kind)
        if recipe.scatter != "ensemble":
            return [self._fit(architecture, "network", 0, history)]
        return [
            self._fit(architecture, f"member-{member + 1}", member, history)
            for member in range(recipe.members)
        ]

    def _distilled(self, history: dict[str, History]) -> UncertainNetwork:
        """One network that learns from teachers, each of which may leave out a fold."""
        recipe, rows = self.recipe, self.training.rows
        shuffle = torch.Generator().manual_seed((7_919 * self.seed + 1) % LARGEST_SEED)
        fold = torch.randperm(len(rows), generator=shuffle) % recipe.folds
        architecture = self._architecture(recipe.teacher_hidden, recipe.teacher_dropout, "none")
        objective, teachers = replace(self.objective, input_term=False), []
        for member in range(recipe.members):
            seen = fold != member % recipe.folds if recipe.folds > 1 else fold >= 0
            stars = self.training.take(torch.nonzero(seen)[:, 0].to(self.device))
            teachers.append(
                self._fit(architecture, f"teacher-{member + 1}", member, history,
                          recipe.teacher_epochs, objective, stars)
            )  # fmt: skip
        fold_of_row = torch.zeros(len(self.table.train), dtype=fold.dtype, device=self.device)
        fold_of_row[rows] = fold.to(self.device)
        objective = replace(
            self.objective, teachers=Teachers(tuple(teachers), fold_of_row, recipe.folds)
        )
        student = self._architecture(recipe.hidden, recipe.dropout, "distilled")
        return self._fit(student, "student", recipe.members, history, objective=objective)

    def _seed_of(self, member: int) -> int:
        return (1000 * self.seed + member) % LARGEST_SEED

    def _architecture(self, hidden: tuple[int, ...], dropout: float, scatter: Any) -> Architecture:
        table = self.table
        return Architecture(
            table.features.x.shape[1], self.masks, hidden, len(table.scaling.y_mean),
            self.recipe.activation, dropout, scatter,
            0 if self.sampling is None else self.recipe.flux_samples,
            table.feature_set.n_spectral, len(table.scaling.noise_mean),
        )  # fmt: skip

    def _fit(
        self, architecture: Architecture, stage: str, member: int, history: dict[str, History],
        epochs: int | None = None, objective: Objective | None = None,
        stars: LabelledStars | None = None,
    ) -> UncertainNetwork:  # fmt: skip
        """One network, trained on all training stars or on ``stars``, some of them."""
        epochs = self.recipe.epochs if epochs is None else epochs
        seed = self._seed_of(member)
        torch.manual_seed(seed)
        network = UncertainNetwork(architecture, self._input_scale(architecture))
        self._set_log_flux(network)
        network.to(self.device)
        history[stage] = fit(
            network, objective or self.objective, stars or self.training, self.validation,
            stage=self.prefix + stage, seed=seed, epochs=max(1, round(epochs * self.recipe.scale)),
            checkpoint=self.checkpoint, progress=self.progress,
        )  # fmt: skip
        return network

    def _input_scale(self, architecture: Architecture) -> torch.Tensor | None:
        """Factors that enlarge the inputs that vary most, which are also measured best."""
        if not self.recipe.emphasis:
            return None
        n = self.table.feature_set.n_spectral
        emphasis = np.ones(architecture.sizes[0])
        spread = np.nanstd(self.table.features.x[self.table.train, :n], axis=0)
        varies = spread > 0  # RP 0 is 1 for every star
        relative = spread[varies] / np.median(spread[varies])
        emphasis[:n][varies] = relative**self.recipe.emphasis
        if architecture.samples:
            emphasis[-architecture.samples :] = LOG_FLUX_EMPHASIS
        return torch.as_tensor(emphasis, dtype=torch.float32)

    def _set_log_flux(self, network: UncertainNetwork) -> None:
        """Log flux at evenly spread wavelengths of the sampling, scaled by the training stars."""
        if network.log_flux is None or self.sampling is None:
            return
        samples = self.sampling.design / FLUX_UNIT
        chosen = np.linspace(0, len(samples) - 1, self.recipe.flux_samples).round().astype(int)
        n, scaling = self.table.feature_set.n_spectral, self.table.scaling
        design, mean, scale = (
            torch.as_tensor(array, dtype=torch.float32)
            for array in (samples[chosen], scaling.x_mean[:n], scaling.x_scale[:n])
        )
        network.log_flux.fit(design, mean, scale, self.training.block.x.cpu())


def heads_on(network: UncertainNetwork, labels: int) -> UncertainNetwork:
    """A network for other labels on the hidden layers of ``network``, which are not trained.

    Its last layer takes all of these as inputs. Before training it predicts the labels' mean for
    every star.
    """
    deep = len(network.hidden) > 1
    architecture = replace(network.architecture, labels=labels, skip=deep)
    heads = UncertainNetwork(architecture, network.input_scale)
    heads.hidden, heads.log_flux = network.hidden, network.log_flux
    heads.to(network.out.weight.device)
    for parameter in heads.hidden.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        for name, tensor in heads.named_parameters():
            if not name.startswith("hidden"):
                tensor.zero_()
    return heads


def joined(
    network: UncertainNetwork, heads: UncertainNetwork, sparse: NDArray[np.bool_]
) -> Perceptron:
    """One network of all K labels; ``heads`` predicts the ``sparse`` [K] ones."""
    for_common, for_sparse = network.to_perceptron(), heads.to_perceptron()
    architecture = replace(for_sparse.architecture, labels=len(sparse))
    rows = np.tile(sparse, architecture.outputs // len(sparse))
    arrays = dict(for_common.arrays)
    for name in for_sparse.arrays.keys() & {"out.weight", "out.bias", "skip.weight"}:
        joint = np.zeros(architecture.shapes()[name], for_common.dtype)
        joint[rows] = for_sparse.arrays[name]
        if name in for_common.arrays:
            joint[~rows] = for_common.arrays[name]
        arrays[name] = joint
    return Perceptron(architecture, arrays)
