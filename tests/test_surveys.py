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
from xplabels.core.stars import MEASUREMENTS
from xplabels.surveys import SurveyTable, read_survey, survey_of
from xplabels.surveys.labels import ASPCAP_FLAG, EXTRA_TARGET, STAR_FLAG
from xplabels.surveys.matching import MatchFlag, Neighbours, match_by_id, translate
from xplabels.surveys.merging import stack
from xplabels.surveys.photometry import TO_ALLWISE, unwise_magnitude
from xplabels.surveys.table import RawTable

Columns = dict[str, Any]
NAN = np.nan


def known(table: SurveyTable) -> dict[str, str]:
    """By label or measurement, which rows [N] have it: "1010"."""
    named: Columns = {}
    if table.labels is not None:
        named = dict(zip(table.labels.names, table.labels.values.T, strict=True))
        assert np.array_equal(np.isfinite(table.labels.values), np.isfinite(table.labels.errors))
    if table.photometry is not None:
        named = {name: table.photometry.column(name)[0] for name in MEASUREMENTS}
    finite = {k: "".join(str(int(x)) for x in np.isfinite(v)) for k, v in named.items()}
    return {name: rows for name, rows in finite.items() if "1" in rows}


def masked(values: list[float], *rows: int) -> MaskedColumn:
    return MaskedColumn(values, mask=[row in rows for row in range(len(values))])


def all_star(**other: Any) -> Columns:
    """Four rows of allStar: whole, NaN, -9999.99, and without a Gaia source."""
    columns = {
        "APOGEE_ID": ["2M1", "2M2", "2M3", "2M4"],
        "GAIAEDR3_SOURCE_ID": np.array([IDS[0], IDS[1], 0, -1]),
        "SNR": np.array([120.0, 80.0, 5.0, NAN], np.float32),
        "ASPCAPFLAG": np.array([0, 1 << 41, 1 << 23, (1 << 23) + (1 << 31)]),
        "EXTRATARG": np.array([0, 16, 0, 1], np.int32),
        "PARAM": np.ones((4, 9), np.float32),
    }
    for name, value in (("TEFF", 4800), ("LOGG", 2.5), ("FE_H", -0.2), ("C_FE", 0.1),
                        ("N_FE", 0.2), ("ALPHA_M", 0.05)):  # fmt: skip
        columns[name] = np.array([value, NAN, -9999.99, value], np.float32)
        columns[f"{name}_ERR"] = np.array([0.1, NAN, -9999.99, 0.1], np.float32)
    return columns | other


def test_allstar_is_read_as_it_is(tmp_path: Path) -> None:
    path = write(all_star(), tmp_path / "allStar.fits")
    table = read_survey("apogee", path, ("aspcapflag", "extratarg"))
    assert table.source_id.tolist() == [IDS[0], IDS[1], 0, 0]
    six = ("teff", "logg", "fe_h", "c_fe", "n_fe", "alpha_m")
    assert known(table) == dict.fromkeys(six, "1001")
    assert table.columns["aspcapflag"].tolist() == all_star()["ASPCAPFLAG"].tolist()
    assert table.columns["extratarg"].tolist() == [0, 16, 0, 1]
    assert np.array_equal(table.quality, [120, 80, 5, NAN], equal_nan=True)


def test_impossible_labels_of_a_survey_are_unknown_and_counted(tmp_path: Path) -> None:
    strange = {"TEFF": np.array([99999.0, 4800, 4700, 4600]), "TEFF_ERR": np.array([1.0, 0, 1, 1])}
    mask = np.array([-(2**31) + (1 << 23), 5, -9999, 0], np.int32)  # the first has its highest bit
    path = write(all_star(**strange, ASPCAPFLAG=mask), tmp_path / "a.fits")
    table = read_survey("apogee", path, ["aspcapflag"])
    assert known(table)["teff"] == "0011"
    assert any("1 values of teff without a positive error" in note for note in table.notes)
    assert any("1 values of teff outside 1000 to 60000 K" in note for note in table.notes)
    assert table.columns["aspcapflag"].tolist() == [(1 << 31) + (1 << 23), 5, -1, 0]


def test_sentinels_and_infinities_are_missing() -> None:
    values = np.array([-9999.99, -9999, -999, np.inf, -np.inf, NAN, -998.9, 0])
    table = RawTable({"a": values}, np.arange(8), "a.csv")
    assert np.isfinite(table.numbers("a")).tolist() == [False] * 6 + [True] * 2


