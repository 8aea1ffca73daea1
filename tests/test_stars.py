"""The nouns: what is checked when stars and labels are built, and what selections keep."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from archive_files import arrays_of, same
from twins import random_stars
from xplabels.core.errors import InputError
from xplabels.core.flags import MEANING, Flag, describe
from xplabels.core.labels import LABELS, Labels, check_names
from xplabels.core.stars import (
    MEASUREMENTS,
    Band,
    CoefficientSpectra,
    Photometry,
    SampledSpectra,
    Stars,
    concatenate,
    with_widths,
)


def labelled(n: int = 4) -> Stars:
    values = np.arange(2.0 * n).reshape(n, 2)
    return random_stars(n, (3, 2)).with_labels(
        Labels(("teff", "logg"), values, np.ones_like(values))
    )


@pytest.mark.parametrize(
    "rows", [slice(1, 3), np.array([3, 0]), np.array([True, False, True, True])]
)
def test_a_selection_takes_the_same_rows_of_everything(rows) -> None:
    stars = labelled()
    part = stars[rows]
    arrays = arrays_of(part)
    assert len(arrays) == 12
    for name, values in arrays_of(stars).items():
        np.testing.assert_array_equal(arrays[name], values[rows], err_msg=name)


def test_blocks_stack_to_the_whole() -> None:
    stars = labelled()
    whole = concatenate([stars[:1], stars[1:]])
    same(whole, stars)


def test_messages_name_the_file_before_the_origin() -> None:
    stars = random_stars(3, (3, 2))
    assert replace(stars, origin="").where is None
    assert replace(stars, origin="a survey").where == "a survey"
    read = replace(stars, origin="a survey", file="mine.parquet")
    assert read[:2].where == "mine.parquet"
    other = replace(read, source_id=np.array([11, 12, 13]), file="yours.parquet")
    both = concatenate([read, other])
    assert (both.where, both.origin) == ("mine.parquet, yours.parquet", "a survey")
    with pytest.raises(InputError, match=r"^mine\.parquet: source_id .* occurs 2 times"):
        replace(read, source_id=np.array([1, 1, 2]))


def test_blocks_of_other_widths_spaces_or_labels_do_not_stack() -> None:
    stars = replace(labelled(), origin="a.csv")
    other = replace(random_stars(2, (4, 2)), source_id=np.array([8, 9]), origin="b.csv")
    flux = np.ones((2, 5))
    sampled = Stars.of(np.array([8, 9]), SampledSpectra(np.arange(5.0), flux, flux))
    for block, message in (
        (other, r"b\.csv.*4\+2.*a\.csv.*3\+2"),
        (sampled, "sampled at 5 wavelengths"),
        (replace(random_stars(2, (3, 2)), source_id=np.array([8, 9])), "labels teff,logg"),
    ):
        with pytest.raises(InputError, match=message):
            concatenate([stars, block])
    with pytest.raises(InputError, match="no stars"):
        concatenate([])


def test_flux_at_other_wavelengths_does_not_stack() -> None:
    flux, wavelength = np.ones((1, 5)), np.arange(5.0)
    blocks = [
        Stars.of(np.array([star]), SampledSpectra(grid, flux, flux), origin=f"{star}.parquet")
        for star, grid in ((1, wavelength), (2, wavelength**1.1))
    ]
    with pytest.raises(InputError, match=r"2\.parquet.*5 wavelengths, 0-4.59"):
        concatenate(blocks)


def test_correlations_lost_in_stacking_are_flagged() -> None:
    stars = labelled()
    spectra = stars.spectra
    bare = [Band(band.coefficients, band.errors) for band in (spectra.bp, spectra.rp)]
    other = Stars.of(stars.source_id + 100, CoefficientSpectra(*bare), labels=stars.labels)
    assert not (stars.flags & Flag.NO_CORRELATIONS).any()
    whole = concatenate([stars, other])
    assert whole.spectra.bp.correlations is None
    assert (whole.flags & Flag.NO_CORRELATIONS).all()


def test_one_star_twice_is_an_error_that_names_it() -> None:
    stars = labelled()
    with pytest.raises(InputError, match=r"x\.csv.*source_id 2 occurs 2 times"):
        replace(stars, source_id=np.array([1, 2, 2, 4]), origin="x.csv")
    with pytest.raises(InputError, match="source_id 1"):
        concatenate([stars, stars[:1]])


@pytest.mark.parametrize("part", ["photometry", "flags", "labels", "source_id"])
def test_every_part_has_one_row_a_star(part) -> None:
    stars = labelled()
    with pytest.raises(InputError, match=r"4 source_ids but 3|3 source_ids but 4"):
        replace(stars, **{part: getattr(stars, part)[:3]})


def test_arrays_of_the_wrong_shape_are_refused() -> None:
    c = np.ones((2, 4))
    with pytest.raises(InputError, match="errors"):
        Band(c, np.ones((2, 3)))
    with pytest.raises(InputError, match="4 coefficients need 6 packed"):
        Band(c, c, np.ones((2, 5), np.float32))
    with pytest.raises(InputError, match="2 stars in BP, 1 in RP"):
        CoefficientSpectra(Band(c, c), Band(c[:1], c[:1]))
    with pytest.raises(InputError, match="flux"):
        SampledSpectra(np.arange(3.0), c, c)
    with pytest.raises(InputError, match="photometry"):
        Photometry(c, c)
    with pytest.raises(InputError, match="label values"):
        Labels(("teff",), c, c)


def test_nothing_can_be_reassigned() -> None:
    with pytest.raises(FrozenInstanceError):
        labelled().source_id = np.zeros(4)  # type: ignore[misc]


def test_a_missing_band_or_correlation_is_noticed() -> None:
    stars = random_stars(3, (3, 2))
    spectra = stars.spectra
    spectra.bp.coefficients[1] = np.nan
    spectra.rp.coefficients[2] = np.nan
    flags = Stars.of(stars.source_id, spectra).flags
    assert flags.tolist() == [0, Flag.MISSING_BP, Flag.MISSING_RP]
    bare = replace(spectra, rp=replace(spectra.rp, correlations=None))
    flags = Stars.of(stars.source_id, bare).flags
    assert (flags & Flag.NO_CORRELATIONS).all()


def test_a_band_of_unknown_width_takes_the_one_given() -> None:
    stars = with_widths(random_stars(2, (0, 2)), (7, 9))
    assert stars.spectra.widths == (7, 2)
    assert np.isnan(stars.spectra.bp.coefficients).all()
    assert stars.spectra.bp.correlations.shape == (2, 21)


def test_photometry_of_measurements_needs_value_and_error() -> None:
    values, errors = np.array([10.0, np.nan, 12.0]), np.array([0.1, 0.1, np.nan])
    photometry = Photometry.of(3, {"j_m": (values, errors)})
    got = photometry.column("j_m")
    np.testing.assert_array_equal(got[0], [10.0, np.nan, np.nan])
    np.testing.assert_array_equal(got[1], [0.1, np.nan, np.nan])
    others = [i for i, name in enumerate(MEASUREMENTS) if name != "j_m"]
    assert np.isnan(photometry.values[:, others]).all()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["[Fe/H]"], "cannot be the name of a label; begin with a letter"),
        (["teff_error"], "that of another column"),
        (["parallax"], "that of another column"),
        (["teff", "Teff"], "twice"),
        ([], "no label"),
    ],
)
def test_label_names_are_checked(names, message) -> None:
    with pytest.raises(InputError, match=message):
        check_names(names)


def test_labels_are_selected_in_the_order_asked_for() -> None:
    labels = labelled().labels
    np.testing.assert_array_equal(labels.select(["logg", "teff"]).values, labels.values[:, ::-1])
    with pytest.raises(InputError, match=r"'fe_h' is absent.*teff, logg.*fe_h_err"):
        labels.select(["fe_h"])


def test_every_flag_and_label_is_described() -> None:
    assert set(MEANING) == set(Flag)
    assert len(describe().splitlines()) == len(Flag)
    for label in LABELS.values():
        assert label.lowest < label.highest
        assert label.unit
        assert label.ucd


def test_a_number_chooses_one_star_and_text_is_answered() -> None:
    import xplabels as xp

    stars = xp.example_stars(3)
    assert stars.labels is not None
    labels = xp.load_model().predict(stars)
    assert [part[-1].source_id.tolist() for part in (stars, labels)] == [[stars.source_id[2]]] * 2
    assert [len(one) for one in labels] == [len(one) for one in stars.labels] == [1, 1, 1]
    assert len(stars.photometry[np.int64(0)]) == len(stars.spectra[0]) == 1
    with pytest.raises(IndexError):
        stars[3]
    for text, part in (("teff", stars.labels), ("j_m", stars.photometry), ("teff", stars)):
        with pytest.raises(InputError, match=f"'{text}' does not choose stars; use "):
            part[text]
    assert not np.isfinite(stars.with_photometry(None).photometry.values).any()
