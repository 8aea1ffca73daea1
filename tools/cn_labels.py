"""[C/Fe] and [N/Fe] of library stars from APOGEE's releases, on one scale, with errors.

A table (CSV) with the columns source_id, c_fe, n_fe, release: one row per star. Releases have no
star in common there; predictions of a network for stars it had not seen tie them, together with
offsets from DR17 that were measured on stars in common elsewhere. The network learns labels that
are corrected as far as is known, and says more, so both are done in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xplabels.core.labels import Labels
from xplabels.core.lookup import Lookup
from xplabels.core.prediction import Prediction
from xplabels.core.scores import robust_scatter
from xplabels.core.stars import Stars
from xplabels.io.plain import read_columns
from xplabels.surveys.offsets import Offset, fit_offsets, subtract
from xplabels.surveys.table import SurveyTable

NAMES = ("c_fe", "n_fe")
ORDER = ("teff", "logg", "fe_h", "c_fe", "n_fe", "alpha_m")
FROM_DR17 = {
    "DR12": (-0.010, -0.062, 17), "DR13": (0.024, 0.080, 11), "DR14": (-0.035, 0.085, 39),
    "DR16": (0.055, -0.028, 44), "DR16raw": (0.047, -0.032, 60),
}  # fmt: skip
"""Release minus DR17: median over stars in common in [C/Fe] and [N/Fe], and how many."""
SCATTER = 0.05
"""dex: of single stars about these medians (0.02-0.07)."""
STEADY = ("DR16raw", 0.02)
"""A release without trend with Teff against DR17, to so many dex per 1000 K: of the same pipeline's
last major version. It fixes the trends of the others."""
PUBLISHED = (0.027, 0.041)
"""dex: median of the errors that DR14 and DR16 publish, of the least scattered release."""
ROUNDS = 3
NETWORK = "network"


def with_cn(
    stars: Stars, path: Path, predict: Callable[[Stars], Prediction]
) -> tuple[Stars, list[Offset], dict[str, list[float]]]:
    """``stars`` with six labels; the offsets that were subtracted, and each release's errors.

    ``predict`` gives cross-fitted predictions for such stars.
    """
    tables = _releases(stars, path)
    offsets, errors = _measured(), {table.survey: list(PUBLISHED) for table in tables}
    for _ in range(ROUNDS):
        found = predict(on_one_scale(stars, path, offsets, errors))
        labels = Labels(found.names, found.values, found.errors).select(("teff", *NAMES))
        network = SurveyTable(NETWORK, "", found.source_id, labels=labels)
        reference = SurveyTable(
            "DR17", "", np.empty(0, np.int64), labels=Labels(NAMES, *np.empty((2, 0, 2)))
        )
        offsets = fit_offsets([reference, *tables, network], _measured(), trends=True)
        errors = _errors([subtract(one, offsets) for one in (*tables, network)])
    return on_one_scale(stars, path, offsets, errors), offsets, errors


def _measured() -> list[Offset]:
    offsets = []
    for survey, (c_fe, n_fe, common) in FROM_DR17.items():
        error = np.sqrt(np.pi / 2 / common) * SCATTER
        slope_error = STEADY[1] if survey == STEADY[0] else 0.0
        offsets += [
            Offset(survey, name, "DR17", value, error, common, SCATTER, np.nan, 0.0, slope_error)
            for name, value in zip(NAMES, (c_fe, n_fe), strict=True)
        ]
    return offsets


def _releases(stars: Stars, path: Path) -> list[SurveyTable]:
    """A table of each release, of the stars that are in ``stars``, with their Teff."""
    columns = read_columns(path, {"source_id", "release", *NAMES}, {"source_id": 0})
    known = Lookup(columns["source_id"], path)
    there, rows = known.find(stars.source_id)
    values = np.stack([columns[name][rows] for name in NAMES], axis=1)
    release = columns["release"][rows].astype(str)
    assert stars.labels is not None
    teff = stars.labels.select(["teff"]).values[there, 0]
    tables = []
    for name in np.unique(release):
        some = release == name
        labels = Labels(NAMES, values[some], np.tile(PUBLISHED, (some.sum(), 1)))
        ids = stars.source_id[there[some]]
        tables.append(SurveyTable(name, str(path), ids, {"teff": teff[some]}, labels))
    return tables


def _errors(tables: list[SurveyTable]) -> dict[str, list[float]]:
    """Errors of each release: those published, and what scatters beyond the least scattered one.

    About the network, in units of what it says of each star, so that kinds of stars do not matter.
    """
    *releases, network = tables
    known: dict[str, list[float]] = {table.survey: [] for table in releases}
    assert network.labels is not None
    for k, published in enumerate(PUBLISHED):
        found = {}
        for table in releases:
            here, rows = network.lookup.find(table.source_id)
            assert table.labels is not None
            error = network.labels.errors[rows, k + 1]
            z = (table.labels.values[here, k] - network.labels.values[rows, k + 1]) / error
            if len(rows) >= 50:
                found[table.survey] = float(robust_scatter(z)), float(np.median(error))
        least = min(scatter for scatter, _ in found.values())
        for survey, errors in known.items():
            scatter, typical = found.get(survey, (least, 0.0))
            errors.append(float(np.hypot(published, typical * np.sqrt(scatter**2 - least**2))))
    return known


def on_one_scale(
    stars: Stars, path: Path, offsets: Sequence[Offset], errors: Mapping[str, Sequence[float]]
) -> Stars:
    """The stars with C and N beside the labels that they have, in the paper's order."""
    values = np.full((len(stars), len(NAMES)), np.nan)
    sigma: NDArray[np.float64] = values.copy()
    found: dict[str, int] = {}
    for table in _releases(stars, path):
        here, rows = table.lookup.find(stars.source_id)
        labels = subtract(table, offsets).labels
        assert labels is not None
        values[here], sigma[here] = labels.values[rows], errors[table.survey]
        found[table.survey] = len(here)
    assert stars.labels is not None
    names = (*stars.labels.names, *NAMES)
    both = Labels(
        names,
        np.concatenate([stars.labels.values, values], axis=1),
        np.concatenate([stars.labels.errors, sigma], axis=1),
    )
    counts = ", ".join(f"{survey} {count}" for survey, count in found.items())
    notes = [
        f"[C/Fe] and [N/Fe] are not DR17's: they are those of {sum(found.values()):,} stars, "
        f"nearly all giants, in other releases of APOGEE ({counts}), put on DR17's scale",
        *(offset.to_text() for offset in offsets if offset.survey != NETWORK),
    ]
    notes += [
        f"errors taken for {survey}: {c:.3f} dex in c_fe, {n:.3f} dex in n_fe"
        for survey, (c, n) in errors.items()
    ]
    return replace(stars, labels=both.select(ORDER), notes=(*stars.notes, *notes))