def test_bits_are_those_of_dr17() -> None:
    """The official numbers, as the SDSS page lists those that FS24 cuts."""
    flags = {
        ASPCAP_FLAG: {"STAR_BAD": 23, "NO_GRID": 33, "MULTIPLE_SUSPECT": 41},
        STAR_FLAG: {"VERY_BRIGHT_NEIGHBOR": 3, "LOW_SNR": 4, "PERSIST_HIGH": 9,
                   "PERSIST_JUMP_POS": 12, "PERSIST_JUMP_NEG": 13, "SUSPECT_RV_COMBINATION": 16},
        EXTRA_TARGET: {"DUPLICATE": 4},
    }  # fmt: skip
    for kind, bits in flags.items():
        assert {name: kind[name].value for name in bits} == {n: 1 << b for n, b in bits.items()}
    assert [*survey_of("apogee").masks.values()] == [*flags]
    assert not survey_of("gaia").masks


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
    assert known(table) == {"teff": "1101"}


@pytest.mark.parametrize("names", ["catwise", "vizier", "static"])
def test_catwise_by_its_own_names_and_by_vizier(tmp_path: Path, names: str) -> None:
    """Vega magnitudes as they are; what has an artefact or no error is missing."""
    values = {"w1mpro_pm": [12.0, 12.5, 13.0], "w2mpro_pm": [11.9, 12.4, 12.9]}
    errors = {"w1sigmpro_pm": [0.02, 0.03, 0.04], "w2sigmpro_pm": [0.03, np.nan, 0.05]}
    flags = {"ab_flags": ["00", "00", "D0"]}
    if names == "vizier":
        errors = {f"e_{k[:2]}mpro_pm": v for k, v in errors.items()}
        flags = {"abf": flags["ab_flags"]}
    if names == "static":
        values, errors = ({k[:-3]: v for k, v in one.items()} for one in (values, errors))
    ids = {"source_id": [11, 12, 13]}
    table = read_survey("catwise2020", write(ids | values | errors | flags, tmp_path / "cw.csv"))
    light = table.photometry
    for band, known, sigma in (
        ("w1mpro", [12.0, 12.5, np.nan], [0.02, 0.03, np.nan]),
        ("w2mpro", [11.9, np.nan, 12.9], [0.03, np.nan, 0.05]),
    ):
        np.testing.assert_array_equal(light.column(band), (known, sigma))
    assert len(table.notes) == 2


@pytest.mark.parametrize("ending", [".fits", ".parquet"])
def test_unwise_fluxes_become_vega_magnitudes_on_the_scale_of_allwise(
    ending: str, tmp_path: Path
) -> None:
    flux = np.array([[1e5, 4e4], [-3.0, 10.0], [10.0, NAN], [0.0, 30.0]], np.float32)
    error = np.array([[50, 40], [2, 5], [2, 1], [1, 10.0]], np.float32)
    columns = {"source_id": IDS, "flux": flux, "dflux": error}
    table = read_survey("unwise", write(columns, tmp_path / f"u{ending}"))
    assert known(table) == {"w1mpro": "1010", "w2mpro": "1001"}
    (w1, error), (w2, _) = (table.photometry.column(name) for name in ("w1mpro", "w2mpro"))
    # by hand: 22.5 - 2.5 x 5 - 0.004
    assert (w1[0], w2[0]) == pytest.approx((9.996, 22.5 - 2.5 * np.log10(4e4) - 0.032), abs=1e-6)
    assert error[0] == pytest.approx(1.0857362 * 50 / 1e5, rel=1e-6)
    assert any("2 fluxes of w1mpro are not positive" in note for note in table.notes)


@given(st.floats(1.0, 1e7), st.floats(1e-3, 1e3))
def test_a_magnitude_goes_back_to_its_flux(flux: float, error: float) -> None:
    value, sigma = unwise_magnitude(np.array([flux]), np.array([error]), "w2mpro")
    if flux < 3 * error:
        assert np.isnan(value[0])
        assert np.isnan(sigma[0])
        return
    back = 10 ** ((22.5 - value[0] - TO_ALLWISE["w2mpro"]) / 2.5)
    assert back == pytest.approx(flux, rel=1e-9)
    # the error is the slope of the magnitude
    assert sigma[0] == pytest.approx(2.5 / np.log(10) * error / flux, rel=1e-9)


