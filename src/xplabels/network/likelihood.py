"""Negative log-likelihoods of labels, with every variance that is added at prediction (eq. 6-11).

The paper prints the loss without its sign, and calls ln of the total variance ``s``; here
total = label error^2 + model + input + excess, and unknown labels (NaN) are left out.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Likelihood = Literal["gaussian", "student_t"]


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
    # the double where keeps NaN out of the gradient, not only out of the sum
    squared = torch.where(known, residual, torch.zeros_like(residual)) ** 2
    if likelihood == "gaussian":
        each = 0.5 * squared / variance + 0.5 * torch.log(2 * math.pi * variance)
    else:
        constant = math.lgamma(dof / 2) - math.lgamma((dof + 1) / 2) + 0.5 * math.log(dof * math.pi)
        each = (
            0.5 * (dof + 1) * torch.log1p(squared / (dof * variance))
            + 0.5 * torch.log(variance)
            + constant
        )
    each = torch.where(known, each, torch.zeros_like(each))
    if weights is None:
        return each.sum() / known.sum().clamp(min=1)
    return (weights * each).sum() / (weights * known).sum().clamp(min=1e-6)
