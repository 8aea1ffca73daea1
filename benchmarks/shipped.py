"""What the shipped model must show, in one run.

    python benchmarks/shipped.py --output benchmarks/results [--field xp_field_2000.fits]

On the library's test part, stars of 3200-7000 K with four known labels: scores and calibration with
photometry and without, of all stars and of the good ones, the verdict on its errors, the scores
without the stars whose label is probably wrong, and the RMSE without the stars of large stated
error of Teff. All stars of the test part in bins of Teff, with
what they must keep to above 7000 K. Its operations and its rate. With --field: real field stars
without labels or photometry (columns bp_coeff_0, e_bp_coeff_0, ...), how many get finite labels,
how many are good, and what flags. --part validation is for choosing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from common import RESULTS, known_labels, options, scored, write_json
from domain import teff_bins
from domain_words import teff_bins as teff_table
from strange import field_stars
from xplabels.api.demo import TEST_FRACTION
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.flags import MEANING
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.split import part_mask
from xplabels.core.stars import Photometry, Stars
from xplabels.model import DEFAULT_MODEL, Model
from xplabels.surveys.library import WELL_LABELLED, read_library
from xplabels.validation import score_prediction
from xplabels.validation.accuracy import findings_of, scores_text
from xplabels.validation.audit import audit_labels
from xplabels.validation.finding import metrics_of
from xplabels.validation.verdict import verdict_of

HOT = 7000
"""K, from which the library has no [Fe/H] and no [alpha/M]."""
WRONG, FAR = 0.02, 0.08
"""Largest shares of hot stars in a bin that are not flagged and off by 5 sigma, by 25 %."""
SCATTER = {7000: 0.07, 10000: 0.11}
"""Largest robust scatter of Teff, relative, in bins from these temperatures, K, on."""
LARGE_ERROR = 1500.0
"""Stated error of Teff, K, beyond which a star of 3200-7000 K may as well be a hot one."""
OFF = 0.05
"""A coverage may be off by so much, or by 2 binomial sigma."""
LEVELS = {"inside_68": LEVEL_68, "inside_95": LEVEL_95}


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
        validation = scored(prediction, stars)
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


def without_wrong_labels(prediction: Prediction, labels: Labels) -> dict[str, Any]:
    """Scores of each label with and without the stars whose label is probably wrong.

    Named by :mod:`xplabels.validation.audit` from the predictions of stars no network had seen.
    """
    keep = ~audit_labels(prediction, labels).wrong
    validation = score_prediction(
        prediction[keep], Labels(labels.names, labels.values[keep], labels.errors[keep])
    )
    return {
        "probably_wrong": int((~keep).sum()),
        "labels": {name: scores.to_dict() for name, scores in validation.labels.items()},
    }


def without_large_errors(prediction: Prediction, labels: Labels) -> dict[str, Any]:
    """RMSE of each label of the stars whose own stated error of Teff is not large."""
    kept = prediction["teff"].error < LARGE_ERROR
    found = {
        name: prediction[name].value[kept] - labels.select([name]).values[kept, 0]
        for name in labels.names
    }
    return {
        "teff_error_below": LARGE_ERROR,
        "left_out": int((~kept).sum()),
        "rmse": {name: float(np.sqrt(np.nanmean(one**2))) for name, one in found.items()},
    }


def missed_by_hot_stars(bins: list[dict[str, Any]]) -> list[str]:
    """Where bins of stars above 7000 K miss what they must keep to, one line each."""
    missed = []
    for one in bins:
        low, high = one["teff_range"]
        if low < HOT:
            continue
        where = f"{low}-{high} K, {one['n']} stars"
        for key, limit in (("not_flagged_5_sigma", WRONG), ("not_flagged_25_per_cent", FAR)):
            if (share := one[key]["share"]) > limit:
                missed.append(f"{where}: {key} {share:.3f}, at most {limit}")
        scatter, limit = one["labels"]["teff"]["relative"], SCATTER[HOT if low < 10000 else 10000]
        if scatter > limit:
            missed.append(f"{where}: robust scatter of Teff {scatter:.3f}, at most {limit}")
        for label, scores in one["labels"].items():
            for key, level in LEVELS.items():
                share, n = scores[key]["share"], scores[key]["n"]
                allowed = max(OFF, 2 * float(np.sqrt(level * (1 - level) / n)))
                if abs(share - level) > allowed:
                    missed.append(f"{where}: {label} {key} {share:.3f}, {level:.3f}+-{allowed:.3f}")
        missed += [
            f"{where}: {count} finite {label}" for label, count in one["finite"].items() if count
        ]
    return missed


def flag_counts(prediction: Prediction) -> dict[str, int]:
    """Stars with each flag that occurs."""
    counts = {
        flag.name or "": int(((prediction.flags & flag.value) != 0).sum()) for flag in MEANING
    }
    return {name: count for name, count in counts.items() if count}


def main() -> None:
    parser = options(__doc__, RESULTS)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--field", type=Path)
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    arguments = parser.parse_args()
    model = Model.load(arguments.model)
    library = read_library()
    part = library[part_mask(library.source_id, arguments.part, TEST_FRACTION)]
    stars, _ = WELL_LABELLED.apply(part)
    results: dict[str, Any] = {"part": arguments.part, **test_scores(model, stars)}
    audited = without_wrong_labels(model.predict(stars), known_labels(stars))
    certain = results["without_large_errors"] = without_large_errors(
        model.predict(stars), stars.labels
    )
    print(
        f"\nRMSE of Teff without the {certain['left_out']} of {len(stars)} stars with a stated "
        f"error of at least {LARGE_ERROR:.0f} K: {certain['rmse']['teff']:.0f} K"
    )
    results["without_wrong_labels"] = audited
    print(f"\nwithout {audited['probably_wrong']} stars whose label is probably wrong:")
    for name, scores in audited["labels"].items():
        print(f"  {name:8s} RMSE {scores['rmse']:.4g}, robust {scores['robust']:.4g}")
    results["teff_bins"] = teff_bins(model.predict(part), known_labels(part))
    results["missed_by_hot_stars"] = missed_by_hot_stars(results["teff_bins"])
    print("\n" + teff_table(results, None))
    print("hot stars miss: " + ("; ".join(results["missed_by_hot_stars"]) or "nothing"))
    results["flop_a_star"] = model.networks[0].architecture.flop_with_jacobian
    print(f"\n{results['flop_a_star'] / 1e6:.2f} MFLOP a star")
    if arguments.field:
        field = field_stars(arguments.field)
        prediction = model.predict(field.with_photometry(Photometry.missing(len(field))))
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
    write_json(arguments.output / "shipped.json", results)


if __name__ == "__main__":
    main()
