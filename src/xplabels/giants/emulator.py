"""Spectra of giants with separate C and N: neural emulators of synthetic spectra.

Three dense networks, each for a range of temperatures, give the flux over continuum at 0.05 nm
for 22 labels. They come in the PyPI package ``bossbrain`` (MIT) as pickles, which could execute
any code, so they are never unpickled. A file with the expected SHA-256 has its arrays at known
offsets (``tools/emulator_layout.py``), from where they are copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.instrument import gaiaxpy_instrument
from xplabels.instrument.sed import air_to_vacuum

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

PACKAGE, VERSION = "bossbrain", "1.0.12"
FILES = {
    "ann_22pars_3500-4200.pkl": "127f75e1c57ad6b73c81a321cd46f6c2faff7ecdd565cb2e9a6590da41190e01",
    "ann_22pars_4000-5000.pkl": "7a584c5e08cf029b28f86dbaaae219f717ce78954b2ce2fa211f9df93c13ad39",
    "ann_22pars_4900-6000.pkl": "b5f6407407e3f44f92ffad79335746f791a4980cfe0c07f2ff296df5735572f7",
}
"""Network files of the package and their SHA-256, the coolest first."""
LAYOUT: dict[str, tuple[int, str, tuple[int, ...]]] = {
    "lower": (17_249_937, "<f8", (22,)),
    "upper": (17_250_170, "<f8", (22,)),
    "weight.0": (1_161, "<f4", (300, 22)),
    "weight.1": (29_836, "<f4", (300, 300)),
    "weight.2": (391_959, "<f4", (14_001, 300)),
    "bias.0": (27_872, "<f4", (300,)),
    "bias.1": (390_153, "<f4", (300,)),
    "bias.2": (17_193_476, "<f4", (14_001,)),
}
"""Byte offset, type and shape of each array, the same in the three files."""

TEFF_BOUNDS = (3500.0, 4100.0, 4950.0, 6000.0)
"""Temperatures (K) between which each network is used, as in ``bossbrain`` itself."""
LABELS = (
    "teff", "logg", "mh", "cm", "nm", "om", "nam", "mgm", "alm", "sim", "cam", "tim", "vm", "crm",
    "mnm", "com", "nim", "scm", "bam", "cem", "ndm", "zrm",
)  # fmt: skip
"""The emulators' inputs: K, log10 of cm s^-2, [M/H], and [X/M] of 19 elements."""
ALPHA = ("om", "mgm", "sim", "cam", "tim")
"""Elements that vary with [alpha/M]: O, Mg, Si, Ca and Ti; the emulators have no Ne, S or Ar."""
WAVELENGTH: Array = air_to_vacuum(np.linspace(350.0, 1050.0, 14_001))
"""Vacuum wavelengths (nm) of the emulated spectra, which were computed at wavelengths in air."""
NEGATIVE_SLOPE = 0.01
JOINED_BINS = 4
"""How many of the instrument's bins of 0.25 nm :meth:`Emulator.at_instrument` joins; together they
are a third of the finest resolution."""
HC_OVER_K = 1.438776877e7
"""h c / k, nm K."""


