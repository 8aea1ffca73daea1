"""How precisely XP spectra determine labels (FS24, section 5.5), and how close a model comes.

Emulated giants are observed by the simulated instrument, and the noise model gives the errors of
their coefficients. The Cramer-Rao bound of any unbiased estimate follows from Fisher's information,

    F = (dc/dy)^T C^-1 dc/dy,   error of label k >= sqrt((F^-1)_kk),

with all six labels and the star's brightness free, and optionally dust. A network may be better
than that, since the distribution of the training stars is a prior: with the population's covariance
P as a Gaussian one it is (F + P^-1)^-1.

The simulation is simple, which makes the bound optimistic: the continuum is a black body, the
errors contain only noise, the spectra are exactly the emulated ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.stars import Photometry, Stars
from xplabels.explain.attention import plain_numbers
from xplabels.giants import NAMES
from xplabels.giants.emulator import TEFF_BOUNDS, Emulator, black_body, emulator_labels
from xplabels.instrument import extinction, magnitudes
from xplabels.instrument.noise import G_RANGE, illustrative_correlations, noise_model
from xplabels.model import Model

Array = NDArray[np.float64]

STEPS = {"teff": 100.0, "logg": 0.2, "fe_h": 0.2, "c_fe": 0.2, "n_fe": 0.2, "alpha_m": 0.2}
"""Steps of the central differences; not tiny, since the emulators are piecewise linear."""
BLOCK = 512
MOST = 4000
"""Most stars used, an even sample of those given."""
FEWEST = 20
"""Fewest stars for a median."""
EDGES = {
    "teff": (3500.0, 4000.0, 4250.0, 4500.0, 4750.0, 5000.0, 5250.0, 6000.0),
    "fe_h": (-2.5, -1.5, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5),
}
"""Bins of Teff, K, and [Fe/H], dex."""
DUSTLESS, FREE, POPULATION = "no dust", "dust free too", "dust free, population known"
"""The three bounds: dust known to be absent, dust free, and with the population as a prior."""
GRID_G = 15.0
"""G of :func:`giant_branch`, mag."""
GRID = {"teff": (4000.0, 4500.0, 5000.0, 5500.0), "fe_h": (0.25, 0.0, -0.5, -1.0, -1.5, -2.0)}
BRANCH = ((3600.0, 4250.0, 4750.0, 5250.0, 6000.0), (0.5, 1.7, 2.5, 3.1, 3.5))
"""Approximate Teff and log g along the giant branch."""


@dataclass(frozen=True)
class GiantSpectra:
    """Coefficients of emulated giants and their derivatives by the six labels.

    The emulators give flux over continuum, which is a black body of the star's temperature here.
    """

    emulator: Emulator

    def flux(self, values: Array, like: Array) -> Array:
        """Flux [N, B] in the instrument's joined bins, in arbitrary units.

        The emulator's network is that for the labels ``like`` [N, 6], so that differences are
        between spectra of one network.
        """
        fine, wavelength, _, _ = self._fine
        labels, like_labels = (emulator_labels(NAMES, given) for given in (values, like))
        normalised = fine.normalised_flux(labels, like=like_labels)
        shape = np.stack([np.interp(wavelength, fine.wavelength, row) for row in normalised])
        return shape * black_body(wavelength, values[:, :1])

    def coefficients(self, flux: Array) -> Array:
        """Coefficients [N, n] of flux [N, B]."""
        return flux @ self._fine[2].T

    def derivatives(self, values: Array) -> Array:
        """dc/dy [N, 6, n] of the coefficients, by central differences within the labels' range."""
        low, high = self._bounds(values)
        derivatives = []
        for half in np.diag([STEPS[name] / 2 for name in NAMES]):
            below, above = (np.clip(values + step, low, high) for step in (-half, half))
            change = self.coefficients(self.flux(above, values) - self.flux(below, values))
            derivatives.append(change / (above - below).sum(axis=1, keepdims=True))
        return np.stack(derivatives, axis=1)

    def by_dust(self, flux: Array) -> Array:
        """dc/dA_V [N, n] of flux [N, B]."""
        law = extinction(self._fine[1])[0]
        return self.coefficients(-0.4 * np.log(10.0) * law * flux)

    def _bounds(self, values: Array) -> tuple[Array, Array]:
        """Range [N, 6] of our labels in the emulator's network for each star."""
        low, high = self.emulator.bounds(values[:, 0])
        ours = emulator_labels(NAMES, np.eye(len(NAMES))) > 0  # [6, 22]
        low = np.stack([low[:, columns].max(axis=1) for columns in ours], axis=1)
        high = np.stack([high[:, columns].min(axis=1) for columns in ours], axis=1)
        low[:, 0] = np.maximum(low[:, 0], TEFF_BOUNDS[0])
        high[:, 0] = np.minimum(high[:, 0], TEFF_BOUNDS[-1])
        return low, high

    @cached_property
    def _fine(self) -> tuple[Emulator, Array, Array, slice]:
        return self.emulator.at_instrument()


