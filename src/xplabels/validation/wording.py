"""Scores in words and in JSON, the same on the terminal, in metrics.json and on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xplabels.core.labels import LABELS
from xplabels.core.scores import Scores


def format_score(scores: Scores, key: str) -> str:
    """``value +- error`` of a score, rounded to two digits of its error."""
    value, error = scores.value[key], scores.error[key]
    if not np.isfinite(value):
        return "-"
    if not np.isfinite(error) or error <= 0:
        return f"{value:.4g}"
    digits = min(max(0, 1 - int(np.floor(np.log10(error)))), 6)
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def with_unit(name: str) -> str:
    """``teff [K]``."""
    return f"{name} [{LABELS[name].unit}]"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A header and rows as an aligned table for the terminal; the first column is a title.

    Examples
    --------
    >>> print(aligned([["label", "N"], ["teff", "1000"]]))
    label     N
    -----  ----
    teff   1000
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [rows[0], ["-" * width for width in widths], *rows[1:]]
    ]
    return "\n".join(lines)


def as_json(value: Any) -> Any:
    """``value`` as JSON can hold it: None for numbers that are not finite, text for the rest."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [as_json(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return None if value is None else str(value)
