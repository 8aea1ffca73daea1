"""Cross-fitting: residuals on stars that a network did not see, to fit a calibration on.

The validation part, a tenth of the stars, gives coverage in a bin of labels to a few percent only.
Where a recipe has ``calibration_folds``, each fold of the training part is left out once by a
further network, trained like the model's own: nearly ten times as many stars, none seen by the
network that predicts it; the test part stays untouched.

These networks saw fewer stars, so their errors are a little larger. Only the dependence of the
errors on the star (:class:`~xplabels.calibration.error_shape.ErrorShape` and
:class:`~xplabels.calibration.local.LocalFactors`) is taken from them unchanged. The level of the
errors is that of the model on the validation part, times the ratio of the further networks' levels
on the stars left out and on the validation part: the chance in the choice of validation stars
cancels, and so do the differences between the networks. For a label that few stars have, the level
is that of all these stars together.

All of these stars are predicted once more with their auxiliary inputs hidden. The ratio of the
level of these predictions to that of the others is the factor for stars without auxiliary inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xplabels.calibration.error_shape import ErrorShape
from xplabels.calibration.factors import Calibration
from xplabels.calibration.joint import fit_joint_factors
from xplabels.calibration.local import LARGEST, LocalFactors
from xplabels.calibration.transfer import SMALLEST_SAMPLE
from xplabels.core.arrays import Array
from xplabels.core.prediction import Prediction, stack
from xplabels.core.stars import Photometry
from xplabels.model import Model
from xplabels.model.refitting import sample
from xplabels.training.run import Fold
from xplabels.training.table import TrainingTable
from xplabels.validation.audit import LabelAudit, audit_labels

LARGEST_CORRECTION = 1.5
"""Largest factor by which the folds change a level, up or down: more would not be chance, but a
fold gone wrong."""
ROUNDS = 5
"""Iterations between the factor of stars without auxiliary inputs and the level of all stars, which
depend on each other since some stars lack some inputs."""


class HoldoutPrediction(NamedTuple):
    """Predictions for N stars that a network did not train on, and the truth, in scaled units."""

    labels: Array  # predicted [N, C]: those that most stars have
    noise: Array  # noise levels [N, 2], or [N, 0]
    residuals: Array  # known minus predicted [N, K], NaN where unknown
    label_errors: Array  # errors of the known labels [N, K]
    variance: Array  # model and intrinsic parts of the variance together [N, K]
    gaussian: Array  # input part of the variance [N, K]
    missing: Array  # share of the auxiliary inputs that are missing [N]

    @classmethod
    def of(
        cls, model: Model, table: TrainingTable, rows: NDArray[np.bool_], bare: bool = False
    ) -> HoldoutPrediction:
        """Predictions of ``model``, which is not calibrated, for some stars of the table.

        ``bare``: with all their auxiliary inputs hidden.
        """
        stars, features = table.stars[rows], model.feature_set
        missing = features.missing(table.features)[rows]
        if bare:
            stars = stars.with_photometry(Photometry.missing(len(stars)))
            missing = np.ones(len(stars))
        prediction, scaling = model.predict(stars), model.scaling
        y, y_error = scaling.scale_y(table.y[rows], table.y_error[rows])
        labels, _ = scaling.scale_y(prediction.values, prediction.errors)
        unit = model.calibration.factor * scaling.y_unit(prediction.values)
        by_model, gaussian, intrinsic = (
            (prediction.part(part) / unit) ** 2 for part in ("model", "input", "excess")
        )
        noise = features.noise_levels(table.features)[rows]
        return cls(
            model.of_common(labels),
            np.nan_to_num(scaling.scale_noise(noise)),
            y - labels,
            np.nan_to_num(y_error),
            by_model + intrinsic,
            gaussian,
            missing,
        )

    @classmethod
    def together(cls, parts: Sequence[HoldoutPrediction]) -> HoldoutPrediction:
        """The stars of all."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def shape(self) -> ErrorShape:
        """Corrections of the stated errors as a function of the star, up to their level."""
        return ErrorShape.fit(
            self.labels, self.noise, self.residuals, self.variance + self.gaussian,
            self.label_errors,
        )  # fmt: skip

    def local(self, shape: ErrorShape) -> LocalFactors:
        """Factors of both intervals as a function of the star, up to their level."""
        squares = shape.squares(self.labels, self.noise)
        return LocalFactors.fit(
            self.labels, self.noise, self.residuals, squares * self.variance, self.label_errors,
            squares * self.gaussian,
        )  # fmt: skip

    def level(self, shape: ErrorShape, local: LocalFactors) -> Calibration:
        """Factors with which the intervals contain their share of these stars."""
        squares = shape.squares(self.labels, self.noise)
        return Calibration.fit(
            self.residuals, squares * self.variance, self.label_errors, squares * self.gaussian,
            *local.factors(self.labels, self.noise, self.missing),
        )  # fmt: skip


