"""The forward model of a trained network, from the stars it was trained with.

It is fitted to labels predicted for stars that the network has not seen (those of its calibration
folds; without folds, its own training stars), since the labels of new stars are predicted, too.
Noisier copies of the stars show how predicted labels change with noise, sums of two stars show the
effect of a second star, and emission lines planted in such sums show theirs. The statistics of
ordinary stars come from cross-fitting: those of each fold are by a forward model fitted without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xplabels.core.arrays import Array
from xplabels.core.prediction import unpacked
from xplabels.core.split import fold_of
from xplabels.core.stars import MEASUREMENTS, CoefficientSpectra, Photometry, SampledSpectra, Stars
from xplabels.features import Features, FeatureSet
from xplabels.forward import LARGEST_LOG_VARIANCE, ForwardModel, Layers, Statistics, Tail
from xplabels.forward.directions import Directions
from xplabels.inference import Inference
from xplabels.model import Model
from xplabels.training.lines import Lines
from xplabels.training.run import Fold
from xplabels.training.table import TrainingTable

N_DIRECTIONS = 48
"""Leading directions that hold the spectra, by the training stars' scatter relative to noise."""
N_FIT_DIRECTIONS = 40
"""Directions among these in which a spectrum is compared with what its labels predict."""
N_DISTANCE_DIRECTIONS = 24
"""Leading directions that measure the distance from the training stars."""
STARS_PER_DIRECTION = 10
"""Fewest training stars for each direction."""
WELL_DETERMINED = 1e-3
"""Least noise variance of a usable combination of scaled coefficients, relative to the largest: the
others are fixed by the projection's prior or by rounding, not by light."""
OUTLIERS = 0.03
"""Share of the stars that is left out when directions are chosen."""

COPIES = 2
"""Noisier copies of each star."""
DECADES = 1.3
"""How far (dex) the errors of copies go beyond those of the noisiest stars: from G = 15 to 18.5."""
LARGEST_ERROR = 0.05
"""Largest relative error of RP 0 in copies: ratios to a noisier one are not linear."""
FAINTEST_LIGHT = 0.1
"""Least light of a second star relative to the first, in RP 0."""
FAINTEST_BESIDE_LINES = 1e-3
"""The same where emission lines are planted: two in three are next to single stars, others are like
symbiotic stars."""
BLOCK = 2048
"""Stars whose noise is drawn at once."""

CLIPPED_SHARE = 0.002
"""Share of the training inputs beyond each end of the range in which the model is evaluated."""
SCATTER_QUANTILE = 0.9
"""Quantile of the training stars' predicted scatter that caps what the model predicts."""
HIDDEN_WIDTH, EPOCHS, BATCH = 64, 12, 512
SCATTER_DOF = 6.0
"""Degrees of freedom of the Student's t whose likelihood fits mean and scatter."""

FOLDS = 4
"""Folds of the cross-fitting."""
SHARES = np.array(
    [0.999, 0.99, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.006, 0.004, 0.002]
)
"""Shares of ordinary stars for which the statistics' tails are tabulated."""
TAIL_BINS, FEWEST_IN_BIN = 24, 400
"""Most bins of noise level in such a table, and fewest stars in a bin."""
FLAGGED = 0.01
"""Share of ordinary stars that is flagged, by the fit or by the distance."""
FLAGGED_BY_DISTANCE = 0.35
"""Part of these that is flagged by the distance."""


class FitSample(NamedTuple):
    """N stars with their ``fold`` [N] in the cross-fitting and predicted scaled labels [N, K]."""

    features: Features
    labels: Array
    fold: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> FitSample:
        """Some of the stars."""
        return FitSample(self.features[rows], self.labels[rows], self.fold[rows])


