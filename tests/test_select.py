"""Selection: exactly the rows that a slow, obvious loop keeps, and surveys on one scale."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from survey_tables import select, spectra_of
from xplabels.cli import main
from xplabels.core.labels import LABELS
from xplabels.io import read_stars, write_stars
from xplabels.synthetic import simulate_stars

ROWS = 10_000
SIX = tuple(LABELS)
NORMAL = {"teff": 4800, "logg": 2.5, "fe_h": -0.2, "c_fe": 0.1, "n_fe": 0.2, "alpha_m": 0.05}
ASPCAP_BITS = (*range(15), *range(16, 37), 40, 41)
STAR_BITS = (0, 1, 2, 3, 4, 9, 10, 11, 12, 13, *range(16, 26))
Made = tuple[Path, dict[str, Any], dict[str, Any]]
"""A folder with tables and spectra; the columns of allStar and of gaia_source."""


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
    in_gaia = {int(s): k for k, s in enumerate(gaia["source_id"])}

    def bad(name: str, row: int, *bits: int) -> bool:
        mask = int(apogee[name][row])
        return mask < 0 or any(mask >> bit & 1 for bit in bits)

    rules: dict[str, Callable[[int, int], bool]] = {
        "source": lambda row, source: source > 0,
        "colour_excess": lambda row, source: (
            source in in_gaia and gaia["phot_bp_rp_excess_factor"][in_gaia[source]] < 3
        ),
        "ruwe": lambda row, source: gaia["ruwe"][in_gaia[source]] <= 1.4,
        "aspcap": lambda row, source: not bad("ASPCAPFLAG", row, 23),
        "star": lambda row, source: not bad("STARFLAG", row, 3, 4, 9, 12, 13, 16),
        "extratarg": lambda row, source: not bad("EXTRATARG", row, 4),
        "labels": lambda row, source: all(
            known(apogee[name][row], apogee[f"{name}_ERR"][row]) for name in map(str.upper, SIX)
        ),
    }
    removed = dict.fromkeys([*rules, "repeats", "spectrum"], 0)
    best: dict[int, int] = {}
    for row, source in enumerate(apogee["GAIAEDR3_SOURCE_ID"].tolist()):
        failed = next((name for name, passes in rules.items() if not passes(row, source)), None)
        if failed is not None:
            removed[failed] += 1
            continue
        if source in best:
            removed["repeats"] += 1
            snr, other = apogee["SNR"][[row, best[source]]]
            if not (snr > other or (np.isnan(other) and not np.isnan(snr))):
                continue
        best[source] = row
    kept = {source: row for source, row in best.items() if source in spectra}
    removed["spectrum"] = len(best) - len(kept)
    return kept, removed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
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


def test_the_selection_keeps_exactly_what_the_obvious_loop_keeps(
    made: Made, capsys: pytest.CaptureFixture[str]
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
    assert stars.labels.names == SIX
    for name in SIX:  # the labels are those of the row with the highest S/N
        rows = [kept[source] for source in stars.source_id.tolist()]
        assert np.array_equal(stars.labels.select([name]).values[:, 0], apogee[name.upper()][rows])
    assert (stars.photometry.column("phot_g_mean_mag")[0] == 12).all()
    assert stars.photometry.column("phot_g_mean_mag")[1][0] == pytest.approx(1.0857362 / 500)
    assert {cut["name"]: cut["removed"] for cut in report["flow"]["cuts"]} == removed
    assert report["flow"]["before"] == ROWS
    assert report["flow"]["after"] == len(kept) == ROWS - sum(removed.values())
    assert report["spectra"]["of no row"] == 3
    assert report["spectra"]["given"] == sum(
        count for what, count in report["spectra"].items() if what not in ("files", "given")
    )
    shown = capsys.readouterr().out
    assert "training stars: " in shown
    assert "in the paper 3,845,370" in shown
    assert (folder / "training.cuts.png").read_bytes()[:4] == b"\x89PNG"


def test_what_each_rule_removes_alone(made: Made) -> None:
    folder, apogee, _ = made
    table = ("--table", f"apogee={folder / 'allStar.fits'}", "--labels", "teff,logg")
    _, report = select(folder, *table)
    stars = read_stars(folder / "training.parquet")
    assert stars.labels.names == ("teff", "logg")
    cuts = {cut["name"]: cut for cut in report["flow"]["cuts"]}
    assert cuts["ruwe"]["applies"] is None  # no table of gaia was given
    assert cuts["aspcap"]["alone"] == sum(
        int(b) < 0 or int(b) >> 23 & 1 for b in apogee["ASPCAPFLAG"]
    )
    real = apogee["GAIAEDR3_SOURCE_ID"][apogee["GAIAEDR3_SOURCE_ID"] > 0]
    assert cuts["repeats"]["alone"] == len(real) - len(set(real.tolist()))
    assert report["beside_the_paper"] != []
    _, report = select(folder, *table, "--without", "star")
    assert report["beside_the_paper"] == []  # other rules, other counts
    assert "star" not in {cut["name"] for cut in report["flow"]["cuts"]}


def test_without_labels_the_spectra_are_the_rows(made: Made) -> None:
    folder, _, gaia = made
    status, report = select(folder, "--table", f"gaia={folder / 'gaia.fits'}")
    assert status == 0
    stars = read_stars(folder / "training.parquet")
    assert stars.labels is None
    good = gaia["source_id"][(gaia["ruwe"] <= 1.4) & (gaia["phot_bp_rp_excess_factor"] < 3)]
    every = [read_stars(folder / f"{name}.parquet").source_id for name in ("one", "two")]
    assert stars.source_id.tolist() == [s for ids in every for s in ids[np.isin(ids, good)]]
    assert report["flow"]["before"] == sum(map(len, every))
    assert report["flow"]["after"] == len(stars)


def test_wise_of_one_scale_fills_gaps(tmp_path: Path) -> None:
    """AllWISE fills in where unWISE has nothing, band by band."""
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


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("r=gaai.ruwe < 1", "asks for 'gaai', of which no table is given"),
        ("r=gaia.radius < 1", "leave the rule out (--without r)"),
        ("ruwe=gaia.ruwe < 0", "no star is left of "),
    ],
)
def test_rules_that_keep_nothing(
    rule: str, said: str, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, *_ = made
    status, _ = select(folder, "--table", f"gaia={folder / 'gaia.fits'}", "--rule", rule)
    assert status == 2
    assert said in capsys.readouterr().err


class Killed(BaseException):
    """What no code under test catches."""


@pytest.mark.parametrize("outputs", range(3))
def test_a_killed_selection_is_made_by_the_same_command(
    outputs: int, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of its outputs were there already; the table is the last of them."""
    output = tmp_path / "training.parquet"
    words = ["select", str(made[0] / "one.parquet"), "--output", str(output)]
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if not target.name.startswith(".") and len(visible(tmp_path)) == outputs:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(Killed):
            main(words)
    names = ["training.cuts.json", "training.cuts.png", "training.parquet"]
    assert visible(tmp_path) == names[:outputs]
    assert main(words) == 0
    assert visible(tmp_path) == names
    assert json.loads((tmp_path / names[0]).read_text())["flow"]["after"] == len(read_stars(output))
    assert main(words) == 2  # it is complete now


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# --- several surveys ------------------------------------------------------------------------


