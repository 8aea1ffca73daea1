"""What a network says of stars: a distribution over their labels, in scaled units."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

A = TypeVar("A")
"""An array of numpy or a tensor of torch: what is done with them here, both can."""


class LabelDistribution(NamedTuple, Generic[A]):
    """Mean of K labels of N stars and the parts of its variance (FS24, eq. 7-11), scaled.

    Arrays of numpy (inference) or tensors (training).

    Attributes
    ----------
    mean
        [N, K].
    excess
        [N, K]: intrinsic scatter, a variance label by label.
    model, input
        [N, K] variances, or [N, K, K] covariances where those were asked for.
    clamped
        Bool [N, K]: a variance reached its upper bound.
    jacobian
        [N, K, I] of the mean by the network's inputs, or None where it was not asked for.
    """

    mean: A
    excess: A
    model: A
    input: A
    clamped: A
    jacobian: A | None = None

    def variances(self) -> LabelDistribution[A]:
        """The same with the diagonals of full covariances."""
        parts: LabelDistribution[Any] = self
        model, of_input = parts.model.diagonal(0, 1, 2), parts.input.diagonal(0, 1, 2)
        return self._replace(model=model, input=of_input)

    @property
    def variance(self) -> A:
        """Total [N, K] of variances (eq. 11); an input part rounded below zero counts as zero."""
        parts: LabelDistribution[Any] = self
        total: A = parts.input.clip(min=0.0) + parts.model + parts.excess
        return total

    @property
    def covariance(self) -> A:
        """Total [N, K, K] of full covariances."""
        parts: LabelDistribution[Any] = self
        total = parts.input + parts.model
        labels = range(total.shape[1])
        total[:, labels, labels] += parts.excess
        whole: A = total
        return whole
