"""The audit of labels: planted wrong ones are found, right ones left alone, probabilities hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conftest import fitted, quick, relabelled, two_label_stars, weights
from simulated_predictions import NAMES, Simulated, simulate
from xplabels.api.validation import validate
from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.labels import Labels
from xplabels.core.split import part_mask
from xplabels.io import write_stars
from xplabels.io.catalogue import FORMATS, write_table
from xplabels.model import Model
from xplabels.validation import audit, score_prediction
from xplabels.validation.accuracy import findings_of
from xplabels.validation.audit import WRONG, LabelAudit, audit_labels, fit_shares
from xplabels.validation.finding import metrics_of, text_of

FALSE = 0.003
"""Share of rightly labelled stars that may be called wrong."""


def planted(
    n: int = 20_000, *, dof: float = 5.0, common: bool = True, seed: int = 0, share: float = 0.02
) -> tuple[Simulated, np.ndarray]:
    """Stars of which a share have labels of another star: half of them all, half a single one.

    Right labels scatter about the prediction as it says, as about the mean of a posterior; their
    tails are ``common`` to the labels of a star or of each label's own.
    """
    simulated, rng = simulate(n, seed=seed, dof=dof), np.random.default_rng(seed + 1)
    prediction = simulated.prediction
    noise = rng.normal(size=prediction.errors.shape)
    if not np.isinf(dof):
        noise /= np.sqrt(rng.chisquare(dof, (n, 1 if common else len(NAMES))) / dof)
        noise /= stats.t(dof).ppf((1 + audit.LEVEL_68) / 2)
    off = prediction.errors * noise + simulated.labels.errors * rng.normal(size=noise.shape)
    values = prediction.values + off
    values[:, 0] = prediction.values[:, 0] * np.exp(off[:, 0] / prediction.values[:, 0])
    wrong = rng.random(n) < share
    rows = np.flatnonzero(wrong)
    other, taken = rng.permutation(n)[: len(rows)], rng.integers(0, 2 * len(NAMES), len(rows))
    for k in range(len(NAMES)):
        chosen = (taken == k) | (taken >= len(NAMES))
        values[rows[chosen], k] = values[other[chosen], k]
    return replace(simulated, labels=replace(simulated.labels, values=values)), wrong


def audited(simulated: Simulated) -> LabelAudit:
    return audit_labels(simulated.prediction, simulated.labels)


@pytest.mark.parametrize(
    ("dof", "common", "purity", "completeness"),
    [(5.0, True, 0.83, 0.53), (5.0, False, 0.75, 0.46), (np.inf, True, 0.93, 0.65)],
)
def test_planted_wrong_labels_are_found(
    dof: float, common: bool, purity: float, completeness: float
) -> None:
    """Four standard errors below .88, .84, .98 and .60, .52, .71; the rest are labels like right
    ones, which nobody can tell."""
    simulated, wrong = planted(dof=dof, common=common)
    found = audited(simulated)
    assert wrong[found.wrong].mean() > purity
    assert found.wrong[wrong & found.judged].mean() > completeness
    assert found.wrong[~wrong].mean() < FALSE


def test_a_probability_is_the_share_of_such_stars_that_are_wrong() -> None:
    each = [planted(seed=seed) for seed in (0, 10)]
    wrong = np.concatenate([planted for _, planted in each])
    probability = np.concatenate([audited(simulated).probability for simulated, _ in each])
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.01)):
        here = (probability >= low) & (probability < high)
        expected = probability[here].mean()
        sigma = np.sqrt(expected * (1 - expected) / here.sum())
        assert here.sum() > 50
        assert abs(wrong[here].mean() - expected) < 0.05 + 3.5 * sigma


def test_correlated_errors_are_judged_together() -> None:
    """Both labels off by 4 sigma along the correlation, and across it."""
    simulated = simulate(2000, dof=np.inf)
    rng, n = np.random.default_rng(3), 2000
    corr = np.full((n, 6), 0.0)
    corr[:, 2] = 0.95  # of log g and [Fe/H]
    prediction = replace(simulated.prediction, correlations=corr, flags=np.zeros(n, np.uint32))
    z = rng.normal(size=(n, 2)) @ np.linalg.cholesky([[1, 0.95], [0.95, 1]]).T
    z[0], z[1] = (3.5, 3.5), (3.5, -3.5)
    values = prediction.values.copy()
    values[:, 1:3] += z * prediction.errors[:, 1:3]
    labels = Labels(NAMES, values, np.full_like(values, 1e-6))
    probability = audit_labels(prediction, labels).probability
    assert probability[0] < WRONG < 0.99 < probability[1]


def test_densities_are_those_of_a_slow_twin() -> None:
    rng = np.random.default_rng(0)
    z, dof = rng.normal(0, 3, (6, 3)), rng.uniform(3, 9, (6, 3))
    factor = rng.normal(size=(6, 3, 3))
    matrix = factor @ factor.transpose(0, 2, 1) + np.eye(3)
    scale = np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))
    correlation = matrix / scale[:, :, None] / scale[:, None, :]
    present = np.ones((6, 3), bool)
    present[2:, 1] = False
    found = audit._log_t(np.where(present, z, np.nan), dof, correlation, present)
    for row in range(6):
        some = np.flatnonzero(present[row])
        part, off = correlation[row][np.ix_(some, some)], z[row, some]
        shared = 1 / np.mean(1 / dof[row, some])
        together = stats.multivariate_t(shape=part, df=shared).pdf(off)
        values, axes = np.linalg.eigh(part)
        own = axes @ np.diag(values**-0.5) @ axes.T @ off
        apart = np.prod(stats.t(dof[row, some]).pdf(own)) / np.sqrt(np.linalg.det(part))
        assert np.exp(found[row]) == pytest.approx((together + apart) / 2, rel=1e-9)


def test_shares_are_those_of_a_slow_twin() -> None:
    rng = np.random.default_rng(1)
    cause = rng.random(800) < 0.1
    x = np.where(cause, rng.uniform(-10, 10, 800), rng.normal(size=800))
    logs = np.stack([stats.norm.logpdf(x), np.full(800, -np.log(20))], axis=1)
    causes, shares = fit_shares(logs)
    share = audit.PRIOR_SHARE
    for _ in range(300):
        wrong, right = share * np.exp(logs[:, 1]), (1 - share) * np.exp(logs[:, 0])
        each = [w / (w + r) for w, r in zip(wrong, right, strict=True)]
        share = (sum(each) + audit.PRIOR_STARS * audit.PRIOR_SHARE) / (800 + audit.PRIOR_STARS)
    assert shares[1] == pytest.approx(share, abs=1e-5)
    np.testing.assert_allclose(causes[:, 1], each, atol=1e-4)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(2, 400))
def test_the_order_of_stars_does_not_matter_and_unknown_labels_have_no_probability(
    seed: int, n: int
) -> None:
    simulated, _ = planted(n, seed=seed)
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((n, 4)) < 0.3, np.nan, simulated.labels.values)
    labels = replace(simulated.labels, values=values)
    found = audit_labels(simulated.prediction, labels)
    order = rng.permutation(n)
    again = audit_labels(simulated.prediction[order], labels[order])
    np.testing.assert_allclose(again.probability, found.probability[order], atol=1e-6)
    judged = found.probability[found.judged]
    assert ((judged >= 0) & (judged <= 1)).all()
    unknown = np.isnan(values)[found.judged]
    np.testing.assert_array_equal(np.isnan(found.by_label[found.judged]), unknown)
    by_label = np.nan_to_num(found.by_label[found.judged]).max(axis=1, initial=0)
    assert (by_label <= judged + 1e-9).all()


@pytest.fixture(scope="module")
def spoilt() -> Simulated:
    """Two stars with labels far off, one of them with a spectrum that is not to be trusted."""
    simulated, _ = planted(600, dof=np.inf, share=0.0)
    flags = np.zeros(600, np.uint32)
    flags[1] = Flag.OUT_OF_DOMAIN
    labels = simulated.labels.values.copy()
    labels[:2, 0] = 15_000.0
    return replace(
        simulated, prediction=replace(simulated.prediction, flags=flags),
        labels=replace(simulated.labels, values=labels),
    )  # fmt: skip


def test_a_strange_spectrum_says_nothing_about_a_label(spoilt: Simulated) -> None:
    found = audited(spoilt)
    assert np.flatnonzero(found.wrong).tolist() == [0]
    assert found.reason(0).startswith("label disagrees with the spectrum in teff by ")
    assert np.isnan(found.probability[1])
    assert found.reason(1).endswith("(see domain_distance): label not judged")
    ratio = np.log(spoilt.labels.values[0, 0] / spoilt.prediction.values[0, 0])
    error = np.hypot(
        spoilt.prediction.errors[0, 0] / spoilt.prediction.values[0, 0],
        spoilt.labels.errors[0, 0] / spoilt.labels.values[0, 0],
    )
    assert found.sigma[0, 0] == pytest.approx(ratio / error)


@pytest.mark.parametrize("n", [1, 2, 500])
def test_one_label_for_all_stars_of_a_cluster_is_not_wrong(n: int) -> None:
    """The known [Fe/H] of all is the same: a spike is no evidence against it."""
    simulated = simulate(2000, seed=4)
    same = simulated.labels.values.copy()
    k = NAMES.index("fe_h")
    same[:, k] = np.median(same[:, k])
    near = np.abs(simulated.prediction.values[:, k] - same[:, k])
    near[~simulated.prediction.good] = np.nan
    rows = np.argsort(near)[:n]  # whose predictions scatter by less than their errors
    found = audit_labels(
        simulated.prediction[rows], Labels(NAMES, same, simulated.labels.errors)[rows]
    )
    assert np.nanmax(found.by_label[:, k]) < 0.05


def test_a_label_that_is_undefined_for_all_stars_is_no_trouble() -> None:
    simulated = simulate(1500, seed=5)
    values = simulated.prediction.values.copy()
    values[:, -1] = np.nan
    found = audit_labels(replace(simulated.prediction, values=values), simulated.labels)
    assert np.isnan(found.by_label[:, -1]).all()
    assert found.judged.mean() > 0.9


def test_scores_are_given_with_and_without_wrong_labels(spoilt: Simulated) -> None:
    validation = score_prediction(spoilt.prediction, spoilt.labels, resamples=10)
    found = findings_of(validation)
    metrics, text = metrics_of(found), text_of(found)
    assert metrics["label_audit"]["probably_wrong"] == 1
    assert metrics["label_audit"]["judged"] == 599
    assert metrics["label_audit"]["worst"][0]["source_id"] == 1
    with_them, without = (
        metrics["labels"]["teff"], metrics["rightly_labelled"]["labels"]["teff"]
    )  # fmt: skip
    assert (with_them["n"], without["n"]) == (600, 599)
    assert with_them["rmse"] > 1.3 * without["rmse"]
    assert "rmse without 1 stars whose label is probably wrong" in text
    assert any(one.section and one.section.anchor == "label_audit" for one in found)


@pytest.mark.filterwarnings("ignore:No table..len")
@pytest.mark.parametrize("ending", FORMATS)
def test_the_table_is_written_in_every_format(
    ending: str, spoilt: Simulated, tmp_path: Path
) -> None:
    table = audited(spoilt).to_arrow()
    write_table(table, tmp_path / f"audit{ending}")
    kind = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".vot": "votable"}.get(ending)
    found = Table.read(tmp_path / f"audit{ending}", format=kind)
    assert found["source_id"][0] == 1
    assert found["teff_known"][0] == 15_000.0
    assert "teff by" in str(found["reason"][0])
    assert "not judged" in str(found["reason"][-1])


# --- training ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mislabelled() -> tuple:
    """Stars a fiftieth of which have a label far off, and which."""
    stars = two_label_stars()
    rows = np.random.default_rng(4).permutation(len(stars))[:14]
    values = stars.labels.values.copy()
    values[rows, 0] += 3000.0
    return relabelled(stars, values), stars.source_id[rows]


LEARNT = quick(
    calibration_folds=2, hidden=(32, 32), epochs=25, learning_rate=5e-3, dropout=0.0,
    scatter="none",
)  # fmt: skip


def test_training_lists_wrong_labels_and_may_leave_them_out(mislabelled, tmp_path: Path) -> None:
    stars, wrong = mislabelled
    kept = fitted(stars, LEARNT)
    left_out = fitted(
        stars, replace(LEARNT, wrong_labels="leave_out"), checkpoint=tmp_path / "states"
    )
    train = part_mask(stars.source_id, "train", 0.1)
    for model in (kept, left_out):
        lines = model.label_audit.splitlines()
        assert lines[0].startswith("source_id,probability,reason,teff_known,teff_known_error,teff,")
        rows = [line.split(",") for line in lines[1:]]
        named = {int(row[0]) for row in rows if float(row[1]) > WRONG}
        unseen = wrong[np.isin(wrong, stars.source_id[~part_mask(stars.source_id, "test", 0.1)])]
        assert len(set(unseen.tolist()) & named) >= 0.7 * len(unseen) > 2
        assert len(named - set(wrong.tolist())) <= 0.02 * len(stars)
    n = [model.metadata["training"]["n_train"] for model in (kept, left_out)]
    assert n[0] == train.sum()
    assert 2 < n[0] - n[1] < 0.03 * n[0]
    assert f"{n[0] - n[1]} training stars whose label is probably wrong" in left_out.card
    assert not np.array_equal(weights(kept), weights(left_out))
    # from the states of the finished run: the same folds name the same stars
    again = fitted(stars, replace(LEARNT, wrong_labels="leave_out"), checkpoint=tmp_path / "states")
    np.testing.assert_array_equal(weights(again), weights(left_out))


def test_the_table_stays_with_the_model(mislabelled, tmp_path: Path) -> None:
    model = fitted(mislabelled[0])
    model.save(tmp_path / "model")
    assert (tmp_path / "model" / "label_audit.csv").read_text() == model.label_audit
    loaded = Model.load(tmp_path / "model")
    loaded.save(tmp_path / "again")
    assert Model.load(tmp_path / "again").label_audit == model.label_audit
    replace(loaded, label_audit="").save(tmp_path / "model", overwrite=True)
    assert not (tmp_path / "model" / "label_audit.csv").exists()
    assert Model.load(tmp_path / "model").label_audit == ""
    (tmp_path / "again" / "label_audit.csv").write_text("nothing\n")
    with pytest.raises(InputError, match="was altered"):
        Model.load(tmp_path / "again")


def test_the_command(mislabelled, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stars, _ = mislabelled
    model = fitted(stars, LEARNT)
    model.save(tmp_path / "model")
    write_stars(stars, tmp_path / "stars.parquet")
    words = ["audit", str(tmp_path / "model"), str(tmp_path / "stars.parquet"), "--output"]
    assert main([*words, str(tmp_path / "wrong.csv")]) == 0
    unseen = ~part_mask(stars.source_id, "train", 0.1)
    assert "stars judged" in capsys.readouterr().out
    ids = np.loadtxt(tmp_path / "wrong.csv", np.int64, delimiter=",", skiprows=1, usecols=0)
    assert np.isin(ids, stars.source_id[unseen]).all()
    assert main([*words, str(tmp_path / "wrong.csv")]) == 2  # it exists
    trained = stars[~unseen]
    write_stars(trained, tmp_path / "trained.parquet")
    words[2] = str(tmp_path / "trained.parquet")
    assert main([*words, str(tmp_path / "w.csv")]) == 2
    assert "every star is in the model's training part" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "w.ecsv"), "--all"]) == 0
    result = validate(model, stars, all_stars=True)
    assert result.metrics["label_audit"]["probably_wrong"] > 10
    assert "whose label is probably wrong" in str(result)
