"""Validation: closed forms against integrals and scipy, scores against known truth, margins."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from simulated_predictions import NAMES, Simulated, simulate
from xplabels.core import distribution as predictive
from xplabels.core import scores
from xplabels.core.distribution import LEVEL_68, LEVEL_95
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.labels import Labels
from xplabels.validation import Validation, score_prediction
from xplabels.validation.accuracy import findings_of, scores_text
from xplabels.validation.finding import metrics_of
from xplabels.validation.verdict import RIGHT, WRONG, verdict_of


def run(simulated: Simulated, **options: object) -> Validation:
    given = {"g_mag": simulated.g_mag, "bp_rp": simulated.bp_rp, "resamples": 20, **options}
    return score_prediction(simulated.prediction, simulated.labels, **given)


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return simulate()


@pytest.fixture(scope="module")
def validated(simulated: Simulated) -> Validation:
    return run(simulated)


# --- the predictive distribution ------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.floats(1.2, 300.0), st.floats(1e-3, 1e3))
def test_matched_t_recovers_the_distribution_it_was_made_from(dof: float, scale: float) -> None:
    inner, outer = (scale * stats.t(dof).ppf((1 + level) / 2) for level in (LEVEL_68, LEVEL_95))
    found, width = predictive.matched_t(np.array([inner]), np.array([outer]))
    assert 1 / found[0] == pytest.approx(1 / dof, abs=1e-5)
    assert width[0] == pytest.approx(scale, rel=1e-5)


def test_light_tails_become_a_gaussian_and_the_heaviest_keep_the_inner_half_width() -> None:
    x = np.linspace(-12, 12, 31)
    for ratio in (1.2, 2.0):
        dof, scale = predictive.matched_t(np.array([3.0]), np.array([3.0 * ratio]))
        assert scale[0] == pytest.approx(3.0, rel=1e-5)
        assert predictive.cdf(x, dof, scale) == pytest.approx(stats.norm(0, 3).cdf(x), abs=1e-6)
        assert predictive.density(x, dof, scale) == pytest.approx(stats.norm(0, 3).pdf(x), rel=1e-4)
    dof, scale = predictive.matched_t(np.array([1.0]), np.array([50.0]))
    assert dof[0] == pytest.approx(predictive.SMALLEST_DOF)
    assert predictive.cdf(np.array([1.0]), dof, scale)[0] == pytest.approx((1 + LEVEL_68) / 2)
    expected = stats.t(3.3, scale=0.7).pdf(x)
    assert predictive.density(x, np.array(3.3), np.array(0.7)) == pytest.approx(expected)


@pytest.mark.parametrize("dof", [1.5, 4.0, 30.0, 1e6])
@pytest.mark.parametrize("x", [-7.0, 0.0, 0.4, 3.0])
def test_crps_is_its_integral(dof: float, x: float) -> None:
    # (F - [t >= x])^2 over t, split at x where it jumps
    below = integrate.quad(lambda t: stats.t.cdf(t / 2, dof) ** 2, -np.inf, x)[0]
    above = integrate.quad(lambda t: stats.t.sf(t / 2, dof) ** 2, x, np.inf)[0]
    found = predictive.crps(np.array([x]), np.array([dof]), np.array([2.0]))[0]
    assert found == pytest.approx(below + above, rel=1e-5)


# --- scores with known truth ----------------------------------------------------------------


@pytest.mark.parametrize("dof", [3.0, 4.0, np.inf])
def test_correct_errors_cover(dof: float) -> None:
    found = run(simulate(8000, dof=dof, seed=3), resamples=0)
    for scored in found.labels.values():
        for key, level in (("coverage_68", LEVEL_68), ("coverage_95", LEVEL_95)):
            sigma = np.sqrt(level * (1 - level) / scored.n)
            # a t plus the label's Gaussian is not an exact t: half a point on top of 4 sigma
            assert abs(scored[key] - level) < 4 * sigma + 0.005
        assert scored["pit_distance"] < 1.95 / np.sqrt(scored.n) + 0.005
        if np.isinf(dof):
            assert scored["std_z"] == pytest.approx(1, abs=4 / np.sqrt(2 * 8000))
            assert scored["robust_std_z"] == pytest.approx(1, abs=0.05)
            assert scored["std_z_without_label_error"] > scored["std_z"]
        else:  # heavy tails are not wrong errors
            assert scored["std_z"] > 1.15
    assert {one.word for one in verdict_of(found).overall.values()} == {RIGHT}


@pytest.mark.parametrize("shrink", [0.8, 1.25])
def test_wrong_errors_are_called_wrong(shrink: float) -> None:
    found = run(simulate(8000, shrink=shrink), resamples=0)
    assert {one.word for one in verdict_of(found).overall.values()} == {WRONG}
    lines = metrics_of(findings_of(found))["calibration"]["violations"]
    for name in NAMES:
        assert any(line.startswith(f"{name}: ") for line in lines)
    assert any(" at G " in line for line in lines)


def test_scores_by_hand(simulated: Simulated, validated: Validation) -> None:
    """A slow twin, star by star, in plain Python."""
    p, k = simulated.prediction, 1
    truth, error = simulated.labels.values[:, k], p.errors[:, k]
    residual = [float(a - b) for a, b in zip(p.values[:, k], truth, strict=True)]
    scored = validated.labels["logg"]
    median = float(np.median(residual))
    mad = float(np.median([abs(r - median) for r in residual]))
    both = [(float(e) ** 2 + 0.04**2) ** 0.5 for e in error]
    z = [-r / b for r, b in zip(residual, both, strict=True)]
    mean_z = sum(z) / len(z)
    assert scored.n == len(residual)
    assert scored["bias"] == pytest.approx(median)
    assert scored["rmse"] == pytest.approx((sum(r**2 for r in residual) / len(residual)) ** 0.5)
    assert scored["robust"] == pytest.approx(1.4826 * mad)
    assert scored["slope"] == pytest.approx(np.polyfit(truth, p.values[:, k], 1)[0])
    assert scored["std_z"] == pytest.approx((sum((v - mean_z) ** 2 for v in z) / len(z)) ** 0.5)
    assert scored["coverage_68"] == pytest.approx(sum(abs(v) <= 1 for v in z) / len(z))
    assert scored["sharpness"] == pytest.approx(np.median(error))
    wide = np.hypot(p.errors_95[:, k], 2 * 0.04)
    inside = sum(abs(r) <= w for r, w in zip(residual, wide, strict=True))
    assert scored["coverage_95"] == pytest.approx(inside / len(residual))
    assert validated.samples["logg"].z == pytest.approx(z)
    uniform = stats.kstest(validated.samples["logg"].pit, "uniform").statistic
    assert scored["pit_distance"] == pytest.approx(uniform)


def test_pit_is_the_probability_below_the_truth() -> None:
    one, truth = np.ones(3), np.array([5.0, 4.0, 3.0])
    sample = scores.LabelSample(np.arange(3), truth, 4 * one, 0.3 * one, 0.6 * one, 0.4 * one)
    assert sample.pit == pytest.approx(stats.norm(4, 0.5).cdf(truth), abs=1e-5)
    heavy = replace(sample, error_95=0.9 * one, label_error=0 * one).pit
    assert 0.02 > 1 - heavy[0] == pytest.approx(heavy[2])
    assert heavy[2] > stats.norm(4, 0.3).cdf(3.0)


def test_bootstrap_errors_are_those_of_theory_and_repeat(simulated: Simulated) -> None:
    fewer = replace(simulated, labels=simulated.labels.select(["fe_h"]))
    first, again = (run(fewer, resamples=200) for _ in range(2))
    p = first.labels["fe_h"]["coverage_68"]
    error = first.labels["fe_h"].error["coverage_68"]
    assert error == pytest.approx(np.sqrt(p * (1 - p) / 3500), rel=0.2)
    assert first.labels == again.labels
    # beyond 4 million resampled values there are several blocks
    sample = run(simulate(30_000), resamples=0).samples["teff"]
    bias = scores.some_scores("bias")
    blocks, at_once = (scores.score(sample, bias, n).error["bias"] for n in (200, 130))
    assert blocks == pytest.approx(at_once, rel=0.3)
    assert blocks != at_once


# --- groups, bins, missing values -----------------------------------------------------------


def test_groups_and_bins_partition_the_stars(simulated: Simulated, validated: Validation) -> None:
    flags, fe_h = simulated.prediction.flags, simulated.labels.values[:, 2]
    assert validated.n == 3500
    assert validated.groups["good"].n == int((flags == 0).sum())
    assert validated.flags["LOW_SNR"] == int((flags > 0).sum())
    assert validated.groups["metal_poor"].n == int((fe_h < -1).sum())
    for axis, by_label in validated.bins.items():
        for row in by_label.values():
            assert sum(one.scores.n for one in row) == 3500, axis
    one = next(b for b in validated.bins["logg"]["teff"] if b.low == 2.0)
    inside = (validated.axes["logg"] >= 2.0) & (validated.axes["logg"] < 2.5)
    assert one.high == 2.5
    assert one.scores.n == int(inside.sum())
    sample = validated.samples["teff"]
    assert one.scores["coverage_68"] == pytest.approx(sample.inside_68[inside].mean())


def test_rows_of_one_star_count_once_in_a_bin(simulated: Simulated, validated: Validation) -> None:
    twice, known = np.arange(3500) // 2, simulated.labels.values[:, NAMES.index("fe_h")]
    found = run(simulated, star=twice).bins["fe_h"]["teff"]
    for one, other in zip(found, validated.bins["fe_h"]["teff"], strict=True):
        inside = (known >= one.low) & (known < one.high)
        assert one.different == len({*twice[inside].tolist()}) <= other.different
        assert other.different == one.scores.n == inside.sum()


def test_missing_values_leave_only_their_label_out(simulated: Simulated) -> None:
    values, errors = simulated.labels.values.copy(), simulated.labels.errors.copy()
    values[:1000, 2] = errors[:1000, 2] = values[:100] = values[:, 3] = np.nan
    predicted = simulated.prediction.values.copy()
    predicted[100:150] = np.nan
    prediction = replace(simulated.prediction, values=predicted)
    found = run(replace(simulated, labels=Labels(NAMES, values, errors), prediction=prediction))
    assert found.n == found.labels["teff"].n == 3350
    assert found.labels["fe_h"].n == 2500
    metrics = json.loads(json.dumps(metrics_of(findings_of(found)), allow_nan=False))
    assert metrics["labels"]["alpha_m"]["n"] == 0
    assert metrics["labels"]["alpha_m"]["rmse"] is None
    assert "alpha_m" not in metrics["verdict"]["labels"]
    assert "-" in scores_text(found)


def test_some_stars_and_labels_in_another_order(
    simulated: Simulated, validated: Validation
) -> None:
    found = run(replace(simulated, labels=simulated.labels.select(["fe_h", "teff"])))
    assert found.names == ("teff", "fe_h")
    assert found.labels["teff"] == validated.labels["teff"]
    found = run(simulated, selection_text="Teff < 5000 K")
    assert metrics_of(findings_of(found))["settings"]["selection"] == "Teff < 5000 K"
    # a flag of the whole table does not empty the group of good stars
    flags = simulated.prediction.flags | np.uint32(Flag.NO_CORRELATIONS)
    found = run(replace(simulated, prediction=replace(simulated.prediction, flags=flags)))
    assert found.groups["good"].n == int((simulated.prediction.flags == 0).sum())
    assert found.flags["NO_CORRELATIONS"] == 3500


@settings(deadline=None, max_examples=3)
@given(st.integers(0, 2**31))
def test_scores_do_not_depend_on_the_order_of_stars(seed: int) -> None:
    s = simulate(400, seed=1)
    order = np.random.default_rng(seed).permutation(400)
    columns = (s.prediction, s.labels, s.g_mag, s.bp_rp)
    shuffled = Simulated(*(column[order] for column in columns))
    first, second = run(s, resamples=0), run(shuffled, resamples=0)
    for name in NAMES:
        assert second.labels[name].value == pytest.approx(first.labels[name].value, rel=1e-9)


def test_text_is_aligned_and_states_n_and_units(validated: Validation) -> None:
    lines = scores_text(validated).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "teff [K]" in lines[0]
    assert "3500" in lines[2]
    assert len(lines) == 3 + len(scores.SCORES) + 1  # and one without probably wrong labels
    assert scores_text(validated, "metal_poor").startswith("[Fe/H] < -1")


# --- bad input ------------------------------------------------------------------------------


def test_rows_that_do_not_match_or_have_nothing_in_common(simulated: Simulated) -> None:
    other = Labels(("c_fe",), np.zeros((3500, 1)), np.ones((3500, 1)))
    unknown = Labels(NAMES, np.full((3500, 4), np.nan), simulated.labels.errors)
    for message, change in (
        ("3500 stars are predicted but there are 3499 rows of lab", {"labels": unknown[1:]}),
        ("10 rows of g_mag", {"g_mag": np.zeros(10)}),
        ("has c_fe, the model teff, logg, fe_h, alpha_m: no label in common", {"labels": other}),
        ("no star has both", {"labels": unknown}),
    ):
        with pytest.raises(InputError, match=message):
            run(replace(simulated, **change))


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_an_error_that_is_not_positive_names_star_and_column(
    simulated: Simulated, value: float
) -> None:
    errors = simulated.prediction.errors.copy()
    errors[41, 1] = value
    bad = replace(simulated.prediction, errors=errors)
    with pytest.raises(InputError, match="source_id 42, column logg_error"):
        run(replace(simulated, prediction=bad))
    errors = simulated.labels.errors.copy()
    errors[6, 0] = -1
    with pytest.raises(InputError, match="source_id 7, column teff_err:"):
        run(replace(simulated, labels=Labels(NAMES, simulated.labels.values, errors)))
