"""Reddening: dust put before a real spectrum, one wavelength at a time."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from xplabels.core.errors import InputError
from xplabels.core.labels import Labels
from xplabels.core.stars import Photometry, SampledSpectra, Stars
from xplabels.features import EXTINCTION_SLOPE, FeatureSet
from xplabels.features.projection import default_projection
from xplabels.features.scaling import Scaling
from xplabels.instrument import extinction
from xplabels.network.propagation import Block
from xplabels.training.augmentation import Dust

pytest.importorskip("gaiaxpy")
pytest.importorskip("dust_extinction")

AUXILIARY = ("bp_rp", "j_h", "w1_w2", "h_w2", "m_pseudo")


@pytest.fixture(scope="module")
def sampled() -> Stars:
    """Black bodies at five temperatures, sampled, with photometry."""
    wavelength = default_projection().wavelength
    temperature = np.array([3500.0, 4500.0, 5500.0, 6500.0, 9000.0])[:, None]
    flux = wavelength**-5.0 / np.expm1(1.4388e7 / (wavelength * temperature))
    flux = 1e-15 * flux / flux.mean(axis=1, keepdims=True)
    magnitudes = np.tile(np.linspace(12.0, 10.0, 9), (5, 1))
    return Stars.of(
        np.arange(1, 6),
        SampledSpectra(wavelength, flux, 1e-3 * flux),
        Photometry(magnitudes, np.full((5, 9), 0.01)),
        Labels(("teff",), temperature, np.full((5, 1), 10.0)),
    )


@pytest.fixture(scope="module")
def parts(sampled):
    features = FeatureSet.for_stars(sampled, AUXILIARY)
    computed = features.compute(sampled)
    random = np.random.default_rng(1)
    spread = computed.x * (1 + 0.1 * random.standard_normal(computed.x.shape))
    scaling = Scaling.fit(spread, sampled.labels.values)
    dust = Dust(sampled, computed, features, scaling, features.projection)
    return features, scaling, dust, Block.of(computed, features, scaling, torch.float32)


def reddened(parts, a_v: float) -> np.ndarray:
    """Unscaled inputs of the five stars behind ``a_v``."""
    _, _, dust, block = parts
    block = dust.redden(block, torch.arange(5), torch.full((5,), a_v))
    return block.errors.x.numpy().astype(float)


def test_the_spectrum_is_the_one_behind_the_dust(sampled, parts) -> None:
    """The slow way: dim every sample, then take the features of that spectrum."""
    features, scaling, dust, block = parts
    a_v = np.array([0.5, -0.3, 1.0, 0.0, -0.5])
    curve, _ = extinction(sampled.spectra.wavelength)
    dimmed = sampled.spectra.flux * 10 ** (-0.4 * a_v[:, None] * curve)
    behind = replace(sampled, spectra=replace(sampled.spectra, flux=dimmed))
    wanted = scaling.scale_x(features.compute(behind).x)[:, :110]
    found = dust.redden(block, torch.arange(5), torch.tensor(a_v, dtype=torch.float32))
    np.testing.assert_allclose(found.x.numpy()[:, :110], wanted, atol=2e-2)
    assert torch.equal(found.errors.x[3], block.errors.x[3])  # without dust


def test_colours_redden_by_the_extinction_law(parts) -> None:
    bp_rp, j_h, w1_w2, h_w2, _ = (reddened(parts, 1.0) - reddened(parts, 0.0)).T[110:]
    # E(BP-RP) / A_V is about 0.4, larger for hot stars, whose flux is bluer
    assert np.all((bp_rp > 0.33) & (bp_rp < 0.50))
    assert np.all(np.diff(bp_rp) > 0)
    # E(J-H) / A_V: 0.243 - 0.131 (Wang & Chen 2019)
    np.testing.assert_allclose(j_h, 0.112, atol=0.02)
    assert np.all(np.abs(w1_w2) < 0.03)
    assert np.all((h_w2 > 0.05) & (h_w2 < 0.2))


def test_the_pseudo_absolute_magnitude_follows_its_magnitudes(parts) -> None:
    after, before = reddened(parts, 0.4), reddened(parts, 0.0)
    h_w2 = after[:, 113] - before[:, 113]
    # RP dims by less than V; the dereddening takes back what H - W2 suggests
    dimming = 5 * np.log10(after[:, 114] / before[:, 114]) + EXTINCTION_SLOPE * h_w2
    assert np.all((dimming > 0.4 * 0.5) & (dimming < 0.4 * 0.72))


def test_stars_without_a_divisor_stay_as_they_are(sampled) -> None:
    features = FeatureSet.for_stars(sampled, ("bp_rp",))
    computed = features.compute(sampled)
    scaling = Scaling.fit(computed.x, sampled.labels.values)
    broken = replace(computed, is_ratio=np.array([False, True, True, True, True]))
    dust = Dust(sampled, broken, features, scaling, features.projection)
    block = Block.of(broken, features, scaling, torch.float32)
    after = dust.redden(block, torch.arange(5), torch.ones(5))
    moved = (after.errors.x != block.errors.x).any(dim=1)
    assert moved.tolist() == [False, True, True, True, True]


def test_without_the_extinction_law_the_remedy_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "dust_extinction.parameter_averages", None)
    with pytest.raises(InputError, match="reddening = 0"):
        extinction(np.array([500.0]))
