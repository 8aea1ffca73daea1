"""The pages on training tables show what exists, and the worked example runs on a made archive."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from services.http import DataLinkService
from services.made import MadeArchive, made_archive
from services.tap import TapService
from sky import as_rows
from xplabels.cli import main
from xplabels.cuts.rules import load_rules, parse_rule
from xplabels.io import read_stars
from xplabels.io.parquet import write_stars
from xplabels.model import Model
from xplabels.releases import load_release
from xplabels.surveys import SURVEYS
from xplabels.synthetic import simulate_stars

DOCS = Path(__file__).parents[1] / "docs"
TEXT, PAGE = ((DOCS / f"training_{name}.md").read_text() for name in ("set", "table"))
COMMANDS = re.findall(r"^\$ (xplabels .+)$", TEXT, re.MULTILINE)
ALL_STAR = "allStar-dr17-synspec_rev1.fits"
NORMAL = {"TEFF": 4800, "LOGG": 2.5, "FE_H": -0.2, "C_FE": 0.1, "N_FE": 0.2, "ALPHA_M": 0.05}
STARS = 1000


def test_the_tables_are_those_that_are_asked_for() -> None:
    release = load_release("dr3")
    for product in release.products:
        for table in release.tables_of(product):
            assert f"`{table.name}`" in TEXT


def test_the_default_rules_are_listed() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.+)` \|$", PAGE, re.MULTILINE))
    assert rows == {rule.name: rule.text for rule in load_rules()}


def test_the_rules_in_the_text_are_rules() -> None:
    rules = dict(re.findall(r"--rule '(\w+)=([^']+)'", PAGE))
    assert {parse_rule(name, text).name for name, text in rules.items()} == {"clean", "light"}


def test_the_surveys_listed_are_those_there_are() -> None:
    table = PAGE.split("## Tables")[1].split("\n\n")[2]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == set(SURVEYS)


def with_real_shapes(made: MadeArchive) -> MadeArchive:
    """The made archive with spectra that a network can be trained on."""
    simulated = simulate_stars(len(made.spectra.source_id), widths=(6, 5), noise=5.0, seed=2)[0]
    rows = as_rows(replace(simulated, source_id=np.array(made.spectra.source_id)))
    return MadeArchive(rows, made.tables)


def all_star(made: MadeArchive, path: Path) -> np.ndarray:
    """A file like allStar, with one star in two fields and some without Gaia; true: bad star."""
    rng = np.random.default_rng(4)
    ids = np.concatenate([made.ids, made.ids[:1], [0, -1]])
    bad = rng.random(len(ids)) < 0.2
    columns = {
        "APOGEE_ID": np.array([f"2M{k:08d}" for k in range(len(ids))]),
        "GAIAEDR3_SOURCE_ID": ids,
        "SNR": rng.uniform(50, 500, len(ids)),
        "ASPCAPFLAG": np.where(bad, 1 << 23, 0),
        "STARFLAG": np.zeros(len(ids), np.int64),
        "EXTRATARG": np.zeros(len(ids), np.int64),
    }
    for name, value in NORMAL.items():
        columns[name] = value * (1 + 0.1 * rng.normal(size=len(ids)))
        columns[f"{name}_ERR"] = np.full(len(ids), 0.05)
    Table(columns).write(path)
    return bad


def test_fetch_select_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = with_real_shapes(made_archive(STARS))
    bad = all_star(made, tmp_path / ALL_STAR)
    Path("quick.toml").write_text(
        "hidden = [8]\nepochs = 2\nbatch_size = 64\nflux_samples = 0\nreddening = 0.0\n"
    )
    with TapService(made.tables) as tap, DataLinkService(made.spectra) as datalink:
        more = {
            "fetch": f"--tap {tap.address} --datalink {datalink.address}",
            "train": "--recipe quick.toml",
        }
        for command in COMMANDS[:3]:
            words = shlex.split(f"{command} {more.get(command.split()[1], '')}")
            assert main(words[1:]) == 0, command

    counts = json.loads(Path("dr17/fetch.json").read_text())["counts"]
    assert counts["gaia_source"]["received"] == STARS
    assert counts["xp"]["received"] == len(made.spectra.source_id)

    source = made.tables["gaiadr3.gaia_source"]
    good = {  # the first star has two rows: one good one is enough
        one for one, wrong in zip([*made.ids, made.ids[0]], bad, strict=False) if not wrong
    }
    expected = {
        one
        for row, one in enumerate(source["source_id"])
        if one in good
        and source["ruwe"][row] <= 1.4
        and source["phot_bp_rp_excess_factor"][row] < 3
        and source["has_xp_continuous"][row]
    }
    stars = read_stars(Path("training.parquet"))
    assert sorted(stars.source_id) == sorted(expected)
    assert 0 < np.isfinite(stars.photometry.column("h_m")[0]).sum() < len(stars)
    assert 0 < np.isfinite(stars.photometry.column("w2mpro")[0]).sum() < len(stars)
    assert Model.load("MODEL").names == ("teff", "logg", "fe_h", "c_fe", "n_fe", "alpha_m")


def test_one_command_trains_with_c_and_n_where_all_star_has_them(tmp_path, monkeypatch) -> None:
    """A table of spectra and allStar as published: the command of docs/carbon-nitrogen.md."""
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "carbon-nitrogen.md").read_text()
    command = re.search(r"^\$ (xplabels train .+)$", page, re.MULTILINE)[1]
    stars = simulate_stars(
        1500, labels=[name.lower() for name in NORMAL], widths=(6, 5), noise=5.0, seed=3
    )[0]
    write_stars(stars.with_labels(None), Path("library.parquet"))
    columns = {"GAIAEDR3_SOURCE_ID": np.concatenate([stars.source_id, stars.source_id[:5], [-1]])}
    rows = np.append(np.arange(len(stars)), [0, 1, 2, 3, 4, 0])
    columns["SNR"] = np.append(np.full(len(stars), 100.0), [50.0] * 6)
    without = np.random.default_rng(2).random(len(rows)) > 0.35
    for k, name in enumerate(stars.labels.names):
        values, errors = stars.labels.values[rows, k], stars.labels.errors[rows, k]
        values[len(stars) :] += 0.5  # rows of lower S/N do not count
        if name in ("c_fe", "n_fe"):
            values[without] = -9999.99
        columns |= {name.upper(): values, f"{name.upper()}_ERR": errors}
    Table(columns).write(ALL_STAR)
    Path("quick.toml").write_text(
        "hidden = [8]\nepochs = 3\nbatch_size = 64\nflux_samples = 0\nreddening = 0.0\n"
        "calibration_folds = 0\nforward = false\nsparse_share = 0.5\nsparse_epochs = 5\n"
    )
    assert main(shlex.split(f"{command} --recipe quick.toml")[1:]) == 0
    model = Model.load("MODEL")
    assert model.names == ("teff", "logg", "fe_h", "c_fe", "n_fe", "alpha_m")
    assert model.common_names == ("teff", "logg", "fe_h", "alpha_m")
    counts = dict(zip(model.names, model.metadata["training"]["n_per_label"], strict=True))
    assert counts["teff"] > 1100
    assert 0.25 < counts["c_fe"] / counts["teff"] < 0.45
    assert counts["c_fe"] == counts["n_fe"]


def test_a_survey_without_these_stars_is_refused(tmp_path, capsys) -> None:
    stars = simulate_stars(40, widths=(6, 5), seed=3)[0]
    write_stars(stars, tmp_path / "stars.parquet")
    one = {name: [value] for name, value in NORMAL.items()}
    errors = {f"{name}_ERR": [0.05] for name in NORMAL}
    Table({"GAIAEDR3_SOURCE_ID": [7], **one, **errors}).write(tmp_path / "allStar.fits")
    table = f"apogee={tmp_path / 'allStar.fits'}"
    words = ["train", str(tmp_path / "stars.parquet"), "--label-table", table]
    assert main([*words, "--output", str(tmp_path / "MODEL")]) != 0
    assert "shares no source_id with the stars" in capsys.readouterr().err
