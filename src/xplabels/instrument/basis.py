"""Conversion of spectra that are in another basis than the model's, by their flux.

A basis is defined by its sampling matrix: flux = D' c'. The model's own coefficients c have theirs,
flux = D c, so those of the same flux are c = T c' in each band, and their covariance is T C' T^T.
Combinations of c that the samples barely constrain would be noise; the scatter S of real stars'
coefficients limits them, T = S D^T (D S D^T + s^2)^-1 D', where s is the part of D' that no
coefficients c reproduce.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, located
from xplabels.core.flags import Flag
from xplabels.core.prediction import packed_correlations, unpacked
from xplabels.core.stars import Band, CoefficientSpectra, Stars
from xplabels.features.projection import (
    FLUX_UNIT,
    field_prior_arrays,
    gaiaxpy_design,
    need_gaiaxpy,
    quiet,
)
from xplabels.instrument import MODELS, WIDTHS, load_model, model_files
from xplabels.io.files import whole

Array = NDArray[np.float64]

NOISE = 1e-9
"""Least s, relative to D: with it the labels from a basis that spans the same spectra agree with
those from the model's own to 1e-3 of their errors."""
SUFFIX = ".safetensors"
THREE_WAYS = (
    "install a GaiaXPy that knows this data release; or give its sampling matrix with --basis FILE "
    "(written by xplabels basis); or sample the spectra (GaiaXPy's calibrate) and give its output"
)


@dataclass(frozen=True)
class Basis:
    """A basis of spectra, defined by its sampling matrix.

    Attributes
    ----------
    wavelength
        Float64 [L], nm.
    matrix
        D', float64 [L, n]: flux (W m^-2 nm^-1) per unit of each coefficient, BP before RP.
    widths
        Number of BP and RP coefficients; they add up to n.
    name, provenance
        Its name in catalogues, and its origin.

    Examples
    --------
    >>> flat = np.full((343, 106), 1e-18)
    >>> Basis(np.linspace(336.0, 1020.0, 343), flat, (51, 55), "invented").widths
    (51, 55)
    """

    wavelength: Array
    matrix: Array
    widths: tuple[int, int]
    name: str
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.wavelength), sum(self.widths))
        if self.matrix.shape != shape or len(self.widths) != 2 or min(self.widths) < 1:
            raise InputError(
                f"the sampling matrix has the shape {self.matrix.shape}, not {shape} for "
                f"{shape[0]} wavelengths and {' + '.join(map(str, self.widths))} coefficients"
            )
        if not (np.isfinite(self.matrix).all() and (np.diff(self.wavelength) > 0).all()):
            raise InputError("the sampling matrix is not finite, or its wavelengths do not ascend")

    @property
    def sha256(self) -> str:
        """A digest of the numbers."""
        parts = (self.wavelength, self.matrix, np.array(self.widths))
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write it as ``.safetensors``; raises InputError if it exists, without ``overwrite``."""
        from safetensors.numpy import save_file

        from xplabels.io.atomic import whole_file

        about = {"widths": json.dumps(self.widths), "name": self.name}
        about["provenance"] = json.dumps(dict(self.provenance))
        arrays = {"wavelength": self.wavelength, "matrix": np.ascontiguousarray(self.matrix)}
        with whole_file(Path(path), overwrite) as temporary:
            save_file(arrays, temporary, {"format": "xplabels basis 1"} | about)

    @classmethod
    def load(cls, path: str | Path) -> Basis:
        """Read a file of :meth:`save`; raises InputError if it is none, or damaged."""
        from safetensors import safe_open

        remedy = "write one with xplabels basis --from-gaiaxpy --output FILE"
        with whole(path, "basis", remedy), located(path):
            with safe_open(str(path), "numpy") as file:
                about = file.metadata() or {}
                wavelength, matrix = (
                    np.asarray(file.get_tensor(name), np.float64)
                    for name in ("wavelength", "matrix")
                )
            bp, rp = map(int, json.loads(about["widths"]))
            provenance = dict(json.loads(about["provenance"]))
            return cls(wavelength, matrix, (bp, rp), about["name"], provenance)

    def maps_to(self, other: Basis) -> list[Array]:
        """T [n, n'] of BP and of RP: coefficients of ``other`` with the same flux.

        Raises InputError if the wavelengths differ.
        """
        wavelength = other.wavelength
        if self.wavelength.shape != wavelength.shape or not np.allclose(
            self.wavelength, wavelength, rtol=0, atol=1e-6
        ):
            raise InputError(
                f"the basis {self.name} is sampled at other wavelengths than the model's "
                f"{len(wavelength)} ({wavelength[0]:g}-{wavelength[-1]:g} nm)",
                remedy="sample it there: GaiaXPy's default sampling",
            )
        maps: list[Array] = []
        for own, theirs, root in zip(
            np.split(other.matrix, [other.widths[0]], axis=1),
            np.split(self.matrix, [self.widths[0]], axis=1),
            _spread(other.widths),
            strict=True,
        ):
            u, size, v = np.linalg.svd(own / FLUX_UNIT @ root, full_matrices=False)
            common = u.T @ (theirs / FLUX_UNIT)  # the part that the model's basis spans
            misfit = np.linalg.norm(theirs / FLUX_UNIT - u @ common) / np.linalg.norm(common)
            gain = size / (size**2 + (max(NOISE, misfit) * size[0]) ** 2)
            maps.append(np.asarray(root @ v.T @ (gain[:, None] * common), np.float64))
        return maps


def _spread(widths: tuple[int, int]) -> list[Array]:
    """A root of the covariance of real stars' coefficients in BP and RP; unity if not known."""
    if widths != WIDTHS:
        return [np.eye(widths[0]), np.eye(widths[1])]
    covariance = field_prior_arrays()["covariance"]
    bp, rp = slice(0, widths[0]), slice(widths[0], None)
    return [np.asarray(np.linalg.cholesky(covariance[b, b]), np.float64) for b in (bp, rp)]


def converted(stars: Stars, basis: Basis, own: Basis) -> Stars:
    """Stars whose spectra are in ``basis``, converted to the same flux in ``own`` with its errors.

    They get the flag ``OTHER_BASIS``. Unknown correlations are taken as zero.
    """
    spectra = stars.spectra
    if not isinstance(spectra, CoefficientSpectra):
        raise InputError("sampled flux is in no basis", where=stars.where)
    bands = [
        _converted(band, matrix)
        for band, matrix in zip((spectra.bp, spectra.rp), basis.maps_to(own), strict=True)
    ]
    flags = stars.flags | np.uint32(Flag.OTHER_BASIS)
    return replace(stars, spectra=CoefficientSpectra(*bands), flags=flags)


def _converted(band: Band, matrix: Array) -> Band:
    spread = matrix * band.errors[:, None, :]
    if band.correlations is None:
        covariance = spread @ spread.transpose(0, 2, 1)
    else:
        packed = band.correlations.astype(np.float64)
        covariance = spread @ unpacked(packed, band.width) @ spread.transpose(0, 2, 1)
    errors = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0))
    correlations = packed_correlations(covariance).astype(np.float32)
    return Band(band.coefficients @ matrix.T, errors, correlations)


