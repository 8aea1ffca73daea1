"""The data of stars: XP spectra, photometry and, if known, labels.

These are plain arrays in frozen classes, checked once when they are built. The number of
coefficients comes from the data: nothing here or downstream assumes 55 + 55.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, counted
from xplabels.core.flags import Flag
from xplabels.core.labels import Labels, Rows, check_shapes, rows_of

MEASUREMENTS = (
    "phot_g_mean_mag",
    "phot_bp_mean_mag",
    "phot_rp_mean_mag",
    "j_m",
    "h_m",
    "ks_m",
    "w1mpro",
    "w2mpro",
    "parallax",
)
"""Broad-band magnitudes (Vega, mag) and the parallax (mas), by the archives' names."""
MADE = ("simulated", "semi-synthetic")
"""Words by which notes say that stars are not real (:attr:`Stars.made`)."""


@dataclass(frozen=True, repr=False)
class Band:
    """One band (BP or RP) of N stars as archive coefficients.

    Attributes
    ----------
    coefficients
        Float64 [N, n]; a row of NaN where the archive has no spectrum in this band.
    errors
        Float64 [N, n]: the archive's ``*_coefficient_errors``.
    correlations
        Float32 [N, n (n - 1) / 2]: column-major upper triangle without the diagonal, i.e.
        ``matrix[np.tril_indices(n, -1)] = packed`` (GaiaXPy's order); None: not known.
    """

    coefficients: NDArray[np.float64]
    errors: NDArray[np.float64]
    correlations: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        stars, width = self.coefficients.shape
        if self.errors.shape != (stars, width):
            raise InputError(
                f"coefficients have the shape {(stars, width)}, errors {self.errors.shape}"
            )
        packed = width * (width - 1) // 2
        if self.correlations is not None and self.correlations.shape != (stars, packed):
            raise InputError(
                f"{width} coefficients need {packed} packed correlations per star",
                where=f"correlations of shape {self.correlations.shape}",
            )

    def __repr__(self) -> str:
        more = "" if self.correlations is None else " with correlations"
        return f"Band(N = {len(self.coefficients)}: {self.width} coefficients{more})"

    @property
    def width(self) -> int:
        """Number of coefficients."""
        return int(self.coefficients.shape[1])

    def __getitem__(self, rows: Rows) -> Band:
        rows = rows_of(rows, len(self.coefficients))
        correlations = None if self.correlations is None else self.correlations[rows]
        return Band(self.coefficients[rows], self.errors[rows], correlations)


@dataclass(frozen=True)
class CoefficientSpectra:
    """XP spectra as the archive gives them: basis coefficients of BP and RP."""

    bp: Band
    rp: Band

    space = "coefficients"

    def __post_init__(self) -> None:
        if len(self.bp.coefficients) != len(self.rp.coefficients):
            raise InputError(
                f"{len(self.bp.coefficients)} stars in BP, {len(self.rp.coefficients)} in RP"
            )

    def __len__(self) -> int:
        return len(self.bp.coefficients)

    def __getitem__(self, rows: Rows) -> CoefficientSpectra:
        return CoefficientSpectra(self.bp[rows], self.rp[rows])

    @property
    def widths(self) -> tuple[int, int]:
        """Number of BP and RP coefficients."""
        return self.bp.width, self.rp.width

    @property
    def coefficients(self) -> NDArray[np.float64]:
        """Coefficients [N, n], BP before RP."""
        return np.concatenate([self.bp.coefficients, self.rp.coefficients], axis=1)

    @property
    def errors(self) -> NDArray[np.float64]:
        """Their errors [N, n]."""
        return np.concatenate([self.bp.errors, self.rp.errors], axis=1)


@dataclass(frozen=True, repr=False)
class SampledSpectra:
    """XP spectra sampled in wavelength, as GaiaXPy's ``calibrate(truncation=False)`` gives them.

    Attributes
    ----------
    wavelength
        Float64 [L], nm.
    flux, flux_error
        Float64 [N, L], W m^-2 nm^-1.
    """

    wavelength: NDArray[np.float64]
    flux: NDArray[np.float64]
    flux_error: NDArray[np.float64]

    space = "sampled"

    def __post_init__(self) -> None:
        shape = (len(self.flux), len(self.wavelength))
        check_shapes(shape, {"flux": self.flux, "flux_error": self.flux_error})

    def __len__(self) -> int:
        return len(self.flux)

    def __repr__(self) -> str:
        return f"SampledSpectra(N = {len(self)}: {_spectra_kind(self)})"

    def __getitem__(self, rows: Rows) -> SampledSpectra:
        rows = rows_of(rows, len(self))
        return SampledSpectra(self.wavelength, self.flux[rows], self.flux_error[rows])


