"""The table that training starts from: features, labels, the split and training statistics."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xplabels.core.arrays import Array
from xplabels.core.errors import InputError, located
from xplabels.core.flags import UNUSABLE, Flag
from xplabels.core.labels import LABELS, Label, Labels, label_of
from xplabels.core.split import fold_of, part_mask
from xplabels.core.stars import SampledSpectra, Stars
from xplabels.features import AUXILIARY, Features, FeatureSet
from xplabels.features.scaling import Scaling
from xplabels.network.propagation import Block
from xplabels.recipes import Recipe, check_learnt
from xplabels.training.objective import LabelledStars

logger = logging.getLogger(__name__)

SMALLEST_TRAINING, SMALLEST_VALIDATION = 200, 30
"""Fewest stars that can train a network, and test whether its errors are right."""

ALIKE = 0.2
"""Standard deviations of Teff within which stars are alike."""
LARGEST_WEIGHT = 3.0
"""Largest weight of a star in the loss."""


@dataclass(frozen=True)
class TrainingTable:
    """Usable stars with features, labels (``names``), the split and training statistics.

    ``weight`` [N] is how much each star counts; ``sparse`` [K] says which labels few stars have.
    """

    stars: Stars
    names: tuple[str, ...]
    feature_set: FeatureSet
    features: Features
    y: Array
    y_error: Array
    train: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    scaling: Scaling
    weight: Array
    sparse: NDArray[np.bool_]

    def select(self, which: NDArray[np.bool_]) -> TrainingTable:
        """The same stars with some of the labels, bool [K]."""
        return replace(
            self, names=tuple(compress(self.names, which)), y=self.y[:, which],
            y_error=self.y_error[:, which], scaling=self.scaling.select(which),
            sparse=self.sparse[which],
        )  # fmt: skip

    def labels(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Labels:
        """Known labels of some stars."""
        return Labels(self.names, self.y[rows], self.y_error[rows])

    def folds(self, count: int) -> Iterator[NDArray[np.bool_]]:
        """Masks [N] of the ``count`` folds of the training part."""
        if count:
            fold = fold_of(self.stars.source_id, count)
            yield from (self.train & (fold == number) for number in range(count))

    def sample(self, rows: NDArray[np.bool_], device: str = "cpu") -> LabelledStars:
        """Float32 tensors of some stars."""
        scaled, scaled_error = self.scaling.scale_y(self.y[rows], self.y_error[rows])
        y, y_error, weight = (
            torch.as_tensor(array, dtype=torch.float32, device=device)
            for array in (scaled, np.nan_to_num(scaled_error), self.weight[rows, None])
        )
        features, feature_set = self.features[rows], self.feature_set
        block = Block.of(features, feature_set, self.scaling, torch.float32, device)
        number = torch.as_tensor(np.flatnonzero(rows), device=device)
        return LabelledStars(block, y, y_error, number, weight)

    def provenance(self) -> dict[str, Any]:
        """Origin, number and ids (as a digest) of the stars that train."""
        ids = np.sort(self.stars.source_id[self.train])
        return {
            "origin": self.stars.origin,
            "n_train": int(self.train.sum()),
            "n_validation": int(self.validation.sum()),
            "source_id_sha256": hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest(),
            "n_per_label": np.isfinite(self.y[self.train]).sum(axis=0).tolist(),
            "notes": list(self.stars.notes),
        }

    def digest(self) -> str:
        """SHA-256 of the stars' data and labels, to recognise the checkpoint of other data.

        It does not cover the features, whose last bits depend on the number of threads.
        """
        spectra, photometry = self.stars.spectra, self.stars.photometry
        if isinstance(spectra, SampledSpectra):
            arrays: list[Any] = [spectra.wavelength, spectra.flux, spectra.flux_error]
        else:
            arrays = [array for band in (spectra.bp, spectra.rp)
                      for array in (band.coefficients, band.errors, band.correlations)
                      if array is not None]  # fmt: skip
        digest = hashlib.sha256()
        for array in (*arrays, photometry.values, photometry.errors, self.y, self.y_error):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def training_table(
    stars: Stars, names: tuple[str, ...], recipe: Recipe, test_fraction: float
) -> TrainingTable:
    """The training table of the usable stars, without those of the test part.

    Raises :class:`InputError` if the stars have no such labels, an error (or a label learned as its
    logarithm) is not positive, an input is absent, or there are too few stars.
    """
    if stars.labels is None:
        raise InputError(
            "the stars have no labels to learn", where=stars.where,
            remedy=f"add columns {names[0]} and {names[0]}_err, or stars.join(labels=TABLE)",
        )  # fmt: skip
    check_learnt(recipe, names, f"recipe {recipe.name}")
    with located(stars.where):
        labels = stars.labels.select(names)
        names = tuple(_as_learned(name, recipe) for name in labels.names)
        logarithmic = [name for name in names if _is_logarithmic(name, recipe)]
        _check_labels(labels, stars, logarithmic)
    known = np.isfinite(labels.values) & np.isfinite(labels.errors)
    labelled = ~part_mask(stars.source_id, "test", test_fraction) & known.any(axis=1)
    labelled &= (stars.flags & np.uint32(UNUSABLE)) == 0
    y = np.where(known, labels.values, np.nan)[labelled]
    y_error = np.where(known, labels.errors, np.nan)[labelled]
    stars = stars[labelled]
    feature_set = FeatureSet.for_stars(
        stars, _available(stars) if "available" in recipe.auxiliary else recipe.auxiliary,
        covariance=recipe.covariance, extinction_error=recipe.extinction_error,
        noise=recipe.noise_levels,
    )  # fmt: skip
    features = feature_set.compute(stars)
    n = feature_set.n_spectral
    usable = np.isfinite(features.x[:, :n]).all(axis=1) & np.isfinite(features.errors).all(axis=1)
    # one star that is divided by an error instead of RP 0, or by a noisy RP 0, would spoil the
    # training statistics of all
    usable &= features.is_ratio & ((features.flags & np.uint32(Flag.LOW_SNR)) == 0)
    train = usable & part_mask(stars.source_id, "train", test_fraction)
    validation = usable & part_mask(stars.source_id, "validation", test_fraction)
    for part, rows, least in (
        ("training", train, SMALLEST_TRAINING),
        ("validation", validation, SMALLEST_VALIDATION),
    ):
        if rows.sum() < least:
            raise InputError(
                f"only {int(rows.sum())} usable stars in the {part} part, {least} are needed",
                where=stars.where, remedy="give more stars with labels and spectra",
            )  # fmt: skip
        for name, count in zip(names, np.isfinite(y[rows]).sum(axis=0), strict=True):
            if count < least:
                raise InputError(
                    f"only {count} stars of the {part} part have {name}, {least} are needed",
                    where=stars.where,
                    remedy=f"give more stars with {name}, or train without it",
                )
    with located(stars.where):
        noise = feature_set.noise_levels(features)
        scaling = Scaling.fit(
            features.x[train], y[train], feature_set.names, names, noise[train], logarithmic
        )
    weight = np.ones(len(y))
    if recipe.balance and "teff" in names:
        teff = scaling.scale_y(y, y_error)[0][:, names.index("teff")]
        weight = rarity(teff, teff[train], recipe.balance)
    share = np.isfinite(y[train]).mean(axis=0)
    table = TrainingTable(
        stars, names, feature_set, features, y, y_error, train, validation, scaling, weight,
        share < recipe.sparse_share * share.max(),
    )  # fmt: skip
    if recipe.recalibrate:
        _check_folds(table, recipe.calibration_folds)
    return table


def rarity(teff: Array, among: Array, power: float) -> Array:
    """Weights [N] of stars by their scaled Teff: larger where few others [M] have a similar one.

    They go with the density of stars in Teff to the power -``power``, relative to the median
    density, and are at least 1 and at most :data:`LARGEST_WEIGHT`; 1 where Teff is unknown (NaN).
    """
    among = np.sort(among[np.isfinite(among)])

    def neighbours(at: Array) -> NDArray[np.intp]:
        return np.searchsorted(among, at + ALIKE) - np.searchsorted(among, at - ALIKE)

    count = np.maximum(neighbours(teff), 1)
    weight = (np.median(neighbours(among)) / count) ** power
    return np.where(np.isfinite(teff), np.clip(weight, 1.0, LARGEST_WEIGHT), 1.0)


def _check_folds(table: TrainingTable, count: int) -> None:
    for number, left_out in enumerate(table.folds(count), start=1):
        known = np.isfinite(table.y[left_out]).sum(axis=0)
        if known.min() < SMALLEST_VALIDATION:
            raise InputError(
                f"only {known.min()} stars of fold {number} of {count} have "
                f"{table.names[known.argmin()]}, {SMALLEST_VALIDATION} are needed to tell whether "
                "its errors are right",
                where=table.stars.where,
                remedy="give fewer calibration_folds (the recipe quick has none), or more stars",
            )


def _is_logarithmic(name: str, recipe: Recipe) -> bool:
    return name in recipe.logarithmic or (name not in LABELS and label_of(name).logarithmic)


def _as_learned(name: str, recipe: Recipe) -> Label:
    """The label with its table's unit and description, and whether its logarithm is learned."""
    if name in LABELS:
        return LABELS[name]
    return Label(name, **{**label_of(name).about(), "logarithmic": _is_logarithmic(name, recipe)})


