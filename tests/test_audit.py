"""The audit of labels: planted wrong ones are found, right ones left alone, probabilities hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from simulated_predictions import NAMES, Simulated, simulate
from xplabels.validation.audit import LabelAudit, audit_labels

SHARE = 0.02


def planted(
    n: int = 20_000, share: float = SHARE, seed: int = 0, dof: float = 5.0, common: bool = False
) -> tuple[Simulated, np.ndarray]:
    """Stars of which some have the labels of another star: half of them all, half a single one.

    Right labels scatter about the prediction as it says, as about the mean of a posterior; their
    tails are ``common`` to the labels of a star or of each label's own.
    """
    simulated, rng = simulate(n, seed=seed, dof=dof), np.random.default_rng(seed + 1)
    prediction = simulated.prediction
    errors = prediction.errors / (1.0 if np.isinf(dof) else stats.t(dof).ppf(0.84134))
    noise = rng.normal(size=errors.shape)
    if not np.isinf(dof):
        noise /= np.sqrt(rng.chisquare(dof, (n, 1 if common else errors.shape[1])) / dof)
    off = errors * noise + simulated.labels.errors * rng.normal(size=errors.shape)
    values = prediction.values + off
    values[:, 0] = prediction.values[:, 0] * np.exp(off[:, 0] / prediction.values[:, 0])
    wrong = rng.random(n) < share
    rows = np.flatnonzero(wrong)
    other = rng.permutation(n)[: len(rows)]
    taken = rng.integers(0, 2 * len(NAMES), len(rows))
    for k in range(len(NAMES)):
        chosen = (taken == k) | (taken >= len(NAMES))
        values[rows[chosen], k] = values[other[chosen], k]
    return replace(simulated, labels=replace(simulated.labels, values=values)), wrong


def audited(simulated: Simulated) -> LabelAudit:
    return audit_labels(simulated.prediction, simulated.labels)


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("dof", [4.0, 5.0, np.inf])
def test_planted_wrong_labels_are_found(dof: float, common) -> None:
    simulated, wrong = planted(dof=dof, common=common)
    found = audited(simulated)
    named, unflagged = found.wrong, found.judged
    purity = wrong[named].mean()
    completeness = named[wrong & unflagged].mean()
    false = named[~wrong].mean()
    print(dof, common, purity, completeness, false, found.share)
    for low in np.arange(0, 1, 0.1):
        m = (found.probability >= low) & (found.probability < low + 0.1)
        print(low, m.sum(), wrong[m].mean(), found.probability[m].mean())