Spectra = CoefficientSpectra | SampledSpectra


@dataclass(frozen=True, repr=False)
class Photometry:
    """Magnitudes and parallax of N stars with errors, in the order of :data:`MEASUREMENTS`.

    Attributes
    ----------
    values, errors
        Float64 [N, 9], mag and mas; NaN in both where a measurement is missing.

    Examples
    --------
    >>> known = {"j_m": (np.array([12.0, 13.0]), np.array([0.02, 0.02]))}
    >>> photometry = Photometry.of(2, known)
    >>> photometry.column("j_m")[0]
    array([12., 13.])
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = (len(self.values), len(MEASUREMENTS))
        check_shapes(shape, {"photometry": self.values, "its errors": self.errors})

    @classmethod
    def missing(cls, stars: int) -> Photometry:
        """Photometry of stars of which nothing is known."""
        empty = np.full((stars, len(MEASUREMENTS)), np.nan)
        return cls(empty, empty.copy())

    @classmethod
    def of(
        cls, stars: int, measured: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    ) -> Photometry:
        """Photometry from ``{measurement: (values [N], errors [N])}``; the rest is missing."""
        photometry = cls.missing(stars)
        for name, (values, errors) in measured.items():
            column = MEASUREMENTS.index(name)
            known = np.isfinite(values) & np.isfinite(errors)
            photometry.values[:, column] = np.where(known, values, np.nan)
            photometry.errors[:, column] = np.where(known, errors, np.nan)
        return photometry

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        known = np.isfinite(self.values).sum(axis=0)
        each = [f"{name} of {k:,}" for name, k in zip(MEASUREMENTS, known, strict=True) if k]
        return f"Photometry(N = {len(self)}: {', '.join(each) or 'nothing'})"

    def __getitem__(self, rows: Rows) -> Photometry:
        rows = rows_of(rows, len(self), f"photometry.column({rows!r})")
        return Photometry(self.values[rows], self.errors[rows])

    def column(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values and errors [N] of one of :data:`MEASUREMENTS`."""
        index = MEASUREMENTS.index(name)
        return self.values[:, index], self.errors[:, index]