Unseen = tuple[HoldoutPrediction, Sequence[tuple[HoldoutPrediction, HoldoutPrediction]]]
"""A model's predictions for the validation part, and those of each fold's networks."""


def calibrated(model: Model, table: TrainingTable, folds: Sequence[Fold] = ()) -> Model:
    """The model with errors calibrated on the validation part and the folds.

    It keeps some of these stars, to be compared with other stars later.
    """
    validation = table.validation
    others = _others(model, folds)

    def unseen(bare: bool) -> Unseen:
        pairs = [
            (HoldoutPrediction.of(other, table, left_out, bare),
             HoldoutPrediction.of(other, table, validation, bare))
            for other, left_out in others
        ]  # fmt: skip
        return HoldoutPrediction.of(model, table, validation, bare), pairs

    own, holdouts = unseen(bare=False)
    bare = unseen(bare=True) if model.feature_set.auxiliary else None
    rare = np.isin(model.names, model.common_names, invert=True)
    single = fit_calibration(own, holdouts, bare, rare)
    parts = [(replace(model, calibration=single), validation)]
    for (other, left_out), (holdout, _) in zip(others, holdouts, strict=True):
        # at the level of its own stars: only how coverage depends on the star matters here
        level = holdout.level(single.shape, single.local)
        level = replace(level, shape=single.shape, local=single.local)
        parts.append((replace(other, calibration=level), left_out))
    stars = sample([(part, table.stars[rows], table.labels(rows)) for part, rows in parts])
    if len(stars.coordinates) >= SMALLEST_SAMPLE:
        model = replace(model, calibration_stars=stars)

    def joint(model: Model, rows: NDArray[np.bool_]) -> Array | None:
        model = replace(model, calibration=single)
        prediction = model.predict(table.stars[rows], correlations=True)
        return fit_joint_factors(prediction, table.labels(rows))

    factors = joint(model, validation)
    if factors is None:
        return replace(model, calibration=single)
    pairs = [(joint(other, left_out), joint(other, validation)) for other, left_out in others]
    complete = [(out, val) for out, val in pairs if out is not None and val is not None]
    inner, outer = factors * _correction(complete)
    return replace(model, calibration=replace(single, joint=(float(inner), float(outer))))


def unseen_prediction(
    model: Model, table: TrainingTable, folds: Sequence[Fold]
) -> tuple[Prediction, NDArray[np.intp]]:
    """Predictions of the validation stars by the model and of each fold by its networks.

    With them come the stars' rows in the table.
    """
    return _predicted([(model, table.validation), *_others(model, folds)], table)


def audit_of_folds(model: Model, table: TrainingTable, folds: Sequence[Fold]) -> LabelAudit:
    """Which known labels are probably wrong, by networks that had not seen the star.

    Each training star is predicted by the network that left it out, each validation star by the
    model. The networks did see the wrong labels of other stars.
    """
    prediction, rows = unseen_prediction(model, table, folds)
    return audit_labels(prediction, table.labels(rows))


