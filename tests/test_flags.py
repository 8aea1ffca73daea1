"""The flags and the rule of ``good``: documented, monotone, each fired and not fired.

What fires ``LABEL_UNDEFINED`` and ``POOR_FIT`` is tested with what decides them.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xplabels.core.flags import (
    ABOUT,
    BAD,
    MEANING,
    UNUSABLE,
    Flag,
    describe,
    is_good,
    missing_input,
)
from xplabels.core.prediction import Prediction
from xplabels.core.stars import MEASUREMENTS, Band, CoefficientSpectra, Photometry, Stars
from xplabels.features import AUXILIARY, FeatureSet
from xplabels.io import read, write_stars
from xplabels.io.tables import join_photometry
from xplabels.model import Model

masks = st.integers(0, 2 * max(Flag) - 1)


def test_every_flag_is_a_bit_of_its_own_and_described() -> None:
    assert [flag.value for flag in Flag] == [1 << bit for bit in range(len(Flag))]
    assert set(ABOUT) == set(MEANING) == set(Flag)
    assert all(about.meaning and about.advice for about in ABOUT.values())
    lines = describe().splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == [flag.name for flag in Flag]
    assert [line.endswith("[not good]") for line in lines] == [bool(flag & BAD) for flag in Flag]


def test_what_is_only_a_remark() -> None:
    remarks = {flag.name for flag in Flag if is_good(np.array([flag]))[0]}
    inputs = {missing_input(name).name for name in AUXILIARY}
    assert inputs <= remarks
    assert {flag for flag in remarks - inputs if not str(flag).startswith("MISSING_")} == {
        "NO_CORRELATIONS", "LABEL_UNDEFINED", "HIGH_RUWE", "BLENDED_TRANSITS", "BAD_EXCESS_FACTOR",
        "OTHER_BASIS",
    }  # fmt: skip
    assert UNUSABLE & BAD == UNUSABLE


@given(st.lists(masks, min_size=1, max_size=20), masks)
def test_good_is_monotone(flags: list[int], more: int) -> None:
    before = is_good(np.array(flags, np.uint32))
    after = is_good(np.array(flags, np.uint32) | np.uint32(more))
    assert not (after & ~before).any()
    assert not after.any() or not more & BAD
    # remarks change nothing
    assert np.array_equal(is_good(np.array(flags) | (more & ~int(BAD))), before)


@pytest.mark.parametrize("kind", [np.uint32, np.int64, np.uint64])
def test_the_type_of_the_column_does_not_matter(kind: type[np.integer]) -> None:
    every = np.array([0, *(int(flag) for flag in Flag)], kind)
    assert is_good(every).tolist() == [True, *(not flag & BAD for flag in Flag)]


# Each flag fired by the first star, and not by the others ---------------------------------------

ELSEWHERE = {Flag.LABEL_UNDEFINED, Flag.POOR_FIT, Flag.OTHER_BASIS}
COLOURS = {missing_input(name): name for name in AUXILIARY}


def with_bands(stars: Stars, change: Callable[[Band, Band], object]) -> Stars:
    """A copy of the stars whose bands ``change`` has been at."""
    spectra = deepcopy(stars.spectra)
    assert isinstance(spectra, CoefficientSpectra)
    change(spectra.bp, spectra.rp)
    return Stars.of(stars.source_id, spectra, stars.photometry)


def lost(band: Band) -> None:
    for array in (band.coefficients, band.errors, band.correlations):
        assert array is not None
        array[0] = np.nan


def put(array: np.ndarray, value: float) -> None:
    array[0] = value


SPOILT: dict[Flag, Callable[[Band, Band], object]] = {
    Flag.MISSING_BP: lambda bp, rp: lost(bp),
    Flag.MISSING_RP: lambda bp, rp: lost(rp),
    Flag.NO_PREDICTION: lambda bp, rp: put(bp.coefficients, np.inf),
    Flag.LOW_SNR: lambda bp, rp: put(rp.errors[:, 0], 0.2 * rp.coefficients[0, 0]),
    Flag.ZERO_NORMALISATION: lambda bp, rp: put(rp.coefficients[:, 0], 0.0),
    Flag.OUT_OF_DOMAIN: lambda bp, rp: put(bp.coefficients, 3 * np.abs(bp.coefficients).max()),
}
GAIA: dict[Flag, str] = {
    Flag.HIGH_RUWE: "ruwe\n{id},1.41\n{other},1.39",
    Flag.BLENDED_TRANSITS: "phot_bp_n_obs,phot_rp_n_obs,phot_bp_n_blended_transits,"
    "phot_rp_n_blended_transits\n{id},20,20,12,9\n{other},20,20,11,9",
    Flag.BAD_EXCESS_FACTOR: "phot_bp_rp_excess_factor,bp_rp\n{id},1.5,0.8\n{other},1.2,0.8",
}


def fired(flag: Flag, stars: Stars, model: Model, folder: Path) -> Prediction:
    """A prediction of four stars of which the first has reason for the flag."""
    if flag in SPOILT:
        return model.predict(with_bands(stars, SPOILT[flag]))
    if flag in GAIA:
        ids = {"id": stars.source_id[0], "other": stars.source_id[1]}
        (folder / "gaia.csv").write_text("source_id," + GAIA[flag].format(**ids) + "\n")
        return model.predict(join_photometry(stars, folder / "gaia.csv"))
    if flag is Flag.BAD_ROW:
        write_stars(with_bands(stars, lambda bp, rp: put(bp.errors, -1.0)), folder / "s.parquet")
        return model.predict(read(folder / "s.parquet", bad_rows="flag"))
    if flag is Flag.LABEL_OUT_OF_RANGE:
        teff = model.predict(stars).values[:, 0]
        label_range = np.array([[np.sort(teff)[0] + 1e-3, 1e9], [-1e9, 1e9]])
        order = np.argsort(teff)
        return replace(model, label_range=label_range).predict(stars[order])
    if flag is Flag.VARIANCE_CLAMPED:
        network = deepcopy(model.networks[0])
        network.arrays["out.bias"][2] = 100.0
        clamped = replace(model, networks=(network,)).predict(stars).flags
        flags = np.where(np.arange(4) == 0, clamped, model.predict(stars).flags)
        return replace(model.predict(stars), flags=flags.astype(np.uint32))
    if flag is Flag.NO_CORRELATIONS:
        bands = [Band(b.coefficients, b.errors) for b in (stars.spectra.bp, stars.spectra.rp)]
        bare = Stars.of(stars.source_id, CoefficientSpectra(*bands), stars.photometry)
        flags = np.where(np.arange(4) == 0, bare.flags, stars.flags).astype(np.uint32)
        return model.predict(replace(stars, flags=flags))
    measurement = {Flag.MISSING_PARALLAX: "parallax", Flag.MISSING_PHOTOMETRY: "h_m"}[flag]
    values = stars.photometry.values.copy()
    values[0, MEASUREMENTS.index(measurement)] = np.nan
    return model.predict(stars.with_photometry(Photometry(values, stars.photometry.errors)))


@pytest.mark.parametrize("flag", [f for f in Flag if f not in ELSEWHERE and f not in COLOURS])
def test_each_flag_is_fired_by_its_reason_and_by_nothing_else(
    flag: Flag, small_model: Model, small_stars: Stars, tmp_path: Path
) -> None:
    usual = small_stars[small_model.predict(small_stars).flags == 0][slice(0, 4)]
    prediction = fired(flag, usual, small_model, tmp_path)
    assert ((prediction.flags & flag) > 0).tolist() == [True, False, False, False]
    assert prediction.good.tolist() == [not flag & BAD, True, True, True]
    assert np.isnan(prediction.values[0]).all() == bool(flag & UNUSABLE)


@pytest.mark.parametrize("flag", COLOURS)
def test_the_missing_colour_is_named(flag: Flag, small_stars: Stars) -> None:
    name = COLOURS[flag]
    features = FeatureSet((6, 5), tuple(AUXILIARY))
    stars = small_stars[slice(0, 3)]
    assert not (features.compute(stars).flags & flag).any()
    for measurement in MEASUREMENTS:
        values = stars.photometry.values.copy()
        values[1, MEASUREMENTS.index(measurement)] = np.nan
        lacking = stars.with_photometry(Photometry(values, stars.photometry.errors))
        found = (features.compute(lacking).flags & flag) > 0
        assert found.tolist() == [False, measurement in AUXILIARY[name], False]
    # an input that the model does not take is not missed
    others = FeatureSet((6, 5), tuple(other for other in AUXILIARY if other != name))
    bare = stars.with_photometry(Photometry.missing(3))
    assert not (others.compute(bare).flags & flag).any()


def test_every_flag_has_its_case() -> None:
    cases = {*SPOILT, *GAIA, *COLOURS, *ELSEWHERE}
    assert {flag.name for flag in set(Flag) - cases} == {
        "BAD_ROW", "LABEL_OUT_OF_RANGE", "VARIANCE_CLAMPED", "NO_CORRELATIONS",
        "MISSING_PHOTOMETRY", "MISSING_PARALLAX",
    }  # fmt: skip
