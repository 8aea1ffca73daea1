"""The forward model of a trained network, from the stars it was trained with.

It is fitted to labels as they are predicted for stars that a network had not seen (its calibration
folds; without folds, the network's own training stars), since that is what it will be given. Copies
of the stars with more noise say how predicted labels move with it, sums of two stars what a second
star does, and emission lines planted in them what these do. What ordinary stars reach is found by
cross-fitting: each fold of the stars is judged by a forward model that had not seen it.
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

DIRECTIONS, FIT, DISTANCE = 48, 40, 24
"""Leading directions, by the training stars' scatter relative to noise, that hold the spectra; how
many of the scatter about the labels are compared within them, and how many of the leading ones
measure the distance."""
WELL_DETERMINED = 1e-3
"""Of the largest noise variance of a scaled coefficient: combinations with less are fixed by the
projection's prior or by rounding, not by light."""
STARS_PER_DIRECTION = 10
COPIES, DECADES = 2, 1.3
"""Copies of each star with more noise, and how far beyond the noisiest stars they go: 1.3 takes
G = 15 to 18.5."""
LARGEST_ERROR = 0.05
"""Of RP 0 relative to itself, in copies: ratios to a noisier one are not linear."""
FAINTEST_LIGHT = 0.1
"""Of a second star relative to the first, in RP 0."""
FAINTEST_BESIDE_LINES = 1e-3
"""The same where emission lines are planted: two in three are next to single stars, others are like
symbiotic stars."""
BLOCK = 2048
"""Stars whose noise is drawn at once."""
OUTLIERS = 0.03
"""Share of the stars left out when directions are chosen."""
EDGE = 0.002
"""Share of the training inputs beyond each end of the range in which the model is evaluated."""
BELIEVED = 0.9
"""Quantile of the training stars' scatter beyond which a larger one is not believed."""
WIDTH, EPOCHS, BATCH, DOF = 64, 12, 512, 6.0
FOLDS = 4
SHARES = np.array(
    [0.999, 0.99, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.006, 0.004, 0.002]
)
BINS, FEWEST_IN_BIN = 24, 400
FLAGGED, OF_DISTANCE = 0.01, 0.35
"""Share of ordinary stars that the flags of fit and distance together take, and that of the
distance in it."""


class FitSample(NamedTuple):
    """N stars as the fit takes them: ``fold`` [N] and scaled ``labels`` [N, K], predicted."""

    features: Features
    labels: Array
    fold: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> FitSample:
        """Some of the stars."""
        return FitSample(self.features[rows], self.labels[rows], self.fold[rows])


