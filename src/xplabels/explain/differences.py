"""How spectra change with a label, observed (FS24, section 5.3) and simulated (section 5.2).

All curves are functions of wavelength, per unit of the label, for spectra normalised like the
network's inputs: sampled flux for RP coefficient 0 of one. Figures show them in per cent of the
flux, per step of the label (:func:`step_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xplabels.core.errors import InputError, located
from xplabels.core.labels import check_names, label_of
from xplabels.core.lookup import Lookup
from xplabels.core.stars import Stars
from xplabels.features import KS_OVER_V, RJCE_SLOPE, RJCE_ZERO
from xplabels.giants.emulator import Emulator, black_body, emulator_labels
from xplabels.giants.relations import G_OVER_V
from xplabels.instrument import WIDTHS, gaiaxpy_instrument, sampled_flux
from xplabels.instrument.sed import Sed, read_sed
from xplabels.model import Model

Array = NDArray[np.float64]

STEPS = {"fe_h": 0.5, "c_fe": 0.2, "n_fe": 0.2, "alpha_m": 0.2}
"""Steps of the simulated differences (FS24, table 4), dex."""
CLUMP_CENTRE = {"teff": 4750.0, "logg": 2.5, "fe_h": 0.0, "c_fe": 0.0, "n_fe": 0.2, "alpha_m": 0.0}
"""Labels about which emulated spectra are varied (FS24, table 5)."""
SHOWN_STEPS = {"K": 100.0, "dex": 0.1}
"""Step of a label for which figures show the change, by its unit."""
SIDES = {"BP": (336.0, 640.0), "RP": (640.0, 1020.0)}
"""Ranges of wavelength (nm) of the two sides."""
FEWEST = 20
"""Fewest stars for an observed difference."""
DRAWS = 200
"""Bootstrap draws."""


@dataclass(frozen=True)
class Curve:
    """A spectrum's change per unit of a label [L]; ``title`` names it in legends.

    ``low`` and ``high`` [L] bound the central 68.3 % of bootstrap draws, or are None.
    """

    title: str
    values: Array
    low: Array | None = None
    high: Array | None = None


def step_of(name: str) -> float:
    """The step of a label for which figures show the change: 100 K, 0.1 dex, else one unit."""
    return SHOWN_STEPS.get(label_of(name).unit, 1.0)


def most_informative(
    wavelength: Array, change: Array, error: Array, share: float = 0.5, width: float = 20.0
) -> list[tuple[float, float]]:
    """The ranges of wavelength, in nm and ascending, that contain ``share`` of the information.

    Information is (change / error)^2 [L], with errors of samples taken as independent. Ranges are
    the best bins of ``width`` nm; neighbouring ones are joined.

    Examples
    --------
    >>> wavelength = np.arange(400.0, 1000.0, 2.0)
    >>> line = np.exp(-0.5 * ((wavelength - 517) / 5) ** 2)
    >>> most_informative(wavelength, line, np.ones(300))
    [(500.0, 520.0)]
    """
    density = np.where(error > 0, change / error, 0.0) ** 2 * np.gradient(wavelength)
    number = (wavelength // width).astype(int)
    total = np.bincount(number, np.nan_to_num(density))
    best = np.argsort(-total)
    chosen = best[: 1 + int(np.searchsorted(np.cumsum(total[best]), share * total.sum()))]
    ranges: list[tuple[float, float]] = []
    for low in sorted(width * chosen.astype(float)):
        if ranges and ranges[-1][1] == low:
            ranges[-1] = (ranges[-1][0], float(low + width))
        else:
            ranges.append((float(low), float(low + width)))
    return ranges


def read_pairs(pairs: Iterable[Sequence[str]], labels: Sequence[str]) -> list[tuple[str, Curve]]:
    """Simulated differences by label, from words LABEL, LOW, HIGH, STEP.

    LOW and HIGH are tables of a star's spectrum, with less and more of the label.

    Raises :class:`InputError` for a label that is none of a model's ``labels``, a table that
    cannot be read, and a step that is not a positive number.
    """
    curves = []
    for name, *files, step in pairs:
        with located(f"--pair {' '.join((name, *files, step))}"):
            check_names([name])
            try:
                size = float(step)
            except ValueError:
                size = np.nan
            if not 0 < size < np.inf:
                raise InputError(
                    f"the step {step!r} is not a positive number",
                    remedy=f"give a label, the table of less {name}, that of more, and by how much",
                )
            low, high = map(read_sed, files)
            if name not in labels:
                raise InputError(
                    f"the model has no label {name}", remedy=f"give pairs of {', '.join(labels)}"
                )
            title = f"{high.name} − {low.name}"
            curves.append((name, simulated_difference(low, high, size, title=title)))
    return curves


def extinction_g(stars: Stars) -> Array:
    """A_G [N] from H - W2 (Rayleigh-Jeans colour excess); NaN where a magnitude is missing."""
    h, w2 = stars.photometry.column("h_m")[0], stars.photometry.column("w2mpro")[0]
    return RJCE_SLOPE * (h - w2 - RJCE_ZERO) * G_OVER_V / KS_OVER_V


def known_extinction(stars: Stars) -> Array | None:
    """A_G [N] by H - W2 or, if no star has both, from the library; None if neither is known."""
    a_g = extinction_g(stars)
    if not np.isfinite(a_g).any():
        try:
            a_g = _library_extinction(stars)
        except InputError:  # the library is not installed
            return None
    return a_g if np.isfinite(a_g).any() else None


def read_extinction(source: str, stars: Stars) -> Array | None:
    """A_G [N], NaN where unknown, from a ``source``.

    It is ``library`` (by its A_Ks), ``rjce`` (by H - W2), ``none`` (None), or the path of a table
    with ``a_g`` (mag).

    Raises :class:`InputError` if the library is not installed, or the table cannot be read, lacks
    ``source_id`` or ``a_g``, or has a source_id twice.
    """
    if source == "none":
        return None
    if source in ("library", "rjce"):
        return extinction_g(stars) if source == "rjce" else _library_extinction(stars)
    from xplabels.io.plain import read_table

    table = read_table(Path(source), ("a_g",))
    if "a_g" not in table or table["a_g"].dtype.kind not in "iuf":
        raise InputError(
            "has no column a_g of numbers",
            where=source,
            remedy="add A_G in mag, keyed by source_id",
        )
    in_stars, in_table = Lookup(table["source_id"], source).find(stars.source_id)
    a_g = np.full(len(stars), np.nan)
    a_g[in_stars] = table["a_g"][in_table]
    return a_g


def _library_extinction(stars: Stars) -> Array:
    from xplabels.surveys.library import library_extinction

    return library_extinction(stars.source_id) * (G_OVER_V / KS_OVER_V)


def normalised_spectra(model: Model, stars: Stars) -> tuple[Array, Array]:
    """Wavelengths [L] and flux [N, L] of the spectral inputs; NaN for stars without a spectrum."""
    x = model.feature_set.compute(stars).x[:, : model.feature_set.n_spectral]
    return sampled_flux(x)


def observed_difference(flux: Array, label: Array) -> Curve:
    """Median spectrum above the label's median minus that below, over the medians' difference.

    Other labels also differ between the two halves; :func:`observed_slopes` holds them fixed.
    Stars [N] without a label or a spectrum [N, L] are left out.

    Raises :class:`InputError` if fewer than 20 stars have both, or all have the same label.
    """
    known = np.isfinite(label) & np.isfinite(flux).all(axis=1)
    flux, label = flux[known], label[known]
    _check_enough(label)

    def split(rows: NDArray[np.intp]) -> Array:
        spectra, values = flux[rows], label[rows]
        above = values > np.median(values)
        distance = np.median(values[above]) - np.median(values[~above])
        difference = np.median(spectra[above], axis=0) - np.median(spectra[~above], axis=0)
        return np.asarray(difference / distance)

    return _with_band("observed, median split", split, len(label))


def observed_slopes(flux: Array, labels: Array, which: int) -> Curve:
    """Least-squares slope of spectra [N, L] with label ``which`` of [N, K], the others held fixed.

    Stars without all labels or a spectrum are left out.

    Raises :class:`InputError` if fewer than 20 stars have all, or all have the same label.
    """
    known = np.isfinite(labels).all(axis=1) & np.isfinite(flux).all(axis=1)
    flux, labels = flux[known], labels[known]
    _check_enough(labels[:, which])

    def slope(rows: NDArray[np.intp]) -> Array:
        centred = labels[rows] - labels[rows].mean(axis=0)
        scale = np.maximum(centred.std(axis=0), 1e-12)
        spectra = flux[rows] - flux[rows].mean(axis=0)
        fit = np.linalg.lstsq(centred / scale, spectra, rcond=None)[0]
        return np.asarray(fit[which] / scale[which])

    return _with_band("observed, other labels held", slope, len(labels))


def _check_enough(label: Array) -> None:
    if len(label) < FEWEST or np.ptp(label) == 0:
        raise InputError(
            f"{len(label)} stars with spectrum and label are too few, or all alike",
            remedy=f"select {FEWEST} or more, by --range (without it: the red clump) or a larger "
            "--max-extinction",
        )


def _with_band(title: str, of_rows: Callable[[NDArray[np.intp]], Array], stars: int) -> Curve:
    """The curve of all stars, with the scatter of bootstrap draws."""
    random = np.random.default_rng(0)
    draws = [of_rows(random.integers(0, stars, stars)) for _ in range(DRAWS)]
    low, high = np.nanpercentile(np.stack(draws), (15.85, 84.15), axis=0)
    return Curve(title, of_rows(np.arange(stars)), low, high)


def simulated_difference(
    low: Sed, high: Sed, step: float, *, title: str, extrapolate: bool = False
) -> Curve:
    """Difference of the normalised spectra of a star with a lower and a higher label, simulated.

    It is per unit of the label; ``step`` is the labels' difference. ``extrapolate`` keeps the flux
    constant beyond the ends of spectra that are too short.

    Raises :class:`InputError` if a spectrum is too short.
    """
    coefficients = gaiaxpy_instrument().coefficients([low, high], extrapolate=extrapolate)
    _, flux = sampled_flux(coefficients / coefficients[:, WIDTHS[0], None])
    return Curve(title, (flux[1] - flux[0]) / step)


def emulated_difference(emulator: Emulator, name: str) -> Curve:
    """The change of an emulated giant over a label's step in :data:`STEPS`, about the red clump.

    The emulators give flux over continuum. The continuum is a black body of the star's temperature,
    and the flux is constant below 350 nm.
    """
    half = 0.5 * STEPS[name]
    values = np.array([list(CLUMP_CENTRE.values())] * 2)
    values[:, list(CLUMP_CENTRE).index(name)] += (-half, half)
    labels = emulator_labels(tuple(CLUMP_CENTRE), values)
    flux = emulator.normalised_flux(labels, like=labels[[0, 0]])
    continuum = black_body(emulator.wavelength, CLUMP_CENTRE["teff"])
    scale = 1e-16 / continuum.max()
    low, high = (Sed(emulator.wavelength, row * continuum * scale, name) for row in flux)
    return simulated_difference(
        low, high, STEPS[name], title="simulated (bossbrain)", extrapolate=True
    )


def correlations(wavelength: Array, curves: Sequence[Curve]) -> dict[str, dict[str, float]]:
    """Pearson's correlation of each pair of curves, on the blue side, the red side and both."""
    sides = {"both": wavelength > 0} | {
        side: (wavelength >= low) & (wavelength < high) for side, (low, high) in SIDES.items()
    }
    return {
        f"{a.title} / {b.title}": {
            side: round(float(np.corrcoef(a.values[inside], b.values[inside])[0, 1]), 3)
            for side, inside in sides.items()
        }
        for a, b in combinations(curves, 2)
    }
