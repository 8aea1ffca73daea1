"""The star table: what is written is read back exactly; damage is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.extra.numpy as hnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive_files import same
from xplabels.core.errors import InputError
from xplabels.core.flags import Flag
from xplabels.core.labels import LABELS, Labels
from xplabels.core.stars import (
    MEASUREMENTS,
    Band,
    CoefficientSpectra,
    Photometry,
    SampledSpectra,
    Spectra,
    Stars,
)
from xplabels.io import read, read_stars, write_star_blocks, write_stars

FINITE = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(1e-300, 1e300)


@st.composite
def bands(draw: st.DrawFn, stars: int) -> Band:
    width = draw(st.integers(1, 4))
    kind = draw(st.sampled_from([32, 64]))
    errors = st.floats(2.0**-100, 2.0**100, width=kind)
    coefficients = draw(hnp.arrays(np.float64, (stars, width), elements=FINITE))
    sigma = draw(hnp.arrays(np.float64, (stars, width), elements=errors))
    packed = (stars, width * (width - 1) // 2)
    correlations = draw(
        st.none() | hnp.arrays(np.float32, packed, elements=st.floats(-1, 1, width=32))
    )
    for row in range(stars):
        if draw(st.booleans()):  # the archive has no such spectrum
            coefficients[row] = sigma[row] = np.nan
            if correlations is not None:
                correlations[row] = np.nan
    return Band(coefficients, sigma, correlations)


@st.composite
def spectra(draw: st.DrawFn, stars: int) -> Spectra:
    if draw(st.booleans()):
        return CoefficientSpectra(draw(bands(stars)), draw(bands(stars)))
    width = draw(st.integers(1, 4))
    wavelength = np.sort(draw(hnp.arrays(np.float64, width, elements=st.floats(300, 1100))))
    flux = draw(hnp.arrays(np.float64, (stars, width), elements=FINITE))
    errors = draw(hnp.arrays(np.float64, (stars, width), elements=POSITIVE))
    return SampledSpectra(wavelength, flux, errors)


@st.composite
def star_tables(draw: st.DrawFn) -> Stars:
    ids = draw(st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=5, unique=True))
    n = len(ids)
    known = draw(hnp.arrays(bool, (n, len(MEASUREMENTS))))
    values = draw(hnp.arrays(np.float64, known.shape, elements=st.floats(-5, 25).filter(bool)))
    errors = draw(hnp.arrays(np.float64, known.shape, elements=st.floats(1e-6, 8)))
    photometry = Photometry(np.where(known, values, np.nan), np.where(known, errors, np.nan))
    names = tuple(draw(st.lists(st.sampled_from(list(LABELS)), unique=True, max_size=3)))
    labels = None
    if names:
        known = draw(hnp.arrays(bool, (n, len(names))))
        lower = np.array([LABELS[name].lowest for name in names])
        upper = np.array([LABELS[name].highest for name in names])
        share = draw(hnp.arrays(np.float64, known.shape, elements=st.floats(0, 1)))
        believable = np.clip(lower + share * (upper - lower), lower, upper)
        errors = draw(hnp.arrays(np.float64, known.shape, elements=POSITIVE))
        labels = Labels(names, np.where(known, believable, np.nan), np.where(known, errors, np.nan))
    flags = draw(hnp.arrays(np.uint32, n, elements=st.sampled_from([0, 16, 64, 256])))
    notes = tuple(draw(st.lists(st.text(max_size=5), max_size=2)))
    return Stars.of(
        np.array(ids), draw(spectra(n)), photometry, labels, flags, draw(st.text(max_size=5)), notes
    )


@settings(max_examples=80, deadline=None)
@given(star_tables(), st.integers(1, 6))
def test_round_trip_is_exact_whatever_the_block(stars: Stars, block: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "stars.parquet"
        write_stars(stars, path)
        again = read_stars(path, block)
        same(stars, again)
        assert tuple(dict.fromkeys(again.notes)) == tuple(dict.fromkeys(stars.notes))
        assert again.origin == (stars.origin or str(path))
        assert again.file == again.where == str(path)
        if stars.labels is not None:
            assert again.labels.names == stars.labels.names


@pytest.fixture
def stars() -> Stars:
    rng = np.random.default_rng(1)

    def band(width: int) -> Band:
        packed = (3, width * (width - 1) // 2)
        return Band(
            rng.normal(size=(3, width)),
            rng.uniform(1, 2, (3, width)).astype(np.float32).astype(np.float64),
            rng.uniform(-1, 1, packed).astype(np.float32),
        )

    photometry = Photometry.of(
        3, {"phot_g_mean_mag": (np.array([9.0, np.nan, 11.0]), np.array([0.01, np.nan, 0.02]))}
    )
    return Stars.of(np.array([7, 5, 2**62 + 1]), CoefficientSpectra(band(3), band(4)), photometry)


def test_columns_are_the_archives(stars: Stars, tmp_path: Path) -> None:
    write_stars(stars, tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.schema.field("bp_coefficients").type == pa.list_(pa.float64(), 3)
    assert table.schema.field("rp_coefficient_errors").type == pa.list_(pa.float32(), 4)
    assert table.schema.field("rp_coefficient_correlations").type == pa.list_(pa.float32(), 6)
    assert "j_m" not in table.column_names
    ratio = table["phot_g_mean_flux_over_error"].to_numpy()
    assert ratio[0] == pytest.approx(108.57362, rel=1e-7)
    assert list(tmp_path.iterdir()) == [tmp_path / "s.parquet"]


def test_a_foreign_table_with_variable_lists_is_taken_as_coefficients(
    stars: Stars, tmp_path: Path
) -> None:
    write_stars(stars, tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet").replace_schema_metadata(None)
    columns = {"SOURCE_ID": table["source_id"]}  # another release, another case
    for name in table.column_names[1:7]:
        rows = table[name].to_pylist()
        rows[1] = None if name.startswith("bp") else rows[1]
        columns[name] = pa.array(rows, pa.list_(table.schema.field(name).type.value_type))
    columns["phot_g_mean_mag"] = table["phot_g_mean_mag"]
    columns["phot_g_mean_flux_over_error"] = table["phot_g_mean_flux_over_error"]
    columns["teff"] = pa.array([5000.0, None, 6000.0])
    columns["teff_error"] = pa.array([50.0, None, 60.0])
    pq.write_table(pa.table(columns), tmp_path / "foreign.parquet")
    again = read(tmp_path / "foreign.parquet")
    assert np.array_equal(again.spectra.rp.coefficients, stars.spectra.rp.coefficients)
    assert again.flags.tolist() == [0, Flag.MISSING_BP, 0]
    assert np.allclose(again.photometry.errors, stars.photometry.errors, rtol=1e-15, equal_nan=True)
    assert again.labels.names == ("teff",)
    assert np.array_equal(again.labels.errors[:, 0], [50, np.nan, 60], equal_nan=True)


def test_floating_point_ids_are_refused(stars: Stars, tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    write_stars(stars, path)
    table = pq.read_table(path)
    ids = table["source_id"].to_numpy().astype(float)
    pq.write_table(table.set_column(0, "source_id", pa.array(ids)), path)
    with pytest.raises(InputError, match=r"row 3, column source_id: 4\.611.* went through a float"):
        read(path)


@pytest.mark.parametrize(
    ("entry", "message"), [(b"{", "damaged"), (b'{"format": 99, "space": "sampled"}', "format 99")]
)
def test_metadata_are_checked(stars: Stars, tmp_path: Path, entry: bytes, message: str) -> None:
    path = tmp_path / "s.parquet"
    write_stars(stars, path)
    table = pq.read_table(path).replace_schema_metadata({b"xplabels": entry})
    pq.write_table(table, path)
    with pytest.raises(InputError, match=message):
        read(path)


def test_a_bad_sampled_row_is_an_error_or_a_flag(tmp_path: Path) -> None:
    flux = np.array([[1.0, 2.0], [np.inf, 1.0], [1.0, 2.0]])
    errors = np.ones((3, 2))
    good = Stars.of(np.array([1, 2, 3]), SampledSpectra(np.array([400.0, 402.0]), flux, errors))
    path = tmp_path / "s.parquet"
    write_stars(good, path)
    with pytest.raises(InputError, match=r"row 2, source_id 2, column flux: value 0 \(inf\)"):
        read(path)
    flagged = read(path, bad_rows="flag")
    assert ((flagged.flags & Flag.BAD_ROW.value) > 0).tolist() == [False, True, False]
    assert any("row 2, source_id 2" in note for note in flagged.notes)
    assert np.isnan(flagged.spectra.flux[1]).all()
    # and what was flagged once can be written and read again without complaint
    write_stars(flagged, path, overwrite=True)
    same(read(path), flagged)


def test_labels_whose_columns_a_user_dropped_are_gone(stars: Stars, tmp_path: Path) -> None:
    """The table's metadata still name them."""
    path = tmp_path / "stars.parquet"
    two = np.full((len(stars), 2), [5000.0, 4.0])
    write_stars(stars.with_labels(Labels(("teff", "logg"), two, 0.01 * two)), path)
    table = pq.read_table(path)
    pq.write_table(table.drop(["teff", "teff_err"]), path)
    left = read([path]).labels
    assert left.names == ("logg",)
    pq.write_table(table.drop(["teff", "teff_err", "logg", "logg_err"]), path)
    assert read([path]).labels is None
    pq.write_table(table.drop(["teff_err"]), path)
    with pytest.raises(InputError, match="teff_err"):
        read([path])


