"""Whether Gaia's excess factor of BP and RP tells stars whose labels are off.

    python benchmarks/excess_factor.py [--model NAME|MODEL]

On the library's stars of 3200-7000 K outside the test part, most of which the shipped model was
trained on: how many are more than 5 sigma from the usual excess factor (Riello et al. 2021), how
many of them other flags make not good, and how often Teff of the rest is off by more than 5 sigma.
The library has no excess factor: it is (I_BP + I_RP) / I_G, computed from the magnitudes.
"""

from __future__ import annotations

import numpy as np

from common import known_labels, options
from xplabels.core.quality import EXCESS_SIGMAS, corrected_excess, excess_scatter
from xplabels.core.selection import Selection
from xplabels.core.split import part_mask
from xplabels.model import DEFAULT_MODEL, Model
from xplabels.surveys.library import read_library

ZERO_POINTS = {"g": 25.6873668671, "bp": 25.3385422158, "rp": 24.7478955012}
"""Of Gaia EDR3's magnitudes (Vega; Riello et al. 2021)."""
TEST_FRACTION = 0.1
RED = 2.5
FAR = 5.0


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    model = Model.load(parser.parse_args().model)
    stars, _ = Selection.of(["teff=3200:7000"]).apply(read_library())
    stars = stars[~part_mask(stars.source_id, "test", TEST_FRACTION)]
    magnitude = {b: stars.photometry.column(f"phot_{b}_mean_mag")[0] for b in ZERO_POINTS}
    flux = {b: 10 ** (0.4 * (zero - magnitude[b])) for b, zero in ZERO_POINTS.items()}
    colour = magnitude["bp"] - magnitude["rp"]
    corrected = corrected_excess((flux["bp"] + flux["rp"]) / flux["g"], colour)
    ratio = np.abs(corrected) / excess_scatter(magnitude["g"])
    beyond, known = ratio > EXCESS_SIGMAS, np.isfinite(ratio)
    print(f"{beyond.sum()} of {known.sum()} stars beyond {EXCESS_SIGMAS:g} sigma")
    prediction = model.predict(stars)
    teff, label = prediction["teff"], known_labels(stars, ["teff"])
    z = (teff.value - label.values[:, 0]) / np.hypot(teff.error, label.errors[:, 0])
    for name, rows in (("all", known), (f"BP - RP > {RED:g}", known & (colour > RED))):
        for title, group in (("beyond", rows & beyond), ("others", rows & ~beyond)):
            kept = group & prediction.good & np.isfinite(z)
            print(
                f"{name}, {title}: {np.mean(~prediction.good[group]):.1%} of {group.sum()} not "
                f"good; of {kept.sum()} good ones {np.mean(np.abs(z[kept]) > FAR):.1%} are off by "
                f"more than {FAR:g} sigma in Teff"
            )


if __name__ == "__main__":
    main()
