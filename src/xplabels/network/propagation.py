"""Labels of a block of stars by one network, with the three parts of their variance (eq. 7-11).

The training loss is made of these, with torch. :mod:`xplabels.inference` predicts the same with
numpy, so that the loss has all variances of a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xplabels.features import Features, FeatureSet, map_arrays
from xplabels.features.scaling import Completion, Scaling
from xplabels.inference.network import LabelDistribution
from xplabels.network import UncertainNetwork


@dataclass(frozen=True)
class ErrorTensors:
    """Tensors of N stars that :func:`input_variance` needs, as in :class:`Features`."""

    x: Tensor
    divisor: Tensor
    is_ratio: Tensor
    errors: Tensor
    auxiliary_errors: Tensor
    correlations: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, features: Features, dtype: torch.dtype, device: str = "cpu") -> ErrorTensors:
        """Tensors of N stars."""

        def tensor(array: NDArray[Any]) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array)).to(device, dtype)

        arrays = {field.name: getattr(features, field.name) for field in fields(cls)}
        return cls(**{name: map_arrays(tensor, array) for name, array in arrays.items()})

    def with_x(self, x: Tensor, errors_times: Tensor | float = 1.0) -> ErrorTensors:
        """The same stars with other inputs; their relative errors times a factor, e.g. [N, 1]."""
        return replace(self, x=x, errors=self.errors * errors_times)


@dataclass(frozen=True)
class Block:
    """Stars as tensors, ready for a network."""

    x: Tensor  # scaled inputs [N, F], 0 where missing
    missing: Tensor  # bool [N, A] for the auxiliary inputs
    errors: ErrorTensors  # from which the input variance is computed
    noise: Tensor  # scaled noise levels [N, 2], or [N, 0] where the network does not take them

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
            ErrorTensors.of(features, dtype, device),
            torch.as_tensor(noise, dtype=dtype, device=device),
        )

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Tensor) -> Block:
        """The stars ``rows``."""
        return map_arrays(lambda tensor: tensor[rows], self)

    def hide(self, hidden: Tensor) -> Block:
        """The same stars with the auxiliary inputs ``hidden`` (bool [N, A]) missing as well."""
        return replace(self, missing=self.missing | hidden)


class Propagation:
    """Turns a block of stars into network inputs, and Jacobians into variances.

    ``masks`` says whether the network has inputs that mark missing auxiliary inputs. ``dtype`` is
    that of all tensors; ``device`` (``cpu`` or ``cuda``) is that of blocks and networks.
    """

    def __init__(
        self, feature_set: FeatureSet, scaling: Scaling, masks: bool, dtype: torch.dtype,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        def tensor(array: NDArray[Any]) -> Tensor:
            return torch.as_tensor(array, dtype=dtype, device=device)

        self.feature_set = feature_set
        self.masks = masks
        self.device = device
        self.n = feature_set.n_spectral
        self.x_scale = tensor(scaling.x_scale)
        weights, covariances = Completion(scaling.x_correlation, self.n).rules()
        values, vectors = np.linalg.eigh(covariances)
        # square roots: a variance made of them cannot be negative
        roots = vectors * np.sqrt(np.clip(values, 0, None))[:, None, :]
        self.weights, self.roots = tensor(weights), tensor(roots)
        self.projection: Tensor | None = None
        if feature_set.projection is not None:
            self.projection = tensor(feature_set.projection.from_coefficients)
        self.powers = 2 ** torch.arange(len(feature_set.auxiliary), device=device)

    def network_input(self, block: Block) -> Tensor:
        """Completed inputs, masks and noise levels [N, F (+ A) (+ 2)]."""
        present = self._blanked(block.x, block.missing)
        incomplete = block.missing.any(dim=1)
        if incomplete.any():
            rules = self.weights[self._pattern(block.missing[incomplete])]
            filled = torch.zeros_like(present)
            filled[incomplete, self.n :] = (rules @ present[incomplete][:, :, None])[:, :, 0]
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
    ) -> LabelDistribution[Tensor]:
        """Labels and variances of a block; without ``input_term`` no Jacobian is formed."""
        x = self.network_input(block)
        out: LabelDistribution[Tensor] = network(x, jacobian=input_term, drop=drop)
        if out.jacobian is None:
            return out
        return out._replace(input=self.input_variance(out.jacobian, block))

    def input_variance(self, jacobian: Tensor, block: Block) -> Tensor:
        """J C J^T [N, K] from dy/dx of the network's inputs, missing inputs included.

        A missing input varies with the inputs it is completed from, and scatters about its mean.
        """
        by_input = jacobian[..., : len(self.x_scale)]
        present = self._blanked(by_input, block.missing[:, None, :])
        scatter = present.new_zeros(present.shape[:2])
        incomplete = block.missing.any(dim=1)
        if incomplete.any():
            pattern = self._pattern(block.missing[incomplete])
            by_auxiliary = by_input[incomplete][..., self.n :]
            through_missing = torch.zeros_like(present)
            through_missing[incomplete] = by_auxiliary @ self.weights[pattern]
            scatter[incomplete] = ((by_auxiliary @ self.roots[pattern]) ** 2).sum(-1)
            present = present + through_missing
        by_x = present / self.x_scale
        measured = input_variance(by_x, block.errors, self.feature_set, self.projection)
        return measured + scatter

    def _blanked(self, by_input: Tensor, missing: Tensor) -> Tensor:
        """The same with 0 for the auxiliary inputs that are missing."""
        auxiliary = by_input[..., self.n :].masked_fill(missing, 0.0)
        return torch.cat([by_input[..., : self.n], auxiliary], dim=-1)

    def _pattern(self, missing: Tensor) -> Tensor:
        """The number [N] of each star's pattern of missing inputs: the sum of 2^a."""
        return (missing * self.powers).sum(dim=1)


