"""May error bars calibrated on some stars be used on others? Stars of known law, few and many."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xplabels.calibration.transfer import (
    ALONE,
    NEAREST,
    CalibrationStars,
    classified,
    coordinate_names,
    loneliness,
    matching_weights,
    weighted,
)
from xplabels.cli import main
from xplabels.core.distribution import LEVEL_68
from xplabels.core.errors import InputError
from xplabels.core.stars import MEASUREMENTS, Photometry, Stars
from xplabels.io import write_stars
from xplabels.model import Model
from xplabels.model.refitting import check_errors, coordinates, with_calibration_stars

LABELS, COLOURS = ("teff", "logg"), ("bp_rp", "j_h")
TEFF, NOISE_RP, COLOUR = 0, 3, 6


def population(count: int, seed: int, **moved: float):
    """Coordinates [count, 7] and the ratios abs(z) [2, count, 2] of stars.

    Errors are too small where the first label is high: z of a star has the scatter exp(0.4 label),
    over one factor for all that is right for stars that are not moved.
    """
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, len(coordinate_names(LABELS, COLOURS))))
    x[:, -2:] = 0.0
    x[:, 4] *= 0.2
    x[:, TEFF] += moved.get("hotter", 0.0)
    x[:, NOISE_RP] += moved.get("fainter", 0.0)
    z = np.abs(np.exp(0.4 * x[:, :1]) * random.normal(size=(count, 2)))
    return x, np.stack([z / 1.008, z / 2.47])


def sample(count: int = 4000, seed: int = 1) -> CalibrationStars:
    x, ratios = population(count, seed)
    return CalibrationStars(x.astype(np.float32), ratios.astype(np.float32))


def test_stars_of_the_same_population_may_use_them() -> None:
    known, wrong, told = sample(), 0, 0
    np.testing.assert_allclose((known.ratios <= 1).mean(axis=1)[0], LEVEL_68, atol=0.02)
    for seed in range(20):
        found = known.compare(population(500, 100 + seed)[0], LABELS, COLOURS)
        wrong += found.answer != "Yes for your 500 stars."
        told += found.separation_p_value < ALONE
        assert found.lonely.mean() < 0.035
    assert wrong == 0
    assert told <= 2  # of 20 at one per cent each: more has a probability of 0.1 %


def test_one_in_a_hundred_of_the_same_population_is_lonely_exactly() -> None:
    """In the mean over choices of the calibration stars; ranks among 99 allow 1 %, 2 %, ..."""
    shares = []
    for seed in range(150):
        known, stars = population(198, 2 * seed)[0], population(200, 2 * seed + 1)[0]
        p_value, _ = loneliness(known, stars)
        assert p_value.min() >= 1 / 100
        shares.append([(p_value <= a).mean() for a in (0.01, 0.1, 0.5)])
    error = np.std(shares, axis=0, ddof=1) / np.sqrt(len(shares))
    wanted = np.floor(100 * np.array([0.01, 0.1, 0.5])) / 100
    assert (np.abs(np.mean(shares, axis=0) - wanted) < 3.5 * error + 1e-12).all()


def test_coverage_of_a_shifted_population_is_foreseen() -> None:
    known = sample()
    for hotter, direction in ((1.0, 1), (-1.0, -1)):
        x, ratios = population(3000, 7, hotter=hotter)
        found = known.compare(x, LABELS, COLOURS)
        fine = ~found.lonely
        true = (ratios[:, fine] <= 1).mean(axis=1)
        off = found.coverage - true
        assert (np.abs(off) < 4 * found.coverage_error + 0.02).all()
        # one level for all would be off by ten points and more
        assert direction * (LEVEL_68 - true[0]).max() > 0.1
        assert found.wrong == LABELS
        assert found.answer.startswith("Not as they are")
        factor = np.quantile(ratios[0, fine], (known.ratios[0] <= 1).mean(), axis=0)
        np.testing.assert_allclose(found.factor[0], factor, rtol=0.12)
        assert found.separation > 0.7
        assert found.difference == ("hotter" if hotter > 0 else "cooler")


def test_stars_that_are_like_no_calibration_star_are_named_with_the_reason() -> None:
    x, _ = population(1000, 8)
    faint, _ = population(100, 9, fainter=8.0)
    found = sample().compare(np.concatenate([x, faint]), LABELS, COLOURS)
    assert found.lonely[1000:].all()
    assert found.lonely[:1000].mean() < 0.03
    assert found.many_lonely
    assert found.reasons[0] == ("noisier in RP (fainter)", pytest.approx(100, abs=6))
    assert "Yes for 9" in found.answer
    assert "their errors are extrapolated" in found.answer
    assert "noisier in RP" in str(found)
    alone = sample().compare(faint, LABELS, COLOURS)
    assert alone.answer.startswith("No: 0 of your 100 stars are like")
    assert alone.effective.max() == 0
    json.dumps(alone.to_dict(), allow_nan=False)


def test_stars_that_lack_some_colours_are_compared_with_the_most_similar() -> None:
    known, (x, _) = sample(), population(1000, 8)
    x[:100, COLOUR] = 1.0
    found = known.compare(x, LABELS, COLOURS)
    assert found.answer == "Yes for your 1,000 stars."
    assert found.untested.tolist() == [True] * 100 + [False] * 900
    assert "Not tested: the effect of missing colours on the errors of 100 stars" in str(found)
    # as soon as enough calibration stars lack them, too, the comparison is with those
    known.coordinates[:300, COLOUR] = 1.0
    assert not known.compare(x, LABELS, COLOURS).untested.any()
    known.coordinates[:300, NOISE_RP] += 8.0
    found = known.compare(x, LABELS, COLOURS)
    assert found.lonely[:100].all()
    assert "less noisy in RP (brighter)" in dict(found.reasons)


def test_weights_count_how_often_a_star_is_near_and_expect_by_loop() -> None:
    random = np.random.default_rng(11)
    known, stars = random.normal(size=(300, 3)), random.normal(0.5, 1, (40, 3))
    ratios = np.abs(random.normal(size=(300, 2)))
    ratios[::7, 1] = np.nan
    wanted = np.zeros(300)
    for star in stars:
        nearest = sorted(range(300), key=lambda j, s=star: ((known[j] - s) ** 2).sum())[:NEAREST]
        for j in nearest:
            wanted[j] += 1 / NEAREST
    weights = matching_weights(known, stars)
    np.testing.assert_allclose(weights, wanted)
    share, factor, effective = weighted(ratios, weights)
    for k in range(2):
        pairs = [(r, w) for r, w in zip(ratios[:, k], wanted, strict=True) if np.isfinite(r)]
        total = sum(w for _, w in pairs)
        assert share[k] == pytest.approx(sum(w for r, w in pairs if r <= 1) / total)
        assert effective[k] == pytest.approx(total**2 / sum(w * w for _, w in pairs))
        level = np.mean([r <= 1 for r, _ in pairs])
        below = sum(w for r, w in pairs if r < factor[k]) / total
        at_most = sum(w for r, w in pairs if r <= factor[k]) / total
        assert below < level <= at_most + 1e-12


def test_a_classifier_sees_joint_differences_that_no_single_number_shows() -> None:
    random = np.random.default_rng(12)
    one, other = random.normal(size=(2000, 3)), random.normal(size=(2000, 3))
    assert classified(one, other)[1] > 0.01
    other[:, 1] = 0.9 * other[:, 0] + np.sqrt(1 - 0.81) * other[:, 1]
    share, p_value = classified(one, other)
    assert share > 0.65
    assert p_value < 1e-6
    assert classified(one, other[:3]) == (0.5, 1.0)


def without_colour(stars: Stars, rows: slice) -> Stars:
    values = stars.photometry.values.copy()
    values[rows, MEASUREMENTS.index("h_m")] = np.nan
    return replace(stars, photometry=replace(stars.photometry, values=values))


def test_a_model_keeps_stars_it_did_not_see_and_says_so_of_others(
    small_model: Model, small_stars: Stars, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = replace(small_model, calibration_stars=None)
    with pytest.raises(InputError, match="at least 200 are needed"):
        check_errors(plain, small_stars)
    with pytest.raises(InputError, match="200 are needed"):
        with_calibration_stars(plain, small_stars[:300])
    # every star of this table, as if none had been seen: about how, not how well
    split = {"split": {"test_fraction": 0.0, "validation_fraction": 1.0}}
    unlabelled = replace(small_stars, labels=None)
    with pytest.raises(InputError, match="no known labels"):
        with_calibration_stars(plain, unlabelled)
    at = coordinates(plain, small_stars)
    assert at.shape == (1000, len(coordinate_names(plain.names, plain.feature_set.auxiliary)))
    ratios = np.abs(np.random.default_rng(1).normal(size=(2, 1000, len(plain.names))))
    model = replace(
        plain,
        calibration_stars=CalibrationStars(at.astype(np.float32), ratios.astype(np.float32)),
        metadata=plain.metadata | split,
    )
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    np.testing.assert_array_equal(again.calibration_stars.coordinates, at.astype(np.float32))
    write_stars(without_colour(unlabelled, slice(0, 100)), tmp_path / "stars.parquet")
    words = ["check-errors", str(tmp_path / "stars.parquet"), "--model", str(tmp_path / "model")]
    assert main([*words, "--json", str(tmp_path / "found.json")]) == 0
    said = capsys.readouterr().out
    assert "errors of 100 stars" in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["stars"] == len(found["source_id"]) == 1000
    assert found["colours_not_tested"] == 100
    assert main([*words, "--json", str(tmp_path / "found.json")]) == 2
    plain.save(tmp_path / "old")
    assert Model.load(tmp_path / "old").calibration_stars is None


def test_training_keeps_the_sample(small_stars: Stars) -> None:
    from conftest import fitted, quick

    model = fitted(small_stars, quick(calibration_folds=2))
    stars = model.calibration_stars
    bare = stars.coordinates[:, -len(model.feature_set.auxiliary) :].all(axis=1)
    for kind, tolerance in ((bare, 0.1), (~bare, 0.02)):  # nine tenths: validation part and folds
        assert 800 < kind.sum() < 910
        inside = (stars.ratios[:, kind] <= 1).mean(axis=1)
        np.testing.assert_allclose(inside[0], LEVEL_68, atol=tolerance)
    without = small_stars.with_photometry(Photometry.missing(len(small_stars)))
    for some in (small_stars[:200], without[:200]):
        found = check_errors(model, some)
        assert found.n == 200
        assert found.lonely.sum() < 10
        assert found.separation < 0.7
    with pytest.raises(InputError, match="no star has a prediction"):
        check_errors(model, small_stars[:0])
