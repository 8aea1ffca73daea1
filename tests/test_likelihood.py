"""The loss against scipy's densities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from xplabels.network.likelihood import negative_log_likelihood


def draws(seed: int = 0, n: int = 7, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.standard_normal((n, k)) * 3, random.uniform(0.05, 4, (n, k))


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.as_tensor(a, dtype=torch.float64) for a in arrays]


@pytest.mark.parametrize("dof", [1.0, 2.5, 4.0, 50.0, np.inf])
def test_it_is_scipy_s(dof) -> None:
    kind, law = ("gaussian", stats.norm()) if np.isinf(dof) else ("student_t", stats.t(dof))
    residual, variance = draws(1)
    got = negative_log_likelihood(*tensors(residual, variance), kind, dof)
    wanted = (0.5 * np.log(variance) - law.logpdf(residual / np.sqrt(variance))).mean()
    assert float(got) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("likelihood", ["gaussian", "student_t"])
def test_unknown_labels_leave_value_and_gradient(likelihood) -> None:
    residual, variance = tensors(*draws(2))
    residual[0, 1] = residual[3, :] = torch.nan
    prediction = torch.zeros_like(residual, requires_grad=True)
    variance.requires_grad_(True)
    loss = negative_log_likelihood(residual - prediction, variance, likelihood)
    loss.backward()
    known = torch.isfinite(residual)
    law = stats.norm() if likelihood == "gaussian" else stats.t(4)
    scale = variance.detach().numpy()[known.numpy()] ** 0.5
    each = -law.logpdf(residual[known].numpy() / scale) + np.log(scale)
    assert float(loss.detach()) == pytest.approx(each.mean(), rel=1e-12)
    for gradient in (prediction.grad, variance.grad):
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert (gradient[~known] == 0).all()
        assert (gradient[known] != 0).all()


def test_a_batch_without_any_label_costs_nothing() -> None:
    nothing = torch.full((2, 2), torch.nan)
    assert float(negative_log_likelihood(nothing, torch.ones(2, 2))) == 0.0
