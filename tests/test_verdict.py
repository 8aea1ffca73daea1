"""The verdict on error bars: sizes, their intervals, the rule, and what it says of known faults."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from simulated_predictions import NAMES, Simulated, simulate
from xplabels.calibration.joint import joint_coverage
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.scores import LabelSample
from xplabels.validation import score_prediction
from xplabels.validation import verdict as v
from xplabels.validation.accuracy import findings_of
from xplabels.validation.finding import metrics_of, text_of

ONE = np.ones((3577, 4))


def exact(n: int = 3577, *, dof: float = 5.0, seed: int = 0) -> Simulated:
    """Stars whose truth is drawn from the predictive distribution: errors right by construction."""
    s = simulate(n, dof=dof, seed=seed)
    predicted = simulate(n, dof=dof, seed=seed + 10_000).labels.values
    random = np.random.default_rng(seed)
    t = stats.norm if np.isinf(dof) else stats.t(dof)
    scale = s.prediction.errors / t.ppf((1 + LEVEL_68) / 2)
    truth = predicted + scale * t.rvs(size=(n, 4), random_state=random)
    labels = Labels(NAMES, truth, np.full((n, 4), 1e-9))
    return replace(s, prediction=replace(s.prediction, values=predicted), labels=labels)


def judge(
    s: Simulated, factor: NDArray[np.float64] | float = 1.0, star: NDArray[np.int64] | None = None
) -> v.Verdict:
    """The verdict with all errors times ``factor``."""
    p = s.prediction
    wrong = replace(p, errors=factor * p.errors, errors_95=factor * p.errors_95)
    samples = {
        name: LabelSample(
            np.arange(len(p)), s.labels.values[:, k], p.values[:, k], wrong.errors[:, k],
            wrong.errors_95[:, k], s.labels.errors[:, k],
        )
        for k, name in enumerate(NAMES)
    }  # fmt: skip
    axes = {"g_mag": s.g_mag} | {
        f"{name}_predicted": p.values[:, NAMES.index(name)] for name in ("teff", "logg", "fe_h")
    }
    return v.judged(samples, axes, tuple(axes), star)


@dataclass
class Factors:
    """A sample of needed factors."""

    rows: NDArray[np.intp]
    needed: tuple[NDArray[np.float64], NDArray[np.float64]]


def sizes_of(needed: NDArray[np.float64], star: NDArray[np.int64] | None = None) -> v.Size:
    sample = Factors(np.arange(len(needed)), (needed, needed))
    return v.judged({"teff": sample}, {}, (), star).overall["teff"].sizes[0]


# --- sizes and their intervals --------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.floats(0.3, 3.0), st.floats(0.0, 2.0))
def test_a_star_is_inside_once_its_errors_are_multiplied_by_what_it_needs(
    stated: float, label_error: float
) -> None:
    random, one = np.random.default_rng(0), np.ones(50)
    sample = LabelSample(
        np.arange(50), random.standard_t(4, 50), 0 * one, stated * one, 2.5 * stated * one,
        label_error * one,
    )  # fmt: skip
    for k, inside in enumerate(("inside_68", "inside_95")):
        for slightly, expected in ((1 + 1e-9, 1.0), (1 - 1e-9, 0.0)):
            factor = slightly * sample.needed[k]
            moved = replace(sample, error=factor * stated, error_95=factor * 2.5 * stated)
            needed = sample.needed[k] > 0
            assert set(getattr(moved, inside)[needed]) <= {expected}
            assert getattr(moved, inside)[~needed].all()


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
def test_sizes_are_what_the_errors_were_multiplied_by(factor: float) -> None:
    found = judge(exact(40_000, dof=np.inf), factor)
    for label in NAMES:
        for size in found.overall[label].sizes:
            assert abs(size.value - (factor - 1)) < 4 * size.error
            assert size.error < 0.01
            assert size.low < size.value < size.high


def test_label_errors_are_allowed_for() -> None:
    s = exact(20_000, dof=np.inf)
    errors = np.broadcast_to(s.prediction.errors, s.labels.values.shape)
    noise = errors * np.random.default_rng(1).normal(size=errors.shape)
    noisy = replace(s, labels=Labels(NAMES, s.labels.values + noise, errors))
    for label in NAMES:
        for size in judge(noisy).overall[label].sizes:
            assert abs(size.value) < 4 * size.error


def test_the_interval_is_the_binomial_test_of_the_coverage() -> None:
    """The slow twin: all factors that the two-sided exact test of 68.3 % does not reject."""
    needed = np.abs(np.random.default_rng(3).normal(size=157))
    alpha = v.FALSE_ALARMS / 2
    kept = []
    for factor in np.linspace(0.3, 3, 2701):
        inside = int((needed <= factor).sum())
        below = stats.binom.cdf(inside, 157, LEVEL_68)
        above = stats.binom.sf(inside - 1, 157, LEVEL_68)
        if min(below, above) > alpha / 2:
            kept.append(1 / factor - 1)
    size = sizes_of(needed)
    assert size.low == pytest.approx(min(kept), abs=2e-3)
    assert size.high == pytest.approx(max(kept), abs=2e-3)


def test_intervals_hold_as_often_as_stated() -> None:
    random = np.random.default_rng(4)
    missed = 0
    for _ in range(2000):
        size = sizes_of(np.abs(random.normal(size=120)))
        missed += not size.low <= 0 <= size.high
    assert missed <= 2000 * v.FALSE_ALARMS / 2 + 10  # half the chance for each level


def test_rows_of_one_star_count_once() -> None:
    needed = np.abs(np.random.default_rng(5).normal(size=500))
    once = sizes_of(needed)
    star = np.repeat(np.arange(500), 3)
    thrice = sizes_of(np.repeat(needed, 3), star)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert thrice.error == pytest.approx(once.error)
    assert sizes_of(np.repeat(needed, 3)).error < 0.7 * once.error


def test_where_nothing_can_be_said() -> None:
    few = sizes_of(np.array([2.0]))
    assert (few.low, few.high, few.word) == (-1.0, np.inf, v.FEW)
    assert str(few) == "50 % too small (few stars)"
    hidden = sizes_of(np.zeros(300))  # the labels' own errors explain every residual
    assert (hidden.value, hidden.word) == (np.inf, v.WRONG)
    assert "the known labels' errors alone" in str(hidden)
    none = sizes_of(np.full(300, np.inf))
    assert (none.value, none.word) == (-1.0, v.WRONG)


@pytest.mark.parametrize(
    ("label_error", "sentence"),
    [
        (1.0, "The known labels are too uncertain to tell whether the error bars are right"),
        (1.3, "the known labels' errors alone are as large as the differences"),
    ],
)
def test_known_labels_may_be_too_uncertain(label_error: float, sentence: str) -> None:
    found, ones = np.random.default_rng(0).standard_normal(3000), np.ones(3000)
    sample = LabelSample(
        np.arange(3000), 0 * ones, found, 0.1 * ones, 0.2 * ones, label_error * ones
    )
    assert sentence in v.judged({"teff": sample}, {}, ()).sentence


@settings(deadline=None, max_examples=60)
@given(st.floats(-0.99, 3.0), st.floats(0, 2), st.floats(0, 2))
def test_words_depend_on_the_interval_alone(value: float, below: float, above: float) -> None:
    size = v.Size(value, 0.01, value - below, value + above)
    tolerated = size.low >= -v.TOLERANCE and size.high <= v.TOLERANCE
    beyond = size.low > v.TOLERANCE or size.high < -v.TOLERANCE
    assert (size.word == v.WRONG) is beyond
    if tolerated:
        assert size.word == v.RIGHT
    if size.word == v.SLIGHTLY:
        assert not size.low <= 0 <= size.high
    if size.word == v.FEW:
        assert max(-size.low, size.high) > v.USEFUL


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 3000), st.integers(0, 2**31))
def test_merged_bins_hold_every_star_and_enough_of_them(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = np.where(random.random(n) < 0.05, np.nan, random.normal(4, 2, n))
    edges = v.merged_edges(values, 0.5)
    known = values[np.isfinite(values)]
    if not len(known):
        assert edges == []
        return
    counts = np.histogram(known, edges)[0]
    assert counts.sum() == len(known)
    assert (np.diff(edges) > 0).all()
    assert len(counts) == 1 or counts.min() >= v.BIN_STARS
    assert np.allclose(np.array(edges) % 0.5, 0)


# --- the rule -------------------------------------------------------------------------------


def test_right_errors_are_called_right() -> None:
    """1 % are called anything else: of 80, 5 or more once in 1,000 times."""
    words = [judge(exact(seed=seed)).word for seed in range(80)]
    assert sum(word != v.RIGHT for word in words) <= 4


def test_errors_off_by_less_than_the_tolerance_are_never_wrong() -> None:
    for seed, factor in enumerate((0.92, 1.08)):
        for found in (judge(exact(seed=seed), factor), judge(exact(40_000, seed=seed), factor)):
            assert v.WRONG not in found.words.values()
    # and with many stars, they are right for certain
    many = judge(exact(200_000, dof=np.inf), 0.95)
    assert {one.word for one in many.overall.values()} == {v.RIGHT}
    assert all(one.sizes[0].high < 0 for one in many.overall.values())


@pytest.mark.parametrize("seed", range(10))
def test_faults_are_called_and_named(seed: int) -> None:
    s = exact(seed=seed)
    first = np.arange(4) == 0
    giants = s.prediction.values[:, 1:2] < 3.5
    small, large = judge(s, 0.8), judge(s, 1.25)
    assert set(small.words.values()) == {v.WRONG}
    assert "too small" in small.lines[0]
    assert large.word == v.WRONG
    assert "too large" in large.lines[0]
    one = judge(s, np.where(first, 0.8, ONE))
    assert (one.word, one.headline) == (v.WRONG, "wrong (teff)")
    assert v.WRONG not in [one.words[name] for name in NAMES[1:]]
    of_giants = judge(s, np.where(giants, 0.8, ONE))
    assert of_giants.word in (v.SLIGHTLY, v.WRONG)
    off = [b for b in of_giants.bins_of("teff") if b.off and b.axis == "logg_predicted"]
    assert off
    assert max(b.low for b in off) < 3.5


def test_faults_that_cancel_over_all_stars_are_seen_in_bins() -> None:
    s = exact(8000, seed=5)
    g = s.g_mag[:, None]
    found = judge(s, np.where(g < np.median(g), 0.75, 1.3333) * np.ones((8000, 4)))
    assert found.word == v.WRONG
    assert "G " in found.lines[0]
    # wrong for few stars: slightly off
    narrow = judge(s, np.where((g > 10.5) & (g < 11) & (np.arange(4) == 0), 0.5, 1.0))
    assert narrow.words["teff"] == v.SLIGHTLY
    assert "off in 1 of" in narrow.lines[0] or "most clearly at G 10.5 to 11" in narrow.lines[0]
    assert any(": wrong" in line and "at G 10.5 to 11" in line for line in narrow.off)


def test_few_stars_are_too_few_unless_errors_are_very_wrong() -> None:
    few = exact(150, seed=2)
    assert judge(few).word == v.FEW
    assert judge(few, 0.4).word == v.WRONG


def test_a_label_that_few_stars_have_does_not_decide_for_the_others() -> None:
    s = exact()
    values = s.labels.values.copy()
    values[50:, 3] = np.nan
    values[:, 2] = np.nan
    labels = Labels(NAMES, values, s.labels.errors)
    found = v.verdict_of(score_prediction(s.prediction, labels, g_mag=s.g_mag, resamples=0))
    assert found.words["alpha_m"] == v.FEW
    assert "fe_h" not in found.words
    assert found.word == v.RIGHT


def test_all_labels_together_are_one_more_statement() -> None:
    """The factor that each star's ellipsoid needs, against the ellipsoids themselves."""
    random = np.random.default_rng(1)
    n = 1500
    units = np.exp(random.normal(size=(n, 3)))
    drawn = random.multivariate_normal(np.zeros(3), 0.6 + 0.4 * np.eye(3), n)
    prediction = Prediction(
        source_id=np.arange(n), names=NAMES[:3], values=0 * units, errors=units,
        errors_model=units, errors_input=0 * units, errors_excess=0 * units, errors_95=2 * units,
        domain_distance=np.ones(n), flags=np.zeros(n, np.uint32),
        correlations=np.full((n, 3), 0.6),
    )  # fmt: skip
    labels = Labels(NAMES[:3], units * drawn, 0.1 * units)
    joint = joint_coverage(prediction, labels, NAMES[:3], np.ones(n, bool), resamples=0)
    assert joint is not None
    for k, level in enumerate((LEVEL_68, LEVEL_95)):
        for slightly, expected in ((1.001, True), (0.999, False)):
            for star in np.flatnonzero(joint.needed[k] > 0)[:10]:
                factor = slightly * joint.needed[k][star]
                moved = replace(prediction, errors=factor * units, errors_95=2 * factor * units)
                again = joint_coverage(moved, labels, NAMES[:3], np.ones(n, bool), resamples=0)
                assert bool(again.content[k, star] <= level) is expected
    assert (
        v.verdict_of(score_prediction(prediction, labels, resamples=0)).words[v.TOGETHER] == v.RIGHT
    )
    small = replace(prediction, joint_factors=(0.7, 0.7))
    found = v.verdict_of(score_prediction(small, labels, resamples=0))
    assert found.headline == f"wrong ({v.TOGETHER})"


