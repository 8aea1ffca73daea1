"""How well XP spectra let labels be known (FS24, section 5.5), beside what a model reaches.

Emulated giants go through the instrument, and the noise model says how large the errors of their
coefficients are. The Cramer-Rao bound of any unbiased estimate follows from Fisher's information,

    F = (dc/dy)^T C^-1 dc/dy,   error of label k >= sqrt((F^-1)_kk),

with all six labels free together, the star's brightness too, and on demand dust. A network may be
better than that, since it knows which stars there are: what the population's covariance P adds is
(F + P^-1)^-1, the bound for who knows P.

What is simulated is simple, and the bound is optimistic for it: the continuum is a black body, the
errors hold nothing but noise, the spectra are exactly the emulated ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Photometry, Stars
from xplabels.explain.differences import HC_OVER_K
from xplabels.giants.emulator import TEFF_BOUNDS, Emulator, emulator_labels
from xplabels.instrument import gaiaxpy_instrument, magnitudes
from xplabels.instrument.noise import G_RANGE, NoiseModel, illustrative_correlations, noise_model
from xplabels.model import Model

Array = NDArray[np.float64]

NAMES = ("teff", "logg", "fe_h", "c_fe", "n_fe", "alpha_m")
"""The labels that are free together."""
STEPS = {"teff": 100.0, "logg": 0.2, "fe_h": 0.2, "c_fe": 0.2, "n_fe": 0.2, "alpha_m": 0.2}
"""Of the central differences; the emulators are piecewise linear, so that none may be tiny."""
JOINED_BINS = 4
"""Of the instrument's 0.25 nm."""
BLOCK = 512
MOST = 4000
"""Stars that stand for a larger sample, evenly taken from it."""
FEWEST = 20
"""Medians are of so many stars or more."""
EDGES = {
    "teff": (3500.0, 4000.0, 4250.0, 4500.0, 4750.0, 5000.0, 5250.0, 6000.0),
    "fe_h": (-2.5, -1.5, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5),
}
"""Bins of Teff, K, and [Fe/H], dex."""
GRID_G = 15.0
"""G of :func:`grid`, mag."""
GRID = {"teff": (4000.0, 4500.0, 5000.0, 5500.0), "fe_h": (0.25, 0.0, -0.5, -1.0, -1.5, -2.0)}
BRANCH = ((3600.0, 4250.0, 4750.0, 5250.0, 6000.0), (0.5, 1.7, 2.5, 3.1, 3.5))
"""Teff and log g along the giant branch of :func:`grid`, roughly."""


