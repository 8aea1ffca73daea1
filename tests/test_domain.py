"""Stars unlike the training set are told from stars like it."""

from __future__ import annotations

import numpy as np
import pytest

from xplabels.calibration.domain import COMPONENTS, FLAGGED_SHARE, Domain


def inside(n: int, seed: int, width: int = 60) -> np.ndarray:
    """Correlated inputs of five strong directions and weak noise in the rest."""
    directions = np.random.default_rng(0).standard_normal((5, width))
    random = np.random.default_rng(seed)
    return random.standard_normal((n, 5)) @ directions + 0.1 * random.standard_normal((n, width))


def test_one_star_in_a_hundred_like_those_trained_on_is_flagged() -> None:
    domain = Domain.fit(inside(20000, 1))
    share = (domain.distance(inside(20000, 2)) > domain.threshold).mean()
    assert share == pytest.approx(FLAGGED_SHARE, abs=4 * np.sqrt(0.01 * 0.99 / 20000) + 0.002)


def test_the_distance_of_a_training_star_is_about_one() -> None:
    domain = Domain.fit(inside(5000, 1))
    assert np.mean(domain.distance(inside(5000, 2)) ** 2) == pytest.approx(1, abs=0.05)
    assert domain.whitening.shape == (60, COMPONENTS)


@pytest.mark.parametrize("shift", ["along", "across"])
def test_stars_far_away_are_told_apart(shift) -> None:
    domain = Domain.fit(inside(5000, 1))
    strange = inside(500, 3)
    if shift == "along":
        strange *= 6
    else:
        strange += 0.8 * np.random.default_rng(4).standard_normal(60)
    far, near = domain.distance(strange), domain.distance(inside(500, 5))
    auroc = (far[:, None] > near[None, :]).mean()
    assert auroc > 0.95
    assert (far > domain.threshold).mean() > 0.8


def test_directions_without_scatter_are_left_out() -> None:
    x = inside(1000, 1)
    x[:, 7] = 0.0
    x[:, 8] = x[:, 9]
    distance = Domain.fit(x[:, :12]).distance(x[:, :12])
    assert np.isfinite(distance).all()


def test_a_distance_is_that_of_the_covariance() -> None:
    """With all components: the root mean square Mahalanobis distance about zero."""
    x = inside(800, 6, width=8)
    domain = Domain.fit(x)
    second = x.T @ x / len(x)
    wanted = np.sqrt(np.einsum("ij,jk,ik->i", x, np.linalg.inv(second), x) / 8)
    np.testing.assert_allclose(domain.distance(x), wanted, rtol=1e-6)