def whitened_derivatives(emulator: Emulator, values: Array, g_mag: Array) -> Array:
    """L^-1 dc/d(labels, ln brightness, A_V) [N, 8, n] of N giants, where C = L L^T.

    ``values`` are labels [N, 6] in the order of ``NAMES``, ``g_mag`` is G [N].

    Raises :class:`InputError` if the emulators do not cover a star, or the noise model a G.
    """
    spectra = GiantSpectra(emulator)
    blocks = [slice(start, start + BLOCK) for start in range(0, len(values), BLOCK)]
    return np.concatenate([_whitened_block(spectra, values[b], g_mag[b]) for b in blocks])


def _whitened_block(spectra: GiantSpectra, values: Array, g_mag: Array) -> Array:
    flux = spectra.flux(values, values)
    clean = spectra.coefficients(flux)
    g, bp, rp = magnitudes(clean).T
    scale = 10 ** (-0.4 * (g_mag - g))[:, None]
    errors = noise_model().errors(g_mag, bp - rp)
    derivatives = np.concatenate(
        [spectra.derivatives(values), clean[:, None], spectra.by_dust(flux)[:, None]], axis=1
    )
    derivatives *= (scale / errors)[:, None, :]
    roots = [np.linalg.cholesky(matrix) for matrix in illustrative_correlations(clean * scale)]
    bands = np.split(derivatives.transpose(0, 2, 1), [roots[0].shape[1]], axis=1)
    parts = [np.linalg.solve(root, band) for root, band in zip(roots, bands, strict=True)]
    return np.asarray(np.concatenate(parts, axis=1).transpose(0, 2, 1))


def attainable_errors(whitened: Array, population: Array | None = None) -> Array:
    """Smallest errors [N, 6], sqrt(diag(F^-1)), of whitened derivatives [N, Q, n].

    All Q quantities are free; without the last, dust is known. ``population`` is the covariance
    [6, 6] of the labels in the population, if that is known.

    Examples
    --------
    >>> from xplabels.giants.emulator import load_emulator
    >>> clump = np.array([[4750.0, 2.5, 0.0, 0.0, 0.2, 0.0]])
    >>> whitened = whitened_derivatives(load_emulator(), clump, np.array([15.0]))
    >>> attainable_errors(whitened).shape
    (1, 6)
    """
    information = whitened @ whitened.transpose(0, 2, 1)
    if population is not None:
        k = len(NAMES)
        information[:, :k, :k] += np.linalg.inv(population)
    # the units make its entries differ by 1e8: scaled to a unit diagonal, it is safe to invert
    size = np.sqrt(np.diagonal(information, axis1=1, axis2=2))
    scaled = information / (size[:, :, None] * size[:, None, :])
    variance = np.diagonal(np.linalg.inv(scaled), axis1=1, axis2=2) / size**2
    return np.asarray(np.sqrt(variance[:, : len(NAMES)]))


@dataclass(frozen=True)
class Content:
    """Attainable and reached errors [N, K] of N giants, K labels ``names`` of the model.

    ``attainable`` are the simulated bounds; ``stated`` are the model's errors and ``residuals`` its
    predicted minus known labels, from the spectra alone. ``axes`` has the known ``teff`` and
    ``fe_h`` [N]; ``stars`` describes the sample in words.
    """

    names: tuple[str, ...]
    axes: Mapping[str, Array]
    attainable: Mapping[str, Array]
    stated: Array
    residuals: Array
    stars: str

    def binned(self, axis: str) -> dict[str, Any]:
        """Medians [B, K] of all errors and the robust scatter of the residuals, in bins."""
        x = self.axes[axis]
        bins = {
            (low, high): np.flatnonzero((x >= low) & (x < high))
            for low, high in pairwise(EDGES[axis])
        }
        bins = {edges: rows for edges, rows in bins.items() if len(rows) >= FEWEST}

        def of_bins(statistic: Callable[[Array], Array], values: Array) -> Array:
            results = [statistic(values[rows]) for rows in bins.values()]
            return np.reshape(results, (len(bins), len(self.names)))

        return {
            "middle": [float(np.median(x[rows])) for rows in bins.values()],
            "edges": list(map(list, bins)),
            "stars": list(map(len, bins.values())),
            "attainable": {kind: of_bins(_median, e) for kind, e in self.attainable.items()},
            "stated": of_bins(_median, self.stated),
            "scatter": of_bins(_robust_scatter, self.residuals),
        }

    def to_metrics(self) -> dict[str, Any]:
        """All bins as plain numbers: axis -> label -> quantity -> values."""
        metrics: dict[str, Any] = {"stars": self.stars}
        for axis in EDGES:
            bins = self.binned(axis)
            curves = {f"attainable, {kind}": v for kind, v in bins["attainable"].items()}
            curves |= {"stated": bins["stated"], "robust scatter": bins["scatter"]}
            metrics[axis] = {key: bins[key] for key in ("edges", "stars")} | {
                name: {title: plain_numbers(v[:, k], 4) for title, v in curves.items()}
                for k, name in enumerate(self.names)
            }
        return metrics


