"""What was seen and written while spectra stream by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xplabels.core.labels import Labels
from xplabels.core.stars import MEASUREMENTS, Photometry, check_unique


class Book:
    """Which spectra there were, each once in all files together."""

    def __init__(self) -> None:
        self._ids: list[NDArray[np.int64]] = []
        self._usable: list[NDArray[np.bool_]] = []

    def add(self, source_id: NDArray[np.int64], usable: NDArray[np.bool_]) -> None:
        self._ids.append(source_id)
        self._usable.append(usable)

    def all(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        ids = np.concatenate(self._ids)
        check_unique(ids, "files of spectra")
        return ids, np.concatenate(self._usable)


class Known:
    """How many stars have each measurement and label."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.metallicity = {"with [Fe/H] < -1": 0, "with [Fe/H] > 0.5": 0}

    def add(self, light: Photometry, labels: Labels | None) -> None:
        for name in MEASUREMENTS:
            self._add(name, light.column(name)[0])
        if labels is not None:
            for k, name in enumerate(labels.names):
                self._add(name, labels.values[:, k])
            if "fe_h" in labels.names:
                fe_h = labels.select(["fe_h"]).values[:, 0]
                self.metallicity["with [Fe/H] < -1"] += int((fe_h < -1).sum())
                self.metallicity["with [Fe/H] > 0.5"] += int((fe_h > 0.5).sum())

    def _add(self, name: str, values: NDArray[np.float64]) -> None:
        self.counts[name] = self.counts.get(name, 0) + int(np.isfinite(values).sum())
