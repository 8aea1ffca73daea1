"""Semi-synthetic giants: a truth imprinted through the instrument, on one side of the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("gaiaxpy")

from xplabels.cli import main
from xplabels.core.errors import InputError
from xplabels.core.split import part_mask
from xplabels.core.stars import Stars
from xplabels.features import EXTINCTION_SLOPE, RP_OVER_V
from xplabels.features.projection import default_projection
from xplabels.giants import (
    MEASURED,
    NAMES,
    TRUTH_ERROR,
    Imprint,
    line_spread,
    relations,
    semi_synthetic_giants,
)
from xplabels.giants.copies import BRIGHTEST, FAINTEST, FIRST_COPY, copy_ids, farther
from xplabels.giants.emulator import emulator_labels, load_emulator
from xplabels.instrument import gaiaxpy_instrument
from xplabels.instrument.sed import Sed
from xplabels.io import read
from xplabels.surveys.library import read_library

# GaiaXPy leaves its list of photometric systems open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(scope="module")
def library() -> Stars:
    return read_library()[::120]


@pytest.fixture(scope="module")
def imprint() -> Imprint:
    return Imprint(load_emulator(), default_projection())


@pytest.fixture(scope="module")
def giants(library: Stars, imprint: Imprint) -> Stars:
    """About 200 stars and two copies of each."""
    return semi_synthetic_giants(copies=2, seed=4, library=library, emulator=imprint.emulator)


@pytest.fixture(scope="module")
def originals(library: Stars, giants: Stars) -> Stars:
    """The library's rows of the giants, with the labels measured."""
    chosen = library[np.flatnonzero(np.isin(library.source_id, giants.source_id))]
    return chosen.with_labels(chosen.labels.select(MEASURED))


# --- the table ---
def test_every_star_is_there_with_its_copies(originals: Stars, giants: Stars) -> None:
    n = len(originals)
    assert len(giants) == 3 * n > 450
    np.testing.assert_array_equal(giants.source_id[:n], originals.source_id)
    assert giants.labels.names == NAMES
    old = [0, 1, 2, 5]
    values, errors = (a.reshape(3, n, 6) for a in (giants.labels.values, giants.labels.errors))
    for copy in range(3):
        np.testing.assert_array_equal(values[copy][:, old], originals.labels.values)
        np.testing.assert_array_equal(errors[copy][:, old], originals.labels.errors)
    assert (errors[:, :, 3:5] == TRUTH_ERROR).all()
    for one, other in ((0, 1), (1, 2)):  # copies are other stars
        assert (values[one][:, 3:5] != values[other][:, 3:5]).all()
    assert np.isfinite(giants.spectra.flux).all()
    assert np.isfinite(giants.photometry.values).all()


def test_what_cannot_be_made_is_an_error(library: Stars, imprint: Imprint) -> None:
    dwarfs = library[library.labels.values[:, 1] > 3.6]
    for stars, copies, match in (
        (library, -1, "-1 copies"),
        (library.with_labels(None), 1, "no labels"),
        (dwarfs, 1, "no star is a giant"),
    ):
        with pytest.raises(InputError, match=match):
            semi_synthetic_giants(copies=copies, library=stars, emulator=imprint.emulator)


