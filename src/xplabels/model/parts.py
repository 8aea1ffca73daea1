"""What a model is made of; what it does with that is :class:`xplabels.model.Model`'s."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xplabels.calibration.domain import Domain
from xplabels.calibration.factors import Calibration
from xplabels.calibration.shrinkage import ShrinkageCorrection
from xplabels.features import FeatureSet
from xplabels.features.scaling import Scaling
from xplabels.network import UncertainNetwork
from xplabels.recipes import Recipe

Estimate = Literal["mean", "unshrunk"]


@dataclass(frozen=True)
class Parts:
    """The parts of a trained model.

    Attributes
    ----------
    names
        K labels.
    feature_set, scaling
        What the inputs are, and their training statistics.
    networks
        One network, or the members of an ensemble.
    recipe
        How it was trained; ``recipe.scatter`` names the kind of model variance.
    calibration, domain
        Fitted on stars that the network did not see, and on the training part.
    label_range
        Float64 [K, 2]: smallest and largest label trained on.
    metadata
        Provenance, as it stands in ``model.json``.
    card
        Markdown: what the model is, what it was trained on, how well it does.
    unshrinking
        What takes the trend to the mean out of predictions, fitted on the validation part; None
        for a model made before there was such a thing.
    estimate
        What the model predicts: ``mean``, or ``unshrunk``, without the trend to the mean.
    """

    names: tuple[str, ...]
    feature_set: FeatureSet
    scaling: Scaling
    networks: tuple[UncertainNetwork, ...]
    recipe: Recipe
    calibration: Calibration
    domain: Domain
    label_range: NDArray[np.float64]
    metadata: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    unshrinking: ShrinkageCorrection | None = None
    estimate: Estimate = "mean"