def _median(values: Array) -> Array:
    """Median of each column without its NaN; NaN if there is nothing else."""
    median = np.ma.median(np.ma.masked_invalid(values), axis=0)  # type: ignore[no-untyped-call]
    return np.ma.filled(np.ma.asarray(median, np.float64), np.nan)


def _robust_scatter(values: Array) -> Array:
    return 1.4826 * _median(np.abs(values - _median(values)))


def information_content(model: Model, stars: Stars, emulator: Emulator) -> Content:
    """Attainable errors of ``stars`` at their own labels and G, and those that a model reaches.

    The model predicts from the spectra alone, as the bound assumes. Abundances that are not known
    are taken as 0 (but are free); the population is that of the stars themselves.

    Raises :class:`InputError` if fewer than 20 stars have known Teff, log g, [Fe/H] and G that the
    emulators and the noise model cover.
    """
    known = stars.labels
    labels = dict(zip(known.names, known.values.T, strict=True)) if known else {}
    unknown = {name: np.nan if name in ("teff", "logg", "fe_h") else 0.0 for name in NAMES}
    columns = [labels.get(name, np.full(len(stars), unknown[name])) for name in NAMES]
    values, g_mag = np.stack(columns, axis=1), stars.photometry.column("phot_g_mean_mag")[0]
    usable = np.isfinite(values).all(axis=1) & (g_mag >= G_RANGE[0]) & (g_mag <= G_RANGE[1])
    rows = np.flatnonzero(usable)
    rows = rows[emulator.covers(emulator_labels(NAMES, values[rows]))]
    if len(rows) < FEWEST:
        raise InputError(
            f"{len(rows)} stars are giants with known Teff, log g, [Fe/H] and G",
            where=stars.where,
            remedy=f"give {FEWEST} or more of 3500-6000 K, log g 0-3.5, [Fe/H] -2.5 to 0.5",
        )
    covered = len(rows)
    rows = rows[np.linspace(0, covered - 1, min(covered, MOST)).astype(np.intp)]
    chosen, values, g_mag = stars[rows], values[rows], g_mag[rows]
    # makes labels that the stars do not have free, and no other exactly known
    spread = [(1e-3 if name in labels else 1e3) * STEPS[name] for name in NAMES]
    population = np.cov(values.T) + np.diag(np.square(spread))
    whitened = whitened_derivatives(emulator, values, g_mag)
    bounds = {
        DUSTLESS: attainable_errors(whitened[:, :-1]),
        FREE: attainable_errors(whitened),
        POPULATION: attainable_errors(whitened, population),
    }
    names = tuple(name for name in model.names if name in NAMES)
    ours = [NAMES.index(name) for name in names]
    theirs = [model.names.index(name) for name in names]
    prediction = model.predict(chosen.with_photometry(Photometry.missing(len(chosen))))
    truth = np.where([name in labels for name in names], values[:, ours], np.nan)
    return Content(
        names,
        {"teff": values[:, 0], "fe_h": values[:, 2]},
        {kind: errors[:, ours] for kind, errors in bounds.items()},
        prediction.errors[:, theirs],
        prediction.values[:, theirs] - truth,
        f"{len(rows)} of {covered} giants that the emulators cover, G {g_mag.min():.1f}-"
        f"{g_mag.max():.1f}, median {np.median(g_mag):.1f}",
    )


def giant_branch(emulator: Emulator) -> dict[str, Array]:
    """Attainable errors [T, M] of each label along the giant branch, dust free, solar ratios.

    Rows are the temperatures of :data:`GRID` [T], columns its metallicities [M]; log g follows
    Teff; G is :data:`GRID_G`.
    """
    teff, fe_h = GRID["teff"], GRID["fe_h"]
    values = np.zeros((len(teff) * len(fe_h), len(NAMES)))
    values[:, 0] = np.repeat(teff, len(fe_h))
    values[:, 1] = np.interp(values[:, 0], *BRANCH)
    values[:, 2] = np.tile(fe_h, len(teff))
    g_mag = np.full(len(values), GRID_G)
    errors = attainable_errors(whitened_derivatives(emulator, values, g_mag))
    return {name: errors[:, k].reshape(len(teff), -1) for k, name in enumerate(NAMES)}
