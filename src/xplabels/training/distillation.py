"""One network that learns what an ensemble says: its mean, its scatter, and its unseen errors.

The teachers are asked anew about every batch, as it is reddened, dimmed and stripped of
photometry, so that their pupil sees as many different stars as it has epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from xplabels.inference.distribution import LabelDistribution
from xplabels.network import UncertainNetwork
from xplabels.network.likelihood import negative_log_likelihood
from xplabels.recipes import Recipe

MATCH_FLOOR = 1e-4
"""Scaled variance below which a student need not match its teachers more closely."""


class TeacherTargets(NamedTuple):
    """What teachers say of N stars, in scaled units.

    ``mean`` and ``variance`` [N, K] are over all of them; ``unseen`` [N, K] is the mean label of
    those that did not train on the star, None where all trained on all.
    """

    mean: Tensor
    variance: Tensor
    unseen: Tensor | None


@dataclass(frozen=True)
class Teachers:
    """Trained networks, each of which left out some of the stars.

    Attributes
    ----------
    networks
        M networks.
    fold, folds
        Part [N] of each star; network m left out part m modulo ``folds``. With one fold none
        left out any.
    """

    networks: tuple[UncertainNetwork, ...]
    fold: Tensor
    folds: int

    def take(self, rows: Tensor) -> Teachers:
        """The same for the stars ``rows``."""
        return Teachers(self.networks, self.fold[rows], self.folds)

    @torch.no_grad()
    def say(self, x: Tensor) -> TeacherTargets:
        """Of network inputs [N, I]."""
        told = torch.stack([network(x).mean for network in self.networks])
        mean, variance = told.mean(dim=0), told.var(dim=0)
        if self.folds == 1:
            return TeacherTargets(mean, variance, None)
        members = torch.arange(len(told), device=x.device) % self.folds
        unseen = (members[:, None] == self.fold).to(told.dtype)
        weight = unseen / unseen.sum(dim=0)
        return TeacherTargets(mean, variance, (told * weight[:, :, None]).sum(dim=0))


def distillation_loss(
    lesson: TeacherTargets, y: Tensor, y_error: Tensor, out: LabelDistribution[Tensor],
    matched: Tensor, recipe: Recipe, weights: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Match the teachers' mean and scatter; learn the excess from stars they never saw.

    Parameters
    ----------
    lesson
        Of the same N stars.
    y, y_error
        Labels and errors [N, K]; NaN where unknown.
    out
        What the student says of them; everything added at prediction is in its variance.
    matched
        Its labels [N, K], under dropout.
    recipe
        The likelihood.
    weights
        Of the labels [K].

    Notes
    -----
    The residuals are the teachers', of stars left out of their training: those of a network on
    its own training stars would be too small. Where they left out none, the student's own are
    taken, as any network's are, and the calibration mends it.
    """

    def cost(residual: Tensor, variance: Tensor) -> Tensor:
        return negative_log_likelihood(residual, variance, recipe.likelihood, recipe.dof, weights)

    unseen = out.mean if lesson.unseen is None else lesson.unseen
    likelihood = cost(y - unseen, y_error**2 + out.variance)
    # distances from the teachers count in units of the error they would cause
    # and no star, however odd, may pull harder than in the likelihood
    match = cost(lesson.mean - matched, out.variance.detach() + MATCH_FLOOR)
    scatter = cost(lesson.variance.sqrt(), out.model)
    return likelihood + match + scatter
