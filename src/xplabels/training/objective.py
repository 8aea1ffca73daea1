"""The training loss: the likelihood of the labels, with stars that are varied anew in each batch.

A distilled network learns from an ensemble of teachers instead: their mean, their scatter, and
their errors on stars left out of their training. They predict each varied batch anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from xplabels.network import UncertainNetwork
from xplabels.network.likelihood import negative_log_likelihood
from xplabels.network.propagation import Block, Propagation
from xplabels.recipes import Recipe
from xplabels.training.augmentation import Dust, NoiseAugmentation

MATCH_FLOOR = 1e-4
"""Scaled variance below which a student need not match its teachers more closely."""
BLOCK = 4096
"""Stars evaluated at a time."""


class LabelledStars(NamedTuple):
    """Stars with scaled labels and errors [N, K]; ``y`` is NaN where a label is unknown.

    ``rows`` [N] are their numbers in the training table, ``weight`` [N, 1] is how much each
    counts.
    """

    block: Block
    y: Tensor
    y_error: Tensor
    rows: Tensor
    weight: Tensor

    def take(self, rows: Tensor) -> LabelledStars:
        """The stars ``rows``."""
        return LabelledStars(
            self.block.take(rows), self.y[rows], self.y_error[rows], self.rows[rows],
            self.weight[rows],
        )  # fmt: skip


@dataclass(frozen=True)
class Teachers:
    """M trained networks, each of which left out some of the stars.

    ``fold`` is the part of each star of the training table; network m left out part m modulo
    ``folds``. With one fold none left out any.
    """

    networks: tuple[UncertainNetwork, ...]
    fold: Tensor
    folds: int

    @torch.no_grad()
    def targets(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean and variance [N, K] of all teachers, and the mean of those not trained on the star.

        ``x`` [N, I] are network inputs of the stars ``rows`` [N]. The last is None if all teachers
        were trained on all stars.
        """
        labels = torch.stack([network(x).mean for network in self.networks])
        mean, variance = labels.mean(dim=0), labels.var(dim=0)
        if self.folds == 1:
            return mean, variance, None
        members = torch.arange(len(labels), device=x.device) % self.folds
        unseen = (members[:, None] == self.fold[rows]).to(labels.dtype)
        weight = unseen / unseen.sum(dim=0)
        return mean, variance, (labels * weight[:, :, None]).sum(dim=0)


@dataclass(frozen=True)
class Objective:
    """The loss of a network on a batch of stars, with all variances that a prediction has."""

    recipe: Recipe
    propagation: Propagation
    dust: Dust | None = None  # varies the stars, as `noise` does
    noise: NoiseAugmentation | None = None
    teachers: Teachers | None = None  # of a distilled network
    weights: Tensor | None = None  # how much each label counts [K]; None: all alike
    input_term: bool = True  # whether the last phase has the input term

    def vary(self, stars: LabelledStars) -> LabelledStars:
        """The same stars, most behind more or less dust and some of them fainter."""
        recipe, block = self.recipe, stars.block
        if self.dust is not None:
            a_v = self.dust.draw(len(block), recipe.reddening)
            block = self.dust.redden(block, stars.rows, a_v)
        if self.noise is not None:
            factor = self.noise.draw(block, recipe.fainter_share, recipe.fainter_decades)
            block = self.noise.dim(block, factor)
        return stars._replace(block=block)

    def loss(self, network: UncertainNetwork, stars: LabelledStars, last: bool) -> Tensor:
        """Mean loss of a batch, auxiliary inputs hidden at random where the recipe says so.

        ``last`` is the phase without dropout masks, whose loss has all variances of a prediction
        instead.
        """
        block, run = stars.block, self.propagation.run
        input_term = last and self.input_term
        if self.propagation.masks:
            block = block.hide(hidden_inputs(block.missing, self.recipe.missing_fraction))
        if self.teachers is not None:
            return self._distillation(self.teachers, network, stars._replace(block=block), last)
        # the paper keeps its dropout masks throughout
        sampling = self.recipe.scatter == "sampling"
        out = run(network, block, input_term=input_term, drop=sampling or not last)
        if sampling:
            out = out._replace(model=torch.zeros_like(out.model))
        return self._likelihood(stars, stars.y - out.mean, stars.y_error**2 + out.variance)

    @torch.no_grad()
    def evaluate(self, network: UncertainNetwork, stars: LabelledStars) -> float:
        """Mean negative log-likelihood of stars as they are, without dropout."""
        count, total = len(stars.y), 0.0
        input_term = self.recipe.input_fraction > 0 and self.input_term
        for rows in torch.arange(count, device=self.propagation.device).split(BLOCK):
            part = stars.take(rows)
            out = self.propagation.run(network, part.block, input_term=input_term)
            loss = self._likelihood(part, part.y - out.mean, part.y_error**2 + out.variance)
            total += len(rows) * float(loss)
        return total / count if count else math.nan

    def _likelihood(self, stars: LabelledStars, residual: Tensor, variance: Tensor) -> Tensor:
        recipe = self.recipe
        weights = stars.weight if self.weights is None else stars.weight * self.weights
        return negative_log_likelihood(residual, variance, recipe.likelihood, recipe.dof, weights)

    def _distillation(
        self, teachers: Teachers, network: UncertainNetwork, stars: LabelledStars, last: bool
    ) -> Tensor:
        """Match the teachers' mean and scatter; learn the intrinsic scatter from stars left out.

        Residuals on a network's own training stars would be too small. Where every teacher trained
        on all stars, the student's own residuals are taken, and the calibration corrects for it.
        """
        run, block = self.propagation.run, stars.block
        mean, variance, unseen = teachers.targets(self.propagation.network_input(block), stars.rows)
        out = run(network, block, input_term=last and self.input_term)
        # with dropout, as the mean of any network is trained
        matched = run(network, block, input_term=False, drop=True).mean
        labels = out.mean if unseen is None else unseen
        likelihood = self._likelihood(stars, stars.y - labels, stars.y_error**2 + out.variance)
        # in units of the error, and no outlier may pull harder than in the likelihood
        match = self._likelihood(stars, mean - matched, out.variance.detach() + MATCH_FLOOR)
        scatter = self._likelihood(stars, variance.sqrt(), out.model)
        return likelihood + match + scatter


def hidden_inputs(missing: Tensor, fraction: float) -> Tensor:
    """Which auxiliary inputs to hide, bool [N, A]: some or all, for ``fraction`` of the stars.

    Half of these lose all, since most stars lack all of a survey's magnitudes or none.
    """
    device, per_star = missing.device, (len(missing), 1)
    some = torch.rand(missing.shape, device=device) < 0.5
    everything = torch.rand(per_star, device=device) < 0.5
    return (some | everything) & (torch.rand(per_star, device=device) < fraction)