CONVENTIONS: dict[str, tuple[Columns, dict[str, str], dict[str, float], str]] = {
    # columns; which rows are known; errors of the first row; a note
    "twomass": (
        {"j_m": [10.0, 10.1, 10.2, 10.3], "j_msigcom": masked([0.0, 0.02, 0.02, 0.02], 0),
         "j_cmsig": [0.01] * 4, "h_m": [9.0, 9.1, 9.2, 9.3], "h_msigcom": [0.02] * 4,
         "k_m": [8.0, 8.1, 8.2, 8.3], "k_msigcom": [0.03] * 4,
         "ph_qual": ["AAA", "UAF", "EBX", "AFA"]},
        {"j_m": "1011", "h_m": "1110", "ks_m": "1001"}, {"j_m": 0.01, "h_m": 0.02, "ks_m": 0.03},
        "1 values of h_m are flagged F, U or X: missing",
    ),
    "allwise": (
        {"w1mpro": [8.0, 8.1, 8.2, 8.3], "w1mpro_error": masked([0.02, 0.02, 0.0, 0.02], 2),
         "w2mpro": [7.9, 8.0, 8.1, 8.2], "w2mpro_error": [0.03] * 4,
         "ph_qual": ["AAUU", "UAUU", "AAUU", "AZUU"]},
        {"w1mpro": "1001", "w2mpro": "1110"}, {"w1mpro": 0.02, "w2mpro": 0.03},
        "2 values of w1mpro are limits: missing",
    ),
    "lamost-mrs": (
        {"teff_cnn": [5000.0, -9999, 5200, 5300], "c_fe": [0.1, -9999, 0.2, 0.3]},
        {"teff": "1011", "c_fe": "1011"}, {"teff": 119, "c_fe": 0.12},
        "SPCANet's precisions are assumed (K, dex): 119 for teff, 0.12 for c_fe",
    ),
    "gspphot": (
        {"teff_gspphot": masked([5000.0, 0, 6000, 7000], 1),
         "teff_gspphot_lower": [4980.0, 1, 5990, 7000],
         "teff_gspphot_upper": [5040.0, 2, 6010, 7000], "mh_gspphot": [-0.1] * 4,
         "mh_gspphot_lower": [-0.2] * 4, "mh_gspphot_upper": [0.0] * 4},
        {"teff": "1010", "fe_h": "1111"}, {"teff": 30, "fe_h": 0.1}, "[M/H] stands for fe_h",
    ),
    "fs24": (
        {"teff": [5000.0] * 4, "teff_total_unc": [50.0, 0, 50, 50], "logg": [4.0] * 4},
        {"teff": "1011"}, {"teff": 50}, "no error of logg; looked for logg_err, logg_error",
    ),
}  # fmt: skip


@pytest.mark.parametrize("survey", CONVENTIONS)
def test_what_counts_as_missing_and_as_an_error(survey: str, tmp_path: Path) -> None:
    columns, expected, errors, note = CONVENTIONS[survey]
    table = read_survey(survey, write({"source_id": IDS} | columns, tmp_path / "t.ecsv"))
    assert known(table) == expected
    names, measured = MEASUREMENTS, table.photometry
    if measured is None:
        names, measured = table.labels.names, table.labels
    found = dict(zip(names, measured.errors[0], strict=True))
    assert {name: found[name] for name in errors} == pytest.approx(errors)
    assert any(note in one for one in table.notes)


def test_files_of_one_survey_need_not_have_the_same_context(tmp_path: Path) -> None:
    columns = CONVENTIONS["gspphot"][0] | {"source_id": IDS}
    files = [
        write(columns | {"ag_gspphot": [0.1] * 4}, tmp_path / "a.ecsv"),
        write(columns, tmp_path / "b.ecsv"),
    ]
    both = stack([read_survey("gspphot", path) for path in files])
    assert len(both) == len(both.labels) == 8
    assert not both.columns
    del columns["mh_gspphot"]
    fewer = read_survey("gspphot", write(columns, tmp_path / "c.ecsv"))
    with pytest.raises(InputError, match=r"c.ecsv: differs in its columns from .*a.ecsv"):
        stack([both, fewer])


def test_gaia_source_of_the_bulk_download(tmp_path: Path) -> None:
    """Gzipped text under a header of comments, ``null`` for what is missing."""
    path = tmp_path / "GaiaSource_000000-003111.csv.gz"
    lines = [
        "# %ECSV 1.0", "# ---", "# delimiter: ','", "# - {name: ruwe, datatype: float32}",
        "source_id,ruwe,phot_g_mean_mag,phot_g_mean_flux_over_error,parallax,parallax_error",
        f"{IDS[0]},1.25,12.5,1000.0,-150.0,0.5", f"{IDS[1]},null,13.5,null,1.5,0.02",
        f"{IDS[2]},9.8E-1,null,null,1.5,null",
    ]  # fmt: skip
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    table = read_survey("gaia", path, ["ruwe"])
    assert table.source_id.tolist() == IDS[:3].tolist()
    assert np.array_equal(table.columns["ruwe"], [1.25, NAN, 0.98], equal_nan=True)
    assert known(table) == {"phot_g_mean_mag": "100", "parallax": "110"}
    error = table.photometry.column("phot_g_mean_mag")[1][0]
    assert error == pytest.approx(1.0857362e-3, rel=1e-6)


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
    assert table.quality.tolist() == [50, 30, 20, 80]
    assert "3 matches; 2 SEVERAL" in table.notes[0]
    assert table.labels.names == ("teff", "logg", "fe_h")