@dataclass(frozen=True, repr=False)
class Stars:
    """N stars keyed by ``source_id``: spectra, photometry, flags of the reader, maybe labels.

    Attributes
    ----------
    source_id
        Int64 [N], each once.
    spectra
        Archive coefficients or sampled flux.
    photometry
        Absent measurements are NaN.
    flags
        Uint32 [N] of :class:`~xplabels.core.flags.Flag`: what was noticed while reading.
    labels
        Known labels (a training or validation table), or None.
    origin
        Where the stars came from, for provenance: a star table keeps it from file to file.
    notes
        What a user of this table should know, e.g. approximations.
    file
        The file they were just read from, as the user named it.

    Examples
    --------
    >>> import xplabels as xp
    >>> stars = xp.example_stars(5)
    >>> len(stars), stars.spectra.widths, len(stars[:2])
    (5, (55, 55), 2)
    """

    source_id: NDArray[np.int64]
    spectra: Spectra
    photometry: Photometry
    flags: NDArray[np.uint32]
    labels: Labels | None = None
    origin: str = ""
    notes: tuple[str, ...] = ()
    file: str = ""

    def __post_init__(self) -> None:
        for name in ("spectra", "photometry", "flags", "labels"):
            part = getattr(self, name)
            if part is not None and len(part) != len(self):
                raise InputError(f"{len(self)} source_ids but {len(part)} rows of {name}")
        check_unique(self.source_id, self.where)

    @classmethod
    def of(
        cls,
        source_id: NDArray[np.int64],
        spectra: Spectra,
        photometry: Photometry | None = None,
        labels: Labels | None = None,
        flags: NDArray[np.uint32] | None = None,
        origin: str = "",
        notes: tuple[str, ...] = (),
        file: str = "",
    ) -> Stars:
        """Stars, with whatever is left out filled in as missing.

        The bits ``MISSING_BP`` and ``MISSING_RP`` are set where a band is NaN throughout, and
        ``NO_CORRELATIONS`` where correlations are not known.
        """
        stars = len(source_id)
        noticed = np.zeros(stars, np.uint32) if flags is None else flags.astype(np.uint32)
        if isinstance(spectra, CoefficientSpectra):
            for band, bit in ((spectra.bp, Flag.MISSING_BP), (spectra.rp, Flag.MISSING_RP)):
                noticed[np.isnan(band.coefficients).all(axis=1)] |= np.uint32(bit)
        if not has_correlations(spectra):
            noticed |= np.uint32(Flag.NO_CORRELATIONS)
        return cls(
            np.ascontiguousarray(source_id, dtype=np.int64),
            spectra,
            Photometry.missing(stars) if photometry is None else photometry,
            noticed,
            labels,
            origin,
            notes,
            file,
        )

    def __len__(self) -> int:
        return len(self.source_id)

    def __getitem__(self, rows: Rows) -> Stars:
        rows = rows_of(rows, len(self))
        return replace(
            self,
            source_id=self.source_id[rows],
            spectra=self.spectra[rows],
            photometry=self.photometry[rows],
            flags=self.flags[rows],
            labels=None if self.labels is None else self.labels[rows],
        )

    def __repr__(self) -> str:
        measured = np.any(np.isfinite(self.photometry.values), axis=0)
        parts = [_spectra_kind(self.spectra), *np.array(MEASUREMENTS)[measured]]
        if self.labels is not None:
            parts.append(f"labels {', '.join(self.labels.names)}")
        if self.where:
            parts.append(f"from {self.where}")
        return f"Stars(N = {len(self)}: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>"

    @property
    def where(self) -> str | None:
        """The name of these stars in messages: the file they were read from, else their origin."""
        return self.file or self.origin or None

    @property
    def made(self) -> tuple[str, ...]:
        """Notes that the stars are not real ones, which must be kept in what is made from them."""
        return tuple(note for note in self.notes if any(word in note for word in MADE))

    def with_photometry(self, photometry: Photometry | None) -> Stars:
        """With other photometry; None: without any."""
        return replace(self, photometry=photometry or Photometry.missing(len(self)))

    def with_labels(self, labels: Labels | None) -> Stars:
        """With other labels."""
        return replace(self, labels=labels)

    @classmethod
    def from_arrays(
        cls,
        source_id: Any,
        bp: Any,
        bp_error: Any,
        rp: Any,
        rp_error: Any,
        bp_correlations: Any = None,
        rp_correlations: Any = None,
    ) -> Stars:
        """Stars from arrays of archive coefficients, checked as a file's are.

        Parameters
        ----------
        source_id
            [N], integers.
        bp, bp_error, rp, rp_error
            [N, n]: coefficients and their errors.
        bp_correlations, rp_correlations
            Packed [N, n (n - 1) / 2] as in the archive, or matrices [N, n, n]; both or none.

        Raises InputError that names source_id and column where an array has another length, an
        error is not positive or a number is not finite, and if the identifiers are not integers
        or occur twice.

        Examples
        --------
        >>> Stars.from_arrays([7, 8], np.ones((2, 55)), np.ones((2, 55)), np.ones((2, 55)),
        ...                   np.ones((2, 55)))
        Stars(N = 2: 55+55 coefficients, from the arrays)
        """
        from xplabels.io.tables import stars_from_arrays

        return stars_from_arrays(
            source_id=source_id,
            bp_coefficients=bp, bp_coefficient_errors=bp_error,
            bp_coefficient_correlations=bp_correlations,
            rp_coefficients=rp, rp_coefficient_errors=rp_error,
            rp_coefficient_correlations=rp_correlations,
        )  # fmt: skip

    def join(
        self, photometry: Any = (), labels: Any = None, names: Sequence[str] | None = None
    ) -> Stars:
        """The same stars with photometry and labels from tables, by ``source_id``.

        Each table is a file or one in memory (:mod:`xplabels.io.memory`); of photometry there may
        be a list. See :func:`xplabels.join_photometry` and :func:`xplabels.join_labels`; ``names``
        are the labels to take, by default all.

        Examples
        --------
        >>> import pandas as pd
        >>> import xplabels as xp
        >>> stars = xp.example_stars(2)
        >>> ages = {"source_id": stars.source_id, "age": [3.0, None], "age_err": [0.5, 0.5]}
        >>> stars.join(labels=pd.DataFrame(ages)).labels
        Labels(N = 2: age of 1)
        """
        from xplabels.io.tables import join_labels, join_photometry

        listed = isinstance(photometry, list | tuple)
        stars = self if listed and not photometry else join_photometry(self, photometry)
        return stars if labels is None else join_labels(stars, labels, names)


