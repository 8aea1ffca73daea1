"""Selection: exactly the rows that a slow, obvious loop keeps, and a flow that adds up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from xplabels.archive import read_stars, write_stars
from xplabels.cli import main
from xplabels.cuts.flow import CutFlow, count
from xplabels.cuts.rules import load_rules, parse_rule
from xplabels.errors import InputError
from xplabels.labels import LABELS
from xplabels.stars import Band, CoefficientSpectra, Stars

ROWS = 10_000
SIX = tuple(LABELS)
NORMAL = {"teff": 4800, "logg": 2.5, "fe_h": -0.2, "c_fe": 0.1, "n_fe": 0.2, "alpha_m": 0.05}
ASPCAP_BITS = (*range(15), *range(16, 37), 40, 41)
STAR_BITS = (0, 1, 2, 3, 4, 9, 10, 11, 12, 13, *range(16, 26))


def spectra_of(source_id: np.ndarray, path: Path, bp_missing: np.ndarray | None = None) -> Path:
    """A star table of few coefficients."""
    rng = np.random.default_rng(7)
    bands = []
    for width in (3, 4):
        coefficients = rng.normal(10.0, 1.0, (len(source_id), width))
        bands.append(
            Band(
                coefficients,
                np.full_like(coefficients, 0.125),
                np.zeros((len(source_id), width * (width - 1) // 2), np.float32),
            )
        )
    if bp_missing is not None:
        bands[0].coefficients[bp_missing] = np.nan
        bands[0].errors[bp_missing] = np.nan
    write_stars(Stars.of(source_id, CoefficientSpectra(*bands)), path)
    return path


def made_all_star(rng: np.random.Generator) -> dict[str, Any]:
    """Rows with every bit by itself and in combination, and every way of being null."""
    source = 4_000_000_000_000_000_000 + rng.integers(0, 7000, ROWS)
    source = np.where(rng.random(ROWS) < 0.03, rng.choice([0, -1, -9999], ROWS), source)

    def mask(bits: tuple[int, ...], share: float) -> np.ndarray:
        values = np.zeros(ROWS, np.int64)
        values[: 3 * len(bits)] = np.repeat([1 << bit for bit in bits], 3)
        some = np.flatnonzero(rng.random(ROWS) < share)
        for _ in range(2):
            values[some] |= np.int64(1) << rng.choice(bits, len(some))
        values[rng.random(ROWS) < 0.01] = -9999
        return rng.permutation(values)

    columns: dict[str, Any] = {
        "APOGEE_ID": np.array([f"2M{k:08d}" for k in range(ROWS)]),
        "GAIAEDR3_SOURCE_ID": source,
        "SNR": np.where(rng.random(ROWS) < 0.02, np.nan, rng.uniform(5, 500, ROWS)),
        "ASPCAPFLAG": mask(ASPCAP_BITS, 0.3),
        "STARFLAG": mask(STAR_BITS, 0.3),
        "EXTRATARG": mask((0, 1, 2, 3, 4), 0.3),
    }
    for name, value in NORMAL.items():
        values = value + 1e-6 * np.arange(ROWS)  # each row's own, to tell repeats apart
        errors = np.full(ROWS, 0.05)
        for which, what in enumerate((np.nan, -9999.99, -9999.0, np.inf)):
            values[rng.random(ROWS) < 0.005] = what
            errors[rng.random(ROWS) < 0.005] = (what, 0.0, -9999.99, np.inf)[which]
        columns[name.upper()], columns[f"{name.upper()}_ERR"] = values, errors
    return columns


def made_gaia(source: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """gaia_source for most of the sources: bounds met exactly, nulls."""
    ids = np.unique(source[source > 0])
    ids = rng.permutation(ids[rng.random(len(ids)) < 0.97])
    n = len(ids)
    ruwe = rng.choice(
        [0.9, 1.1, 1.4, np.nextafter(1.4, 2), 3.0, np.nan], n, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05]
    )
    excess = rng.choice(
        [1.2, 3.0, np.nextafter(3.0, 0), 5.0, np.nan], n, p=[0.6, 0.1, 0.2, 0.05, 0.05]
    )
    return {
        "source_id": ids,
        "ruwe": ruwe,
        "phot_bp_rp_excess_factor": excess,
        "phot_g_mean_mag": np.full(n, 12.0),
        "phot_g_mean_flux_over_error": np.full(n, 500.0),
    }


def known(value: float, error: float) -> bool:
    """Whether allStar's value and error are a measurement."""
    return bool(np.isfinite(value) and value > -999 and np.isfinite(error) and error > 0)