@dataclass(frozen=True)
class GiantSpectra:
    """Coefficients of emulated giants and their derivatives by the six labels.

    Attributes
    ----------
    emulator
        Of flux over continuum; a black body of the star's temperature stands for the continuum.
    """

    emulator: Emulator

    def covered(self, values: Array) -> NDArray[np.bool_]:
        """Which labels [N, 6] the emulators cover."""
        return self.emulator.covers(emulator_labels(NAMES, values))

    def flux(self, values: Array, like: Array) -> Array:
        """Flux [N, B] in the instrument's joined bins, of arbitrary size.

        ``like`` are the labels [N, 6] whose network is used, so that differences are of one.
        """
        fine, wavelength, _ = self._fine
        theirs, ours = (emulator_labels(NAMES, given) for given in (values, like))
        seen = fine.normalised_flux(theirs, like=ours)
        shape = np.stack([np.interp(wavelength, fine.wavelength, row) for row in seen])
        planck = wavelength**-5.0 / np.expm1(HC_OVER_K / (wavelength * values[:, :1]))
        return np.asarray(shape * planck)

    def coefficients(self, flux: Array) -> Array:
        """Coefficients [N, n] of flux [N, B]."""
        return flux @ self._fine[2].T

    def derivatives(self, values: Array) -> Array:
        """d ln f / dy times f, as coefficients [N, 6, n]: central differences within the range."""
        low, high = self._bounds(values)
        found = []
        for k, name in enumerate(NAMES):
            below, above = values.copy(), values.copy()
            below[:, k] = np.maximum(values[:, k] - STEPS[name] / 2, low[:, k])
            above[:, k] = np.minimum(values[:, k] + STEPS[name] / 2, high[:, k])
            change = self.flux(above, values) - self.flux(below, values)
            found.append(self.coefficients(change) / (above[:, k] - below[:, k])[:, None])
        return np.stack(found, axis=1)

    def by_dust(self, flux: Array) -> Array:
        """dc/dA_V [N, n] of flux [N, B]."""
        from xplabels.training.dust import extinction

        law = extinction(self._fine[1])[0]
        return self.coefficients(-0.4 * np.log(10.0) * law * flux)

    def _bounds(self, values: Array) -> tuple[Array, Array]:
        """The range [N, 6] of our labels in the network that each star's belongs to."""
        which = np.searchsorted(TEFF_BOUNDS[1:-1], values[:, 0])
        columns = emulator_labels(NAMES, np.arange(1.0, 7.0)[None, :])[0]
        bounds = []
        for side, worst in (("lower", np.max), ("upper", np.min)):
            limits = np.stack([getattr(n, side) for n in self.emulator.networks])
            ours = [worst(limits[:, columns == k + 1], axis=1) for k in range(len(NAMES))]
            bounds.append(np.stack(ours, axis=1)[which])
        bounds[0][:, 0] = np.maximum(bounds[0][:, 0], TEFF_BOUNDS[0])
        bounds[1][:, 0] = np.minimum(bounds[1][:, 0], TEFF_BOUNDS[-1])
        return bounds[0], bounds[1]

    @cached_property
    def _fine(self) -> tuple[Emulator, Array, Array]:
        """The emulator in bins, all bins' middles [B], and the instrument there [n, B]."""
        instrument = gaiaxpy_instrument()
        edges = instrument.edges[::JOINED_BINS]
        low, high = self.emulator.wavelength[[0, -1]]
        inside = np.flatnonzero((edges[:-1] >= low) & (edges[1:] <= high))
        matrix = instrument.matrix.reshape(len(instrument.matrix), -1, JOINED_BINS).sum(axis=2)
        fine = self.emulator.binned(edges[inside[0] : inside[-1] + 2])
        return fine, 0.5 * (edges[1:] + edges[:-1]), matrix


def attainable_errors(
    spectra: GiantSpectra,
    values: Array,
    g_mag: Array,
    *,
    dust: bool = True,
    population: Array | None = None,
    noise: NoiseModel | None = None,
) -> Array:
    """Smallest errors [N, 6] that XP spectra of such giants allow, the other labels free.

    Parameters
    ----------
    spectra
        Of emulated giants.
    values
        Labels [N, 6] in the order of :data:`NAMES`.
    g_mag
        G [N], mag: how bright the stars are.
    dust
        Whether their extinction is unknown, too. Their brightness always is.
    population
        Covariance [6, 6] of the labels over the stars that there are, or None: nothing is known.
    noise
        Coefficient errors by G and colour; None: the model that ships.

    Raises
    ------
    InputError
        If the emulators do not cover a star, or G lies outside the noise model's range.

    Examples
    --------
    >>> from xplabels.giants.bossbrain import load_emulator  # doctest: +SKIP
    >>> clump = np.array([[4750.0, 2.5, 0.0, 0.0, 0.2, 0.0]])
    >>> spectra = GiantSpectra(load_emulator())  # doctest: +SKIP
    >>> attainable_errors(spectra, clump, np.array([15.0])).shape  # doctest: +SKIP
    (1, 6)
    """
    kinds = {"": (dust, population)}
    return _bounds_of(spectra, values, g_mag, kinds, noise or noise_model())[""]


Kinds = Mapping[str, tuple[bool, Array | None]]


def _bounds_of(
    spectra: GiantSpectra, values: Array, g_mag: Array, kinds: Kinds, noise: NoiseModel
) -> dict[str, Array]:
    """Errors [N, 6] for each kind: whether dust is free, and the population's covariance."""
    found: dict[str, list[Array]] = {kind: [] for kind in kinds}
    for start in range(0, len(values), BLOCK):
        rows = slice(start, start + BLOCK)
        whitened = _whitened(spectra, values[rows], g_mag[rows], noise)
        for kind, (dust, population) in kinds.items():
            found[kind].append(_bound(whitened if dust else whitened[:, :-1], population))
    return {
        kind: np.concatenate(parts) if parts else np.empty((0, len(NAMES)))
        for kind, parts in found.items()
    }