def fit_forward(
    model: Model, table: TrainingTable, folds: Sequence[Fold] = (), seed: int = 0
) -> ForwardModel | None:
    """The forward model of ``model``, with its training table and the networks of its ``folds``.

    None where the stars are too few to find directions.
    """
    features = table.features[table.train]
    count = min(N_DIRECTIONS, len(features) // STARS_PER_DIRECTION)
    if count < 2:
        return None
    random = np.random.default_rng(seed)
    stars, fold = table.stars[table.train], fold_of(table.stars.source_id[table.train], FOLDS)
    predict = _Predict(model, table, folds)
    clean = FitSample(features, predict(features, np.arange(len(features))), fold)
    # all stars may reach the same noise: else the noisiest copies would be of noisy stars alone
    log_error = np.log10(np.median(features.errors / np.abs(features.divisor)[:, None], axis=1))
    decades = np.maximum(np.quantile(log_error, 0.95) + DECADES - log_error, 0.0)
    rows = np.tile(np.arange(len(features)), COPIES)
    noisier = fainter(
        features[rows], model.feature_set, 10 ** (decades[rows] * random.random(len(rows))), random
    )
    copies = FitSample(noisier, predict(noisier, rows), fold[rows])

    def sums(faintest: float, lines: Lines | None = None) -> FitSample:
        """Sums of two training stars, with ``lines`` planted in them; half of them are fainter."""
        first, second = _pairs(predict.fold, 2 * len(features), random)
        light = faintest ** random.random(len(first))
        pairs = model.feature_set.compute(summed(stars, features.divisor, first, second, light))
        if lines is not None:
            pairs = lines.planted(pairs, model.feature_set, random)
        bright = np.arange(len(first)) % 2 == 0
        factor = np.where(bright, 1.0, 10 ** (decades[first] * random.random(len(first))))
        pairs = fainter(pairs, model.feature_set, factor, random)
        return FitSample(pairs, predict(pairs, first), fold[first])

    lines = Lines.of(model.feature_set, random)
    ordinary, odd = [clean, copies], [sums(FAINTEST_LIGHT)]
    if lines is not None:
        odd.append(sums(FAINTEST_BESIDE_LINES, lines))
    directions, k = _directions(clean, model, count, lines)
    fold_models = [
        _fit([sample.take(sample.fold != f) for sample in ordinary],
             [sample.take(sample.fold != f) for sample in odd], directions, k, seed)
        for f in range(FOLDS)
    ]  # fmt: skip

    def unseen(sample: FitSample) -> Statistics:
        """Statistics of the stars of each fold by the forward model fitted without it."""
        parts = [
            fold_model.statistics(
                sample.features[sample.fold == f], sample.labels[sample.fold == f]
            )
            for f, fold_model in enumerate(fold_models)
        ]
        return Statistics(*map(np.concatenate, zip(*parts, strict=True)))

    fitted = _fit(ordinary, odd, directions, k, seed)
    return _with_thresholds(fitted, unseen(clean), unseen(copies))


class _Predict:
    """Predicts scaled labels of training stars, and of stars made of them, by networks that have
    not seen them.
    """

    def __init__(self, model: Model, table: TrainingTable, folds: Sequence[Fold]) -> None:
        self.of_common = model.of_common
        fold: NDArray[np.int64] = np.zeros(len(table.train), np.int64)
        for f, networks_fold in enumerate(folds):
            fold[networks_fold.left_out] = f
        self.fold = fold[table.train]
        networks = [networks_fold.networks for networks_fold in folds] or [model.networks]
        self.inferences = [Inference(model.feature_set, model.scaling, n) for n in networks]

    def __call__(self, features: Features, rows: NDArray[np.intp]) -> Array:
        """Labels [N, K] of ``features`` [N] that were made from the training stars ``rows`` [N]."""
        fold = self.fold[rows]
        parts = [
            self.of_common(inference.run(features[fold == f]).labels.mean)
            for f, inference in enumerate(self.inferences)
        ]
        labels = np.empty((len(rows), parts[0].shape[1]))
        for f, part in enumerate(parts):
            labels[fold == f] = part
        return labels


def fainter(
    features: Features, feature_set: FeatureSet, factor: Array, random: np.random.Generator
) -> Features:
    """The stars with errors ``factor`` [N] times as large, and noise of their covariance to match.

    The factors are limited so that no RP 0 is uncertain by more than 5 %.
    """
    bp, n = feature_set.widths[0], feature_set.n_spectral
    relative = features.errors / features.divisor[:, None]
    largest = LARGEST_ERROR / np.maximum(np.abs(relative[:, bp]), 1e-12)
    factor = np.clip(np.minimum(factor, largest), 1.0, None)
    noise = random.standard_normal((len(features), n))
    for columns, packed in zip(
        (slice(0, bp), slice(bp, n)), features.correlations or (), strict=False
    ):
        width = noise[:, columns].shape[1]
        # in blocks: the matrices of all stars would take gigabytes
        for start in range(0, len(noise), BLOCK):
            block = slice(start, start + BLOCK)
            # float32 storage may have cost a matrix its rank
            values, vectors = np.linalg.eigh(unpacked(packed[block].astype(np.float64), width))
            root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
            noise[block, columns] = np.einsum("nij,nj->ni", root, noise[block, columns])
    added = noise * relative * np.sqrt(factor**2 - 1)[:, None]
    if feature_set.projection is not None:
        added = added @ feature_set.projection.from_coefficients.T
    scale = np.where(features.is_ratio, 1 + added[:, bp], 1.0)
    x = features.x.copy()
    x[:, :n] = (x[:, :n] + added) / scale[:, None]
    return replace(
        features, x=x, errors=features.errors * factor[:, None], divisor=features.divisor * scale
    )


def summed(
    stars: Stars, r0: Array, first: NDArray[np.intp], second: NDArray[np.intp], light: Array
) -> Stars:
    """M stars, each the sum of two of the N ``stars``, of numbers ``first`` and ``second`` [M].

    ``light`` [M] is that of the second star relative to the first in RP coefficient 0, which is
    ``r0`` [N] for the ``stars``. Errors are those of the first star alone.
    """
    scale = (light * r0[first] / r0[second])[:, None]
    a, b = stars.spectra[first], stars.spectra[second]
    spectra: Any
    if isinstance(a, SampledSpectra) and isinstance(b, SampledSpectra):
        spectra = replace(a, flux=a.flux + scale * b.flux)
    else:
        bands = ((getattr(a, name), getattr(b, name)) for name in ("bp", "rp"))
        spectra = CoefficientSpectra(
            *(replace(p, coefficients=p.coefficients + scale * q.coefficients) for p, q in bands)
        )
    magnitudes = [m for m, name in enumerate(MEASUREMENTS) if name != "parallax"]
    values, errors = stars.photometry.values[first], stars.photometry.errors[first]
    fainter_by = stars.photometry.values[second][:, magnitudes] - values[:, magnitudes]
    values[:, magnitudes] -= 2.5 * np.log10(1 + scale * 10 ** (-0.4 * fainter_by))
    errors[np.isnan(values)] = np.nan
    ids = np.arange(1, len(first) + 1, dtype=np.int64)
    return Stars.of(ids, spectra, Photometry(values, errors), flags=stars.flags[first])


def _pairs(
    fold: NDArray[np.int64], count: int, random: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Random pairs of stars; both are of one fold, so its network has seen neither."""
    first, second = [], []
    for f in np.unique(fold):
        members = np.flatnonzero(fold == f)
        pairs = max(1, round(count * len(members) / len(fold)))
        first.append(random.choice(members, pairs))
        second.append(random.choice(members, pairs))
    return np.concatenate(first), np.concatenate(second)


def _directions(
    clean: FitSample, model: Model, count: int, lines: Lines | None
) -> tuple[Directions, int]:
    """The directions in which spectra are compared, and how many of them are for the fit.

    Those of the fit come first: within the ``count`` leading directions of all stars' scatter, the
    ones along which the noise and the scatter about the labels are both independent; then one for
    each of the ``lines``, its light over the continuum about it. Those of the distance follow: the
    leading directions of all stars' scatter.

    Coefficients are scaled by their scatter; the noise is that of the typical training star.
    """
    feature_set, features = model.feature_set, clean.features
    n, bp = feature_set.n_spectral, feature_set.widths[0]
    projection = feature_set.projection
    p = np.eye(n) if projection is None else projection.from_coefficients
    x = features.x[:, :n]
    centre, scale = x.mean(axis=0), model.scaling.x_scale[:n]
    scaled = (x - centre) / scale
    errors = np.median(features.errors / np.abs(features.divisor)[:, None], axis=0)
    by_measured = (p - np.outer(centre, p[bp])) / scale[:, None]
    noise = (by_measured * errors**2) @ by_measured.T
    noise[bp] = noise[:, bp] = 0.0  # RP 0 is 1 for every star
    # along the whitened axes the noise is 1 and independent; rotations keep it so
    variance, vectors = np.linalg.eigh(noise)
    usable = variance > WELL_DETERMINED * variance.max()
    whitening = vectors[:, usable] / np.sqrt(variance[usable])
    _, rotation = _leading(np.cov((scaled @ whitening).T), count)
    leading_axes = whitening @ rotation
    # the scatter about the labels is what a quadratic form of them leaves
    terms = _quadratic(clean.labels)
    residuals = _residuals(scaled @ leading_axes, terms)
    size = np.mean(residuals**2 / np.median(residuals**2, axis=0), axis=1)
    typical_residuals = residuals[size <= np.quantile(size, 1 - OUTLIERS)]
    scatter, rotation = _leading(np.cov(typical_residuals.T), min(N_FIT_DIRECTIONS, count))
    fit_axes = leading_axes @ (rotation / np.sqrt(scatter))
    if lines is not None:
        line_axes = lines.local * scale[:, None]
        line_strengths = _residuals(scaled @ line_axes, terms)
        line_axes = line_axes / np.sqrt(np.median(line_strengths**2, axis=0))
        fit_axes = np.concatenate([fit_axes, line_axes], axis=1)
    distance_axes = leading_axes[:, : min(N_DISTANCE_DIRECTIONS, count)]
    axes = np.concatenate([fit_axes, distance_axes], axis=1) / scale[:, None]
    return Directions.of(centre, axes, bp, None if projection is None else p), fit_axes.shape[1]


def _residuals(values: Array, terms: Array) -> Array:
    """What a linear least-squares fit of the terms [N, T] leaves of values [N, M]."""
    residuals: Array = values - terms @ np.linalg.lstsq(terms, values, rcond=None)[0]
    return residuals


def _leading(covariance: Array, count: int) -> tuple[Array, Array]:
    """The ``count`` largest eigenvalues and their vectors [k, count]."""
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(-values)[:count]
    return values[order], vectors[:, order]


def _quadratic(labels: Array) -> Array:
    """Terms [N, 1 + K + K (K + 1) / 2] up to the second order of labels [N, K]."""
    rows, columns = np.tril_indices(labels.shape[1])
    clipped = np.clip(labels, -4, 4)
    return np.concatenate(
        [np.ones((len(labels), 1)), clipped, clipped[:, rows] * clipped[:, columns]], axis=1
    )


class _Placed(NamedTuple):
    """Stars along the directions: scaled ``labels``, ``positions`` and ``noise`` [N, k + d]."""

    labels: Array
    positions: Array
    noise: Array


def _fit(
    ordinary: list[FitSample], odd: list[FitSample], directions: Directions, k: int, seed: int
) -> ForwardModel:
    """A forward model without tails and thresholds, the first k ``directions`` being of the fit.

    ``ordinary`` are the training stars and their noisier copies, ``odd`` a sample of each odd kind.
    """

    def place(sample: FitSample) -> _Placed:
        positions = directions.project(sample.features)
        noise = directions.noise(sample.features, positions, exact=k)
        return _Placed(sample.labels, positions, noise)

    clean, placed_ordinary = ordinary[0], [place(sample) for sample in ordinary]
    positions = placed_ordinary[0].positions
    shifted = clean.features.x[:, : len(directions.centre)] - directions.centre
    along = positions[:, :k] - positions[:, :k].mean(axis=0)
    no_tail = Tail(np.zeros(1), SHARES, np.zeros((1, len(SHARES))))
    inputs = clean.labels.shape[1] + 1
    draft = ForwardModel(
        directions,
        spectra=np.linalg.lstsq(along, shifted, rcond=None)[0],
        spread=positions[:, k:].var(axis=0),
        low=np.full(inputs, -np.inf),
        high=np.full(inputs, np.inf),
        linear=np.zeros((1 + inputs, k)),
        network=Layers(()),
        cap=np.zeros(k),
        kinds=Layers(()),
        fit_tail=no_tail,
        kind_tails=(no_tail,),
        either_tail=no_tail,
        distance_tail=no_tail,
        threshold=0.0,
        distance_threshold=0.0,
    )
    draft = _fit_mean_and_scatter(draft, placed_ordinary, seed)
    return _fit_kinds(draft, placed_ordinary, [place(sample) for sample in odd], seed)


def _fit_mean_and_scatter(draft: ForwardModel, samples: list[_Placed], seed: int) -> ForwardModel:
    """The draft with the spectra's mean and scatter as functions of labels and noise level."""
    k = len(draft.cap)
    unclipped = np.concatenate([draft.inputs(s.labels, draft.level(s.noise)) for s in samples])
    positions = np.concatenate([s.positions[:, :k] for s in samples])
    noise = np.concatenate([s.noise[:, :k] for s in samples])
    low, high = np.quantile(unclipped, (CLIPPED_SHARE, 1 - CLIPPED_SHARE), axis=0)
    inputs = np.clip(unclipped, low, high)
    terms = np.concatenate([np.ones((len(inputs), 1)), inputs], axis=1)
    linear = np.linalg.lstsq(terms, positions, rcond=None)[0]
    # the network learns what the linear fit leaves
    network = _train(inputs, 2 * k, _scatter_loss, (positions - terms @ linear, noise), seed)
    cap = np.quantile(network(inputs)[:, k:], SCATTER_QUANTILE, axis=0)
    return replace(draft, low=low, high=high, linear=linear, network=network, cap=cap)


def _fit_kinds(
    draft: ForwardModel, ordinary: list[_Placed], odd: list[_Placed], seed: int
) -> ForwardModel:
    """The draft with the classifier of odd kinds of stars, by their residuals and inputs."""
    parts, kinds = [], []
    for number, sample in enumerate([*ordinary, *odd]):
        inputs = draft.inputs(sample.labels, draft.level(sample.noise))
        residuals = draft.residuals(sample.positions, sample.noise, inputs)
        parts.append(np.concatenate([np.arcsinh(residuals), inputs], axis=1))
        kinds.append(np.full(len(inputs), number - len(ordinary)))  # negative: an ordinary star
    kind = np.concatenate(kinds)[:, None]
    is_kind = kind == np.arange(len(odd))
    # each kind is distinguished from ordinary stars, not from the other kind
    weight = is_kind | (kind < 0)
    classifier = _train(
        np.concatenate(parts), len(odd), nn.functional.binary_cross_entropy_with_logits,
        (is_kind.astype(float), weight.astype(float)), seed,
    )  # fmt: skip
    return replace(draft, kinds=classifier)


def _scatter_loss(out: Tensor, positions: Tensor, noise: Tensor) -> Tensor:
    """Student's t about the mean, whose heavy tails keep odd stars from widening the scatter."""
    k = positions.shape[1]
    log_variance = out[:, k:].clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)
    variance = log_variance.exp() + noise
    squares = (positions - out[:, :k]) ** 2 / variance
    return (
        0.5 * variance.log() + 0.5 * (SCATTER_DOF + 1) * torch.log1p(squares / SCATTER_DOF)
    ).mean()


def _train(x: Array, outputs: int, loss: Any, targets: Sequence[Array], seed: int) -> Layers:
    """A perceptron of two hidden layers by AdamW on one cycle, as numpy arrays.

    ``loss`` takes the outputs and then the rows of each of the ``targets``.
    """
    centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    torch.manual_seed(seed)
    sizes = (x.shape[1], HIDDEN_WIDTH, HIDDEN_WIDTH, outputs)
    linear = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    network = nn.Sequential(linear[0], nn.SiLU(), linear[1], nn.SiLU(), linear[2])
    inputs, *target_tensors = (
        torch.as_tensor(a, dtype=torch.float32) for a in ((x - centre) / scale, *targets)
    )
    batch = min(BATCH, len(x))
    steps = EPOCHS * (len(x) // batch)
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x))[: len(x) // batch * batch].split(batch):
            value = loss(network(inputs[rows]), *(target[rows] for target in target_tensors))
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
    arrays = [a for layer in linear for a in (layer.weight.detach().T, layer.bias.detach())]
    scaled = Layers(tuple(np.ascontiguousarray(a.numpy()) for a in arrays))
    return _unscaled(scaled, centre, scale)


def _unscaled(layers: Layers, centre: Array, scale: Array) -> Layers:
    """The same perceptron of inputs that are not yet centred and scaled."""
    first = layers.arrays[0].astype(np.float64) / scale[:, None]
    bias = layers.arrays[1] - centre @ first
    return Layers((first.astype(np.float32), bias.astype(np.float32), *layers.arrays[2:]))


def _with_thresholds(model: ForwardModel, real: Statistics, copies: Statistics) -> ForwardModel:
    """The model with the tails of ordinary stars' statistics, and the thresholds of the flags.

    Copies count only where they are noisier than nearly all real stars: at less noise they would
    outnumber the real ones, whose oddities the noise does not hide.
    """
    noisier = copies.level > np.quantile(real.level, 0.9)
    ordinary = Statistics(
        *(np.concatenate([a, b[noisier]]) for a, b in zip(real, copies, strict=True))
    )
    bins = int(np.clip(len(ordinary.level) // FEWEST_IN_BIN, 1, TAIL_BINS))

    def tail(statistic: Array) -> Tail:
        return Tail.fit(statistic, ordinary.level, SHARES, bins)

    model = replace(
        model,
        fit_tail=tail(np.log(ordinary.chisq)),
        kind_tails=tuple(map(tail, ordinary.logits.T)),
        distance_tail=tail(np.log(ordinary.distance)),
    )
    model = replace(model, either_tail=tail(model.oddity(ordinary)))
    fit = model.p_values(ordinary)
    # the smaller of both p-values, each in units of its part of the flagged share
    smaller = np.minimum(
        fit.p_value / (1 - FLAGGED_BY_DISTANCE), fit.distance_p_value / FLAGGED_BY_DISTANCE
    )
    cut = float(np.quantile(smaller, FLAGGED))
    return replace(
        model,
        threshold=cut * (1 - FLAGGED_BY_DISTANCE),
        distance_threshold=cut * FLAGGED_BY_DISTANCE,
    )
