"""Spectra of giants with separate C and N: neural emulators of synthetic spectra.

Three dense networks, each for a range of temperatures, give the flux over continuum at 0.05 nm
for 22 labels. :mod:`xplabels.giants.bossbrain` brings them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.instrument.sed import air_to_vacuum

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

TEFF_BOUNDS = (3500.0, 4100.0, 4950.0, 6000.0)
"""K: each network is used between two of these, as ``bossbrain`` itself uses it."""

LABELS = (
    "teff", "logg", "mh", "cm", "nm", "om", "nam", "mgm", "alm", "sim", "cam", "tim", "vm", "crm",
    "mnm", "com", "nim", "scm", "bam", "cem", "ndm", "zrm",
)  # fmt: skip
"""The emulators' inputs: K, log10 of cm s^-2, [M/H], and [X/M] of 19 elements."""
ALPHA = ("om", "mgm", "sim", "cam", "tim")
"""What moves with [alpha/M]: O, Mg, Si, Ca and Ti; the emulators have no Ne, S or Ar."""

WAVELENGTH: Array = air_to_vacuum(np.linspace(350.0, 1050.0, 14_001))
"""Of the emulated spectra, nm, vacuum: they were computed at wavelengths in air."""
NEGATIVE_SLOPE = 0.01


@dataclass(frozen=True)
class Network:
    """One emulator: scaled labels -> flux by three dense layers with leaky ReLU in between.

    Attributes
    ----------
    lower, upper
        Float64 [22]: the training set's range, which is scaled to -0.5 ... 0.5.
    weights, biases
        Float32, of each layer.
    """

    lower: Array
    upper: Array
    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]

    def flux(self, labels: Array) -> Floats:
        """The last layer's outputs [N, W] at ``labels`` [N, 22]."""
        h = ((labels - self.lower) / (self.upper - self.lower) - 0.5).astype(np.float32)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = h @ weight.T + bias
            h = np.where(h > 0, h, NEGATIVE_SLOPE * h)
        flux: Floats = h @ self.weights[-1].T + self.biases[-1]
        return flux

    def through(self, operator: Floats) -> Network:
        """The same network with a linear map [V, W] of its flux folded into the weights."""
        weights = (*self.weights[:-1], operator @ self.weights[-1])
        return Network(
            self.lower, self.upper, weights, (*self.biases[:-1], operator @ self.biases[-1])
        )


@dataclass(frozen=True)
class Emulator:
    """Continuum-normalised spectra of giants, 3500-6000 K, log g 0-3.5, [M/H] -2.5 to 0.5.

    Attributes
    ----------
    wavelength
        Float64 [W], nm, vacuum.
    networks
        In order of temperature; :data:`TEFF_BOUNDS` says which is used where.
    """

    wavelength: Array
    networks: tuple[Network, ...]

    def covers(self, labels: Array) -> NDArray[np.bool_]:
        """Which of the stars [N] lie inside every label's training range [N, 22]."""
        which = self._which(labels)
        lower = np.stack([network.lower for network in self.networks])[which]
        upper = np.stack([network.upper for network in self.networks])[which]
        coolest, hottest = TEFF_BOUNDS[0], TEFF_BOUNDS[-1]
        inside = ((labels[:, 1:] >= lower[:, 1:]) & (labels[:, 1:] <= upper[:, 1:])).all(axis=1)
        covered: NDArray[np.bool_] = inside & (labels[:, 0] >= coolest) & (labels[:, 0] <= hottest)
        return covered

    def normalised_flux(self, labels: Array, like: Array | None = None) -> Array:
        """Flux over continuum [N, W].

        Parameters
        ----------
        labels
            Float64 [N, 22], in the order of :data:`LABELS` (see :func:`emulator_labels`).
        like
            Labels [N, 22] that choose the network instead: ratios of two spectra should come from
            one. Left out: ``labels``.

        Raises
        ------
        InputError
            If a star lies outside the training range.
        """
        covered = self.covers(labels)
        if not covered.all():
            row = int(np.argmin(covered))
            values = ", ".join(
                f"{name} {value:.4g}" for name, value in zip(LABELS[:5], labels[row], strict=False)
            )
            raise InputError(
                f"the emulators do not cover {int((~covered).sum())} of these stars",
                where=f"row {row + 1}: {values}",
                remedy="keep to 3500-6000 K, log g 0-3.5, [M/H] -2.5 to 0.5, [X/M] -0.6 to 0.6",
            )
        which = self._which(labels if like is None else like)
        flux = np.empty((len(labels), len(self.wavelength)))
        for number, network in enumerate(self.networks):
            chosen = which == number
            flux[chosen] = network.flux(labels[chosen])
        return flux

    def through(self, wavelength: Array, operator: Array) -> Emulator:
        """An emulator of what a linear map [V, W] makes of the flux, at ``wavelength`` [V].

        The map is folded into the networks' last layers: exact, and as cheap as V is small.
        """
        folded = operator.astype(np.float32)
        return Emulator(wavelength, tuple(network.through(folded) for network in self.networks))

    def binned(self, edges: Array) -> Emulator:
        """An emulator of the mean flux between ``edges`` [V + 1], nm, each bin holding samples."""
        inside = (self.wavelength >= edges[:-1, None]) & (self.wavelength < edges[1:, None])
        counts = inside.sum(axis=1, keepdims=True)
        if not counts.all():
            raise InputError(
                f"no emulated wavelength lies between {edges[int(np.argmin(counts))]:g} nm and "
                "the next edge",
                remedy=f"keep to {self.wavelength[0]:.2f}-{self.wavelength[-1]:.2f} nm",
            )
        return self.through((edges[:-1] + edges[1:]) / 2, inside / counts)

    def _which(self, labels: Array) -> NDArray[np.intp]:
        return np.searchsorted(TEFF_BOUNDS[1:-1], labels[:, 0])


def emulator_labels(names: Sequence[str], values: Array) -> Array:
    """The emulators' labels [N, 22] from ours [N, K].

    The emulators know abundances relative to the overall metallicity, [X/M], and no iron of its
    own, so [Fe/M] = 0: [M/H] is [Fe/H], [C/M] = [C/Fe] + [Fe/H] - [M/H] = [C/Fe], and likewise
    for N. [alpha/M] moves :data:`ALPHA`. Every other element, and any label not named, is solar.
    """
    columns = dict(zip(names, values.T, strict=True))
    result = np.zeros((len(values), len(LABELS)))

    def put(target: str, source: str) -> None:
        if source in columns:
            result[:, LABELS.index(target)] = columns[source]

    for target, source in (
        ("teff", "teff"), ("logg", "logg"), ("mh", "fe_h"), ("cm", "c_fe"), ("nm", "n_fe"),
        *((element, "alpha_m") for element in ALPHA),
    ):  # fmt: skip
        put(target, source)
    return result
