"""Trains a model on stars with known labels, by a recipe."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from xplabels import __version__
from xplabels.calibration.domain import Domain, LabelSupport
from xplabels.calibration.factors import Calibration
from xplabels.core.errors import InputError
from xplabels.core.labels import check_names
from xplabels.core.prediction import Prediction
from xplabels.core.split import VALIDATION_FRACTION
from xplabels.core.stars import Stars
from xplabels.inference import Inference
from xplabels.inference.network import Perceptron
from xplabels.io.catalogue import csv_text
from xplabels.io.memory import is_path, is_table
from xplabels.model import Model
from xplabels.model.card import write_card
from xplabels.model.refitting import with_unshrinking
from xplabels.network import check_device
from xplabels.recipes import Recipe, load_recipe
from xplabels.training.cross_fitting import (
    audit_of_folds,
    calibrated,
    unseen_prediction,
    wrong_by_folds,
)
from xplabels.training.forward import fit_forward
from xplabels.training.optimisation import Checkpoint
from xplabels.training.run import Fold, Run
from xplabels.training.table import TrainingTable, training_table
from xplabels.validation import score_prediction
from xplabels.validation.finding import as_json

logger = logging.getLogger(__name__)


def train(
    stars: Stars,
    labels: Any = None,
    recipe: Recipe | str = "default",
    *,
    seed: int = 0,
    test_fraction: float = 0.1,
    checkpoint: Path | None = None,
    overwrite_checkpoint: bool = False,
    progress: bool = True,
    name: str = "",
    device: str = "cpu",
) -> Model:
    """Train a model on the training part of ``stars``.

    Parameters
    ----------
    stars
        Stars with known labels; a star is used for each label that it has.
    labels
        Names of the labels to learn (or :class:`~xplabels.core.labels.Label`, with units and
        descriptions of your own), by default all that the stars have; or a table of known labels
        (a file, or in memory), all of which are learned.
    recipe
        A recipe, or the name or path of one.
    seed
        Seed of all random numbers: the same stars, recipe, seed and device give the same model.
    test_fraction
        Share of the stars, by hash of the source_id, that training does not use.
    checkpoint
        A folder for the states of the run; if it holds those of the same run, training resumes
        from them.
    overwrite_checkpoint
        Whether to overwrite the checkpoint of another run.
    progress
        Whether to show a bar of epochs per network, with losses and the time left.
    name
        Name of the model, for its card and catalogues.
    device
        Where to train: ``cpu``, ``cuda``, or another name that torch has for it.

    Raises
    ------
    InputError
        If a label is unknown or absent, an error is zero or negative, there are too few stars,
        the checkpoint belongs to another run, or the seed or the device cannot be used.

    Examples
    --------
    >>> from xplabels.recipes import Recipe
    >>> from xplabels.synthetic import example_stars
    >>> quick = Recipe(hidden=(16,), epochs=2, calibration_folds=0)
    >>> model = train(example_stars(600), ["teff", "logg"], quick, progress=False)
    >>> model.names
    ('teff', 'logg')
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    check_device(device)
    if isinstance(labels, str) and not Path(labels).suffix:
        labels = [label.strip() for label in labels.split(",")]
    if labels is not None and (is_path(labels) or isinstance(labels, Mapping) or is_table(labels)):
        stars, labels = stars.join(labels=labels), None
    if labels is None:
        labels = () if stars.labels is None else stars.labels.names
    names = check_names(labels)
    table = training_table(stars, names, recipe, test_fraction)
    states = _states(table, recipe, seed, checkpoint, overwrite_checkpoint)
    run = Run(table, recipe, seed, states, progress, device)
    for reason in run.left_out:
        logger.warning("left out: %s", reason)
    folds: list[Fold] = []
    if recipe.wrong_labels == "leave_out":
        folds = list(run.calibration_folds())
        wrong = wrong_by_folds(_uncalibrated(table, recipe, folds[0].networks), table, folds)
        note = f"{wrong.sum()} training stars whose label is probably wrong are left out"
        logger.info(note)
        stars = replace(table.stars, notes=(*table.stars.notes, note))
        table = replace(table, stars=stars, train=table.train & ~wrong)
        run = Run(table, recipe, seed, states, progress, device)
    networks, history = run.networks()
    model = replace(
        _uncalibrated(table, recipe, networks),
        metadata={
            "name": name or recipe.name,
            "training": table.provenance(),
            "split": {
                "rule": "u = first 8 hex digits of sha256(str(source_id)) / 2^32; "
                "test: u < test_fraction; validation: the next validation_fraction; else training",
                "test_fraction": test_fraction,
                "validation_fraction": VALIDATION_FRACTION,
            },
            "seed": seed,
            "history": {
                stage: [as_json({k: round(v, 6) for k, v in one.items()}) for one in entries]
                for stage, entries in history.items()
            },
            "versions": {
                "xplabels": __version__,
                "python": platform.python_version(),
                "torch": version("torch"),
                "numpy": np.__version__,
            },
            "left_out": run.left_out,
            "device": device,
        },
    )
    if recipe.recalibrate:
        if (count := recipe.calibration_folds) and not folds:
            seconds = (count - 1) * sum(entries[-1]["seconds"] for entries in history.values())
            logger.info(
                "error bars: %d further trainings, each without a fold of the stars; "
                "about %.0f s (recipe quick does without)", count, seconds,
            )  # fmt: skip
            folds = list(run.calibration_folds())
        model = calibrated(model, table, folds)
    support = LabelSupport.fit(
        names, model.inference.run(table.features[table.train]).labels.mean,
        np.isfinite(table.y[table.train]), recipe.defined_share,
    )  # fmt: skip
    forward = fit_forward(model, table, folds, seed) if recipe.forward else None
    model = replace(model, support=support, forward=forward)
    validation, known = table.stars[table.validation], table.labels(table.validation)
    model = with_unshrinking(model, validation, known)
    # the calibration was fitted to these stars, so this is not an independent test
    scores = score_prediction(model.predict(validation), known).groups["all"].to_dict()
    audit = audit_of_folds(model, table, folds)
    logger.info(audit.to_text())
    results = {"validation": as_json(scores), "label_audit": as_json(audit.summary())}
    model = replace(
        model, metadata=model.metadata | results, label_audit=csv_text(audit.to_arrow())
    )
    return replace(model, card=write_card(model))


