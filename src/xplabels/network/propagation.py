"""One network, a block of stars -> labels and the three parts of their variance (eq. 7-11).

The same function serves the loss and the prediction: what is added at prediction is in the loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from xplabels.features import ErrorTensors, Features, FeatureSet, input_variance, products
from xplabels.features.scaling import Completion, Scaling
from xplabels.network import Outputs, UncertainNetwork


@dataclass(frozen=True)
class Block:
    """Stars as tensors, ready for a network.

    Attributes
    ----------
    x
        Scaled inputs [N, F], 0 where missing.
    missing
        Bool [N, A] for the auxiliary inputs.
    errors
        What the input variance is made of.
    noise
        Scaled noise levels [N, 2], or [N, 0] where the network is not told them.
    """

    x: Tensor
    missing: Tensor
    errors: ErrorTensors
    noise: Tensor

    @classmethod
    def of(
        cls, features: Features, feature_set: FeatureSet, scaling: Scaling, dtype: torch.dtype,
        device: str = "cpu",
    ) -> Block:  # fmt: skip
        """Scale the features of N stars."""
        scaled = np.nan_to_num(scaling.scale_x(features.x))
        missing = np.isnan(features.x[:, feature_set.n_spectral :])
        noise = np.nan_to_num(scaling.scale_noise(feature_set.noise_levels(features)))
        return cls(
            torch.as_tensor(scaled, dtype=dtype, device=device),
            torch.as_tensor(missing, device=device),
            ErrorTensors(features, dtype, device),
            torch.as_tensor(noise, dtype=dtype, device=device),
        )

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Tensor) -> Block:
        """The stars ``rows``."""
        return Block(self.x[rows], self.missing[rows], self.errors.take(rows), self.noise[rows])

    def hide(self, hidden: Tensor) -> Block:
        """The same stars with the auxiliary inputs ``hidden`` (bool [N, A]) missing as well."""
        return replace(self, missing=self.missing | hidden)


class Propagated(NamedTuple):
    """Labels and parts of their variance [N, K], in scaled units; ``clamped`` is bool [N].

    Where the full covariances were asked for, ``input`` and ``model`` are [N, K, K].
    """

    labels: Tensor
    input: Tensor
    model: Tensor
    excess: Tensor
    clamped: Tensor

    def variances(self) -> Propagated:
        """The same with the diagonals of full covariances."""
        of_input, model = (part.diagonal(dim1=1, dim2=2) for part in (self.input, self.model))
        return self._replace(input=of_input, model=model)

    def covariance(self) -> Tensor:
        """Of the labels' errors [N, K, K], all parts together; the excess is label by label."""
        return self.input + self.model + torch.diag_embed(self.excess)

    @property
    def variance(self) -> Tensor:
        """Total (eq. 11); an input variance that float32 rounded below zero counts as zero."""
        return self.input.clamp(min=0.0) + self.model + self.excess


