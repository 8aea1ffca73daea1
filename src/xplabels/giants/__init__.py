"""Semi-synthetic giants: real spectra into which known abundances of C and N are imprinted.

The library has no C, N, parallax or WISE magnitudes. Here its giants get them: [C/Fe] and [N/Fe]
are drawn from :mod:`xplabels.giants.relations` and imprinted on the real spectra as the difference
of two emulated ones, observed by the simulated instrument and sampled like the library.

The star's own, unknown carbon and nitrogen remain in the spectrum. The imprint is the difference
from the relation's mean for such a star, so the star's own difference from that mean is a noise
floor of every test of C and N with these stars.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.stars import Photometry, SampledSpectra, Spectra, Stars, concatenate
from xplabels.features.projection import Projection, default_projection
from xplabels.giants import relations
from xplabels.giants.copies import copy_ids, draw_dimming, farther
from xplabels.giants.emulator import (
    PACKAGE,
    TEFF_BOUNDS,
    VERSION,
    Emulator,
    emulator_labels,
    load_emulator,
)
from xplabels.instrument import magnitudes, resolution
from xplabels.surveys.library import read_library

Array = NDArray[np.float64]

NAMES = ("teff", "logg", "fe_h", "c_fe", "n_fe", "alpha_m")
MEASURED = ("teff", "logg", "fe_h", "alpha_m")
"""Labels that the library has."""
TRUTH_ERROR = 0.001
"""Stated error (dex) of [C/Fe] and [N/Fe], which are exact: a training label needs an error."""
GAIA = ("phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag")
BLOCK = 2048
NOTES = (
    "semi-synthetic: [C/Fe] and [N/Fe] are drawn, and imprinted on real spectra; the star's own, "
    "unknown carbon and nitrogen stay underneath, a noise floor",
    "semi-synthetic: parallax, W1 and W2 are made from the labels, J, H and Ks by relations",
    "semi-synthetic: copies are real stars moved farther away, with noise added",
)


def semi_synthetic_giants(
    *,
    copies: int = 1,
    seed: int = 0,
    library: Stars | None = None,
    emulator: Emulator | None = None,
) -> Stars:
    """Real giants with imprinted C and N, parallax and WISE magnitudes, and fainter copies.

    First come the giants of the library that the emulators cover, in its order, then ``copies`` of
    all. For these, C, N and mass are drawn anew, the star is moved farther away, and noise is added
    up to that of a star so faint (:mod:`xplabels.giants.copies`); their source_ids are those of no
    real star, and in their star's part of every split. Of the six labels ``c_fe`` and ``n_fe`` are
    the truth, the others the library's measurements. ``origin`` and ``notes`` state what is
    semi-synthetic. All random numbers follow from ``seed``; ``library`` and ``emulator`` are the
    real ones unless given.

    Raises :class:`InputError` if an extra (``library``, ``synthetic``) is not installed,
    ``copies`` is negative, or no star is such a giant.

    Examples
    --------
    >>> giants = semi_synthetic_giants(copies=0)  # doctest: +SKIP
    >>> len(giants), giants.labels.names  # doctest: +SKIP
    (23357, ('teff', 'logg', 'fe_h', 'c_fe', 'n_fe', 'alpha_m'))
    """
    if copies < 0:
        raise InputError(f"{copies} copies of each star", remedy="give 0 or more")
    imprint = Imprint(load_emulator() if emulator is None else emulator, default_projection())
    giants, labels = select_giants(read_library() if library is None else library, imprint.emulator)
    random = np.random.default_rng(seed)
    parts = [_draw(giants, labels, imprint, random)]
    for ids in copy_ids(giants.source_id, copies):
        nearer = _draw(giants, labels, imprint, random)
        dimming = draw_dimming(nearer, random)
        parts.append(farther(nearer, dimming, ids, imprint.projection, random))
    return concatenate(parts)


def select_giants(library: Stars, emulator: Emulator) -> tuple[Stars, Labels]:
    """The stars with complete labels and photometry that the emulators cover at any C and N.

    With them come their :data:`MEASURED` labels. Raises :class:`InputError` if there are none.
    """
    if library.labels is None:
        raise InputError("the stars have no labels", where=library.origin or None)
    labels, photometry = library.labels.select(MEASURED), library.photometry
    known = np.isfinite(labels.values).all(axis=1) & np.isfinite(labels.errors).all(axis=1)
    for name in (*GAIA, *relations.TWO_MASS_LIMIT):
        known &= np.isfinite(photometry.column(name)[0])
    rows = np.flatnonzero(known)
    rows = rows[emulator.covers(emulator_labels(MEASURED, labels.values[rows]))]
    j_ks = (photometry.column("j_m")[0] - photometry.column("ks_m")[0])[rows]
    reddening = j_ks - relations.intrinsic_j_ks(labels.values[rows, 0], labels.values[rows, 2])
    low, high = relations.REDDENING_RANGE
    rows = rows[(reddening >= low) & (reddening <= high)]
    if len(rows) == 0:
        raise InputError(
            "no star is a giant with known labels and photometry",
            where=library.origin or None,
            remedy="give stars of 3500-6000 K, log g 0-3.5, [Fe/H] -2.5 to 0.5, with J, H and Ks",
        )
    return library[rows], labels[rows]


def _draw(giants: Stars, labels: Labels, imprint: Imprint, random: np.random.Generator) -> Stars:
    """One semi-synthetic star for each giant."""
    teff, logg, fe_h, alpha_m = labels.values.T
    centre, scatter = relations.log_mass(alpha_m)
    mass = 10 ** (centre + scatter * random.standard_normal(len(giants)))
    mean, ordinary = (
        relations.mean_composition(m, logg, fe_h, alpha_m) for m in (mass, 10**centre)
    )
    truth = relations.draw_composition(mean, random)
    limit = relations.COMPOSITION_LIMIT
    spectra, shifts = imprint.apply(
        giants.spectra, labels.values, truth, np.clip(ordinary, -limit, limit)
    )
    return Stars.of(
        giants.source_id,
        spectra,
        _photometry(giants.photometry, labels, shifts, mass, random),
        Labels(
            NAMES,
            np.stack([teff, logg, fe_h, *truth.T, alpha_m], axis=1),
            np.insert(labels.errors, (3, 3), TRUTH_ERROR, axis=1),
        ),
        origin=f"semi-synthetic giants: {giants.origin}; C and N by {PACKAGE} {VERSION}",
        notes=(*giants.notes, *NOTES),
    )


def _photometry(
    real: Photometry, labels: Labels, shifts: Array, mass: Array, random: np.random.Generator
) -> Photometry:
    """The library's magnitudes, those of Gaia with the imprint; simulated W1, W2 and parallax."""
    values, errors = labels.values, labels.errors
    # the labels are measurements, about which the true values scatter
    teff, logg = (values[:, k] + errors[:, k] * random.standard_normal(len(values)) for k in (0, 1))
    teff = np.clip(teff, TEFF_BOUNDS[0], TEFF_BOUNDS[-1])
    measured = {name: real.column(name) for name in (*GAIA, *relations.TWO_MASS_LIMIT)}
    for name, shift in zip(GAIA, shifts.T, strict=True):
        measured[name] = (measured[name][0] + shift, measured[name][1])
    (j, _), (h, h_error), (ks, _) = (measured[name] for name in ("j_m", "h_m", "ks_m"))
    g, fe_h = measured["phot_g_mean_mag"][0], values[:, 2]
    a_ks = relations.extinction_ks(j - ks, teff, fe_h)
    # H is also a measurement; W2 follows from the true one
    true_h = h + h_error * random.standard_normal(len(h))
    for name, clean in relations.wise_magnitudes(true_h, a_ks, teff, fe_h, random).items():
        error = relations.magnitude_error(name, clean, g, relations.WISE_FLOOR)
        measured[name] = (clean + error * random.standard_normal(len(clean)), error)
    parallax = relations.true_parallax(g, relations.absolute_g(teff, logg, mass), a_ks)
    error = relations.parallax_error(g)
    measured["parallax"] = (parallax + error * random.standard_normal(len(g)), error)
    return Photometry.of(len(g), measured)