def cross_fitted(
    stars: Stars,
    labels: Sequence[str],
    recipe: Recipe,
    *,
    seed: int = 0,
    test_fraction: float = 0.1,
    checkpoint: Path | None = None,
    progress: bool = True,
    device: str = "cpu",
) -> Prediction:
    """Predictions of training and validation stars, each by networks that had not seen it.

    These are the networks that :func:`train` trains with the same arguments; it shares the
    checkpoint. Errors are not calibrated. It serves to study the labels before training on them,
    such as the offsets between surveys without common stars.

    Examples
    --------
    >>> from xplabels.recipes import Recipe
    >>> from xplabels.synthetic import example_stars
    >>> quick = Recipe(hidden=(16,), epochs=2, calibration_folds=2)
    >>> prediction = cross_fitted(example_stars(600), ["teff", "logg"], quick, progress=False)
    >>> prediction.names
    ('teff', 'logg')
    """
    table = training_table(stars, check_names(labels), recipe, test_fraction)
    states = _states(table, recipe, seed, checkpoint)
    run = Run(table, recipe, seed, states, progress, check_device(device))
    model = _uncalibrated(table, recipe, run.networks()[0])
    return unseen_prediction(model, table, list(run.calibration_folds()))[0]


def _states(
    table: TrainingTable, recipe: Recipe, seed: int, folder: Path | None, overwrite: bool = False
) -> Checkpoint:
    """The checkpoint of the networks for common labels; heads for sparse ones are trained anew."""
    if not 0 <= seed < 2**63:
        raise InputError(f"{seed} is not a seed", remedy="give 0 or more, below 2^63")
    common = table.select(~table.sparse)
    origin = {key: value for key, value in common.provenance().items() if key != "notes"}
    manifest = {
        "recipe": recipe.to_dict(), "seed": seed, "labels": list(common.names),
        "training": origin, "data": common.digest(), "version": __version__,
    }  # fmt: skip
    return Checkpoint(folder, manifest, overwrite)


def _uncalibrated(table: TrainingTable, recipe: Recipe, networks: tuple[Perceptron, ...]) -> Model:
    """A model of these networks with its training stars' statistics and uncalibrated errors."""
    inference = Inference(table.feature_set, table.scaling, networks)
    inputs = inference.network_input(table.features[table.train])[0][:, : table.features.x.shape[1]]
    known = table.y[table.train]
    return Model(
        table.names,
        table.feature_set,
        table.scaling,
        networks,
        recipe,
        Calibration.nominal(len(table.names), recipe.likelihood, recipe.dof),
        Domain.fit(inputs),
        np.stack([np.nanmin(known, axis=0), np.nanmax(known, axis=0)], axis=1),
        common=tuple(np.flatnonzero(~table.sparse).tolist()) if table.sparse.any() else (),
    )
