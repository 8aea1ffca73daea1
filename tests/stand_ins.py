"""What the command line's tests share: stars of few coefficients, a model that stands in for a
trained one, and bulk files to be damaged."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from archive_files import datalink_csv, fake_stars
from xplabels.core.flags import UNUSABLE
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.stars import Band, CoefficientSpectra, Stars

BP, RP = 3, 4


def make_stars(first: int = 1, count: int = 40, labels: bool = True) -> Stars:
    """Stars of a few coefficients whose labels are simple functions of them."""
    rng = np.random.default_rng(first)
    bands = []
    for width in (BP, RP):
        coefficients = rng.normal(10.0, 1.0, (count, width))
        errors = np.full((count, width), 0.1)
        correlations = np.zeros((count, width * (width - 1) // 2), np.float32)
        bands.append(Band(coefficients, errors, correlations))
    values = np.column_stack([5000 + 100 * bands[0].coefficients[:, 0], 0.3 * np.ones(count)])
    known = Labels(("teff", "logg"), values, np.full((count, 2), [50.0, 0.1]))
    return Stars.of(
        np.arange(first, first + count),
        CoefficientSpectra(*bands),
        labels=known if labels else None,
        origin=f"stars from {first}",
    )


@dataclass
class FakeModel:
    """A stand-in for a trained network: teff and logg from the first BP coefficient."""

    names: tuple[str, ...] = ("teff", "logg")
    metadata: dict[str, Any] = field(
        default_factory=lambda: {
            "name": "fake",
            "split": {"test_fraction": 0.3},
            "training": {"stars": 7},
        }
    )
    card: str = "# fake"
    feature_set: Any = field(default_factory=lambda: SimpleNamespace(widths=(BP, RP)))
    predicted: list[int] = field(default_factory=list)
    photometry: list[int] = field(default_factory=list)
    stop_after: int | None = None
    estimate: str = "mean"
    basis: None = None
    unshrinking: None = None

    def predict(
        self,
        stars: Stars,
        progress: bool = False,
        correlations: bool = False,
    ) -> Prediction:
        if self.stop_after is not None and len(self.predicted) >= self.stop_after:
            raise KeyboardInterrupt
        self.predicted.append(len(stars))
        self.photometry.append(int(np.isfinite(stars.photometry.column("j_m")[0]).sum()))
        count = len(stars)
        usable = (stars.flags & np.uint32(UNUSABLE)) == 0
        teff = 5000 + 100 * stars.spectra.bp.coefficients[:, 0]
        values = np.column_stack([teff, np.full(count, 0.3)])
        values[~usable] = np.nan
        error = np.full((count, 2), [60.0, 0.1])
        none = np.zeros((count, 2))
        return Prediction(
            stars.source_id, self.names, values, error, error, none, none, 2 * error,
            np.zeros(count), stars.flags, {"model": "fake"},
        )  # fmt: skip


GOOD = datalink_csv(fake_stars(3, (BP, RP))).encode()
STAR = fake_stars(3, (BP, RP)).source_id[1]


def changed(column: str, value: float) -> bytes:
    """The file of :data:`GOOD` whose second star has ``value``, in index 1 of an array column."""
    stars = fake_stars(3, (BP, RP))
    if column == "source_id":
        stars.source_id[1] = int(value)
    else:
        stars.cells[column][1] = stars.cells[column][1].copy()
        stars.cells[column][1][1] = value
    return datalink_csv(stars).encode()