@cache
def gaiaxpy_basis(widths: tuple[int, int] = WIDTHS, models: Sequence[str] = ()) -> Basis:
    """The basis of the installed GaiaXPy with so many coefficients.

    That of DR3 is by GaiaXPy's default sampling. Any other is made from its files of bases,
    dispersion and response; it is found by the number of bases in them, whatever its version or
    release. ``models`` are the names of those of BP and RP, if several have these widths.

    Raises InputError if GaiaXPy is not installed, or has no such basis, or several.
    """
    need_gaiaxpy()
    from importlib.metadata import version

    installed, dr3 = f"GaiaXPy {version('gaiaxpy')}", tuple(MODELS.values())
    wavelength, design = gaiaxpy_design()
    if widths == WIDTHS and tuple(models) in ((), dr3):
        about: dict[str, Any] = {"made by": installed, "models": list(dr3)}
        return Basis(wavelength, design, WIDTHS, "Gaia DR3", about)
    pairs = [pair for pair in _carried(widths) if not models or _names(pair) == tuple(models)]
    if not pairs:
        what = f" called {', '.join(models)}" if models else ""
        raise InputError(
            f"the installed {installed} has no basis of {widths[0]} BP + {widths[1]} RP "
            f"coefficients{what}",
            remedy=THREE_WAYS,
        )
    if len(pairs) > 1:
        listed = "; ".join(",".join(_names(pair)) for pair in pairs)
        raise InputError(
            f"the installed GaiaXPy has several bases of {widths[0]} + {widths[1]} coefficients",
            remedy=f"name BP's and RP's with xplabels basis --models: {listed}",
        )
    (pair,) = pairs
    columns = [_sampled(band, stem, wavelength) for band, stem in zip(MODELS, pair, strict=True)]
    name, about = ",".join(_names(pair)), {"made by": installed, "models": list(_names(pair))}
    return Basis(wavelength, np.concatenate(columns, axis=1), widths, f"GaiaXPy {name}", about)


def _carried(widths: tuple[int, int]) -> list[tuple[Path, ...]]:
    """BP's and RP's files (see :func:`load_model`) of models of these widths other than DR3's."""
    import csv

    from gaiaxpy.config.paths import config_path

    csv.field_size_limit(2**31 - 1)

    def stems(band: str, width: int) -> Iterator[Path]:
        for path in sorted(Path(config_path).glob(f"{band}*_*_bases.csv")):
            with path.open(newline="", encoding="utf-8") as file:
                row = next(csv.DictReader(file), {})
            stem = path.with_name(path.name.removesuffix("_bases.csv"))
            if row.get("nBases") == str(width) and all(map(Path.is_file, model_files(stem))):
                yield stem

    def stage(stem: Path) -> str:
        """``C03`` from bpC03_v375wi."""
        return stem.name.partition("_")[0][2:]

    pairs = product(*(list(stems(band, n)) for band, n in zip(MODELS, widths, strict=True)))
    return [
        pair
        for pair in pairs
        if stage(pair[0]) == stage(pair[1]) and _names(pair) != tuple(MODELS.values())
    ]


def _names(pair: Iterable[Path]) -> tuple[str, ...]:
    """Names of instrument models: ``v375wi`` from bpC03_v375wi."""
    return tuple(stem.name.partition("_")[2] for stem in pair)


def _sampled(band: str, stem: Path, wavelength: Array) -> Array:
    """One band's columns of the sampling matrix [L, n], with GaiaXPy's weights of BP and RP."""
    model = load_model(stem)
    with quiet():
        from gaiaxpy.core.satellite import BP_WL, RP_WL
        from gaiaxpy.spectrum.sampled_basis_functions import SampledBasisFunctions

        red = np.clip((wavelength - RP_WL.low) / (BP_WL.high - RP_WL.low), 0.0, 1.0)
        weight = red if band == "rp" else 1.0 - red
        sampled = SampledBasisFunctions.from_external_instrument_model(wavelength, weight, model)
    return np.asarray(sampled.get_design_matrix() * weight, np.float64).T
