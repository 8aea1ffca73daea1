"""Cuts on known labels: open intervals, unknown labels outside, a count of every cut."""

from __future__ import annotations

import json

import numpy as np
import pytest

from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.selection import Selection
from xplabels.core.stars import SampledSpectra, Stars


def make_stars(teff: list[float], logg: list[float]) -> Stars:
    values = np.column_stack([teff, logg]).astype(float)
    errors = np.where(np.isnan(values), np.nan, 1.0)
    count = len(values)
    flux = np.ones((count, 2))
    spectra = SampledSpectra(np.array([400.0, 500.0]), flux, flux)
    return Stars.of(
        np.arange(count), spectra, labels=Labels(("teff", "logg"), values, errors), origin="t.fits"
    )


STARS = make_stars([3200, 3201, 5000, 6999, 7000, np.nan], [4, 4, np.nan, 4, 4, 4])


def test_bounds_and_unknown_labels_lie_outside() -> None:
    chosen, flow = Selection.of(["teff=3200:7000"]).apply(STARS)
    assert list(chosen.source_id) == [1, 2, 3]
    assert flow == ["6 stars in t.fits", "3 with 3200 < teff < 7000 K"]


def test_complete_stars_have_every_label() -> None:
    chosen, flow = Selection.of(["teff=:7000"], ["teff", "logg"]).apply(STARS)
    assert list(chosen.source_id) == [0, 1, 3]
    assert flow[-1] == "3 with all of teff, logg known"


def test_no_cut_keeps_every_star_even_without_labels() -> None:
    unlabelled = STARS.with_labels(None)
    chosen, flow = Selection().apply(unlabelled)
    assert chosen is unlabelled
    assert flow == ["6 stars in t.fits"]
    with pytest.raises(InputError, match=r"t\.fits: has no labels"):
        Selection.of(["teff=1:2"]).apply(unlabelled)


def test_a_selection_that_keeps_no_star_says_where_they_went() -> None:
    with pytest.raises(InputError, match="0 with 1 < teff < 2 K"):
        Selection.of(["teff=1:2"]).apply(STARS)
    with pytest.raises(InputError, match="label 'fe_h' is absent"):
        Selection.of(["fe_h=:0"]).apply(STARS)


def test_metadata_survive_json() -> None:
    selection = Selection.of(["teff=3200:7000", "logg=:3.5"], ["teff"])
    stored = json.loads(json.dumps(selection.to_metadata(), allow_nan=False))
    assert Selection.from_metadata(stored) == selection
    assert Selection.from_metadata({}) == Selection()
    assert Selection.of_model({"selection": stored}, ["logg"]) == Selection.of(["logg=:3.5"])


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["teff"], "'teff' is no range"),
        (["teff=3"], "'teff=3' is no range"),
        (["teff=a:b"], "has a bound that is no number"),
        (["teff=5:5"], "is empty"),
        (["age=1:2"], "unknown label 'age'"),
        (["teff=1:2", "teff=3:4"], "two ranges for teff"),
    ],
)
def test_wrong_ranges_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Selection.of(texts)