def test_a_table_of_ones_own_is_held_to_account(tmp_path: Path) -> None:
    good = {"source_id": IDS, "teff": [5000.0] * 4, "teff_err": [50.0] * 4, "snr": [1.0, 2, 3, 4]}
    table = read_survey("galah", write(good, tmp_path / "g.csv"))
    assert table.survey == "galah"
    assert table.quality.tolist() == [1, 2, 3, 4]
    assert known(table) == {"teff": "1111"}
    with pytest.raises(InputError, match="outside the plausible range"):
        read_survey("galah", write(good | {"teff": [1.0] * 4}, tmp_path / "b.csv"))
    nobody = good | {"source_id": [*IDS[:3], 0], "teff": [5e3] * 3 + [1.0]}  # in the last row
    assert known(read_survey("galah", write(nobody, tmp_path / "n.csv"))) == {"teff": "1110"}
    with pytest.raises(InputError, match="has no column of labels"):
        read_survey("galah", write({"source_id": IDS, "age": [1.0] * 4}, tmp_path / "c.csv"))
    with pytest.raises(InputError, match="'ruwe', which a rule asks for, is absent"):
        read_survey("galah", tmp_path / "g.csv", ["ruwe"])


def test_two_mass_by_the_best_neighbour_table(tmp_path: Path) -> None:
    keys = ["00000000+0000000", "00000001+0000001", "00000002+0000002"]
    psc = {"designation": keys, "j_m": [10.0, 11, 12], "j_msigcom": [0.02] * 3}
    best = {"source_id": IDS[:3], "original_ext_source_id": [keys[1], keys[1], keys[0]],
            "angular_distance": [0.1, 0.2, 0.1], "number_of_mates": [1, 1, 0]}  # fmt: skip
    neighbours = write(best, tmp_path / "best.csv")
    table = read_survey("twomass", write(psc, tmp_path / "psc.csv"), ["match_flags"], neighbours)
    ids, shared = table.source_id.tolist(), MatchFlag.SHARED
    j = table.photometry.column("j_m")[0]
    assert dict(zip(ids, j, strict=True)) == {IDS[0]: 11, IDS[1]: 11, IDS[2]: 10, 0: 12}
    flags = dict(zip(ids, table.columns["match_flags"], strict=True))
    assert flags == {IDS[0]: shared, IDS[1]: shared, IDS[2]: 0, 0: 0}
    assert "3 matches; 2 SHARED" in table.notes[0]
    assert "1 of 3 rows have no Gaia source" in table.notes[0]


Pairs = list[tuple[int, int, float]]
PAIRS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 6), st.floats(0, 1)), min_size=1, max_size=12
)


def neighbours_of(pairs: Pairs) -> Neighbours:
    key, source, distance = (np.array(column) for column in zip(*pairs, strict=True))
    return Neighbours(key, source, distance.astype(float), np.full(len(pairs), -1))


def flags(several: bool, shared: bool) -> int:
    return MatchFlag.SEVERAL * several | MatchFlag.SHARED * shared


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), PAIRS)
def test_matching_by_id_does_what_trying_every_pair_does(keys: list[int], pairs: Pairs) -> None:
    candidates: dict[int, list[tuple[float, int]]] = {}
    for key, source, distance in pairs:
        if key in keys and source > 0:
            candidates.setdefault(source, []).append((distance, keys.index(key)))
    chosen = {s: min(c, key=lambda pair: pair[0])[1] for s, c in candidates.items()}
    rows = [*chosen.values()]
    expected = {
        s: (row, flags(len(candidates[s]) > 1, rows.count(row) > 1)) for s, row in chosen.items()
    }
    found = match_by_id(np.array(keys), neighbours_of(pairs))
    matches = [*zip(*(column.tolist() for column in found), strict=True)]
    claimed = len(expected)
    assert {source: (row, flag) for source, row, flag in matches[:claimed]} == expected
    rest = sorted({*range(len(keys))} - {*rows})
    assert matches[claimed:] == [(0, row, 0) for row in rest]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), PAIRS)
def test_translation_does_what_trying_every_pair_does(keys: list[int], pairs: Pairs) -> None:
    real = [pair for pair in pairs if pair[1] > 0]
    nearest = {}
    for key in {pair[0] for pair in real}:
        nearest[key] = min((p for p in real if p[0] == key), key=lambda p: p[2])[1]
    sources = [*nearest.values()]
    expected = [
        (
            nearest.get(key, 0),
            row,
            flags(sum(p[0] == key for p in real) > 1, sources.count(nearest.get(key, 0)) > 1),
        )
        for row, key in enumerate(keys)
    ]
    found = (column.tolist() for column in translate(np.array(keys), neighbours_of(pairs)))
    assert list(zip(*found, strict=True)) == expected
