"""Emission lines planted in ordinary stars, as examples from which a forward model learns them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xplabels.core.arrays import Array
from xplabels.features import Features, FeatureSet
from xplabels.features.projection import Projection

NAMED: tuple[tuple[tuple[float, float], ...], ...] = (
    ((656.46, 1.0),),
    ((486.27, 1.0),),
    ((500.82, 3.0), (495.89, 1.0)),
    ((468.7, 1.0),),
    ((587.7, 1.0),),
    ((672.5, 1.0),),
    ((850.0, 1.0), (854.4, 1.0), (866.5, 1.0)),
    ((953.3, 2.5), (907.1, 1.0)),
    ((656.46, 1.0), (486.27, 0.35), (434.17, 0.16)),
    ((372.8, 1.0),),
    ((844.9, 1.0),),
)
"""Groups of lines, as wavelengths in vacuum (nm) with relative light: H alpha, H beta, [O III],
He II, He I, [S II], the triplet of Ca II, [S III]; then Balmer lines at case B, [O II] and O I."""
LOCAL = 8
"""How many of these groups, from the first, are measured over the spectrum about them."""
WINDOW = 35.0
"""Distance (nm) from a line within which the spectrum about it is taken as a parabola."""
NARROW = 1.0
"""Full width at half maximum (nm) of the named lines."""
OTHERS = 200
"""Further lines at random wavelengths, as of redshifted sources."""
RANGE, BREADTH = (350.0, 1000.0), (1.0, 25.0)
"""Ranges (nm) of their centres and of their full widths at half maximum."""
STRENGTH, STRENGTH_OF_OTHERS = (0.5, 200.0), (2.0, 60.0)
"""Ranges (nm) of the equivalent widths of named and further lines, even in the logarithm."""
MOST = 3
"""Most lines in one star."""
SIDE = 20.0
"""Distance (nm) from a line within which the continuum is measured."""


@dataclass(frozen=True)
class Lines:
    """M lines as the instrument shows them, the named ones first."""

    templates: Array  # float64 [M, n]: the network's coefficients of a line of 1 W m^-2
    continuum: Array  # float64 [M, n]: flux about the line (W m^-2 nm^-1) per unit coefficient
    named: int  # how many are named
    local: (
        Array  # float64 [n, LOCAL]: weights of the coefficients in a line's light, up to a factor
    )

    @classmethod
    def of(cls, feature_set: FeatureSet, random: np.random.Generator) -> Lines | None:
        """Lines in the coefficients of ``feature_set``; None if it has no projection."""
        projection = feature_set.projection
        if projection is None:
            return None
        from xplabels.instrument import gaiaxpy_instrument
        from xplabels.instrument.sed import Sed

        wavelength = np.arange(310.0, 1100.0, 0.1)

        def bell(centre: float, fwhm: float) -> Array:
            sigma = fwhm / np.sqrt(8 * np.log(2))
            height = 1 / (sigma * np.sqrt(2 * np.pi))
            return np.asarray(height * np.exp(-0.5 * ((wavelength - centre) / sigma) ** 2))

        centres = [group[0][0] for group in NAMED] + random.uniform(*RANGE, OTHERS).tolist()
        flux = [
            sum(light * bell(at, NARROW) for at, light in group) / sum(light for _, light in group)
            for group in NAMED
        ]
        breadths = _even(BREADTH, OTHERS, random)
        flux += [bell(at, w) for at, w in zip(centres[len(NAMED) :], breadths, strict=True)]
        clean = gaiaxpy_instrument().coefficients([Sed.of(wavelength, line) for line in flux])
        offset = np.abs(projection.wavelength - np.array(centres)[:, None])
        near = (offset < SIDE).astype(float)
        continuum = (near / near.sum(axis=1, keepdims=True)) @ projection.design
        templates = clean @ projection.from_coefficients.T
        local = [local_filter(projection, templates[line], centres[line]) for line in range(LOCAL)]
        return cls(templates, continuum, len(NAMED), np.stack(local, axis=1))

    def planted(
        self, features: Features, feature_set: FeatureSet, random: np.random.Generator
    ) -> Features:
        """The stars with one to three named lines, or (a third of them) one further line.

        Photometry and errors stay: the effect of a line on them is small beside that on the
        spectrum.
        """
        stars, count = len(features), len(self.templates)
        n, bp = feature_set.n_spectral, feature_set.widths[0]
        width = np.zeros((stars, count))
        rows = np.arange(stars)
        for line in range(MOST):
            has = random.random(stars) < 1 / (1 + line)
            which = random.integers(0, self.named, stars)
            width[rows[has], which[has]] = _even(STRENGTH, stars, random)[has]
        if count > self.named:
            other = rows[random.random(stars) < 1 / 3]
            width[other] = 0.0
            which = random.integers(self.named, count, len(other))
            width[other, which] = _even(STRENGTH_OF_OTHERS, len(other), random)
        x = features.x.copy()
        continuum = np.maximum(x[:, :n] @ self.continuum.T, 0.0)
        added = (width * continuum) @ self.templates
        scale = np.where(features.is_ratio, 1 + added[:, bp], 1.0)
        x[:, :n] = (x[:, :n] + added) / scale[:, None]
        return replace(features, x=x, divisor=features.divisor * scale)


def _even(bounds: tuple[float, float], count: int, random: np.random.Generator) -> Array:
    """Random numbers [count], uniform in the logarithm within the bounds."""
    low, high = np.log(bounds)
    drawn: Array = np.exp(random.uniform(low, high, count))
    return drawn


def local_filter(projection: Projection, template: Array, centre: float) -> Array:
    """Weights [n] of the coefficients whose sum is the least-squares amplitude of a line.

    The line is fitted over a parabola within :data:`WINDOW`, so oddities elsewhere in the spectrum
    do not matter. Amplitudes are in units of the template's peak, with spectra in units of the
    design's largest element.
    """
    offset = (projection.wavelength - centre) / WINDOW
    inside = np.abs(offset) < 1
    design = projection.design[inside] / np.abs(projection.design).max()
    line = design @ template
    terms = np.stack([line / line.max(), *(offset[inside] ** p for p in range(3))], axis=1)
    by_coefficients: Array = np.linalg.pinv(terms)[0] @ design
    return by_coefficients