def _whitened(spectra: GiantSpectra, values: Array, g_mag: Array, noise: NoiseModel) -> Array:
    """L^-1 dc/d(labels, ln brightness, A_V) [N, 8, n], where C = L L^T."""
    flux = spectra.flux(values, values)
    clean = spectra.coefficients(flux)
    seen = magnitudes(clean)
    scale = 10 ** (-0.4 * (g_mag - seen[:, 0]))[:, None]
    errors = noise.errors(g_mag, seen[:, 1] - seen[:, 2])
    by = np.concatenate(
        [spectra.derivatives(values), clean[:, None], spectra.by_dust(flux)[:, None]], axis=1
    )
    by *= (scale / errors)[:, None, :]
    parts, first = [], 0
    for matrix in illustrative_correlations(clean * scale):
        columns = slice(first, first + matrix.shape[1])
        root = np.linalg.cholesky(matrix)
        parts.append(np.linalg.solve(root, by[:, :, columns].transpose(0, 2, 1)))
        first = columns.stop
    return np.asarray(np.concatenate(parts, axis=1).transpose(0, 2, 1))


def _bound(whitened: Array, population: Array | None) -> Array:
    """sqrt(diag(F^-1)) [N, 6] of whitened derivatives [N, Q, n]."""
    information = whitened @ whitened.transpose(0, 2, 1)
    if population is not None:
        k = len(NAMES)
        information[:, :k, :k] += np.linalg.inv(population)
    # units make its entries differ by 1e8: scaled to a diagonal of ones, it is safe to invert
    size = np.sqrt(np.diagonal(information, axis1=1, axis2=2))
    scaled = information / (size[:, :, None] * size[:, None, :])
    variance = np.diagonal(np.linalg.inv(scaled), axis1=1, axis2=2) / size**2
    return np.asarray(np.sqrt(variance[:, : len(NAMES)]))


@dataclass(frozen=True)
class Content:
    """Attainable and reached errors of N giants, K of the labels.

    Attributes
    ----------
    names
        K labels of the model.
    axes
        Known ``teff`` and ``fe_h`` [N].
    attainable
        What is free or known -> errors [N, K], simulated.
    stated
        Float64 [N, K]: the model's errors, from the spectra alone.
    residuals
        Float64 [N, K]: predicted minus known, from the spectra alone.
    told
        Which stars.
    """

    names: tuple[str, ...]
    axes: Mapping[str, Array]
    attainable: Mapping[str, Array]
    stated: Array
    residuals: Array
    told: str

    def binned(self, axis: str) -> dict[str, Any]:
        """Medians [B, K] of all errors and the robust scatter of the residuals, in bins."""
        edges = EDGES[axis]
        at = np.digitize(self.axes[axis], edges) - 1
        rows = [np.flatnonzero(at == b) for b in range(len(edges) - 1)]
        full = [b for b, chosen in enumerate(rows) if len(chosen) >= FEWEST]

        def medians(of: Array) -> Array:
            found = [_median(of[rows[b]]) for b in full]
            return np.reshape(found, (len(full), len(self.names)))

        centred = [np.abs(self.residuals[rows[b]] - _median(self.residuals[rows[b]])) for b in full]
        scatter = [1.4826 * _median(distance) for distance in centred]
        return {
            "middle": [float(np.median(self.axes[axis][rows[b]])) for b in full],
            "edges": [[edges[b], edges[b + 1]] for b in full],
            "stars": [len(rows[b]) for b in full],
            "attainable": {kind: medians(errors) for kind, errors in self.attainable.items()},
            "stated": medians(self.stated),
            "scatter": np.reshape(scatter, (len(full), len(self.names))),
        }

    def to_metrics(self) -> dict[str, Any]:
        """All bins as plain numbers: axis -> label -> what -> values."""
        found: dict[str, Any] = {"stars": self.told}
        for axis in EDGES:
            bins = self.binned(axis)
            curves = {f"attainable, {kind}": v for kind, v in bins["attainable"].items()}
            curves |= {"stated": bins["stated"], "robust scatter": bins["scatter"]}
            found[axis] = {key: bins[key] for key in ("edges", "stars")} | {
                name: {what: _plain(v[:, k]) for what, v in curves.items()}
                for k, name in enumerate(self.names)
            }
        return found


