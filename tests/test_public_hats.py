"""The public HATS collection of DR3's spectra: its schema, here, on loopback HTTP, in LSDB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("hats")

import xplabels as xp
from public_hats import NAME, Hub, public_table, write_collection
from services.http import Fault
from xplabels.cli import main
from xplabels.core.flags import Flag
from xplabels.core.stars import MEASUREMENTS, Band, CoefficientSpectra, Stars
from xplabels.fetch.http import RetryPolicy
from xplabels.fetch.targets import Cone
from xplabels.io.nested import archive_columns
from xplabels.sky.area import Area, Box, SkyPixel, copy_area

CENTRE = (359.9, 11.8)
QUICK = RetryPolicy(attempts=3, first_wait=0.001, timeout=5.0)
GAIA = ("phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag", "parallax")


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Stars, np.ndarray, np.ndarray]:
    """A collection of 1,500 simulated stars about 0 h, with the photometry that it has."""
    stars = xp.example_stars(1500, seed=3)
    photometry = stars.photometry
    for column, name in enumerate(MEASUREMENTS):
        if name not in GAIA:
            photometry.values[:, column] = photometry.errors[:, column] = np.nan
    random = np.random.default_rng(1)
    ra = (CENTRE[0] + random.uniform(-3, 3, len(stars))) % 360
    dec = CENTRE[1] + random.uniform(-3, 3, len(stars))
    folder = tmp_path_factory.mktemp("public") / "collection"
    write_collection(folder, public_table(stars, ra, dec), order=5, row_group=40)
    return folder, stars, ra, dec


@pytest.fixture
def served(sky: tuple[Path, Stars, np.ndarray, np.ndarray]) -> Iterator[Hub]:
    with Hub(sky[0]) as hub:
        yield hub


def as_there(stars: Stars) -> Stars:
    """The same stars as the collection keeps them: float32, and without correlations."""

    def single(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32).astype(np.float64)

    bands = (
        Band(single(band.coefficients), single(band.errors))
        for band in (stars.spectra.bp, stars.spectra.rp)
    )
    return Stars.of(stars.source_id, CoefficientSpectra(*bands), stars.photometry)


def table(path: Path) -> pa.Table:
    return pq.read_table(path).sort_by("source_id")


def test_a_partition_is_read_as_any_file(sky) -> None:
    folder, stars, *_ = sky
    path = next((folder / NAME / "dataset").rglob("Npix=*.parquet"))
    read = xp.read(path)
    rows = [stars.source_id.tolist().index(one) for one in read.source_id.tolist()]
    expected = as_there(stars)[np.array(rows)]
    for band in ("bp", "rp"):
        one, other = getattr(read.spectra, band), getattr(expected.spectra, band)
        np.testing.assert_array_equal(one.coefficients, other.coefficients)
        np.testing.assert_array_equal(one.errors, other.errors)
        assert one.correlations is None
    assert (read.flags & Flag.NO_CORRELATIONS).all()
    for name in GAIA:
        for one, other in zip(
            read.photometry.column(name), expected.photometry.column(name), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_lists_of_structs_null_spectra_and_other_lengths(sky) -> None:
    """Three forms of the nested column: as HATS keeps it, as LSDB hands it over, and damaged."""
    folder, *_ = sky
    path = next((folder / NAME / "dataset").rglob("Npix=*.parquet"))
    batch = pq.read_table(path).combine_chunks()[:3]
    columns = {name: batch.column(name).combine_chunks() for name in batch.column_names}
    usual = archive_columns(columns, path)
    nested = columns["spectral_coefficients"].to_pylist()
    rows = [
        [dict(zip(row, pair, strict=True)) for pair in zip(*row.values(), strict=True)]
        for row in nested
    ]
    kind = pa.list_(pa.struct([("coeff", pa.float32()), ("coeff_error", pa.float32())]))
    columns["spectral_coefficients"] = pa.array([*rows[:2], None], kind)
    listed = archive_columns(columns, path)
    assert listed["rp_coefficients"][:2] == usual["rp_coefficients"][:2]
    assert np.isnan(listed["bp_coefficients"][2].as_py()).all()
    columns["spectral_coefficients"] = pa.array([*rows[:2], rows[2][:109]], kind)
    with pytest.raises(xp.InputError, match="has 109 values, not 55 of BP and 55 of RP"):
        archive_columns(columns, path)


@pytest.mark.parametrize("address", ["", "hf://datasets/made/gaia", "http"])
def test_a_cone_is_the_same_from_everywhere(
    address: str, sky, served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, stars, ra, dec = sky
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    where = {"": str(folder), "http": served.url}.get(address, address)
    cone = f"{CENTRE[0]},{CENTRE[1]},1"
    output = tmp_path / "labels.parquet"
    words = ["--cone", cone, "--carry", "ra,dec", "--output", str(output)]
    assert main(["predict", where, *words]) == 0
    wanted = Cone.parse(cone).contains(ra, dec)
    expected = xp.load_model().predict(as_there(stars[wanted])).to_arrow().sort_by("source_id")
    found = table(output)
    np.testing.assert_array_equal(found["source_id"], expected["source_id"])
    for name in ("teff", "logg", "teff_error", "fe_h_error_input"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5)
    there = dict(zip(stars.source_id.tolist(), ra, strict=True))
    assert found["ra"].to_pylist() == [there[one] for one in found["source_id"].to_pylist()]
    assert not list(tmp_path.glob("*.spectra"))
    assert where in found.schema.metadata[b"SPECTRA"].decode()


def test_only_what_is_needed_travels(sky, served: Hub, tmp_path: Path) -> None:
    folder, _, ra, dec = sky
    area = Cone(*CENTRE, 1.0)
    files = copy_area(served.url, area, tmp_path / "part", retry=QUICK)
    assert sum(len(xp.read(one)) for one in files) == area.contains(ra, dec).sum()
    dataset = (folder / NAME / "dataset").rglob("Npix=*.parquet")
    partitions = {one.name for one in dataset}
    asked = {Path(path).name for _, path in served.log if "Npix" in path}
    assert 0 < len(asked) < len(partitions) / 2
    # partitions have footers larger than themselves here: columns are what can be told
    kept = pq.read_schema(files[0]).names
    assert "parallax" in kept
    assert not {"gspphot", "corrections", "teff_gspphot", "pmra"} & {*kept}


def test_what_is_there_is_not_read_again_and_breaks_are_mended(
    sky, served: Hub, tmp_path: Path
) -> None:
    area, folder = Cone(*CENTRE, 1.0), tmp_path / "part"
    served.step = "Npix"
    served.faults.extend([Fault("status", 503)] * 2)
    files = copy_area(served.url, area, folder, retry=QUICK)
    before = {path: path.read_bytes() for path in files}
    files[0].unlink()
    served.log.clear()
    assert copy_area(served.url, area, folder, retry=QUICK) == files
    assert {path: path.read_bytes() for path in files} == before
    assert len({path for _, path in served.log if "Npix" in path}) == 1
    with pytest.raises(xp.InputError, match="was left by a run with other options"):
        copy_area(served.url, Cone(*CENTRE, 2.0), folder, retry=QUICK)
    served.faults.extend([Fault("status", 503)] * 99)
    with pytest.raises(xp.InputError, match="cannot be read as a HATS catalogue"):
        copy_area(served.url, area, tmp_path / "other", retry=QUICK)
    assert not list((tmp_path / "other").glob("*Npix*"))


def test_boxes_and_pixels(sky, tmp_path: Path) -> None:
    folder, stars, ra, dec = sky
    box = Box.parse("359,1,11,12.5")
    files = copy_area(str(folder), box, tmp_path / "box")
    found = xp.read(files).source_id
    wanted = ((ra > 359) | (ra < 1)) & (dec > 11) & (dec < 12.5)
    assert set(found.tolist()) == set(stars.source_id[wanted].tolist())
    from hats.pixel_math import healpix_shim

    pixel = healpix_shim.radec2pix(3, ra, dec)
    number = int(pixel[0])
    found = xp.read(copy_area(str(folder), SkyPixel(number), tmp_path / "pixel")).source_id
    assert set(found.tolist()) == set(stars.source_id[pixel == number].tolist())
    with pytest.raises(xp.InputError, match="has no star in the cone"):
        copy_area(str(folder), Cone(100.0, -60.0, 0.1), tmp_path / "empty")


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Stars, np.ndarray]:
    """A collection of 300 stars all over the sky in 192 partitions, and their positions."""
    stars, random = xp.example_stars(300, seed=4), np.random.default_rng(4)
    ra, dec = random.uniform(0, 360, 300), np.rad2deg(np.arcsin(random.uniform(-1, 1, 300)))
    folder = tmp_path_factory.mktemp("everywhere") / "collection"
    return write_collection(folder, public_table(stars, ra, dec), order=2), stars, [ra, dec]


@pytest.mark.parametrize(
    "area",
    [
        Box.parse("0,360,-90,90"), Box.parse("360,10,-90,90"), Box.parse("0,40,-30,30"),
        Box.parse("350,20,60,90"), Cone(20.0, 5.0, 165.0), Cone(300.0, -89.0, 30.0),
        SkyPixel(134),
    ],
    ids=str,
)  # fmt: skip
def test_no_star_of_an_area_is_lost(area: Area, everywhere, tmp_path: Path) -> None:
    folder, stars, place = everywhere
    files = copy_area(str(folder), area, tmp_path / "part")
    found = np.concatenate([xp.read(path).source_id for path in files])
    np.testing.assert_array_equal(np.sort(found), np.sort(stars.source_id[area.contains(*place)]))


@given(st.floats(0, 360), st.floats(-90, 90), st.floats(0.001, 179), st.integers(0, 2**32 - 1))
def test_a_cone_is_what_angles_say(ra: float, dec: float, radius: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    lon, lat = random.uniform(0, 360, 20), np.rad2deg(np.arcsin(random.uniform(-1, 1, 20)))

    def vectors(a: np.ndarray, d: np.ndarray) -> np.ndarray:
        a, d = np.deg2rad(a), np.deg2rad(d)
        return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])

    angle = np.rad2deg(
        np.arccos(np.clip(vectors(np.array(ra), np.array(dec)) @ vectors(lon, lat), -1, 1))
    )
    clear = np.abs(angle - radius) > 1e-4
    found = Cone(ra, dec, radius).contains(lon, lat)
    np.testing.assert_array_equal(found[clear], (angle <= radius)[clear])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--box", "1,2,3"], "is not a box; write it as RA1,RA2,DEC1,DEC2"),
        (["--box", "1,2,5,3"], "is not on the sphere"),
        (["--pixel", "768"], "is not a HEALPix pixel of order 3"),
        (["--cone", "1,2"], "is not a cone"),
        (["--cone", "1,2,3"], "cannot be read as a HATS catalogue .is not there"),
        ([], "is an address: only a part of the sky is read from there; add --cone"),
    ],
)
def test_wrong_words_are_told(
    words: list[str], message: str, served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import re

    output = tmp_path / "labels.parquet"
    assert main(["predict", f"{served.url}/none", *words, "--output", str(output)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")  # of LSDB and pandas with one another
def test_inside_lsdb_in_one_line(sky, tmp_path: Path) -> None:
    lsdb = pytest.importorskip("lsdb")
    folder, *_ = sky
    catalogue = lsdb.open_catalog(folder).cone_search(*CENTRE, 3600 * 0.7)
    labels = xp.predict_catalog(xp.load_model(), catalogue).compute().sort_values("source_id")
    output = tmp_path / "labels.parquet"
    main(
        ["predict", str(folder), "--cone", f"{CENTRE[0]},{CENTRE[1]},0.7", "--output", str(output)]
    )
    expected = table(output)
    np.testing.assert_array_equal(labels["source_id"], expected["source_id"])
    np.testing.assert_allclose(labels["teff"].astype(float), expected["teff"], rtol=1e-5)
    assert (labels["flags"].to_numpy() & int(Flag.NO_CORRELATIONS)).all()


def test_typical_correlations_are_not_zero_and_their_own(sky) -> None:
    """What stands in for absent correlations changes the errors, and no label."""
    _, stars, *_ = sky
    model, bare = xp.load_model(), as_there(stars[:200])
    packed = [np.zeros((200, 1485), np.float32)] * 2
    bands = (
        replace(band, correlations=zero)
        for band, zero in zip((bare.spectra.bp, bare.spectra.rp), packed, strict=True)
    )
    zero = model.predict(replace(bare, spectra=CoefficientSpectra(*bands)))
    typical = model.predict(bare)
    np.testing.assert_array_equal(typical.values, zero.values)
    known = np.isfinite(zero.errors_input)
    assert not np.isclose(typical.errors_input[known], zero.errors_input[known], rtol=1e-4).all()
    assert (typical.flags & Flag.NO_CORRELATIONS).all()
