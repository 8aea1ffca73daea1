"""What the shipped model must show, in one run.

    python benchmarks/shipped.py --output benchmarks/results [--field xp_field_2000.fits]

On the library's test part: scores and calibration with photometry and without, of all
stars and of the good ones, and the verdict on its errors. On hot stars, never seen: how well
`domain_distance` tells them. Its operations and its rate. With --field: real field stars without
labels (columns bp_coeff_0, e_bp_coeff_0, ...), how many get finite labels, how many are good, and
what flags.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from scipy.stats import rankdata

from xplabels.api.demo import TEST_FRACTION
from xplabels.core.flags import MEANING
from xplabels.core.prediction import Prediction
from xplabels.core.split import part_mask
from xplabels.core.stars import Band, CoefficientSpectra, Photometry, Stars
from xplabels.model import Model
from xplabels.surveys.library import WELL_LABELLED, read_library
from xplabels.validation import Validation, score_prediction
from xplabels.validation.accuracy import findings_of, scores_text
from xplabels.validation.finding import metrics_of
from xplabels.validation.verdict import verdict_of

NAME = "apogee-dr17-library"


def test_scores(model: Model, stars: Stars) -> dict[str, Any]:
    """Scores of the test part, with photometry and without."""
    found: dict[str, Any] = {}
    for title, shown in (
        ("with photometry", stars),
        ("photometry withheld", stars.with_photometry(Photometry.missing(len(stars)))),
    ):
        begun = time.monotonic()
        prediction = model.predict(shown)
        rate = len(stars) / (time.monotonic() - begun)
        validation = _validated(prediction, stars)
        verdict = verdict_of(validation)
        print(f"\n{title}: {rate:.0f} stars/s\n{scores_text(validation)}")
        print("\ngood stars\n" + scores_text(validation, "good"))
        print("\n  ".join([f"error bars: {verdict.headline}", *verdict.lines]))
        found[title] = {
            "stars_per_second": rate,
            "metrics": metrics_of(findings_of(validation)),
            "median_errors": np.nanmedian(prediction.errors, axis=0).tolist(),
        }
    return found


def _validated(prediction: Prediction, stars: Stars) -> Validation:
    g, bp, rp = (stars.photometry.column(f"phot_{band}_mean_mag")[0] for band in ("g", "bp", "rp"))
    if stars.labels is None:
        raise SystemExit("the library has no labels")
    return score_prediction(prediction, stars.labels, g_mag=g, bp_rp=bp - rp)


def domain_auroc(model: Model, inside: Stars, outside: Stars) -> float:
    """Probability that a star from outside is farther than one from inside."""
    near, far = (model.predict(stars).domain_distance for stars in (inside, outside))
    near, far = near[np.isfinite(near)], far[np.isfinite(far)]
    ranks = rankdata(np.concatenate([near, far]))
    return float(
        (ranks[len(near) :].sum() - len(far) * (len(far) + 1) / 2) / (len(near) * len(far))
    )


def field_stars(path: Path) -> Stars:
    """Real archive coefficients and errors without correlations, photometry or labels."""
    table = Table.read(path)

    def matrix(prefix: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        names = [name for name in table.colnames if name.startswith(prefix)]
        return np.stack([np.asarray(table[name], np.float64) for name in names], axis=1)

    bands = (Band(matrix(f"{band}_coeff_"), matrix(f"e_{band}_coeff_")) for band in ("bp", "rp"))
    ids = np.asarray(table["source_id"], np.int64)
    return Stars.of(ids, CoefficientSpectra(*bands), origin=path.name)


def flag_counts(prediction: Prediction) -> dict[str, int]:
    """Stars with each flag that occurs."""
    counts = {
        flag.name or "": int(((prediction.flags & flag.value) != 0).sum()) for flag in MEANING
    }
    return {name: count for name, count in counts.items() if count}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--model", default=NAME)
    parser.add_argument("--field", type=Path)
    arguments = parser.parse_args()
    model = Model.load(arguments.model)
    library = read_library()
    stars, _ = WELL_LABELLED.apply(library)
    test = stars[part_mask(stars.source_id, "test", TEST_FRACTION)]
    results = test_scores(model, test)
    if library.labels is None:
        raise SystemExit("the library has no labels")
    hot = library[library.labels.select(["teff"]).values[:, 0] > 7000.0]
    prediction = model.predict(hot)
    results["hot_stars"] = {
        "n": len(hot),
        "auroc": domain_auroc(model, test, hot),
        "good": int(prediction.good.sum()),
        "flags": flag_counts(prediction),
        "teff_05_50_95": np.nanpercentile(
            prediction.values[:, model.names.index("teff")], (5, 50, 95)
        )
        .round(1)
        .tolist(),
    }
    results["flop_a_star"] = model.networks[0].architecture.flop_with_jacobian
    print(f"\nhot stars: {results['hot_stars']}, {results['flop_a_star'] / 1e6:.2f} MFLOP a star")
    if arguments.field:
        prediction = model.predict(field_stars(arguments.field))
        results["field"] = {
            "n": len(prediction),
            "finite": int(
                (np.isfinite(prediction.values) & np.isfinite(prediction.errors)).all(1).sum()
            ),
            "good": int(prediction.good.sum()),
            "flags": flag_counts(prediction),
            "median_errors": np.nanmedian(prediction.errors, axis=0).tolist(),
        }
        print(f"field stars: {results['field']}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "shipped.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
