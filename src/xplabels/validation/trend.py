"""The trend to the mean, by how good the spectrum is (FS24, sections 4.1 and 6.1).

A network that cannot tell says what is usual, so the slope of prediction on truth falls below 1
as the noise grows. Along the S/N it shows where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xplabels.core.scores import Array, Sample, Scores, score, slope
from xplabels.core.stars import CoefficientSpectra, Spectra
from xplabels.validation.wording import as_json

BINS, FEWEST = 6, 100
"""Bins of equally many stars, and how many stars a bin must have at least."""


def signal_to_noise(spectra: Spectra) -> tuple[str, Array]:
    """What stands for a spectrum's S/N, in words, and the numbers [N].

    The median over wavelengths of sampled spectra; of archive coefficients RP's first, which
    carries most of the flux.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        if isinstance(spectra, CoefficientSpectra):
            ratio = spectra.rp.coefficients[:, :1] / spectra.rp.errors[:, :1]
            return "S/N of RP coefficient 0", _first(ratio)
        ratio = spectra.flux / spectra.flux_error
        return "median S/N a sample", _first(np.median(ratio, axis=1, keepdims=True))


def _first(column: Array) -> Array:
    values: Array = np.where(np.isfinite(column) & (column > 0), column, np.nan)[:, 0]
    return values


@dataclass(frozen=True)
class Trend:
    """Slope of prediction on truth in bins of S/N.

    Attributes
    ----------
    along
        What the S/N is of, in words.
    edges, middle
        Of the bins [B + 1], and the median S/N in each [B].
    slopes
        By label, a :class:`~xplabels.core.scores.Scores` with ``slope`` and ``rmse`` for each bin.
    """

    along: str
    edges: Array
    middle: Array
    slopes: Mapping[str, tuple[Scores, ...]]

    def to_metrics(self) -> dict[str, Any]:
        """As it stands in ``metrics.json``, under ``slope_by_snr``."""
        bounds = list(zip(self.edges[:-1], self.edges[1:], strict=True))
        plain: dict[str, Any] = as_json(
            {
                "along": self.along,
                "labels": {
                    name: [
                        {"low": low, "high": high, **one.to_metrics()}
                        for (low, high), one in zip(bounds, row, strict=True)
                    ]
                    for name, row in self.slopes.items()
                },
            }
        )
        return plain


def trend_along(
    samples: Mapping[str, Sample],
    along: str,
    snr: Array,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> Trend | None:
    """Slopes in bins of equally many stars, or None where there are too few for two bins.

    Parameters
    ----------
    samples
        By label, of a :class:`~xplabels.validation.Validation`.
    along, snr
        What :func:`signal_to_noise` gives for all N stars.
    resamples, seed
        Of the bootstrap.
    """
    compared = np.unique(np.concatenate([sample.rows for sample in samples.values()]))
    known = snr[compared][np.isfinite(snr[compared])]
    bins = min(BINS, len(known) // FEWEST)
    if bins < 2:
        return None
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)))
    if len(edges) < 3:
        return None
    where = _which(edges, known)
    middle = np.array([np.median(known[where == b]) for b in range(len(edges) - 1)])
    slopes = {}
    for name, sample in samples.items():
        which = _which(edges, snr[sample.rows])
        slopes[name] = tuple(
            score(sample[which == b], _statistics, resamples=resamples, seed=seed)
            for b in range(len(edges) - 1)
        )
    return Trend(along, edges, middle, slopes)


def _which(edges: Array, snr: Array) -> NDArray[np.intp]:
    """The bin of each star, the last one closed; -1 where the S/N is not known."""
    which = np.clip(np.searchsorted(edges, snr, side="right") - 1, 0, len(edges) - 2)
    return np.where(np.isfinite(snr), which, -1)


def _statistics(of: Callable[[str], Array]) -> dict[str, Array]:
    return {
        "slope": slope(of("truth"), of("predicted")),
        "rmse": np.sqrt((of("residual") ** 2).mean(axis=-1)),
    }
