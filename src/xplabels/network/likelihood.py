"""Negative log-likelihoods of labels, with all variances that a prediction has (eq. 6-11).

The paper prints the loss without its sign, and calls ln of the total variance ``s``; here
total = label error^2 + model + input + excess, and unknown labels (NaN) are left out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xplabels.recipes import Likelihood


def negative_log_likelihood(
    residual: Tensor, variance: Tensor, likelihood: Likelihood = "gaussian", dof: float = 4.0,
    weights: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Mean over known labels of -ln p(residual).

    ``residual`` [N, K] is truth minus prediction, NaN where the label is unknown; ``variance``
    [N, K] that of the Gaussian (eq. 9), or the squared scale of a Student t with ``dof`` degrees of
    freedom, whose tails real residuals have; ``weights`` [K] or [N, K], how much each label counts.

    Examples
    --------
    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> round(float(negative_log_likelihood(0 * one, one)), 4)  # ln sqrt(2 pi)
    0.9189
    """
    known = torch.isfinite(residual)
    # NaN replaced here, not only in the loss below, keeps it out of the gradient, too
    squared = torch.where(known, residual, torch.zeros_like(residual)) ** 2
    match likelihood:
        case "gaussian":
            loss = 0.5 * squared / variance + 0.5 * torch.log(2 * math.pi * variance)
        case "student_t":
            constant = math.lgamma(dof / 2) - math.lgamma((dof + 1) / 2)
            constant += 0.5 * math.log(dof * math.pi)
            loss = (
                0.5 * (dof + 1) * torch.log1p(squared / (dof * variance))
                + 0.5 * torch.log(variance)
                + constant
            )
        case _:
            raise ValueError(f"unknown likelihood {likelihood!r}")
    loss = torch.where(known, loss, torch.zeros_like(loss))
    if weights is None:
        return loss.sum() / known.sum().clamp(min=1)
    return (weights * loss).sum() / (weights * known).sum().clamp(min=1e-6)