def test_predicted_labels_are_judged_and_known_ones_without_shrinkage() -> None:
    s = exact(1000)
    found = v.verdict_of(score_prediction(s.prediction, s.labels, g_mag=s.g_mag, resamples=0))
    assert found.judged == ("g_mag", "teff_predicted", "logg_predicted", "fe_h_predicted")
    assert {"teff", "fe_h"} < set(found.bins)
    unshrunk = replace(s.prediction, meta={"ESTIMATE": "unshrunk"})
    found = v.verdict_of(score_prediction(unshrunk, s.labels, g_mag=s.g_mag, resamples=0))
    assert found.judged == ("g_mag", "teff", "logg", "fe_h")


def test_the_same_words_everywhere() -> None:
    s = exact()
    wrong = replace(s.prediction, errors=0.7 * s.prediction.errors)
    validation = score_prediction(wrong, s.labels, g_mag=s.g_mag, resamples=0)
    verdict, findings = v.verdict_of(validation), findings_of(validation)
    metrics = metrics_of(findings)
    assert metrics["verdict"]["word"] == verdict.word == v.WRONG
    assert metrics["verdict"]["lines"] == verdict.lines
    assert metrics["calibration"] == {"passed": False, "violations": verdict.off}
    for line in (f"error bars: {verdict.headline}", *verdict.lines):
        assert line in text_of(findings)
    size = metrics["verdict"]["labels"]["teff"]["size_68"]
    assert size["value"] == pytest.approx(-0.3, abs=0.05)
    rows = metrics["verdict"]["bins"]["g_mag"]["teff"]
    assert sum(one["n"] for one in rows) == 3577
    assert metrics["verdict"]["sizes_judged"] == 2 * (
        4 + sum(len(verdict.bins_of(name)) for name in NAMES)
    )
