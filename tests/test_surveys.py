"""Tables of surveys: null conventions, bits, identifiers; matching against slow, obvious twins."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import MaskedColumn
from hypothesis import given
from hypothesis import strategies as st

from survey_tables import IDS, write
from xplabels.core.errors import InputError
from xplabels.surveys import read_survey, survey_of
from xplabels.surveys.apogee import AspcapFlag, ExtraTarget, StarFlag
from xplabels.surveys.matching import MatchFlag, Neighbours, match_by_id, translate
from xplabels.surveys.table import number
from xplabels.surveys.unwise import TO_ALLWISE, magnitude

# --- APOGEE ---------------------------------------------------------------------------------


def all_star(**other: Any) -> dict[str, Any]:
    """Four rows of allStar: whole, NaN, -9999.99, and without a Gaia source."""
    columns = {
        "APOGEE_ID": ["2M1", "2M2", "2M3", "2M4"],
        "GAIAEDR3_SOURCE_ID": np.array([IDS[0], IDS[1], 0, -1]),
        "SNR": np.array([120.0, 80.0, 5.0, np.nan], np.float32),
        "ASPCAPFLAG": np.array([0, 1 << 41, 1 << 23, (1 << 23) + (1 << 31)]),
        "STARFLAG": np.array([0, 1 << 3, 0, 0]),
        "EXTRATARG": np.array([0, 16, 0, 1], np.int32),
        "PARAM": np.ones((4, 9), np.float32),
    }
    for name, value in (("TEFF", 4800), ("LOGG", 2.5), ("FE_H", -0.2), ("C_FE", 0.1),
                        ("N_FE", 0.2), ("ALPHA_M", 0.05)):  # fmt: skip
        columns[name] = np.array([value, np.nan, -9999.99, value], np.float32)
        columns[f"{name}_ERR"] = np.array([0.1, np.nan, -9999.99, 0.1], np.float32)
    return columns | other


def test_allstar_is_read_as_it_is(tmp_path: Path) -> None:
    flags = ("aspcapflag", "starflag", "extratarg")
    table = read_survey("apogee", write(all_star(), tmp_path / "allStar.fits"), flags)
    assert table.source_id.tolist() == [IDS[0], IDS[1], 0, 0]
    assert table.labels is not None
    assert table.labels.names == ("teff", "logg", "fe_h", "c_fe", "n_fe", "alpha_m")
    known = np.isfinite(table.labels.values)
    assert known.tolist() == [[True] * 6, [False] * 6, [False] * 6, [True] * 6]
    assert np.array_equal(known, np.isfinite(table.labels.errors))
    assert table.columns["aspcapflag"].tolist() == all_star()["ASPCAPFLAG"].tolist()
    assert table.columns["extratarg"].tolist() == [0, 16, 0, 1]
    assert table.quality is not None
    assert np.array_equal(table.quality, [120, 80, 5, np.nan], equal_nan=True)


def test_impossible_labels_of_a_survey_are_unknown_and_counted(tmp_path: Path) -> None:
    strange = all_star(
        TEFF=np.array([99999.0, 4800, 4700, 4600]), TEFF_ERR=np.array([1, 0, 1, 1.0])
    )
    table = read_survey("apogee", write(strange, tmp_path / "a.fits"))
    assert table.labels is not None
    assert np.isfinite(table.labels.values[:, 0]).tolist() == [False, False, True, True]
    assert any("1 values of teff without a positive error" in note for note in table.notes)
    assert any("1 values of teff outside 1000 to 60000 K" in note for note in table.notes)


def test_sentinels_and_infinities_are_missing() -> None:
    values = np.array([-9999.99, -9999, -999, np.inf, -np.inf, np.nan, -998.9, 0])
    expected = [False] * 6 + [True] * 2
    assert np.isfinite(number({"a": values}, "a", 8)).tolist() == expected
    assert np.isnan(number({}, "a", 8)).all()


def test_bits_are_those_of_dr17() -> None:
    """The official numbers, as the SDSS page lists those that FS24 cuts."""
    flags = {
        AspcapFlag: {"STAR_BAD": 23, "NO_GRID": 33, "MULTIPLE_SUSPECT": 41},
        StarFlag: {"VERY_BRIGHT_NEIGHBOR": 3, "LOW_SNR": 4, "PERSIST_HIGH": 9,
                   "PERSIST_JUMP_POS": 12, "PERSIST_JUMP_NEG": 13, "SUSPECT_RV_COMBINATION": 16},
        ExtraTarget: {"DUPLICATE": 4},
    }  # fmt: skip
    for kind, bits in flags.items():
        assert {name: kind[name].value for name in bits} == {n: 1 << b for n, b in bits.items()}
    assert [*survey_of("apogee").masks.values()] == [*flags]
    assert not survey_of("gaia").masks


def test_a_32_bit_mask_with_its_highest_bit_and_nulls(tmp_path: Path) -> None:
    mask = np.array([-(2**31) + (1 << 23), 5, -9999, 0], np.int32)
    table = read_survey(
        "apogee", write(all_star(ASPCAPFLAG=mask), tmp_path / "a.fits"), ["aspcapflag"]
    )
    assert table.columns["aspcapflag"].tolist() == [(1 << 31) + (1 << 23), 5, -1, 0]


@pytest.mark.parametrize("ending", [".csv", ".ecsv", ".fits", ".vot", ".parquet"])
def test_nulls_of_masks_and_ids_in_every_format(ending: str, tmp_path: Path) -> None:
    null = [False, True, False, False]
    columns = {
        "source_id": MaskedColumn(IDS, mask=null),
        "aspcapflag": MaskedColumn(np.array([1 << 41, 0, 3, 1 << 23]), mask=null),
        "teff": [4000.0, 4100, np.nan, 4300],
        "teff_err": [50.0, 50, 50, 50],
    }
    table = read_survey("apogee", write(columns, tmp_path / f"t{ending}"), ["aspcapflag"])
    assert table.source_id.tolist() == [IDS[0], 0, IDS[2], IDS[3]]
    assert table.columns["aspcapflag"].tolist() == [1 << 41, -1, 3, 1 << 23]
    assert table.labels is not None
    assert np.isfinite(table.labels.values[:, 0]).tolist() == [True, True, False, True]


# --- photometry -----------------------------------------------------------------------------


def test_unwise_fluxes_become_vega_magnitudes_on_the_scale_of_allwise(tmp_path: Path) -> None:
    flux = np.array([[1e5, 4e4], [-3.0, 10.0], [10.0, np.nan], [0.0, 30.0]], np.float32)
    error = np.array([[50, 40], [2, 5], [2, 1], [1, 10.0]], np.float32)
    for ending in (".fits", ".parquet"):
        columns = {"source_id": IDS, "flux": flux, "dflux": error}
        table = read_survey("unwise", write(columns, tmp_path / f"u{ending}"))
        assert table.photometry is not None
        values, errors = table.photometry.column("w1mpro")
        # by hand: 22.5 - 2.5 x 5 - 0.004; and S/N 5 for the third
        assert values[0] == pytest.approx(9.996, abs=1e-6)
        assert errors[0] == pytest.approx(1.0857362 * 50 / 1e5, rel=1e-6)
        assert np.isfinite(values).tolist() == [True, False, True, False]
        second = table.photometry.column("w2mpro")[0]
        assert second[0] == pytest.approx(22.5 - 2.5 * np.log10(4e4) - 0.032, abs=1e-6)
        assert np.isfinite(second).tolist() == [True, False, False, True]
        assert any("2 fluxes of w1mpro are not positive" in note for note in table.notes)


@given(st.floats(1.0, 1e7), st.floats(1e-3, 1e3))
def test_a_magnitude_goes_back_to_its_flux(flux: float, error: float) -> None:
    value, sigma = magnitude(np.array([flux]), np.array([error]), "w2mpro")
    if flux < 3 * error:
        assert np.isnan(value[0])
        assert np.isnan(sigma[0])
        return
    back = 10 ** ((22.5 - value[0] - TO_ALLWISE["w2mpro"]) / 2.5)
    assert back == pytest.approx(flux, rel=1e-9)
    # the error is the slope of the magnitude: a small step in flux moves it by that much
    step = 1e-6 * flux
    moved, _ = magnitude(np.array([flux + step]), np.array([0.0 + error * 1e-9]), "w2mpro")
    assert (value[0] - moved[0]) * error / step == pytest.approx(sigma[0], rel=1e-4)


def test_two_mass_letters_and_errors(tmp_path: Path) -> None:
    columns = {
        "source_id": IDS,
        "j_m": [10.0, 10.1, 10.2, 10.3],
        "j_msigcom": MaskedColumn([0.02, 0.02, 0.02, 0.0], mask=[0, 0, 0, 1]),
        "j_cmsig": [0.01] * 4,
        "h_m": [9.0, 9.1, 9.2, 9.3],
        "h_msigcom": [0.02] * 4,
        "k_m": [8.0, 8.1, 8.2, 8.3],
        "k_msigcom": [0.03] * 4,
        "ph_qual": ["AAA", "UAF", "EBX", "AFA"],
    }
    table = read_survey("twomass", write(columns, tmp_path / "t.csv"))
    assert table.photometry is not None
    j, sigma = table.photometry.column("j_m")
    assert np.isfinite(j).tolist() == [True, False, True, True]
    assert sigma[3] == 0.01
    assert np.isfinite(table.photometry.column("h_m")[0]).tolist() == [True, True, True, False]
    assert np.isfinite(table.photometry.column("ks_m")[0]).tolist() == [True, False, False, True]
    assert any("1 values of h_m are flagged F, U or X" in note for note in table.notes)


def test_allwise_limits_are_no_measurements(tmp_path: Path) -> None:
    columns = {
        "source_id": IDS,
        "w1mpro": [8.0, 8.1, 8.2, 8.3],
        "w1mpro_error": MaskedColumn([0.02, 0.02, 0.0, 0.02], mask=[0, 0, 1, 0]),
        "w2mpro": [7.9, 8.0, 8.1, 8.2],
        "w2mpro_error": [0.02] * 4,
        "ph_qual": ["AAUU", "UAUU", "AAUU", "AZUU"],
    }
    table = read_survey("allwise", write(columns, tmp_path / "t.ecsv"))
    assert table.photometry is not None
    assert np.isfinite(table.photometry.column("w1mpro")[0]).tolist() == [True, False, False, True]
    assert np.isfinite(table.photometry.column("w2mpro")[0]).tolist() == [True, True, True, False]


def gaia_source(path: Path) -> Path:
    """Rows with values, nulls, a parallax below any sentinel and a flux of no error."""
    columns = {
        "source_id": IDS,
        "phot_g_mean_mag": [12.0, 13, 14, 15],
        "phot_g_mean_flux_over_error": MaskedColumn([1000.0, 0, 500, 1], mask=[0, 0, 1, 0]),
        "parallax": [-2000.0, 1.5, np.nan, 3],
        "parallax_error": [0.5, 0.02, 0.02, 0.02],
        "ruwe": [1.0, 1.4, np.nan, 2.0],
    }
    if not path.name.endswith(".csv.gz"):
        return write(columns, path)
    # the bulk download: gzipped text under a header of comments, null for what is missing
    lines = ["# %ECSV 1.0", "# ---", "# - {name: ruwe, datatype: float32}", ",".join(columns)]
    for row in zip(*columns.values(), strict=True):
        cells = [value is np.ma.masked or np.isnan(value) for value in row]
        lines.append(",".join("null" if c else str(v) for v, c in zip(row, cells, strict=True)))
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return path


@pytest.mark.parametrize("ending", [".csv", ".ecsv", ".fits", ".vot", ".parquet", ".csv.gz"])
def test_gaia_source_in_the_formats_of_the_archive(ending: str, tmp_path: Path) -> None:
    table = read_survey("gaia", gaia_source(tmp_path / f"g{ending}"), ["ruwe"])
    assert table.source_id.tolist() == IDS.tolist()
    assert table.photometry is not None
    values, errors = table.photometry.column("phot_g_mean_mag")
    assert np.isfinite(values).tolist() == [True, False, False, True]
    assert errors[0] == pytest.approx(1.0857362e-3, rel=1e-6)
    assert table.photometry.column("parallax")[0][:2].tolist() == [-2000, 1.5]
    assert np.array_equal(table.columns["ruwe"], [1, 1.4, np.nan, 2], equal_nan=True)


# --- other labels ---------------------------------------------------------------------------


def test_lamost_goes_by_dr2_identifiers_only_through_the_neighbourhood(tmp_path: Path) -> None:
    lines = [
        "obsid|gaia_source_id|teff|teff_err|logg|logg_err|feh|feh_err|snrg",
        f"1|{IDS[0]}|5000|30|4.0|0.1|-0.1|0.05|50",
        f"2|{IDS[1]}|-9999|-9999|-9999|-9999|-9999|-9999|30",
        "3||5200|30|4.2|0.1|-9999|-9999|20",
        f"4|{IDS[0]}|5010|30|4.0|0.1|-0.1|0.05|80",
    ]
    path = tmp_path / "dr7_lrs.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"no Gaia DR3 source_id .*by --neighbours"):
        read_survey("lamost-lrs", path)
    dr2 = {
        "dr2_source_id": [IDS[0], IDS[0], IDS[1]],
        "dr3_source_id": [IDS[3], IDS[2], IDS[1]],
        "angular_distance": [300.0, 0.1, 0.2],
    }
    neighbours = write(dr2, tmp_path / "dr2_neighbourhood.fits")
    table = read_survey("lamost-lrs", path, neighbours=neighbours)
    assert table.source_id.tolist() == [IDS[2], IDS[1], 0, IDS[2]]
    assert table.quality is not None
    assert table.quality.tolist() == [50, 30, 20, 80]
    assert "3 matches; 2 SEVERAL" in table.notes[0]
    assert table.labels is not None
    assert table.labels.names == ("teff", "logg", "fe_h")


def test_lamost_mrs_takes_the_stated_precision_as_errors(tmp_path: Path) -> None:
    columns = {
        "source_id": IDS,
        "teff_cnn": [5000.0, -9999, 5200, 5300],
        "c_fe": [0.1, -9999, 0.2, 0.3],
        "snr": [10.0, 20, 30, 40],
    }
    table = read_survey("lamost-mrs", write(columns, tmp_path / "m.csv"))
    assert table.labels is not None
    assert table.labels.names == ("teff", "c_fe")
    assert table.labels.errors[0].tolist() == [119.0, 0.12]
    assert np.isnan(table.labels.errors[1]).all()
    assert "SPCANet's precisions are assumed (K, dex): 119 for teff, 0.12 for c_fe" in str(
        table.notes
    )


def test_gspphot_percentiles_become_errors(tmp_path: Path) -> None:
    columns = {
        "source_id": IDS,
        "teff_gspphot": MaskedColumn([5000.0, 0, 6000, 7000], mask=[0, 1, 0, 0]),
        "teff_gspphot_lower": [4980.0, 1, 5990, 7000],
        "teff_gspphot_upper": [5040.0, 2, 6010, 7000],
        "mh_gspphot": [-0.1] * 4,
        "mh_gspphot_lower": [-0.2] * 4,
        "mh_gspphot_upper": [0.0] * 4,
    }
    table = read_survey("gspphot", write(columns, tmp_path / "g.fits"))
    assert table.labels is not None
    assert table.labels.errors[:, 0].tolist()[0] == 30
    assert np.isfinite(table.labels.values[:, 0]).tolist() == [True, False, True, False]
    assert any("[M/H] stands for fe_h" in note for note in table.notes)


def test_a_table_of_ones_own_is_held_to_account(tmp_path: Path) -> None:
    good = {"source_id": IDS, "teff": [5000.0] * 4, "teff_err": [50.0] * 4, "snr": [1.0, 2, 3, 4]}
    table = read_survey("galah", write(good, tmp_path / "g.csv"))
    assert table.survey == "galah"
    assert table.quality is not None
    assert table.labels is not None
    with pytest.raises(InputError, match="outside the believable range"):
        read_survey("galah", write(good | {"teff": [1.0] * 4}, tmp_path / "b.csv"))
    with pytest.raises(InputError, match="has no column of labels"):
        read_survey("galah", write({"source_id": IDS, "age": [1.0] * 4}, tmp_path / "c.csv"))
    with pytest.raises(InputError, match="'ruwe', which a rule asks for, is absent"):
        read_survey("galah", tmp_path / "g.csv", ["ruwe"])


@pytest.mark.parametrize("error", ["teff_err", "teff_total_unc", "e_teff"])
def test_fs24_by_any_name_of_its_errors(error: str, tmp_path: Path) -> None:
    columns = {"source_id": IDS, "teff": [5000.0] * 4, error: [50.0, 0, 50, 50], "logg": [4.0] * 4}
    table = read_survey("fs24", write(columns, tmp_path / "t.fits"))
    assert table.labels is not None
    assert np.isfinite(table.labels.values).sum(axis=0).tolist() == [3, 0]
    assert any("no error of logg; looked for logg_err, logg_error" in note for note in table.notes)


# --- identifiers ----------------------------------------------------------------------------


def test_two_mass_by_the_best_neighbour_table(tmp_path: Path) -> None:
    psc = {
        "designation": ["00000000+0000000", "00000001+0000001", "00000002+0000002"],
        "j_m": [10.0, 11.0, 12.0],
        "j_msigcom": [0.02] * 3,
        "ph_qual": ["AAA"] * 3,
    }
    best = {
        "source_id": IDS[:3],
        "original_ext_source_id": ["00000001+0000001", "00000001+0000001", "00000000+0000000"],
        "angular_distance": [0.1, 0.2, 0.1],
        "number_of_mates": [1, 1, 0],
    }
    neighbours = write(best, tmp_path / "best.csv")
    table = read_survey("twomass", write(psc, tmp_path / "psc.csv"), ["match_flags"], neighbours)
    assert table.photometry is not None
    found = dict(zip(table.source_id.tolist(), table.photometry.column("j_m")[0], strict=True))
    assert found == {IDS[0]: 11.0, IDS[1]: 11.0, IDS[2]: 10.0, 0: 12.0}
    assert "3 matches; 2 SHARED" in table.notes[0]
    flags = dict(zip(table.source_id.tolist(), table.columns["match_flags"], strict=True))
    assert flags == {IDS[0]: MatchFlag.SHARED, IDS[1]: MatchFlag.SHARED, IDS[2]: 0, 0: 0}
    assert "1 of 3 rows have no Gaia source" in table.notes[0]


PAIRS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 6), st.floats(0, 1)), min_size=1, max_size=12
)


def obvious_matches(
    keys: list[int], pairs: list[tuple[int, int, float]]
) -> dict[int, tuple[int, int]]:
    """source -> (row, flags), by trying every pair."""
    candidates: dict[int, list[tuple[float, int]]] = {}
    for key, source, distance in pairs:
        if key in keys and source > 0:
            candidates.setdefault(source, []).append((distance, keys.index(key)))
    chosen = {s: min(c, key=lambda pair: pair[0])[1] for s, c in candidates.items()}
    rows = list(chosen.values())
    return {
        s: (
            row,
            (MatchFlag.SEVERAL if len(candidates[s]) > 1 else 0)
            | (MatchFlag.SHARED if rows.count(row) > 1 else 0),
        )
        for s, row in chosen.items()
    }


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), PAIRS)
def test_matching_by_id_does_what_the_obvious_loop_does(
    keys: list[int], pairs: list[tuple[int, int, float]]
) -> None:
    key, source, distance = (np.array(column) for column in zip(*pairs, strict=True))
    unknown = np.full(len(pairs), -1)
    ids, row, flags = match_by_id(
        np.array(keys), Neighbours(key, source, distance.astype(float), unknown)
    )
    found = dict(zip(ids.tolist(), zip(row.tolist(), flags.tolist(), strict=True), strict=True))
    assert found == obvious_matches(keys, pairs)


def obvious_translation(key: int, pairs: list[tuple[int, int, float]]) -> tuple[int, int]:
    """Source and flags of one row, by trying every pair."""
    nearest = {
        k: min((p for p in pairs if p[0] == k and p[1] > 0), key=lambda p: p[2], default=None)
        for k, _, _ in pairs
    }
    mine = nearest.get(key)
    if mine is None:
        return 0, 0
    flags = 0
    if sum(k == key and source > 0 for k, source, _ in pairs) > 1:
        flags |= MatchFlag.SEVERAL
    if sum(pair is not None and pair[1] == mine[1] for pair in nearest.values()) > 1:
        flags |= MatchFlag.SHARED
    return mine[1], int(flags)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), PAIRS)
def test_translation_does_what_the_obvious_loop_does(
    keys: list[int], pairs: list[tuple[int, int, float]]
) -> None:
    key, source, distance = (np.array(column) for column in zip(*pairs, strict=True))
    unknown = np.full(len(pairs), -1)
    found, flags = translate(
        np.array(keys), Neighbours(key, source, distance.astype(float), unknown)
    )
    assert list(zip(found.tolist(), flags.tolist(), strict=True)) == [
        obvious_translation(k, pairs) for k in keys
    ]