def test_two_surveys_on_one_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is 100 K hotter and has stars of its own; labels come from the first that has."""
    rng = np.random.default_rng(3)
    spectra = simulate_stars(400, labels=("teff",), widths=(6, 5), noise=5.0, seed=2)[0]
    ids = spectra.source_id
    write_stars(spectra.with_labels(None), tmp_path / "one.parquet")
    spectra_of(np.arange(5, 9), tmp_path / "two.parquet", widths=(6, 5))
    teff = rng.uniform(4000, 6000, 400)
    first = {"source_id": ids[:250], "teff": teff[:250] + rng.normal(0, 20, 250),
             "teff_err": np.full(250, 20.0)}  # fmt: skip
    second = {"source_id": ids[150:], "teff": teff[150:] + 100 + rng.normal(0, 40, 250),
              "teff_err": np.full(250, 40.0), "logg": np.full(250, 4.0),
              "logg_err": np.full(250, 0.1)}  # fmt: skip
    for name, columns in (("first", first), ("second", second)):
        Table(columns).write(tmp_path / f"{name}.csv", format="ascii.csv")
    tables = ("--table", f"first={tmp_path / 'first.csv'}", f"second={tmp_path / 'second.csv'}")
    status, report = select(tmp_path, *tables)
    assert status == 0
    (offset,) = report["offsets"]
    assert (offset["survey"], offset["reference"], offset["label"]) == ("second", "first", "teff")
    assert offset["common"] == 100
    assert abs(offset["value"] - 100) < 4 * offset["error"]
    assert offset["error"] == pytest.approx(1.2533 * np.hypot(20, 40) / 10, rel=0.3)
    assert offset["pull"] == pytest.approx(1, abs=0.3)
    note = f"second minus first, teff: {offset['value']:.4g} +- "
    assert note in capsys.readouterr().out
    stars = read_stars(tmp_path / "training.parquet")
    assert sorted(stars.source_id) == sorted(ids)
    values = stars.labels.values[[list(stars.source_id).index(ids[k]) for k in (0, 199, 399)]]
    expected = [
        [first["teff"][0], np.nan],
        [first["teff"][199], 4],
        [second["teff"][249] - offset["value"], 4],
    ]
    np.testing.assert_allclose(values, expected)
    cuts = {cut["name"]: cut for cut in report["flow"]["cuts"]}
    assert cuts["merged"]["removed"] == 100
    assert note in " ".join(stars.notes)  # a model's provenance is made of these
    _, report = select(tmp_path, *tables, "--offsets", "none")
    assert report["offsets"] == []


def test_a_survey_with_few_common_stars_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``b`` shares 10 stars with ``a``; a third that shares 30 with both ties it."""
    for name, first in (("a", 1), ("b", 31), ("c", 11)):
        columns = {"source_id": np.arange(first, first + 40), "teff": np.full(40, 5000.0 + first),
                   "teff_err": np.full(40, 50.0)}  # fmt: skip
        Table(columns).write(tmp_path / f"{name}.csv", format="ascii.csv")
    spectra_of(np.arange(1, 80), tmp_path / "one.parquet")
    spectra_of(np.arange(100, 120), tmp_path / "two.parquet")
    a, b, c = (f"{name}={tmp_path / name}.csv" for name in "abc")
    assert select(tmp_path, "--table", a, b) == (2, {})
    assert "fewer than 20 stars with teff in common" in capsys.readouterr().err
    assert not (tmp_path / "training.parquet").exists()
    status, report = select(tmp_path, "--table", a, b, c)
    assert status == 0
    offsets = {one["survey"]: (one["value"], one["common"]) for one in report["offsets"]}
    assert offsets["b"] == (pytest.approx(30), 0)
    assert offsets["c"] == (pytest.approx(10), 30)
    assert report["offsets"][0]["scatter"] is None