def obvious_selection(
    apogee: dict[str, Any], gaia: dict[str, Any], spectra: set[int]
) -> tuple[dict[int, int], dict[str, int]]:
    """source_id -> row kept, and rows removed in sequence, one row and one rule at a time."""
    of_source = {int(s): k for k, s in enumerate(gaia["source_id"])}
    removed = dict.fromkeys(
        ("source", "colour_excess", "ruwe", "aspcap", "star", "extratarg", "labels", "repeats",
         "spectrum"), 0,
    )  # fmt: skip
    survivors: list[int] = []
    for row in range(ROWS):
        source = int(apogee["GAIAEDR3_SOURCE_ID"][row])
        in_gaia = of_source.get(source)
        bits = [int(apogee[name][row]) for name in ("ASPCAPFLAG", "STARFLAG", "EXTRATARG")]
        if source <= 0:
            removed["source"] += 1
        elif in_gaia is None or not gaia["phot_bp_rp_excess_factor"][in_gaia] < 3:
            removed["colour_excess"] += 1
        elif not gaia["ruwe"][in_gaia] <= 1.4:
            removed["ruwe"] += 1
        elif bits[0] < 0 or bits[0] >> 23 & 1:
            removed["aspcap"] += 1
        elif bits[1] < 0 or any(bits[1] >> bit & 1 for bit in (3, 4, 9, 12, 13, 16)):
            removed["star"] += 1
        elif bits[2] < 0 or bits[2] >> 4 & 1:
            removed["extratarg"] += 1
        elif not all(known(apogee[n.upper()][row], apogee[f"{n.upper()}_ERR"][row]) for n in SIX):
            removed["labels"] += 1
        else:
            survivors.append(row)
    best: dict[int, int] = {}
    for row in survivors:
        source = int(apogee["GAIAEDR3_SOURCE_ID"][row])
        snr = apogee["SNR"][row]
        if source in best:
            removed["repeats"] += 1
            other = apogee["SNR"][best[source]]
            if not (snr > other or (np.isnan(other) and not np.isnan(snr))):
                continue
        best[source] = row
    kept = {source: row for source, row in best.items() if source in spectra}
    removed["spectrum"] = len(best) - len(kept)
    return kept, removed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A folder with allStar.fits, gaia.fits and two files of spectra, and the tables."""
    folder = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(20)
    apogee = made_all_star(rng)
    gaia = made_gaia(apogee["GAIAEDR3_SOURCE_ID"], rng)
    Table(apogee).write(folder / "allStar.fits")
    Table(gaia).write(folder / "gaia.fits")
    ids = np.unique(apogee["GAIAEDR3_SOURCE_ID"])
    ids = ids[(ids > 0) & (rng.random(len(ids)) < 0.9)]
    spectra_of(ids[::2], folder / "one.parquet", bp_missing=np.arange(0, len(ids[::2]), 50))
    others = np.array([17, 18, 19])  # spectra that no row asks for
    spectra_of(np.concatenate([ids[1::2], others]), folder / "two.parquet")
    return folder, apogee, gaia


def select(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the verb; status and report."""
    out = folder / "training.parquet"
    status = main(
        ["select", str(folder / "one.parquet"), str(folder / "two.parquet"), "--overwrite",
         "--output", str(out), *words]
    )  # fmt: skip
    report = folder / "training.cuts.json"
    return status, json.loads(report.read_text()) if report.is_file() else {}