def _check_labels(labels: Labels, stars: Stars, logarithmic: Sequence[str]) -> None:
    for k, name in enumerate(labels.names):
        rows = np.flatnonzero(labels.values[:, k] <= 0)
        if name in logarithmic and len(rows):
            raise InputError(
                f"{name} is {labels.values[rows[0], k]:g}, which has no logarithm "
                f"({len(rows)} such stars)",
                where=f"source_id {stars.source_id[rows[0]]}",
                remedy=f"leave {name} empty where it is not known",
            )
    bad = np.isfinite(labels.values) & (labels.errors <= 0)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        name = labels.names[column]
        raise InputError(
            f"{name}_err is {labels.errors[row, column]:g}, an error must be positive "
            f"({int(bad.sum())} such entries)",
            where=f"source_id {stars.source_id[row]}",
            remedy=f"leave {name} empty where its error is not known",
        )


def _available(stars: Stars) -> tuple[str, ...]:
    """The auxiliary inputs that at least half of the stars have."""

    def share(name: str) -> float:
        present = [np.isfinite(stars.photometry.column(part)[0]) for part in AUXILIARY[name]]
        return float(np.mean(np.all(present, axis=0)))

    available = tuple(name for name in AUXILIARY if share(name) >= 0.5)
    if not available:
        logger.info("no colours: fewer than half of the stars have photometry for any of them")
    return available
