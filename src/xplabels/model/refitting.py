"""What a model takes from its validation part when its networks stand, and can take later.

The correction for shrinkage, and the calibration stars that others are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xplabels.calibration.shrinkage import FEWEST_STARS, ShrinkageCorrection
from xplabels.calibration.transfer import (
    LARGEST_BARE_SAMPLE,
    LARGEST_SAMPLE,
    SMALLEST_SAMPLE,
    CalibrationStars,
    Transfer,
)
from xplabels.core.arrays import Array
from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.selection import Selection
from xplabels.core.split import part_mask
from xplabels.core.stars import Photometry, Stars
from xplabels.model import BLOCK, Model


def fit_unshrinking(model: Model, stars: Stars) -> Model:
    """The model, able to take the shrinkage (regression to the mean) out of its labels.

    Training does this; here it is for models trained before. Nothing is trained anew.

    Parameters
    ----------
    model
        Its split says which of the stars are its validation part, its selection which of them
        count.
    stars
        With known labels: the table it was trained with, or another that has enough of its
        validation part.

    Returns
    -------
    Model
        Whose :meth:`~xplabels.model.Model.unshrunk` works, and stays with it when saved.

    Raises
    ------
    InputError
        If the stars have no labels, or fewer than 100 of them are of the validation part.

    Examples
    --------
    >>> from xplabels.synthetic import simulate_stars
    >>> model = Model.load("apogee-dr17-library")
    >>> stars, _ = simulate_stars(2000, labels=model.names)
    >>> fit_unshrinking(model, stars).unshrunk().predict(stars[:3]).meta["ESTIMATE"]
    'unshrunk: training prior divided out'
    """
    return with_unshrinking(model, *validation_part(model, stars, FEWEST_STARS))


def validation_part(model: Model, stars: Stars, least: int) -> tuple[Stars, Labels]:
    """The ``stars`` of the model's validation part and selection, and their known labels.

    A label that few of the training stars had may be absent: it is unknown then.

    :class:`InputError` if the stars have no labels, or fewer than ``least`` of them are of it.
    """
    if stars.labels is None:
        raise InputError("the stars have no known labels", where=stars.where)
    labels = stars.labels.in_units_of(model.names)
    stars = stars.with_labels(labels)
    fraction = float(model.metadata["split"]["test_fraction"])
    part = stars[part_mask(stars.source_id, "validation", fraction)]
    if len(part):
        part, _ = Selection.of_model(model.metadata, labels.names).apply(part)
    if len(part) < least:
        raise InputError(
            f"only {len(part)} of the {len(stars)} stars are of the model's validation part, "
            f"{least} are needed",
            where=stars.where,
            remedy="give the stars the model was trained with",
        )
    rare = [name for name in model.names if name not in model.common_names]
    return part, (part.labels or labels).extended(rare)


def with_unshrinking(model: Model, validation: Stars, known: Labels) -> Model:
    """The same from the validation part itself, and its known labels."""
    prediction = replace(model, estimate="mean").predict(validation, correlations=True)
    names = [name for name in model.names if name in known.names]
    if names != list(model.names):
        absent = ", ".join(sorted(set(model.names) - set(names)))
        raise InputError(f"{absent}: not among the stars' labels", where=validation.where)
    fitted = ShrinkageCorrection.fit(prediction, known, model.scaling)
    return replace(model, unshrinking=fitted)


def check_errors(model: Model, stars: Stars) -> Transfer:
    """Whether the model's error bars hold for these stars, of which no label need be known.

    Raises
    ------
    InputError
        If the model has no calibration stars, no star has a prediction, or the spectra are of
        another kind than the model's.

    Examples
    --------
    >>> from xplabels.synthetic import example_stars, simulate_stars
    >>> model = Model.load("apogee-dr17-library")
    >>> stars, _ = simulate_stars(3000, labels=model.names)
    >>> check_errors(with_calibration_stars(model, stars), example_stars(100)).n
    100
    """
    if model.calibration_stars is None:
        raise InputError(
            "the model does not have the stars its errors were calibrated on, to compare with",
            remedy=f"at least {SMALLEST_SAMPLE} are needed: train with more stars, or with "
            "calibration_folds; if an old version trained it, "
            "xplabels.with_calibration_stars(model, the stars it was trained with).save(FOLDER)",
        )
    return model.calibration_stars.compare(
        coordinates(model, stars), model.names, model.feature_set.auxiliary, model.common_names
    )


def with_calibration_stars(model: Model, stars: Stars) -> Model:
    """The model with a sample of its validation part, for :func:`check_errors`.

    Training does this, with stars that its folds left out, too; here it is for models trained
    before.

    Parameters
    ----------
    model
        Its split says which of the stars are its validation part.
    stars
        With known labels: the table it was trained with.

    Raises
    ------
    InputError
        If the stars have no labels, or fewer than 200 are of the validation part.

    Examples
    --------
    >>> from xplabels.synthetic import simulate_stars
    >>> model = Model.load("apogee-dr17-library")
    >>> stars, _ = simulate_stars(3000, labels=model.names)
    >>> with_calibration_stars(model, stars).calibration_stars is not None
    True
    """
    part, labels = validation_part(model, stars, SMALLEST_SAMPLE)
    return replace(model, calibration_stars=sample([(model, part, labels.select(model.names))]))


def sample(parts: Sequence[tuple[Model, Stars, Labels]]) -> CalibrationStars:
    """Some of the stars of several parts, each with the calibrated model that did not see them.

    Of a model with colours, some stars once more without photometry, as users may have them.
    """
    whole = sum(len(stars) for _, stars, _ in parts)
    random = np.random.default_rng(0)
    auxiliary = any(model.feature_set.auxiliary for model, _, _ in parts)
    wanted = [(part, False) for part in parts] + [(part, True) for part in parts if auxiliary]
    found, ratios = [], []
    for (model, stars, labels), bare in wanted:
        share = min(1.0, (LARGEST_BARE_SAMPLE if bare else LARGEST_SAMPLE) / whole)
        rows = np.sort(random.permutation(len(stars))[: int(share * len(stars))])
        some, known = stars[rows], labels[rows]
        if bare:
            some = some.with_photometry(Photometry.missing(len(some)))
        prediction = replace(model, support=None, forward=None, estimate="mean").predict(some)
        off, error = np.abs(prediction.values - known.values), np.nan_to_num(known.errors)
        inner = off / np.hypot(prediction.errors, error)
        ratios.append(np.stack([inner, off / np.hypot(prediction.errors_95, 2 * error)]))
        found.append(coordinates(model, some))
    at, ratio = np.concatenate(found), np.concatenate(ratios, axis=1)
    usable = np.isfinite(at).all(axis=1)
    return CalibrationStars(at[usable].astype(np.float32), ratio[:, usable].astype(np.float32))


def coordinates(model: Model, stars: Stars) -> Array:
    """What stars are compared by [N, C], :func:`~xplabels.calibration.transfer.coordinate_names`.

    NaN where there is no prediction. Labels are the network's own, also where undefined.
    """
    features, scaling, blocks = model.feature_set, model.scaling, []
    for start in range(0, max(len(stars), 1), BLOCK):
        inputs = features.compute(stars[slice(start, start + BLOCK)])
        usable = model.usable(inputs)
        chosen = inputs[usable]
        inferred = model.inference.run(chosen)
        # not kept within the training stars' range, as the network's are
        noise = (features.noise_levels(chosen) - scaling.noise_mean) / scaling.noise_scale
        with np.errstate(divide="ignore"):
            distance = np.log(model.domain.distance(inferred.x))[:, None]
        missing = np.isnan(chosen.x[:, features.n_spectral :])
        if not noise.shape[1]:
            noise = np.zeros((len(chosen), 2))
        labels = model.of_common(inferred.labels.mean)
        found = np.concatenate([labels, noise, distance, missing], axis=1)
        block = np.full((len(inputs), found.shape[1]), np.nan)
        block[usable] = found
        blocks.append(block)
    return np.concatenate(blocks)