def test_the_selection_keeps_exactly_what_the_obvious_loop_keeps(
    made: tuple[Path, dict[str, Any], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, apogee, gaia = made
    status, report = select(
        folder, "--table", f"apogee={folder / 'allStar.fits'}", f"gaia={folder / 'gaia.fits'}"
    )
    assert status == 0
    usable = set()
    for name in ("one", "two"):
        block = read_stars(folder / f"{name}.parquet")
        whole = ~np.isnan(block.spectra.bp.coefficients).any(axis=1)
        usable |= set(block.source_id[whole].tolist())
    kept, removed = obvious_selection(apogee, gaia, usable)
    stars = read_stars(folder / "training.parquet")
    assert set(stars.source_id.tolist()) == set(kept)
    assert len(stars) > 500
    assert stars.labels is not None
    assert stars.labels.names == SIX
    for name in SIX:  # the labels are those of the row with the highest S/N
        rows = [kept[source] for source in stars.source_id.tolist()]
        assert np.array_equal(stars.labels.select([name]).values[:, 0], apogee[name.upper()][rows])
    cuts = {cut["name"]: cut for cut in report["flow"]["cuts"]}
    assert {name: cut["removed"] for name, cut in cuts.items()} == removed
    assert report["flow"]["before"] == ROWS
    assert report["flow"]["after"] == len(kept) == ROWS - sum(removed.values())
    assert report["spectra"]["of no row"] == 3
    assert report["spectra"]["given"] == sum(
        count for what, count in report["spectra"].items() if what not in ("files", "given")
    )
    told = capsys.readouterr().out
    assert "training stars: " in told
    assert "in the paper 3,845,370" in told
    assert (folder / "training.cuts.png").read_bytes()[:4] == b"\x89PNG"


def test_what_each_rule_removes_alone(
    made: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder, apogee, _ = made
    _, report = select(folder, "--table", f"apogee={folder / 'allStar.fits'}")
    cuts = {cut["name"]: cut for cut in report["flow"]["cuts"]}
    assert cuts["ruwe"]["applies"] is None  # no table of gaia was given
    assert cuts["aspcap"]["alone"] == sum(
        int(b) < 0 or int(b) >> 23 & 1 for b in apogee["ASPCAPFLAG"]
    )
    real = apogee["GAIAEDR3_SOURCE_ID"][apogee["GAIAEDR3_SOURCE_ID"] > 0]
    assert cuts["repeats"]["alone"] == len(real) - len(set(real.tolist()))
    assert report["beside_the_paper"] != []
    _, report = select(folder, "--table", f"apogee={folder / 'allStar.fits'}", "--without", "star")
    assert report["beside_the_paper"] == []  # other rules, other counts
    assert "star" not in {cut["name"] for cut in report["flow"]["cuts"]}


def test_a_selected_table_trains(made: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    """Its columns are what training reads: six labels, photometry, notes."""
    folder, *_ = made
    select(folder, "--table", f"apogee={folder / 'allStar.fits'}", f"gaia={folder / 'gaia.fits'}",
           "--labels", "teff,logg")  # fmt: skip
    stars = read_stars(folder / "training.parquet")
    assert stars.labels is not None
    assert stars.labels.names == ("teff", "logg")
    assert (stars.photometry.column("phot_g_mean_mag")[0] == 12).all()
    assert stars.photometry.column("phot_g_mean_mag")[1][0] == pytest.approx(1.0857362 / 500)


def test_without_labels_the_spectra_are_the_rows(
    made: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder, _, gaia = made
    status, report = select(folder, "--table", f"gaia={folder / 'gaia.fits'}")
    assert status == 0
    stars = read_stars(folder / "training.parquet")
    assert stars.labels is None
    good = {
        int(s)
        for s, r, e in zip(
            gaia["source_id"], gaia["ruwe"], gaia["phot_bp_rp_excess_factor"], strict=True
        )
        if r <= 1.4 and e < 3
    }
    every = [read_stars(folder / f"{name}.parquet").source_id for name in ("one", "two")]
    assert stars.source_id.tolist() == [s for ids in every for s in ids.tolist() if s in good]
    assert report["flow"]["before"] == sum(map(len, every))
    assert report["flow"]["after"] == len(stars)


def test_two_surveys_on_one_scale(tmp_path: Path) -> None:
    """The second is 100 K hotter and has stars of its own; labels come from the first that has."""
    rng = np.random.default_rng(3)
    ids = np.arange(1, 401)
    teff = rng.uniform(4000, 6000, 400)
    first = {"source_id": ids[:250], "teff": teff[:250] + rng.normal(0, 20, 250),
             "teff_err": np.full(250, 20.0)}  # fmt: skip
    second = {"source_id": ids[150:], "teff": teff[150:] + 100 + rng.normal(0, 40, 250),
              "teff_err": np.full(250, 40.0), "logg": np.full(250, 4.0),
              "logg_err": np.full(250, 0.1)}  # fmt: skip
    for name, columns in (("first", first), ("second", second)):
        Table(columns).write(tmp_path / f"{name}.csv", format="ascii.csv")
    spectra_of(ids, tmp_path / "one.parquet")
    spectra_of(ids + 1000, tmp_path / "two.parquet")
    tables = ("--table", f"first={tmp_path / 'first.csv'}", f"second={tmp_path / 'second.csv'}")
    status, report = select(tmp_path, *tables)
    assert status == 0
    (offset,) = report["offsets"]
    assert (offset["survey"], offset["reference"], offset["label"]) == ("second", "first", "teff")
    assert offset["common"] == 100
    assert abs(offset["value"] - 100) < 4 * offset["error"]
    assert offset["error"] == pytest.approx(1.2533 * np.hypot(20, 40) / 10, rel=0.3)
    assert offset["pull"] == pytest.approx(1, abs=0.3)
    stars = read_stars(tmp_path / "training.parquet")
    assert stars.labels is not None
    got = dict(zip(stars.source_id.tolist(), stars.labels.values, strict=True))
    assert len(got) == 400
    assert got[1][0] == pytest.approx(first["teff"][0])
    assert np.isnan(got[1][1])
    assert got[200][0] == pytest.approx(first["teff"][199])
    assert got[200][1] == 4.0
    assert got[400][0] == pytest.approx(second["teff"][-1] - offset["value"])
    cuts = {cut["name"]: cut for cut in report["flow"]["cuts"]}
    assert cuts["merged"]["removed"] == 100
    _, report = select(tmp_path, *tables, "--offsets", "none")
    assert report["offsets"] == []


def test_a_survey_that_nothing_ties_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, first in (("a", 1), ("b", 31)):
        columns = {"source_id": np.arange(first, first + 40), "teff": np.full(40, 5000.0),
                   "teff_err": np.full(40, 50.0)}  # fmt: skip
        Table(columns).write(tmp_path / f"{name}.csv", format="ascii.csv")
    spectra_of(np.arange(1, 80), tmp_path / "one.parquet")
    spectra_of(np.arange(100, 120), tmp_path / "two.parquet")
    status, _ = select(tmp_path, "--table", f"a={tmp_path / 'a.csv'}", f"b={tmp_path / 'b.csv'}")
    assert status == 2
    assert "fewer than 20 stars with teff in common" in capsys.readouterr().err
    assert not (tmp_path / "training.parquet").exists()
    assert not (tmp_path / "training.cuts.json").exists()


def test_wise_of_one_scale_fills_gaps(tmp_path: Path) -> None:
    """AllWISE stands in where unWISE has nothing, band by band."""
    ids = np.arange(1, 4)
    unwise = {"source_id": ids, "flux_w1": [1e4, 1e4, -1.0], "dflux_w1": [10.0] * 3,
              "flux_w2": [1e4, 1.0, 1.0], "dflux_w2": [10.0] * 3}  # fmt: skip
    allwise = {"source_id": ids, "w1mpro": [9.0, 9.0, 9.0], "w1sigmpro": [0.02] * 3,
               "w2mpro": [8.0, 8.0, 8.0], "w2sigmpro": [0.02] * 3}  # fmt: skip
    for name, columns in (("unwise", unwise), ("allwise", allwise)):
        Table(columns).write(tmp_path / f"{name}.csv", format="ascii.csv")
    spectra_of(ids, tmp_path / "one.parquet")
    spectra_of(ids + 10, tmp_path / "two.parquet")
    status, report = select(
        tmp_path, "--table", f"unwise={tmp_path / 'unwise.csv'}",
        f"allwise={tmp_path / 'allwise.csv'}",
        "--rule", "wise=photometry has w1mpro, w2mpro",
    )  # fmt: skip
    assert status == 0
    stars = read_stars(tmp_path / "training.parquet")
    w1, w2 = (stars.photometry.column(band)[0] for band in ("w1mpro", "w2mpro"))
    assert w1 == pytest.approx([12.496, 12.496, 9.0])
    assert w2 == pytest.approx([12.468, 8.0, 8.0])
    assert report["known"]["w1mpro"] == 3
    assert report["flow"]["cuts"][-1]["removed"] == 3  # the stars of the other file


# --- rules and flow -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gaia.ruwe", "is no rule"),
        ("gaia.ruwe <= many", "'many' is no number"),
        ("gaia.ruwe <= nan", "is not finite"),
        ("apogee.starflag lacks LOW_SNRR", "has no bit 'LOW_SNRR'"),
        ("gaia.flag lacks LOW", "has no bit 'LOW'"),
        ("labels has age", "labels have no 'age'"),
        ("photometry has J", "photometry have no 'J'"),
    ],
)
def test_a_wrong_rule_is_told(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_rule("x", text)


@given(
    st.lists(st.floats(-5, 5) | st.just(np.nan), min_size=1, max_size=20),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.floats(-5, 5),
    st.booleans(),
)
def test_comparisons(values: list[float], relation: str, bound: float, missing: bool) -> None:
    rule = parse_rule("x", f"gaia.ruwe {relation} {bound!r}" + " or missing" * missing)
    obvious: dict[str, Callable[[float], bool]] = {
        "<": lambda v: v < bound, "<=": lambda v: v <= bound, ">": lambda v: v > bound,
        ">=": lambda v: v >= bound, "==": lambda v: v == bound, "!=": lambda v: v != bound,
    }  # fmt: skip
    expected = [missing if np.isnan(v) else obvious[relation](v) for v in values]
    assert rule.condition.passes(np.array(values)).tolist() == expected


@given(
    st.lists(st.integers(-1, 2**45), min_size=1),
    st.sets(st.integers(0, 44), min_size=1),
    st.booleans(),
)
def test_bits(values: list[int], bits: set[int], missing: bool) -> None:
    listed = ", ".join(map(str, bits))
    rule = parse_rule("x", f"mine.flag lacks {listed}" + " or missing" * missing)
    expected = [missing if v < 0 else not any(v >> b & 1 for b in bits) for v in values]
    assert rule.condition.passes(np.array(values, np.int64)).tolist() == expected


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.lists(
            st.tuples(
                st.lists(st.booleans(), min_size=n, max_size=n),
                st.lists(st.booleans(), min_size=n, max_size=n),
            ),
            min_size=1,
            max_size=5,
        )
    )
)
def test_the_flow_adds_up(rules: list[tuple[list[bool], list[bool]]]) -> None:
    n = len(rules[0][0])
    verdicts = [("r", "text", np.array(a), np.array(p)) for a, p in rules]
    keep, flow = count(n, [*verdicts, ("absent", "text", None, None)])
    obvious = [all(p[k] or not a[k] for a, p in rules) for k in range(n)]
    assert keep.tolist() == obvious
    assert flow.after == sum(obvious)
    assert [cut.alone for cut in flow.cuts[:-1]] == [
        sum(a[k] and not p[k] for k in range(n)) for a, p in rules
    ]
    assert flow.cuts[-1].applies is None
    together: CutFlow = flow + flow
    assert together.after == 2 * flow.after
    assert together.to_dict()["cuts"][-1]["remaining"] == together.after


def test_rules_files(tmp_path: Path) -> None:
    default = load_rules()
    assert [rule.name for rule in default] == [
        "colour_excess", "ruwe", "aspcap", "star", "extratarg", "labels",
    ]  # fmt: skip
    changed = load_rules(None, ["ruwe=gaia.ruwe <= 1.2", "new=labels has teff"], ["star"])
    assert [rule.name for rule in changed] == [
        "colour_excess", "ruwe", "aspcap", "extratarg", "labels", "new",
    ]  # fmt: skip
    assert changed[1].text == "gaia.ruwe <= 1.2"
    path = tmp_path / "rules.toml"
    for text, said in (
        ("[rules]\na = 'gaia.ruwe < 2'\n[more]\n", "unknown key 'more'"),
        ("a = 1\n", "unknown key 'a'"),
        ("[rules]\na = 1\n", "is not text"),
        ("[rules\n", "is not TOML"),
        ("", r"no table \[rules\]"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            load_rules(path)
    with pytest.raises(InputError, match="no rule 'sttar' to leave out"):
        load_rules(None, (), ["sttar"])
    with pytest.raises(InputError, match="is no rule"):
        load_rules(None, ["gaia.ruwe <= 1.2"])


def test_a_rule_on_a_table_that_nobody_knows(
    made: tuple[Path, dict[str, Any], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, *_ = made
    words = ("--table", f"gaia={folder / 'gaia.fits'}")
    status, _ = select(folder, *words, "--rule", "r=gaai.ruwe < 1")
    assert status == 2
    assert "asks for 'gaai', of which no table is given" in capsys.readouterr().err
    status, _ = select(folder, *words, "--rule", "r=gaia.radius < 1")
    assert status == 2
    assert "column 'radius', which a rule asks for, is absent" in capsys.readouterr().err
    status, _ = select(folder, *words, "--rule", "ruwe=gaia.ruwe < 0")
    assert status == 2
    assert "no star is left" in capsys.readouterr().err
