"""What is fitted on a model's validation part when its networks stand, and can be fitted later."""

from __future__ import annotations

from dataclasses import replace

from xplabels.calibration.shrinkage import FEWEST_STARS, ShrinkageCorrection
from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.selection import Selection
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.model import Model


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
