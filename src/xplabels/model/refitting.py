"""Parts of a model that are fitted to its validation part after training, also later.

These are the correction for shrinkage, and the calibration stars with which others are compared.
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
    """The model with a correction for the shrinkage (regression to the mean) of its labels.

    Training includes this; the function is for models that were trained before. No network is
    trained anew.

    Parameters
    ----------
    model
        The correction is fitted to the stars in its validation part and selection.
    stars
        Stars with known labels: the table the model was trained with, or another that contains
        enough of its validation part.

    Returns
    -------
    Model
        With a working :meth:`~xplabels.model.Model.unshrunk`; the correction is saved with it.

    Raises
    ------
    InputError
        If the stars have no labels, or fewer than 100 of them are in the validation part.

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
    """The ``stars`` in the model's validation part and selection, and their known labels.

    A label that few of the training stars had may be absent, and is then unknown.

    Raises :class:`InputError` if the stars have no labels, or fewer than ``least`` of them are in
    the validation part.
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
    """The same, from the stars of the validation part and their known labels."""
    prediction = replace(model, estimate="mean").predict(validation, correlations=True)
    names = [name for name in model.names if name in known.names]
    if names != list(model.names):
        absent = ", ".join(sorted(set(model.names) - set(names)))
        raise InputError(f"{absent}: not among the stars' labels", where=validation.where)
    fitted = ShrinkageCorrection.fit(prediction, known, model.scaling)
    return replace(model, unshrinking=fitted)


def check_errors(model: Model, stars: Stars) -> Transfer:
    """Whether the model's errors hold for these stars, whose labels need not be known.

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

    Training includes this, also with stars that its folds left out; the function is for models that
    were trained before.

    Parameters
    ----------
    model
        A model; the sample is taken from those of the stars that are in its validation part.
    stars
        Stars with known labels: the table the model was trained with.

    Raises
    ------
    InputError
        If the stars have no labels, or fewer than 200 are in the validation part.

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
    """A sample of the stars of several parts, each with a calibrated model that did not see them.

    If a model has colours as inputs, it also contains some stars without their photometry, as users
    may have such stars.
    """
    total = sum(len(stars) for _, stars, _ in parts)
    random = np.random.default_rng(0)
    auxiliary = any(model.feature_set.auxiliary for model, _, _ in parts)
    samples = [(part, False) for part in parts] + [(part, True) for part in parts if auxiliary]
    positions, ratios = [], []
    for (model, stars, labels), bare in samples:
        share = min(1.0, (LARGEST_BARE_SAMPLE if bare else LARGEST_SAMPLE) / total)
        rows = np.sort(random.permutation(len(stars))[: int(share * len(stars))])
        chosen, known = stars[rows], labels[rows]
        if bare:
            chosen = chosen.with_photometry(Photometry.missing(len(chosen)))
        prediction = replace(model, support=None, forward=None, estimate="mean").predict(chosen)
        off, error = np.abs(prediction.values - known.values), np.nan_to_num(known.errors)
        inner = off / np.hypot(prediction.errors, error)
        ratios.append(np.stack([inner, off / np.hypot(prediction.errors_95, 2 * error)]))
        positions.append(coordinates(model, chosen))
    position, ratio = np.concatenate(positions), np.concatenate(ratios, axis=1)
    usable = np.isfinite(position).all(axis=1)
    return CalibrationStars(
        position[usable].astype(np.float32), ratio[:, usable].astype(np.float32)
    )


def coordinates(model: Model, stars: Stars) -> Array:
    """The coordinates [N, C] in which stars are compared; NaN where there is no prediction.

    Their names are :func:`~xplabels.calibration.transfer.coordinate_names`. Labels are the
    network's own, also where undefined.
    """
    features, scaling, blocks = model.feature_set, model.scaling, []
    for start in range(0, max(len(stars), 1), BLOCK):
        inputs = features.compute(stars[slice(start, start + BLOCK)])
        usable = model.usable(inputs)
        chosen = inputs[usable]
        inferred = model.inference.run(chosen)
        # not clipped to the training stars' range, as the network's inputs are
        noise = (features.noise_levels(chosen) - scaling.noise_mean) / scaling.noise_scale
        with np.errstate(divide="ignore"):
            distance = np.log(model.domain.distance(inferred.x))[:, None]
        missing = np.isnan(chosen.x[:, features.n_spectral :])
        if not noise.shape[1]:
            noise = np.zeros((len(chosen), 2))
        labels = model.of_common(inferred.labels.mean)
        position = np.concatenate([labels, noise, distance, missing], axis=1)
        block = np.full((len(inputs), position.shape[1]), np.nan)
        block[usable] = position
        blocks.append(block)
    return np.concatenate(blocks)