class Propagation:
    """What turns a block of stars into network inputs, and Jacobians into variances.

    Parameters
    ----------
    feature_set, scaling
        Of the model.
    masks
        Whether the network is told which auxiliary inputs are missing.
    dtype
        Of every tensor; float64 where one flux mode may dominate all coefficients.
    device
        Where the blocks and networks are: ``cpu`` or ``cuda``.
    """

    def __init__(
        self, feature_set: FeatureSet, scaling: Scaling, masks: bool, dtype: torch.dtype,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        self.feature_set = feature_set
        self.masks = masks
        self.device = device
        self.n = feature_set.n_spectral
        self.x_scale = torch.as_tensor(scaling.x_scale, dtype=dtype, device=device)
        completion = Completion(scaling.x_correlation, self.n)
        self.weights, self.roots = (rule.to(device) for rule in completion.torch_rules(dtype))
        self.projection: Tensor | None = None
        if feature_set.projection is not None:
            self.projection = torch.as_tensor(
                feature_set.projection.from_coefficients, dtype=dtype, device=device
            )
        self.powers = 2 ** torch.arange(len(feature_set.auxiliary), device=device)

    def network_input(self, block: Block) -> Tensor:
        """Completed inputs, masks and noise levels [N, F (+ A) (+ 2)]."""
        present = torch.cat(
            [block.x[:, : self.n], block.x[:, self.n :].masked_fill(block.missing, 0.0)], dim=1
        )
        gone = block.missing.any(dim=1)
        if gone.any():
            rules = self.weights[self.pattern(block.missing[gone])]
            filled = torch.zeros_like(present)
            filled[gone, self.n :] = (rules @ present[gone][:, :, None])[:, :, 0]
            present = present + filled
        masks = block.missing.to(present.dtype) if self.masks else present[:, :0]
        return torch.cat([present, masks, block.noise], dim=1)

    def run(
        self,
        network: UncertainNetwork,
        block: Block,
        *,
        input_term: bool = True,
        drop: bool = False,
        full: bool = False,
    ) -> Propagated:
        """Labels and variances of a block; without ``input_term`` no Jacobian is formed.

        ``full`` (with ``input_term``): with the covariance of the labels.
        """
        outputs = self.outputs(network, self.network_input(block), input_term, drop, full)
        if outputs.jacobian is None:
            nothing = torch.zeros_like(outputs.excess)
            return Propagated(
                outputs.labels, nothing, outputs.model, outputs.excess, outputs.clamped
            )
        variance = self.input_variance(outputs.jacobian, block, full)
        return Propagated(outputs.labels, variance, outputs.model, outputs.excess, outputs.clamped)

    def outputs(
        self,
        network: UncertainNetwork,
        x: Tensor,
        jacobian: bool,
        drop: bool = False,
        full: bool = False,
    ) -> Outputs:
        """The network's outputs in this propagation's type, whatever the network's own is."""
        own = x.to(network.out.weight.dtype)
        outputs: Outputs = network(own, jacobian=jacobian, drop=drop, full=full)
        chain = outputs.jacobian
        return Outputs(
            outputs.labels.to(x.dtype),
            outputs.excess.to(x.dtype),
            outputs.model.to(x.dtype),
            None if chain is None else chain.to(x.dtype),
            outputs.clamped,
        )

    def input_variance(self, jacobian: Tensor, block: Block, full: bool = False) -> Tensor:
        """J C J^T [N, K] from dy/dx of the network's inputs, missing inputs included.

        A missing input moves with the inputs it is completed from, and scatters about its mean.
        """
        by_x, scatter = self.by_present(jacobian, block, full)
        known = input_variance(by_x, block.errors, self.feature_set, self.projection, full)
        return known + scatter

    def by_present(
        self, jacobian: Tensor, block: Block, full: bool = False
    ) -> tuple[Tensor, Tensor | float]:
        """dy/dx [N, K, F] by the unscaled inputs that are there, 0 for those that are missing.

        What a missing input passes on counts for the inputs it is completed from; its scatter
        about that mean is the second result, a variance [N, K] or (``full``) a covariance.
        """
        by_input = jacobian[..., : len(self.x_scale)]
        present = torch.cat(
            [
                by_input[..., : self.n],
                by_input[..., self.n :].masked_fill(block.missing[:, None, :], 0.0),
            ],
            dim=-1,
        )
        scatter: Tensor | float = 0.0
        gone = block.missing.any(dim=1)
        if gone.any():
            pattern = self.pattern(block.missing[gone])
            lost = by_input[gone][..., self.n :]
            moved = torch.zeros_like(present)
            moved[gone] = lost @ self.weights[pattern]
            rooted = lost @ self.roots[pattern]
            some = products(rooted, rooted, full)
            spread = some.new_zeros((len(present), *some.shape[1:]))
            spread[gone] = some
            present, scatter = present + moved, spread
        return present / self.x_scale, scatter

    def pattern(self, missing: Tensor) -> Tensor:
        """The number [N] of each star's pattern of missing inputs: the sum of 2^a."""
        return (missing * self.powers).sum(dim=1)
