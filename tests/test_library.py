"""The real library: counts, units, duplicates, and what happens without the package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xplabels.core.duplicates import best_rows
from xplabels.core.errors import InputError
from xplabels.core.stars import Stars
from xplabels.surveys import library


@pytest.fixture(scope="module")
def stars() -> Stars:
    return library.read_library()


def test_every_real_star_is_there_once_with_flux_that_agrees_with_g(stars: Stars) -> None:
    assert len(np.unique(stars.source_id)) == 39_851
    assert (stars.source_id > 0).all()
    assert any(note.startswith("375 duplicate rows") for note in stars.notes)
    assert any("approximate" in note for note in stars.notes)
    spectra = stars.spectra
    assert spectra.wavelength[[0, -1]].tolist() == [336.0, 1020.0]
    assert spectra.flux.shape == (39_851, 343)
    assert np.isfinite(spectra.flux).all()
    assert (spectra.flux_error > 0).all()
    # Vega is 2.5e-11 W m^-2 nm^-1 near 640 nm, so log10 flux + 0.4 G is near -10.6
    g, _ = stars.photometry.column("phot_g_mean_mag")
    near = np.argmin(np.abs(spectra.wavelength - 640))
    zero = np.median(np.log10(np.median(spectra.flux[:, near - 5 : near + 6], axis=1)) + 0.4 * g)
    assert abs(zero + 10.6) < 0.1


def test_extinction_is_by_source_id_and_junk_is_unknown(stars: Stars) -> None:
    ids = stars.source_id
    found = library.library_extinction(np.concatenate([ids, ids[::-1], [1]]))
    a_ks = found[: len(ids)]
    np.testing.assert_array_equal(found[len(ids) :], np.append(a_ks[::-1], np.nan))
    low, high = library.CREDIBLE_KS
    assert low < np.nanmin(a_ks) < np.nanmax(a_ks) < high
    assert np.isfinite(a_ks).mean() > 0.9


def test_labels_and_photometry(stars: Stars) -> None:
    labels = stars.labels
    assert labels.names == ("teff", "logg", "fe_h", "alpha_m")
    assert np.isfinite(labels.values).all(axis=1).sum() == pytest.approx(35_300, abs=150)
    known = np.isfinite(labels.values)
    assert (np.isfinite(labels.errors) == known).all()
    assert (labels.errors[known] > 0).all()
    values, errors = stars.photometry.column("j_m")
    assert 0 < np.isnan(values).sum() < 100
    assert (np.isnan(errors) == np.isnan(values)).all()
    assert np.nanmax(errors) == library.TWO_MASS_ERROR
    assert np.isnan(stars.photometry.column("parallax")[0]).all()


@given(
    st.lists(st.tuples(st.integers(-1, 5), st.sampled_from([1.0, 2.0, 3.0, np.nan])), max_size=30)
)
def test_best_rows_match_the_obvious_loop(rows: list[tuple[int, float]]) -> None:
    source_id = np.array([star for star, _ in rows], np.int64)
    quality = np.array([value for _, value in rows], np.float64)
    ranks = np.nan_to_num(quality, nan=-np.inf)
    best: dict[int, int] = {}
    for row, star in enumerate(source_id):
        if star > 0 and (star not in best or ranks[row] > ranks[best[star]]):
            best[int(star)] = row
    found = best_rows(source_id, quality, source_id > 0)
    assert found.tolist() == sorted(best.values())


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(library, "distribution", absent)
    with pytest.raises(InputError, match=r"pip install 'xplabels\[library\]'"):
        library.read_library()


def test_a_damaged_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / library.FILE_NAME
    broken.write_bytes(b"\x1f\x8b not a gzip file")
    monkeypatch.setattr(library, "library_path", lambda: broken)
    with pytest.raises(InputError, match=library.FILE_NAME):
        library.read_library()
