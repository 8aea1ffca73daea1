"""Flags that are set by Gaia's own columns of quality, if a user's table has them.

The rules are in :data:`RULES`. If a table lacks a rule's columns, or a value is missing, the rule
sets no flag.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyval
from numpy.typing import NDArray

from xplabels.core.flags import Flag
from xplabels.core.stars import Photometry

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

RUWE = 1.4
"""Largest RUWE of a well-behaved single star (Lindegren 2018, GAIA-C3-TN-LU-LL-124-01)."""
BLENDED_SHARE = 0.5
"""Largest share of blended or contaminated transits in BP and RP: above, the mean spectrum is that
of two sources, however faint the other one is. Gaia counts a transit as blended by the distance of
the sources alone, and as contaminated if more than 1 % of its flux comes from a source outside the
window (DR3 documentation, 5.3.2), so near the Galactic plane a lower share would flag nearly every
star."""
EXCESS_SIGMAS = 5.0
"""Largest deviation of the corrected excess factor from 0, in units of its scatter."""
EXCESS_OF_STARS = (
    (0.5, (1.154360, 0.033772, 0.032277)),
    (4.0, (1.162004, 0.011464, 0.049255, -0.005879)),
    (np.inf, (1.057572, 0.140537)),
)
"""Polynomials in BP - RP, up to each bound, of the excess factor of an ordinary star (Riello et al.
2021, table 2)."""


def corrected_excess(excess: Array, bp_rp: Array) -> Array:
    """C* [N]: ``phot_bp_rp_excess_factor`` [N] without what the colour BP - RP [N], mag, explains.

    0 for an ordinary star alone (Riello et al. 2021, eq. 6).

    >>> corrected_excess(np.array([1.162004 + 0.011464 + 0.049255 - 0.005879]), np.array([1.0]))
    array([0.])
    """
    usual = np.select(
        [bp_rp < bound for bound, _ in EXCESS_OF_STARS],
        [polyval(bp_rp, powers) for _, powers in EXCESS_OF_STARS],
    )
    return np.asarray(np.where(np.isfinite(bp_rp), excess - usual, np.nan))


def excess_scatter(g_mag: Array) -> Array:
    """Scatter of C* [N] over isolated stars of magnitude G [N] (Riello et al. 2021, eq. 18)."""
    return np.asarray(0.0059898 + 8.817481e-12 * np.maximum(g_mag, 0.0) ** 7.618399)


def _ruwe(columns: Columns, photometry: Photometry) -> NDArray[np.bool_]:
    return np.asarray(columns["ruwe"] > RUWE)


def _blended(columns: Columns, photometry: Photometry) -> NDArray[np.bool_]:
    """The share of blended transits (beta of Riello et al. 2021), or of contaminated ones."""

    def bp_plus_rp(end: str) -> Array:
        return np.asarray(columns[f"phot_bp_{end}"] + columns[f"phot_rp_{end}"], np.float64)

    transits = bp_plus_rp("n_blended_transits")
    contaminated = [f"phot_{band}_n_contaminated_transits" for band in ("bp", "rp")]
    if all(name in columns for name in contaminated):
        transits = np.fmax(transits, bp_plus_rp("n_contaminated_transits"))
    return transits > BLENDED_SHARE * bp_plus_rp("n_obs")


def _excess(columns: Columns, photometry: Photometry) -> NDArray[np.bool_]:
    g, bp, rp = (photometry.column(f"phot_{band}_mean_mag")[0] for band in ("g", "bp", "rp"))
    colour = np.asarray(columns.get("bp_rp", bp - rp), np.float64)
    colour = np.where(np.isfinite(colour), colour, bp - rp)
    excess = np.asarray(columns["phot_bp_rp_excess_factor"], np.float64)
    return np.abs(corrected_excess(excess, colour)) > EXCESS_SIGMAS * excess_scatter(g)


@dataclass(frozen=True)
class QualityRule:
    """A flag and the rule by which it is set."""

    flag: Flag
    needed: tuple[str, ...]  # columns without which the flag is not set
    further: tuple[str, ...]  # columns that are used if they are there
    applies: Callable[[Columns, Photometry], NDArray[np.bool_]]


RULES = (
    QualityRule(Flag.HIGH_RUWE, ("ruwe",), (), _ruwe),
    QualityRule(
        Flag.BLENDED_TRANSITS,
        ("phot_bp_n_blended_transits", "phot_rp_n_blended_transits", "phot_bp_n_obs",
         "phot_rp_n_obs"),
        ("phot_bp_n_contaminated_transits", "phot_rp_n_contaminated_transits"),
        _blended,
    ),
    QualityRule(Flag.BAD_EXCESS_FACTOR, ("phot_bp_rp_excess_factor",), ("bp_rp",), _excess),
)  # fmt: skip
QUALITY_COLUMNS = tuple(name for rule in RULES for name in (*rule.needed, *rule.further))
"""The columns that the rules use."""


def has_quality(names: Collection[str]) -> bool:
    """Whether these columns are enough for one of :data:`RULES`."""
    return any(all(name in names for name in rule.needed) for rule in RULES)


def quality_flags(columns: Columns, photometry: Photometry) -> NDArray[np.uint32]:
    """The flags [N] that the columns of N stars set; ``photometry`` has G, BP and RP of the same.

    Examples
    --------
    >>> quality_flags({"ruwe": np.array([1.0, 1.5])}, Photometry.missing(2)) == Flag.HIGH_RUWE
    array([False,  True])
    """
    flags = np.zeros(len(photometry), np.uint32)
    # -9999, 1e20 and the like say that there is no value
    columns = {
        name: np.where((columns[name] > -999) & (columns[name] < 1e9), columns[name], np.nan)
        for name in QUALITY_COLUMNS
        if name in columns
    }
    for rule in RULES:
        if all(name in columns for name in rule.needed):
            with np.errstate(invalid="ignore"):
                flags[rule.applies(columns, photometry)] |= np.uint32(rule.flag)
    return flags