def _median(values: Array) -> Array:
    """Of each column, NaN left out; NaN where nothing is known."""
    known = np.isfinite(values)
    return np.array(
        [
            np.median(column[there]) if there.any() else np.nan
            for column, there in zip(values.T, known.T, strict=True)
        ]
    )


def _plain(values: Array) -> list[float | None]:
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values]


FREE, DUSTLESS, POPULATION = "dust free too", "no dust", "dust free, population known"


def information_content(
    model: Model, stars: Stars, emulator: Emulator, *, noise: NoiseModel | None = None
) -> Content:
    """Attainable errors of ``stars`` at their own labels and G, and those that a model reaches.

    The model predicts from the spectra alone, as the bound has it. Labels of the six that are not
    known count as 0 (but are free); the population is that of the stars themselves.

    Raises
    ------
    InputError
        If fewer than 20 stars have known Teff, log g, [Fe/H] and G that the emulators and the
        noise model cover.
    """
    values = _known_labels(stars)
    g_mag = stars.photometry.column("phot_g_mean_mag")[0]
    usable = np.isfinite(values).all(axis=1) & (g_mag >= G_RANGE[0]) & (g_mag <= G_RANGE[1])
    spectra = GiantSpectra(emulator)
    rows = np.flatnonzero(usable)
    rows = rows[spectra.covered(values[rows])]
    if len(rows) < FEWEST:
        raise InputError(
            f"{len(rows)} stars are giants with known Teff, log g, [Fe/H] and G",
            where=stars.where,
            remedy=f"give {FEWEST} or more of 3500-6000 K, log g 0-3.5, [Fe/H] -2.5 to 0.5",
        )
    everyone = len(rows)
    rows = rows[np.linspace(0, everyone - 1, min(everyone, MOST)).astype(np.intp)]
    chosen, values, g_mag = stars[rows], values[rows], g_mag[rows]
    population = np.cov(values.T) + np.diag([(1e-3 * STEPS[name]) ** 2 for name in NAMES])
    kinds: Kinds = {
        DUSTLESS: (False, None), FREE: (True, None), POPULATION: (True, population),
    }  # fmt: skip
    bounds = _bounds_of(spectra, values, g_mag, kinds, noise or noise_model())
    names = tuple(name for name in model.names if name in NAMES)
    columns = [NAMES.index(name) for name in names]
    theirs = [model.names.index(name) for name in names]
    prediction = model.predict(chosen.with_photometry(Photometry.missing(len(chosen))))
    known = values[:, columns]
    if stars.labels is not None:
        known = np.where([name in stars.labels.names for name in names], known, np.nan)
    return Content(
        names,
        {"teff": values[:, 0], "fe_h": values[:, 2]},
        {kind: errors[:, columns] for kind, errors in bounds.items()},
        prediction.errors[:, theirs],
        prediction.values[:, theirs] - known,
        f"{len(rows)} of {everyone} giants that the emulators cover, G {g_mag.min():.1f}-"
        f"{g_mag.max():.1f}, median {np.median(g_mag):.1f}",
    )


def _known_labels(stars: Stars) -> Array:
    """Labels [N, 6]; those that the table does not have are 0."""
    values = np.zeros((len(stars), len(NAMES)))
    here = () if stars.labels is None else stars.labels.names
    for k, name in enumerate(NAMES):
        if stars.labels is not None and name in here:
            values[:, k] = stars.labels.values[:, here.index(name)]
        elif name in ("teff", "logg", "fe_h"):
            values[:, k] = np.nan
    return values


def grid(
    emulator: Emulator,
    *,
    teff: Sequence[float] = GRID["teff"],
    fe_h: Sequence[float] = GRID["fe_h"],
    g_mag: float = GRID_G,
) -> dict[str, Array]:
    """Attainable errors [T, M] of each label along the giant branch, dust free, solar ratios.

    Rows are temperatures ``teff`` [T], columns metallicities ``fe_h`` [M]; log g follows Teff.
    """
    values = np.zeros((len(teff) * len(fe_h), len(NAMES)))
    values[:, 0] = np.repeat(teff, len(fe_h))
    values[:, 1] = np.interp(values[:, 0], *BRANCH)
    values[:, 2] = np.tile(fe_h, len(teff))
    errors = attainable_errors(GiantSpectra(emulator), values, np.full(len(values), g_mag))
    return {name: errors[:, k].reshape(len(teff), -1) for k, name in enumerate(NAMES)}