def test_the_command_writes_the_table_that_the_seed_gives(
    library: Stars, imprint: Imprint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    few, path = library[::8], tmp_path / "giants.parquet"
    monkeypatch.setattr("xplabels.giants.read_library", lambda: few)
    assert main(["giants", "--output", str(path), "--copies", "2", "--seed", "3"]) == 0
    written = read([path])
    assert f"{len(written)} semi-synthetic stars" in capsys.readouterr().out
    assert written.origin.startswith("semi-synthetic")
    assert sum("semi-synthetic" in note for note in written.notes) == 3
    same, other = (
        semi_synthetic_giants(copies=2, seed=seed, library=few, emulator=imprint.emulator)
        for seed in (3, 4)
    )
    np.testing.assert_array_equal(written.source_id, same.source_id)
    np.testing.assert_array_equal(written.labels.values, same.labels.values)
    np.testing.assert_array_equal(written.photometry.values, same.photometry.values)
    assert not np.array_equal(written.labels.values, other.labels.values)
    assert main(["giants", "--output", str(tmp_path / "giants.fits")]) == 2


# --- the imprint ---
def test_the_imprint_is_two_spectra_through_the_instrument(
    originals: Stars, imprint: Imprint
) -> None:
    """Slow twin: two spectra at the emulator's 0.05 nm through the instrument, subtracted."""
    stars, fine = originals[20:24], imprint.emulator
    ordinary, wanted = np.tile([-0.1, 0.2], (4, 1)), np.tile([0.1, 0.45], (4, 1))
    imprinted, _ = imprint.apply(stars.spectra, stars.labels.values, wanted, ordinary)
    got = imprinted.flux - stars.spectra.flux
    coarse = np.arange(fine.wavelength[0], fine.wavelength[-1], 2.0)
    for star in range(4):
        seen = np.interp(fine.wavelength, stars.spectra.wavelength, stars.spectra.flux[star])
        seds = []
        for composition in (ordinary, wanted):
            row = np.concatenate([stars.labels.values[star], composition[star]])[None]
            named = emulator_labels((*MEASURED, "c_fe", "n_fe"), row)
            seds.append(fine.normalised_flux(named)[0])
        # the continuum is the seen flux over the smoothed absorption
        boxcar = np.convolve(seds[0], np.full(40, 1 / 40), mode="same")
        smooth = line_spread(coarse) @ np.interp(coarse, fine.wavelength, boxcar)
        continuum = seen / np.interp(fine.wavelength, coarse, smooth)
        before, after = (
            gaiaxpy_instrument().coefficients(dark_outside(fine.wavelength, continuum * sed))
            for sed in seds
        )
        change = ((after - before) @ imprint.projection.design.T)[0]
        # at the emulator's end, 350 nm, the two smooth differently
        off = (got[star] - change)[stars.spectra.wavelength > 360]
        assert np.abs(off).max() < 0.02 * np.abs(change).max()
        assert np.linalg.norm(off) < 0.02 * np.linalg.norm(change)


def dark_outside(wavelength: np.ndarray, flux: np.ndarray) -> Sed:
    low, high = wavelength[[0, -1]]
    ends = [300.0, low - 1e-3], [high + 1e-3, 1100.0]
    return Sed.of(np.concatenate([ends[0], wavelength, ends[1]]), np.pad(flux, 2))


def test_nitrogen_deepens_cn_and_carbon_reddens(originals: Stars, imprint: Imprint) -> None:
    zero = np.zeros((len(originals), 2))
    spectra, labels = originals.spectra, originals.labels.values
    at = {nm: int(np.argmin(np.abs(spectra.wavelength - nm))) for nm in (388, 430, 650)}
    same, none = imprint.apply(spectra, labels, zero + 0.05, zero + 0.05)
    np.testing.assert_array_equal(same.flux, spectra.flux)
    assert (none == 0).all()
    nitrogen, _ = imprint.apply(spectra, labels, zero + np.array([0, 0.3]), zero)
    carbon, shifts = imprint.apply(spectra, labels, zero + np.array([0.2, 0]), zero)
    by_n, by_c = (changed.flux / spectra.flux - 1 for changed in (nitrogen, carbon))
    assert np.median(by_n[:, at[388]]) < -0.02
    assert np.median(np.abs(by_n[:, at[430]])) < 0.005
    assert np.median(by_c[:, at[430]]) < -0.02
    assert np.median(np.abs(by_c[:, at[650]])) < 0.005
    assert np.median(shifts[:, 1]) > np.median(shifts[:, 2])  # BP loses more light than RP


def test_the_resolution_is_that_of_xp() -> None:
    wavelength = np.arange(350.0, 1050.0, 0.5)
    spread = line_spread(wavelength)
    np.testing.assert_allclose(spread.sum(axis=1), 1)
    for nm, power in ((500.0, 66.0), (850.0, 84.6)):
        row = spread[np.argmin(np.abs(wavelength - nm))]
        wide = (row > row.max() / 2).sum() * 0.5
        assert nm / wide == pytest.approx(power, rel=0.1)


# --- the split ---
IDS = st.lists(st.integers(1, FIRST_COPY // 128 - 1), min_size=1, max_size=30)


@settings(max_examples=15, deadline=None)
@given(IDS, st.integers(0, 3), st.integers(0, 8000))
def test_copies_are_on_their_star_s_side(numbers, copies, tenthousandths) -> None:
    stars = np.array(numbers, np.int64) * 128
    ids = copy_ids(stars, copies)
    assert ids.shape == (copies, len(stars))
    assert len(np.unique(ids)) == ids.size
    assert (ids >= FIRST_COPY).all()
    for part in ("train", "validation", "test"):
        side = part_mask(stars, part, tenthousandths / 10_000)
        for copy in ids:
            np.testing.assert_array_equal(part_mask(copy, part, tenthousandths / 10_000), side)


# --- farther away ---
def test_a_copy_is_fainter_and_noisier_by_what_it_says(giants: Stars, imprint: Imprint) -> None:
    """Many copies of one star scatter by the errors they state, less what it had before."""
    many, dimming = 4000, 3.0
    star, rows = giants[:1], np.zeros(many, int)
    stars = Stars.of(np.arange(1, many + 1), giants.spectra[rows], giants.photometry[rows])
    random = np.random.default_rng(0)
    moved = farther(
        stars, np.full(many, dimming), stars.source_id + 10**6, imprint.projection, random
    )
    dim = 10 ** (-0.4 * dimming)
    np.testing.assert_allclose(
        moved.spectra.flux.mean(axis=0), dim * star.spectra.flux[0],
        atol=5 * moved.spectra.flux_error[0].max() / np.sqrt(many),
    )  # fmt: skip
    # in coefficients the errors stated are exactly the noise there: the star's own and what came
    before = imprint.projection.coefficient_errors(star.spectra)[0]
    stated = imprint.projection.coefficient_errors(moved.spectra[:1])[0]
    ratio = stated / before
    assert (ratio > dim).all()
    for band in (slice(0, 55), slice(55, 110)):
        np.testing.assert_allclose(ratio[band], ratio[band][0], rtol=1e-6)
    variance = (stated**2 - (dim * before) ** 2) @ imprint.projection.design.T**2
    np.testing.assert_allclose(moved.spectra.flux.std(axis=0), np.sqrt(variance), rtol=0.06)
    for column, (old, new) in enumerate(
        zip(star.photometry.errors[0], moved.photometry.errors[0], strict=True)
    ):
        scale = 10 ** (-0.2 * dimming) if column == 8 else 1.0
        added = moved.photometry.values[:, column].std()
        assert added**2 + (scale * old) ** 2 == pytest.approx(new**2, rel=0.1)
        assert new >= scale * old


def test_copies_are_as_faint_as_said_and_no_dimming_leaves_a_star(
    giants: Stars, imprint: Imprint
) -> None:
    g = giants.photometry.column("phot_g_mean_mag")[0][len(giants) // 3 :]
    assert BRIGHTEST - 0.05 < g.min() < g.max() < FAINTEST + 0.05
    few = giants[:4]
    same = farther(few, np.zeros(4), np.arange(1, 5), imprint.projection, np.random.default_rng(0))
    np.testing.assert_allclose(same.spectra.flux, few.spectra.flux, rtol=1e-12)
    np.testing.assert_allclose(same.spectra.flux_error, few.spectra.flux_error, rtol=1e-12)
    np.testing.assert_allclose(same.photometry.values, few.photometry.values, rtol=1e-12)


# --- what the labels say of the rest ---
def test_parallaxes_and_wise_belong_to_one_distance_and_one_dust(giants: Stars) -> None:
    """RJCE and the parallax give back the absolute magnitude that the labels imply."""
    n = len(giants) // 3
    teff, logg, _, _, _, alpha_m = giants.labels.values[:n].T
    p = giants.photometry[slice(0, n)]
    h, w2 = (p.column(m)[0] for m in ("h_m", "w2mpro"))
    g, (parallax, error) = p.column("phot_g_mean_mag")[0], p.column("parallax")
    a_rp = EXTINCTION_SLOPE * (h - w2 - 0.08)
    a_g = a_rp * relations.G_OVER_V / RP_OVER_V
    near = parallax > 10 * error
    measured = g + 5 * np.log10(np.where(near, parallax, 1)) - 10 - a_g
    implied = relations.absolute_g(teff, logg, 10 ** relations.log_mass(alpha_m)[0])
    difference = (measured - implied)[near]
    assert near.sum() > 80
    assert abs(np.median(difference)) < 0.12
    assert np.abs(difference).max() < 3


# --- composition, luminosity, colours, errors ---
@given(st.floats(0.8, 3), st.floats(0, 3.5), st.floats(-2.5, 0.5), st.floats(-0.1, 0.4))
def test_what_carbon_loses_nitrogen_gains(mass, logg, fe_h, alpha_m) -> None:
    star = [np.array([x]) for x in (mass, logg, fe_h, alpha_m)]
    c_fe, n_fe = relations.mean_composition(*star)[0]
    born = relations.CARBON_TO_NITROGEN * 10 ** (0.5 * alpha_m) + 1
    assert relations.CARBON_TO_NITROGEN * 10**c_fe + 10**n_fe == pytest.approx(born)
    assert n_fe >= -1e-12


def composition(mass: float, logg: float, fe_h: float = 0.0, alpha_m: float = 0.0) -> np.ndarray:
    return relations.mean_composition(*(np.array([x]) for x in (mass, logg, fe_h, alpha_m)))[0]


def test_giants_are_mixed_as_the_literature_says() -> None:
    subgiant, clump = composition(1.3, 3.5), composition(1.3, 2.5)
    assert abs(subgiant[0]) < 0.01
    assert clump[0] < -0.08
    assert clump[1] > 0.2
    assert composition(2.5, 2.5)[1] > clump[1] + 0.1  # heavier stars mix more
    poor = composition(1.0, 1.0, fe_h=-1.5)
    assert poor[0] < composition(1.0, 2.5, fe_h=-1.5)[0] - 0.1  # and metal-poor ones once more
    np.testing.assert_allclose(composition(1.0, 1.0), composition(1.0, 2.5), atol=0.01)


def test_compositions_scatter_within_the_emulators_range() -> None:
    random = np.random.default_rng(0)
    wide = relations.draw_composition(np.tile([0.0, 0.55], (20_000, 1)), random)
    assert np.abs(wide).max() <= relations.COMPOSITION_LIMIT
    assert wide[:, 0].std() == pytest.approx(relations.COMPOSITION_SCATTER[0], rel=0.05)
    narrow = relations.draw_composition(np.tile([0.0, 0.1], (20_000, 1)), random)
    np.testing.assert_allclose(narrow.mean(axis=0), [0, 0.1], atol=0.005)


def test_luminosities_are_those_of_giants() -> None:
    """The red clump has M_G of about 0.5 (Hawkins et al. 2017), Arcturus about -0.8."""
    clump, arcturus = relations.absolute_g(
        np.array([4800.0, 4286.0]), np.array([2.45, 1.66]), np.array([1.2, 1.08])
    )
    assert clump == pytest.approx(0.5, abs=0.3)
    assert arcturus == pytest.approx(-0.8, abs=0.3)
    edges = relations.absolute_g(np.array([3999.99, 4000.0]), np.ones(2), np.ones(2))
    assert edges[0] == pytest.approx(edges[1], abs=0.01)


@given(st.floats(3500, 6000), st.floats(-2.5, 0.5))
def test_intrinsic_colours_solve_the_published_polynomial(teff, fe_h) -> None:
    c = float(relations.intrinsic_j_ks(np.array([teff]), np.array([fe_h]))[0])
    b0, b1, b2, b3, b4, b5 = relations.COLOUR_OF_TEFF
    theta = b0 + b1 * c + b2 * c**2 + b3 * c * fe_h + b4 * fe_h + b5 * fe_h**2
    assert 5040 / theta == pytest.approx(teff, rel=1e-9)


def test_errors_grow_as_stars_get_faint() -> None:
    g = np.array([13.0, 15.0, 17.0, 20.0])
    # the Gaia science performance page, mas
    np.testing.assert_allclose(relations.parallax_error(g)[1:3], [0.0295, 0.0793], rtol=0.01)
    faint = relations.magnitude_error("ks_m", np.array([8.0, 14.3]), g[:2], 0.025)
    np.testing.assert_allclose(faint, [0.025, np.hypot(0.025, 0.1)], rtol=0.01)
    assert relations.magnitude_error("phot_bp_mean_mag", g, g, 0.0)[2] == pytest.approx(0.012)