def fit_forward(
    model: Model, table: TrainingTable, folds: Sequence[Fold] = (), seed: int = 0
) -> ForwardModel | None:
    """The forward model of ``model``, whose training table this is; ``folds`` are its networks'.

    None where the stars are too few to find directions.
    """
    features = table.features[table.train]
    count = min(DIRECTIONS, len(features) // STARS_PER_DIRECTION)
    if count < 2:
        return None
    random = np.random.default_rng(seed)
    stars, fold = table.stars[table.train], fold_of(table.stars.source_id[table.train], FOLDS)
    predict = _Predict(model, table, folds)
    clean = FitSample(features, predict(features, np.arange(len(features))), fold)
    # up to one noise for all: else at the largest there would be copies of noisy stars alone
    own = np.log10(np.median(features.errors / np.abs(features.divisor)[:, None], axis=1))
    decades = np.maximum(np.quantile(own, 0.95) + DECADES - own, 0.0)
    rows = np.tile(np.arange(len(features)), COPIES)
    noisier = fainter(
        features[rows], model.feature_set, 10 ** (decades[rows] * random.random(len(rows))), random
    )
    copies = FitSample(noisier, predict(noisier, rows), fold[rows])

    def sums(faintest: float, lines: Lines | None = None) -> FitSample:
        """Of two training stars, with lines in them or not; half of them are fainter."""
        first, second = _pairs(predict.fold, 2 * len(features), random)
        light = faintest ** random.random(len(first))
        both = model.feature_set.compute(summed(stars, features.divisor, first, second, light))
        if lines is not None:
            both = lines.planted(both, model.feature_set, random)
        half = np.arange(len(first)) % 2 == 0
        factor = np.where(half, 1.0, 10 ** (decades[first] * random.random(len(first))))
        both = fainter(both, model.feature_set, factor, random)
        return FitSample(both, predict(both, first), fold[first])

    lines = Lines.of(model.feature_set, random)
    pairs = sums(FAINTEST_LIGHT)
    bright = None if lines is None else sums(FAINTEST_BESIDE_LINES, lines)
    directions, k = _directions(clean, model, count, lines)
    unseen = [
        _fit(clean.take(fold != f), copies.take(copies.fold != f), pairs.take(pairs.fold != f),
             None if bright is None else bright.take(bright.fold != f), directions, k, seed)
        for f in range(FOLDS)
    ]  # fmt: skip
    fitted = _fit(clean, copies, pairs, bright, directions, k, seed)
    real, made = (
        Statistics(*map(np.concatenate, zip(*parts, strict=True)))
        for parts in (
            [one.statistics(sample.features[sample.fold == f], sample.labels[sample.fold == f])
             for f, one in enumerate(unseen)]
            for sample in (clean, copies)
        )
    )  # fmt: skip
    return _judged(fitted, real, made)


class _Predict:
    """Scaled labels of training stars, and of what is made of them, by networks without them."""

    def __init__(self, model: Model, table: TrainingTable, folds: Sequence[Fold]) -> None:
        def of(networks: Any) -> Inference:
            return Inference(model.feature_set, model.scaling, networks)

        self.of_common = model.of_common
        number: NDArray[np.int64] = np.zeros(len(table.train), np.int64)
        for f, one in enumerate(folds):
            number[one.left_out] = f
        self.fold = number[table.train]
        self.inferences = [of(one.networks) for one in folds] or [of(model.networks)]

    def __call__(self, features: Features, rows: NDArray[np.intp]) -> Array:
        """Of ``features`` [N] that are of, or made of, the training stars ``rows`` [N]."""
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
    """The stars with errors ``factor`` [N] times as large, and noise of their own covariance to
    match; none so faint that its RP 0 is uncertain by more than 5 %.
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
            some = slice(start, start + BLOCK)
            # float32 storage may have cost a matrix its rank
            values, vectors = np.linalg.eigh(unpacked(packed[some].astype(np.float64), width))
            root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
            noise[some, columns] = np.einsum("nij,nj->ni", root, noise[some, columns])
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
    """Stars of which each is two: ``first`` [M] and ``second`` [M], ``light`` [M] times as bright.

    In RP coefficient 0, ``r0`` [N] of ``stars``. Errors are those of the first star alone.
    """
    scale = (light * r0[first] / r0[second])[:, None]
    one, other = stars.spectra[first], stars.spectra[second]
    spectra: Any
    if isinstance(one, SampledSpectra) and isinstance(other, SampledSpectra):
        spectra = replace(one, flux=one.flux + scale * other.flux)
    else:
        bands = ((getattr(one, band), getattr(other, band)) for band in ("bp", "rp"))
        spectra = CoefficientSpectra(
            *(replace(a, coefficients=a.coefficients + scale * b.coefficients) for a, b in bands)
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
    """Random pairs of stars, of one fold each: the network of that fold saw neither."""
    first, second = [], []
    for f in np.unique(fold):
        mine = np.flatnonzero(fold == f)
        share = max(1, round(count * len(mine) / len(fold)))
        first.append(random.choice(mine, share))
        second.append(random.choice(mine, share))
    return np.concatenate(first), np.concatenate(second)


def _directions(
    clean: FitSample, model: Model, count: int, lines: Lines | None
) -> tuple[Directions, int]:
    """Where the labels' scatter and the noise are independent, then where all stars scatter.

    And how many are of the first kind; all are within ``count`` leading ones. Beyond these, of
    the first kind, too: the light of the ``lines`` over the continuum about each.

    Coefficients are scaled by their scatter; the noise is that of the typical training star.
    """
    feature_set, features = model.feature_set, clean.features
    n, bp = feature_set.n_spectral, feature_set.widths[0]
    projection = feature_set.projection
    p = np.eye(n) if projection is None else projection.from_coefficients
    x = features.x[:, :n]
    centre, scale = x.mean(axis=0), model.scaling.x_scale[:n]
    errors = np.median(features.errors / np.abs(features.divisor)[:, None], axis=0)
    by_measured = (p - np.outer(centre, p[bp])) / scale[:, None]
    noise = (by_measured * errors**2) @ by_measured.T
    noise[bp] = noise[:, bp] = 0.0  # RP 0 is 1 for every star
    variance, vectors = np.linalg.eigh(noise)
    good = variance > WELL_DETERMINED * variance.max()
    white = vectors[:, good] / np.sqrt(variance[good])
    scaled = (x - centre) / scale
    _, turned = _leading(np.cov((scaled @ white).T), count)
    whole = white @ turned
    # about the labels: what a quadratic form of them leaves
    terms = _quadratic(clean.labels)
    positions = scaled @ whole
    left = positions - terms @ np.linalg.lstsq(terms, positions, rcond=None)[0]
    size = np.mean(left**2 / np.median(left**2, axis=0), axis=1)
    kept = left[size <= np.quantile(size, 1 - OUTLIERS)]
    scatter, about = _leading(np.cov(kept.T), min(FIT, count))
    fit = whole @ (about / np.sqrt(scatter))
    if lines is not None:
        local = lines.local * scale[:, None]
        place = scaled @ local
        place -= terms @ np.linalg.lstsq(terms, place, rcond=None)[0]
        fit = np.concatenate([fit, local / np.sqrt(np.median(place**2, axis=0))], axis=1)
    distance = min(DISTANCE, count)
    axes = np.concatenate([fit, whole[:, :distance]], axis=1) / scale[:, None]
    return Directions.of(centre, axes, bp, None if projection is None else p), fit.shape[1]


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


def _fit(
    clean: FitSample, copies: FitSample, pairs: FitSample, bright: FitSample | None,
    directions: Directions, k: int, seed: int,
) -> ForwardModel:  # fmt: skip
    """A forward model without judgement of what is poor; k of the ``directions`` are of the fit."""
    samples = [
        (directions.project(s.features), s.features, s.labels)
        for s in (clean, copies, pairs, bright)
        if s is not None
    ]
    positions = [place for place, _, _ in samples]
    noise = [directions.noise(f, place, exact=k) for place, f, _ in samples]
    centre, place = directions.centre, positions[0][:, :k]
    shifted = clean.features.x[:, : len(centre)] - centre
    spectra = np.linalg.lstsq(place - place.mean(axis=0), shifted, rcond=None)[0]
    nothing = Tail(np.zeros(1), SHARES, np.zeros((1, len(SHARES))))
    width = clean.labels.shape[1] + 1
    draft = ForwardModel(
        directions,
        spectra,
        spread=positions[0][:, k:].var(axis=0),
        low=np.full(width, -np.inf),
        high=np.full(width, np.inf),
        linear=np.zeros((1 + width, k)),
        network=Layers(()),
        cap=np.zeros(k),
        kinds=Layers(()),
        fit_tail=nothing,
        kind_tails=(nothing,),
        either_tail=nothing,
        distance_tail=nothing,
        threshold=0.0,
        distance_threshold=0.0,
    )
    raw = [draft.inputs(s[2], draft.level(n)) for s, n in zip(samples, noise, strict=True)]
    low, high = np.quantile(np.concatenate(raw[:2]), (EDGE, 1 - EDGE), axis=0)
    inputs = [np.clip(one, low, high) for one in raw]
    of_both = [np.concatenate(part[:2]) for part in (inputs, positions, noise)]
    terms = np.concatenate([np.ones((len(of_both[0]), 1)), of_both[0]], axis=1)
    linear = np.linalg.lstsq(terms, of_both[1][:, :k], rcond=None)[0]
    centre, scale = of_both[0].mean(axis=0), np.maximum(of_both[0].std(axis=0), 1e-6)
    network = _train(
        (of_both[0] - centre) / scale,
        2 * k,
        _scatter_loss,
        (of_both[1][:, :k] - terms @ linear, of_both[2][:, :k]),
        seed,
    )
    network = _unscaled(network, centre, scale)
    cap = np.quantile(network(of_both[0])[:, k:], BELIEVED, axis=0)
    draft = replace(draft, low=low, high=high, linear=linear, network=network, cap=cap)
    residuals = [
        np.concatenate([np.arcsinh(draft.residuals(p, n, i)), i], axis=1)
        for p, n, i in zip(positions, noise, inputs, strict=True)
    ]
    together = np.concatenate(residuals)
    kind = np.repeat([0, 0, 1, 2][: len(residuals)], [len(one) for one in residuals])
    odd = np.stack([kind == 1, kind == 2], axis=1)[:, : len(residuals) - 2].astype(float)
    # each kind is distinguished from ordinary stars, not from the other kind
    counts = np.stack([kind != 2, kind != 1], axis=1)[:, : odd.shape[1]].astype(float)
    centre, scale = together.mean(axis=0), np.maximum(together.std(axis=0), 1e-6)
    kinds = _train(
        (together - centre) / scale, odd.shape[1],
        lambda out, known, weight: nn.functional.binary_cross_entropy_with_logits(
            out, known, weight
        ),
        (odd, counts), seed,
    )  # fmt: skip
    return replace(draft, kinds=_unscaled(kinds, centre, scale))


def _scatter_loss(out: Tensor, positions: Tensor, noise: Tensor) -> Tensor:
    """Student's t about the mean, whose heavy tails keep odd stars from widening the scatter."""
    k = positions.shape[1]
    log_variance = out[:, k:].clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)
    variance = log_variance.exp() + noise
    squares = (positions - out[:, :k]) ** 2 / variance
    return (0.5 * variance.log() + 0.5 * (DOF + 1) * torch.log1p(squares / DOF)).mean()


