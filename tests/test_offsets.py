"""Labels of several surveys on one scale: trends, pairs measured elsewhere, a network as a tie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cn_labels
from conftest import relabelled
from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.prediction import Prediction
from xplabels.core.stars import Stars
from xplabels.surveys.offsets import PIVOT, Offset, fit_offsets, subtract
from xplabels.surveys.table import SurveyTable
from xplabels.synthetic import simulate_stars

RANDOM = np.random.default_rng(4)
TEFF = RANDOM.uniform(3800, 5200, 900)
TRUTH = RANDOM.normal(0, 0.1, 900)


def survey(
    name: str, rows: slice, offset: float = 0.0, slope: float = 0.0, scatter: float = 0.03
) -> SurveyTable:
    """Some of 900 stars with [C/Fe] off by ``offset`` and ``slope`` per 1000 K, and Teff."""
    teff, noise = TEFF[rows], np.random.default_rng(len(name)).normal(0, scatter, len(TEFF[rows]))
    values = TRUTH[rows] + offset + slope * (teff - PIVOT) / 1000 + noise
    labels = Labels(("c_fe",), values[:, None], np.full((len(values), 1), scatter))
    return SurveyTable(name, name, np.arange(900)[rows] + 1, {"teff": teff}, labels)


def test_surveys_without_common_stars_are_tied_by_a_network() -> None:
    one, other = survey("one", slice(0, 400)), survey("other", slice(400, 700), 0.08, 0.1)
    network = survey("network", slice(0, 900), -0.03, scatter=0.05)
    with pytest.raises(InputError, match="tied"):
        fit_offsets([one, other])
    found = {offset.survey: offset for offset in fit_offsets([one, other, network], trends=True)}
    for name, offset, slope in (("other", 0.08, 0.1), ("network", -0.03, 0.0)):
        assert abs(found[name].value - offset) < 4 * found[name].error
        assert abs(found[name].slope - slope) < 4 * found[name].slope_error
        assert found[name].slope_error < 0.02
    mended = subtract(other, list(found.values()))
    residual = mended.labels.values[:, 0] - TRUTH[400:700]
    warm = (TEFF[400:700] - PIVOT) / 1000
    assert abs(np.median(residual)) < 0.02
    assert abs(np.polyfit(warm, residual, 1)[0]) < 0.03


def test_a_pair_measured_elsewhere_counts_by_its_error() -> None:
    reference = SurveyTable(
        "reference", "", np.empty(0, np.int64), labels=Labels(("c_fe",), *np.empty((2, 0, 1)))
    )
    one, network = survey("one", slice(0, 400)), survey("network", slice(0, 900), 0.2)

    def measured(name: str, value: float, error: float) -> Offset:
        return Offset(name, "c_fe", "reference", value, error, 50, 0.05, np.nan)

    sure = fit_offsets([reference, one, network], [measured("one", 0.1, 0.01)])
    assert [round(offset.value, 1) for offset in sure] == [0.1, 0.3]
    assert sure[0].error == pytest.approx(0.01)
    both = [measured("one", 0.1, 0.01), measured("network", 0.5, 0.01)]
    shared = fit_offsets([reference, one, network], both)
    assert shared[0].value == pytest.approx(0.2, abs=0.01)  # the two halve what they disagree by


def test_without_trends_there_is_no_slope() -> None:
    one, other = survey("one", slice(0, 400)), survey("other", slice(0, 400), 0.0, 0.2)
    (found,) = fit_offsets([one, other])
    assert (found.slope, found.slope_error) == (0.0, 0.0)
    assert "1000 K" not in found.to_text()
    (found,) = fit_offsets([one, other], trends=True)
    assert "per 1000 K" in found.to_text()


# --- tools/cn_labels.py: the labels of the shipped model ------------------------------------


def a_library(count: int) -> tuple[Stars, np.ndarray]:
    """Stars with four labels, and C and N that no table has."""
    names = ("teff", "logg", "fe_h", "c_fe", "n_fe", "alpha_m")
    stars, truth = simulate_stars(count, labels=names, widths=(6, 5), seed=6)
    four = stars.labels.select(("teff", "logg", "fe_h", "alpha_m"))
    return stars.with_labels(four), truth.values[:, 3:5]


def test_releases_come_to_dr17_s_scale_with_errors_of_their_own(tmp_path: Path) -> None:
    """Made: each release off by what was measured and a trend, one of them noisier."""
    stars, truth = a_library(1500)
    warm = (stars.labels.values[:, 0] - PIVOT) / 1000
    release = np.array(["DR12", "DR13", "DR16raw"])[np.arange(1500) % 3]
    random = np.random.default_rng(8)
    off = np.array([cn_labels.FROM_DR17[name][:2] for name in release])
    off[release == "DR12", 1] += -0.15 * warm[release == "DR12"]
    noise = np.where(release == "DR12", 0.12, 0.03)[:, None] * random.normal(size=(1500, 2))
    made = truth + off + noise
    path = tmp_path / "cn.csv"
    path.write_text(
        "source_id,c_fe,n_fe,release\n"
        + "".join(
            f"{i},{c},{n},{r}\n"
            for i, (c, n), r in zip(stars.source_id, made, release, strict=True)
        )
    )

    def predict(six: Stars) -> Prediction:
        """As a network that learned the truth, with an error of 0.05 dex."""
        blank = np.full((1500, 6), 0.05)
        values = six.labels.values.copy()
        values[:, 3:5] = truth + random.normal(0, 0.05, truth.shape)
        return Prediction(
            six.source_id, six.labels.names, values, blank, blank, blank, blank, 2 * blank,
            np.ones(1500), np.zeros(1500, np.uint32),
        )  # fmt: skip

    six, offsets, errors = cn_labels.with_cn(stars, path, predict)
    assert six.labels.names == cn_labels.ORDER
    residual = six.labels.select(cn_labels.NAMES).values - truth
    assert np.abs(np.median(residual, axis=0)).max() < 0.02
    some = release == "DR12"
    assert abs(np.polyfit(warm[some], residual[some, 1], 1)[0]) < 0.06
    (trend,) = (o for o in offsets if (o.survey, o.label) == ("DR12", "n_fe"))
    assert abs(trend.slope + 0.15) < 4 * trend.slope_error
    assert errors["DR12"][0] > 2.5 * errors["DR13"][0]
    assert errors["DR16raw"][0] == pytest.approx(cn_labels.PUBLISHED[0], abs=0.015)
    np.testing.assert_array_equal(six.labels.errors[some, 3], errors["DR12"][0])
    assert any("DR12 minus DR17, n_fe" in note for note in six.notes)


def test_stars_without_a_row_have_neither(tmp_path: Path) -> None:
    stars, _ = a_library(40)
    path = tmp_path / "cn.csv"
    path.write_text(f"source_id,c_fe,n_fe,release\n{stars.source_id[7]},0.1,0.2,DR13\n")
    errors = {"DR13": [0.03, 0.05]}
    six = cn_labels.on_one_scale(stars, path, [], errors)
    known = np.isfinite(six.labels.values[:, 3])
    assert np.flatnonzero(known).tolist() == [7]
    assert six.labels.values[7, 3:5].tolist() == [0.1, 0.2]
    assert six.labels.errors[7, 3:5].tolist() == errors["DR13"]
    same = relabelled(stars, stars.labels.values)
    np.testing.assert_array_equal(six.labels.select(same.labels.names).values, same.labels.values)