def input_variance(
    jacobian: Tensor, stars: ErrorTensors, features: FeatureSet, projection: Tensor | None = None
) -> Tensor:
    """diag(J C J^T) [N, K] of FS24's eq. 7, by pull-back of J to the measurements.

    Arguments as in :func:`xplabels.inference.input_variance`.
    """
    bp, _ = features.widths
    n = features.n_spectral
    spectral, auxiliary = jacobian[..., :n], jacobian[..., n:]
    weighted = pull_back(spectral, stars, features, projection) * stars.errors[:, None, :]
    variance = ((auxiliary @ stars.auxiliary_errors) ** 2).sum(-1)
    if stars.correlations is None:
        return variance + (weighted**2).sum(-1)
    for part, packed in zip(
        (weighted[..., :bp], weighted[..., bp:]), stars.correlations, strict=True
    ):
        variance = variance + ((part @ unpack(packed, part.shape[-1])) * part).sum(-1)
    return variance


def pull_back(
    spectral: Tensor, stars: ErrorTensors, features: FeatureSet, projection: Tensor | None
) -> Tensor:
    """dy/dc [N, K, n] by the measured coefficients from dy/dx [N, K, n] of the spectral inputs.

    As :func:`xplabels.inference.pull_back`, with operations that torch can differentiate.
    """
    bp, _ = features.widths
    n = features.n_spectral
    divided = torch.ones(n, dtype=spectral.dtype, device=spectral.device)
    divided[bp] = 0.0
    if features.covariance == "fs24":
        divided[:bp] = 0.0
    shift = -(spectral * (stars.x[:, :n] * divided)[:, None, :]).sum(-1) * stars.is_ratio[:, None]
    # where r0 is zero the divisor is its error, and dy/dr0 is like that of any other coefficient
    own = spectral[..., bp] * (1.0 - stars.is_ratio)[:, None] + shift
    raw = torch.cat([spectral[..., :bp], own[..., None], spectral[..., bp + 1 :]], dim=-1)
    raw = raw / stars.divisor[:, None, None]
    return raw if projection is None else raw @ projection


def unpack(packed: Tensor, width: int) -> Tensor:
    """Full correlation matrices [N, n, n] from packed ones [N, n (n - 1) / 2]."""
    rows, columns = np.tril_indices(width, -1)
    full = torch.zeros((len(packed), width, width), dtype=packed.dtype, device=packed.device)
    full[:, rows, columns] = packed
    full = full + full.transpose(1, 2)
    diagonal = torch.arange(width, device=packed.device)
    full[:, diagonal, diagonal] = 1.0
    return full
