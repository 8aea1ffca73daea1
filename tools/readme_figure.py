"""Draw docs/figures/kiel.png: the library's test part, as the shipped model sees it.

python tools/readme_figure.py
"""

from __future__ import annotations

from pathlib import Path

from xplabels import figures
from xplabels.api.demo import TEST_FRACTION
from xplabels.core.split import part_mask
from xplabels.model import Model
from xplabels.surveys.library import WELL_LABELLED, read_library


def main() -> None:
    stars, _ = WELL_LABELLED.apply(read_library())
    test = stars[part_mask(stars.source_id, "test", TEST_FRACTION)]
    model = Model.load("apogee-dr17-library")
    prediction = model.predict(test)
    if test.labels is None:
        raise SystemExit("the library has no labels")
    known = test.labels.select(["teff", "logg", "fe_h"]).values
    columns = [model.names.index(name) for name in ("teff", "logg", "fe_h")]
    teff, logg, fe_h = prediction.values[:, columns].T
    figure = figures.kiel(
        {
            "APOGEE DR17": (known[:, 0], known[:, 1], known[:, 2]),
            "xplabels, from XP spectra": (teff, logg, fe_h),
        }
    )
    path = Path(__file__).parents[1] / "docs" / "figures" / "kiel.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