def wrong_by_folds(model: Model, table: TrainingTable, folds: Sequence[Fold]) -> NDArray[np.bool_]:
    """The training stars [N of the table] with a label that is probably wrong, by the folds alone.

    The networks of ``model`` are not used.
    """
    holdouts = [HoldoutPrediction.of(other, table, rows) for other, rows in _others(model, folds)]
    model = replace(model, calibration=fit_calibration(HoldoutPrediction.together(holdouts)))
    prediction, rows = _predicted(_others(model, folds), table)
    wrong = np.zeros(len(table.train), bool)
    wrong[rows] = audit_labels(prediction, table.labels(rows)).wrong
    return wrong


def _others(model: Model, folds: Sequence[Fold]) -> list[tuple[Model, NDArray[np.bool_]]]:
    """The model with each fold's networks, and the stars [N of the table] they had not seen."""
    return [(replace(model, networks=fold.networks), fold.left_out) for fold in folds]


def _predicted(
    unseen: Sequence[tuple[Model, NDArray[np.bool_]]], table: TrainingTable
) -> tuple[Prediction, NDArray[np.intp]]:
    """Predictions of stars by models that had not seen them, and their rows in the table."""
    rows = np.concatenate([np.flatnonzero(mask) for _, mask in unseen])
    predictions = [model.predict(table.stars[mask], correlations=True) for model, mask in unseen]
    return stack(predictions), rows


def fit_calibration(
    validation: HoldoutPrediction,
    folds: Sequence[tuple[HoldoutPrediction, HoldoutPrediction]] = (),
    bare: Unseen | None = None,
    rare: NDArray[np.bool_] | bool = False,
) -> Calibration:
    """The calibration of single labels.

    ``validation`` holds the model's predictions for the validation part; ``folds`` those of each
    fold's networks for the stars left out, and for the validation part; ``bare`` both for the same
    stars without auxiliary inputs (None: these need no factor); ``rare`` [K] marks the labels whose
    level is that of all these stars together.

    With folds, the dependence of errors on the star is fitted to the stars left out alone, so that
    the level's guarantee (:meth:`~xplabels.calibration.factors.Calibration.fit`) holds for the
    validation part, except for the folds' correction of the level.
    """
    unseen = HoldoutPrediction.together([left_out for left_out, _ in folds] or [validation])
    shape = unseen.shape()
    local = unseen.local(shape)
    level = _level(validation, folds, shape, local, rare)
    if bare is not None:
        without = _level(*bare, shape, local, rare)
        for _ in range(ROUNDS):
            local = replace(local, bare=np.clip(without / level, 1 / LARGEST, LARGEST))
            level = _level(validation, folds, shape, local, rare)
    inner, outer = level
    return Calibration(inner, outer, shape=shape, local=local)


def _level(
    validation: HoldoutPrediction,
    folds: Sequence[tuple[HoldoutPrediction, HoldoutPrediction]],
    shape: ErrorShape,
    local: LocalFactors,
    rare: NDArray[np.bool_] | bool,
) -> Array:
    """Factors of both intervals [2, K] by the validation part, corrected by the folds."""
    own = validation.level(shape, local)
    levels = [(out.level(shape, local), val.level(shape, local)) for out, val in folds]
    inner = own.factor * _correction([(out.factor, val.factor) for out, val in levels])
    outer = own.factor_95 * _correction([(out.factor_95, val.factor_95) for out, val in levels])
    if np.any(rare):
        together = HoldoutPrediction.together([validation, *(out for out, _ in folds)])
        level = together.level(shape, local)
        inner, outer = np.where(rare, [level.factor, level.factor_95], [inner, outer])
    return np.stack([inner, outer])


def _correction(levels: Sequence[tuple[Array | float, Array | float]]) -> Array | float:
    """Geometric mean over folds of the level of left-out stars over that of the validation part."""
    if not levels:
        return 1.0
    mean = np.mean([np.log(out) - np.log(val) for out, val in levels], axis=0)
    bound = np.log(LARGEST_CORRECTION)
    correction: Array = np.exp(np.clip(mean, -bound, bound))
    return correction
