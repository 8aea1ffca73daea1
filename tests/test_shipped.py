"""The gate on the shipped model: on stars it has never seen, its intervals cover what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xplabels import io as archive
from xplabels.api.demo import TEST_FRACTION
from xplabels.core.flags import Flag
from xplabels.core.lookup import Lookup
from xplabels.core.prediction import Prediction
from xplabels.core.split import part_mask
from xplabels.core.stars import Photometry, Stars
from xplabels.model import Model
from xplabels.surveys.library import WELL_LABELLED

NAME = "apogee-dr17-library"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(NAME)


@pytest.fixture(scope="module")
def library() -> Stars:
    pytest.importorskip("gaiaxpy")
    from xplabels.core.errors import InputError
    from xplabels.surveys.library import read_library

    try:
        return read_library()
    except InputError:
        pytest.skip("the library is not installed")


@pytest.fixture(scope="module")
def test_part(library: Stars) -> Stars:
    stars, _ = WELL_LABELLED.apply(library)
    return stars[part_mask(stars.source_id, "test", TEST_FRACTION)]


def share(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the stars that have a label, those within it."""
    return np.asarray((z <= 1).sum(axis=0) / np.isfinite(z).sum(axis=0))


def covered(prediction: Prediction, stars: Stars) -> tuple[NDArray[np.float64], ...]:
    """Coverages of both intervals and robust scatter of z, label errors included."""
    known = stars.labels
    columns = [prediction.names.index(name) for name in known.names]
    values, errors, errors_95 = (
        array[:, columns] for array in (prediction.values, prediction.errors, prediction.errors_95)
    )
    residual, inner = known.values - values, np.hypot(errors, known.errors)
    z = residual / inner
    return (
        share(np.abs(residual) / inner),
        share(np.abs(residual) / np.hypot(errors_95, 2 * known.errors)),
        1.4826 * np.nanmedian(np.abs(z - np.nanmedian(z, axis=0)), axis=0),
    )


@pytest.mark.parametrize("withheld", [False, True])
def test_intervals_cover_what_they_say(model: Model, test_part: Stars, withheld: bool) -> None:
    shown = test_part
    if withheld:
        shown = test_part.with_photometry(Photometry.missing(len(test_part)))
    inner, outer, scatter = covered(model.predict(shown), test_part)
    margin = 2 if withheld else 1
    np.testing.assert_allclose(inner, 0.683, atol=0.025 * margin)
    np.testing.assert_allclose(outer, 0.954, atol=0.025 * margin)
    np.testing.assert_allclose(scatter, 1.0, atol=0.05 * margin)


def test_hot_stars_are_hot_and_have_no_abundances(model: Model, library: Stars) -> None:
    test = library[part_mask(library.source_id, "test", TEST_FRACTION)]
    known = test.labels.select(["teff", "logg"])
    hot = known.values[:, 0] > 7500.0
    prediction = model.predict(test[hot])
    teff, truth = prediction["teff"].value, known.values[hot, 0]
    assert np.median(np.abs(teff / truth - 1)) < 0.1
    assert (prediction.good & (teff < 7000)).mean() < 0.06  # some of APOGEE's are no hot stars
    abundances = prediction.values[:, 2:]
    assert np.isfinite(abundances[teff > 7500]).mean() < 0.01
    cool = model.predict(test[known.values[:, 0] < 6500.0])
    four = [model.names.index(name) for name in model.common_names]
    assert np.isfinite(cool.values[:, four]).all(axis=1).mean() > 0.98


def test_carbon_and_nitrogen_are_those_of_unseen_giants(
    model: Model, library: Stars, shared_data: Path
) -> None:
    """Of the labelled stars of the test part; releases as they are, some 0.1 dex apart."""
    table = np.genfromtxt(
        shared_data / "cn_labels.csv", delimiter=",", names=True, dtype=None, encoding="utf-8",
        usecols=("source_id", "c_fe", "n_fe"),
    )  # fmt: skip
    stars, rows = Lookup(table["source_id"]).find(library.source_id)
    test = part_mask(library.source_id[stars], "test", TEST_FRACTION)
    found = model.predict(library[stars[test]])
    for name, scatter in (("c_fe", 0.075), ("n_fe", 0.12)):
        known, one = table[name][rows[test]], found[name]
        residual = (one.value - known)[np.isfinite(one.value)]
        assert len(residual) > 60
        assert 1.4826 * np.median(np.abs(residual - np.median(residual))) < scatter
        assert np.std(known) > 1.2 * np.std(residual)
    dwarfs = library.labels.select(["logg"]).values[:, 0] > 4.3
    assert np.isfinite(model.predict(library[dwarfs][:500])["c_fe"].value).mean() < 0.05


def test_false_alarms_are_one_in_a_hundred(model: Model, test_part: Stars) -> None:
    prediction = model.predict(test_part)
    strange = (prediction.flags & int(Flag.OUT_OF_DOMAIN | Flag.POOR_FIT)) != 0
    assert 0.003 < strange.mean() < 0.02


def test_the_whole_sky_can_pass_through_it(model: Model) -> None:
    assert len(model.networks) == 1
    assert model.networks[0].architecture.flop_with_jacobian < 8.2e6
    folder = Path(archive.__file__).parents[1] / "models" / NAME
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20e6


def test_it_learnt_from_the_training_part_alone(model: Model, library: Stars) -> None:
    import hashlib

    training = np.sort(library.source_id[part_mask(library.source_id, "train", TEST_FRACTION)])
    digest = hashlib.sha256(training.astype("<i8").tobytes()).hexdigest()
    assert model.metadata["training"]["source_id_sha256"] == digest


def test_18_sco_is_what_the_literature_says(model: Model, shared_data: Path) -> None:
    stars = archive.read(shared_data / "xp_archive" / "18Sco_XP_CONTINUOUS_RAW.csv")
    prediction = model.predict(stars)
    # Teff, log g, [Fe/H] of the solar twin, about
    distance = np.abs(prediction.values[0, :3] - [5817.0, 4.45, 0.05])
    assert np.all(distance < prediction.errors_95[0, :3])


def test_a_star_without_bp_gets_a_flag(model: Model, shared_data: Path) -> None:
    stars = archive.read(shared_data / "xp_archive" / "XP_CONTINUOUS_RAW_with_missing_BP.fits")
    prediction = model.predict(stars)
    row = int(np.flatnonzero(prediction.source_id == 5405570973190252288)[0])
    assert np.isnan(prediction.values[row]).all()
    assert prediction.flags[row] & Flag.MISSING_BP
    assert not prediction.flags[row] & Flag.LOW_SNR
    assert np.isfinite(np.delete(prediction.values[:, :2], row, axis=0)).all()
