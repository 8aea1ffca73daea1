"""How wrong networks are on stars they did not see: what a calibration is fitted on.

The validation part is a tenth of the stars; what it says of the error in a bin of labels is good
to a few points of coverage. Where a recipe has ``calibration_folds``, each fold of the training
part is left out once by a further network, trained like the model's own. Together these err on
nearly ten times as many stars, none of which the network that errs has seen, and the test part
stays untouched.

They saw fewer stars than the model's network, so their errors are a little larger. Only how errors
go with the star (:class:`~xplabels.calibration.error_shape.ErrorShape`) is taken from them as it
is. A level is that of the model on the validation part, times that of the further networks on the
stars left out, over theirs on the validation part: the luck of the validation stars cancels, and
what the networks differ by does, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xplabels.calibration.error_shape import ErrorShape
from xplabels.calibration.factors import Calibration
from xplabels.calibration.joint import fit_joint_factor
from xplabels.core.labels import Labels
from xplabels.inference.network import Perceptron
from xplabels.model import Model
from xplabels.training.table import TrainingTable

Array = NDArray[np.float64]

LARGEST_CORRECTION = 1.5
"""Of a level, either way: more is not the luck of the validation part, but a fold gone wrong."""


class Fold(NamedTuple):
    """Networks trained like the model's without the stars ``left_out`` [N] of the table."""

    left_out: NDArray[np.bool_]
    networks: tuple[Perceptron, ...]


@dataclass(frozen=True)
class HoldoutPrediction:
    """What networks say of stars that they did not train on, beside the truth, in scaled units.

    Attributes
    ----------
    labels
        Predicted [N, K].
    noise
        Scaled noise levels [N, 2], or [N, 0].
    residuals, label_errors
        Known minus predicted labels, NaN where unknown, and the errors of the known ones [N, K].
    variance, gaussian
        The model and excess parts together, and the input part [N, K].
    """

    labels: Array
    noise: Array
    residuals: Array
    label_errors: Array
    variance: Array
    gaussian: Array

    @classmethod
    def of(
        cls,
        model: Model,
        networks: tuple[Perceptron, ...],
        table: TrainingTable,
        rows: NDArray[np.bool_],
    ) -> HoldoutPrediction:
        """What ``networks`` in the place of the model's say, photometry as it is."""
        features = table.features[rows]
        y, y_error = model.scaling.scale_y(table.y[rows], table.y_error[rows])
        labels = replace(model, networks=networks).inference.run(features).labels.variances()
        noise = model.scaling.scale_noise(model.feature_set.noise_levels(features))
        return cls(
            labels.mean,
            np.nan_to_num(noise),
            y - labels.mean,
            np.nan_to_num(y_error),
            labels.model + labels.excess,
            labels.input.clip(min=0.0),
        )

    @classmethod
    def together(cls, parts: Sequence[HoldoutPrediction]) -> HoldoutPrediction:
        """The stars of all."""
        return cls(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls))
        )

    def shape(self) -> ErrorShape:
        """How errors of such stars should differ from what is said, but for their level."""
        return ErrorShape.fit(
            self.labels, self.noise, self.residuals, self.variance + self.gaussian,
            self.label_errors,
        )  # fmt: skip

    def level(self, shape: ErrorShape) -> Calibration:
        """Factors that make the intervals of these stars hold their share."""
        squares = shape.squares(self.labels, self.noise)
        return Calibration.fit(
            self.residuals, squares * self.variance, self.label_errors, squares * self.gaussian
        )


def calibrated(model: Model, table: TrainingTable, folds: Sequence[Fold] = ()) -> Model:
    """The model with errors that hold what they say, on the validation part and on the folds."""
    validation = table.validation
    single = fit_calibration(
        HoldoutPrediction.of(model, model.networks, table, validation),
        [
            (HoldoutPrediction.of(model, fold.networks, table, fold.left_out),
             HoldoutPrediction.of(model, fold.networks, table, validation))
            for fold in folds
        ],
    )  # fmt: skip
    model = replace(model, calibration=single)

    def joint(networks: tuple[Perceptron, ...], rows: NDArray[np.bool_]) -> float | None:
        known = Labels(model.names, table.y[rows], table.y_error[rows])
        prediction = replace(model, networks=networks).predict(table.stars[rows], correlations=True)
        return fit_joint_factor(prediction, known)

    factor = joint(model.networks, table.validation)
    if factor is None:
        return model
    pairs = [
        (joint(fold.networks, fold.left_out), joint(fold.networks, table.validation))
        for fold in folds
    ]
    told = [(out, val) for out, val in pairs if out is not None and val is not None]
    return replace(model, calibration=replace(single, joint=float(factor * _correction(told))))


def fit_calibration(
    validation: HoldoutPrediction, folds: Sequence[tuple[HoldoutPrediction, HoldoutPrediction]] = ()
) -> Calibration:
    """The calibration of single labels.

    Parameters
    ----------
    validation
        What the model says of the validation part.
    folds
        What the networks of each fold say of the stars they left out, and of the validation part.
    """
    shape = HoldoutPrediction.together([validation, *(left_out for left_out, _ in folds)]).shape()
    own = validation.level(shape)
    levels = [tuple(unseen.level(shape) for unseen in fold) for fold in folds]
    inner = own.factor * _correction([(out.factor, val.factor) for out, val in levels])
    outer = own.factor_95 * _correction([(out.factor_95, val.factor_95) for out, val in levels])
    return Calibration(inner, outer, shape=shape)


def _correction(levels: Sequence[tuple[Array | float, Array | float]]) -> Array | float:
    """Geometric mean over folds of the level of left-out stars over that of the validation part."""
    if not levels:
        return 1.0
    mean = np.mean([np.log(out) - np.log(val) for out, val in levels], axis=0)
    bound = np.log(LARGEST_CORRECTION)
    found: Array = np.exp(np.clip(mean, -bound, bound))
    return found