@dataclass(frozen=True)
class Imprint:
    """Writes a change of C and N into spectra sampled by the operator of ``projection``."""

    emulator: Emulator
    projection: Projection

    def apply(
        self, spectra: Spectra, labels: Array, composition: Array, ordinary: Array
    ) -> tuple[SampledSpectra, Array]:
        """Spectra with ``composition`` instead of ``ordinary``, and the change of G, BP, RP [N, 3].

        ``spectra`` are N sampled ones of stars with :data:`MEASURED` ``labels`` [N, 4]; both
        compositions are [C/Fe] and [N/Fe] [N, 2]. The new flux is the old plus
        D M (F_c (r_1 - r_0)), where r are emulated spectra relative to the continuum F_c, M is the
        instrument and D the sampling. The flux outside 350-1050 nm does not change.

        Raises :class:`InputError` if the spectra are archive coefficients.
        """
        if not isinstance(spectra, SampledSpectra):
            raise InputError("C and N are imprinted on sampled spectra only")
        flux, shifts = spectra.flux.copy(), np.empty((len(spectra), 3))
        for start in range(0, len(spectra), BLOCK):
            rows = slice(start, start + BLOCK)
            before, after = (
                emulator_labels(
                    (*MEASURED, "c_fe", "n_fe"), np.hstack([labels[rows], c_and_n[rows]])
                )
                for c_and_n in (ordinary, composition)
            )
            change = self._change(spectra.flux[rows], before, after)
            flux[rows] += change @ self.projection.design.T
            old = self.projection.coefficients(spectra[rows])
            shifts[rows] = magnitudes(old + change) - magnitudes(old)
        return SampledSpectra(spectra.wavelength, flux, spectra.flux_error), shifts

    def _change(self, flux: Array, before: Array, after: Array) -> Array:
        """Change of the coefficients [N, n]."""
        fine, matrix, smoothing = self._fine
        old = fine.normalised_flux(before)
        difference = fine.normalised_flux(after, like=before) - old
        fine_flux = np.stack(
            [np.interp(fine.wavelength, self.projection.wavelength, f) for f in flux]
        )
        continuum = fine_flux / (old @ smoothing.T)
        return np.asarray((continuum * difference) @ matrix.T)

    @cached_property
    def _fine(self) -> tuple[Emulator, Array, Array]:
        """The emulator in bins of wavelength, the instrument's matrix there, and XP's smoothing."""
        fine, _, matrix, inside = self.emulator.at_instrument()
        return fine, matrix[:, inside], line_spread(fine.wavelength)


def line_spread(wavelength: Array) -> Array:
    """Gaussian smoothing [W, W] to the resolution of XP at ``wavelength`` [W], rows adding to 1."""
    sigma = resolution(wavelength) / np.sqrt(8 * np.log(2))
    weights = np.exp(-0.5 * ((wavelength[:, None] - wavelength) / sigma[:, None]) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
