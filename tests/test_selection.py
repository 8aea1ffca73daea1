"""Cuts on known labels: open intervals, unknown labels outside, a count of every cut."""

from __future__ import annotations

import json

import numpy as np
import pytest

from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.selection import Selection
from xplabels.core.stars import SampledSpectra, Stars

VALUES = np.array([[3200, 4], [3201, 4], [5000, np.nan], [6999, 4], [7000, 4], [np.nan, 4]])
STARS = Stars.of(
    np.arange(6),
    SampledSpectra(np.array([400.0, 500.0]), np.ones((6, 2)), np.ones((6, 2))),
    labels=Labels(("teff", "logg"), VALUES, np.where(np.isnan(VALUES), np.nan, 1.0)),
    origin="t.fits",
)


@pytest.mark.parametrize(
    ("ranges", "complete", "kept", "last"),
    [
        (["teff=3200:7000"], [], [1, 2, 3], "3 with 3200 < teff < 7000 K"),
        (["teff=:7000"], ["teff", "logg"], [0, 1, 3], "3 with all of teff, logg known"),
        ([], [], [*range(6)], "6 stars in t.fits"),
    ],
)
def test_bounds_and_unknown_labels_lie_outside(
    ranges: list[str], complete: list[str], kept: list[int], last: str
) -> None:
    chosen, flow = Selection.of(ranges, complete).apply(STARS)
    assert list(chosen.source_id) == kept
    assert (flow[0], flow[-1]) == ("6 stars in t.fits", last)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["teff"], "'teff' is not a range"),
        (["teff=3"], "'teff=3' is not a range"),
        (["teff=a:b"], "has a bound that is not a number"),
        (["teff=5:5"], "is empty"),
        (["age=1:2"], "label 'age' is absent; the table has"),
        (["teff=1:2", "teff=3:4"], "two ranges for teff"),
        (["teff=1:2"], "0 with 1 < teff < 2 K"),
        (["fe_h=:0"], "label 'fe_h' is absent"),
    ],
)
def test_wrong_ranges_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Selection.of(texts).apply(STARS)


def test_stars_without_labels() -> None:
    unlabelled = STARS.with_labels(None)
    assert Selection().apply(unlabelled)[0] is unlabelled
    with pytest.raises(InputError, match=r"t\.fits: has no labels"):
        Selection.of(["teff=1:2"]).apply(unlabelled)


def test_metadata_survive_json() -> None:
    selection = Selection.of(["teff=3200:7000", "logg=:3.5"], ["teff"])
    stored = json.loads(json.dumps(selection.to_metadata(), allow_nan=False))
    assert Selection.from_metadata(stored) == selection
    assert Selection.from_metadata({}) == Selection()
    assert Selection.of([], ["teff", "c_fe"]).complete_in(["teff"]).complete == ("teff",)
    assert Selection.of_model({"selection": stored}, ["logg"]) == Selection.of(["logg=:3.5"])