@dataclass(frozen=True)
class EmulatorNetwork:
    """One emulator: flux by three dense layers with leaky ReLU between them, from scaled labels.

    ``lower`` and ``upper`` [22] are the training set's range, which is scaled to -0.5 ... 0.5.
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


@dataclass(frozen=True)
class Emulator:
    """Continuum-normalised spectra of giants, 3500-6000 K, log g 0-3.5, [M/H] -2.5 to 0.5.

    At ``wavelength`` [W], nm in vacuum; :data:`TEFF_BOUNDS` says which network is used where.
    """

    wavelength: Array
    networks: tuple[EmulatorNetwork, ...]

    def bounds(self, teff: Array) -> tuple[Array, Array]:
        """Lower and upper labels [N, 22] of the network for each ``teff`` [N]."""
        which = np.searchsorted(TEFF_BOUNDS[1:-1], teff)
        lower = np.stack([network.lower for network in self.networks])[which]
        upper = np.stack([network.upper for network in self.networks])[which]
        return lower, upper

    def covers(self, labels: Array) -> NDArray[np.bool_]:
        """Which stars [N] have all ``labels`` [N, 22] inside the training range."""
        lower, upper = self.bounds(labels[:, 0])
        lower[:, 0], upper[:, 0] = TEFF_BOUNDS[0], TEFF_BOUNDS[-1]
        return np.asarray(((labels >= lower) & (labels <= upper)).all(axis=1))

    def normalised_flux(self, labels: Array, like: Array | None = None) -> Array:
        """Flux over continuum [N, W] at labels [N, 22] in the order of :data:`LABELS`.

        ``like`` are labels by which the network is chosen instead, since two spectra that are
        compared should come from one. Raises :class:`InputError` if a star is outside the training
        range.
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
        which = np.searchsorted(TEFF_BOUNDS[1:-1], (labels if like is None else like)[:, 0])
        flux = np.empty((len(labels), len(self.wavelength)))
        for number, network in enumerate(self.networks):
            chosen = which == number
            flux[chosen] = network.flux(labels[chosen])
        return flux

    def binned(self, edges: Array) -> Emulator:
        """An emulator of the mean flux in V bins between ``edges`` [V + 1], nm.

        Each bin must contain samples. The means are taken in the networks' last layers, which is
        exact and fast for few bins.
        """
        inside = (self.wavelength >= edges[:-1, None]) & (self.wavelength < edges[1:, None])
        means = (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
        networks = (
            replace(
                network,
                weights=(*network.weights[:-1], means @ network.weights[-1]),
                biases=(*network.biases[:-1], means @ network.biases[-1]),
            )
            for network in self.networks
        )
        return Emulator((edges[:-1] + edges[1:]) / 2, tuple(networks))

    def at_instrument(self) -> tuple[Emulator, Array, Array, slice]:
        """This emulator in the instrument's bins, joined to 1 nm, as far as it covers them.

        With it come the middles [B] of all these bins, nm; the coefficients [n, B] of unit flux in
        a bin; and which of the B bins the emulator covers.
        """
        instrument = gaiaxpy_instrument()
        edges = instrument.edges[::JOINED_BINS]
        low, high = self.wavelength[[0, -1]]
        bins = np.flatnonzero((edges[:-1] >= low) & (edges[1:] <= high))
        inside = slice(bins[0], bins[-1] + 1)
        fine = self.binned(edges[bins[0] : bins[-1] + 2])
        matrix = instrument.matrix.reshape(len(instrument.matrix), -1, JOINED_BINS).sum(axis=2)
        return fine, 0.5 * (edges[1:] + edges[:-1]), matrix, inside


def black_body(wavelength: Array, teff: Array | float) -> Array:
    """Planck's law at ``wavelength`` (nm) in arbitrary units, in place of a star's continuum."""
    return np.asarray(wavelength**-5.0 / np.expm1(HC_OVER_K / (wavelength * teff)))


def emulator_labels(names: Sequence[str], values: Array) -> Array:
    """The emulators' labels [N, 22] from ours [N, K].

    The emulators take abundances relative to the overall metallicity, [X/M], and none of iron, so
    [Fe/M] = 0: [M/H] is [Fe/H], [C/M] = [C/Fe] + [Fe/H] - [M/H] = [C/Fe], and likewise for N.
    [alpha/M] is that of all :data:`ALPHA`. All other elements, and labels not named, are solar.
    """
    targets = {
        "teff": ("teff",), "logg": ("logg",), "fe_h": ("mh",), "c_fe": ("cm",), "n_fe": ("nm",),
        "alpha_m": ALPHA,
    }  # fmt: skip
    result = np.zeros((len(values), len(LABELS)))
    for name, column in zip(names, values.T, strict=True):
        for target in targets.get(name, ()):
            result[:, LABELS.index(target)] = column
    return result


def load_emulator() -> Emulator:
    """The three emulators of the installed package ``bossbrain``.

    Raises :class:`InputError` if it is not installed, or a file of it is not the one expected.
    """
    try:
        installed = distribution(PACKAGE)
    except PackageNotFoundError:
        raise InputError(
            f"the spectrum emulators are not installed (package {PACKAGE})",
            remedy="pip install 'xplabels[synthetic]'",
        ) from None
    networks = (
        read_network(Path(str(installed.locate_file(f"{PACKAGE}/data/{name}"))), sha256)
        for name, sha256 in FILES.items()
    )
    return Emulator(WAVELENGTH, tuple(networks))


def read_network(path: Path, sha256: str) -> EmulatorNetwork:
    """One network, copied from known offsets in a file of known content; nothing is unpickled.

    Raises :class:`InputError` if the file is absent or not the one with this SHA-256.
    """
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(
            f"is {'not the file' if content else 'absent, a file'} of {PACKAGE} {VERSION}",
            where=path,
            remedy=f"pip install --force-reinstall --no-deps {PACKAGE}=={VERSION}",
        )
    arrays = {
        name: np.frombuffer(content, kind, prod(shape), offset).reshape(shape).copy()
        for name, (offset, kind, shape) in LAYOUT.items()
    }
    return EmulatorNetwork(
        arrays["lower"],
        arrays["upper"],
        tuple(arrays[f"weight.{layer}"] for layer in range(3)),
        tuple(arrays[f"bias.{layer}"] for layer in range(3)),
    )