def has_correlations(spectra: Spectra) -> bool:
    """Whether the full covariance of the coefficients is known."""
    return (
        isinstance(spectra, CoefficientSpectra)
        and spectra.bp.correlations is not None
        and spectra.rp.correlations is not None
    )


def with_widths(stars: Stars, widths: tuple[int, int]) -> Stars:
    """``stars`` with any band of width 0 given its number of coefficients in ``widths``, as NaN.

    A file in which no star has a spectrum in a band does not say how many coefficients it would
    have had; other files, or a model, do.
    """
    spectra = stars.spectra
    if not isinstance(spectra, CoefficientSpectra) or 0 not in spectra.widths:
        return stars
    bands = []
    for band, width in zip((spectra.bp, spectra.rp), widths, strict=True):
        if band.width == 0:
            blank = np.full((len(stars), width), np.nan)
            packed = np.full((len(stars), width * (width - 1) // 2), np.nan, np.float32)
            correlated = band.correlations is not None
            band = Band(blank, blank.copy(), packed if correlated else None)
        bands.append(band)
    return replace(stars, spectra=CoefficientSpectra(*bands))


def check_unique(source_id: NDArray[np.int64], where: object = None) -> None:
    """Raise :class:`InputError` naming the first source_id that occurs twice."""
    ids, counts = np.unique(source_id, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"source_id {ids[counts > 1][0]} occurs {counts[counts > 1][0]} times "
            f"({counted(int((counts > 1).sum()), 'source_id')} more than once)",
            where=where or None,
            remedy="keep one row per star",
        )


def concatenate(blocks: Sequence[Stars]) -> Stars:
    """Stack blocks of stars.

    Raises InputError if they differ in space, widths, wavelengths or labels, or there is none.
    """
    if not blocks:
        raise InputError("no stars at all", remedy="give at least one file with rows")
    first = blocks[0]
    if len(blocks) == 1:
        return first
    for block in blocks[1:]:
        wavelengths = (getattr(stars.spectra, "wavelength", 0) for stars in (block, first))
        if _kind(block) != _kind(first) or not np.array_equal(*wavelengths):
            raise InputError(
                f"holds {_kind(block)}, but {first.where or 'the first file'} {_kind(first)}",
                where=block.where,
                remedy="predict them in separate calls",
            )
    spectra = stacked([block.spectra for block in blocks])
    flags = np.concatenate([block.flags for block in blocks])
    if not has_correlations(spectra):
        # also for blocks that have them, as they are not used if any block lacks them
        flags = flags | np.uint32(Flag.NO_CORRELATIONS)
    return Stars(
        np.concatenate([block.source_id for block in blocks]),
        spectra,
        stacked([block.photometry for block in blocks]),
        flags,
        stacked([block.labels for block in blocks]),
        ", ".join(dict.fromkeys(block.origin for block in blocks if block.origin)),
        tuple(dict.fromkeys(note for block in blocks for note in block.notes)),
        ", ".join(dict.fromkeys(block.file for block in blocks if block.file)),
    )


def stacked(parts: Sequence[Any]) -> Any:
    """Arrays of several blocks, or the classes here that hold them; None if any is absent."""
    if any(part is None for part in parts):
        return None
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    names = {field.name for field in fields(parts[0])} - {"names", "wavelength"}
    return replace(parts[0], **{n: stacked([getattr(part, n) for part in parts]) for n in names})


def _kind(stars: Stars) -> str:
    """Space, widths and labels in words: what must agree before stacking."""
    text = _spectra_kind(stars.spectra)
    return text if stars.labels is None else f"{text} with labels {','.join(stars.labels.names)}"


def _spectra_kind(spectra: Spectra) -> str:
    if isinstance(spectra, CoefficientSpectra):
        return f"{spectra.widths[0]}+{spectra.widths[1]} coefficients"
    low, high = spectra.wavelength[[0, -1]]
    return f"flux sampled at {len(spectra.wavelength)} wavelengths, {low:g}-{high:g} nm"