def _train(x: Array, outputs: int, loss: Any, targets: Sequence[Array], seed: int) -> Layers:
    """A perceptron of two hidden layers by AdamW on one cycle, as numpy arrays."""
    torch.manual_seed(seed)
    sizes = (x.shape[1], WIDTH, WIDTH, outputs)
    linear = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    parts: list[nn.Module] = [linear[0], nn.SiLU(), linear[1], nn.SiLU(), linear[2]]
    network = nn.Sequential(*parts)
    given = [torch.as_tensor(a, dtype=torch.float32) for a in (x, *targets)]
    batch = min(BATCH, len(x))
    steps = EPOCHS * (len(x) // batch)
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x))[: len(x) // batch * batch].split(batch):
            value = loss(network(given[0][rows]), *(one[rows] for one in given[1:]))
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
    arrays = [a for layer in linear for a in (layer.weight.detach().T, layer.bias.detach())]
    return Layers(tuple(np.ascontiguousarray(a.numpy()) for a in arrays))


def _unscaled(layers: Layers, centre: Array, scale: Array) -> Layers:
    """The same perceptron of inputs that are not yet centred and scaled."""
    first = layers.arrays[0].astype(np.float64) / scale[:, None]
    bias = layers.arrays[1] - centre @ first
    return Layers((first.astype(np.float32), bias.astype(np.float32), *layers.arrays[2:]))


def _judged(model: ForwardModel, real: Statistics, copies: Statistics) -> ForwardModel:
    """With what ordinary stars reach, and the thresholds.

    Of the noisier copies those count that are noisier than nearly all stars themselves: at less
    noise they would outnumber the real ones, whose oddities the noise does not hide.
    """
    kept = copies.level > np.quantile(real.level, 0.9)
    found = Statistics(*(np.concatenate([a, b[kept]]) for a, b in zip(real, copies, strict=True)))
    bins = int(np.clip(len(found.level) // FEWEST_IN_BIN, 1, BINS))

    def tail(statistic: Array) -> Tail:
        return Tail.fit(statistic, found.level, SHARES, bins)

    model = replace(
        model,
        fit_tail=tail(np.log(found.chisq)),
        kind_tails=tuple(map(tail, found.logits.T)),
        distance_tail=tail(np.log(found.distance)),
    )
    model = replace(model, either_tail=tail(model.worse(found)))
    fit = model.judge(found)
    # the least of both, in units of their parts of the flagged share
    worst = np.minimum(fit.p_value / (1 - OF_DISTANCE), fit.distance_p_value / OF_DISTANCE)
    cut = float(np.quantile(worst, FLAGGED))
    return replace(model, threshold=cut * (1 - OF_DISTANCE), distance_threshold=cut * OF_DISTANCE)