def test_blocks_are_the_whole(small_stars: Stars, tmp_path: Path) -> None:
    blocks = (small_stars[start : start + 300] for start in range(0, len(small_stars), 300))
    assert write_star_blocks(blocks, tmp_path / "blocks.parquet") == len(small_stars)
    found = read_stars(tmp_path / "blocks.parquet")
    same(found, small_stars)


def test_a_column_that_a_later_block_lacks_is_missing_there(
    small_stars: Stars, tmp_path: Path
) -> None:
    without = small_stars[10:20].with_photometry(Photometry.missing(10))
    write_star_blocks([small_stars[:10], without], tmp_path / "blocks.parquet")
    values, _ = read_stars(tmp_path / "blocks.parquet").photometry.column("j_m")
    assert np.isfinite(values[:10]).any()
    assert np.isnan(values[10:]).all()


def test_blocks_that_differ_are_named_and_nothing_is_written(
    small_stars: Stars, tmp_path: Path
) -> None:
    path = tmp_path / "blocks.parquet"
    without = small_stars[:10].with_photometry(Photometry.missing(10))
    with pytest.raises(InputError, match=r"columns that the first lacks: .*j_m"):
        write_star_blocks([without, small_stars[10:20]], path)
    wide = replace(
        small_stars[10:20],
        spectra=replace(small_stars.spectra[10:20], rp=small_stars.spectra[10:20].bp),
    )
    with pytest.raises(InputError, match="differs from the first in column 'rp_coefficients'"):
        write_star_blocks([small_stars[:10], wide], path)
    with pytest.raises(InputError, match="no stars"):
        write_star_blocks([], path)
    assert not list(tmp_path.iterdir())
