"""Tables 1, 2 and 3 of FS24, for the stars at hand and beside what the paper prints.

The paper's stars are others, so its numbers are for orientation. It does not say the sign of its
residuals; here they are prediction minus the other value. Every number measured here has its
bootstrap error and its N.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xplabels.core.scores import Array, Scores, score
from xplabels.report.sections import Table, score_text
from xplabels.validation import Validation
from xplabels.validation.wording import as_json, with_unit

if TYPE_CHECKING:
    from xplabels.validation.against import Against

STATISTICS = ("median_prediction", "median_error", "median_residual", "rmse")
TITLES = ("median prediction", "median error", "median residual", "RMSE")

TABLE_1: dict[str, tuple[float, float, float, float]] = {
    "fe_h": (-0.22, 0.068, 0.043, 0.064),
    "teff": (4777.0, 69.1, -49.9, 51.77),
    "logg": (2.64, 0.14, -0.034, 0.091),
    "c_fe": (-0.014, 0.031, 0.016, 0.043),
    "n_fe": (0.20, 0.040, 0.036, 0.052),
    "alpha_m": (0.083, 0.029, -1.4e-3, 0.025),
}
"""As printed: :data:`STATISTICS` against APOGEE, K and dex."""
TABLE_2: dict[str, dict[str, tuple[float, float]]] = {
    "lamost-lrs": {"fe_h": (0.096, 0.104), "teff": (-34.3, 81.5), "logg": (0.018, 0.134)},
    "lamost-mrs": {"c_fe": (0.052, 0.059), "n_fe": (0.120, 0.117), "alpha_m": (0.001, 0.027)},
}
"""As printed, by survey: median residual and RMSE against LAMOST DR7, K and dex."""
TABLE_3: dict[str, dict[str, float]] = {
    "Fallows & Sanders (2024)": {"fe_h": 0.068, "teff": 69.1, "logg": 0.142},
    "Leung & Bovy (2023)": {"fe_h": 0.070, "teff": 47.0, "logg": 0.110},
    "Andrae et al. (2023), inflated as they advise": {"fe_h": 0.039, "teff": 21.5, "logg": 0.028},
}
"""As printed: average errors, K and dex. The factors behind the last row are not printed."""


def table_1_scores(validation: Validation) -> dict[str, Scores]:
    """:data:`STATISTICS` of each label over the stars compared, with bootstrap errors."""
    return {
        name: score(sample, _statistics, resamples=validation.resamples, seed=validation.seed)
        for name, sample in validation.samples.items()
    }


def table_3_scores(validation: Validation, against: Against | None) -> dict[str, dict[str, Scores]]:
    """Median stated errors by source: the model's, and those of another catalogue.

    ``against``, whose errors have been multiplied by their inflation factors already, counts only
    the stars compared.
    """
    settings = {"resamples": validation.resamples, "seed": validation.seed}
    rows = {
        "this model": {
            name: score(sample, _median_error, **settings)
            for name, sample in validation.samples.items()
        }
    }
    if against is not None:
        factors = ", ".join(f"{name} x {f:g}" for name, f in against.inflation.items())
        title = against.title + (f", errors of {factors}" if factors else ", errors as published")
        rows[title] = {
            name: score(sample, _median_label_error, **settings)
            for name, sample in validation.samples.items()
        }
    return rows


def _statistics(of: Callable[[str], Array]) -> dict[str, Array]:
    return {
        "median_prediction": np.median(of("predicted"), axis=-1),
        "median_error": np.median(of("error"), axis=-1),
        "median_residual": np.median(of("residual"), axis=-1),
        "rmse": np.sqrt((of("residual") ** 2).mean(axis=-1)),
    }


def _median_error(of: Callable[[str], Array]) -> dict[str, Array]:
    return {"median_error": np.median(of("error"), axis=-1)}


def _median_label_error(of: Callable[[str], Array]) -> dict[str, Array]:
    return {"median_error": np.median(of("label_error"), axis=-1)}


def table_1(validation: Validation) -> Table:
    """FS24's table 1 for the stars compared."""
    rows = []
    for name, scores in table_1_scores(validation).items():
        rows.append([with_unit(name), *(score_text(scores, s) for s in STATISTICS), str(scores.n)])
        if name in TABLE_1:
            rows.append(["paper, other stars", *(f"{v:g}" for v in TABLE_1[name]), "-"])
    caption = "As table 1 of Fallows & Sanders (2024); residuals are prediction minus known label"
    return Table(caption, ["label", *TITLES, "N"], rows)


def table_2(validation: Validation, survey: str) -> Table:
    """FS24's table 2: residuals and RMSE against ``survey``, the paper's beside it."""
    rows = []
    for name, scores in table_1_scores(validation).items():
        rows.append([with_unit(name), *(score_text(scores, s) for s in STATISTICS), str(scores.n)])
        printed = TABLE_2.get(survey, {}).get(name)
        if printed is not None:
            rows.append(["paper, other stars", "-", "-", *(f"{v:g}" for v in printed), "-"])
    caption = (
        f"The model against {survey} (as table 2 of Fallows & Sanders 2024); residuals are "
        "prediction minus survey"
    )
    return Table(caption, ["label", *TITLES, "N"], rows)


def table_3(validation: Validation, against: Against | None = None) -> Table:
    """FS24's table 3: how large the errors are that catalogues state."""
    names = validation.names
    rows = [
        [title, *(score_text(scores[n], "median_error") for n in names)]
        for title, scores in table_3_scores(validation, against).items()
    ]
    rows += [
        [f"{title}, as printed", *(f"{printed[n]:g}" if n in printed else "-" for n in names)]
        for title, printed in TABLE_3.items()
    ]
    counts = ", ".join(f"{len(s):,} {n}" for n, s in validation.samples.items())
    caption = (
        f"Errors that catalogues state, medians (as table 3 of Fallows & Sanders 2024); N here: "
        f"{counts}. Rows as printed are of other stars"
    )
    return Table(caption, ["catalogue", *map(with_unit, names)], rows)


def table_metrics(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Scores by label as they stand in ``metrics.json``."""
    plain: dict[str, Any] = as_json({name: one.to_metrics() for name, one in scores.items()})
    return plain
